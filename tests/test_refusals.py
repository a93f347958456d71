"""Refusals of values that only the device knows; oracle: the same call refused at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import DataError, MinimpError, ShapeError
from minimp.refusals import Doubt, postponed, raise_first, refuse_if

F = mp.functional
SCORES = np.zeros((2, 3), np.float32)
PLACES = np.array([[[[0, 99], [2, 3]]]])
CALLS: dict[str, tuple[type[MinimpError], Callable[[], Any]]] = {
    "cross_entropy": (DataError, lambda: F.cross_entropy(mp.tensor(SCORES), np.array([0, -7]))),
    "cross_entropy above": (DataError, lambda: F.cross_entropy(mp.tensor(SCORES), np.array([0, 3]))),
    "embedding": (DataError, lambda: F.embedding(np.array([[0, 5]]), mp.tensor(SCORES))),
    "gather": (DataError, lambda: F.gather(mp.tensor(SCORES), 1, np.array([[0, 3], [1, 1]]))),
    "index_select": (DataError, lambda: F.index_select(mp.tensor(SCORES), 0, np.array([2]))),
    "one_hot": (DataError, lambda: F.one_hot(np.array([4]), 3)),
    "max_unpool2d": (ShapeError, lambda: F.max_unpool2d(mp.tensor(np.ones((1, 1, 2, 2))), PLACES, 2)),
    "binary_cross_entropy": (
        DataError, lambda: F.binary_cross_entropy(mp.tensor([0.5, 1.5]), mp.tensor([1.0, 0.0]))
    ),
    "gaussian_nll_loss": (
        DataError,
        lambda: F.gaussian_nll_loss(mp.tensor([1.0]), mp.tensor([1.0]), mp.tensor([-1.0])),
    ),
    "hinge": (DataError, lambda: F.hinge_embedding_loss(mp.tensor([0.5]), mp.tensor([3.0]))),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_postponed_refusal_is_the_same_refusal(name: str) -> None:
    """Oracle: the error that is raised at once; postponed, it waits and then has the same words."""
    kind, call = CALLS[name]
    with pytest.raises(kind) as at_once:
        call()
    doubts: list[Doubt] = []
    with postponed(doubts):
        call()
    with pytest.raises(kind) as later:
        raise_first(doubts)
    assert str(later.value) == str(at_once.value)
    assert doubts == []


def test_what_is_in_order_raises_neither_way() -> None:
    """Oracle: nothing is wrong."""
    doubts: list[Doubt] = []
    with postponed(doubts):
        F.cross_entropy(mp.tensor(SCORES), np.array([0, 2]))
    raise_first(doubts)
    refuse_if(np.asarray(False), lambda: ShapeError("never"))


def step_of(control: str, recipe: str) -> mp.TrainStep:
    """Return a step on one layer."""
    mp.manual_seed(1)
    model = nn.Linear(4, 3)
    return mp.TrainStep(model, F.cross_entropy, mp.optim.SGD(model.parameters()), recipe, control=control)


@pytest.mark.parametrize("recipe", ["mixed-fp16", "mixed-bf16"])
def test_a_label_that_is_none_leaves_the_weights(recipe: str) -> None:
    """Oracle: the weights and the scale as they were; the error is the host's, when the report is read."""
    step, host = step_of("device", recipe), step_of("host", recipe)
    before = [p.array.tobytes() for p in step.model.parameters()]
    inputs, labels = np.ones((2, 4), np.float32), np.array([0, -3])
    report = step(inputs, labels)
    assert [p.array.tobytes() for p in step.model.parameters()] == before
    with pytest.raises(DataError) as later:
        _ = report.loss
    with pytest.raises(DataError) as at_once:
        host(inputs, labels)
    assert str(later.value) == str(at_once.value)
    assert step(inputs, np.array([0, 2])).skipped is False
    assert [p.array.tobytes() for p in step.model.parameters()] != before


def test_reports_that_nobody_reads_are_asked_in_the_end() -> None:
    """Oracle: a wrong label in the first step of a loop that reads nothing is found by that loop."""
    step = step_of("device", "mixed-fp16")
    inputs = np.ones((2, 4), np.float32)
    labels = [np.array([0, -3]), *[np.array([0, 1])] * 1000]  # only the first report has a word to say
    with pytest.raises(DataError, match="in row 1"):
        _run(step, inputs, labels)


def _run(step: mp.TrainStep, inputs: np.ndarray[Any, Any], labels: list[np.ndarray[Any, Any]]) -> None:
    for each in labels:
        step(inputs, each)
