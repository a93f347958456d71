"""Inputs on which a rounding trick would slip, and formats of one's own."""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np
import numpy.typing as npt

from minimp.formats.codes import decode
from minimp.formats.making import make
from minimp.formats.table import FORMATS, Format

OWN = (
    make(4, 11),
    make(5, 12),
    make(6, 9),
    make(3, 0, inf=False),
    make(8, 3),
    make(8, 14),
    make(8, 20),
    make(5, 10, inf=False),
    make(5, 10, inf=False, nan=False),
    make(5, 10, nan=False),
    make(4, 3, flavour="p3109"),
    make(6, 9, flavour="fnuz"),
    make(7, 21),
    make(6, 22),
    make(9, 10, bias=127),
    make(8, 7, bias=120),
    make(8, 3, bias=130),  # emin below float32's
    make(7, 14, bias=115),  # half an ulp below float32's normal numbers
    make(7, 8, bias=6),  # no room for the shift above max
    make(2, 5),  # the longest significand for a table, and one too long
    make(1, 6, inf=False, nan=False),
    make(4, 3, subnormals=False),
    make(4, 3, signed=False),
    make(5, 10, subnormals=False),
    make(10, 30),
)
EVERY = (*FORMATS.values(), *OWN)
PAYLOADS = (0x7FFF_FFFF, 0xFFFF_FFFF, 0x7F80_0001, 0xFF80_0001, 0x7FC0_0000, 0x7FBF_FFFF, 0xFFC1_2345)


def _around(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return each number, its two neighbours in float32, and all of them negated."""
    far = np.float32(np.inf)
    three = np.concatenate([x, np.nextafter(x, far), np.nextafter(x, -far)])
    return np.concatenate([three, -three])


@functools.cache
def grid_points(fmt: Format) -> npt.NDArray[np.float64]:
    """Return the values >= 0 of a format of at most 16 bits, or some of a longer one, and one step beyond."""
    if fmt.bits <= 16:
        codes = np.arange(fmt.max_code + 1, dtype=np.uint64)
    else:
        codes = np.random.default_rng(1).integers(0, fmt.max_code, 4000, dtype=np.uint64)
        codes = np.unique(np.concatenate([codes, codes + np.uint64(1), np.arange(50, dtype=np.uint64)]))
        codes = np.append(codes, np.uint64(fmt.max_code)) << np.uint64(fmt.padding)
    values = np.unique(decode(codes, fmt))
    with np.errstate(over="ignore"):
        return np.append(values, 2 * values[-1] - values[-2])


@functools.cache
def numbers(fmt: Format) -> npt.NDArray[np.float32]:
    """Return all halves and bfloat16s; fmt's values and midpoints and what is beside them; random patterns.

    NaN only where the format has one.
    """
    random = np.random.default_rng(2)
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    points = grid_points(fmt)
    with np.errstate(all="ignore"):
        near = np.concatenate([points, (points[1:] + points[:-1]) / 2]).astype(np.float32)
        parts = [
            halves.astype(np.float32),
            np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32),
            _around(near),
            np.array([*PAYLOADS, 0, 1, 1 << 31, 0x7F7F_FFFF, 0x7F80_0000, 0xFF80_0000], np.uint32).view("f4"),
            random.integers(0, 1 << 32, 5000, dtype=np.uint32).view(np.float32),
        ]
    x = np.concatenate(parts)
    x = x if fmt.has_nan else x[~np.isnan(x)]
    x.setflags(write=False)
    return x


def doubles(fmt: Format) -> npt.NDArray[np.float64]:
    """Return float64: the same, and a little beside them, where a detour through float32 would show."""
    with np.errstate(all="ignore"):
        x = numbers(fmt)[::3].astype(np.float64)
        return np.concatenate([x, np.nextafter(x, np.inf), x * (1 + 2.0**-40), x * (1 - 2.0**-40)])


def inside(x: npt.NDArray[np.floating], fmt: Format) -> npt.NDArray[np.floating]:
    """Return those below fmt's top binade: what most blocks look like."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return x[np.abs(x.astype(np.float64)) < 2.0**fmt.emax]


def assert_bits(got: np.ndarray, expected: np.ndarray, given: np.ndarray) -> None:
    """Fail unless two arrays are equal bit for bit, a NaN's payload included."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    word = np.dtype(f"u{got.dtype.itemsize}")
    wrong = np.flatnonzero(np.atleast_1d(got).view(word) != np.atleast_1d(expected).view(word))
    shown = wrong[:4]
    origin = f"from {given.flat[shown]!r} got {got.flat[shown]!r}, not {expected.flat[shown]!r}"
    assert not wrong.size, f"{wrong.size} differ: {origin}"
