"""The float64 references; oracle: torch 2.13.0 in float64, and definitions spelled out in loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minimp.checks.reference import REFERENCE, pool_counts, windows
from tests.tolerances import assert_close

RANDOM = np.random.default_rng(11)
IMAGES, FILTERS = RANDOM.standard_normal((2, 4, 7, 6)), RANDOM.standard_normal((6, 2, 3, 2))
X, Y = RANDOM.standard_normal((7, 5)), RANDOM.standard_normal((7, 5))
LABELS, WEIGHT = np.array([0, 3, 4, -100, 1, 2, 2]), RANDOM.uniform(0.5, 2, 5)
LOG_P = X - np.log(np.exp(X).sum(1, keepdims=True))


def _torch(call: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    torch = pytest.importorskip("torch")
    inputs = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in arrays]
    return call(torch, *inputs, **options).numpy()


CONVOLUTIONS = [
    {"stride": (2, 1), "padding": (1, 2), "groups": 2},
    {"stride": (1, 1), "padding": (0, 0), "dilation": (2, 3), "groups": 2},
]
POOLS = [
    {"kernel": (3, 2), "stride": (2, 2), "padding": (1, 1), "ceil_mode": False},
    {"kernel": (3, 3), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True},
    {"kernel": (2, 2), "stride": (3, 3), "padding": (1, 1), "ceil_mode": True},
]


@pytest.mark.torch
@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_conv2d(options: dict[str, Any]) -> None:
    """Oracle: torch.nn.functional.conv2d in float64."""
    got = REFERENCE["conv2d"](IMAGES, FILTERS, np.arange(6.0), **options)
    wanted = _torch(
        lambda t, *a, **o: t.nn.functional.conv2d(*a, **o), IMAGES, FILTERS, np.arange(6.0), **options
    )
    assert_close(got, wanted, "fp64_sums")


@pytest.mark.torch
@pytest.mark.parametrize("options", POOLS)
def test_pooling(options: dict[str, Any]) -> None:
    """Oracle: torch.nn.functional.max_pool2d and avg_pool2d in float64, ceil_mode and padding too."""
    names = {"kernel_size": options["kernel"], "stride": options["stride"], "padding": options["padding"]}
    ceil = {"ceil_mode": options["ceil_mode"]}
    largest = _torch(lambda t, a: t.nn.functional.max_pool2d(a, **names, **ceil), IMAGES)
    np.testing.assert_array_equal(REFERENCE["max_pool2d"](IMAGES, **options), largest)
    for counted in (True, False):
        mean = _torch(
            lambda t, a, c=counted: t.nn.functional.avg_pool2d(a, **names, **ceil, count_include_pad=c),
            IMAGES,
        )
        got = REFERENCE["avg_pool2d"](IMAGES, **options, count_include_pad=counted)
        assert_close(got, mean, "fp64_sums")


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "exp": lambda t, x: t.exp(x),
    "log": lambda t, x: t.log(x.abs()),
    "tanh": lambda t, x: t.tanh(x),
    "sigmoid": lambda t, x: t.sigmoid(x),
    "gelu": lambda t, x: t.nn.functional.gelu(x),
    "relu": lambda t, x: t.relu(x),
    "softmax": lambda t, x: t.softmax(x, -1),
    "log_softmax": lambda t, x: t.log_softmax(x, -1),
    "amax": lambda t, x: t.amax(x),
    "mean": lambda t, x: t.mean(x),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", list(ELEMENTWISE))
def test_functions(name: str) -> None:
    """Oracle: torch's function in float64."""
    x = np.abs(X) if name == "log" else X
    assert_close(REFERENCE[name](x), _torch(ELEMENTWISE[name], x), "fp64_sums")
    assert_close(
        REFERENCE["gelu"](X, approximate="tanh"),
        _torch(lambda t, x: t.nn.functional.gelu(x, approximate="tanh"), X),
        "fp64_sums",
    )


@pytest.mark.torch
@pytest.mark.parametrize("how", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses(how: str, smoothing: float) -> None:
    """Oracle: torch's cross_entropy with class weights, an ignored label and smoothing; and mse_loss."""
    got = REFERENCE["nll_loss"](LOG_P, LABELS, WEIGHT, reduction=how, label_smoothing=smoothing)
    wanted = _torch(
        lambda t, x, y, w: t.nn.functional.cross_entropy(
            x, y, weight=w, reduction=how, label_smoothing=smoothing
        ),
        X, LABELS, WEIGHT,
    )  # fmt: skip
    assert_close(got, wanted, "fp64_sums")
    squares = _torch(lambda t, x, y: t.nn.functional.mse_loss(x, y, reduction=how), X, Y)
    assert_close(REFERENCE["mse_loss"](X, Y, reduction=how), squares, "fp64_sums")


def test_matmul_and_linear_by_loops() -> None:
    """Oracle: the sums of their docstrings, one product at a time, in every combination of ranks."""
    a, b = RANDOM.standard_normal((2, 3, 4)), RANDOM.standard_normal((2, 4, 5))
    by_hand = np.zeros((2, 3, 5))
    for i, m, n in itertools.product(*map(range, by_hand.shape)):
        by_hand[i, m, n] = math.fsum(a[i, m, k] * b[i, k, n] for k in range(4))
    assert_close(REFERENCE["matmul"](a, b), by_hand, "fp64_sums")
    assert_close(REFERENCE["matmul"](a[0, 1], b[0]), by_hand[0, 1], "fp64_sums")
    assert_close(REFERENCE["matmul"](a[0], b[0][:, 2]), by_hand[0, :, 2], "fp64_sums")
    assert_close(REFERENCE["matmul"](a[0, 1], b[0][:, 2]), by_hand[0, 1, 2], "fp64_sums")
    assert_close(REFERENCE["linear"](a, b[0].T, np.ones(5)), a @ b[0] + 1, "fp64_sums")


def test_windows_are_what_they_say() -> None:
    """Oracle: element (i, j; u, v) of a window is x[s i + d u, s j + d v]."""
    seen = windows(IMAGES, (2, 3), (2, 1), (3, 2))
    for i, j, u, v in itertools.product(*map(range, seen.shape[2:])):
        np.testing.assert_array_equal(seen[:, :, i, j, u, v], IMAGES[:, :, 2 * i + 3 * u, j + 2 * v])


def test_counts_of_a_window_by_hand() -> None:
    """Oracle: a 4 x 4 image, windows of 3, stride 2, padding 1: corners see 4 of 9 elements, edges 6."""
    options = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "count_include_pad": False}
    np.testing.assert_array_equal(pool_counts((1, 1, 4, 4), options)[0, 0], [[4, 6], [6, 9]])
    options["count_include_pad"] = True
    np.testing.assert_array_equal(pool_counts((1, 1, 4, 4), options)[0, 0], [[9, 9], [9, 9]])


def test_dropout_and_exact_ops_by_hand() -> None:
    """Oracle: two-element arrays."""
    np.testing.assert_array_equal(
        REFERENCE["dropout"](np.array([3.0, 3.0]), keep=np.array([True, False]), p=0.25), [4.0, 0.0]
    )
    np.testing.assert_array_equal(REFERENCE["dropout"](np.ones(2), keep=np.ones(2, bool), p=1.0), [0.0, 0.0])
    np.testing.assert_array_equal(
        REFERENCE["expand"](np.array([[1.0], [2.0]]), shape=(2, -1, 2)), [[[1, 1], [2, 2]]] * 2
    )
    np.testing.assert_array_equal(REFERENCE["cat"](np.ones((1, 2)), np.zeros((1, 1)), dim=-1), [[1, 1, 0]])
    np.testing.assert_array_equal(REFERENCE["permute"](X, dims=(1, 0)), X.T)
    np.testing.assert_array_equal(REFERENCE["relu"](np.array([-1.0, np.nan, 2.0])), [0.0, np.nan, 2.0])
