"""Keras 3's LossScaleOptimizer beside minimp's preset of that name."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row, Section
from minimp.frameworks.scalers.presets_live import Family, State, followed, good_and_bad, mixed, verdict_row
from minimp.frameworks.sides import Minimp, show
from minimp.scaler import GradScaler

__all__ = ["compare"]

FRAMEWORK, SECTION = "keras", "scaler"
CLAIM = (
    "After every verdict the same scale, bit for bit, and the same count of good steps; and the same weights "
    "after whole steps."
)
FAMILIES = (
    Family("the defaults", good_and_bad((2010, 3), (5, 0))),
    Family("random, interval 3", mixed(300, 0.6), {"growth_interval": 3}),
    Family("random, interval 1", mixed(200, 0.5), {"growth_interval": 1}),
    Family("few bad steps, interval 20", mixed(300, 0.1), {"growth_interval": 20}),
    Family(
        "past the end of float32, then bad for good", good_and_bad((12, 5), (4, 1)),
        {"init_scale": 2.0**120, "growth_interval": 1},
    ),
    Family("down to 2^-126", good_and_bad((0, 120), (4, 0)), {"init_scale": 2.0**-6, "growth_interval": 2}),
    Family("no power of two", mixed(200, 0.5), {"init_scale": 3.7, "growth_interval": 2}),
)  # fmt: skip
STEPS = 12


def compare(seed: int) -> Section:
    """Compare minimp's preset "keras" with the LossScaleOptimizer of the Keras that is installed.

    Keras computes in another library. Where the variable KERAS_BACKEND names none, and Keras is not loaded
    yet, it is loaded with JAX if that is installed; what is set stays as it is.

    Args:
        seed: of the random verdicts.

    Raises:
        SettingError: the library that Keras is to compute with is not installed.
    """
    keras = _load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scales that are infinite or collapse, which are meant
        rows = tuple(_rows(seed))
    verdicts = sum(row.figures.get("steps", 0) for row in rows)
    return Section(
        SECTION, "Keras's LossScaleOptimizer", CLAIM, rows,
        {"steps": "steps", "skips": "bad"},
        {"verdicts": f"{verdicts:,}", "Keras computes with": str(keras.backend.backend())},
    )  # fmt: skip


def _load() -> Any:
    """Import Keras, with JAX where no choice was made."""
    try:
        return _loaded()
    except (ImportError, ValueError) as fault:  # ValueError: Keras knows no such library
        raise SettingError(
            f"Keras cannot be loaded: {fault}", op="check keras",
            help="set KERAS_BACKEND to a library that is installed: jax, torch or tensorflow",
        ) from fault  # fmt: skip


def _loaded() -> Any:
    if "keras" in sys.modules or "KERAS_BACKEND" in os.environ or find_spec("jax") is None:
        return import_module("keras")
    os.environ["KERAS_BACKEND"] = "jax"
    try:
        return import_module("keras")
    finally:
        del os.environ["KERAS_BACKEND"]


@dataclass
class _Keras:
    """An optimizer w <- w - g under Keras's loss scaling, called as `fit` does: without hidden state."""

    scale: float
    interval: int

    def __post_init__(self) -> None:
        import keras

        self.ops = keras.ops
        self.weight = keras.Variable(np.zeros(1, np.float32))
        inner = keras.optimizers.SGD(1.0)
        self.optimizer = keras.optimizers.LossScaleOptimizer(
            inner, initial_scale=self.scale, dynamic_growth_steps=self.interval
        )
        self.optimizer.build([self.weight])
        self.apply = self.optimizer.stateless_apply
        if keras.backend.backend() == "jax":
            import jax

            self.apply = jax.jit(self.apply)
        self.held = [each.value for each in self.optimizer.variables]
        self.weights = [self.weight.value]

    def step(self, gradient: float) -> State:
        """Apply a scaled gradient; return S and the counter."""
        grads = [self.ops.convert_to_tensor(np.array([gradient], np.float32))]
        self.weights, self.held = self.apply(self.held, grads, self.weights)
        named = {
            v.path.rsplit("/", maxsplit=1)[-1]: x
            for v, x in zip(self.optimizer.variables, self.held, strict=True)
        }
        read = self.ops.convert_to_numpy
        return float(read(named["dynamic_scale"])), int(read(named["step_counter"]))

    def shown(self) -> str:
        """Show the weight."""
        return show(self.ops.convert_to_numpy(self.weights[0])[0])


def _rows(seed: int) -> Iterator[Row]:
    for i, family in enumerate(FAMILIES):
        ours = GradScaler.preset("keras", **family.settings)
        verdicts = family.verdicts(np.random.default_rng([seed, i]))
        theirs = _followed(ours, verdicts)
        yield verdict_row(
            FRAMEWORK, SECTION, "LossScaleOptimizer", family, followed(ours, verdicts), theirs, verdicts
        )
    yield from _whole_steps()


def _followed(ours: GradScaler, verdicts: Sequence[bool]) -> list[State]:
    keras = _Keras(ours.rule.init_scale, ours.rule.growth_interval)
    return [keras.step(float("nan") if bad else 0.0) for bad in verdicts]


def _whole_steps() -> Iterator[Row]:
    """Train one weight on a loss of w / 2, whose gradient is S / 2; an infinite S skips ever after."""
    for case, scale in (("S from 2^10", 2.0**10), ("S from 2^125, which becomes infinite", 2.0**125)):
        side, scaler = Minimp(), GradScaler.preset("keras", init_scale=scale, growth_interval=2)
        keras = _Keras(scale, 2)
        weight = side.tensor([0.0], requires_grad=True)
        optimizer = side.optim.SGD([weight], lr=1.0)
        theirs: State = (scale, 0)
        for _ in range(STEPS):
            weight.grad = None
            scaler.scale((weight * 0.5).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            theirs = keras.step(theirs[0] * 0.5)
        ours = f"S = {scaler.get_scale():g}, weight {show(side.wide(weight)[0])}"
        yield judged(
            FRAMEWORK, SECTION, "whole steps", case, ours, f"S = {theirs[0]:g}, weight {keras.shown()}"
        )
