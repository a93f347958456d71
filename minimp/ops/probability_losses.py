"""Losses of probabilities: binary cross-entropy and the Kullback-Leibler divergence, one rounding each."""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.errors import DataError, ShapeError
from minimp.ops.broadcasting import to_shape_of
from minimp.ops.reducing import check_one_shape, count_of, over, reduced, spread_over, times_slope
from minimp.policy import CastClass
from minimp.refusals import refuse_if
from minimp.tape import Array, Node

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div"]

LOWEST_LOG = -100.0
"""Logarithms of probabilities are held above this, as in torch.nn.BCELoss."""
LEAST_SPREAD = 1e-12
"""p (1 - p), the divisor of the gradient, is held above this, as in PyTorch 2.13."""


@op(cast=CastClass.BANNED, bound="sum")
def binary_cross_entropy(
    ctx: Node, x: Array, target: Array, weight: Array | None = None, *, reduction: str = "mean"
) -> Array:
    """-(t ln x + (1 - t) ln(1 - x)) w, x and t from 0 to 1; (...), (...), w broadcast to them -> () or (...).

    Logarithms are held above -100. The gradient by x is (x - t) / max(x (1 - x), 1e-12), which at 0 and 1 is
    large, and in float16 infinite: so autocast on CUDA refuses this loss, and its form with logits is safe.
    No gradient by the weight.
    """
    check_one_shape("binary_cross_entropy", x, target)
    _check_unit("inputs", ctx.wide(x))
    _check_unit("targets", ctx.wide(target))
    _check_weight(ctx, x, 2, weight)
    ctx.save(x, target, weight)

    def term(backend: Any, p: Array, t: Array) -> Array:
        log_p, log_rest = _logarithms(backend, p)
        return -(t * log_p + (1 - t) * log_rest)

    terms = ctx.backend.elementwise(term, ctx.wide(x), ctx.wide(target))
    return reduced(ctx, terms if weight is None else terms * ctx.wide(weight), reduction)


@binary_cross_entropy.gradient
def _(ctx: Node, grad: Array, *, reduction: str = "mean") -> tuple[Array | None, ...]:
    x, target, weight = ctx.saved
    p, t = ctx.wide(x), ctx.wide(target)
    g = spread_over(ctx, grad, reduction, p.size)
    g = g if weight is None else g * ctx.wide(weight)
    by_x = by_target = None
    if ctx.needs(0):
        spread = p * (1 - p)
        by_x = ctx.round(g * (p - t) / ctx.backend.xp.where(spread < LEAST_SPREAD, LEAST_SPREAD, spread))
    if ctx.needs(1):
        log_p, log_rest = _logarithms(ctx.backend, p)
        by_target = ctx.round(g * (log_rest - log_p))
    return by_x, by_target, None


def _logarithms(backend: Any, p: Array) -> tuple[Array, Array]:
    """Return ln p and ln(1 - p), held above -100."""
    xp = backend.xp
    log_p, log_rest = xp.log(p), xp.log1p(-p)
    return (
        xp.where(log_p < LOWEST_LOG, LOWEST_LOG, log_p),
        xp.where(log_rest < LOWEST_LOG, LOWEST_LOG, log_rest),
    )


@op(cast=CastClass.FP32, bound="sum")
def binary_cross_entropy_with_logits(
    ctx: Node, x: Array, target: Array, weight: Array | None = None, pos_weight: Array | None = None, *,
    reduction: str = "mean",
) -> Array:  # fmt: skip
    """w ((1 - t) x + (1 + (v - 1) t) softplus(-x)); x and t (...), w and the weight v of positives broadcast.

    It is binary_cross_entropy of sigmoid(x), without its loss of digits: softplus(-x) = ln(1 + e^-x) is taken
    as max(-x, 0) + ln(1 + e^-|x|), where nothing overflows. The gradient by x is
    (1 + (v - 1) t) sigmoid(x) - v t. No gradients by the weights.
    """
    check_one_shape("binary_cross_entropy_with_logits", x, target)
    _check_weight(ctx, x, 2, weight)
    _check_weight(ctx, x, 3, pos_weight)
    ctx.save(x, target, weight, pos_weight)

    def term(backend: Any, x: Array, t: Array, *v: Array) -> Array:
        return (1 - t) * x + _positive_share(t, *v) * _softplus(backend, -x)

    terms = ctx.backend.elementwise(term, ctx.wide(x), ctx.wide(target), *_spread(ctx, pos_weight, x))
    return reduced(ctx, terms if weight is None else terms * ctx.wide(weight), reduction)


@binary_cross_entropy_with_logits.gradient
def _(ctx: Node, grad: Array, *, reduction: str = "mean") -> tuple[Array | None, ...]:
    x, target, weight, pos_weight = ctx.saved
    arrays = (ctx.wide(x), ctx.wide(target), *_spread(ctx, pos_weight, x))
    g = spread_over(ctx, grad, reduction, x.size)
    g = g if weight is None else g * ctx.wide(weight)
    g = g if g.ndim == 0 or g.shape == x.shape else over(ctx, g, x.shape)

    def by_logit(backend: Any, x: Array, t: Array, *v: Array) -> Array:
        return _positive_share(t, *v) * backend.logistic(x) - (t * v[0] if v else t)

    def by_share(backend: Any, x: Array, t: Array, *v: Array) -> Array:
        del t
        return (v[0] - 1) * _softplus(backend, -x) - x if v else -x

    return (
        ctx.round(times_slope(ctx, g, by_logit, *arrays)) if ctx.needs(0) else None,
        ctx.round(times_slope(ctx, g, by_share, *arrays)) if ctx.needs(1) else None,
        None,
        None,
    )


def _spread(ctx: Node, pos_weight: Array | None, x: Array) -> tuple[Array, ...]:
    """Return the weight of positives for each element, if there is one."""
    return () if pos_weight is None else (ctx.backend.xp.broadcast_to(ctx.wide(pos_weight), x.shape),)


def _positive_share(t: Array, *v: Array) -> Any:
    """1 + (v - 1) t."""
    return 1 + (v[0] - 1) * t if v else 1


def _softplus(backend: Any, x: Array) -> Array:
    """ln(1 + e^x), without overflow."""
    xp = backend.xp
    return backend.select(x > 0, x, xp.zeros_like(x)) + xp.log1p(xp.exp(-abs(x)))


@op(cast=CastClass.FP32, bound="sum")
def kl_div(ctx: Node, x: Array, target: Array, *, log_target: bool = False, reduction: str = "mean") -> Array:
    """t (ln t - x), or e^t (t - x) with log_target, for log-probabilities x; (...), (...) -> () or broadcast.

    The divergence of Kullback and Leibler (1951) is the sum; "batchmean" divides it by the first length of
    x, "mean" by the number of terms. 0 ln 0 = 0, and the gradient by such a target is -inf.
    """
    ctx.save(x, target)
    xp = ctx.backend.xp
    wide, t = ctx.wide(x), ctx.wide(target)
    if log_target:
        terms = xp.exp(t) * (t - wide)
    else:
        terms = xp.where(t == 0, xp.zeros_like(t), t * xp.log(t)) - t * wide
    return reduced(ctx, terms, reduction, count_of(terms.shape, x.shape, reduction))


@kl_div.gradient
def _(
    ctx: Node, grad: Array, *, log_target: bool = False, reduction: str = "mean"
) -> tuple[Array | None, ...]:
    x, target = ctx.saved
    xp = ctx.backend.xp
    wide, t = ctx.wide(x), ctx.wide(target)
    shape = xp.broadcast_shapes(wide.shape, t.shape)
    g = spread_over(ctx, grad, reduction, count_of(shape, x.shape, reduction))
    by_x = by_target = None
    if ctx.needs(0):
        by_x = ctx.round(over(ctx, -g * (xp.exp(t) if log_target else t), shape))
    if ctx.needs(1):
        by_target = ctx.round(g * (xp.exp(t) * (t - wide + 1) if log_target else xp.log(t) + 1 - wide))
    return to_shape_of(ctx, 0, by_x), to_shape_of(ctx, 1, by_target)


def _check_unit(what: str, p: Array) -> None:
    """Refuse what is no probability; NaN is let through, so that a scaler can find it."""
    wrong = (p < 0) | (p > 1)

    def fault() -> DataError:
        value = float(p[wrong].reshape(-1)[0])
        return DataError(
            f"expected {what} from 0 to 1, got {value:g}",
            op="binary_cross_entropy", help="take the sigmoid first, or use binary_cross_entropy_with_logits",
        )  # fmt: skip

    refuse_if(wrong.any(), fault)


def _check_weight(ctx: Node, x: Array, index: int, weight: Array | None) -> None:
    """Refuse a weight that wants a gradient, or does not broadcast to the input."""
    if weight is None:
        return
    name = ("", "", "weight", "pos_weight")[index]
    if ctx.needs(index):
        raise DataError(f"{name} has no gradient", op=ctx.op.name, help=f"pass {name}.detach()")
    shape = weight.shape
    lead = x.shape[x.ndim - len(shape) :] if len(shape) <= x.ndim else None
    if lead is None or any(n not in (1, m) for n, m in zip(shape, lead, strict=True)):
        raise ShapeError(
            f"expected a {name} that broadcasts to {x.shape}, got {shape}",
            op=ctx.op.name, shapes=[x.shape, shape],
        )  # fmt: skip
