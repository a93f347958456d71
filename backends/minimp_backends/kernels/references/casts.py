"""Casts as :mod:`minimp.formats` does them: it is the specification, and what is called here."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp import formats
from minimp.formats import Format
from minimp_backends.kernels.references.formats import MODES, format_of, overflow_of
from minimp_backends.updates_plain import plain_stochastic_bfloat16

__all__ = ["cast", "cast_at_random", "cast_codes", "decode", "encode", "round_stochastic_bfloat16"]


def cast(source: Any, target: Any, count: int) -> None:
    """Round ``count`` elements from the format of one array to that of the other, to nearest even."""
    numbers = formats.decode(_codes(source, formats.get(source.dtype))[:count], source.dtype)
    _codes(target, formats.get(target.dtype))[:count] = formats.encode(numbers, target.dtype)


def cast_codes(
    source: Any, target: Any, source_format: int, target_format: int, rounding: int, rule: int, seed: int,
    start: int, met_nan: Any, count: int,
) -> None:  # fmt: skip
    """Round ``count`` codes of one format to codes of another; both arrays are bytes."""
    given, wanted = format_of(source_format), format_of(target_format)
    numbers = formats.decode(_codes(source, given)[:count], given)
    overflow, subnormals = overflow_of(rule, wanted)
    nan = np.isnan(numbers) & (not wanted.has_nan)
    if nan.any():  # formats.encode refuses them
        met_nan[0] = 1
        numbers = np.where(nan, np.copysign(0.0, -numbers), numbers)
    counter = formats.Counter(int(seed), int(start))
    _codes(target, wanted)[:count] = formats.encode(
        numbers, wanted, MODES[rounding], overflow, counter, subnormals=subnormals
    )


def encode(source: Any, target: Any, saturates: int, count: int, *, format: str) -> None:
    """Round ``count`` float32 to codes of an 8-bit format, to nearest even."""
    numbers, overflow = source.reshape(-1)[:count], "saturate" if saturates else "ieee"
    target.reshape(-1)[:count] = formats.encode(numbers, format, overflow=overflow)


def decode(source: Any, target: Any, count: int, *, format: str) -> None:
    """Read ``count`` codes of an 8-bit format as float32."""
    target.reshape(-1)[:count] = formats.decode(source.reshape(-1)[:count], format, dtype=np.float32)


def cast_at_random(source: Any, target: Any, saturates: int, seed: int, start: int, count: int) -> None:
    """Round ``count`` float32 to 16 bits, up or down as the dice of ``Counter(seed, start)`` fall."""
    numbers, counter = source.reshape(-1)[:count], formats.Counter(int(seed), int(start))
    overflow = "saturate" if saturates else "ieee"
    codes = formats.encode(numbers, target.dtype, "stochastic", overflow, counter)
    _codes(target, formats.get(target.dtype))[:count] = codes


def round_stochastic_bfloat16(wide: Any, dice: Any, low: Any, count: int) -> None:
    """Round ``count`` float32 to bfloat16, up with probability (what is cut off) / ulp."""
    flat, thrown = wide.reshape(-1)[:count], dice.reshape(-1)[:count]
    low.reshape(-1)[:count] = plain_stochastic_bfloat16(np, flat, thrown)


def _codes(array: Any, format: Format) -> Any:
    return array.reshape(-1).view(format.code_dtype)
