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


def _hardsigmoid(x: Running) -> Running:
    return _risen(x) / 6.0


def _hardswish(x: Running) -> Running:
    return x * (_risen(x) / 6.0)


def _risen(x: Running) -> Running:
    """min(max(x + 3, 0), 6): exact beyond the limits."""
    above = x + 3.0
    return above.where(x.exact > -3, 0.0).where(x.exact < 3, 6.0).where(~np.isnan(x.exact), np.nan)


def _prelu(x: Running, weight: Running) -> Running:
    return x.where(x.exact > 0, x * weight.move(lambda w: channels(w, x.exact.shape)))


def channels(weight: Array, shape: tuple[int, ...]) -> Array:
    """A slope for every element: along axis 1, or one for all."""
    every = np.broadcast_to(weight, (*shape[:1], *shape[2:], shape[1])) if len(shape) > 1 else weight
    return np.moveaxis(every, -1, 1) if len(shape) > 1 else np.broadcast_to(weight.reshape(-1)[0], shape)


def _log_sigmoid(x: Running) -> Running:
    return x.where(x.exact < 0) - called((-abs(x)).exp(), "log1p", np.log1p)


def _mish(x: Running) -> Running:
    return x * _tanh_softplus(x)


def _tanh_softplus(x: Running) -> Running:
    return called(x.where(~(x.exact > 20), 20.0).exp(), "log1p", np.log1p).tanh()


def _halves(x: Running, dim: int) -> tuple[Running, Running]:
    return x.move(lambda v: np.split(v, 2, axis=dim)[0]), x.move(lambda v: np.split(v, 2, axis=dim)[1])


def _glu(x: Running, *, dim: int = -1) -> Running:
    a, b = _halves(x, dim)
    return a * sigmoid(b)


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


def _hardtanh_x(c: Case) -> Running:
    low, high = c.options.get("min_val", -1.0), c.options.get("max_val", 1.0)
    x = c.number(0).exact
    return c.grad.where((x > low) & (x < high))


def _hardsigmoid_x(c: Case) -> Running:
    x = c.number(0).exact
    return (c.grad / 6.0).where((x > -3) & (x < 3)).rounded()


def _hardswish_x(c: Case) -> Running:
    x = c.number(0)
    rising = c.grad.where(x.exact >= 3, c.grad * (x / 3.0 + 0.5))
    return rising.where(~(x.exact <= -3)).rounded()


def _prelu_x(c: Case) -> Running:
    x, weight = c.number(0), c.number(1)
    slope = weight.move(lambda w: channels(w, x.exact.shape))
    return c.grad.where(x.exact > 0, c.grad * slope).rounded()


def _prelu_weight(c: Case) -> Running:
    x = c.number(0)
    terms = (c.grad * x).where(~(x.exact > 0))
    many = c.shape(1) != () and c.shape(1)[0] > 1
    axes = tuple(i for i in range(x.exact.ndim) if i != 1 or not many)
    return (terms.sum(axes) if axes else terms).rounded().move(lambda a: a.reshape(c.shape(1)))


def _log_sigmoid_x(c: Case) -> Running:
    return (c.grad * sigmoid(-c.number(0))).rounded()


def _mish_x(c: Case) -> Running:
    x = c.number(0)
    t = _tanh_softplus(x)
    return (c.grad * (t + x * sigmoid(x) * (1.0 - t * t))).rounded()


def _glu_x(c: Case) -> Running:
    dim = c.options.get("dim", -1)
    a, b = _halves(c.number(0), dim)
    s = sigmoid(b)
    by_a, by_b = c.grad * s, c.grad * (s * (1.0 - s) * a)
    exact, error = (
        np.concatenate([getattr(by_a, name), getattr(by_b, name)], axis=dim) for name in ("exact", "error")
    )
    return Running(exact, error, c.at).rounded()


# ---- what they mean -------------------------------------------------------------------------------------


def elu(x: Array, *, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    """s x above 0, s a (e^(c x) - 1) below."""
    return np.where(x > 0, scale * x, scale * alpha * np.expm1(np.where(x > 0, 0.0, x) * input_scale))


def softplus(x: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """ln(1 + e^(b x)) / b, x beyond the threshold."""
    return np.where(x * beta > threshold, x, np.logaddexp(0.0, x * beta) / beta)


def hardtanh(x: Array, *, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """The nearest number between the limits."""
    return np.minimum(np.maximum(x, min_val), max_val)


def logistic(x: Array) -> Array:
    """1 / (1 + e^-x), without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


def prelu(x: Array, weight: Array) -> Array:
    """x above 0, a x below."""
    return np.where(x > 0, x, x * channels(weight, x.shape))


def glu(x: Array, *, dim: int = -1) -> Array:
    """The first half times the logistic function of the second."""
    a, b = np.split(x, 2, axis=dim)
    return np.asarray(a * logistic(b))


REFERENCE = MappingProxyType(
    {
        "elu": elu,
        "glu": glu,
        "hardsigmoid": lambda x: hardtanh(x / 6 + 0.5, min_val=0.0),
        "hardswish": lambda x: x * hardtanh((x + 3) / 6, min_val=0.0),
        "hardtanh": hardtanh,
        "leaky_relu": lambda x, *, negative_slope=0.01: np.where(x > 0, x, negative_slope * x),
        "log_sigmoid": lambda x: -np.logaddexp(0.0, -x),
        "mish": lambda x: x * np.tanh(np.logaddexp(0.0, x)),
        "prelu": prelu,
        "silu": lambda x: x * logistic(x),
        "softplus": softplus,
    }
)
BOUNDS = MappingProxyType(
    {
        "rounded": {"leaky_relu": _leaky, "prelu": _prelu},
        "function": {
            "elu": _elu, "glu": _glu, "hardsigmoid": _hardsigmoid, "hardswish": _hardswish,
            "log_sigmoid": _log_sigmoid, "mish": _mish, "silu": _silu, "softplus": _softplus,
        },
    }
)  # fmt: skip
GRADIENTS = MappingProxyType(
    {
        "elu": (_elu_x,),
        "glu": (_glu_x,),
        "hardsigmoid": (_hardsigmoid_x,),
        "hardswish": (_hardswish_x,),
        "hardtanh": (_hardtanh_x,),
        "leaky_relu": (_leaky_x,),
        "log_sigmoid": (_log_sigmoid_x,),
        "mish": (_mish_x,),
        "prelu": (_prelu_x, _prelu_weight),
        "silu": (_silu_x,),
        "softplus": (_softplus_x,),
    }
)
