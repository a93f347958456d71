"""What all observers share: what they look at, what they refuse, and how good their choice is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from minimp.errors import CheckpointError, DataError, SettingError, ShapeError
from minimp.quant.affine import Affine, choose, floats_of
from minimp.quant.observers.counts import Counts
from minimp.quant.observers.picture import picture_of

__all__ = ["Observer", "noise"]

Floats = npt.NDArray[np.float32]
BINS = 8192
"""Bins of the histogram of a tensor: half of them lie on each side of 0."""
CHANNEL_BINS = 512
"""And of each channel's, of which there may be thousands."""
SETTINGS = ("quant_min", "quant_max", "symmetric", "reduce_range", "rule", "ch_axis")


class Observer(ABC):
    """Watches values go by, and chooses the range that their codes cover.

    Args:
        quant_min, quant_max: the first and the last code; torch's default, quint8.
        symmetric: whether the zero point is to be the middle code.
        reduce_range: halve the codes, see :func:`minimp.quant.choose`.
        rule: a name in `RULES`.

    Raises:
        SettingError: what :func:`minimp.quant.choose` refuses.
    """

    keeps_infinities: ClassVar[bool] = False
    """Whether an infinity counts for the range; if not, it is left out and counted."""
    ch_axis: int | None = None
    counting: bool = True
    """Whether a histogram is kept of all that is seen, for errors and pictures."""

    def __init__(
        self, *, quant_min: int = 0, quant_max: int = 255, symmetric: bool = False, reduce_range: bool =
        False,
        rule: str = "torch",
    ) -> None:  # fmt: skip
        self.quant_min, self.quant_max, self.symmetric = quant_min, quant_max, symmetric
        self.reduce_range, self.rule = reduce_range, rule
        self._choose(np.float32(-1), np.float32(1), None)
        self.batches = 0
        self.infinities = 0
        self.counts: Counts | None = None

    def observe(self, x: Any) -> None:
        """Take in a tensor or an array of floating-point numbers, (...).

        Raises:
            DataError: it is empty, or holds NaN, or infinities where they would make the range infinite.
            FormatError: it is not made of floating-point numbers.
            ShapeError: it has other channels than what was observed before.
        """
        op = type(self).__name__
        rows = self._rows(floats_of(x, op))
        finite = np.isfinite(rows)
        if not finite.all():
            self._refuse(rows, np.shape(x), op)
            self.infinities += int(finite.size - finite.sum())
            rows = rows[finite][None]
        if rows.size:
            self._take(rows)
            if self.counting:
                self._count(rows)
            self.batches += 1

    def merge(self, other: Observer) -> None:
        """Take in all that another observer of the same settings has seen.

        Raises:
            SettingError: it is of another class, or set otherwise; or one of them keeps no histogram.
            ShapeError: it has seen other channels.
        """
        if self._settings() != other._settings():
            raise SettingError(
                f"only like observers can be merged: {self._settings()} and {other._settings()}",
                op=f"{type(self).__name__}.merge",
            )
        if not (self.counting and other.counting):
            raise SettingError(
                "observers without histograms are not merged", op=f"{type(self).__name__}.merge",
                help="give counting=True",
            )  # fmt: skip
        if other.counts is None:
            self.infinities += other.infinities
            return
        if self.counts is None:
            self.load_state_dict({**other.state_dict(), "infinities": self.infinities + other.infinities})
            return
        if self.counts.exponents.shape != other.counts.exponents.shape:
            raise ShapeError(
                f"{len(self.counts.zeros)} channels and {len(other.counts.zeros)} cannot be merged",
                op=f"{type(self).__name__}.merge",
            )
        self._join(other)
        self.counts = self.counts + other.counts
        self.infinities += other.infinities
        self.batches += other.batches

    def range(self) -> tuple[Floats, Floats]:
        """Return the least and the largest number that codes are to reach, () or (C,).

        Raises:
            DataError: nothing was observed.
        """
        self._check_seen()
        return self._range()

    def affine(self) -> Affine:
        """Return the scale and zero point for that range.

        Raises:
            DataError: nothing was observed (torch warns, and gives scale 1 and zero point 0).
        """
        low, high = self.range()
        return self._choose(low, high, self.ch_axis)

    def error(self, affine: Affine | None = None) -> float:
        """Return what quantising leaves of the values seen, in dB: 10 log10(sum x^2 / sum (x - Q(x))^2).

        Within a bin of the histogram values are taken as spread evenly; zeros cost nothing. Values that vary
        smoothly are met to within 0.2 dB. Infinite where nothing is lost.

        Args:
            affine: other affine numbers than those that were chosen.

        Raises:
            DataError: nothing was observed.
        """
        counts, chosen = self.seen(), self.affine() if affine is None else affine
        lost, signal = float(noise(counts, chosen).sum()), float(counts.signal.sum())
        return 10 * math.log10(signal / lost) if lost and signal else math.inf

    def clipped(self) -> tuple[int, int]:
        """Return how many values lie below and above what codes reach by more than half a step, to a bin.

        Raises:
            DataError: nothing was observed.
        """
        counts, affine = self.seen(), self.affine()
        edges, half = counts.edges(), affine.scale.reshape(-1, 1).astype(np.float64) / 2
        below = edges[:, 1:] <= affine.low.reshape(-1, 1) - half
        above = edges[:, :-1] >= affine.high.reshape(-1, 1) + half
        return int(counts.counts[below].sum()), int(counts.counts[above].sum())

    def picture(self, width: int = 100) -> str:
        """Return a picture in text (:func:`minimp.quant.observers.picture.picture_of`).

        Raises:
            SettingError: `width` is below 60 columns.
            DataError: nothing was observed.
        """
        return picture_of(self, width)

    def state_dict(self) -> dict[str, Any]:
        """Return settings, ranges and histograms: numbers, strings and arrays by name."""
        state = {**self._settings(), "batches": self.batches, "infinities": self.infinities}
        if self.counts is not None:
            state |= {f"counts.{name}": array for name, array in self.counts.state().items()}
        return state | self._state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, or nothing of it.

        Raises:
            CheckpointError: it is of another class of observers or other settings, or not whole.
        """
        op = f"{type(self).__name__}.load_state_dict"
        wanted = self._settings()
        given = {name: state[name] for name in wanted if name in state}
        if given != wanted:
            raise CheckpointError(f"expected the state of {wanted}, got {given}", op=op)
        try:
            held = {k.removeprefix("counts."): v for k, v in state.items() if k.startswith("counts.")}
            counts = Counts(*held["counts"].shape) if held else None
            if counts is not None:
                counts.load(held)
            batches, infinities = int(state["batches"]), int(state["infinities"])
            self._load(state)
        except (KeyError, TypeError, ValueError) as fault:
            raise CheckpointError(f"the state is not whole: {fault!r}", op=op) from fault
        self.counts, self.batches, self.infinities = counts, batches, infinities

    # ---- what a kind of observer says ---------------------------------------------------------------------

    @abstractmethod
    def _take(self, rows: Floats) -> None:
        """Take in (1, M) or (C, M) finite values, which are counted then; or raise and change nothing."""

    @abstractmethod
    def _range(self) -> tuple[Floats, Floats]:
        """Return the range of what was taken in."""

    @abstractmethod
    def _join(self, other: Any) -> None:
        """Take in what another of the same class and settings has taken in; the counts still stand apart."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return what there is beyond the counts."""

    @abstractmethod
    def _load(self, state: Mapping[str, Any]) -> None:
        """Take over what `_state` returned, or raise KeyError and change nothing."""

    def _settings(self) -> dict[str, Any]:
        return {"observer": type(self).__name__} | {name: getattr(self, name) for name in SETTINGS}

    # ---- the rest ---------------------------------------------------------------------------------------

    def _choose(self, low: Any, high: Any, axis: int | None) -> Affine:
        return choose(
            low, high, rule=self.rule, quant_min=self.quant_min, quant_max=self.quant_max,
            symmetric=self.symmetric, axis=axis, reduce_range=self.reduce_range,
        )  # fmt: skip

    def seen(self) -> Counts:
        """Return the histogram of what was seen.

        Raises:
            DataError: nothing was observed, or no histogram is kept.
        """
        self._check_seen()
        if self.counts is None:
            raise DataError(
                "no histogram is kept (counting=False)", op=type(self).__name__,
                help="give counting=True to see errors and pictures",
            )  # fmt: skip
        return self.counts

    def _check_seen(self) -> None:
        """Refuse to tell of nothing."""
        if not self.batches:
            rest = f", but {self.infinities} infinities" if self.infinities else ""
            raise DataError(
                f"nothing was observed{rest}", op=type(self).__name__,
                help="call observe(x) on some batches first",
            )  # fmt: skip

    def _rows(self, x: Floats) -> Floats:
        """(...) -> (1, M), or (C, M) for channels."""
        if x.size == 0:
            raise DataError(f"an empty array of shape {x.shape}", op=type(self).__name__, shapes=[x.shape])
        if self.ch_axis is None:
            return x.reshape(1, -1)
        if not -x.ndim <= self.ch_axis < x.ndim:
            raise ShapeError(
                f"there is no axis {self.ch_axis} in an array of shape {x.shape}", op=type(self).__name__,
                shapes=[x.shape],
            )  # fmt: skip
        rows = np.moveaxis(x, self.ch_axis, 0).reshape(x.shape[self.ch_axis], -1)
        if self.counts is not None and len(rows) != len(self.counts.zeros):
            raise ShapeError(
                f"expected {len(self.counts.zeros)} channels, as before, got {len(rows)}",
                op=type(self).__name__, shapes=[x.shape],
            )  # fmt: skip
        return rows

    def _refuse(self, rows: Floats, shape: tuple[int, ...], op: str) -> None:
        """Raise on NaN, and on infinities that would count."""
        wrong = ~np.isfinite(rows) if self.keeps_infinities else np.isnan(rows)
        if not wrong.any():
            return
        if self.ch_axis is not None:
            moved = (shape[self.ch_axis], *(n for i, n in enumerate(shape) if i != self.ch_axis % len(shape)))
            wrong = np.moveaxis(wrong.reshape(moved), 0, self.ch_axis)
        at = np.unravel_index(int(np.argmax(wrong)), shape)
        kind = "NaN" if np.isnan(rows).any() else "infinity"
        raise DataError(
            f"{int(wrong.sum())} of {wrong.size} values are {kind}, the first at {tuple(map(int, at))}",
            op=op, shapes=[shape],
            help="look for the layer that overflows, or for rows of the data that hold it"
            + ("" if kind == "NaN" else "; HistogramObserver leaves infinities out"),
        )  # fmt: skip

    def _count(self, rows: Floats) -> None:
        counts = self.counts
        if counts is None:
            counts = Counts(len(rows), BINS if self.ch_axis is None else CHANNEL_BINS)
        counts.add(rows)
        self.counts = counts


def noise(counts: Counts, affine: Affine) -> npt.NDArray[np.float64]:
    """Return the sum of (x - Q(x))^2 over all values counted, (C,), values even within a bin.

    With u = x / s in steps from the zero point, n(u) the nearest code, clamped, the integral of (u - n)^2
    from -1/2 of the first code on is G(u) = n/12 + (u - n)^3/3 and a constant; a bin [a, b) of c values
    costs c s^2 (G(b) - G(a)) / (b - a).
    """
    scale = affine.scale.reshape(-1, 1).astype(np.float64)
    zero = affine.zero_point.reshape(-1, 1)
    edges = counts.edges() / scale
    nearest = np.clip(np.floor(edges + 0.5), affine.quant_min - zero, affine.quant_max - zero)
    primitive = nearest / 12 + (edges - nearest) ** 3 / 3
    with np.errstate(divide="ignore", invalid="ignore"):  # bins of nothing but zeros may have no width
        costs = np.diff(primitive, axis=1) / np.diff(edges, axis=1) * scale**2
    return np.asarray(np.where(counts.counts > 0, counts.counts * costs, 0.0).sum(axis=1), np.float64)
