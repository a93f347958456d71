"""Quantised numbers and integer layers beside the reference implementation of ONNX: one node at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.backend import default_backend
from minimp.frameworks.integers.beside import ROUNDINGS, SECTION, Arrays, Excuse, all_same, beside, nearest
from minimp.frameworks.integers.samples import (
    CODES,
    ODD,
    affine,
    batches,
    floats,
    numbers,
    single,
    some,
    ties,
)
from minimp.frameworks.results import Row, Section
from minimp.quant import Affine, QTensor, choose, dequantize, modules, quantize

__all__ = ["compare"]

Array = npt.NDArray[Any]
OPSET, IR = 21, 10
CLAIM = (
    "The same codes, scales, zero points and sums as onnx.reference gives for one node, all of them, to the "
    "last bit. In a documented row the rule that its case begins with gives every code that ONNX gave."
)
GEOMETRIES: dict[str, dict[str, Any]] = {
    "padding 1": {"pads": [1, 1, 1, 1]},
    "stride 2 x 1, dilation 1 x 2": {"strides": [2, 1], "dilations": [1, 2]},
    "2 groups": {"group": 2},
}
"""Attributes of convolutions of (4, 4, 8, 9) images by 3 x 3 filters."""


def compare(seed: int) -> Section:
    """Compare minimp's integers with onnx.reference's.

    Args:
        seed: of the numbers and codes.
    """
    rng = np.random.default_rng(seed)
    rows = (*_quantize(rng), *_dynamic(rng), *_sums(rng), *_layers(rng))
    compared = sum(int(row.figures["elements"]) for row in rows)
    return Section(
        SECTION, "quantised numbers and integer layers", CLAIM, rows,
        {"elements": "compared", "others": "different", "apart": "furthest"}, {"numbers": f"{compared:,}"},
    )  # fmt: skip


def _run(op: str, *inputs: Array, **attributes: Any) -> list[Array]:
    """Return what the node gives."""
    from onnx import TensorProto, helper, reference

    names = [f"i{i}" for i in range(len(inputs))]
    outputs = ["y", "scale", "zero"] if op == "DynamicQuantizeLinear" else ["y"]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(each.dtype), None)
        for name, each in zip(names, inputs, strict=True)
    ]
    made = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs]
    node = helper.make_node(op, names, outputs, **attributes)
    graph = helper.make_graph([node], op, infos, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    with np.errstate(all="ignore"):
        found = reference.ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
    return [np.asarray(each) for each in found]


_row = partial(beside, framework="onnx")


def _how(affine: Affine) -> tuple[Array, Array]:
    """Return the scale and the zero point as a node takes them: the zero point has the dtype of the codes."""
    return affine.scale, affine.zero_point.astype(affine.storage)


# ---- numbers ----------------------------------------------------------------------------------------------


def _quantize(rng: np.random.Generator) -> Iterator[Row]:
    """Quantise and read back; onnx.reference casts x / s to int32 before it clamps."""
    for kind, codes in CODES.items():
        drawn = affine(rng, kind)
        how = Affine(drawn.scale, drawn.zero_point, *codes, rule="onnx")
        samples = {
            "any": floats(rng, 60, 50) * (100 * how.scale), "ties": ties(rng, (60, 50), how.scale),
            "NaN, infinities, largest and least": ODD,
        }  # fmt: skip
        for name, x in samples.items():
            (its,) = _run("QuantizeLinear", x, *_how(how))
            with np.errstate(all="ignore"):
                wrapped = np.rint(x / how.scale).astype(np.int32) + how.zero_point
            cast = np.clip(wrapped, *codes).astype(how.storage)
            exact = np.nan_to_num(np.float64(x) / how.scale + how.zero_point, nan=-1e9)
            ours = quantize(x, how)
            right = partial(nearest, ours, exact, ROUNDINGS)
            excuse = Excuse(right, {"cast to int32": partial(all_same, cast, its)})
            yield _row("QuantizeLinear", f"{kind}, {name}", (ours,), (its,), excuse)
        for axis in range(2):
            scales = single(rng.uniform(0.01, 0.5, (6, 50)[axis]))
            zeros = rng.integers(codes[0], codes[1] + 1, len(scales)).astype(np.int32)
            each = Affine(scales, zeros, *codes, axis=axis, rule="onnx")
            x = ties(rng, (6, 50), np.expand_dims(scales, 1 - axis))
            (its,) = _run("QuantizeLinear", x, *_how(each), axis=axis)
            yield _row(
                "QuantizeLinear", f"{kind}, ties, channels on axis {axis}", (quantize(x, each),), (its,)
            )
            (back,) = _run("DequantizeLinear", its, *_how(each), axis=axis)
            case = f"{kind}, channels on axis {axis}"
            yield _row("DequantizeLinear", case, (dequantize(its, each),), (back,))


def _dynamic(rng: np.random.Generator) -> Iterator[Row]:
    """Choose a scale by each array's own range; the node computes it in float32."""
    for name, (x, *_) in batches(rng).items():
        codes, scale, zero = _run("DynamicQuantizeLinear", x)
        chosen = choose(x.min(), x.max(), rule="onnx", quant_min=0, quant_max=255)
        low, high = np.minimum(x.min(), np.float32(0)), np.maximum(x.max(), np.float32(0))
        step = single((high - low or np.float32(1)) / np.float32(255))
        point = np.rint(np.clip(-low / step, 0, 255)).astype(np.uint8)
        rule = (quantize(x, Affine(step, np.asarray(point, np.int32), 0, 255, rule="onnx")), step, point)
        theirs = (codes, scale, zero)
        ours = (quantize(x, chosen), chosen.scale, chosen.zero_point.astype(np.uint8))
        excuse = Excuse(partial(_fits, low, high, chosen), {"in float32": partial(_all, rule, theirs)})
        yield _row("DynamicQuantizeLinear", f"{name}: codes, scale, zero point", ours, theirs, excuse)


def _fits(low: Any, high: Any, chosen: Affine) -> bool:
    """Tell whether 255 steps are the range, or 1 is the step of nothing, and 0 has the nearest code."""
    width = np.float64(high) - np.float64(low)
    scale = width / 255 or 1.0
    near = abs(float(chosen.scale) / scale - 1) <= ROUNDINGS
    return bool(near and abs(-np.float64(low) / scale - int(chosen.zero_point)) <= 0.5 + ROUNDINGS)


def _all(rule: Arrays, theirs: Arrays) -> bool:
    """Tell whether another rule gives all that the node gave."""
    return all(map(all_same, rule, theirs))


# ---- layers -----------------------------------------------------------------------------------------------


def _sums(rng: np.random.Generator) -> Iterator[Row]:
    """Add up products of codes: equal, whatever the dtypes and zero points."""
    backend = default_backend()
    for left in CODES:
        for right in CODES:
            a, b = (some(rng, shape, affine(rng, kind))
                    for shape, kind in (((30, 300), left), ((300, 20), right)))  # fmt: skip
            zeros = int(a.affine.zero_point), int(b.affine.zero_point)
            (its,) = _run("MatMulInteger", a.codes, b.codes, _how(a.affine)[1], _how(b.affine)[1])
            ours = backend.integer_matmul(a.codes, b.codes, *zeros)
            yield _row("MatMulInteger", f"{left} by {right}", (ours,), (its,))
    for name, how in GEOMETRIES.items():
        x, w = _images(rng, how)
        (its,) = _run("ConvInteger", x.codes, w.codes, _how(x.affine)[1], _how(w.affine)[1], **how)
        points = int(x.affine.zero_point), w.affine.zero_point
        ours = backend.integer_conv2d(x.codes, w.codes, *_geometry(how), *points)
        yield _row("ConvInteger", name, (ours,), (its,))


def _images(rng: np.random.Generator, how: dict[str, Any]) -> tuple[QTensor, QTensor]:
    """Return images, uint8, and filters, int8."""
    x = some(rng, (4, 4, 8, 9), affine(rng))
    return x, some(
        rng, (6, 4 // how.get("group", 1), 3, 3), numbers(rng.uniform(0.005, 0.02), 3, CODES["qint8"])
    )


def _geometry(how: dict[str, Any]) -> tuple[Any, Any, Any, int]:
    """Return attributes of a node as our convolution takes them."""
    pads = tuple(how.get("pads", (0, 0))[:2])
    return tuple(how.get("strides", (1, 1))), pads, tuple(how.get("dilations", (1, 1))), how.get("group", 1)


def _layers(rng: np.random.Generator) -> Iterator[Row]:
    """Compare codes after requantising: the reference multiplies in float64, and ties go to the even code."""
    for kind in CODES:
        a, out = some(rng, (40, 60), affine(rng, kind, 0.02)), affine(rng, kind, 0.9)
        scales = single(rng.uniform(0.005, 0.02, 30))
        for channels in (False, True):
            how = numbers(scales if channels else scales[0], np.zeros(30 if channels else (), int),
                          CODES["qint8"], 0 if channels else None)  # fmt: skip
            w = some(rng, (30, 60), how)
            theirs = _run("QLinearMatMul", a.codes, *_how(a.affine), w.codes.T, *_how(how), *_how(out))
            ours = modules.QuantizedLinear(w, None, a.affine, out)(a).codes
            sums = default_backend().integer_matmul(a.codes, w.codes.T, int(a.affine.zero_point))
            case = f"{kind}, {'per channel' if channels else 'per tensor'}"
            yield _finished(
                "QLinearMatMul", case, ours, theirs[0], sums, a.affine.scale * np.float64(how.scale), out
            )
    for name, attributes in GEOMETRIES.items():
        yield _convolved(rng, name, attributes)


def _convolved(rng: np.random.Generator, name: str, attributes: dict[str, Any]) -> Row:
    x, w = _images(rng, attributes)
    out = affine(rng, scale=40 * float(x.affine.scale * w.affine.scale))
    layer = modules.QuantizedConv2d(w, 3 * floats(rng, 6), x.affine, out, *_geometry(attributes))
    assert layer.bias is not None
    steps = np.asarray(layer.bias)
    held = (x.codes, *_how(x.affine), w.codes, *_how(w.affine), *_how(out), steps)
    (its,) = _run("QLinearConv", *held, **attributes)
    zeros = int(x.affine.zero_point), w.affine.zero_point
    sums = default_backend().integer_conv2d(x.codes, w.codes, *_geometry(attributes), *zeros)
    step = np.float64(x.affine.scale) * w.affine.scale
    return _finished(
        "QLinearConv", f"{name}, bias", layer(x).codes, its, sums + steps.reshape(-1, 1, 1), step, out
    )


def _finished(
    subject: str, case: str, ours: Array, theirs: Array, sums: Array, step: Array, out: Affine
) -> Row:
    """Return a row of codes, which may be others where a sum meets a tie."""
    exact = sums * step / np.float64(out.scale) + int(out.zero_point)
    excuse = Excuse(
        partial(nearest, ours, exact, ROUNDINGS),
        {"nearest codes": partial(nearest, theirs, exact, ROUNDINGS)},
    )
    return _row(subject, case, (ours,), (theirs,), excuse)
