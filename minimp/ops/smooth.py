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

__all__ = ["glu", "log_sigmoid", "logistic", "mish", "silu", "softplus"]


def logistic(ctx: Node, x: Array) -> Array:
    """1 / (1 + e^-x) of wide values, without overflow for large |x|."""
    xp = ctx.backend.xp
    small = xp.exp(xp.where(x >= 0, -x, x))  # in (0, 1]; unlike -|x|, it has its derivative at 0
    return xp.where(x >= 0, xp.ones_like(x), small) / (1 + small)


@op(mixed=Mixed.FLOAT, bound="function")
def silu(ctx: Node, x: Array) -> Array:
    """x s, with s = 1 / (1 + e^-x); y' = s (1 + x (1 - s)) (Elfwing, Uchibe and Doya 2018, equation 8)."""
    ctx.save(x)
    wide = ctx.wide(x)
    return ctx.round(wide * logistic(ctx, wide))


@silu.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    wide = ctx.wide(x)
    s = logistic(ctx, wide)
    return ctx.round(ctx.wide(grad) * (s * (1 + wide * (1 - s))))


@op(cast=CastClass.FP32, mixed=Mixed.FLOAT, bound="function")
def softplus(ctx: Node, x: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """ln(1 + e^(b x)) / b, and x itself where b x > threshold; y' = e^(b x) / (1 + e^(b x)), or 1.

    (Dugas et al. 2001, equation 4, for b = 1.)
    """
    if beta == 0:
        raise SettingError("softplus: expected a beta other than 0, got 0")
    ctx.save(x)
    xp, wide = ctx.backend.xp, ctx.wide(x)
    scaled = wide * beta
    curved = xp.log1p(xp.exp(xp.minimum(scaled, threshold))) / beta
    return ctx.round(xp.where(scaled > threshold, wide, curved))


@softplus.gradient
def _(ctx: Node, grad: Array, *, beta: float = 1.0, threshold: float = 20.0) -> Array:
    (x,) = ctx.saved
    xp, g = ctx.backend.xp, ctx.wide(grad)
    scaled = ctx.wide(x) * beta
    e = xp.exp(xp.minimum(scaled, threshold))
    return ctx.round(xp.where(scaled > threshold, g, g * (e / (1 + e))))


@op(mixed=Mixed.FLOAT, bound="function")
def log_sigmoid(ctx: Node, x: Array) -> Array:
    """-ln(1 + e^-x), as min(x, 0) - ln(1 + e^-|x|); y' = 1 / (1 + e^x)."""
    ctx.save(x)
    xp, wide = ctx.backend.xp, ctx.wide(x)
    return ctx.round(xp.minimum(wide, 0) - xp.log1p(xp.exp(-abs(wide))))


@log_sigmoid.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) * logistic(ctx, -ctx.wide(x)))


@op(mixed=Mixed.FLOAT, bound="function")
def mish(ctx: Node, x: Array) -> Array:
    """x tanh(ln(1 + e^x)) (Misra 2019, arXiv 1908.08681); y' = t + x s (1 - t^2), s = 1 / (1 + e^-x)."""
    ctx.save(x)
    wide = ctx.wide(x)
    return ctx.round(wide * _tanh_softplus(ctx, wide))


@mish.gradient
def _(ctx: Node, grad: Array) -> Array:
    (x,) = ctx.saved
    wide = ctx.wide(x)
    t = _tanh_softplus(ctx, wide)
    return ctx.round(ctx.wide(grad) * (t + wide * logistic(ctx, wide) * (1 - t * t)))


def _tanh_softplus(ctx: Node, x: Array) -> Array:
    """tanh(ln(1 + e^x)); beyond 20 it is 1 in every format."""
    xp = ctx.backend.xp
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
    return ctx.round(a * logistic(ctx, b))


@glu.gradient
def _(ctx: Node, grad: Array, *, dim: int = -1) -> Array:
    (x,) = ctx.saved
    a, b = _halves(ctx.wide(x), dim)
    g, s = ctx.wide(grad), logistic(ctx, b)
    return ctx.round(ctx.backend.xp.concatenate([g * s, g * a * s * (1 - s)], axis=dim))


def _halves(x: Array, dim: int) -> tuple[Array, Array]:
    lead, half = (slice(None),) * (dim % x.ndim), x.shape[dim] // 2
    return x[(*lead, slice(0, half))], x[(*lead, slice(half, None))]


@glu.composite
def _(x: Any, *, dim: int = -1) -> Tensor:
    lead, half = (slice(None),) * (dim % len(x.shape)), x.shape[dim] // 2
    gate = getitem(x, index=(*lead, slice(half, None)))
    return mul(getitem(x, index=(*lead, slice(0, half))), sigmoid(gate))
