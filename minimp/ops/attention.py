"""Scaled dot-product attention: one op, computed in float32 from scores to result, rounded once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from minimp.door import cast, op
from minimp.errors import ShapeError
from minimp.formats import float32, float64
from minimp.ops.broadcasting import to_shape_of
from minimp.ops.products import matmul
from minimp.ops.reductions import softmax
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["scaled_dot_product_attention"]


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="softmax")
def scaled_dot_product_attention(
    ctx: Node, q: Array, k: Array, v: Array, mask: Array | None = None, keep: Array | None = None, *,
    scale: float, is_causal: bool = False, dropout_p: float = 0.0,
) -> Array:  # fmt: skip
    """y = (softmax(scale Q K^T + mask) m) V (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1).

    (..., L, E), (..., S, E), (..., S, V) -> (..., L, V); mask and keep are (..., L, S); all axes in front
    broadcast. A bool mask is True where a query attends to a key, a floating one is added; is_causal lets
    query i attend to keys 0..i. keep is what dropout left; m is keep / (1 - dropout_p), or 1 without it. A
    query with no key to attend to gives 0 (torch's _safe_softmax).

    Scores, probabilities and both products are float32's and the result is rounded once, as torch's math
    path does for 16-bit tensors; a flash kernel rounds the probabilities too. Kept for the gradient are q,
    k, v, the masks and one float32 number a query, ln sum e^s: L numbers in the place of L S probabilities
    (Dao et al. 2022, arXiv 2205.14135). Under a name of an accumulation other than float32 and float64,
    probabilities and the scores' gradient are rounded to the format before they are multiplied.
    """
    _check(q, k, v, mask, keep)
    how = _masking(ctx, mask, keep, scale, is_causal, dropout_p)
    y, log_sum = ctx.backend.attention(q, k, v, how, accumulate=ctx.accumulate)
    ctx.save(q, k, v, mask, keep, log_sum)
    return ctx.round(y)


@scaled_dot_product_attention.gradient
def _(
    ctx: Node, grad: Array, *, scale: float, is_causal: bool = False, dropout_p: float = 0.0
) -> tuple[Array | None, ...]:
    q, k, v, mask, keep, log_sum = ctx.saved
    how = _masking(ctx, mask, keep, scale, is_causal, dropout_p)
    by_mask = len(ctx.inputs) > 3 and ctx.needs(3)
    found = ctx.backend.attention_gradient(
        grad, q, k, v, log_sum, how, needs_scores=by_mask, accumulate=ctx.accumulate
    )
    rounded = [None if part is None else ctx.round(part) for part in found]
    parts = [to_shape_of(ctx, i, part) if ctx.needs(i) else None for i, part in enumerate(rounded[:3])]
    return (*parts, to_shape_of(ctx, 3, rounded[3]) if by_mask else None, None)[: len(ctx.inputs)]


@scaled_dot_product_attention.composite
def _(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, keep: Tensor | None = None, *,
    scale: float, is_causal: bool = False, dropout_p: float = 0.0,
) -> Tensor:  # fmt: skip
    xp, format = q.backend.xp, q.format
    wide = format if format is float64 else float32
    q, k, v = (cast(x, format=wide) for x in (q, k, v))
    scores = matmul(q, k.transpose(-1, -2)) * scale
    if mask is not None and mask.format is not None:
        scores = scores + cast(mask, format=wide)
    seen = _seen(xp, scores.shape, mask, is_causal)
    p = softmax(scores + xp.where(seen | ~seen.any(-1, keepdims=True), 0.0, -math.inf).astype(wide.dtype))
    left = seen if keep is None else seen & keep.array  # a row that sees nothing gives 0
    return cast(matmul(p * (left * _factor(dropout_p)).astype(wide.dtype), v), format=format or wide)


def _seen(xp: Any, shape: tuple[int, ...], mask: Tensor | None, is_causal: bool) -> Array:
    """(..., L, S) bool: which keys each query attends to."""
    seen = xp.ones(shape, dtype=bool)
    if is_causal:
        seen = seen & xp.tri(*shape[-2:], dtype=bool)
    return seen & mask.array if mask is not None and mask.format is None else seen


def _masking(
    ctx: Node, mask: Array | None, keep: Array | None, scale: float, is_causal: bool, dropout_p: float
) -> Any:
    factor = 1.0 if keep is None else _factor(dropout_p)
    return ctx.backend.masking(scale=scale, causal=is_causal, mask=mask, keep=keep, factor=factor)


def _factor(dropout_p: float) -> float:
    return 1 / (1 - dropout_p) if dropout_p < 1 else 0.0


def _check(q: Array, k: Array, v: Array, mask: Array | None, keep: Array | None) -> None:
    """Refuse shapes that no attention has."""
    name, shapes = "scaled_dot_product_attention", [x.shape for x in (q, k, v)]
    if min(x.ndim for x in (q, k, v)) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"expected query (..., L, E), key (..., S, E), value (..., S, V), got {q.shape}, {k.shape} and "
            f"{v.shape}", op=name, shapes=shapes, help="heads go in front: (N, H, L, E)",
        )  # fmt: skip
    scores = (q.shape[-2], k.shape[-2])
    for what, each in (("attn_mask", mask), ("dropout", keep)):
        if each is not None and any(
            n not in (1, wanted) for n, wanted in zip(each.shape[::-1], scores[::-1], strict=False)
        ):
            raise ShapeError(
                f"expected {what} of (..., {scores[0]}, {scores[1]}), got {each.shape}",
                op=name, shapes=[*shapes, each.shape], help="it broadcasts against the scores (..., L, S)",
            )  # fmt: skip
