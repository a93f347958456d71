"""Images and signals of another size: interpolate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from minimp import formats
from minimp.errors import SettingError, ShapeError
from minimp.functional.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d
from minimp.ops.resampling import MOVING, WEIGHING, Plan
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["interpolate"]

Array = np.ndarray[Any, Any]
ALIGNED = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}
"""The modes with weights -> how many axes they work on."""
OPS = {"nearest": "upsample_nearest{}d", "nearest-exact": "_upsample_nearest_exact{}d"}
CUBIC = -0.75  # torch's a of Keys (1981), Cubic convolution interpolation


def interpolate(
    input: Any, size: int | Sequence[int] | None = None, scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
) -> Tensor:  # fmt: skip
    """Resample signals (N, C, L), images (N, C, H, W) or volumes (torch.nn.functional.interpolate).

    Args:
        input: a tensor.
        size: the lengths of the result; or
        scale_factor: what to multiply the lengths by, rounding down. It is also the step between the places
            read, unless recompute_scale_factor says to take it from the lengths.
        mode: "nearest" (element floor(i L / L')), "nearest-exact" (by centres), "linear", "bilinear",
            "trilinear", "bicubic" (3, 4, 5 and 4 axes), or "area" (means over adaptive windows; signals and
            images).
        align_corners: for the modes with weights: whether the first and last elements keep their places.
        recompute_scale_factor: see scale_factor.

    The places read are computed as torch's CPU kernels do, in float32 (float64 for float64 tensors). torch's
    antialias is not offered.

    Raises:
        SettingError: settings that exclude each other or that the mode does not have.
        ShapeError: the mode does not work on so many axes, or nothing would be left.
    """
    x = input if isinstance(input, Value) else Value.lift(input, None)
    axes = x.array.ndim - 2
    _check_mode(x, mode, axes, align_corners)
    lengths, scales = _lengths(x.shape[2:], size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return adaptive_avg_pool1d(x, lengths[0]) if axes == 1 else adaptive_avg_pool2d(x, lengths)
    exact = x.format is formats.float64
    plan = _plan(mode, x.shape[2:], lengths, scales, bool(align_corners), exact)
    if mode in OPS:
        return MOVING[OPS[mode].format(axes)](x, plan=plan)
    return WEIGHING[f"upsample_{mode}{axes}d"](x, plan=plan)


def _check_mode(x: Value, mode: str, axes: int, align_corners: bool | None) -> None:
    known = (*OPS, *ALIGNED, "area")
    if mode not in known:
        raise SettingError(f"interpolate: unknown mode {mode!r}", help=f"use one of {', '.join(known)}")
    if align_corners is not None and mode not in ALIGNED:
        raise SettingError(
            f"interpolate: align_corners cannot act with mode {mode!r}",
            help="leave it out, or use 'bilinear'",
        )
    wanted = (ALIGNED[mode],) if mode in ALIGNED else (1, 2) if mode == "area" else (1, 2, 3)
    if axes not in wanted:
        raise ShapeError(
            f"mode {mode!r} works on {' or '.join(str(n + 2) for n in wanted)} axes, (N, C, ...), "
            f"got {x.shape}",
            op="interpolate", shapes=[x.shape],
        )  # fmt: skip


def _lengths(
    sizes: tuple[int, ...], size: Any, scale_factor: Any, recompute: bool | None
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The lengths of the result, and the scales that were asked for."""
    if (size is None) == (scale_factor is None):
        raise SettingError("interpolate: give either size or scale_factor", help="and not both")
    if size is not None:
        if recompute:
            raise SettingError("interpolate: recompute_scale_factor cannot act without scale_factor")
        lengths = (size,) * len(sizes) if isinstance(size, int) else tuple(size)
        scales: tuple[float | None, ...] = (None,) * len(sizes)
    else:
        alike = isinstance(scale_factor, int | float)
        scales = (float(scale_factor),) * len(sizes) if alike else tuple(float(s) for s in scale_factor)
        if len(scales) == len(sizes):
            lengths = tuple(math.floor(n * s) for n, s in zip(sizes, scales, strict=True) if s is not None)
            scales = (None,) * len(sizes) if recompute else scales
        else:
            lengths = ()
    if len(lengths) != len(sizes) or len(scales) != len(sizes) or min((*lengths, *sizes)) < 1:
        raise ShapeError(
            f"cannot make {lengths or scale_factor} of the last axes {sizes}",
            op="interpolate", shapes=[sizes], help="one length of at least 1 for each axis after (N, C)",
        )  # fmt: skip
    return lengths, scales


@lru_cache(maxsize=64)
def _plan(
    mode: str, sizes: tuple[int, ...], lengths: tuple[int, ...], scales: tuple[float | None, ...],
    align_corners: bool, exact: bool,
) -> Plan:  # fmt: skip
    """What each place of the result reads, axis by axis; in float64 if `exact`, else in float32."""
    number = np.float64 if exact else np.float32
    entries = []
    for size, length, scale in zip(sizes, lengths, scales, strict=True):
        step = number(1.0 / scale) if scale else number(size) / number(length)
        if align_corners:
            step = number(size - 1) / number(length - 1) if length > 1 else number(0)
        entries.append(_entry(mode, size, length, step, align_corners))
    return Plan(entries)


def _entry(mode: str, size: int, length: int, step: Any, align_corners: bool) -> tuple[Array, Array | None]:
    i, half = np.arange(length).astype(step.dtype), step.dtype.type(0.5)
    if mode == "nearest":
        return np.minimum(_floor(i * step), size - 1)[None], None
    centre = i * step if align_corners else (i + half) * step - half
    if mode == "nearest-exact":
        return np.minimum(_floor(np.maximum(centre, 0) + half), size - 1)[None], None
    if mode == "bicubic":
        low = np.minimum(_floor(centre), size - 1)
        away = np.clip(centre - low.astype(step.dtype), 0, 1)
        index = np.clip(low + np.arange(-1, 3)[:, None], 0, size - 1)
        return index, _keys(away).astype(step.dtype)
    if size == length:
        return np.arange(size)[None], None
    centre = np.maximum(centre, 0)
    low = np.minimum(_floor(centre), size - 1)
    away = np.clip(centre - low.astype(step.dtype), 0, 1)
    return np.stack([low, np.minimum(low + 1, size - 1)]), np.stack([1 - away, away])


def _floor(x: Array) -> Array:
    """The floor after rounding to float32, as in torch: a hair below a whole number is that number."""
    return np.floor(x.astype(np.float32)).astype(np.int64)


def _keys(t: Array) -> Array:
    """The weights of the neighbours at -1, 0, 1, 2 for a place t between 0 and 1.  -> (4, ...)."""

    def near(d: Array) -> Array:  # up to 1 away
        return np.asarray(((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1)

    def far(d: Array) -> Array:  # 1 to 2 away
        return np.asarray(((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC)

    return np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])
