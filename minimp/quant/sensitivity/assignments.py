"""What an assignment of formats has to keep, and what it came to, in text of at most 100 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from minimp.errors import SettingError
from minimp.quant.fusion.reports import fit
from minimp.quant.sensitivity.measuring import Measured
from minimp.quant.sensitivity.reports import number

__all__ = ["Assigned", "Assignment", "Budget"]

ROOM = 1e-9
"""Differences of two means of percents are exact to about 1e-13."""


@dataclass
class Budget:
    """One of three: a share of the float model's bytes, a loss of the metric, an SQNR in dB.

    Attributes:
        kind: ``"bytes_ratio"``, ``"loss"`` or ``"sqnr_db"``.
        limit: the number.
        float_bytes, float_metric: what the float model has.
    """

    kind: str
    limit: float
    float_bytes: int = 0
    float_metric: float = math.nan

    @classmethod
    def of(cls, bytes_ratio: float | None, loss: float | None, sqnr_db: float | None) -> Self:
        """Make a budget of the one that is given.

        Raises:
            SettingError: not exactly one, or a number that is none.
        """
        all_of = {"bytes_ratio": bytes_ratio, "loss": loss, "sqnr_db": sqnr_db}
        given = {name: value for name, value in all_of.items() if value is not None}
        if len(given) != 1:
            raise SettingError(
                f"expected one budget of {', '.join(all_of)}, got {', '.join(given) or 'none'}", op="assign",
                help="for example bytes_ratio=0.4, loss=0.5 or sqnr_db=30",
            )  # fmt: skip
        ((kind, limit),) = given.items()
        least = {"bytes_ratio": 0.0, "loss": 0.0, "sqnr_db": -math.inf}[kind]
        if not least <= limit < math.inf:
            raise SettingError(f"{kind} must be a number from {least:g} on, got {limit!r}", op="assign")
        return cls(kind, float(limit))

    def floor(self, float_bytes: int, float_metric: float) -> None:
        """Take note of what the float model has."""
        self.float_bytes, self.float_metric = float_bytes, float_metric

    @property
    def of_bytes(self) -> bool:
        """Whether it is bytes that are limited."""
        return self.kind == "bytes_ratio"

    @property
    def most_bytes(self) -> float:
        """How many bytes there may be."""
        return self.limit * self.float_bytes

    def kept(self, size: int, measured: Measured) -> bool:
        """Tell whether a model of `size` bytes that measures so keeps it."""
        if self.of_bytes:
            return size <= self.most_bytes
        if self.kind == "loss":
            return self.float_metric - measured.metric <= self.limit + ROOM
        return measured.sqnr_db >= self.limit

    def reached(self, size: int, measured: Measured) -> str:
        """Say what a model of `size` bytes that measures so reaches."""
        if self.of_bytes:
            return f"{size / self.float_bytes:.4f}"
        if self.kind == "loss":
            return f"{self.float_metric - measured.metric:.4g}"
        return f"{measured.sqnr_db:.2f} dB"

    def __str__(self) -> str:
        """Say what may be."""
        return f"{self.kind}={self.limit:g}"


@dataclass(frozen=True)
class Assigned:
    """One layer with weights.

    Attributes:
        path, kind: where it stands, and its class.
        format: what it got.
        nbytes: format -> the bytes that it has in each it may get, scales among them.
        alone_db: format -> SQNR of the model's output with this layer alone in it, the others being in
            the largest they may get.
    """

    path: str
    kind: str
    format: str
    nbytes: Mapping[str, int]
    alone_db: Mapping[str, float]


@dataclass(frozen=True)
class Assignment:
    """A format for each layer with weights; iterable over :class:`Assigned`.

    Attributes:
        rows: the layers, in the order of running.
        formats: path -> ``"int8"``, ``"float16"`` or ``"float32"``, also of modules without weights that
            were to stay in floats; what `keep_float` of :func:`~minimp.quant.static.convert` takes.
        budget: what was to be kept.
        nbytes: of parameters and buffers of the converted model.
        measured: what the converted model gives on the data.
        metric_name: what the figure of merit is called; "" without one.
    """

    rows: tuple[Assigned, ...]
    formats: Mapping[str, str]
    budget: Budget
    nbytes: int
    measured: Measured
    metric_name: str

    def __iter__(self) -> Iterator[Assigned]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ratio(self) -> float:
        """The bytes over the float model's."""
        return self.nbytes / self.budget.float_bytes

    def __str__(self) -> str:
        """Show a row for each layer: what it got, what each format costs and what it saves."""
        size = f"{self.nbytes:,} of {self.budget.float_bytes:,} bytes ({self.ratio:.3f})"
        result = f"SQNR {number(self.measured.sqnr_db)} dB"
        if self.metric_name:
            before = number(self.budget.float_metric)
            result += f", {self.metric_name} {number(self.measured.metric)} (float: {before})"
        lines = [
            f"{self.budget}: {size}, {result}",
            "dB: of the model's output with this layer alone in a format, the larger the better",
            "",
            f"{'':40} {'':8} {'bytes in':^29} {'dB alone in':^17}",
            f"{'layer':40} {'gets':8} {'float32':>9} {'float16':>9} {'int8':>9} {'float16':>8} {'int8':>8}",
        ]
        for row in self.rows:
            sizes = " ".join(f"{_count(row.nbytes.get(each)):>9}" for each in ("float32", "float16", "int8"))
            noise = " ".join(f"{number(row.alone_db.get(each)):>8}" for each in ("float16", "int8"))
            lines.append(f"{fit(row.path or 'the model', 40):40} {row.format:8} {sizes} {noise}")
        return "\n".join(lines)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}" if value < 10**7 else f"{value:.3g}"
