"""The modes of `minimp quantize`: what each takes, and what it makes of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any

from minimp.cli.quantize_layers import Layer, layers_of_report, layers_on_codes
from minimp.cli.quantize_training import RATE, Training, train
from minimp.cli.sources import Source
from minimp.data import AnyParts, DataLoader
from minimp.errors import SettingError, plain, unknown_name
from minimp.named import Named
from minimp.nn import Module
from minimp.quant import equalize, fuse, quantize_dynamic, weight_only
from minimp.quant.fusion.reports import FusionReport, ScalingReport
from minimp.quant.layer_reports import LayerRow
from minimp.quant.observers import (
    EntropyObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    Observer,
    PercentileObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.qat import prepare_qat
from minimp.quant.static import Calibration, Progress, calibrate, convert, walked

__all__ = ["MODES", "OBSERVERS", "Job", "Made", "Mode"]

OBSERVERS: Mapping[str, type[Observer]] = MappingProxyType(
    {
        "histogram": HistogramObserver,
        "minmax": MinMaxObserver,
        "moving-average": MovingAverageMinMaxObserver,
        "percentile": PercentileObserver,
        "entropy": EntropyObserver,
    }
)
EXAMPLE = 8
"""Rows on which a forward shows what goes into what."""
COMPARED = 128
"""Rows on which what layers give is compared with floats."""
INT8: Mapping[str, Any] = {"quant_min": -128, "quant_max": 127, "symmetric": True}
LEAST: Mapping[str, int] = {"tflite": -127}
"""Rule -> the least code of its weights, where that is not -128."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        source: the trained model.
        data: what it is calibrated and judged on; None where nothing is to be read.
        model: in FP32, in evaluation mode.
        options: name -> value, defaults filled in.
        progress: told of each batch of a calibration.
        training: how to go on training, for "qat".
    """

    source: Source
    data: AnyParts | None
    model: Module
    options: Mapping[str, Any]
    progress: Callable[[Progress], None]
    training: Training | None = None

    @property
    def parts(self) -> AnyParts:
        """The data, where a mode needs it."""
        assert self.data is not None
        return self.data


@dataclass(frozen=True)
class Made:
    """What came of it.

    Attributes:
        model: the quantised model.
        layers: what became of each layer.
        left: layers that stay as they were, with the reason.
        fused, scaled: what was done before, and what not.
        facts: further lines: what they are -> text.
        rounded: the same without training on, which shows what that was worth.
    """

    model: Module
    layers: list[Layer]
    left: list[LayerRow] = field(default_factory=list)
    fused: FusionReport | None = None
    scaled: ScalingReport | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    rounded: Module | None = None


@dataclass(frozen=True)
class Mode:
    """One mode.

    Attributes:
        name: its name.
        note: what it does, in a few words.
        options: the options that act in it, and their defaults.
        needs_data: whether it cannot do without data.
        on_codes: whether the model computes on codes from end to end, which ONNX can hold.
        make: does it.
        ways: what to try where it loses too much.
    """

    name: str
    note: str
    options: Mapping[str, Any]
    needs_data: bool
    on_codes: bool
    make: Callable[[Job], Made]
    ways: str


class _Samples:
    """Some rows of a data set, drawn once, in batches."""

    def __init__(self, job: Job) -> None:
        rows = len(job.parts.train)
        asked, self.batch = job.options.get("samples"), job.options["batch"]
        if asked is not None and asked > rows:
            raise SettingError(
                f"--samples {asked} is more than the {rows} {job.parts.train.unit} of {job.parts.train.name}",
                help=f"--samples {rows} takes all of them",
            )
        self.count = min(SAMPLES, rows) if asked is None else asked
        self.loader = DataLoader(job.parts.train, min(self.batch, self.count), shuffle=True, seed=0)

    def __len__(self) -> int:
        return math.ceil(self.count / self.loader.batch_size)

    def __iter__(self) -> Iterator[Any]:
        left = self.count
        for inputs, targets in islice(self.loader, len(self)):
            yield inputs[:left], targets[:left]
            left -= len(inputs)


SAMPLES = 512
"""Rows that are calibrated on, where no other number is asked for."""


def _static(job: Job) -> Made:
    """Fuse, calibrate, convert."""
    options = job.options
    _check_kept(job)
    samples = _Samples(job)
    with _telling(job.source.kind.name):
        model, fused, scaled = _fused(job)
        _rehearse(job, model)
        seen = calibrate(
            model, samples, activation=_activation(options), patience=options["patience"],
            progress=job.progress,
        )  # fmt: skip
        made = convert(
            model, seen, weight=_weight(options), mode=options["requantise"],
            keep_float=options["keep_float"],
        )  # fmt: skip
    layers = layers_on_codes(made, model, _compared(job))
    return Made(made, layers, fused=fused, scaled=scaled, facts={"calibrated on": _words(seen, samples, job)})


def _check_kept(job: Job) -> None:
    """Refuse paths and formats of --keep-float that are none."""
    known = [path for path, each in job.model.named_modules() if path and not list(each.children())]
    for path, form in job.options["keep_float"].items():
        if path not in known:
            raise SettingError(unknown_name("module in --keep-float", path, known))
        if form not in ("float32", "float16"):
            raise SettingError(unknown_name("format in --keep-float", form, ("float32", "float16")))


def _rehearse(job: Job, model: Module) -> None:
    """Refuse at once, on a few rows, what would be refused after calibration."""
    seen = calibrate(model, [_example(job)], activation=MinMaxObserver)
    options = job.options
    walked(model, seen, weight=_weight(options), mode=options["requantise"], keep_float=options["keep_float"])


def _qat(job: Job) -> Made:
    """Put the roundings into the model, train on, convert."""
    options = job.options
    _check_kept(job)
    assert job.training is not None
    weight_bits, activation_bits = options["bits"]
    with _telling(job.source.kind.name):
        model, scaled = job.model, None
        if options["equalize"]:
            model, fused, scaled = _fused(job)
            del fused
        prepared = prepare_qat(
            model, _example(job), weight_bits=weight_bits, activation_bits=activation_bits,
            granularity=options["granularity"], keep_float=options["keep_float"],
        )  # fmt: skip
        rounded = _rounded(job)
        words = train(prepared, job.parts, job.source.kind, job.training)
        made = convert(prepared, mode=options["requantise"])
    layers = layers_on_codes(made, prepared.to_float(), _compared(job))
    widths = f"weights rounded to {weight_bits} bits, activations to {activation_bits}"
    facts = {"trained on": f"{words}; {widths}"}
    if min(weight_bits, activation_bits) < 8:
        facts["codes"] = f"of {weight_bits} and {activation_bits} bits, each in a byte of its own"
    return Made(made, layers, scaled=scaled, facts=facts, rounded=rounded)


def _rounded(job: Job) -> Module:
    """Return the model at the widths that are trained for, calibrated and not trained."""
    weight_bits, activation_bits = job.options["bits"]
    last, half = (1 << activation_bits) - 1, 1 << (weight_bits - 1)
    kind = _weight_kind(job.options)
    model, _, _ = _fused(job)
    seen = calibrate(model, _Samples(job), activation=lambda: HistogramObserver(quant_max=last))
    return convert(
        model, seen, weight=lambda: kind(quant_min=-half, quant_max=half - 1, symmetric=True),
        mode=job.options["requantise"], keep_float=job.options["keep_float"],
    )  # fmt: skip


def _dynamic(job: Job) -> Made:
    """Give linear and recurrent layers, embeddings and attention int8 weights."""
    try:
        made, report = quantize_dynamic(job.model, granularity=job.options["granularity"])
    except SettingError as fault:
        raise SettingError(
            plain(fault), op="quantize",
            help="--mode static takes convolutions, --mode weight-only stores any weights narrow",
        ) from fault  # fmt: skip
    layers, left = layers_of_report(report)
    return Made(made, layers, left)


def _weight_only(job: Job) -> Made:
    """Store weights narrow, and read them back for each product."""
    group = job.options["group_size"]
    more = {} if group is None else {"granularity": "per-group", "group_size": group}
    made, report = weight_only(job.model, job.options["dtype"], **more)
    layers, left = layers_of_report(report)
    return Made(made, layers, left)


ON_CODES = {"requantise": "float", "granularity": "per-channel", "keep_float": {}, "equalize": False}
TRAINING = {
    "recipe": "fp32",
    "epochs": None,
    "steps": None,
    "lr": RATE,
    "delay": 0,
    "freeze": None,
    "bits": (8, 8),
}

MODES: Named[Mode] = Named(
    "mode",
    Mode(
        "static", "integers from end to end; ranges of activations are measured on training data",
        {**ON_CODES, "samples": None, "batch": 64, "observer": "histogram", "rule": "torch", "patience": None,
         "onnx": None},
        needs_data=True, on_codes=True, make=_static,
        ways="--equalize, --observer minmax, --keep-float PATH, or training on with --mode qat",
    ),
    Mode(
        "dynamic", "int8 weights in linear and recurrent layers, embeddings and attention; activations are "
        "quantised as they come", {"granularity": "per-tensor"}, needs_data=False, on_codes=False,
        make=_dynamic, ways="--granularity per-channel, or --mode weight-only",
    ),
    Mode(
        "weight-only", "weights stored narrow and read back; all computing stays in floats",
        {"dtype": "int8", "group_size": None}, needs_data=False, on_codes=False, make=_weight_only,
        ways="--group-size, or a wider --dtype",
    ),
    Mode(
        "qat", "trains on with the roundings in the model, then as static",
        {**ON_CODES, **TRAINING, "batch": 64, "onnx": None}, needs_data=True, on_codes=True, make=_qat,
        ways="more --epochs, another --lr, wider --bits, --keep-float PATH",
    ),
)  # fmt: skip


def _fused(job: Job) -> tuple[Module, FusionReport, ScalingReport | None]:
    """Fold batch norms, join ReLUs, and move scale between layers if asked to."""
    example, scaled = _example(job), None
    model, report = fuse(job.model, example)
    if job.options["equalize"]:
        model, scaled = equalize(model, example)
    return model, report, scaled


def _example(job: Job) -> Any:
    return job.parts.train[:EXAMPLE][0]


def _compared(job: Job) -> Any:
    return job.parts.test[:COMPARED][0]


def _activation(options: Mapping[str, Any]) -> Callable[[], Observer]:
    kind, rule = OBSERVERS[options["observer"]], options["rule"]
    return lambda: kind(rule=rule)


def _weight_kind(options: Mapping[str, Any]) -> type[Observer]:
    return PerChannelMinMaxObserver if options["granularity"] == "per-channel" else MinMaxObserver


def _weight(options: Mapping[str, Any]) -> Callable[[], Observer]:
    kind = _weight_kind(options)
    rule = options["rule"]
    codes = {**INT8, "quant_min": LEAST.get(rule, INT8["quant_min"])}
    return lambda: kind(rule=rule, **codes)


def _words(seen: Calibration, samples: _Samples, job: Job) -> str:
    rows = min(seen.batches * samples.loader.batch_size, samples.count)
    early = "; ended early, as ranges had settled" if seen.settled else ""
    unit = job.parts.train.unit
    batches = f"{seen.batches:,} batch{'es' if seen.batches > 1 else ''}"
    return f"{rows:,} {unit} of the training part in {batches}{early}"


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """Say on the command line what to do about a model that has no integer form."""
    try:
        yield
    except SettingError as fault:
        if fault.op not in ("convert", "prepare_qat"):
            raise
        text = plain(fault)
        raise SettingError(
            f"the model {name!r} has no integer form throughout: {text}", op="quantize",
            help="take --mode dynamic or --mode weight-only, which leave in floats what has no integer form; "
            "--keep-float PATH keeps one module in floats",
        ) from fault  # fmt: skip
