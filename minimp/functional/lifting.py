"""Several inputs as tensors beside each other, and the policy's word on what is one op in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from minimp.door import cast_in_region
from minimp.modes import MODES, setting
from minimp.policy import CastClass, compute_formats
from minimp.tape import Value

__all__ = ["lifted_beside", "ruled", "tensors_of"]


def lifted_beside(first: Value, x: Any) -> Value:
    """Return x as a tensor on the backend of `first`."""
    return x if isinstance(x, Value) else Value.lift(x, first.backend)


def tensors_of(*inputs: Any) -> list[Value]:
    """Return the inputs as tensors, arrays on the backend of the first tensor among them."""
    where = next((x.backend for x in inputs if isinstance(x, Value)), None)
    return [x if isinstance(x, Value) else Value.lift(x, where) for x in inputs]


def ruled(
    op: str, tensors: Sequence[Value], *, composite: bool = False
) -> tuple[list[Value], AbstractContextManager[Any]]:
    """Cast the inputs of what is one op in PyTorch and several here, and settle who rules those.

    Args:
        op: PyTorch's name of the op.
        tensors: its inputs.
        composite: whether PyTorch, where its policy does not name the op, rules the ops inside it.

    Returns:
        The tensors to compute with, and the block to do it in: autocast is off in it where the policy has had
        its say on the whole.
    """
    region = MODES.get().autocast
    if region is None or not region.enabled:
        return list(tensors), nullcontext()
    rule = region.policy.rules.get(op, CastClass.KEEP)
    if rule is CastClass.KEEP and composite:
        return list(tensors), nullcontext()
    targets = compute_formats(rule, [x.format for x in tensors], region.format, op=op)
    cast = [
        x if target is None or target is x.format else cast_in_region(x, target, region)
        for x, target in zip(tensors, targets, strict=True)
    ]
    return cast, setting(autocast=None)
