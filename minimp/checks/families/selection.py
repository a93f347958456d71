"""Ops that choose, order and lay side by side: exact results, gradients that only move."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.case import Case, Rule
from minimp.checks.running import Running

__all__ = ["BOUNDS", "FORMATLESS", "GRADIENTS", "REFERENCE", "back"]

Array = np.ndarray[Any, Any]


def back(c: Case, index: int, grad: Running) -> Running:
    """Return the gradient of input `index` from one of the result's shape; exact if nothing was broadcast."""
    shape = c.shape(index)
    return grad if grad.exact.shape == shape else c.unbroadcast(grad, shape).rounded()


# ---- what the ops mean ----------------------------------------------------------------------------------


def clamp(x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """The nearest number from low to high; high where low > high."""
    y = x if low is None else np.maximum(x, low)
    return np.asarray(y if high is None else np.minimum(y, high))


def argsort(x: Array, *, dim: int = -1, descending: bool = False, count: int | None = None) -> Array:
    """Indices that sort, by counting for each element how many come before it."""
    rows = np.moveaxis(np.atleast_1d(x), dim, -1)
    lost = np.isnan(rows)  # NaN comes after infinity
    value = np.where(lost, np.inf, rows)
    a, b = (value[..., :, None], lost[..., :, None]), (value[..., None, :], lost[..., None, :])
    same = (a[0] == b[0]) & (a[1] == b[1])
    below = (b[0] < a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
    places = np.arange(rows.shape[-1])
    before = (~below & ~same if descending else below) | (same & (places[None, :] < places[:, None]))
    order = np.empty(rows.shape, np.int64)
    np.put_along_axis(order, before.sum(axis=-1), np.broadcast_to(places, rows.shape), axis=-1)
    order = np.moveaxis(order[..., :count], -1, dim)
    return order if x.ndim or count == 0 else order.reshape(())


# ---- gradients ------------------------------------------------------------------------------------------


def _where(index: int) -> Rule:
    def rule(c: Case) -> Running:
        chosen = c.inputs[0] if index == 1 else ~c.inputs[0]
        return back(c, index, c.grad.where(np.broadcast_to(chosen, c.grad.exact.shape)))

    return rule


def _masked_fill(c: Case) -> Running:
    return back(c, 0, c.grad.where(~np.broadcast_to(c.inputs[1], c.grad.exact.shape)))


def _clamp(index: int) -> Rule:
    """x takes the gradient inside the bounds and at them; a bound takes it beyond; high above low."""

    def rule(c: Case) -> Running:
        x = c.number(0).exact
        bounds = [
            c.inputs[i].exact if len(c.inputs) > i and c.inputs[i] is not None else None for i in (1, 2)
        ]
        low, high = bounds
        least, most = -np.inf if low is None else low, np.inf if high is None else high
        masks = (
            (x >= least) & (x <= most),
            (x < least) & ((high is None) | (least < most)),
            (x > most) | ((low is not None) & (least > most)),
        )
        return back(c, index, c.grad.where(np.broadcast_to(masks[index], c.grad.exact.shape)))

    return rule


def _extreme(index: int, sign: int) -> Rule:
    """All of it to the larger (sign 1) or the smaller (-1), half for equal ones, all at NaN."""

    def rule(c: Case) -> Running:
        a, b = c.number(index).exact * sign, c.number(1 - index).exact * sign
        half = (c.grad * 0.5).rounded()
        shared = half.where(np.broadcast_to(a == b, c.grad.exact.shape), c.grad)
        return back(c, index, shared.where(np.broadcast_to(~(a < b), c.grad.exact.shape)))

    return rule


def _amin(c: Case) -> Running:
    """Equal minima share alike."""
    x, dim = c.number(0).exact, c.options.get("dim")
    least = np.min(x, axis=dim, keepdims=True)
    hit = (x == least).astype(np.float64)
    grad = c.grad.move(lambda g: np.broadcast_to(g.reshape(least.shape), x.shape))
    return (grad / c.at.number(np.sum(hit, axis=dim, keepdims=True)) * c.at.number(hit)).rounded()


def _triangle(sign: int) -> Rule:
    cut = np.tril if sign < 0 else np.triu
    return lambda c: c.grad.move(lambda a: cut(a, c.options.get("diagonal", 0)))


def _stack(index: int) -> Rule:
    return lambda c: c.grad.move(lambda a: np.take(a, index, axis=c.options.get("dim", 0)))


REFERENCE = MappingProxyType(
    {
        "amin": lambda x, *, dim=None, keepdim=False: np.amin(x, axis=dim, keepdims=keepdim),
        "argmin": lambda x, *, dim=None, keepdim=False: np.argmin(x, axis=dim, keepdims=keepdim),
        "argsort": argsort,
        "clamp": clamp,
        "masked_fill": lambda x, mask, *, value: np.where(mask, value, x),
        "maximum": np.maximum,
        "minimum": np.minimum,
        "stack": lambda *arrays, dim=0: np.stack(arrays, axis=dim),
        "tril": lambda x, *, diagonal=0: np.tril(x, diagonal),
        "triu": lambda x, *, diagonal=0: np.triu(x, diagonal),
        "where": np.where,
    }
)
BOUNDS: dict[str, Any] = {}
GRADIENTS = MappingProxyType(
    {
        "amin": (_amin,),
        "clamp": (_clamp(0), _clamp(1), _clamp(2)),
        "masked_fill": (_masked_fill,),
        "maximum": (_extreme(0, 1), _extreme(1, 1)),
        "minimum": (_extreme(0, -1), _extreme(1, -1)),
        "stack": _stack,
        "tril": (_triangle(-1),),
        "triu": (_triangle(1),),
        "where": (_where(1), _where(1), _where(2)),
    }
)
FORMATLESS = frozenset({"argmin", "argsort"})
