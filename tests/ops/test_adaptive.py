"""Pools beside torch: to a size, along one axis, back by places, by name, and twice differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import functional
from minimp.checks import check_events
from minimp.errors import SettingError, ShapeError
from minimp.modes import listen
from minimp.tape import Event
from tests.ops.samples import numbers
from tests.ops.sums import WAYS, sums, to
from tests.ops.test_convolutions import FORMATS, OWN, twice
from tests.ops.test_torch_parity import both
from tests.tolerances import assert_close

Call = Callable[..., Any]
SUMMING = [name for name in WAYS if not name.startswith("tensorcore:")]
IMAGES, SIGNALS = (2, 3, 7, 6), (2, 3, 9)


def _torch() -> Any:
    return pytest.importorskip("torch")


def _beside(name: str, x: Any, fmt: str, *args: Any, **options: Any) -> None:
    """Hold a function and its gradient to torch's of the same name; maxima bit for bit."""
    own, other = both(
        lambda a: getattr(functional, name)(a, *args, **options),
        lambda a: getattr(_torch().nn.functional, name)(a, *args, **options), [x], fmt,
    )  # fmt: skip
    if "max" in name:
        np.testing.assert_array_equal(own[0].astype(np.float64), other[0])
    assert_close(own[0], other[0], OWN[fmt])
    assert_close(own[1], other[1], OWN[fmt].replace("_op_", "_gradient_"))


CASES: dict[str, tuple[str, tuple[int, ...], tuple[Any, ...]]] = {
    "mean_of_all": ("adaptive_avg_pool2d", IMAGES, (1,)),
    "mean_to_rows": ("adaptive_avg_pool2d", IMAGES, ((4, None),)),
    "mean_to_more": ("adaptive_avg_pool2d", IMAGES, ((9, 4),)),
    "mean_of_signals": ("adaptive_avg_pool1d", SIGNALS, (4,)),
    "largest_of_all": ("adaptive_max_pool2d", IMAGES, (1,)),
    "largest_overlapping": ("adaptive_max_pool2d", IMAGES, ((4, 5),)),
    "largest_of_signals": ("adaptive_max_pool1d", SIGNALS, (4,)),
    "mean_1d": ("avg_pool1d", SIGNALS, (3, 2, 1)),
    "mean_1d_ceil": ("avg_pool1d", SIGNALS, (4, 3, 2, True, False)),
    "largest_1d": ("max_pool1d", SIGNALS, (3, 2, 1)),
    "largest_1d_dilated": ("max_pool1d", SIGNALS, (3, None, 0, 2, True)),
}


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", list(CASES))
def test_results_and_gradients_are_torchs(name: str, fmt: str) -> None:
    """Oracle: torch 2.13.0 on the CPU in the same format."""
    op, shape, args = CASES[name]
    _beside(op, numbers(np.random.default_rng(1), shape, fmt), fmt, *args)


@pytest.mark.torch
@settings(deadline=None, max_examples=60)
@given(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 11)] * 2), st.booleans())
def test_any_size_is_torchs(sizes: tuple[int, ...], wanted: tuple[int, ...], largest: bool) -> None:
    """Oracle: torch's adaptive pools in float64, values, gradients and places."""
    x = np.random.default_rng(sizes[0]).standard_normal((2, 2, *sizes))
    _beside("adaptive_max_pool2d" if largest else "adaptive_avg_pool2d", x, "float64", wanted)
    if largest:
        _, own = functional.adaptive_max_pool2d(mp.tensor(x), wanted, return_indices=True)
        _, other = _torch().nn.functional.adaptive_max_pool2d(
            _torch().from_numpy(x), wanted, return_indices=True
        )
        np.testing.assert_array_equal(own.numpy(), other.numpy())


@pytest.mark.torch
@pytest.mark.parametrize("options", [(2,), (3, 2, 1), ((2, 3), (2, 1), (1, 0), (2, 1), True)])
def test_places_are_torchs_and_lead_back(options: tuple[Any, ...]) -> None:
    """Oracle: torch's max_pool2d with return_indices, and max_unpool2d with gradients."""
    torch = _torch()
    x = np.random.default_rng(2).permutation(252).astype(np.float64).reshape(IMAGES)
    y, places = functional.max_pool2d(mp.tensor(x, dtype="float64"), *options, return_indices=True)
    z, wanted = torch.nn.functional.max_pool2d(torch.from_numpy(x), *options, return_indices=True)
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    np.testing.assert_array_equal(places.numpy(), wanted.numpy())
    if options == (2,):
        own, other = both(
            lambda a: functional.max_unpool2d(a, places, 2, output_size=IMAGES),
            lambda a: torch.nn.functional.max_unpool2d(a, wanted, 2, output_size=IMAGES),
            [z.numpy()], "float64",
        )  # fmt: skip
        for a, b in zip(own, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.torch
def test_places_of_signals_are_torchs() -> None:
    """Oracle: torch's max_pool1d and adaptive_max_pool1d with return_indices."""
    torch, x = _torch(), np.random.default_rng(3).standard_normal(SIGNALS)
    for name, args in (("max_pool1d", (3, 2, 1)), ("adaptive_max_pool1d", (4,))):
        _, own = getattr(functional, name)(mp.tensor(x), *args, return_indices=True)
        _, other = getattr(torch.nn.functional, name)(torch.from_numpy(x), *args, return_indices=True)
        np.testing.assert_array_equal(own.numpy(), other.numpy())


@pytest.mark.torch
def test_nan_and_equal_maxima_are_taken_as_torch_takes_them() -> None:
    """Oracle: torch: the last NaN of a window, else the first of equal maxima, minus infinity too."""
    random = np.random.default_rng(4)
    x = random.choice([1.0, 2.0, np.nan, -np.inf, np.inf], (3, 4, 7, 6), p=[0.4, 0.4, 0.05, 0.1, 0.05])
    x[0, 0] = -np.inf
    y, places = functional.adaptive_max_pool2d(mp.tensor(x), (3, 4), return_indices=True)
    z, wanted = _torch().nn.functional.adaptive_max_pool2d(
        _torch().from_numpy(x), (3, 4), return_indices=True
    )
    np.testing.assert_array_equal(y.numpy(), z.numpy())
    np.testing.assert_array_equal(places.numpy(), wanted.numpy())


TWICE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "max_pool2d": ("max_pool2d", (3, 2, 1)),
    "avg_pool2d": ("avg_pool2d", (3, 2, 1)),
    "adaptive_avg_pool2d": ("adaptive_avg_pool2d", ((3, 4),)),
    "adaptive_max_pool2d": ("adaptive_max_pool2d", ((3, 4),)),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", list(TWICE))
def test_second_derivatives_are_torchs(name: str) -> None:
    """Oracle: torch's double backward in float64."""
    op, args = TWICE[name]
    x = np.random.default_rng(5).standard_normal(IMAGES)
    twice(
        lambda a: getattr(functional, op)(a * a, *args),
        lambda a: getattr(_torch().nn.functional, op)(a * a, *args), [x],
    )  # fmt: skip


@pytest.mark.parametrize("fmt", ["float16", "float32"])
@pytest.mark.parametrize("name", SUMMING)
def test_means_are_summed_by_name(name: str, fmt: str) -> None:
    """Oracle: scalar sums over each window, row by row, divided; the shares of an element in its windows."""
    random = np.random.default_rng(6)
    x, g = numbers(random, (1, 2, 5, 7), fmt), numbers(random, (1, 2, 2, 3), fmt)
    leaf = mp.tensor(x, dtype=fmt, requires_grad=True)
    with mp.accumulate(name):
        y = functional.adaptive_avg_pool2d(leaf, (2, 3))
    y.backward(g)
    spans = [[(0, 3), (2, 5)], [(0, 3), (2, 5), (4, 7)]]
    windows = [(i, j, slice(*r), slice(*c)) for i, r in enumerate(spans[0]) for j, c in enumerate(spans[1])]
    own, back = y.detach().numpy(), leaf.grad.numpy()
    for i, j, rows, columns in windows:
        wanted = sums(name, x.astype(np.float32)[:, :, rows, columns], (2, 3))[..., 0, 0] / 9
        np.testing.assert_array_equal(own[..., i, j].astype(float), to(fmt, wanted).astype(float))
    share = g.astype(np.float32) / np.float32(9)
    for u, v in np.ndindex(5, 7):
        met = [share[0, :, i, j] for i, j, r, c in windows if r.start <= u < r.stop and c.start <= v < c.stop]
        for channel in range(2):
            each = [float(m[channel]) for m in met]
            wanted = WAYS[name](each, [1.0] * len(each)) if len(each) > 1 else np.float32(each[0])
            assert float(back[0, channel, u, v]) == float(to(fmt, wanted))


def test_named_sums_keep_their_bounds() -> None:
    """Oracle: float64 references with the gamma of each accumulation."""
    for name in ("float64", *SUMMING):
        events: list[Event] = []
        x = numbers(np.random.default_rng(7), IMAGES, "float16")
        leaf = mp.tensor(x, dtype="float16", requires_grad=True)
        with mp.accumulate(name), listen(events.append):
            y = functional.adaptive_avg_pool2d(leaf, (3, 4)) + functional.adaptive_max_pool2d(leaf, (3, 4))
            y.sum().backward()
        found = check_events(events)
        assert found, f"{name}: {found}"


def test_what_is_kept() -> None:
    """Oracle: nothing for a mean; for a maximum, its place in as few bytes as the image needs."""
    x = mp.tensor(np.ones((2, 3, 16, 16)), requires_grad=True)
    assert functional.adaptive_avg_pool2d(x, 4).node.saved == ()
    (index,) = functional.adaptive_max_pool2d(x, 4).node.saved
    assert (index.shape, index.dtype.name) == ((2, 3, 4, 4), "uint8")
    (index,) = functional.adaptive_max_pool2d(functional.pad(x, (0, 1)), 4).node.saved
    assert index.dtype.name == "uint16"


def test_autocast_keeps_the_format() -> None:
    """Oracle: torch's lists: pools are in neither, but max_unpool2d is fp32 on the CPU."""
    x = mp.tensor(np.ones((1, 1, 4, 4)), dtype="bfloat16")
    for policy in ("torch-cuda", "torch-cpu"):
        with mp.autocast("bfloat16", policy=policy):
            y, places = functional.max_pool2d(x, 2, return_indices=True)
            assert {y.format, functional.adaptive_avg_pool2d(x, 2).format} == {mp.bfloat16}
            wide = functional.max_unpool2d(y, places, 2)
            assert wide.format is (mp.float32 if policy == "torch-cpu" else mp.bfloat16)


X = mp.tensor(np.ones((2, 3, 4, 5)), dtype="float32")
REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "axes": (lambda: functional.adaptive_avg_pool2d(X[0], 2), ShapeError, r"expected x \(N, C, H, W\)"),
    "lengths": (lambda: functional.adaptive_avg_pool2d(X, (2, 2, 2)), ShapeError, "two lengths"),
    "zero": (lambda: functional.adaptive_max_pool2d(X, 0), ShapeError, "a size of at least 1"),
    "empty": (lambda: functional.adaptive_max_pool2d(X[:, :, :0], 2), ShapeError, "with something in it"),
    "signal": (lambda: functional.avg_pool1d(X, 2), ShapeError, r"expected x \(N, C, L\)"),
    "pair": (lambda: functional.max_pool1d(X[0], (2, 2)), SettingError, "expected one whole number"),
    "places": (
        lambda: functional.max_unpool2d(X, np.full((2, 3, 4, 5), 99), 2, output_size=(9, 9)), ShapeError,
        "places from 99 to 99 do not fit",
    ),
    "shape": (lambda: functional.max_unpool2d(X, np.zeros((2, 3), int), 2), ShapeError, "of its shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused(name: str) -> None:
    """Oracle: type and words of each error."""
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call()
