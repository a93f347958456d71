"""The figures of recordings."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import minimp as mp
from minimp import trace
from minimp.benchmarks import tracing
from minimp.benchmarks.tracing import AIMS, trace_contenders, trace_figures
from minimp.benchmarks.workloads import Workload
from tests.tolerances import assert_close


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of a few numbers stands for the workload."""

    def model(n: Any, functional: Any) -> Any:
        return n.Sequential(n.Linear(12, 4))

    monkeypatch.setattr(tracing, "WORKLOADS", {"mlp": Workload("mlp", (4, 12), model, 1.0, 4)})


def test_each_figure_is_its_ratio() -> None:
    """Oracle: a clock that gives each contender a time of its own, in every round: quotients by hand."""
    times = {"off": 2.0, "hookless": 3.0, "hookless again": 5.0, "off again": 7.0,
             "plain": 11.0, "statistics": 13.0, "shadow": 17.0}  # fmt: skip
    names = list(times)

    def ticks() -> Any:
        for group in (names[:4], names[4:]):
            for name in group * 5:  # three rounds after two that warm up
                yield from (1.0, times[name])

    moments = itertools.accumulate(ticks())
    found = {figure.name: figure for figure in trace_figures(3, clock=lambda: next(moments))}
    assert list(found) == [name for name, _ in AIMS.values()]
    wanted = [(2 + 7) / (3 + 5), 13 / 11, 17 / 11]
    for figure, value, aim in zip(found.values(), wanted, (1.02, 3.0, 8.0), strict=True):
        assert_close(figure.value, value, "fp64_same_maths")
        assert (figure.target, figure.at_most) == (aim, True)


def test_the_contenders_do_what_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what is recorded in each, and the settings of it."""
    made: list[trace.Trace] = []

    class Spying(trace.record):
        def __enter__(self) -> trace.Trace:
            made.append(super().__enter__())
            return made[-1]

    monkeypatch.setattr(tracing, "record", Spying)
    small, large = trace_contenders()
    made.clear()
    for call in (*small.values(), large["plain"]):
        call()
    assert made == []
    large["statistics"]()
    large["shadow"]()
    assert [each.info["settings"]["shadow"] for each in made] == [False, True]
    assert all(each.info["settings"]["statistics"] and len(each) > 10 for each in made)
    assert not made[0].select(condition=lambda event: event.errors)
    assert made[1].select(condition=lambda event: event.errors)
    with trace.record() as heard:  # without hooks, only the optimizer and the scale are heard of
        small["hookless"]()
    assert {(event.phase, event.op) for event in heard.events} == {
        ("stage", "update"),
        ("stage", "update_scale"),
    }
    assert mp.modes.MODES.get().listeners == ()
