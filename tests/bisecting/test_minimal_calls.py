"""The calls that are blamed; oracle: every part of them, run by hand without any of the searcher."""

from __future__ import annotations

from itertools import chain as joined
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp.bisecting import bisect
from minimp.errors import SettingError
from tests.bisecting.cases import CUDA

Call = tuple[str, int]
STEPS = {
    "exp": lambda x: x.exp(),
    "mul": lambda x: x * x,
    "sqrt": lambda x: x.sqrt(),
    "log": lambda x: x.log(),
    "cumsum": lambda x: x.cumsum(0),
}
"""An op, and how a net runs it; all of them in 16 bits."""
POLICY = CUDA.with_(dict.fromkeys(STEPS, "lower"))
BOUND = 2.0**-6


def net(branches: list[list[str]], start: float, wide: frozenset[Call] | None = None) -> list[Any]:
    """Run chains of ops beside each other, the calls in `wide` by hand in float32."""
    counts: dict[str, int] = {}
    made = []
    for i, branch in enumerate(branches):
        x: Any = mp.tensor(np.float32([start + i, start / 2, 1.5]))
        for name in branch:
            counts[name] = counts.get(name, 0) + 1
            if wide is not None and (name, counts[name]) in wide:
                with mp.autocast(enabled=False):
                    x = STEPS[name](x.float())
            else:
                x = STEPS[name](x)
        made.append(x)
    return made


@settings(max_examples=80)
@given(
    branches=st.lists(
        st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=4), max_size=2, min_size=1
    ),
    start=st.sampled_from([5.0, 12.0, 40.0, 300.0, 60000.0]),
)
def test_the_calls_found_are_enough_and_no_part_of_them_is(branches: list[list[str]], start: float) -> None:
    """Oracle: all parts of the calls: in FP32 by hand, in plain autocast, they disagree; the whole agrees."""
    exact = [np.float64(x) for x in net(branches, start)]
    if not all(np.isfinite(x).all() and x.any() for x in exact):
        return

    def agrees(wide: frozenset[Call]) -> bool:
        with mp.autocast("float16", policy=POLICY):
            found = [np.float64(x.float()) for x in net(branches, start, wide)]
        pairs = zip(found, exact, strict=True)
        return all(
            bool(np.isfinite(y).all() and np.abs(y - r).max() <= BOUND * np.abs(r).max()) for y, r in pairs
        )

    blame = bisect(lambda: net(branches, start), policy=POLICY, budget=None)
    calls = frozenset((each.op, each.call) for each in blame.instances)
    assert agrees(calls)
    assert blame.minimal
    assert {op for op, _ in calls} <= {*blame.ops}
    parts = joined.from_iterable(combinations(sorted(calls), size) for size in range(len(calls)))
    assert not [part for part in parts if agrees(frozenset(part))]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"budget": 3}, "budget: expected a whole number of at least 4 runs, got 3"),
        ({"budget": 7.5}, "budget: expected a whole number of at least 4 runs, got 7.5"),
        ({"budget": "9"}, "budget: expected a whole number of at least 4 runs, got '9'"),
        ({"seconds": -1.0}, "seconds: expected a number of at least 0"),
        ({"seconds": float("nan")}, "seconds: expected a number of at least 0"),
        ({"seconds": "long"}, "seconds: expected a number of at least 0"),
        ({"state": 3}, "state: expected a list of objects, got 3"),
        ({"progress": 3}, "progress: expected a function of a Progress, got 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(option: dict[str, Any], words: str) -> None:
    """Oracle: the words; the code is never run."""
    ran: list[int] = []
    with pytest.raises(SettingError) as fault:
        bisect(lambda: ran.append(1), **option)
    assert words in str(fault.value)
    with pytest.raises(SettingError, match="run: expected a function without arguments, got 3"):
        bisect(3)  # type: ignore[arg-type]
    assert ran == []
