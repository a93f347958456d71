"""How each module is written in QDQ form: floats between DequantizeLinear and QuantizeLinear.

=====================  =====================================================================================
linear, convolution    Gemm (MatMul where there are other axes) or Conv on s_x (q - z_x), s_w (p - z_w) and
                       s_x s_w times the int32 bias
Add, Cat               the same on s_i (q_i - z_i); codes that have the output's scale are joined as they are
ReLU                   Relu before QuantizeLinear: codes grow with numbers, and 0 has the code z, so that
                       the code of max(y, 0) is max(code of y, z)
MaxPool                on s (q - z), and back by the same s and z, which gives every code again
mean pools             on q - z, by scale 1: sums of whole numbers below 2^24 are exact in float32, and a mean
                       is a tie only where it is one. By s, a quarter of all 2 x 2 windows would be ties that
                       the roundings of s q decide
Flatten                on the codes
fewer codes than 256   QuantizeLinear saturates to the byte, Clip to the codes
=====================  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.modules import (
    DeQuantize,
    Quantize,
    QuantizedAdaptiveAvgPool2d,
    QuantizedAdd,
    QuantizedAvgPool2d,
    QuantizedCat,
    QuantizedConv2d,
    QuantizedFlatten,
    QuantizedLinear,
    QuantizedMaxPool2d,
    QuantizedReLU,
)
from minimp.quant.onnx_export.graph import Codes, Graph
from minimp.quant.onnx_export.pools import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from minimp.quant.onnx_export.tracing import Site, array_of

__all__ = ["QDQ", "Writer", "biased", "conv_attributes", "flatten", "weight_codes"]

Writer = Callable[[Graph, Any, Site], None]
"""Adds a call's nodes to a graph: (graph, module, call)."""


def quantize(graph: Graph, module: Any, site: Site) -> None:
    """QuantizeLinear."""
    del module
    graph.quantize(graph.floats(site.inputs[0]), site)


def dequantize(graph: Graph, module: Any, site: Site) -> None:
    """DequantizeLinear, under the name of the model's result where it is one."""
    del module
    codes = graph.codes(site.inputs[0])
    name = graph.result_name(site, "floats")
    graph.put_floats(
        site.output, graph.node("DequantizeLinear", [codes.name, codes.scale, codes.zero_point], name)
    )


def weight_codes(graph: Graph, module: Any, site: Site, *, turned: bool = False) -> tuple[str, str, str]:
    """Hold the codes of a weight, (O, ...), or (I, O) if turned; return their names and those of s_w, z_w."""
    affine: Affine = module.kept("weight_")
    codes = array_of(module.weight)
    path = f"{site.path}.weight"
    name = graph.constant(f"{path}:T" if turned else path, codes.T if turned else codes)
    scale, zero = graph.numbers(site.path, "weight_", affine)
    return name, scale, zero


def _weight(graph: Graph, module: Any, site: Site, *, turned: bool = False) -> str:
    """Return the name of a weight as numbers."""
    names = weight_codes(graph, module, site, turned=turned)
    axis = {"axis": 1 if turned else 0} if module.kept("weight_").per_channel else {}
    return graph.node("DequantizeLinear", names, f"{names[0]}/values", **axis)


def _bias(graph: Graph, module: Any, site: Site) -> str:
    """Return the name of a bias as numbers, s_x s_w b."""
    steps = graph.constant(f"{site.path}.bias", array_of(module.bias))
    x, w = module.kept("input_"), module.kept("weight_")
    scale = graph.constant(f"{site.path}.bias_scale", x.scale * w.scale)
    axis = {"axis": 0} if w.per_channel else {}
    return graph.node("DequantizeLinear", [steps, scale], f"{site.path}.bias/values", **axis)


def biased(graph: Graph, module: Any, site: Site, name: str) -> str:
    """Add a Relu where the module has one."""
    return graph.node("Relu", [name], f"{site.name}/relu") if module.relu else name


def linear(graph: Graph, module: Any, site: Site) -> None:
    """Gemm on matrices, else MatMul and Add."""
    x, flat = graph.values(site.inputs[0]), len(site.inputs[0].shape) == 2
    weight = _weight(graph, module, site, turned=not flat)
    bias = [] if module.bias is None else [_bias(graph, module, site)]
    if flat:
        y = graph.node("Gemm", [x, weight, *bias], f"{site.name}/sums", transB=1)
    else:
        y = graph.node("MatMul", [x, weight], f"{site.name}/{'products' if bias else 'sums'}")
        y = graph.node("Add", [y, *bias], f"{site.name}/sums") if bias else y
    graph.quantize(biased(graph, module, site, y), site)


def conv_attributes(module: Any) -> dict[str, Any]:
    """Return the geometry of a convolution in ONNX's words."""
    pair = [list(each) if isinstance(each, tuple | list) else [each, each]
            for each in (module.stride, module.padding, module.dilation)]  # fmt: skip
    return {
        "strides": pair[0], "pads": pair[1] * 2, "dilations": pair[2], "group": module.groups,
        "kernel_shape": list(module.weight.shape[2:]),
    }  # fmt: skip


def conv2d(graph: Graph, module: Any, site: Site) -> None:
    """Conv; its padding is 0, which has the code z_x."""
    inputs = [graph.values(site.inputs[0]), _weight(graph, module, site)]
    if module.bias is not None:
        inputs.append(_bias(graph, module, site))
    y = graph.node("Conv", inputs, f"{site.name}/sums", **conv_attributes(module))
    graph.quantize(biased(graph, module, site, y), site)


def add(graph: Graph, module: Any, site: Site) -> None:
    """Add."""
    y = graph.node("Add", [graph.values(each) for each in site.inputs], f"{site.name}/sums")
    graph.quantize(biased(graph, module, site, y), site)


def cat(graph: Graph, module: Any, site: Site) -> None:
    """Concat of numbers; of codes, where all have the output's scale and zero point."""
    codes = [graph.codes(each) for each in site.inputs]
    affine: Affine = module.kept("")
    if all(each.affine == affine for each in codes):
        joined = graph.node("Concat", [each.name for each in codes], f"{site.name}/codes", axis=module.dim)
        graph.put_codes(site.output, Codes(joined, codes[0].scale, codes[0].zero_point, affine))
        return
    values = [graph.values(each) for each in site.inputs]
    graph.quantize(graph.node("Concat", values, f"{site.name}/sums", axis=module.dim), site)


def relu(graph: Graph, module: Any, site: Site) -> None:
    """Relu between a DequantizeLinear and a QuantizeLinear of one scale."""
    del module
    before = graph.codes(site.inputs[0])
    graph.back(graph.node("Relu", [graph.values(site.inputs[0])], f"{site.name}/relu"), site, before)


def flatten(graph: Graph, module: Any, site: Site) -> None:
    """Flatten of codes, or Reshape where other axes are joined than all but the first."""
    before, shape = graph.codes(site.inputs[0]), site.inputs[0].shape
    first, last = (each % max(len(shape), 1) for each in (module.start_dim, module.end_dim))
    name = f"{site.name}/codes"
    if (first, last) == (1, len(shape) - 1):
        graph.node("Flatten", [before.name], name, axis=1)
    else:
        wanted = [0] * first + [-1] + list(shape[last + 1 :])  # 0: as it is, -1: what is left
        if 0 in shape:
            raise SettingError(
                f"'{site.path}': an example without elements has no shape to keep", op="export_onnx"
            )
        graph.node(
            "Reshape", [before.name, graph.constant(f"{site.name}.shape", np.array(wanted, np.int64))], name
        )
    graph.put_codes(site.output, Codes(name, before.scale, before.zero_point, before.affine))


QDQ: Mapping[type[Module], Writer] = MappingProxyType(
    {
        Quantize: quantize,
        DeQuantize: dequantize,
        QuantizedLinear: linear,
        QuantizedConv2d: conv2d,
        QuantizedAdd: add,
        QuantizedCat: cat,
        QuantizedReLU: relu,
        QuantizedMaxPool2d: max_pool2d,
        QuantizedAvgPool2d: avg_pool2d,
        QuantizedAdaptiveAvgPool2d: adaptive_avg_pool2d,
        QuantizedFlatten: flatten,
    }
)
"""Class of a module on codes -> what adds its nodes."""
