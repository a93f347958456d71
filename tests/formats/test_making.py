"""Formats made at run time: the table's rows again, the drafts of P3109, and what is no format."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest

from minimp import formats
from minimp.errors import FormatError, SettingError
from minimp.formats import Format, decode, encode, make
from minimp.formats import round as round_to
from tests.formats.oracle import EVERY, FLOATS, MODES, OWN, assert_same, readings


def remade(fmt: Format) -> Format:
    """Make the format of a row of the table anew, from its figures."""
    specials = {"ieee": (True, True), "fn": (False, True), "finite": (False, False)}
    if fmt.flavour not in specials:
        return make(fmt.exponent_bits, fmt.mantissa_bits, fmt.bias, flavour=fmt.flavour, name="twin")
    inf, nan = specials[fmt.flavour]
    return make(fmt.exponent_bits, fmt.mantissa_bits, fmt.bias, inf=inf, nan=nan, name="twin")


@pytest.mark.parametrize("fmt", FLOATS, ids=repr)
def test_make_gives_the_rows_of_the_table(fmt: Format) -> None:
    """Oracle: the row. The same anatomy, the same codes, the same rounding in every mode."""
    own = remade(fmt)
    for figure in ("bits", "emin", "emax", "max", "lowest", "smallest_normal", "smallest_subnormal", "eps"):
        assert getattr(own, figure) == getattr(fmt, figure)
    for switch in ("has_inf", "has_nan", "has_zero", "has_negative_zero", "max_code", "inf_code", "nan_code"):
        assert getattr(own, switch) == getattr(fmt, switch)
    random = np.random.default_rng(1)
    codes = random.integers(0, 1 << fmt.bits, 20_000, dtype=np.uint64)
    assert_same(decode(codes, own), decode(codes << np.uint64(fmt.padding), fmt))
    x = random.integers(0, 1 << 64, 3000, dtype=np.uint64).view(np.float64)
    near = random.standard_normal(3000) * np.exp2(random.integers(-30, 30, 3000))
    x = np.concatenate([x[np.isfinite(x)], near, [0.0, -0.0, np.inf, -np.inf]])
    for mode in MODES:
        for overflow in ("ieee", "saturate"):
            assert_same(round_to(x, own, mode, overflow), round_to(x, fmt, mode, overflow), x)
        padded = encode(x, own, mode).astype(np.uint64) << np.uint64(fmt.padding)
        assert np.array_equal(padded, encode(x, fmt, mode))


def test_defaults() -> None:
    """Oracle: IEEE 754-2019, table 3.5 (bias 2^(e-1) - 1), and one more where the code of -0 is NaN."""
    assert [make(each, 3).bias for each in (2, 4, 5, 8)] == [1, 7, 15, 127]
    assert make(4, 3, flavour="fnuz").bias == make(4, 3, flavour="p3109").bias == 8
    kinds = {(True, True): "ieee", (False, True): "fn", (True, False): "inf", (False, False): "finite"}
    for (inf, nan), flavour in kinds.items():
        assert make(4, 3, inf=inf, nan=nan).flavour == make(4, 3, flavour=flavour).flavour == flavour
    assert make(4, 3).flavour == make(4, 3, inf=True).flavour == "ieee"
    assert make(4, 3, inf=False).flavour == "fn"
    assert make(4, 3, nan=False).flavour == "inf"


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ((4, 3), np.uint8),
        ((4, 4), np.uint16),
        ((5, 10), np.uint16),
        ((8, 10), np.uint32),
        ((11, 52), np.uint64),
    ],
)
def test_codes_are_stored_in_the_smallest_type(arguments: tuple[int, int], dtype: type) -> None:
    """Oracle: the bits, by hand; without the sign, e4m4 has 8."""
    assert make(*arguments).dtype == dtype
    assert encode(1.0, make(*arguments)).dtype == dtype
    assert make(4, 4, signed=False).dtype == np.uint8


def test_names() -> None:
    """Oracle: by hand."""
    assert make(4, 11).name == "e4m11"
    assert make(4, 3, 9).name == "e4m3b9"
    assert make(5, 2, flavour="p3109").name == "e5m2p3109"
    assert make(5, 3, signed=False, inf=False, subnormals=False).name == "ue5m3fnns"
    assert repr(make(4, 3, name="mine")) == "mine"
    assert len({each.name for each in EVERY}) == len(EVERY)


def test_the_same_arguments_give_the_same_object() -> None:
    """Oracle: identity, also of copies and of what a pickle would rebuild."""
    own = make(4, 3, 9, inf=False)
    assert make(4, 3, bias=9, flavour="fn") is own
    assert make(np.int64(4), np.uint8(3), np.int32(9), inf=False) is own
    assert make(4, 3, 9) is not own
    assert make(4, 3, 9, inf=False, name="other") is not own
    rebuild, arguments = own.__reduce__()
    assert rebuild(*arguments) is copy.copy(own) is copy.deepcopy([own])[0] is own
    assert formats.get(own) is own


@pytest.mark.parametrize("fmt", [*EVERY, formats.float32, formats.tfloat32, formats.float64], ids=repr)
def test_describe_fits_a_terminal(fmt: Format) -> None:
    """Oracle: 100 columns, and the figures."""
    text = fmt.describe()
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith(f"{fmt.name}: {fmt.bits} bits")
    assert f"{fmt.lowest:.9g} .. {fmt.max:.9g}" in text


# --- other people's formats ---------------------------------------------------------------------------------


def info_of(fmt: Format) -> object:
    """Say the same format in gfloat's words."""
    types = pytest.importorskip("gfloat.types")
    negative_zero, high_nans = {
        "ieee": (True, (1 << fmt.mantissa_bits) - 1),
        "fn": (True, 1),
        "scale": (False, 1),
        "fnuz": (False, 0),
        "p3109": (False, 0),
        "finite": (True, 0),
        "inf": (True, 0),
    }[fmt.flavour]
    return types.FormatInfo(
        fmt.name,
        fmt.bits,
        fmt.precision,
        bias=fmt.bias,
        is_signed=fmt.signed,
        domain=types.Domain.Extended if fmt.has_inf else types.Domain.Finite,
        has_nz=negative_zero,
        num_high_nans=high_nans,
        has_subnormals=fmt.has_subnormals,
        is_twos_complement=False,
    )


# gfloat reads the codes of a format without subnormals as normal numbers.
SHARED = [each for each in OWN if each.has_subnormals]


@pytest.mark.parametrize("fmt", [each for each in SHARED if each.bits <= 13], ids=repr)
def test_codes_as_gfloat_reads_them(fmt: Format) -> None:
    """Oracle: gfloat's decode_float, for every code."""
    decode_float = pytest.importorskip("gfloat").decode_float
    expected = [decode_float(info_of(fmt), code).fval for code in range(1 << fmt.bits)]
    assert_same(decode(np.arange(1 << fmt.bits), fmt), np.array(expected))


P3109 = [  # (bits, precision, signed, extended) and the arguments of make
    ((8, 4, True, True), make(4, 3, flavour="p3109")),
    ((8, 3, True, True), make(5, 2, flavour="p3109")),
    ((8, 1, True, True), make(7, 0, flavour="p3109")),
    ((6, 3, True, True), make(3, 2, flavour="p3109")),
    ((8, 4, True, False), make(4, 3, flavour="fnuz")),
    ((8, 3, True, False), make(5, 2, flavour="fnuz")),
    ((4, 2, True, False), make(2, 1, flavour="fnuz")),
    ((8, 4, False, False), make(5, 3, 16, inf=False, signed=False)),
    ((8, 3, False, False), make(6, 2, 32, inf=False, signed=False)),
]


@pytest.mark.parametrize(("figures", "fmt"), P3109, ids=repr)
def test_p3109(figures: tuple[int, int, bool, bool], fmt: Format) -> None:
    """Oracle: gfloat's formats of the IEEE P3109 drafts: every code, and the anatomy."""
    gfloat = pytest.importorskip("gfloat")
    known = pytest.importorskip("gfloat.formats")
    bits, precision, signed, extended = figures
    info = known.format_info_p3109(
        bits,
        precision,
        known.Signedness.Signed if signed else known.Signedness.Unsigned,
        known.Domain.Extended if extended else known.Domain.Finite,
    )
    expected = [gfloat.decode_float(info, code).fval for code in range(1 << bits)]
    assert_same(decode(np.arange(1 << bits), fmt), np.array(expected))
    assert (fmt.max, fmt.lowest, fmt.emax) == (info.max, info.min, info.emax)
    assert fmt.smallest_subnormal == info.smallest
    assert (fmt.bits, fmt.bias, fmt.eps) == (info.bits, info.bias, info.eps)


def test_p3109_figures() -> None:
    """Oracle: the P3109 working group's interim report: the largest values of binary8p4 and binary8p3."""
    p4, p3 = make(4, 3, flavour="p3109"), make(5, 2, flavour="p3109")
    assert (p4.max, p4.smallest_subnormal) == (224, 2.0**-10)
    assert (p3.max, p3.smallest_subnormal) == (49152, 2.0**-17)
    assert encode([np.inf, -np.inf, np.nan, -0.0], p4).tolist() == [0x7F, 0xFF, 0x80, 0]


def test_without_subnormals() -> None:
    """Oracle: by hand. e2m2 has 1, 1.25, ... and below 1 nothing but 0; 0.5 is the tie, and 0 is even."""
    own = make(2, 2, subnormals=False, inf=False, nan=False)
    assert readings(own).tolist()[:7] == [0, 0, 0, 0, 1, 1.25, 1.5]
    assert own.smallest_subnormal == own.smallest_normal == 1
    x = [0.01, 0.49, 0.5, 0.51, 0.99, -0.5, -0.75]
    assert_same(round_to(x, own), np.array([0.0, 0.0, 0.0, 1.0, 1.0, -0.0, -1.0]))
    assert_same(round_to(x, own, "nearest_away"), np.array([0.0, 0.0, 1.0, 1.0, 1.0, -1.0, -1.0]))
    assert_same(round_to(x, own, "up"), np.array([1.0, 1.0, 1.0, 1.0, 1.0, -0.0, -0.0]))
    assert_same(round_to(x, own, "to_odd"), np.array([1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0]))
    assert decode([1, 2, 3, 0x11], own).tolist() == [0, 0, 0, 0]
    assert np.signbit(decode([0x11], own)).all()
    unsigned_zero = make(2, 2, subnormals=False, flavour="fnuz")
    assert not np.signbit(decode([0x11], unsigned_zero)).any()


def test_one_bit_of_precision() -> None:
    """Oracle: IEEE 754-2019, 4.3.1: of two neighbours of one significand bit, neither even, the larger."""
    own = make(3, 0, inf=False, nan=False)
    assert formats.values(own).tolist()[7:] == [0, 0.25, 0.5, 1, 2, 4, 8, 16]
    ties = [0.125, 0.375, 0.75, 1.5, 3, 6, 12, -3, -0.125]
    assert_same(round_to(ties, own), np.array([0, 0.5, 1, 2, 4, 8, 16, -4, -0.0]))
    assert_same(round_to([1.49, 1.51], own), np.array([1.0, 2.0]))
    assert_same(round_to([1e9, -1e9], own), np.array([16.0, -16.0]))


def test_unsigned() -> None:
    """Oracle: by hand. What is below 0 is NaN, or 0 where that is asked for or there is no NaN."""
    own, plain = make(5, 3, signed=False), make(5, 3, inf=False, nan=False, signed=False)
    x = [-0.0, -1e-30, -1.0, -np.inf, np.inf, 1.0]
    assert_same(round_to(x, own), np.array([0, 0, np.nan, np.nan, np.inf, 1]))
    assert_same(round_to(x, own, overflow="saturate"), np.array([0, 0, 0, 0, own.max, 1]))
    assert_same(round_to(x, own, "up"), np.array([0, 0, 0, np.nan, np.inf, 1]))
    assert_same(round_to(x, own, "down"), np.array([0, np.nan, np.nan, np.nan, np.inf, 1]))
    assert_same(round_to(x, plain), np.array([0, 0, 0, 0, plain.max, 1]))
    assert encode(1.0, own) == 15 << 3


def test_far_from_one_in_float32() -> None:
    """Oracle: by hand. What float32 does not hold comes as float64, and 2^-1074 up is not 0."""
    small, large = make(8, 7, 600), make(4, 3, -200)
    got = round_to(np.float32([1.0, 0.0]), small, overflow="saturate")
    assert got.dtype == np.float64
    assert got.tolist() == [small.max, 0.0]
    assert round_to(np.float32(1.0), large, "up") == large.smallest_subnormal == 2.0**198
    assert round_to(5e-324, make(4, 3, -10), "up") == 2.0**8
    assert round_to(-5e-324, make(4, 3, -10), "to_odd") == -(2.0**8)
    wide = make(11, 10)
    assert round_to(np.float32(np.finfo(np.float32).max), wide) == 2.0**128
    assert round_to(np.float32(np.inf), "float64", overflow="saturate") == np.finfo(np.float64).max
    assert round_to(np.float32(1.1), "float64").dtype == np.float32
    assert round_to(np.float32(1.1), make(8, 10)).dtype == np.float32


# --- what is no format --------------------------------------------------------------------------------------

# (exponent bits, mantissa bits, options), what the message says, what its help says
IMPOSSIBLE = {
    "no exponent bits": (0, 3, {}, "at least 1 exponent bits, got 0", "int8"),
    "negative bits": (4, -1, {}, "at least 0 mantissa bits, got -1", "int8"),
    "65 bits": (12, 52, {}, r"at most 64 bits .* 1 \+ 12 \+ 52", "float64"),
    "far too many bits": (10**30, 3, {}, "at most 64 bits", "float64"),
    "exponents beyond float64": (12, 3, {}, r"1 \+ 12 \+ 3 .*bias 2047", "float64"),
    "bias too large": (4, 3, {"bias": 1073}, "bias 1073", "float64"),
    "bias too small": (4, 3, {"bias": -1010}, "bias -1010", "float64"),
    "mantissa beyond float64": (8, 53, {}, r"1 \+ 8 \+ 53", "float64"),
    "ieee without a mantissa": (4, 0, {}, r"1 \+ 4 \+ 0 .*no room", "one more bit"),
    "ieee of one exponent bit": (1, 3, {}, r"1 \+ 1 \+ 3 .*no room", "one more bit"),
    "unsigned fnuz": (4, 3, {"flavour": "fnuz", "signed": False}, "0 .*no room", "flavour"),
    "unsigned p3109": (4, 3, {"flavour": "p3109", "signed": False}, "no room", "flavour"),
    "nothing but NaN": (1, 0, {"inf": False}, "no room", "one more bit"),
    "half a bit": (4.5, 3, {}, "exponent_bits .*whole number, got 4.5", "make"),
    "a float": (4, 3.0, {}, "mantissa_bits .*whole number, got 3.0", "make"),
    "text": ("4", 3, {}, "exponent_bits .*whole number, got '4'", "make"),
    "nothing": (None, 3, {}, "exponent_bits .*got None", "make"),
    "a switch for a number": (4, True, {}, "mantissa_bits .*got True", "make"),
    "a broken bias": (4, 3, {"bias": 7.5}, "bias .*whole number, got 7.5", "make"),
    "an empty bias": (4, 3, {"bias": 0.0}, "bias .*whole number, got 0.0", "make"),
    "a bias of NaN": (4, 3, {"bias": np.nan}, "bias .*got nan", "make"),
    "no switch": (4, 3, {"inf": "yes"}, "inf .*True or False, got 'yes'", "leave"),
    "subnormals by word": (4, 3, {"subnormals": "no"}, "subnormals .*'no'", "leave"),
    "sign by number": (4, 3, {"signed": 0}, "signed .*got 0", "leave"),
    "unknown flavour": (4, 3, {"flavour": "fnz"}, "did you mean 'fnuz'", "FLAVOURS"),
    "no flavour": (4, 3, {"flavour": ["fn"]}, "flavour .*text", "leave"),
    "a scale": (8, 1, {"flavour": "scale"}, "'scale' is not", "float8_e8m0fnu"),
    "an integer": (8, 1, {"flavour": "integer"}, "'integer' is not", "int8"),
    "no name": (4, 3, {"name": 5}, "name .*text, got 5", "leave"),
    "another's name": (4, 3, {"name": "FP16"}, "'FP16' is taken", "another name"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_formats_are_refused(case: str) -> None:
    """Oracle: one error, which says what was expected, what came, and what to do."""
    exponent_bits, mantissa_bits, options, said, advised = IMPOSSIBLE[case]
    with pytest.raises(FormatError) as caught:
        make(exponent_bits, mantissa_bits, **options)
    message, _, advice = str(caught.value).partition("\n  help: ")
    assert re.search(said, message)
    assert advised in advice
    assert message.startswith(("make: ", "Format: "))


def test_two_ways_to_say_one_thing_are_refused() -> None:
    """Oracle: the message."""
    for twice in ({"inf": True}, {"nan": False}):
        with pytest.raises(SettingError, match="expected flavour, or inf and nan, got both"):
            make(4, 3, flavour="ieee", **twice)


def test_formats_at_the_edge_are_made() -> None:
    """Oracle: float64's own ends, and the smallest formats there are."""
    assert make(4, 3, 1071).smallest_subnormal == 2.0**-1073
    assert make(4, 3, 1072).smallest_subnormal == 5e-324
    assert make(4, 3, -1009).max == 1.875 * 2.0**1023
    assert make(11, 52).max == np.finfo(np.float64).max
    assert make(1, 0, inf=False, nan=False).bits == 2
    assert formats.values(make(1, 0, inf=False, nan=False)).tolist() == [-2, 0, 2]
    assert formats.values(make(1, 1, inf=False)).tolist() == [-2, -1, 0, 1, 2]
