"""The matrix-unit models, against a scalar model in fractions and published findings."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from minimp import formats
from minimp.errors import SettingError
from minimp.formats import matmul
from minimp.formats.accumulation.tensorcore import UNITS, Unit
from minimp.formats.exact import floor_log2
from tests.formats.oracle import assert_same

ROWS = [(name, fmt, unit) for name, rows in UNITS.items() for unit in rows for fmt in unit.formats]
NAMES = [f"{name} {fmt}" for name, fmt, _ in ROWS]


def draw(fmt: str, shape: tuple[int, ...], random: np.random.Generator, low: int, high: int) -> np.ndarray:
    """Draw values of a format over the binades low..high, with zeros."""
    x = random.standard_normal(shape) * 2.0 ** random.integers(low, high, shape)
    x = np.where(random.random(shape) < 0.15, 0.0, x)
    return formats.round(x, fmt, overflow="saturate").astype(np.float64)


def unit_dot(x: np.ndarray, y: np.ndarray, start: float, unit: Unit, fmt: str) -> float:
    """Add one dot product as a unit does, in fractions, step by step as the papers tell it."""

    def exponent(value: float, name: str) -> int:
        return max(floor_log2(abs(Fraction(value))), formats.get(name).emin)

    acc = float(start)
    for first in range(0, len(x), unit.terms):
        terms = [(Fraction(acc), exponent(acc, "float32") if acc else unit.floor)]
        for u, v in zip(x[first : first + unit.terms], y[first : first + unit.terms], strict=True):
            height = exponent(u, fmt) + exponent(v, fmt) if u and v else unit.floor
            terms.append((Fraction(u) * Fraction(v), height))
        last_place = Fraction(2) ** (max(height for _, height in terms) - unit.fraction_bits)
        total = sum(int(term / last_place) for term, _ in terms) * last_place  # int() cuts toward zero
        if abs(total) >= 2**128:
            return float("inf") if total > 0 else float("-inf")
        acc = cut(total, unit)
    return acc


def cut(total: Fraction, unit: Unit) -> float:
    """Cut toward zero to the significand bits of the result, at float32's exponents."""
    if total == 0:
        return 0.0
    last_place = Fraction(2) ** (max(floor_log2(abs(total)), -126) - unit.result.mantissa_bits)
    return float(int(total / last_place) * last_place)


@pytest.mark.parametrize(("name", "fmt", "unit"), ROWS, ids=NAMES)
def test_units_against_fractions(name: str, fmt: str, unit: Unit) -> None:
    """Oracle: the scalar model. Ordinary data, a wide spread, the small ends of inputs and accumulator."""
    random, known = np.random.default_rng(1), formats.get(fmt)
    low = max(known.emin - known.mantissa_bits, -75)
    spreads = ((-1, 1), (low, min(known.emax, 60)), (low, low + 4))
    for first, last in spreads:
        for scale in (1.0, 2.0**-126, 2.0**40):
            a, b = draw(fmt, (3, 37), random, first, last), draw(fmt, (37, 3), random, first, last)
            c = draw("float32", (3, 3), random, -30, 3) * scale
            c = formats.round(c, "float32").astype(np.float64)
            got = matmul(a, b, c, fmt=fmt, accumulate=f"tensorcore:{name}", output="float32")
            expected = [[unit_dot(a[i], b[:, j], c[i, j], unit, fmt) for j in range(3)] for i in range(3)]
            assert_same(got, np.array(expected))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("volta", 0.0), ("turing", -0.5), ("ampere", -0.5), ("hopper", -0.75), ("blackwell", -0.75)],
)
def test_how_many_bits_a_unit_keeps(name: str, expected: float) -> None:
    """Oracle: by hand. 2^23 - 2^23 - 0.5 - 0.25 - 0.125, its last place at 1, 0.5 or 0.25; exactly -0.875."""
    a = np.array([[-8192.0, -0.5, -0.25, -0.125]])
    b = np.array([[1024.0], [1.0], [1.0], [1.0]])
    got = matmul(a, b, 2.0**23, fmt="float16", accumulate=f"tensorcore:{name}", output="float32")
    assert got.item() == expected
    assert matmul(a, b, 2.0**23, fmt="float16", accumulate="exact", output="float32").item() == -0.875


def test_hoppers_fp8_keeps_13_bits() -> None:
    """Oracle: by hand. 1 + 2^-14 is 1 on Hopper and Ada, and itself on Blackwell."""
    a, b = np.array([[1.0, 2.0**-7]]), np.array([[1.0], [2.0**-7]])
    for name, expected in (("ada", 1.0), ("hopper", 1.0), ("blackwell", 1 + 2.0**-14)):
        assert (
            matmul(a, b, fmt="float8_e5m2", accumulate=f"tensorcore:{name}", output="float32").item()
            == expected
        )


def test_a_short_sum_is_cut_again_when_it_grows() -> None:
    """Oracle: by hand. 4 + 2^-13: every term is kept, but 13 bits below 4 end at 2^-11."""
    a, b = np.array([[1.0, 1.0, 1.0, 1.0, 2.0**-6]]), np.array([[1.0], [1.0], [1.0], [1.0], [2.0**-7]])
    for name, expected in (("ada", 4.0), ("hopper", 4.0), ("blackwell", 4 + 2.0**-13)):
        got = matmul(a, b, fmt="float8_e5m2", accumulate=f"tensorcore:{name}", output="float32")
        assert got.item() == expected


# How many products a unit adds at once, from the published models.
TERMS = {
    ("volta", "float16"): 4,
    ("turing", "float16"): 8,
    ("ampere", "bfloat16"): 8,
    ("ampere", "tfloat32"): 4,
    ("ada", "float16"): 8,
    ("ada", "float8_e4m3fn"): 16,
    ("hopper", "float16"): 16,
    ("hopper", "tfloat32"): 8,
    ("hopper", "float8_e5m2"): 32,
    ("blackwell", "bfloat16"): 16,
    ("blackwell", "float8_e4m3fn"): 32,
}


@pytest.mark.parametrize(("name", "fmt"), TERMS)
def test_how_many_terms_a_unit_adds_at_once(name: str, fmt: str) -> None:
    """Oracle: by hand. 2^16 - 2^16 + 2^-12 is 0 when all are aligned at once, 2^-12 in a later step."""
    for place, expected in ((TERMS[name, fmt] - 1, 0.0), (TERMS[name, fmt], 2.0**-12)):
        a = np.zeros((1, 40))
        a[0, [0, 1, place]] = 256.0, -256.0, 2.0**-6
        b = np.abs(a).T
        got = matmul(a, b, fmt=fmt, accumulate=f"tensorcore:{name}", output="float32")
        assert got.item() == expected


@pytest.mark.parametrize("name", ["ampere", "ada", "hopper", "blackwell"])
def test_tiny_terms_are_aligned_to_the_floor(name: str) -> None:
    """Oracle: by hand. 2^-150 + (2^-150 - 2^-160) + 2^-160 is 2^-149; below 2^-158 all is cut off first."""
    a = np.array([[2.0**-75, 33 * 2.0**-80, 2.0**-80]])
    b = np.array([[2.0**-75], [31 * 2.0**-80], [2.0**-80]])
    got = matmul(a, b, fmt="bfloat16", accumulate=f"tensorcore:{name}", output="float32")
    assert got.item() == 0.0
    assert matmul(a, b, fmt="bfloat16", accumulate="exact", output="float32").item() == 2.0**-149


def test_overflow_is_infinite_although_sums_are_cut() -> None:
    """Oracle: by hand. 2^128 is infinite, 2^128 - 2^103 cut to the largest; inf stays, inf - inf is NaN."""
    largest = float(np.finfo(np.float32).max)
    for terms, start, expected in (
        ([2.0**127, 2.0**127], 0.0, np.inf),
        ([-(2.0**127), -(2.0**127)], 0.0, -np.inf),
        ([2.0**102, 2.0**102], largest, largest),
        ([2.0**127, 2.0**127] + [0.0] * 30 + [-(2.0**127)], 0.0, np.inf),
        ([2.0**127, 2.0**127] + [0.0] * 30 + [-np.inf], 0.0, np.nan),
    ):
        a = np.array([terms])
        got = matmul(
            a, np.ones_like(a).T, start, fmt="bfloat16", accumulate="tensorcore:hopper", output="float32"
        )
        assert_same(got, np.array([[expected]]))


def test_a_zero_result_is_positive() -> None:
    """Oracle: the published models: +0, whatever the signs of what was cut off."""
    for factors in ([1.0, -1.0, -(2.0**-14)], [-0.0, -0.0, -0.0]):
        got = matmul(
            [factors],
            [[1.0], [1.0], [2.0**-14]],
            -0.0,
            fmt="float16",
            accumulate="tensorcore:volta",
            output="float32",
        )
        assert_same(got, np.array([[0.0]]))


def test_the_sum_is_not_monotone() -> None:
    """Oracle: Fasi et al. 2021, section 3.4: a larger accumulator can give a smaller sum.

    On Volta, 1 - 2^-24 + 4 terms of 2^-24 keeps all of them; at 1 their places are cut off.
    """
    a, b = np.full((1, 4), 2.0**-12), np.full((4, 1), 2.0**-12)
    below, at = (
        matmul(a, b, start, fmt="float16", accumulate="tensorcore:volta", output="float32").item()
        for start in (1 - 2.0**-24, 1.0)
    )
    assert below > at == 1.0


def test_cutting_is_a_bias() -> None:
    """Oracle: exact sums of positive data. The units' results lie below, a float32 sum's on both sides."""
    random = np.random.default_rng(2)
    a = formats.round(random.random((8, 1024)), "float16").astype(np.float64)
    b = formats.round(random.random((1024, 8)), "float16").astype(np.float64)
    exact = matmul(a, b, fmt="float16", accumulate="exact", output="float64")

    def error(name: str) -> np.ndarray:
        return matmul(a, b, fmt="float16", accumulate=name, output="float64") - exact

    assert (error("tensorcore:ampere") < 0).all()
    assert error("tensorcore:volta").mean() < error("tensorcore:ampere").mean()
    rounded = error("float32:sequential")
    assert rounded.min() < 0 < rounded.max()


def test_units_refuse_formats_they_do_not_take() -> None:
    """Oracle: the message lists what the unit multiplies."""
    with pytest.raises(SettingError, match="tensorcore:volta: multiplies float16, got bfloat16"):
        matmul([[1.0]], [[1.0]], fmt="bfloat16", accumulate="tensorcore:volta")
    with pytest.raises(SettingError, match="got float32"):
        matmul([[1.0]], [[1.0]], fmt="float32", accumulate="tensorcore:hopper")


MMASIM = {
    ("volta", "float16"): ("MMA", "Volta", "m8n8k4.f32.f16.f16.f32"),
    ("turing", "float16"): ("MMA", "Turing", "m16n8k8.f32.f16.f16.f32"),
    ("ampere", "float16"): ("MMA", "Ampere", "m16n8k16.f32.f16.f16.f32"),
    ("ampere", "bfloat16"): ("MMA", "Ampere", "m16n8k16.f32.bf16.bf16.f32"),
    ("ampere", "tfloat32"): ("MMA", "Ampere", "m16n8k8.f32.tf32.tf32.f32"),
    ("ada", "float8_e4m3fn"): ("MMA", "Ada Lovelace", "m16n8k32.f32.e4m3.e4m3.f32"),
    ("hopper", "bfloat16"): ("WGMMA", "Hopper", "m64n8k16.f32.bf16.bf16"),
    ("hopper", "float8_e5m2"): ("WGMMA", "Hopper", "m64n8k32.f32.e5m2.e5m2"),
    ("blackwell", "tfloat32"): ("TCGen05MMA", "Blackwell", "m64n8k8.kind::tf32.f32.tf32.tf32"),
    ("blackwell", "float8_e4m3fn"): ("TCGen05MMA", "Blackwell", "m64n8k32.kind::f8f6f4.f32.e4m3.e4m3"),
}


@pytest.mark.torch
@pytest.mark.parametrize(("name", "fmt"), MMASIM)
def test_units_against_mma_sim(name: str, fmt: str) -> None:
    """Oracle: MMA-Sim 2.1 where it is installed, which was checked against recorded hardware results."""
    torch, sim = pytest.importorskip("torch"), pytest.importorskip("mmasim.nv_ptx.sim")
    kind, arch, shape = MMASIM[name, fmt]
    op, random, known = getattr(sim, kind)(arch, shape), np.random.default_rng(3), formats.get(fmt)
    low = max(known.emin - known.mantissa_bits, -70)
    storage = {"tfloat32": torch.float32}.get(fmt) or getattr(torch, fmt)
    for first, last in ((-1, 1), (low, min(known.emax, 60)), (low, low + 4)):
        a, b = draw(fmt, (16, 96), random, first, last), draw(fmt, (96, 24), random, first, last)
        c = draw("float32", (16, 24), random, -30, 3)
        theirs = op(*(torch.tensor(each).float().to(storage) for each in (a, b)), torch.tensor(c).float())
        got = matmul(a, b, c, fmt=fmt, accumulate=f"tensorcore:{name}", output="float32")
        assert_same(got, theirs.double().numpy())
