"""The reference itself: held against readings and roundings that are not ours."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from minimp.formats import Format
from tests.formats.oracle import (
    EVERY,
    MODES,
    SMALL,
    UNSIGNED,
    assert_same,
    awkward,
    grid,
    readings,
    round_all,
    round_exactly,
)


@pytest.mark.parametrize("fmt", [*SMALL, *UNSIGNED], ids=repr)
def test_the_dull_reading_is_that_of_ml_dtypes(fmt: Format) -> None:
    """Oracle: NumPy's and ml_dtypes' reading of every code, signs of zeros and all."""
    codes = np.arange(1 << fmt.bits, dtype=fmt.code_dtype)
    with np.errstate(invalid="ignore"):  # ml_dtypes warns when it widens a signalling NaN
        assert_same(readings(fmt), codes.view(fmt.dtype).astype(np.float64))


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_the_two_forms_agree(fmt: Format) -> None:
    """Oracle: bisection among fractions, against binary search among float64."""
    x = awkward(fmt)
    x = x[np.isfinite(x)]
    x = x[:: max(1, len(x) // 150)]
    for mode in MODES:
        for overflow, subnormals in (("ieee", "keep"), ("saturate", "flush")):
            expected = [round_exactly(Fraction(each), fmt, mode, overflow, subnormals) for each in x.tolist()]
            got = round_all(x, fmt, mode, overflow, subnormals)
            assert_same(got + 0.0, np.array(expected) + 0.0, x)


def test_the_row_of_a_format_by_hand() -> None:
    """Oracle: float4_e2m1fn's eight magnitudes (OCP MX 1.0, 5.3.3), and what would come next."""
    marks = grid(next(each for each in SMALL if each.name == "float4_e2m1fn"))
    assert [float(each) for each in marks.values] == [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert marks.odd == (False, True) * 4
    assert marks.beyond == 8
