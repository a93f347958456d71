"""Products to which something is added before the one rounding: addmm and baddbmm."""

from __future__ import annotations

from minimp.door import op
from minimp.errors import ShapeError
from minimp.ops.broadcasting import to_shape_of
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["addmm", "baddbmm"]


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="dot")
def addmm(ctx: Node, c: Array, a: Array, b: Array, *, beta: float = 1.0, alpha: float = 1.0) -> Array:
    """beta C + alpha A B.  C broadcast to (M, N), (M, K), (K, N) -> (M, N); one rounding, at the end.

    Sums by ctx.accumulate. With beta = 0, C is not read: its infinities and NaN do not matter.
    """
    return _added(ctx, c, a, b, beta, alpha, "(M, K), (K, N)", 2)


@addmm.gradient
def _(ctx: Node, grad: Array, *, beta: float = 1.0, alpha: float = 1.0) -> tuple[Array | None, ...]:
    return _gradients(ctx, grad, beta, alpha)


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="dot")
def baddbmm(ctx: Node, c: Array, a: Array, b: Array, *, beta: float = 1.0, alpha: float = 1.0) -> Array:
    """beta C + alpha A B in each of N matrices.  C broadcast to (N, M, P), (N, M, K), (N, K, P) -> (N, M, P).

    As addmm.
    """
    return _added(ctx, c, a, b, beta, alpha, "(N, M, K), (N, K, P)", 3)


@baddbmm.gradient
def _(ctx: Node, grad: Array, *, beta: float = 1.0, alpha: float = 1.0) -> tuple[Array | None, ...]:
    return _gradients(ctx, grad, beta, alpha)


def _added(
    ctx: Node, c: Array, a: Array, b: Array, beta: float, alpha: float, wanted: str, ndim: int
) -> Array:
    """Return beta c + alpha a b, rounded once."""
    agree = a.ndim == b.ndim == ndim and a.shape[-1] == b.shape[-2] and a.shape[:-2] == b.shape[:-2]
    shape = (*a.shape[:-1], b.shape[-1]) if agree else ()
    lead = shape[len(shape) - c.ndim :]
    if not agree or c.ndim > ndim or any(n not in (1, m) for n, m in zip(c.shape, lead, strict=True)):
        raise ShapeError(
            f"expected {wanted} and a summand that broadcasts to their product, got {a.shape}, {b.shape} "
            f"and {c.shape}",
            op=ctx.op.name, shapes=[c.shape, a.shape, b.shape],
        )  # fmt: skip
    ctx.save(a if ctx.needs(2) else None, b if ctx.needs(1) else None)
    y = ctx.backend.matmul(a, b, accumulate=ctx.accumulate)
    y = y if alpha == 1 else y * alpha
    if beta != 0:
        wide = ctx.wide(c)
        y = y + (wide if beta == 1 else wide * beta)
    return ctx.round(y)


def _gradients(ctx: Node, grad: Array, beta: float, alpha: float) -> tuple[Array | None, ...]:
    """Return beta g, alpha g B^T and alpha A^T g."""
    a, b = ctx.saved
    by_c = by_a = by_b = None
    if ctx.needs(0):
        by_c = grad if beta == 1 else ctx.round(ctx.wide(grad) * beta)
    if ctx.needs(1):
        by_a = _product(ctx, grad, ctx.backend.view(b, lambda v: v.swapaxes(-1, -2)), alpha)
    if ctx.needs(2):
        by_b = _product(ctx, ctx.backend.view(a, lambda v: v.swapaxes(-1, -2)), grad, alpha)
    return to_shape_of(ctx, 0, by_c), by_a, by_b


def _product(ctx: Node, a: Array, b: Array, alpha: float) -> Array:
    """Return alpha times a rounded product, rounded again, as torch's gradient is."""
    y = ctx.round(ctx.backend.matmul(a, b, accumulate=ctx.accumulate))
    return y if alpha == 1 else ctx.round(ctx.wide(y) * alpha)
