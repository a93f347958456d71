"""Activations: what they mean in float64, and running error analyses of their formulas."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.bounds import sigmoid
from minimp.checks.case import Case
from minimp.checks.running import Running, finite_size

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE", "called", "unsure"]

Array = np.ndarray[Any, Any]


def called(x: Running, name: str, f: Callable[[Any], Any]) -> Running:
    """A library function that rises or falls throughout: an error of x moves it as at its ends, at most."""
    y = np.asarray(f(x.exact))
    ends = [np.abs(finite_size(f(x.exact + e) - y)) for e in (x.error, -x.error)]
    known = np.isfinite(x.error) & (x.error > 0)
    slope = np.where(known, np.maximum(*ends) / np.where(known, x.error, 1.0), 1.0)
    return x.function(name, y, slope)  # type: ignore[arg-type]  # an array of slopes, one an element


def unsure(y: Running, where: Any) -> Running:
    """Claim nothing where a branch may have been taken or not."""
    return Running(y.exact, np.where(where, np.inf, y.error), y.at)


# ---- forward --------------------------------------------------------------------------------------------


def _leaky(x: Running, *, negative_slope: float = 0.01) -> Running:
    return x.where(x.exact > 0, x * negative_slope)


def _elu(x: Running, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Running:
    below = called(x.where(~(x.exact > 0)) * input_scale, "expm1", np.expm1) * (alpha * scale)
    return (x * scale).where(x.exact > 0, below)


def _silu(x: Running) -> Running:
    return x * sigmoid(x)


def _softplus(x: Running, *, beta: float = 1.0, threshold: float = 20.0) -> Running:
    scaled, e, beyond = _softplus_parts(x, beta, threshold)
    y = x.where(beyond, called(e, "log1p", np.log1p) / beta)
    return unsure(y, (np.abs(scaled.exact - threshold) <= scaled.error) & (scaled.error > 0))


def _softplus_parts(x: Running, beta: float, threshold: float) -> tuple[Running, Running, Array]:
    """b x, e^(b x), and where b x is beyond the threshold."""
    scaled = x * beta
    beyond = scaled.exact > threshold
    return scaled, scaled.where(~beyond, threshold).exp(), beyond


# ---- gradients ------------------------------------------------------------------------------------------


def _leaky_x(c: Case) -> Running:
    slope = c.options.get("negative_slope", 0.01)
    return c.grad.where(c.number(0).exact > 0, c.grad * slope).rounded()


def _elu_x(c: Case) -> Running:
    alpha, scale, rate = (c.options.get(name, 1.0) for name in ("alpha", "scale", "input_scale"))
    x = c.number(0)
    above: Running = c.grad * scale
    below = c.grad * (x.where(~(x.exact > 0)) * rate).exp() * (alpha * scale * rate)
    return above.where(x.exact > 0, below).rounded()


def _silu_x(c: Case) -> Running:
    x = c.number(0)
    s = sigmoid(x)
    slope = s * (1.0 + x * (1.0 - s))
    return (c.grad * slope).rounded()


def _softplus_x(c: Case) -> Running:
    threshold = c.options.get("threshold", 20.0)
    scaled, e, beyond = _softplus_parts(c.number(0), c.options.get("beta", 1.0), threshold)
    slope: Running = c.grad.where(beyond, c.grad * (e / (1.0 + e)))
    return unsure(slope, (np.abs(scaled.exact - threshold) <= scaled.error) & (scaled.error > 0)).rounded()


# ---- what they mean -------------------------------------------------------------------------------------


def elu(x: Array, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    """s x above 0, s a (e^(c x) - 1) below."""
    return np.where(x > 0, scale * x, scale * alpha * np.expm1(np.where(x > 0, 0.0, x) * input_scale))


def softplus(x: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """ln(1 + e^(b x)) / b, x beyond the threshold."""
    return np.where(x * beta > threshold, x, np.logaddexp(0.0, x * beta) / beta)


REFERENCE = MappingProxyType(
    {
        "elu": elu,
        "leaky_relu": lambda x, *, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
        "silu": lambda x: x * np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x))),
        "softplus": softplus,
    }
)
BOUNDS = MappingProxyType(
    {
        "rounded": {"leaky_relu": _leaky},
        "function": {"elu": _elu, "silu": _silu, "softplus": _softplus},
    }
)
GRADIENTS = MappingProxyType(
    {"elu": (_elu_x,), "leaky_relu": (_leaky_x,), "silu": (_silu_x,), "softplus": (_softplus_x,)}
)
