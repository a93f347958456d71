"""Verdicts; oracles: sentences by hand for made-up figures, and rules that hold for any figures."""

from __future__ import annotations

import itertools
import math
import textwrap
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import SettingError
from minimp.experiments import Outcome
from minimp.recipe import recipes
from minimp.verdicts import METRICS, as_good, verdict
from tests.experiments.outcomes import outcome

INF, NAN = float("inf"), float("nan")
FP32 = outcome("fp32")
FP32_LOSS = outcome("fp32", 0.04, "test_loss")
COLUMNS = 100 - 18  # what `minimp compare` leaves for a sentence beside the recipe's name


# ---- sentences by hand -------------------------------------------------------------------------------------


MASTERS = "FP32 masters collect small updates (0% of the updates swallowed)"
SCALED = "the loss scale keeps the gradients in range (0.0% flushed)"
BRAIN = "bfloat16 has the range of FP32 (0.0% of the gradients flushed)"
CARRIED = "the compensation term carries what a weight cannot take (6% of the updates swallowed all the same)"
WORSE = "Worse than fp32 (-60.0 points)"
FLUSHED = "91% of the gradients became zero (too small for float16; no loss scale lifts them)"
LOST = "60% of the updates were lost (at most half an ULP of their float16 weight; no master keeps them)"


@pytest.mark.parametrize(
    ("recipe", "figures", "said"),
    [
        ("mixed-fp16", {}, ["As good as fp32 (+0.0 points)", MASTERS, SCALED]),
        (
            "mixed-fp16",
            {"skipped_steps": 1, "underflow_share": 0.025, "swallowed_updates": 0.012},
            [
                "As good as fp32 (+0.0 points)",
                MASTERS.replace("0%", "1%"),
                SCALED.replace("0.0%", "2.5%").replace("flushed", "flushed, 1 step skipped while it settled"),
            ],
        ),
        (
            "mixed-fp16",
            {"skipped_steps": 12},
            ["As good as fp32 (+0.0 points)", MASTERS, SCALED[:-1] + ", 12 steps skipped while it settled)"],
        ),
        ("mixed-bf16", {"score": 0.8951}, ["As good as fp32 (-0.5 points)", MASTERS, BRAIN]),
        (
            "bf16-kahan",
            {"score": 0.9049, "swallowed_updates": 0.055},
            [
                "As good as fp32 (+0.5 points)",
                CARRIED,
                BRAIN,
            ],
        ),
        (
            "bf16-stochastic",
            {"score": 0.95, "swallowed_updates": 0.97},
            [
                "No worse than fp32 (+5.0 points)",
                "a step drops 97% of the updates, but without bias",
                BRAIN,
            ],
        ),
        (
            "fp16",
            {"swallowed_updates": 0.2, "underflow_share": 0.01},
            [
                "As good as fp32 (+0.0 points)",
                "the updates are large enough for 16-bit weights (20% of the updates swallowed)",
                "here the gradients stay in range without scaling (1.0% flushed)",
            ],
        ),
        (
            "fp16-scaled",
            {"swallowed_updates": 0.95, "steps": 3},
            [
                "As good as fp32 (+0.0 points)",
                "95% of the updates were lost, which does not show after 3 steps",
                SCALED,
            ],
        ),
        (
            "fp16-master",
            {"underflow_share": 0.875, "steps": 1},
            [
                "As good as fp32 (+0.0 points)",
                MASTERS,
                "87.5% of the gradients became zero, which does not show after 1 step",
            ],
        ),
        ("fp16-scaled", {"score": 0.3, "swallowed_updates": 0.6}, [WORSE, LOST]),
        ("fp16", {"score": 0.3, "underflow_share": 0.91, "swallowed_updates": 0.6}, [WORSE, FLUSHED, LOST]),
        (
            "fp16-master",
            {"score": 0.3, "underflow_share": 0.91, "swallowed_updates": 0.6},
            [WORSE, FLUSHED, "60% of the updates were lost (at most half an ULP of their float32 weight)"],
        ),
        (
            "mixed-fp16",
            {"score": 0.3, "underflow_share": 0.91, "skipped_steps": 51},
            [WORSE, FLUSHED.replace("; no loss scale lifts them", ""), "51 of 100 steps were skipped"],
        ),
        (
            "bf16-kahan",
            {"score": 0.3, "swallowed_updates": 0.7},
            [WORSE, "70% of the updates were lost (too small for a weight and its compensation term)"],
        ),
        (
            "bf16-stochastic",
            {"score": 0.3, "swallowed_updates": 0.97},
            [WORSE, "a step drops 97% of the updates, without bias, but each rounding adds noise"],
        ),
        (
            "mixed-fp16",
            {"score": 0.3, "underflow_share": 0.1, "swallowed_updates": 0.5, "skipped_steps": 50},
            [WORSE, "no single cause: 10% of the gradients flushed, 50% of the updates swallowed"],
        ),
    ],
)
def test_sentences_by_hand(recipe: str, figures: dict[str, Any], said: list[str]) -> None:
    """Oracle: the whole sentence, rank and reasons, for accuracies beside 90 % right."""
    rank, *reasons = said
    assert verdict(outcome(recipe, **figures), FP32) == f"{rank}: {'; '.join(reasons)}."


def test_a_divergence_says_from_when_on() -> None:
    """Oracle: the sentence; an overflow that was seen is named, and else where to look."""
    made = outcome("mixed-fp16", losses=(0.5, INF, NAN), overflow_share=0.25)
    assert verdict(made, FP32) == (
        "Diverged: no loss was finite from step 2 on; 25% of the sampled gradients had overflowed."
    )
    assert verdict(outcome("bf16", losses=(NAN,) * 1500), FP32) == (
        "Diverged: no loss was finite from step 1 on; look for the op with `TrainStep.stages`."
    )


@pytest.mark.parametrize(
    ("score", "reference", "begins"),
    [
        (0.0412, 0.04, "As good as fp32 (1.03 x its loss): "),
        (0.0421, 0.04, "Worse than fp32 (1.05 x its loss): "),
        (0.092, 0.04, "Worse than fp32 (2.30 x its loss): "),
        (0.02, 0.04, "No worse than fp32 (0.50 x its loss): "),
        (1e6, 0.04, "Worse than fp32 (test loss 1e+06 beside 0.04): "),
        (0.04, 0.0, "Worse than fp32 (test loss 0.04 beside 0): "),
        (0.0, 0.0, "As good as fp32 (test loss 0 beside 0): "),
        (0.0, 0.04, "No worse than fp32 (0.00 x its loss): "),
    ],
)
def test_losses_are_compared_as_ratios(score: float, reference: float, begins: str) -> None:
    """Oracle: quotients by hand; a reference of zero has none."""
    made, beside = (outcome(name, s, "test_loss") for name, s in (("mixed-bf16", score), ("fp32", reference)))
    assert verdict(made, beside).startswith(begins)


@pytest.mark.parametrize(
    ("score", "begins"),
    [
        (0.7949, "Worse than fp32 (-0.5 points): "),
        (0.8 - 2 / 397, "Worse than fp32 (-0.5 points): "),
        (0.7951, "As good as fp32 (-0.5 points): "),
        (0.79999, "As good as fp32 (+0.0 points): "),
        (0.8049, "As good as fp32 (+0.5 points): "),
        (0.8 + 2 / 397, "No worse than fp32 (+0.5 points): "),
    ],
)
def test_half_a_point_is_the_slack(score: float, begins: str) -> None:
    """Oracle: gaps by hand around 0.5 points; two of 397 test rows are 0.504."""
    assert verdict(outcome("mixed-bf16", score), outcome("fp32", 0.8)).startswith(begins)


@pytest.mark.parametrize(
    ("score", "begins"),
    [
        (2.651, "Worse than fp32 (+0.051 bits): "),
        (2.649, "As good as fp32 (+0.049 bits): "),
        (2.5999, "As good as fp32 (+0.000 bits): "),
        (2.551, "As good as fp32 (-0.049 bits): "),
        (2.549, "No worse than fp32 (-0.051 bits): "),
        (1e9, "Worse than fp32 (+1e+09 bits): "),
    ],
)
def test_bits_are_compared_as_differences(score: float, begins: str) -> None:
    """Oracle: differences by hand around 0.05 bits."""
    made, beside = (outcome(name, s, "test_bits") for name, s in (("mixed-bf16", score), ("fp32", 2.6)))
    assert verdict(made, beside).startswith(begins)
    assert verdict(beside, beside).startswith("The reference: 2.600 bits a character;")


def test_the_reference_itself() -> None:
    """Oracle: the sentence; another recipe with the same figures is compared, and any recipe can be it."""
    assert verdict(FP32, FP32) == (
        "The reference: 90.0% of the test part right; every other line is compared with it."
    )
    assert verdict(FP32_LOSS, FP32_LOSS).startswith("The reference: test loss 0.04;")
    assert verdict(outcome("mixed-bf16"), FP32).startswith("As good as fp32")
    first = outcome("bf16")
    assert verdict(first, first).startswith("The reference")
    assert verdict(FP32, first) == "As good as bf16 (+0.0 points): nothing is kept in 16 bits."


def test_beside_a_reference_that_diverged() -> None:
    """Oracle: nothing is better or worse than no number."""
    for lost in (replace(FP32_LOSS, losses=(0.5, NAN)), replace(FP32_LOSS, score=NAN)):
        said = verdict(outcome("mixed-fp16", 0.03, "test_loss"), lost)
        assert said == "Nothing to compare with, for fp32 diverged: test loss 0.03."
        assert verdict(lost, lost).startswith("Diverged")


def test_a_score_that_is_no_number_is_a_divergence() -> None:
    """Oracle: the last update ruined the weights; the losses before it tell nothing of it."""
    for score in (NAN, INF):
        made = outcome("mixed-bf16", score, "test_loss")
        assert verdict(made, FP32_LOSS) == (
            f"Diverged at the end: test loss {score}; look for the op with `TrainStep.stages`."
        )


def test_a_loss_that_recovers_is_no_divergence() -> None:
    """Oracle: a step was skipped for its infinite loss, and the run went on to the end."""
    made = outcome("mixed-fp16", losses=(0.5, INF, 0.4), skipped_steps=1, overflow_share=0.1)
    assert verdict(made, FP32).startswith("As good as fp32")


def test_an_unknown_recipe_is_refused() -> None:
    """Oracle: the error of `recipes`."""
    with pytest.raises(SettingError, match="did you mean 'fp32'"):
        verdict(outcome("fp23"), FP32)


# ---- rules for any figures ---------------------------------------------------------------------------------

SHARES = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
ACCURACIES = st.integers(0, 397).map(lambda right: right / 397)
TEST_LOSSES = st.one_of(st.floats(1e-6, 10), st.sampled_from([0.0, 1e-300, 1e300, INF, NAN]))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Outcome, Outcome]:
    """Draw an outcome of any recipe and its reference."""
    metric = draw(st.sampled_from(list(METRICS)))
    score = ACCURACIES if metric == "test_accuracy" else TEST_LOSSES
    steps = draw(st.integers(1, 30))
    loss = st.one_of(st.just(0.5), st.sampled_from([INF, NAN, 3.0]))
    made = [
        outcome(
            name, draw(score), metric,
            losses=tuple(draw(st.lists(loss, min_size=steps, max_size=steps))),
            skipped_steps=draw(st.integers(0, steps)),
            underflow_share=draw(SHARES), overflow_share=draw(SHARES), swallowed_updates=draw(SHARES),
        )
        for name in (draw(st.sampled_from(sorted(recipes))), "fp32")
    ]  # fmt: skip
    return made[0], made[1]


@given(pairs())
def test_ranks_keep_to_the_slack(pair: tuple[Outcome, Outcome]) -> None:
    """Oracle: 0.5 points, 5 % or 0.05 bits, in exact fractions of the scores (to a rounding of the bound)."""
    made, reference = pair
    said = verdict(made, reference)
    if made.diverged or reference.diverged:
        assert not said.startswith(("As good", "No worse", "Worse"))
        return
    score, other = Fraction(made.score), Fraction(reference.score)
    if made.metric == "test_accuracy":
        worse, better = other - score - Fraction(5, 1000), score - other - Fraction(5, 1000)
    elif made.metric == "test_bits":
        slack = Fraction(METRICS["test_bits"].slack(0.0))
        worse, better = score - other - slack, other - score - slack
    else:
        worse, better = score - other * Fraction(105, 100), other - score * Fraction(105, 100)
    tiny = Fraction(1, 10**15) * max(score, other)
    if said.startswith("As good"):
        assert max(worse, better) <= tiny
    elif said.startswith("No worse than"):
        assert better >= -tiny
    else:
        assert said.startswith("Worse than fp32")
        assert worse >= -tiny
    assert as_good(made, reference) is not said.startswith("Worse")


@given(pairs())
def test_claims_are_backed_by_figures(pair: tuple[Outcome, Outcome]) -> None:
    """Oracle: each phrase, and the figure and the choice of the recipe without which it would be wrong."""
    made, reference = pair
    recipe, said = recipes[made.recipe], verdict(made, reference)
    if "in range" in said or "has the range" in said:
        assert made.underflow_share <= 0.5
    if "became zero" in said:
        assert made.underflow_share > 0.5
    if "no loss scale" in said:
        assert recipe.loss_scale is None
    if "the loss scale" in said:
        assert recipe.loss_scale is not None
    if "collect small" in said or "large enough" in said or "compensation term carries" in said:
        assert made.swallowed_updates <= 0.5
    if "no master" in said:
        assert not recipe.master_weights
        assert recipe.param_dtype.bits == 16
    if "without bias" in said:
        assert recipe.update == "stochastic"
    if "were skipped" in said:
        assert made.skipped_steps > len(made.losses) / 2
    if said.startswith("Diverged: "):
        first = made.diverged_at
        assert not any(math.isfinite(loss) for loss in made.losses[first - 1 :])
        assert first == 1 or math.isfinite(made.losses[first - 2])


@given(pairs())
def test_sentences_are_plain(pair: tuple[Outcome, Outcome]) -> None:
    """Oracle: one sentence, with an end, that a screen shows as it is; no number that is none."""
    made, reference = pair
    said = verdict(made, reference)
    assert said.isascii()
    assert said[0].isupper()
    assert said.endswith(".")
    assert "\n" not in said
    assert "[" not in said
    assert ("nan" in said or "inf " in said) <= said.startswith("Diverged at the end")
    assert "-0.0 points" not in said


@pytest.mark.parametrize("name", recipes)
def test_three_lines_are_enough(name: str) -> None:
    """Oracle: every cause and every combination of them, in their longest numbers, on 82 columns."""
    shares, steps = (0.0, 1.0), 10_000
    skips = (0, 1, steps - 1, steps) if recipes[name].loss_scale else (0,)
    losses = [(0.5,) * steps, (0.5,) * (steps - 1) + (NAN,)]
    scores = {
        "test_accuracy": (0.9, 0.0, 1.0), "test_loss": (0.9, 0.0, 800.0), "test_bits": (0.9, 0.0, 1e300),
    }  # fmt: skip
    for metric, reference in itertools.product(scores, ("fp32", "bf16-stochastic")):
        beside = outcome(reference, 0.9, metric)
        for flushed, swallowed, skipped, score, loss in itertools.product(
            shares, shares, skips, scores[metric], losses
        ):
            made = outcome(
                name, score, metric, losses=loss, skipped_steps=skipped, underflow_share=flushed,
                overflow_share=flushed, swallowed_updates=swallowed,
            )  # fmt: skip
            said = verdict(made, beside)
            assert len(textwrap.wrap(said, COLUMNS)) <= 3, said
