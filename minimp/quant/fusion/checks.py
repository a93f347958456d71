"""Why modules cannot be fused, or scaled against each other: each check gives a reason in words, or ""."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minimp.errors import MinimpError, plain
from minimp.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, Linear
from minimp.nn.module import Module
from minimp.quant.fusion.channels import LAYERS, channel_axis
from minimp.quant.fusion.flow import Flow, hooked
from minimp.quant.fusion.folding import fold_batch_norm
from minimp.quant.fusion.patterns import Pattern

__all__ = ["NORMS", "fold_fault", "group_fault", "module_fault"]

NORMS: tuple[type[Module], ...] = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


def module_fault(model: Module, module: Module) -> str:
    """Say why a module cannot be changed on its own: it stands twice, shares parameters or has hooks."""
    all_paths = model.named_modules(remove_duplicate=False)
    paths = [path for path, each in all_paths if each is module]
    if len(paths) > 1:
        return f"it stands at {len(paths)} places: {', '.join(paths)}"
    own = {id(each) for each in module.parameters()}
    shared: list[str] = []
    for path, each in model.named_parameters(remove_duplicate=False):
        if id(each) in own and path.rpartition(".")[0] != paths[0]:
            shared.append(path)
    return f"it shares its parameters with {', '.join(shared)}" if shared else hooked(module)


def _training(layer: Any, bn: Any) -> str:
    del layer
    return "the batch norm is in training mode; call model.eval()" if bn.training else ""


def _backends(layer: Any, bn: Any) -> str:
    where = {each.backend.name for each in [*layer.parameters(), *bn.parameters(), *bn.buffers()]}
    return f"they are on several backends: {', '.join(sorted(where))}" if len(where) > 1 else ""


def _numbers(layer: Any, bn: Any) -> str:
    try:
        fold_batch_norm(layer, bn)
    except MinimpError as fault:
        return plain(fault)
    return ""


FOLD_CHECKS: tuple[Callable[[Any, Any], str], ...] = (_training, _backends, _numbers)
"""What must hold of a layer and the batch norm behind it, in the order of asking."""


def fold_fault(layer: Any, bn: Any) -> str:
    """Say why a batch norm cannot be folded into a layer."""
    return next((why for check in FOLD_CHECKS if (why := check(layer, bn))), "")


def group_fault(model: Module, pattern: Pattern, modules: Sequence[Any], flow: Flow | None = None) -> str:
    """Say why modules that fit a pattern cannot be fused.

    Args:
        model: the model that they stand in.
        pattern: the pattern.
        modules: the modules, in the order of running.
        flow: a record of a forward of `model`, for what only a forward shows, or None.
    """
    for each in modules:
        why = module_fault(model, each)
        if why:
            return f"{_path(model, each)}: {why}"
    if pattern.folds and (why := fold_fault(modules[0], modules[1])):
        return why
    return _run_fault(pattern, modules, flow) if flow is not None else ""


def _run_fault(pattern: Pattern, modules: Sequence[Any], flow: Flow) -> str:
    """Say what a forward shows against a fusion."""
    for each in modules:
        why = flow.read_outside(each)
        if why:
            return f"{flow.name(each)}: {why}"
    layer, last = modules[0], modules[-1]
    for first_call, last_call in zip(flow.calls_of(layer), flow.calls_of(last), strict=True):
        before, after = first_call.outputs[0], last_call.outputs[0]
        if before.format is not after.format:
            return f"the output would be {before.format}, and is {after.format} now"
        if pattern.folds and type(layer) in LAYERS and channel_axis(layer, before.ndim) != 1:
            kind = "features" if type(layer) is Linear else "channels"
            return (
                f"its {kind} are on axis {channel_axis(layer, before.ndim)}, the batch norm works on axis 1"
            )
    return ""


def _path(model: Module, module: Module) -> str:
    return next((f"'{path}'" for path, each in model.named_modules() if each is module), "the module")
