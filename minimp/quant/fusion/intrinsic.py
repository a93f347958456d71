"""Modules that stand for two: a layer or a batch norm, and the ReLU behind it.

The names are those of torch.ao.nn.intrinsic. Each computes what the two compute one after the other, with the
rounding of each. What reads a model as a row of layers, to give them integer arithmetic above all, finds the
pair in one place.
"""

from __future__ import annotations

from typing import ClassVar

from minimp.errors import SettingError
from minimp.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, Conv1d, Conv2d, Linear, ReLU, Sequential
from minimp.nn.module import Module

__all__ = ["BNReLU1d", "BNReLU2d", "BNReLU3d", "ConvReLU1d", "ConvReLU2d", "LinearReLU", "WithReLU"]


class WithReLU(Sequential):
    """y = max(f(x), 0), f the module "0" of class `first`, and the ReLU the module "1".

    Raises:
        SettingError: other modules than these two.
    """

    first: ClassVar[type[Module]]

    def __init__(self, *modules: Module) -> None:
        given = tuple(type(each) for each in modules)
        if given != (self.first, ReLU):
            names = ", ".join(each.__name__ for each in given) or "nothing"
            raise SettingError(
                f"expected a {self.first.__name__} and a ReLU, got {names}", op=type(self).__name__
            )
        super().__init__(*modules)


class ConvReLU1d(WithReLU):
    """A Conv1d and the ReLU behind it."""

    first = Conv1d


class ConvReLU2d(WithReLU):
    """A Conv2d and the ReLU behind it."""

    first = Conv2d


class LinearReLU(WithReLU):
    """A Linear and the ReLU behind it."""

    first = Linear


class BNReLU1d(WithReLU):
    """A BatchNorm1d and the ReLU behind it (torch has the two below only)."""

    first = BatchNorm1d


class BNReLU2d(WithReLU):
    """A BatchNorm2d and the ReLU behind it."""

    first = BatchNorm2d


class BNReLU3d(WithReLU):
    """A BatchNorm3d and the ReLU behind it."""

    first = BatchNorm3d
