"""Layers, models and batches that the tests of static quantisation share."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp import nn
from minimp.data import ArrayDataset, DataLoader
from minimp.nn.module import Module
from minimp.quant import Affine, QTensor, choose
from minimp.quant.fusion import fuse
from minimp.quant.modules import Add
from minimp.tensors import Tensor, tensor

Array = np.ndarray[Any, Any]
MODES = ("float", "fixed-point")
UINT8, INT8 = (0, 255), (-128, 127)


def floats(rng: np.random.Generator, shape: tuple[int, ...], spread: float = 1.0) -> Array:
    """Return normal float32 numbers, those of each index of axis 0 of a size of their own."""
    sizes = np.exp(spread * rng.normal(size=(shape[0], *(1,) * (len(shape) - 1))))
    return (rng.normal(size=shape) * sizes).astype(np.float32)


def affine_of(x: Array, codes: tuple[int, int] = UINT8) -> Affine:
    """Return the numbers for codes that cover an array."""
    return choose(x.min(), x.max(), quant_min=codes[0], quant_max=codes[1])


def shifted(affine: Affine) -> Affine:
    """Return the int8 numbers whose codes are 128 below those of uint8 numbers."""
    return Affine(affine.scale, affine.zero_point - 128, *INT8)


def moved(q: QTensor) -> QTensor:
    """Return the same numbers, in int8 codes."""
    return QTensor((q.codes.astype(np.int16) - 128).astype(np.int8), shifted(q.affine))


class Residual(Module):
    """A small model with all that has an integer form."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Conv2d(6, 6, 3, padding="same", groups=3)
        self.add = Add(relu=True)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)
        self.means, self.mean = nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d((2, 1))
        self.flatten, self.act = nn.Flatten(), nn.ReLU()
        self.hidden, self.last = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, 8, 8) -> (N, 3)."""
        h = self.first(x)
        h = self.drop(self.pool(self.add(h, self.second(h))))
        h = self.flatten(self.mean(self.means(h)))
        y: Tensor = self.last(self.act(self.hidden(h)))
        return y


def residual(seed: int = 0) -> tuple[Module, Array]:
    """Return the model, fused, and 40 inputs of it."""
    rng = np.random.default_rng(seed)
    model = Residual()
    for param in model.parameters():
        param.array = (rng.normal(size=param.shape) * 0.4).astype(np.float32)
    x = rng.normal(size=(40, 2, 8, 8)).astype(np.float32)
    for _ in range(3):
        model(tensor(x))  # statistics for the batch norm
    return fuse(model.eval(), tensor(x[:4]))[0], x


def batches(x: Array, size: int = 10) -> DataLoader:
    """Return a loader of inputs and labels."""
    return DataLoader(ArrayDataset(x, np.zeros(len(x), np.int64)), size)
