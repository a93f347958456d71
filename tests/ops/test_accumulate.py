"""`mp.accumulate(NAME)` in the engine: each op and gradient, bit for bit beside plain scalars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, ops
from minimp.errors import SettingError
from tests.arrays import host
from tests.ops.samples import numbers
from tests.ops.sums import (
    WAYS,
    forward_terms,
    gathered,
    input_terms,
    out_size,
    products,
    sums,
    to,
    weight_terms,
)

f32 = np.float32
NAMES = list(WAYS)
SUMMING = [name for name in NAMES if not name.startswith("tensorcore:")]
PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
GEOMETRIES = {
    "plain": ((2, 2, 4, 3), (3, 2, 2, 2), PLAIN),
    "padded": ((2, 2, 3, 3), (2, 2, 3, 3), PLAIN | {"padding": (1, 2)}),
    "strided": ((1, 2, 6, 5), (4, 1, 3, 2), PLAIN | {"stride": (2, 3), "padding": (1, 0), "groups": 2}),
    "dilated": ((2, 1, 5, 6), (2, 1, 2, 3), PLAIN | {"dilation": (2, 1), "stride": (1, 2)}),
    "far_padding": ((1, 1, 2, 2), (1, 1, 1, 2), PLAIN | {"padding": (2, 2), "stride": (2, 1)}),
}


def formats_for(name: str) -> tuple[str, ...]:
    """The formats whose products a name can add."""
    if name in ("tensorcore:volta", "tensorcore:turing"):
        return ("float16",)
    return ("float16", "bfloat16" if name.startswith("tensorcore:") else "float32")


def draw(shape: tuple[int, ...], fmt: str, seed: int) -> np.ndarray[Any, Any]:
    """Values of a format over a few binades, so that sums lose bits; a few zeros."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * 2.0 ** random.integers(-3, 4, shape) * (random.random(shape) > 0.1)
    return mp.formats.round(x, fmt)


def leaf(x: Any, fmt: str) -> mp.Tensor:
    """A tensor that wants a gradient."""
    return mp.tensor(x, dtype=fmt, requires_grad=True)


def by_backend(function: str, x: Any) -> Any:
    """Return a function of float32 numbers as the array library under test computes it, whose own it is."""
    backend = mp.tensor([0.0]).backend
    return backend.to_host(getattr(backend.xp, function)(backend.from_host(x)))


def same(got: Any, wanted: Any, fmt: str) -> None:
    """Equal bits, once the wanted wide values are rounded to the format."""
    got, wanted = host(got.detach() if isinstance(got, mp.Tensor) else got), to(fmt, wanted)
    np.testing.assert_array_equal(got.astype(np.float64), wanted.astype(np.float64))


EVERY = [(name, fmt) for name in NAMES for fmt in formats_for(name)]


@pytest.mark.parametrize(("name", "fmt"), EVERY)
def test_products_and_their_gradients(name: str, fmt: str) -> None:
    """Oracle: scalar sums, k ascending; the bias joins the finished sum."""
    x, w, b, g = (draw(s, fmt, i) for i, s in enumerate([(3, 37), (4, 37), (4,), (3, 4)]))
    left, right, bias = leaf(x, fmt), leaf(w, fmt), leaf(b, fmt)
    with mp.accumulate(name):
        y = functional.linear(left, right, bias)
        bare = ops.matmul(left.detach(), mp.tensor(w.T, dtype=fmt))
    y.backward(g)
    dots = products(name, x, w.T)
    same(bare, dots, fmt)
    same(y, dots + b.astype(dots.dtype), fmt)
    same(left.grad, products(name, g, w), fmt)
    same(right.grad, products(name, g.T, x), fmt)
    if name in SUMMING:
        same(bias.grad, sums(name, g, (0,))[0], fmt)


@pytest.mark.parametrize("kind", list(GEOMETRIES))
@pytest.mark.parametrize(("name", "fmt"), EVERY)
def test_convolutions_and_their_gradients(name: str, fmt: str, kind: str) -> None:
    """Oracle: the terms of the definition in their stated order, zeros of padding and strides included."""
    shape, filters, geometry = GEOMETRIES[kind]
    x, w, b = draw(shape, fmt, 1), draw(filters, fmt, 2), draw(filters[:1], fmt, 3)
    out = (shape[0], filters[0], *out_size(shape, filters, geometry))
    g = draw(out, fmt, 4)
    image, weight, bias = leaf(x, fmt), leaf(w, fmt), leaf(b, fmt)
    with mp.accumulate(name):
        y = functional.conv2d(image, weight, bias, **geometry)
    y.backward(g)
    dots = gathered(name, forward_terms(x, w, geometry), out)
    same(y, dots + b[:, None, None].astype(dots.dtype), fmt)
    same(image.grad, gathered(name, input_terms(g, w, shape, geometry), shape), fmt)
    same(weight.grad, gathered(name, weight_terms(x, g, filters, geometry), filters), fmt)
    if name in SUMMING:
        same(bias.grad, sums(name, g, (0, 2, 3)).reshape(-1), fmt)


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", SUMMING)
def test_sums_and_means(name: str, fmt: str) -> None:
    """Oracle: scalar sums in C order over the axes; a mean divides the finished sum."""
    x = draw((3, 5, 4), fmt, 5)
    with mp.accumulate(name):
        t = mp.tensor(x, dtype=fmt)
        same(t.sum(), sums(name, x, (0, 1, 2)).reshape(()), fmt)
        same(t.sum((2, 0)), sums(name, x, (0, 2)).reshape(5), fmt)
        same(t.sum(1, keepdim=True), sums(name, x, (1,)), fmt)
        same(t.mean((0, 1)), sums(name, x, (0, 1)).reshape(4) / 15, fmt)
        same(t.sum(1, dtype="float32"), sums(name, x, (1,))[:, 0], "float32")
        row = leaf(x[0, 0], fmt)
        (row + t).backward(x)  # a gradient summed over a broadcast
    same(row.grad, sums(name, x, (0, 1)).reshape(4), fmt)


@pytest.mark.parametrize("fmt", ["float16", "float32"])
@pytest.mark.parametrize("name", SUMMING)
def test_softmax_and_its_gradient(name: str, fmt: str) -> None:
    """Oracle: the docstrings' formulas in float32, with scalar sums."""
    x, g = draw((3, 7), fmt, 6), draw((3, 7), fmt, 7)
    shifted = x.astype(np.float32) - x.max(axis=1, keepdims=True).astype(np.float32)
    e, up = by_backend("exp", shifted), g.astype(np.float32)
    total = sums(name, e, (1,))
    soft, logs = leaf(x, fmt), leaf(x, fmt)
    with mp.accumulate(name):
        y, z = functional.softmax(soft), functional.log_softmax(logs)
    y.backward(g)
    z.backward(g)
    same(y, e / total, fmt)
    same(z, shifted - by_backend("log", total), fmt)
    kept, held = (host(t.detach()).astype(np.float32) for t in (y, z))
    same(soft.grad, kept * (up - sums(name, up * kept, (1,))), fmt)
    same(logs.grad, up - by_backend("exp", held) * sums(name, g, (1,)), fmt)


@pytest.mark.parametrize("name", SUMMING)
def test_losses(name: str) -> None:
    """Oracle: the terms in float32, summed in scalars: over classes, then over rows; the weights too."""
    x, t = draw((5, 4), "float32", 8).astype(np.float32), draw((5, 4), "float32", 9).astype(np.float32)
    labels, weight = np.array([0, 3, -100, 1, 1]), np.array([0.3, 1.1, 2.0, 0.77], np.float32)
    with mp.accumulate(name):
        error = functional.mse_loss(mp.tensor(x), mp.tensor(t))
        summed = functional.mse_loss(mp.tensor(x), mp.tensor(t), reduction="sum")
        picked = functional.nll_loss(mp.tensor(x), labels, mp.tensor(weight))
        smoothed = ops.nll_loss(mp.tensor(x), labels, reduction="none", label_smoothing=0.5)
    squares = (x - t) * (x - t)
    total = sums(name, squares, (0, 1)).reshape(())
    same(summed, total, "float32")
    same(error, total / total.dtype.type(20), "float32")
    share = np.where(labels[:, None] == np.arange(4), weight, f32(0))
    rows = -sums(name, share * x, (1,))[:, 0]
    count = sums(name, np.where(labels >= 0, weight[labels % 100], f32(0)), (0,))[0]
    same(picked, _over(name, rows, count), "float32")
    share = np.where(labels[:, None] == np.arange(4), f32(0.625), f32(0.125)) * (labels >= 0)[:, None]
    same(smoothed, -sums(name, share * x, (1,))[:, 0], "float32")


def _over(name: str, rows: Any, count: Any) -> Any:
    """The sum of the rows over the sum of the weights, in what they were handed on in."""
    total = sums(name, rows, (0,))[0]
    return total / total.dtype.type(count)


@pytest.mark.parametrize("name", SUMMING)
def test_pooling_and_its_gradients(name: str) -> None:
    """Oracle: each window's elements row by row, padding as 0; and the shares that meet in an element."""
    x = draw((2, 2, 4, 5), "float16", 10)
    g = draw((2, 2, 2, 3), "float16", 11)
    mean, most = leaf(x, "float16"), leaf(x, "float16")
    with mp.accumulate(name):
        y = functional.avg_pool2d(mean, 3, 2, 1)
        z = functional.max_pool2d(most, 3, 2, 1)
    y.backward(g)
    z.backward(g)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    same(y, sums(name, windows, (4, 5))[..., 0, 0] / 9, "float16")
    share = g.astype(np.float32) / np.float32(9)
    same(mean.grad, _scattered(name, x.shape, lambda index, _: float(share[index])), "float16")
    framed = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    seen = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    first = seen.reshape(*g.shape, 9).argmax(axis=-1)
    taken = _scattered(name, x.shape, lambda index, tap: float(g[index]) if first[index] == tap else 0.0)
    same(most.grad, taken, "float16")


def _scattered(name: str, shape: tuple[int, ...], given: Callable[[tuple[int, ...], int], float]) -> Any:
    """What each element gets from the windows of 3, stride 2, padding 1 that it is in, tap by tap."""
    found = np.empty(shape, np.float64 if name == "exact" else np.float32)
    for n, c, y, x in np.ndindex(shape):
        terms = []
        for tap in range(9):
            (i, odd_i), (j, odd_j) = divmod(y + 1 - tap // 3, 2), divmod(x + 1 - tap % 3, 2)
            inside = not odd_i and not odd_j and 0 <= i < 2 and 0 <= j < 3
            terms.append(given((n, c, i, j), tap) if inside else 0.0)
        found[n, c, y, x] = WAYS[name](terms, [1.0] * 9)
    return found


@pytest.mark.parametrize("name", SUMMING)
def test_elements_taken_several_times(name: str) -> None:
    """Oracle: what meets in a row, summed in scalars in the order in which it was taken; alone, as it is."""
    index = np.array([4, 0, 2, 0, 0, 2, 0, 0, 0])
    g = draw((9, 3), "float32", 12)
    table = leaf(np.zeros((6, 3)), "float32")
    with mp.accumulate(name):
        table[index].backward(g)
    for row in range(6):
        met = g[index == row]
        wanted = sums(name, met, (0,))[0] if len(met) > 1 else (met[0] if len(met) else np.zeros(3))
        np.testing.assert_array_equal(table.grad.numpy()[row], np.asarray(wanted, np.float32))


def test_float64_sums_are_float64s_everywhere() -> None:
    """Oracle: NumPy's float64 sums of the same float32 terms, rounded once at the end."""
    x = draw((2, 2, 8, 8), "float32", 15)
    wide, y = x.astype(np.float64), leaf(x, "float32")
    e = by_backend("exp", x.astype(f32) - x.max(axis=-1, keepdims=True).astype(f32))
    with mp.accumulate("float64"):
        same(functional.softmax(y), e / e.sum(-1, keepdims=True, dtype=np.float64), "float32")
        same(y.mean(0), wide.mean(0), "float32")
        pooled = functional.avg_pool2d(y, 8, 1)
        same(pooled, wide.mean((2, 3), keepdims=True), "float32")
        table = leaf(np.zeros((1, 4)), "float32")
        table[np.zeros(64, int)].backward(x.reshape(64, 4))
        same(table.grad, wide.reshape(64, 4).sum(0, keepdims=True), "float32")


def test_the_exact_sum_is_rounded_once() -> None:
    """Oracle: 1 + 2^-24 + 2^-80 lies above a tie of float32; through float64 it would round to 1."""
    x = mp.tensor(np.array([[1.0, 2.0**-24, 2.0**-80]], np.float32))
    with mp.accumulate("exact"):
        assert (x @ mp.tensor(np.ones((3, 1), np.float32))).item() == 1 + 2.0**-23
        assert x.sum().item() == 1 + 2.0**-23


@pytest.mark.parametrize("op", [ops.matmul, functional.linear, functional.conv2d])
@pytest.mark.parametrize(
    ("name", "fmt", "words"),
    [
        ("tensorcore:volta", "float32", "tensorcore:volta: multiplies float16, got float32.*\n.*help"),
        ("tensorcore:volta", "bfloat16", "got bfloat16"),
        ("tensorcore:hopper", "float32", "got float32"),
        ("tensorcore:ampere", "float64", "cannot hold float64"),
        ("kahan", "float64", r"sums in float32, which cannot hold float64.*\n.*mp.accumulate\(\"float64\"\)"),
        ("float16", "float64", "sums in float16"),
    ],
)
def test_a_name_that_cannot_act_on_products_raises(op: Any, name: str, fmt: str, words: str) -> None:
    """Oracle: the docstring of mp.accumulate."""
    a = mp.tensor(np.ones((2, 2, 2, 2) if op is functional.conv2d else (2, 2)), dtype=fmt)
    with mp.accumulate(name), pytest.raises(SettingError, match=words):
        op(a, a)


@pytest.mark.parametrize("call", [lambda x: x.sum(), lambda x: x.mean(0), functional.softmax])
def test_a_name_that_cannot_act_on_sums_raises(call: Any) -> None:
    """Oracle: the docstring: narrower names do not take float64 terms; a matrix unit leaves them alone."""
    x = mp.tensor(np.ones((2, 2)), dtype="float64")
    with mp.accumulate("pairwise"), pytest.raises(SettingError, match="cannot hold float64"):
        call(x)
    with mp.accumulate("tensorcore:volta"):
        assert call(x).format is mp.float64


@pytest.mark.parametrize("fmt", ["float16", "float32"])
def test_a_matrix_unit_leaves_sums_to_float32(fmt: str) -> None:
    """Oracle: the same ops under "float32", bit for bit."""
    x = mp.tensor(draw((6, 50), fmt, 13), dtype=fmt)

    def run() -> list[np.ndarray[Any, Any]]:
        row = leaf(draw((50,), fmt, 14), fmt)
        found = [x.sum(1), x.mean(), functional.softmax(x), functional.mse_loss(x, x * 0.5)]
        (x * row).backward(np.ones((6, 50)))
        return [host(t.detach()) for t in (*found, row.grad)]

    plain = run()
    with mp.accumulate("tensorcore:hopper"):
        for a, b in zip(run(), plain, strict=True):
            np.testing.assert_array_equal(a, b)


def _network(kind: str) -> mp.nn.Module:
    mp.manual_seed(4)
    if kind == "mlp":
        return mp.nn.Sequential(mp.nn.Linear(64, 16), mp.nn.ReLU(), mp.nn.Linear(16, 5))
    return mp.nn.Sequential(
        mp.nn.Conv2d(1, 3, 3, padding=1), mp.nn.ReLU(), mp.nn.AvgPool2d(3, 2, 1), mp.nn.Conv2d(3, 4, 2),
        mp.nn.MaxPool2d(2, 1), mp.nn.Flatten(), mp.nn.Linear(16, 5),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("name", ["float32", "float64", *NAMES])
def test_a_whole_training_step_keeps_its_contracts(name: str, kind: str) -> None:
    """Oracle: the stages' own checks, whose bounds follow the name; float32 and the name share the start."""
    model = _network(kind)
    recipe = mp.recipes["mixed-fp16"].with_(accumulate=name)
    scaler = mp.GradScaler(init_scale=256.0)
    sgd = mp.optim.SGD(model.parameters(), lr=0.1)
    step = mp.TrainStep(model, functional.cross_entropy, sgd, recipe, scaler=scaler)
    x = numbers(np.random.default_rng(1), (6, 64), "float32").reshape(
        (6, 64) if kind == "mlp" else (6, 1, 8, 8)
    )
    for stage in step.stages(x.astype(np.float32), np.arange(6) % 5):
        found = stage.check()
        assert found, f"{name}, {stage.name}: {found}"
        assert all(event.node.accumulate == name for event in stage.events if event.node.op.name == "linear")
