"""The least and the largest value seen: of all, as a moving average, of a tensor or of each channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.quant.observers.base import Observer

__all__ = [
    "MinMaxObserver", "MovingAverageMinMaxObserver", "MovingAveragePerChannelMinMaxObserver",
    "PerChannelMinMaxObserver",
]  # fmt: skip

Floats = npt.NDArray[np.float32]


class MinMaxObserver(Observer):
    """From the least value to the largest (torch.ao.quantization.MinMaxObserver, torch 2.13.0).

    Merged observers are one observer of all values, exactly. An infinity is refused: the range would be
    infinite (in torch it is).

    Args:
        counting: whether a histogram is kept, for errors and pictures; ranges alone are several times faster.
        settings: those of :class:`Observer`.

    Attributes:
        min_val, max_val: the range, float32, () or (C,).
    """

    keeps_infinities = True

    def __init__(self, *, counting: bool = True, **settings: Any) -> None:
        super().__init__(**settings)
        self.counting = counting
        self.min_val: Floats = np.float32(np.inf) * np.ones((), np.float32)
        self.max_val: Floats = -self.min_val

    def _take(self, rows: Floats) -> None:
        low, high = self._ends(rows)
        self.min_val, self.max_val = np.minimum(self.min_val, low), np.maximum(self.max_val, high)

    def _ends(self, rows: Floats) -> tuple[Floats, Floats]:
        """The ends of a batch, () or (C,)."""
        shape = () if self.ch_axis is None else (len(rows),)
        return rows.min(axis=1).reshape(shape), rows.max(axis=1).reshape(shape)

    def _range(self) -> tuple[Floats, Floats]:
        return self.min_val, self.max_val

    def _join(self, other: Self) -> None:
        self.min_val = np.minimum(self.min_val, other.min_val)
        self.max_val = np.maximum(self.max_val, other.max_val)

    def _state(self) -> dict[str, Any]:
        return {"min_val": self.min_val, "max_val": self.max_val}

    def _load(self, state: Mapping[str, Any]) -> None:
        self.min_val, self.max_val = (np.asarray(state[name], np.float32) for name in ("min_val", "max_val"))


class MovingAverageMinMaxObserver(MinMaxObserver):
    """Moving averages of the ends of batches: m <- m + c (new - m); the first batch is taken as it is.

    Merging appends: the result is that of one observer which saw these batches first, then the other's, to
    float32's rounding. For what the first of the other's batches weighs there, its ends are kept.

    Args:
        averaging_constant: c, above 0 and at most 1.
        settings: those of :class:`Observer`.

    Source: torch.ao.quantization.MovingAverageMinMaxObserver, torch 2.13.0; Jacob et al. 2018, section 3.1.
    """

    def __init__(self, averaging_constant: float = 0.01, **settings: Any) -> None:
        super().__init__(**settings)
        if not 0 < averaging_constant <= 1:
            raise SettingError(
                f"averaging_constant must be above 0 and at most 1, got {averaging_constant!r}",
                op=type(self).__name__,
            )
        self.averaging_constant = averaging_constant
        self.first: tuple[Floats, Floats] = (self.min_val, self.max_val)

    def _take(self, rows: Floats) -> None:
        low, high = self._ends(rows)
        if not self.batches:
            self.min_val, self.max_val = self.first = low, high
            return
        c = np.float32(self.averaging_constant)
        self.min_val = self.min_val + c * (low - self.min_val)
        self.max_val = self.max_val + c * (high - self.max_val)

    def _join(self, other: Self) -> None:
        kept = (1 - self.averaging_constant) ** other.batches
        ends = ((self.min_val, other.min_val, other.first[0]), (self.max_val, other.max_val, other.first[1]))
        self.min_val, self.max_val = (
            (np.float64(its) + kept * (np.float64(mine) - first)).astype(np.float32)
            for mine, its, first in ends
        )

    def _state(self) -> dict[str, Any]:
        return super()._state() | {"first_min": self.first[0], "first_max": self.first[1]}

    def _load(self, state: Mapping[str, Any]) -> None:
        low, high = (np.asarray(state[name], np.float32) for name in ("first_min", "first_max"))
        super()._load(state)
        self.first = low, high

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {"averaging_constant": self.averaging_constant}


class PerChannelMinMaxObserver(MinMaxObserver):
    """From the least to the largest value of each channel (torch.ao.quantization.PerChannelMinMaxObserver).

    Args:
        ch_axis: the axis of the channels.
        settings: those of :class:`Observer`.
    """

    def __init__(self, ch_axis: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.ch_axis = ch_axis


class MovingAveragePerChannelMinMaxObserver(MovingAverageMinMaxObserver):
    """Moving averages for each channel (torch.ao.quantization.MovingAveragePerChannelMinMaxObserver).

    Args:
        averaging_constant: c, above 0 and at most 1.
        ch_axis: the axis of the channels.
        settings: those of :class:`Observer`.
    """

    def __init__(self, averaging_constant: float = 0.01, ch_axis: int = 0, **settings: Any) -> None:
        super().__init__(averaging_constant, **settings)
        self.ch_axis = ch_axis
