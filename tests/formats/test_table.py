"""The table of formats and the ways to name one."""

from __future__ import annotations

import copy
import math

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.errors import FormatError
from minimp.formats import Format, get
from tests.formats.oracle import FLOATS, OWN, assert_same

STORED = [each for each in (*FLOATS, formats.float8_e8m0fnu) if each.name != "tfloat32"]


@pytest.mark.parametrize("fmt", STORED, ids=repr)
def test_anatomy_is_that_of_ml_dtypes(fmt: Format) -> None:
    """Oracle: ml_dtypes.finfo, which carries these as literals; ours are derived from the row."""
    info = ml_dtypes.finfo(fmt.dtype)
    assert fmt.bits == info.bits
    assert fmt.mantissa_bits == info.nmant
    assert fmt.emin == info.minexp
    assert fmt.emax == info.maxexp - 1
    assert fmt.max == float(info.max)
    assert fmt.lowest == float(info.min)
    assert fmt.smallest_normal == float(info.smallest_normal)
    assert fmt.smallest_subnormal == float(info.smallest_subnormal)
    assert fmt.eps == float(info.eps)


# Published figures: max, smallest normal, smallest subnormal, exponent bits, mantissa bits, bias, inf, NaN.
PUBLISHED = {
    # IEEE 754-2019, table 3.5
    "float64": ((2 - 2.0**-52) * 2.0**1023, 2.0**-1022, 2.0**-1074, 11, 52, 1023, True, True),
    "float32": ((2 - 2.0**-23) * 2.0**127, 2.0**-126, 2.0**-149, 8, 23, 127, True, True),
    "float16": (65504, 2.0**-14, 2.0**-24, 5, 10, 15, True, True),
    # the makers' documents: NVIDIA's A100 whitepaper; Intel's bfloat16 numerics definition
    "tfloat32": ((2 - 2.0**-10) * 2.0**127, 2.0**-126, 2.0**-136, 8, 10, 127, True, True),
    "bfloat16": ((2 - 2.0**-7) * 2.0**127, 2.0**-126, 2.0**-133, 8, 7, 127, True, True),
    # OCP OFP8 1.0, tables 1 and 2
    "float8_e4m3fn": (448, 2.0**-6, 2.0**-9, 4, 3, 7, False, True),
    "float8_e5m2": (57344, 2.0**-14, 2.0**-16, 5, 2, 15, True, True),
    # Noune et al. 2022
    "float8_e4m3fnuz": (240, 2.0**-7, 2.0**-10, 4, 3, 8, False, True),
    "float8_e5m2fnuz": (57344, 2.0**-15, 2.0**-17, 5, 2, 16, False, True),
    # OCP MX 1.0, 5.3 and 5.4
    "float6_e2m3fn": (7.5, 1.0, 0.125, 2, 3, 1, False, False),
    "float6_e3m2fn": (28, 0.25, 0.0625, 3, 2, 3, False, False),
    "float4_e2m1fn": (6, 1.0, 0.5, 2, 1, 1, False, False),
    "float8_e8m0fnu": (2.0**127, 2.0**-127, 2.0**-127, 8, 0, 127, False, True),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_anatomy_is_the_published_one(name: str) -> None:
    """Oracle: the tables of the specifications."""
    fmt = get(name)
    sizes = (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal)
    shown = (*sizes, fmt.exponent_bits, fmt.mantissa_bits, fmt.bias, fmt.has_inf, fmt.has_nan)
    assert shown == PUBLISHED[name]


# Published codes: OCP OFP8 1.0, table 2; OCP MX 1.0, tables 2 to 7; IEEE 754-2019, 3.4.
CODES = {
    "float8_e4m3fn": {
        0x7E: 448,
        0x7F: math.nan,
        0xFF: math.nan,
        0x08: 2.0**-6,
        0x07: 0.875 * 2.0**-6,
        1: 2.0**-9,
    },
    "float8_e5m2": {
        0x7B: 57344,
        0x7C: math.inf,
        0xFC: -math.inf,
        0x7D: math.nan,
        0x7E: math.nan,
        1: 2.0**-16,
    },
    "float6_e3m2fn": {0b011111: 28, 0b000100: 0.25, 0b000011: 0.1875, 0b000001: 0.0625, 0b111111: -28},
    "float6_e2m3fn": {0b011111: 7.5, 0b001000: 1, 0b000111: 0.875, 0b000001: 0.125, 0b100000: -0.0},
    "float4_e2m1fn": {0b0111: 6, 0b0010: 1, 0b0001: 0.5, 0b1000: -0.0, 0b1111: -6},
    "float8_e8m0fnu": {0: 2.0**-127, 1: 2.0**-126, 127: 1, 254: 2.0**127, 255: math.nan},
    "float16": {
        0x7BFF: 65504,
        0x7C00: math.inf,
        0x7E00: math.nan,
        0x3C00: 1,
        0x8000: -0.0,
        0x03FF: 1023 * 2.0**-24,
    },
    "uint8": {0: 0, 128: 128, 255: 255},
    "int8": {0: 0, 127: 127, 128: -128, 255: -1},
}


@pytest.mark.parametrize("name", CODES)
def test_codes_are_the_published_ones(name: str) -> None:
    """Oracle: the tables of the specifications."""
    codes, values = list(CODES[name]), list(CODES[name].values())
    assert_same(formats.decode(codes, name), np.array(values, np.float64))
    numbers = [code for code, value in CODES[name].items() if not math.isnan(value)]
    assert formats.encode([CODES[name][code] for code in numbers], name).tolist() == numbers


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integers_are_evenly_spaced(dtype: type) -> None:
    """Oracle: np.iinfo."""
    fmt, info = get(dtype), np.iinfo(dtype)
    assert (fmt.lowest, fmt.max) == (info.min, info.max)
    assert (fmt.bits, fmt.eps, fmt.smallest_subnormal, fmt.smallest_normal) == (8, 1, 1, 1)
    assert fmt.is_integer
    assert fmt.signed == (info.min < 0)
    assert not any((fmt.has_inf, fmt.has_nan, fmt.has_negative_zero, fmt.has_subnormals))


def test_rows_say_what_they_are() -> None:
    """Oracle: by hand: the switches that the rows and flavours set."""
    assert [each.name for each in formats.FORMATS.values() if not each.signed] == ["float8_e8m0fnu", "uint8"]
    assert [each.name for each in formats.FORMATS.values() if not each.has_zero] == ["float8_e8m0fnu"]
    assert [each.name for each in formats.FORMATS.values() if each.padding] == ["tfloat32"]
    bare = ["float8_e8m0fnu", "int8", "uint8"]
    assert [each.name for each in formats.FORMATS.values() if not each.has_subnormals] == bare
    no_minus = ["float8_e4m3fnuz", "float8_e5m2fnuz", *bare]
    assert [each.name for each in formats.FORMATS.values() if not each.has_negative_zero] == no_minus
    assert [each.name for each in formats.FORMATS.values() if not each.within_float32] == ["float64"]


@pytest.mark.parametrize("name", formats.FLAVOURS)
def test_flavours_are_in_use(name: str) -> None:
    """Oracle: their notes, and a format of each kind."""
    assert formats.FLAVOURS[name].name == name
    assert len(formats.FLAVOURS[name].note) > 20
    assert any(each.flavour == name for each in (*formats.FORMATS.values(), *OWN))


def test_every_format_is_an_attribute() -> None:
    """Oracle: the table itself."""
    for name, fmt in formats.FORMATS.items():
        assert getattr(formats, name) is fmt
        assert fmt.name == name


NAMED = {
    "float64": ("float64", "FP64", "f64", "double", float, np.float64, np.dtype(np.float64), np.dtype(">f8")),
    "float32": ("float32", "fp32", "f32", "single", np.float32, np.dtype("<f4")),
    "tfloat32": ("tfloat32", "tf32", "TF32"),
    "float16": ("float16", " fp16 ", "f16", "half", np.float16, np.dtype("e")),
    "bfloat16": ("bfloat16", "bf16", ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)),
    "float8_e4m3fn": ("fp8_e4m3fn", "e4m3fn", ml_dtypes.float8_e4m3fn),
    "float8_e5m2": ("fp8_e5m2", "e5m2", np.dtype(ml_dtypes.float8_e5m2)),
    "float4_e2m1fn": ("fp4", "e2m1", ml_dtypes.float4_e2m1fn),
    "float8_e8m0fnu": ("e8m0", "ue8m0", "fp8_e8m0fnu", "E8M0FNU", ml_dtypes.float8_e8m0fnu),
    "int8": ("int8", "i8", np.int8, np.dtype(np.int8)),
    "uint8": ("uint8", "u8", np.uint8, np.dtype("u1")),
}


@pytest.mark.parametrize(("name", "spelling"), [(n, each) for n, row in NAMED.items() for each in row])
def test_get_accepts_what_names_a_format(name: str, spelling: object) -> None:
    """Oracle: identity with the table's object."""
    assert get(spelling) is formats.FORMATS[name]
    assert get(get(spelling)) is get(spelling)


@pytest.mark.torch
def test_get_accepts_torch_dtypes() -> None:
    """Oracle: torch 2.13.0's names."""
    torch = pytest.importorskip("torch")
    names = ("float64", "float32", "float16", "bfloat16", "int8", "uint8", "float8_e4m3fn", "float8_e5m2")
    for name in (*names, "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"):
        assert get(getattr(torch, name)) is formats.FORMATS[name]
    with pytest.raises(FormatError, match=r"torch\.int64"):
        get(torch.int64)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("floot16", "did you mean 'float16'"),
        ("fp8_e4m3", "unknown number format 'fp8_e4m3'"),
        (np.int64, "unknown number format"),
        (np.dtype("U3"), "unknown number format"),
        (16, "unknown number format '16'"),
        (None, "unknown number format 'None'"),
        (int, "unknown number format"),
        (["float16"], "unknown number format"),
    ],
)
def test_unknown_formats_are_refused(wrong: object, said: str) -> None:
    """Oracle: the message names what came and the nearest name; the error is a TypeError too."""
    with pytest.raises(FormatError, match=said):
        get(wrong)
    assert issubclass(FormatError, TypeError)


@pytest.mark.parametrize("fmt", formats.FORMATS.values(), ids=repr)
def test_one_object_per_format(fmt: Format) -> None:
    """Oracle: identity. Copies and what a pickle would rebuild are the registered object."""
    rebuild, arguments = fmt.__reduce__()
    assert rebuild(*arguments) is fmt
    assert copy.copy(fmt) is fmt
    assert copy.deepcopy([fmt])[0] is fmt
    assert repr(fmt) == fmt.name
    assert {fmt: 1}[get(fmt.name)] == 1


def test_formats_are_frozen() -> None:
    """Oracle: dataclasses.FrozenInstanceError is an AttributeError."""
    with pytest.raises(AttributeError):
        formats.float16.bias = 16  # type: ignore[misc]


def test_describe_shows_layout_and_range() -> None:
    """Oracle: the figures of IEEE 754 binary16."""
    text = formats.float16.describe()
    for part in (
        "16 bits",
        "1 sign + 5 exponent + 10 mantissa",
        "-65504 .. 65504",
        "(2^-14)",
        "(2^-24)",
        "(2^-10)",
    ):
        assert part in text


def test_a_format_of_ones_own() -> None:
    """Oracle: by hand; e2m2 with bias 1 has 0 .25 .5 .75 1 1.25 1.5 1.75 2 2.5 3 3.5 (and inf, NaN)."""
    own = Format("float5_e2m2", 2, 2, 1, "ieee", np.dtype(np.uint8))
    values = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5]
    assert formats.decode(np.arange(12), own).tolist() == values
    assert own.max == 3.5
    assert formats.round([0.3, 2.3, 3.7, 3.8], own).tolist() == [0.25, 2.5, 3.5, np.inf]
    twin = copy.copy(own)
    assert twin is not own
    assert twin.describe() == own.describe()


@pytest.mark.parametrize(
    "row",
    [
        ("x", 4, 3, 7, "OCP", np.uint8),
        ("x", 5, 10, 15, "ieee", np.uint8),
        ("x", 11, 53, 1023, "ieee", np.longdouble),
        ("x", 8, 23, 1200, "ieee", np.uint32),
        ("x", 8, 23, -900, "ieee", np.uint32),
        ("x", 4, 0, 7, "ieee", np.uint8),
        ("x", 1, 3, 0, "ieee", np.uint8),
        ("x", 4, -1, 7, "fn", np.uint8),
    ],
)
def test_impossible_formats_are_refused(row: tuple) -> None:
    """Oracle: float64's range and the size of the dtype."""
    *fields, store = row
    with pytest.raises(FormatError):
        Format(*fields, np.dtype(store))
