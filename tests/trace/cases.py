"""Small training steps for the tests of recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minimp as mp
from minimp.step import TrainStep


def make_model() -> mp.nn.Sequential:
    """Three linear layers: modules "0" to "4"."""
    mp.manual_seed(3)
    return mp.nn.Sequential(
        mp.nn.Linear(12, 16), mp.nn.ReLU(), mp.nn.Linear(16, 16), mp.nn.ReLU(), mp.nn.Linear(16, 4)
    )


def make_step(
    recipe: str = "mixed-fp16", *, scale: float = 1024.0, lr: float = 0.01, loss: Any = None,
    change: Callable[[Any], object] | None = None, optimizer: Any = mp.optim.AdamW,
) -> TrainStep:  # fmt: skip
    """A classifier and its step; `change` plants something in the model."""
    model = make_model()
    if change is not None:
        change(model)
    scaled = mp.recipes[recipe].loss_scale is not None
    scaler = mp.GradScaler(init_scale=scale) if scaled else None
    loss = mp.functional.cross_entropy if loss is None else loss
    return TrainStep(model, loss, optimizer(model.parameters(), lr=lr), recipe, scaler=scaler)


def batch(seed: int = 0, rows: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, 12)).astype(np.float32), rng.integers(0, 4, rows)


def grown(index: int, factor: float) -> Callable[[Any], None]:
    """Return what multiplies the weight of one layer."""

    def change(model: Any) -> None:
        weight = model[index].weight
        weight.array = weight.array * np.float32(factor)

    return change
