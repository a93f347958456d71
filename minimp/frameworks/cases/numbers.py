"""Numbers of every kind to call an op with: ordinary ones, and those at which arithmetic goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import formats

__all__ = ["FLAT", "KINDS", "every_value", "numbers"]

KINDS = ("normal", "wide", "subnormal", "large", "special", "ties", "moderate")
FLAT = ("zeros", "alike")
"""Where a norm or a spread is 0, and need not have a derivative."""


def numbers(
    random: np.random.Generator, shape: Sequence[int], fmt: str, kind: str = "normal"
) -> npt.NDArray[np.float64]:
    """Return values of a format: float64 holding them.

    Args:
        random: the generator.
        shape: of the result.
        fmt: the format's name.
        kind: "normal"; "wide": all exponents; "subnormal": around the smallest normal; "large": up to the
            largest; "special": zeros, infinities, NaN and ends of the range; "ties": few whole numbers;
            "moderate": -12 to 12, where functions bend; "zeros", "alike": all 0, or one number, where a norm
            or a spread is 0; "positive": away from 0, which tests ask for.
    """
    f = formats.get(fmt)
    lowest, highest = max(-300, f.emin - f.mantissa_bits), min(300, f.emax + 1)
    ends = [f.max, -f.max, f.smallest_subnormal, f.smallest_normal]
    special = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 0.5, 88.0, -88.0, 11.0, *ends]
    makers: dict[str, Callable[[], Any]] = {
        "normal": lambda: random.standard_normal(shape),
        "positive": lambda: np.abs(random.standard_normal(shape)) + 0.05,
        "wide": lambda: random.standard_normal(shape) * 2.0 ** random.integers(lowest, highest, shape),
        "subnormal": lambda: (
            random.standard_normal(shape) * f.smallest_normal * 2.0 ** random.integers(-3, 3, shape)
        ),
        "large": lambda: random.uniform(-1, 1, shape) * f.max,
        "special": lambda: random.choice(special, shape),
        "ties": lambda: random.integers(-2, 3, shape).astype(np.float64),
        "moderate": lambda: random.uniform(-12, 12, shape),
        "zeros": lambda: np.zeros(shape),
        "alike": lambda: np.full(shape, random.standard_normal()),
    }
    with np.errstate(all="ignore"):
        return np.asarray(formats.round(np.asarray(makers[kind](), np.float64), f), np.float64)


def every_value(random: np.random.Generator, fmt: str) -> npt.NDArray[Any]:
    """Return all 65,536 codes of a 16-bit format as 256 x 256 numbers; of float32, as many random codes."""
    dtype = formats.get(fmt).dtype
    if dtype.itemsize == 2:
        return np.arange(2**16, dtype=np.uint16).view(dtype).reshape(256, 256)
    return random.integers(0, 2**32, (256, 256), np.uint32).view(dtype)
