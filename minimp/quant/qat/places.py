"""Roundings behind modules without weights: sums, joined tensors, tables, and means of codes."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.nn.making import lifted
from minimp.nn.module import Module
from minimp.policy import is_autocast_enabled
from minimp.quant.qat.fake_quantize import FakeQuantize
from minimp.quant.qat.layers import Twin
from minimp.tensors import Tensor

__all__ = ["RoundedAgain", "RoundedOutput"]

FAR = 1 << 20
"""Further than any code times what dropout makes of it."""


class RoundedOutput(Twin):
    """A module whose output is rounded to codes of a scale of its own: a sum, tensors joined, a mark.

    Args:
        module: the float module.
        output: the FakeQuantize behind it.
    """

    def __init__(self, module: Module, output: FakeQuantize) -> None:
        super().__init__()
        self.module, self.activation_post_process = module, output

    def forward(self, *inputs: Any) -> Tensor:
        """Return the output as its codes are read back."""
        made: Tensor = self.activation_post_process(self.module(*inputs))
        return made

    def to_float(self) -> Module:
        """Return the module."""
        return self.module


class RoundedAgain(Twin):
    """A mean of codes, which is rounded to the codes that came in: same scale s, same zero point z.

        y = s clamp(rint(mean(n))),    n = rint(x / s), the whole numbers q - z

    The mean is one of whole numbers, as in the integer model, because it often lies half way between two
    codes: a mean of multiples of s, each rounded to float32, would fall to either side.

    What it rounds by is the FakeQuantize that the input comes from, and stands in the model there; here its
    range does not move. (A dropout between the two makes numbers beyond that range; they are clamped.)

    Args:
        module: the float module, an average pool.
        source: that FakeQuantize.
    """

    def __init__(self, module: Module, source: FakeQuantize) -> None:
        super().__init__()
        self.module = module
        self.source = (source,)  # in a tuple: no child of this module, but copied with the model

    def forward(self, input: Any) -> Tensor:
        """Return the means as their codes are read back."""
        (source,) = self.source
        if not source.rounding:
            made: Tensor = self.module(input)
            return made
        numbers, x = source.affine(), lifted(input)
        s, z = float(numbers.scale), int(numbers.zero_point)
        wide = x.float() if is_autocast_enabled() else x
        n = whole(wide / s, -FAR, FAR)
        y: Tensor = whole(self.module(n), numbers.quant_min - z, numbers.quant_max - z) * s
        return y

    def to_float(self) -> Module:
        """Return the module."""
        return self.module

    def extra_repr(self) -> str:
        """Name the source."""
        return f"rounded as {self.source[0].where}"


def whole(x: Tensor, low: int, high: int) -> Tensor:
    """Return the nearest whole numbers from `low` to `high`, ties to even; the gradient passes."""
    return functional.fake_quantize_per_tensor_affine(x, 1.0, 0, low, high)
