"""Jobs; oracles: a clock whose times are made up, ratios by hand."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minimp.backend import get_backend
from minimp.benchmarks.gpu import TINY, Aim, Bench, Job, Roof, Run, Timed, run_job
from minimp.benchmarks.gpu.jobs import LEAST_ROUNDS
from minimp.errors import SettingError

SIZES = replace(TINY, repeats=32, rounds_seconds=1e9)


class Made:
    """A clock that tells what each call returns, in seconds, and keeps the order of calls."""

    name = "made up"

    def __init__(self) -> None:
        self.order: list[tuple[float, int]] = []

    def seconds(self, call: Callable[[], Any], repeats: int) -> float:
        """Return the call's own number."""
        found = call()
        self.order.append((found, repeats))
        return float(found)


def bench(clock: Made, rounds: int = 5, **sizes: Any) -> Bench:
    """Return a bench with a clock of ours."""
    return Bench(get_backend("strict"), clock, replace(SIZES, **sizes), rounds)


def test_contenders_take_turns_and_medians_count() -> None:
    """Oracle: the order of calls, repeats that fill 2 ms, the median and the spread by hand."""
    clock, told = Made(), iter([9.0, 9.0, 0.01, 0.03, 0.02, 0.02, 0.02])
    job = Job("work", {"minimp": lambda: next(told), "torch": lambda: 1e-4}, 4.0, "B", (Aim("torch", 0.5),))
    found = run_job(bench(clock), "part", job)
    assert [each for each in clock.order if each[0] != 9.0][:1] == [(1e-4, 1)]  # how long once takes
    rounds = clock.order[2:]
    assert [repeats for _, repeats in rounds] == [1, 20] * 5
    assert found.seconds == {"minimp": 0.02, "torch": 1e-4}
    assert found.spread["minimp"] == pytest.approx(1.0)
    assert found.rate() == 200
    (figure,) = found.figures({})
    assert (figure.name, figure.value) == ("part: work, speed over torch", pytest.approx(0.005))
    assert (figure.reached, figure.target) == (False, 0.5)


def test_rounds_end_when_the_time_is_up() -> None:
    """Oracle: three rounds at least, the wish at most."""
    for seconds, expected in ((0.0, LEAST_ROUNDS), (1e9, 8)):
        clock = Made()
        run_job(bench(clock, rounds=8, rounds_seconds=seconds), "part", Job("work", {"minimp": lambda: 1.0}))
        assert len(clock.order) == 1 + expected


@pytest.mark.parametrize(
    "fault", [RuntimeError("no such\n kernel"), SettingError("no", help="yes"), ValueError()]
)
def test_who_fails_is_left_out_and_named(fault: Exception) -> None:
    """Oracle: the others have their times; the reason is one line; the collector is as it was."""

    def fails() -> None:
        raise fault

    found = run_job(bench(Made()), "part", Job("work", {"minimp": fails, "torch": lambda: 1.0}, 1.0))
    assert found.seconds == {"torch": 1.0}
    assert list(found.faults) == ["minimp"]
    assert "\n" not in found.faults["minimp"]
    assert (found.rate(), found.speed_over("torch"), found.figures({"B": 1.0})) == (None, None, [])
    assert gc.isenabled()
    assert Run(Roof({}), [found]).all_faults() == [f"part: work, minimp: {found.faults['minimp']}"]


def test_a_fault_that_is_none_of_ours_comes_out() -> None:
    """Oracle: what a program does wrong, or who stops it, is not a figure."""

    def stopped() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(bench(Made()), "part", Job("work", {"minimp": stopped}))


def timed(unit: str, amount: float, seconds: dict[str, float], *aims: Aim) -> Timed:
    """Return what a job came to."""
    return Timed("part", "work", amount, unit, aims, seconds)


def test_the_roof_is_the_best_rate_of_anyone() -> None:
    """Oracle: rates by hand; shares of it; a unit without a roof has no share."""
    roofs = [timed("B", 8.0, {"minimp": 2.0, "torch": 1.0}), timed("FLOP", 6.0, {"minimp": 2.0})]
    roof = Roof.of(roofs)
    assert roof.rates == {"B": 8.0, "FLOP": 3.0}
    share = timed("B", 12.0, {"minimp": 2.0}, Aim("roof", 0.85)).figures(roof.rates)
    assert [(each.value, each.reached) for each in share] == [(0.75, False)]
    assert timed("OP", 12.0, {"minimp": 2.0}, Aim("roof", 0.85)).figures(roof.rates) == []
    assert timed("B", 0.0, {"minimp": 2.0}, Aim("roof", 0.85)).figures(roof.rates) == []
