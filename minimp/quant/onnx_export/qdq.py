"""How each module is written in QDQ form: floats between DequantizeLinear and QuantizeLinear.

=====================  =====================================================================================
linear, convolution    Gemm (MatMul where there are other axes), Conv or ConvTranspose on s_x (q - z_x),
                       s_w (p - z_w) and s_x s_w times the int32 bias
Add, Sub, Mul, Cat     the same on s_i (q_i - z_i); codes that have the output's scale are joined as they are
Softmax                Softmax on s (q - z)
ReLU                   Relu before QuantizeLinear: codes grow with numbers, and 0 has the code z, so that
                       the code of max(y, 0) is max(code of y, z)
MaxPool                on s (q - z), and back by the same s and z, which gives every code again
mean pools             on q - z, by scale 1: sums of whole numbers below 2^24 are exact in float32, and a mean
                       is a tie only where it is one. By s, a quarter of all 2 x 2 windows would be ties that
                       the roundings of s q decide
tables                 Gather from 256 codes
Flatten, borders, ...  on the codes
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
from minimp.quant import modules as on_codes
from minimp.quant.affine import Affine
from minimp.quant.modules.layers import turned
from minimp.quant.onnx_export import moving, pools
from minimp.quant.onnx_export.graph import Codes, Graph
from minimp.quant.onnx_export.tracing import Site, array_of

__all__ = [
    "QDQ", "Writer", "conv_attributes", "rectified", "spread", "transposed_attributes", "weight_codes",
]  # fmt: skip

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
    parts = [codes.name, codes.scale, codes.zero_point]
    name = graph.node("DequantizeLinear", parts, graph.result_name(site, "floats"))
    graph.put_floats(site.output, name)


# ---- layers with weights -----------------------------------------------------------------------------------


def weight_codes(graph: Graph, module: Any, site: Site, *, flipped: bool = False) -> tuple[str, str, str]:
    """Hold the codes of a weight, (O, ...), or (I, O) if flipped; return the names of codes, s_w and z_w."""
    codes = array_of(module.weight)
    name = graph.constant(f"{site.path}.weight{':T' * flipped}", codes.T if flipped else codes)
    scale, zero = graph.numbers(site.path, "weight_", module.kept("weight_"))
    return name, scale, zero


def _weight(graph: Graph, module: Any, site: Site, *, flipped: bool = False) -> str:
    """Return the name of a weight as numbers."""
    names = weight_codes(graph, module, site, flipped=flipped)
    axis = {"axis": int(flipped)} if module.kept("weight_").per_channel else {}
    return graph.node("DequantizeLinear", names, f"{names[0]}/values", **axis)


def _bias(graph: Graph, module: Any, site: Site) -> list[str]:
    """Return the name of a bias as numbers, s_x s_w b, if there is one."""
    if module.bias is None:
        return []
    steps = graph.constant(f"{site.path}.bias", array_of(module.bias))
    x, w = module.kept("input_"), module.kept("weight_")
    scale = graph.constant(f"{site.path}.bias_scale", x.scale * w.scale)
    axis = {"axis": 0} if w.per_channel else {}
    return [graph.node("DequantizeLinear", [steps, scale], f"{site.path}.bias/values", **axis)]


def rectified(graph: Graph, module: Any, site: Site, name: str) -> str:
    """Add a Relu where the module has one."""
    return graph.node("Relu", [name], f"{site.name}/relu") if module.relu else name


def linear(graph: Graph, module: Any, site: Site) -> None:
    """Gemm on matrices, else MatMul and Add."""
    x, flat = graph.values(site.inputs[0]), len(site.inputs[0].shape) == 2
    weight, bias = _weight(graph, module, site, flipped=not flat), _bias(graph, module, site)
    if flat:
        y = graph.node("Gemm", [x, weight, *bias], f"{site.name}/sums", transB=1)
    else:
        y = graph.node("MatMul", [x, weight], f"{site.name}/{'products' if bias else 'sums'}")
        y = graph.node("Add", [y, *bias], f"{site.name}/sums") if bias else y
    graph.quantize(rectified(graph, module, site, y), site)


def conv_attributes(module: Any, site: Site) -> dict[str, Any]:
    """Return the geometry of a convolution in ONNX's words."""
    if len(site.inputs[0].shape) != module.axes + 2:
        raise SettingError(
            f"'{site.path}' took {site.inputs[0].shape}, without a batch", op="export_onnx",
            help="give an example with a batch axis",
        )  # fmt: skip
    settings = (module.stride, module.padding, module.dilation)
    stride, padding, dilation = (pools.numbers(each, module.axes) for each in settings)
    return {
        "strides": stride, "pads": padding * 2, "dilations": dilation, "group": module.groups,
        "kernel_shape": list(module.weight.shape[2:]),
    }  # fmt: skip


def convolution(graph: Graph, module: Any, site: Site) -> None:
    """Conv; its padding is 0, which has the code z_x."""
    inputs = [graph.values(site.inputs[0]), _weight(graph, module, site), *_bias(graph, module, site)]
    y = graph.node("Conv", inputs, f"{site.name}/sums", **conv_attributes(module, site))
    graph.quantize(rectified(graph, module, site, y), site)


def transposed_attributes(module: Any, site: Site) -> dict[str, Any]:
    """Return the geometry of one group of a transposed convolution in ONNX's words."""
    extra = pools.numbers(module.output_padding, module.axes)
    return {**conv_attributes(module, site), "group": 1, "output_padding": extra}


def transposed(graph: Graph, module: Any, site: Site) -> None:
    """ConvTranspose of each group of channels."""
    w, bias = module.kept("weight_"), _bias(graph, module, site)
    y = spread(graph, module, site, graph.values(site.inputs[0]), w)
    if bias:
        column = graph.constant(f"shape:-1{',1' * module.axes}", np.array([-1] + [1] * module.axes, np.int64))
        tall = graph.node("Reshape", [bias[0], column], f"{site.path}.bias/column")
        y = graph.node("Add", [y, tall], f"{site.name}/sums")
    graph.quantize(rectified(graph, module, site, y), site)


def spread(graph: Graph, module: Any, site: Site, x: str, affine: Affine, name: str = "weight_") -> str:
    """Add ConvTranspose for each group, on weights of the scale of `affine`, and join what they give.

    (Groups are written one by one: onnx.reference 1.23 takes the wrong weights where O is not C, and leaves
    out outputs where O/G is not 1.)
    """
    codes, groups = array_of(module.weight), module.groups
    attributes, parts, shape = transposed_attributes(module, site), [], codes.shape
    for i in range(groups):
        rows = slice(i * shape[0] // groups, (i + 1) * shape[0] // groups)
        tag = f":{i}" if groups > 1 else ""
        weight = graph.constant(f"{site.path}.weight:T{tag}", turned(codes[rows], 1))
        part = Affine(affine.scale[rows], affine.zero_point[rows], affine.quant_min, affine.quant_max, 0)
        part = part if affine.per_channel else affine
        numbers = graph.numbers(f"{site.path}{tag}", name, part)
        axis = {"axis": 1} if affine.per_channel else {}
        values = graph.node("DequantizeLinear", [weight, *numbers], f"{weight}/values", **axis)
        taken = _group(graph, site, x, i, groups) if groups > 1 else x
        parts.append(graph.node("ConvTranspose", [taken, values], f"{site.name}/products{tag}", **attributes))
    return parts[0] if groups == 1 else graph.node("Concat", parts, f"{site.name}/products", axis=1)


def _group(graph: Graph, site: Site, x: str, i: int, groups: int) -> str:
    """Return the channels of one group."""
    channels = site.inputs[0].shape[1] // groups
    ends = (i * channels, (i + 1) * channels, 1)
    places = [graph.constant(f"at:{each}", np.array([each], np.int64)) for each in ends]
    return graph.node("Slice", [x, *places], f"{site.name}/group_{i}")


# ---- functions of two, and of many -------------------------------------------------------------------------


def of_two(op: str) -> Writer:
    """Return the row of an operator of two numbers."""

    def write(graph: Graph, module: Any, site: Site) -> None:
        y = graph.node(op, [graph.values(each) for each in site.inputs], f"{site.name}/sums")
        graph.quantize(rectified(graph, module, site, y), site)

    return write


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
    y = graph.node("Relu", [graph.values(site.inputs[0])], f"{site.name}/relu")
    graph.back(y, site, graph.codes(site.inputs[0]))


def softmax(graph: Graph, module: Any, site: Site) -> None:
    """Softmax."""
    axis = -1 if module.dim is None else module.dim
    x = graph.values(site.inputs[0])
    graph.quantize(graph.node("Softmax", [x], f"{site.name}/shares", axis=axis), site)


QDQ: Mapping[type[Module], Writer] = MappingProxyType(
    {
        on_codes.Quantize: quantize,
        on_codes.DeQuantize: dequantize,
        on_codes.QuantizedLinear: linear,
        **dict.fromkeys((on_codes.QuantizedConv1d, on_codes.QuantizedConv2d), convolution),
        **dict.fromkeys((on_codes.QuantizedConvTranspose1d, on_codes.QuantizedConvTranspose2d), transposed),
        on_codes.QuantizedAdd: of_two("Add"),
        on_codes.QuantizedSub: of_two("Sub"),
        on_codes.QuantizedMul: of_two("Mul"),
        on_codes.QuantizedCat: cat,
        on_codes.QuantizedReLU: relu,
        on_codes.QuantizedSoftmax: softmax,
        on_codes.QuantizedTable: moving.table,
        **dict.fromkeys((on_codes.QuantizedMaxPool1d, on_codes.QuantizedMaxPool2d), pools.max_pool),
        **dict.fromkeys((on_codes.QuantizedAvgPool1d, on_codes.QuantizedAvgPool2d), pools.avg_pool),
        **dict.fromkeys(
            (on_codes.QuantizedAdaptiveAvgPool1d, on_codes.QuantizedAdaptiveAvgPool2d),
            pools.adaptive_avg_pool,
        ),
        **dict.fromkeys(
            (on_codes.QuantizedAdaptiveMaxPool1d, on_codes.QuantizedAdaptiveMaxPool2d),
            pools.adaptive_max_pool,
        ),
        on_codes.QuantizedFlatten: moving.flatten,
        on_codes.QuantizedMove: moving.move,
        on_codes.QuantizedZeroPad: moving.zero_pad,
        on_codes.QuantizedConstantPad: moving.constant_pad,
    }
)
"""Class of a module on codes -> what adds its nodes."""
