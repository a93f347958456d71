"""Runs to compare: made in one way, and read as bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import minimp as mp
from minimp import models, optim
from minimp.data import DataLoader, digits
from minimp.recipe import Recipe
from minimp.runlog import StepRecord
from minimp.scaler import GradScaler
from minimp.step import TrainStep
from minimp.trainer import RunResult, Trainer
from tests.arrays import host

SEED = 11
OPTIMIZERS = {
    "sgd": lambda params: optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=1e-4),
    "adam": lambda params: optim.Adam(params, lr=1e-3),
    "adamw": lambda params: optim.AdamW(params, lr=1e-3, weight_decay=0.01),
}


def lively_scaler() -> GradScaler:
    """Return a scaler that overflows at first and grows every few steps: its state changes all the time."""
    return GradScaler(init_scale=2.0**30, growth_interval=7)


def make_trainer(
    recipe: Recipe | str,
    optimizer: str = "adam",
    *,
    seed: int = SEED,
    lr: float | None = None,
    scheduler: Callable[[optim.Optimizer], optim.LRScheduler] | None = None,
    **options: Any,
) -> Trainer:
    """Return the trainer of a new run: dropout in the model, shuffled batches, clipped gradients."""
    mp.manual_seed(seed)
    train, test = (models.MODELS["mlp"].prepare(digits(part)) for part in ("train", "test"))
    model = models.build("mlp", train, hidden=(32, 24), dropout=0.2)
    made = OPTIMIZERS[optimizer](model.parameters())
    if lr is not None:
        made.param_groups[0]["lr"] = lr
    step = TrainStep(model, mp.functional.cross_entropy, made, recipe, max_norm=2.0)
    if step.scaler.is_enabled():
        step.scaler = lively_scaler()
    if scheduler is not None:
        options["scheduler"] = scheduler(made)
    return Trainer(step, DataLoader(train, 64, shuffle=True, seed=seed), test=test, **options)


def bits(state: Any) -> Any:
    """Return a state with every array as its dtype, shape and bytes, so that == compares bits."""
    if isinstance(state, Mapping):
        return {key: bits(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [bits(value) for value in state]
    if isinstance(state, mp.Tensor | np.ndarray | np.generic):
        array = host(state)
        return str(array.dtype), array.shape, array.tobytes()
    return repr(state) if isinstance(state, float) else state


def timeless(records: Any) -> list[str]:
    """Return records without their times, as text that tells every bit and NaN from NaN."""
    return [repr(replace(record, seconds=0.0)) for record in records]


def records_of(*results: RunResult) -> list[StepRecord]:
    """Return the records of several calls of `run`, one after the other."""
    return [record for result in results for record in result.records]
