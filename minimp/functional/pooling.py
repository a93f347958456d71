"""Pooling over windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import ops
from minimp.errors import SettingError, ShapeError
from minimp.functional.common import Pair, pair
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d",
    "avg_pool2d", "lp_pool1d", "lp_pool2d", "max_pool1d", "max_pool2d", "max_unpool2d",
]  # fmt: skip

Sizes = int | Sequence[int | None] | None


# ---- windows at a stride ----------------------------------------------------------------------------------


def max_pool2d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of each window; (N, C, H, W) -> (N, C, H', W').

    With `return_indices`, a pair: the maxima, and the place of each in its image, u W + v, int64.
    """
    geometry: dict[str, Any] = {
        "kernel": pair("kernel_size", kernel_size),
        "stride": pair("stride", kernel_size if stride is None else stride),
        "padding": pair("padding", padding, least=0),
        "dilation": pair("dilation", dilation),
        "ceil_mode": ceil_mode,
    }
    x = _as_tensor(input)
    y = ops.max_pool2d(x, **geometry)
    if not return_indices:
        return y
    _, index = x.backend.max_pool2d(x.array, geometry, True)
    down, right = x.backend.xp.divmod(index.astype("int64"), geometry["kernel"][1])
    ends = []
    for axis, tap in enumerate((down, right)):
        step, edge, apart = (geometry[name][axis] for name in ("stride", "padding", "dilation"))
        starts = x.backend.xp.arange(index.shape[2 + axis]) * step - edge
        ends.append((starts[:, None] if axis == 0 else starts) + tap * apart)
    return y, Value.make(ends[0] * x.shape[3] + ends[1], x.backend)


def max_pool1d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0, dilation: Pair = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """The largest element of each window of a signal; (N, C, L) -> (N, C, L'), as :func:`max_pool2d`."""
    sizes = _flat(
        kernel_size=kernel_size, stride=kernel_size if stride is None else stride, dilation=dilation
    )
    found = max_pool2d(
        _image(input, "max_pool1d"), sizes["kernel_size"], sizes["stride"],
        _flat(least=0, first=0, padding=padding)["padding"], sizes["dilation"], ceil_mode, return_indices,
    )  # fmt: skip
    return (_signal(found[0]), _signal(found[1])) if return_indices else _signal(found)


def avg_pool2d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window; (N, C, H, W) -> (N, C, H', W')."""
    return ops.avg_pool2d(
        input, kernel=pair("kernel_size", kernel_size),
        stride=pair("stride", kernel_size if stride is None else stride),
        padding=pair("padding", padding, least=0), ceil_mode=ceil_mode, count_include_pad=count_include_pad,
    )  # fmt: skip


def avg_pool1d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window of a signal; (N, C, L) -> (N, C, L')."""
    sizes = _flat(kernel_size=kernel_size, stride=kernel_size if stride is None else stride)
    edge = _flat(least=0, first=0, padding=padding)["padding"]
    image = _image(input, "avg_pool1d")
    y: Tensor = _signal(
        avg_pool2d(image, sizes["kernel_size"], sizes["stride"], edge, ceil_mode, count_include_pad)
    )
    return y


def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Pair, stride: Pair | None = None, ceil_mode: bool = False
) -> Tensor:  # fmt: skip
    """(sum of x^p)^(1/p) over each window, p = norm_type; (N, C, H, W) -> (N, C, H', W').

    As torch, x^p and not |x|^p: for an odd p, the root of a negative sum is NaN.
    """
    kernel = pair("kernel_size", kernel_size)
    mean = avg_pool2d(ops.pow_(input, norm_type), kernel, stride, 0, ceil_mode)
    return ops.pow_(ops.mul(mean, kernel[0] * kernel[1]), 1.0 / norm_type)


def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Pair, stride: Pair | None = None, ceil_mode: bool = False
) -> Tensor:  # fmt: skip
    """(sum of x^p)^(1/p) over each window of a signal; (N, C, L) -> (N, C, L'); as :func:`lp_pool2d`."""
    sizes = _flat(kernel_size=kernel_size, stride=kernel_size if stride is None else stride)
    image = _image(input, "lp_pool1d")
    y: Tensor = _signal(lp_pool2d(image, norm_type, sizes["kernel_size"], sizes["stride"], ceil_mode))
    return y


def max_unpool2d(
    input: Any, indices: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """The way back of :func:`max_pool2d`: zeros, with each maximum at its place.  -> (N, C, H, W).

    Args:
        input, indices: what max_pool2d with `return_indices` gave.
        kernel_size, stride, padding: as they were there.
        output_size: H and W (or a whole shape), if (H' - 1) stride - 2 padding + kernel_size is not them.
    """
    x = _as_tensor(input)
    kernel, edge = pair("kernel_size", kernel_size), pair("padding", padding, least=0)
    step = pair("stride", kernel_size if stride is None else stride)
    size = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(x.shape[2:], step, edge, kernel, strict=False)]
    return ops.max_unpool2d(x, indices, size=tuple(size if output_size is None else output_size)[-2:])


# ---- windows to a size ------------------------------------------------------------------------------------


def adaptive_avg_pool2d(input: Any, output_size: Sizes) -> Tensor:
    """The mean of each of output_size windows; (N, C, H, W) -> (N, C, *output_size); None keeps a length."""
    x = _as_tensor(input)
    return ops.adaptive_avg_pool2d(x, size=_size(x, output_size))


def adaptive_avg_pool1d(input: Any, output_size: Sizes) -> Tensor:
    """The mean of each of output_size windows of a signal; (N, C, L) -> (N, C, output_size)."""
    y: Tensor = _signal(adaptive_avg_pool2d(_image(input, "adaptive_avg_pool1d"), (1, _one(output_size))))
    return y


def adaptive_max_pool2d(input: Any, output_size: Sizes, return_indices: bool = False) -> Any:
    """The largest element of each of output_size windows; (N, C, H, W) -> (N, C, *output_size).

    With `return_indices`, a pair: the maxima, and the place of each in its image, u W + v, int64.
    """
    x = _as_tensor(input)
    size = _size(x, output_size)
    y = ops.adaptive_max_pool2d(x, size=size)
    if not return_indices:
        return y
    _, index = x.backend.adaptive_max_pool2d(x.array, size)
    return y, Value.make(index.astype("int64"), x.backend)


def adaptive_max_pool1d(input: Any, output_size: Sizes, return_indices: bool = False) -> Any:
    """The largest element of each of output_size windows of a signal; (N, C, L) -> (N, C, output_size)."""
    size = (1, _one(output_size))
    found = adaptive_max_pool2d(_image(input, "adaptive_max_pool1d"), size, return_indices)
    return (_signal(found[0]), _signal(found[1])) if return_indices else _signal(found)


# ---- parts ------------------------------------------------------------------------------------------------


def _as_tensor(input: Any) -> Any:
    return input if isinstance(input, Value) else Value.lift(input, None)


def _size(x: Any, output_size: Sizes) -> tuple[int, ...]:
    """H' and W', with H and W where None is asked for."""
    asked = output_size if isinstance(output_size, Sequence) else (output_size, output_size)
    if len(asked) != 2 or x.array.ndim != 4:
        raise ShapeError(
            f"expected x (N, C, H, W) and two lengths, got {x.shape} and {output_size!r}",
            op="adaptive pooling", shapes=[x.shape], help="add a batch axis with x[None]",
        )  # fmt: skip
    return tuple(n if want is None else int(want) for n, want in zip(x.shape[2:], asked, strict=True))


def _one(size: Sizes) -> int | None:
    return size[0] if isinstance(size, Sequence) else size


def _flat(least: int = 1, first: int = 1, **sizes: Pair) -> dict[str, Pair]:
    """Numbers for signals as pairs for images of height 1."""
    found: dict[str, Pair] = {}
    for name, value in sizes.items():
        numbers = (value,) if isinstance(value, int) else tuple(value)
        if len(numbers) != 1:
            raise SettingError(f"{name}: expected one whole number of at least {least}, got {value!r}")
        found[name] = pair(name, (first, *numbers), least)
    return found


def _image(input: Any, name: str) -> Tensor:
    """(N, C, L) -> (N, C, 1, L)."""
    x = _as_tensor(input)
    if x.array.ndim != 3:
        raise ShapeError(f"expected x (N, C, L), got {x.shape}", op=name, shapes=[x.shape])
    return ops.reshape(x, shape=(*x.shape[:2], 1, x.shape[2]))


def _signal(y: Any) -> Any:
    """(N, C, 1, L) -> (N, C, L)."""
    return ops.reshape(y, shape=(*y.shape[:2], y.shape[3]))
