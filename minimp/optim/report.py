"""What a step did to the weights: how many updates arrived, and how many were swallowed."""

from __future__ import annotations

from dataclasses import dataclass

from minimp.tape import Value

__all__ = ["ParameterUpdate", "UpdateReport"]


@dataclass(frozen=True, slots=True, eq=False)
class ParameterUpdate:
    """The updates of one parameter in one step.

    Attributes:
        param: the parameter.
        size: the number of its elements.
        nonzero: elements whose update, computed in FP32, was not zero.
        swallowed: elements of those that hold the same value as before: w + delta == w. What is looked at
            is the weight that adds updates up: the FP32 master if there is one, else the parameter itself,
            with its compensation (update="kahan"; swallowed is what neither of the two took). Under
            stochastic rounding an update that changed nothing this time is right on average all the same.
    """

    param: Value
    size: int
    nonzero: int
    swallowed: int


@dataclass(frozen=True, slots=True, eq=False)
class UpdateReport:
    """The updates of all parameters that had a gradient, in the optimizer's order."""

    rows: tuple[ParameterUpdate, ...]

    @property
    def size(self) -> int:
        """The number of elements."""
        return sum(row.size for row in self.rows)

    @property
    def nonzero(self) -> int:
        """The number of elements whose update was not zero."""
        return sum(row.nonzero for row in self.rows)

    @property
    def swallowed(self) -> int:
        """The number of elements that a non-zero update left as they were."""
        return sum(row.swallowed for row in self.rows)

    @property
    def swallowed_share(self) -> float:
        """Swallowed of non-zero updates, from 0 to 1; 0 if there was none."""
        return self.swallowed / self.nonzero if self.nonzero else 0.0
