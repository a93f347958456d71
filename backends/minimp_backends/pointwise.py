"""What is done to each number by itself and then rounded: activations, and the bias behind a product.

One method for each, so that a device may do all of it in one pass. What is given and what comes back are
storage arrays; here are the readable forms, one call of the array library after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minimp.formats import Format

__all__ = ["Pointwise"]

Array = Any


class Pointwise:
    """The readable forms, over the kernels of a backend."""

    xp: Any
    elementwise: Callable[..., Array]
    keep_where: Callable[[Array, Array], Array]
    narrow: Callable[[Array, Format | None], Array]
    conv2d: Callable[..., Array]
    conv2d_input: Callable[..., Array]
    wide: Callable[[Array], Array]

    def pointwise(
        self, name: str, formula: Callable[..., Array], format: Format | None, *arrays: Array,
        short: bool = False, **numbers: float,
    ) -> Array:  # fmt: skip
        """Return ``formula(self, *wide arrays)``, each element rounded once to `format`.

        Args:
            name: of the formula: a backend that has a kernel of that name runs it instead.
            formula: as :meth:`.RowKernels.elementwise` wants it.
            format: of the result.
            arrays: storage arrays of one shape.
            short: whether the formula is a step or two, which are not worth being worked through in parts.
            numbers: what the formula has built in and a kernel must be told.
        """
        del name, numbers
        wide = [self.wide(each) for each in arrays]
        return self.narrow(formula(self, *wide) if short else self.elementwise(formula, *wide), format)

    def tanh(self, x: Array, out: Array | None = None) -> Array:
        """Return tanh of a wide array, elementwise; in `out`, which may be `x`, where that is given."""
        return self.xp.tanh(x, out=out)

    def positive_part(self, array: Array) -> Array:
        """Return max(x, 0) of a storage array, NaN staying NaN; nothing is rounded."""
        return self.keep_where(array, ~(self.wide(array) <= 0))

    def positive_part_gradient(self, grad: Array, y: Array) -> Array:
        """Return the gradient where the positive part y is not 0, else +0; nothing is rounded."""
        return self.keep_where(grad, ~(self.wide(y) <= 0))

    def add_bias(self, sums: Array, bias: Array | None, format: Format | None, axis: int = -1) -> Array:
        """Return sums + bias along an axis, rounded once to `format`.

        Args:
            sums: a fresh wide array, whose memory may be taken over.
            bias: a storage array, one number for each place along `axis`; None: there is none.
            format: of the result.
            axis: counted from the end, -1 or less.
        """
        if bias is not None:
            wide = self.wide(bias)
            sums += wide if axis == -1 else wide.reshape(-1, *(1,) * (-1 - axis))
        return self.narrow(sums, format)

    def conv2d_with_bias(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], format: Format | None, *,
        accumulate: str,
    ) -> Array:  # fmt: skip
        """Return :meth:`conv2d`, the bias added to its sums, rounded once to `format`."""
        return self.narrow(self.conv2d(x, weight, bias, geometry, accumulate=accumulate), format)

    def conv2d_input_with_bias(
        self, grad: Array, weight: Array, shape: tuple[int, ...], bias: Array | None,
        geometry: dict[str, Any], format: Format | None, *, accumulate: str,
    ) -> Array:  # fmt: skip
        """Return :meth:`conv2d_input`, a bias added to its sums, rounded once to `format`."""
        sums = self.conv2d_input(grad, weight, shape, geometry, accumulate=accumulate)
        return self.add_bias(sums, bias, format, -3)
