"""Hooks on tensors: when they are called, what they may change, and retained gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import GradientError


@pytest.mark.torch
def test_hooks_are_torchs() -> None:
    """Oracle: torch 2.13.0: order and values of hooks on leaves and others, and what they change."""
    torch = pytest.importorskip("torch")
    logs = []
    for lib in (mp, torch):
        log: list[Any] = []
        x = lib.tensor([1.0, 2.0], requires_grad=True)
        y = x * x
        z = y * 3.0 + y
        x.register_hook(lambda g, log=log: log.append(("leaf", g.tolist())))
        y.register_hook(lambda g, log=log: log.append(("y", g.tolist())))
        y.register_hook(lambda g: g * 10.0)
        y.register_hook(lambda g, log=log: log.append(("y again", g.tolist())))
        removed = y.register_hook(lambda g, log=log: log.append("never"))
        removed.remove()
        y.retain_grad()
        z.sum().backward()
        log.append((x.grad.tolist(), y.grad.tolist()))
        logs.append(log)
    assert logs[0] == logs[1]


def test_a_hook_sees_the_sum_of_all_paths() -> None:
    """Oracle: one call with 1 + 2 + 3, not three."""
    seen: list[Any] = []
    x = mp.tensor([1.0], requires_grad=True)
    y = x * 1.0
    y.register_hook(lambda g: seen.append(g.tolist()))
    (y + y * 2.0 + y * 3.0).backward()
    assert seen == [[6.0]]


def test_hooks_stay_for_later_backwards_until_removed() -> None:
    """Oracle: counted calls; the handle is a context manager."""
    calls: list[int] = []
    x = mp.tensor([1.0], requires_grad=True)
    with x.register_hook(lambda _: calls.append(1)):
        (x * 2.0).backward()
        (x * 2.0).backward()
    (x * 2.0).backward()
    assert len(calls) == 2


def test_hooks_see_recorded_gradients() -> None:
    """Oracle: with create_graph a hook's gradient can be differentiated, and its change is recorded."""
    x = mp.tensor([2.0], dtype="float64", requires_grad=True)
    y = x * x
    y.register_hook(lambda g: g * x)
    (slope,) = mp.grad(y.sum(), x, create_graph=True)  # 2 x * x
    assert slope.tolist() == [8.0]
    assert mp.grad(slope.sum(), x)[0].tolist() == [8.0]


def test_no_hook_records_in_a_plain_backward() -> None:
    """Oracle: what a hook computes in backward carries no graph, and autocast is off."""
    seen: list[Any] = []
    x = mp.tensor(np.ones((2, 2)), dtype="float32", requires_grad=True)
    w = mp.tensor(np.ones((2, 2)), dtype="float32", requires_grad=True)
    y = x * 2.0

    def hook(g: mp.Tensor) -> None:
        product = g @ w
        seen.append((product.requires_grad, product.format))

    y.register_hook(hook)
    with mp.autocast("float16"):
        y.sum().backward()
    assert seen == [(False, mp.float32)]


def test_a_scaled_gradient_can_be_watched() -> None:
    """Oracle: the hook sees S times the gradient, as torch's does under a GradScaler."""
    seen: list[float] = []
    x = mp.tensor([1.0], requires_grad=True)
    x.register_hook(lambda g: seen.append(g.item()))
    mp.GradScaler(init_scale=8.0).scale((x * 3.0).sum()).backward()
    assert seen == [24.0]


def test_what_cannot_be_is_refused() -> None:
    """Oracle: type and words of each error; the leaf's gradient stays as it was."""
    with pytest.raises(GradientError, match="requires no gradient"):
        mp.tensor([1.0]).register_hook(lambda g: g)
    with pytest.raises(GradientError, match="requires no gradient"):
        mp.tensor([1.0]).retain_grad()
    x = mp.tensor([1.0], requires_grad=True)
    for wrong in (lambda g: 3, lambda g: g.half(), lambda g: g.reshape(1, 1)):
        with (
            x.register_hook(wrong),
            pytest.raises(GradientError, match="must return None or a gradient like"),
        ):
            (x * 2.0).backward()
        assert x.grad is None
