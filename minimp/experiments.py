"""Experiments: one model, one seed, one data set, several recipes; what each part of the technique is worth.

Everything reported is measured: the sentence about a recipe is made from its figures by
:mod:`minimp.verdicts`. No setting touches a recipe's arithmetic.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from minimp import models, rng
from minimp.checks.shadow import Fate, fate_of, float64_gradients
from minimp.data import AnyParts, DataLoader
from minimp.errors import SettingError
from minimp.evaluation import evaluate
from minimp.fp8 import Losses, TensorLosses, watch
from minimp.memory import ledger
from minimp.named import Named
from minimp.optim import Adam
from minimp.recipe import Recipe, recipes
from minimp.step import StepReport, TrainStep

__all__ = ["EXPERIMENTS", "Experiment", "Outcome", "run_experiment", "run_recipe"]

MOST = 10**9
"""More steps, rows or micro-batches than this are a slip of the keyboard."""
SAMPLES = 40
"""On about so many steps (40 to 79), evenly spread, gradients meet float64 and updates are counted."""


@dataclass(frozen=True)
class Experiment:
    """The settings of a comparison.

    Attributes:
        name: how it is called.
        shows: what it shows, in a line.
        why: why these settings, for `--help`.
        model: a name in `minimp.models.MODELS`; it brings the loss and the metric.
        recipes: names of recipes, in the order in which they run.
        steps: optimizer steps.
        batch: rows of a (micro-)batch.
        lr: Adam's learning rate.
        accumulate_steps: micro-batches a step stands for (one is computed, see `TrainStep`).
        seed: of initialisation, shuffling and stochastic rounding.
        max_norm: the norm of all gradients is clipped to this; None: never.
        sizes: of the model, where they are not its own.
        usual: whether `minimp compare` runs it unasked.
    """

    name: str
    shows: str
    why: str
    model: str
    recipes: tuple[str, ...]
    steps: int
    batch: int
    lr: float
    accumulate_steps: int = 1
    seed: int = 0
    max_norm: float | None = None
    sizes: Mapping[str, Any] = field(default_factory=dict)
    usual: bool = True

    def __post_init__(self) -> None:
        if not self.recipes:
            raise SettingError("an experiment needs at least one recipe")
        for name in self.recipes:
            recipes[name]
        if len(set(self.recipes)) != len(self.recipes):
            raise SettingError(f"a recipe is named twice in {', '.join(self.recipes)}")
        for name in ("steps", "batch", "accumulate_steps"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MOST:
                raise SettingError(f"{name} must be a whole number from 1 to {MOST:,}, got {value}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise SettingError(f"lr must be a number greater than 0, got {self.lr}")
        models.MODELS[self.model]

    @property
    def metric(self) -> str:
        """``"test_accuracy"``, ``"test_loss"`` or ``"test_bits"``."""
        return models.MODELS[self.model].metric

    @property
    def reference(self) -> str:
        """The recipe that the others are compared with: fp32, or the first where it is not run."""
        return "fp32" if "fp32" in self.recipes else self.recipes[0]

    def with_(self, **changes: Any) -> Experiment:
        """Return a copy with some settings changed; they are checked again."""
        return replace(self, **changes)


EXPERIMENTS = Named(
    "experiment",
    Experiment(
        "master-weights",
        "what an FP32 master copy of the weights is worth",
        "A classifier trained by Adam at a small learning rate: each update is about lr = 1e-5, less than "
        "half an ULP of most weights in FP16 (at least 2^-12 of the weight) or bfloat16 (2^-9), so a weight "
        "that is stored in 16 bits rounds nearly every update away. At lr = 1e-3 the same weights would "
        "learn: it is the size of the update that matters, not the format alone.",
        "mlp",
        ("fp32", "mixed-fp16", "fp16-scaled", "mixed-bf16", "bf16", "bf16-kahan", "bf16-stochastic"),
        steps=2000, batch=64, lr=1e-5,
    ),
    Experiment(
        "loss-scaling",
        "what loss scaling is worth",
        "An auto-encoder, mean squared error over 64 pixels, with the batch spread over 4096 "
        "accumulation steps: each micro-batch's loss is divided by 4096, and its gradients fall below "
        "2^-25, where FP16 rounds to zero. With up to 64 accumulation steps FP16 copes without scaling.",
        "autoencoder",
        ("fp32", "fp16", "fp16-master", "mixed-fp16", "mixed-bf16"),
        steps=300, batch=256, lr=1e-3, accumulate_steps=4096,
    ),
    Experiment(
        "fp8-scaling",
        "what the scales of FP8 are worth",
        "A classifier with the batch spread over 1024 accumulation steps: the gradients of a micro-batch are "
        "below 2^-17, where e5m2, FP8's format for them, rounds to zero. A scale for each tensor (from the "
        "steps before, or from the tensor itself) or for each 32 numbers (MXFP8) brings them back. Seeds "
        "alone move the score by half a point. What is saved is more than in bfloat16, where a layer and the "
        "ReLU before it keep the same array.",
        "mlp",
        ("fp32", "mixed-bf16", "mixed-fp8", "mixed-fp8-current", "mixed-mxfp8", "fp8-unscaled"),
        steps=400, batch=64, lr=1e-3, accumulate_steps=1024,
    ),
    Experiment(
        "language-model",
        "what a small GPT holds, and loses, in each recipe",
        "A transformer of one block on characters of the standard library's source. The updates are large "
        "(lr 3e-3) and the gradients within the range of FP16, so that every recipe comes within 0.05 bits a "
        "character of fp32 (seeds differ by 0.02); what differs is what it holds for backward.",
        "gpt",
        ("fp32", "fp16", "mixed-fp16", "mixed-bf16", "bf16"),
        steps=600, batch=16, lr=3e-3, max_norm=1.0, sizes={"layers": 1}, usual=False,
    ),
    Experiment(
        "residual-net",
        "what a ResNet with batch norm holds, and loses, in each recipe",
        "Eight layers with weights. Batch norm brings activations near 1, well inside the range of FP16, and "
        "its statistics are computed in FP32; what is saved for backward, most of what such a net holds, "
        "halves. Seeds alone move the score by a point.",
        "resnet",
        ("fp32", "fp16", "mixed-fp16", "mixed-bf16", "bf16"),
        steps=200, batch=64, lr=1e-3, usual=False,
    ),
)  # fmt: skip
"""The experiments of `minimp compare`, by name."""


@dataclass(frozen=True)
class Outcome:
    """What one recipe did.

    Attributes:
        recipe: its name.
        metric: ``"test_accuracy"`` (a fraction of 1), ``"test_loss"``, or ``"test_bits"`` (a character).
        score: the metric on the test part, in the recipe's formats.
        losses: the training loss of each step.
        loss_scales: the loss scale of each step (1.0 without scaling).
        skipped_steps: steps whose update was skipped for a non-finite gradient.
        underflow_share: of the gradients not zero in float64, the share that was zero in the recipe's format.
        overflow_share: the share that was infinite or NaN.
        swallowed_updates: of the weight updates not zero, the share with w + dw == w.
        bytes: cause -> bytes, as :class:`minimp.memory.Ledger`.
        seconds_per_step: the median over the steps on which nothing else was measured.
        fp8: role ("input", "weight", "grad") -> what quantising to FP8 did to it on the sampled steps; empty
            without FP8.
    """

    recipe: str
    metric: str
    score: float
    losses: tuple[float, ...]
    loss_scales: tuple[float, ...]
    skipped_steps: int
    underflow_share: float
    overflow_share: float
    swallowed_updates: float
    bytes: dict[str, int]
    seconds_per_step: float
    fp8: Mapping[str, TensorLosses] = field(default_factory=dict)

    @property
    def diverged_at(self) -> int | None:
        """The step (from 1) from which on no loss was finite, or None if the last one was."""
        finite = [number for number, loss in enumerate(self.losses, 1) if math.isfinite(loss)]
        last = finite[-1] if finite else 0
        return last + 1 if last < len(self.losses) else None

    @property
    def diverged(self) -> bool:
        """Whether training ended without a finite loss, or with a score that is no number."""
        return self.diverged_at is not None or not math.isfinite(self.score)


def run_experiment(
    experiment: Experiment, data: AnyParts, on_step: Callable[[str, int, StepReport], None] | None = None
) -> Iterator[Outcome]:
    """Run the recipes one after the other, each from the same weights and the same order of batches."""
    for name in experiment.recipes:
        yield run_recipe(experiment, recipes[name], data, on_step)


def run_recipe(
    experiment: Experiment, recipe: Recipe, data: AnyParts,
    on_step: Callable[[str, int, StepReport], None] | None = None,
) -> Outcome:  # fmt: skip
    """Train by one recipe and measure.

    Args:
        experiment: the settings.
        recipe: the recipe.
        data: training and test part.
        on_step: called after each step with (recipe's name, step from 1, report).
    """
    rng.manual_seed(experiment.seed)
    kind = models.MODELS[experiment.model]
    train, test = kind.prepare(data.train), kind.prepare(data.test)
    model = models.build(experiment.model, train, **experiment.sizes)
    optimizer = Adam(model.parameters(), lr=experiment.lr)
    step = TrainStep(
        model, kind.loss_fn, optimizer, recipe,
        max_norm=experiment.max_norm, micro_batches=experiment.accumulate_steps,
    )  # fmt: skip
    meter = _Meter(step, experiment.steps)
    batches = DataLoader(train, experiment.batch, shuffle=True, seed=experiment.seed).cycle()
    for number in range(1, experiment.steps + 1):
        report = meter.run(number, *next(batches))
        if on_step is not None:
            on_step(recipe.name, number, report)
    score = evaluate(model, test, recipe)[experiment.metric]
    return meter.outcome(experiment.metric, score, train[: experiment.batch])


class _Meter:
    """Runs steps and adds up what they show."""

    def __init__(self, step: TrainStep, steps: int) -> None:
        self.step = step
        self.every = max(1, steps // SAMPLES)
        self.reports: list[StepReport] = []
        self.seconds: list[float] = []
        self.fate = Fate(0, 0, 0)
        self.updates = self.swallowed = 0
        self.quantised: dict[str, TensorLosses] = {}

    def run(self, number: int, inputs: Any, targets: Any) -> StepReport:
        """Run a step: timed, or on every so many steps compared with float64."""
        sampled = number % self.every == 0
        measure = self._measured if sampled else self._timed
        report = measure(inputs, targets)
        self.reports.append(report)
        return report

    def _timed(self, inputs: Any, targets: Any) -> StepReport:
        start = time.perf_counter()
        report = self.step(inputs, targets)
        self.seconds.append(time.perf_counter() - start)
        return report

    def _measured(self, inputs: Any, targets: Any) -> StepReport:
        step = self.step
        low = step.recipe.compute_dtype
        exact = float64_gradients(step.model, step.loss_fn, inputs, targets, weights_in=low)
        step.optimizer.measure_updates = True
        with watch() if step.fp8_layers else nullcontext(Losses()) as seen:
            report = step(inputs, targets)
        step.optimizer.measure_updates = False
        for _, role, lost in seen.rows():
            self.quantised[role] = self.quantised.get(role, TensorLosses()) + lost
        named = {name: p.grad.array for name, p in step.model.named_parameters() if p.grad is not None}
        self.fate += fate_of(named, exact)
        if not report.skipped and step.optimizer.last_update is not None:
            self.updates += step.optimizer.last_update.nonzero
            self.swallowed += step.optimizer.last_update.swallowed
        return report

    def outcome(self, metric: str, score: float, batch: tuple[Any, Any]) -> Outcome:
        """Sum up; the bytes are those of a step on `batch`."""
        if not self.seconds:  # so few steps that each was sampled
            self._timed(*batch)
        return Outcome(
            recipe=self.step.recipe.name,
            metric=metric,
            score=score,
            losses=tuple(r.loss for r in self.reports),
            loss_scales=tuple(r.loss_scale for r in self.reports),
            skipped_steps=sum(r.skipped for r in self.reports),
            underflow_share=self.fate.flushed_share,
            overflow_share=self.fate.overflowed_share,
            swallowed_updates=self.swallowed / self.updates if self.updates else 0.0,
            bytes=ledger(self.step, *batch).as_dict(),
            seconds_per_step=statistics.median(self.seconds),
            fp8=self.quantised,
        )
