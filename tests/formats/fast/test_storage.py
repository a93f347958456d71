"""Fast codes are the readable ones, both ways."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from minimp.errors import DataError, FormatError
from minimp.formats import casting, codes
from minimp.formats.fast import storage
from minimp.formats.fast.plans import table_serves
from minimp.formats.table import FORMATS, Format
from tests.formats.fast.samples import EVERY, assert_bits, doubles, numbers


def _some_codes(fmt: Format) -> np.ndarray:
    if fmt.bits <= 16:
        return np.tile(np.arange(1 << fmt.bits, dtype=fmt.code_dtype), max(1, (1 << 15) >> fmt.bits))
    random = np.random.default_rng(3).integers(0, 1 << min(fmt.bits, 63), 20_000, dtype=np.uint64)
    return (random << np.uint64(fmt.padding)).astype(fmt.code_dtype)


@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_encode_from_float32(fmt: Format, overflow: str) -> None:
    """Oracle: the readable codes, over all midpoints and special values; by table and without."""
    x = numbers(fmt)
    for given in (x, x[:1000]):
        got = casting.encode(given, fmt, overflow=overflow)
        assert_bits(got, codes.encode(given, fmt, overflow=overflow), given)


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_encode_other_modes_and_float64(fmt: Format) -> None:
    """Oracle: the readable codes."""
    x = numbers(fmt)[::6]
    for mode in ("nearest_away", "down", "to_odd"):
        assert_bits(casting.encode(x, fmt, mode), codes.encode(x, fmt, mode), x)
    wide = doubles(fmt)[::5]
    assert_bits(casting.encode(wide, fmt), codes.encode(wide, fmt), wide)
    flushed = casting.encode(x, fmt, subnormals="flush")
    assert_bits(flushed, codes.encode(x, fmt, subnormals="flush"), x)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_decode(fmt: Format, dtype: type) -> None:
    """Oracle: the readable values of all codes, bit for bit; blocks with and without special codes."""
    if dtype is np.float32 and not fmt.within_float32:
        with pytest.raises(FormatError, match="expected dtype float64"):
            casting.decode(_some_codes(fmt), fmt, dtype=dtype)
        return
    every = _some_codes(fmt)
    finite = every[np.isfinite(codes.decode(every, fmt))]
    for given in (every, finite, every[:100], every.reshape(2, -1).T):
        assert_bits(casting.decode(given, fmt, dtype=dtype), codes.decode(given, fmt).astype(dtype), given)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "tfloat32", "float32"])
def test_one_special_code_among_numbers(name: str) -> None:
    """Oracle: the readable values, of an infinity or a NaN that is alone in its block."""
    fmt = FORMATS[name]
    top = 1 << (fmt.bits - 1)
    for special in (fmt.inf_code, fmt.nan_code, fmt.inf_code + top, fmt.nan_code + top, fmt.nan_code + 1):
        for size in (100, 40_000):
            given = np.full(size, 3, fmt.code_dtype) << fmt.padding
            given[-1] = special << fmt.padding
            assert_bits(casting.decode(given, fmt), codes.decode(given, fmt), given)


@pytest.mark.parametrize("name", [n for n, fmt in FORMATS.items() if fmt.dtype.kind == "V"])
def test_codes_are_those_of_ml_dtypes(name: str) -> None:
    """Oracle: ml_dtypes' casts from float32 and back, which share no code with ours."""
    fmt = FORMATS[name]
    x = numbers(fmt)
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = x.astype(fmt.dtype)
        back = theirs.astype(np.float32)
    got = casting.encode(x, fmt, overflow="ml_dtypes")
    ordinary = ~np.isnan(x)
    assert_bits(got[ordinary], theirs.view(fmt.code_dtype)[ordinary], x[ordinary])
    values = casting.decode(got, fmt, dtype=np.float32)
    assert (np.isnan(values) == np.isnan(back)).all()
    finite = ~np.isnan(back)
    assert_bits(values[finite], back[finite], x[finite])


def test_wrong_codes_are_refused_as_the_readable_form_does() -> None:
    """Oracle: the readable form's message, however large the array."""
    for name, code, dtype in (("fp4", 16, np.uint8), ("fp6_e2m3fn", 64, np.uint8), ("tf32", 1, np.uint32)):
        given = np.zeros(70_000, dtype)
        given[69_999] = code
        with pytest.raises(DataError) as readable:
            codes.decode(given, name)
        with pytest.raises(DataError) as fast:
            casting.decode(given, name)
        assert str(fast.value) == str(readable.value)
    with pytest.raises(DataError, match="expected integer codes"):
        casting.decode(np.zeros(3, np.float16), "fp16")


def test_other_integers_are_read_too() -> None:
    """Oracle: the readable form, for lists and codes of a wider type."""
    for given in ([1, 2, 0x7C00], np.array([[1, 0x8001]], np.int64), np.array([5], ">u2")):
        assert_bits(casting.decode(given, "fp16"), codes.decode(given, "fp16"), np.asarray(given))


def test_tables_hold_the_sticky_bit() -> None:
    """Oracle: the readable codes of the float32 just above and below each index of the table."""
    fmt = FORMATS["float8_e3m4"]  # the longest significand that is looked up
    assert table_serves(fmt)
    assert not table_serves(FORMATS["int8"])
    upper = (np.arange(1 << 16, dtype=np.uint32) << 16)[:, None]
    x = (upper | np.array([0, 1, 0x7FFF, 0x8000, 0xFFFF], np.uint32)).view(np.float32).ravel()
    for mode in ("nearest_even", "up", "to_odd"):
        assert_bits(casting.encode(x, fmt, mode), codes.encode(x, fmt, mode), x)
    with pytest.raises(ValueError, match="read-only"):
        storage.code_table(fmt, "up", None, "keep")[0] = 1


def test_without_float32_subnormals_codes_are_still_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: NumPy's float16; where the processor flushes subnormals the readable form has to serve."""
    monkeypatch.setattr(storage, "_flushes_subnormals", lambda: True)
    fmt = FORMATS["float16"]
    assert not storage.packs(fmt)
    assert not storage.unpacks(fmt)
    assert storage.packs(FORMATS["bfloat16"])
    x = np.float32([1.5, 2.0**-20, -(2.0**-24)])
    got = casting.encode(x, fmt)
    assert (got == x.astype(np.float16).view(np.uint16)).all()
    assert (casting.decode(got, fmt) == x).all()


def test_bfloat16_goes_through_ml_dtypes_where_that_is_right() -> None:
    """Oracle: the readable codes, NaN payloads included, and the modes that ml_dtypes does not know."""
    x = numbers(FORMATS["bfloat16"])
    for rounding, overflow in (("nearest_even", None), ("nearest_even", "saturate"), ("up", None)):
        got = casting.encode(x, "bf16", rounding, overflow)
        assert_bits(got, codes.encode(x, "bf16", rounding, overflow), x)
    assert ml_dtypes.bfloat16 is FORMATS["bfloat16"].dtype.type
