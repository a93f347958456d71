"""The backends of shapes of devices: what a training step would hold there.

Arrays of a device have no float32 twins; and the CuPy backend's kernels of cross-entropy keep the scores and
three numbers a row in the place of log-probabilities. All else that is kept has the shapes of the host's.
"""

from __future__ import annotations

from typing import Any

from minimp_backends.accumulating import name_for_sums
from minimp_backends.array_backend import FLOAT32, Array
from minimp_backends.kernels.calls import SPELLINGS
from minimp_backends.kernels.families.losses import KINDS_SERVED
from minimp_backends.row_losses import RowLosses
from minimp_backends.shape_arrays import ShapeArray
from minimp_backends.shapes_backend import ShapesBackend

__all__ = ["CupyShapesBackend", "DeviceShapesBackend"]


class DeviceShapesBackend(ShapesBackend):
    """Shapes as the strict device holds its arrays."""

    name = "device-shapes"
    decides_on_device = True

    def keeps_twin(self, size: int) -> bool:
        """Tell that there are no twins."""
        del size
        return False

    def scratch_bytes(self) -> int:
        """Return 0: what the memory pool keeps is for the arrays to come."""
        return 0


class CupyShapesBackend(DeviceShapesBackend):
    """Shapes as the CuPy backend holds its arrays."""

    name = "cupy-shapes"

    def row_losses(self, scores: Array, accumulate: str) -> RowLosses | None:
        """Return the shapes that the kernels give, where they would take such scores."""
        served = SPELLINGS.get(scores.dtype.name) in KINDS_SERVED and scores.size
        return _OfShapes() if served and name_for_sums(accumulate) == "float32" else None


class _OfShapes:
    """Shapes of losses."""

    def loss(
        self, scores: Array, labels: Array, weight: Array | None, smoothing: float
    ) -> tuple[Array, Array, Array]:
        """Return three numbers a row."""
        del labels, weight, smoothing
        rows = (len(scores),)
        return ShapeArray(rows, FLOAT32), ShapeArray(rows, FLOAT32), ShapeArray(rows, FLOAT32)

    def gradient(self, grad: Array, scores: Array, *_: Any) -> Array:
        """Return an array of the scores' shape and dtype."""
        del grad
        return ShapeArray(scores.shape, scores.dtype)
