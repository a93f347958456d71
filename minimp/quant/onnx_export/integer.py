"""How layers are written in integer form: the model's own arithmetic, operator by operator.

MatMulInteger or ConvInteger and Add are exact in int32. Cast rounds to float32, Mul by the model's float32
multiplier rounds once, QuantizeLinear by scale 1 rounds to a whole number, ties to even, adds z and clamps:
step by step what :func:`minimp_backends.requantizing.requantize` does, so that all codes are the same. Add,
Sub and Cat have s_i / s as the scales of what they read. (QLinearConv and QLinearMatMul are no such thing:
onnx.reference multiplies in float64 there and adds z before it rounds, so that ties go to the even code.)

ONNX has no transposed convolution of integers: ConvTranspose runs on whole numbers of steps, exact in float32
while no sum can reach 2^24. Layers in mode ``"fixed-point"`` are written by
:mod:`~minimp.quant.onnx_export.fixed_point`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.nn.module import Module
from minimp.quant import modules as on_codes
from minimp.quant.affine import Affine
from minimp.quant.onnx_export import fixed_point
from minimp.quant.onnx_export.graph import Codes, Graph
from minimp.quant.onnx_export.qdq import Writer, conv_attributes, rectified, spread, weight_codes
from minimp.quant.onnx_export.tracing import Site, array_of

__all__ = ["INTEGER"]


def linear(graph: Graph, module: Any, site: Site) -> None:
    """MatMulInteger."""
    _sums(graph, module, site, _products(graph, module, site, "MatMulInteger", flipped=True), ())


def convolution(graph: Graph, module: Any, site: Site) -> None:
    """ConvInteger."""
    products = _products(graph, module, site, "ConvInteger", **conv_attributes(module, site))
    _sums(graph, module, site, products, (1,) * module.axes)


def _products(
    graph: Graph, module: Any, site: Site, op: str, *, flipped: bool = False, **attributes: Any
) -> str:
    """Add the products of codes."""
    x = graph.codes(site.inputs[0])
    weight, _, w_zero = weight_codes(graph, module, site, flipped=flipped)
    inputs = [x.name, weight, x.zero_point]
    if module.kept("weight_").zero_point.any():
        inputs.append(w_zero)
    return graph.node(op, inputs, f"{site.name}/products", **attributes)


def transposed(graph: Graph, module: Any, site: Site) -> None:
    """ConvTranspose of whole numbers, and Cast to int32."""
    w = module.kept("weight_")
    zero = w.zero_point.reshape(-1, *(1,) * (module.weight.ndim - 1)) if w.per_channel else w.zero_point
    weight = np.abs(array_of(module.weight).astype(np.int64) - zero)
    most = 255 * int(weight.reshape(len(weight), -1).sum(1).max(initial=0))
    if most >= 2**24:
        raise SettingError(
            f"'{site.path}' has sums of up to {most}, which float32 does not hold, and ONNX has no "
            "transposed convolution of integers", op="export_onnx", help='take form="qdq"',
        )  # fmt: skip
    unit = Affine(np.ones_like(w.scale), w.zero_point, w.quant_min, w.quant_max, w.axis)
    whole = spread(graph, module, site, graph.steps(site.inputs[0]), unit, "unit_weight_")
    sums = graph.node("Cast", [whole], f"{site.name}/whole", to=int(graph.onnx.TensorProto.INT32))
    _sums(graph, module, site, sums, (1,) * module.axes)


def _sums(graph: Graph, module: Any, site: Site, sums: str, after: tuple[int, ...]) -> None:
    """Add the bias and the way back to codes; `after` are the axes behind that of the channels."""
    if module.bias is not None:
        bias = graph.constant(f"{site.path}.bias", array_of(module.bias).reshape(-1, *after))
        sums = graph.node("Add", [sums, bias], f"{site.name}/sums")
    factor = np.asarray(module.multiplier())
    factor = factor.reshape(-1, *after) if factor.ndim else factor
    if module.mode == "float":
        wide = graph.node("Cast", [sums], f"{site.name}/wide", to=int(graph.onnx.TensorProto.FLOAT))
        _by_float(graph, module, site, wide, factor)
    else:
        wide = graph.node("Cast", [sums], f"{site.name}/wide", to=int(graph.onnx.TensorProto.INT64))
        fixed_point.codes(graph, site, wide, factor, relu=module.relu)


def _by_float(graph: Graph, module: Any, site: Site, whole: str, factor: Any) -> None:
    """Add Mul by a multiplier and what makes codes of that."""
    by = graph.constant(f"{site.path}.multiplier", factor.astype(np.float32))
    y = graph.node("Mul", [whole, by], f"{site.name}/scaled")
    graph.quantize(rectified(graph, module, site, y), site, unit=True)


def of_two(op: str) -> Writer:
    """Return the row of Add or Sub: on steps of the output."""

    def write(graph: Graph, module: Any, site: Site) -> None:
        scales = [float(module.kept(name).scale) for name in ("a_", "b_", "")]
        if module.mode != "float":
            fixed_point.added(graph, module, site, op)
            return
        terms = [
            graph.steps(value, scale / scales[2], f"{site.path}.{name}_multiplier", f"{site.name}/{name}")
            for name, value, scale in zip("ab", site.inputs, scales[:2], strict=True)
        ]
        y = graph.node(op, terms, f"{site.name}/sums")
        graph.quantize(rectified(graph, module, site, y), site, unit=True)

    return write


def mul(graph: Graph, module: Any, site: Site) -> None:
    """Mul of steps, at most 255^2, and of the multiplier."""
    factor = np.float64(module.multiplier())
    products = graph.node("Mul", [graph.steps(each) for each in site.inputs], f"{site.name}/products")
    if module.mode == "float":
        _by_float(graph, module, site, products, factor)
    else:
        wide = graph.node("Cast", [products], f"{site.name}/wide", to=int(graph.onnx.TensorProto.INT64))
        fixed_point.codes(graph, site, wide, factor, relu=module.relu)


def cat(graph: Graph, module: Any, site: Site) -> None:
    """Concat of codes, each of the output's scale."""
    output = module.kept("")
    scale, zero = graph.numbers(site.path, "", output)
    name, parts = f"{site.name}/codes", []
    for i, value in enumerate(site.inputs):
        codes, part = graph.codes(value), f"{site.name}/input_{i}"
        if codes.affine == output:
            parts.append(codes.name)
        elif module.mode == "float":
            factor = codes.affine.scale / output.scale
            steps = graph.steps(value, factor, f"{site.path}.input_{i}_multiplier", part)
            parts.append(graph.clamped(steps, f"{part}/codes", zero, output))
        else:
            factor = codes.affine.scale.astype(np.float64) / output.scale.astype(np.float64)
            steps = fixed_point.offsets(graph, value, part)
            parts.append(fixed_point.clamped(graph, steps, factor, output, f"{part}/codes"))
    graph.node("Concat", parts, name, axis=module.dim)
    graph.put_codes(site.output, Codes(name, scale, zero, output))


INTEGER: Mapping[type[Module], Writer] = MappingProxyType(
    {
        on_codes.QuantizedLinear: linear,
        **dict.fromkeys((on_codes.QuantizedConv1d, on_codes.QuantizedConv2d), convolution),
        **dict.fromkeys((on_codes.QuantizedConvTranspose1d, on_codes.QuantizedConvTranspose2d), transposed),
        on_codes.QuantizedAdd: of_two("Add"),
        on_codes.QuantizedSub: of_two("Sub"),
        on_codes.QuantizedMul: mul,
        on_codes.QuantizedCat: cat,
        on_codes.QuantizedSoftmax: fixed_point.softmax,
    }
)
"""Class of a module on codes -> what adds its nodes, where it is not as in QDQ form."""
