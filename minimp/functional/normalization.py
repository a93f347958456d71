"""Softmax, layers that normalise, and norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minimp import formats, ops
from minimp.errors import ShapeError
from minimp.functional.common import format_of_input, format_or_none, shape_of
from minimp.modes import MODES
from minimp.ops.batch_norm import Statistics
from minimp.ops.parameters import check_formats
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = [
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "log_softmax",
    "rms_norm", "softmax", "vector_norm",
]  # fmt: skip


def softmax(input: Any, dim: int = -1, dtype: Any = None) -> Tensor:
    """e^x / sum e^x over `dim` (torch's `dim=None` guesses; here the default is the last axis)."""
    return ops.softmax(input, dim=dim, dtype=format_or_none(dtype))


def log_softmax(input: Any, dim: int = -1, dtype: Any = None) -> Tensor:
    """ln softmax over `dim` (torch's `dim=None` guesses; here the default is the last axis)."""
    return ops.log_softmax(input, dim=dim, dtype=format_or_none(dtype))


def layer_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(var + eps) w + b over the last axes, those of `normalized_shape`.

    Statistics are float32's, one rounding at the end. Outside autocast all tensors have one format, or weight
    and bias are float32 beside a 16-bit input.
    """
    arrays = [input, weight, bias]
    while arrays[-1] is None:
        arrays.pop()
    return ops.layer_norm(*arrays, normalized_shape=shape_of(normalized_shape), eps=eps)


def rms_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean x^2 + eps) w over the last axes; eps None is float32's 2^-23 (2^-52 for float64).

    Formats as :func:`layer_norm` (torch takes a weight of any other format too).
    """
    arrays = (input,) if weight is None else (input, weight)
    if eps is None:
        eps = (formats.float64 if format_of_input(input) is formats.float64 else formats.float32).eps
    return ops.rms_norm(*arrays, normalized_shape=shape_of(normalized_shape), eps=eps)


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - m) / sqrt(v + eps) w + b, channel by channel; (N, C, ...) -> (N, C, ...) (Ioffe and Szegedy 2015).

    Args:
        input: x.
        running_mean, running_var: m and v where `training` is False. In training m is the batch's mean and v
            its mean square distance, and these two tensors (or None) have their arrays replaced:
            r <- (1 - momentum) r + momentum s, s being m, or v K / (K - 1), K elements a channel.
        weight, bias: w and b, (C,); in x's format, or in float32 beside a 16-bit x, as are the statistics.
        training: whether to use the batch's statistics.
        momentum: the share of the new statistics.
        eps: added to v.

    Raises:
        ShapeError: there is one value a channel in training, or parameters are not (C,).
        FormatError: the parameters' formats; nothing has been replaced then.
    """
    x = input if isinstance(input, Value) else Value.lift(input, None)
    if not training:
        return ops.batch_norm(x, weight, bias, running_mean, running_var, eps=eps)
    if len(x.shape) > 1 and x.shape[0] * math.prod(x.shape[2:]) == 1:
        raise ShapeError(
            f"expected more than one value a channel in training, got {x.shape}", op="batch_norm",
            shapes=[x.shape], help="use a larger batch, or training=False",
        )  # fmt: skip
    _check_running(x, running_mean, running_var)
    arrays = [x, weight, bias]
    while arrays[-1] is None:
        arrays.pop()
    found = Statistics()
    y = ops.batch_norm(*arrays, training=True, eps=eps, statistics=found)
    if found.count:
        bessel = found.count / (found.count - 1)
        _replace(running_mean, found.mean, momentum)
        _replace(running_var, found.square * found.square.dtype.type(bessel), momentum)
    return y


def _check_running(x: Any, *running: Any) -> None:
    """Refuse running statistics that are no (C,) in x's format or float32."""
    for held in running:
        if held is not None and held.shape != x.shape[1:2]:
            raise ShapeError(
                f"expected running statistics of shape {x.shape[1:2]}, got {held.shape}", op="batch_norm",
                shapes=[x.shape, held.shape],
            )  # fmt: skip
        if held is not None:
            check_formats("batch_norm", x.format, held.array)


def _replace(running: Any, found: Any, momentum: float) -> None:
    """r <- (1 - momentum) r + momentum s, in the wide format, rounded to r's; once, if a batch runs twice."""
    if running is not None and not MODES.get().recomputing:
        backend = running.backend
        wide = backend.wide(running.array) * (1 - momentum) + found * momentum
        running.array = backend.narrow(wide, running.format)


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - m) / sqrt(v + eps) w + b, m and v of each channel of each image; (N, C, ...) -> (N, C, ...).

    As torch, a batch normalisation of one image with N C channels. With `use_input_stats` the running
    statistics (or None) take in the mean over the images; else they are used in place of m and v.

    Raises:
        ShapeError: there is one value in a channel of an image, or parameters are not (C,).
    """
    x = input if isinstance(input, Value) else Value.lift(input, None)
    if not use_input_stats:
        return ops.batch_norm(x, weight, bias, running_mean, running_var, eps=eps)
    images, places = x.shape[0], math.prod(x.shape[2:])
    if len(x.shape) < 3 or places == 1:
        raise ShapeError(
            f"expected x (N, C, ...) with more than one value in a channel, got {x.shape}",
            op="instance_norm", shapes=[x.shape],
        )  # fmt: skip
    _check_running(x, running_mean, running_var)
    found = Statistics()
    rows = ops.reshape(x, shape=(1, images * x.shape[1], *x.shape[2:]))
    repeated = [p if p is None else _repeat(p, images, x.shape[1]) for p in (weight, bias)]
    y = ops.batch_norm(rows, *repeated, training=True, eps=eps, statistics=found)
    if found.count and images:
        bessel = found.square.dtype.type(places / (places - 1))
        for running, each in ((running_mean, found.mean), (running_var, found.square * bessel)):
            _replace(running, each.reshape(images, -1).mean(axis=0), momentum)
    return ops.reshape(y, shape=x.shape)


def _repeat(parameter: Any, images: int, channels: int) -> Tensor:
    """(C,) -> (N C,)."""
    if parameter.shape != (channels,):
        raise ShapeError(
            f"expected weight and bias of shape ({channels},), one number a channel, got {parameter.shape}",
            op="instance_norm", shapes=[parameter.shape],
        )  # fmt: skip
    return ops.reshape(ops.expand(parameter, shape=(images, channels)), shape=(images * channels,))


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:  # fmt: skip
    """(x - m) / sqrt(v + eps) w + b, m and v of each group of channels of each image; (N, C, ...) -> same.

    C in num_groups equal parts; weight and bias (C,), in formats as for :func:`layer_norm`.
    """
    arrays = [input, weight, bias]
    while arrays[-1] is None:
        arrays.pop()
    return ops.group_norm(*arrays, num_groups=num_groups, eps=eps)


def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:  # fmt: skip
    """x / (k + alpha mean x^2)^beta, the mean over `size` neighbouring channels; (N, C, ...) -> same.

    Channels beyond the first and last count as zeros (Krizhevsky, Sutskever and Hinton 2012, section 3.3;
    torch divides by the window's size too).
    """
    x = input if isinstance(input, Value) else Value.lift(input, None)
    if len(x.shape) < 3:
        raise ShapeError(f"expected x (N, C, ...), got {x.shape}", op="local_response_norm", shapes=[x.shape])
    square = ops.reshape(ops.mul(x, x), shape=(x.shape[0], 1, x.shape[1], math.prod(x.shape[2:])))
    padded = ops.constant_pad_nd(square, pad=(0, 0, size // 2, (size - 1) // 2))
    mean = ops.avg_pool2d(
        padded, kernel=(size, 1), stride=(1, 1), padding=(0, 0), ceil_mode=False, count_include_pad=True
    )
    return ops.div(x, ops.pow_(ops.add(ops.mul(ops.reshape(mean, shape=x.shape), alpha), k), beta))


def vector_norm(
    x: Any,
    ord: float = 2,  # noqa: A002 - torch's name
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """(sum |x|^ord)^(1/ord) over `dim`, all axes if None (torch.linalg.vector_norm).

    Args:
        x: a floating tensor.
        ord: p of the norm. inf takes the largest |x|, -inf the smallest, 0 counts what is not 0.
        dim, keepdim: the axes, and whether they stay, of length 1.
        dtype: the format computed in and of the result; at least as wide as x's.
    """
    dims = dim if dim is None or isinstance(dim, int) else tuple(dim)
    return ops.linalg_vector_norm(x, p=ord, dim=dims, keepdim=keepdim, dtype=format_or_none(dtype))
