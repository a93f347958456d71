"""A small network that has learnt the digits, in int8."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp import functional, nn
from minimp.data import DataLoader, digits
from minimp.nn.module import Module
from minimp.optim import Adam
from minimp.quant.fusion import fuse
from minimp.quant.static import calibrate, convert
from minimp.rng import manual_seed
from minimp.tensors import tensor
from tests.quant.static.samples import MODES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def learnt() -> Module:
    """Return a network after six epochs, its batch norms folded."""
    manual_seed(0)
    model: Any = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    optimizer = Adam(model.parameters(), lr=2e-3)
    loader = DataLoader(digits("train", shape="image"), 64, shuffle=True, seed=1)
    for _ in range(6):
        for x, y in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(tensor(x)), tensor(y)).backward()
            optimizer.step()
    return fuse(model.eval(), tensor(x[:4]))[0]


def accuracy(model: Module) -> float:
    """Return the share of the test images that are read right."""
    x, y = digits("test", shape="image")[:]
    return float(np.mean(model(tensor(x)).detach().array.argmax(1) == y))


def size(model: Module) -> int:
    """Return the bytes of what a model holds."""
    return sum(each.nbytes for each in [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("mode", MODES)
def test_int8_reads_digits_as_well(learnt: Module, mode: str) -> None:
    """Oracle: the float network: accuracy within 0.5 points, at most 0.29 of its bytes."""
    calibration = calibrate(learnt, DataLoader(digits("train", shape="image"), 64), patience=3)
    quantized = convert(learnt, calibration, mode=mode)
    before, after = accuracy(learnt), accuracy(quantized)
    print(f"{mode}: {before:.4f} -> {after:.4f}, {size(quantized) / size(learnt):.4f} of the bytes")
    assert before > 0.95
    assert abs(after - before) <= 0.005
    assert size(quantized) <= 0.29 * size(learnt)
