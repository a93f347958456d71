"""Elementary functions, steps, blends and truth: what they mean, and running error analyses."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.case import Case, Rule
from minimp.checks.families.activations import called
from minimp.checks.families.selection import back
from minimp.checks.reference import erf
from minimp.checks.running import Running

__all__ = ["BOUNDS", "FORMATLESS", "GRADIENTS", "NO_DERIVATIVE", "REFERENCE", "TURNS"]

Array = np.ndarray[Any, Any]
HALF_PI = math.pi / 2


def lerp(a: Array, b: Array, w: Any) -> Array:
    """w of the way from a to b, from the nearer end: what infinities give depends on it."""
    return np.asarray(np.where(np.abs(w) < 0.5, a + w * (b - a), b - (1 - w) * (b - a)))


# ---- forward --------------------------------------------------------------------------------------------


def _library(name: str, f: Callable[[Any], Any]) -> Callable[[Running], Running]:
    """One call of a library function on an exact input."""
    return lambda x: called(x, name, f)


def _steady(name: str, f: Callable[[Any], Any]) -> Callable[[Running], Running]:
    """A function that turns back, but whose slope is at most 1."""
    return lambda x: x.function(name, np.asarray(f(x.exact)), 1.0)


def _remainder(a: Running, b: Running) -> Running:
    """The remainder is exact, and rounded once where it is brought to the other side of 0."""
    return a.function("remainder", np.asarray(np.remainder(a.exact, b.exact)), 1.0)


def _atan2(a: Running, b: Running) -> Running:
    return a.function("arctan2", np.asarray(np.arctan2(a.exact, b.exact)), 1.0)


def _lerp(a: Running, b: Running, w: Running) -> Running:
    near = a + w * (b - a)
    far = b - (b - a) * (1.0 - w)
    return near.where(np.abs(w.exact) < 0.5, far)


def _addcmul(x: Running, a: Running, b: Running, *, value: float = 1) -> Running:
    return x + a * value * b


def _addcdiv(x: Running, a: Running, b: Running, *, value: float = 1) -> Running:
    return x + a * value / b


# ---- gradients ------------------------------------------------------------------------------------------


def _of_x(slope: Callable[[Running], Running]) -> Rule:
    """g times a slope that is computed from x."""
    return lambda c: (c.grad * slope(c.number(0))).rounded()


def _over_x(divisor: Callable[[Running], Running], sign: float = 1.0) -> Rule:
    """g over something that is computed from x."""
    return lambda c: ((c.grad if sign > 0 else -c.grad) / divisor(c.number(0))).rounded()


def _of_y(forward: Callable[[Running], Running], slope: Callable[[Running], Running]) -> Rule:
    """g times a slope that is computed from the result, as it was stored."""
    return lambda c: (c.grad * slope(forward(c.number(0)).stored())).rounded()


def _rsqrt(x: Running) -> Running:
    return 1.0 / x.sqrt()


def _rsqrt_x(c: Case) -> Running:
    y = _rsqrt(c.number(0)).stored()
    return (c.grad * -0.5 * (y * y * y)).rounded()


def _erf_x(c: Case) -> Running:
    x = c.number(0)
    return (c.grad * (2 / math.sqrt(math.pi)) * (-(x * x)).exp()).rounded()


def _side(x: Running) -> Running:
    """sqrt(1 - x^2), as the root of (1 - x) (1 + x)."""
    return ((1.0 - x) * (1.0 + x)).sqrt()


def _nothing(c: Case) -> Running:
    return Running(np.zeros_like(c.grad.exact), np.zeros_like(c.grad.exact), c.at)


def _remainder_b(c: Case) -> Running:
    """-g floor(a / b), the quotient rounded; nothing is claimed where the inputs are not known exactly."""
    a, b = c.number(0), c.number(1)
    whole = np.floor_divide(a.exact, b.exact)
    size = np.where(np.isfinite(whole), np.abs(whole), 0.0)
    rounded = np.where(whole.astype(np.float32) == whole, 0.0, 2 * c.at.unit * size)
    known = (a.error == 0) & (b.error == 0)
    return c.to(1, -c.grad * Running(whole, np.where(known, rounded, np.inf), c.at))


def _atan2_a(c: Case) -> Running:
    a, b = c.number(0), c.number(1)
    return c.to(0, c.grad / (a * a + b * b) * b)


def _atan2_b(c: Case) -> Running:
    a, b = c.number(0), c.number(1)
    return c.to(1, -(c.grad / (a * a + b * b)) * a)


def _scaled(c: Case) -> Running:
    by: Running = c.grad * c.options.get("value", 1)
    return by


def _addcdiv_b(c: Case) -> Running:
    a, b = c.number(1), c.number(2)
    return c.to(2, -_scaled(c) * (a / b / b))


def _beyond(x: Any) -> bool:
    """Tell whether a relative step of 2^-26 may be a period."""
    return bool((np.abs(x) > 2.0**20).any())


FUNCTIONS: dict[str, Callable[[Running], Running]] = {
    "acos": _library("arccos", np.arccos),
    "asin": _library("arcsin", np.arcsin),
    "atan": _library("arctan", np.arctan),
    "cos": _steady("cos", np.cos),
    "cosh": lambda x: called(abs(x), "cosh", np.cosh),
    "erf": lambda x: x.function("erf", erf(x.exact), 2 / math.sqrt(math.pi)),
    "expm1": _library("expm1", np.expm1),
    "log10": _library("log10", np.log10),
    "log1p": _library("log1p", np.log1p),
    "log2": _library("log2", np.log2),
    "rsqrt": _rsqrt,
    "sin": _steady("sin", np.sin),
    "sinh": _library("sinh", np.sinh),
    "tan": _library("tan", np.tan),
}
STEPS = {"ceil": np.ceil, "floor": np.floor, "round": np.rint, "sign": np.sign, "trunc": np.trunc}
TRUTHS: dict[str, Callable[..., Any]] = {
    "all": lambda x, *, dim=None, keepdim=False: np.all(x, axis=dim, keepdims=keepdim),
    "any": lambda x, *, dim=None, keepdim=False: np.any(x, axis=dim, keepdims=keepdim),
    "bitwise_and": np.bitwise_and,
    "bitwise_not": np.bitwise_not,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "count_nonzero": lambda x, *, dim=None: np.count_nonzero(x, axis=dim),
    "isinf": np.isinf,
    "isnan": np.isnan,
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}
REFERENCE = MappingProxyType(
    {
        "acos": np.arccos, "asin": np.arcsin, "atan": np.arctan, "atan2": np.arctan2, "cos": np.cos,
        "cosh": np.cosh, "erf": erf, "expm1": np.expm1, "log10": np.log10, "log1p": np.log1p,
        "log2": np.log2, "remainder": np.remainder, "rsqrt": lambda x: 1 / np.sqrt(x), "sin": np.sin,
        "sinh": np.sinh, "tan": np.tan,
        "addcdiv": lambda x, a, b, *, value=1: x + a * value / b,
        "addcmul": lambda x, a, b, *, value=1: x + a * value * b,
        "lerp": lerp,
        **STEPS,
        **TRUTHS,
    }
)  # fmt: skip
BOUNDS = MappingProxyType(
    {
        "function": {
            **FUNCTIONS, "addcdiv": _addcdiv, "addcmul": _addcmul, "atan2": _atan2, "lerp": _lerp,
            "remainder": _remainder,
        },
    }
)  # fmt: skip
GRADIENTS = MappingProxyType(
    {
        "acos": (_over_x(_side, -1.0),),
        "addcdiv": (lambda c: back(c, 0, c.grad), lambda c: c.to(1, _scaled(c) / c.number(2)), _addcdiv_b),
        "addcmul": (
            lambda c: back(c, 0, c.grad),
            lambda c: c.to(1, _scaled(c) * c.number(2)),
            lambda c: c.to(2, _scaled(c) * c.number(1)),
        ),
        "asin": (_over_x(_side),),
        "atan": (_over_x(lambda x: x * x + 1.0),),
        "atan2": (_atan2_a, _atan2_b),
        "cos": (lambda c: (-c.grad * FUNCTIONS["sin"](c.number(0))).rounded(),),
        "cosh": (_of_x(FUNCTIONS["sinh"]),),
        "erf": (_erf_x,),
        "expm1": (_of_y(FUNCTIONS["expm1"], lambda y: y + 1.0),),
        "lerp": (
            lambda c: c.to(0, c.grad * (1.0 - c.number(2))),
            lambda c: c.to(1, c.grad * c.number(2)),
            lambda c: c.to(2, c.grad * (c.number(1) - c.number(0))),
        ),
        "log10": (_over_x(lambda x: x * math.log(10)),),
        "log1p": (_over_x(lambda x: x + 1.0),),
        "log2": (_over_x(lambda x: x * math.log(2)),),
        "remainder": (lambda c: back(c, 0, c.grad), _remainder_b),
        "rsqrt": (_rsqrt_x,),
        "sin": (_of_x(FUNCTIONS["cos"]),),
        "sinh": (_of_x(FUNCTIONS["cosh"]),),
        "tan": (_of_y(FUNCTIONS["tan"], lambda y: y * y + 1.0),),
        **dict.fromkeys(STEPS, (_nothing,)),
    }
)
FORMATLESS = frozenset(TRUTHS)
NO_DERIVATIVE = dict.fromkeys(STEPS, lambda options: True)  # noqa: ARG005 - 0 by definition, across jumps too
TURNS = {
    **dict.fromkeys(("cos", "sin", "tan"), _beyond),
    "remainder": lambda a, b: _beyond(np.asarray(a) / b),
}
