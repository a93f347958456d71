"""Roundings behind modules without weights: sums, joined tensors, tables, and means of codes."""

from __future__ import annotations

from typing import Any

from minimp.nn.module import Module
from minimp.quant.qat.fake_quantize import FakeQuantize
from minimp.quant.qat.layers import Twin
from minimp.tensors import Tensor

__all__ = ["RoundedAgain", "RoundedOutput"]


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
    """A mean of codes, which is rounded to the codes that came in: same scale, same zero point.

    What it rounds by is the FakeQuantize that the input comes from, and stands in the model there; here its
    range does not move.

    Args:
        module: the float module, an average pool.
        source: that FakeQuantize.
    """

    def __init__(self, module: Module, source: FakeQuantize) -> None:
        super().__init__()
        self.module = module
        self.source = (source,)  # in a tuple: no child of this module, but copied with the model

    def forward(self, *inputs: Any) -> Tensor:
        """Return the means as their codes are read back."""
        y: Tensor = self.module(*inputs)
        (source,) = self.source
        return source.rounded(y) if source.rounding else y

    def to_float(self) -> Module:
        """Return the module."""
        return self.module

    def extra_repr(self) -> str:
        """Name the source."""
        return f"rounded as {self.source[0].where}"
