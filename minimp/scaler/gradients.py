"""The gradients of an optimizer's parameters: looking for what is not finite, and unscaling them."""

from __future__ import annotations

from typing import Any

from minimp import formats
from minimp.errors import ScalerError
from minimp.quiet import hush, speak
from minimp.scaler.marks import marks_unscaled
from minimp.scaler.naming import Names, listing, named_parameters
from minimp.tape import Value
from minimp.tape.scales import mark
from minimp.tensors import Tensor

__all__ = ["Names", "find_nonfinite", "listing", "named_parameters", "skip", "unscale_gradients"]


def skip(optimizer: Any) -> Any:
    """Leave out a step, and return None; an optimizer of mp.optim is told, for its schedulers."""
    told = getattr(optimizer, "skip_step", None)
    return None if told is None else told()


def find_nonfinite(named: list[tuple[str, Value]]) -> tuple[str, ...]:
    """Return the names of the parameters whose gradient has an infinite or NaN element; None is skipped."""
    token = hush()
    try:
        return tuple(
            name for name, p in named if p.grad is not None and not p.backend.is_finite(p.grad.array)
        )
    finally:
        speak(token)


def unscale_gradients(named: list[tuple[str, Value]], scale: float) -> tuple[str, ...]:
    """Replace each gradient g by g * float32(1 / S), and return the names of the non-finite ones.

    The product is taken in float32 (float64 for a float64 gradient) and stored in the parameter's format.
    Finiteness is judged before multiplying, and non-finite gradients are multiplied too. Parameters
    without a gradient are skipped. Nothing is changed when an error is raised.

    Raises:
        ScalerError: a gradient is in float16, where dividing by S would flush what scaling had saved; or
            backward marked it with another scale than S, or with several.
    """
    with_grad = [(name, p, p.grad) for name, p in named if p.grad is not None]
    half = [name for name, _, grad in with_grad if grad.format is formats.float16]
    if half:
        raise ScalerError(
            f"cannot unscale float16 gradients: {listing(half)}",
            op="GradScaler.unscale_", formats=["float16"],
            help="keep master weights: parameters in float32, computing under mp.autocast('float16')",
        )  # fmt: skip
    marks = marks_unscaled(with_grad, scale)
    token = hush()
    try:
        results = [p.backend.unscale(grad.array, scale) for _, p, grad in with_grad]
        arrays = [p.backend.narrow(a, p.format) for (_, p, _), (a, _) in zip(with_grad, results, strict=True)]
    finally:
        speak(token)
    for (_, p, _), array, carried in zip(with_grad, arrays, marks, strict=True):
        made = Tensor(array, p.backend)
        mark(made, carried)
        p.grad = made
    return tuple(name for (name, _, _), (_, found) in zip(with_grad, results, strict=True) if found)
