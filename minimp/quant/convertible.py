"""What can be converted, and what convert is told: looked at before anything is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from minimp.errors import SettingError, unknown_name
from minimp.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from minimp.nn.module import Module
from minimp.quant.calibration import Calibration, check_floats
from minimp.quant.fusion.flow import Flow, hooked
from minimp.quant.modules.conversions import CONVERSIONS, known
from minimp.quant.modules.stubs import COMPUTES
from minimp.tensors import Tensor

__all__ = ["advice", "check_alone", "check_model", "formats_kept", "kept_in", "model_inputs"]

OP = "convert"


def check_alone(model: Module, **given: bool) -> None:
    """Refuse what a model with scales of its own has no use for: name -> whether it was given."""
    for name, there in given.items():
        if there:
            raise SettingError(
                f"a {type(model).__name__} has its scales from training: {name} cannot act", op=OP,
                help="convert(model); what it is made of was said to prepare_qat",
            )  # fmt: skip


def model_inputs(flow: Flow) -> list[Tensor]:
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


def check_model(model: Module, calibration: Calibration) -> None:
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


def formats_kept(keep_float: Iterable[str] | Mapping[str, str], op: str) -> dict[str, str]:
    """Return path -> format of what was given as `keep_float`; of paths alone it is float32.

    Raises:
        SettingError: one string, whose letters would be taken for paths.
    """
    if isinstance(keep_float, str):
        raise SettingError(
            f"keep_float takes several paths, got the string {keep_float!r}", op=op,
            help=f"keep_float=[{keep_float!r}]",
        )  # fmt: skip
    return dict(keep_float) if isinstance(keep_float, Mapping) else dict.fromkeys(keep_float, "float32")


def kept_in(model: Module, keep_float: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """Return path -> format of the modules that stay in floats; refuse unknown ones, and those that lose
    nothing on codes."""
    given = formats_kept(keep_float, OP)
    modules = dict(model.named_modules(remove_duplicate=False))
    keep: dict[str, str] = {}
    for path in sorted(given):
        if path not in modules:
            raise SettingError(unknown_name("path in keep_float", path, filter(None, modules)), op=OP)
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


def advice(kind: type[Module]) -> str:
    """Say what to do about a class that has no integer form."""
    if issubclass(kind, BatchNorm1d | BatchNorm2d | BatchNorm3d):
        return "fold it into the layer before it: model, report = mp.quant.fusion.fuse(model.eval(), x)"
    return f"name it in keep_float, or take one of those that have one: {known()}"
