"""Loss functions: float32 under autocast, summed as `ctx.accumulate` says."""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.errors import DataError, ShapeError
from minimp.ops.reducing import check_reduction
from minimp.policy import CastClass, Mixed
from minimp.refusals import within
from minimp.tape import Array, Node

__all__ = ["check_labels", "mse_loss", "nll_loss", "reduced_rows", "weight_sum"]


@op(cast=CastClass.FP32, bound="sum")
def mse_loss(ctx: Node, x: Array, target: Array, *, reduction: str = "mean") -> Array:
    """mean (x - t)^2 over all elements; both (...), of one shape; reduction mean, sum or none."""
    check_reduction("mse_loss", reduction)
    if x.shape != target.shape:
        raise ShapeError(
            f"expected input and target of one shape, got {x.shape} and {target.shape}",
            op="mse_loss", shapes=[x.shape, target.shape], help="reshape one; losses do not broadcast",
        )  # fmt: skip
    ctx.save(x, target)
    gap = ctx.wide(x) - ctx.wide(target)
    return reduced_rows(ctx, gap * gap, reduction, x.size)


@mse_loss.gradient
def _(ctx: Node, grad: Array, *, reduction: str = "mean") -> tuple[Array | None, ...]:
    x, target = ctx.saved
    gap = ctx.wide(x) - ctx.wide(target)
    factor = 2.0 / max(gap.size, 1) if reduction == "mean" else 2.0
    slope = gap * (ctx.wide(grad) * factor)
    by_target = ctx.round(-slope) if ctx.needs(1) else None
    return (ctx.round(slope) if ctx.needs(0) else None), by_target


@op(cast=CastClass.FP32, mixed=Mixed.SAME, bound="sum")
def nll_loss(
    ctx: Node, log_p: Array, target: Array, weight: Array | None = None, *,
    reduction: str = "mean", ignore_index: int = -100, label_smoothing: float = 0.0,
) -> Array:  # fmt: skip
    """-log_p[target]: (N, C), (N,), (C,) -> () or (N,); the weighted mean divides by the sum of weights.

    label_smoothing e takes the target distribution (1 - e) onehot + e / C, as torch's cross_entropy.
    """
    check_reduction("nll_loss", reduction)
    target = check_labels(log_p, target, ignore_index)
    ctx.save(target, weight)
    if label_smoothing == 0 and ctx.accumulate in ("float32", "float64"):  # one term a row, so no sum
        factor, place = _picked(ctx, target, weight, ignore_index)
        loss = -_times(ctx, factor, ctx.wide(log_p[place]))
    else:
        share = _target_distribution(ctx, log_p, target, weight, ignore_index, label_smoothing)
        terms = _times(ctx, share, ctx.wide(log_p))
        loss = -ctx.backend.sum(terms, axis=1, accumulate=ctx.accumulate)
    return reduced_rows(ctx, loss, reduction, weight_sum(ctx, target, weight, ignore_index))


@nll_loss.gradient
def _(
    ctx: Node, grad: Array, *, reduction: str = "mean", ignore_index: int = -100, label_smoothing: float = 0.0
) -> tuple[Array | None, ...]:
    target, weight = ctx.saved
    xp, g = ctx.backend.xp, ctx.wide(grad)
    if reduction == "mean":
        g = g / xp.asarray(weight_sum(ctx, target, weight, ignore_index), g.dtype)
    if label_smoothing == 0:
        factor, place = _picked(ctx, target, weight, ignore_index)
        slope = ctx.backend.scatter_add(
            ctx.shape_of(0), place, -_times(ctx, factor.astype(g.dtype), g), accumulate="float32"
        )  # no two meet
        return ctx.round(slope), None, None
    like = xp.zeros(ctx.shape_of(0), g.dtype)
    share = _target_distribution(ctx, like, target, weight, ignore_index, label_smoothing)
    return ctx.round(-_times(ctx, share, g[:, None] if reduction == "none" else g)), None, None


def _times(ctx: Node, share: Array, x: Array) -> Array:
    """The product, 0 wherever the share is, whatever x is there."""
    product = share * x
    return ctx.backend.xp.where(share == 0, ctx.backend.xp.zeros_like(product), product)


def _picked(ctx: Node, target: Array, weight: Array | None, ignore_index: int) -> tuple[Array, Any]:
    """(N,): the weight of each row's label, 0 for ignored ones; and where the labels are in (N, C)."""
    xp, kept = ctx.backend.xp, target != ignore_index
    labels = xp.where(kept, target, 0)
    factor = kept.astype("float32") if weight is None else ctx.wide(weight)[labels] * kept
    return factor, (xp.arange(len(target)), labels)


def _target_distribution(
    ctx: Node, like: Array, target: Array, weight: Array | None, ignore_index: int, smoothing: float
) -> Array:
    """(N, C): the weight of each class in each row's loss; zero rows for ignored labels."""
    xp = ctx.backend.xp
    kept = target != ignore_index
    rows, classes = like.shape
    share = xp.full((rows, classes), smoothing / classes, ctx.wide(like).dtype)
    share[xp.arange(rows), xp.where(kept, target, 0)] += 1 - smoothing
    if weight is not None:
        share *= ctx.wide(weight)
    return share * kept[:, None]


def weight_sum(ctx: Node, target: Array, weight: Array | None, ignore_index: int) -> Any:
    """Return what the mean divides by: the weights of the labels that count, or their number."""
    kept = target != ignore_index
    if weight is None:
        return kept.sum()
    terms = ctx.wide(weight)[ctx.backend.xp.where(kept, target, 0)] * kept
    return ctx.backend.sum(terms, accumulate=ctx.accumulate)


def reduced_rows(ctx: Node, terms: Array, reduction: str, count: Any) -> Array:
    """Return the terms, their sum, or their sum over `count`; rounded once, at the end."""
    if reduction == "none":
        return ctx.round(terms)
    total = ctx.backend.sum(terms, accumulate=ctx.accumulate)
    return ctx.round(total / ctx.backend.xp.asarray(count, total.dtype) if reduction == "mean" else total)


def check_labels(log_p: Array, target: Array, ignore_index: int) -> Array:
    """Return the labels; refuse what is not one class index per row."""
    if log_p.ndim != 2 or target.shape != log_p.shape[:1]:
        raise ShapeError(
            f"expected scores (N, C) and labels (N,), got {log_p.shape} and {target.shape}",
            op="nll_loss", shapes=[log_p.shape, target.shape],
        )  # fmt: skip
    if target.dtype.kind not in "iu":
        raise DataError(
            f"expected integer labels, got {target.dtype}", op="nll_loss",
            help="cast them with .astype('int64')",
        )  # fmt: skip
    classes = log_p.shape[1]
    wrong = (target != ignore_index) & ((target < 0) | (target >= classes))

    def fault() -> DataError:
        row = int(wrong.argmax())
        return DataError(
            f"expected labels from 0 to {classes - 1}, got {int(target[row])} in row {row}", op="nll_loss",
            help="count classes from 0, give the model more outputs, or leave a label out with ignore_index",
        )  # fmt: skip

    return within(target, wrong, fault)
