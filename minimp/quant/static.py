"""Static quantisation: a calibrated model becomes one that works on codes, with integers alone in between.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (arXiv 1712.05877), section 2. The record of a forward says what goes into what; walked in order,
it gives each module the scales of what comes in, and shows every op that would meet codes and cannot.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minimp.errors import MinimpError, SettingError, unknown_name
from minimp.nn import ModuleList
from minimp.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.calibration import Calibrated, Calibration, Progress, calibrate, check_floats, sites
from minimp.quant.fusion.flow import Call, Flow, hooked
from minimp.quant.modules import DeQuantize, FloatIsland, Quantize, QuantizedModule
from minimp.quant.modules.conversions import CONVERSIONS, Conversion, Place, known
from minimp.quant.modules.layers import MODES
from minimp.quant.modules.stubs import COMPUTES, DeQuantStub, QuantStub
from minimp.quant.modules.tables import fixed_output
from minimp.quant.observers import Observer, PerChannelMinMaxObserver
from minimp.quant.qtensor import QTensor
from minimp.tensors import Tensor

__all__ = ["Calibration", "Progress", "StaticModel", "calibrate", "channel_weights", "convert", "walked"]

OP = "convert"


def channel_weights() -> Observer:
    """Return an observer for weights: int8, symmetric, one scale a channel (torch's default for qnnpack)."""
    return PerChannelMinMaxObserver(quant_min=-128, quant_max=127, symmetric=True)


class StaticModel(Module):
    """A model on codes that takes and gives floats: codes at the start, floats at the end, once each.

    Attributes:
        quantize: a Quantize for each floating input.
        model: the model on codes.
        dequantize: for what it gives, also in tuples, lists and dicts.
    """

    def __init__(self, quantize: Iterable[Quantize], model: Module) -> None:
        super().__init__()
        self.quantize, self.model, self.dequantize = ModuleList(quantize), model, DeQuantize()
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        """Return the model's results in floats."""
        codes = (quantize(x) for quantize, x in zip(self.quantize, inputs, strict=True))
        return self._floats(self.model(*codes))

    def _floats(self, result: Any) -> Any:
        if isinstance(result, dict):
            return {name: self._floats(each) for name, each in result.items()}
        if isinstance(result, tuple | list):
            return type(result)(map(self._floats, result))
        return self.dequantize(result) if isinstance(result, QTensor) else result


def convert(
    model: Module, calibration: Calibration | None = None, *,
    weight: Callable[[], Observer] = channel_weights, mode: str = "float",
    keep_float: Iterable[str] | Mapping[str, str] = (),
) -> Module:  # fmt: skip
    """Return a copy of a model that works on codes: int8 products, int32 sums, one rounding a layer.

    Where the model has QuantStub and DeQuantStub, codes are between them. Without a QuantStub the whole model
    is on codes, from its inputs to its results (:class:`StaticModel`).

    Args:
        model: the model that was calibrated, or one that :func:`minimp.quant.qat.prepare_qat` made; it stays
            as it is.
        calibration: what :func:`calibrate` returned; None for a prepared model, whose scales were trained.
        weight: makes an observer for a weight; not for a prepared model.
        mode: ``"float"`` (QNNPACK's rounding) or ``"fixed-point"`` (gemmlowp's and TFLite's, no float at
            all), see :mod:`minimp_backends.requantizing`.
        keep_float: paths of modules without children that stay in floats, between a DeQuantize and a
            Quantize of their own (:class:`~minimp.quant.modules.FloatIsland`); or path -> what the module
            computes in: ``"float32"``, ``"float16"``, or ``"int8"`` for one that does not stay. Not for a
            prepared model, which was told when it was prepared.

    Raises:
        SettingError: a module that has no integer form, or an op outside of modules, that would meet codes;
            a layer that was never observed; another model than the one calibrated, or its weights changed; a
            model on codes already; hooks, which would see other values; unknown paths or modes; a float model
            without a calibration, or a prepared one with one.
        DataError: NaN or infinities in a weight.
    """
    if isinstance(model, Calibrated):
        _check_alone(model, calibration, weight, keep_float)
        model, calibration, keep_float = model.calibrated()
    elif calibration is None:
        raise SettingError(
            "scales are needed: expected a calibration, or a model that was trained with fake quantisation",
            op=OP, help="convert(model, calibrate(model, loader)), or convert(prepare_qat(...)) once trained",
        )  # fmt: skip
    walk = walked(model, calibration, weight=weight, mode=mode, keep_float=keep_float)
    made = copy.deepcopy(model)
    for path, module in walk.made.items():
        if path:
            made.set_submodule(path, module)
        else:
            made = module
    if not walk.stubs:
        made = StaticModel([Quantize(each.affine()) for each in calibration.inputs], made)
    return made.eval()


def _check_alone(model: Module, calibration: Any, weight: Any, keep_float: Any) -> None:
    """Refuse what a model with scales of its own has no use for."""
    given = {
        "calibration": calibration is not None, "weight": weight is not channel_weights,
        "keep_float": bool(keep_float),
    }  # fmt: skip
    for name, there in given.items():
        if there:
            raise SettingError(
                f"a {type(model).__name__} has its scales from training: {name} cannot act", op=OP,
                help="convert(model); what it is made of was said to prepare_qat",
            )  # fmt: skip


def walked(
    model: Module, calibration: Calibration, *, weight: Callable[[], Observer] = channel_weights,
    mode: str = "float", keep_float: Iterable[str] | Mapping[str, str] = (),
) -> Walk:  # fmt: skip
    """Return what would stand where on codes; arguments and errors are those of :func:`convert`."""
    if mode not in MODES:
        raise SettingError(unknown_name("mode", mode, MODES), op=OP)
    _check_model(model, calibration)
    walk = Walk(calibration, weight, mode, _kept(model, keep_float))
    walk.run()
    return walk


class Walk:
    """The record of a forward, walked in order with the numbers of every array that is codes.

    Attributes:
        affines: id of an array -> the numbers of its codes; the record keeps the arrays alive.
        made: path -> what is to stand there.
        places: path -> the numbers that come in and go out there; of several paths of a module the first.
        stubs: whether the model marks with QuantStub where codes begin.
    """

    def __init__(
        self, calibration: Calibration, weight: Callable[[], Observer], mode: str, keep: Mapping[str, str]
    ) -> None:
        self.calibration, self.flow = calibration, calibration.flow
        self.weight, self.mode, self.keep = weight, mode, keep
        self.affines: dict[int, Affine] = {}
        self.made: dict[str, Module] = {}
        self.places: dict[str, Place] = {}
        self.sites = sites(self.flow)
        self.stubs = any(type(each.module) is QuantStub for each in self.sites)

    def run(self) -> None:
        """Convert every module that codes reach, and refuse what would meet them and cannot."""
        if not self.stubs:
            for x, observer in zip(_model_inputs(self.flow), self.calibration.inputs, strict=True):
                self.affines[id(x.array)] = observer.affine()
        for call in self.sites:
            self._visit(call)
        self._check_ops()
        self._check_reached()

    def _visit(self, call: Call) -> None:
        """Convert the module of one call, if what comes in are codes."""
        path, kind = self.flow.paths[id(call.module)][0], type(call.module)
        codes = [self.affines.get(id(each.array)) for each in call.inputs]
        if kind is not QuantStub and not any(codes):
            return
        row = CONVERSIONS.get(kind)
        kept = path in self.keep
        if row is None and not kept:
            raise SettingError(
                f"'{path}' is a {kind.__name__}, which has no integer form, and codes come in", op=OP,
                help=_advice(kind),
            )  # fmt: skip
        inputs = tuple(each for each in codes if each is not None)
        if kind is QuantStub and inputs:
            raise SettingError(
                f"'{path}' would quantise what are codes already", op=OP,
                help="leave out one QuantStub, or put a DeQuantStub between",
            )  # fmt: skip
        wanted = len(codes) if row is None or kept or row.inputs is None else row.inputs
        if len(inputs) != wanted:
            words = f"{len(inputs)} inputs in codes and {len(codes) - len(inputs)} in floats"
            raise SettingError(
                f"'{path}' ({kind.__name__}) takes {wanted} in codes, and gets {words}", op=OP,
                help="put a QuantStub where the floats come from",
            )  # fmt: skip
        keeps = row is not None and row.keeps and not kept
        output = inputs[0] if keeps else self.calibration.affine(path)
        output = output if kept else fixed_output(kind, output)
        self._place(path, call, row, Place(inputs, output, self._weight_of(path), self.mode))
        if kind is not DeQuantStub:
            self.affines.update({id(each.array): output for each in call.outputs})

    def _weight_of(self, path: str) -> Callable[[], Observer]:
        """Return what makes an observer for a module's weight: its own, if the calibration has one."""
        known = self.calibration.weights.get(path)
        return self.weight if known is None else lambda: known

    def _place(self, path: str, call: Call, row: Conversion | None, place: Place) -> None:
        """Build what is to stand at the paths of a module; one that runs again must see the same numbers."""
        first = self.places.setdefault(path, place)
        if row is not None and not row.keeps and first.inputs != place.inputs:
            raise SettingError(
                f"'{path}' runs twice, on codes of {first.inputs[0]} and of {place.inputs[0]}", op=OP,
                help="a layer has one scale for what comes in: give each place a layer of its own",
            )  # fmt: skip
        if path in self.made:
            return
        try:
            built = self._built(path, call.module, row, place)
        except MinimpError as fault:
            text = str(fault).partition("\n")[0]
            raise type(fault)(f"'{path}': {text}", op=OP, help=fault.help) from fault
        for each in self.flow.paths[id(call.module)]:
            self.made[each] = built

    def _built(self, path: str, module: Module, row: Conversion | None, place: Place) -> Module:
        """Return the module on codes."""
        if path in self.keep or row is None:
            compute = self.keep.get(path, "float32")
            built: Module = FloatIsland(copy.deepcopy(module), place.output, compute)
        else:
            built = row.build(module, place)
        for each in built.modules():
            if isinstance(each, QuantizedModule):
                each.path = path
        return built

    def _check_ops(self) -> None:
        """Refuse ops outside of converted modules that read what are codes now."""
        inside = {id(each) for each in self.sites}
        for step in self.flow.steps:
            codes = any(id(each) in self.affines for each in step.event.inputs)
            if codes and not any(id(call) in inside for call in step.inside):
                raise SettingError(
                    f"{self.flow.spelled(step)} is an op on floats, and codes come in", op=OP,
                    help="make it a module that has an integer form (mp.quant.modules.Add, nn.ReLU, "
                    "nn.Flatten, ...), or end the codes before it with a DeQuantStub",
                )  # fmt: skip
        if self.stubs and any(id(each.array) in self.affines for each in self.flow.outputs):
            raise SettingError(
                "the model's result would be codes", op=OP, help="put a DeQuantStub where codes are to end"
            )

    def _check_reached(self) -> None:
        """Refuse layers that no codes reach, where all of the model is to be on codes."""
        ran = {id(each) for call in self.sites for each in call.module.modules()}
        for path, module in self.flow.model.named_modules():
            row = CONVERSIONS.get(type(module))
            if row is not None and not row.keeps and path not in self.keep and id(module) not in ran:
                self.calibration.affine(path)  # raises: it was never observed
        for call in self.sites if not self.stubs else ():
            path, row = self.flow.paths[id(call.module)][0], CONVERSIONS.get(type(call.module))
            if row is not None and not row.keeps and path not in self.keep and path not in self.made:
                raise SettingError(
                    f"'{path}' would get floats: its input comes from {self.flow.origin(call.module)[1]}",
                    op=OP, help="mark with QuantStub and DeQuantStub where codes begin and end",
                )  # fmt: skip
        if not any(isinstance(each, QuantizedModule) for each in self.made.values()):
            raise SettingError(
                "no module of the model can be converted", op=OP, help=f"those that can are {known()}"
            )


def _model_inputs(flow: Flow) -> list[Tensor]:
    """Return what the model was called with.

    Raises:
        SettingError: one of them holds no floats.
    """
    for i, each in enumerate(flow.calls[0].inputs):
        if each.dtype.kind in "biuc":
            raise SettingError(
                f"input {i} of the model holds {each.dtype}, which is not quantised", op=OP,
                help="mark with QuantStub and DeQuantStub where codes begin and end",
            )  # fmt: skip
    return flow.calls[0].inputs


def _check_model(model: Module, calibration: Calibration) -> None:
    """Refuse a model on codes, and another one than was calibrated."""
    check_floats(model, OP)
    for path, module in model.named_modules():
        if why := hooked(module):
            raise SettingError(f"'{path}': {why}", op=OP)
    before = calibration.flow.model
    now, then = repr(model), repr(before)  # modules, and their settings
    leaves, old = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (model, before))
    changed = [path for path in leaves if path not in old or not _same(leaves[path], old[path])]
    if now != then or changed or leaves.keys() != old.keys():
        what = (
            f"'{changed[0]}' has changed" if changed and now == then else "it has other modules or settings"
        )
        raise SettingError(
            f"this is not the model that was calibrated: {what}", op=OP,
            help="calibrate once more, after training, fusing and moving scales",
        )  # fmt: skip


def _same(a: Tensor, b: Tensor) -> bool:
    """Tell whether two leaves hold the same bits."""
    left, right = (np.asarray(each.backend.to_host(each.array)) for each in (a, b))
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def _kept(model: Module, keep_float: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """Return path -> format of the modules that stay in floats; refuse unknown ones, and those that lose
    nothing on codes."""
    given = keep_float if isinstance(keep_float, Mapping) else dict.fromkeys(keep_float, "float32")
    modules = dict(model.named_modules(remove_duplicate=False))
    keep: dict[str, str] = {}
    for path in sorted(given):
        if path not in modules:
            raise SettingError(unknown_name("path in keep_float", path, modules), op=OP)
        if given[path] not in ("int8", *COMPUTES):
            known = ("int8", *COMPUTES)
            raise SettingError(unknown_name(f"format for {path!r} in keep_float", given[path], known), op=OP)
        if given[path] == "int8":
            continue
        keep[path] = given[path]
        row = CONVERSIONS.get(type(modules[path]))
        if row is not None and (row.keeps or row.inputs == 0):
            raise SettingError(
                f"'{path}' is a {type(modules[path]).__name__}, which has no scale of its own to lose by",
                op=OP, help="take it out of keep_float",
            )  # fmt: skip
        if row is None and any(True for _ in modules[path].children()):
            raise SettingError(
                f"'{path}' holds modules, and what it gives was not observed as one", op=OP,
                help="name the modules within, or put a DeQuantStub before it and a QuantStub behind it",
            )  # fmt: skip
    return keep


def _advice(kind: type[Module]) -> str:
    """Say what to do about a class that has no integer form."""
    if issubclass(kind, BatchNorm1d | BatchNorm2d | BatchNorm3d):
        return "fold it into the layer before it: model, report = mp.quant.fusion.fuse(model.eval(), x)"
    return f"name it in keep_float, or take one of those that have one: {known()}"
