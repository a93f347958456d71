"""Static quantisation: a calibrated model becomes one that works on codes, with integers alone in between.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (arXiv 1712.05877), section 2. The record of a forward says what goes into what; walked in order,
it gives each module the scales of what comes in, and shows every op that would meet codes and cannot.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

from minimp.errors import MinimpError, SettingError, plain, unknown_name
from minimp.nn import Identity, ModuleList
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.calibration import Calibrated, Calibration, Progress, calibrate, sites
from minimp.quant.convertible import advice, check_alone, check_model, kept_in, model_inputs
from minimp.quant.fusion.flow import Call
from minimp.quant.islands import Visit, floating
from minimp.quant.modules import DeQuantize, FloatIsland, Quantize, QuantizedModule
from minimp.quant.modules.conversions import CONVERSIONS, Place, known
from minimp.quant.modules.layers import MODES
from minimp.quant.modules.stubs import DeQuantStub, QuantStub
from minimp.quant.modules.tables import fixed_output
from minimp.quant.observers import MinMaxObserver, Observer, PerChannelMinMaxObserver
from minimp.quant.qtensor import QTensor

__all__ = [
    "Calibration", "ForWeights", "Progress", "StaticModel", "calibrate", "channel_weights", "convert",
    "walked",
]  # fmt: skip

OP = "convert"


def channel_weights() -> Observer:
    """Return an observer for weights: int8, symmetric, one scale a channel (torch's default for qnnpack)."""
    return PerChannelMinMaxObserver(quant_min=-128, quant_max=127, symmetric=True)


def tensor_weights() -> Observer:
    """Return an observer for weights: int8, symmetric, one scale a weight."""
    return MinMaxObserver(quant_min=-128, quant_max=127, symmetric=True)


ForWeights = Callable[[], Observer] | str
"""What makes an observer for a weight, or one of the words of GRANULARITIES."""
GRANULARITIES = {"per-channel": channel_weights, "per-tensor": tensor_weights}


class StaticModel(Module):
    """A model on codes that takes and gives floats: codes at the start, floats at the end, once each.

    Attributes:
        quantize: a Quantize for each input; an Identity for one that only modules in floats take.
        model: the model on codes.
        dequantize: for the codes that it gives, also in tuples, lists and dicts.

    Raises:
        SettingError: when called, with more or fewer inputs.
    """

    def __init__(self, quantize: Iterable[Module], model: Module) -> None:
        super().__init__()
        self.quantize, self.model, self.dequantize = ModuleList(quantize), model, DeQuantize()
        self.eval()

    def forward(self, *inputs: Any) -> Any:
        """Return the model's results in floats."""
        if len(inputs) != len(self.quantize):
            raise SettingError(
                f"the model was calibrated with {len(self.quantize)} inputs, got {len(inputs)}",
                op="StaticModel",
            )
        codes = (quantize(x) for quantize, x in zip(self.quantize, inputs, strict=True))
        return self._floats(self.model(*codes))

    def _floats(self, result: Any) -> Any:
        if isinstance(result, dict):
            return {name: self._floats(each) for name, each in result.items()}
        if isinstance(result, tuple | list):
            made = [self._floats(each) for each in result]
            return type(result)(*made) if hasattr(result, "_fields") else type(result)(made)
        return self.dequantize(result) if isinstance(result, QTensor) else result


def convert(
    model: Module, calibration: Calibration | None = None, *,
    weight: ForWeights = channel_weights, mode: str = "float",
    keep_float: Iterable[str] | Mapping[str, str] = (),
) -> Module:  # fmt: skip
    """Return a copy of a model that works on codes: int8 products, int32 sums, one rounding a layer.

    Where the model has QuantStub and DeQuantStub, codes are between them. Without a QuantStub the whole model
    is on codes, from its inputs to its results (:class:`StaticModel`).

    Args:
        model: the model that was calibrated, or one that :func:`minimp.quant.qat.prepare_qat` made; it stays
            as it is.
        calibration: what :func:`calibrate` returned; None for a prepared model, whose scales were trained.
        weight: makes an observer for a weight; or ``"per-channel"``, ``"per-tensor"``: int8, symmetric, a
            scale a channel or one for the whole. Not for a prepared model.
        mode: ``"float"`` (QNNPACK's rounding) or ``"fixed-point"`` (gemmlowp's and TFLite's, no float at
            all), see :mod:`minimp_backends.requantizing`.
        keep_float: paths of modules without children that stay in floats
            (:class:`~minimp.quant.modules.FloatIsland`); or path -> what the module computes in:
            ``"float32"``, ``"float16"``, or ``"int8"`` for one that does not stay. Codes are read back before
            them and made behind them; between two of them, and from an input or to a result of the model,
            floats pass as they are, also through a ReLU, a pool or a Flatten
            (:mod:`minimp.quant.islands`). Not for a prepared model, which was told when it was prepared.

    Raises:
        SettingError: a module that has no integer form, or an op outside of modules, that would meet codes;
            a layer that was never observed; another model than the one calibrated, or its weights changed; a
            model on codes already; hooks, which would see other values; unknown paths or modes; a float model
            without a calibration, or a prepared one with one.
        DataError: NaN or infinities in a weight.
    """
    if isinstance(model, Calibrated):
        check_alone(
            model,
            calibration=calibration is not None,
            weight=weight is not channel_weights,
            keep_float=bool(keep_float),
        )
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
        made = StaticModel(walk.begins(), made)
    return made.eval()


def walked(
    model: Module, calibration: Calibration, *, weight: ForWeights = channel_weights,
    mode: str = "float", keep_float: Iterable[str] | Mapping[str, str] = (),
) -> Walk:  # fmt: skip
    """Return what would stand where on codes; arguments and errors are those of :func:`convert`."""
    if mode not in MODES:
        raise SettingError(unknown_name("mode", mode, MODES), op=OP)
    if isinstance(weight, str):
        if weight not in GRANULARITIES:
            raise SettingError(unknown_name("granularity of weights", weight, GRANULARITIES), op=OP)
        weight = GRANULARITIES[weight]
    check_model(model, calibration)
    walk = Walk(calibration, weight, mode, kept_in(model, keep_float))
    walk.run()
    return walk


class Walk:
    """The record of a forward, walked in order with the numbers of every array that is codes.

    Attributes:
        reached: ids of the arrays that are codes, or floats that stay; the record keeps the arrays alive.
        visits: the calls that they reach.
        floats: ids of those that stay floats (:mod:`minimp.quant.islands`).
        affines: id of an array -> the numbers of its codes; of one that stays floats those that were
            observed, or None.
        made: path -> what is to stand there.
        places: path -> the numbers that come in and go out there; of several paths of a module the first.
        stubs: whether the model marks with QuantStub where codes begin.
    """

    def __init__(
        self, calibration: Calibration, weight: Callable[[], Observer], mode: str, keep: Mapping[str, str]
    ) -> None:
        self.calibration, self.flow = calibration, calibration.flow
        self.weight, self.mode, self.keep = weight, mode, keep
        self.reached: set[int] = set()
        self.visits: list[Visit] = []
        self.floats: frozenset[int] = frozenset()
        self.affines: dict[int, Affine | None] = {}
        self.made: dict[str, Module] = {}
        self.places: dict[str, Place] = {}
        self.sites = sites(self.flow)
        self.stubs = any(type(each.module) is QuantStub for each in self.sites)

    def run(self) -> None:
        """Convert every module that codes reach, and refuse what would meet them and cannot."""
        inputs = [] if self.stubs else model_inputs(self.flow)
        self.reached.update(id(each.array) for each in inputs)
        for call in self.sites:
            self._reach(call)
        self.floats = self.floating(self.keep)
        for x, observer in zip(inputs, self.calibration.inputs, strict=True):
            known = id(x.array) not in self.floats or observer.batches
            self.affines[id(x.array)] = observer.affine() if known else None
        for visit in self.visits:
            self._visit(visit)
        self._check_ops()
        self._check_reached()

    def floating(self, keep: Container[str]) -> frozenset[int]:
        """Return the ids of the arrays that stay floats where the modules of these paths do."""
        begun = [] if self.stubs else [id(each.array) for each in self.flow.calls[0].inputs]
        return floating(self.visits, begun, keep)

    def begins(self) -> list[Module]:
        """Return what makes codes of the model's inputs."""
        return [
            Identity() if id(x.array) in self.floats else Quantize(observer.affine())
            for x, observer in zip(self.flow.calls[0].inputs, self.calibration.inputs, strict=True)
        ]

    def _reach(self, call: Call) -> None:
        """Note the call of a module, if what comes in are codes; refuse one that cannot take them."""
        path, kind = self.flow.paths[id(call.module)][0], type(call.module)
        inputs = [each for each in call.inputs if id(each.array) in self.reached]
        if kind is not QuantStub and not inputs:
            return
        row = CONVERSIONS.get(kind)
        kept = path in self.keep
        if row is None and not kept:
            where = f"'{path}'" if path else "the model"
            raise SettingError(
                f"{where} is a {kind.__name__}, which has no integer form, and codes come in", op=OP,
                help=advice(kind),
            )  # fmt: skip
        if kind is QuantStub and inputs:
            raise SettingError(
                f"'{path}' would quantise what are codes already", op=OP,
                help="leave out one QuantStub, or put a DeQuantStub between",
            )  # fmt: skip
        wanted = len(call.inputs) if row is None or kept or row.inputs is None else row.inputs
        if len(inputs) != wanted:
            words = f"{len(inputs)} inputs in codes and {len(call.inputs) - len(inputs)} in floats"
            raise SettingError(
                f"'{path}' ({kind.__name__}) takes {wanted} in codes, and gets {words}", op=OP,
                help="put a QuantStub where the floats come from",
            )  # fmt: skip
        if kept and len(call.outputs) != 1:
            raise SettingError(
                f"'{path}' gives {len(call.outputs)} tensors, and codes come in", op=OP,
                help="put a DeQuantStub before it, or write a module that gives one",
            )  # fmt: skip
        self.visits.append(Visit(path, call, row))
        if kind is not DeQuantStub:
            self.reached.update(id(each.array) for each in call.outputs)

    def _visit(self, visit: Visit) -> None:
        """Convert the module of one call."""
        path, call, row = visit.path, visit.call, visit.row
        inputs = tuple(self.affines[each] for each in visit.inputs if each in self.reached)
        kept = path in self.keep
        if row is not None and row.keeps and not kept:
            output = inputs[0]
        elif not self.floats.isdisjoint(visit.outputs) and not self.calibration.observed(path):
            output = None
        else:
            output = fixed_output(type(call.module), self.calibration.affine(path))
        self._place(visit, Place(inputs, output, self._weight_of(path), self.mode))
        if not visit.ends:
            self.affines.update(dict.fromkeys(visit.outputs, output))

    def _weight_of(self, path: str) -> Callable[[], Observer]:
        """Return what makes an observer for a module's weight: its own, if the calibration has one."""
        known = self.calibration.weights.get(path)
        return self.weight if known is None else lambda: known

    def _place(self, visit: Visit, place: Place) -> None:
        """Build what is to stand at the paths of a module; one that runs again must see the same numbers."""
        path, row = visit.path, visit.row
        first = self.places.setdefault(path, place)
        free = row is None or row.keeps or path in self.keep
        if not free and first.inputs != place.inputs:
            raise SettingError(
                f"'{path}' runs twice, on codes of {first.inputs[0]} and of {place.inputs[0]}", op=OP,
                help="a layer has one scale for what comes in: give each place a layer of its own",
            )  # fmt: skip
        if path in self.made:
            return
        try:
            built = self._built(visit, place)
        except MinimpError as fault:
            raise type(fault)(f"'{path}': {plain(fault)}", op=OP, help=fault.help) from fault
        for each in self.flow.paths[id(visit.call.module)]:
            self.made[each] = built

    def _built(self, visit: Visit, place: Place) -> Module:
        """Return the module on codes, or an island."""
        path, module, row = visit.path, visit.call.module, visit.row
        free = [i for i, each in enumerate(visit.inputs) if each in self.floats]
        gives = not self.floats.isdisjoint(visit.outputs)
        if path in self.keep or row is None:
            output = None if gives else place.output
            built: Module = FloatIsland(copy.deepcopy(module), output, self.keep[path], free)
        elif free or gives:
            built = copy.deepcopy(module) if visit.passes else Identity()
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
            read = any(id(each) in self.reached for each in step.event.inputs)
            if read and not any(id(call) in inside for call in step.inside):
                raise SettingError(
                    f"{self.flow.spelled(step)} is an op on floats, and codes come in", op=OP,
                    help="make it a module that has an integer form (mp.quant.modules.Add, nn.ReLU, "
                    "nn.Flatten, ...), or end the codes before it with a DeQuantStub",
                )  # fmt: skip
        codes = self.reached - self.floats
        if self.stubs and any(id(each.array) in codes for each in self.flow.outputs):
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
