"""The loss as LayerwiseScaler.scale returns it, and the gradient that backward starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.errors import GradientError, ShapeError
from minimp.tape import Array
from minimp.tensors import Tensor

if TYPE_CHECKING:
    from minimp.scaler.layerwise.scaler import LayerwiseScaler

__all__ = ["LayerwiseLoss", "seed_of"]


class LayerwiseLoss(Tensor):
    """A loss whose `backward` runs through a LayerwiseScaler; what is computed from it are plain tensors.

    Args:
        loss: the tensor.
        scaler: the scaler.
    """

    __slots__ = ("_scaler",)

    def __init__(self, loss: Tensor, scaler: LayerwiseScaler) -> None:
        super().__init__(loss.array, loss.backend, loss.node)
        self._scaler = scaler

    def backward(
        self, grad: Any = None, *, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Add the gradients of the loss to the `.grad` of every leaf; see :meth:`LayerwiseScaler.backward`.

        Raises:
            GradientError: with `create_graph`: factors are no part of the graph.
        """
        if create_graph:
            raise GradientError(
                "layer-wise scaled gradients cannot be recorded", op="LayerwiseScaler",
                help="for a gradient penalty, differentiate the loss itself with mp.grad",
            )  # fmt: skip
        self._scaler.backward(self, grad, retain_graph=retain_graph)


def seed_of(loss: Tensor, given: Any) -> Array:
    """Return the gradient that backward starts from, of the loss's shape and format."""
    backend = loss.backend
    if given is None:
        if loss.size != 1:
            raise GradientError(
                f"backward needs a gradient for a loss of shape {loss.shape}", op="LayerwiseScaler",
                help="reduce it to one element with .sum() or .mean(), or pass grad=",
            )  # fmt: skip
        return backend.xp.ones(loss.shape, loss.array.dtype)
    start: Any = given if isinstance(given, Tensor) else Tensor.lift(given, backend)
    if start.shape != loss.shape:
        raise ShapeError(
            f"expected a gradient of shape {loss.shape}, got {start.shape}", op="LayerwiseScaler",
            shapes=[loss.shape, start.shape], help="a gradient has its tensor's shape",
        )  # fmt: skip
    return start.array if start.format is loss.format else ops.cast(start, format=loss.format).array
