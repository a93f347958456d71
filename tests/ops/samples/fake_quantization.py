"""Calls of fake quantisation, of tensors and of channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minimp as mp
from minimp import functional, ops
from tests.ops.samples.base import S, Sample

TENSOR, CHANNEL = "fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine"


def tensor(**options: Any) -> Callable[..., mp.Tensor]:
    """Return the op with codes of eight bits, unless others are given."""
    given = {"scale": 0.0625, "zero_point": 3, "quant_min": -128, "quant_max": 127, **options}
    return lambda x: ops.fake_quantize_per_tensor_affine(x, **given)


def channel(count: int, axis: int, quant_min: int = -8, quant_max: int = 7) -> Callable[..., mp.Tensor]:
    """Return the function with another scale and zero point for each channel."""
    scale = np.linspace(0.1, 0.7, count, dtype=np.float32)
    zero = np.arange(count) % 5 - 2
    return lambda x: functional.fake_quantize_per_channel_affine(x, scale, zero, axis, quant_min, quant_max)


SAMPLES = [
    *(Sample(TENSOR, tensor(), shape) for shape in [(S,), ((),), ((0, 3),)]),
    Sample(TENSOR, tensor(scale=float(np.float32(0.1)), quant_min=0, quant_max=15), options="four_bits"),
    Sample(TENSOR, lambda x: tensor(scale=0.5, zero_point=0)(x.T), options="turned"),
    Sample(CHANNEL, channel(7, 0), options="rows"),
    Sample(CHANNEL, channel(5, -1, -128, 127), options="columns"),
    Sample(CHANNEL, channel(3, 1), ((2, 3, 4, 2),), "middle"),
    Sample(CHANNEL, channel(3, 1), ((0, 3),)),
]
