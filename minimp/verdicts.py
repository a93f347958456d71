"""One plain sentence about what a recipe did and why, made from its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minimp.experiments import Outcome
from minimp.fp8 import FixedScaling
from minimp.recipe import Recipe, recipes

__all__ = ["METRICS", "Metric", "as_good", "verdict"]

MUCH = 0.5
"""A share above this is called the cause."""
FP8_ROLES = ("input", "weight", "grad")
"""What products read in FP8: inputs, weights, and the gradients of results."""
MANY = 1000.0
"""Bits a character from which on figures are shown by their leading digits."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that models are judged by, and its words.

    Attributes:
        head: of its column in a table.
        rises: whether more is better.
        slack: a reference's score -> how much worse is still as good.
        cell: a score as a table shows it.
        said: a score as a sentence says it.
        gap: (score, reference's score) -> how far they lie apart.
    """

    head: str
    rises: bool
    slack: Callable[[float], float]
    cell: Callable[[float], str]
    said: Callable[[float], str]
    gap: Callable[[float, float], str]

    def as_good(self, score: float, reference: float) -> bool:
        """Tell whether a score is at most the slack worse than the reference's."""
        if self.rises:
            return score >= reference - self.slack(reference)
        return score <= reference + self.slack(reference)


def _points(score: float, reference: float) -> str:
    return f"{round(100 * (score - reference), 1) + 0.0:+.1f} points"  # -0.0 + 0.0 is 0.0


def _times(score: float, reference: float) -> str:
    if score < 1000 * reference:  # never of a reference of 0
        return f"{score / reference:.2f} x its loss"
    return f"test loss {score:.3g} beside {reference:.3g}"


def _bits(score: float, reference: float) -> str:
    apart = round(score - reference, 3) + 0.0
    return f"{apart:+.3f} bits" if abs(apart) < MANY else f"{apart:+.3g} bits"


def _few_places(score: float) -> str:
    return f"{score:.3f}" if score < MANY else f"{score:.4g}"


METRICS = {
    "test_accuracy": Metric(
        "accuracy", True, lambda reference: 0.005,  # noqa: ARG005 - one signature for all
        "{:.1%}".format, "{:.1%} of the test part right".format, _points,
    ),
    "test_loss": Metric(
        "test loss", False, lambda reference: 0.05 * reference,
        "{:.4g}".format, "test loss {:.4g}".format, _times,
    ),
    "test_bits": Metric(
        "bits/char", False, lambda reference: 0.05,  # noqa: ARG005 - one signature for all
        _few_places, lambda score: f"{_few_places(score)} bits a character", _bits,
    ),
}  # fmt: skip
"""As good as fp32: within 0.5 points of accuracy, 5 % of the loss, or 0.05 bits a character."""


def as_good(outcome: Outcome, reference: Outcome) -> bool:
    """Tell whether a score is at most the metric's slack worse than the reference's."""
    return METRICS[outcome.metric].as_good(outcome.score, reference.score)


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
    return METRICS[outcome.metric].said(outcome.score)


def _gap(outcome: Outcome, reference: Outcome) -> str:
    return METRICS[outcome.metric].gap(outcome.score, reference.score)


def _overflow(outcome: Outcome) -> str:
    if outcome.overflow_share > 0:
        return f"{outcome.overflow_share:.0%} of the sampled gradients had overflowed"
    return "look for the op with `TrainStep.stages`"


def _why_good(outcome: Outcome, recipe: Recipe) -> str:
    """Say what kept small updates and small gradients; or that much was lost, and does not show."""
    kept = _kept_in_fp8 if outcome.fp8 else _kept_gradients
    reasons = [_kept_updates(outcome, recipe), kept(outcome, recipe)]
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


def _kept_in_fp8(outcome: Outcome, recipe: Recipe) -> str:
    """Say what became of the numbers that products read in FP8: inputs, weights, and results' gradients."""
    if outcome.underflow_share > MUCH:
        return _kept_gradients(outcome, recipe)
    lost = [outcome.fp8[role] for role in FP8_ROLES if role in outcome.fp8]
    flushed = ", ".join(f"{100 * each.flushed_share:.1f}" for each in lost)
    noise = ", ".join(f"{each.sqnr:.0f}" for each in lost)
    how = "need no scale here" if isinstance(recipe.fp8, FixedScaling) else "are in range by their scales"
    return f"FP8 inputs, weights and gradients {how} ({flushed} % flushed; {noise} dB)"


def _flushed_in_fp8(outcome: Outcome, recipe: Recipe) -> str:
    """Say where gradients were lost."""
    lost, form = outcome.fp8["grad"], recipe.fp8.format_of("grad").name
    scale = "no scale lifts them" if isinstance(recipe.fp8, FixedScaling) else "its scales did not lift them"
    return f"{lost.flushed_share:.0%} of the results' were too small for {form}; {scale}"


def _why_bad(outcome: Outcome, recipe: Recipe) -> str:
    """Name every loss that passes half, else the figures."""
    causes = []
    if outcome.underflow_share > MUCH:
        scaled = "" if recipe.loss_scale is not None else "; no loss scale lifts them"
        why = f"too small for {recipe.compute_dtype.name}{scaled}"
        why = _flushed_in_fp8(outcome, recipe) if "grad" in outcome.fp8 else why
        causes.append(f"{outcome.underflow_share:.0%} of the gradients became zero ({why})")
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
