"""The rules of quantisation by name: how a range becomes a scale and a zero point, and a value a code.

Every rule reads x ~ s (q - z): code q, scale s > 0 in float32, zero point z, a code itself, so that real
zero is exactly representable (a padded convolution needs it). Before a rule is asked, the range [l, h] is
widened to contain 0.

=============  =====================================  ===============================================
rule           scale and zero point                   code of x, before it is clamped
=============  =====================================  ===============================================
torch          float32; s >= 2^-23                    rint(x (1/s) + z), the sum rounded once to float32
torch-dynamic  float64; s >= 6.1e-5                   as torch
onnx           float64; 1 and 0 where s underflows    rint(x / s) + z
tflite         float32; halves of z away from zero    round(x / s) + z, halves away from zero
=============  =====================================  ===============================================

So a tie goes to the even *code* in torch, to the even *multiple of s* in ONNX, and away from zero in TFLite's
reference kernel (its optimised ones do as ONNX).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.named import Named
from minimp.quant import kernels
from minimp.quant.kernels import Encoder

__all__ = ["RULES", "CodeRange", "Rule"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]
EPS = np.float32(2.0**-23)
"""The least scale of torch's observers: the distance from 1 to the next float32 number."""
SMALL = np.float32(6.1e-5)
"""The least scale of torch's dynamic rule: scales are to stay clear of float16's subnormal numbers."""
TINY = 2.0**-126


@dataclass(frozen=True, slots=True)
class CodeRange:
    """The codes that may be used, and whether the zero point is to be the middle one."""

    quant_min: int
    quant_max: int
    symmetric: bool

    @property
    def steps(self) -> int:
        """How many steps lie between the first code and the last."""
        return self.quant_max - self.quant_min


Chooser = Callable[[Floats, Floats, CodeRange], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row.

    Attributes:
        name: as given to :func:`minimp.quant.choose`.
        choose: from float32 arrays l <= 0 <= h and the codes to scales and zero points.
        encode: x -> code before clamping (:mod:`minimp.quant.kernels`).
        encode_fake: the same for fake-quantising, which torch does with other roundings.
        nan_is_largest: whether NaN becomes the largest code, else the smallest; infinities are clamped.
        source: where the rule stands written.
    """

    name: str
    choose: Chooser
    encode: Encoder
    encode_fake: Encoder
    nan_is_largest: bool
    source: str


def _torch(low: Floats, high: Floats, codes: CodeRange) -> tuple[Any, Any]:
    """s = (h - l) / steps, z = qmin - rint(l / s); symmetric: s = 2 max(-l, h) / steps, z the middle code.

    The middle is 0 for codes from below 0, 128 for 0..255, and else the middle rounded down.
    """
    if codes.symmetric:
        scale = np.maximum(np.maximum(-low, high) / np.float32(codes.steps / 2), EPS)
        return scale, np.full(low.shape, _torch_middle(codes.quant_min, codes.quant_max))
    scale = np.maximum((high - low) / np.float32(codes.steps), EPS)
    return scale, np.clip(codes.quant_min - np.rint(low / scale), codes.quant_min, codes.quant_max)


def _torch_middle(quant_min: int, quant_max: int) -> int:
    if quant_min < 0:
        return 0
    return 128 if (quant_min, quant_max) == (0, 255) else (quant_min + quant_max) // 2


def _torch_dynamic(low: Floats, high: Floats, codes: CodeRange) -> tuple[Any, Any]:
    """s in float64, 0.1 for a range of a point; z from the end that is nearer to its code.

    A scale below 6.1e-5 becomes that, and the range grows with it.
    """
    if codes.symmetric:
        raise SettingError(
            "the rule 'torch-dynamic' has no symmetric form", op="choose",
            help="take rule='torch', as torch does for the weights of dynamic layers",
        )  # fmt: skip
    scale = (high.astype(np.float64) - low) / codes.steps
    single = scale.astype(np.float32)
    scale = np.where((single == 0) | np.isinf(1 / single), 0.1, scale)
    small, amplifier = scale < SMALL, SMALL / scale.astype(np.float32)
    whole = SMALL * np.float32(codes.steps)
    wider_low = np.where(low == 0, low, np.where(high == 0, -whole, low * amplifier))
    wider_high = np.where(low == 0, whole, np.where(high == 0, high, high * amplifier))
    low, high = np.where(small, wider_low, low), np.where(small, wider_high, high)
    scale = np.where(small, np.float64(SMALL), scale)
    from_low, from_high = low / scale, high / scale
    nearer = abs(codes.quant_min) - np.abs(from_low) < abs(codes.quant_max) - np.abs(from_high)
    zero = np.where(nearer, codes.quant_min - from_low, codes.quant_max - from_high)
    return scale, np.rint(np.clip(zero, codes.quant_min, codes.quant_max))


def _onnx(low: Floats, high: Floats, codes: CodeRange) -> tuple[Any, Any]:
    """s = (h - l) / steps in float64, z = rint(qmin - l / s); symmetric: [-m, m], m = max(-l, h)."""
    least, most = low.astype(np.float64), high.astype(np.float64)
    width = 2 * np.maximum(-least, most) if codes.symmetric else most - least
    scale = width / codes.steps
    empty = scale < TINY
    scale = np.where(empty, 1.0, scale)
    if codes.symmetric:
        zero = np.full(low.shape, np.rint((codes.quant_min + codes.quant_max) / 2))
    else:
        zero = np.rint(codes.quant_min - least / scale)
    return scale, np.where(empty, 0, zero)


def _tflite(low: Floats, high: Floats, codes: CodeRange) -> tuple[Any, Any]:
    """s = (h - l) / steps, z = round(qmin - l / s), halves away from zero; symmetric: s = max(-l, h) / qmax.

    Symmetric codes are [-m, m], which TFLite asks of weights. A range of a point has scale 0 there, 1 here.
    """
    if codes.symmetric:
        if codes.quant_min != -codes.quant_max:
            raise SettingError(
                f"the rule 'tflite' has symmetric codes [-m, m], got {codes.quant_min}..{codes.quant_max}",
                op="choose", help=f"give quant_min={-codes.quant_max}, quant_max={codes.quant_max}",
            )  # fmt: skip
        scale = np.maximum(-low, high) / np.float32(codes.quant_max)
        return np.where(scale == 0, np.float32(1), scale), np.zeros(low.shape)
    whole = (high - low) / np.float32(codes.steps)
    scale = np.where(whole == 0, np.float32(1), whole)
    zero = (np.float32(codes.quant_min) - low / scale).astype(np.float64)
    return scale, np.clip(np.copysign(np.floor(np.abs(zero) + 0.5), zero), codes.quant_min, codes.quant_max)


RULES: Named[Rule] = Named(
    "rule",
    Rule(
        "torch", _torch, kernels.fused, kernels.product, nan_is_largest=True,
        source="torch 2.13.0: the observers of torch.ao.quantization, quantize_per_tensor on x86, "
        "fake_quantize_per_tensor_affine",
    ),
    Rule(
        "torch-dynamic", _torch_dynamic, kernels.fused, kernels.product, nan_is_largest=True,
        source="torch 2.13.0: ChooseQuantizationParams, which torch._choose_qparams_per_tensor runs",
    ),
    Rule(
        "onnx", _onnx, kernels.quotient, kernels.quotient, nan_is_largest=False,
        source="ONNX QuantizeLinear (opset 13); compute_scale_zp and the CPU kernel of onnxruntime 1.32",
    ),
    Rule(
        "tflite", _tflite, kernels.quotient_away, kernels.quotient_away, nan_is_largest=False,
        source="TensorFlow Lite: GetAsymmetricQuantizationParams, GetSymmetricScalesFromMaxMin and "
        "AffineQuantize, where NaN is undefined",
    ),
)  # fmt: skip
"""The rules by name."""
