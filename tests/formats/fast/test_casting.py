"""The front door: shapes, dtypes, out, threads, memory, errors."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minimp.errors import DataError, FormatError, SettingError, ShapeError
from minimp.formats import casting, codes
from minimp.formats.dice import Counter
from minimp.formats.flags import Flags
from minimp.formats.rounding import round_to
from minimp.formats.table import FORMATS
from tests.formats.fast.samples import assert_bits, numbers

HALF = FORMATS["float16"]


def _normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(4).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("size", [0, 1, 2, 1023, 65_535, 65_536, 65_537, 131_073])
def test_any_size(size: int) -> None:
    """Oracle: the readable forms, about the borders of blocks."""
    x = _normal(size)
    assert_bits(casting.round(x, HALF), round_to(x, HALF), x)
    assert_bits(casting.encode(x, HALF), codes.encode(x, HALF), x)
    assert_bits(casting.encode(x, "e5m2"), codes.encode(x, "e5m2"), x)
    stored = codes.encode(x, HALF)
    assert_bits(casting.decode(stored, HALF), codes.decode(stored, HALF), stored)


def _views() -> dict[str, np.ndarray]:
    x = _normal(60, 70, 50)
    odd = np.empty(4 * 1000 + 1, np.uint8)[1:].view(np.float32)  # not aligned
    odd[:] = x.ravel()[:1000]
    frozen = x.copy()
    frozen.setflags(write=False)
    return {
        "transposed": x.T,
        "strided": x[::2, 1::3, ::7],
        "reversed": x[::-1, :, ::-1],
        "broadcast": np.broadcast_to(x[:1], x.shape),
        "Fortran": np.asfortranarray(x),
        "unaligned": odd,
        "read-only": frozen,
        "other byte order": x.astype(">f4"),
        "0-d": x[1, 2, 3, ...],
        "empty": x[:, :0],
    }


@pytest.mark.parametrize("name", _views())
def test_any_layout(name: str) -> None:
    """Oracle: the readable forms; the input is left as it was."""
    x = _views()[name]
    before = x.copy()
    for got, expected in (
        (casting.round(x, HALF), round_to(x, HALF)),
        (casting.round(x, "bf16", "up"), round_to(x, "bf16", "up")),
        (casting.encode(x, "e4m3fn"), codes.encode(x, "e4m3fn")),
    ):
        assert type(got) is type(expected)
        assert got.shape == expected.shape == x.shape
        assert_bits(np.ravel(got), np.ravel(expected), x)
    assert (x == before).all()


@pytest.mark.parametrize(
    "dtype",
    [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, np.int8, np.uint16, np.int32, np.int64, np.bool_],
)
def test_other_dtypes_are_widened(dtype: Any) -> None:
    """Oracle: the readable rounding."""
    x = np.arange(100).astype(dtype)
    assert_bits(casting.round(x, "e4m3fn"), round_to(x, "e4m3fn"), x)
    assert_bits(casting.round([0.1, 2], "fp16"), round_to([0.1, 2], "fp16"), x)


def test_scalars_come_back_as_from_the_readable_forms() -> None:
    """Oracle: the types of the readable forms."""
    for got, expected in (
        (casting.round(0.1, HALF), round_to(0.1, HALF)),
        (casting.encode(0.1, HALF), codes.encode(0.1, HALF)),
        (casting.decode(7, HALF), codes.decode(7, HALF)),
        (casting.decode(np.uint16(7), HALF), codes.decode(np.uint16(7), HALF)),
    ):
        assert type(got) is type(expected)
        assert got.dtype == expected.dtype
        assert got == expected


def test_out_receives_the_result() -> None:
    """Oracle: the call without out; in place, over a strided array, and where memory overlaps."""
    x = _normal(100_000)
    expected = casting.round(x, HALF)
    out = np.empty_like(x)
    assert casting.round(x, HALF, out=out) is out
    assert_bits(out, expected, x)
    strided = np.empty((x.size, 2), np.float32)[:, 1]
    assert_bits(casting.round(x, HALF, out=strided), expected, x)
    for fmt, mode in (("fp16", "nearest_even"), ("bf16", "nearest_even"), ("bf16", "up"), ("fp16", "to_odd")):
        wanted, same = round_to(x, fmt, mode), x.copy()
        assert_bits(casting.round(same, fmt, mode, out=same), wanted, x)
    store = np.concatenate([x, x[:1]])
    assert_bits(casting.round(store[:-1], HALF, out=store[1:]), expected, x)
    stored = np.empty(x.shape, np.uint8)
    assert_bits(casting.encode(x, "e5m2", out=stored), codes.encode(x, "e5m2"), x)
    assert_bits(casting.decode(stored, "e5m2", out=out, dtype=np.float32), casting.round(x, "e5m2"), x)
    generator = np.random.default_rng(1)  # the readable form serves
    casting.round(x, HALF, "stochastic", rng=generator, out=out)
    assert_bits(out, round_to(x, HALF, "stochastic", rng=np.random.default_rng(1)), x)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_do_not_show(threads: int) -> None:
    """Oracle: one thread."""
    x = _normal(400_001)
    x[::1000] = np.inf
    for run in (
        lambda **how: casting.round(x, HALF, **how),
        lambda **how: casting.round(x.astype(np.float64), "bf16", **how),
        lambda **how: casting.encode(x, "e4m3fn", **how),
        lambda **how: casting.decode(codes.encode(x[:70_000], HALF), HALF, **how),
    ):
        assert_bits(run(threads=threads), run(), x)
    with pytest.raises(FormatError, match=r"has no NaN, and 1 of 400001"):
        casting.round(np.where(np.arange(x.size) == 399_999, np.nan, 1), "fp4", threads=threads)


def _extra(run: Callable[[np.ndarray], np.ndarray], size: int) -> int:
    """Bytes at the peak beside the input and the result."""
    x = _normal(size)
    run(x[:1000])
    tracemalloc.start()
    try:
        result = run(x)
        return tracemalloc.get_traced_memory()[1] - result.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "run",
    [
        lambda x: casting.round(x, HALF),
        lambda x: casting.round(x, "bf16"),
        lambda x: casting.round(x, "e4m3fn", "up", "saturate"),
        lambda x: casting.round(x.reshape(-1, 8).T, HALF),
        lambda x: casting.round(x, HALF, "stochastic", rng=3),
        lambda x: casting.round(x.view(np.int16)[::2], HALF),
        lambda x: casting.encode(x, HALF),
        lambda x: casting.encode(x, "e4m3fn"),
        lambda x: casting.decode(x.view(np.uint8), "e5m2"),
        lambda x: casting.decode(x.view(np.uint16), HALF, dtype=np.float32),
    ],
)
def test_memory_does_not_grow(run: Callable[[np.ndarray], np.ndarray]) -> None:
    """Oracle: tracemalloc's peak beside the result, for 2^19 and 2^21 values."""
    small, large = (_extra(run, 1 << power) for power in (19, 21))
    assert large <= small + 100_000
    assert large < 8_000_000


def test_errors() -> None:
    """Oracle: the readable forms' errors, and what the door itself refuses."""
    x = _normal(10)
    with pytest.raises(FormatError, match="did you mean"):
        casting.round(x, "float17")
    with pytest.raises(SettingError, match="unknown rounding"):
        casting.round(x, HALF, "nearest")
    with pytest.raises(SettingError, match="unknown overflow"):
        casting.encode(x, HALF, overflow="clip")
    with pytest.raises(SettingError, match="unknown subnormals"):
        casting.round(x, HALF, subnormals="drop")
    with pytest.raises(SettingError, match="needs a random source"):
        casting.round(x, HALF, "stochastic")
    with pytest.raises(DataError, match="expected real numbers"):
        casting.round(x.astype(complex), HALF)
    with pytest.raises(DataError, match="need more than float64's 53 bits"):
        casting.round(np.array([2**60 + 1]), HALF)
    for threads in (0, 1.5, "2"):
        with pytest.raises(SettingError, match="expected threads"):
            casting.round(x, HALF, threads=threads)
    with pytest.raises(FormatError, match="expected out to be a float32 array, got float64"):
        casting.round(x, HALF, out=np.empty(10))
    with pytest.raises(ShapeError, match="expected out of shape"):
        casting.encode(x, HALF, out=np.empty(9, np.uint16))
    frozen = np.empty(10, np.float32)
    frozen.setflags(write=False)
    with pytest.raises(DataError, match="read-only"):
        casting.round(x, HALF, out=frozen)
    with pytest.raises(FormatError, match="expected dtype float64, or float32"):
        casting.decode(np.zeros(3, np.uint16), HALF, dtype=np.float16)


def test_nan_without_a_place_is_refused_wherever_it_is() -> None:
    """Oracle: the readable form's message, for the last of many blocks, and in place."""
    x = _normal(200_000)
    x[-1] = np.nan
    for run in (casting.round, casting.encode):
        with pytest.raises(FormatError, match="1 of 200000 values are NaN"):
            run(x, "fp4")
    with pytest.raises(FormatError, match="1 of 200000 values are NaN"):
        casting.round(x, "int8", out=x)


def test_flags_are_counted_by_the_readable_form() -> None:
    """Oracle: the readable rounding's flags and bits."""
    x = numbers(HALF)[::5]
    mine, theirs = Flags(), Flags()
    assert_bits(casting.round(x, HALF, flags=mine), round_to(x, HALF, flags=theirs), x)
    assert mine == theirs
    assert mine.overflow > 0


def test_warnings_stay_silent_and_settings_as_they_were() -> None:
    """Oracle: pytest, for which a warning is an error, and NumPy's own settings."""
    before = np.geterr()
    with np.errstate(all="raise"):
        x = numbers(FORMATS["float8_e4m3fn"])
        casting.round(x, "e4m3fn")
        casting.round(x, "bf16", "stochastic", rng=Counter(1))
        casting.encode(x, HALF)
    assert np.geterr() == before
