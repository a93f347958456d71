"""Clipping of gradients, by their norm and by their values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minimp.errors import GradientError, SettingError
from minimp.quiet import hush, speak
from minimp.tape import Array, Value
from minimp.tensors import Tensor

__all__ = ["clip_coefficient", "clip_grad_norm_", "clip_grad_value_", "get_total_norm"]

Parameters = Value | Iterable[Value]


def get_total_norm(tensors: Parameters, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    r"""Return the norm of several tensors taken as one vector: (sum |x|^p)^(1/p), or max |x|.

    The powers are summed in float64. The norm of 16-bit tensors is float32: torch returns it in 16 bits,
    where a float16 norm past 65504 is infinite. Source: torch.nn.utils.get_total_norm 2.13.

    Args:
        tensors: one tensor or several.
        norm_type: p, greater than 0; ``math.inf`` takes the largest magnitude.
        error_if_nonfinite: refuse a norm that is infinite or NaN.

    Returns:
        A tensor of one element: float64 if a tensor is, else float32; 0 for no tensors.

    Raises:
        SettingError: p is not greater than 0.
        GradientError: the norm is not finite, and that was to be an error.
    """
    p = float(norm_type)
    if not p > 0.0:
        raise SettingError(f"expected norm_type greater than 0, got {norm_type!r}", op="get_total_norm")
    listed = _as_list(tensors)
    token = hush()
    try:
        total = _norm(listed, p)
    finally:
        speak(token)
    if error_if_nonfinite and not math.isfinite(total):
        raise GradientError(
            f"the norm of the gradients is {total}, so they cannot be clipped",
            op="clip_grad_norm_",
            help="look for the overflow, or skip the step; error_if_nonfinite=False lets it pass",
        )
    dtype = np.float64 if any(each.array.dtype == np.float64 for each in listed) else np.float32
    backend = listed[0].backend if listed else None
    made: Any = Value.lift(np.asarray(total).astype(dtype), backend)
    return made  # type: ignore[no-any-return]  # arrays have no type here


def clip_coefficient(total_norm: Tensor, max_norm: float) -> float:
    """Return min(1, max_norm / (norm + 1e-6)), computed in the format of the norm, as torch does.

    0 for an infinite norm and NaN for a NaN one, so that what is not finite stays visible.
    """
    norm = np.asarray(total_norm)
    with np.errstate(all="ignore"):
        coefficient = norm.dtype.type(max_norm) / (norm + norm.dtype.type(1e-6))
    return float(np.minimum(coefficient, norm.dtype.type(1.0)))


def clip_grad_norm_(
    parameters: Parameters, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    r"""Scale all gradients by min(1, max_norm / (norm + 1e-6)), so that their norm is at most `max_norm`.

    Each `.grad` that is scaled becomes a new tensor. With an infinite norm the finite gradients become 0
    and the others NaN; with a NaN norm all become NaN. Source: torch.nn.utils.clip_grad_norm_ 2.13.

    Args:
        parameters: one parameter or several; those without gradient are passed over.
        max_norm: the largest norm.
        norm_type: p of the norm; ``math.inf`` for the largest magnitude.
        error_if_nonfinite: refuse a norm that is infinite or NaN; no gradient has changed then.

    Returns:
        The norm before clipping, as :func:`get_total_norm` does.

    Raises:
        SettingError, GradientError: as :func:`get_total_norm`.
    """
    listed = [p for p in _as_list(parameters) if p.grad is not None]
    norm = get_total_norm([p.grad for p in listed if p.grad is not None], norm_type, error_if_nonfinite)
    coefficient = clip_coefficient(norm, float(max_norm))
    if coefficient != 1.0:
        for param in listed:
            _replace(param, lambda wide: wide * wide.dtype.type(coefficient))
    return norm


def clip_grad_value_(parameters: Parameters, clip_value: float) -> None:
    """Clamp every element of every gradient to [-clip_value, clip_value]; NaN stays.

    The limit is rounded to the format of each gradient. Source: torch.nn.utils.clip_grad_value_ 2.13.

    Raises:
        SettingError: the limit is negative or NaN.
    """
    limit = float(clip_value)
    if not limit >= 0.0:
        raise SettingError(f"expected clip_value of at least 0, got {clip_value!r}", op="clip_grad_value_")
    for param in _as_list(parameters):
        if param.grad is not None:
            xp = param.backend.xp
            _replace(param, lambda wide, xp=xp: xp.clip(wide, -limit, limit))


def _as_list(tensors: Parameters) -> list[Value]:
    return [tensors] if isinstance(tensors, Value) else list(tensors)


def _norm(tensors: list[Value], p: float) -> float:
    """Return the norm of all elements, in float64."""
    if p == 2.0:
        return math.sqrt(sum(float(x.backend.xp.sum(_wide64(x) ** 2)) for x in tensors))
    sizes = [x.backend.xp.abs(_wide64(x)) for x in tensors if x.array.size]
    if math.isinf(p):
        return float(np.max([float(each.max()) for each in sizes], initial=0.0))  # NaN if one is NaN
    return float(np.float64(sum(float((each**p).sum()) for each in sizes)) ** (1.0 / p))


def _wide64(x: Value) -> Array:
    return x.backend.wide(x.array).astype(np.float64)


def _replace(param: Value, change: Any) -> None:
    """Give a parameter the gradient `change(wide gradient)`, rounded once to the gradient's format."""
    backend, grad = param.backend, param.grad
    assert grad is not None
    token = hush()
    try:
        new = backend.narrow(backend.xp.asarray(change(backend.wide(grad.array))), grad.format)
    finally:
        speak(token)
    param.grad = Tensor(new, backend)
