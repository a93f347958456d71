"""The linear layer in FP8: its operands quantised on a way of their own, then products in float64.

Blocks are quantised by :mod:`minimp.formats.blocks`, whole tensors by the readable rounding; nothing is
shared with the op but the recipe, which is data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minimp import formats
from minimp.checks.case import Case, Rule
from minimp.checks.running import Running
from minimp.formats.blocks.table import BlockFormat
from minimp.formats.rounding import round_to

__all__ = ["BOUNDS", "GRADIENTS", "NO_DERIVATIVE", "REFERENCE", "quantised"]

Array = np.ndarray[Any, Any]
ROLES = ("input", "weight", "grad")


def quantised(x: Array, role: str, axis: int, recipe: Any, scales: Any = None) -> tuple[Array, float]:
    """Return the numbers that a product over `axis` reads, float64, and the factor r that they stand for.

    Args:
        x: (M, N) numbers; they are rounded to float32 first.
        role: ``"input"``, ``"weight"`` or ``"grad"``.
        axis: 0 or 1.
        recipe: the op's.
        scales: s of the three roles, or None.
    """
    x, element = np.asarray(x, np.float32), recipe.format_of(role)
    block = recipe.block(role, axis)
    if block is not None:
        extent = block if min(block) > 1 else (max(block),)
        how = BlockFormat("as the recipe", element, formats.get("e8m0"), extent, "rceil")
        if not x.size:
            return x.astype(np.float64), 1.0
        made = formats.quantize(x, how, axis=axis if len(extent) == 1 else -1)
        return np.asarray(made.dequantize(np.float64)), 1.0
    scale = np.float32(_scale(x, role, recipe, scales))
    codes = round_to(x * scale, element, overflow="saturate").astype(np.float64)
    return codes, float(np.float32(1) / scale)


def _scale(x: Array, role: str, recipe: Any, scales: Any) -> float:
    """The scale of a whole tensor: given, fixed, or max / amax in float32."""
    if scales is not None:
        return float(scales[ROLES.index(role)])
    if recipe.has_history:
        return 1.0
    if not recipe.reads_amax:
        return float(getattr(recipe, role))
    amax = np.abs(x).max(initial=0)
    if not 0 < amax < np.inf:
        return 1.0
    scale = min(float(np.float32(recipe.format_of(role).max) / amax), float(np.finfo(np.float32).max))
    return float(2.0 ** math.floor(math.log2(scale))) if recipe.use_power_2_scales else scale


def _reference(
    x: Array, weight: Array, bias: Array | None = None, *, recipe: Any, scales: Any = None, **_: Any
) -> Array:
    """Sum over i of Q(x)[..., i] Q(w)[o, i], plus b[o]."""
    a, r = quantised(_rows(x), "input", 1, recipe, scales)
    b, s = quantised(weight, "weight", 1, recipe, scales)
    y = (np.einsum("ni,oi->no", a, b, optimize=True) * (r * s)).reshape(*x.shape[:-1], len(weight))
    return np.asarray(y if bias is None else y + bias)


def _run(
    x: Running, weight: Running, bias: Running | None = None, *, recipe: Any, scales: Any = None, **_: Any
) -> Running:
    y = _product(
        x.at, quantised(_rows(x.exact), "input", 1, recipe, scales),
        quantised(weight.exact, "weight", 1, recipe, scales), lambda a, b: np.matmul(a, b.T),
    )  # fmt: skip
    y = y.move(lambda a: a.reshape(*x.exact.shape[:-1], len(weight.exact)))
    return y if bias is None else y + bias


def _product(
    at: Any, a: tuple[Array, float], b: tuple[Array, float], product: Callable[..., Array]
) -> Running:
    """The sums of exact products, and the factor: one rounding for it, one for the multiplication by it."""
    one = at if at.wide is formats.float64 else replace(at, fmt=formats.float32)
    y = one.number(a[0]).product(one.number(b[0]), product, a[0].shape[1])
    if any((np.abs(each[0]) > formats.float32.max).any() for each in (a, b)):  # rounded up beyond it
        y = Running(y.exact, np.full_like(y.exact, np.inf), one)
    factor = a[1] * b[1]
    found: Running = y if factor == 1 else y * factor
    return replace(found, at=at)


def _of_grad(c: Case, axis: int) -> tuple[Array, float]:
    return quantised(_rows(c.grad.exact), "grad", axis, c.options["recipe"], c.options.get("scales"))


def _of(c: Case, index: int, axis: int) -> tuple[Array, float]:
    return quantised(
        _rows(c.number(index).exact), ROLES[index], axis, c.options["recipe"], c.options.get("scales")
    )


def _by_x(c: Case) -> Running:
    found = _product(c.at, _of_grad(c, 1), _of(c, 1, 0), np.matmul)
    return found.move(lambda a: a.reshape(c.shape(0))).rounded(c.format(0))


def _by_weight(c: Case) -> Running:
    g, r = _of_grad(c, 0)
    return _product(c.at, (g.T, r), _of(c, 0, 0), np.matmul).rounded(c.format(1))


def _by_bias(c: Case) -> Running:
    return c.grad.move(_rows).sum(0).rounded(c.format(2))


def _rows(x: Array) -> Array:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


RULES: tuple[Rule, ...] = (_by_x, _by_weight, _by_bias)

REFERENCE: Mapping[str, Callable[..., Any]] = {"linear_fp8": _reference}
BOUNDS: Mapping[str, Mapping[str, Callable[..., Running]]] = {"dot": {"linear_fp8": _run}}
GRADIENTS: Mapping[str, tuple[Rule, ...]] = {"linear_fp8": RULES}
NO_DERIVATIVE = {
    "linear_fp8": lambda options: True  # noqa: ARG005 - quantising is passed through, by definition
}
