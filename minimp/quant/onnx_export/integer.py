"""How layers are written in integer form: the model's own arithmetic, operator by operator.

MatMulInteger or ConvInteger and Add are exact in int32. Cast rounds to float32, Mul by the model's float32
multiplier rounds once, QuantizeLinear by scale 1 rounds to a whole number, ties to even, adds z and clamps:
step by step what :func:`minimp_backends.requantizing.requantize` does, so that all codes are the same. Add
and Cat have s_i / s as the scales of what they read. (QLinearConv and QLinearMatMul are no such thing:
onnx.reference multiplies in float64 there and adds z before it rounds, so that ties go to the even code.)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.nn.module import Module
from minimp.quant.modules import QuantizedAdd, QuantizedCat, QuantizedConv2d, QuantizedLinear
from minimp.quant.onnx_export.graph import Codes, Graph
from minimp.quant.onnx_export.qdq import Writer, biased, conv_attributes, weight_codes
from minimp.quant.onnx_export.tracing import Site, array_of

__all__ = ["INTEGER"]


def linear(graph: Graph, module: Any, site: Site) -> None:
    """MatMulInteger."""
    _layer(graph, module, site, "MatMulInteger", ())


def conv2d(graph: Graph, module: Any, site: Site) -> None:
    """ConvInteger."""
    _layer(graph, module, site, "ConvInteger", (1, 1), **conv_attributes(module))


def _layer(graph: Graph, module: Any, site: Site, op: str, after: tuple[int, ...], **attributes: Any) -> None:
    """Add products, bias, and the way back to codes; `after` are the axes behind that of the channels."""
    x = graph.codes(site.inputs[0])
    weight, _, w_zero = weight_codes(graph, module, site, turned=not after)
    inputs = [x.name, weight, x.zero_point]
    if module.kept("weight_").zero_point.any():
        inputs.append(w_zero)
    sums = graph.node(op, inputs, f"{site.name}/products", **attributes)
    if module.bias is not None:
        bias = graph.constant(f"{site.path}.bias", array_of(module.bias).reshape(-1, *after))
        sums = graph.node("Add", [sums, bias], f"{site.name}/sums")
    rescaled(graph, module, site, sums, np.asarray(module.multiplier()), after)


def rescaled(graph: Graph, module: Any, site: Site, sums: str, factor: Any, after: tuple[int, ...]) -> None:
    """Add what makes codes of int32 sums."""
    wide = graph.node("Cast", [sums], f"{site.name}/wide", to=int(graph.onnx.TensorProto.FLOAT))
    shape = (-1, *after) if factor.ndim else ()
    by = graph.constant(f"{site.path}.multiplier", factor.astype(np.float32).reshape(shape))
    y = graph.node("Mul", [wide, by], f"{site.name}/steps")
    graph.quantize(biased(graph, module, site, y), site, unit=True)


def add(graph: Graph, module: Any, site: Site) -> None:
    """Add of steps of the output."""
    scale = float(module.kept("").scale)
    terms = [
        graph.steps(value, float(module.kept(f"{name}_").scale) / scale, f"{site.path}.{name}_multiplier",
                    f"{site.name}/{name}")
        for name, value in zip("ab", site.inputs, strict=True)
    ]  # fmt: skip
    y = graph.node("Add", terms, f"{site.name}/sums")
    graph.quantize(biased(graph, module, site, y), site, unit=True)


def cat(graph: Graph, module: Any, site: Site) -> None:
    """Concat of codes, each of the output's scale."""
    output = module.kept("")
    scale, zero = graph.numbers(site.path, "", output)
    name = f"{site.name}/codes"
    parts = []
    for i, value in enumerate(site.inputs):
        codes = graph.codes(value)
        if codes.affine == output:
            parts.append(codes.name)
            continue
        factor = codes.affine.scale / output.scale
        steps = graph.steps(value, factor, f"{site.path}.input_{i}_multiplier", f"{site.name}/input_{i}")
        parts.append(graph.clamped(steps, f"{site.name}/input_{i}/codes", zero, output))
    graph.node("Concat", parts, name, axis=module.dim)
    graph.put_codes(site.output, Codes(name, scale, zero, output))


INTEGER: Mapping[type[Module], Writer] = MappingProxyType(
    {QuantizedLinear: linear, QuantizedConv2d: conv2d, QuantizedAdd: add, QuantizedCat: cat}
)
"""Class of a module on codes -> what adds its nodes, where it is not as in QDQ form."""
