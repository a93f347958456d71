"""Packed codes: the layout, the way back, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import DataError, FormatError, ShapeError
from minimp.formats.making import make
from minimp.formats.packing import pack, packed_bytes, unpack
from minimp.formats.table import Format

NARROW = [make(width - 1 - m, m, signed=True, flavour="finite") for width, m in ((3, 1), (5, 2), (7, 3))]
PACKABLE = [
    *(formats.get(name) for name in ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e4m3fn")),
    *(formats.get(name) for name in ("float16", "float32", "tfloat32", "float64", "int8")),
    *NARROW,
    make(4, 7),  # 12 bits: 2 bytes
    make(8, 11),  # 20 bits: 3 bytes
]


def stream(codes: list[int], width: int) -> bytes:
    """Lay codes out as one big integer, element 0 lowest, and give its bytes from the lowest."""
    number = sum(code << (i * width) for i, code in enumerate(codes))
    return number.to_bytes(-(-len(codes) * width // 8), "little")


def width_of(fmt: Format) -> int:
    """Bits that one code takes in a packed row."""
    width = fmt.bits + fmt.padding
    return width if width < 8 else -(-width // 8) * 8


@pytest.mark.parametrize("fmt", PACKABLE, ids=repr)
@given(data=st.data())
def test_pack_is_one_little_endian_number(fmt: Format, data: st.DataObject) -> None:
    """Oracle: Python's big integers; and the codes themselves after the way back."""
    code = st.integers(0, (1 << fmt.bits) - 1).map(lambda bits: bits << fmt.padding)
    rows = data.draw(st.integers(1, 3))
    count = data.draw(st.integers(0, 19))
    codes = data.draw(st.lists(st.lists(code, min_size=count, max_size=count), min_size=rows, max_size=rows))
    array = np.array(codes, fmt.code_dtype).reshape(rows, count)
    packed = pack(array, fmt)
    assert packed.dtype == np.uint8
    assert packed.shape == (rows, packed_bytes(count, fmt))
    assert [row.tobytes() for row in packed] == [stream(each, width_of(fmt)) for each in codes]
    back = unpack(packed, fmt, count)
    assert back.dtype == fmt.code_dtype
    assert np.array_equal(back, array)


def test_the_documented_bytes() -> None:
    """Oracle: by hand, from the layout in the module's docstring."""
    assert pack([0x1, 0x2, 0xF], "e2m1").tolist() == [0x21, 0x0F]
    assert pack([1, 2, 3, 0x3F], "e3m2").tolist() == [0b10_000001, 0b0011_0000, 0b111111_00]
    assert pack([0x7E, 0x01], "float8_e4m3fn").tolist() == [0x7E, 0x01]
    assert pack([0x3C00, 0x0001], "float16").tolist() == [0x00, 0x3C, 0x01, 0x00]
    assert pack(np.zeros((2, 0), np.uint8), "e2m1").shape == (2, 0)


def test_four_values_take_three_bytes() -> None:
    """Oracle: 4 · 6 = 3 · 8, and so for every width."""
    assert [packed_bytes(n, "e2m3") for n in range(6)] == [0, 1, 2, 3, 3, 4]
    assert [packed_bytes(n, "e2m1") for n in range(4)] == [0, 1, 1, 2]
    assert [packed_bytes(3, fmt) for fmt in (make(4, 7), make(8, 11), "tfloat32")] == [6, 9, 12]


@pytest.mark.parametrize("fmt", ["float4_e2m1fn", "float6_e3m2fn"])
def test_numpy_packs_the_same_bits(fmt: str) -> None:
    """Oracle: np.packbits with little bit order, on 4,097 codes of a transposed (not contiguous) array."""
    width = formats.get(fmt).bits
    codes = np.random.default_rng(3).integers(0, 1 << width, (4097, 3), dtype=np.uint8).T
    bits = codes[..., None] >> np.arange(width, dtype=np.uint8) & 1
    expected = np.packbits(bits.reshape(3, -1), axis=-1, bitorder="little")
    assert np.array_equal(pack(codes, fmt), expected)
    assert np.array_equal(unpack(pack(codes, fmt), fmt, 4097), codes)


@pytest.mark.torch
def test_torch_views_two_codes_as_one_element() -> None:
    """Oracle: torch 2.13.0: float4_e2m1fn_x2 has one element a packed byte, and views back to that byte."""
    import torch

    packed = pack(np.arange(16, dtype=np.uint8), "float4_e2m1fn")
    pairs = torch.from_numpy(packed).view(torch.float4_e2m1fn_x2)
    assert pairs.shape == (8,)
    assert pairs.element_size() == 1
    assert np.array_equal(unpack(pairs.view(torch.uint8).numpy(), "float4_e2m1fn", 16), np.arange(16))


def test_ml_dtypes_values_survive() -> None:
    """Oracle: ml_dtypes' float4 and float6 arrays, one byte a value, before packing and after."""
    for name in ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"):
        fmt = formats.get(name)
        values = np.arange(1 << fmt.bits, dtype=np.uint8).view(fmt.dtype)
        back = unpack(pack(values.view(np.uint8), fmt), fmt, values.size).view(fmt.dtype)
        assert np.array_equal(back.view(np.uint8), values.view(np.uint8))


REFUSED = [
    (lambda: pack([0.5], "e2m1"), DataError, "expected integer codes of float4_e2m1fn, got float64"),
    (lambda: pack([3, 16], "e2m1"), DataError, "1 of 2 codes are not float4_e2m1fn's: it has 4 bits"),
    (lambda: pack([-1], "e2m3"), DataError, "1 of 1 codes are not"),
    (lambda: pack([1], "tfloat32"), DataError, "19 bits above 13 zeros"),
    (lambda: pack(3, "e2m1"), ShapeError, "at least one axis"),
    (lambda: pack([1], "float5"), FormatError, "did you mean"),
    (lambda: unpack(np.zeros(2, np.uint8), "e2m3", 4), DataError, "expected 3 bytes a row for 4 codes"),
    (lambda: unpack(np.zeros(2, np.uint8), "e2m1", 5), DataError, "expected 3 bytes"),
    (lambda: unpack(np.zeros(2, np.uint8), "e2m1", 2), DataError, "expected 1 bytes"),
    (lambda: unpack(np.zeros(0, np.uint8), "e2m1", -1), DataError, "a count of at least 0"),
    (lambda: unpack(np.zeros(2, np.int8), "e2m1", 4), DataError, "expected packed codes as uint8, got int8"),
    (lambda: unpack(np.array([[1, 2], [0, 0x10]], np.uint8), "e2m1", 3), DataError, "4 zero bits .* 1 rows"),
    (lambda: unpack(np.array([0, 0x10], np.uint8), make(4, 7), 1), DataError, "it has 12 bits"),
    (lambda: unpack(np.uint8(0), "e2m1", 1), ShapeError, "at least one axis"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_bad_input(call: Callable[[], object], error: type[Exception], words: str) -> None:
    """Oracle: the error of the tree, and the words that say what was expected and what came."""
    with pytest.raises(error, match=words):
        call()
