"""Which format an op computes in, as a pure function of its cast class and its inputs' formats."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np

from minimp import formats
from minimp.errors import FormatError
from minimp.formats import Format

__all__ = ["BANNED_ADVICE", "FLOATING", "CastClass", "Mixed", "common_format", "compute_formats", "format_of"]

_BY_DTYPE: dict[Any, Format] = {
    np.dtype(name): formats.get(name)
    for name in ("float64", "float32", "float16", ml_dtypes.bfloat16, "int8")
}
format_of = _BY_DTYPE.get
"""Return the Format that arrays of a NumPy dtype hold, or None (integers, booleans)."""

FLOATING = frozenset(f for f in _BY_DTYPE.values() if f is not formats.int8)


class CastClass(Enum):
    """What autocast does with an op's floating inputs (float64 is never touched).

    The values are the names of PyTorch 2.13.0's registrations (aten/src/ATen/autocast_mode.h).
    """

    LOWER = "lower_precision_fp"
    """All to the region's format."""
    FP32 = "fp32"
    """All to float32."""
    SET_FP32 = "fp32_set_opt_dtype"
    """As FP32, unless the caller gave `dtype=`, which wins."""
    PROMOTE = "promote"
    """All to float32 if any is float32, else as they are."""
    KEEP = "unlisted"
    """Untouched: the op computes in the format its inputs have."""
    BANNED = "banned"
    """Refused inside a region, with advice."""


class Mixed(Enum):
    """What an op does with inputs of different formats, after autocast has had its say."""

    PROMOTE = "promote"
    """Cast to the common format, as PyTorch promotes: tensors with dimensions before scalars."""
    FLOAT = "float"
    """As PROMOTE; integers alone become float32."""
    SAME = "same"
    """Floating formats must agree, else an error; integers (labels, indices) are left alone."""
    KEEP = "keep"
    """Inputs are taken as they are."""


BANNED_ADVICE = {
    "binary_cross_entropy": (
        "leave out the sigmoid before it and use binary_cross_entropy_with_logits (nn.BCEWithLogitsLoss), "
        "which is safe to autocast; or compute it in float32, inside `with mp.autocast(enabled=False):`"
    ),
}


def compute_formats(
    rule: CastClass,
    given: Sequence[Format | None],
    low: Format,
    options: Mapping[str, Any] | None = None,
    *,
    op: str = "op",
    in_order: bool = False,
) -> list[Format | None]:
    """Return the format that autocast asks for, one per input; None leaves an input as it is.

    Args:
        rule: the op's cast class under the policy in force.
        given: the inputs' formats; None for integers, numbers and missing inputs.
        low: the region's format.
        options: the op's keyword arguments; only `dtype` matters (SET_FP32).
        op: the op's name, for messages.
        in_order: a promote op takes any format after a float32 one (promotion-goes-by-order, a known defect).

    Raises:
        FormatError: a banned op, whatever its inputs are; or a promote op with a format that is neither
            float32 nor `low`.
    """
    eligible = [f for f in given if f in FLOATING and f is not formats.float64]
    if rule is CastClass.BANNED:
        advice = BANNED_ADVICE.get(
            op, "compute it outside the region, or edit the policy with policy.with_(...)"
        )
        raise FormatError("unsafe inside autocast", op=op, help=advice)
    target: Format | None = None
    if rule is CastClass.LOWER:
        target = low
    elif rule is CastClass.FP32 or (rule is CastClass.SET_FP32 and (options or {}).get("dtype") is None):
        target = formats.float32
    elif rule is CastClass.PROMOTE:
        _check_promotable(op, eligible, low, in_order)
        target = formats.float32 if formats.float32 in eligible else low
    return [target if f in FLOATING and f is not formats.float64 else None for f in given]


def _check_promotable(op: str, eligible: Sequence[Format | None], low: Format, in_order: bool) -> None:
    if low is formats.float64:
        raise FormatError(
            "autocast cannot promote to float64", op=op, formats=[low.name],
            help="a region's format is float16 or bfloat16",
        )  # fmt: skip
    for f in eligible:
        if in_order and formats.float32 in (low, f):
            return
        if f is not low and f is not formats.float32:
            raise FormatError(
                f"autocast promotes float32 and {low.name} only, and met {f}",
                op=op, formats=[str(f)], help=f"cast to {low.name} or float32 first",
            )  # fmt: skip


def common_format(op: str, mixed: Mixed, kinds: Sequence[tuple[Format | None, bool] | None]) -> Format | None:
    """Return the format to which the inputs of an op are brought, or None to leave them.

    Args:
        op: the op's name, for messages.
        mixed: the op's rule.
        kinds: per input (format, whether it has dimensions); None for numbers and missing inputs.

    Raises:
        FormatError: a SAME op met two floating formats.
    """
    tensors = [kind for kind in kinds if kind is not None]
    found = {f for f, _ in tensors if f in FLOATING}
    if mixed is Mixed.KEEP or (not found and mixed is not Mixed.FLOAT):
        return None
    if mixed is Mixed.SAME:
        if len(found) > 1:
            names = sorted(str(f) for f in found)
            raise FormatError(
                f"expected inputs of one format, got {' and '.join(names)}",
                op=op, formats=names, help="cast one with .to(...), or run inside mp.autocast()",
            )  # fmt: skip
        return None
    if not found:
        return formats.float32
    shaped = {f for f, has_dims in tensors if has_dims and f in FLOATING}
    return _widest(shaped or found)


def _widest(found: Collection[Format | None]) -> Format | None:
    """Return the one format that holds all; float16 with bfloat16 gives float32, as in PyTorch."""
    if len(found) == 1:
        return next(iter(found))
    for wide in (formats.float64, formats.float32):
        if wide in found:
            return wide
    return formats.float32
