"""Convolution, pooling, and what changes the shape of things."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import functional
from minimp.errors import SettingError
from minimp.nn.making import draw, empty, numbers, optional, whole, window
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor

__all__ = ["AvgPool2d", "Conv2d", "Flatten", "MaxPool2d"]

Pair = int | Sequence[int]


class Conv2d(Module):
    """Cross-correlation of images.  (N, in_channels, H, W) -> (N, out_channels, H', W').

    `weight` is (out_channels, in_channels/groups, kH, kW), `bias` (out_channels,). Both begin uniform in
    +-1/sqrt(in_channels/groups kH kW) (torch.nn.Conv2d), drawn in float64 and rounded once.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, dilation: one whole number or a pair, at least 1.
        padding: zeros on each side, one number or a pair, or ``"valid"`` (none) or ``"same"``.
        groups: channels are split into this many independent groups.
        bias: whether there is a b.
        padding_mode: ``"zeros"``, the only one offered.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: numbers out of range, or groups that do not divide the channels.
        FormatError, DeviceError: a format or backend that cannot be used.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1,
        padding: Pair | str = 0, dilation: Pair = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_channels = whole("in_channels", in_channels, "Conv2d")
        self.out_channels = whole("out_channels", out_channels, "Conv2d")
        self.kernel_size = numbers("kernel_size", kernel_size, 2, "Conv2d")
        self.stride = numbers("stride", stride, 2, "Conv2d")
        self.padding = (
            padding if isinstance(padding, str) else numbers("padding", padding, 2, "Conv2d", least=0)
        )
        self.dilation = numbers("dilation", dilation, 2, "Conv2d")
        self.groups = whole("groups", groups, "Conv2d")
        self.padding_mode = padding_mode
        self._check()
        self.weight = empty((out_channels, in_channels // groups, *self.kernel_size), dtype, backend)
        self.register_parameter("bias", optional(bias, (out_channels,), dtype, backend))
        self.reset_parameters()

    def _check(self) -> None:
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % self.groups:
                raise SettingError(
                    f"expected {name} to be a multiple of groups={self.groups}, got {channels}", op="Conv2d"
                )
        if self.padding_mode != "zeros":
            raise SettingError(f"expected padding_mode 'zeros', got {self.padding_mode!r}", op="Conv2d")
        if isinstance(self.padding, str) and self.padding not in ("valid", "same"):
            raise SettingError(f"expected padding 'valid' or 'same', got {self.padding!r}", op="Conv2d")
        if self.padding == "same" and self.stride != (1, 1):
            raise SettingError(f"padding 'same' cannot act with stride {self.stride}", op="Conv2d")

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        draw(self.weight, self.bias)

    def forward(self, input: Any) -> Tensor:
        """Return the cross-correlation."""
        return functional.conv2d(
            input, self.weight, self.bias, stride=self.stride, padding=self.padding,
            dilation=self.dilation, groups=self.groups,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Show what differs from the defaults, as torch."""
        parts = [str(self.in_channels), str(self.out_channels)]
        parts += [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        shown = {"padding": (0, 0), "dilation": (1, 1), "groups": 1}
        parts += [
            f"{name}={getattr(self, name)}" for name, plain in shown.items() if getattr(self, name) != plain
        ]
        return ", ".join(parts if self.bias is not None else [*parts, "bias=False"])


class MaxPool2d(Module):
    """The largest element of each window.  (N, C, H, W) -> (N, C, H', W').

    Args:
        kernel_size, stride, padding, dilation: one whole number or a pair; the stride is the kernel if None.
        return_indices: must stay False.
        ceil_mode: whether a last window may reach over the edge.

    Raises:
        SettingError: numbers out of range, or indices asked for.
    """

    def __init__(
        self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if return_indices:
            raise SettingError("return_indices=True is not offered", op="MaxPool2d", help="leave it out")
        self.kernel_size = window("kernel_size", kernel_size, 2, "MaxPool2d")
        self.stride = self.kernel_size if stride is None else window("stride", stride, 2, "MaxPool2d")
        self.padding = window("padding", padding, 2, "MaxPool2d", least=0)
        self.dilation = window("dilation", dilation, 2, "MaxPool2d")
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Tensor:
        """Return the maxima."""
        return functional.max_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def extra_repr(self) -> str:
        """Show the geometry."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


class AvgPool2d(Module):
    """The mean of each window.  (N, C, H, W) -> (N, C, H', W').

    Args:
        kernel_size, stride, padding: one whole number or a pair; the stride is the kernel if None.
        ceil_mode: whether a last window may reach over the edge.
        count_include_pad: whether the zeros of the padding count in the mean.
        divisor_override: must stay None.

    Raises:
        SettingError: numbers out of range, or a divisor.
    """

    def __init__(
        self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if divisor_override is not None:
            raise SettingError("divisor_override is not offered", op="AvgPool2d", help="leave it out")
        self.kernel_size = window("kernel_size", kernel_size, 2, "AvgPool2d")
        self.stride = self.kernel_size if stride is None else window("stride", stride, 2, "AvgPool2d")
        self.padding = window("padding", padding, 2, "AvgPool2d", least=0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Any) -> Tensor:
        """Return the means."""
        return functional.avg_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def extra_repr(self) -> str:
        """Show the geometry."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class Flatten(Module):
    """Join the axes from `start_dim` to `end_dim`: (N, C, H, W) -> (N, C H W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """Return the elements with these axes joined."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Show the axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
