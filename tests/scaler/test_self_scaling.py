"""Optimizers that scale by themselves; oracle: PyTorch 2.13.0 as measured, where a test names it."""

from __future__ import annotations

import math

import pytest

from minimp.errors import ScalerError
from tests.scaler.plain import (
    SelfScalingSGD,
    begun,
    grad_of,
    parameter,
    params_of,
    set_grad,
)

INF, NAN = math.inf, math.nan


def fused(grad: float, dtype: str = "float16") -> SelfScalingSGD:
    """Return such an optimizer over one parameter with this gradient."""
    w = parameter(0.0, dtype=dtype)
    set_grad(w, grad)
    return SelfScalingSGD([w])


def test_a_self_scaling_optimizer_is_given_the_scale_and_the_verdict() -> None:
    """Oracle: PyTorch 2.13.0's contract with fused optimizers: float16 gradients, passing attributes."""
    scaler = begun()
    good, bad = fused(8.0), fused(INF)
    assert [scaler.step(each, "value").returned for each in (good, bad)] == ["value", "value"]
    assert (good.seen, bad.seen) == ([(8.0, 0.0)], [(8.0, 1.0)])
    assert [params_of(each)[0].item() for each in (good, bad)] == [-1.0, 0.0]
    assert grad_of(good).item() == 8.0
    assert not hasattr(good, "grad_scale")
    assert not hasattr(good, "found_inf")
    with pytest.raises(ScalerError, match=r"step\(\) has been called"):
        scaler.step(good)
    scaler.update()
    assert scaler.get_scale() == 4.0


def test_a_self_scaling_optimizer_unscaled_before_gets_no_scale() -> None:
    """Oracle: PyTorch 2.13.0: grad_scale is the optimizer's own, or None; else its own one times S."""
    scaler, optimizer = begun(), fused(8.0, "float32")
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    optimizer.grad_scale = 2.0
    scaler.step(optimizer)
    assert optimizer.seen == [(None, 0.0), (16.0, 0.0)]


def test_a_self_scaling_optimizer_that_fails_is_left_clean() -> None:
    """Oracle: the contract: the attributes are gone after the call, however it ends."""
    scaler, optimizer = begun(), fused(8.0)
    optimizer.fail = True
    with pytest.raises(ArithmeticError):
        scaler.step(optimizer)
    assert not hasattr(optimizer, "grad_scale")
