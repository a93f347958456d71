"""Multiplying outputs by the loss scale, and reading a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minimp import formats, ops
from minimp.errors import SettingError
from minimp.scaler.marks import watch
from minimp.scaler.penalties import refuse_scaled_penalty
from minimp.tensors import Tensor

__all__ = ["one_number", "times_scale"]


def times_scale(
    outputs: Any, scale: Callable[[], float], scaler: Any, *, allow_scaled: bool = False
) -> Any:  # fmt: skip
    """Return S times a tensor, or times each tensor of an iterable; `scale` is asked once a tensor.

    What backward makes of a result is marked as a gradient that carries the scale of `scaler`.

    Raises:
        SettingError: neither a tensor nor an iterable of tensors.
        ScalerError: a tensor depends on gradients that carry a scale, and `allow_scaled` is False.
    """
    if isinstance(outputs, Tensor):
        # The scale is a float32 without axes: it promotes a tensor without axes, and no other.
        promoted = outputs.ndim == 0 and outputs.format in (formats.float16, formats.bfloat16)
        factor = scale()
        if not allow_scaled:
            refuse_scaled_penalty(outputs, factor)
        product = ops.mul(outputs.float() if promoted else outputs, factor)
        watch(product, factor, scaler)
        return product
    if isinstance(outputs, str | bytes | Mapping | np.ndarray) or not isinstance(outputs, Iterable):
        raise SettingError(
            f"expected a tensor, or an iterable of tensors, got {type(outputs).__name__}",
            op="GradScaler.scale", help="wrap numbers with mp.tensor(...)",
        )  # fmt: skip
    scaled = (times_scale(each, scale, scaler, allow_scaled=allow_scaled) for each in outputs)
    if not isinstance(outputs, list | tuple):
        return scaled
    kind: Any = type(outputs)
    return kind(*scaled) if hasattr(outputs, "_fields") else kind(scaled)  # named tuples take each by itself


def one_number(value: Any) -> float:
    """Return a float, or the element of a tensor without axes.

    Raises:
        SettingError: anything else.
    """
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad:
        return float(value.item())
    what = f"a tensor of shape {value.shape}" if isinstance(value, Tensor) else repr(value)
    raise SettingError(
        f"new_scale: expected a float, or a tensor without axes and without gradient, got {what}",
        op="GradScaler.update", help="write 4.0 rather than 4; of a tensor, take one element: t[0].detach()",
    )  # fmt: skip
