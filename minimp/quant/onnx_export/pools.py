"""Pools: maxima of codes, and their means by whole numbers of steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.quant.onnx_export.graph import Graph
from minimp.quant.onnx_export.tracing import Site

__all__ = ["adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "largest", "max_pool", "mean", "numbers"]

MOST_STEPS = 2**24 // 255
"""Elements of a window whose sum of steps float32 holds exactly."""


def numbers(value: Any, axes: int) -> list[int]:
    """Return a number for each axis."""
    return list(value) if isinstance(value, tuple | list) else [value] * axes


def _windows_of(site: Site, axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the lengths of the input and of the output along the axes that windows move over."""
    before, after = site.inputs[0].shape, site.output.shape
    if len(before) != axes + 2:
        raise SettingError(
            f"'{site.path}' took {before}, without a batch", op="export_onnx",
            help="give an example with a batch axis",
        )  # fmt: skip
    return before[2:], after[2:]


def _ends(site: Site, kernel: list[int], stride: list[int], padding: list[int], gap: list[int]) -> list[int]:
    """Return the padding at the far sides with which windows end where the last one of the output does.

    ONNX's ceil_mode is left out: windows that reach over the edge are a longer padding there.
    """
    sizes = zip(*_windows_of(site, len(kernel)), kernel, stride, padding, gap, strict=True)
    return [max((made - 1) * s + d * (k - 1) + 1 - n - p, p) for n, made, k, s, p, d in sizes]


def max_pool(graph: Graph, module: Any, site: Site) -> None:
    """MaxPool of numbers, between a DequantizeLinear and a QuantizeLinear of one scale."""
    x = graph.values(site.inputs[0])
    y = largest(graph, site, x, module.axes, module.window[:4], f"{site.name}/largest")
    graph.back(y, site, graph.codes(site.inputs[0]))


def largest(graph: Graph, site: Site, x: str, axes: int, window: Sequence[Any], output: str) -> str:
    """Return the largest of windows of numbers; `window` is kernel, stride, padding and dilation."""
    kernel, stride, padding, dilation = (
        numbers(window[0] if each is None else each, axes) for each in window
    )
    ends = _ends(site, kernel, stride, padding, dilation)
    pads = [*padding, *ends]
    return graph.node(
        "MaxPool", [x], output, kernel_shape=kernel, strides=stride, dilations=dilation, pads=pads
    )


def avg_pool(graph: Graph, module: Any, site: Site) -> None:
    """AveragePool of numbers of steps.

    Where windows reach beyond padding that counts, by ceil_mode, it is made by Pad, so that what is beyond
    does not count, as in torch.
    """
    window, x = module.window, graph.steps(site.inputs[0])
    _check_window(site, numbers(window[0], module.axes))
    y = mean(graph, site, x, module.axes, window[:3], window[4], f"{site.name}/mean")
    graph.requantize(_rounded(graph, module, site, y), site)


def mean(
    graph: Graph, site: Site, x: str, axes: int, window: Sequence[Any], counted: bool, output: str
) -> str:
    """Return the means of windows; `window` is kernel, stride and padding, which may count."""
    kernel, stride, pads = (numbers(window[0] if each is None else each, axes) for each in window)
    ends = _ends(site, kernel, stride, pads, [1] * axes)
    beyond = ends != pads
    if counted and any(pads) and beyond:
        sides = graph.constant(f"{site.path}.padding", np.array([0, 0, *pads, 0, 0, *pads], np.int64))
        x = graph.node("Pad", [x, sides], f"{site.name}/padded")
        ends, pads = [end - pad for end, pad in zip(ends, pads, strict=True)], [0] * axes
    return graph.node(
        "AveragePool", [x], output, kernel_shape=kernel, strides=stride, pads=[*pads, *ends],
        count_include_pad=int(counted and not beyond),
    )  # fmt: skip


def adaptive_avg_pool(graph: Graph, module: Any, site: Site) -> None:
    """The means of windows of numbers of steps."""
    x = graph.steps(site.inputs[0])
    y = _adaptive(graph, module, site, x, "AveragePool")
    graph.requantize(_rounded(graph, module, site, y), site)


def adaptive_max_pool(graph: Graph, module: Any, site: Site) -> None:
    """The largest of windows of numbers."""
    y = _adaptive(graph, module, site, graph.values(site.inputs[0]), "MaxPool")
    graph.back(y, site, graph.codes(site.inputs[0]))


def _adaptive(graph: Graph, module: Any, site: Site, x: str, pool: str) -> str:
    """Return one number of each window: by one pool where they are of one size, else cut out one by one."""
    sizes, made = _windows_of(site, module.axes)
    if all(n % m == 0 for n, m in zip(sizes, made, strict=True)):
        kernel = [n // m for n, m in zip(sizes, made, strict=True)]
        _check_window(site, kernel)
        if pool == "AveragePool" and set(made) == {1}:
            return graph.node("GlobalAveragePool", [x], f"{site.name}/pooled")
        return graph.node(pool, [x], f"{site.name}/pooled", kernel_shape=kernel, strides=kernel)
    spans = [[(i * n // m, -((i + 1) * -n // m)) for i in range(m)] for n, m in zip(sizes, made, strict=True)]
    axes = graph.constant(f"axes:{2}..{1 + len(sizes)}", np.arange(2, 2 + len(sizes)))
    parts = {
        at: _cut(graph, site, x, axes, pool, at, [span[i] for span, i in zip(spans, at, strict=True)])
        for at in itertools.product(*(range(m) for m in made))
    }
    for axis in reversed(range(len(made))):
        lines = list(itertools.product(*(range(m) for m in made[:axis])))
        parts = {
            at: graph.node("Concat", [parts[*at, i] for i in range(made[axis])], _name(site, "pooled", at),
                           axis=2 + axis)
            for at in lines
        }  # fmt: skip
    return parts[()]


def _name(site: Site, what: str, at: Sequence[int]) -> str:
    return "_".join([f"{site.name}/{what}", *map(str, at)])


def _cut(
    graph: Graph, site: Site, x: str, axes: str, pool: str, at: tuple[int, ...], spans: list[tuple[int, int]]
) -> str:
    """Return one number of one window."""
    kernel = [end - start for start, end in spans]
    _check_window(site, kernel)
    corners = zip(*spans, strict=True)
    ends = [graph.constant(f"at:{','.join(map(str, each))}", np.array(each, np.int64)) for each in corners]
    part = graph.node("Slice", [x, *ends, axes], _name(site, "window", at))
    return graph.node(pool, [part], _name(site, "part", at), kernel_shape=kernel, strides=kernel)


def _rounded(graph: Graph, module: Any, site: Site, mean: str) -> str:
    """Return the means as they are, or for fixed-point as whole numbers, rounded as a code away from zero."""
    if module.mode == "float":
        return mean
    point = graph.codes(site.inputs[0]).affine.zero_point
    zero = graph.constant(f"zero:{int(point)}", point.astype(np.float32))
    name = f"{site.name}/mean"
    code = graph.node("Add", [mean, zero], f"{name}_code")
    size = graph.node("Abs", [code], f"{name}_size")
    up = graph.node("Add", [size, graph.constant("half", np.float32(0.5))], f"{name}_size_and_half")
    parts = [graph.node("Floor", [up], f"{name}_whole"), graph.node("Sign", [code], f"{name}_sign")]
    return graph.node("Sub", [graph.node("Mul", parts, f"{name}_rounded"), zero], f"{name}_steps")


def _check_window(site: Site, kernel: list[int]) -> None:
    if math.prod(kernel) > MOST_STEPS:
        raise SettingError(
            f"'{site.path}' takes means of {math.prod(kernel)} codes, whose sum float32 does not hold",
            op="export_onnx", help=f"take windows of at most {MOST_STEPS} codes",
        )  # fmt: skip
