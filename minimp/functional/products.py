"""Products with weights: linear and convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import ops
from minimp.errors import SettingError
from minimp.functional.common import Pair, pair
from minimp.tensors import Tensor

__all__ = ["conv2d", "linear"]


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """y = x W^T + b.  (..., in), (out, in), (out,) -> (..., out); one rounding, after the bias."""
    return ops.linear(input, weight) if bias is None else ops.linear(input, weight, bias)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair | str = 0,
    dilation: Pair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation.  (N, C, H, W), (O, C/groups, kH, kW), (O,) -> (N, O, H', W').

    Args:
        input, weight, bias: tensors of one format (outside autocast).
        stride, dilation: one number or a pair, at least 1.
        padding: zeros on each side, one number or a pair; "valid" is none, "same" keeps H and W
            (stride 1 and an odd reach of the kernel only).
        groups: channels are split in this many independent groups.
    """
    strides, dilations = pair("stride", stride), pair("dilation", dilation)
    if isinstance(padding, str):
        padding = _named_padding(padding, weight.shape[2:], strides, dilations)
    arrays = (input, weight) if bias is None else (input, weight, bias)
    return ops.conv2d(
        *arrays, stride=strides, padding=pair("padding", padding, least=0), dilation=dilations, groups=groups
    )


def _named_padding(name: str, kernel: Sequence[int], stride: Pair, dilation: Sequence[int]) -> Pair:
    if name == "valid":
        return 0
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if name != "same" or stride != (1, 1) or any(r % 2 for r in reach):
        raise SettingError(
            f"conv2d: padding {name!r} cannot act with stride {stride} and a kernel of {tuple(kernel)}",
            help="'same' needs stride 1 and an odd reach; else give the padding as numbers",
        )
    return [r // 2 for r in reach]
