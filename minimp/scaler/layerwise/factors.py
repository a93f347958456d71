"""By how much a layer scales the gradient that flows into it: a power of two, from a model of its products.

A gradient g meets an operand w in sums of n products. If both are independent and their products have mean
zero, the sums are about normal with

    sigma^2 = n E[g^2] E[w^2],        P(|sum| < u) = erf(u / (sqrt(2) sigma)).

The factor s is the smallest power of two, at least 1, for which no more than a share T lies below the
smallest number u_min of the format, unless that could overflow: then it is the largest that cannot::

    s sigma >= u_min / (sqrt(2) erfinv(T))       s n max|g| max|w| <= u_max,   s max|g| <= u_max

Source: Zhao, Vogel, Ahmed and Luk 2019, "Adaptive Loss Scaling for Mixed Precision Training", arXiv
1910.12385, and its authors' code, kumasento/gradient-scaling, ada_loss/core.py and
ada_loss/chainer_impl/ada_loss_chainer.py (``approx_range``). What differs here is said in
:class:`minimp.scaler.layerwise.LayerwiseScaler`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from minimp.formats import Format
from minimp.tape import Array

__all__ = ["ONE", "Moments", "Product", "exponent_for", "moments_of", "share_below", "sigma_of"]


@dataclass(frozen=True, slots=True)
class Moments:
    """What is known of an array: the mean of the squares of its elements, and the largest magnitude."""

    mean_square: float
    largest: float


ONE = Moments(1.0, 1.0)
"""Of an operand that is 1 everywhere: the gradient itself, or its sum."""


@dataclass(frozen=True, slots=True)
class Product:
    """One of the results that a layer computes from the gradient that flows into it.

    Attributes:
        index: which input of the layer it is the gradient of.
        other: the operand that the gradient is multiplied by.
        terms: how many products an element of the result adds up, on average.
        most: how many it adds up at most.
    """

    index: int
    other: Moments
    terms: float
    most: float


def moments_of(array: Array, backend: Any) -> Moments | None:
    """Return the moments of an array; None if an element is infinite or NaN."""
    total = backend.square_sum(array)
    if total is None:
        return None
    wide = backend.wide(array)
    if not wide.size:
        return Moments(0.0, 0.0)
    largest = max(float(wide.max()), -float(wide.min()))
    if total < wide.size * 2.0**-100:  # squares may have been flushed to zero in float32
        total = float(backend.xp.square(wide, dtype=np.float64).sum())
    return Moments(total / wide.size, largest)


def sigma_of(gradient: Moments, product: Product) -> float:
    """Return the standard deviation of the sums of a product."""
    return math.sqrt(product.terms * gradient.mean_square * product.other.mean_square)


def share_below(smallest: float, sigma: float) -> float:
    """Return P(|x| < smallest) of a normal x with mean 0; 0 where everything is zero: nothing is lost."""
    return math.erf(smallest / (math.sqrt(2.0) * sigma)) if sigma else 0.0


def exponent_for(gradient: Moments, products: Sequence[Product], form: Format, threshold: float) -> int:
    """Return log2 of the factor s of a layer.

    Args:
        gradient: the moments of what flows into it.
        products: what it computes.
        form: the format in which gradient and results are stored.
        threshold: T, the largest share of a result that may lie below the smallest number of `form`.
    """
    if not gradient.largest:
        return 0
    deviations = NormalDist().inv_cdf((1.0 + threshold) / 2.0)  # sqrt(2) erfinv(T)
    sigmas = [sigma for each in products if (sigma := sigma_of(gradient, each))]
    wanted = max((_ceil_log2(form.smallest_subnormal / (deviations * sigma)) for sigma in sigmas), default=0)
    bounds = [gradient.largest, *(each.most * gradient.largest * each.other.largest for each in products)]
    room = min(_floor_log2(form.max / bound) for bound in bounds if bound)
    return min(max(wanted, 0), room)


def _floor_log2(x: float) -> int:
    return math.frexp(x)[1] - 1


def _ceil_log2(x: float) -> int:
    mantissa, exponent = math.frexp(x)
    return exponent - (mantissa == 0.5)
