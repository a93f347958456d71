"""Convolutions over signals and images, and transposed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minimp import functional
from minimp.errors import SettingError, ShapeError, unknown_name
from minimp.nn.making import Numbers, draw, empty, lifted, numbers, optional, whole
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor

__all__ = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d", "batched"]

MODES = ("zeros", "reflect", "replicate", "circular")


def batched(x: Tensor, axes: int, function: Callable[[Tensor], Any]) -> Any:
    """Apply what takes (N, C, ...) to it, or to (C, ...) as a batch of one; `axes` is what follows C."""
    if x.ndim != axes + 1:
        return function(x)
    y = function(x.unsqueeze(0))
    return tuple(each.squeeze(0) for each in y) if isinstance(y, tuple) else y.squeeze(0)


class _Convolution(Module):
    """What all convolutions share; `axes` is the number of axes that the kernel moves over."""

    axes = 2
    transposed = False
    weight: Parameter
    bias: Parameter | None
    padding: Any  # numbers, or a name

    def _set(
        self, in_channels: int, out_channels: int, kernel_size: Numbers, stride: Numbers,
        padding: Numbers | str, dilation: Numbers, groups: int,
    ) -> None:  # fmt: skip
        """Take the settings, each checked."""
        name, n = self._name(), self.axes
        self.in_channels = whole("in_channels", in_channels, name)
        self.out_channels = whole("out_channels", out_channels, name)
        self.kernel_size = numbers("kernel_size", kernel_size, n, name)
        self.stride = numbers("stride", stride, n, name)
        named = isinstance(padding, str)
        self.padding = padding if named else numbers("padding", padding, n, name, least=0)
        self.dilation = numbers("dilation", dilation, n, name)
        self.groups = whole("groups", groups, name)
        for what, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise SettingError(
                    f"expected {what} to be a multiple of groups={groups}, got {channels}", op=name
                )

    def _make(self, bias: bool, dtype: Any, backend: str | None) -> None:
        """Make the parameters and draw them."""
        rows, columns = self.out_channels, self.in_channels // self.groups
        if self.transposed:
            rows, columns = self.in_channels, self.out_channels // self.groups
        self.weight = empty((rows, columns, *self.kernel_size), dtype, backend)
        self.register_parameter("bias", optional(bias, (self.out_channels,), dtype, backend))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        draw(self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show what differs from the defaults, as torch."""
        n = self.axes
        shown: dict[str, Any] = {
            "padding": (0,) * n,
            "dilation": (1,) * n,
            "output_padding": (0,) * n,
            "groups": 1,
        }
        parts = [f"{self.in_channels}, {self.out_channels}"]
        parts += [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        parts += [
            f"{name}={getattr(self, name)}" for name, plain in shown.items()
            if getattr(self, name, plain) != plain
        ]  # fmt: skip
        parts += ["bias=False"] if self.bias is None else []
        mode = getattr(self, "padding_mode", "zeros")
        return ", ".join(parts if mode == "zeros" else [*parts, f"padding_mode={mode}"])


class _Correlation(_Convolution):
    """What Conv1d and Conv2d share."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Numbers, stride: Numbers = 1,
        padding: Numbers | str = 0, dilation: Numbers = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        name = self._name()
        if isinstance(self.padding, str) and self.padding not in ("valid", "same"):
            raise SettingError(f"expected padding 'valid' or 'same', got {self.padding!r}", op=name)
        if self.padding == "same" and set(self.stride) != {1}:
            raise SettingError(f"padding 'same' cannot act with stride {self.stride}", op=name)
        if padding_mode not in MODES:
            raise SettingError(unknown_name("padding_mode", padding_mode, MODES), op=name)
        self.padding_mode = padding_mode
        self._make(bias, dtype, backend)

    def _sides(self) -> list[int]:
        """Return the padding as `pad` takes it: before and after, last axis first; 'same' may be uneven."""
        if self.padding == "same":
            reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [side for r in reversed(reach) for side in (r // 2, r - r // 2)]
        lengths: Sequence[Any] = (0,) * self.axes if isinstance(self.padding, str) else self.padding
        return [side for p in reversed(lengths) for side in (p, p)]

    def forward(self, input: Any) -> Tensor:
        """Return the cross-correlation; (C, ...) is a batch of one."""
        return self._conv_forward(input, self.weight, self.bias)

    def _conv_forward(self, input: Any, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the cross-correlation with another weight and bias (torch's name)."""
        convolve = functional.conv1d if self.axes == 1 else functional.conv2d
        x, padding, sides = lifted(input), self.padding, self._sides()
        uneven = isinstance(padding, str) and sides[::2] != sides[1::2]
        if self.padding_mode != "zeros" or uneven:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = functional.pad(x, sides, mode), (0,) * self.axes
        settings = (self.stride, padding, self.dilation, self.groups)
        y: Tensor = batched(x, self.axes, lambda x: convolve(x, weight, bias, *settings))
        return y


class Conv1d(_Correlation):
    """Cross-correlation of signals.  (N, in_channels, L) -> (N, out_channels, L').

    `weight` is (out_channels, in_channels/groups, K). Draw, arguments and errors as :class:`Conv2d`, one
    number in place of a pair.
    """

    axes = 1


class Conv2d(_Correlation):
    """Cross-correlation of images.  (N, in_channels, H, W) -> (N, out_channels, H', W').

    `weight` is (out_channels, in_channels/groups, kH, kW), `bias` (out_channels,). Both begin uniform in
    +-1/sqrt(in_channels/groups kH kW) (torch.nn.Conv2d), drawn in float64 and rounded once.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, dilation: one whole number or a pair, at least 1.
        padding: the border on each side, one number or a pair, or ``"valid"`` (none) or ``"same"``.
        groups: channels are split into this many independent groups.
        bias: whether there is a b.
        padding_mode: what the border is: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: numbers out of range, or groups that do not divide the channels.
        FormatError, DeviceError: a format or backend that cannot be used.
    """


class _Transposed(_Convolution):
    """What ConvTranspose1d and ConvTranspose2d share."""

    transposed = True

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Numbers, stride: Numbers = 1,
        padding: Numbers = 0, output_padding: Numbers = 0, groups: int = 1, bias: bool = True,
        dilation: Numbers = 1, padding_mode: str = "zeros", *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if padding_mode != "zeros":
            raise SettingError(f"expected padding_mode 'zeros', got {padding_mode!r}", op=self._name())
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
        self.output_padding = numbers("output_padding", output_padding, self.axes, self._name(), least=0)
        self.padding_mode = padding_mode
        self._make(bias, dtype, backend)

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Tensor:
        """Return the transposed convolution; (C, ...) is a batch of one.

        Args:
            input: (N, in_channels, ...).
            output_size: the last lengths of the output, which a stride leaves open; else `output_padding`.
        """
        convolve = functional.conv_transpose1d if self.axes == 1 else functional.conv_transpose2d
        x = lifted(input)
        extra = self.output_padding if output_size is None else self._extra(x, tuple(output_size))
        settings = (self.stride, self.padding, extra, self.groups, self.dilation)
        y: Tensor = batched(x, self.axes, lambda x: convolve(x, self.weight, self.bias, *settings))
        return y

    def _extra(self, x: Tensor, size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output padding that gives a size, which must be one of those that the stride allows."""
        found = []
        n = self.axes
        per_axis = zip(
            x.shape[-n:], size[-n:], self.stride, self.padding, self.dilation, self.kernel_size,
            strict=True,
        )  # fmt: skip
        for length, wanted, stride, padding, dilation, kernel in per_axis:
            least = (length - 1) * stride - 2 * int(padding) + dilation * (kernel - 1) + 1
            if not least <= wanted < least + stride:
                raise ShapeError(
                    f"expected an output length from {least} to {least + stride - 1}, got {wanted}",
                    op=self._name(), shapes=[x.shape],
                )  # fmt: skip
            found.append(wanted - least)
        return tuple(found)


class ConvTranspose1d(_Transposed):
    """Transposed convolution of signals.  (N, in_channels, L) -> (N, out_channels, L').

    `weight` is (in_channels, out_channels/groups, K). Draw, arguments and errors as
    :class:`ConvTranspose2d`, one number in place of a pair.
    """

    axes = 1


class ConvTranspose2d(_Transposed):
    """Transposed convolution of images: the gradient of :class:`Conv2d` by its input.

    (N, in_channels, H, W) -> (N, out_channels, H', W'), H' = (H - 1) stride - 2 padding + dilation (kH - 1) +
    output_padding + 1. `weight` is (in_channels, out_channels/groups, kH, kW), `bias` (out_channels,). Both
    begin uniform in +-1/sqrt(out_channels/groups kH kW) (torch.nn.ConvTranspose2d).

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, dilation: one whole number or a pair, at least 1.
        padding: what is cut from each side, one number or a pair.
        output_padding: what is added at the end, one number or a pair, below stride or dilation.
        groups: channels are split into this many independent groups.
        bias: whether there is a b.
        padding_mode: ``"zeros"``, the only one there is.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: numbers out of range, or groups that do not divide the channels.
        ShapeError: on call, an output size that the stride does not allow.
        FormatError, DeviceError: a format or backend that cannot be used.
    """
