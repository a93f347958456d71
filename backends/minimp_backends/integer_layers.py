"""Layers on int8 and uint8 codes around the products: sums of two scales, pools, transposed convolutions.

A code has 256 values, so that what is done to one array of codes alone is a table of 256 entries, worked out
by the readable rule and looked up (:mod:`minimp_backends.integer_pointwise`). Rounding follows the two modes
of :mod:`minimp_backends.requantizing`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError, ShapeError, unknown_name
from minimp_backends.integer_checks import Array, Sizes, check_codes, pair_of
from minimp_backends.integer_checks import zero_points as as_zero_points
from minimp_backends.integer_pointwise import IntegerPointwise, code_table
from minimp_backends.integers import IntegerKernels, integer_conv2d
from minimp_backends.pooling import Windows, counts_over, windows_over
from minimp_backends.requantizing import (
    LARGEST,
    MODES,
    Clamp,
    clamp_of,
    fixed_point,
    fixed_point_product,
    requantize,
)

__all__ = [
    "IntegerLayers", "code_table", "integer_add", "integer_avg_pool2d", "integer_conv_transpose2d",
    "integer_max_pool2d", "integer_mean",
]  # fmt: skip

BLOCK = 1 << 15
"""Codes added at a time."""
CODES = 256
HEADROOM = 20
"""Bits that a sum gets below its point: TFLite's left_shift for codes of 8 bits."""


# ---- sums ------------------------------------------------------------------------------------------------


def integer_add(
    a: Array, b: Array, scales: tuple[float, float, float], zero_points: tuple[int, int, int],
    qmin: int, qmax: int, mode: str = "float", *, relu: bool = False, dtype: npt.DTypeLike | None = None,
) -> Array:  # fmt: skip
    """Add codes of two scales: clamp(round((s_a (a - z_a) + s_b (b - z_b)) / s) + z, qmin, qmax).

    int8 | uint8 of shapes that broadcast -> int8 | uint8.

    Args:
        a, b: codes.
        scales: s_a, s_b and the result's s, positive.
        zero_points: z_a, z_b and z.
        qmin, qmax, relu, dtype: as of :func:`~minimp_backends.requantizing.requantize`.
        mode: ``"float"``: each difference times float32(its scale / s), added in float32, rounded to even.
            ``"fixed-point"``: TFLite's, with no float: the differences times 2^20, each scaled by its scale
            over twice the larger one, added, and scaled back, all as ``"fixed-point"`` requantising does.

    Raises:
        FormatError: a or b holds no codes.
        ShapeError: they do not broadcast.
        SettingError: a mode, scale, zero point or range of codes that cannot be.
    """
    op = "integer_add"
    check_codes(op, a, b)
    clamp, chosen = clamp_of(op, zero_points[2], qmin, qmax, relu=relu, dtype=dtype)
    if mode not in MODES:
        raise SettingError(unknown_name("mode", mode, MODES), op=op)
    _check_scales(op, scales)
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ShapeError(
            f"codes of {a.shape} and {b.shape} do not broadcast", op=op, shapes=(a.shape, b.shape),
            help="give both one shape",
        ) from None  # fmt: skip
    *terms, whole = _multipliers(scales, mode)
    tables = [
        _table(op, each, zero, multiplier, mode)
        for each, zero, multiplier in zip((a, b), zero_points[:2], terms, strict=True)
    ]
    left, right = (np.broadcast_to(each, shape).reshape(-1).view(np.uint8) for each in (a, b))
    made = np.empty(shape, chosen)
    flat = made.reshape(-1)
    for first in range(0, flat.size, BLOCK):
        part = slice(first, first + BLOCK)
        sums = np.take(tables[0], left[part], mode="clip")  # "raise" would go over the indices once more
        np.add(sums, np.take(tables[1], right[part], mode="clip"), out=sums)
        if mode == "float":
            flat[part] = _rounded(sums, clamp)
        else:
            flat[part] = requantize(sums, whole, *clamp, mode, dtype=chosen)
    return made


def _multipliers(scales: tuple[float, float, float], mode: str) -> tuple[float, float, float]:
    """Return what differences of a's codes, of b's, and their sum are multiplied by."""
    a, b, out = scales
    if mode == "float":
        return a / out, b / out, 1.0
    twice = 2 * max(a, b)
    return a / twice, b / twice, twice / ((1 << HEADROOM) * out)


def _table(op: str, codes: Array, zero: int, multiplier: float, mode: str) -> Array:
    """Return what each code adds to a sum: float32 in units of the result's code, or int32, finer by 2^20."""
    differences = code_table(codes.dtype).astype(np.int64) - as_zero_points(
        op, "zero_points", zero, codes, ()
    )
    if mode == "float":
        return differences.astype(np.float32) * np.float32(multiplier)
    return fixed_point_product(differences << HEADROOM, *fixed_point(multiplier)).astype(np.int32)


def _rounded(sums: Array, clamp: Clamp) -> Array:
    """Return the codes of sums, in the memory of the sums."""
    zero, low, high = clamp
    np.rint(sums, out=sums)
    np.clip(sums, low - zero, high - zero, out=sums)
    return np.add(sums, zero, out=sums)


def _check_scales(op: str, scales: tuple[float, float, float]) -> None:
    if not all(0 < scale < np.inf for scale in scales):
        raise SettingError(
            f"expected the scales of a, b and the result, positive and finite, got {scales}",
            op=op, help="they are those that the codes were quantised with",
        )  # fmt: skip
    if max(scales[:2]) / scales[2] >= LARGEST:
        raise SettingError(
            f"expected scales of a and b below 2^31 times that of the result, got {scales}",
            op=op, help="choose the result's scale for the numbers that it holds",
        )  # fmt: skip


# ---- pools -----------------------------------------------------------------------------------------------


def integer_max_pool2d(
    x: Array, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Array:  # fmt: skip
    """Return the largest code of each window.  (N, C, H, W) -> (N, C, OH, OW), of one dtype.

    Scales are positive, so that it stands for the largest number: scale and zero point stay as they are.
    Arguments as of torch.nn.functional.max_pool2d; the padding is never taken.

    Raises:
        FormatError: x holds no codes.
        ShapeError, SettingError: windows that do not fit, or sizes that are none.
    """
    op = "integer_max_pool2d"
    check_codes(op, x)
    sizes = _sizes(op, kernel_size=kernel_size, stride=kernel_size if stride is None else stride,
                   padding=padding, dilation=dilation)  # fmt: skip
    windows = windows_over(op, x.shape, **sizes, ceil_mode=ceil_mode)
    taps = windows.slices(windows.spread(x, np.iinfo(x.dtype).min))
    best = next(taps).copy()
    for tap in taps:
        np.maximum(best, tap, out=best)
    return best


def _sums_over(windows: Windows, room: Array) -> Array:
    """Return the sum of each window: along its rows first, then down; integers add up in any order."""
    (kh, kw), (oh, ow), (sh, sw) = windows.kernel, windows.out_size, windows.stride
    rows = np.zeros((*room.shape[:-1], ow), room.dtype)
    sums = np.zeros((*room.shape[:-2], oh, ow), room.dtype)
    for v in range(kw):
        rows += room[..., v : v + (ow - 1) * sw + 1 : sw]
    for u in range(kh):
        sums += rows[..., u : u + (oh - 1) * sh + 1 : sh, :]
    return sums


def integer_avg_pool2d(
    x: Array, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, *, zero_point: int = 0, mode: str = "float",
) -> Array:  # fmt: skip
    """Return the mean code of each window.  (N, C, H, W) -> (N, C, OH, OW), of one dtype.

    Scale and zero point stay as they are; the padding is real zero. The exact mean of a window is rounded to
    a code once: with ``"float"`` as a distance from the zero point, ties to even; with ``"fixed-point"`` as
    a code, ties away from zero (TFLite's rule; there, padding is not counted). Other arguments as of
    torch.nn.functional.avg_pool2d.

    Raises:
        FormatError: x holds no codes.
        ShapeError, SettingError: windows that do not fit, sizes that are none, a mode or zero point likewise.
    """
    op = "integer_avg_pool2d"
    check_codes(op, x)
    if mode not in MODES:
        raise SettingError(unknown_name("mode", mode, MODES), op=op)
    zero = int(as_zero_points(op, "zero_point", zero_point, x, ()))
    sizes = _sizes(op, kernel_size=kernel_size, stride=kernel_size if stride is None else stride,
                   padding=padding)  # fmt: skip
    windows = windows_over(op, x.shape, **sizes, dilation=(1, 1), ceil_mode=ceil_mode)
    wide = np.int32 if math.prod(sizes["kernel"]) * CODES <= np.iinfo(np.int32).max else np.int64
    sums = _sums_over(windows, windows.spread(np.asarray(x, wide) - zero, 0))
    counts = counts_over(windows, count_include_pad, np.dtype(np.int32))
    return integer_mean(sums, counts, zero, mode).astype(x.dtype)


def integer_mean(sums: Array, counts: npt.ArrayLike, zero: int, mode: str) -> Array:
    """Return sums / counts + zero, rounded to whole numbers as :func:`integer_avg_pool2d` says; int64.

    Args:
        sums: of differences q - zero; whole numbers.
        counts: how many they are of each; positive.
        zero: the zero point.
        mode: ``"float"`` or ``"fixed-point"``.
    """
    number = np.asarray(counts, np.int64)
    if mode == "float":
        whole, rest = np.divmod(sums.astype(np.int64), number)
        made: Array = whole + zero + ((2 * rest > number) | ((2 * rest == number) & (whole % 2 != 0)))
        return made
    total = sums + zero * number
    away: Array = np.sign(total) * ((2 * np.abs(total) + number) // (2 * number))
    return away


def _sizes(op: str, kernel_size: Sizes, **others: Sizes) -> dict[str, Any]:
    named = {"kernel": kernel_size, **others}
    return {
        name: pair_of(op, "kernel_size" if name == "kernel" else name, size) for name, size in named.items()
    }


# ---- transposed convolution ------------------------------------------------------------------------------


def integer_conv_transpose2d(
    x: Array, w: Array, stride: Sizes = 1, padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1,
    dilation: Sizes = 1, x_zero: int = 0, w_zero: npt.ArrayLike = 0,
) -> Array:  # fmt: skip
    """Transpose a convolution of codes, exactly: each code spreads over what its weights reach.

    (N, C, H, W), (C, O/G, kh, kw), each int8 | uint8 -> (N, O, OH, OW) int32, with OH = (H - 1) s - 2 p +
    d (kh - 1) + output_padding + 1, as torch.nn.functional.conv_transpose2d. It is the convolution, by the
    weights turned round, of images whose codes stand s apart with x_zero, real zero, between and around them.

    Args:
        x, w: codes of images and filters.
        stride, padding, output_padding, dilation: a number, or one for each of height and width.
        groups: G, a divisor of C.
        x_zero: a whole number that the dtype of x has.
        w_zero: the same of w, or an array of them for (O,).

    Raises:
        ShapeError, FormatError, SettingError: as :func:`~minimp_backends.integers.integer_conv2d`; an
            output_padding that is not below stride or dilation.
    """
    op = "integer_conv_transpose2d"
    check_codes(op, x, w)
    steps, cuts, extra, gaps = (
        pair_of(op, name, size)
        for name, size in (("stride", stride), ("padding", padding), ("output_padding", output_padding),
                           ("dilation", dilation))
    )  # fmt: skip
    _check_transposed(op, x, w, groups, steps, cuts, extra, gaps)
    as_zero_points(op, "x_zero", x_zero, x, ())
    reach = [d * (k - 1) for d, k in zip(gaps, w.shape[2:], strict=True)]
    size = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], steps, strict=True)]
    rooms = [n + 2 * r + e for n, r, e in zip(size, reach, extra, strict=True)]
    room = np.full((*x.shape[:2], *rooms), x_zero, x.dtype)
    inside = (slice(r, r + n, s) for r, n, s in zip(reach, size, steps, strict=True))
    room[:, :, *inside] = x
    kept = (slice(p, n - p) for p, n in zip(cuts, rooms, strict=True))
    channels, filters = w.shape[0] // groups, w.shape[1]
    turned = w[:, :, ::-1, ::-1].reshape(groups, channels, filters, *w.shape[2:]).swapaxes(1, 2)
    turned = turned.reshape(groups * filters, channels, *w.shape[2:])
    return integer_conv2d(room[:, :, *kept], turned, 1, 0, gaps, groups, x_zero, w_zero)


def _check_transposed(op: str, x: Array, w: Array, groups: int, *sizes: tuple[int, int]) -> None:
    steps, cuts, extra, gaps = sizes
    shapes = (x.shape, w.shape)
    if x.ndim != 4 or w.ndim != 4 or groups < 1 or x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise ShapeError(
            f"input {x.shape} and weight {w.shape} do not fit together in {groups} groups", op=op,
            shapes=shapes, help="expected (N, C, H, W) and (C, O / groups, kh, kw), groups a divisor of C",
        )  # fmt: skip
    lengths = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, e, d in zip(x.shape[2:], w.shape[2:], steps, cuts, extra, gaps, strict=True)
    ]
    small = all(0 <= e < max(s, d) for e, s, d in zip(extra, steps, gaps, strict=True))
    if min(*lengths, *steps, *gaps, *w.shape[2:]) < 1 or min(cuts) < 0 or not small:
        raise ShapeError(
            f"a kernel of {w.shape[2:]} with stride {steps}, padding {cuts}, output_padding {extra} and "
            f"dilation {gaps} has no output for images of {x.shape[2:]}",
            op=op, shapes=shapes, help="use less padding; output_padding must be below stride or dilation",
        )  # fmt: skip


# ---- what a backend has ----------------------------------------------------------------------------------


class IntegerLayers(IntegerKernels, IntegerPointwise):
    """The kernels of this module, on the host: the reference, and what runs on NumPy."""

    def integer_add(self, a: Any, b: Any, *how: Any, **more: Any) -> Any:
        """Codes of two scales -> codes, see :func:`integer_add`."""
        return self._taken(a, integer_add(self.to_host(a), self.to_host(b), *how, **more))

    def integer_max_pool2d(self, x: Any, *how: Any, **more: Any) -> Any:
        """(N, C, H, W) codes -> (N, C, OH, OW) codes, see :func:`integer_max_pool2d`."""
        return self._taken(x, integer_max_pool2d(self.to_host(x), *how, **more))

    def integer_avg_pool2d(self, x: Any, *how: Any, **more: Any) -> Any:
        """(N, C, H, W) codes -> (N, C, OH, OW) codes, see :func:`integer_avg_pool2d`."""
        return self._taken(x, integer_avg_pool2d(self.to_host(x), *how, **more))

    def integer_conv_transpose2d(self, x: Any, w: Any, *how: Any, **more: Any) -> Any:
        """(N, C, H, W), (C, O/G, kh, kw) codes -> (N, O, OH, OW) int32, see the function of that name."""
        return self._taken(x, integer_conv_transpose2d(self.to_host(x), self.to_host(w), *how, **more))
