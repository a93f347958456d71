"""Activations as modules; the maths is in :mod:`minimp.ops.activations` and `minimp.ops.reductions`."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.errors import SettingError
from minimp.nn.module import Module
from minimp.tensors import Tensor

__all__ = ["GELU", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Tanh", "refuse_inplace"]


def refuse_inplace(owner: str, inplace: bool) -> None:
    """Refuse a request that cannot be honoured: arrays are never changed in place."""
    if inplace:
        raise SettingError(
            "inplace=True cannot act: arrays are never changed in place", op=owner, help="leave it out"
        )


class ReLU(Module):
    """max(x, 0), elementwise; `inplace` must stay False."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        refuse_inplace("ReLU", inplace)
        self.inplace = False

    def forward(self, input: Any) -> Tensor:
        """Return max(x, 0)."""
        return functional.relu(input)


class Tanh(Module):
    """The hyperbolic tangent, elementwise."""

    def forward(self, input: Any) -> Tensor:
        """Return tanh x."""
        return functional.tanh(input)


class Sigmoid(Module):
    """1 / (1 + e^-x), elementwise."""

    def forward(self, input: Any) -> Tensor:
        """Return the logistic function of x."""
        return functional.sigmoid(input)


class GELU(Module):
    """x Phi(x), elementwise (Hendrycks and Gimpel 2016).

    Args:
        approximate: ``"none"``, by the error function, or ``"tanh"``.

    Raises:
        SettingError: another name.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise SettingError(f"expected approximate 'none' or 'tanh', got {approximate!r}", op="GELU")
        self.approximate = approximate

    def forward(self, input: Any) -> Tensor:
        """Return x Phi(x)."""
        return functional.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Show the way it is computed."""
        return f"approximate={self.approximate!r}"


class _OverDim(Module):
    """What softmax and its logarithm share: the axis."""

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


class LogSoftmax(_OverDim):
    """ln (e^x / sum e^x) over an axis.

    Args:
        dim: the axis. None takes the last one of a vector or a matrix, as torch's guess does. With more axes
            torch takes the first or the second, depending on how many there are; here a guess is refused.

    Raises:
        SettingError: on call, `dim` is None and the input has more than two axes.
    """

    def forward(self, input: Any) -> Tensor:
        """Return the logarithm of softmax over the axis."""
        return functional.log_softmax(input, dim=self._axis(input))
