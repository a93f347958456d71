"""Cross-entropy of labels from scores: log_softmax and nll_loss, or both at once where nobody looks between.

A backend may have kernels that go from scores to losses and back without the log-probabilities between them,
to the same bits. They run as one op that is none of the table: no policy rules it, and no listener meets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp.door import Op, cast_in_region
from minimp.formats import Format
from minimp.modes import MODES
from minimp.ops.losses import check_labels, nll_loss, reduced_rows, weight_sum
from minimp.ops.reducing import check_reduction
from minimp.ops.reductions import log_softmax
from minimp.policy import CastClass, Mixed, compute_formats
from minimp.tape import Array, Node, Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["cross_entropy_of_labels"]

LEFT_OUT = -1
"""What stands for a label that counts for nothing."""


def cross_entropy_of_labels(scores: Value, target: Value, weight: Any, **options: Any) -> Tensor:
    """Return nll_loss of log_softmax: (N, C), (N,), (C,) -> () or (N,).

    Args:
        scores, target, weight: as of the two ops.
        options: those of nll_loss, all of them.
    """
    modes, format = MODES.get(), _one_format(scores)
    if modes.listeners or format is None or scores.backend is not target.backend:
        return _one_after_the_other(scores, target, weight, **options)
    if modes.autocast is not None and format is not scores.format:
        scores = cast_in_region(scores, format, modes.autocast)  # as log_softmax does
    fits = weight is None or (isinstance(weight, Value) and weight.format is format)
    if not fits or scores.backend.row_losses(scores.array, modes.accumulate) is None:
        return _one_after_the_other(scores, target, weight, **options)
    return AT_ONCE(scores, target, weight, **options)


def _one_format(scores: Value) -> Format | None:
    """Return the format in which both ops compute; None if they differ."""
    region = MODES.get().autocast
    if region is None or not region.enabled:
        return scores.format
    found = []
    given = scores.format
    for op in (log_softmax, nll_loss):
        (target,) = compute_formats(region.policy.rule(op), [given], region.format, op=op.name)
        given = given if target is None else target
        found.append(given)
    return found[0] if found[0] is found[1] else None


def _one_after_the_other(scores: Any, target: Any, weight: Any = None, **options: Any) -> Tensor:
    return nll_loss(log_softmax(scores, dim=1), target, weight, **options)


def cross_entropy_of_rows(
    ctx: Node, x: Array, target: Array, weight: Array | None = None, *,
    reduction: str, ignore_index: int, label_smoothing: float,
) -> Array:  # fmt: skip
    """-sum share (x - max - ln sum e^(x - max)) of each row; dx = s - e^y sum s, s = -share g."""
    check_reduction("nll_loss", reduction)
    kernels = ctx.backend.row_losses(x, ctx.accumulate)
    assert kernels is not None  # asked before
    xp, labels = ctx.backend.xp, check_labels(x, target, ignore_index).astype("int64", copy=False)
    labels = xp.where(labels == ignore_index, LEFT_OUT, labels)  # signed by then: a mark is less than 0
    losses, *kept = kernels.loss(x, labels, weight, label_smoothing)
    ctx.memo = kernels
    ctx.save(x, target, weight, labels, *kept)
    return reduced_rows(ctx, losses, reduction, weight_sum(ctx, labels, weight, LEFT_OUT))


def _gradient(
    ctx: Node, grad: Array, *, reduction: str, ignore_index: int, label_smoothing: float
) -> tuple[Array, None, None]:
    del ignore_index  # marked among the labels
    x, _, weight, labels, *kept = ctx.saved
    g = ctx.wide(grad)
    if reduction == "mean":
        g = g / ctx.backend.xp.asarray(weight_sum(ctx, labels, weight, LEFT_OUT), g.dtype)
    return ctx.memo.gradient(g, x, labels, weight, tuple(kept), label_smoothing), None, None


AT_ONCE = Op(cross_entropy_of_rows, CastClass.KEEP, Mixed.SAME, "sum")
AT_ONCE.backward_rule = _gradient
AT_ONCE.composed = _one_after_the_other
