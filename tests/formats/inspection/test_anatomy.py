"""One number under the glass."""

from __future__ import annotations

import itertools
import math
import re
import struct
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import DataError, FormatError, SettingError
from minimp.formats import ROUNDINGS, Format, Inspection, inspect, make
from minimp.formats.inspection.anatomy import inspect_code
from tests.formats.oracle import MODES, SMALL, assert_same, magnitudes

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_ulp_is_numpys_spacing(dtype: type) -> None:
    """Oracle: np.spacing of magnitudes (its float16 is one-sided at negative powers of two)."""
    info, random = np.finfo(dtype), np.random.default_rng(1)
    exponents = random.integers(info.minexp - info.nmant, info.maxexp - 1, 5000)
    x = (random.uniform(1, 2, 5000) * 2.0**exponents).astype(dtype)
    x = np.concatenate([x, -x, np.array([0, info.max / 2, info.tiny, info.smallest_subnormal], dtype)])
    assert_same(formats.ulp(x, dtype), np.spacing(np.abs(x)).astype(np.float64), x)


@pytest.mark.parametrize("fmt", SMALL, ids=repr)
def test_ulp_is_the_step_between_values(fmt: Format) -> None:
    """Oracle: differences of the list of all values; also for the numbers between them."""
    values = magnitudes(fmt)
    steps = np.diff(values)
    assert_same(formats.ulp(values[:-1], fmt), steps)
    assert_same(formats.ulp(-(values[:-1] + values[1:]) / 2, fmt), steps)
    assert float(formats.ulp(4 * fmt.max, fmt)) == steps[-1]
    assert np.isnan(formats.ulp([np.inf, -np.inf, np.nan], fmt)).all()


@given(x=finite)
def test_fields_of_float32_and_float64_are_the_machines(x: float) -> None:
    """Oracle: struct's packing of the same number."""
    code64 = struct.unpack("<Q", struct.pack("<d", x))[0]
    with np.errstate(over="ignore"):
        code32 = int(np.float32(x).view(np.uint32))
    for seen, code, bits, mantissa in (
        (inspect(x, "float64"), code64, 64, 52),
        (inspect(x, "float32"), code32, 32, 23),
    ):
        assert int(seen.bits, 2) == code
        assert len(seen.bits) == bits
        assert seen.sign == code >> (bits - 1)
        assert seen.mantissa == code & ((1 << mantissa) - 1)
        assert seen.exponent == (code >> mantissa) & ((1 << (bits - 1 - mantissa)) - 1)
        assert seen.fields.replace(" ", "") == seen.bits


@given(x=finite)
def test_float64_neighbours_are_those_of_math(x: float) -> None:
    """Oracle: math.nextafter and math.ulp."""
    seen = inspect(x, "float64")
    assert seen.value == x
    assert seen.error == 0
    assert seen.neighbours == (math.nextafter(x, -math.inf), math.nextafter(x, math.inf))
    assert seen.ulp == math.ulp(x)


@pytest.mark.parametrize("fmt", SMALL, ids=repr)
def test_every_value_of_a_small_format(fmt: Format) -> None:
    """Oracle: the sorted list of all values: neighbours, kinds, zero error."""
    values = magnitudes(fmt)[:: max(1, len(magnitudes(fmt)) // 500)]
    every = np.concatenate([-magnitudes(fmt)[:0:-1], magnitudes(fmt)])
    every = np.concatenate([[-128.0], every]) if fmt.is_integer else every
    for x in np.concatenate([values, -values, [fmt.max, fmt.lowest]]):
        seen = inspect(x, fmt)
        place = int(np.searchsorted(every, x))
        below = every[place - 1] if place else (-math.inf if fmt.has_inf else None)
        above = every[place + 1] if place + 1 < len(every) else (math.inf if fmt.has_inf else None)
        assert (seen.value, seen.error, seen.neighbours) == (x, 0, (below, above))
        small = "subnormal" if abs(x) < fmt.smallest_normal else "normal"
        assert seen.kind == (small if x else "zero")
        assert len(seen.bits) == fmt.bits


def test_decimal_text_is_rounded_once() -> None:
    """Oracle: by hand. float64 cannot tell these from the tie, and would round to the even side."""
    tie = Decimal(1) + Decimal(2) ** -11
    with_more = str(tie) + "0" * 20 + "1"
    assert inspect(str(tie), "float16").value == 1.0
    assert inspect(with_more, "float16").value == 1 + 2.0**-10
    assert inspect(float(with_more), "float16").value == 1.0
    assert inspect(Fraction(1) + Fraction(1, 2**11) + Fraction(1, 10**40), "float16").value == 1 + 2.0**-10
    assert inspect("1/3", "float64").value == 1 / 3
    assert inspect("9007199254740993", "float64").value == 2.0**53
    assert inspect(2**53 + 1, "float64", "up").value == 2.0**53 + 2


def test_the_error_is_exact() -> None:
    """Oracle: fractions. The text 0.1 and the float 0.1 are different numbers."""
    assert inspect("0.1", "float16").error == Fraction(1638, 2**14) - Fraction(1, 10)
    assert inspect(0.1, "float16").error == Fraction(np.float16(0.1).item()) - Fraction(0.1)
    assert inspect(0.1, "float64").error == 0
    assert inspect("0.1", "float64").error == Fraction(0.1) - Fraction(1, 10)
    assert inspect("0.1", "float16").ulps == pytest.approx(-0.4, abs=1e-12)


@pytest.mark.parametrize("mode", MODES)
@given(x=finite, overflow=st.sampled_from(["ieee", "saturate"]))
def test_inspection_agrees_with_round(mode: str, x: float, overflow: str) -> None:
    """Oracle: minimp.formats.round, which goes another way (arrays of float64, not fractions)."""
    for fmt in formats.FORMATS.values():
        assert_same(inspect(x, fmt, mode, overflow).value, formats.round(x, fmt, mode, overflow))


@pytest.mark.parametrize(
    ("given_", "name", "kind", "value", "bits"),
    [
        ("65520", "float16", "inf", math.inf, "0111110000000000"),
        ("-inf", "float16", "inf", -math.inf, "1111110000000000"),
        ("nan", "float8_e4m3fn", "nan", math.nan, "01111111"),
        (math.nan, "float8_e4m3fnuz", "nan", math.nan, "10000000"),
        ("-0", "float16", "zero", -0.0, "1000000000000000"),
        (-0.0, "float8_e5m2", "zero", -0.0, "10000000"),
        ("-1e-30", "float16", "zero", -0.0, "1000000000000000"),
        ("-0", "float8_e4m3fnuz", "zero", 0.0, "00000000"),
        ("6e-8", "float16", "subnormal", 2.0**-24, "0000000000000001"),
        (np.float16(0.1), "float16", "normal", 0.0999755859375, "0010111001100110"),
        (np.int32(-3), "int8", "normal", -3.0, "11111101"),
        ("448", "float8_e4m3fn", "normal", 448.0, "01111110"),
        ("1e400", "float64", "inf", math.inf, "0" + "1" * 11 + "0" * 52),
        (Decimal("0.5"), "float4_e2m1fn", "subnormal", 0.5, "0001"),
        ("1", "tfloat32", "normal", 1.0, "0011111110000000000"),
    ],
)
def test_kinds(given_: object, name: str, kind: str, value: float, bits: str) -> None:
    """Oracle: the encodings in the specifications."""
    seen = inspect(given_, name)
    assert (seen.kind, seen.bits) == (kind, bits)
    assert_same(seen.value, np.float64(value))


def test_special_values_have_no_ulp_and_no_exact_error() -> None:
    """Oracle: the docstring's words."""
    over, nan, inf = inspect("70000", "float16"), inspect("nan", "float16"), inspect("inf", "float16")
    assert over.error == math.inf
    assert over.neighbours == (65504.0, None)
    assert inf.error == 0
    assert math.isnan(float(nan.error))
    assert nan.neighbours == (None, None)
    assert math.isnan(over.ulp)
    assert inspect("inf", "float16", overflow="saturate").error == -math.inf
    for seen in (over, nan, inf):
        assert str(seen)


def test_the_text_shows_everything() -> None:
    """Oracle: the parts that a reader looks for, for 0.1 in float16."""
    text = str(inspect("0.1", "float16"))
    for part in (
        "0.1 in float16",
        "0 01011 1001100110",
        "0x2e66",
        "normal",
        "1.599609375 x 2^-4",
        "0.0999755859375",
    ):
        assert part in text
    for part in ("-0.4 ulp", "2^-14", "0.09991455078125", "0.10003662109375"):
        assert part in text
    assert "none" in str(inspect("448", "float8_e4m3fn"))
    assert "lies        40 % of the way from 0.0999755859375 to 0.10003662109375" in text
    assert str(inspect(0.1, "float64")).count("\n") == 7


@pytest.mark.parametrize("bad", ["one", "", "1/0", "1e99999999", "0x10", None, [1.0], 1j, "1 2"])
def test_what_is_no_number_is_refused(bad: object) -> None:
    """Oracle: the message repeats what came."""
    with pytest.raises(DataError, match="expected a number"):
        inspect(bad, "float16")


def test_settings_are_checked() -> None:
    """Oracle: the errors of round."""
    with pytest.raises(FormatError):
        inspect(1.0, "float17")
    with pytest.raises(FormatError, match="no NaN"):
        inspect("nan", "int8")
    with pytest.raises(SettingError):
        inspect(1.0, "float16", "nearest")
    with pytest.raises(SettingError):
        inspect(1.0, "float16", overflow="wrap")


# ---- every code of every small format ----------------------------------------------------------------------

MADE = (
    make(4, 3, subnormals=False),
    make(3, 2, inf=False, nan=True),
    make(2, 3, inf=True, nan=False),
    make(3, 0, inf=False, nan=False),
    make(5, 2, bias=3, inf=False, nan=False, subnormals=False),
    make(4, 3, signed=False),
    make(4, 3, flavour="fnuz"),
    make(4, 3, flavour="p3109"),
    make(2, 1, name="<tiny>"),
)
TINY = (*(each for each in formats.FORMATS.values() if each.bits <= 8), *MADE)


def meaning(code: int, fmt: Format) -> Fraction | float:
    """Read a code by the definition of its format; the sign of a zero is lost."""
    magnitude = code % (1 << (fmt.exponent_bits + fmt.mantissa_bits))
    minus = -1 if code != magnitude else 1
    if fmt.flavour == "integer":
        return Fraction(code - (1 << fmt.bits) * (fmt.signed and code >= 1 << (fmt.bits - 1)))
    exponent, mantissa = magnitude >> fmt.mantissa_bits, magnitude % (1 << fmt.mantissa_bits)
    ones = (1 << (fmt.exponent_bits + fmt.mantissa_bits)) - 1
    top = exponent == (1 << fmt.exponent_bits) - 1
    specials = {
        "ieee": (math.nan if mantissa else math.inf) if top else None,
        "fn": math.nan if magnitude == ones else None,
        "scale": math.nan if magnitude == ones else None,
        "inf": math.inf if magnitude == ones else None,
        "fnuz": math.nan if code == ones + 1 else None,
        "p3109": math.nan if code == ones + 1 else math.inf if magnitude == ones else None,
        "finite": None,
    }
    special = specials[fmt.flavour]
    if special is not None:
        return minus * special
    if exponent == 0 and fmt.flavour != "scale":
        scale = Fraction(mantissa, 1 << fmt.mantissa_bits) * fmt.has_subnormals
        return minus * scale * Fraction(2) ** (1 - fmt.bias)
    return minus * (1 + Fraction(mantissa, 1 << fmt.mantissa_bits)) * Fraction(2) ** (exponent - fmt.bias)


@pytest.mark.parametrize("fmt", TINY, ids=repr)
def test_every_code_of_a_small_format(fmt: Format) -> None:
    """Oracle: the definition of the format, code by code; neighbours and ulps from the list of values."""
    readings = {code: meaning(code, fmt) for code in range(1 << fmt.bits)}
    values = sorted({each for each in readings.values() if isinstance(each, Fraction)})
    infinities = {each for each in readings.values() if not isinstance(each, Fraction) and math.isinf(each)}
    row = [*(each for each in infinities if each < 0), *values, *(each for each in infinities if each > 0)]
    for code, value in readings.items():
        seen = inspect_code(code, fmt)
        assert (int(seen.bits, 2), len(seen.bits), seen.error) == (code, fmt.bits, 0)
        assert "".join(seen.parts) == seen.bits == seen.fields.replace(" ", "")
        assert [len(each) for each in seen.parts] == [fmt.signed, fmt.exponent_bits, fmt.mantissa_bits]
        assert "x" in seen.code
        if not isinstance(value, Fraction) and math.isnan(value):
            assert (seen.kind, seen.neighbours, math.isnan(seen.value)) == ("nan", (None, None), True)
            continue
        assert seen.value == value
        place = row.index(value)
        below, above = row[place - 1] if place else None, row[place + 1] if place + 1 < len(row) else None
        assert seen.neighbours == (below, above)
        if math.isinf(value):
            assert (seen.kind, math.isnan(seen.ulp), seen.formula) == ("inf", True, "")
            continue
        again = inspect(seen.value, fmt)
        if value or "1" not in seen.bits:
            assert again.bits == seen.bits
        assert (again.value, again.position, again.between) == (value, 0, (value, value))
        _check_ulp_and_formula(seen, value, values)


def _check_ulp_and_formula(seen: Inspection, value: Fraction, values: list[Fraction]) -> None:
    """The ulp is the step away from zero, below the largest value the one towards it."""
    magnitudes = sorted({abs(each) for each in values if (each < 0) == (value < 0)} | {abs(value)})
    place = magnitudes.index(abs(value))
    steps = [high - low for low, high in itertools.pairwise(magnitudes)]
    binades = seen.format.mantissa_bits or seen.format.is_integer  # else every value has a binade of its own
    if binades:
        assert seen.ulp == steps[min(place, len(steps) - 1)]
    else:
        assert seen.ulp == (abs(value) or seen.format.smallest_subnormal)
    if seen.formula:
        found = re.fullmatch(r"([+-])([\d.e-]+) x 2\^(-?\d+)", seen.formula)
        assert found is not None
        assert Fraction(f"{found[1]}{found[2]}") * Fraction(2) ** int(found[3]) == value
        assert (Fraction(found[2]) >= 1) == (seen.kind == "normal")
    else:
        assert value == 0 or seen.format.is_integer


SPECIALS = ("inf", "-inf", "0", "-0", "1e400", "-1e400", "1e-400", "-1e-400", "-1", "1/3", 2**200)


@pytest.mark.parametrize("fmt", [*formats.FORMATS.values(), *MADE], ids=repr)
def test_special_numbers_in_every_format(fmt: Format) -> None:
    """Oracle: minimp.formats.round; NaN is refused where there is none; each is shown in 100 columns."""
    for rounding in ROUNDINGS:
        rng = 5 if rounding == "stochastic" else None
        for overflow in ("ieee", "saturate"):
            for number in (*SPECIALS, *(("nan",) if fmt.has_nan else ())):
                seen = inspect(number, fmt, rounding, overflow, rng)
                exact = float("nan") if number == "nan" else seen.exact
                if not isinstance(exact, Fraction) or abs(exact) in (0, 1):
                    plain = -0.0 if number == "-0" else float(exact)
                    assert_same(seen.value, formats.round(plain, fmt, rounding, overflow, rng))
                assert max(map(len, str(seen).split("\n"))) <= 100
                assert seen.position is None or 0 <= seen.position < 1
    if not fmt.has_nan:
        with pytest.raises(FormatError, match="no NaN"):
            inspect("nan", fmt)
