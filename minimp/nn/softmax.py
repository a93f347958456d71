"""Softmax and its relatives as modules."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.errors import SettingError, ShapeError
from minimp.nn.making import lifted
from minimp.nn.module import Module
from minimp.tensors import Tensor

__all__ = ["LogSoftmax", "Softmax", "Softmax2d", "Softmin"]


class _OverDim(Module):
    """What softmax and its relatives share: the axis."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def _axis(self, input: Any) -> int:
        if self.dim is not None:
            return self.dim
        axes = len(getattr(input, "shape", ()))
        if axes > 2:
            raise SettingError(
                f"which of {axes} axes to normalise over was not said", op=self._name(), help="pass dim="
            )
        return -1

    def extra_repr(self) -> str:
        """Show the axis."""
        return f"dim={self.dim}"


class Softmax(_OverDim):
    """e^x / sum e^x over an axis.

    Args:
        dim: the axis. None takes the last one of a vector or a matrix, as torch's guess does. With more axes
            torch takes the first or the second, depending on how many there are; here a guess is refused.

    Raises:
        SettingError: on call, `dim` is None and the input has more than two axes.
    """

    def forward(self, input: Any) -> Tensor:
        """Return softmax over the axis."""
        return functional.softmax(input, dim=self._axis(input))


class Softmin(_OverDim):
    """e^-x / sum e^-x over an axis. Argument and error as :class:`Softmax`."""

    def forward(self, input: Any) -> Tensor:
        """Return softmax of -x over the axis."""
        return functional.softmin(input, dim=self._axis(input))


class LogSoftmax(_OverDim):
    """ln (e^x / sum e^x) over an axis. Argument and error as :class:`Softmax`."""

    def forward(self, input: Any) -> Tensor:
        """Return the logarithm of softmax over the axis."""
        return functional.log_softmax(input, dim=self._axis(input))


class Softmax2d(Module):
    """Softmax over the channels of images, (N, C, H, W) or (C, H, W).

    Raises:
        ShapeError: on call, another number of axes.
    """

    def forward(self, input: Any) -> Tensor:
        """Return softmax over axis -3."""
        x = lifted(input)
        if x.ndim not in (3, 4):
            raise ShapeError(
                f"expected (N, C, H, W) or (C, H, W), got {x.shape}", op="Softmax2d", shapes=[x.shape]
            )
        return functional.softmax(x, dim=-3)
