"""From a block's largest magnitude to its scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.formats.blocks.table import BlockFormat, Peak, ScaleRule
from minimp.formats.casting import decode, encode
from minimp.formats.casting import round as round_to
from minimp.formats.errorfree import to_odd

__all__ = ["Scales", "block_scales", "quotient", "tensor_scale"]

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scales:
    """The scales of many blocks.

    Attributes:
        codes: codes of the format's ``scale``; NaN's for a block with an infinity or NaN in it.
        values: the same as float64, without the tensor scale.
        clamped: whether the range of ``scale`` (or ``smallest_amax``) kept the scale from what the rule asks.
            A block of zeros is not counted.
    """

    codes: npt.NDArray[np.unsignedinteger[Any]]
    values: Float64s
    clamped: npt.NDArray[np.bool_]


def tensor_scale(amax: Float64s, fmt: BlockFormat) -> float:
    """The scale t of the whole tensor: amax / (max of element · max of scale) in float32, 1 if there is none.

    Blocks with an infinity or NaN do not count. As in Transformer Engine, a tensor of zeros has t = 1, and t
    is at least 2^-128, since 1/t is at most float32's largest value.
    """
    largest = float(np.max(amax, where=np.isfinite(amax), initial=0.0))
    if not fmt.tensor_scale or largest == 0:
        return 1.0
    ideal = largest / (fmt.element_max * fmt.scale.max)
    return float(np.float32(min(max(ideal, 2.0**-128), float(np.finfo(np.float32).max))))


def block_scales(amax: Float64s, fmt: BlockFormat, rule: ScaleRule, tensor: float) -> Scales:
    """Scales of blocks by their largest magnitudes; NaN where that is no finite number.

    Args:
        amax: float64 of any shape.
        fmt: the block format.
        rule: how a scale follows from amax.
        tensor: the tensor scale t, by which every amax is divided first.
    """
    finite = np.isfinite(amax)
    counted = np.where(finite, amax, 0.0)
    raised = np.maximum(counted, fmt.smallest_amax)
    if rule.lifts is not None:
        values, clamped = _powers(raised, fmt, rule, tensor)
    else:
        values, clamped = _quotients(raised, fmt, rule, tensor)
    clamped = (clamped | (raised > counted)) & (counted > 0)
    codes = encode(np.where(finite, values, np.nan if fmt.scale.has_nan else 0.0), fmt.scale)
    return Scales(codes, np.asarray(decode(codes, fmt.scale), np.float64), clamped)


def _powers(
    amax: Float64s, fmt: BlockFormat, rule: ScaleRule, tensor: float
) -> tuple[Float64s, npt.NDArray[np.bool_]]:
    assert rule.lifts is not None
    half, exponent = np.frexp(quotient(amax, tensor))
    largest = 2 * float(np.frexp(fmt.element.max)[0])
    peak = Peak(2 * half, largest, fmt.element.mantissa_bits - fmt.element.is_integer)
    asked = exponent - 1 - fmt.element_emax + rule.lifts(peak)
    lowest = int(np.frexp(fmt.scale.smallest_subnormal)[1]) - 1
    taken = np.where(amax > 0, np.clip(asked, lowest, fmt.scale.emax), lowest)
    return np.ldexp(1.0, taken), asked != taken


def _quotients(
    amax: Float64s, fmt: BlockFormat, rule: ScaleRule, tensor: float
) -> tuple[Float64s, npt.NDArray[np.bool_]]:
    assert rule.rounding is not None
    scale = fmt.scale
    asked = quotient(amax, fmt.element_max * tensor)
    least = scale.smallest_normal if rule.normal_only else 0.0
    top_ulp = 2.0 ** (scale.emax - scale.mantissa_bits)
    values = np.asarray(round_to(np.maximum(asked, least), scale, rule.rounding, "saturate"), np.float64)
    return values, (asked < least) | (values == 0) | (asked >= scale.max + top_ulp / 2)


def quotient(x: Float64s, y: Float64s | float) -> Float64s:
    """x / y rounded to odd in float64: to round it again to at most 51 bits is to round x / y once.

    x: finite; y: finite and above 0, broadcasts against x. A quotient too small for float64 becomes the
    smallest one, and keeps its sign; one too large the largest.
    """
    half_x, exponent_x = np.frexp(x)
    half_y, exponent_y = np.frexp(y)
    ratio = half_x / half_y
    odd = to_odd(ratio, _remainder(half_x, ratio, half_y))
    with np.errstate(over="ignore"):
        result = np.ldexp(odd, exponent_x - exponent_y)
    tiny, huge = np.finfo(np.float64).smallest_subnormal, np.finfo(np.float64).max
    result = np.where((result == 0) & (half_x != 0), np.copysign(tiny, half_x), result)
    return np.asarray(np.clip(result, -huge, huge))


_SPLITTER = 2.0**27 + 1


def _remainder(x: Float64s, ratio: Float64s, y: Float64s) -> Float64s:
    """x - ratio · y, exact (Dekker 1971, "A floating-point technique for extending the precision")."""
    product = ratio * y
    high_r, low_r = _split(ratio)
    high_y, low_y = _split(y)
    error = ((high_r * high_y - product) + high_r * low_y + low_r * high_y) + low_r * low_y
    return (x - product) - error


def _split(x: Float64s) -> tuple[Float64s, Float64s]:
    large = x * _SPLITTER
    high = large - (large - x)
    return high, x - high
