"""A model on codes as an ONNX graph, in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.errors import MinimpError, SettingError, plain, unknown_name
from minimp.files import AnyPath, check_writable, write_whole
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.quant.modules import Quantize
from minimp.quant.modules.base import QuantizedModule
from minimp.quant.onnx_export.graph import Graph
from minimp.quant.onnx_export.integer import INTEGER
from minimp.quant.onnx_export.library import library, opset_of
from minimp.quant.onnx_export.plain import FLOATS
from minimp.quant.onnx_export.qdq import QDQ, Writer
from minimp.quant.onnx_export.reports import LayerNodes, OnnxReport
from minimp.quant.onnx_export.tracing import Record, Value, array_of, key_of, record, values_in
from minimp.quant.qtensor import QTensor
from minimp.tensors import tensor

__all__ = ["FORMS", "FORM_KEY", "export_onnx"]

OP = "export_onnx"
OTHERS = ("scale", "zero_point", "table")
"""How the buffers of a module on codes end that are no weights or biases."""
MOST_BYTES = 2**31 - 2**24
"""Bytes of constants in a file: protobuf holds less than 2^31 in all, some of which names and nodes take."""
Shape = tuple[int | str, ...]
Shapes = dict[str, Shape]
FORM_KEY = "minimp.form"
FORMS: Mapping[str, Mapping[type[Module], Writer]] = MappingProxyType(
    {"qdq": MappingProxyType({**FLOATS, **QDQ}), "integer": MappingProxyType({**FLOATS, **QDQ, **INTEGER})}
)
"""Form -> class of a module -> what adds its nodes."""


def export_onnx(
    model: Module, path: AnyPath, example: Any, *, opset: int = 19, form: str = "qdq"
) -> OnnxReport:
    """Write a converted model as ONNX: int8 and uint8 weights, int32 biases, the model's scales.

    Form ``"qdq"`` is what engines read: a float operator between DequantizeLinear and QuantizeLinear. The
    codes are the model's but where its exact value is so near to a tie that float32 may round it the other
    way; there they differ by 1 (:mod:`minimp.quant.onnx_export.ties` has the bound), and none does where
    scales are powers of two. Form ``"integer"`` has ConvInteger and MatMulInteger, int32 biases and the
    model's own multipliers: every layer gives the model's codes without exception. :func:`verify` runs
    both by onnx.reference, and compares them layer by layer.

    The first codes are ONNX's: rint(x / s) + z. A model that was calibrated under the rule ``"onnx"`` has
    the same; the other rules differ at ties (:mod:`minimp.quant.rules`), and in NaN under torch's; a note of
    the report says so. (onnx.reference itself turns x >= 2^31 s to the least code, since it goes through
    int32.)

    Args:
        model: what :func:`~minimp.quant.convert` returned, in evaluation mode.
        path: the file; written whole or not at all.
        example: an input, or a tuple of them: arrays or tensors, the first axis being the batch, which is
            symbolic in the graph; the other lengths are those of the example. The model runs once more, on a
            row more, which shows what lengths of its results follow the batch.
        opset: 13 to 25. From 19 on, onnx.reference has DequantizeLinear; an older one is run as 19 by
            :func:`verify`, where the operators that are written mean the same.
        form: ``"qdq"`` or ``"integer"``.

    Returns:
        What was written: a row for each layer, bytes, notes.

    Raises:
        SettingError: onnx is not installed; another form or opset; a module or an op without ONNX form (the
            message names it); training mode; an example whose first axis is no batch; more than the 2 GiB
            that a file of ONNX holds.
        DataError: the file cannot be written. What was there before is untouched.
        MinimpError: as the model's forward on the example.
    """
    onnx = library(OP)
    if form not in FORMS:
        raise SettingError(unknown_name("form", form, FORMS), op=OP)
    opset = opset_of(onnx, opset, OP)
    check_writable(path, op=OP)
    rows = FORMS[form]
    inputs = example if isinstance(example, tuple | list) else (example,)
    seen = record(model, inputs, rows.__contains__, OP)
    graph, layers = _written(onnx, seen, rows, opset)
    shapes = _shapes(model, seen)
    made = _model(onnx, graph, seen, shapes, opset, form)
    onnx.checker.check_model(made, full_check=True)
    data = made.SerializeToString(deterministic=True)
    write_whole(path, data, op=OP)
    return _report(os.fspath(path), form, opset, seen, shapes, layers, len(data))


def _written(
    onnx: Any, seen: Record, rows: Mapping[type[Module], Writer], opset: int
) -> tuple[Graph, list[LayerNodes]]:
    """Return the graph of a run."""
    names = _names("input", len(seen.inputs))
    results = {
        key_of(value): name for name, value in zip(seen.names, seen.outputs, strict=True)
        if not isinstance(value, QTensor)
    }  # fmt: skip
    graph, layers = Graph(onnx, opset, results), []
    read: set[str] = set()
    for name, given in zip(names, seen.inputs, strict=True):
        _check_input(given, name)
        graph.put_floats(given, name)
    for site in seen.sites:
        for value in site.inputs:
            _check_known(graph, value, seen, f"'{site.path}' ({type(site.module).__name__})")
        begun = len(graph.nodes)
        rows[type(site.module)](graph, site.module, site)
        new = graph.nodes[begun:]
        held = {name for node in new for name in node.input} - read
        read |= held
        size = sum(graph.constants[name].nbytes for name in held if name in graph.constants)
        ops = tuple(node.op_type for node in new)
        layers.append(LayerNodes(site.name, type(site.module).__name__, ops, size))
    for name, value in zip(seen.names, seen.outputs, strict=True):
        _check_known(graph, value, seen, "the model's result")
        there = graph.codes(value).name if isinstance(value, QTensor) else graph.floats(value)
        if there != name:
            graph.node("Identity", [there], name)
    return graph, layers


def _names(stem: str, count: int) -> list[str]:
    return [stem] if count == 1 else [f"{stem}.{i}" for i in range(count)]


def _check_input(value: Value, name: str) -> None:
    array = array_of(value)
    if array.dtype != np.float32 or not array.ndim or not len(array):
        raise SettingError(
            f"{name} is {array.dtype} of shape {array.shape}; a graph takes float32 with a batch axis", op=OP,
            help="give float32 inputs, a row or more",
        )  # fmt: skip


def _check_known(graph: Graph, value: Value, seen: Record, taker: str) -> None:
    """Refuse what a module or an op gave that is not in the graph."""
    if graph.knows(value):
        return
    giver = seen.passing.get(key_of(value), "an op in the code of a forward, outside of modules")
    raise SettingError(
        f"{taker} takes what comes from {giver}, which has no ONNX form here", op=OP,
        help="the modules that have one are "
        + ", ".join(sorted({each.__name__ for rows in FORMS.values() for each in rows})),
    )  # fmt: skip


def _model(
    onnx: Any, graph: Graph, seen: Record, shapes: tuple[Shapes, Shapes], opset: int, form: str
) -> Any:
    """Return the ModelProto."""
    helper = onnx.helper
    infos = [
        [_info(helper, name, value, each[name]) for name, value in zip(each, values, strict=True)]
        for each, values in zip(shapes, (seen.inputs, seen.outputs), strict=True)
    ]
    read = {name for node in graph.nodes for name in node.input}
    held = {name: array for name, array in graph.constants.items() if name in read}
    size = sum(array.nbytes for array in held.values())
    if size > MOST_BYTES:
        raise SettingError(
            f"weights and tables take {size:,} bytes, and a file of ONNX holds 2 GiB", op=OP,
            help="export parts of the model, one by one",
        )  # fmt: skip
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in held.items()]
    body = helper.make_graph(graph.nodes, "minimp", *infos, constants)
    opsets = [helper.make_opsetid("", opset)]
    made = helper.make_model(
        body, opset_imports=opsets, producer_name="minimp", ir_version=helper.find_min_ir_version_for(opsets),
        producer_version=import_module("minimp").__version__,
    )  # fmt: skip
    helper.set_model_props(made, {FORM_KEY: form, "minimp.rules": " ".join(_rules(seen))})
    return made


def _rules(seen: Record) -> list[str]:
    """Return the rules by which floats become codes."""
    stubs = (each.module for each in seen.sites if isinstance(each.module, Quantize))
    return sorted({each.kept("").rule for each in stubs})


def _info(helper: Any, name: str, value: Value, shape: Shape) -> Any:
    """Return what is said of an input or output."""
    kind = helper.np_dtype_to_tensor_dtype(array_of(value).dtype)
    return helper.make_tensor_value_info(name, kind, shape)


def _shapes(model: Module, seen: Record) -> tuple[Shapes, Shapes]:
    """Return the shapes of inputs and of results, by name, a word for each length that follows the batch."""
    batch = array_of(seen.inputs[0]).shape[0]
    arrays = [array_of(each) for each in seen.inputs]
    longer = [np.concatenate([each, each[:1]]) if len(each) == batch else each for each in arrays]
    try:
        with no_grad():
            results = [array_of(each) for _, each in values_in(model(*map(tensor, longer)))]
    except MinimpError as fault:
        raise SettingError(
            f"the model takes {batch} in the first axis, and not {batch + 1}: {plain(fault)}",
            op=OP, help="give an example with a batch axis",
        ) from fault  # fmt: skip
    names = _names("input", len(arrays)), seen.names
    pairs = zip(arrays, longer, strict=True), zip(map(array_of, seen.outputs), results, strict=True)
    inputs, outputs = (
        {name: _symbolic(name, batch, *each) for name, each in zip(words, two, strict=True)}
        for words, two in zip(names, pairs, strict=True)
    )
    return inputs, outputs


def _symbolic(name: str, batch: int, before: Any, after: Any) -> Shape:
    """Return a shape: lengths that a row more has changed are the batch, or symbols of their own."""
    lengths = enumerate(zip(before.shape, after.shape, strict=True))
    return tuple(
        n if n == m else "batch" if (i, n, m) == (0, batch, batch + 1) else f"{name}_{i}"
        for i, (n, m) in lengths
    )


def _report(
    path: str, form: str, opset: int, seen: Record, shapes: tuple[Shapes, Shapes], layers: list[LayerNodes],
    size: int,
) -> OnnxReport:  # fmt: skip
    """Return the report."""
    modules = {id(each.module): each.module for each in seen.sites}.values()
    leaves = [leaf for each in modules for leaf in _leaves(each)]
    return OnnxReport(
        path, form, opset, tuple(layers), *shapes, bytes=size,
        bytes_float32=sum(4 * leaf.size for leaf in leaves),
        bytes_in_floats=sum(leaf.nbytes for leaf in leaves if leaf.dtype == np.float32),
        notes=tuple(_notes(seen, form)),
    )  # fmt: skip


def _leaves(module: Module) -> list[Any]:
    """Return weights and biases, not scales, zero points and tables."""
    own = [*module.named_parameters(), *module.named_buffers()]
    return [leaf for name, leaf in own if not (isinstance(module, QuantizedModule) and name.endswith(OTHERS))]


def _notes(seen: Record, form: str) -> list[str]:
    """Say where codes may differ from the model's."""
    found = []
    rules = sorted(
        {each.module.kept("").rule for each in seen.sites if type(each.module) is Quantize} - {"onnx"}
    )
    if rules:
        found.append(f"inputs were calibrated under {', '.join(rules)}: ONNX rounds ties as rule onnx does")
    fixed = [each.path for each in seen.sites if getattr(each.module, "mode", "float") != "float"]
    if fixed and form == "qdq":
        found.append(
            f"{len(fixed)} layers round by fixed-point multipliers, QDQ by float32: see form='integer'"
        )
    return found
