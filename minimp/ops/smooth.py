"""Smooth activations: computed in float32, rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp.door import op
from minimp.errors import SettingError, ShapeError
from minimp.ops.activations import sigmoid
from minimp.ops.arithmetic import mul
from minimp.ops.reductions import check_dims
from minimp.ops.shaping import getitem
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["glu", "log_sigmoid", "mish", "silu", "softplus"]


@op(mixed=Mixed.FLOAT, bound="function")
def silu(ctx: Node, x: Array) -> Array:
    """x s, with s = 1 / (1 + e^-x); y' = s (1 + x (1 - s)) (Elfwing, Uchibe and Doya 2018, equation 8)."""
    ctx.save(x)
    return ctx.backend.pointwise("silu", lambda b, x: x * b.logistic(x), ctx.format, x)


@silu.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved

    def formula(backend: Any, g: Array, x: Array) -> Array:
        s = backend.logistic(x)
        return g * (s * (1 + x * (1 - s)))

    return ctx.backend.pointwise("silu_gradient", formula, ctx.format, grad, x)


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def softplus(ctx: Node, x: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """ln(1 + e^(b x)) / b, and x itself where b x > threshold; y' = e^(b x) / (1 + e^(b x)), or 1.

    (Dugas et al. 2001, equation 4, for b = 1.)
    """
    if beta == 0:
        raise SettingError("softplus: expected a beta other than 0, got 0")
    ctx.save(x)

    def formula(backend: Any, x: Array) -> Array:
        scaled = x * beta
        curved = backend.xp.log1p(backend.xp.exp(backend.xp.minimum(scaled, threshold))) / beta
        return backend.select(scaled > threshold, x, curved)

    return ctx.round(ctx.backend.elementwise(formula, ctx.wide(x)))


@softplus.gradient
def _(ctx: Node, grad: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    (x,) = ctx.saved

    def formula(backend: Any, g: Array, x: Array) -> Array:
        scaled = x * beta
        e = backend.xp.exp(backend.xp.minimum(scaled, threshold))
        return backend.select(scaled > threshold, g, g * (e / (1 + e)))

    return ctx.round(ctx.backend.elementwise(formula, ctx.wide(grad), ctx.wide(x)))


@op(mixed=Mixed.FLOAT, bound="function")
def log_sigmoid(ctx: Node, x: Array) -> Array:
    """-ln(1 + e^-x), as min(x, 0) - ln(1 + e^-|x|); y' = 1 / (1 + e^x)."""
    ctx.save(x)

    def formula(backend: Any, x: Array) -> Array:
        return backend.xp.minimum(x, 0) - backend.xp.log1p(backend.xp.exp(-abs(x)))

    return ctx.round(ctx.backend.elementwise(formula, ctx.wide(x)))


@log_sigmoid.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.backend.elementwise(lambda b, g, x: g * b.logistic(-x), ctx.wide(grad), ctx.wide(x)))


@op(mixed=Mixed.FLOAT, bound="function")
def mish(ctx: Node, x: Array) -> Array:
    """x tanh(ln(1 + e^x)) (Misra 2019, arXiv 1908.08681); y' = t + x s (1 - t^2), s = 1 / (1 + e^-x)."""
    ctx.save(x)
    return ctx.round(ctx.backend.elementwise(lambda b, x: x * _tanh_softplus(b, x), ctx.wide(x)))


@mish.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved

    def formula(backend: Any, g: Array, x: Array) -> Array:
        t = _tanh_softplus(backend, x)
        return g * (t + x * backend.logistic(x) * (1 - t * t))

    return ctx.round(ctx.backend.elementwise(formula, ctx.wide(grad), ctx.wide(x)))


def _tanh_softplus(backend: Any, x: Array) -> Array:
    """tanh(ln(1 + e^x)); beyond 20 it is 1 in every format."""
    xp = backend.xp
    return xp.tanh(xp.log1p(xp.exp(xp.minimum(x, 20))))


@op(mixed=Mixed.FLOAT, bound="function")
def glu(ctx: Node, x: Array, *, dim: int = -1) -> Array:
    """a s, with a and b the halves of x along `dim` and s = 1 / (1 + e^-b); (..., 2 N, ...) -> (..., N, ...).

    da = g s, db = g a s (1 - s) (Dauphin et al. 2017, arXiv 1612.08083).
    """
    check_dims("glu", x, dim)
    if not x.ndim or x.shape[dim] % 2:
        raise ShapeError(f"expected an even length to halve, got {x.shape}", op="glu", shapes=[x.shape])
    ctx.save(x)
    a, b = _halves(ctx.wide(x), dim)
    return ctx.round(a * ctx.backend.logistic(b))


@glu.gradient
def _(ctx: Node, grad: Array, *, dim: int = -1) -> Array:
    (x,) = ctx.saved
    a, b = _halves(ctx.wide(x), dim)
    g, s = ctx.wide(grad), ctx.backend.logistic(b)
    return ctx.round(ctx.backend.xp.concatenate([g * s, g * (s * (1 - s) * a)], axis=dim))


def _halves(x: Array, dim: int) -> tuple[Array, Array]:
    lead, half = (slice(None),) * (dim % x.ndim), x.shape[dim] // 2
    return x[(*lead, slice(0, half))], x[(*lead, slice(half, None))]


@glu.composite
def _(x: Any, *, dim: int = -1) -> Tensor:
    lead, half = (slice(None),) * (dim % len(x.shape)), x.shape[dim] // 2
    gate = getitem(x, index=(*lead, slice(half, None)))
    return mul(getitem(x, index=(*lead, slice(0, half))), sigmoid(gate))
