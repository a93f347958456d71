"""Codes that change places, and borders around them: nothing is computed but where a code goes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minimp import functional
from minimp.backend import default_backend
from minimp.errors import SettingError, ShapeError
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.modules.base import QuantizedModule, buffer_of, whole
from minimp.quant.modules.tables import QuantizedTable, codes_of
from minimp.quant.qtensor import QTensor

__all__ = ["QuantizedConstantPad", "QuantizedFlatten", "QuantizedMove", "QuantizedZeroPad"]


class QuantizedFlatten(QuantizedModule):
    """Join the axes from `start_dim` to `end_dim`: (N, C, H, W) -> (N, C H W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> QTensor:
        """Return the same codes with these axes joined."""
        x = self.taken(input)
        shape = x.shape or (1,)
        ndim = len(shape)
        first, last = (each + ndim if each < 0 else each for each in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < ndim:
            raise ShapeError(
                f"{self.label} cannot join axes {self.start_dim} to {self.end_dim} of {x.shape}",
                op="QuantizedFlatten", shapes=[x.shape],
            )  # fmt: skip
        joined = math.prod(shape[first : last + 1])
        shape = (*shape[:first], joined, *shape[last + 1 :])
        return QTensor(x.codes.reshape(shape), whole(self, x))


class QuantizedMove(QuantizedModule):
    """A float module that only moves, repeats or leaves out elements, run on the codes themselves.

    Scale and zero point stay as they are.

    Args:
        inner: such as an Unflatten, a PixelShuffle, an Upsample to the nearest element, a ReflectionPad2d.

    Raises:
        MinimpError: when called, as `inner`.
    """

    def __init__(self, inner: Module) -> None:
        super().__init__()
        self.inner = inner.eval()

    def forward(self, input: Any) -> QTensor:
        """Return the codes, moved."""
        x = self.taken(input)
        made = self.inner(buffer_of(x.codes))
        return QTensor(np.asarray(made.backend.to_host(made.array)), whole(self, x))


class QuantizedZeroPad(QuantizedModule):
    """A border of zeros: of the zero point's code. Scale and zero point stay as they are.

    Args:
        padding: before and after, the last axis first (torch.nn.functional.pad); a negative length cuts off.
    """

    def __init__(self, padding: tuple[int, ...]) -> None:
        super().__init__()
        self.padding = tuple(padding)

    def forward(self, input: Any) -> QTensor:
        """Return the codes with their border."""
        x = self.taken(input)
        return _bordered(x.codes, self.padding, int(whole(self, x).zero_point), x.affine)

    def extra_repr(self) -> str:
        """Show the lengths."""
        return f"{self.padding}"


class QuantizedConstantPad(QuantizedModule):
    """A border of one value, in codes of a scale that holds it.

    What comes in is read by a table (:class:`QuantizedTable`), as the value may lie outside of its range;
    where the numbers of input and output are alike, its codes stay.

    Args:
        input, output: the affine numbers of what comes in and goes out, one scale each.
        padding: as of :class:`QuantizedZeroPad`.
        value: of the border; rounded to a code, as all numbers.

    Raises:
        SettingError: channels, or a value of NaN; when called, codes of other numbers than those of `input`.
    """

    def __init__(self, input: Affine, output: Affine, padding: tuple[int, ...], value: float) -> None:
        super().__init__()
        if math.isnan(value):
            raise SettingError("NaN has no code", op="QuantizedConstantPad", help="give a number as value")
        self.rescale = QuantizedTable.of(np.copy, input, output, "x")
        self.register_buffer("border", buffer_of(codes_of(np.asarray(value, np.float64), output)))
        self.padding, self.value = tuple(padding), value

    def forward(self, input: Any) -> QTensor:
        """Return the codes with their border."""
        inside: QTensor = self.rescale(input)
        code = int(self.border.backend.to_host(self.border.array))
        return _bordered(inside.codes, self.padding, code, inside.affine)

    def extra_repr(self) -> str:
        """Show the lengths and the value."""
        return f"padding={self.padding}, value={self.value}"


def _bordered(codes: Any, padding: tuple[int, ...], code: int, affine: Affine) -> QTensor:
    """Return codes in a border of one code."""
    made = functional.pad(buffer_of(codes), padding, "constant", code)
    return QTensor(np.asarray(default_backend().to_host(made.array)), affine)
