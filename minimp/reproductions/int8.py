"""Nagel et al. 2019: one int8 scale for a whole weight fails where channels differ; equal ranges mend it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minimp import functional, nn
from minimp.data import ArrayDataset, DataLoader
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.optim import Adam
from minimp.quant.fusion import equalize, fuse, rescale_channels
from minimp.quant.observers import MinMaxObserver, Observer, PerChannelMinMaxObserver
from minimp.quant.static import calibrate, convert
from minimp.reproductions.record import Bar, Bench, Measures, Paper, Reproduction
from minimp.reproductions.training import POINTS
from minimp.rng import manual_seed
from minimp.tensors import Tensor, tensor

__all__ = ["INT8_RANGES"]

EPOCHS, BATCH, LEARNING_RATE = 12, 64, 2e-3
OCTAVES = 4
CODES: dict[str, Any] = {"quant_min": -128, "quant_max": 127, "symmetric": True}
A_TENSOR: Callable[[], Observer] = partial(MinMaxObserver, **CODES)
A_CHANNEL: Callable[[], Observer] = partial(PerChannelMinMaxObserver, **CODES)
FLOAT, AS_TRAINED, UNEQUAL, BY_CHANNEL, EQUALIZED = (
    "fp32", "int8, as trained", "int8, unequal channels", "the same, a scale a channel",
    "the same, equalized",
)  # fmt: skip


def _images(data: ArrayDataset) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return square images of one channel, and their labels.  (N, ...) -> (N, 1, side, side)."""
    x, y = data[:]
    side = math.isqrt(math.prod(x.shape[1:]))
    return np.asarray(x, np.float32).reshape(-1, 1, side, side), np.asarray(y)


def _network(side: int, classes: int) -> Module:
    """Return MobileNet's kind in small.  (N, 1, side, side) -> (N, classes)."""
    end = math.ceil(math.ceil(side / 2) / 2)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * end * end, classes),
    )  # fmt: skip


def _taught(train: ArrayDataset, seed: int, bench: Bench) -> Module:
    """Train in FP32; return the network with its batch norms folded."""
    x, y = _images(train)
    manual_seed(seed)
    model = _network(x.shape[-1], int(y.max()) + 1)
    optimizer = Adam(model.parameters(), lr=LEARNING_RATE)
    epochs = bench.part(EPOCHS)
    for epoch in range(epochs):
        bench.tell("FP32 training", epoch / epochs / 2)
        for inputs, labels in DataLoader(train, BATCH, shuffle=True, seed=seed + epoch):
            optimizer.zero_grad()
            images = tensor(inputs.reshape(-1, *x.shape[1:]))
            functional.cross_entropy(model(images), tensor(labels)).backward()
            optimizer.step()
    return fuse(model.eval(), tensor(x[:4]))[0]


def _right(model: Module, images: Tensor, labels: np.ndarray[Any, Any]) -> float:
    """Return the accuracy in percent."""
    with no_grad():
        return 100.0 * float(np.mean(model(images).numpy().argmax(1) == labels))


def _run(seed: int, bench: Bench) -> Measures:
    model = _taught(bench.data.train, seed, bench)
    seen = _images(bench.data.train)[0]
    images, labels = _images(bench.data.test)
    tests, few = tensor(images), tensor(seen[:4])
    unequal = rescale_channels(model, few, factors=OCTAVES, seed=seed)[0]
    even = equalize(unequal, few)[0]
    ways = {AS_TRAINED: (model, A_TENSOR), UNEQUAL: (unequal, A_TENSOR), BY_CHANNEL: (unequal, A_CHANNEL),
            EQUALIZED: (even, A_TENSOR)}  # fmt: skip
    found = {FLOAT: _right(model, tests, labels)}
    batches = [tensor(seen[at : at + 128]) for at in range(0, len(seen), 128)]
    for number, (name, (made, weight)) in enumerate(ways.items()):
        bench.tell(name, 0.5 + number / len(ways) / 2)
        found[name] = _right(convert(made, calibrate(made, batches), weight=weight), tests, labels)
    return found


INT8_RANGES = Reproduction(
    "int8-ranges",
    Paper("Nagel et al.", 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
          "1906.04721", "sections 3.1 and 4.1"),
    "MobileNetV2 with one int8 scale a weight falls to chance, for its channels' ranges differ by orders of "
    "magnitude; scale moved between layers until the ranges are equal restores the accuracy without "
    "training.",
    "Three convolutions, one of them depthwise, each with batch norm and ReLU, and a linear layer; "
    f"{EPOCHS} epochs of Adam at {LEARNING_RATE:g} in FP32, norms folded. Output channels times powers of "
    f"two from 2^-{OCTAVES} to 2^{OCTAVES}, the next layer's inputs divided by them: in FP32 the same "
    "function, a stand-in for MobileNet. Weights and activations in int8, calibrated on the training part.",
    dict.fromkeys((FLOAT, AS_TRAINED, UNEQUAL, BY_CHANNEL, EQUALIZED), POINTS),
    (
        Bar("points that int8 costs as trained", lambda m: m[FLOAT] - m[AS_TRAINED], 0.5, 1.5,
            at_least=False),
        Bar("points that unequal channels cost", lambda m: m[FLOAT] - m[UNEQUAL], 40.0, 10.0),
        Bar("points that are still lost, equalized", lambda m: m[FLOAT] - m[EQUALIZED], 0.5, 1.5,
            at_least=False),
    ),
    _run,
)  # fmt: skip
