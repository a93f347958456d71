"""Small models of every kind of module, converted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minimp import nn
from minimp.data import digits
from minimp.nn.module import Module
from minimp.quant.fusion import fuse
from minimp.quant.modules import Add, Cat, Mul, Sub
from minimp.quant.observers import MinMaxObserver
from minimp.quant.static import calibrate, convert
from minimp.tensors import Tensor, tensor
from tests.quant.learning import two_convolutions

Array = np.ndarray[Any, Any]
CODES = {"uint8": (0, 255), "int8": (-128, 127), "int4": (-8, 7), "uint3": (0, 7)}


class Pair(Module):
    """Two layers, and what is made of both."""

    def __init__(self, join: Module) -> None:
        super().__init__()
        self.a, self.b, self.join = nn.Linear(6, 5), nn.Linear(6, 5), join

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 5 or 10)."""
        y: Tensor = self.join(self.a(x), self.b(x))
        return y


IMAGE, SIGNAL, ROWS = (3, 6, 7), (4, 9), (6,)
Case = tuple[Callable[[], Module], tuple[int, ...]]
CASES: dict[str, Case] = {
    "linear": (lambda: nn.Linear(6, 5), ROWS),
    "linear without bias": (lambda: nn.Linear(6, 5, bias=False), ROWS),
    "linear on three axes": (lambda: nn.Linear(6, 5), (4, 6)),
    "conv2d": (lambda: nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 0), (1, 2)), IMAGE),
    "conv2d in groups": (lambda: nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False), IMAGE),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, 1, groups=2), SIGNAL),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, (3, 2), (2, 1), (1, 0), (1, 0)), IMAGE),
    "transposed in groups": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, groups=2, dilation=2), SIGNAL),
    "add": (lambda: Pair(Add()), ROWS),
    "add and relu": (lambda: Pair(Add(relu=True)), ROWS),
    "sub": (lambda: Pair(Sub()), ROWS),
    "mul": (lambda: Pair(Mul(relu=True)), ROWS),
    "cat": (lambda: Pair(Cat(1)), ROWS),
    "relu": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(6, 5)), ROWS),
    "softmax": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Softmax(-1)), ROWS),
    "softmax over channels": (nn.Softmax2d, IMAGE),
    "sigmoid": (lambda: nn.Sequential(nn.Sigmoid(), nn.GELU(), nn.Linear(6, 5)), ROWS),
    "max pool": (lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True), IMAGE),
    "max pool with gaps": (lambda: nn.MaxPool2d(2, 1, dilation=2), IMAGE),
    "max pool of a signal": (lambda: nn.MaxPool1d(3, 2, 1), SIGNAL),
    "mean pool": (lambda: nn.AvgPool2d(2), IMAGE),
    "mean pool of a border": (lambda: nn.AvgPool2d((3, 2), 2, (1, 1), ceil_mode=True), IMAGE),
    "mean pool without its border": (
        lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), IMAGE,
    ),
    "mean pool of a signal": (lambda: nn.AvgPool1d(4, 2, 1), SIGNAL),
    "one mean": (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    "means": (lambda: nn.AdaptiveAvgPool2d((3, 7)), IMAGE),
    "uneven means": (lambda: nn.AdaptiveAvgPool2d((4, 3)), IMAGE),
    "uneven means of a signal": (lambda: nn.AdaptiveAvgPool1d(4), SIGNAL),
    "uneven largest": (lambda: nn.AdaptiveMaxPool2d((4, 3)), IMAGE),
    "largest of a signal": (lambda: nn.AdaptiveMaxPool1d(1), SIGNAL),
    "flatten": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(126, 3)), IMAGE),
    "flatten two axes": (lambda: nn.Flatten(1, 2), IMAGE),
    "unflatten": (lambda: nn.Unflatten(1, (2, 2)), SIGNAL),
    "shuffle": (lambda: nn.PixelShuffle(2), (8, 2, 3)),
    "reflect": (lambda: nn.ReflectionPad2d((1, 2, 0, 1)), IMAGE),
    "nearest": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "zeros around": (lambda: nn.ZeroPad2d((1, -1, 2, 0)), IMAGE),
    "value around": (lambda: nn.ConstantPad1d((1, 2), 0.7), SIGNAL),
}  # fmt: skip


def prepared(
    case: str, codes: str = "uint8", mode: str = "float", rule: str = "onnx", seed: int = 0
) -> tuple[Module, Array]:
    """Return a model of a case on codes, and inputs of it."""
    make, shape = CASES[case]
    rng = np.random.default_rng(seed)
    model = make().eval()
    for param in model.parameters():
        param.array = (rng.normal(size=param.shape) * 0.6).astype(np.float32)
    x = (rng.normal(size=(7, *shape)) * rng.uniform(0.1, 3) + rng.normal() * 0.3).astype(np.float32)
    return quantized(model, x, codes, mode, rule), x


def quantized(
    model: Module, x: Array, codes: str = "uint8", mode: str = "float", rule: str = "onnx"
) -> Module:
    """Return a model on codes, calibrated on x."""
    low, high = CODES[codes]

    def activation() -> MinMaxObserver:
        return MinMaxObserver(quant_min=low, quant_max=high, rule=rule)

    return convert(model, calibrate(model, [x], activation=activation), mode=mode)


def digits_network() -> Module:
    """Return a network that has read the digits six times, its batch norms folded."""
    return fuse(two_convolutions(), tensor(digits("train", shape="image").inputs[:4]))[0]
