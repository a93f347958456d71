"""What arithmetic on int8 codes costs, beside float32's: products, convolutions, quantising, requantising."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minimp.backend import get_backend
from minimp.benchmarks.figure import Figure
from minimp.benchmarks.timing import Clock, interleave, processor_time
from minimp.models import cnn
from minimp.quant.affine import choose, dequantize, quantize
from minimp.quant.fusion import fuse
from minimp.quant.layer_reports import bytes_of
from minimp.quant.static import calibrate, convert
from minimp.tensors import tensor

__all__ = ["FIGURES", "bytes_ratio", "integer_contenders", "integer_figures"]

WIDTH = 512
IMAGES, FILTERS = (8, 32, 28, 28), (64, 32, 3, 3)
SUMS = (64, 64, 1024)
"""Sums of 64 images of 64 channels: 2^22. So many numbers are quantised and dequantised, too."""
PICTURES, CLASSES = (1, 28, 28), 10
BACKEND = "numpy"
SGEMM, CONVOLUTION, COPY = "sgemm", "float32 convolution", "np.copyto of int32"
INT8, UINT8, CUT = "int8 product", "uint8 by int8 product", "saturating product"
CONVOLVED = "uint8 by int8 convolution"
BY_FLOAT, BY_FIXED_POINT = "requantising by float", "requantising by fixed point"
TENSOR_CODES, CHANNEL_CODES = "quantising a tensor", "quantising channels"
TENSOR_VALUES, CHANNEL_VALUES = "dequantising a tensor", "dequantising channels"

FIGURES: Mapping[str, tuple[str, str, float, bool]] = {
    f"{WIDTH}^3 int8 to int32, speed over sgemm": (SGEMM, INT8, 0.3, False),
    f"{WIDTH}^3 uint8 by int8, zero point, speed over sgemm": (SGEMM, UINT8, 0.3, False),
    f"{WIDTH}^3 saturating at int16, time over sgemm": (CUT, SGEMM, 20.0, True),
    "3x3 convolution of codes, speed over float32's": (CONVOLUTION, CONVOLVED, 0.3, False),
    "quantising, one scale and zero point, speed over memcpy": (COPY, TENSOR_CODES, 0.15, False),
    "quantising, a scale for each channel, speed over memcpy": (COPY, CHANNEL_CODES, 0.15, False),
    "dequantising, one scale and zero point, speed over memcpy": (COPY, TENSOR_VALUES, 0.15, False),
    "dequantising, a scale for each channel, speed over memcpy": (COPY, CHANNEL_VALUES, 0.15, False),
    "requantising by float, speed over memcpy": (COPY, BY_FLOAT, 0.15, False),
    "requantising by fixed point, speed over memcpy": (COPY, BY_FIXED_POINT, 0.05, False),
}
"""Name -> (contender whose time is divided, the one it is divided by, aim, whether it is an upper bound)."""
BYTES, MOST_BYTES = "bytes of a CNN on codes, over float32's", 0.29


def integer_contenders() -> dict[str, Callable[[], Any]]:
    """Return name -> what is timed; each call gives its result. The kernels are those of NumPy's backend."""
    rng, backend = np.random.default_rng(0), get_backend(BACKEND)
    a, b = (rng.integers(-128, 127, (WIDTH, WIDTH), np.int8, endpoint=True) for _ in range(2))
    unsigned = (a.astype(np.int16) + 128).astype(np.uint8)
    wide_a, wide_b = a.astype(np.float32), b.astype(np.float32)
    images = rng.integers(0, 255, IMAGES, np.uint8, endpoint=True)
    filters = rng.integers(-128, 127, FILTERS, np.int8, endpoint=True)
    wide_images, wide_filters = images.astype(np.float32), filters.astype(np.float32)
    geometry: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    sums = rng.integers(-(1 << 17), 1 << 17, SUMS, np.int32)
    copy, factors = np.empty_like(sums), rng.uniform(5e-4, 1e-3, SUMS[1])

    floats = rng.standard_normal(SUMS).astype(np.float32)
    for_all = choose(-4.0, 3.0, quant_min=0, quant_max=255)  # as of activations
    ends = rng.uniform(2, 4, SUMS[1])
    for_each = choose(-ends, ends, quant_min=-128, quant_max=127, symmetric=True, axis=1)  # as of weights
    codes, by_channel = quantize(floats, for_all), quantize(floats, for_each)

    def requantized(mode: str) -> Any:
        return backend.requantize(sums, factors, 3, -128, 127, mode, axis=1)

    return {
        SGEMM: lambda: np.matmul(wide_a, wide_b),
        INT8: lambda: backend.integer_matmul(a, b),
        UINT8: lambda: backend.integer_matmul(unsigned, b, 99),
        CUT: lambda: backend.integer_matmul(unsigned, b, 99, accumulate="int16-saturating"),
        CONVOLUTION: lambda: backend.conv2d(wide_images, wide_filters, None, geometry, accumulate="float32"),
        CONVOLVED: lambda: backend.integer_conv2d(images, filters, **geometry, x_zero=99),
        COPY: lambda: np.copyto(copy, sums),
        TENSOR_CODES: lambda: quantize(floats, for_all),
        CHANNEL_CODES: lambda: quantize(floats, for_each),
        TENSOR_VALUES: lambda: dequantize(codes, for_all),
        CHANNEL_VALUES: lambda: dequantize(by_channel, for_each),
        BY_FLOAT: lambda: requantized("float"),
        BY_FIXED_POINT: lambda: requantized("fixed-point"),
    }


def bytes_ratio() -> float:
    """Return the bytes of a converted CNN over those in float32, parameters and buffers together.

    It is `minimp.models.cnn` for 28 x 28 pixels and 10 classes, and has a scale for each output channel.
    """
    model = cnn(PICTURES, CLASSES).eval()
    pixels = np.random.default_rng(0).random((4, *PICTURES), np.float32)
    fused, _ = fuse(model, tensor(pixels))
    return bytes_of(convert(fused, calibrate(fused, [pixels]))) / bytes_of(model)


def integer_figures(rounds: int, *, clock: Clock = processor_time) -> list[Figure]:
    """Time every contender in turn; return the ratios, each the median of its rounds, and that of bytes.

    The product is of 512 x 512 by 512 x 512 codes, the convolution of 8 x 32 x 28 x 28 codes by 64 filters of
    3 x 3, padded by 1; 2^22 sums are requantised with a multiplier for each of 64 channels, and as many
    numbers quantised and dequantised. A result is new memory but for `np.copyto`'s.
    """
    seconds = interleave(integer_contenders(), rounds, clock=clock)
    timed = [
        Figure(f"quant: {name}", _ratio(seconds[divided], seconds[by]), aim, at_most)
        for name, (divided, by, aim, at_most) in FIGURES.items()
    ]
    return [*timed, Figure(f"quant: {BYTES}", bytes_ratio(), MOST_BYTES)]


def _ratio(divided: list[float], by: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(divided, by, strict=True))
