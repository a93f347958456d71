"""The gradients of an optimizer's parameters: looking for what is not finite, and unscaling them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import formats
from minimp.errors import ScalerError
from minimp.quiet import hush, speak
from minimp.scaler.marks import marks_unscaled
from minimp.scaler.naming import Names, listing, named_parameters
from minimp.tape import Array, Value
from minimp.tape.scales import mark
from minimp.tensors import Tensor

__all__ = [
    "Names",
    "find_nonfinite",
    "listing",
    "named_parameters",
    "nothing_to_check",
    "skip",
    "unscale_each",
    "unscale_gradients",
]


def skip(optimizer: Any) -> Any:
    """Leave out a step, and return None; an optimizer of mp.optim is told, for its schedulers."""
    told = getattr(optimizer, "skip_step", None)
    return None if told is None else told()


def find_nonfinite(named: list[tuple[str, Value]]) -> tuple[str, ...]:
    """Return the names of the parameters whose gradient has an infinite or NaN element; None is skipped."""
    token = hush()
    try:
        finite = {
            id(p): known
            for backend, params in _by_backend(named).items()
            for p, known in zip(params, backend.are_finite(_arrays(params)), strict=True)
        }
        return tuple(name for name, p in named if not finite.get(id(p), True))
    finally:
        speak(token)


def nothing_to_check(named: Sequence[tuple[str, Value]]) -> ScalerError:
    """Say that no parameter had a gradient to look at, and why, as far as that can be seen."""
    what = "has a gradient"
    help_ = (
        "call scaler.scale(loss).backward() before step(), with no zero_grad() between; the loss must depend "
        "on these parameters"
    )
    if any(p.grad is not None for _, p in named):
        what = "had a gradient when they were unscaled, and some have one now"
        help_ = (
            "call backward before unscale_() and step(); update(scaler.get_scale()) begins a new iteration"
        )
    elif named and not any(p.requires_grad for _, p in named):
        what = "has a gradient, and none requires one"
        help_ = (
            "call requires_grad_() on those that are to be trained, or leave out the step of this optimizer"
        )
    return ScalerError(
        f"no inf checks were recorded: none of the optimizer's {len(named)} parameters {what} "
        f"({listing(name for name, _ in named)})",
        op="GradScaler.step", help=help_,
    )  # fmt: skip


def unscale_gradients(named: list[tuple[str, Value]], scale: float) -> tuple[str, ...]:
    """Replace each gradient g by g * float32(1 / S), and return the names of the non-finite ones.

    As :func:`unscale_each`, where nothing is added.
    """
    bad = unscale_each(named, scale, [None] * len(named))
    return tuple(name for (name, _), is_bad in zip(named, bad, strict=True) if is_bad)


def unscale_each(
    named: list[tuple[str, Value]], scale: float, onto: Sequence[Tensor | None]
) -> tuple[bool, ...]:
    """Replace each gradient g by h + g * float32(1 / S), h that of `onto`; return which g were not finite.

    Product and sum are taken in float32 (float64 for a float64 gradient) and rounded once to the parameter's
    format. Finiteness is judged before multiplying, and non-finite gradients are multiplied too. A parameter
    without a gradient gets that of `onto`. Nothing is changed when an error is raised.

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
    marks = iter(marks_unscaled(with_grad, scale))
    token = hush()
    try:
        found = {}
        for backend, params in _by_backend(named).items():
            for p, *each in zip(params, *backend.unscale_and_check(_arrays(params), scale), strict=True):
                found[id(p)] = each
        made = [
            None if p.grad is None else _stored(p, found[id(p)][0], held)
            for (_, p), held in zip(named, onto, strict=True)
        ]
    finally:
        speak(token)
    for (_, p), grad, held in zip(named, made, onto, strict=True):
        if grad is None:
            p.grad = held
        else:
            mark(grad, next(marks))
            p.grad = grad
    return tuple(id(p) in found and found[id(p)][1] for _, p in named)


def _by_backend(named: Sequence[tuple[str, Value]]) -> dict[Any, list[Value]]:
    """Return the parameters that have a gradient, those of one backend together: it is asked once for all."""
    found: dict[Any, list[Value]] = {}
    for _, p in named:
        if p.grad is not None:
            found.setdefault(p.backend, []).append(p)
    return found


def _arrays(params: list[Value]) -> list[Array]:
    return [p.grad.array for p in params if p.grad is not None]


def _stored(param: Value, unscaled: Array, held: Tensor | None) -> Tensor:
    """Return the new gradient of a parameter: what was unscaled, and what was held beside it."""
    backend = param.backend
    array = unscaled if held is None else backend.add(unscaled, held.array)
    return Tensor(backend.narrow(array, param.format), backend)
