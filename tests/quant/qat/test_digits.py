"""What training with rounded numbers wins back: digits read by a deep and narrow network, in few bits.

The network is MobileNet's kind in small (Howard et al. 2017, arXiv 1704.04861): depthwise and pointwise
convolutions in turn, and a mean, which few bits ruin (Nagel et al. 2021, arXiv 2106.08295, section 4).
Integer models are real ones: codes from the first layer to the last, int32 sums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from minimp import functional, nn
from minimp.data import DataLoader, digits
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.optim import Adam
from minimp.quant.fusion import fuse
from minimp.quant.observers import HistogramObserver, MinMaxObserver, Observer, PerChannelMinMaxObserver
from minimp.quant.qat import QATSchedule, prepare_qat
from minimp.quant.static import calibrate, convert
from minimp.rng import manual_seed
from minimp.tensors import tensor

pytestmark = pytest.mark.slow

SEEDS = range(3)
FIRST, THEN = 15, 8
"""Epochs in float, and with rounding."""
GAIN, KEPT = 20.0, 0.5
"""Points of accuracy: won at least at 3 bits, lost at most at 8."""
WEIGHTS: dict[str, Any] = {"per-channel": PerChannelMinMaxObserver, "per-tensor": MinMaxObserver}


def separable() -> Any:
    """Return the network.  (N, 1, 8, 8) -> (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, stride=2, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def loader(seed: int) -> DataLoader:
    """Return the digits to learn, in an order of their own."""
    return DataLoader(digits("train", shape="image"), 64, shuffle=True, seed=seed)


def taught(model: Any, epochs: int, lr: float, seed: int, schedule: QATSchedule | None = None) -> Any:
    """Train a model, the learning rate falling to 0 where there is a schedule; return it for evaluation."""
    optimizer, batches, step = Adam(model.train().parameters(), lr=lr), loader(seed), 0
    for _ in range(epochs):
        for x, y in batches:
            if schedule is not None:
                optimizer.param_groups[0]["lr"] = lr * (1 - step / (epochs * len(batches)))
                schedule.step()
            optimizer.zero_grad()
            functional.cross_entropy(model(tensor(x)), tensor(y)).backward()
            optimizer.step()
            step += 1
    return model.eval()


@cache
def network(seed: int) -> Any:
    """Return a network that has learnt the digits in float."""
    manual_seed(seed)
    return taught(separable(), FIRST, 2e-3, seed + 1)


@cache
def further(seed: int) -> Any:
    """Return the same network after as many epochs more as others are trained with rounding."""
    made = separable()
    made.load_state_dict(network(seed).state_dict())
    return taught(made, THEN, 1e-3, seed + 7)


def accuracy(model: Module) -> float:
    """Return the points out of 100 of test images that are read right."""
    x, y = digits("test", shape="image")[:]
    with no_grad():
        return 100 * float(np.mean(model(tensor(x)).detach().array.argmax(1) == y))


def afterwards(model: Module, bits: int, granularity: str) -> float:
    """Return the accuracy of quantising after training: the better of two ways to choose ranges."""
    plain = fuse(model, tensor(digits("test", shape="image")[:4][0]))[0]
    half = 1 << (bits - 1)
    weight: Callable[[], Observer] = partial(
        WEIGHTS[granularity], quant_min=-half, quant_max=half - 1, symmetric=True
    )
    found = []
    for kind in (MinMaxObserver, HistogramObserver):
        ranges = partial(kind, quant_min=0, quant_max=2 * half - 1)
        found.append(accuracy(convert(plain, calibrate(plain, loader(0), activation=ranges), weight=weight)))
    return max(found)


def within(model: Module, bits: int, granularity: str, seed: int, lr: float) -> tuple[float, float]:
    """Return the accuracy of quantising in training: of the model with rounded numbers, and on codes.

    Ranges and statistics come to rest after 6 tenths of the steps.
    """
    x = tensor(digits("test", shape="image")[:4][0])
    prepared = prepare_qat(model, x, weight_bits=bits, activation_bits=bits, granularity=granularity)
    rest = int(0.6 * THEN * len(loader(0)))
    schedule = QATSchedule(prepared, freeze_observers=rest, freeze_batch_norm=rest)
    taught(prepared, THEN, lr, seed + 7, schedule)
    return accuracy(prepared), accuracy(convert(prepared))


@pytest.mark.parametrize("granularity", WEIGHTS)
def test_three_bits(granularity: str) -> None:
    """Oracle: the same network quantised after training, by the better ranges: 20 points at least, a mean."""
    rows = []
    for seed in SEEDS:
        before, after = accuracy(network(seed)), afterwards(network(seed), 3, granularity)
        rows.append((before, after, *within(network(seed), 3, granularity, seed, 5e-3)))
        print(f"{granularity}, seed {seed}: float %.1f, after %.1f, within %.1f, on codes %.1f" % rows[-1])
    floats, after, rounded, codes = np.mean(rows, axis=0)
    print(f"{granularity}: float {floats:.1f}, after {after:.1f}, within {rounded:.1f}, on codes {codes:.1f}")
    assert floats > 95
    assert codes - after >= GAIN
    assert abs(codes - rounded) <= 1


@pytest.mark.parametrize("granularity", WEIGHTS)
def test_eight_bits(granularity: str) -> None:
    """Oracle: the network in float, trained on as long: within half a point, a mean."""
    floats, codes = [], []
    for seed in SEEDS:
        floats.append(accuracy(further(seed)))
        codes.append(within(network(seed), 8, granularity, seed, 1e-3)[1])
    print(f"{granularity}: float {np.mean(floats):.2f}, on codes {np.mean(codes):.2f}")
    assert np.mean(codes) >= np.mean(floats) - KEPT
