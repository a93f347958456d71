"""Scales and histories; oracle: Transformer Engine's rules, written out from their definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import SettingError
from minimp.fp8 import (
    DelayedScaling,
    FixedScaling,
    Float8BlockScaling,
    Float8CurrentScaling,
    Fp8Recipe,
    LinearState,
    MXFP8BlockScaling,
    current_scale,
    delayed_scale,
    fp8_recipes,
    inverse_of,
    next_history,
)
from minimp.fp8.recipes import recipe_named
from minimp.fp8.scales import resized, staged

LARGEST = float(np.finfo(np.float32).max)
AMAX = st.one_of(
    st.floats(0, LARGEST, width=32), st.sampled_from([0.0, math.inf, math.nan, 2.0**-149, LARGEST, 448.0])
)
TOPS = st.sampled_from([448.0, 57344.0])


def by_definition(amax: float, top: float, otherwise: float) -> float:
    """The quotient of float32 numbers, from the exact one in rational arithmetic, rounded once."""
    if math.isnan(amax) or math.isinf(amax) or amax == 0:
        return otherwise
    exact = np.longdouble(top) / np.longdouble(amax)
    if exact >= 2.0**128 - 2.0**103:
        return LARGEST
    return float(np.float32(exact))


@given(AMAX, TOPS)
def test_a_current_scale_is_the_quotient(amax: float, top: float) -> None:
    """Oracle: fp8_max / amax in extended precision, rounded to float32; 1 where there is none."""
    assert current_scale(amax, top) == by_definition(amax, top, 1.0)


@given(st.floats(2.0**-149, LARGEST, width=32), TOPS)
def test_a_power_of_two_keeps_the_exponent_only(amax: float, top: float) -> None:
    """Oracle: the largest power of two that is not above the quotient; nothing saturates by it."""
    scale = current_scale(amax, top, power_of_2=True)
    assert math.frexp(scale)[0] == 0.5
    assert scale <= current_scale(amax, top) < 2 * scale
    assert amax * scale <= top


class Remembering:
    """The history as it is defined: a window of the last steps, the present one in slot 0."""

    def __init__(self, length: int) -> None:
        self.length, self.past, self.scale = length, [0.0] * (length - 1), 1.0

    def step(self, amax: float, top: float, margin: int, algorithm: str) -> float:
        """Take one step; return the scale of the next."""
        if math.isnan(amax) or amax == 0:
            return self.scale
        seen = [*self.past, amax]
        chosen = amax if algorithm == "most_recent" else max(seen)
        self.scale = by_definition(chosen, top * 2.0**-margin, self.scale)
        self.past = seen[1:]
        return self.scale


@given(
    st.lists(AMAX, min_size=1, max_size=30), st.integers(1, 6), TOPS, st.integers(-3, 3),
    st.sampled_from(["max", "most_recent"]),
)  # fmt: skip
def test_a_history_is_a_window_of_steps(
    amaxes: list[float], length: int, top: float, margin: int, algorithm: str
) -> None:
    """Oracle: a list from which the oldest amax falls off; scales are those of the list."""
    wanted = Remembering(length)
    history, scale = np.zeros(length, np.float32), 1.0
    for amax in amaxes:
        history = staged(history, amax)
        scale = delayed_scale(history, scale, top, margin=margin, algorithm=algorithm)
        history = next_history(history)
        assert scale == wanted.step(amax, top, margin, algorithm)
        assert history[0] == 0
        np.testing.assert_array_equal(history[1:], np.float32(wanted.past))


def test_rotation_by_hand() -> None:
    """Oracle: the kernel's index rule: slot i takes i + 1, the last one slot 0, and slot 0 becomes 0."""
    history = np.array([5, 2, 3, 4], np.float32)
    assert next_history(history).tolist() == [0, 3, 4, 5]
    assert history.tolist() == [5, 2, 3, 4]
    assert next_history(np.array([0, 2, 3], np.float32)).tolist() == [0, 2, 3]
    assert next_history(np.array([7], np.float32)).tolist() == [0]


def test_the_scale_counts_what_the_rotation_drops() -> None:
    """Oracle: computed before rotating: the oldest amax, in slot 1, is still the largest."""
    history = np.array([1, 8, 2], np.float32)
    assert delayed_scale(history, 3.0, 448.0) == 56.0
    assert delayed_scale(history, 3.0, 448.0, algorithm="most_recent") == 448.0
    assert delayed_scale(next_history(history), 3.0, 448.0) == 3.0
    assert delayed_scale(history, 3.0, 448.0, margin=2) == 14.0


def test_an_infinite_amax_holds_the_scale_until_it_is_rotated_out() -> None:
    """Oracle: by hand, a window of 3 steps."""
    recipe = DelayedScaling(amax_history_len=3)
    state = LinearState.of(recipe)
    scales = []
    for amax in (2.0, math.inf, 4.0, 4.0, 4.0):
        state.stage("input", amax)
        state.advance(recipe)
        scales.append(state.scales[0])
    assert scales == [224.0, 224.0, 224.0, 224.0, 112.0]
    assert state.scales[1:] == (1.0, 1.0)


def test_the_largest_amax_of_a_step_counts() -> None:
    """Oracle: by hand: a layer used twice in a step."""
    state = LinearState.of(DelayedScaling(amax_history_len=4))
    for amax in (2.0, 7.0, math.nan, 1.0):
        state.stage("grad", amax)
    assert state.tensors["grad"].amax_history.tolist() == [7, 0, 0, 0]
    state.advance(DelayedScaling(amax_history_len=4))
    assert state.scales == (1.0, 1.0, 57344.0 / 7)


@given(st.integers(1, 8), st.integers(1, 8))
def test_a_history_of_another_length_is_cut_or_filled_up(before: int, after: int) -> None:
    """Oracle: Transformer Engine's adjustment: the first slots, or zeros after them."""
    history = np.arange(1, before + 1, dtype=np.float32)
    wanted = [*range(1, before + 1), *[0] * 8][:after]
    assert resized(history, after).tolist() == wanted


@given(st.integers(-126, 127))
def test_the_inverse_of_a_power_of_two_is_exact(power: int) -> None:
    """Oracle: 2^-k."""
    assert inverse_of(2.0**power) == 2.0**-power


# ---- recipes are data -------------------------------------------------------------------------------------


def test_defaults_are_transformer_engines() -> None:
    """Oracle: common/recipe/__init__.py of Transformer Engine 2.x."""
    delayed = DelayedScaling()
    assert (delayed.margin, delayed.amax_history_len, delayed.amax_compute_algo) == (0, 1024, "max")
    assert (delayed.fp8_format, Float8CurrentScaling().fp8_format) == ("HYBRID", "HYBRID")
    assert (Float8BlockScaling().fp8_format, MXFP8BlockScaling().fp8_format) == ("E4M3", "E4M3")
    assert Float8CurrentScaling().use_power_2_scales is False
    assert [delayed.format_of(role).max for role in ("input", "weight", "grad")] == [448, 448, 57344]
    assert MXFP8BlockScaling().format_of("grad").max == 448


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DelayedScaling(fp8_format="E5M2"), "nobody trains in pure E5M2"),
        (lambda: DelayedScaling(fp8_format=["HYBRID"]), "unknown fp8_format"),
        (Fp8Recipe, "says nothing of scales"),
        (lambda: DelayedScaling(amax_history_len=0), "at least 1"),
        (lambda: DelayedScaling(amax_history_len=True), "at least 1"),
        (lambda: DelayedScaling(margin=0.5), "whole number"),
        (lambda: DelayedScaling(margin=65), "from -64 to 64"),
        (lambda: DelayedScaling(amax_compute_algo="mean"), "most_recent"),
        (lambda: Float8CurrentScaling(use_power_2_scales=1), "True or False"),
        (lambda: FixedScaling(grad=0.0), "2\\^-126"),
        (lambda: FixedScaling(input=0.1), "float32 number"),
        (lambda: FixedScaling(weight=True), "float32 number"),
        (lambda: recipe_named("delaid"), "delayed"),
        (lambda: recipe_named(3), "FP8 recipe"),
    ],
)  # fmt: skip
def test_a_choice_that_cannot_be_is_refused(make: object, words: str) -> None:
    """Oracle: SettingError that names what can be."""
    with pytest.raises(SettingError, match=words):
        make()  # type: ignore[operator]  # a lambda


def test_equal_recipes_read_alike() -> None:
    """Oracle: the repr, which a resumed run is compared by; numbers of NumPy, and whole ones."""
    assert repr(FixedScaling(input=np.float32(2), grad=2)) == repr(FixedScaling(input=2.0, grad=2.0))
    made = DelayedScaling(margin=np.int64(1), amax_history_len=np.int32(16))
    assert repr(made) == repr(DelayedScaling(margin=1, amax_history_len=16))


@pytest.mark.parametrize("recipe", fp8_recipes.values(), ids=list(fp8_recipes))
def test_recipes_are_frozen_and_comparable(recipe: Fp8Recipe) -> None:
    """Oracle: the dataclass: equal to itself made again, with an edited copy that differs."""
    assert recipe == type(recipe)()
    assert recipe_named(recipe) is recipe
    with pytest.raises(AttributeError):
        recipe.fp8_format = "E4M3"  # type: ignore[misc]  # the fault under test
    other = "E4M3" if recipe.fp8_format == "HYBRID" else "HYBRID"
    assert recipe.with_(fp8_format=other) != recipe
