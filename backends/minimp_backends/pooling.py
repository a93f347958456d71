"""Maximum and mean over windows of an image, and their gradients.

Arrays are NCHW, float32 or float64. The *tap* (u, v) of a window is what all windows see at that place: a
strided slice of the image. So a pool is a chain of element-wise operations over kh * kw slices. Sizes
follow ``torch.nn.functional.max_pool2d`` and ``avg_pool2d`` (torch 2.13), ``ceil_mode`` included: the
last window may hang over the far edge, but must begin inside the image or its near padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from minimp.errors import FormatError, ShapeError

__all__ = [
    "Windows", "avg_pool2d_backward", "avg_pool2d_forward", "check_windows", "counts_over",
    "max_pool2d_backward", "max_pool2d_forward", "windows_over",
]  # fmt: skip

Array = NDArray[Any]
Pair = tuple[int, int]
Add = Callable[[list[Array]], Array]
"""How what a window sees at each tap is added up, from an array a tap to their sum."""
IMAGE_BYTES = 8 << 20  # taps that are handed to an Add at a time

WORDS: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float32): np.dtype(np.uint32),
    np.dtype(np.float64): np.dtype(np.uint64),
}


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one pool over images of one size."""

    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    out_size: Pair

    @property
    def room(self) -> Pair:
        """The height and width that hold the image, its near padding and every window."""
        reach = [
            (out - 1) * s + d * (k - 1) + 1
            for out, s, d, k in zip(self.out_size, self.stride, self.dilation, self.kernel, strict=True)
        ]
        return (
            max(reach[0], self.padding[0] + self.size[0]),
            max(reach[1], self.padding[1] + self.size[1]),
        )

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the image lies in its room."""
        (ph, pw), (height, width) = self.padding, self.size
        return slice(ph, ph + height), slice(pw, pw + width)

    @property
    def taps(self) -> int:
        """How many elements a window sees."""
        return self.kernel[0] * self.kernel[1]

    @property
    def overlap(self) -> bool:
        """Whether two windows may share an element."""
        return any(
            s < d * (k - 1) + 1 for s, d, k in zip(self.stride, self.dilation, self.kernel, strict=True)
        )

    def spread(self, x: Array, fill: float) -> Array:
        """Lay images out in their room; the image itself where it fills the room."""
        if self.room == self.size:
            return x
        room = np.full((*x.shape[:2], *self.room), fill, x.dtype)
        room[:, :, *self.inside] = x
        return room

    def slices(self, room: Array) -> Iterator[Array]:
        """Yield what every window sees at each tap, row by row of the window: (..., OH, OW) each."""
        (oh, ow), (sh, sw), (dh, dw) = self.out_size, self.stride, self.dilation
        for u in range(self.kernel[0]):
            for v in range(self.kernel[1]):
                top, left = u * dh, v * dw
                yield room[..., top : top + (oh - 1) * sh + 1 : sh, left : left + (ow - 1) * sw + 1 : sw]


def _out_length(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return span // stride + 1
    length = -(-span // stride) + 1
    return length - 1 if (length - 1) * stride >= size + padding else length


def windows_over(
    op: str,
    shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    ceil_mode: bool,
) -> Windows:
    """Return the windows of one call, its arguments checked against each other; raises ShapeError."""
    if len(shape) != 4:
        raise ShapeError(
            f"expected images (N, C, H, W), got {shape}", op=op, shapes=(shape,), help="add the missing axes"
        )
    lengths = [
        _out_length(*each, ceil_mode)
        if min(each[1], each[2], each[4]) >= 1 and 0 <= 2 * each[3] <= each[4] * (each[1] - 1) + 1
        else 0
        for each in zip(shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    if min(lengths) < 1:
        raise ShapeError(
            f"windows of {kernel} with stride {stride}, padding {padding} and dilation {dilation} "
            f"have no place in images of {shape[2:]}",
            op=op,
            shapes=(shape,),
            help="a window must fit into the padded image, and padding be at most half of a window",
        )
    return Windows((shape[2], shape[3]), kernel, stride, padding, dilation, (lengths[0], lengths[1]))


def _check(op: str, array: Array) -> None:
    if array.dtype not in WORDS:
        raise FormatError(
            f"expected float32 or float64, got {array.dtype}",
            op=op,
            formats=(str(array.dtype),),
            help="widen float16 and bfloat16 to float32 first",
        )


def check_windows(op: str, grad: Array, windows: Windows, shape: tuple[int, ...]) -> None:
    """Refuse a gradient that is not wide, or has not the shape of what the windows made of `shape`."""
    _check(op, grad)
    expected = (*shape[:2], *windows.out_size)
    if grad.shape != expected:
        raise ShapeError(
            f"expected the gradient of an output {expected}, got {grad.shape}",
            op=op,
            shapes=(expected, grad.shape),
            help="kernel, stride, padding, dilation and ceil_mode must be those of the forward call",
        )


def max_pool2d_forward(
    x: Array,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
    need_index: bool = True,
) -> tuple[Array, Array | None]:
    """The largest element of each window.  (N, C, H, W) -> (N, C, OH, OW), twice.

    Returns the maxima and, unless ``need_index`` is False, the tap of each (u * kw + v, as uint8, or
    uint16 for more than 256 taps). As in torch 2.13, the first of equal maxima is taken, padding is never
    taken, and a NaN is larger than any number: the last NaN of a window is taken.

    Raises:
        ShapeError: the windows do not fit the images.
        FormatError: ``x`` is neither float32 nor float64.
    """
    _check("max_pool2d_forward", x)
    windows = windows_over("max_pool2d_forward", x.shape, kernel, stride, padding, dilation, ceil_mode)
    room = windows.spread(x, -np.inf)
    taps = windows.slices(room)
    best = next(taps).copy()
    if not need_index:
        for tap in taps:
            np.maximum(best, tap, out=best)
        return best, None
    index = _climb(taps, best, windows)
    with np.errstate(all="ignore"):
        finite = bool(np.isfinite(np.add.reduce(best, axis=None)))
    return best, index if finite else _scan(room, best, windows)


def _index_dtype(windows: Windows) -> np.dtype[Any]:
    return np.dtype(np.uint8 if windows.taps <= 1 << 8 else np.uint16)


def _climb(taps: Iterator[Array], best: Array, windows: Windows) -> Array:
    """Raise ``best`` to the maxima; return the last tap that raised each, which is the first of equals.

    Right where the maximum is finite.
    """
    index = np.zeros(best.shape, _index_dtype(windows))
    larger, step = np.empty(best.shape, np.bool_), np.empty_like(index)
    for number, tap in enumerate(taps, 1):
        np.greater(tap, best, out=larger)
        np.maximum(best, tap, out=best)
        np.multiply(larger.view(np.uint8), index.dtype.type(number), out=step)
        np.maximum(index, step, out=index)
    return index


def _scan(room: Array, best: Array, windows: Windows) -> Array:
    """Find the taps one comparison at a time, as torch does: right for NaN and minus infinity as well."""
    valid = windows.spread(np.ones((1, 1, *windows.size)), 0.0)
    largest = np.full(best.shape, -np.inf, best.dtype)
    index = np.zeros(best.shape, _index_dtype(windows))
    seen = np.zeros(best.shape, np.bool_)
    for number, (tap, real) in enumerate(zip(windows.slices(room), windows.slices(valid), strict=True)):
        take = ~seen | (tap > largest) | np.isnan(tap)
        largest[take], index[take] = tap[take], number
        seen |= real == 1.0  # what was taken from the padding before the image began is taken again
    return index


def max_pool2d_backward(
    grad: Array,
    index: Array,
    input_shape: tuple[int, ...],
    *,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
    add: Add | None = None,
) -> Array:
    """Give each window's gradient to the element it took, and add where windows overlap.

    (N, C, OH, OW), the same -> (N, C, H, W). The choice is made on bits, so that an infinite gradient
    reaches its element alone (infinity times zero would be NaN elsewhere). Where windows overlap, taps are
    added in order, by `add` if it is given. Errors as :func:`max_pool2d_forward`.
    """
    op = "max_pool2d_backward"
    windows = windows_over(op, tuple(input_shape), kernel, stride, padding, dilation, ceil_mode)
    check_windows(op, grad, windows, input_shape)
    check_windows(op, np.empty(index.shape, grad.dtype), windows, input_shape)
    words = WORDS[grad.dtype]
    if add is not None and windows.overlap:
        taps = range(windows.taps)
        return _scattered(
            lambda n: [np.where(index[n] == tap, grad[n], 0) for tap in taps], grad, windows, add
        )
    bits, room = grad.view(words), np.zeros((*input_shape[:2], *windows.room), words)
    taken, chosen = np.empty(grad.shape, np.bool_), np.empty(grad.shape, words)
    for number, target in enumerate(windows.slices(room)):
        np.equal(index, number, out=taken)
        if windows.overlap:
            np.multiply(bits, taken, out=chosen)
            values = target.view(grad.dtype)
            np.add(values, chosen.view(grad.dtype), out=values)
        else:
            np.multiply(bits, taken, out=target)
    return _image(room.view(grad.dtype), windows)


def _image(room: Array, windows: Windows) -> Array:
    """Drop what lies around the image."""
    if windows.room == windows.size:
        return room
    return np.ascontiguousarray(room[:, :, *windows.inside])


def avg_pool2d_forward(
    x: Array,
    *,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    add: Add | None = None,
) -> Array:
    """The mean of each window: its sum, tap by tap, divided by a count.  (N, C, H, W) -> (N, C, OH, OW).

    Taps are added in order, padding's zeros too, by `add` if it is given. The count takes in padding unless
    ``count_include_pad`` is False, but never what ``ceil_mode`` hangs over it. Errors as
    :func:`max_pool2d_forward`.
    """
    _check("avg_pool2d_forward", x)
    windows = windows_over("avg_pool2d_forward", x.shape, kernel, stride, padding, (1, 1), ceil_mode)
    counts = counts_over(windows, count_include_pad, x.dtype)
    if add is not None:
        return np.concatenate(
            [add(list(windows.slices(windows.spread(x[n], 0.0)))) / counts for n in _blocks(x, windows.taps)]
        )
    taps = windows.slices(windows.spread(x, 0.0))
    mean = next(taps).copy()
    for tap in taps:
        np.add(mean, tap, out=mean)
    np.divide(mean, counts, out=mean)
    return mean


def _blocks(x: Array, taps: int) -> list[slice]:
    """Cut the batch into so many images that an array a tap stays within IMAGE_BYTES; one block for none."""
    images = max(1, IMAGE_BYTES // max(1, taps * x[:1].nbytes))
    return [slice(first, first + images) for first in range(0, max(1, len(x)), images)]


def _scattered(seen: Callable[[slice], list[Array]], grad: Array, windows: Windows, add: Add) -> Array:
    """Add what each tap gives its elements, the adjoint of :meth:`Windows.slices`, by a few images."""
    parts = []
    for n in _blocks(grad, windows.taps):
        rooms = []
        for tap, given in enumerate(seen(n)):
            rooms.append(np.zeros((*given.shape[:2], *windows.room), given.dtype))
            list(windows.slices(rooms[tap]))[tap][...] = given
        parts.append(_image(add(rooms), windows))
    return np.concatenate(parts)


def counts_over(windows: Windows, count_include_pad: bool, dtype: npt.DTypeLike) -> Array:
    """The elements of each window that count, (OH, OW)."""
    sides = []
    for axis in (0, 1):
        size, padding = windows.size[axis], windows.padding[axis]
        low, high = (-padding, size + padding) if count_include_pad else (0, size)
        starts = np.arange(windows.out_size[axis]) * windows.stride[axis] - padding
        ends = np.minimum(starts + windows.kernel[axis], high)
        sides.append(ends - np.maximum(starts, low))
    counts: Array = np.multiply.outer(*sides)
    return counts.astype(dtype)


def avg_pool2d_backward(
    grad: Array,
    input_shape: tuple[int, ...],
    *,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    add: Add | None = None,
) -> Array:
    """Give each element its share of every window it is in: the adjoint of :func:`avg_pool2d_forward`."""
    op = "avg_pool2d_backward"
    windows = windows_over(op, tuple(input_shape), kernel, stride, padding, (1, 1), ceil_mode)
    check_windows(op, grad, windows, input_shape)
    share = grad / counts_over(windows, count_include_pad, grad.dtype)
    if add is not None and windows.overlap:
        return _scattered(lambda n: [share[n]] * windows.taps, grad, windows, add)
    room = np.zeros((*input_shape[:2], *windows.room), grad.dtype)
    for target in windows.slices(room):
        np.add(target, share, out=target)
    return _image(room, windows)
