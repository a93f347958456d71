"""Inputs on which casts go wrong, shared by the tests of every cast route."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
ALL_CODES = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)


def float16_boundaries() -> NDArray[np.float32]:
    """Every float16, every midpoint of two, the float32 neighbours of both, and what lies beyond the range.

    Sorted by magnitude with NaNs last, so that whole blocks hold no large value and take a fast path.
    """
    halves = ALL_CODES[:0x7C01].view(np.float16).astype(np.float64)  # 0 to infinity
    halves[-1] = 65536.0  # the number that infinity stands for when the range goes on
    centres = np.concatenate([halves, (halves[:-1] + halves[1:]) / 2]).astype(np.float32)
    return _with_neighbours(centres, np.float32(1e-45), np.float32(2.0**-126), np.float32(3e38))


def bfloat16_boundaries() -> NDArray[np.float32]:
    """The same for bfloat16."""
    values = ALL_CODES[:0x7F81].view(BFLOAT16).astype(np.float64)
    values[-1] = 2.0**128
    middles = ((values[:-1] + values[1:]) / 2).astype(np.float32)
    return _with_neighbours(np.concatenate([values[:-1].astype(np.float32), middles]))


def _with_neighbours(centres: NDArray[np.float32], *more: np.float32) -> NDArray[np.float32]:
    around = [centres, np.nextafter(centres, np.float32(0)), np.nextafter(centres, np.float32(3e38))]
    finite = np.sort(np.concatenate([*around, np.array(more, np.float32)]))
    signed = np.stack([finite, -finite], axis=1).reshape(-1)
    words = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0x7FC12345], np.uint32)
    return np.concatenate([signed, words.view(np.float32)])


def random_words(rng: np.random.Generator, size: int, top_exponent: int = 255) -> NDArray[np.float32]:
    """Random bit patterns as float32; exponent fields above ``top_exponent`` have their high bit cleared."""
    words = rng.integers(0, 1 << 32, size, dtype=np.uint32)
    high = ((words >> 23) & 0xFF) > top_exponent
    words[high] &= np.uint32(0xBFFFFFFF)
    return words.view(np.float32)


def bits(array: NDArray[Any]) -> NDArray[Any]:
    """The bit patterns of an array of 16- or 32-bit values."""
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def assert_same_bits(actual: NDArray[Any], expected: NDArray[Any], source: NDArray[Any]) -> None:
    """Every bit alike, NaN payloads included."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    wrong = np.flatnonzero(bits(actual).reshape(-1) != bits(expected).reshape(-1))
    if wrong.size:
        first = int(wrong[0])
        raise AssertionError(
            f"{wrong.size} of {actual.size} differ; first at {first}: {source.reshape(-1)[first]!r} became "
            f"{bits(actual).reshape(-1)[first]:#x}, expected {bits(expected).reshape(-1)[first]:#x}"
        )


def assert_same_values(actual: NDArray[Any], expected: NDArray[Any], source: NDArray[Any]) -> None:
    """Every bit alike, except that any NaN of the same sign stands for a NaN."""
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(actual), nan)
    assert np.array_equal(np.signbit(actual)[nan], np.signbit(expected)[nan])
    assert_same_bits(actual[~nan], expected[~nan], source[~nan])
