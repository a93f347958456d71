"""Pooling over windows."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.functional.common import Pair, pair
from minimp.tensors import Tensor

__all__ = ["avg_pool2d", "max_pool2d"]


def max_pool2d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
    dilation: Pair = 1, ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """The largest element of each window; (N, C, H, W) -> (N, C, H', W')."""
    return ops.max_pool2d(
        input, kernel=pair("kernel_size", kernel_size),
        stride=pair("stride", kernel_size if stride is None else stride),
        padding=pair("padding", padding, least=0), dilation=pair("dilation", dilation), ceil_mode=ceil_mode,
    )  # fmt: skip


def avg_pool2d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window; (N, C, H, W) -> (N, C, H', W')."""
    return ops.avg_pool2d(
        input, kernel=pair("kernel_size", kernel_size),
        stride=pair("stride", kernel_size if stride is None else stride),
        padding=pair("padding", padding, least=0), ceil_mode=ceil_mode, count_include_pad=count_include_pad,
    )  # fmt: skip
