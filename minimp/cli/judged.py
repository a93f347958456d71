"""Whether a model does worse after a change: the rows it is judged on, one by one, and what they prove."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.data import AnyDataset, TextDataset
from minimp.evaluation import evaluate
from minimp.nn import Module
from minimp.recipe import Recipe
from minimp.verdicts import METRICS, Metric

__all__ = ["Scored", "Verdict", "judge", "mcnemar", "scored"]

Floats = npt.NDArray[np.float64]
JUDGED = ("test_accuracy", "test_bits", "test_loss")
"""What a model is judged by: the first of these that it has."""
RARE = 0.05
"""What would come up less often than this, if nothing but chance were at work, is called a difference."""
LITTLE = {"test_accuracy": "half a point", "test_bits": "0.05 bits", "test_loss": "5 % of the loss"}
"""How much worse is still as good, in words; the figures are those of :data:`minimp.verdicts.METRICS`."""


@dataclass(frozen=True)
class Scored:
    """How a model does.

    Attributes:
        figures: what :func:`minimp.evaluate` returns.
        rows: (N,), of data with classes whether each row is right, else the loss of each row, or of each
            window of a text, in nats a character.
    """

    figures: dict[str, float]
    rows: Floats

    @property
    def name(self) -> str:
        """The figure that the model is judged by."""
        return next(each for each in JUDGED if each in self.figures)

    @property
    def score(self) -> float:
        """Its value."""
        return self.figures[self.name]

    @property
    def metric(self) -> Metric:
        """The words for it."""
        return METRICS[self.name]


@dataclass(frozen=True)
class Verdict:
    """What the rows prove.

    Attributes:
        worse: whether the model is worse, by more than counts as little, and by more than chance moves.
        words: a sentence that says so, with the figures it rests on.
        probability: of a difference at least as large, if nothing but chance made it; NaN where a loss is
            not finite.
    """

    worse: bool
    words: str
    probability: float


def scored(model: Module, test: AnyDataset, recipe: Recipe | str = "fp32") -> Scored:
    """Judge a model, and keep what became of each row."""
    rows: list[Floats] = []
    text = isinstance(test, TextDataset)
    of_rows = _nats if text else _right if test.num_classes else _squares
    figures = evaluate(
        model, test, recipe, watch=lambda output, targets: rows.append(of_rows(output, targets))
    )
    return Scored(figures, np.concatenate(rows))


def _right(scores: Floats, targets: Any) -> Floats:
    """Return 1 where the largest score is the label's and none is NaN.  (N, C), (N,) -> (N,)."""
    known = ~np.isnan(scores).any(axis=1)
    right: Floats = (known & (scores.argmax(axis=1) == targets)).astype(np.float64)
    return right


def _nats(scores: Floats, targets: Any) -> Floats:
    """Return -ln softmax(s)[t], the mean over the window.  (B, T, V), (B, T) -> (B,)."""
    with np.errstate(invalid="ignore"):
        apart = scores - scores.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(apart, np.asarray(targets)[..., None], axis=-1)[..., 0]
    loss: Floats = (np.log(np.exp(apart).sum(axis=-1)) - chosen).mean(axis=-1)
    return loss


def _squares(output: Floats, targets: Any) -> Floats:
    """Return mean (y - t)^2 of each row.  (N, ...), (N, ...) -> (N,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = (output - np.asarray(targets, np.float64)) ** 2
    means: Floats = squares.reshape(len(squares), -1).mean(axis=1)
    return means


def mcnemar(lost: int, won: int) -> float:
    """Return how likely a split at least so uneven is, if a row that changes sides is a fair coin.

    The exact test of McNemar (1947, Psychometrika 12, 153-157), two-sided: with n = lost + won rows that one
    model alone gets right, p = min(1, 2 sum_(k <= min(lost, won)) C(n, k) / 2^n). Rows that both get right,
    or wrong, say nothing.
    """
    changed = lost + won
    tail = sum(math.comb(changed, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / (1 << changed))


def _moved(apart: Floats) -> tuple[float, float, float]:
    """Return the mean of the differences, its standard error, and the chance of so large a mean.

    p = erfc(|m| / (e sqrt 2)), e = s / sqrt(n), s the standard deviation with n - 1: the normal law for the
    mean of n pairs. It takes rows as independent; windows of one text are not wholly.
    """
    count, mean = len(apart), float(apart.mean())
    error = float(apart.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
    if error == 0:
        return mean, 0.0, float(mean == 0)
    return mean, error, math.erfc(abs(mean) / error / math.sqrt(2))


def judge(now: Scored, before: Scored, *, than: str = "in floats", unit: str = "rows") -> Verdict:
    """Say whether a model is worse than before, by a paired test on the rows that both were judged on.

    Of data with classes McNemar's exact test; of losses the mean difference over its standard error. Below
    5 % the difference is called one. A loss so small that it counts as nothing (half a point, 5 % of the
    loss, 0.05 bits) is told, and the model is not called worse.

    Args:
        now, before: both on the same rows.
        than: how the model before is called.
        unit: what a row is called, in the plural.
    """
    apart = now.rows - before.rows
    if not np.isfinite(apart).all():
        return _not_finite(now, before, than, unit)
    if not apart.any():
        return Verdict(False, f"All {len(apart):,} {unit} come out as {than}.", 1.0)
    metric = now.metric
    chance, said = (_of_sides if metric.rises else _of_losses)(apart, than, unit)
    if chance >= RARE:
        return Verdict(False, f"No difference that {len(apart):,} {unit} can prove: {said}.", chance)
    if (now.score > before.score) == metric.rises:
        return Verdict(False, f"Better than {than}: {said}.", chance)
    if metric.as_good(now.score, before.score):
        words = f"Hardly worse than {than} (below {LITTLE[now.name]}, which counts as nothing): {said}."
        return Verdict(False, words, chance)
    return Verdict(True, f"Worse than {than}, by more than chance moves: {said}.", chance)


def _not_finite(now: Scored, before: Scored, than: str, unit: str) -> Verdict:
    """Say whether losses that are not finite are new."""
    bad, known = (int(np.count_nonzero(~np.isfinite(each.rows))) for each in (now, before))
    if bad > known:
        return Verdict(True, f"Worse than {than}: the loss of {bad:,} {unit} is not finite.", math.nan)
    words = f"The loss of {known:,} {unit} is not finite {than}: there is nothing to compare."
    return Verdict(False, words, math.nan)


def _of_sides(apart: Floats, than: str, unit: str) -> tuple[float, str]:
    lost, won = int(np.count_nonzero(apart < 0)), int(np.count_nonzero(apart > 0))
    chance = mcnemar(lost, won)
    return chance, (
        f"{unit} that are right only {than}: {lost:,}, only now: {won:,}; between equals a split at least so "
        f"uneven has probability {chance:.2g} (McNemar's exact test)"
    )


def _of_losses(apart: Floats, than: str, unit: str) -> tuple[float, str]:
    del than
    mean, error, chance = _moved(apart)
    name = unit.removesuffix("s")
    return chance, (
        f"the loss of a {name} moves by {mean:+.2g} in the mean, standard error {error:.2g}; between equals "
        f"a mean so far from 0 has probability {chance:.2g} (paired, by the normal law)"
    )
