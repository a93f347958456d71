"""Losses of numbers: squared, absolute, Huber's, and likelihoods of Gauss and Poisson.

Where PyTorch broadcasts an input and a target of different shapes with a warning, shapes must be equal here:
the mean over a broadcast is seldom what was meant. Where it broadcasts without one, so does this module.
"""

from __future__ import annotations

import math
from typing import Any

from minimp import ops
from minimp.errors import DataError, SettingError, ShapeError
from minimp.functional.lifting import lifted_beside, tensors_of
from minimp.ops.reducing import check_one_shape, check_reduction
from minimp.refusals import refuse_if
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["gaussian_nll_loss", "huber_loss", "l1_loss", "mse_loss", "poisson_nll_loss", "smooth_l1_loss"]


def mse_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """mean (x - t)^2; shapes must be equal (torch broadcasts, with a warning).

    Args:
        input, target: (...).
        reduction: "mean", "sum" or "none".
        weight: a factor for each term, (...); the mean then divides by the sum of the weights. Composed of
            other ops as in torch, so autocast rules each of them, and each rounds.
    """
    if weight is None:
        return ops.mse_loss(input, target, reduction=reduction)
    return _weighted("mse_loss", ops.pow_(_gap("mse_loss", input, target), 2), weight, reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean", weight: Any = None) -> Tensor:
    """mean |x - t|; arguments as :func:`mse_loss`."""
    if weight is None:
        return ops.l1_loss(input, target, reduction=reduction)
    return _weighted("l1_loss", ops.abs_(_gap("l1_loss", input, target)), weight, reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, with d = x - t; beta 0 is l1_loss.

    Girshick 2015 (Fast R-CNN), section 2.3. Shapes must be equal (torch broadcasts, with a warning).

    Raises:
        SettingError: beta below 0.
    """
    if beta == 0:
        return ops.l1_loss(input, target, reduction=reduction)
    return ops.smooth_l1_loss(input, target, beta=beta, reduction=reduction)


def huber_loss(
    input: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None
) -> Tensor:
    """d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), with d = x - t (Huber 1964); delta > 0.

    Arguments as :func:`mse_loss`, but that the mean with a weight divides by the number of terms, as torch's.

    Raises:
        SettingError: delta not above 0.
    """
    if weight is None:
        return ops.huber_loss(input, target, delta=delta, reduction=reduction)
    terms = ops.huber_loss(input, target, delta=delta, reduction="none")
    return _weighted("huber_loss", terms, weight, reduction, by_count=True)


def gaussian_nll_loss(
    input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """(ln v + (x - t)^2 / v) / 2, v = max(var, eps): Nix and Weigend 1994; the target may broadcast.

    Composed of other ops as in torch, so autocast rules each of them, and each rounds.

    Args:
        input: the means, (...).
        target: (...).
        var: the variances: of input's shape, of that without its last axis or with one axis of length 1, or
            a number. Its gradient passes as if nothing had been held above eps, as torch's does.
        full: add ln(2 pi) / 2.
        eps: above 0.
        reduction: "mean", "sum" or "none".

    Raises:
        DataError: a negative variance. ShapeError: var has another shape. SettingError: eps not above 0.
    """
    check_reduction("gaussian_nll_loss", reduction)
    if not eps > 0:
        raise SettingError(f"gaussian_nll_loss: expected eps above 0, got {eps}")
    means = input if isinstance(input, Value) else Value.lift(input, None)
    if isinstance(var, int | float):
        var = means.backend.xp.full(means.shape, var, means.array.dtype if means.format else "float32")
    spread = _held_above(_variances(means, lifted_beside(means, var)), eps)
    gap = ops.sub(means, target)
    terms = ops.mul(ops.add(ops.log(spread), ops.div(ops.pow_(gap, 2), spread)), 0.5)
    if full:
        terms = ops.add(terms, 0.5 * math.log(2 * math.pi))
    return _reduced(terms, reduction)


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """e^x - t x for x = ln(rate), or x - t ln(x + eps) for x = rate; broadcasting.

    Args:
        input: the rates, or their logarithms.
        target: counts.
        log_input: whether input holds logarithms.
        full: add t ln t - t + ln(2 pi t) / 2 where t > 1: Stirling's approximation of ln t!.
        eps: keeps the logarithm of a rate of 0 finite.
        reduction: "mean", "sum" or "none".
    """
    return ops.poisson_nll_loss(input, target, log_input=log_input, full=full, eps=eps, reduction=reduction)


def _gap(name: str, input: Any, target: Any) -> Tensor:
    """Return x - t."""
    x, t = tensors_of(input, target)
    check_one_shape(name, x, t)
    return ops.sub(x, t)


def _weighted(name: str, terms: Tensor, weight: Any, reduction: str, by_count: bool = False) -> Tensor:
    """Reduce terms with a weight each."""
    check_reduction(name, reduction)
    weights = lifted_beside(terms, weight)
    if weights.shape != terms.shape:
        raise ShapeError(
            f"expected a weight for each term, {terms.shape}, got {weights.shape}",
            op=name, shapes=[terms.shape, weights.shape],
        )  # fmt: skip
    found = ops.mul(terms, weights)
    if reduction == "mean" and not by_count:
        return ops.div(ops.sum_(found), ops.sum_(weights))
    return _reduced(found, reduction)


def _reduced(terms: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return terms
    return ops.mean(terms) if reduction == "mean" else ops.sum_(terms)


def _variances(means: Value, var: Value) -> Value:
    """Return the variances in a shape that broadcasts to the means."""
    wrong = var.array < 0

    def fault() -> DataError:
        value = float(var.array[wrong].reshape(-1)[0])
        return DataError(
            f"expected variances of at least 0, got {value:g}", op="gaussian_nll_loss",
            help="make them positive: exp or softplus of what the model gives",
        )  # fmt: skip

    refuse_if(wrong.any(), fault)
    if var.shape == means.shape:
        return var
    if var.shape == means.shape[:-1]:
        return ops.reshape(var, shape=(*var.shape, 1))
    differing = [n for n, m in zip(var.shape, means.shape, strict=False) if n != m]
    if len(var.shape) == len(means.shape) and differing == [1]:
        return var
    raise ShapeError(
        f"expected variances of shape {means.shape}, {means.shape[:-1]}, or with one axis of length 1, "
        f"got {var.shape}",
        op="gaussian_nll_loss", shapes=[means.shape, var.shape],
    )  # fmt: skip


def _held_above(var: Value, eps: float) -> Tensor:
    """Return max(var, eps); gradients pass as if nothing had been held."""
    xp, backend = var.backend.xp, var.backend
    wide = backend.wide(var.array)
    lift = xp.where(wide < eps, eps - wide, xp.zeros_like(wide))
    return ops.add(var, Value.make(backend.narrow(lift, var.format), backend))
