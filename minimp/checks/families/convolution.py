"""Convolutions beside conv2d, and the gradients of conv2d and of pools as ops of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks import reference, windows
from minimp.checks.bounds import Program
from minimp.checks.case import Case, Rule
from minimp.checks.gradients import Rules
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


def _geometry(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("stride", "padding", "dilation", "groups")}


# ---- the gradients of conv2d ------------------------------------------------------------------------------


def conv2d_input(grad: Array, weight: Array, **options: Any) -> Array:
    """dx[n, c, s i + d u - p, ...] += g[n, o, i, j] w[o, c, u, v]."""
    return windows.spread(grad, weight, **options)


def conv2d_weight(x: Array, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> Array:
    """dw[o, c, u, v] = sum over n, i, j of g[n, o, i, j] x[n, c, s i + d u - p, s j + d v - p]."""
    dw = np.zeros(shape)
    (sh, sw), (dh, dw_), groups = geometry["stride"], geometry["dilation"], geometry["groups"]
    padded, (rows, columns) = reference.pad(x, geometry["padding"]), grad.shape[2:]
    for o, c in np.ndindex(*shape[:2]):
        image = padded[:, o // (shape[0] // groups) * shape[1] + c]
        for u, v in np.ndindex(*shape[2:]):
            seen = image[:, u * dh :: sh, v * dw_ :: sw][:, :rows, :columns]
            dw[o, c, u, v] = np.sum(grad[:, o] * seen)
    return dw


def _conv2d_input(grad: Running, weight: Running, *, shape: Any, **geometry: Any) -> Running:
    return windows.transposed(grad, weight, shape, geometry)


def _conv2d_weight(x: Running, grad: Running, *, shape: Any, **geometry: Any) -> Running:
    return windows.correlation(grad, x, shape, geometry)


def _convolved(x: Running, weight: Running, geometry: Mapping[str, Any]) -> Running:
    """A convolution of two running numbers, not yet rounded."""
    terms = math.prod(weight.exact.shape[1:])
    return x.product(weight, lambda a, b: reference.conv2d(a, b, **geometry), terms)


def _input_grad(c: Case) -> Running:
    return _convolved(c.grad, c.number(1), _geometry(c.options)).rounded()


def _input_weight(c: Case) -> Running:
    return windows.correlation(c.number(0), c.grad, c.shape(1), _geometry(c.options)).rounded()


def _weight_x(c: Case) -> Running:
    return windows.transposed(c.number(1), c.grad, c.shape(0), _geometry(c.options)).rounded()


def _weight_grad(c: Case) -> Running:
    return _convolved(c.number(0), c.grad, _geometry(c.options)).rounded()


# ---- one axis, and transposed -----------------------------------------------------------------------------


def conv1d(x: Array, weight: Array, bias: Array | None = None, **options: Any) -> Array:
    """y[n, o, j] = sum over c, v of w[o, c, v] x[n, c, s j + d v - p], plus b[o]."""
    (stride,), (padding,), (dilation,), groups = (_completed(options)[name] for name in NAMES)
    padded = np.pad(x, [(0, 0), (0, 0), (padding, padding)])
    filters, channels, taps = weight.shape
    length = (padded.shape[2] - dilation * (taps - 1) - 1) // stride + 1
    y = np.zeros((len(x), filters, length))
    for o, c, v in np.ndindex(filters, channels, taps):
        seen = padded[:, o // (filters // groups) * channels + c, v * dilation :: stride][:, :length]
        y[:, o] += weight[o, c, v] * seen
    return y if bias is None else y + bias[:, None]


NAMES = ("stride", "padding", "dilation", "groups")


def _completed(options: Mapping[str, Any], axes: int = 1) -> dict[str, Any]:
    """The geometry with what was left out."""
    plain = {"stride": (1,) * axes, "padding": (0,) * axes, "dilation": (1,) * axes, "groups": 1}
    return {name: options.get(name, plain[name]) for name in NAMES}


def _planar(options: Mapping[str, Any], axes: int) -> dict[str, Any]:
    """The geometry of images; that of signals is of images of height 1."""
    held = _completed(options, axes)
    if axes == 1:
        neutral = {"stride": 1, "padding": 0, "dilation": 1}
        held |= {name: (value, *held[name]) for name, value in neutral.items()}
    return held


def _image(x: Running, axes: int) -> Running:
    return x if axes == 2 else x.move(lambda a: a[:, :, None])


def _conv1d(x: Running, weight: Running, bias: Running | None = None, **options: Any) -> Running:
    y = _convolved(_image(x, 1), _image(weight, 1), _planar(options, 1)).move(lambda a: a[:, :, 0])
    return y if bias is None else y + bias.move(lambda b: b[:, None])


def _conv1d_x(c: Case) -> Running:
    n, channels, length = c.shape(0)
    found = windows.transposed(
        _image(c.grad, 1), _image(c.number(1), 1), (n, channels, 1, length), _planar(c.options, 1)
    )
    return found.move(lambda a: a[:, :, 0]).rounded()


def _conv1d_weight(c: Case) -> Running:
    out, channels, taps = c.shape(1)
    found = windows.correlation(
        _image(c.grad, 1), _image(c.number(0), 1), (out, channels, 1, taps), _planar(c.options, 1)
    )
    return found.move(lambda a: a[:, :, 0]).rounded()


def _bias(c: Case) -> Running:
    return c.grad.sum((0, *range(2, c.grad.exact.ndim))).rounded()


def conv_transpose(x: Array, weight: Array, bias: Array | None = None, **options: Any) -> Array:
    """y[n, o, s i + d u - p, ...] += x[n, c, i, ...] w[c, o, u, ...], plus b[o]; along one axis or two."""
    axes = x.ndim - 2
    held, extra = _completed(options, axes), options.get("output_padding", (0,) * axes)
    parts = list(zip(x.shape[2:], weight.shape[2:], held["stride"], held["dilation"], strict=True))
    reach = [(n - 1) * s + d * (k - 1) + 1 for n, k, s, d in parts]
    ends = [n - 2 * p + e for n, p, e in zip(reach, held["padding"], extra, strict=True)]
    group, filters = len(weight) // held["groups"], weight.shape[1]
    y = np.zeros((len(x), filters * held["groups"], *(n + e for n, e in zip(reach, extra, strict=True))))
    for c, o in np.ndindex(*weight.shape[:2]):
        for tap in np.ndindex(*weight.shape[2:]):
            where = tuple(
                slice(u * d, u * d + (n - 1) * s + 1, s) for u, (n, _, s, d) in zip(tap, parts, strict=True)
            )
            y[:, c // group * filters + o, *where] += x[:, c] * weight[(c, o, *tap)]
    kept = tuple(slice(p, p + n) for p, n in zip(held["padding"], ends, strict=True))
    y = y[:, :, *kept]
    return y if bias is None else y + bias.reshape(-1, *(1,) * axes)


def _conv_transpose(axes: int) -> Program:
    def program(x: Running, weight: Running, bias: Running | None = None, **options: Any) -> Running:
        held, extra = _planar(options, axes), (0, *options.get("output_padding", (0,) * axes))[-2:]
        x, weight = _image(x, axes), _image(weight, axes)
        size = [
            (n - 1) * s - 2 * p + d * (k - 1) + e + 1
            for n, k, s, p, d, e in zip(
                x.exact.shape[2:], weight.exact.shape[2:], held["stride"], held["padding"], held["dilation"],
                extra, strict=True,
            )
        ]  # fmt: skip
        shape = (x.exact.shape[0], weight.exact.shape[1] * held["groups"], *size)
        y = windows.transposed(x, weight, shape, held)
        y = y if axes == 2 else y.move(lambda a: a[:, :, 0])
        return y if bias is None else y + bias.move(lambda b: b.reshape(-1, *(1,) * axes))

    return program


def _transpose_x(axes: int) -> Rule:
    def rule(c: Case) -> Running:
        rows, columns = (1, *c.shape(0)[2:])[-2:]
        y = _convolved(_image(c.grad, axes), _image(c.number(1), axes), _planar(c.options, axes))
        y = y.move(lambda a: a[:, :, :rows, :columns])  # output_padding may leave room for one more
        return (y if axes == 2 else y.move(lambda a: a[:, :, 0])).rounded()

    return rule


def _transpose_weight(axes: int) -> Rule:
    def rule(c: Case) -> Running:
        shape = c.shape(1) if axes == 2 else (*c.shape(1)[:2], 1, c.shape(1)[2])
        held = _planar(c.options, axes)
        y = windows.correlation(_image(c.number(0), axes), _image(c.grad, axes), shape, held)
        extra = (0, *c.options.get("output_padding", (0,) * axes))[-2:]
        longer = any(e >= s for e, s in zip(extra, held["stride"], strict=True))
        if longer and not np.isfinite(c.grad.exact).all():  # what the windows do not reach meets zeros
            y = replace(y, error=np.full_like(y.error, np.inf))
        return (y if axes == 2 else y.move(lambda a: a[:, :, 0])).rounded()

    return rule


# ---- the gradients of pools -------------------------------------------------------------------------------


def max_pool2d_input(grad: Array, index: Array, *, shape: tuple[int, ...], **options: Any) -> Array:
    """Each g to the element that its window took."""
    dx, width = np.zeros(shape), options["kernel"][1]
    dilation = options.get("dilation", (1, 1))
    for n, c, i, j in np.ndindex(*grad.shape):
        tap = divmod(int(index[n, c, i, j]), width)
        row, column = (
            at * s + t * d - p
            for at, s, t, d, p in zip(
                (i, j), options["stride"], tap, dilation, options["padding"], strict=True
            )
        )
        dx[n, c, row, column] += grad[n, c, i, j]
    return dx


def _max_pool2d_input(grad: Running, index: Array, *, shape: Any, **options: Any) -> Running:
    chosen = index[..., None] == np.arange(math.prod(options["kernel"]))
    return windows.add_windows(grad, shape, options, lambda a: np.where(chosen, a[..., None], 0.0))


def _max_taken(c: Case) -> Running:
    """What the image-shaped gradient has at the elements that were taken."""
    index, width = c.inputs[1].astype(np.int64), c.options["kernel"][1]
    dilation = c.options.get("dilation", (1, 1))
    rows, columns = (
        np.arange(n)[shape] * s + tap * d - p
        for n, shape, s, tap, d, p in zip(
            index.shape[2:], ((slice(None), None), (slice(None),)), c.options["stride"],
            np.divmod(index, width), dilation, c.options["padding"], strict=True,
        )
    )  # fmt: skip
    batch, channels = np.arange(index.shape[0])[:, None, None, None], np.arange(index.shape[1])[:, None, None]
    return c.grad.move(lambda a: a[batch, channels, rows, columns])


def avg_pool2d_input(grad: Array, *, shape: tuple[int, ...], **options: Any) -> Array:
    """Each g over its window's count to each of its elements inside the image."""
    dx, share = np.zeros(shape), grad / reference.pool_counts(shape, options)
    for i, j in np.ndindex(*grad.shape[2:]):
        where = [
            slice(max(0, at * s - p), max(0, at * s - p + k))
            for at, s, p, k in zip(
                (i, j), options["stride"], options["padding"], options["kernel"], strict=True
            )
        ]
        dx[:, :, *where] += share[:, :, i, j, None, None]
    return dx


def _avg_pool2d_input(grad: Running, *, shape: Any, **options: Any) -> Running:
    share = grad / grad.at.number(reference.pool_counts(shape, options))
    return windows.add_windows(share, shape, options, windows.each_tap(options))


def _avg_taken(c: Case) -> Running:
    options = {name: value for name, value in c.options.items() if name != "shape"}
    added = c.grad.gather(lambda a: reference.pool_sums(a, options), math.prod(options["kernel"]))
    return (added / c.at.number(reference.pool_counts(c.options["shape"], options))).rounded()


REFERENCE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "avg_pool2d_input": avg_pool2d_input,
        "conv1d": conv1d,
        "conv2d_input": conv2d_input,
        "conv2d_weight": conv2d_weight,
        "conv_transpose1d": conv_transpose,
        "conv_transpose2d": conv_transpose,
        "max_pool2d_input": max_pool2d_input,
    }
)
BOUNDS: Mapping[str, Mapping[str, Program]] = MappingProxyType(
    {
        "dot": {
            "conv1d": _conv1d,
            "conv2d_input": _conv2d_input,
            "conv2d_weight": _conv2d_weight,
            "conv_transpose1d": _conv_transpose(1),
            "conv_transpose2d": _conv_transpose(2),
        },
        "sum": {"avg_pool2d_input": _avg_pool2d_input, "max_pool2d_input": _max_pool2d_input},
    }
)
GRADIENTS: Mapping[str, Rules] = MappingProxyType(
    {
        "avg_pool2d_input": (_avg_taken,),
        "conv1d": (_conv1d_x, _conv1d_weight, _bias),
        "conv2d_input": (_input_grad, _input_weight),
        "conv2d_weight": (_weight_x, _weight_grad),
        "conv_transpose1d": (_transpose_x(1), _transpose_weight(1), _bias),
        "conv_transpose2d": (_transpose_x(2), _transpose_weight(2), _bias),
        "max_pool2d_input": (_max_taken,),
    }
)
