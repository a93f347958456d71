"""What a run finds, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

__all__ = ["FormatTimes", "Row", "Weight"]


@dataclass(frozen=True)
class Row:
    """One contender's time.

    Attributes:
        family: a key of ``kernels.FAMILIES``, or ``matmul``.
        format: the format that is measured; of a product, the inputs' format.
        maker: whose kernel it is; of a product, the accumulation.
        seconds: the median of one call.
        elements: what a call works on: values, or multiply-adds.
        threads: how many threads it ran on.
    """

    family: str
    format: str
    maker: str
    seconds: float
    elements: int
    threads: int = 1

    @property
    def rate(self) -> float:
        """Elements a second."""
        return self.elements / self.seconds

    def as_dict(self) -> dict[str, object]:
        """Return what JSON has of it."""
        return asdict(self) | {"elements_per_second": self.rate}


@dataclass(frozen=True)
class Weight:
    """What one call of ours takes beside its result, at its highest.

    Attributes:
        family, format: as in ``Row``.
        bytes: number of values -> bytes.
    """

    family: str
    format: str
    bytes: Mapping[int, int]

    @property
    def growth(self) -> float:
        """Bytes for the most values over bytes for the fewest; less than a page (4 KiB) counts as one."""
        few, most = (max(self.bytes[count], _PAGE) for count in (min(self.bytes), max(self.bytes)))
        return most / few

    def as_dict(self) -> dict[str, object]:
        """Return what JSON has of it."""
        sizes = {str(count): extra for count, extra in self.bytes.items()}
        return {"family": self.family, "format": self.format, "bytes": sizes, "growth": self.growth}


_PAGE = 4096


@dataclass(frozen=True)
class FormatTimes:
    """All that a run found.

    Attributes:
        size: how many values the kernels worked on.
        rounds: the rounds that the medians are of.
        rows: processor time on one core.
        weights: extra memory; none where the values are too few for it to mean something.
        threaded: wall-clock time of our kernels, on one thread and on more; none where one was asked for.
    """

    size: int
    rounds: int
    rows: Sequence[Row]
    weights: Sequence[Weight] = field(default=())
    threaded: Sequence[Row] = field(default=())

    def row(self, family: str, format: str, maker: str) -> Row | None:
        """Return the row of that name, or None."""
        key = (family, format, maker)
        return next((row for row in self.rows if (row.family, row.format, row.maker) == key), None)

    def as_dict(self) -> dict[str, object]:
        """Return what JSON has of it."""
        return {
            "size": self.size,
            "rounds": self.rounds,
            "rows": [row.as_dict() for row in self.rows],
            "memory": [weight.as_dict() for weight in self.weights],
            "threads": [row.as_dict() for row in self.threaded],
        }
