"""Pools: maxima of codes, and their means by whole numbers of steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.quant.onnx_export.graph import Graph
from minimp.quant.onnx_export.tracing import Site

__all__ = ["adaptive_avg_pool2d", "avg_pool2d", "max_pool2d"]

MOST_STEPS = 2**24 // 255
"""Elements of a window whose sum of steps float32 holds exactly."""


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple | list) else [value, value]


def _ends(site: Site, kernel: list[int], stride: list[int], padding: list[int], gap: list[int]) -> list[int]:
    """Return the padding at the far sides with which windows end where the last one of the output does.

    ONNX's ceil_mode is left out: windows that reach over the edge are a longer padding there.
    """
    sizes = zip(site.inputs[0].shape[2:], site.output.shape[2:], kernel, stride, padding, gap, strict=True)
    return [max((made - 1) * s + d * (k - 1) + 1 - n - p, p) for n, made, k, s, p, d in sizes]


def max_pool2d(graph: Graph, module: Any, site: Site) -> None:
    """MaxPool of numbers of steps."""
    kernel_size, stride, padding, dilation, _ = module.window
    kernel, gap, pads = _pair(kernel_size), _pair(dilation), _pair(padding)
    steps = kernel if stride is None else _pair(stride)
    y = graph.node(
        "MaxPool", [graph.values(site.inputs[0])], f"{site.name}/largest", kernel_shape=kernel, strides=steps,
        dilations=gap, pads=[*pads, *_ends(site, kernel, steps, pads, gap)],
    )  # fmt: skip
    before = graph.codes(site.inputs[0])
    graph.back(y, site, before)


def avg_pool2d(graph: Graph, module: Any, site: Site) -> None:
    """AveragePool of numbers of steps.

    Padding that counts is made by Pad; a window that reaches beyond it is longer than its count, as in torch.
    """
    kernel_size, stride, padding, _, counted = module.window
    kernel, pads = _pair(kernel_size), _pair(padding)
    _check_window(site, kernel)
    steps = kernel if stride is None else _pair(stride)
    ends = _ends(site, kernel, steps, pads, [1, 1])
    x = graph.steps(site.inputs[0])
    if counted and any(pads):
        sides = graph.constant(f"{site.path}.padding", np.array([0, 0, *pads, 0, 0, *pads], np.int64))
        x = graph.node("Pad", [x, sides], f"{site.name}/padded")
        ends, pads = [end - pad for end, pad in zip(ends, pads, strict=True)], [0, 0]
    y = graph.node(
        "AveragePool", [x], f"{site.name}/mean", kernel_shape=kernel, strides=steps, pads=[*pads, *ends],
        count_include_pad=0,
    )  # fmt: skip
    graph.requantize(_rounded(graph, module, site, y), site)


def adaptive_avg_pool2d(graph: Graph, module: Any, site: Site) -> None:
    """GlobalAveragePool, AveragePool where all windows are of one size, else a mean of each window."""
    x, sizes, made = graph.steps(site.inputs[0]), site.inputs[0].shape[2:], site.output.shape[2:]
    if made == (1, 1):
        _check_window(site, list(sizes))
        y = graph.node("GlobalAveragePool", [x], f"{site.name}/mean")
    elif all(n % m == 0 for n, m in zip(sizes, made, strict=True)):
        kernel = [n // m for n, m in zip(sizes, made, strict=True)]
        _check_window(site, kernel)
        y = graph.node("AveragePool", [x], f"{site.name}/mean", kernel_shape=kernel, strides=kernel)
    else:
        y = _windows(graph, site, x)
    graph.requantize(_rounded(graph, module, site, y), site)


def _windows(graph: Graph, site: Site, x: str) -> str:
    """Cut out every window, and join their means."""
    rows, columns = (
        [(i * n // m, -((i + 1) * -n // m)) for i in range(m)]
        for n, m in zip(site.inputs[0].shape[2:], site.output.shape[2:], strict=True)
    )
    axes = graph.constant("axes:2,3", np.array([2, 3], np.int64))
    lines = []
    for i, (top, bottom) in enumerate(rows):
        means = []
        for j, (left, right) in enumerate(columns):
            _check_window(site, [bottom - top, right - left])
            ends = [
                graph.constant(f"at:{a},{b}", np.array([a, b], np.int64))
                for a, b in ((top, left), (bottom, right))
            ]
            part = graph.node("Slice", [x, *ends, axes], f"{site.name}/window_{i}_{j}")
            means.append(graph.node("GlobalAveragePool", [part], f"{site.name}/mean_{i}_{j}"))
        lines.append(graph.node("Concat", means, f"{site.name}/row_{i}", axis=3))
    return graph.node("Concat", lines, f"{site.name}/mean", axis=2)


def _rounded(graph: Graph, module: Any, site: Site, mean: str) -> str:
    """Return the means as they are, or for fixed-point as whole numbers, rounded as a code away from zero."""
    if module.mode == "float":
        return mean
    zero = graph.constant(f"zero:{int(graph.codes(site.inputs[0]).affine.zero_point)}",
                          graph.codes(site.inputs[0]).affine.zero_point.astype(np.float32))  # fmt: skip
    name = f"{site.name}/mean"
    code = graph.node("Add", [mean, zero], f"{name}_code")
    size = graph.node("Abs", [code], f"{name}_size")
    up = graph.node("Add", [size, graph.constant("half", np.float32(0.5))], f"{name}_size_and_half")
    whole = graph.node("Mul", [graph.node("Floor", [up], f"{name}_whole"),
                               graph.node("Sign", [code], f"{name}_sign")], f"{name}_rounded")  # fmt: skip
    return graph.node("Sub", [whole, zero], f"{name}_steps")


def _check_window(site: Site, kernel: list[int]) -> None:
    if kernel[0] * kernel[1] > MOST_STEPS:
        raise SettingError(
            f"'{site.path}' takes means of {kernel[0]} x {kernel[1]} codes, whose sum float32 does not hold",
            op="export_onnx", help=f"take windows of at most {MOST_STEPS} codes",
        )  # fmt: skip
