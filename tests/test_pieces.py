"""Gradients of slices in pieces: the same bits as whole ones, at the price of one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import functional
from minimp.backend import get_backend
from minimp.modes import listen
from minimp.pieces import Pieces, join

NUMPY = get_backend("numpy")


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Any]]:
    """Return a shape and basic indices of it: numbers, slices of any step, None and an ellipsis."""
    shape = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=3)))

    def one(length: int) -> Any:
        bound = st.none() | st.integers(-length - 1, length + 1)
        slices = st.builds(slice, bound, bound, st.sampled_from([None, 1, 2, -1, -3]))
        return draw(slices | st.integers(-length, length - 1) if length else slices)

    found = []
    for _ in range(draw(st.integers(1, 4))):
        named = [one(n) for n in shape[: draw(st.integers(0, len(shape)))]]
        if draw(st.booleans()):
            named.append(...)
        if draw(st.booleans()):
            named.insert(0, None)
        found.append(tuple(named))
    return shape, found


@given(cuts(), st.sampled_from(["float32", "float16", "bfloat16"]), st.integers(0, 99))
def test_the_whole_is_the_sum_of_padded_parts(cut: Any, fmt: str, seed: int) -> None:
    """Oracle: arrays of zeros with one slice filled each, added up one after the other in the format."""
    shape, indices = cut
    random, dtype = np.random.default_rng(seed), mp.formats.get(fmt).dtype
    parts = [(i, np.asarray(random.standard_normal(np.zeros(shape)[i].shape)).astype(dtype)) for i in indices]
    total = None
    for index, part in parts:
        padded = np.zeros(shape, dtype)
        padded[index] = part
        total = padded if total is None else NUMPY.add(total, padded)
    np.testing.assert_array_equal(Pieces(shape, parts).whole(NUMPY), total)


def test_pieces_join_pieces_and_arrays() -> None:
    """Oracle: sums by hand, in both orders."""
    a, b = (Pieces((3,), [(i, np.float32(i + 1))]) for i in range(2))
    assert join(a, b, NUMPY).whole(NUMPY).tolist() == [1, 2, 0]
    ones = np.ones(3, np.float32)
    assert join(join(a, b, NUMPY), ones, NUMPY).tolist() == [2, 3, 1]
    assert join(ones, a, NUMPY).tolist() == [2, 1, 1]


USES = {
    "chunks": lambda x: sum((c * (i + 1.0)).sum() for i, c in enumerate(functional.chunk(x, 3, dim=1))),
    "steps": lambda x: sum((x[t] * float(t)).sum() for t in range(x.shape[0])),
    "neighbours": lambda x: ((x[1:] - x[:-1]) * x[:-1]).sum(),
    "beside the whole": lambda x: (x * x).sum() + (x[2] * 3.0).sum() + x[0, 0] + x[..., -1].sum(),
    "one of many": lambda x: x[1, 2] * 2.0,
    "a mask between": lambda x: x[x.detach().numpy() > 0].sum() + x[:, 1].sum(),
}


@pytest.mark.parametrize("fmt", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("use", list(USES))
def test_gradients_are_those_of_whole_arrays(use: str, fmt: str) -> None:
    """Oracle: the ordinary rule, which runs where somebody listens: the same bits."""
    array = np.random.default_rng(1).standard_normal((4, 6))
    found = []
    for listeners in ([], [lambda event: None]):
        x = mp.tensor(array, dtype=fmt, requires_grad=True)
        y = USES[use](x)
        if listeners:
            with listen(listeners[0]):
                y.backward()
        else:
            y.backward()
        found.append(x.grad.numpy())
    np.testing.assert_array_equal(*found)
    assert found[0].dtype == found[1].dtype


def test_many_slices_cost_one_array_of_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: counted calls: no slice is spread over an array of its own, and nothing is added."""

    def refuse(*_: Any, **__: Any) -> Any:
        pytest.fail("a slice was spread or added on its own")

    x = mp.tensor(np.ones((50, 3)), dtype="float32", requires_grad=True)
    total = functional.stack([x[t] for t in range(50)]).sum()
    monkeypatch.setattr(type(NUMPY), "scatter_add", refuse)
    monkeypatch.setattr(type(NUMPY), "add", refuse)
    total.backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.ones((50, 3)))


def test_hooks_and_grad_see_whole_arrays() -> None:
    """Oracle: shapes: a hook on a sliced tensor, and mp.grad of one."""
    seen: list[Any] = []
    x = mp.tensor(np.ones((4, 2)), dtype="float32", requires_grad=True)
    y = x * 2.0
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y[1] + y[3]).sum().backward()
    assert seen == [[[0, 0], [1, 1], [0, 0], [1, 1]]]
    z = x * 1.0
    assert mp.grad(z[0].sum(), z)[0].tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]
