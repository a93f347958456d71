"""Rounding over an array namespace: what :func:`minimp.formats.round` does, for the formats of tensors.

The steps are those of :mod:`minimp.formats.rounding`, in float64, where every one of them is exact; the rules
of the modes and of overflow are its own tables.
"""

from __future__ import annotations

from typing import Any

from minimp.formats import Format
from minimp.formats.dice import Counter, Dice, Source
from minimp.formats.overflows import overflow_named
from minimp.formats.rounding import dice_for, max_is_odd
from minimp.formats.roundings import Situation, mode_named
from minimp_backends.device_dice import roll_on_device

__all__ = ["round_on_device", "to_odd_float32"]

Array = Any


def round_on_device(
    backend: Any, x: Array, fmt: Format, rounding: str, overflow: str | None, rng: Source
) -> Array:
    """Round a wide array to values of a signed floating format that has zeros and NaN.

    Args:
        backend: of the array; random numbers that are no Counter's are thrown on the host and copied to it.
        x: float32 or float64.
        fmt: float32, float16, bfloat16, float8_e4m3fn, float8_e5m2 and their like.
        rounding, overflow, rng: as of :func:`minimp.formats.round`.

    Returns:
        float64, of the shape of x.
    """
    xp, mode, rule = backend.xp, mode_named(rounding), overflow_named(overflow, fmt)
    if rounding == "stochastic" and isinstance(rng, Counter):
        dice: Dice | None = roll_on_device(xp, x.shape, rng)
    else:
        dice = dice_for(rounding, x.shape, rng, None)
        if dice is not None:
            dice = Dice(backend.from_host(dice.throw), dice.bits)
    wide = x.astype("float64", copy=False)
    finite, negative = xp.isfinite(wide), xp.signbit(wide)
    magnitude = xp.where(finite, xp.abs(wide), 0.0)

    q = _quantum_exponent(xp, magnitude, fmt)
    scaled = xp.maximum(xp.ldexp(magnitude, -q), xp.where(magnitude > 0, 5e-324, 0.0))
    low = xp.floor(scaled)
    at = Situation(scaled - low, xp.remainder(low, 2) == 1, negative, dice, max_is_odd(fmt))
    rounded = xp.ldexp(low + mode.goes_up(at), q)

    end = float("inf") if fmt.has_inf else float("nan")
    beyond = fmt.max if rule.saturates(fmt) else end
    keeps = mode.keeps_max(at)  # of most roundings one bool for all, which CuPy's where does not take
    edge = (fmt.max if keeps else beyond) if isinstance(keeps, bool) else xp.where(keeps, fmt.max, beyond)
    result = xp.where(rounded > fmt.max, edge, rounded)
    result = xp.where(xp.isinf(wide), beyond, result)
    return xp.where(xp.isnan(wide), wide, xp.copysign(result, wide))


def _quantum_exponent(xp: Any, magnitude: Array, fmt: Format) -> Array:
    """q such that 2^q is the ulp of the format, see :func:`minimp.formats.rounding.quantum_exponent`."""
    _, exponent = xp.frexp(magnitude)
    exponent = xp.where(magnitude == 0, fmt.emin - 1, exponent - 1)
    return (xp.maximum(exponent, fmt.emin) - fmt.mantissa_bits).astype("int32")


def to_odd_float32(xp: Any, wide: Array) -> Array:
    """float64 to float32 by round-to-odd: truncate, and set the last bit if anything was cut off.

    See :func:`minimp_backends.plain_casts.narrow_from_float64` for what that is good for.
    """
    nearest = wide.astype("float32")
    back = nearest.astype("float64")
    cut_off = back != wide  # also true of a NaN, which stays one
    away = xp.abs(back) > xp.abs(wide)  # an infinity that came from a finite value is one of these
    bits = nearest.view("uint32") - away.astype("uint32")
    return (bits | cut_off.astype("uint32")).view("float32")
