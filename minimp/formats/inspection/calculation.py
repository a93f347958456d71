"""What ``minimp.formats.evaluate`` returns: a calculation and its steps, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from minimp.formats.inspection.anatomy import Inspection
from minimp.formats.inspection.display import calculation_html
from minimp.formats.inspection.reasons import as_text, reason
from minimp.formats.inspection.wording import as_float
from minimp.formats.table import Format

__all__ = ["Calculation", "Step"]


@dataclass(frozen=True)
class Step:
    """One rounding of a calculation.

    Attributes:
        text: the piece of the expression that it comes from.
        operation: ``cast``, ``add``, ``sub``, ``mul``, ``div``, ``neg``, ``abs``, ``sqrt`` or ``fma``.
        operands: values in a format; none for the cast of a plain number.
        exact: the result before it is rounded: an exact fraction (an irrational root is cut to 300 bits), or
            inf or NaN.
        irrational: whether the result is an irrational root.
        result: the rounded result.
        flags: those of the result (see ``Inspection``), without ``subnormal``, and

            - ``absorbed``: an operand other than 0 of a sum had no effect on the rounded result;
            - ``cancellation``: two leading bits or more cancelled in a sum;
            - ``double_rounding``: a cast of what was rounded just before; rounding once gives something else;
            - ``division_by_zero``, ``invalid``: as IEEE 754-2019, 7.3 and 7.2.
        swallowed: the index of the operand that had no effect (in ``fma`` 2 is c, 0 the product); or None.
        cancelled: how many leading bits cancelled in a sum: floor(log2) of the larger addend less that of the
            exact result; all bits of the format's precision where that is 0.
        unrounded: of a cast the exact number before the last rounding, or row of roundings.
        single: under ``double_rounding`` what rounding ``unrounded`` once would have given.
        implicit: whether it is a plain number that takes the format of what it stands beside.
    """

    text: str
    operation: str
    operands: tuple[Inspection, ...]
    exact: Fraction | float
    irrational: bool
    result: Inspection
    flags: tuple[str, ...]
    swallowed: int | None = None
    cancelled: int = 0
    unrounded: Fraction | float | None = None
    single: Inspection | None = None
    implicit: bool = False

    @property
    def lost(self) -> Fraction | float:
        """What the rounding did: rounded - exact, an exact fraction; inf or NaN where that is none."""
        return self.result.error

    @property
    def lost_ulps(self) -> float:
        """``lost`` in ulps of the result; NaN where it has none."""
        return self.result.ulps

    @property
    def why(self) -> str:
        """One sentence on what was lost, and why."""
        return reason(self)


@dataclass(frozen=True)
class Calculation:
    """An expression, calculated step by step.

    Attributes:
        text: the expression.
        rounding, overflow: how every step was rounded.
        steps: the roundings, in the order in which they happened.
        exact: the value of the text if nothing at all were rounded (irrational roots to 300 bits); None where
            that is no number.
    """

    text: str
    rounding: str
    overflow: str
    steps: tuple[Step, ...]
    exact: Fraction | None

    @property
    def result(self) -> Inspection:
        """The result of the last step."""
        return self.steps[-1].result

    @property
    def format(self) -> Format:
        """The format of the result."""
        return self.result.format

    @property
    def value(self) -> float:
        """The value of the result."""
        return self.result.value

    @property
    def lost(self) -> Fraction | float:
        """What all roundings together did: value - exact; inf or NaN where that is no number."""
        if self.exact is None:
            return math.nan
        return Fraction(self.value) - self.exact if math.isfinite(self.value) else self.value

    @property
    def lost_ulps(self) -> float:
        """``lost`` in ulps of the result; NaN where it has none."""
        if not isinstance(self.lost, Fraction):
            return self.lost
        return as_float(self.lost / Fraction(self.result.ulp))

    def _repr_html_(self) -> str:
        return calculation_html(self)

    def __str__(self) -> str:
        """All steps for people, in at most 100 columns."""
        return as_text(self)
