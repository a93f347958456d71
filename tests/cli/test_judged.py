"""The paired tests behind "worse than in floats"; oracle: all draws counted, sums by hand, `evaluate`."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import models
from minimp.cli.judged import LITTLE, RARE, Scored, judge, mcnemar, scored
from minimp.data import digits, load_text
from minimp.evaluation import evaluate
from minimp.verdicts import METRICS
from tests.tolerances import assert_close


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (2, 0), (0, 3), (5, 1), (4, 4), (3, 8)])
def test_mcnemar_is_the_share_of_all_draws(lost: int, won: int) -> None:
    """Oracle: every way in which n coins can fall, counted: as uneven, or more."""
    changed = lost + won
    draws = list(itertools.product((0, 1), repeat=changed))
    uneven = sum(abs(2 * sum(each) - changed) >= abs(lost - won) for each in draws)
    assert mcnemar(lost, won) == uneven / len(draws)


@given(st.integers(0, 400), st.integers(0, 400))
def test_laws_of_the_exact_test(lost: int, won: int) -> None:
    """Oracle: symmetric, a probability, never likelier when one more row goes to the larger side."""
    chance = mcnemar(lost, won)
    assert 0 < chance <= 1
    assert chance == mcnemar(won, lost)
    high, low = max(lost, won), min(lost, won)
    assert mcnemar(high + 1, low) <= chance


def classes(right: list[int]) -> Scored:
    """Return how a model did on rows that were right or wrong."""
    rows = np.array(right, np.float64)
    return Scored({"test_accuracy": float(rows.mean()), "test_loss": 1.0}, rows)


def losses(rows: Any) -> Scored:
    """Return how a model did on rows with these losses."""
    rows = np.asarray(rows, np.float64)
    return Scored({"test_loss": float(rows.mean())}, rows)


def test_few_rows_prove_nothing() -> None:
    """Oracle: 3 rows of 396 lost: 0.8 points, and a chance of 2 (1/2)^3 among equals; 10 lost: 2 (1/2)^10."""
    before = classes([1] * 396)
    for lost, worse, opening in (
        (0, False, "All 396"),
        (3, False, "No difference"),
        (10, True, "Worse than"),
    ):
        found = judge(classes([0] * lost + [1] * (396 - lost)), before)
        assert found.worse is worse
        assert found.words.startswith(opening)
        assert found.probability == min(1.0, 2 * 0.5**lost)
    assert judge(before, classes([0] * 10 + [1] * 386)).words.startswith("Better than in floats: rows")


def test_a_loss_that_is_proved_and_little() -> None:
    """Oracle: 10 rows of 4,000 are a quarter of a point, below the half that counts as none."""
    found = judge(classes([0] * 10 + [1] * 3990), classes([1] * 4000))
    assert found.probability < RARE
    assert not found.worse
    assert found.words.startswith(
        "Hardly worse than in floats (below half a point, which counts as nothing): rows"
    )
    assert "right only in floats: 10, only now: 0;" in found.words
    assert set(LITTLE) == set(METRICS)


def test_losses_are_paired() -> None:
    """Oracle: the mean of the differences over its standard error, by hand, for rows that differ more."""
    rng = np.random.default_rng(0)
    rows, apart = rng.gamma(1.0, 5.0, 200), rng.normal(0.5, 2.0, 200)
    found = judge(losses(rows + apart), losses(rows))
    z = apart.mean() / (apart.std(ddof=1) / math.sqrt(200))
    expected = 2 * (1 - 0.5 * (1 + math.erf(z / math.sqrt(2))))
    assert_close(found.probability, expected, "fp64_same_maths")
    assert found.worse
    assert not judge(losses(rows + apart - apart.mean()), losses(rows)).worse
    assert "windows" in judge(losses(rows + apart - apart.mean()), losses(rows), unit="windows").words


def test_the_normal_law_holds() -> None:
    """Oracle: among equals one verdict in twenty is wrong: 400 draws, within four sigma of 5 %."""
    rng = np.random.default_rng(1)
    found = [judge(losses(rng.normal(size=100)), losses(rng.normal(size=100))) for _ in range(400)]
    share = sum(each.probability < RARE for each in found) / len(found)
    assert abs(share - RARE) < 4 * math.sqrt(RARE * (1 - RARE) / 400)


def test_losses_that_are_not_finite() -> None:
    """Oracle: a NaN that floats do not have is worse; one that they have compares with nothing."""
    fine, bad = losses([1.0, 2.0, 3.0]), losses([1.0, math.nan, math.inf])
    assert judge(bad, fine).worse
    assert "the loss of 2 rows is not finite" in judge(bad, fine).words
    assert not judge(fine, bad).worse
    assert "nothing to compare" in judge(fine, bad).words


@pytest.mark.parametrize("name", ["mlp", "autoencoder", "gpt"])
def test_rows_are_those_of_evaluate(name: str, tmp_path: Any) -> None:
    """Oracle: `evaluate` on the whole, whose figures are the means of the rows."""
    (tmp_path / "t.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 100)
    test: Any = load_text(tmp_path / "t.txt", context=16).test if name == "gpt" else digits("test")
    test = models.MODELS[name].prepare(test)
    model = models.build(name, test, **({"width": 16, "layers": 1, "heads": 2} if name == "gpt" else {}))
    for factor in (1, 1e6):  # scores whose exponentials overflow
        for leaf in model.parameters():
            leaf.array = leaf.array * np.float32(factor if leaf.ndim > 1 else 1)
        found = scored(model, test)
        assert found.figures == evaluate(model, test, "fp32")
        assert found.rows.shape == (len(test),)
        mean = found.figures["test_accuracy" if name == "mlp" else "test_loss"]
        assert math.isfinite(mean)
        assert_close(found.rows.mean(), mean, "fp64_same_maths")
