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
        return f"Diverged: the loss was not finite at step {outcome.diverged_at:,}; {_overflow(outcome)}."
    if outcome is reference:
        return f"The reference: {_score(outcome)}; every other line is compared with it."
    if reference.diverged_at is not None:
        return f"{_score(outcome).capitalize()}; {reference.recipe} diverged, so there is no comparison."
    if as_good(outcome, reference):
        return f"As good as {reference.recipe} ({_gap(outcome, reference)}): {_why_good(outcome, recipe)}."
    return f"Worse than {reference.recipe} ({_gap(outcome, reference)}): {_why_bad(outcome, recipe)}."


def _score(outcome: Outcome) -> str:
    if outcome.metric == "test_accuracy":
        return f"{outcome.score:.1%} of the test part right"
    return f"test loss {outcome.score:.4g}"


def _gap(outcome: Outcome, reference: Outcome) -> str:
    if outcome.metric == "test_accuracy":
        return f"{100 * (outcome.score - reference.score):+.1f} points"
    return f"{outcome.score / reference.score:.2f} x its loss"


def _overflow(outcome: Outcome) -> str:
    if outcome.overflow_share > 0:
        return f"{outcome.overflow_share:.0%} of the sampled gradients had overflowed"
    return "look for the op with `TrainStep.stages`"


def _why_good(outcome: Outcome, recipe: Recipe) -> str:
    """Name what kept small gradients and small updates, with the figures that show it."""
    kept = f"{outcome.swallowed_updates:.0%} of the updates swallowed"
    reasons = []
    if recipe.master_weights:
        reasons.append(f"FP32 masters collect small updates ({kept})")
    elif recipe.update == "kahan":
        reasons.append(f"the compensation term carries what a weight cannot take ({kept} at once)")
    elif recipe.update == "stochastic":
        reasons.append(f"a step drops {outcome.swallowed_updates:.0%} of the updates, but without bias")
    elif Recipe.low(recipe.param_dtype):
        reasons.append(f"the updates are large enough for 16-bit weights ({kept})")
    flushed = f"{outcome.underflow_share:.1%} of the gradients flushed"
    if recipe.loss_scale is not None:
        reasons.append(f"the loss scale keeps the gradients in range ({flushed}{_skips(outcome)})")
    elif recipe.compute_dtype.name == "bfloat16":
        reasons.append(f"bfloat16 has the range of FP32 ({flushed})")
    elif Recipe.low(recipe.compute_dtype):
        reasons.append(f"here the gradients stay in range without scaling ({flushed})")
    return "; ".join(reasons)


def _why_bad(outcome: Outcome, recipe: Recipe) -> str:
    """Name the loss that passes half, else both figures."""
    causes = []
    if outcome.underflow_share > MUCH:
        scaled = "" if recipe.loss_scale is not None else ", and no loss scale lifts them"
        causes.append(
            f"{outcome.underflow_share:.0%} of the gradients are too small for "
            f"{recipe.compute_dtype.name} and became zero{scaled}"
        )
    if outcome.swallowed_updates > MUCH:
        name = recipe.param_dtype.name
        masters = "" if recipe.master_weights else ", and no master copy collects them"
        causes.append(
            f"{outcome.swallowed_updates:.0%} of the updates are smaller than half an ULP of their {name} "
            f"weight and were rounded away{masters}"
        )
    if outcome.skipped_steps > len(outcome.losses) / 2:
        causes.append(f"{outcome.skipped_steps:,} of {len(outcome.losses):,} steps were skipped")
    if not causes:
        causes.append(
            f"no single cause: {outcome.underflow_share:.0%} of the gradients flushed, "
            f"{outcome.swallowed_updates:.0%} of the updates swallowed"
        )
    return "; ".join(causes)


def _skips(outcome: Outcome) -> str:
    count = outcome.skipped_steps
    return "" if not count else f", {count} step{'s' if count > 1 else ''} skipped while it settled"
