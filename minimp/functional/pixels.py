"""Images rearranged: pixels to channels and back, windows to columns and back."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from minimp import ops
from minimp.errors import SettingError, ShapeError
from minimp.functional.borders import pad
from minimp.functional.common import Pair, pair
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["channel_shuffle", "fold", "pixel_shuffle", "pixel_unshuffle", "unfold"]

Two = tuple[int, int]


def pixel_shuffle(input: Any, upscale_factor: int) -> Tensor:
    """Channels to pixels: (..., C r^2, H, W) -> (..., C, H r, W r) (Shi et al. 2016).

    Element (c, h r + i, w r + j) of the result is (c r^2 + i r + j, h, w) of the input.
    """
    r, x = _factor("upscale_factor", upscale_factor), _image(input, "pixel_shuffle")
    *lead, channels, height, width = x.shape
    if channels % (r * r):
        raise ShapeError(
            f"expected channels in groups of {r * r}, got {x.shape}", op="pixel_shuffle", shapes=[x.shape]
        )
    count = len(lead)
    parts = ops.reshape(x, shape=(*lead, channels // (r * r), r, r, height, width))
    order = (*range(count), count, count + 3, count + 1, count + 4, count + 2)
    moved = ops.permute(parts, dims=order)  # (..., C, H, r, W, r)
    return ops.reshape(moved, shape=(*lead, channels // (r * r), height * r, width * r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Tensor:
    """Pixels to channels: (..., C, H r, W r) -> (..., C r^2, H, W), the way back of :func:`pixel_shuffle`."""
    r, x = _factor("downscale_factor", downscale_factor), _image(input, "pixel_unshuffle")
    *lead, channels, height, width = x.shape
    if height % r or width % r:
        raise ShapeError(
            f"expected height and width in multiples of {r}, got {x.shape}", op="pixel_unshuffle",
            shapes=[x.shape],
        )  # fmt: skip
    count = len(lead)
    parts = ops.reshape(x, shape=(*lead, channels, height // r, r, width // r, r))
    order = (*range(count), count, count + 2, count + 4, count + 1, count + 3)
    moved = ops.permute(parts, dims=order)  # (..., C, r, r, H, W)
    return ops.reshape(moved, shape=(*lead, channels * r * r, height // r, width // r))


def channel_shuffle(input: Any, groups: int) -> Tensor:
    """Deal the channels of each group out in turn; (N, C, ...) -> the same (Zhang et al. 2018)."""
    x = input if isinstance(input, Value) else Value.lift(input, None)
    if len(x.shape) < 3 or x.shape[1] % _factor("groups", groups):
        raise ShapeError(
            f"expected x (N, C, ...) with channels in {groups} equal groups, got {x.shape}",
            op="channel_shuffle", shapes=[x.shape],
        )  # fmt: skip
    places = math.prod(x.shape[2:])
    parts = ops.reshape(x, shape=(x.shape[0], groups, x.shape[1] // groups, places))
    return ops.reshape(ops.permute(parts, dims=(0, 2, 1, 3)), shape=x.shape)


def unfold(
    input: Any, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1
) -> Tensor:  # fmt: skip
    """Windows as columns; (N, C, H, W) -> (N, C kH kW, L), L windows row by row (torch.nn.functional.unfold).

    The gradient adds up where windows overlap, by the accumulation in force.
    """
    kernel, apart, edge, step = _windows(kernel_size, dilation, padding, stride)
    x = _image(input, "unfold")
    if len(x.shape) != 4:
        raise ShapeError(f"expected x (N, C, H, W), got {x.shape}", op="unfold", shapes=[x.shape])
    padded = pad(x, (edge[1], edge[1], edge[0], edge[0])) if any(edge) else x
    rows, columns = _places("unfold", padded.shape[2:], kernel, apart, step)
    seen = ops.getitem(padded, index=(slice(None), slice(None), rows, columns))
    depth, count = x.shape[1] * math.prod(kernel), rows.shape[2] * columns.shape[3]
    return ops.reshape(seen, shape=(x.shape[0], depth, count))


def fold(
    input: Any, output_size: Pair, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1
) -> Tensor:
    """Columns added up to an image, unfold's adjoint; (N, C kH kW, L) -> (N, C, *output_size)."""
    kernel, apart, edge, step = _windows(kernel_size, dilation, padding, stride)
    size, x = pair("output_size", output_size), input if isinstance(input, Value) else Value.lift(input, None)
    full = (size[0] + 2 * edge[0], size[1] + 2 * edge[1])
    rows, columns = _places("fold", full, kernel, apart, step)
    taps, out = kernel[0] * kernel[1], (rows.shape[2], columns.shape[3])
    if len(x.shape) != 3 or x.shape[1] % taps or x.shape[2] != out[0] * out[1]:
        raise ShapeError(
            f"expected x (N, C {taps}, {out[0] * out[1]}), got {x.shape}", op="fold", shapes=[x.shape],
            help="kernel_size, dilation, padding and stride must be unfold's",
        )  # fmt: skip
    channels = x.shape[1] // taps
    parts = ops.reshape(x, shape=(x.shape[0], channels, *kernel, *out))
    index = (slice(None), slice(None), rows, columns)
    image = ops.unindex(parts, shape=(x.shape[0], channels, *full), index=index)
    return pad(image, (-edge[1], -edge[1], -edge[0], -edge[0])) if any(edge) else image


# ---- parts ------------------------------------------------------------------------------------------------


def _windows(kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> tuple[Two, Two, Two, Two]:
    return (
        pair("kernel_size", kernel_size), pair("dilation", dilation), pair("padding", padding, least=0),
        pair("stride", stride),
    )  # fmt: skip


@lru_cache(maxsize=16)
def _places(op: str, size: Two, kernel: Two, dilation: Two, stride: Two) -> tuple[Any, Any]:
    """The rows (kH, 1, OH, 1) and columns (1, kW, 1, OW) that the windows of an image read."""
    found = []
    for axis in (0, 1):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        if reach > size[axis]:
            raise ShapeError(f"a window of {kernel} with dilation {dilation} does not fit {size}", op=op)
        starts = np.arange(0, size[axis] - reach + 1, stride[axis])
        found.append(np.arange(kernel[axis])[:, None] * dilation[axis] + starts)
    rows, columns = found
    return rows[:, None, :, None], columns[None, :, None, :]


def _factor(name: str, value: int) -> int:
    if type(value) is not int or value < 1:
        raise SettingError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return value


def _image(input: Any, name: str) -> Any:
    x = input if isinstance(input, Value) else Value.lift(input, None)
    if len(x.shape) < 3:
        raise ShapeError(f"expected x (..., C, H, W), got {x.shape}", op=name, shapes=[x.shape])
    return x
