"""Layers that add a border around signals, images and volumes, or cut one off (negative lengths)."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.errors import SettingError
from minimp.nn.making import Numbers
from minimp.nn.module import Module
from minimp.tensors import Tensor

__all__ = [
    "CircularPad1d", "CircularPad2d", "ConstantPad1d", "ConstantPad2d", "ReflectionPad1d", "ReflectionPad2d",
    "ReplicationPad1d", "ReplicationPad2d", "ZeroPad1d", "ZeroPad2d",
]  # fmt: skip


class _Border(Module):
    """What all share.

    Args:
        padding: one length for every side, or (left, right) of a signal, (left, right, top, bottom) of an
            image.

    Raises:
        SettingError: another number of lengths.
    """

    axes = 2
    mode = "constant"

    def __init__(self, padding: Numbers) -> None:
        super().__init__()
        sides = (padding,) * (2 * self.axes) if isinstance(padding, int) else tuple(padding)
        if len(sides) != 2 * self.axes or any(type(side) is not int for side in sides):
            raise SettingError(
                f"expected padding to be one or {2 * self.axes} whole numbers, got {padding!r}",
                op=self._name(),
            )
        self.padding = sides

    def forward(self, input: Any) -> Tensor:
        """Return the input with its border."""
        return functional.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """Show the lengths."""
        return f"{self.padding}"


class _Constant(_Border):
    """A border of one value."""

    def __init__(self, padding: Numbers, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Tensor:
        """Return the input with its border."""
        return functional.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """Show the lengths and the value."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_Constant):
    """A border of `value` around signals, (N, C, L) or (C, L). Arguments as :class:`ConstantPad2d`."""

    axes = 1


class ConstantPad2d(_Constant):
    """A border of `value` around images, (N, C, H, W) or (C, H, W).

    Args:
        padding: one length for every side, or (left, right, top, bottom).
        value: what the border is filled with.

    Raises:
        SettingError: another number of lengths.
    """


class _Zero(_Constant):
    """A border of zeros."""

    def __init__(self, padding: Numbers) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """Show the lengths."""
        return f"{self.padding}"


class ZeroPad1d(_Zero):
    """A border of zeros around signals, (N, C, L) or (C, L). Argument as :class:`ZeroPad2d`."""

    axes = 1


class ZeroPad2d(_Zero):
    """A border of zeros around images, (N, C, H, W) or (C, H, W).

    Args:
        padding: one length for every side, or (left, right, top, bottom).

    Raises:
        SettingError: another number of lengths.
    """


class ReflectionPad1d(_Border):
    """The mirror image around signals, the last element once. Argument as :class:`ZeroPad2d`."""

    axes, mode = 1, "reflect"


class ReflectionPad2d(_Border):
    """The mirror image around images, the last row once. Argument as :class:`ZeroPad2d`."""

    mode = "reflect"


class ReplicationPad1d(_Border):
    """The last element again, around signals. Argument as :class:`ZeroPad2d`."""

    axes, mode = 1, "replicate"


class ReplicationPad2d(_Border):
    """The last row again, around images. Argument as :class:`ZeroPad2d`."""

    mode = "replicate"


class CircularPad1d(_Border):
    """What follows on the other side, around signals. Argument as :class:`ZeroPad2d`."""

    axes, mode = 1, "circular"


class CircularPad2d(_Border):
    """What follows on the other side, around images. Argument as :class:`ZeroPad2d`."""

    mode = "circular"
