"""What became of a model's layers when their weights were stored narrow, in text of at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.nn.module import Module

__all__ = ["LayerReport", "LayerRow", "bytes_of", "sqnr"]

WIDTH = 100
PATH, KIND, STORED = 34, 18, 20


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        path: where it stands; "" is the model itself.
        kind: the class that it had.
        stored: how its weights are stored now; "" where it was left as it is.
        bytes_before, bytes_after: of its parameters and buffers, a tied one counted in each of its layers.
        sqnr_db: how exactly its weights are read back: signal to quantisation noise, 10 log10(sum w^2 /
            sum (w - r)^2) in dB, over all of them; infinite if nothing was lost, NaN for a layer left.
        note: what else is to be known, or why the layer was left.
        largest: the largest size of its weights, max |w|; NaN for a layer left.
        scale: the largest of their scales.
    """

    path: str
    kind: str
    stored: str
    bytes_before: int
    bytes_after: int
    sqnr_db: float = float("nan")
    note: str = ""
    largest: float = float("nan")
    scale: float = float("nan")

    @property
    def converted(self) -> bool:
        """Whether its weights are codes now."""
        return bool(self.stored)


@dataclass(frozen=True)
class LayerReport:
    """Which layers were converted, which were left, and why; iterable over :class:`LayerRow`.

    Attributes:
        rows: the layers that have parameters, in the model's order.
        bytes_before, bytes_after: of all parameters and buffers of the model, tied ones counted once.
    """

    rows: tuple[LayerRow, ...]
    bytes_before: int
    bytes_after: int

    def __iter__(self) -> Iterator[LayerRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def converted(self) -> tuple[LayerRow, ...]:
        """The layers whose weights are codes now."""
        return tuple(row for row in self.rows if row.converted)

    @property
    def left(self) -> tuple[LayerRow, ...]:
        """The layers that are as they were, each with its reason."""
        return tuple(row for row in self.rows if not row.converted)

    @property
    def ratio(self) -> float:
        """bytes_after / bytes_before."""
        return self.bytes_after / self.bytes_before

    def __str__(self) -> str:
        """Show a table of the layers converted, and the reasons why the others were left."""
        size = f"{self.bytes_before:,} -> {self.bytes_after:,} bytes ({self.ratio:.2f} x)"
        lines = [
            f"{len(self.converted)} layers converted, {len(self.left)} left; parameters and buffers {size}",
            "",
            f"{'converted':{PATH}} {'class':{KIND}} {'weights':{STORED}} {'bytes':>15} {'SQNR dB':>9}",
        ]
        for row in self.converted:
            size = f"{_short(row.bytes_before)} -> {_short(row.bytes_after)}"
            where, kind = _fit(row.path or "the model", PATH), _fit(row.kind, KIND)
            lines.append(f"{where:{PATH}} {kind:{KIND}} {row.stored:{STORED}} {size:>15} {row.sqnr_db:9.1f}")
            lines += wrap(row.note, WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines += ["", "left as they are"] if self.left else []
        for row in self.left:
            head = f"{_fit(row.path or 'the model', PATH):{PATH}} {_fit(row.kind, KIND):{KIND}} "
            lines += wrap(row.note, WIDTH, initial_indent=head, subsequent_indent=" " * len(head))
        return "\n".join(lines)


def bytes_of(module: Module) -> int:
    """Return the bytes of all parameters and buffers below a module, tied ones counted once."""
    return sum(leaf.nbytes for leaf in [*module.parameters(), *module.buffers()])


def sqnr(pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> float:
    """Return 10 log10(sum w^2 / sum (w - r)^2) over pairs (w, r), in float64; infinite where all agree."""
    signal = sum(float(np.sum(np.square(w, dtype=np.float64))) for w, _ in pairs)
    noise = sum(float(np.sum(np.square(w.astype(np.float64) - r))) for w, r in pairs)
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def _short(count: int) -> str:
    """Return a number of bytes in at most five columns: 999, 12.3K, 4.56M."""
    for unit, size in (("", 1), ("K", 1e3), ("M", 1e6)):
        if count < 999.5 * size:
            return f"{count / size:.3g}{unit}"
    return f"{count / 1e9:.3g}G"


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else f"...{text[3 - width :]}"
