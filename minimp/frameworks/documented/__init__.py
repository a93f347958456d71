"""The differences between minimp and the frameworks that are known, each with its reason.

A row of a comparison that differs is looked up here. What is not listed is a disagreement, and `minimp check`
ends with exit code 1.
"""

from __future__ import annotations

from minimp.frameworks.documented.difference import Difference
from minimp.frameworks.documented.integers import INTEGER_DIFFERENCES
from minimp.frameworks.documented.ops import OP_DIFFERENCES
from minimp.frameworks.documented.scalers import SCALER_DIFFERENCES
from minimp.frameworks.documented.values import VALUE_DIFFERENCES

__all__ = ["DIFFERENCES", "Difference", "known_difference"]

DIFFERENCES: tuple[Difference, ...] = (
    *OP_DIFFERENCES, *VALUE_DIFFERENCES, *SCALER_DIFFERENCES, *INTEGER_DIFFERENCES,
)  # fmt: skip
"""Every known difference."""


def known_difference(framework: str, section: str, subject: str, case: str) -> Difference | None:
    """Return the first known difference that covers a row, or None."""
    return next((d for d in DIFFERENCES if d.covers(framework, section, subject, case)), None)
