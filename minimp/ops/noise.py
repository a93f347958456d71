"""Ops that draw random numbers."""

from __future__ import annotations

from minimp import rng
from minimp.door import op
from minimp.errors import SettingError
from minimp.tape import Array, Node

__all__ = ["dropout"]


@op(bound="rounded")
def dropout(ctx: Node, x: Array, *, p: float = 0.5) -> Array:
    """Zero each element with probability p and divide the rest by 1 - p (Srivastava et al. 2014).

    The mask is drawn from minimp's generator (:func:`minimp.manual_seed`) and saved, one byte an element; on
    a device, only the seed of the mask is.
    """
    if not 0.0 <= p <= 1.0:
        raise SettingError(f"dropout: expected a probability from 0 to 1, got {p}")
    keep = ctx.backend.keep_mask(x.shape, p, rng.generator())
    ctx.save(keep)
    return _thin(ctx, x, keep, p)


@dropout.gradient
def _(ctx: Node, grad: Array, *, p: float = 0.5) -> Array:
    (keep,) = ctx.saved
    return _thin(ctx, grad, keep, p)


def _thin(ctx: Node, x: Array, keep: Array, p: float) -> Array:
    kept = ctx.wide(x) * (1 / (1 - p) if p < 1 else 0.0)
    return ctx.round(ctx.backend.xp.where(keep, kept, ctx.backend.xp.zeros_like(kept)))
