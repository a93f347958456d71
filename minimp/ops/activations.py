"""Activation functions: computed in float32, rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minimp.door import op
from minimp.errors import SettingError, unknown_name
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["gelu", "relu", "sigmoid", "tanh"]


@op(bound="exact")
def relu(ctx: Node, x: Array) -> Array:
    """max(x, 0), NaN stays NaN; nothing is rounded. The gradient is 0 at 0, and passes at NaN (as torch's).

    Only the sign of the result is needed for backward: the result itself is what is saved.
    """
    y = ctx.backend.positive_part(x)
    ctx.save(y)
    return y


@relu.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    return ctx.backend.positive_part_gradient(grad, y)


@op(mixed=Mixed.FLOAT, bound="function")
def tanh(ctx: Node, x: Array) -> Array:
    """tanh x, elementwise; y' = 1 - y^2."""
    y = ctx.backend.pointwise("tanh", lambda b, x: b.xp.tanh(x), ctx.format, x, short=True)
    ctx.save(y)
    return y


@tanh.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    return ctx.backend.pointwise(
        "tanh_gradient", lambda _, g, y: g * (1 - y * y), ctx.format, grad, y, short=True
    )


@op(mixed=Mixed.FLOAT, bound="function")
def sigmoid(ctx: Node, x: Array) -> Array:
    """1 / (1 + e^-x), elementwise, without overflow for large |x|; y' = y (1 - y)."""
    y = ctx.backend.pointwise("sigmoid", lambda b, x: b.logistic(x), ctx.format, x)
    ctx.save(y)
    return y


@sigmoid.gradient
def _(ctx: Node, grad: Array) -> Array:
    (y,) = ctx.saved
    return ctx.backend.pointwise(
        "sigmoid_gradient", lambda _, g, y: g * y * (1 - y), ctx.format, grad, y, short=True
    )


@op(cast=CastClass.KEEP, mixed=Mixed.FLOAT, bound="function")
def gelu(ctx: Node, x: Array, *, approximate: str = "none") -> Array:
    """x Phi(x), Phi the normal distribution function (Hendrycks and Gimpel 2016, arXiv 1606.08415).

    approximate="none": Phi(x) = (1 + erf(x / sqrt 2)) / 2; "tanh": section 2's
    (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
    """
    if approximate not in PHI:
        raise SettingError(unknown_name("approximation", approximate, PHI))
    ctx.save(x)
    phi = PHI[approximate]
    return ctx.backend.pointwise(KERNELS[approximate], lambda b, x: x * phi(b, x)[0], ctx.format, x)


@gelu.gradient
def _(ctx: Node, grad: Array, *, approximate: str = "none") -> Array:
    (x,) = ctx.saved
    phi = PHI[approximate]

    def formula(backend: Any, g: Array, x: Array) -> Array:
        value, density = phi(backend, x)
        return g * (value + x * density())

    return ctx.backend.pointwise(f"{KERNELS[approximate]}_gradient", formula, ctx.format, grad, x)


def _phi_by_erf(backend: Any, x: Array) -> tuple[Array, Callable[[], Array]]:
    """Phi(x), and what returns its derivative."""
    phi = 0.5 * (1 + backend.erf(x * math.sqrt(0.5)))
    return phi, lambda: backend.xp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))


def _phi_by_tanh(backend: Any, x: Array) -> tuple[Array, Callable[[], Array]]:
    """Phi(x), and what returns its derivative."""
    c = math.sqrt(2 / math.pi)
    t = backend.xp.tanh(c * (x + 0.044715 * x * x * x))
    return 0.5 * (1 + t), lambda: 0.5 * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)


PHI = {"none": _phi_by_erf, "tanh": _phi_by_tanh}
"""What gelu calls an approximation -> the function."""
KERNELS = {"none": "gelu", "tanh": "gelu_tanh"}
"""What gelu calls an approximation -> what backends call the formula."""
