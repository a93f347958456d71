"""Whose memory is whose: numpy(), detach(), views and float32 twins; oracle: the rules in the docstrings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, ops
from minimp.errors import GradientError
from tests.arrays import host

FORMATS = ("float32", "float16", "bfloat16")
SHAPE = (64, 80)  # large enough for every cache


def large(fmt: str, **options: Any) -> mp.Tensor:
    """Return a tensor of ordinary numbers."""
    return mp.tensor(np.random.default_rng(0).standard_normal(SHAPE), dtype=fmt, **options)


@pytest.mark.host("numpy() copies from a device")
@pytest.mark.parametrize("fmt", FORMATS)
def test_writing_to_numpy_changes_the_tensor(fmt: str) -> None:
    """Oracle: numpy()'s docstring; sums before and after, by ops that could use a cache."""
    x = large(fmt)
    (x * 1.0).sum()
    array = x.numpy()
    array[...] = 2
    assert x.sum().item() == 2.0 * 64 * 80 or fmt != "float32"
    assert (x @ x.T).numpy()[0, 0] == 4 * 80
    assert functional.relu(x).numpy().min() == 2
    array[0, 0] = 7
    assert x[0, 0].item() == 7
    assert ops.amax(x).item() == 7


@pytest.mark.host("numpy() copies from a device")
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("fmt", FORMATS)
def test_writing_to_numpy_changes_nothing_recorded(fmt: str, first: bool) -> None:
    """Oracle: the gradient of x w by w is x as it was when the product was taken."""
    x, w = large(fmt), mp.tensor(np.ones((80, 3)), dtype=fmt, requires_grad=True)
    held = x.numpy() if first else None
    kept = x.numpy().astype(np.float64).copy()
    y = x @ w
    if first:
        with pytest.raises(ValueError, match="read-only"):
            held[...] = 0  # type: ignore[index]  # the write under test
    else:
        x.numpy()[...] = 0
        assert not x.numpy().any()
    y.sum().backward()
    wanted = np.repeat(kept.sum(0)[:, None], 3, axis=1)
    np.testing.assert_allclose(w.grad.numpy().astype(np.float64), wanted, rtol=0.01, atol=0.3)


VIEWS: dict[str, Callable[[mp.Tensor], mp.Tensor]] = {
    "transpose": lambda x: x.T,
    "reshape": lambda x: x.reshape(80, 64),
    "itself": lambda x: x.detach(),
}


@pytest.mark.host("twins are NumPy's alone")
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("numpy_first", [True, False])
@pytest.mark.parametrize("view", list(VIEWS))
@pytest.mark.parametrize("fmt", FORMATS)
def test_twins_never_go_stale(fmt: str, view: str, numpy_first: bool, warm: bool) -> None:
    """Oracle: an op computes from what the tensor's own array holds, before and after a write."""
    x = large(fmt)
    if warm:
        x = x * 1.0  # a result of an op may come with a twin
    early = x.numpy() if numpy_first else None
    seen = VIEWS[view](x)
    _same_values(seen)
    array = x.numpy() if early is None else early
    if array.flags.writeable:
        array[...] = 3
    for tensor in (seen, x):
        _same_values(tensor)
        _same_values(tensor)


def _same_values(tensor: mp.Tensor) -> None:
    """Compare an op's result, by whatever cache, with NumPy's on the tensor's raw array."""
    raw = np.asarray(tensor.array).astype(np.float64)
    np.testing.assert_array_equal((tensor + 0.0).array.astype(np.float64), raw)
    np.testing.assert_array_equal(ops.amax(tensor, dim=0).array.astype(np.float64), raw.max(0))


@pytest.mark.parametrize("fmt", FORMATS)
def test_results_are_nobody_elses(fmt: str) -> None:
    """Oracle: writing to a result leaves its inputs as they were, for ops that could return a view."""
    calls: list[Callable[[mp.Tensor], mp.Tensor]] = [
        lambda x: x[1:], lambda x: x.expand(2, 64, 80), ops.relu, lambda x: x.clone(), lambda x: x + 0.0,
        lambda x: functional.cat([x]), lambda x: x.sum(0, keepdim=True),
    ]  # fmt: skip
    for call in calls:
        x = large(fmt)
        before = host(x).copy()
        made = call(x).numpy()
        made[...] = 5
        np.testing.assert_array_equal(x.numpy(), before)


def test_numpy_is_refused_on_the_tape() -> None:
    """Oracle: torch refuses it too, with the same advice."""
    x = large("float32", requires_grad=True)
    for tensor in (x, x * 2.0):
        with pytest.raises(GradientError, match=r"help: write \.detach\(\)\.numpy\(\)"):
            tensor.numpy()
    assert x.detach().numpy().shape == SHAPE


def test_data_is_copied_in() -> None:
    """Oracle: tensor()'s docstring: arrays are copied; a tensor stays as it was when its source changes."""
    source = np.ones(SHAPE, np.float32)
    x = mp.tensor(source)
    source[...] = 0
    assert x.numpy().all()
    y = ops.add(source, x)
    source[...] = 9
    assert y.numpy().max() == 1


@pytest.mark.host("twins are NumPy's alone")
@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_twins_stay_within_their_limit(fmt: str) -> None:
    """Oracle: the limit of the backend's cache in bytes, and none left of arrays that are gone."""
    twins = large(fmt).backend.twins
    kept = [large(fmt) * 1.0 for _ in range(8)]
    assert 0 < twins.nbytes <= twins.limit
    before = twins.nbytes
    del kept
    assert twins.nbytes <= before - 8 * 64 * 80 * 4
    one = large(fmt) * 1.0
    held = twins.nbytes
    twins.put(one.array, np.asarray(one.array, np.float32))
    assert twins.nbytes == held
