"""Clipping of gradients, by their norm and by their values.

Under loss scaling a gradient is S times what it should be until it is unscaled: clipping it then compares S
times its norm with the limit, and training crawls without an error. So gradients that still carry a scale
are refused here, corrected for where the scaler is given, and taken as they are by ``allow_scaled=True``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minimp.errors import GradientError, SettingError
from minimp.quiet import hush, speak
from minimp.scaler import GradScaler
from minimp.scaler.marks import called, factors_within
from minimp.tape import Array, Value
from minimp.tape.scales import mark, mark_of
from minimp.tensors import Tensor

__all__ = [
    "clip_coefficient",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
]

Parameters = Value | Iterable[Value]


def get_total_norm(
    tensors: Parameters, norm_type: float = 2.0, error_if_nonfinite: bool = False, *,
    scaler: GradScaler | None = None, allow_scaled: bool = False,
) -> Tensor:  # fmt: skip
    r"""Return the norm of several tensors taken as one vector: (sum |x|^p)^(1/p), or max |x|.

    The powers are summed in float64. The norm of 16-bit tensors is float32: torch returns it in 16 bits,
    where a float16 norm past 65504 is infinite. Source: torch.nn.utils.get_total_norm 2.13.

    Args:
        tensors: one tensor or several.
        norm_type: p, greater than 0; ``math.inf`` takes the largest magnitude.
        error_if_nonfinite: refuse a norm that is infinite or NaN.
        scaler: whose scale S gradients among the tensors may still carry; those are divided by S.
        allow_scaled: take gradients as they are, whatever they carry: the norm is then S times the unscaled
            one.

    Returns:
        A tensor of one element: float64 if a tensor is, else float32; 0 for no tensors.

    Raises:
        SettingError: p is not greater than 0, something is no tensor, or `scaler` no scaler; or `scaler`
            stands beside `allow_scaled`.
        ScalerError: a tensor is a gradient that still carries a loss scale, and no scaler, or another one,
            was given; or that was unscaled twice, or added up under several scales.
        GradientError: the norm is not finite, and that was to be an error.
    """
    p = float(norm_type)
    if not p > 0.0:
        raise SettingError(f"expected norm_type greater than 0, got {norm_type!r}", op="get_total_norm")
    listed = _as_list("get_total_norm", tensors)
    scales = _scales("get_total_norm", listed, None, scaler, allow_scaled)
    return _total("get_total_norm", listed, scales, p, error_if_nonfinite)[0]


def clip_coefficient(total_norm: Tensor, max_norm: float) -> float:
    """Return min(1, max_norm / (norm + 1e-6)), computed in the format of the norm, as torch does.

    0 for an infinite norm and NaN for a NaN one, so that what is not finite stays visible.
    """
    return _coefficient(np.asarray(total_norm.backend.to_host(total_norm.array)), max_norm)


def clip_grad_norm_(
    parameters: Parameters, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False, *,
    scaler: GradScaler | None = None, allow_scaled: bool = False,
) -> Tensor:  # fmt: skip
    r"""Scale all gradients by min(1, max_norm / (norm + 1e-6)), so that their norm is at most `max_norm`.

    Each `.grad` that is scaled becomes a new tensor. With an infinite norm the finite gradients become 0
    and the others NaN; with a NaN norm all become NaN. Source: torch.nn.utils.clip_grad_norm_ 2.13.

    Under loss scaling, either unscale first, as with torch::

        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 1.0)

    or pass the scaler: the norm is then that of the unscaled gradients, and the gradients go on carrying S.
    Or clip to a limit that is scaled, too::

        clip_grad_norm_(model.parameters(), 1.0 * scaler.get_scale(), allow_scaled=True)

    Args:
        parameters: one parameter or several; those without gradient are passed over.
        max_norm: the largest norm of the unscaled gradients.
        norm_type: p of the norm; ``math.inf`` for the largest magnitude.
        error_if_nonfinite: refuse a norm that is infinite or NaN; no gradient has changed then.
        scaler: whose scale the gradients may still carry; one that does nothing, and gradients that were
            unscaled already, make no difference.
        allow_scaled: take gradients as they are, whatever they carry.

    Returns:
        The norm of the unscaled gradients before clipping, as :func:`get_total_norm` does; with
        `allow_scaled`, that of the gradients as they are.

    Raises:
        SettingError, ScalerError, GradientError: as :func:`get_total_norm`; no gradient has changed.
    """
    listed, grads = _with_gradients("clip_grad_norm_", parameters)
    scales = _scales("clip_grad_norm_", grads, listed, scaler, allow_scaled)
    p = float(norm_type)
    if not p > 0.0:
        raise SettingError(f"expected norm_type greater than 0, got {norm_type!r}", op="clip_grad_norm_")
    norm, number = _total("clip_grad_norm_", grads, scales, p, error_if_nonfinite)
    _multiply(listed, _coefficient(number, float(max_norm)))
    return norm


def clip_grads_with_norm_(
    parameters: Parameters, max_norm: float, total_norm: Tensor, *,
    scaler: GradScaler | None = None, allow_scaled: bool = False,
) -> None:  # fmt: skip
    """Scale all gradients by min(1, max_norm / (total_norm + 1e-6)), a norm that was computed elsewhere.

    Source: torch.nn.utils.clip_grads_with_norm_ 2.13.

    Args:
        parameters, max_norm, scaler, allow_scaled: as :func:`clip_grad_norm_`.
        total_norm: the norm of the unscaled gradients, from :func:`get_total_norm`.

    Raises:
        SettingError, ScalerError: as :func:`get_total_norm`; no gradient has changed.
    """
    listed, grads = _with_gradients("clip_grads_with_norm_", parameters)
    _scales("clip_grads_with_norm_", grads, listed, scaler, allow_scaled)
    _multiply(listed, clip_coefficient(total_norm, float(max_norm)))


def clip_grad_value_(
    parameters: Parameters, clip_value: float, *,
    scaler: GradScaler | None = None, allow_scaled: bool = False,
) -> None:  # fmt: skip
    """Clamp every element of every gradient to [-clip_value, clip_value]; NaN stays.

    The limit is rounded to the format of each gradient. Source: torch.nn.utils.clip_grad_value_ 2.13.

    Args:
        parameters: one parameter or several; those without gradient are passed over.
        clip_value: the largest magnitude of an unscaled gradient.
        scaler: whose scale S the gradients may still carry; those are clamped at S clip_value.
        allow_scaled: take gradients as they are, whatever they carry: `clip_value` is a limit for those.

    Raises:
        SettingError: the limit is negative or NaN; or `scaler` stands beside `allow_scaled`.
        ScalerError: as :func:`get_total_norm`; no gradient has changed.
    """
    limit = float(clip_value)
    if not limit >= 0.0:
        raise SettingError(f"expected clip_value of at least 0, got {clip_value!r}", op="clip_grad_value_")
    listed, grads = _with_gradients("clip_grad_value_", parameters)
    scales = _scales("clip_grad_value_", grads, listed, scaler, allow_scaled)
    for param, scale in zip(listed, scales, strict=True):
        xp, edge = param.backend.xp, limit * scale
        _replace(param, lambda wide, xp=xp, edge=edge: xp.clip(wide, -edge, edge))


# ---- inside -----------------------------------------------------------------------------------------------


def _as_list(op: str, tensors: Parameters) -> list[Value]:
    """Return one tensor or several as a list."""
    several = isinstance(tensors, Iterable) and not isinstance(tensors, Value)
    given: list[Any] = list(tensors) if several else [tensors]  # type: ignore[arg-type]  # `several` says so
    for each in given:
        if not isinstance(each, Value):
            raise SettingError(
                f"expected tensors, got {type(each).__name__}",
                op=op,
                help="pass model.parameters(), for example",
            )
    return given


def _with_gradients(op: str, parameters: Parameters) -> tuple[list[Value], list[Value]]:
    """Return the parameters that have a gradient, and their gradients."""
    pairs = [(param, param.grad) for param in _as_list(op, parameters)]
    kept = [(param, grad) for param, grad in pairs if grad is not None]
    return [param for param, _ in kept], [grad for _, grad in kept]


def _scales(
    op: str, gradients: list[Value], params: list[Value] | None, scaler: GradScaler | None, allow: bool
) -> list[float]:
    """Return what each gradient is to be divided by, 1 for most; refuse what nobody knows of."""
    if scaler is not None and allow:
        raise SettingError(
            "scaler= cannot act beside allow_scaled=True, which takes gradients as they are",
            op=op, help="leave one of the two out",
        )  # fmt: skip
    if scaler is not None and not hasattr(scaler, "get_scale"):
        raise SettingError(
            f"scaler: expected a GradScaler, got {type(scaler).__name__}",
            op=op,
            help="pass the scaler itself",
        )
    names = called(gradients, "tensor") if params is None else called(params)
    consequence = "and the norm would be {} times too large" if params is None else (
        "and would be compared with a limit for unscaled ones"
    )  # fmt: skip
    return factors_within(op, gradients, names, consequence, scaler, allow)


def _total(
    op: str, tensors: list[Value], scales: list[float], p: float, error_if_nonfinite: bool
) -> tuple[Tensor, Array]:
    """Return the norm of all elements, each tensor divided by its scale; and the same number on the host."""
    token = hush()
    try:
        total = _norm(tensors, scales, p)
    finally:
        speak(token)
    if error_if_nonfinite and not math.isfinite(total):
        raise GradientError(
            f"the norm of the gradients is {total}, which error_if_nonfinite=True refuses",
            op=op,
            help="look for the overflow, or skip the step; error_if_nonfinite=False lets it pass",
        )
    dtype = np.float64 if any(each.array.dtype == np.float64 for each in tensors) else np.float32
    backend = tensors[0].backend if tensors else None
    number = np.asarray(total).astype(dtype)
    made: Any = Value.lift(number, backend)
    return made, number


def _norm(tensors: list[Value], scales: list[float], p: float) -> float:
    shrunk = [1.0 / scale if scale else math.inf for scale in scales]  # a scale may have backed off to 0
    pairs = [(x, by) for x, by in zip(tensors, shrunk, strict=True) if x.array.size]
    if p == 2.0:
        squares = _read([(x, x.backend.xp.sum(_wide64(x) ** 2)) for x, _ in pairs])
        return math.sqrt(sum(total * by * by for total, (_, by) in zip(squares, pairs, strict=True)))
    sizes = [(x, x.backend.xp.abs(_wide64(x)), by) for x, by in pairs]
    if math.isinf(p):
        largest = _read([(x, each.max()) for x, each, _ in sizes])
        with_scale = [most * by for most, (_, by) in zip(largest, pairs, strict=True)]
        return float(np.max(with_scale, initial=0.0))  # NaN if one is NaN
    powers = _read([(x, ((each * by) ** p).sum()) for x, each, by in sizes])
    return float(np.float64(sum(powers)) ** (1.0 / p))


def _read(numbers: list[tuple[Value, Array]]) -> list[float]:
    """Return numbers that were computed where tensors are; the host waits once for each backend."""
    read = [0.0] * len(numbers)
    for backend in {x.backend for x, _ in numbers}:
        places = [place for place, (x, _) in enumerate(numbers) if x.backend is backend]
        together = backend.to_host(backend.xp.stack([numbers[place][1] for place in places])).tolist()
        for place, number in zip(places, together, strict=True):
            read[place] = number
    return read


def _coefficient(norm: Array, max_norm: float) -> float:
    with np.errstate(all="ignore"):
        coefficient = norm.dtype.type(max_norm) / (norm + norm.dtype.type(1e-6))
    return float(np.minimum(coefficient, norm.dtype.type(1.0)))


def _wide64(x: Value) -> Array:
    return x.backend.wide(x.array).astype(np.float64)


def _multiply(params: list[Value], coefficient: float) -> None:
    if coefficient != 1.0:
        for param in params:
            _replace(param, lambda wide: wide * wide.dtype.type(coefficient))


def _replace(param: Value, change: Any) -> None:
    """Give a parameter the gradient `change(wide gradient)`, rounded once to the gradient's format."""
    backend, grad = param.backend, param.grad
    assert grad is not None
    token = hush()
    try:
        new = backend.narrow(backend.xp.asarray(change(backend.wide(grad.array))), grad.format)
    finally:
        speak(token)
    made = Tensor(new, backend)
    mark(made, mark_of(grad))
    param.grad = made
