"""Layers that thin out in training: Srivastava et al. 2014, "Dropout", and what came of it."""

from __future__ import annotations

import math
from typing import Any

from minimp import functional, rng
from minimp.errors import ShapeError
from minimp.nn.activations import refuse_inplace
from minimp.nn.making import lifted, probability
from minimp.nn.module import Module
from minimp.tensors import Tensor

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d"]


class _Thinning(Module):
    """What all share: the probability of losing something.

    Args:
        p: the probability, from 0 to 1.
        inplace: must stay False.

    Raises:
        SettingError: p out of range, or in place.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        refuse_inplace(self._name(), inplace)
        self.p, self.inplace = probability(p, self._name()), False

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Thinning):
    """In training, zero each element with probability p and divide the rest by 1 - p.

    Args:
        p: the probability, from 0 to 1.
        inplace: must stay False.

    Raises:
        SettingError: p out of range, or in place.
    """

    def forward(self, input: Any) -> Tensor:
        """Return the thinned input; the input itself in evaluation."""
        return functional.dropout(input, self.p, self.training)


class _ChannelDropout(_Thinning):
    """What the three below share; `axes` is the number of axes behind the channels."""

    axes = 0

    def forward(self, input: Any) -> Tensor:
        """Return the input without some of its channels; the input itself in evaluation."""
        x = lifted(input)
        if x.ndim not in (self.axes + 1, self.axes + 2):
            behind = ", ".join(("L", "HW", "DHW")[self.axes - 1])
            raise ShapeError(
                f"expected (N, C, {behind}) or (C, {behind}), got {x.shape}",
                op=self._name(),
                shapes=[x.shape],
            )
        if not self.training or not self.p:
            return x
        ones = x.backend.xp.ones((*x.shape[: x.ndim - self.axes], *(1,) * self.axes), x.dtype)
        return x * functional.dropout(Tensor(ones, x.backend), self.p)


class Dropout1d(_ChannelDropout):
    """Zero whole channels of (N, C, L) or (C, L), each with probability p (Tompson et al. 2015).

    The rest is multiplied by 1 / (1 - p). Arguments and errors as :class:`Dropout`, and ShapeError on call
    for another number of axes.
    """

    axes = 1


class Dropout2d(_ChannelDropout):
    """Zero whole channels of (N, C, H, W) or (C, H, W), each with probability p (Tompson et al. 2015).

    The rest is multiplied by 1 / (1 - p). Arguments and errors as :class:`Dropout`, and ShapeError on call
    for another number of axes.
    """

    axes = 2


class Dropout3d(_ChannelDropout):
    """Zero whole channels of (N, C, D, H, W) or (C, D, H, W), each with probability p (Tompson et al. 2015).

    The rest is multiplied by 1 / (1 - p). Arguments and errors as :class:`Dropout`, and ShapeError on call
    for another number of axes.
    """

    axes = 3


class AlphaDropout(_Thinning):
    """Set each element to SELU's limit -1.7581 with probability p, then bring mean 0 and variance 1 back.

    y = a (x k - 1.7581 (1 - k)) + b, k drawn from {0, 1} (Klambauer et al. 2017, section 3).

    Args:
        p: the probability, from 0 to 1.
        inplace: must stay False.

    Raises:
        SettingError: p out of range, or in place.
    """

    limit = -1.7580993408473766

    def forward(self, input: Any) -> Tensor:
        """Return the thinned input; the input itself in evaluation."""
        x = lifted(input)
        if not self.training or not self.p:
            return x
        if self.p == 1:
            return x * 0.0
        a = 1 / math.sqrt((self.limit**2 * self.p + 1) * (1 - self.p))
        keep = x.backend.keep_mask(x.shape, self.p, rng.generator())
        factor, shift = keep * a, (~keep * self.limit - self.limit * self.p) * a
        times, plus = (Tensor(each.astype(x.dtype), x.backend) for each in (factor, shift))
        return x * times + plus
