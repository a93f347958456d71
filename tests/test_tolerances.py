"""The table of tolerances and its checks; oracle: hand-computed spacings of IEEE formats and np.spacing."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tests.tolerances import ROWS, assert_bound, assert_close, assert_ulp, dot_bound, tolerance


def test_each_row_has_a_reason_and_a_sane_value() -> None:
    """Oracle: the rules of the table itself."""
    for row in ROWS:
        assert len(row.reason.split()) >= 5, row
        assert 0.0 <= row.value < 64.0, row


@pytest.mark.parametrize(
    ("dtype", "spacing"), [(np.float16, 2.0**-10), (ml_dtypes.bfloat16, 2.0**-7), (np.float32, 2.0**-23)]
)
def test_half_an_ulp_passes_and_more_fails(dtype: type, spacing: float) -> None:
    """Oracle: the spacing of each format above 1, 2^-p by definition."""
    actual = np.ones(3, dtype)
    assert_ulp(actual, np.array([1.0, 1.0 + spacing / 2, 1.0 - spacing / 4]), "one_rounding")
    with pytest.raises(AssertionError, match=r"worst at \(1,\).*expected"):
        assert_ulp(actual, np.array([1.0, 1.0 + spacing * 0.51, 1.0]), "one_rounding")


def test_ulp_of_subnormals_zero_and_powers_of_two() -> None:
    """Oracle: np.spacing, which is one ulp upward, over zero and each positive float16 below the largest."""
    values = np.arange(0x7BFF, dtype=np.uint16).view(np.float16)
    spacing = np.spacing(values).astype(np.float64)
    assert_ulp(values, values.astype(np.float64) + spacing / 2, "one_rounding")
    for shift in (0.5001, -0.5001):
        with pytest.raises(AssertionError, match=r"^31743 of 31743 elements lie outside"):
            assert_ulp(values, values.astype(np.float64) + shift * spacing, "one_rounding")


def test_overflow_and_nan_must_be_met_by_the_same() -> None:
    """Oracle: float16 rounds 65520 and above to infinity (IEEE 754-2019, 4.3.1) and 65519 to 65504."""
    assert_ulp(
        np.float16([np.inf, -np.inf, np.nan, 65504]),
        np.array([65520.0, -1e9, np.nan, 65519.0]),
        "one_rounding",
    )
    for actual, expected in [
        (65504, 65520.0),
        (np.inf, 65519.0),
        (np.inf, -1e9),
        (np.nan, 1.0),
        (1.0, np.nan),
    ]:
        with pytest.raises(AssertionError, match="1 of 1 elements"):
            assert_ulp(np.float16([actual]), np.array([expected]), "one_rounding")


def test_relative_and_peak_relative_differ_on_small_elements() -> None:
    """Oracle: hand-computed. 1e-6 beside 1 is far from 2e-6 relatively, and near it relative to the peak."""
    actual, expected = np.array([1.0, 1e-6]), np.array([1.0, 2e-6])
    assert_close(actual, expected, "parity_op_fp32")
    with pytest.raises(AssertionError, match=r"worst at \(1,\)"):
        assert_close(actual, expected, "parity_trajectory")
    with pytest.raises(AssertionError, match="elements lie outside"):
        assert_close(np.array([0.0]), np.array([np.nan]), "parity_trajectory")


def test_bound_is_judged_element_by_element() -> None:
    """Oracle: hand-computed distances of 1 and 2 against bounds of 1 and 1.5."""
    assert_bound(np.array([1.0, 1.5]), np.zeros(2), np.array([1.0, 1.5]), "dot_product")
    with pytest.raises(AssertionError, match=r"1 of 2 elements.*\n.*worst at \(1,\)"):
        assert_bound(np.array([1.0, 2.0]), np.zeros(2), np.array([1.0, 1.5]), "dot_product")


def test_dot_bound_equals_its_formula() -> None:
    """Oracle: the formula by hand for K = 2, sums in float32 and results in float16."""
    u_sum, u_out = 2.0**-24, 2.0**-11
    by_hand = u_out * 3.0 + 2 * u_sum / (1 - 2 * u_sum) * 5.0 * (1 + u_out) + 2.0**-25
    assert dot_bound([3.0], [5.0], 2, np.float32, np.float16)[0] == by_hand
    with pytest.raises(ValueError, match="no bound holds for 2048 sums in float16"):
        dot_bound([3.0], [5.0], 2048, np.float16, np.float16)


def test_wrong_row_or_shape_is_refused() -> None:
    """Oracle: the contract in the docstrings: no unknown row, no row of another kind, no broadcasting."""
    with pytest.raises(KeyError, match="has no row 'guess'"):
        tolerance("guess")
    with pytest.raises(TypeError, match="of kind 'rel'; this check takes ulp"):
        assert_ulp(np.zeros(1), np.zeros(1), "parity_trajectory")
    with pytest.raises(AssertionError, match="shapes differ"):
        assert_close(np.zeros(2), np.zeros((1, 2)), "parity_trajectory")


@pytest.mark.parametrize("function", [np.exp, np.log, np.sin, np.cos, np.tanh, np.log1p, np.expm1])
def test_numpy_keeps_the_transcendental_row(function: np.ufunc) -> None:
    """Oracle: the same NumPy function in float64 on the float32 inputs; the row's claim holds here."""
    inputs = np.float32(np.geomspace(1e-6, 80.0, 20001))
    assert_ulp(function(inputs), function(inputs.astype(np.float64)), "fp32_transcendental")
