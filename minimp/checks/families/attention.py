"""Attention and embeddings: their meaning, and how far results and gradients may be from it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minimp.checks.case import Case, Rule
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "NO_DERIVATIVE", "REFERENCE"]

Array = np.ndarray[Any, Any]


# ---- what they mean -------------------------------------------------------------------------------------


def attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, keep: Array | None = None, *,
    scale: float, is_causal: bool = False, dropout_p: float = 0.0,
) -> Array:  # fmt: skip
    """softmax(scale q k + mask) v over the keys a query attends to; 0 if there is none."""
    scores = np.einsum("...le,...se->...ls", q, k) * scale
    if mask is not None and mask.dtype.kind == "f":
        scores = scores + mask
    scores = np.where(attended(scores.shape, mask, is_causal), scores, -np.inf)
    some = np.any(scores != -np.inf, axis=-1, keepdims=True)
    top = np.where(some, np.max(scores, axis=-1, keepdims=True, initial=-np.inf), 0.0)
    e = np.exp(scores - top)
    p = e / np.where(some, np.sum(e, axis=-1, keepdims=True), 1.0)
    if keep is not None:
        p = np.where(keep, p / (1 - dropout_p) if dropout_p < 1 else 0.0, 0.0)
    return np.asarray(np.matmul(p, v))


def attended(shape: tuple[int, ...], mask: Any, is_causal: bool) -> Array:
    """(..., L, S) bool: which keys a query attends to."""
    seen = np.ones(shape, bool)
    if is_causal:
        seen &= np.arange(shape[-1]) <= np.arange(shape[-2])[:, None]
    if isinstance(mask, np.ndarray) and mask.dtype.kind == "b":
        seen = seen & mask
    return seen


def embedding(
    weight: Array, index: Array, *, padding_idx: int | None = None, scale_grad_by_freq: bool = False
) -> Array:
    """The rows, one after the other."""
    del padding_idx, scale_grad_by_freq  # they act on the gradient
    return np.asarray(weight[index])


# ---- how far results may be off -------------------------------------------------------------------------


class _Parts(NamedTuple):
    """What forward and gradients share.

    Attributes:
        scores: biased and masked.
        p: the probabilities, from ln sum e^s.
        ratio: the probabilities, from a division.
        unsure: whether a number that is not finite is masked: a kernel may look at it, or not.
    """

    scores: Running
    p: Running
    ratio: Running
    unsure: bool


@np.errstate(invalid="ignore")  # where a whole row is masked, -inf meets -inf
def _parts(q: Running, k: Running, v: Running, mask: Any, scale: float, is_causal: bool) -> _Parts:
    """Scores to gamma_E and two roundings; e^(s - max) as softmax's; ln sum e^s to its logarithm's ulps."""
    named = q.at.accumulate not in ("float32", "float64")
    terms = q.exact.shape[-1]
    scores = (q if named else q * scale).product(k, lambda a, b: np.matmul(a, b.swapaxes(-1, -2)), terms)
    scores = _claim(scores * scale if named else scores, False)
    if isinstance(mask, Running):
        scores = scores + mask
    seen = attended(scores.exact.shape, mask, is_causal)
    scores = scores.where(seen, -math.inf)
    some = np.any(scores.exact != -np.inf, axis=-1, keepdims=True)
    top = np.where(some, np.max(scores.exact, axis=-1, keepdims=True, initial=-np.inf), 0.0)
    e = (scores - q.at.number(top)).exp().where(seen)
    total = e.sum(-1, keepdims=True).where(some, 1.0)
    p = (scores - (total.log() + q.at.number(top))).exp()
    finite = all(np.isfinite(x.exact).all() for x in (q, k, v))
    return _Parts(scores, p, e / total, not finite and not seen.all())


def _result(
    q: Running, k: Running, v: Running, mask: Any = None, keep: Any = None, *,
    scale: float, is_causal: bool = False, dropout_p: float = 0.0,
) -> Running:  # fmt: skip
    """Probabilities as softmax's, then gamma_S of the product with V."""
    parts = _parts(q, k, v, mask, scale, is_causal)
    p = _factor(_dropped(parts.ratio, keep, dropout_p))
    return _claim(p.product(v, np.matmul, k.exact.shape[-2]), parts.unsure)


def _dropped(p: Running, keep: Any, dropout_p: float) -> Running:
    if keep is None:
        return p
    return (p * (1.0 / p.at.number(1 - dropout_p) if dropout_p < 1 else 0.0)).where(keep)


def _factor(x: Running) -> Running:
    """Under a name that adds products of a format's values, a factor is rounded to it first."""
    return x if x.at.accumulate in ("float32", "float64") else x.stored()


def _claim(x: Running, unsure: bool) -> Running:
    """No claim where it is unsure, or where an error that may be infinite met a factor of 0."""
    return Running(x.exact, np.where(np.isnan(x.error) | unsure, np.inf, x.error), x.at)


# ---- gradients ------------------------------------------------------------------------------------------


def _taken(c: Case) -> tuple[_Parts, Any, Running]:
    """The parts, keep, and dS = p (r - sum p r), r = (g V^T) m."""
    q, k, v, mask, keep = (*c.inputs, None, None)[:5]
    parts = _parts(q, k, v, mask, c.options["scale"], c.options.get("is_causal", False))
    parts = parts._replace(unsure=parts.unsure or not np.isfinite(c.grad.exact).all())
    r = c.grad.product(v, lambda g, v: np.matmul(g, v.swapaxes(-1, -2)), v.exact.shape[-1])
    r = _dropped(_claim(r, False), keep, c.options.get("dropout_p", 0.0))
    return parts, keep, parts.p * (r - (parts.p * r).sum(-1, keepdims=True))


def _by_q(c: Case) -> Running:
    parts, _, ds = _taken(c)
    k = c.number(1)
    return c.to(
        0, _claim(_factor(ds).product(k, np.matmul, k.exact.shape[-2]) * c.options["scale"], parts.unsure)
    )


def _by_k(c: Case) -> Running:
    parts, _, ds = _taken(c)
    q, scale = c.number(0), c.options["scale"]
    named = c.at.accumulate not in ("float32", "float64")
    found = _across(_factor(ds), q if named else q * scale)
    return c.to(1, _claim(found * scale if named else found, parts.unsure))


def _by_v(c: Case) -> Running:
    parts, keep, _ = _taken(c)
    p = _factor(_dropped(parts.p, keep, c.options.get("dropout_p", 0.0)))
    return c.to(2, _claim(_across(p, c.grad), parts.unsure))


def _by_mask(c: Case) -> Running:
    parts, _, ds = _taken(c)
    return c.to(3, _claim(ds, parts.unsure))


def _across(a: Running, b: Running) -> Running:
    """A^T B: sums over the queries."""
    return a.product(b, lambda a, b: np.matmul(a.swapaxes(-1, -2), b), b.exact.shape[-2])


def _rows_of(c: Case) -> Running:
    """Sums over the places that took a row; over how many they are, if asked for."""
    index, shape = c.inputs[1], c.shape(0)
    padding = c.options.get("padding_idx")
    kept = np.ones(index.shape, bool) if padding is None else index != padding % shape[0]

    def put(a: Array) -> Array:
        out = np.zeros(shape)
        np.add.at(out, index[kept], a[kept])
        return out

    counts = np.bincount(index[kept], minlength=shape[0])
    most = int(counts.max(initial=0))
    found = c.grad.gather(put, most) if most > 1 else c.grad.move(put)
    if c.options.get("scale_grad_by_freq"):
        found = found / c.at.number(np.maximum(counts, 1).astype(np.float64)[:, None])
    return found.rounded() if most > 1 or c.options.get("scale_grad_by_freq") else found


REFERENCE = {"embedding": embedding, "scaled_dot_product_attention": attention}
BOUNDS = {"softmax": {"scaled_dot_product_attention": _result}}
NO_DERIVATIVE = {
    "embedding": lambda options: options.get("padding_idx") is not None or options.get("scale_grad_by_freq")
}
GRADIENTS: dict[str, tuple[Rule, ...]] = {
    "embedding": (_rows_of,),
    "scaled_dot_product_attention": (_by_q, _by_k, _by_v, _by_mask),
}
