"""`minimp memory`: what a training step holds, by cause, before anything is trained or allocated."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minimp import memory, models
from minimp.cli.base import console, examples, json_text
from minimp.cli.choices import READING, add_backend, add_reading, computing_on, models_text
from minimp.cli.memory_measure import measured
from minimp.cli.memory_view import show_inference, show_ledgers, show_measured, show_sayings
from minimp.cli.sizes import parse_sizes
from minimp.cli.train_settings import OPTIMIZERS
from minimp.errors import SettingError, unknown_name
from minimp.files import check_writable, write_whole
from minimp.nn import Module
from minimp.optim import Optimizer
from minimp.recipe import recipes

__all__ = ["Subject", "add_parser", "run"]

RECIPES = "fp32,mixed-fp16,mixed-bf16,bf16-kahan"
FORMATS = ("float32", "float16", "bfloat16")
MOST = 4
"""Recipes that fit side by side."""


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "memory",
        help="show the bytes that training would hold, by cause, and check what is said of them",
        description="Forecast the bytes of a training step by cause, for several recipes side by side: what "
        "hardware with real 16-bit arithmetic would hold (logical), and what this process holds (physical). "
        "Only shapes are computed: the model need not fit. Then the classic claims, by number.",
        epilog=models_text() + "\n\n" + examples(
            "minimp memory --model mlp --sizes hidden=512x512 --batch 128",
            "minimp memory --model gpt --sizes width=12288,layers=96,heads=96 --input 2048 --classes 50257",
            "minimp memory --model cnn --recipes fp32,mixed-fp16 --measure",
            "minimp memory --model gpt --sizes width=768,layers=12,heads=12 --backend cupy",
            "minimp memory --model resnet --input 3x224x224 --classes 1000 --inference",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--model", metavar="NAME", default="mlp", help=f"one of {', '.join(models.MODELS)} (default: mlp)")
    add("--recipes", "--recipe", metavar="A,B", default=RECIPES,
        help=f"up to {MOST} recipes (default: {RECIPES})")  # fmt: skip
    add("--batch", type=int, default=64, metavar="N", help="rows of a batch (default: 64)")
    add("--optimizer", metavar="NAME", default="adam", help=f"one of {', '.join(OPTIMIZERS)} (default: adam)")
    add("--momentum", type=float, metavar="X", help="of sgd (default: 0)")
    add_reading(add)
    add("--label", metavar="COLUMN", help="the label column of a CSV file, by name or number")
    add("--input", metavar="AxBxC", help="the shape of one input, in the place of data: 784, 3x224x224; "
        "for gpt the characters of a window")  # fmt: skip
    add(
        "--classes", type=int, metavar="N", help="with --input: classes, or characters (default: 10; gpt: 96)"
    )
    add("--measure", action="store_true", help="also take a real step, and show it beside the forecast")
    add_backend(add, None, "; the forecast for cupy needs no GPU")
    add("--inference", action="store_true", help="only what applying the model takes, in 32 and 16 bits")
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Subject:
    """What is counted: a model, and the shape of its batches.

    Attributes:
        kind: the kind of model.
        shape: of one input.
        classes: how many, or characters.
        batch: rows.
        sizes: of the model.
        source: where the shapes are from.
        rows: a real batch, if data was read.
    """

    kind: models.ModelKind
    shape: tuple[int, ...]
    classes: int
    batch: int
    sizes: dict[str, Any]
    source: str
    rows: tuple[Any, Any] | None = None

    def make(self) -> Module:
        """Make the model."""
        return models.build(self.kind.name, (self.shape, self.classes), **self.sizes)

    @property
    def inputs(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of the inputs."""
        return (self.batch, *self.shape), "int64" if self.kind.shape == "text" else "float32"

    @property
    def targets(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of the targets."""
        if self.kind.classifies:
            return (self.batch,), "int64"
        return self.inputs  # the next characters; or, of an auto-encoder, the inputs

    def real_batch(self) -> tuple[Any, Any]:
        """Return the data's first rows, or random ones of the shape."""
        if self.rows is not None:
            return self.rows
        rng = np.random.default_rng(0)

        def draw(shape: tuple[int, ...], dtype: str) -> Any:
            whole = dtype == "int64"
            return rng.integers(0, self.classes, shape) if whole else rng.standard_normal(shape, np.float32)

        return draw(*self.inputs), draw(*self.targets)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    subject = _subject(args)
    names = _recipes(args.recipes)
    optimizer = _optimizer(args)
    backend = args.backend or "numpy"
    if args.json is not None:
        check_writable(args.json)
    told: dict[str, Any] = {"config": _config(args, subject)}
    out = console()
    if args.inference:
        if args.measure:
            raise SettingError("--measure cannot act beside --inference: no step is taken")
        if args.backend is not None:
            raise SettingError("--backend cannot act beside --inference: logical bytes are the same anywhere")
        found = {each: memory.inference(subject.make, subject.inputs, each) for each in FORMATS}
        show_inference(out, subject, found)
        told["inference"] = {name: vars(each) | {"total": each.total} for name, each in found.items()}
    else:
        batch, loss = (subject.inputs, subject.targets), subject.kind.loss_fn
        ledgers = {
            name: memory.forecast(subject.make, name, optimizer, *batch, loss, backend=backend)
            for name in names
        }
        seen = {}
        if args.measure:
            with computing_on(backend):  # before anything is shown: it may not be there
                seen = {name: measured(subject, name, optimizer) for name in names}
        show_ledgers(out, subject, args.optimizer, ledgers, backend)
        told["forecast"] = {name: held.details() for name, held in ledgers.items()}
        if seen:
            show_measured(out, ledgers, seen)
            told["measured"] = {name: each.details() for name, each in seen.items()}
        sayings = memory.claims(subject.make, *batch, loss, backend=backend)
        show_sayings(out, sayings)
        told["claims"] = [each.as_dict() for each in sayings]
    if args.json is not None:
        write_whole(args.json, json_text(told))
    return 0


def _recipes(text: str) -> list[str]:
    names = [recipes[name.strip()].name for name in text.split(",")]
    if len(names) > MOST or len(set(names)) < len(names):
        raise SettingError(f"--recipes takes up to {MOST} different recipes, got {text}")
    return names


def _optimizer(args: argparse.Namespace) -> Callable[[Any], Optimizer]:
    if args.optimizer not in OPTIMIZERS:
        raise SettingError(unknown_name("optimizer", args.optimizer, OPTIMIZERS))
    kind, own = OPTIMIZERS[args.optimizer]
    if args.momentum is None:
        return kind
    if "momentum" not in own:
        raise SettingError(f"--momentum cannot act on the optimizer {args.optimizer!r}")
    momentum = args.momentum
    return lambda params: kind(params, momentum=momentum)  # type: ignore[call-arg]  # sgd has it


def _subject(args: argparse.Namespace) -> Subject:
    """Return what to count: from a shape, or from data."""
    kind = models.MODELS[args.model]
    sizes = parse_sizes(args.sizes, kind)
    if args.batch < 1:
        raise SettingError(f"--batch must be at least 1, got {args.batch}")
    if args.input is not None:
        for name in ("data", "label", *READING):
            if getattr(args, name) is not None:
                raise SettingError(
                    f"--{name.replace('_', '-')} cannot act beside --input, which reads no data"
                )
        shape, classes = _shape(args.input, kind), args.classes or (96 if kind.shape == "text" else 10)
        return Subject(kind, shape, classes, args.batch, sizes, "shapes alone")
    if args.classes is not None:
        raise SettingError("--classes cannot act without --input: the data says how many there are")
    options = {name: getattr(args, name) for name in ("label", *READING)}
    data = kind.read(args.data or kind.data, **options).train
    if args.batch > len(data):
        raise SettingError(
            f"--batch {args.batch} is more than the {len(data)} {data.unit} of {data.name}",
            help="give the shape alone: --input " + "x".join(map(str, data.input_shape)),
        )
    rows = data[: args.batch]
    return Subject(kind, data.input_shape, data.num_classes, args.batch, sizes, data.name, rows)


def _shape(text: str, kind: models.ModelKind) -> tuple[int, ...]:
    """Return the shape of one input, as the model wants it."""
    try:
        shape = tuple(int(each) for each in text.split("x"))
    except ValueError:
        raise SettingError(f"--input takes whole numbers like 3x32x32, got {text!r}") from None
    lengths = {"flat": range(1, 9), "image": (2, 3), "text": (1,)}[kind.shape]
    if len(shape) not in lengths or min(shape) < 1:
        wanted = {"flat": "at least 1 everywhere", "image": "CxHxW or HxW", "text": "one length"}[kind.shape]
        raise SettingError(f"--input {text} does not fit the model {kind.name!r}, which wants {wanted}")
    if kind.shape == "flat":
        return (math.prod(shape),)
    return (1, *shape) if kind.shape == "image" and len(shape) == 2 else shape


def _config(args: argparse.Namespace, subject: Subject) -> dict[str, Any]:
    return {
        "model": subject.kind.name, "sizes": subject.sizes, "input_shape": list(subject.shape),
        "classes": subject.classes, "batch": subject.batch, "optimizer": args.optimizer,
        "momentum": args.momentum, "source": subject.source, "recipes": args.recipes, "backend": args.backend,
    }  # fmt: skip
