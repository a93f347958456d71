"""The table of formats and the ways to name one."""

from __future__ import annotations

import copy

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.errors import FormatError
from minimp.formats import Format, get
from tests.formats.oracle import FLOATS


@pytest.mark.parametrize("fmt", [each for each in FLOATS if each.name != "tfloat32"], ids=repr)
def test_anatomy_is_that_of_ml_dtypes(fmt: Format) -> None:
    """Oracle: ml_dtypes.finfo, which carries these as literals; ours are derived from the row."""
    info = ml_dtypes.finfo(fmt.dtype)
    assert fmt.bits == info.bits
    assert fmt.mantissa_bits == info.nmant
    assert fmt.emin == info.minexp
    assert fmt.max == float(info.max)
    assert fmt.lowest == float(info.min)
    assert fmt.smallest_normal == float(info.smallest_normal)
    assert fmt.smallest_subnormal == float(info.smallest_subnormal)
    assert fmt.eps == float(info.eps)


# Published figures: (max, smallest normal, smallest subnormal, has inf, has NaN).
PUBLISHED = {
    "float16": (65504, 2.0**-14, 2.0**-24, True, True),  # IEEE 754-2019, table 3.5
    "tfloat32": ((2 - 2.0**-10) * 2.0**127, 2.0**-126, 2.0**-136, True, True),  # NVIDIA A100 whitepaper
    "float8_e4m3fn": (448, 2.0**-6, 2.0**-9, False, True),  # OCP OFP8 1.0, table 2
    "float8_e5m2": (57344, 2.0**-14, 2.0**-16, True, True),  # OCP OFP8 1.0, table 2
    "float8_e4m3fnuz": (240, 2.0**-7, 2.0**-10, False, True),  # Noune et al. 2022
    "float8_e5m2fnuz": (57344, 2.0**-15, 2.0**-17, False, True),  # Noune et al. 2022
    "float6_e2m3fn": (7.5, 1.0, 0.125, False, False),  # OCP MX 1.0, 5.3.2
    "float6_e3m2fn": (28, 0.25, 0.0625, False, False),  # OCP MX 1.0, 5.3.2
    "float4_e2m1fn": (6, 1.0, 0.5, False, False),  # OCP MX 1.0, 5.3.3
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_anatomy_is_the_published_one(name: str) -> None:
    """Oracle: the tables of the specifications."""
    fmt = get(name)
    shown = (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal, fmt.has_inf, fmt.has_nan)
    assert shown == PUBLISHED[name]


def test_int8_is_evenly_spaced() -> None:
    """Oracle: np.iinfo."""
    fmt = formats.int8
    assert (fmt.lowest, fmt.max) == (np.iinfo(np.int8).min, np.iinfo(np.int8).max)
    assert (fmt.bits, fmt.eps, fmt.smallest_subnormal, fmt.smallest_normal) == (8, 1, 1, 1)
    assert fmt.is_integer
    assert not any((fmt.has_inf, fmt.has_nan, fmt.has_negative_zero, fmt.has_subnormals))


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
    "int8": ("int8", "i8", np.int8, np.dtype(np.int8)),
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
    names = ("float64", "float32", "float16", "bfloat16", "int8", "float8_e4m3fn", "float8_e5m2")
    for name in (*names, "float8_e4m3fnuz", "float8_e5m2fnuz"):
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
    ],
)
def test_impossible_formats_are_refused(row: tuple) -> None:
    """Oracle: float64's range and the size of the dtype."""
    *fields, store = row
    with pytest.raises(FormatError):
        Format(*fields, np.dtype(store))
