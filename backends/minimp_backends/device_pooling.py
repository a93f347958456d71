"""Maximum and mean over windows of an image on a device, and their gradients.

The windows, their sizes and which element a maximum takes are those of :mod:`minimp_backends.pooling`; here
every tap is looked at with the same operations, so that no value decides what is done next.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from minimp_backends.adaptive import spans_of
from minimp_backends.pooling import Windows, check_windows, counts_over, windows_over

__all__ = [
    "adaptive_maxima", "avg_pool2d_backward", "avg_pool2d_forward", "max_pool2d_backward",
    "max_pool2d_forward",
]  # fmt: skip

Array = Any
Pair = tuple[int, int]
Add = Callable[[list[Array]], Array]


def max_pool2d_forward(
    xp: Any, x: Array, *, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1),
    ceil_mode: bool = False, need_index: bool = True,
) -> tuple[Array, Array | None]:  # fmt: skip
    """The largest element of each window, and its tap.  (N, C, H, W) -> (N, C, OH, OW), twice.

    The first of equal maxima is taken, the last NaN, and never padding.
    """
    windows = windows_over("max_pool2d_forward", x.shape, kernel, stride, padding, dilation, ceil_mode)
    room = _spread(xp, x, windows, float("-inf"))
    taps = windows.slices(room)
    if not need_index:
        best = next(taps).copy()
        for tap in taps:
            best = xp.maximum(best, tap)
        return best, None
    valid = windows.slices(_spread(xp, xp.ones((1, 1, *windows.size), bool), windows, False))
    shape = (*x.shape[:2], *windows.out_size)
    best = xp.full(shape, float("-inf"), x.dtype)
    index = xp.zeros(shape, "uint8" if windows.taps <= 1 << 8 else "uint16")
    seen = xp.zeros((1, 1, *windows.out_size), bool)
    for number, (tap, real) in enumerate(zip(taps, valid, strict=True)):
        take = ~seen | (tap > best) | xp.isnan(tap)
        best, index = xp.where(take, tap, best), xp.where(take, index.dtype.type(number), index)
        seen = seen | real  # what was taken from the padding before the image began is taken again
    return best, index


def max_pool2d_backward(
    xp: Any, grad: Array, index: Array, shape: tuple[int, ...], *, kernel: Pair, stride: Pair, padding: Pair,
    dilation: Pair = (1, 1), ceil_mode: bool = False, add: Add | None = None,
) -> Array:  # fmt: skip
    """Give each window's gradient to the element it took.  (N, C, OH, OW), the same -> (N, C, H, W)."""
    op = "max_pool2d_backward"
    windows = windows_over(op, tuple(shape), kernel, stride, padding, dilation, ceil_mode)
    check_windows(op, grad, windows, shape)
    given = (xp.where(index == tap, grad, grad.dtype.type(0)) for tap in range(windows.taps))
    return _scattered(xp, given, windows, grad, add if windows.overlap else None)


def avg_pool2d_forward(
    xp: Any, x: Array, *, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool = False,
    count_include_pad: bool = True, add: Add | None = None,
) -> Array:  # fmt: skip
    """The mean of each window: its taps added in order, by `add` if given, over a count."""
    windows = windows_over("avg_pool2d_forward", x.shape, kernel, stride, padding, (1, 1), ceil_mode)
    taps = windows.slices(_spread(xp, x, windows, 0.0))
    if add is not None:
        return add(list(taps)) / _counts(xp, windows, count_include_pad, x.dtype.str)
    total = next(taps).copy()
    for tap in taps:
        total += tap
    return total / _counts(xp, windows, count_include_pad, x.dtype.str)


def avg_pool2d_backward(
    xp: Any, grad: Array, shape: tuple[int, ...], *, kernel: Pair, stride: Pair, padding: Pair,
    ceil_mode: bool = False, count_include_pad: bool = True, add: Add | None = None,
) -> Array:  # fmt: skip
    """Give each element its share of every window it is in: the adjoint of :func:`avg_pool2d_forward`."""
    op = "avg_pool2d_backward"
    windows = windows_over(op, tuple(shape), kernel, stride, padding, (1, 1), ceil_mode)
    check_windows(op, grad, windows, shape)
    share = grad / _counts(xp, windows, count_include_pad, grad.dtype.str)
    given = (share for _ in range(windows.taps))
    return _scattered(xp, given, windows, share, add if windows.overlap else None)


def adaptive_maxima(xp: Any, x: Array, size: Pair) -> tuple[Array, Array]:
    """The largest element of each window, and its place u W + v; see :func:`adaptive.adaptive_maxima`."""
    height, width = x.shape[-2:]
    values, places = [], []
    for down in spans_of(height, size[0]):
        for right in spans_of(width, size[1]):
            seen = x[..., down, right]
            across = seen.shape[-1]
            flat = seen.reshape(*x.shape[:-2], seen.shape[-2] * across)
            taken = _last_nan_or_first_largest(xp, flat)
            values.append(xp.take_along_axis(flat, taken[..., None], axis=-1)[..., 0])
            places.append((taken // across + down.start) * width + taken % across + right.start)
    least = "uint8" if height * width <= 1 << 8 else "uint16" if height * width <= 1 << 16 else "uint32"
    lead = (*x.shape[:-2], *size)
    return xp.stack(values, axis=-1).reshape(lead), xp.stack(places, axis=-1).reshape(lead).astype(least)


def _last_nan_or_first_largest(xp: Any, flat: Array) -> Array:
    nan = xp.isnan(flat)
    last = flat.shape[-1] - 1 - xp.argmax(nan[..., ::-1], axis=-1)
    first = xp.argmax(xp.where(nan, flat.dtype.type(float("-inf")), flat), axis=-1)
    return xp.where(nan.any(axis=-1), last, first)


def _spread(xp: Any, x: Array, windows: Windows, fill: float) -> Array:
    """Lay images out in their room; the image itself where it fills the room."""
    if windows.room == windows.size:
        return x
    room = xp.full((*x.shape[:2], *windows.room), fill, x.dtype)
    room[:, :, *windows.inside] = x
    return room


def _scattered(xp: Any, given: Any, windows: Windows, like: Array, add: Add | None) -> Array:
    """Add what each tap gives its elements, in order, by `add` if given; drop what lies around the image."""
    shape = (*like.shape[:2], *windows.room)
    if add is None:
        total = xp.zeros(shape, like.dtype)
        for target, part in zip(windows.slices(total), given, strict=True):
            xp.add(target, part, out=target)
    else:
        rooms = []
        for tap, part in enumerate(given):
            rooms.append(xp.zeros(shape, like.dtype))
            list(windows.slices(rooms[tap]))[tap][...] = part
        total = add(rooms)
    return total if windows.room == windows.size else xp.ascontiguousarray(total[:, :, *windows.inside])


@lru_cache(maxsize=64)
def _counts(xp: Any, windows: Windows, count_include_pad: bool, dtype: str) -> Array:
    """The elements of each window that count, on the device; made once."""
    return xp.asarray(counts_over(windows, count_include_pad, dtype))
