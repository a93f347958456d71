"""The codes of an exported graph against those of the model, layer by layer, run by onnx.reference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, SettingError
from minimp.files import read_whole
from minimp.nn.module import Module
from minimp.quant import modules as on_codes
from minimp.quant.onnx_export.exporting import FORM_KEY, FORMS
from minimp.quant.onnx_export.library import library
from minimp.quant.onnx_export.ties import BOUNDS, near_tie
from minimp.quant.onnx_export.tracing import Record, Site, array_of, key_of, record
from minimp.quant.qtensor import QTensor

__all__ = ["Agreement", "LayerAgreement", "verify"]

OP = "verify"
FIRST_RUN = 19
FLOATS_APART = 2.0**-10
Array = npt.NDArray[Any]
Results = dict[str, Array]


@dataclass(frozen=True)
class LayerAgreement:
    """What one call of a module gave there and here.

    Attributes:
        name: the module's path; with ``:2`` the second call of it.
        kind: the module's class.
        codes: whether it gave codes; else it gave floats.
        count: how many numbers.
        differing: how many differ when the graph runs from the model's inputs.
        largest: the largest difference then, in codes or in floats.
        alone: how many differ when this layer is given the model's own codes.
        near: of how many codes the exact value is so near to a tie that they may differ then.
        unexplained: of those that differ then, how many are not near to a tie, or differ by more than 1. Of
            modules that stay in floats, how many are off by more than 2^-10 of the largest number: not by
            roundings, whose bound is not worked out.
    """

    name: str
    kind: str
    codes: bool
    count: int
    differing: int
    largest: float
    alone: int
    near: int
    unexplained: int


@dataclass(frozen=True)
class Agreement:
    """What :func:`verify` found; iterable over the layers.

    Attributes:
        form: of the graph.
        layers: one row a call of a module, in order.
    """

    form: str
    layers: tuple[LayerAgreement, ...]

    def __iter__(self) -> Iterator[LayerAgreement]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def count(self) -> int:
        """How many codes were compared."""
        return sum(each.count for each in self.layers if each.codes)

    @property
    def differing(self) -> int:
        """How many codes differ when the graph runs from the model's inputs."""
        return sum(each.differing for each in self.layers if each.codes)

    @property
    def alone(self) -> int:
        """How many codes differ when each layer is given the model's own codes."""
        return sum(each.alone for each in self.layers if each.codes)

    @property
    def unexplained(self) -> int:
        """How many numbers are off by more than ties and roundings."""
        return sum(each.unexplained for each in self.layers)

    @property
    def same(self) -> bool:
        """Whether all codes are the same."""
        return self.differing == 0

    @property
    def ok(self) -> bool:
        """Whether each layer, given the model's own codes, has the model's codes but for ties."""
        return self.unexplained == 0

    def __str__(self) -> str:
        """Show a line for each layer, and what it comes to."""
        wide = min(max([len(each.name) for each in self.layers] + [5]), 32)
        lines = [
            f"{'layer':<{wide}}  {'numbers':>10}  {'differing':>9}  {'largest':>8}  {'alone':>6}  near a tie"
        ]
        for each in self.layers:
            name = each.name if len(each.name) <= wide else "…" + each.name[1 - wide :]
            largest = f"{each.largest:.0f}" if each.codes else f"{each.largest:.2g}"
            near = f"{each.near:>10,}" if each.codes else f"{'floats':>10}"
            there = f"{each.differing:>9,}  {largest:>8}  {each.alone:>6,}"
            lines.append(f"{name:<{wide}}  {each.count:>10,}  {there}  {near}")
        return "\n".join([*lines, self.verdict()])

    def verdict(self) -> str:
        """Say in a line what it comes to."""
        if self.same and self.ok:
            return f"all {self.count:,} codes are the same"
        if self.ok:
            all_in_all = f"{self.differing:,} of {self.count:,} codes differ"
            return f"{all_in_all}; layer by layer {self.alone:,}, each by 1 at a tie"
        numbers = sum(each.count for each in self.layers)
        return f"{self.unexplained:,} of {numbers:,} numbers differ, and not at a tie or by roundings"


def verify(exported: Any, model: Module, inputs: Any) -> Agreement:
    """Run an exported graph by onnx.reference, and compare every code with the model's.

    Twice: from the inputs to the results, where one code that differs may change others behind it; and each
    layer alone, on the model's own codes, where a code may differ by 1 if the exact value lies within
    float32's error of a tie (:mod:`minimp.quant.onnx_export.ties`), and in form ``"integer"`` not at all.

    Args:
        exported: the path of a file, or a ModelProto.
        model: the model that was exported.
        inputs: an input, or a tuple of them, as the model takes them; any batch.

    Raises:
        SettingError: onnx is not installed; the graph is not of this model, or not by minimp.
        DataError: the file cannot be read, is no ONNX file, or holds a graph that cannot be run.
        MinimpError: as the model's forward.
    """
    onnx = library(OP)
    proto = _loaded(onnx, exported)
    form = {each.key: each.value for each in proto.metadata_props}.get(FORM_KEY, "")
    if form not in FORMS:
        raise SettingError(
            "the graph was not written by minimp", op=OP, help="export_onnx(model, path, example)"
        )
    given = inputs if isinstance(inputs, tuple | list) else (inputs,)
    seen = record(model, given, FORMS[form].__contains__, OP)
    names = _site_names(seen)
    _check_names(proto, names)
    feeds = dict(zip(_inputs_of(proto, len(seen.inputs)), map(array_of, seen.inputs), strict=True))
    with _refusing_damage():
        proto = _runnable(onnx, proto)
        whole = _ran(onnx, proto, feeds, {name: name for name in names}, names)
        alone = _alone(onnx, proto, feeds, names)
    rows = (_compared(site, whole[name], alone[name], form) for name, site in names.items())
    return Agreement(form, tuple(rows))


def _loaded(onnx: Any, exported: Any) -> Any:
    """Return a ModelProto."""
    if isinstance(exported, onnx.ModelProto):
        return exported
    if not isinstance(exported, str | os.PathLike):
        raise SettingError(f"expected a path or a ModelProto, got a {type(exported).__name__}", op=OP)
    try:
        return onnx.load_model_from_string(read_whole(exported, op=OP))
    except Exception as fault:  # protobuf's DecodeError, which has no public name
        if type(fault).__name__ != "DecodeError":
            raise
        raise DataError(f"{os.fspath(exported)} is no ONNX file", op=OP) from fault


def _runnable(onnx: Any, proto: Any) -> Any:
    """Return a graph of an opset that onnx.reference runs: DequantizeLinear is there from 19 on."""
    if proto.opset_import[0].version >= FIRST_RUN:
        return proto
    newer = onnx.ModelProto()
    newer.CopyFrom(proto)
    newer.opset_import[0].version = FIRST_RUN
    newer.ir_version = max(proto.ir_version, onnx.helper.find_min_ir_version_for(newer.opset_import))
    onnx.checker.check_model(newer, full_check=True)
    return newer


def _site_names(seen: Record) -> dict[str, Site]:
    """Return the name in the graph of what each call gave."""
    results = {key_of(value): name for name, value in zip(seen.names, seen.outputs, strict=True)}
    return {
        f"{site.name}/codes" if isinstance(site.output, QTensor)
        else results.get(key_of(site.output), f"{site.name}/floats"): site
        for site in seen.sites
    }  # fmt: skip


def _check_names(proto: Any, names: dict[str, Site]) -> None:
    made = {output for node in proto.graph.node for output in node.output}
    lost = [name for name in names if name not in made]
    if lost:
        raise SettingError(
            f"the graph has no {lost[0]!r}: it is of another model", op=OP, help="export this model anew"
        )


def _inputs_of(proto: Any, count: int) -> list[str]:
    names = [each.name for each in proto.graph.input]
    if len(names) != count:
        raise SettingError(
            f"the graph takes {len(names)} inputs, the model {count}", op=OP, help="export this model anew"
        )
    return names


@contextmanager
def _refusing_damage() -> Iterator[None]:
    """Say that a graph cannot be run; numbers that have no code overflow in casts there, as they do here."""
    try:
        with np.errstate(all="ignore"):
            yield
    except Exception as fault:  # onnx raises what it comes upon: there is no class for a damaged graph
        first = str(fault).partition("\n")[0]
        raise DataError(
            f"onnx cannot run the graph: {type(fault).__name__}: {first:.200}", op=OP,
            help="it was changed or damaged: export the model anew",
        ) from fault  # fmt: skip


def _alone(onnx: Any, proto: Any, feeds: Results, names: dict[str, Site]) -> Results:
    """Run every layer on the model's own values: what one gives is renamed, what others take is fed."""
    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    for node in cut.graph.node:
        for i, name in enumerate(node.output):
            if name in names:
                node.output[i] = f"{name}:made"
    fed = {**feeds, **{name: array_of(site.output) for name, site in names.items()}}
    return _ran(onnx, cut, fed, {name: f"{name}:made" for name in names}, names)


def _ran(onnx: Any, proto: Any, feeds: Results, wanted: dict[str, str], names: dict[str, Site]) -> Results:
    """Run a graph, and return by name of a call what stands under the name that is wanted for it."""
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    del graph.graph.input[:]
    del graph.graph.output[:]
    info, kind_of = onnx.helper.make_tensor_value_info, onnx.helper.np_dtype_to_tensor_dtype
    graph.graph.input.extend(info(name, kind_of(array.dtype), None) for name, array in feeds.items())
    graph.graph.output.extend(
        info(inside, kind_of(array_of(names[name].output).dtype), None) for name, inside in wanted.items()
    )
    made = onnx.reference.ReferenceEvaluator(graph).run(None, feeds)
    return dict(zip(wanted, made, strict=True))


def _compared(site: Site, whole: Array, alone: Array, form: str) -> LayerAgreement:
    """Return the row of one call."""
    want = array_of(site.output)
    far, near_by = _distance(whole, want), _distance(alone, want)
    codes, kind = isinstance(site.output, QTensor), type(site.module)
    near = np.zeros(want.shape, np.bool_)
    if kind in BOUNDS and (form == "qdq" or kind is on_codes.Quantize):
        near = near_tie(BOUNDS[kind](site.module, site))
    wrong = (near_by > 1) | ((near_by > 0) & ~near)
    if not codes and kind is not on_codes.DeQuantize:
        wrong = near_by > FLOATS_APART * np.abs(want, where=np.isfinite(want), out=np.zeros_like(want)).max(
            initial=0
        )
    return LayerAgreement(
        site.name, kind.__name__, codes, want.size, int(np.count_nonzero(far)), float(far.max(initial=0)),
        int(np.count_nonzero(near_by)), int(near.sum()), int(wrong.sum()),
    )  # fmt: skip


def _distance(a: Array, b: Array) -> npt.NDArray[np.float64]:
    """Return |a - b|, 0 where both are the same infinity or NaN, and infinity where one is NaN."""
    if a.shape != b.shape:
        raise SettingError(
            f"the graph gives {a.shape}, the model {b.shape}", op=OP, shapes=[a.shape, b.shape]
        )
    left, right = a.astype(np.float64), b.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        apart = np.abs(left - right)
    return np.where(same, 0, np.where(np.isnan(apart), np.inf, apart))
