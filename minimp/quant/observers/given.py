"""An observer whose range is given: by training, by a file, by a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError
from minimp.quant.affine import Affine
from minimp.quant.observers.base import Observer

__all__ = ["GivenObserver"]

Floats = npt.NDArray[np.float32]


class GivenObserver(Observer):
    """Gives the numbers that it was given, whatever it sees.

    It stands where an observer is asked for and the scale is known already. NaN and infinities are refused,
    as by others that let them count.

    Args:
        given: the affine numbers.
        batches: how many batches they come from.
    """

    keeps_infinities = True
    counting = False

    def __init__(self, given: Affine, batches: int = 1) -> None:
        super().__init__(quant_min=given.quant_min, quant_max=given.quant_max, rule=given.rule)
        self.given, self.batches, self.ch_axis = given, batches, given.axis

    def affine(self) -> Affine:
        """Return what was given."""
        return self.given

    def _range(self) -> tuple[Floats, Floats]:
        return self.given.low, self.given.high

    def _take(self, rows: Floats) -> None:
        """Leave the range as it is."""

    def _join(self, other: Any) -> NoReturn:
        del other
        raise SettingError("what is given is not merged", op="GivenObserver")

    def _state(self) -> dict[str, Any]:
        return {"scale": self.given.scale, "zero_point": self.given.zero_point}

    def _load(self, state: Mapping[str, Any]) -> None:
        codes = self.given.quant_min, self.given.quant_max, self.given.axis, self.given.rule
        self.given = Affine(state["scale"], state["zero_point"], *codes)
