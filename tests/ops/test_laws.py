"""Laws that hold for all shapes; oracle: NumPy's own broadcasting, views and reductions, by hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minimp as mp
from minimp import functional, ops
from minimp.checks import check_events
from minimp.modes import listen
from minimp.tape import Event
from tests.tolerances import assert_close

FORMATS = st.sampled_from(["float64", "float32", "float16", "bfloat16"])
SHAPES = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=4)


def _array(shape: tuple[int, ...], seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape)


def _checked(call: Any) -> Any:
    """Run, and hold every op and gradient to its contract."""
    events: list[Event] = []
    with listen(events.append):
        result = call()
    found = check_events(events)
    assert found, str(found)
    return result


@given(SHAPES, FORMATS, st.sampled_from(["add", "sub", "mul", "div"]))
def test_broadcasting_is_numpys(shapes: Any, fmt: str, name: str) -> None:
    """Oracle: NumPy's broadcast shape; values and gradients by the op contracts; shapes of gradients."""
    a, b = (mp.tensor(_array(s, i), dtype=fmt, requires_grad=True) for i, s in enumerate(shapes.input_shapes))

    def call() -> mp.Tensor:
        y = ops.OPS[name](a, b)
        y.backward(_array(y.shape, 3))
        return y

    assert _checked(call).shape == shapes.result_shape
    assert (a.grad.shape, b.grad.shape) == (a.shape, b.shape)
    assert a.grad.dtype == b.grad.dtype == a.dtype


@given(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), FORMATS, st.data())
def test_reductions_take_every_axis(shape: tuple[int, ...], fmt: str, data: st.DataObject) -> None:
    """Oracle: shapes of NumPy's reductions; values and gradients by the op contracts."""
    axes = data.draw(st.sets(st.integers(-len(shape), len(shape) - 1)) if shape else st.just(set()))
    axes = {axis % len(shape) for axis in axes}
    dim = None if not axes else tuple(axes) if len(axes) > 1 else next(iter(axes))
    keep = data.draw(st.booleans())
    for name in ("sum", "mean") + (("amax",) if 0 not in shape else ()):
        x = mp.tensor(_array(shape, 1), dtype=fmt, requires_grad=True)

        def call(x: mp.Tensor = x, name: str = name) -> mp.Tensor:
            y = ops.OPS[name](x, dim=dim, keepdim=keep)
            y.backward(np.ones(y.shape))
            return y

        assert _checked(call).shape == np.sum(np.zeros(shape), axis=dim, keepdims=keep).shape
        assert x.grad.shape == shape


@given(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5), FORMATS, st.data())
def test_indexing_is_numpys(shape: tuple[int, ...], fmt: str, data: st.DataObject) -> None:
    """Oracle: x[index] of NumPy, and np.add.at for the gradient."""
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True) | hnp.integer_array_indices(shape))
    x = mp.tensor(np.arange(np.prod(shape)).reshape(shape) % 50, dtype=fmt, requires_grad=True)
    y = _checked(lambda: x[index])
    np.testing.assert_array_equal(y.detach().numpy(), x.detach().numpy()[index])
    _checked(lambda: y.backward(np.ones(y.shape)))
    counts = np.zeros(shape)
    np.add.at(counts, index, 1.0)
    np.testing.assert_array_equal(x.grad.numpy().astype(np.float64), counts)


@given(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4), FORMATS, st.data())
def test_moving_elements_loses_none(shape: tuple[int, ...], fmt: str, data: st.DataObject) -> None:
    """Oracle: NumPy's transpose and reshape, and back again to the bit."""
    dims = data.draw(st.permutations(range(len(shape))))
    x = mp.tensor(_array(shape, 2), dtype=fmt)
    y = x.permute(*dims).reshape(-1)
    np.testing.assert_array_equal(y.numpy(), x.numpy().transpose(dims).reshape(-1))
    back = y.reshape(*(shape[d] for d in dims)).permute(*np.argsort(dims))
    np.testing.assert_array_equal(back.numpy(), x.numpy())


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), FORMATS)
def test_products_of_any_size(m: int, k: int, n: int, fmt: str) -> None:
    """Oracle: NumPy's shapes, zeros for empty sums; values and gradients by the op contracts."""
    a = mp.tensor(_array((m, k), 1), dtype=fmt, requires_grad=True)
    b = mp.tensor(_array((k, n), 2), dtype=fmt, requires_grad=True)

    def call() -> mp.Tensor:
        y = a @ b + functional.linear(a, b.T)
        y.backward(np.ones(y.shape))
        return y

    y = _checked(call)
    assert y.shape == (m, n)
    if k == 0:
        assert not y.detach().numpy().any()


@pytest.mark.parametrize("fmt", ["float32", "float16", "bfloat16"])
def test_results_do_not_depend_on_memory_order(fmt: str) -> None:
    """Oracle: the same op on a contiguous copy; transposed, strided, reversed and broadcast inputs."""
    base = mp.tensor(_array((60, 80), 1), dtype=fmt)
    views = [base.T, base[::2, ::-1], base.T[:, 10:50], base[0].expand(70, 80)]
    for view in views:
        copy = mp.tensor(np.ascontiguousarray(view.numpy()))
        for call in (ops.relu, ops.exp, ops.neg, lambda x: x * x):
            np.testing.assert_array_equal(call(view).numpy(), call(copy).numpy())
        for call in (functional.softmax, lambda x: x.sum(0), lambda x: x.sum(1)):
            got, expected = call(view).numpy(), call(copy).numpy()
            if view.backend.name == "numpy":
                np.testing.assert_array_equal(got, expected)
            else:  # a GPU's sums go by the order in memory
                assert_close(got, expected, "layout_fp32" if fmt == "float32" else "layout_16")
        np.testing.assert_array_equal((view @ view.T).shape, (copy @ copy.T).shape)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), FORMATS)
def test_dropout_keeps_or_drops_and_repeats(seed: int, p: float, fmt: str) -> None:
    """Oracle: elements are 0 or x / (1 - p); one seed gives one mask, forward and backward."""
    x = mp.tensor(np.ones(300), dtype=fmt, requires_grad=True)
    mp.manual_seed(seed)
    y = _checked(lambda: functional.dropout(x, p))
    mp.manual_seed(seed)
    np.testing.assert_array_equal(y.detach().numpy(), functional.dropout(x, p).detach().numpy())
    y.backward(np.ones(300))
    if x.grad is not None and p > 0:
        np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


def test_dropout_drops_its_share() -> None:
    """Oracle: a binomial count of 100,000 at p = 0.3, six standard deviations to either side."""
    mp.manual_seed(0)
    dropped = int((functional.dropout(mp.tensor(np.ones(100_000)), 0.3).numpy() == 0).sum())
    spread = 6 * (100_000 * 0.3 * 0.7) ** 0.5
    assert abs(dropped - 30_000) < spread
