"""Products to which something is added before the one rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minimp.checks.case import Case, Rule
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


def _added(c: Array, a: Array, b: Array, *, beta: float = 1.0, alpha: float = 1.0) -> Array:
    """beta C + alpha A B; C is not read where beta is 0."""
    product = alpha * np.einsum("...mk,...kn->...mn", a, b, optimize=True)
    return np.asarray(product + (beta * c if beta else 0.0))


def _run(c: Running, a: Running, b: Running, *, beta: float = 1.0, alpha: float = 1.0) -> Running:
    y = a.product(b, np.matmul, a.exact.shape[-1])
    y = y if alpha == 1 else y * alpha
    return y + (c if beta == 1 else c * beta) if beta else y


def _by_c(c: Case) -> Running:
    beta = c.options.get("beta", 1.0)
    grad, shape = c.grad if beta == 1 else (c.grad * beta).rounded(), c.shape(0)
    return grad if grad.exact.shape == shape else c.unbroadcast(grad.stored(), shape).rounded()


def _scaled(c: Case, product: Running) -> Running:
    alpha = c.options.get("alpha", 1.0)
    return product.rounded() if alpha == 1 else (product.stored() * alpha).rounded()


def _by_a(c: Case) -> Running:
    b = c.number(2)
    return _scaled(c, c.grad.product(b, lambda g, b: np.matmul(g, np.swapaxes(b, -1, -2)), b.exact.shape[-1]))


def _by_b(c: Case) -> Running:
    a = c.number(1)
    return _scaled(c, a.product(c.grad, lambda a, g: np.matmul(np.swapaxes(a, -1, -2), g), a.exact.shape[-2]))


RULES: tuple[Rule, ...] = (_by_c, _by_a, _by_b)

REFERENCE: Mapping[str, Callable[..., Any]] = {"addmm": _added, "baddbmm": _added}
BOUNDS: Mapping[str, Mapping[str, Callable[..., Running]]] = {"dot": {"addmm": _run, "baddbmm": _run}}
GRADIENTS: Mapping[str, tuple[Rule, ...]] = {"addmm": RULES, "baddbmm": RULES}
