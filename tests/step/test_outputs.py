"""Models whose output has several parts: their steps are run, checked, recorded and stepped as any."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.step import TrainStep


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and labels."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 12)).astype(np.float32), rng.integers(0, 4, 8)


class Heads(mp.nn.Module):
    """Two heads, whose results come as a tuple, a list, a dict, or one in another."""

    def __init__(self, shape: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        mp.manual_seed(3)
        self.one, self.two, self.shape = mp.nn.Linear(12, 4), mp.nn.Linear(12, 3), shape

    def forward(self, x: Any) -> Any:
        """Return both results."""
        return self.shape(self.one(x), self.two(x))


HEADS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Any], list[str]]] = {
    "tuple": (lambda a, b: (a, b), lambda made: made, ["output.0", "output.1"]),
    "list": (lambda a, b: [a, b], lambda made: made, ["output.0", "output.1"]),
    "dict": (lambda a, b: {"a": a, "b": b}, lambda made: made.values(), ["output.a", "output.b"]),
    "nested": (
        lambda a, b: (a, {"b": [b]}, None),
        lambda made: (made[0], made[1]["b"][0]),
        ["output.0", "output.1.b.0"],
    ),
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("recipe", ["fp32", "fp16", "mixed-fp16"])
def test_an_output_in_parts_is_stepped_checked_and_recorded(kind: str, recipe: str) -> None:
    """Oracle: the same step unrecorded, bit for bit; the parts' names; the contracts; a changed loss."""
    shape, parts, names = HEADS[kind]

    def loss(made: Any, labels: Any) -> Any:
        one, two = parts(made)
        return mp.functional.cross_entropy(one, labels) + mp.functional.cross_entropy(two, labels % 3)

    def fresh() -> TrainStep:
        model = Heads(shape)
        return TrainStep(model, loss, mp.optim.SGD(model.parameters(), lr=0.1), recipe)

    plain = fresh()(*batch()).loss
    stages = list(fresh().stages(*batch()))
    for stage in stages:
        assert stage.check(), f"{stage.name}: {stage.check()}"
    assert [name for name in stages[1].tensors if name != "input"] == names
    with mp.trace.record() as made:
        assert fresh()(*batch()).loss == plain
    (event,) = made.select(phase="stage", op="forward")
    assert [side.name for side in event.outputs if side is not None] == ["input", *names]
    with mp.stepper.Session(fresh(), [batch()]) as session:
        session.finish()
    told = stages[2].tensors["loss"]
    told.array = told.array * told.array.dtype.type(1.5)
    assert not stages[2].check()
