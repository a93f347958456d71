"""Layers that multiply by a matrix, and the one that does nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from minimp import functional
from minimp.modes import MODES
from minimp.nn import init
from minimp.nn.making import draw, empty, optional, whole
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.ops import linear_fp8
from minimp.tensors import Tensor

if TYPE_CHECKING:
    from minimp.fp8 import LinearState

__all__ = ["Bilinear", "Identity", "Linear"]


class Linear(Module):
    """y = x W^T + b.  (..., in_features) -> (..., out_features).

    `weight` is (out_features, in_features), `bias` (out_features,). Both begin uniform in
    +-1/sqrt(in_features) (torch.nn.Linear: kaiming_uniform_ with a = sqrt 5), drawn in float64, rounded once.

    Args:
        in_features, out_features: lengths of the last axis.
        bias: whether there is a b.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend (torch has `device` here); None takes the one in force.

    Raises:
        SettingError: a length that is no whole number of at least 1.
        FormatError, DeviceError: a format or backend that cannot be used.
    """

    weight: Parameter
    bias: Parameter | None
    fp8_state: LinearState | None = None
    """What delayed scaling remembers of the layer (:mod:`minimp.fp8`)."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = None,
        backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_features = whole("in_features", in_features, "Linear")
        self.out_features = whole("out_features", out_features, "Linear")
        self.weight = empty((out_features, in_features), dtype, backend)
        self.register_parameter("bias", optional(bias, (out_features,), dtype, backend))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        draw(self.weight, self.bias)

    def forward(self, input: Any) -> Tensor:
        """Return x W^T + b; inside an FP8 region that takes the layer, by FP8 products."""
        region = MODES.get().fp8
        if region is not None and region.takes(self):
            return linear_fp8(input, self.weight, self.bias, **region.options(self))
        return functional.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the lengths."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )


class Bilinear(Module):
    """y_k = x1 W_k x2^T + b_k.  (..., in1_features), (..., in2_features) -> (..., out_features).

    `weight` is (out_features, in1_features, in2_features), `bias` (out_features,), both drawn uniform in
    +-1/sqrt(in1_features). See :func:`minimp.functional.bilinear`.

    Args:
        in1_features, in2_features, out_features: lengths of the last axes.
        bias: whether there is a b.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: a length that is no whole number of at least 1.
        FormatError, DeviceError: a format or backend that cannot be used.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True, *,
        dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.in1_features = whole("in1_features", in1_features, "Bilinear")
        self.in2_features = whole("in2_features", in2_features, "Bilinear")
        self.out_features = whole("out_features", out_features, "Bilinear")
        self.weight = empty((out_features, in1_features, in2_features), dtype, backend)
        self.register_parameter("bias", optional(bias, (out_features,), dtype, backend))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        bound = 1 / math.sqrt(self.in1_features)
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    def forward(self, input1: Any, input2: Any) -> Tensor:
        """Return x1 W x2^T + b."""
        return functional.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the lengths."""
        lengths = (f"{name}={getattr(self, name)}" for name in ("in1_features", "in2_features"))
        return f"{', '.join(lengths)}, out_features={self.out_features}, bias={self.bias is not None}"


class Identity(Module):
    """Return the input. Takes and forgets any arguments, so that it can stand in for another layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - forgetting them is its purpose
        super().__init__()

    def forward(self, input: Any) -> Any:
        """Return the input."""
        return input
