"""Whole numbers throughout, in int64: fixed-point multipliers and softmax, step by step as in the backend.

ONNX's Div cuts off towards 0, and a shift to the right rounds down: both are one where nothing is negative,
so a multiple of the divisor is added before, and its quotient taken off behind.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.backend import default_backend
from minimp.quant.affine import Affine
from minimp.quant.onnx_export.graph import Codes, Graph
from minimp.quant.onnx_export.tracing import Site, Value, array_of
from minimp.quant.qtensor import QTensor

__all__ = ["added", "clamped", "codes", "offsets", "scaled", "softmax"]

INT32 = np.iinfo(np.int32)
HEADROOM = 2.0**20
"""What differences of codes are multiplied by before they are added (TFLite's left_shift of 20)."""


def _number(graph: Graph, value: int) -> str:
    """Hold a whole number in int64."""
    return graph.constant(f"int64:{value}", np.array(value, np.int64))


def _cast(graph: Graph, name: str, output: str, kind: Any = np.int64) -> str:
    to = graph.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    return graph.node("Cast", [name], output, to=int(to))


def offsets(graph: Graph, value: Value, stem: str) -> str:
    """Return q - z in int64."""
    before = graph.codes(value)
    wide = _cast(graph, before.name, f"{stem}/int64")
    return graph.node("Sub", [wide, _number(graph, int(before.affine.zero_point))], f"{stem}/offsets")


def scaled(graph: Graph, source: str, factor: Any, stem: str) -> str:
    """Return acc M0 / 2^31 / 2^n, rounded twice (:func:`minimp_backends.requantizing.fixed_point_product`).

    `factor` broadcasts to the sums: M, from which M0 and n are made.
    """
    whole, shift = default_backend().fixed_point(factor)
    left, right = np.maximum(-shift, 0).astype(np.int64), np.maximum(shift, 0).astype(np.int64)
    if left.any():
        power = graph.constant(f"{stem}.left", np.int64(1) << left)
        source = graph.node("Mul", [source, power], f"{stem}/left")
        ends = [_number(graph, each) for each in (INT32.min, INT32.max)]
        source = graph.node("Clip", [source, *ends], f"{stem}/lifted")
    product = graph.node(
        "Mul", [source, graph.constant(f"{stem}.M0", whole.astype(np.int64))], f"{stem}/product"
    )
    up = graph.node("Add", [product, _number(graph, (1 << 30) + (1 << 62))], f"{stem}/product_up")
    high = graph.node("Div", [up, _number(graph, 1 << 31)], f"{stem}/high_up")
    high = graph.node("Sub", [high, _number(graph, 1 << 31)], f"{stem}/high")
    if not right.any():
        return high
    below = graph.node("Less", [high, _number(graph, 0)], f"{stem}/below_zero")
    shifted = graph.constant(f"{stem}.shifted", (right > 0).astype(np.int64))
    less = graph.node("Mul", [_cast(graph, below, f"{stem}/one_less"), shifted], f"{stem}/less")
    divisor = np.int64(1) << right
    room = graph.constant(f"{stem}.room", (divisor >> 1) + (divisor << 31))
    up = graph.node("Sub", [graph.node("Add", [high, room], f"{stem}/rounded_up"), less], f"{stem}/away")
    floor = graph.node("Div", [up, graph.constant(f"{stem}.right", divisor)], f"{stem}/floor_up")
    return graph.node("Sub", [floor, _number(graph, 1 << 31)], f"{stem}/floor")


def clamped(
    graph: Graph, source: str, factor: Any, affine: Affine, output: str, *, relu: bool = False
) -> str:
    """Add what makes codes of whole numbers times a factor."""
    steps = scaled(graph, source, factor, output.removesuffix("/codes"))
    zero = int(affine.zero_point)
    moved = graph.node("Add", [steps, _number(graph, zero)], f"{output}/moved")
    low = max(affine.quant_min, zero) if relu else affine.quant_min
    ends = [_number(graph, each) for each in (low, affine.quant_max)]
    inside = graph.node("Clip", [moved, *ends], f"{output}/inside")
    return _cast(graph, inside, output, affine.storage)


def codes(graph: Graph, site: Site, source: str, factor: Any, *, relu: bool) -> None:
    """Add the codes of a call: whole numbers times a factor."""
    assert isinstance(site.output, QTensor)
    affine, name = site.output.affine, f"{site.name}/codes"
    scale, zero = graph.numbers(site.path, "", affine)
    clamped(graph, source, factor, affine, name, relu=relu)
    graph.put_codes(site.output, Codes(name, scale, zero, affine))


def added(graph: Graph, module: Any, site: Site, op: str) -> None:
    """Add or Sub in units of 2^-20 of twice the larger scale, as TFLite's ADD."""
    scales = [float(module.kept(name).scale) for name in ("a_", "b_", "")]
    larger, terms = 2 * max(scales[:2]), []
    for name, value, scale in zip("ab", site.inputs, scales[:2], strict=True):
        stem = f"{site.name}/{name}"
        fine = graph.node("Mul", [offsets(graph, value, stem), _number(graph, int(HEADROOM))], f"{stem}/fine")
        if op == "Sub" and name == "b":  # what is taken off is turned round first: ties do not mirror
            fine = graph.node("Neg", [fine], f"{stem}/negative")
        terms.append(scaled(graph, fine, np.float64(scale / larger), stem))
    sums = graph.node("Add", terms, f"{site.name}/sums")
    codes(graph, site, sums, np.float64(larger / (HEADROOM * scales[2])), relu=module.relu)


def softmax(graph: Graph, module: Any, site: Site) -> None:
    """Exponentials by table, their sum and the quotient (:mod:`minimp_backends.integer_pointwise`)."""
    axis, output, stem = -1 if module.dim is None else module.dim, module.kept(""), site.name
    wide = _cast(graph, graph.codes(site.inputs[0]).name, f"{stem}/int64")
    axes = graph.constant(f"axes:{axis}", np.array([axis], np.int64))
    if graph.opset >= 18:  # from there on axes are an input, as those of ReduceSum from 13 on
        largest = graph.node("ReduceMax", [wide, axes], f"{stem}/largest", keepdims=1)
    else:
        largest = graph.node("ReduceMax", [wide], f"{stem}/largest", keepdims=1, axes=[axis])
    below = graph.node("Sub", [largest, wide], f"{stem}/below")
    table = graph.constant(f"{site.path}.table", array_of(module.table))
    terms = _cast(graph, graph.node("Gather", [table, below], f"{stem}/entries", axis=0), f"{stem}/terms")
    total = graph.node("ReduceSum", [terms, axes], f"{stem}/total", keepdims=1)
    steps = round(1 / float(output.scale))
    fine = graph.node("Mul", [terms, _number(graph, 2 * steps)], f"{stem}/fine")
    up = graph.node("Add", [fine, total], f"{stem}/fine_and_half")
    twice = graph.node("Mul", [total, _number(graph, 2)], f"{stem}/twice")
    quotient = graph.node("Div", [up, twice], f"{stem}/quotient")
    most = graph.node("Min", [quotient, _number(graph, output.quant_max - output.quant_min)], f"{stem}/most")
    code = graph.node("Add", [most, _number(graph, output.quant_min)], f"{stem}/code")
    name = _cast(graph, code, f"{stem}/codes", output.storage)
    graph.put_codes(site.output, Codes(name, *graph.numbers(site.path, "", output), output))
