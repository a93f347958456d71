"""Fake quantisation: a number goes to the nearest code and back, and its gradient straight through."""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine"]


@op(cast=CastClass.KEEP, mixed=Mixed.KEEP, bound="rounded")
def fake_quantize_per_tensor_affine(
    ctx: Node, x: Array, *, scale: float, zero_point: int, quant_min: int, quant_max: int
) -> Array:
    """s (clamp(q) - z), q = rint(x (1/s)) + z, clamped to the codes; (...) -> (...).

    s and 1/s are float32 numbers; so is the product with s, which is rounded once more to the format of x.
    NaN becomes the smallest code, infinities are clamped.

    The gradient is g where q is a code before clamping, else 0: the straight-through estimator (Bengio,
    Léonard and Courville 2013, arXiv 1308.3432; torch 2.13.0). A value up to half a step beyond the last code
    therefore still moves. One byte an element is kept.
    """
    one = ctx.backend.xp.asarray([scale], "float32").reshape((1,) * x.ndim)
    steps = _steps(ctx, x, one, zero_point, quant_min, quant_max)
    return ctx.round(steps.astype("float32") * one)


@fake_quantize_per_tensor_affine.gradient
def _(ctx: Node, grad: Array, *, scale: float, zero_point: int, quant_min: int, quant_max: int) -> Array:
    (inside,) = ctx.saved
    return ctx.backend.keep_where(grad, inside)


@op(cast=CastClass.KEEP, mixed=Mixed.KEEP, bound="rounded")
def fake_quantize_per_channel_affine(
    ctx: Node, x: Array, scale: Array, zero_point: Array, *, axis: int, quant_min: int, quant_max: int
) -> Array:
    """As fake_quantize_per_tensor_affine for each channel: x (..., C, ...), s (C,), z (C,) -> (..., C, ...).

    Of float64 x the product with s is float64 (as in torch). The gradient of x is that of a tensor; scale and
    zero point have none. One byte an element is kept.
    """
    _check(x, scale, zero_point, axis)
    place = tuple(-1 if i == axis % x.ndim else 1 for i in range(x.ndim))
    scales = ctx.wide(scale).astype("float32").reshape(place)
    zeros = zero_point.reshape(place).astype(ctx.wide(x).dtype)
    return ctx.round(_steps(ctx, x, scales, zeros, quant_min, quant_max) * scales)


@fake_quantize_per_channel_affine.gradient
def _(ctx: Node, grad: Array, *, axis: int, quant_min: int, quant_max: int) -> tuple[Array | None, ...]:
    (inside,) = ctx.saved
    return ctx.backend.keep_where(grad, inside), None, None


def _steps(ctx: Node, x: Array, scale: Array, zero: Any, quant_min: int, quant_max: int) -> Array:
    """Return q - z, q clamped to the codes, wide; keep where q was one of them before."""
    backend = ctx.backend
    codes = backend.xp.rint(ctx.wide(x) * (1 / scale)) + zero
    above, below = codes >= quant_min, codes <= quant_max
    ctx.save(above & below)
    codes = backend.select(above, codes, backend.xp.full_like(codes, quant_min))  # NaN is not above
    return backend.xp.minimum(codes, quant_max) - zero


def _check(x: Array, scale: Array, zero_point: Array, axis: int) -> None:
    """Refuse other channels than those of x."""
    if not -x.ndim <= axis < x.ndim or not scale.shape == zero_point.shape == (x.shape[axis],):
        raise ShapeError(
            f"expected a scale and a zero point for each channel on axis {axis} of {x.shape}, got "
            f"{scale.shape} and {zero_point.shape}",
            op="fake_quantize_per_channel_affine", shapes=[x.shape, scale.shape, zero_point.shape],
        )  # fmt: skip
