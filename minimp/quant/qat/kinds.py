"""The layers of a prepared model, and what each stands for.

The names are those of torch.ao.nn.qat and torch.ao.nn.intrinsic.qat (2.13.0): Conv1d, ConvReLU1d, ConvBn1d,
ConvBnReLU1d, the same of images, Linear, LinearReLU, LinearBn1d. Beside them are LinearBnReLU1d,
ConvTranspose1d and ConvTranspose2d. What they compute, :mod:`minimp.quant.qat.layers` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from minimp import functional, nn
from minimp.nn.convolution import batched
from minimp.nn.making import lifted
from minimp.nn.module import Module
from minimp.quant.fusion import intrinsic
from minimp.quant.qat.layers import Folded, Weighted
from minimp.tensors import Tensor

__all__ = [
    "LAYERS", "Conv1d", "Conv2d", "ConvBn1d", "ConvBn2d", "ConvBnReLU1d", "ConvBnReLU2d", "ConvReLU1d",
    "ConvReLU2d", "ConvTranspose1d", "ConvTranspose2d", "Linear", "LinearBn1d", "LinearBnReLU1d",
    "LinearReLU",
]  # fmt: skip


class Linear(Weighted):
    """y = fq_out(x W_q^T + b).  (..., in_features) -> (..., out_features)."""

    plain = nn.Linear
    in_features: int
    out_features: int

    def multiplied(self, input: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x W^T + b."""
        return functional.linear(input, weight, bias)

    def extra_repr(self) -> str:
        """Show the lengths."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )


class _Conv(Weighted):
    """What convolutions share."""

    def multiplied(self, input: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the cross-correlation."""
        layer: Any = self
        made: Tensor = layer._conv_forward(input, weight, bias)
        return made


class Conv1d(_Conv, nn.Conv1d):
    """y = fq_out(W_q * x + b) of signals.  (N, C, L) -> (N, O, L')."""

    plain = nn.Conv1d


class Conv2d(_Conv, nn.Conv2d):
    """y = fq_out(W_q * x + b) of images.  (N, C, H, W) -> (N, O, H', W')."""

    plain = nn.Conv2d


class _Transpose(Weighted):
    """What transposed convolutions share: a weight (C, O/G, ...), whose output channels are not on axis 0."""

    stride: Any
    padding: Any
    output_padding: Any
    groups: int
    dilation: Any

    def rounded(self, weight: Tensor) -> Tensor:
        """Round the weight as (O, C/G, ...), in which each output channel has a row."""
        (c, width, *kernel), g = weight.shape, self.groups
        rest = tuple(range(3, 3 + len(kernel)))
        rows = weight.reshape(g, c // g, width, *kernel).permute(0, 2, 1, *rest)
        made = super().rounded(rows.reshape(g * width, c // g, *kernel))
        back = made.reshape(g, width, c // g, *kernel).permute(0, 2, 1, *rest)
        return back.reshape(*weight.shape)

    def multiplied(self, input: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the transposed convolution."""
        axes = self.weight.ndim - 2
        convolve = functional.conv_transpose1d if axes == 1 else functional.conv_transpose2d
        how = (self.stride, self.padding, self.output_padding, self.groups, self.dilation)
        made: Tensor = batched(lifted(input), axes, lambda x: convolve(x, weight, bias, *how))
        return made

    def extra_repr(self) -> str:
        """Show the geometry."""
        plain: Any = self.plain
        shown: str = plain.extra_repr(self)
        return shown


class ConvTranspose1d(_Transpose):
    """A transposed convolution of signals.  (N, C, L) -> (N, O, L')."""

    plain = nn.ConvTranspose1d


class ConvTranspose2d(_Transpose):
    """A transposed convolution of images.  (N, C, H, W) -> (N, O, H', W')."""

    plain = nn.ConvTranspose2d


class LinearReLU(Linear):
    """A linear layer and the ReLU behind it."""

    with_relu = intrinsic.LinearReLU


class LinearBn1d(Folded, Linear):
    """A linear layer and the batch norm behind it.  (N, in_features) -> (N, out_features)."""


class LinearBnReLU1d(LinearBn1d):
    """A linear layer, batch norm and ReLU (torch has no such)."""

    with_relu = intrinsic.LinearReLU


class ConvReLU1d(Conv1d):
    """A convolution of signals and the ReLU behind it."""

    with_relu = intrinsic.ConvReLU1d


class ConvBn1d(Folded, Conv1d):
    """A convolution of signals and the batch norm behind it."""


class ConvBnReLU1d(ConvBn1d):
    """A convolution of signals, batch norm and ReLU."""

    with_relu = intrinsic.ConvReLU1d


class ConvReLU2d(Conv2d):
    """A convolution of images and the ReLU behind it."""

    with_relu = intrinsic.ConvReLU2d


class ConvBn2d(Folded, Conv2d):
    """A convolution of images and the batch norm behind it."""


class ConvBnReLU2d(ConvBn2d):
    """A convolution of images, batch norm and ReLU."""

    with_relu = intrinsic.ConvReLU2d


LAYERS: Mapping[tuple[type[Module], ...], type[Weighted]] = MappingProxyType(
    {
        (nn.Linear,): Linear,
        (nn.Linear, nn.ReLU): LinearReLU,
        (nn.Linear, nn.BatchNorm1d): LinearBn1d,
        (nn.Linear, nn.BatchNorm1d, nn.ReLU): LinearBnReLU1d,
        (nn.Conv1d,): Conv1d,
        (nn.Conv1d, nn.ReLU): ConvReLU1d,
        (nn.Conv1d, nn.BatchNorm1d): ConvBn1d,
        (nn.Conv1d, nn.BatchNorm1d, nn.ReLU): ConvBnReLU1d,
        (nn.Conv2d,): Conv2d,
        (nn.Conv2d, nn.ReLU): ConvReLU2d,
        (nn.Conv2d, nn.BatchNorm2d): ConvBn2d,
        (nn.Conv2d, nn.BatchNorm2d, nn.ReLU): ConvBnReLU2d,
        (nn.ConvTranspose1d,): ConvTranspose1d,
        (nn.ConvTranspose2d,): ConvTranspose2d,
    }
)
"""Classes in the order of running -> what stands for them in a prepared model."""
