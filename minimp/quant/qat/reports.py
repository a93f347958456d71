"""What was prepared for training: which module is rounded where, in text of at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minimp.quant.fusion.reports import fit, shown_path

__all__ = ["FLOATS", "PreparedRow", "QATReport"]

FLOATS = "floats"
"""What stands for codes where an output stays as it is."""


@dataclass(frozen=True)
class PreparedRow:
    """One place at which activations are rounded.

    Attributes:
        paths: the modules that stand together there, in the order of running; "input 0" for what comes in.
        kind: the class of what stands there now; "" for an input.
        weight: the codes of the weight, such as "int8, 16 scales"; "" where there is none, or it stays in
            floats.
        output: the codes of the output, such as "uint8", or whose they are: "as 'conv1'"; "floats" where it
            is not rounded.
    """

    paths: tuple[str, ...]
    kind: str
    weight: str
    output: str


@dataclass(frozen=True)
class QATReport:
    """What was prepared; iterable over :class:`PreparedRow`, in the order of running.

    Attributes:
        rows: the places.
    """

    rows: tuple[PreparedRow, ...]

    def __iter__(self) -> Iterator[PreparedRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """Show a table within 100 columns."""
        weights = sum(1 for each in self.rows if each.weight)
        again = sum(1 for each in self.rows if each.output.startswith("as "))
        outputs = sum(1 for each in self.rows if each.output != FLOATS) - again
        lines = [
            f"fake quantisation of {weights} weights and {outputs} activations"
            + (f"; {again} rounded again by the scale of another" if again else ""),
            "",
            f"{'what is rounded':42} {'stands there':16} {'weight':18} {'output':21}".rstrip(),
        ]
        for row in self.rows:
            where = fit(shown_path(row.paths) or "the model", 42)
            weight, output = row.weight or "-", fit(row.output, 21)
            lines.append(f"{where:42} {row.kind or '-':16} {weight:18} {output:21}".rstrip())
        return "\n".join(lines)
