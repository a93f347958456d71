"""Pooling over windows, of a given size or of as many as a given output has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import functional
from minimp.errors import SettingError
from minimp.nn.convolution import batched
from minimp.nn.making import Numbers, lifted, numbers, whole, window
from minimp.nn.module import Module
from minimp.tensors import Tensor

__all__ = [
    "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AvgPool1d",
    "AvgPool2d", "MaxPool1d", "MaxPool2d", "MaxUnpool2d",
]  # fmt: skip

Sizes = int | None | Sequence[int | None]


class _MaxPool(Module):
    """What both share; `axes` is the number of axes that windows move over."""

    axes = 2

    def __init__(
        self, kernel_size: Numbers, stride: Numbers | None = None, padding: Numbers = 0,
        dilation: Numbers = 1, return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        n, name = self.axes, self._name()
        self.kernel_size = window("kernel_size", kernel_size, n, name)
        self.stride = self.kernel_size if stride is None else window("stride", stride, n, name)
        self.padding = window("padding", padding, n, name, least=0)
        self.dilation = window("dilation", dilation, n, name)
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, input: Any) -> Any:
        """Return the maxima, and their places if asked for; (C, ...) is a batch of one."""
        pool = functional.max_pool1d if self.axes == 1 else functional.max_pool2d
        settings = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return batched(lifted(input), self.axes, lambda x: pool(x, *settings, self.return_indices))

    def extra_repr(self) -> str:
        """Show the geometry."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


class MaxPool1d(_MaxPool):
    """The largest element of each window of a signal.  (N, C, L) -> (N, C, L').

    Arguments and errors as :class:`MaxPool2d`, one number in place of a pair.
    """

    axes = 1


class MaxPool2d(_MaxPool):
    """The largest element of each window.  (N, C, H, W) -> (N, C, H', W').

    Args:
        kernel_size, stride, padding, dilation: one whole number or a pair; the stride is the kernel if None.
        return_indices: return also where in its image each maximum was, row after row.
        ceil_mode: whether a last window may reach over the edge.

    Raises:
        SettingError: numbers out of range.
    """


class MaxUnpool2d(Module):
    """The way back of :class:`MaxPool2d`: zeros, and each maximum at its place.  -> (N, C, H, W).

    Args:
        kernel_size, stride, padding: as they were there.

    Raises:
        SettingError: numbers out of range.
    """

    def __init__(self, kernel_size: Numbers, stride: Numbers | None = None, padding: Numbers = 0) -> None:
        super().__init__()
        self.kernel_size = numbers("kernel_size", kernel_size, 2, "MaxUnpool2d")
        self.stride = numbers("stride", kernel_size if stride is None else stride, 2, "MaxUnpool2d")
        self.padding = numbers("padding", padding, 2, "MaxUnpool2d", least=0)

    def forward(self, input: Any, indices: Any, output_size: Sequence[int] | None = None) -> Tensor:
        """Return the image of maxima at the places that the pool returned."""
        return functional.max_unpool2d(
            input, indices, self.kernel_size, self.stride, self.padding, output_size
        )

    def extra_repr(self) -> str:
        """Show the geometry."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    """What both share; `axes` is the number of axes that windows move over."""

    axes = 2
    kernel_size: Any
    stride: Any
    padding: Any
    ceil_mode: bool
    count_include_pad: bool

    def forward(self, input: Any) -> Tensor:
        """Return the means; (C, ...) is a batch of one."""
        pool = functional.avg_pool1d if self.axes == 1 else functional.avg_pool2d
        settings = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        y: Tensor = batched(lifted(input), self.axes, lambda x: pool(x, *settings))
        return y

    def extra_repr(self) -> str:
        """Show the geometry."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window of a signal.  (N, C, L) -> (N, C, L').

    Arguments and errors as :class:`AvgPool2d`, one number in place of a pair.
    """

    axes = 1

    def __init__(
        self, kernel_size: Numbers, stride: Numbers | None = None, padding: Numbers = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = numbers("kernel_size", kernel_size, 1, "AvgPool1d")
        self.stride = numbers("stride", kernel_size if stride is None else stride, 1, "AvgPool1d")
        self.padding = numbers("padding", padding, 1, "AvgPool1d", least=0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad


class AvgPool2d(_AvgPool):
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
        self, kernel_size: Numbers, stride: Numbers | None = None, padding: Numbers = 0,
        ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if divisor_override is not None:
            raise SettingError("divisor_override is not offered", op="AvgPool2d", help="leave it out")
        self.kernel_size = window("kernel_size", kernel_size, 2, "AvgPool2d")
        self.stride = self.kernel_size if stride is None else window("stride", stride, 2, "AvgPool2d")
        self.padding = window("padding", padding, 2, "AvgPool2d", least=0)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad
        self.divisor_override = divisor_override


class _Adaptive(Module):
    """What adaptive pools share: the size of the output."""

    axes = 2

    def __init__(self, output_size: Sizes) -> None:
        super().__init__()
        each = tuple(output_size) if isinstance(output_size, Sequence) else (output_size,) * self.axes
        if len(each) != self.axes:
            raise SettingError(
                f"expected output_size to be one length or {self.axes}, got {output_size!r}", op=self._name()
            )
        for length in each:
            if length is not None:
                whole("output_size", length, self._name())
        self.output_size = output_size

    def extra_repr(self) -> str:
        """Show the size."""
        return f"output_size={self.output_size}"


class _AdaptiveMax(_Adaptive):
    """What both share."""

    def __init__(self, output_size: Sizes, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Any) -> Any:
        """Return the maxima, and their places if asked for; (C, ...) is a batch of one."""
        pool = functional.adaptive_max_pool1d if self.axes == 1 else functional.adaptive_max_pool2d
        return batched(lifted(input), self.axes, lambda x: pool(x, self.output_size, self.return_indices))


class AdaptiveMaxPool1d(_AdaptiveMax):
    """The largest element of each of `output_size` windows of a signal.  (N, C, L) -> (N, C, output_size).

    Arguments and errors as :class:`AdaptiveMaxPool2d`.
    """

    axes = 1


class AdaptiveMaxPool2d(_AdaptiveMax):
    """The largest element of each of H' W' windows.  (N, C, H, W) -> (N, C, H', W').

    Args:
        output_size: H' and W', or one number for both; None keeps a length.
        return_indices: return also where in its image each maximum was, row after row.

    Raises:
        SettingError: no such size.
    """


class _AdaptiveAvg(_Adaptive):
    """What both share."""

    def forward(self, input: Any) -> Tensor:
        """Return the means; (C, ...) is a batch of one."""
        pool = functional.adaptive_avg_pool1d if self.axes == 1 else functional.adaptive_avg_pool2d
        y: Tensor = batched(lifted(input), self.axes, lambda x: pool(x, self.output_size))
        return y


class AdaptiveAvgPool1d(_AdaptiveAvg):
    """The mean of each of `output_size` windows of a signal.  (N, C, L) -> (N, C, output_size).

    Argument and error as :class:`AdaptiveAvgPool2d`.
    """

    axes = 1


class AdaptiveAvgPool2d(_AdaptiveAvg):
    """The mean of each of H' W' windows.  (N, C, H, W) -> (N, C, H', W').

    Args:
        output_size: H' and W', or one number for both; None keeps a length.

    Raises:
        SettingError: no such size.
    """
