"""Codes that change places, borders around them, and tables: exact in both forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minimp import nn
from minimp.errors import SettingError
from minimp.modes import no_grad
from minimp.quant.modules.tables import codes_of
from minimp.quant.onnx_export.graph import Codes, Graph
from minimp.quant.onnx_export.tracing import Site, array_of
from minimp.tensors import tensor

__all__ = ["constant_pad", "flatten", "joined", "looked_up", "move", "table", "zero_pad"]


def _same_scale(graph: Graph, site: Site) -> Codes:
    """Note that what a call gives has the scale and zero point of its input; return where that is."""
    before = graph.codes(site.inputs[0])
    graph.put_codes(site.output, Codes(f"{site.name}/codes", before.scale, before.zero_point, before.affine))
    return before


def flatten(graph: Graph, module: Any, site: Site) -> None:
    """Flatten of codes, or Reshape where other axes are joined than all but the first."""
    joined(graph, module, site, _same_scale(graph, site).name, f"{site.name}/codes")


def joined(graph: Graph, module: Any, site: Site, source: str, output: str) -> str:
    """Return what a Flatten makes of codes or numbers."""
    ndim = len(site.inputs[0].shape)
    first, last = (each % max(ndim, 1) for each in (module.start_dim, module.end_dim))
    if (first, last) == (1, ndim - 1):
        return graph.node("Flatten", [source], output, axis=1)
    return _reshape(graph, site, source, output, [0] * first + [-1, *site.output.shape[first + 1 :]])


def _reshape(graph: Graph, site: Site, source: str, output: str, shape: list[int]) -> str:
    """Add Reshape: 0 stands for the length as it is, -1 for what is left."""
    if 0 in site.inputs[0].shape:
        raise SettingError(f"'{site.path}': the example has no elements", op="export_onnx", help="give some")
    wanted = graph.constant(f"shape:{','.join(map(str, shape))}", np.array(shape, np.int64))
    return graph.node("Reshape", [source, wanted], output)


def move(graph: Graph, module: Any, site: Site) -> None:
    """Reshape for Unflatten; else Gather, by the places that the module gives the numbers 0, 1, 2, ..."""
    before, (batch, *shape) = _same_scale(graph, site), site.inputs[0].shape
    made, name = list(site.output.shape[1:]), f"{site.name}/codes"
    if site.output.shape[0] != batch or not shape:
        raise SettingError(
            f"'{site.path}' moves elements from one sample to another", op="export_onnx",
            help="move them within samples, behind the batch axis",
        )  # fmt: skip
    if type(module.inner) is nn.Unflatten:
        _reshape(graph, site, before.name, name, [0, *made])
        return
    with no_grad():
        numbered = tensor(np.arange(math.prod(shape), dtype=np.float64).reshape(1, *shape))
        places = array_of(module.inner(numbered))
    index = graph.constant(f"{site.path}.places", places.reshape(-1).astype(np.int32))
    flat = _reshape(graph, site, before.name, f"{site.name}/flat", [0, -1])
    moved = graph.node("Gather", [flat, index], f"{site.name}/moved", axis=1)
    _reshape(graph, site, moved, name, [0, *made])


def zero_pad(graph: Graph, module: Any, site: Site) -> None:
    """Pad by the code of 0."""
    before = _same_scale(graph, site)
    _pad(graph, module, site, before.name, before.zero_point)


def constant_pad(graph: Graph, module: Any, site: Site) -> None:
    """A table, and Pad by the code of the value."""
    affine = module.rescale.kept("")
    scale, zero = graph.numbers(f"{site.path}.rescale", "", affine)
    inside = looked_up(graph, module.rescale, site, f"{site.path}.rescale", f"{site.name}/inside")
    value = codes_of(np.array(module.value, np.float64), affine)
    graph.put_codes(site.output, Codes(f"{site.name}/codes", scale, zero, affine))
    _pad(graph, module, site, inside, graph.constant(f"{site.path}.value", value))


def _pad(graph: Graph, module: Any, site: Site, source: str, value: str) -> None:
    """Add Slice for what is cut off, Pad for what is added; lengths are as in torch, the last axis first."""
    ndim, sides = len(site.inputs[0].shape), module.padding
    before = [0] * (ndim - len(sides) // 2) + list(sides[::2])[::-1]
    behind = [0] * (ndim - len(sides) // 2) + list(sides[1::2])[::-1]
    if min(*before, *behind) < 0:
        last = np.iinfo(np.int64).max
        cuts = {
            "starts": [max(-each, 0) for each in before],
            "ends": [each if each < 0 else last for each in behind],
            "axes": list(range(ndim)),
        }
        places = [graph.constant(f"{site.path}.{name}", np.array(at, np.int64)) for name, at in cuts.items()]
        source = graph.node("Slice", [source, *places], f"{site.name}/cut")
    lengths = np.array([max(each, 0) for each in (*before, *behind)], np.int64)
    sides_name = graph.constant(f"{site.path}.padding", lengths)
    graph.node("Pad", [source, sides_name, value], f"{site.name}/codes")


def table(graph: Graph, module: Any, site: Site) -> None:
    """Gather from 256 codes."""
    affine = module.kept("")
    scale, zero = graph.numbers(site.path, "", affine)
    graph.put_codes(site.output, Codes(f"{site.name}/codes", scale, zero, affine))
    looked_up(graph, module, site, site.path, f"{site.name}/codes")


def looked_up(graph: Graph, module: Any, site: Site, path: str, output: str) -> str:
    """Add Cast and Gather: the entries lie in the order of bytes, and a place below 0 counts from the end."""
    place = graph.node(
        "Cast", [graph.codes(site.inputs[0]).name], f"{site.name}/place", to=int(graph.onnx.TensorProto.INT32)
    )
    entries = graph.constant(f"{path}.table", array_of(module.table))
    return graph.node("Gather", [entries, place], output, axis=0)
