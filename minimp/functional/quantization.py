"""Fake quantisation, for training with the errors that integers will make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minimp import ops
from minimp.errors import FormatError, GradientError, SettingError
from minimp.functional.common import tensor_of
from minimp.tensors import Tensor

__all__ = ["fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine"]


def fake_quantize_per_tensor_affine(
    input: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int
) -> Tensor:
    """s (clamp(rint(x (1/s)) + z) - z); the gradient passes straight through where nothing is clamped.

    Args:
        input: (...).
        scale: s, a number or a tensor of one; taken as float32, positive and finite.
        zero_point: z, a whole number or a tensor of one, from `quant_min` to `quant_max`.
        quant_min, quant_max: the first and the last code, any integers.

    Raises:
        SettingError: a scale, zero point or codes that cannot be used.
    """
    name = "fake_quantize_per_tensor_affine"
    scales, zeros = _scales(scale, name), _zero_points(zero_point, quant_min, quant_max, name)
    if scales.size != 1 or zeros.size != 1:
        raise SettingError(
            f"expected one scale and one zero point, got shapes {scales.shape} and {zeros.shape}", op=name,
            help="fake_quantize_per_channel_affine takes one for each channel",
        )  # fmt: skip
    return ops.fake_quantize_per_tensor_affine(
        input, scale=scales.item(), zero_point=zeros.item(), quant_min=quant_min, quant_max=quant_max
    )


def fake_quantize_per_channel_affine(
    input: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int
) -> Tensor:
    """As fake_quantize_per_tensor_affine, with a scale and a zero point for each channel on an axis.

    Args:
        input: (..., C, ...).
        scale: (C,) positive, finite; taken as float32.
        zero_point: (C,) whole numbers from `quant_min` to `quant_max`.
        axis: of the channels.
        quant_min, quant_max: the first and the last code, any integers.

    Raises:
        SettingError: scales, zero points or codes that cannot be used.
        ShapeError: they are not those of the channels.
    """
    name = "fake_quantize_per_channel_affine"
    x = tensor_of(input)
    scales, zeros = _scales(scale, name), _zero_points(zero_point, quant_min, quant_max, name)
    held = [Tensor.lift(each, x.backend) for each in (scales, zeros)]
    return ops.fake_quantize_per_channel_affine(x, *held, axis=axis, quant_min=quant_min, quant_max=quant_max)


def _host(value: Any, name: str) -> Any:
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise GradientError(
                "scales and zero points have no gradient here", op=name, help="give them .detach()"
            )
        value = value.numpy()
    return np.asarray(value)


def _scales(value: Any, name: str) -> Any:
    """Return scales in float32, checked."""
    with np.errstate(all="ignore"):
        scales = _host(value, name).astype(np.float32)
        wrong = ~(np.isfinite(scales) & (scales > 0) & np.isfinite(1 / scales))
    if wrong.any():
        raise SettingError(f"a scale must be positive and finite, got {scales[wrong][0]:g}", op=name)
    return scales


def _zero_points(value: Any, quant_min: int, quant_max: int, name: str) -> Any:
    """Return zero points in int32; they and the codes checked."""
    if not quant_min < quant_max or not math.isfinite(quant_max - quant_min):
        raise SettingError(f"expected quant_min < quant_max, got {quant_min} and {quant_max}", op=name)
    zeros = _host(value, name)
    if zeros.dtype.kind not in "iu":
        raise FormatError(f"zero points are whole numbers, got {zeros.dtype}", op=name)
    if (zeros < quant_min).any() or (zeros > quant_max).any():
        raise SettingError(
            f"zero points must be codes, {quant_min} to {quant_max}, got {zeros.min()} to {zeros.max()}",
            op=name, help="0 must be representable",
        )  # fmt: skip
    return zeros.astype(np.int32)
