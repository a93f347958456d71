"""What a device tells of an array instead of handing it over: counts, ends and the sum, in a small table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Tallies", "Tally"]

Array = Any
HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Tally:
    """The numbers of one array, counted.

    Attributes:
        zeros, nan, inf: elements that are 0, NaN, infinite.
        ends: the least and the largest finite element; None where none is finite.
        total: the sum of the finite elements in float64.
        binades: exponent e -> elements with 2^e <= |x| < 2^(e+1), where there are some; ascending.
        cuts: n -> {exponent -> how many elements lie at or above 2 - 2^-n in units of 2^exponent}; n = 0: at
            1 exactly. n is 0, 7, 8, 10 and 11: where rounding to float16 or bfloat16 turns. Empty where they
            were not asked for.
    """

    zeros: int
    nan: int
    inf: int
    ends: tuple[float, float] | None
    total: float
    binades: Mapping[int, int]
    cuts: Mapping[int, Mapping[int, int]] = field(default_factory=dict)

    @property
    def finite(self) -> int:
        """The number of finite elements."""
        return self.zeros + sum(self.binades.values())


class Tallies(ABC):
    """For arrays that the host can read as they are: there is nothing to spare."""

    rounds_in_sight = False
    """Whether somebody counts what `narrow` loses, so that kernels had better leave rounding to it."""

    def tallies(self) -> bool:
        """Tell whether :meth:`tally` spares copies, because the device counts."""
        return False

    def tally(
        self,
        arrays: Sequence[Array],
        *,
        with_cuts: bool = False,  # noqa: ARG002 - those of kernels
    ) -> list[Tally | HostArray]:
        """Return for each storage array what was counted, or the array itself on the host.

        The latter where that is no more to copy than the counts would be, and for what is not counted:
        integers, float64, codes of 8 bits.
        """
        return [self.to_host(array) for array in arrays]

    @abstractmethod
    def to_host(self, array: Array) -> HostArray:
        """Return a NumPy array with the values of a device array; not to be written to."""
