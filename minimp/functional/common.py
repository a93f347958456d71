"""What the functions of the package share: reading formats, shapes, labels and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import formats
from minimp.door import cast_in_region
from minimp.errors import DataError, SettingError
from minimp.formats import Format
from minimp.modes import MODES
from minimp.policy import CastClass, compute_formats
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = [
    "Pair",
    "as_the_policy_asks",
    "format_of_input",
    "format_or_none",
    "labels_of",
    "pair",
    "shape_of",
    "tensor_of",
]

Pair = int | Sequence[int]


def labels_of(op: str, target: Any, scores: Value) -> Value:
    """Return the labels as a tensor of integers beside the scores."""
    labels = target if isinstance(target, Value) else Value.lift(target, scores.backend)
    if labels.array.dtype.kind not in "iu":
        raise DataError(
            f"expected integer labels, got {labels.array.dtype}", op=op, help="use .astype('int64')"
        )
    return labels


def as_the_policy_asks(op: str, x: Value) -> Value:
    """Cast the input of what is one op in PyTorch and several here, by the policy's rule for that op."""
    region = MODES.get().autocast
    if region is None or not region.enabled:
        return x
    rule = region.policy.rules.get(op, CastClass.KEEP)
    (target,) = compute_formats(rule, [x.format], region.format, op=op)
    return x if target is None or target is x.format else cast_in_region(x, target, region)


def format_or_none(dtype: Any) -> Format | None:
    """Return the format that `dtype` spells, None for None."""
    return None if dtype is None else formats.get(dtype)


def format_of_input(input: Any) -> Format | None:
    """Return the format that an input has, or would have as a tensor."""
    return (input if isinstance(input, Value) else Value.lift(input, None)).format


def tensor_of(input: Any) -> Tensor:
    """Return an input as a tensor: itself, or lifted."""
    return input if isinstance(input, Value) else Value.lift(input, None)  # type: ignore[return-value]  # what is a Value here is a Tensor


def shape_of(shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return a shape as a tuple; a number is the shape of one axis."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


def pair(name: str, value: Pair, least: int = 1) -> tuple[int, int]:
    """Return two whole numbers of at least `least`."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    whole = all(type(v) is int and v >= least for v in pair)  # a bool is no number here
    if len(pair) != 2 or not whole:
        raise SettingError(f"{name}: expected one or two whole numbers of at least {least}, got {value!r}")
    return pair
