"""Quantisation-aware training on the command line: the steps, and when rounding begins and ranges freeze."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from minimp import formats
from minimp.cli.train_view import OnStep
from minimp.data import AnyParts, DataLoader
from minimp.errors import MinimpError, SettingError
from minimp.models import ModelKind
from minimp.nn import Module
from minimp.optim import Adam
from minimp.quant.qat import QATSchedule
from minimp.quant.qat.layers import Folded
from minimp.recipe import recipes
from minimp.runlog import StepRecord
from minimp.step import TrainStep
from minimp.trainer import RunResult, Trainer

__all__ = ["EPOCHS", "RATE", "RECIPES", "Training", "check_recipe", "train"]

EPOCHS = 5
RATE = 1e-3
FROZEN = 0.75
"""The share of the steps after which ranges and statistics stand still, where nothing else is asked for."""


RECIPES = tuple(
    name for name, each in recipes.items() if each.param_dtype is formats.float32 and each.fp8 is None
)
"""What a prepared model can be trained by: weights in float32, and no FP8, which its layers do not have."""


def check_recipe(name: str) -> None:
    """Refuse a recipe that a prepared model cannot be trained by.

    Raises:
        SettingError: an unknown recipe, one with 16-bit weights, or one with FP8.
    """
    recipe, known = recipes[name], f"take one of {', '.join(RECIPES)}"
    if recipe.fp8 is not None:
        said = f"--recipe {name} cannot act in mode qat: layers with roundings have no FP8 products"
        raise SettingError(said, help=known)
    if name not in RECIPES:
        form = recipe.param_dtype.name
        said = f"--recipe {name} stores weights in {form}; the roundings of qat act on weights in float32"
        raise SettingError(said, help=known)


@dataclass(frozen=True)
class Training:
    """How a prepared model is trained.

    Attributes:
        recipe: the name of what it computes in.
        epochs, steps: how long; one of them at most is given.
        lr: of Adam.
        delay: the step at which rounding begins.
        freeze: the step at which ranges and statistics freeze.
        batch: rows of a batch.
        seed: of the order of the batches.
        show: steps -> what shows them as they are done.
    """

    recipe: str
    epochs: int | None
    steps: int | None
    lr: float
    delay: int
    freeze: int | None
    batch: int
    seed: int
    show: Callable[[int], AbstractContextManager[OnStep]]


def train(prepared: Module, data: AnyParts, kind: ModelKind, how: Training) -> str:
    """Train a prepared model; return what was done, in words.

    Raises:
        SettingError: steps that cannot be; no loss was finite at the end.
    """
    rows = len(data.train)
    loader = DataLoader(data.train, min(how.batch, rows), shuffle=True, seed=how.seed)
    steps = how.steps or (how.epochs or EPOCHS) * len(loader)
    freeze = _freeze(how, steps)
    schedule = _schedule(prepared, how.delay, freeze)
    step = TrainStep(prepared, kind.loss_fn, Adam(prepared.parameters(), lr=how.lr), how.recipe)
    trainer = Trainer(step, loader)
    with how.show(steps) as show:

        def after(record: StepRecord) -> None:
            if schedule is not None:
                schedule.step()
            show(record)

        trainer.on_step = after
        result = _run(trainer, steps, how.lr)
    prepared.eval()
    still = "" if freeze is None else f"; ranges stand still from step {freeze:,}"
    delayed = f", rounding from step {how.delay}" if how.delay else ""
    return (
        f"{steps:,} steps of {loader.batch_size} {data.train.unit} in {how.recipe}, "
        f"Adam lr {how.lr:g}{delayed}{still}; last loss {result.records[-1].loss:.4g}"
    )


def _run(trainer: Trainer, steps: int, lr: float) -> RunResult:
    """Do the steps; weights that grow without end are told as what they are."""
    try:
        result = trainer.run(steps)
    except MinimpError as fault:
        if not str(fault.op).lower().startswith(("fakequantize", "fake_quantize")):
            raise
        text = str(fault).partition("\n")[0]
        said = f"training diverged after step {trainer.done}: {text}"
        raise SettingError(said, op="quantize", help=f"try a smaller --lr than {lr:g}") from fault
    if result.diverged_at is not None:
        said = f"training diverged: from step {result.diverged_at} on no loss was finite"
        raise SettingError(said, op="quantize", help=f"try a smaller --lr than {lr:g}")
    return result


def _freeze(how: Training, steps: int) -> int | None:
    """Return the step at which ranges freeze; None where there are too few steps for it."""
    for name, value in (("delay", how.delay), ("freeze", how.freeze or 0)):
        if value >= steps:
            raise SettingError(
                f"--{name} {value} cannot act: there are {steps} steps", help=f"give fewer than {steps}"
            )
    usual = max(int(FROZEN * steps), how.delay)
    return (usual or None) if how.freeze is None else how.freeze


def _schedule(prepared: Module, delay: int, freeze: int | None) -> QATSchedule | None:
    """Return the schedule, if there is one; batch norms freeze with the ranges, where there are any."""
    if freeze is None and not delay:
        return None
    norms = any(isinstance(each, Folded) for each in prepared.modules())
    still = {"freeze_batch_norm": freeze} if norms else {}
    return QATSchedule(prepared, delay=delay, freeze_observers=freeze, **still)
