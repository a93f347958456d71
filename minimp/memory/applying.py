"""What a model needs to be applied, without training: weights, and room for the largest op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minimp import formats
from minimp.formats import Format
from minimp.memory.counting import distinct_bytes
from minimp.memory.forecasting import model_of, on_shapes, shape_of
from minimp.modes import listen, no_grad
from minimp.nn import Module
from minimp.policy import in_region
from minimp.tape import Event
from minimp.tensors import Tensor

__all__ = ["Applied", "inference"]


@dataclass(frozen=True)
class Applied:
    """Bytes of one unrecorded forward, in the formats of the arrays.

    Attributes:
        dtype: the format of the weights.
        weights: parameters and buffers.
        working: the most that the inputs and the result of one op need together, weights left out.
        elements: the number of parameters.
    """

    dtype: str
    weights: int
    working: int
    elements: int

    @property
    def total(self) -> int:
        """Weights and working room."""
        return self.weights + self.working


def inference(model: Module | Callable[[], Module], inputs: Any, dtype: Any = "float32") -> Applied:
    """Forecast the bytes of applying a model whose weights are of `dtype` (`model.half()`, `.to(dtype)`).

    Args:
        model: a function that makes the model, or a module, which stays as it is.
        inputs: a batch as :func:`minimp.memory.forecast` takes it; floating ones are cast to `dtype`.
        dtype: a format of tensors.

    Raises:
        FormatError: `dtype` is none.
        DataError, ShapeError: model and batch do not fit.
    """
    form: Format = formats.get(dtype)
    most = 0

    def note(event: Event) -> None:
        nonlocal most
        arrays = [each for each in (*event.inputs, *event.outputs) if hasattr(each, "nbytes")]
        most = max(most, distinct_bytes(arrays, without=leaves))

    with on_shapes(), in_region(None), no_grad():
        made = model_of(model).eval().to(form)
        leaves = [leaf.array for leaf in (*made.parameters(), *made.buffers())]
        x: Any = shape_of(inputs, "float32")
        if x.dtype.kind not in "iub":
            x = Tensor.lift(x, None).to(form)
        with listen(note):
            made(x)
    held = sum(leaf.nbytes for leaf in leaves)
    return Applied(form.name, held, most, sum(p.array.size for p in made.parameters()))
