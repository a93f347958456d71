"""The losses beyond mse_loss and nll_loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minimp.checks.case import Case, Rule
from minimp.checks.reference import reduce_loss
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


# ---- what they mean -----------------------------------------------------------------------------------


def _softplus(x: Array) -> Array:
    """ln(1 + e^x)."""
    return np.asarray(np.logaddexp(0.0, x))


def _of_terms(terms: Callable[..., Array]) -> Callable[..., Array]:
    """Reduce the terms."""

    def loss(*inputs: Any, reduction: str = "mean", **options: Any) -> Array:
        found = np.asarray(terms(*inputs, **options))
        if reduction == "batchmean":
            return np.asarray(found.sum() / math.prod(np.shape(inputs[0])[:1]))
        return reduce_loss(found, reduction, found.size)

    return loss


def _smooth(x: Array, t: Array, *, beta: float = 1.0) -> Array:
    """The Moreau envelope of |d|: the integral of d / beta held within -1 and 1."""
    size = np.abs(x - t)
    return np.asarray(np.where(size < beta, size**2 / (2 * beta), size - beta / 2))


def _huber(x: Array, t: Array, *, delta: float = 1.0) -> Array:
    return np.asarray(delta * _smooth(x, t, beta=delta))


def _poisson(x: Array, t: Array, *, log_input: bool = True, full: bool = False, eps: float = 1e-8) -> Array:
    terms = np.exp(x) - t * x if log_input else x - t * np.log(x + eps)
    stirling = t * np.log(t) - t + np.log(2 * np.pi * t) / 2
    return np.asarray(terms + np.where(t > 1, stirling, 0.0) if full else terms)


def _bce(x: Array, t: Array, weight: Any = None) -> Array:
    one, other = (np.maximum(np.log(p), -100.0) for p in (x, 1 - x))
    terms = -(t * one + (1 - t) * np.where(x == 1, -100.0, other))
    return np.asarray(terms if weight is None else terms * weight)


def _bce_logits(x: Array, t: Array, weight: Any = None, pos_weight: Any = None) -> Array:
    """-w (v t ln sigmoid(x) + (1 - t) ln sigmoid(-x)), written with softplus."""
    share = 1.0 if pos_weight is None else 1 + (pos_weight - 1) * t
    return np.asarray(((1 - t) * x + share * _softplus(-x)) * (1.0 if weight is None else weight))


def _kl_div(x: Array, t: Array, *, log_target: bool = False) -> Array:
    entropy = np.where(t == 0, 0.0, t * np.log(t))
    return np.asarray(np.exp(t) * (t - x) if log_target else entropy - t * x)


def _hinge(x: Array, t: Array, *, margin: float = 1.0) -> Array:
    return np.where(t == 1, x, np.maximum(margin - x, 0.0))


def _ranking(a: Array, b: Array, t: Array, *, margin: float = 0.0) -> Array:
    return np.asarray(np.maximum(margin - t * (a - b), 0.0))


REFERENCE: Mapping[str, Callable[..., Any]] = {
    "binary_cross_entropy": _of_terms(_bce),
    "binary_cross_entropy_with_logits": _of_terms(_bce_logits),
    "hinge_embedding_loss": _of_terms(_hinge),
    "huber_loss": _of_terms(_huber),
    "kl_div": _of_terms(_kl_div),
    "l1_loss": _of_terms(lambda x, t: np.abs(x - t)),
    "margin_ranking_loss": _of_terms(_ranking),
    "poisson_nll_loss": _of_terms(_poisson),
    "smooth_l1_loss": _of_terms(_smooth),
    "soft_margin_loss": _of_terms(lambda x, t: _softplus(-t * x)),
}


# ---- how far they may be ------------------------------------------------------------------------------


def _running(terms: Callable[..., Running]) -> Callable[..., Running]:
    """Reduce the terms: a sum of K, then a division."""

    def loss(*inputs: Any, reduction: str = "mean", **options: Any) -> Running:
        found = terms(*inputs, **options)
        added = found if reduction == "none" else found.sum()
        count = _count(found.exact.shape, np.shape(_exact(inputs[0])), reduction)
        return added / float(count) if "mean" in reduction else added

    return loss


def _exact(x: Any) -> Any:
    return x.exact if isinstance(x, Running) else x


def _count(terms: tuple[int, ...], first: tuple[int, ...], reduction: str) -> int:
    return math.prod(first[:1] if reduction == "batchmean" else terms)


def _log1p(x: Running) -> Running:
    """ln(1 + x) for x >= 0, whose slope is at most 1."""
    return x.function("log", np.log1p(x.exact), 1.0)


def _run_softplus(x: Running) -> Running:
    return x.where(x.exact > 0) + _log1p((-abs(x)).exp())


def _sigmoid(x: Running) -> Running:
    small = (-abs(x)).exp()
    return (1.0 / (1.0 + small)).where(x.exact >= 0, small / (1.0 + small))


def _either(gap: Running, edge: float, inner: Running, outer: Running) -> Running:
    """`inner` where |gap| < edge, else `outer`; where rounding may choose the other, that one counts too."""
    chosen = inner.where(np.abs(gap.exact) < edge, outer)
    unsure = np.abs(np.abs(gap.exact) - edge) <= gap.error
    apart = np.where(unsure, np.abs(inner.exact - outer.exact) + inner.error + outer.error, 0.0)
    return Running(chosen.exact, chosen.error + apart, chosen.at)


def _run_smooth(x: Running, t: Running, *, beta: float = 1.0) -> Running:
    gap = x - t
    return _either(gap, beta, 0.5 * gap * gap / beta, abs(gap) - 0.5 * beta)


def _run_huber(x: Running, t: Running, *, delta: float = 1.0) -> Running:
    gap = x - t
    return _either(gap, delta, 0.5 * gap * gap, delta * (abs(gap) - 0.5 * delta))


def _run_poisson(
    x: Running, t: Running, *, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Running:
    terms = x.exp() - t * x if log_input else x - t * (x + eps).log()
    stirling = t * t.log() - t + 0.5 * (2 * math.pi * t).log()
    return terms + stirling.where(t.exact > 1) if full else terms


def _run_logs(x: Running) -> tuple[Running, Running]:
    """ln x and ln(1 - x), held above -100; log1p takes x itself, so 1 - x is not rounded."""
    rest = x.function("log", np.where(x.exact == 1, -np.inf, np.log1p(-x.exact)), 0.0)
    log_x = x.log()
    return log_x.where(~(log_x.exact < -100), -100.0), rest.where(~(rest.exact < -100), -100.0)


def _run_bce(x: Running, t: Running, weight: Running | None = None) -> Running:
    log_x, log_rest = _run_logs(x)
    terms = -(t * log_x + (1.0 - t) * log_rest)
    return terms if weight is None else terms * weight


def _run_bce_logits(
    x: Running, t: Running, weight: Running | None = None, pos_weight: Running | None = None
) -> Running:
    share = 1.0 if pos_weight is None else 1.0 + (pos_weight - 1.0) * t
    terms = (1.0 - t) * x + share * _run_softplus(-x)
    return terms if weight is None else terms * weight


def _run_kl_div(x: Running, t: Running, *, log_target: bool = False) -> Running:
    if log_target:
        return t.exp() * (t - x)
    return (t * t.log()).where(t.exact != 0) - t * x


def _run_hinge(x: Running, t: Any, *, margin: float = 1.0) -> Running:
    target = t.exact if isinstance(t, Running) else t
    gap = margin - x
    return x.where(target == 1, _held(gap))


def _run_ranking(a: Running, b: Running, t: Any, *, margin: float = 0.0) -> Running:
    return _held(-(t * (a - b)) + margin)


def _held(gap: Running) -> Running:
    """max(gap, 0), which moves no value away from the exact one."""
    return Running(np.maximum(gap.exact, 0.0), gap.error, gap.at)


BOUNDS: Mapping[str, Mapping[str, Callable[..., Running]]] = {
    "sum": {
        "binary_cross_entropy": _running(_run_bce),
        "binary_cross_entropy_with_logits": _running(_run_bce_logits),
        "hinge_embedding_loss": _running(_run_hinge),
        "huber_loss": _running(_run_huber),
        "kl_div": _running(_run_kl_div),
        "l1_loss": _running(lambda x, t: abs(x - t)),
        "margin_ranking_loss": _running(_run_ranking),
        "poisson_nll_loss": _running(_run_poisson),
        "smooth_l1_loss": _running(_run_smooth),
        "soft_margin_loss": _running(lambda x, t: _run_softplus(-(x * t))),
    }
}


# ---- their gradients ----------------------------------------------------------------------------------

Slope = Callable[..., Running]


def _rule(index: int, slope: Slope) -> Rule:
    """The gradient of each term times its slope; summed where input `index` was broadcast."""

    def rule(c: Case) -> Running:
        options = {key: value for key, value in c.options.items() if key != "reduction"}
        inputs = [_exact(x) for x in c.inputs[:3] if x is not None]
        shape = np.broadcast_shapes(*(np.shape(x) for x in inputs))
        reduction = c.options.get("reduction", "mean")
        count = _count(shape, np.shape(inputs[0]), reduction)
        g = c.grad / float(count) if "mean" in reduction and count else c.grad
        g = g.move(lambda a: np.broadcast_to(a, shape))
        return c.to(index, slope(g, *c.inputs, **options))

    return rule


def _signed(g: Running, sign: Array) -> Running:
    return Running(g.exact * sign, g.error, g.at)


def _gap_rules(slope: Slope) -> tuple[Rule, Rule]:
    """The rules of a loss of x - t."""
    return _rule(0, lambda g, x, t, **o: g * slope(x - t, **o)), _rule(
        1, lambda g, x, t, **o: -(g * slope(x - t, **o))
    )


def _sign_of(gap: Running) -> Running:
    return gap.at.number(np.sign(gap.exact))


def _smooth_slope(gap: Running, *, beta: float = 1.0) -> Running:
    return _either(gap, beta, gap / beta, _sign_of(gap))


def _huber_slope(gap: Running, *, delta: float = 1.0) -> Running:
    return _either(gap, delta, gap, _sign_of(gap) * delta)


def _poisson_x(
    g: Running, x: Running, t: Running, *, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Running:
    del full
    return g * (x.exp() - t if log_input else 1.0 - t / (x + eps))


def _poisson_t(
    g: Running, x: Running, t: Running, *, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Running:
    slope = -x if log_input else -(x + eps).log()
    return g * (slope + (t.log() + 0.5 / t).where(t.exact > 1) if full else slope)


def _bce_x(g: Running, x: Running, t: Running, weight: Running | None = None) -> Running:
    g = g if weight is None else g * weight
    spread = x * (1.0 - x)
    return g * (x - t) / spread.where(~(spread.exact < 1e-12), 1e-12)


def _bce_t(g: Running, x: Running, t: Running, weight: Running | None = None) -> Running:
    del t
    log_x, log_rest = _run_logs(x)
    return (g if weight is None else g * weight) * (log_rest - log_x)


def _bce_logits_x(
    g: Running, x: Running, t: Running, weight: Running | None = None, pos_weight: Running | None = None
) -> Running:
    g = g if weight is None else g * weight
    if pos_weight is None:
        return g * (_sigmoid(x) - t)
    return g * ((1.0 + (pos_weight - 1.0) * t) * _sigmoid(x) - t * pos_weight)


def _bce_logits_t(
    g: Running, x: Running, t: Running, weight: Running | None = None, pos_weight: Running | None = None
) -> Running:
    del t
    g = g if weight is None else g * weight
    return g * (-x if pos_weight is None else (pos_weight - 1.0) * _run_softplus(-x) - x)


def _kl_x(g: Running, x: Running, t: Running, *, log_target: bool = False) -> Running:
    del x
    return -g * (t.exp() if log_target else t)


def _kl_t(g: Running, x: Running, t: Running, *, log_target: bool = False) -> Running:
    return g * (t.exp() * (t - x + 1.0) if log_target else t.log() + 1.0 - x)


def _soft_margin_x(g: Running, x: Running, t: Running) -> Running:
    return -(g * t) * _sigmoid(-(x * t))


def _hinge_x(g: Running, x: Running, t: Running, *, margin: float = 1.0) -> Running:
    gap = x.at.number(margin) - x
    sign = np.where(t.exact == 1, 1.0, np.where(gap.exact < 0, 0.0, -1.0))
    unsure = (t.exact != 1) & (np.abs(gap.exact) <= gap.error)
    found = _signed(g, sign)
    return Running(found.exact, np.where(unsure, np.inf, found.error), found.at)


def _ranking_slope(sign: float, by_target: bool = False) -> Slope:
    """-t, t or -(a - b) where the term is above 0; nothing is claimed where rounding decides that."""

    def slope(g: Running, a: Running, b: Running, t: Running, *, margin: float = 0.0) -> Running:
        apart = a - b
        gap = -(t * apart) + margin
        found = g.where(~(gap.exact < 0)) * (apart if by_target else t) * sign
        unsure = (np.abs(gap.exact) <= gap.error) & (gap.error > 0)
        return Running(found.exact, np.where(unsure, np.inf, found.error), found.at)

    return slope


GRADIENTS: Mapping[str, tuple[Rule, ...]] = {
    "binary_cross_entropy": (_rule(0, _bce_x), _rule(1, _bce_t)),
    "binary_cross_entropy_with_logits": (_rule(0, _bce_logits_x), _rule(1, _bce_logits_t)),
    "hinge_embedding_loss": (_rule(0, _hinge_x),),
    "huber_loss": _gap_rules(_huber_slope),
    "kl_div": (_rule(0, _kl_x), _rule(1, _kl_t)),
    "l1_loss": _gap_rules(_sign_of),
    "margin_ranking_loss": (
        _rule(0, _ranking_slope(-1.0)), _rule(1, _ranking_slope(1.0)), _rule(2, _ranking_slope(-1.0, True)),
    ),
    "poisson_nll_loss": (_rule(0, _poisson_x), _rule(1, _poisson_t)),
    "smooth_l1_loss": _gap_rules(_smooth_slope),
    "soft_margin_loss": (_rule(0, _soft_margin_x),),
}  # fmt: skip
