"""One plain sentence about what a recipe did and why, made from its figures."""

from __future__ import annotations

from minimp.experiments import Outcome
from minimp.recipe import Recipe, recipes

__all__ = ["as_good", "verdict"]

ACCURACY_SLACK, LOSS_SLACK = 0.005, 0.05
"""As good as fp32: within 0.5 points of accuracy, or 5 % of the loss."""
MUCH = 0.5
"""A share above this is called the cause."""


def as_good(outcome: Outcome, reference: Outcome) -> bool:
    """Tell whether a score is at most 0.5 points, or 5 %, worse than the reference's."""
    if outcome.metric == "test_accuracy":
        return outcome.score >= reference.score - ACCURACY_SLACK
    return outcome.score <= reference.score * (1 + LOSS_SLACK)


def verdict(outcome: Outcome, reference: Outcome) -> str:
    """Say what happened and why.

    Args:
        outcome: of the recipe.
        reference: of the recipe it is compared with (fp32).
    """
    recipe = recipes[outcome.recipe]
    if outcome.diverged_at is not None:
        return f"Diverged: no loss was finite from step {outcome.diverged_at:,} on; {_overflow(outcome)}."
    if outcome.diverged:
        return f"Diverged at the end: {_score(outcome)}; {_overflow(outcome)}."
    if outcome is reference:
        return f"The reference: {_score(outcome)}; every other line is compared with it."
    if reference.diverged:
        return f"Nothing to compare with, for {reference.recipe} diverged: {_score(outcome)}."
    if not as_good(outcome, reference):
        return f"Worse than {reference.recipe} ({_gap(outcome, reference)}): {_why_bad(outcome, recipe)}."
    rank = "As good as" if as_good(reference, outcome) else "No worse than"
    return f"{rank} {reference.recipe} ({_gap(outcome, reference)}): {_why_good(outcome, recipe)}."


def _score(outcome: Outcome) -> str:
    if outcome.metric == "test_accuracy":
        return f"{outcome.score:.1%} of the test part right"
    return f"test loss {outcome.score:.4g}"


def _gap(outcome: Outcome, reference: Outcome) -> str:
    if outcome.metric == "test_accuracy":
        points = round(100 * (outcome.score - reference.score), 1) + 0.0  # -0.0 + 0.0 is 0.0
        return f"{points:+.1f} points"
    if outcome.score < 1000 * reference.score:  # never of a reference of 0
        return f"{outcome.score / reference.score:.2f} x its loss"
    return f"test loss {outcome.score:.3g} beside {reference.score:.3g}"


def _overflow(outcome: Outcome) -> str:
    if outcome.overflow_share > 0:
        return f"{outcome.overflow_share:.0%} of the sampled gradients had overflowed"
    return "look for the op with `TrainStep.stages`"


def _why_good(outcome: Outcome, recipe: Recipe) -> str:
    """Say what kept small updates and small gradients; or that much was lost, and does not show."""
    reasons = [_kept_updates(outcome, recipe), _kept_gradients(outcome, recipe)]
    return "; ".join(filter(None, reasons)) or "nothing is kept in 16 bits"


def _kept_updates(outcome: Outcome, recipe: Recipe) -> str:
    share = f"{outcome.swallowed_updates:.0%} of the updates"
    if recipe.update == "stochastic":
        return f"a step drops {share}, but without bias"
    if outcome.swallowed_updates > MUCH:
        return f"{share} were lost, which does not show after {_steps(outcome)}"
    if recipe.master_weights:
        return f"FP32 masters collect small updates ({share} swallowed)"
    if recipe.update == "kahan":
        return f"the compensation term carries what a weight cannot take ({share} swallowed all the same)"
    if Recipe.low(recipe.param_dtype):
        return f"the updates are large enough for 16-bit weights ({share} swallowed)"
    return ""


def _kept_gradients(outcome: Outcome, recipe: Recipe) -> str:
    share = outcome.underflow_share
    if share > MUCH:
        return f"{share:.1%} of the gradients became zero, which does not show after {_steps(outcome)}"
    if recipe.loss_scale is not None:
        return f"the loss scale keeps the gradients in range ({share:.1%} flushed{_skips(outcome)})"
    if recipe.compute_dtype.name == "bfloat16":
        return f"bfloat16 has the range of FP32 ({share:.1%} of the gradients flushed)"
    if Recipe.low(recipe.compute_dtype):
        return f"here the gradients stay in range without scaling ({share:.1%} flushed)"
    return ""


def _why_bad(outcome: Outcome, recipe: Recipe) -> str:
    """Name every loss that passes half, else the figures."""
    causes = []
    if outcome.underflow_share > MUCH:
        scaled = "" if recipe.loss_scale is not None else "; no loss scale lifts them"
        causes.append(
            f"{outcome.underflow_share:.0%} of the gradients became zero (too small for "
            f"{recipe.compute_dtype.name}{scaled})"
        )
    if outcome.swallowed_updates > MUCH:
        causes.append(_lost_updates(outcome, recipe))
    if outcome.skipped_steps > len(outcome.losses) / 2:
        causes.append(f"{outcome.skipped_steps:,} of {len(outcome.losses):,} steps were skipped")
    if not causes:
        causes.append(
            f"no single cause: {outcome.underflow_share:.0%} of the gradients flushed, "
            f"{outcome.swallowed_updates:.0%} of the updates swallowed"
        )
    return "; ".join(causes)


def _lost_updates(outcome: Outcome, recipe: Recipe) -> str:
    share = f"{outcome.swallowed_updates:.0%} of the updates"
    if recipe.update == "stochastic":
        return f"a step drops {share}, without bias, but each rounding adds noise"
    if recipe.update == "kahan":
        return f"{share} were lost (too small for a weight and its compensation term)"
    name = "float32" if recipe.master_weights else recipe.param_dtype.name
    keeper = "" if name == "float32" else "; no master keeps them"
    return f"{share} were lost (at most half an ULP of their {name} weight{keeper})"


def _steps(outcome: Outcome) -> str:
    count = len(outcome.losses)
    return f"{count:,} step{'s' if count > 1 else ''}"


def _skips(outcome: Outcome) -> str:
    count = outcome.skipped_steps
    return "" if not count else f", {count:,} step{'s' if count > 1 else ''} skipped while it settled"
