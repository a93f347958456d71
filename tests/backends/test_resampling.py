"""Linear maps along axes, and their adjoints. Oracle: the definition, place by place in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from minimp_backends import resampling
from minimp_backends.resampling import resample_backward, resample_forward
from tests.tolerances import assert_close

Array = NDArray[Any]
Entry = tuple[Array, Array | None]


@st.composite
def entries(draw: Any) -> tuple[int, Entry]:
    """A length, and what each place of a result reads of it: moved, mirrored, repeated or anything."""
    length, taps = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    out = draw(st.integers(1, 12))
    index = {
        "any": lambda: random.integers(0, length, (taps, out)),
        "rising": lambda: np.sort(random.integers(0, length, (taps, out))),
        "repeated": lambda: np.repeat(np.arange(length), 1 + out % 4)[None],
        "clamped": lambda: np.clip(np.arange(-3, length + 2), 0, length - 1)[None],
        "mirrored": lambda: np.concatenate([np.arange(length)[::-1], np.arange(length)] * 2)[None],
    }[draw(st.sampled_from(["any", "rising", "repeated", "clamped", "mirrored"]))]()
    weight = random.standard_normal(index.shape) if draw(st.booleans()) else None
    return length, (index, weight)


def defined(x: Array, plan: list[Entry], shape: tuple[int, ...]) -> tuple[Array, Any]:
    """The result, and the function that takes a gradient back: one tap at a time."""
    places = [range(index.shape[1]) for index, _ in plan]
    y = np.zeros((*shape[: -len(plan)], *map(len, places)))
    reads = []
    for at in np.ndindex(*map(len, places)):
        for taps in np.ndindex(*(len(index) for index, _ in plan)):
            source = tuple(int(index[t, i]) for (index, _), t, i in zip(plan, taps, at, strict=True))
            factor = np.prod(
                [1.0 if w is None else w[t, i] for (_, w), t, i in zip(plan, taps, at, strict=True)]
            )
            reads.append((at, source, factor))
            y[(..., *at)] += factor * x[(..., *source)]

    def back(g: Array) -> Array:
        dx = np.zeros(shape)
        for at, source, factor in reads:
            dx[(..., *source)] += factor * g[(..., *at)]
        return dx

    return y, back


@pytest.mark.parametrize("short", [0, 128])
@settings(deadline=None, max_examples=80)
@given(st.lists(entries(), min_size=1, max_size=2))
def test_a_plan_is_what_it_says(short: int, drawn: list[tuple[int, Entry]]) -> None:
    """Oracle: the sums of the definition; the adjoint by runs and by a matrix."""
    plan = [entry for _, entry in drawn]
    shape = (2, 1, *(length for length, _ in drawn))
    random = np.random.default_rng(0)
    x = random.standard_normal(shape)
    y, back = defined(x, plan, shape)
    assert_close(resample_forward(x, plan), y, "fp64_sums")
    g = random.standard_normal(y.shape)
    before, resampling.SHORT = resampling.SHORT, short
    try:
        assert_close(resample_backward(g, shape, plan), back(g), "fp64_sums")
    finally:
        resampling.SHORT = before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_infinite_gradient_reaches_what_it_was_made_from(dtype: Any) -> None:
    """Oracle: the definition: no zero of a matrix meets the infinity."""
    index, weight = np.array([[0, 2, 1, 3, 0], [1, 1, 0, 2, 3]]), np.full((2, 5), 0.5)
    g = np.array([[1.0, np.inf, 1.0, 1.0, 1.0]], dtype)
    dx = resample_backward(g, (1, 4), [(index, weight)])
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, [[1.5, np.inf, np.inf, 1.0]])


def test_a_result_shares_no_memory_with_its_input() -> None:
    """Oracle: an empty plan of moves in place."""
    x = np.arange(6.0).reshape(2, 3)
    plan = [(np.arange(3)[None], None)]
    assert not np.shares_memory(resample_forward(x, plan), x)
    assert not np.shares_memory(resample_backward(x, x.shape, plan), x)
    np.testing.assert_array_equal(resample_backward(x, x.shape, plan), x)
