"""Layers that normalise over the last axes; the maths is in :mod:`minimp.ops.normalization`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minimp import formats, functional
from minimp.errors import SettingError
from minimp.nn import init
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor, tensor

__all__ = ["LayerNorm", "RMSNorm"]


class _Normalised(Module):
    """What both share: the axes they normalise over, and a factor for each element of these."""

    weight: Parameter | None
    eps: float | None

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None, elementwise_affine: bool,
        dtype: Any, backend: str | None,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        if not shape or any(type(n) is not int or n < 1 for n in shape):
            raise SettingError(
                f"expected normalized_shape to be whole numbers of at least 1, got {normalized_shape!r}",
                op=self._name(),
            )
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self._add("weight", elementwise_affine, dtype, backend)

    def _add(self, name: str, there: bool, dtype: Any, backend: str | None) -> None:
        """Register a parameter of `normalized_shape`, or None in its place."""
        form = formats.float32 if dtype is None else formats.get(dtype)
        zeros = np.zeros(self.normalized_shape)
        made = Parameter(tensor(zeros, dtype=form, backend=backend)) if there else None
        self.register_parameter(name, made)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LayerNorm(_Normalised):
    """y = (x - mean) / sqrt(var + eps) w + b over the last axes (Ba, Kiros and Hinton 2016).

    `weight`, of ones, and `bias`, of zeros, are of `normalized_shape`. Statistics are in float32, their sums
    as :class:`minimp.accumulate` says.

    Args:
        normalized_shape: what the shape of the input ends in; one number for the last axis alone.
        eps: added to the variance.
        elementwise_affine: whether there are w and b.
        bias: whether there is a b, if there is a w.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: lengths that are no whole numbers of at least 1.
        FormatError, DeviceError: a format or backend that cannot be used.
    """

    bias: Parameter | None
    eps: float

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, eps, elementwise_affine, dtype, backend)
        self._add("bias", elementwise_affine and bias, dtype, backend)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set w to 1 and b to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Any) -> Tensor:
        """Return the normalised input."""
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Show the settings."""
        return f"{super().extra_repr()}, bias={self.bias is not None}"


class RMSNorm(_Normalised):
    """y = x / sqrt(mean x^2 + eps) w over the last axes (Zhang and Sennrich 2019).

    `weight`, of ones, is of `normalized_shape`. Arguments and errors as :class:`LayerNorm`; eps None is
    2^-23 (2^-52 for float64 inputs), as in torch 2.13.
    """

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None,
        elementwise_affine: bool = True, *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, eps, elementwise_affine, dtype, backend)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set w to 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Any) -> Tensor:
        """Return the normalised input."""
        return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps)
