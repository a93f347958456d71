"""The backend of shapes; oracle: the NumPy backend, array by array."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import minimp as mp
from minimp.backend import get_backend
from minimp.errors import DeviceError
from minimp.memory import saved_arrays
from minimp.memory.forecasting import on_shapes
from minimp.modes import listen
from minimp_backends.shape_arrays import ShapeArray
from minimp_backends.shape_layouts import contiguous, in_order_of, regrouped, small
from tests.ops.samples import FLOATS, SAMPLES, Sample, leaves

MASKED = {"index_put-75x35-mask"}
"""Samples whose shapes depend on values."""


# ---- every op ----------------------------------------------------------------------------------------------


def trace_of(sample: Sample, fmt: str, backend: str) -> dict[str, Any]:
    """Return what a sample makes, saves and gives back as gradients: shapes and dtypes."""
    mp.manual_seed(0)
    nodes: list[Any] = []
    with mp.use_backend(backend):
        inputs = leaves(sample, fmt, "positive", np.random.default_rng(0))
        with listen(lambda event: nodes.append(event.node)):
            y = sample.call(*inputs)
        saved = [[described(array) for array in node.saved] for node in nodes]
        held = sum(array.nbytes for array in saved_arrays(nodes).values())
        if y.requires_grad:
            y.backward(mp.tensor(np.ones(y.shape), dtype=y.format))
    return {
        "result": described(y.array),
        "ops": [node.op.name for node in nodes],
        "saved": saved,
        "bytes saved": held,
        "gradients": [None if x.grad is None else described(x.grad.array) for x in inputs],
    }


def described(array: Any) -> Any:
    """Return the shape and dtype of an array, and what is none as it is."""
    return (tuple(array.shape), str(array.dtype)) if hasattr(array, "dtype") else array


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_every_op_has_the_shapes_that_it_has_with_values(sample: Sample) -> None:
    """Oracle: NumPy's backend, in every format: results, what is saved, its bytes, and gradients."""
    for fmt in FLOATS:
        if str(sample) in MASKED:
            with pytest.raises(DeviceError, match="depends on values"):
                trace_of(sample, fmt, "shapes")
        else:
            assert trace_of(sample, fmt, "shapes") == trace_of(sample, fmt, "numpy"), fmt


# ---- layouts -----------------------------------------------------------------------------------------------


@st.composite
def laid_out(draw: Any) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Return an array whose axes lie in any order, some of them sliced, and a shape with as many elements."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=4))
    array = np.zeros(shape, np.float32).transpose(draw(st.permutations(range(len(shape)))))
    for axis in range(array.ndim):
        step = draw(st.sampled_from([1, 1, 1, 2, -1]))
        array = array[(slice(None),) * axis + (slice(None, None, step),)]
    target, left = [], array.size
    for factor in draw(st.lists(st.sampled_from([1, 2, 3, 4]), max_size=5)):
        if left and left % factor == 0:
            target.append(factor)
            left //= factor
    return array, draw(st.permutations([*target, left]))


def steps(shape: Any, strides: Any) -> list[int]:
    """Return the strides that mean something."""
    return [step for length, step in zip(shape, strides, strict=True) if length != 1]


@given(laid_out())
def test_views_are_where_numpy_has_them(case: tuple[Any, list[int]]) -> None:
    """Oracle: NumPy's reshape: whether memory is shared, and the strides of the view."""
    array, target = case
    made = array.reshape(target)
    found = regrouped(array.shape, array.strides, target, 4)
    assert (found is not None) == np.shares_memory(made, array)
    if found is not None:
        assert steps(target, found) == steps(target, made.strides)
    plain = ShapeArray(array.shape, array.dtype, None, array.strides).reshape(target)
    assert (plain.base is not None, plain.shape) == (found is not None, made.shape)


@given(laid_out(), st.data())
def test_results_lie_as_numpys_do(case: tuple[Any, Any], data: Any) -> None:
    """Oracle: the strides of NumPy's sum of one or two arrays, and of its copies, casts and sums."""
    a = case[0]
    found = in_order_of(small(a.shape, a.strides, a.dtype) + 1, a.shape)
    assert steps(a.shape, found) == steps(a.shape, (a + 1).strides)
    ghost = ShapeArray(a.shape, a.dtype, None, a.strides)
    for mine, numpys in (
        (ghost.astype(np.float64), a.astype(np.float64)), (ghost.copy(), a.copy()),
        (np.zeros_like(ghost), np.zeros_like(a)), (ghost.T, a.T),
    ):  # fmt: skip
        assert steps(mine.shape, mine.strides) == steps(numpys.shape, numpys.strides)
    order = data.draw(st.permutations(range(a.ndim)))
    b = np.zeros([a.shape[axis] for axis in order], np.float32).transpose(np.argsort(order).tolist())
    b = np.broadcast_to(b[..., :1], b.shape) if a.ndim and data.draw(st.booleans()) else b
    both = ghost + ShapeArray(b.shape, b.dtype, None, b.strides)
    assert steps(both.shape, both.strides) == steps(a.shape, (a + b).strides)


@given(laid_out(), st.data())
def test_functions_of_numpy(case: tuple[Any, Any], data: Any) -> None:
    """Oracle: NumPy's shape and dtype for each function that has a rule."""
    array, _ = case
    assume(array.ndim > 0)
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    index = np.zeros((2, 3), np.int64)
    calls: list[Any] = [
        lambda x: np.sum(x, axis=axis), lambda x: np.mean(x, axis=axis, keepdims=True), lambda x: x.max(),
        lambda x: np.argmax(x, axis), lambda x: np.any(x > 0, axis=axis), lambda x: np.where(x > 0, x, 1.0),
        lambda x: np.concatenate([x, x], axis), lambda x: np.stack([x, x], axis),
        lambda x: np.split(x, [1], axis)[1], lambda x: np.take(x, index, axis=axis), np.zeros_like,
        lambda x: np.empty_like(x, dtype=np.int8), lambda x: np.flip(x, axis), np.flip,
        lambda x: np.moveaxis(x, 0, axis), lambda x: np.expand_dims(x, axis), lambda x: x[None, ..., 0],
        lambda x: np.squeeze(np.expand_dims(x, 0), 0), lambda x: np.broadcast_to(x, (2, *x.shape)),
        lambda x: x.swapaxes(0, axis), lambda x: np.sort(x, axis=axis), lambda x: np.exp(x) * 2 >= -x,
        lambda x: np.cumsum(x, axis=axis), lambda x: np.pad(x, 1), lambda x: x.ravel(), lambda x: x.flatten(),
    ]  # fmt: skip
    ghost = ShapeArray(array.shape, array.dtype, None, array.strides)
    for number, call in enumerate(calls):
        mine, numpys = call(ghost), call(array)
        assert described(mine) == described(numpys), number


def test_contiguous_strides() -> None:
    """Oracle: NumPy's strides of a fresh array, also of an empty one."""
    for shape in ((), (3,), (2, 3, 4), (2, 0, 4)):
        assert math.prod(shape) == 0 or contiguous(shape, 8) == np.zeros(shape).strides


# ---- there are no values -----------------------------------------------------------------------------------


def test_values_are_refused() -> None:
    """Oracle: errors that name the backend; a single number, as a step reports its loss, is NaN."""
    with mp.use_backend("shapes"):
        x = mp.tensor(np.ones((3, 2), np.float32))
        for ask in (x.numpy, x.tolist, lambda: repr(x), lambda: np.asarray(x), lambda: x.to("numpy"),
                    lambda: np.asarray(x.array), x.sum().numpy, lambda: x[x > 0]):  # fmt: skip
            with pytest.raises(DeviceError, match="shapes backend"):
                ask()
        assert math.isnan(x.sum().item())
        assert repr(x.sum()) == "tensor(nan)"
        for ask in (lambda: int(x.sum().array), mp.tensor([3]).sum().item, mp.tensor(3).tolist):
            with pytest.raises(DeviceError, match="no values"):
                ask()
    assert "shapes" in mp.available_backends()


def test_nothing_is_drawn() -> None:
    """Oracle: the state of the engine's generator; what would be drawn has the shape that it would have."""
    before = mp.get_rng_state()
    with on_shapes():
        model = mp.nn.Sequential(mp.nn.Linear(8, 4), mp.nn.Dropout(0.5))
        y = model(mp.tensor(np.ones((2, 8), np.float32)))
        draws = mp.rng.generator()
        made = [draws.random(3), draws.normal(0, 1, (2, 3)), draws.uniform(size=4), draws.standard_normal(2),
                draws.integers(0, 9, (5,), np.uint16)]  # fmt: skip
    assert [described(each) for each in (y.array, *made)] == [
        ((2, 4), "float32"), ((3,), "float64"), ((2, 3), "float64"), ((4,), "float64"), ((2,), "float64"),
        ((5,), "uint16"),
    ]  # fmt: skip
    assert mp.get_rng_state() == before


def test_twins_are_those_of_numpy() -> None:
    """Oracle: the NumPy backend's table of twins after a forward: the shapes, and how much they hold."""
    tables = []
    for name in ("numpy", "shapes"):
        backend = get_backend(name)
        backend.twins.clear()
        with mp.use_backend(name), mp.autocast("float16"):
            w = mp.tensor(np.ones((64, 64), np.float32), requires_grad=True)
            x = mp.tensor(np.ones((50, 64), np.float32))
            y = mp.functional.relu(x @ w).reshape(25, 2, 64).transpose(0, 1)
            z = (y.reshape(50, 64) @ w).exp()
            kept = [(low.shape, wide.shape) for low, wide in backend.twins]
            tables.append((sorted(kept), backend.twins.nbytes, z.shape))
    assert tables[0] == tables[1]
    assert tables[0][0]
