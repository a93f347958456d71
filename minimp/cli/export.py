"""`minimp export`: the weights of a run in 16 bits: their size, what was lost, how the model does."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimp import checkpoint, formats, models
from minimp.checkpoint.exporting import TARGETS, ExportReport
from minimp.cli.base import console, examples, json_text
from minimp.cli.choices import READING, add_reading
from minimp.cli.export_view import show
from minimp.cli.sizes import parse_sizes
from minimp.cli.train_settings import TrainSettings
from minimp.data import AnyParts, TextDataset
from minimp.errors import CheckpointError, DataError, SettingError
from minimp.evaluation import evaluate
from minimp.files import check_writable, write_whole
from minimp.formats import Format
from minimp.nn import Module
from minimp.recipe import Recipe, recipes

__all__ = ["add_parser", "run"]

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
KNOWN = ("model", "input_shape", "num_classes", "sizes")
"""What the file of weights says of its model (`minimp train` writes it)."""


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "export",
        help="write the weights of a run in 16 bits; show the size, what was lost, and the accuracy",
        description="Write the weights of a run in another format, each number rounded once. Show bytes "
        "before and after, what became zero, subnormal or infinite, and how the model does on the test part "
        "of its data: in full precision, with the exported weights, and computing in 16 bits throughout.",
        epilog=examples(
            "minimp export runs/mlp-mixed-fp16",
            "minimp export runs/mine/weights.safetensors --dtype bfloat16 --out small.safetensors",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "run_path", metavar="RUN", type=Path, help="the folder of a run, its checkpoint, or a file of weights"
    )
    add("--dtype", metavar="FORMAT", default="float16", help=f"{', '.join(TARGETS)} (default: float16)")
    add("--out", type=Path, metavar="FILE", help="the file to write (default: weights-FORMAT beside the run)")
    add("--allow-overflow", action="store_true", help="write infinities where numbers do not fit the format")
    add("--size-only", action="store_true", help="do not read data, and do not judge the model")
    add_reading(add, sizes=False)
    add("--label", metavar="COLUMN", help="the label column of a CSV file, by name or number")
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Source:
    """A trained model's weights, and what is known of the model.

    Attributes:
        title: what it is, in words.
        folder: where it lies.
        file: the file that holds it.
        weights: the flat state dict.
        meta: what a file of weights says of its model.
        settings: of the run, where a checkpoint was read.
        state: the checkpoint.
    """

    title: str
    folder: Path
    file: Path
    weights: Mapping[str, Any]
    meta: Mapping[str, str]
    settings: TrainSettings | None = None
    state: Mapping[str, Any] | None = None

    @property
    def kind(self) -> models.ModelKind:
        """The kind of model."""
        return models.MODELS[self.settings.model if self.settings else self.meta["model"]]

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes of the model."""
        return parse_sizes(self.settings.sizes if self.settings else self.meta["sizes"], self.kind)

    def read(self, options: Mapping[str, Any]) -> AnyParts:
        """Read the data to judge by: the run's own, where nothing else is named."""
        given = {name: options[name] for name in ("label", *READING)}
        if self.settings is None:
            if self.kind.shape == "text" and given["context"] is None:
                (given["context"],) = self._shape
            data = self.kind.read(options["data"] or self.kind.data, **given)
            self._check_vocabulary(data)
            return data
        own = {name: getattr(self.settings, name) for name in given} if options["data"] is None else {}
        chosen = {**own, **{name: value for name, value in given.items() if value is not None}}
        data = self.kind.read(options["data"] or self.settings.data, **chosen)
        if self.state is not None and (options["data"] is None or isinstance(data.train, TextDataset)):
            self.settings.check_data(self.state, data)
        return data

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape of one input, as the file of weights has it."""
        return tuple(ast.literal_eval(self.meta["input_shape"]))

    def _check_vocabulary(self, data: AnyParts) -> None:
        train = data.train
        if isinstance(train, TextDataset) and train.vocabulary.characters != self.meta.get("vocabulary"):
            raise DataError(
                f"{train.name} has other characters than the model was trained on",
                op="export", help="name its own text with --data, or leave the judging out: --size-only",
            )  # fmt: skip

    def build(self, data: AnyParts | None) -> Module:
        """Make the model with its weights, in FP32."""
        shapes: Any = data and data.train
        if self.meta:
            shapes = self._shape, int(self.meta["num_classes"])
        model = models.build(self.kind.name, shapes, **self.sizes)
        model.load_state_dict(self.weights)
        return model


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    form = formats.get(args.dtype)
    source = _source(args.run_path)
    target = args.out or source.folder / f"weights-{form.name}.safetensors"
    if target.exists() and target.resolve() == source.file.resolve():
        raise SettingError(f"--out {target} is the file that is exported", help="name another")
    if args.json is not None:
        check_writable(args.json)
    if args.size_only:
        for name in ("data", "label", *READING):
            if getattr(args, name) is not None:
                raise SettingError(f"--{name.replace('_', '-')} cannot act beside --size-only")
    data = None if args.size_only else source.read(vars(args))
    report = _export(args, source, target, data)
    scores = {} if data is None else _judge(source, data, target, form)
    show(console(), source.title, report, scores)
    if args.json is not None:
        write_whole(args.json, json_text(_plain(source, report, scores)))
    return 0


def _source(path: Path) -> Source:
    """Find the weights: of a run's checkpoint, which is its newest state, or of a file of weights."""
    file = path
    if path.is_dir():
        file = next((path / name for name in (CHECKPOINT, WEIGHTS) if (path / name).exists()), path)
        if file is path:
            raise CheckpointError(
                f"{path} holds no run: there is neither {CHECKPOINT} nor {WEIGHTS} in it",
                help="name the folder of a run of `minimp train`, or a file of weights",
            )
    state = checkpoint.load(file)
    if isinstance(state.get("model"), dict) and isinstance(state.get("settings"), dict):
        settings = TrainSettings.from_checkpoint(state, dict.fromkeys(TrainSettings.__dataclass_fields__))
        title = f"{settings.model} trained by {settings.recipe}, step {state['step']:,}"
        return Source(title, file.parent, file, state["model"], {}, settings, state)
    meta = checkpoint.read_meta(file)
    lacking = [name for name in KNOWN if name not in meta]
    if lacking:
        raise CheckpointError(
            f"{file} does not say of which model it is (no {', '.join(lacking)} in its metadata)",
            help="name a run of `minimp train`, or call minimp.checkpoint.export with the model",
        )
    title = f"{meta['model']} from {file.name}"
    return Source(title, file.parent, file, state, meta)


def _export(args: argparse.Namespace, source: Source, target: Path, data: AnyParts | None) -> ExportReport:
    """Write the file."""
    try:
        return checkpoint.export(
            target,
            _tied(source, data),
            args.dtype,
            allow_overflow=args.allow_overflow,
            meta=_described(source, data),
        )
    except DataError as fault:
        raise DataError(
            str(fault).split("\n  help:")[0], help="--dtype bfloat16, or --allow-overflow to write infinities"
        ) from fault


def _tied(source: Source, data: AnyParts | None) -> dict[str, Any]:
    """Return the weights, those that the model ties as one array: a file of theirs has it once."""
    if data is None and not source.meta:  # the shape of the model is not known
        return dict(source.weights)
    first: dict[int, Any] = {}
    tied = {}
    for name, leaf in source.build(data).state_dict().items():
        if name in source.weights:
            tied[name] = first.setdefault(id(leaf.array), source.weights[name])
    return tied


def _described(source: Source, data: AnyParts | None) -> dict[str, str]:
    """Return what the new file says of its model: what the old one said, or what the data does."""
    if source.settings is None or data is None:
        return {name: text for name, text in source.meta.items() if name in (*KNOWN, "recipe", "vocabulary")}
    train = data.train
    said = {
        "model": source.settings.model, "recipe": source.settings.recipe,
        "input_shape": str(train.input_shape), "num_classes": str(train.num_classes),
        "sizes": source.settings.sizes or "",
    }  # fmt: skip
    if isinstance(train, TextDataset):
        said["vocabulary"] = train.vocabulary.characters
    return said


def _judge(source: Source, data: AnyParts, exported: Path, form: Format) -> dict[str, dict[str, float]]:
    """Return the scores: in full precision, with the exported weights, and in their format throughout."""
    test, single = data.test, recipes["fp32"]
    plain = source.build(data)
    found = {"full precision": evaluate(plain, test, single)}
    rounded = source.build(data)
    rounded.load_state_dict(exported)
    found[f"{form.name} weights, FP32 arithmetic"] = evaluate(rounded, test, single)
    if Recipe.low(form):
        low = Recipe(f"{form.name} inference", form, form)
        half = "half" if form is formats.float16 else "bfloat16"
        found[f"model.{half}(): {form.name} throughout"] = evaluate(rounded.to(form), test, low)
    return found


def _plain(source: Source, report: ExportReport, scores: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "elements", "bytes_before", "bytes_after", "file_bytes", "nonfinite", "overflowed", "flushed",
        "subnormal", "max_relative_error",
    )  # fmt: skip
    return {
        "source": source.file, "model": source.kind.name, "written": report.path, "dtype": report.dtype,
        **{name: getattr(report, name) for name in names}, "scores": scores,
    }  # fmt: skip
