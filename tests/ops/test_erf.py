"""The error function of minimp_backends.special; oracle: mpmath with 200 bits."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from minimp_backends.special import CUT, END, erf
from tests.tolerances import assert_ulp

EDGES = [CUT, -CUT, np.nextafter(CUT, 1), END, -END, np.nextafter(END, 0), 0.46875, 0.84375, 1.25, 4.0, 5.9]
POINTS = np.concatenate(
    [np.linspace(-6.5, 6.5, 2003), np.geomspace(1e-300, 1.0, 500), -np.geomspace(1e-9, 40.0, 300), EDGES]
)


def exact(x: np.ndarray) -> np.ndarray:
    """Return erf rounded to float64 once."""
    with mpmath.workprec(200):
        return np.array([float(mpmath.erf(mpmath.mpf(float(each)))) for each in x])


def test_float64_is_within_two_ulps() -> None:
    """Oracle: mpmath, on both sides of every change of formula, down to tiny and up to saturated."""
    assert_ulp(erf(np, POINTS), exact(POINTS), "erf_float64")


def test_float32_is_rounded_once() -> None:
    """Oracle: mpmath at the float32 numbers."""
    x = POINTS.astype(np.float32)
    y = erf(np, x)
    assert y.dtype == np.float32
    assert_ulp(y, exact(x), "erf_float32")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values_signs_and_shapes(dtype: type) -> None:
    """Oracle: C's erf (ISO/IEC 9899:2018, F.10.5.1): odd, +-1 at infinity; zeros keep their sign."""
    y = erf(np, np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype))
    np.testing.assert_array_equal(y, np.array([1, -1, np.nan, 0, 0], dtype))
    assert list(np.signbit(y[3:])) == [False, True]
    x = POINTS.astype(dtype)
    np.testing.assert_array_equal(erf(np, -x), -erf(np, x))
    for shape in [(), (0, 3), (2, 1)]:
        assert erf(np, np.zeros(shape, dtype)).shape == shape


def test_it_never_decreases() -> None:
    """Oracle: erf increases; neighbouring formulas may not overlap by more than their error."""
    x = np.sort(np.concatenate([np.linspace(c - 1e-3, c + 1e-3, 501) for c in (0.0, CUT, END)]))
    y = erf(np, x.astype(np.float32))
    assert (np.diff(y) >= 0).all()
