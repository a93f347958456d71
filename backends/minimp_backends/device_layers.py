"""Interpolation on a device, axis by axis, and the tables of numbers that layers read, copied once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from minimp_backends.layers import LayerKernels

__all__ = ["DeviceLayers"]

Array = Any
PLAIN = ("float32", "float64")
TABLES, LARGEST = 512, 1 << 16
"""How many tables are kept on the device, and the bytes of the largest that is."""


class DeviceLayers(LayerKernels):
    """Layers whose sums are the device's own; under the name of another accumulation, the readable forms."""

    from_host: Callable[[np.ndarray[Any, Any]], Array]
    _tables: OrderedDict[Any, Array] | None = None

    def constant(self, table: np.ndarray[Any, Any]) -> Array:
        """Copy a host array to the device, once for all that are equal; nobody may write to it."""
        if table.nbytes > LARGEST:
            return self.from_host(table)
        if self._tables is None:
            self._tables = OrderedDict()
        key = (table.dtype.str, table.shape, table.tobytes())
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = self.from_host(table)
            if len(self._tables) > TABLES:
                self._tables.popitem(last=False)
        return found

    def resample(self, x: Array, options: dict[str, Any], *, accumulate: str) -> Array:
        """Axis by axis, the last one first, tap by tap."""
        if accumulate not in PLAIN:
            return super().resample(x, options, accumulate=accumulate)
        y, plan = self._summable(x, accumulate), options["plan"]
        for axis in range(-1, -1 - len(plan), -1):
            index, weight = plan[axis]
            parts = [
                self._weighted(self.xp.take(y, self.constant(places), axis=axis), weight, tap, axis)
                for tap, places in enumerate(index)
            ]
            y = parts[0]
            for part in parts[1:]:
                y = y + part
        return y

    def resample_input(
        self, grad: Array, shape: tuple[int, ...], options: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Axis by axis, each gradient added to the elements that made it."""
        if accumulate not in PLAIN:
            return super().resample_input(grad, shape, options, accumulate=accumulate)
        g, plan = self._summable(grad, accumulate), options["plan"]
        for axis in range(-len(plan), 0):
            index, weight = plan[axis]
            total = self.xp.zeros((*g.shape[:axis], shape[axis], *g.shape[axis:][1:]), g.dtype)
            for tap, places in enumerate(index):
                where = (..., self.constant(places), *(slice(None),) * (-axis - 1))
                self.xp.add.at(total, where, self._weighted(g, weight, tap, axis))
            g = total
        return g

    def _weighted(self, x: Array, weight: Any, tap: int, axis: int) -> Array:
        if weight is None:
            return x
        return x * self.constant(weight[tap].astype(x.dtype).reshape(-1, *(1,) * (-axis - 1)))

    def _summable(self, array: Array, accumulate: str) -> Array:
        """Return the values in the format in which they are to be added."""
        wide = self.wide(array)
        return wide.astype("float64", copy=False) if accumulate == "float64" else wide
