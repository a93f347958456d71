"""A network that has learnt the digits, for the tests of what quantising costs it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from minimp import nn
from minimp.data import DataLoader, digits
from minimp.nn.module import Module
from minimp.quant.fusion import fuse
from minimp.rng import manual_seed
from minimp.tensors import tensor
from tests.quant.learning import learn


@cache
def learnt() -> tuple[Module, Module]:
    """Return a network after six epochs, and the same with its batch norms fused; both stay as they are."""
    manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    learn(model)
    return model, fuse(model, tensor(digits("train", shape="image").inputs[:4]))[0]


def train_batches() -> DataLoader:
    """Return the training images and labels in order."""
    return DataLoader(digits("train", shape="image"), 64)


def held_out() -> DataLoader:
    """Return the test images and labels in order."""
    return DataLoader(digits("test", shape="image"), 100)


def accuracy(model: Any) -> float:
    """Return the share of the test images that are read right, in percent."""
    x, y = digits("test", shape="image")[:]
    return 100 * float(np.mean(model(tensor(x)).detach().array.argmax(1) == y))
