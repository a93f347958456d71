"""The linear layer whose products read FP8 numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minimp.door import op
from minimp.errors import GradientError, SettingError
from minimp.formats import Format
from minimp.fp8.quantizing import Copy, Operand, copy_of, operand_of, scale_for
from minimp.fp8.recipes import ROLES, Fp8Recipe
from minimp.fp8.scales import inverse_of
from minimp.ops.products import check_linear
from minimp.policy import CastClass, Mixed, format_of
from minimp.tape import Array, Node

__all__ = ["linear_fp8"]

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
Stage = Callable[[str, float], None]
Scales = tuple[float, float, float] | None


@op(cast=CastClass.KEEP, mixed=Mixed.KEEP, bound="dot")
def linear_fp8(
    ctx: Node, x: Array, weight: Array, bias: Array | None = None, *, recipe: Fp8Recipe,
    scales: Scales = None, stage: Stage | None = None, format: Format | None = None,
) -> Array:  # fmt: skip
    """y = Q(x) Q(W)^T + b.  (..., in), (out, in), (out,) -> (..., out); products of FP8 numbers.

    Q rounds to FP8 as the recipe says, from the formats that the inputs have. The products are exact, the
    sums accumulated by ctx.accumulate; then the scales are taken out, the bias is added, and the result is
    rounded once, to `format` (None: x's). Backward: dX = Q(dY) Q(W), dW = Q(dY)^T Q(X), db = sum of dY, each
    rounded once to its input's format: quantising passes gradients through as if it were not there.

    What is saved is FP8: a byte an element, and the scales of blocks. There is no second derivative: a
    gradient that is to be differentiated again (create_graph=True) raises GradientError.

    Args:
        recipe: how to quantise.
        scales: s of x, W and dY from earlier steps, for delayed scaling; None: 1.
        stage: told (role, amax) of each tensor that is quantised, where the recipe has a history.
        format: of the result.

    Raises:
        ShapeError: x, W and b do not fit.
        SettingError: the accumulation names a matrix unit, which takes FP8 numbers without scales only; no
            recipe; `scales` or `stage` where the recipe has no history; a scale that cannot be divided by.
    """
    _check(ctx, x, weight, bias)
    _check_options(recipe, scales, stage)
    given = (None, None, None) if scales is None else scales
    wide_x, wide_weight = _matrix(ctx, x), _matrix(ctx, weight)
    a = _first(ctx, wide_x, "input", 1, recipe, given[0], stage)
    b = _first(ctx, wide_weight, "weight", 1, recipe, given[1], stage)
    dtype = FLOAT64 if x.dtype == FLOAT64 else FLOAT32
    right = operand_of(ctx.backend, b, dtype)
    y = _product(ctx, operand_of(ctx.backend, a, dtype), Operand(right.values.T, right.factor))
    if bias is not None:
        y = y + ctx.backend.wide(bias)
    kept_x = _again(ctx, a, wide_x, "input", recipe) if ctx.needs(1) else None
    kept_weight = _again(ctx, b, wide_weight, "weight", recipe) if ctx.needs(0) else None
    ctx.save(*_arrays(kept_x), *_arrays(kept_weight))
    formats = format_of(weight.dtype), None if bias is None else format_of(bias.dtype)
    ctx.memo = (_rest(kept_x), _rest(kept_weight), *formats, dtype)
    y = y.reshape(*x.shape[:-1], weight.shape[0])
    return ctx.backend.narrow(y, ctx.format if format is None else format)


@linear_fp8.gradient
def _(
    ctx: Node, grad: Array, *, recipe: Fp8Recipe, scales: Scales = None, stage: Stage | None = None,
    format: Format | None = None,
) -> tuple[Array | None, ...]:  # fmt: skip
    if not isinstance(ctx, Node):
        raise GradientError(
            "quantising to FP8 has no second derivative", op="linear_fp8",
            help="leave the layer out of the FP8 region: mp.fp8_autocast(enabled=False)",
        )  # fmt: skip
    backend, given = ctx.backend, None if scales is None else scales[2]
    rest_x, rest_weight, weight_format, bias_format, dtype = ctx.memo
    g = _matrix(ctx, grad)
    by_x = by_weight = by_bias = None
    copy = _first(ctx, g, "grad", 1, recipe, given, stage)
    if ctx.needs(0):
        weight = operand_of(backend, _restored(ctx.saved[2:], rest_weight), dtype)
        by_x = _product(ctx, operand_of(backend, copy, dtype), weight).reshape(ctx.shape_of(0))
        by_x = backend.narrow(by_x, ctx.format)
    if ctx.needs(1):
        g_read = operand_of(backend, _again(ctx, copy, g, "grad", recipe), dtype)
        x = operand_of(backend, _restored(ctx.saved[:2], rest_x), dtype)
        by_weight = backend.narrow(_product(ctx, Operand(g_read.values.T, g_read.factor), x), weight_format)
    if len(ctx.inputs) > 2 and ctx.needs(2):
        rows = backend.view(grad, lambda a: a.reshape(_rows(a.shape), a.shape[-1]))
        by_bias = backend.narrow(backend.sum(rows, axis=0, accumulate=ctx.accumulate), bias_format)
    return by_x, by_weight, by_bias


def _first(
    ctx: Node, x: Array, role: str, axis: int, recipe: Fp8Recipe, given: float | None, stage: Stage | None
) -> Copy:
    """Return the copy that the first product reads, and tell the amax."""
    if recipe.block(role, axis) is not None:
        return copy_of(ctx.backend, x, recipe, role, axis)
    amax = ctx.backend.largest(x) if recipe.reads_amax else 0.0
    if stage is not None and recipe.has_history:
        stage(role, amax)
    return copy_of(ctx.backend, x, recipe, role, axis, scale_for(recipe, role, given, amax))


def _again(ctx: Node, copy: Copy, x: Array, role: str, recipe: Fp8Recipe) -> Copy:
    """Return the copy that is summed over the rows: the same, or one more of the numbers as they came."""
    return copy if recipe.shares(role) else copy_of(ctx.backend, x, recipe, role, 0)


def _product(ctx: Node, a: Operand, b: Operand) -> Array:
    """Return the sums, times the factors: in two steps where their product leaves float32's range."""
    y = ctx.backend.matmul(a.values, b.values, accumulate=ctx.accumulate)
    factor = a.factor * b.factor
    if factor == 1:
        return y
    if 2.0**-126 <= factor < 2.0**127:
        y *= factor
        return y
    fraction, exponent = math.frexp(factor)
    y *= math.ldexp(fraction, exponent // 2)
    y *= math.ldexp(1.0, exponent - exponent // 2)
    return y


def _matrix(ctx: Node, x: Array) -> Array:
    """(..., K) of any format -> (rows, K) float32; float64 is rounded to it."""
    wide = ctx.backend.wide(x)
    wide = wide.astype(FLOAT32) if wide.dtype != FLOAT32 else wide
    return wide if wide.ndim == 2 else wide.reshape(_rows(wide.shape), wide.shape[-1])


def _rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])


def _arrays(copy: Copy | None) -> tuple[Array | None, Array | None]:
    return (None, None) if copy is None else (copy.codes, copy.scales)


def _rest(copy: Copy | None) -> tuple[Any, float] | None:
    return None if copy is None else (copy.block, copy.factor)


def _restored(arrays: tuple[Array, ...], rest: tuple[Any, float]) -> Copy:
    return Copy(arrays[0], arrays[1], *rest)


def _check(ctx: Node, x: Array, weight: Array, bias: Array | None) -> None:
    """Refuse shapes that do not fit, and an accumulation that cannot act."""
    check_linear("linear_fp8", x, weight, bias)
    if ctx.accumulate.startswith("tensorcore:"):
        raise SettingError(
            f"accumulate={ctx.accumulate!r} cannot act: a matrix unit is modelled for operands of one format",
            op="linear_fp8", help="mp.formats.matmul(a, b, fmt='float8_e4m3fn', accumulate=...) shows one",
        )  # fmt: skip


def _check_options(recipe: Any, scales: Any, stage: Stage | None) -> None:
    """Refuse what is no recipe, and what the recipe does not read."""
    if not isinstance(recipe, Fp8Recipe):
        raise SettingError(
            f"recipe is a recipe of minimp.fp8, not {recipe!r}",
            op="linear_fp8", help="fp8.fp8_recipes has them by name",
        )  # fmt: skip
    for name, given in (("scales", scales), ("stage", stage)):
        if given is not None and not recipe.has_history:
            raise SettingError(f"{name} cannot act: {type(recipe).__name__} has no history", op="linear_fp8")
    if scales is not None and not (
        len(scales) == len(ROLES) and all(s > 0 and math.isfinite(s + inverse_of(s)) for s in scales)
    ):
        raise SettingError(
            f"scales are three numbers above 0, of x, W and dY, finite like their inverses; got {scales!r}",
            op="linear_fp8", help="with delayed scaling: a smaller margin",
        )  # fmt: skip
