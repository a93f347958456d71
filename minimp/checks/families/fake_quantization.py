"""Fake quantisation: what it means in float64, and where rounding may choose the code beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minimp import formats
from minimp.checks.case import Case, Rule
from minimp.checks.families.activations import unsure
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "NO_DERIVATIVE", "REFERENCE"]

Array = np.ndarray[Any, Any]
TENSOR, CHANNEL = "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine"


def _laid(x: Array, each: Any, axis: int | None) -> Array:
    """A number as it is, (C,) along an axis of x."""
    if axis is None:
        return np.asarray(each)
    return np.asarray(each).reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def _inverse(scale: Array) -> Array:
    """1 / s, which is a float32 number by definition."""
    return (np.float32(1) / scale.astype(np.float32)).astype(np.float64)


def _tensor(x: Array, *, scale: float, zero_point: int, quant_min: int, quant_max: int) -> Array:
    return _read(x, np.asarray(scale), np.asarray(zero_point), quant_min, quant_max)


def _channel(x: Array, scale: Array, zero: Array, *, axis: int, quant_min: int, quant_max: int) -> Array:
    return _read(x, _laid(x, scale, axis), _laid(x, zero, axis), quant_min, quant_max)


def _read(x: Array, scale: Array, zero: Array, quant_min: int, quant_max: int) -> Array:
    """s (clamp(rint(x (1/s)) + z) - z); NaN is the smallest code."""
    steps = np.rint(x * _inverse(scale)) + zero
    codes = np.where(np.isnan(steps), quant_min, np.clip(steps, quant_min, quant_max))
    return np.asarray((codes - zero) * scale.astype(np.float32).astype(np.float64))


def _run_tensor(x: Running, *, scale: float, zero_point: int, quant_min: int, quant_max: int) -> Running:
    return _run(x, np.asarray(scale), np.asarray(zero_point), quant_min, quant_max)


def _run_channel(
    x: Running, scale: Running, zero: Any, *, axis: int, quant_min: int, quant_max: int
) -> Running:
    each = _laid(x.exact, scale.exact, axis)
    return _run(x, each, _laid(x.exact, zero, axis), quant_min, quant_max)


def _run(x: Running, scale: Array, zero: Array, quant_min: int, quant_max: int) -> Running:
    """A multiplication chooses the code, another one reads it, in float32 at the least."""
    one = replace(x.at, wide=formats.float32)
    steps = np.rint(x.exact * _inverse(scale)) + zero
    codes = np.where(np.isnan(steps), quant_min, np.clip(steps, quant_min, quant_max)) - zero
    wide = np.broadcast_to(scale.astype(np.float32).astype(np.float64), codes.shape)
    read: Running = one.number(codes) * one.number(wide)
    return unsure(replace(read, at=x.at), _beside(x, scale))


def _beside(x: Running, scale: Array) -> Array:
    """Where the product with 1/s may have been rounded to the other side of a half."""
    steps = x * x.at.number(np.broadcast_to(_inverse(scale), x.exact.shape))
    with np.errstate(invalid="ignore"):
        fraction = np.abs(steps.exact - np.floor(steps.exact) - 0.5)
    return np.asarray(np.isfinite(steps.exact) & (fraction <= steps.error) & (steps.error > 0))


def _by_x(c: Case) -> Running:
    x, options = c.number(0), c.options
    axis = options.get("axis")
    scale, zero = (
        (options["scale"], options["zero_point"]) if axis is None else (c.number(1).exact, c.inputs[2])
    )
    scale, zero = _laid(x.exact, scale, axis), _laid(x.exact, zero, axis)
    steps = np.rint(x.exact * _inverse(scale)) + zero
    inside = (steps >= options["quant_min"]) & (steps <= options["quant_max"])
    return unsure(c.grad.where(inside), _beside(x, scale))


def _none(c: Case) -> Running:
    raise NotImplementedError(f"scale and zero point have no gradient: {c.options}")


REFERENCE: Mapping[str, Callable[..., Any]] = {TENSOR: _tensor, CHANNEL: _channel}
BOUNDS: Mapping[str, Mapping[str, Callable[..., Running]]] = {
    "rounded": {TENSOR: _run_tensor, CHANNEL: _run_channel}
}
GRADIENTS: Mapping[str, tuple[Rule, ...]] = {TENSOR: (_by_x,), CHANNEL: (_by_x, _none, _none)}
NO_DERIVATIVE = dict.fromkeys(
    (TENSOR, CHANNEL), lambda options: True  # noqa: ARG005 - straight through a staircase, by definition
)  # fmt: skip
