"""Other libraries: what their casts do, by name; and gfloat, which follows the same rules."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.errors import SettingError
from minimp.formats import Format, make
from minimp.formats import round as round_to
from tests.formats.oracle import FLOATS, OWN, UNSIGNED, assert_same, awkward
from tests.formats.test_making import info_of

NAN, INF = math.nan, math.inf
TORCH = (
    "float16",
    "bfloat16",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)
CAST_BY_ML_DTYPES = [each for each in FLOATS if each.bits <= 16] + [formats.float8_e8m0fnu]


@pytest.fixture(scope="module")
def patterns() -> np.ndarray:
    """2^20 random float32 patterns, and what lies around every value and midpoint of the 8-bit formats."""
    bits = np.random.default_rng(1).integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    corners = [0, 1, 0x7F800000, 0x7FC00000, 0x7F7FFFFF, 0x00800000, 0x007FFFFF, 0x00400000, 0x00600001]
    corners = np.array(corners, np.uint32)
    near = [awkward(each, np.float32) for each in CAST_BY_ML_DTYPES if each.bits <= 8]
    with np.errstate(invalid="ignore"):
        return np.concatenate([np.concatenate([bits, corners, corners | 1 << 31]).view(np.float32), *near])


@pytest.mark.torch
@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str, patterns: np.ndarray) -> None:
    """Oracle: torch 2.13.0's casts on the CPU, from float32; NaNs alike whatever their sign."""
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(patterns).to(getattr(torch, name)).to(torch.float32).numpy()
    assert_same(round_to(patterns, name, overflow="torch"), expected, patterns)


@pytest.mark.torch
@pytest.mark.parametrize("source", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", TORCH)
def test_torch_from_16_bits(name: str, source: str) -> None:
    """Oracle: torch 2.13.0's casts on the CPU, from all 65,536 codes of float16 and bfloat16."""
    torch = pytest.importorskip("torch")
    codes = np.arange(1 << 16, dtype=np.uint16)
    given = torch.from_numpy(codes.view(np.int16)).view(getattr(torch, source))
    expected = given.to(getattr(torch, name)).to(torch.float32).numpy()
    x = formats.decode(codes, source)
    assert_same(round_to(x, name, overflow="torch"), expected, x)


@pytest.mark.parametrize("fmt", CAST_BY_ML_DTYPES, ids=repr)
def test_ml_dtypes(fmt: Format, patterns: np.ndarray) -> None:
    """Oracle: NumPy's and ml_dtypes' casts from float32; NaNs alike whatever their sign."""
    with np.errstate(all="ignore"):
        expected = patterns.astype(fmt.dtype).astype(np.float32)
    assert_same(round_to(patterns, fmt, overflow="ml_dtypes"), expected, patterns)


# x in a format under "ieee", "saturate", "torch" and "ml_dtypes"; None: refused
DIFFERENCES = [
    ("float8_e4m3fn", 1000.0, NAN, 448.0, 448.0, NAN),
    ("float8_e4m3fn", -INF, NAN, -448.0, -448.0, NAN),
    ("float8_e4m3fnuz", 1000.0, NAN, 240.0, NAN, NAN),
    ("float8_e5m2", 1e6, INF, 57344.0, INF, INF),
    ("float8_e5m2fnuz", 1e6, NAN, 57344.0, NAN, NAN),
    ("float16", 1e6, INF, 65504.0, INF, INF),
    ("float8_e8m0fnu", 0.0, NAN, 2.0**-127, 2.0**-127, NAN),
    ("float8_e8m0fnu", -3.0, NAN, 2.0**-127, 4.0, NAN),
    ("float8_e8m0fnu", 1.25 * 2.0**-127, 2.0**-127, 2.0**-127, 2.0**-126, 2.0**-126),
    ("float8_e8m0fnu", INF, NAN, 2.0**127, NAN, NAN),
    ("float6_e2m3fn", 100.0, 7.5, 7.5, None, 7.5),
    ("float4_e2m1fn", NAN, None, None, None, -0.0),
    ("float4_e2m1fn", -NAN, None, None, None, 0.0),
    ("float8_e3m4", 100.0, INF, 15.5, None, INF),
    ("tfloat32", 3.4028e38, INF, (2 - 2.0**-10) * 2.0**127, None, None),
    ("int8", 300.0, 127.0, 127.0, None, None),
    ("uint8", -3.0, 0.0, 0.0, None, None),
]


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: f"{row[0]}:{row[1]}")
def test_what_differs(row: tuple) -> None:
    """Oracle: by hand; the documented differences between the four conventions."""
    name, x, *expected = row
    for overflow, wanted in zip(("ieee", "saturate", "torch", "ml_dtypes"), expected, strict=True):
        if wanted is None:
            with pytest.raises((SettingError, TypeError)):
                round_to(x, name, overflow=overflow)
        else:
            assert_same(round_to(x, name, overflow=overflow), wanted)


@pytest.mark.parametrize("overflow", ["torch", "ml_dtypes"])
@pytest.mark.parametrize("fmt", [formats.tfloat32, formats.int8, formats.uint8, *OWN[:3]], ids=repr)
def test_what_a_library_has_not_is_refused(fmt: Format, overflow: str) -> None:
    """Oracle: the message names the library and the format, and what to use in its place."""
    with pytest.raises(SettingError, match=rf"{overflow} has no rounding cast to {fmt}") as caught:
        round_to(1.0, fmt, overflow=overflow)
    assert "use 'ieee' or 'saturate'" in str(caught.value)


def test_a_library_knows_its_own_formats_only() -> None:
    """Oracle: a format of one's own under a library's name is none of its own."""
    named = Format("float8_e4m3fn", 4, 3, 7, "fn", np.dtype(np.uint8))
    for overflow in ("torch", "ml_dtypes"):
        with pytest.raises(SettingError, match="has no rounding cast"):
            round_to(1.0, named, overflow=overflow)


@pytest.mark.parametrize("fmt", [*FLOATS, *UNSIGNED], ids=repr)
def test_which_formats_a_library_has(fmt: Format) -> None:
    """Oracle: the dtypes of ml_dtypes, and NumPy's own floats; torch's by name."""
    kept = fmt.dtype.type.__module__ == "ml_dtypes" or fmt.name in ("float64", "float32", "float16")
    for overflow, has in (("ml_dtypes", kept), ("torch", fmt.name in (*TORCH, "float32", "float64"))):
        if has:
            assert round_to(1.0, fmt, overflow=overflow) == 1
        else:
            with pytest.raises(SettingError):
                round_to(1.0, fmt, overflow=overflow)


@pytest.mark.parametrize("mode", formats.ROUNDINGS)
def test_conventions_hold_in_every_mode(mode: str) -> None:
    """Oracle: IEEE 754-2019, 7.4 for the finite, the tables above for the infinite."""
    x = np.array([1e9, INF])
    stays = mode in ("toward_zero", "down")
    for overflow, last in (("torch", 448.0), ("ml_dtypes", NAN)):
        got = round_to(x, "float8_e4m3fn", mode, overflow, rng=0)
        assert_same(got, np.array([448.0 if stays else last, last]))


# --- gfloat -------------------------------------------------------------------------------------------------

GFLOAT_MODES = {
    "nearest_even": "TiesToEven",
    "nearest_away": "TiesToAway",
    "toward_zero": "TowardZero",
    "up": "TowardPositive",
    "down": "TowardNegative",
}
# Of one significand bit gfloat calls the code even or odd, IEEE 754-2019 the significand.
COMPARED = [each for each in (*FLOATS, *OWN) if each.has_subnormals and each.precision > 1]
COMPARED = [each for each in COMPARED if each.name not in ("tfloat32", "float64")]


def spread(fmt: Format, count: int) -> np.ndarray:
    """Draw numbers of all sizes that a format knows, and some beyond; the corners; no infinities or NaN."""
    random = np.random.default_rng(2)
    exponents = random.integers(fmt.emin - fmt.mantissa_bits - 3, fmt.emax + 3, count)
    x = np.concatenate(
        [random.standard_normal(count) * np.exp2(exponents), [0.0, fmt.max, fmt.smallest_normal]]
    )
    x = np.concatenate([x, -x])
    return x if fmt.signed else np.abs(x)


@pytest.mark.parametrize("fmt", COMPARED, ids=repr)
def test_gfloat_rounds_alike(fmt: Format) -> None:
    """Oracle: gfloat's round_ndarray, in its five modes and two rules of overflow."""
    gfloat = pytest.importorskip("gfloat")
    x = np.append(spread(fmt, 2000), [INF, -INF] if fmt.signed else [INF])
    for mode, theirs in GFLOAT_MODES.items():
        for overflow in ("ieee", "saturate") if fmt.has_nan or fmt.has_inf else ("saturate",):
            expected = gfloat.round_ndarray(info_of(fmt), x, gfloat.RoundMode[theirs], overflow == "saturate")
            assert_same(round_to(x, fmt, mode, overflow), expected, x)


@pytest.mark.parametrize("fmt", [each for each in COMPARED if each.bits <= 16], ids=repr)
def test_gfloat_encodes_alike(fmt: Format) -> None:
    """Oracle: gfloat's encode_ndarray of rounded numbers."""
    gfloat = pytest.importorskip("gfloat")
    rounded = round_to(spread(fmt, 2000), fmt, "nearest_even", "saturate")
    assert np.array_equal(formats.encode(rounded, fmt), gfloat.encode_ndarray(info_of(fmt), rounded))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("fmt", [each for each in COMPARED if each.mantissa_bits <= 11], ids=repr)
def test_gfloat_throws_the_same_dice(fmt: Format, bits: int) -> None:
    """Oracle: gfloat's ``Stochastic``, which rounds the residue to the dice's bits too, with given bits."""
    gfloat = pytest.importorskip("gfloat")
    x = spread(fmt, 2000)
    dice = np.random.default_rng(3).integers(0, 1 << bits, x.shape, np.dtype(f"u{bits // 8}"))
    mode = gfloat.RoundMode.Stochastic
    expected = gfloat.round_ndarray(info_of(fmt), x, mode, True, dice.astype(np.int64), bits)
    assert_same(round_to(x, fmt, "stochastic", "saturate", bits=dice), expected, x)


def test_where_gfloat_and_the_standard_differ() -> None:
    """Oracle: IEEE 754-2019, 4.3.1, of one significand bit: a tie goes to the larger; ml_dtypes agrees."""
    ties = np.float32([1.5, 3, 6, 0.75])
    for fmt in (make(7, 0, flavour="p3109"), formats.float8_e8m0fnu):
        assert round_to(ties, fmt).tolist() == [2, 4, 8, 1]
    assert ties.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32).tolist() == [2, 4, 8, 1]
