"""A model without layers and optimizers without tricks: what a scaler is tried on."""

from __future__ import annotations

from typing import Any

import numpy as np

import minimp as mp
from minimp.scaler import GradScaler
from minimp.tensors import Tensor


def parameter(*values: float, dtype: str = "float32") -> Tensor:
    """Return a parameter with one axis."""
    return mp.tensor(list(values), dtype=dtype, requires_grad=True)


def set_grad(param: Tensor, *values: float) -> None:
    """Give a parameter a gradient, as backward would."""
    param.grad = mp.tensor(list(values), dtype=param.format)


class PlainSGD:
    """w <- w - g, in the parameter's format. `calls` counts the steps; `step` returns what it was given."""

    def __init__(self, *groups: list[Tensor]) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(group)} for group in groups]
        self.calls = 0

    def step(self, value: Any = "stepped") -> Any:
        """Subtract every gradient."""
        self.calls += 1
        self._subtract(1.0)
        return value

    def _subtract(self, factor: float) -> None:
        with np.errstate(all="ignore"):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        wide = p.backend.wide(p.array) - p.backend.wide(p.grad.array) * np.float32(factor)
                        p.array = p.backend.cast(wide, p.format)


class SelfScalingSGD(PlainSGD):
    """An optimizer that unscales and skips by itself; `seen` keeps the attributes of each call."""

    _step_supports_amp_scaling = True
    grad_scale: float | None  # the scaler sets these two for the call of step()
    found_inf: float

    def __init__(self, *groups: list[Tensor]) -> None:
        super().__init__(*groups)
        self.seen: list[tuple[Any, float]] = []
        self.fail = False

    def step(self, value: Any = "stepped") -> Any:
        """Subtract every unscaled gradient, unless one is not finite."""
        if self.fail:
            raise ArithmeticError("on purpose")
        self.seen.append((self.grad_scale, self.found_inf))
        if not self.found_inf:
            self._subtract(1.0 if self.grad_scale is None else 1.0 / self.grad_scale)
        return value


def begun(**settings: Any) -> GradScaler:
    """Return a scaler that has scaled something, with S = 8 unless told otherwise."""
    scaler = GradScaler(**{"init_scale": 8.0, **settings})
    scaler.scale(mp.tensor(1.0))
    return scaler


def with_grads(*grads: tuple[float, ...]) -> PlainSGD:
    """Return an optimizer over parameters of zeros that have these gradients."""
    params = [parameter(*([0.0] * len(grad))) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        set_grad(param, *grad)
    return PlainSGD(params)


def params_of(optimizer: PlainSGD) -> list[Tensor]:
    """Return all parameters of an optimizer."""
    return [param for group in optimizer.param_groups for param in group["params"]]


def grad_of(optimizer: PlainSGD) -> Tensor:
    """Return the gradient of the first parameter."""
    grad = params_of(optimizer)[0].grad
    assert grad is not None
    return grad
