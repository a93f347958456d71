"""The cost of the tape around a tiny op; oracles: a clock by hand, and that a recorded op calls NumPy's."""

from __future__ import annotations

import itertools

import pytest

from minimp.benchmarks import overhead
from minimp.benchmarks.overhead import CHAIN, chain_overhead
from minimp.modes import listen
from minimp.tape import Event
from tests.tolerances import assert_close


@pytest.mark.parametrize("name", list(overhead.OPS))
def test_the_figure_is_a_ratio_per_op(name: str) -> None:
    """Oracle: a clock: 10 chains take 20 s and 100 loops of np.add 4 s: (20 / 10) / (4 / 100) = 50."""
    ticks = itertools.accumulate(itertools.cycle([0, 20, 0, 4]))
    figure = chain_overhead(name, rounds=3, clock=lambda: float(next(ticks)))
    assert_close(figure.value, 50.0, "fp64_same_maths")
    assert (figure.target, figure.at_most) == (16.0, True)
    assert name in figure.name


@pytest.mark.parametrize("name", list(overhead.OPS))
def test_what_is_timed_is_forward_and_backward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the events of one chain, and np.add called as often in the other contender."""
    events: list[Event] = []
    adds: list[int] = []
    add = overhead.np.add
    monkeypatch.setattr(overhead, "repeated", lambda call, _: call)
    monkeypatch.setattr(overhead.np, "add", lambda a, b: (adds.append(1), add(a, b))[1])
    with listen(events.append):
        chain_overhead(name, rounds=1)
    runs = 3  # two of them warm up
    for phase in ("forward", "backward"):
        assert [e.node.op.name for e in events if e.phase == phase] == [name] * CHAIN * runs
    assert len(adds) == CHAIN * runs
