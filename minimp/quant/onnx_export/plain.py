"""How modules that stay in floats are written: before, between and behind codes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp import nn
from minimp.errors import SettingError
from minimp.nn.module import Module
from minimp.quant.onnx_export.graph import Graph
from minimp.quant.onnx_export.moving import joined
from minimp.quant.onnx_export.pools import largest, mean, numbers
from minimp.quant.onnx_export.qdq import Writer
from minimp.quant.onnx_export.tracing import Site, array_of

__all__ = ["FLOATS"]

LEAST_THRESHOLD = 16
"""From here on ln(1 + e^x) is x to the last bit of float32: ln(1 + e^-16) is less than half a step at 16."""


def _plain(op: str, *settings: tuple[str, str]) -> Writer:
    """Return a row of one operator; settings are (ONNX's name, the module's)."""

    def write(graph: Graph, module: Any, site: Site) -> None:
        attributes = {name: getattr(module, ours) for name, ours in settings}
        x = graph.floats(site.inputs[0])
        graph.put_floats(site.output, graph.node(op, [x], graph.result_name(site, "floats"), **attributes))

    return write


def _linear(graph: Graph, module: Any, site: Site) -> None:
    """MatMul by the turned weight, and Add."""
    x, name = graph.floats(site.inputs[0]), graph.result_name(site, "floats")
    weight = graph.constant(f"{site.path}.weight:T", array_of(module.weight).T)
    if module.bias is None:
        y = graph.node("MatMul", [x, weight], name)
    else:
        bias = graph.constant(f"{site.path}.bias", array_of(module.bias))
        y = graph.node("Add", [graph.node("MatMul", [x, weight], f"{site.name}/products"), bias], name)
    graph.put_floats(site.output, y)


def _convolution(graph: Graph, module: Any, site: Site) -> None:
    """Conv."""
    if module.padding_mode != "zeros":
        raise SettingError(
            f"'{site.path}' pads by {module.padding_mode!r}, and Conv by zeros", op="export_onnx",
            help="put a border before it, as a module of its own",
        )  # fmt: skip
    sides = module._sides()[::-1]
    inputs = [graph.floats(site.inputs[0]), graph.constant(f"{site.path}.weight", array_of(module.weight))]
    if module.bias is not None:
        inputs.append(graph.constant(f"{site.path}.bias", array_of(module.bias)))
    y = graph.node(
        "Conv", inputs, graph.result_name(site, "floats"), group=module.groups,
        strides=numbers(module.stride, module.axes), dilations=numbers(module.dilation, module.axes),
        pads=[*sides[1::2], *sides[::2]], kernel_shape=list(module.weight.shape[2:]),
    )  # fmt: skip
    graph.put_floats(site.output, y)


def _flatten(graph: Graph, module: Any, site: Site) -> None:
    """Flatten or Reshape."""
    x, name = graph.floats(site.inputs[0]), graph.result_name(site, "floats")
    graph.put_floats(site.output, joined(graph, module, site, x, name))


def _max_pool(graph: Graph, module: Any, site: Site) -> None:
    """MaxPool."""
    x, name = graph.floats(site.inputs[0]), graph.result_name(site, "floats")
    window = (module.kernel_size, module.stride, module.padding, module.dilation)
    graph.put_floats(site.output, largest(graph, site, x, module.axes, window, name))


def _avg_pool(graph: Graph, module: Any, site: Site) -> None:
    """AveragePool, what is counted as in torch."""
    x, name = graph.floats(site.inputs[0]), graph.result_name(site, "floats")
    window = (module.kernel_size, module.stride, module.padding)
    counted = bool(module.count_include_pad)
    graph.put_floats(site.output, mean(graph, site, x, module.axes, window, counted, name))


def _softplus(graph: Graph, module: Any, site: Site) -> None:
    """Softplus, of beta x and divided by beta, where beta is not 1."""
    if module.threshold < LEAST_THRESHOLD:
        raise SettingError(
            f"'{site.path}' is x itself from {module.threshold} on, and Softplus nowhere", op="export_onnx",
            help=f"take a threshold of at least {LEAST_THRESHOLD}",
        )  # fmt: skip
    x, name = graph.floats(site.inputs[0]), graph.result_name(site, "floats")
    if module.beta == 1:
        y = graph.node("Softplus", [x], name)
    else:
        beta = graph.constant(f"{site.path}.beta", np.float32(module.beta))
        scaled = graph.node("Mul", [x, beta], f"{site.name}/scaled")
        y = graph.node("Div", [graph.node("Softplus", [scaled], f"{site.name}/curved"), beta], name)
    graph.put_floats(site.output, y)


FLOATS: Mapping[type[Module], Writer] = MappingProxyType(
    {
        nn.Linear: _linear,
        **dict.fromkeys((nn.Conv1d, nn.Conv2d), _convolution),
        nn.ReLU: _plain("Relu"),
        nn.Sigmoid: _plain("Sigmoid"),
        nn.Tanh: _plain("Tanh"),
        nn.Softplus: _softplus,
        nn.Softmax: _plain("Softmax", ("axis", "dim")),
        nn.LogSoftmax: _plain("LogSoftmax", ("axis", "dim")),
        nn.Flatten: _flatten,
        **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d), _max_pool),
        **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d), _avg_pool),
    }
)
"""Class of a float module -> what adds its nodes."""
