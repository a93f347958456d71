"""Interleaved timing; oracle: a clock that the test turns itself."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable

import pytest

from minimp.benchmarks import interleave
from minimp.benchmarks.timing import medians, quiet_collector, repeated, repeats_for, touch_memory, wall_time


class Clock:
    """Processor time that passes only inside the contenders, and in what lies between them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def contender(self, name: str, *spends: float) -> Callable[[], None]:
        """Return a call that spends so many seconds, a new figure each time, the last one from then on."""
        left = list(spends)

        def call() -> None:
            self.order.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put the clock in the place of the process's, and take note of collections, which take a second each."""
    made = Clock()
    monkeypatch.setattr(time, "process_time", lambda: made.now)
    monkeypatch.setattr(gc, "collect", made.contender("collect", 1.0))
    return made


def test_each_call_gets_its_own_time_and_warm_up_is_left_out(clock: Clock) -> None:
    """Oracle: seconds that the contenders spent, to the bit; the first two rounds spent others."""
    contenders = {"a": clock.contender("a", 64, 32, 1, 2, 4), "b": clock.contender("b", 0.5)}
    assert interleave(contenders, 3) == {"a": [1, 2, 4], "b": [0.5, 0.5, 0.5]}
    assert clock.order == ["collect", "a", "collect", "b"] * 5


def test_the_warm_up_can_be_chosen_and_rounds_are_told(clock: Clock) -> None:
    """Oracle: numbers from 1, warm-up included; nothing is left out of none."""
    told: list[int] = []
    assert interleave({"a": clock.contender("a", 1, 2)}, 2, warm_up=0, on_round=told.append) == {"a": [1, 2]}
    interleave({"a": clock.contender("a", 1)}, 2, warm_up=3, on_round=told.append)
    assert told == [1, 2, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("collecting", [True, False])
def test_nothing_is_collected_inside_a_call(collecting: bool) -> None:
    """Oracle: the collector's own word, inside the call and after it, also where the call raises."""
    before = gc.isenabled()
    inside: list[bool] = []

    def fails() -> None:
        inside.append(gc.isenabled())
        raise ZeroDivisionError

    try:
        (gc.enable if collecting else gc.disable)()
        interleave({"a": lambda: inside.append(gc.isenabled())}, 1, warm_up=0)
        assert gc.isenabled() is collecting
        with pytest.raises(ZeroDivisionError):
            interleave({"a": fails}, 1, warm_up=0)
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()
    assert inside == [False] * 2


def test_another_clock_can_tell_the_time(clock: Clock) -> None:
    """Oracle: a clock that ticks once a look, whatever is spent; the wall clock never goes back."""
    ticks = iter(range(100))
    found = interleave({"a": clock.contender("a", 7.0)}, 3, warm_up=1, clock=lambda: next(ticks))
    assert found == {"a": [1, 1, 1]}
    assert wall_time() <= wall_time()


@pytest.mark.parametrize(
    ("spent", "least", "repeats"),
    [(1.0, 1.0, 1), (1.0, 1.1, 2), (0.25, 1.0, 4), (0.3, 1.0, 4), (0.0, 1.0, 1 << 14)],
)
def test_repeats_until_a_sample_is_long(spent: float, least: float, repeats: int, clock: Clock) -> None:
    """Oracle: the first power of two by hand; a call that no clock sees is not repeated for ever."""
    assert repeats_for(clock.contender("a", spent), least) == repeats
    assert clock.order.count("a") == 2 * repeats - 1
    clock.order.clear()
    repeated(clock.contender("b", spent), 3)()
    assert clock.order == ["b"] * 3


@pytest.mark.parametrize("frozen", [False, True])
def test_the_collector_is_spared_what_was_there(clock: Clock, frozen: bool) -> None:
    """Oracle: the collector's own count of what it passes over, inside, and after a fault; a program's own
    stays as it is."""
    gc.unfreeze()  # the suite's own, which is put back
    if frozen:
        gc.freeze()
    before = gc.get_freeze_count()
    inside: list[int] = []

    def fails() -> None:
        with quiet_collector():
            inside.append(gc.get_freeze_count())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (inside[0] > before) != frozen
    assert gc.get_freeze_count() == before
    assert clock.order == ["collect"]
    gc.freeze()


def test_memory_is_asked_for_and_given_back() -> None:
    """Oracle: the allocator's own count: so many bytes at one time, and none afterwards."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        touch_memory(5 << 20)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 5 << 20 <= peak - before < 6 << 20
    assert after - before < 1 << 14


def test_medians_by_hand() -> None:
    """Oracle: the middle one of three, the mean of the middle two of four."""
    assert medians({"a": [3.0, 1.0, 2.0], "b": [1.0, 2.0, 4.0, 100.0]}) == {"a": 2.0, "b": 3.0}
