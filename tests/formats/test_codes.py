"""Bits: encoding and decoding."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.errors import DataError, FormatError
from minimp.formats import Format
from tests.formats.oracle import SMALL, assert_same

STORED_SMALL = [each for each in (*SMALL, formats.float8_e8m0fnu) if not each.is_integer]


@pytest.mark.parametrize("fmt", STORED_SMALL, ids=repr)
def test_decode_every_code(fmt: Format) -> None:
    """Oracle: NumPy's and ml_dtypes' reading of the same bits, for every code of up to 16 bits."""
    codes = np.arange(1 << fmt.bits, dtype=fmt.code_dtype)
    with np.errstate(invalid="ignore"):
        expected = codes.view(fmt.dtype).astype(np.float64)
    got = formats.decode(codes, fmt)
    assert got.dtype == np.float64
    assert_same(got, expected, codes)


@pytest.mark.parametrize("fmt", STORED_SMALL, ids=repr)
def test_encode_gives_every_code_back(fmt: Format) -> None:
    """Oracle: the code itself; a NaN comes as the quiet NaN of its sign that ml_dtypes writes."""
    codes = np.arange(1 << fmt.bits, dtype=fmt.code_dtype)
    values = formats.decode(codes, fmt)
    with np.errstate(invalid="ignore"):
        written = values.astype(np.float32).astype(fmt.dtype).view(fmt.code_dtype)
    expected = np.where(np.isnan(values), written, codes)
    got = formats.encode(values, fmt)
    assert got.dtype == fmt.code_dtype
    assert np.array_equal(got, expected)


def test_uint8_is_its_own_code() -> None:
    """Oracle: identity; what is below 0 or above 255 clamps."""
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(formats.decode(codes, "uint8"), codes)
    assert np.array_equal(formats.encode(codes, "uint8"), codes)
    assert formats.encode([1e9, -1e9, 2.5, -0.4, 255.5], "uint8").tolist() == [255, 0, 2, 0, 255]


def test_int8_is_twos_complement() -> None:
    """Oracle: NumPy's view of a byte."""
    codes = np.arange(256, dtype=np.uint8)
    assert np.array_equal(formats.decode(codes, "int8"), codes.view(np.int8).astype(np.float64))
    assert np.array_equal(formats.encode(codes.view(np.int8), "int8"), codes)
    assert formats.encode([1e9, -1e9, 2.5, -0.4], "int8").tolist() == [127, 128, 2, 0]


@pytest.mark.parametrize(("name", "unsigned"), [("float32", np.uint32), ("float64", np.uint64)])
def test_wide_formats_by_their_patterns(name: str, unsigned: type) -> None:
    """Oracle: NumPy's view, on random bit patterns and the corners."""
    fmt = formats.get(name)
    codes = np.random.default_rng(1).integers(0, 1 << fmt.bits, 100_000, dtype=unsigned)
    corners = [0, 1, fmt.max_code, fmt.inf_code, 1 << (fmt.bits - 1), (1 << fmt.mantissa_bits) - 1]
    codes = np.concatenate([codes, np.array(corners, unsigned)])
    values = codes.view(fmt.dtype)
    assert_same(formats.decode(codes, fmt), values)
    numbers = ~np.isnan(values)
    assert np.array_equal(formats.encode(values[numbers], fmt), codes[numbers])


def test_tfloat32_is_a_float32_pattern() -> None:
    """Oracle: float32 with the last 13 bits rounded away, read as float32."""
    x = np.random.default_rng(2).standard_normal(10_000).astype(np.float32)
    codes = formats.encode(x, "tfloat32")
    assert codes.dtype == np.uint32
    assert not (codes & 0x1FFF).any()
    assert_same(codes.view(np.float32), formats.round(x, "tfloat32"))
    assert_same(formats.decode(codes, "tfloat32"), codes.view(np.float32))
    assert np.abs(codes.view(np.float32) / x - 1).max() <= 2.0**-11
    assert formats.encode([np.inf, 1.0, -0.0], "tfloat32").tolist() == [0x7F800000, 0x3F800000, 0x80000000]


def test_encode_takes_the_settings_of_round() -> None:
    """Oracle: by hand, around 1 + 1/1024 and beyond the end of float16."""
    x = 1 + 2.0**-11
    codes = {
        mode: int(formats.encode(x, "float16", mode))
        for mode in ("nearest_even", "nearest_away", "up", "to_odd")
    }
    assert codes == {"nearest_even": 0x3C00, "nearest_away": 0x3C01, "up": 0x3C01, "to_odd": 0x3C01}
    assert int(formats.encode(1e9, "float16")) == 0x7C00
    assert int(formats.encode(1e9, "float16", overflow="saturate")) == 0x7BFF
    assert int(formats.encode(np.float64(np.nan), "float16")) == 0x7E00
    drawn = formats.encode(np.full(64, x), "float16", "stochastic", rng=0)
    assert set(drawn.tolist()) == {0x3C00, 0x3C01}


def test_shapes_are_kept() -> None:
    """Oracle: the input's shape."""
    for shape in ((), (0,), (2, 3)):
        codes = formats.encode(np.ones(shape), "float8_e5m2")
        assert codes.shape == shape
        assert formats.decode(codes, "float8_e5m2").shape == shape


def test_codes_as_any_integers() -> None:
    """Oracle: the same codes as lists, signed and unsigned arrays."""
    expected = [1.0, -2.0]
    for codes in ([0x3C00, 0xC000], np.array([0x3C00, 0xC000]), np.array([0x3C00, 0xC000], np.uint16)):
        assert formats.decode(codes, "float16").tolist() == expected


@pytest.mark.parametrize(
    ("codes", "fmt", "said"),
    [
        ([0x10000], "float16", "1 of 1 codes are not float16's"),
        ([0, -1], "float16", "1 of 2 codes"),
        ([64], "float6_e2m3fn", "it has 6 bits"),
        ([0x3F800001], "tfloat32", "19 bits above 13 zeros"),
        ([1.0], "float16", "expected integer codes of float16, got float64"),
        (np.array([1], ml_dtypes.bfloat16), "bfloat16", "got bfloat16"),
    ],
)
def test_what_is_no_code_is_refused(codes: object, fmt: str, said: str) -> None:
    """Oracle: the message counts the strangers and gives the width."""
    with pytest.raises(DataError, match=said):
        formats.decode(codes, fmt)


def test_nan_cannot_be_encoded_without_a_nan() -> None:
    """Oracle: the error of round."""
    with pytest.raises(FormatError, match="no NaN"):
        formats.encode(np.nan, "float6_e3m2fn")
