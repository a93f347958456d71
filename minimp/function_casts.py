"""Decorators of a Function's methods: its place in an autocast region, and whether it can go twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import numpy as np

from minimp import formats, ops
from minimp.errors import FormatError, GradientError
from minimp.formats import Format
from minimp.modes import MODES, setting
from minimp.policy import FLOATING
from minimp.policy.region import in_region
from minimp.tape import Value

__all__ = ["custom_bwd", "custom_fwd", "once_differentiable"]


def custom_fwd(forward: Callable[..., Any] | None = None, *, cast_inputs: Any = None) -> Any:
    """Decorate a Function's forward for use in autocast regions (torch.amp.custom_fwd, PyTorch 2.13).

    Without `cast_inputs` the body sees the arguments as they are, with autocast as it is; a backward under
    :func:`custom_bwd` runs in the same state. With `cast_inputs`, in a region, floating tensors (but float64
    ones; also those in lists, tuples and dicts) are cast to that format, and the body and the backward run
    with autocast off. Outside of a region nothing happens. (torch's `device_type` has nothing to say here.)
    The casts are recorded, so that second derivatives go through what the body saves of them. What torch does
    (second derivatives silently 0, containers spoilt) is in `minimp.policy.defects`, for faithful regions.

    Args:
        forward: the static method.
        cast_inputs: a format, in any spelling of `mp.formats.get`.

    Raises:
        FormatError: `cast_inputs` is no floating format that tensors have.
    """
    target = None if cast_inputs is None else formats.get(cast_inputs)
    if target is not None and target not in FLOATING:
        raise FormatError(
            f"cast_inputs cannot be {target.name}", op="custom_fwd", formats=[target.name],
            help="use float16, bfloat16, float32 or float64",
        )  # fmt: skip
    if forward is None:
        return partial(custom_fwd, cast_inputs=target)

    @wraps(forward)
    def run(ctx: Any, *args: Any, **options: Any) -> Any:
        region = MODES.get().autocast
        if region is not None and not region.enabled:
            region = None
        ctx._region = replace(region, cache={}) if region is not None and target is None else None
        if target is None or region is None:
            return forward(ctx, *args, **options)
        with in_region(None):
            lost = region.has("custom-fwd-loses-derivatives")
            into = _cast_as_torch if region.has("custom-fwd-spoils-containers") else _cast
            with setting(grad_enabled=not lost and any(getattr(ctx, "needs_input_grad", ()))):
                cast = [into(each, target) for each in args]
                cast_options = {key: into(each, target) for key, each in options.items()}
            return forward(ctx, *cast, **cast_options)

    return run


def custom_bwd(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a Function's backward: run it in the autocast state of its forward (torch.amp.custom_bwd).

    The forward must be decorated with :func:`custom_fwd`. The region's casts are made anew.

    Raises:
        GradientError: in backward: the forward was not decorated.
    """

    @wraps(backward)
    def run(ctx: Any, *grads: Any) -> Any:
        if not hasattr(ctx, "_region"):
            raise GradientError(
                "the forward of this backward left no autocast state", op="custom_bwd",
                help="decorate forward with custom_fwd",
            )  # fmt: skip
        region = ctx._region
        with in_region(None if region is None else replace(region, cache={})):
            return backward(ctx, *grads)

    return run


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a Function's backward as one that cannot be differentiated again (torch.autograd.function).

    Without the mark, a backward that computes outside the ops would have second derivatives of 0.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Any) -> Any:
        if MODES.get().grad_enabled:
            raise GradientError(
                "this backward is marked as once differentiable", op=backward.__qualname__,
                help="write it with differentiable ops, and take the mark away",
            )  # fmt: skip
        return backward(ctx, *grads)

    return guarded


def _cast(x: Any, target: Format) -> Any:
    """Cast tensors, also those inside containers."""
    if isinstance(x, Value):
        eligible = x.format in FLOATING and x.format is not formats.float64
        return ops.cast(x, format=target) if eligible and x.format is not target else x
    if isinstance(x, Mapping):
        return {key: _cast(each, target) for key, each in x.items()}
    if isinstance(x, list | tuple):
        cast = [_cast(each, target) for each in x]
        return type(x)(*cast) if hasattr(x, "_fields") else type(x)(cast)
    return x


def _cast_as_torch(x: Any, target: Format) -> Any:
    """Cast containers as PyTorch 2.13 does: the defect custom-fwd-spoils-containers."""
    if isinstance(x, Value | str | bytes | np.ndarray):
        return _cast(x, target)
    if isinstance(x, Mapping):
        return {_cast_as_torch(key, target): _cast_as_torch(each, target) for key, each in x.items()}
    if hasattr(x, "_fields"):
        raise FormatError(
            f"PyTorch cannot cast inside a named tuple ({type(x).__name__})", op="custom_fwd",
            help="pass a plain tuple, or leave faithful=True out",
        )  # fmt: skip
    if isinstance(x, Iterable):
        cast = (_cast_as_torch(each, target) for each in x)
        return type(x)(cast) if isinstance(x, list | tuple) else cast
    return x
