"""The error bound of every accumulation: never exceeded, and nearly reached by data made for it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import FormatError, SettingError
from minimp.formats import matmul
from minimp.formats.accumulation.bounds import BOUNDS, error_bound
from minimp.formats.accumulation.sums import sum_of
from minimp.formats.accumulation.tensorcore import UNITS
from tests.formats.accumulation.products import draw

EVERY = ("exact", *(name.replace(":B", ":8").replace(":S", ":3") for name in formats.ACCUMULATES))


def taken(name: str) -> list[str]:
    """List the formats to try an accumulation on: those that a matrix unit multiplies, or a few."""
    if name.startswith("tensorcore:"):
        return [fmt for unit in UNITS[name.partition(":")[2]] for fmt in unit.formats[:2]]
    return ["float16", "bfloat16", "float8_e4m3fn", "float32"] + ["float64"] * (name in ("exact", "float64"))


def exact_errors(a: np.ndarray, b: np.ndarray, c: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Measure errors in fractions; an error is rounded once, to float64."""
    errors = np.empty(got.shape)
    for i, j in np.ndindex(got.shape):
        exact = sum(
            (Fraction(u) * Fraction(v) for u, v in zip(a[i], b[:, j], strict=True)), Fraction(c[i, j])
        )
        errors[i, j] = float(abs(Fraction(got[i, j]) - exact))
    return errors


def test_every_accumulation_has_a_bound() -> None:
    """Oracle: the table of accumulations."""
    assert set(BOUNDS) == {"exact", *formats.ACCUMULATES}


@pytest.mark.parametrize("name", EVERY)
def test_errors_stay_within_the_bound(name: str) -> None:
    """Law: the bound, errors in fractions. Plain data, a wide spread, the small ends, cancellation."""
    for fmt in taken(name):
        known = formats.get(fmt)
        c_format = formats.float16 if name in ("float16", "float16:fma", "chunked:8") else formats.float32
        c_format = formats.bfloat16 if name == "bfloat16" else c_format
        for K, spread, scale in (
            (33, 1, 1.0),
            (33, 4, 1.0),
            (70, 1, 2.0**-7),
            (70, 2, 2.0**-11),
            (1, 1, 1.0),
        ):
            a = formats.round(draw(fmt, (5, K), K, spread) * scale, known, overflow="saturate").astype(float)
            b = formats.round(draw(fmt, (K, 4), K + 1, spread) * scale, known, overflow="saturate").astype(
                float
            )
            b[:, 0] = np.abs(b[:, 0])
            c = formats.round(draw("float16", (5, 4), 3) * scale**2, c_format).astype(float)
            for output in ("float64", "float32", "float16", "bfloat16", "float8_e5m2"):
                bound = error_bound(name, K, fmt=fmt, output=output)
                got = matmul(a, b, c, fmt=fmt, accumulate=name, output=output)
                limits = bound.of(bound.magnitudes(a, b, c), got)
                assert np.isfinite(got)[np.isfinite(limits)].all()
                finite = np.isfinite(got)
                assert (exact_errors(a, b, c, np.where(finite, got, 0))[finite] <= limits[finite]).all()
            assert np.isfinite(limits).any()


@given(data=st.data())
def test_no_data_breaks_a_bound(data: st.DataObject) -> None:
    """Law: the bound, on whatever halves hypothesis comes up with, products and sums."""
    name = data.draw(st.sampled_from([each for each in EVERY if not each.startswith("bfloat")]))
    half = st.floats(width=16, allow_nan=False, allow_infinity=False)
    pairs = data.draw(st.lists(st.tuples(half, half), min_size=1, max_size=24))
    a, b = (np.array(each)[None] for each in zip(*pairs, strict=True))
    bound = error_bound(name, a.size, fmt="float16", output="float32")
    got = matmul(a, b.T, fmt="float16", accumulate=name, output="float32")
    limit = bound.of(bound.magnitudes(a, b.T), got)
    if np.isfinite(limit):
        assert exact_errors(a, b.T, np.zeros((1, 1)), got) <= limit
    bound = error_bound(name, a.size, fmt="float16", output="float32", products=False)
    got = sum_of(a, 1, fmt="float16", accumulate=name, output="float32")
    limit = bound.of(bound.magnitudes(a, np.ones_like(a).T)[0], got)
    if np.isfinite(limit).all():
        assert exact_errors(a, np.ones_like(a).T, np.zeros((1, 1)), got[:, None]) <= limit


# ---- how near data comes -------------------------------------------------------------------------------


def lost_terms(held: str, K: int) -> tuple[np.ndarray, float]:
    """Give terms of half an ulp, and the 1 they are added to: each addition is a tie, and loses its term."""
    return np.full(K, 2.0 ** -formats.get(held).precision), 1.0


def lost_levels(K: int) -> tuple[np.ndarray, float]:
    """Give a tree in which every addition to the 1 at its left loses half an ulp."""
    x = np.zeros(K)
    x[0] = 1.0
    for level in range(int(math.log2(K))):
        x[2**level] = 2.0**-24
    return x, 0.0


def below_the_cut(place: int, K: int) -> tuple[np.ndarray, float]:
    """Give terms that lie just below the last place kept beside 1: a matrix unit cuts all of them off."""
    return np.full(K, 2.0**-place * (1 - 2.0**-3)), 1.0


NEAR = {
    "float32:sequential": (lost_terms("float32", 64), "float16", 1.1),
    "float16": (lost_terms("float16", 64), "float16", 1.1),
    "float16:fma": (lost_terms("float16", 64), "float16", 1.1),
    "bfloat16": (lost_terms("bfloat16", 16), "bfloat16", 1.2),
    "chunked:1": (lost_terms("float16", 64), "float16", 1.1),
    "chunked:4": ((np.full(64, 2.0**-13), 1.0), "float16", 1.1),
    "pairwise": (lost_levels(1024), "float16", 1.2),
    "splitk:3": (lost_terms("float32", 66), "float16", 1.1),
    "kahan": ((np.array([2.0**-24]), 1.0), "float16", 3.1),
    "exact": ((np.array([2.0**-11]), 1.0), "float16", 1.1),
    "tensorcore:volta": (below_the_cut(23, 64), "float16", 1.7),
    "tensorcore:turing": (below_the_cut(24, 64), "float16", 1.7),
    "tensorcore:ampere": (below_the_cut(24, 64), "float16", 1.7),
    "tensorcore:ada": (below_the_cut(24, 64), "float16", 1.7),
    "tensorcore:hopper": (below_the_cut(25, 64), "float16", 1.7),
    "tensorcore:blackwell": (below_the_cut(25, 64), "float16", 1.7),
}
BLAS = ("float32", "float64")  # their order is not stated, so no data can be made for it


def test_data_is_made_for_every_accumulation() -> None:
    """Oracle: the table: each row has data here, or no stated order."""
    orders = {formats.parse_accumulate(name).order for name in NEAR}
    assert orders | set(BLAS) == set(BOUNDS)


@pytest.mark.parametrize("name", NEAR)
def test_data_comes_near_the_bound(name: str) -> None:
    """Oracle: biased data, each step losing all it can: the error is the bound but for the factor given."""
    (terms, start), fmt, factor = NEAR[name]
    a, b = terms[None], np.ones((terms.size, 1))
    if fmt == "float16" and not (formats.round(a, fmt) == a).all():
        a, b = a * 2.0**12, b * 2.0**-12
    output = "float16" if name == "exact" else "float64"
    bound = error_bound(name, terms.size, fmt=fmt, output=output)
    got = matmul(a, b, start, fmt=fmt, accumulate=name, output=output)
    error = exact_errors(a, b, np.array([[start]]), got).item()
    limit = bound.of(bound.magnitudes(a, b, start), got).item()
    assert error <= limit <= factor * error


def test_underflow_has_its_own_term() -> None:
    """Oracle: by hand. Products of 2^-25 tie to 0 in float16: each is lost, whatever S is."""
    a, b = np.full((1, 50), 2.0**-12), np.full((50, 1), 2.0**-13)
    bound = error_bound("float16", 50, fmt="float16")
    got = matmul(a, b, fmt="float16", accumulate="float16")
    assert got == 0
    assert bound.relative * 50 * 2.0**-25 < 50 * 2.0**-25 <= bound.absolute
    assert error_bound("float16", 50, fmt="float16", products=False).absolute == 0.0


def test_a_subnormal_factor_counts_as_a_unit_sees_it() -> None:
    """Oracle: by hand. 2^-24 · 2^15 stands at 2^1 in Volta's alignment, and cuts 2^-23 off beside it."""
    a, b = np.array([[2.0**-24, 2.0**-11]]), np.array([[2.0**15], [2.0**-12 * (1 - 2.0**-5)]])
    bound = error_bound("tensorcore:volta", 2, fmt="float16", output="float32")
    got = matmul(a, b, fmt="float16", accumulate="tensorcore:volta", output="float32")
    error = exact_errors(a, b, np.zeros((1, 1)), got).item()
    plain = float((np.abs(a) @ np.abs(b)).item())
    assert bound.relative * plain < error <= bound.of(bound.magnitudes(a, b), got).item()


def test_overflow_is_excluded() -> None:
    """Oracle: float16's end: where a sum can reach it, the bound is infinite, and says nothing."""
    a, b = np.full((1, 3), 200.0), np.full((3, 1), 200.0)
    bound = error_bound("float16", 3, fmt="float16")
    assert matmul(a, b, fmt="float16", accumulate="float16") == np.inf
    assert bound.of(bound.magnitudes(a, b), np.inf) == np.inf
    assert error_bound("float32", 1 << 25, fmt="float16").relative == math.inf
    assert error_bound("kahan", 1 << 22, fmt="float16").relative == math.inf


def test_bounds_are_the_published_ones() -> None:
    """Oracle: Higham 2002, by hand, where products are exact (r = 0)."""
    u = 2.0**-24
    expected = {
        "float32:sequential": 1024 * u,
        "float32": 1024 * u / (1 - 1024 * u),
        "pairwise": 11 * u / (1 - 11 * u),
        "kahan": 3 * u + 10 * 1024 * u**2,
        "splitk:4": 256 * u + 3 * u * (1 + 256 * u),
        "float16": 2.0**-11 + 0.5 * (1 + 2.0**-11),
        "float16:fma": 0.5,
        "chunked:32": 31 * u + 32 * 2.0**-11 * (1 + 31 * u),
        "tensorcore:ampere": 1025 * u + 128 * 2 * u,
        "exact": 0.0,
    }
    for name, relative in expected.items():
        assert error_bound(name, 1024, fmt="float16").relative == pytest.approx(relative, rel=1e-12)
    assert error_bound("float16", 0, fmt="float16").relative == 0.0


def test_what_is_refused() -> None:
    """Oracle: one clear error each."""
    with pytest.raises(SettingError, match="number of terms"):
        error_bound("kahan", -1, fmt="float16")
    with pytest.raises(SettingError, match="cannot hold float64"):
        error_bound("kahan", 1, fmt="float64")
    with pytest.raises(SettingError, match="got float32"):
        error_bound("tensorcore:hopper", 1, fmt="float32")
    with pytest.raises(FormatError, match="number format"):
        error_bound("kahan", 1, fmt="float17")
