"""What layer-wise scaling did in the last step: one row for each layer, and a table of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["LayerRow", "LayerwiseReport"]

NAME_WIDTH = 26


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One use of a layer in the last backward. Shares are fractions of 1.

    Attributes:
        name: the layer.
        op: the op whose gradient it is.
        factor: s: what the gradient that flows into it was multiplied by.
        total: S: the product of the factors from the loss down to here, this one included.
        expected_before: the share of its first result that would lie below the smallest number of its format
            if the whole gradient were not scaled at all (S = 1), by the model of
            :mod:`minimp.scaler.layerwise.factors`.
        expected_after: the share that lies below it with S, by the same model.
        measured_before: the share of what is not zero in float32 that would become zero with S = 1, given the
            gradient that flowed in; None where it was not measured.
        measured_after: the share that did become zero, likewise.
        ceiling: the largest factor that the layer may take for now.
        fixed: whether the factor was given.
    """

    name: str
    op: str
    factor: float
    total: float
    expected_before: float
    expected_after: float
    measured_before: float | None = None
    measured_after: float | None = None
    ceiling: float = math.inf
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class LayerwiseReport:
    """The layers of the last backward, from the loss down; printed, a table of at most 100 columns.

    Attributes:
        rows: one for each use of a layer.
        overflowed: the layers after which a gradient of the last finished step was infinite or NaN.
        skips: steps in a row that were skipped.
    """

    rows: tuple[LayerRow, ...]
    overflowed: tuple[str, ...] = ()
    skips: int = 0

    def __str__(self) -> str:
        """Return the table."""
        head = f"{'':{NAME_WIDTH}} {'':16} {'':6} {'':6} {'below the smallest':>19} {'became zero':>19}"
        names = (
            f"{'layer':{NAME_WIDTH}} {'op':16} {'s':>6} {'S':>6} {'number, expected':>19} {'measured':>19}"
        )
        lines = [head, names, *map(_line, self.rows)]
        lines.append(
            "s: factor of the layer; S: product of s from the loss to here, divided out of its gradients."
        )
        lines.append("Shares: with S = 1 -> with S as it is. * the factor was given.")
        given = {row.name for row in self.rows if row.fixed}
        for what, names_of in (
            ("and halved", [name for name in self.overflowed if name not in given]),
            ("though its factor was given, and stays", [name for name in self.overflowed if name in given]),
        ):
            if names_of:
                lines.append(f"overflowed, {what}: {', '.join(names_of)}; skipped in a row: {self.skips}")
        return "\n".join(line.rstrip() for line in lines)


def _line(row: LayerRow) -> str:
    name = row.name if len(row.name) <= NAME_WIDTH else "..." + row.name[3 - NAME_WIDTH :]
    factor = _power(row.factor) + ("*" if row.fixed else "")
    expected = f"{_share(row.expected_before)} -> {_share(row.expected_after)}"
    measured = f"{_share(row.measured_before)} -> {_share(row.measured_after)}"
    scales = f"{factor:>6} {_power(row.total):>6}"
    return f"{name:{NAME_WIDTH}} {row.op[:16]:16} {scales} {expected:>19} {measured:>19}"


def _power(scale: float) -> str:
    return f"2^{math.frexp(scale)[1] - 1}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
