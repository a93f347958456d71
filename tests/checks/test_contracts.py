"""The contracts of a step's stages; oracle: results made right by hand, then spoiled one at a time."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.checks import (
    check_cast,
    check_clipped,
    check_finite,
    check_loss,
    check_scaled,
    check_unchanged,
    check_unscaled,
    snapshot,
)
from minimp.checks.contracts import within
from minimp.errors import FormatError, SettingError

RANDOM = np.random.default_rng(21)
MASTER = (RANDOM.standard_normal(500) * 2.0 ** RANDOM.integers(-30, 20, 500)).astype(np.float32)
GRADS = {"a": RANDOM.standard_normal((4, 3)).astype(np.float16), "b": np.zeros(0, np.float32)}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_cast_is_checked_to_the_bit(dtype: type) -> None:
    """Oracle: NumPy's and ml_dtypes' conversions, to nearest even; one bit flipped; truncation."""
    with np.errstate(over="ignore", under="ignore"):
        low = MASTER.astype(dtype)
    assert check_cast(low, MASTER, dtype)
    for index in (0, 499):
        wrong = low.copy()
        wrong.view(np.uint16)[index] ^= 1
        assert not check_cast(wrong, MASTER, dtype)
    assert not check_cast((low.view(np.uint16) & 0xFFFE).view(dtype), MASTER, dtype)
    assert not check_cast(low[:-1], MASTER, dtype)
    assert "has its format" in str(check_cast(low, MASTER, "float32"))


def test_cast_knows_signed_zeros_infinities_and_nan() -> None:
    """Oracle: float16 of +-1e-30, 1e30 and NaN."""
    master = np.array([1e-30, -1e-30, 1e30, np.nan], np.float32)
    right = np.array([0.0, -0.0, np.inf, np.nan], np.float16)
    assert check_cast(right, master, "float16")
    for index, value in enumerate([-0.0, 0.0, 65504.0, 1.0]):
        wrong = right.copy()
        wrong[index] = value
        assert len(check_cast(wrong, master, "float16")) == 1
    with pytest.raises(FormatError, match="did you mean 'float16'"):
        check_cast(right, master, "flaot16")


def test_loss_is_held_to_format_and_bound() -> None:
    """Oracle: 2.5 in float32 and in float16; values inside and outside the bound; NaN and infinity."""
    assert check_loss(np.float32(2.5), "float32", 2.5000001, 1e-6)
    assert not check_loss(np.float32(2.5), "float32", 2.50001, 1e-6)
    assert not check_loss(np.float16(2.5), "float32", 2.5, 1e-6)
    assert check_loss(np.float32(np.nan), "float32", np.nan, 1.0).notes == ("loss is not finite: nan",)
    assert not check_loss(np.float32(np.nan), "float32", 1.0, 1.0)
    assert not check_loss(np.float32(1.0), "float32", np.nan, 1.0)
    assert check_loss(np.float16(np.inf), "float16", 65520.0, 0.0)
    assert not check_loss(np.float16(np.inf), "float16", 65519.0, 0.0)


def test_scaled_loss_is_exact_or_overflows_and_says_so() -> None:
    """Oracle: products by powers of two in float64."""
    assert check_scaled(np.float32(3.0 * 65536), np.float32(3.0), 65536.0)
    assert not check_scaled(np.nextafter(np.float32(3.0 * 65536), np.float32(0)), np.float32(3.0), 65536.0)
    overflowed = check_scaled(np.float16(np.inf), np.float16(3.0), 65536.0)
    assert overflowed
    assert overflowed.notes == ("scaled loss overflows: 196608 is beyond float16's largest, 65504",)
    assert not check_scaled(np.float16(65504), np.float16(3.0), 65536.0)
    assert not check_scaled(np.float16(np.inf), np.float16(0.5), 65536.0)
    assert not check_scaled(np.float32(9.0), np.float32(3.0), 3.0)
    for scale in (0.0, np.inf, np.nan, -2.0):
        assert "is a power of two" in str(check_scaled(np.float32(1.0), np.float32(1.0), scale))


@given(st.integers(-24, 24), st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32]))
def test_unscaling_by_a_power_of_two_is_exact(exponent: int, dtype: type) -> None:
    """Oracle: ldexp in float64; a single ulp off is caught."""
    scaled = RANDOM.standard_normal(50).astype(dtype)
    unscaled = np.ldexp(scaled.astype(np.float64), -exponent).astype(np.float32)
    assert check_unscaled(unscaled, scaled, 2.0**exponent)
    assert not check_unscaled(np.nextafter(unscaled, np.float32(9)), scaled, 2.0**exponent)
    assert not check_unscaled(unscaled, scaled, 2.0 ** (exponent + 1))
    assert not check_unscaled(scaled, scaled, 2.0**exponent) or scaled.dtype == np.float32


def test_unscaling_notes_what_leaves_the_range_and_rounds_micro_batches_once() -> None:
    """Oracle: 2^-149 / 4 is 0 in float32; 3 g / 2 in float64, rounded once; infinities stay."""
    small = np.array([2.0**-149, 1.0], np.float32)
    lost = check_unscaled(np.array([0.0, 0.25], np.float32), small, 4.0)
    assert lost
    assert lost.notes == ("gradient: 1 elements leave float32's range when they are unscaled",)
    g = np.array([1.0 + 2.0**-23, 2.0**-10], np.float32)
    assert check_unscaled((g.astype(np.float64) * 1.5).astype(np.float32), g, 2.0, micro_batches=3)
    assert not check_unscaled(g * np.float32(1.499999), g, 2.0, micro_batches=3)
    bad = np.array([np.inf, -np.inf, np.nan], np.float16)
    assert check_unscaled(bad.astype(np.float32), bad, 8.0)
    assert not check_unscaled(np.zeros(3, np.float32), bad, 8.0)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_non_finite_gradients_are_counted_by_their_bits(dtype: type, value: float) -> None:
    """Oracle: one element spoiled in one parameter; every wrong verdict is caught."""
    spoiled = np.ones((3, 2), dtype)
    spoiled[1, 1] = value
    named = {"fine": np.full(4, np.finfo(np.float16).max, dtype), "spoiled": spoiled}
    found = check_finite(["spoiled"], named)
    assert found
    assert found.notes == ("spoiled: 1 non-finite elements",)
    assert check_finite(True, named)
    for verdict in (False, [], ["fine"], ["fine", "spoiled"], ["other"]):
        assert not check_finite(verdict, named), verdict


def test_finite_gradients_are_not_called_otherwise() -> None:
    """Oracle: subnormals, zeros and the largest numbers are finite."""
    tame = {"a": np.array([0.0, -0.0, 5e-324, np.finfo(np.float64).max])}
    assert check_finite(False, tame)
    assert check_finite([], tame)
    assert not check_finite(True, tame)
    assert not check_finite(["a"], tame)
    with pytest.raises(SettingError, match="floating format, got int64"):
        check_finite(False, {"a": np.array([1])})


def _clipped(grads: list[Any], limit: float) -> list[Any]:
    norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads))
    return [g * np.float32(min(1.0, limit / (norm + 1e-6))) for g in grads]


def test_clipping_keeps_the_direction_and_the_limit() -> None:
    """Oracle: torch's formula by hand; too long, too short, turned, and changed where there was no need."""
    grads = [RANDOM.standard_normal((30, 4)).astype(np.float32), np.ones(3, np.float32)]
    after = _clipped(grads, 0.5)
    assert check_clipped(grads, after, 0.5)
    assert check_clipped(grads, grads, None)
    assert check_clipped(grads, grads, 1e3)
    assert not check_clipped(grads, grads, 0.5)
    assert not check_clipped(grads, [g * np.float32(1.0001) for g in after], 0.5)
    assert not check_clipped(grads, [g * np.float32(0.9999) for g in after], 0.5)
    assert not check_clipped(grads, [after[0], -after[1]], 0.5)
    assert not check_clipped(grads, [after[0], after[1] * np.float32(1 - 1e-6)], 0.5)
    assert not check_clipped(grads, after, 1e3)
    assert not check_clipped(grads, after, None)


def test_a_norm_that_is_not_finite_is_left_alone() -> None:
    """Oracle: the step will be skipped; clipping may change nothing."""
    grads = [np.array([np.inf, 1.0], np.float32)]
    assert check_clipped(grads, grads, 1.0)
    assert not check_clipped(grads, [np.zeros(2, np.float32)], 1.0)


def test_a_snapshot_sees_every_bit() -> None:
    """Oracle: one bit, a sign of zero, a NaN payload, a count, a missing and a new entry."""
    state: dict[str, Any] = {
        "w": np.array([0.0, 1.0, np.nan], np.float32),
        "opt": {"step": 3, "moments": [np.ones(4, np.float16), None], "name": "adam"},
    }
    before = snapshot(state)
    assert check_unchanged(before, state)
    state["w"][0] = -0.0
    assert [w.where for w in check_unchanged(before, state)] == ["state.w"]
    state["w"] = before["w"].copy()
    state["w"].view(np.uint32)[2] ^= 1
    assert not check_unchanged(before, state)
    state["w"] = before["w"].astype(np.float64)
    assert not check_unchanged(before, state)
    state["w"] = before["w"]
    assert check_unchanged(before, state)
    for change in ({"step": 4}, {"name": "sgd"}, {"moments": [np.ones(4, np.float16)]}, {"more": 1}):
        assert not check_unchanged(before, {**state, "opt": {**state["opt"], **change}}), change


def test_within_judges_overflow_by_the_format() -> None:
    """Oracle: from 65520 on, float16 rounds to infinity; an infinite allowance claims nothing."""
    got = np.array([np.inf, np.inf, -np.inf, 65504, np.nan, 1.0, np.nan], np.float16)
    wanted = np.array([65520.0, 65519.0, 1e9, 65519.0, np.nan, np.nan, 1.0])
    assert list(within(got, wanted, np.full(7, 15.5))) == [True, True, False, True, True, False, False]
    assert list(within(got, wanted, np.full(7, 0.5))) == [True, False, False, False, True, False, False]
    assert within(got, wanted, np.full(7, np.inf)).all()
