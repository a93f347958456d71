"""Pooling and its gradients. Oracle: the definition, window by window in Python, and torch."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minimp.errors import FormatError, ShapeError
from minimp_backends.pooling import (
    avg_pool2d_backward,
    avg_pool2d_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)
from tests.tolerances import assert_bound, assert_close, dot_bound

Array = NDArray[Any]
TWO: dict[str, Any] = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}


def out_length(size: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    """Count the windows along an axis by placing them one after another.

    With ``ceil_mode`` there is one more where cells were left over, if it begins before the far padding.
    """
    count, start = 0, -p
    while True:
        last = start + d * (k - 1)
        fits = last < size + p
        left_over = last - s < size + p - 1
        if not fits and not (ceil_mode and left_over and start < size):
            return count
        count, start = count + 1, start + s


def windows(
    shape: tuple[int, ...], geometry: dict[str, Any]
) -> tuple[tuple[int, int], dict[tuple[int, int], list[tuple[int, tuple[int, int]]]]]:
    """Return the output size and, for each output position, the taps inside the image: [(tap, (y, x))]."""
    dilation, ceil_mode = geometry.get("dilation", (1, 1)), geometry.get("ceil_mode", False)
    fields = tuple(
        zip(shape[2:], geometry["kernel"], geometry["stride"], geometry["padding"], dilation, strict=True)
    )
    oh, ow = (out_length(*each, ceil_mode) for each in fields)
    (height, kh, sh, ph, dh), (width, kw, sw, pw, dw) = fields
    seen = {}
    for i, j in itertools.product(range(oh), range(ow)):
        seen[i, j] = [
            (u * kw + v, (i * sh + u * dh - ph, j * sw + v * dw - pw))
            for u, v in itertools.product(range(kh), range(kw))
            if 0 <= i * sh + u * dh - ph < height and 0 <= j * sw + v * dw - pw < width
        ]
    return (oh, ow), seen


def define_max(x: Array, geometry: dict[str, Any]) -> tuple[Array, Array]:
    """Take the largest of each window: the first of equals, a NaN above all, the last of NaNs."""
    size, seen = windows(x.shape, geometry)
    best, index = np.empty((*x.shape[:2], *size), x.dtype), np.empty((*x.shape[:2], *size), np.int64)
    for n, c, i, j in np.ndindex(best.shape):
        taken = None
        for tap, place in seen[i, j]:
            value = x[n, c][place]
            if taken is None or value > taken[1] or math.isnan(value):
                taken = (tap, value)
        assert taken is not None
        index[n, c, i, j], best[n, c, i, j] = taken
    return best, index


def define_max_gradient(grad: Array, index: Array, shape: tuple[int, ...], geometry: dict[str, Any]) -> Array:
    """Add each gradient to the element that its window took."""
    _, seen = windows(shape, geometry)
    dx = np.zeros(shape)
    for n, c, i, j in np.ndindex(grad.shape):
        dx[n, c][dict(seen[i, j])[int(index[n, c, i, j])]] += grad[n, c, i, j]
    return dx


def define_counts(shape: tuple[int, ...], geometry: dict[str, Any]) -> Array:
    """Count what each mean divides by: cells of the padded image under the window, or of the image."""
    size, seen = windows(shape, geometry)
    counts = np.empty(size)
    for i, j in np.ndindex(size):
        if geometry["count_include_pad"]:
            cells = [
                sum(-p <= start * s - p + u < length + p for u in range(k))
                for start, s, p, k, length in zip(
                    (i, j),
                    geometry["stride"],
                    geometry["padding"],
                    geometry["kernel"],
                    shape[2:],
                    strict=True,
                )
            ]
            counts[i, j] = cells[0] * cells[1]
        else:
            counts[i, j] = len(seen[i, j])
    return counts


@st.composite
def cases(draw: st.DrawFn, dilated: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Draw an image shape and a geometry that torch accepts as well."""
    kernel, stride = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(2))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if dilated else (1, 1)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    geometry = {"kernel": kernel, "stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size)
    for length, k, p, d in zip(size, kernel, padding, dilation, strict=True):
        assume(length + 2 * p >= d * (k - 1) + 1)
    if dilated:
        geometry["dilation"] = dilation
        assume(all(seen for seen in windows(shape, geometry)[1].values()))
    return shape, geometry


few_values = st.sampled_from([0.0, 1.0, -1.0, 2.0])
odd_values = st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf])


@given(case=cases(dilated=True), data=st.data(), dtype=st.sampled_from([np.float32, np.float64]))
def test_max_pool_definition(case: tuple[Any, ...], data: st.DataObject, dtype: type) -> None:
    """Oracle: the definition, exactly; few distinct values, so many ties, in some runs infinities and NaN."""
    shape, geometry = case
    values = data.draw(st.sampled_from([few_values, odd_values]))
    size = math.prod(shape)
    x = np.array(data.draw(st.lists(values, min_size=size, max_size=size)), dtype).reshape(shape)
    best, index = max_pool2d_forward(x, **geometry)
    expected, expected_index = define_max(x, geometry)
    assert best.dtype == dtype
    assert index is not None
    assert index.dtype == np.uint8
    assert np.array_equal(best, expected, equal_nan=True)
    assert np.array_equal(index, expected_index)
    alone, none = max_pool2d_forward(x, need_index=False, **geometry)
    assert none is None
    assert np.array_equal(alone, best, equal_nan=True)
    grad: Array = (
        np.arange(1.0, best.size + 1).astype(dtype).reshape(best.shape)
    )  # sums of few integers: exact
    dx = max_pool2d_backward(grad, index, shape, **geometry)
    assert dx.dtype == dtype
    assert np.array_equal(dx, define_max_gradient(grad, index, shape, geometry))


@given(case=cases(dilated=False), include=st.booleans(), seed=st.integers(0, 99))
def test_avg_pool_definition(case: tuple[Any, ...], include: bool, seed: int) -> None:
    """Oracle: the definition in float64 within a dot product's bound; and the gradient is the adjoint."""
    shape, geometry = case
    geometry = geometry | {"count_include_pad": include}
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    mean = avg_pool2d_forward(x, **geometry)
    counts = define_counts(shape, geometry)
    size, seen = windows(shape, geometry)
    expected, mass = np.zeros((*shape[:2], *size)), np.zeros((*shape[:2], *size))
    for n, c, i, j in np.ndindex(expected.shape):
        terms = [float(x[n, c][place]) / counts[i, j] for _, place in seen[i, j]]
        expected[n, c, i, j], mass[n, c, i, j] = math.fsum(terms), math.fsum(map(abs, terms))
    length = math.prod(geometry["kernel"]) + 1  # the sum and the division
    assert_bound(mean, expected, dot_bound(expected, mass, length, np.float32, np.float32), "dot_product")
    grad = rng.standard_normal(mean.shape)
    wide = x.astype(np.float64)
    inner = np.vdot(avg_pool2d_forward(wide, **geometry), grad)
    total = np.vdot(avg_pool2d_forward(np.abs(wide), **geometry), np.abs(grad))
    bound = dot_bound(inner, total, x.size * length, np.float64, np.float64)
    assert_bound(np.vdot(wide, avg_pool2d_backward(grad, shape, **geometry)), inner, bound, "dot_product")


def test_an_infinite_gradient_reaches_one_element() -> None:
    """Infinity times zero is NaN: the other elements of the window must stay zero."""
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    _, index = max_pool2d_forward(x, **TWO)
    assert index is not None
    grad = np.array([[[[np.inf, np.nan], [-np.inf, -0.0]]]], np.float32)
    dx = max_pool2d_backward(grad, index, x.shape, **TWO)
    taken = np.zeros((4, 4), np.bool_)
    taken[1::2, 1::2] = True
    assert np.array_equal(dx[0, 0][taken].reshape(2, 2), grad[0, 0], equal_nan=True)
    assert np.signbit(dx[0, 0, 3, 3])
    assert not dx[0, 0][~taken].any()


def test_wide_windows_have_a_wide_index(rng: np.random.Generator) -> None:
    """Oracle: np.argmax; 16 by 17 taps do not fit into uint8."""
    x = rng.standard_normal((40, 3, 16, 34)).astype(np.float32)
    geometry: dict[str, Any] = {"kernel": (16, 17), "stride": (16, 17), "padding": (0, 0)}
    _, index = max_pool2d_forward(x, **geometry)
    expected = x.reshape(40, 3, 16, 2, 17).transpose(0, 1, 3, 2, 4).reshape(40, 3, 2, -1).argmax(-1)
    assert index is not None
    assert index.dtype == np.uint16
    assert expected.max() > 255
    assert np.array_equal(index[:, :, 0], expected)


def test_strided_and_read_only_operands(rng: np.random.Generator) -> None:
    """Oracle: the same call on packed copies; and no operand is written to."""
    x = rng.standard_normal((9, 8, 4, 3)).astype(np.float32).transpose(3, 2, 0, 1)
    geometry = TWO | {"padding": (1, 1), "ceil_mode": True}
    best, index = max_pool2d_forward(x.copy(), **geometry)
    assert index is not None
    grad = rng.standard_normal((*best.shape, 2)).astype(np.float32)[..., 0]
    for each in (x, grad, index):
        each.flags.writeable = False
    again, index_again = max_pool2d_forward(x, **geometry)
    assert index_again is not None
    assert np.array_equal(best, again)
    assert np.array_equal(index, index_again)
    dx = max_pool2d_backward(grad, index, x.shape, **geometry)
    assert np.array_equal(dx, max_pool2d_backward(grad.copy(), index, x.shape, **geometry))
    assert np.array_equal(avg_pool2d_forward(x, **geometry), avg_pool2d_forward(x.copy(), **geometry))


def test_result_does_not_share_memory() -> None:
    """A 1 by 1 window copies; the image may change afterwards."""
    x = np.ones((1, 1, 2, 2), np.float32)
    one = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0)}
    best, _ = max_pool2d_forward(x, **one)  # type: ignore[arg-type]
    mean = avg_pool2d_forward(x, **one)  # type: ignore[arg-type]
    x[...] = 5
    assert np.array_equal(best, np.ones_like(x))
    assert np.array_equal(mean, np.ones_like(x))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": np.zeros((2, 4, 4), np.float32)}, ShapeError, r"\(2, 4, 4\)"),
        ({"x": np.zeros((1, 1, 4, 4), np.float16)}, FormatError, "float16"),
        ({"kernel": (5, 2)}, ShapeError, "no place"),
        ({"kernel": (0, 2)}, ShapeError, "no place"),
        ({"stride": (2, 0)}, ShapeError, "no place"),
        ({"padding": (2, 0)}, ShapeError, "at most half"),
        ({"padding": (0, -1)}, ShapeError, "no place"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    """Each error names the kernel and what came."""
    call = {"x": np.zeros((1, 1, 4, 4), np.float32)} | TWO | change
    x = call.pop("x")
    for kernel in (max_pool2d_forward, avg_pool2d_forward):
        with pytest.raises(error, match=rf"(?s){kernel.__name__}: .*{words}"):
            kernel(x, **call)


def test_gradients_of_another_shape_are_refused() -> None:
    """The gradient and the index must have the output's shape."""
    grad, index = np.zeros((1, 1, 2, 2), np.float32), np.zeros((1, 1, 2, 3), np.uint8)
    with pytest.raises(ShapeError, match=r"\(1, 1, 2, 2\), got \(1, 1, 2, 3\)"):
        max_pool2d_backward(grad, index, (1, 1, 4, 4), **TWO)
    with pytest.raises(ShapeError, match=r"\(1, 1, 3, 2\), got \(1, 1, 2, 2\)"):
        avg_pool2d_backward(grad, (1, 1, 6, 4), **TWO)


def _theirs(index: Array, shape: tuple[int, ...], geometry: dict[str, Any]) -> Array:
    """Turn taps into torch's flat positions in the image."""
    _, seen = windows(shape, geometry)
    flat = np.empty(index.shape, np.int64)
    for n, c, i, j in np.ndindex(index.shape):
        y, x = dict(seen[i, j])[int(index[n, c, i, j])]
        flat[n, c, i, j] = y * shape[3] + x
    return flat


@pytest.mark.torch
@given(case=cases(dilated=True), values=st.sampled_from(["few", "odd"]), seed=st.integers(0, 99))
def test_max_pool_torch_parity(case: tuple[Any, ...], values: str, seed: int) -> None:
    """Oracle: torch 2.13.0 on a CPU, values and indices exactly, NaN, infinities and ties included."""
    torch = pytest.importorskip("torch")
    shape, geometry = case
    choices = {"few": [0.0, 1.0, -1.0, 2.0], "odd": [0.0, 1.0, np.nan, np.inf, -np.inf]}[values]
    x = np.random.default_rng(seed).choice(choices, shape).astype(np.float32)
    best, index = max_pool2d_forward(x, **geometry)
    assert index is not None
    their_names = {"kernel": "kernel_size"}
    options = {their_names.get(name, name): value for name, value in geometry.items()}
    expected, positions = torch.nn.functional.max_pool2d(torch.from_numpy(x), return_indices=True, **options)
    assert np.array_equal(best, expected.numpy(), equal_nan=True)
    assert np.array_equal(_theirs(index, shape, geometry), positions.numpy())


@pytest.mark.torch
@given(case=cases(dilated=False), include=st.booleans(), seed=st.integers(0, 99))
def test_avg_pool_torch_parity(case: tuple[Any, ...], include: bool, seed: int) -> None:
    """Oracle: torch 2.13.0 on a CPU, float32, forward and gradient."""
    torch = pytest.importorskip("torch")
    shape, geometry = case
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_()
    expected = torch.nn.functional.avg_pool2d(
        x, geometry["kernel"], geometry["stride"], geometry["padding"], geometry["ceil_mode"], include
    )
    mean = avg_pool2d_forward(x.detach().numpy(), count_include_pad=include, **geometry)
    assert_close(mean, expected.detach().numpy(), "parity_op_fp32")
    grad = rng.standard_normal(mean.shape).astype(np.float32)
    expected.backward(torch.from_numpy(grad))
    dx = avg_pool2d_backward(grad, shape, count_include_pad=include, **geometry)
    assert_close(dx, x.grad.numpy(), "parity_gradient_fp32")
