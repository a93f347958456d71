"""Convolution and its gradients. Oracle: the definition, element by element in float64."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minimp.errors import FormatError, ShapeError
from minimp_backends import columns
from minimp_backends.convolution import conv2d_forward, conv2d_input_gradient, conv2d_weight_gradient
from tests.tolerances import assert_bound, assert_close, dot_bound

Array = NDArray[Any]
PLAIN: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


def meetings(
    input_shape: tuple[int, ...], weight_shape: tuple[int, ...], geometry: dict[str, Any]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """Yield the index triples (output, input, weight) that the definition multiplies."""
    images, channels, height, width = input_shape
    filters, depth, kh, kw = weight_shape
    (sh, sw), (ph, pw), (dh, dw) = (geometry[name] for name in ("stride", "padding", "dilation"))
    oh = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    ow = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    for n, o, i, j in itertools.product(range(images), range(filters), range(oh), range(ow)):
        first = o // (filters // geometry["groups"]) * depth
        for c, u, v in itertools.product(range(depth), range(kh), range(kw)):
            y, x = i * sh + u * dh - ph, j * sw + v * dw - pw
            if 0 <= y < height and 0 <= x < width:
                yield (n, o, i, j), (n, first + c, y, x), (o, c, u, v)
    assert channels == depth * geometry["groups"]


class Definition:
    """The three kernels by the definition, in float64, with what their error bounds need."""

    def __init__(self, x: Array, weight: Array, out_shape: tuple[int, ...], geometry: dict[str, Any]) -> None:
        self.x, self.weight, self.out_shape = x.astype(np.float64), weight.astype(np.float64), out_shape
        self.triples = list(meetings(x.shape, weight.shape, geometry))

    def _sum(self, left: Array, right: Array, at: int, a: int, b: int, shape: tuple[int, ...]) -> Array:
        total = np.zeros(shape)
        for triple in self.triples:
            total[triple[at]] += left[triple[a]] * right[triple[b]]
        return total

    def check(self, kind: str, actual: Array, left: Array, right: Array) -> None:
        """Hold a kernel's result to the definition, within the bound of a dot product."""
        at, a, b, shape = {
            "forward": (0, 1, 2, self.out_shape),
            "input": (1, 0, 2, self.x.shape),
            "weight": (2, 0, 1, self.weight.shape),
        }[kind]
        left, right = left.astype(np.float64), right.astype(np.float64)
        expected = self._sum(left, right, at, a, b, shape)
        mass = self._sum(np.abs(left), np.abs(right), at, a, b, shape)
        length = max(1, len(self.triples))
        assert actual.shape == shape
        bound = dot_bound(expected, mass, length, actual.dtype, actual.dtype)
        assert_bound(actual, expected, bound, "dot_product")


def check_all(x: Array, weight: Array, geometry: dict[str, Any], rng: np.random.Generator) -> None:
    """Hold the three kernels to the definition."""
    y = conv2d_forward(x, weight, None, **geometry)
    grad = rng.standard_normal(y.shape).astype(x.dtype)
    dx = conv2d_input_gradient(grad, weight, x.shape, **geometry)
    dw = conv2d_weight_gradient(x, grad, weight.shape, **geometry)
    assert {y.dtype, dx.dtype, dw.dtype} == {x.dtype}
    oracle = Definition(x, weight, y.shape, geometry)
    oracle.check("forward", y, x, weight)
    oracle.check("input", dx, grad, weight)
    oracle.check("weight", dw, grad, x)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Draw an input shape, a weight shape and a geometry that fit together."""
    groups = draw(st.integers(1, 3))
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    depth, filters = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    size = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    for length, k, p, d in zip(size, kernel, padding, dilation, strict=True):
        assume(length + 2 * p >= d * (k - 1) + 1)
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (draw(st.integers(1, 3)), groups * depth, *size), (filters, depth, *kernel), geometry


@given(case=cases(), dtype=st.sampled_from([np.float32, np.float64]), seed=st.integers(0, 99))
def test_definition(case: tuple[Any, ...], dtype: type, seed: int) -> None:
    """Oracle: the definition in float64, within the bound of a dot product; every small geometry."""
    input_shape, weight_shape, geometry = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(input_shape).astype(dtype)
    check_all(x, rng.standard_normal(weight_shape).astype(dtype), geometry, rng)


@pytest.mark.parametrize("few", [0, 1000])
@pytest.mark.parametrize("column_bytes", [1, 700, 3000, 1 << 20])
@given(case=cases())
def test_tiles(column_bytes: int, few: int, case: tuple[Any, ...]) -> None:
    """Oracle: the definition; whatever the tiles: single rows, part of the batch, images side by side."""
    input_shape, weight_shape, geometry = case
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, *input_shape[1:])).astype(np.float32)
    weight = rng.standard_normal(weight_shape).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("COLUMN_BYTES", column_bytes),
            ("SIDE_BY_SIDE_BYTES", 4 * column_bytes),
            ("FEW_POSITIONS", few),
        ):
            patch.setattr(columns, name, value)
        check_all(x, weight, geometry, rng)


@pytest.mark.parametrize(
    ("input_shape", "weight_shape", "geometry"),
    [
        ((9, 1, 28, 28), (8, 1, 3, 3), PLAIN),
        ((5, 32, 26, 26), (16, 32, 3, 3), PLAIN),
        ((40, 16, 4, 4), (24, 16, 3, 3), PLAIN | {"padding": (1, 1)}),
        ((3, 6, 150, 40), (9, 2, 5, 3), PLAIN | {"stride": (2, 1), "padding": (2, 0), "groups": 3}),
        ((2, 12, 31, 29), (12, 1, 3, 3), PLAIN | {"padding": (2, 2), "dilation": (2, 2), "groups": 12}),
        ((4, 20, 17, 17), (30, 20, 1, 1), PLAIN),
    ],
)
def test_gradients_are_adjoints(
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    geometry: dict[str, Any],
    rng: np.random.Generator,
) -> None:
    """Law: <conv(x, w), g> = <x, dx(g, w)> = <w, dw(x, g)> in float64, at the sizes of real layers."""
    x, weight = rng.standard_normal(input_shape), rng.standard_normal(weight_shape)
    y = conv2d_forward(x, weight, None, **geometry)
    grad = rng.standard_normal(y.shape)
    dx = conv2d_input_gradient(grad, weight, input_shape, **geometry)
    dw = conv2d_weight_gradient(x, grad, weight_shape, **geometry)
    mass = np.vdot(conv2d_forward(np.abs(x), np.abs(weight), None, **geometry), np.abs(grad))
    expected = np.vdot(y, grad)
    bound = dot_bound(expected, mass, y.size * weight[0].size, np.float64, np.float64)
    assert_bound(np.vdot(x, dx), expected, bound, "dot_product")
    assert_bound(np.vdot(weight, dw), expected, bound, "dot_product")


@pytest.mark.parametrize("few", [0, 1000])
def test_bias(few: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the result without bias, plus the bias: one float32 addition, so bit for bit."""
    monkeypatch.setattr(columns, "FEW_POSITIONS", few)
    geometry = PLAIN | {"groups": 2}
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4, 6, 5), (6, 2, 3, 3)))
    bias = rng.standard_normal(6).astype(np.float32)
    expected = conv2d_forward(x, weight, None, **geometry) + bias[:, None, None]
    assert np.array_equal(conv2d_forward(x, weight, bias, **geometry), expected)


def test_strided_and_read_only_operands(rng: np.random.Generator) -> None:
    """Oracle: the same call on packed copies, bit for bit; and no operand is written to."""
    geometry = PLAIN | {"padding": (1, 1), "stride": (2, 1)}
    x = rng.standard_normal((9, 7, 4, 3)).astype(np.float32).transpose(3, 2, 0, 1)
    weight = rng.standard_normal((3, 3, 4, 10)).astype(np.float32)[..., ::2].T.swapaxes(2, 3)
    y = conv2d_forward(x.copy(), weight.copy(), None, **geometry)
    grad = rng.standard_normal((*y.shape, 2)).astype(np.float32)[..., 0]
    for each in (x, weight, grad):
        each.flags.writeable = False
    assert np.array_equal(conv2d_forward(x, weight, None, **geometry), y)
    assert np.array_equal(
        conv2d_input_gradient(grad, weight, x.shape, **geometry),
        conv2d_input_gradient(grad.copy(), weight.copy(), x.shape, **geometry),
    )
    assert np.array_equal(
        conv2d_weight_gradient(x, grad, weight.shape, **geometry),
        conv2d_weight_gradient(x.copy(), grad.copy(), weight.shape, **geometry),
    )


def test_no_images() -> None:
    """An empty batch gives empty results and a weight gradient of zeros."""
    x, weight = np.zeros((0, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
    y = conv2d_forward(x, weight, None, **PLAIN)
    assert y.shape == (0, 3, 3, 3)
    assert conv2d_input_gradient(y, weight, x.shape, **PLAIN).shape == x.shape
    assert not conv2d_weight_gradient(x, y, weight.shape, **PLAIN).any()


def test_columns_stay_small(rng: np.random.Generator) -> None:
    """Beside the result, at most two tiles of columns are held; all columns at once would be 9 times x."""
    x = rng.standard_normal((64, 16, 40, 40)).astype(np.float32)
    weight = rng.standard_normal((8, 16, 3, 3)).astype(np.float32)
    y = conv2d_forward(x, weight, None, **PLAIN)
    room = 2 * columns.COLUMN_BYTES
    assert 9 * x.nbytes > 4 * room
    kernels: tuple[tuple[Callable[[], Array], int], ...] = (
        (lambda: conv2d_forward(x, weight, None, **PLAIN), y.nbytes),
        (lambda: conv2d_input_gradient(y, weight, x.shape, **PLAIN), x.nbytes),
        (lambda: conv2d_weight_gradient(x, y, weight.shape, **PLAIN), weight.nbytes),
    )
    for kernel, result in kernels:
        tracemalloc.start()
        kernel()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < result + room


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"x": np.zeros((2, 4, 5), np.float32)}, ShapeError, "do not fit together"),
        ({"x": np.zeros((2, 3, 5, 5), np.float32)}, ShapeError, r"\(2, 3, 5, 5\)"),
        ({"weight": np.zeros((6, 4, 3, 3), np.float16)}, FormatError, "float16"),
        ({"weight": np.zeros((6, 4, 3, 3))}, FormatError, "float32, float64"),
        ({"groups": 3}, ShapeError, "3 groups"),
        ({"groups": 0}, ShapeError, "0 groups"),
        ({"groups": 4, "weight": np.zeros((6, 1, 3, 3), np.float32)}, ShapeError, "4 groups"),
        ({"weight": np.zeros((6, 4, 6, 3), np.float32)}, ShapeError, "no place"),
        ({"stride": (0, 1)}, ShapeError, "no place"),
        ({"padding": (0, -1)}, ShapeError, "no place"),
        ({"dilation": (1, 3)}, ShapeError, "no place"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], error: type[Exception], words: str) -> None:
    """Each error names the kernel and what came."""
    call = {"x": np.zeros((2, 4, 5, 5), np.float32), "weight": np.zeros((6, 4, 3, 3), np.float32)} | PLAIN
    call |= change
    with pytest.raises(error, match=rf"(?s)conv2d_forward: .*{words}"):
        conv2d_forward(call.pop("x"), call.pop("weight"), None, **call)


def test_gradients_of_another_shape_are_refused() -> None:
    """The gradient must have the output's shape: a wrong stride would otherwise pass unseen."""
    x, weight = np.zeros((2, 4, 5, 5), np.float32), np.zeros((6, 4, 3, 3), np.float32)
    grad = np.zeros((2, 6, 2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"\(2, 6, 3, 3\), got \(2, 6, 2, 3\)"):
        conv2d_weight_gradient(x, grad, weight.shape, **PLAIN)
    with pytest.raises(ShapeError, match=r"\(2, 6, 3, 3\), got \(2, 6, 2, 3\)"):
        conv2d_input_gradient(grad, weight, x.shape, **PLAIN)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("input_shape", "weight_shape", "geometry"),
    [
        ((8, 1, 28, 28), (32, 1, 3, 3), PLAIN),
        ((8, 32, 26, 26), (64, 32, 3, 3), PLAIN),
        ((16, 8, 8, 8), (16, 8, 3, 3), PLAIN | {"padding": (1, 1)}),
        (
            (2, 6, 19, 23),
            (8, 3, 5, 3),
            {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1), "groups": 2},
        ),
    ],
)
def test_torch_parity(
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    geometry: dict[str, Any],
    rng: np.random.Generator,
) -> None:
    """Oracle: torch 2.13.0 on a CPU, float32, forward and both gradients."""
    torch = pytest.importorskip("torch")
    x, weight = (rng.standard_normal(each).astype(np.float32) for each in (input_shape, weight_shape))
    bias = rng.standard_normal(weight_shape[0]).astype(np.float32)
    theirs = [torch.from_numpy(each).requires_grad_() for each in (x, weight)]
    expected = torch.nn.functional.conv2d(*theirs, torch.from_numpy(bias), **geometry)
    grad = rng.standard_normal(expected.shape).astype(np.float32)
    expected.backward(torch.from_numpy(grad))
    assert_close(conv2d_forward(x, weight, bias, **geometry), expected.detach().numpy(), "parity_op_fp32")
    dx = conv2d_input_gradient(grad, weight, x.shape, **geometry)
    assert_close(dx, theirs[0].grad.numpy(), "parity_gradient_fp32")
    dw = conv2d_weight_gradient(x, grad, weight.shape, **geometry)
    assert_close(dw, theirs[1].grad.numpy(), "parity_gradient_fp32")
