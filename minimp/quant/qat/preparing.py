"""Preparing: a float model gets the roundings of its integer form, where that form will have them.

Where they belong is not decided here. The model is fused and converted on the example once, as static
quantisation does it, and what rounds in the integer model shows where fake quantisation goes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp.errors import MinimpError, SettingError, plain, unknown_name
from minimp.models.resnet import Mean
from minimp.nn import AdaptiveAvgPool1d, AdaptiveAvgPool2d, AvgPool1d, AvgPool2d, Identity
from minimp.nn.making import lifted, whole
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.calibration import Calibrated, calibrate, check_floats
from minimp.quant.convertible import formats_kept
from minimp.quant.fusion import fuse
from minimp.quant.fusion.channels import outputs_of
from minimp.quant.fusion.intrinsic import WithReLU
from minimp.quant.modules.conversions import CONVERSIONS
from minimp.quant.modules.tables import fixed_output
from minimp.quant.observers import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.qat.fake_quantize import FakeQuantize, FixedQParamsFakeQuantize
from minimp.quant.qat.kinds import LAYERS
from minimp.quant.qat.layers import Twin, Weighted
from minimp.quant.qat.places import RoundedAgain, RoundedOutput
from minimp.quant.qat.prepared import PreparedModel
from minimp.quant.qat.reports import FLOATS, PreparedRow, QATReport
from minimp.quant.static import Walk, walked

__all__ = ["AVERAGING", "GRANULARITIES", "prepare_qat"]

OP = "prepare_qat"
GRANULARITIES = ("per-channel", "per-tensor")
AVERAGING: tuple[type[Module], ...] = (AvgPool1d, AvgPool2d, AdaptiveAvgPool1d, AdaptiveAvgPool2d, Mean)
"""Modules that keep the scale of what comes in, and still round: means of codes lie between codes."""


@dataclass(frozen=True)
class Widths:
    """How wide codes are.

    Attributes:
        weight: bits of weights: codes -2^(b-1) .. 2^(b-1) - 1, symmetric.
        activation: bits of activations: codes 0 .. 2^b - 1, any zero point.
        per_channel: whether each output channel of a weight has a scale.
        averaging_constant: of the ranges of activations.
    """

    weight: int
    activation: int
    per_channel: bool
    averaging_constant: float

    def of_weight(self, layer: Any, where: str) -> FakeQuantize:
        """Return what rounds a weight: by the range that it has now (Jacob et al. 2018, section 3.1)."""
        half = 1 << (self.weight - 1)
        kind = PerChannelMinMaxObserver if self.per_channel else MinMaxObserver
        channels = outputs_of(layer) if self.per_channel else None
        made = FakeQuantize(kind, -half, half - 1, channels=channels, current=True, symmetric=True)
        made.where = where
        return made

    def of_activation(self, where: str, kind: type[Module] | None = None) -> FakeQuantize:
        """Return what rounds an activation: by a moving average of its range (section 3.1).

        Some kinds of modules have fixed numbers (:data:`minimp.quant.modules.tables.FIXED`).
        """
        last, c = (1 << self.activation) - 1, self.averaging_constant
        made = FakeQuantize(MovingAverageMinMaxObserver, 0, last, averaging_constant=c)
        any_numbers = Affine(np.ones((), np.float32), np.zeros((), np.int32), 0, last)
        fixed = any_numbers if kind is None else fixed_output(kind, any_numbers)
        if fixed is not any_numbers:
            made = FixedQParamsFakeQuantize(fixed)
        made.where = where
        return made


def prepare_qat(
    model: Module, example: Any, *, weight_bits: int = 8, activation_bits: int = 8,
    granularity: str = "per-channel", averaging_constant: float = 0.01,
    keep_float: Iterable[str] | Mapping[str, str] = (),
) -> PreparedModel:  # fmt: skip
    """Return a trainable copy of a model that rounds wherever its integer form will round.

    Layers are fused with the batch norm and ReLU behind them, by what a forward on the example shows. Then
    each weight, each input, and each activation that the integer model rounds has one FakeQuantize, and
    nothing else has. The copy is in training mode; give its parameters to the optimizer, train some epochs
    (fine-tuning, at a tenth of the learning rate or so), and ``convert(copy)``.

    Args:
        model: the float model, trained at best; it stays as it is.
        example: an input of the model, or a tuple of them; a few rows.
        weight_bits: the width of weights, 2 to 8: codes -128..127 for 8 bits, -4..3 for 3, symmetric.
        activation_bits: the width of activations, 2 to 8: codes 0..255 for 8 bits, 0..7 for 3.
        granularity: ``"per-channel"``, a scale for each output channel of a weight; or ``"per-tensor"``.
        averaging_constant: c in m <- m + c (new - m) of the ranges of activations.
        keep_float: what stays in floats, as for :func:`minimp.quant.convert`; only the output of such a
            module is rounded, and not where only others of them take it.

    Raises:
        SettingError: a model that is prepared or on codes already; a layer without an integer form, which is
            named; bits beyond 2..8; an unknown granularity; whatever :func:`minimp.quant.convert` refuses.
        MinimpError: as the model's forward.

    Source: Jacob et al. 2018, section 3 and algorithm 1; torch.ao.quantization.prepare_qat, 2.13.0, which
    puts modules where a qconfig says.
    """
    widths = Widths(
        _bits("weight_bits", weight_bits), _bits("activation_bits", activation_bits),
        _per_channel(granularity), averaging_constant,
    )  # fmt: skip
    inputs = tuple(map(lifted, example)) if isinstance(example, tuple) else (lifted(example),)
    _check(model)
    kept = formats_kept(keep_float, OP)
    groups, walk = _rehearsed(model, inputs, kept)
    return _Builder(copy.deepcopy(model), widths, groups, walk).prepared(inputs, kept)


def _rehearsed(
    model: Module, inputs: tuple[Any, ...], keep_float: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], Walk]:
    """Fuse and convert a copy; return path -> paths of what is fused there, and what would be on codes."""
    apart: dict[str, str] = {}
    try:
        fusing = [row for row in LAYERS if len(row) > 1]
        fused, report = fuse(copy.deepcopy(model).eval(), *inputs, patterns=fusing)
        apart = {row.modules[0]: row.why for row in report.refused}
        seen = calibrate(fused, [inputs], activation=MinMaxObserver, inputs_of=lambda batch: batch)
        walk = walked(fused, seen, keep_float=keep_float)
    except MinimpError as fault:
        text = plain(fault)
        why = next((why for path, why in apart.items() if text.startswith(f"'{path}' is a ")), "")
        advice = f"{fault.help}; here it was not: {why}" if why else fault.help
        raise type(fault)(text, op=OP, help=advice) from fault
    return {row.modules[0]: row.modules for row in report.fused}, walk


class _Builder:
    """Puts twins into a model.

    Attributes:
        origins: id of an array -> the FakeQuantize that it comes from.
        made: id of a module of the rehearsal -> its twin.
    """

    def __init__(
        self, model: Module, widths: Widths, groups: Mapping[str, tuple[str, ...]], walk: Walk
    ) -> None:
        self.model, self.widths, self.groups, self.walk = model, widths, groups, walk
        self.origins: dict[int, FakeQuantize] = {}
        self.made: dict[int, Twin] = {}
        self.rows: list[PreparedRow] = []

    def prepared(self, inputs: tuple[Any, ...], kept: Mapping[str, str]) -> PreparedModel:
        """Return the whole, in training mode."""
        rounded: list[Module] = []
        for i, each in enumerate(self.walk.flow.calls[0].inputs if not self.walk.stubs else ()):
            if id(each.array) in self.walk.floats:
                rounded.append(Identity())
                continue
            rounding = self.widths.of_activation(f"input {i}")
            rounded.append(rounding)
            self.origins[id(each.array)] = rounding
            self.rows.append(PreparedRow((f"input {i}",), "", "", self._codes(rounding)))
        for call in self.walk.sites:
            path = self.walk.flow.paths[id(call.module)][0]
            if path in self.walk.made:
                self._visit(path, call)
        report = QATReport(tuple(self.rows))
        return PreparedModel(rounded, self.model, inputs, kept, report).train()

    def _visit(self, path: str, call: Any) -> None:
        """Put a twin where one call of a module rounds, and note whose codes it gives."""
        row = CONVERSIONS.get(type(call.module))
        source = self.origins.get(id(call.inputs[0].array)) if call.inputs else None
        if row is not None and row.keeps and path not in self.walk.keep:
            given = source
            if isinstance(call.module, AVERAGING) and source is not None:
                self._again(path, call.module, source)
        else:
            floats = any(id(each.array) in self.walk.floats for each in call.outputs)
            given = self._output(path, call.module, source, floats)
        if given is not None:
            self.origins.update({id(each.array): given for each in call.outputs})

    def _output(
        self, path: str, module: Module, source: FakeQuantize | None, floats: bool
    ) -> FakeQuantize | None:
        """Put what rounds its output in the place of a module; None where its output stays floats."""
        if id(module) in self.made:
            found = self.made[id(module)].activation_post_process
            return found if isinstance(found, FakeQuantize) else None
        output = None if floats else self.widths.of_activation(f"the output of '{path}'", type(module))
        paths = self.groups.get(path, (path,))
        parts = _flat([self.model.get_submodule(each) if each else self.model for each in paths])
        layer = LAYERS.get(tuple(type(each) for each in parts))
        if layer is None:
            own = self.model.get_submodule(path) if path else self.model
            if output is not None:
                self._put(module, RoundedOutput(own, output), paths, "")
            return output
        fake_quant: Any = Identity()
        sources: tuple[FakeQuantize, ...] = ()
        if path not in self.walk.keep and source is not None:
            fake_quant = self.widths.of_weight(parts[0], f"the weight of '{path}'")
            sources = (source,)
        twin = layer.of(parts, fake_quant, output or Identity(), sources)
        weight = "" if isinstance(fake_quant, Identity) else self._codes(fake_quant)
        self._put(module, twin, paths, weight)
        return output

    def _again(self, path: str, module: Module, source: FakeQuantize) -> None:
        """Put what rounds by the scale of its input in the place of a module."""
        before: Any = self.made.get(id(module))
        if before is not None and before.source[0] is not source:
            raise SettingError(
                f"'{path}' runs on codes of {before.source[0].where} and of {source.where}", op=OP,
                help="it rounds by the scale of what comes in: give each place a module of its own",
            )  # fmt: skip
        if before is None:
            own = self.model.get_submodule(path) if path else self.model
            self._put(module, RoundedAgain(own, source), (path,), "")

    def _put(self, module: Module, twin: Twin, paths: tuple[str, ...], weight: str) -> None:
        """Set a twin at all places of a module, and an Identity at those of what was fused with it."""
        self.made[id(module)] = twin
        for each in self.walk.flow.paths[id(module)]:
            if each:
                self.model.set_submodule(each, twin)
            else:
                self.model = twin
        for each in paths[1:]:
            self.model.set_submodule(each, Identity())
        if isinstance(twin, RoundedAgain):
            shown = "as " + twin.source[0].where.removeprefix("the output of ")
        else:
            output = twin.activation_post_process
            shown = self._codes(output) if isinstance(output, FakeQuantize) else FLOATS
        kind = type(twin).__name__ if isinstance(twin, Weighted) else type(twin.to_float()).__name__
        self.rows.append(PreparedRow(paths, kind, weight, shown))

    @staticmethod
    def _codes(fake_quant: Any) -> str:
        """Say which codes there are: "uint8", "int3, 16 scales"."""
        bits = (fake_quant.quant_max - fake_quant.quant_min).bit_length()
        name = f"{'int' if fake_quant.quant_min < 0 else 'uint'}{bits}"
        return name if fake_quant.ch_axis is None else f"{name}, {fake_quant.scale.size} scales"


def _flat(parts: list[Module]) -> list[Module]:
    """Return modules in the order of running; a layer and a ReLU that were fused before come apart."""
    found: list[Module] = []
    for each in parts:
        found += list(each) if isinstance(each, WithReLU) else [each]
    return found


def _check(model: Module) -> None:
    """Refuse models that are prepared, or on codes."""
    check_floats(model, OP)
    for path, each in model.named_modules():
        if isinstance(each, FakeQuantize | Twin | Calibrated):
            raise SettingError(
                f"'{path}' is a {type(each).__name__}: the model is prepared already", op=OP,
                help="train it as it is, or prepare the float model, model.to_float()",
            )  # fmt: skip


def _bits(name: str, value: Any) -> int:
    bits = whole(name, value, OP, least=2)
    if bits > 8:
        raise SettingError(f"{name} must be from 2 to 8, got {bits}", op=OP)
    return bits


def _per_channel(granularity: str) -> bool:
    if granularity not in GRANULARITIES:
        raise SettingError(unknown_name("granularity", granularity, GRANULARITIES), op=OP)
    return granularity == "per-channel"
