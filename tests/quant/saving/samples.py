"""Models on codes of all sorts, small ones, with an input for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import nn
from minimp.models import resnet
from minimp.nn.module import Module
from minimp.quant.dynamic import quantize_dynamic
from minimp.quant.fusion import fuse
from minimp.quant.modules import Add, Cat, DeQuantStub, Mul, QuantStub, Sub
from minimp.quant.narrow_weights import weight_only
from minimp.quant.observers import MinMaxObserver
from minimp.quant.static import calibrate, convert
from minimp.rng import manual_seed
from minimp.tensors import tensor

Array = npt.NDArray[Any]


def normal(*shape: int, seed: int = 0) -> Array:
    """Return normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def static(model: Module, x: Array, **options: Any) -> Module:
    """Return a model calibrated on one batch and converted."""
    fused, _ = fuse(model.eval(), tensor(x))
    return convert(fused, calibrate(fused, [x], activation=MinMaxObserver), **options)


class Joined(Module):
    """Two convolutions, added and joined, between stubs; a class of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.end = QuantStub(), DeQuantStub()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 4, 1, bias=False)
        self.add, self.cat = Add(relu=True), Cat(1)
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.spread, self.words = 3, ("left", 2.5, None, [True])

    def forward(self, x: Any) -> Any:
        """Return the joined maps."""
        x = self.begin(x)
        a, b = self.a(x), self.b(x)
        return self.end(self.pool(self.cat(self.add(a, b), b)))


def image_model() -> Module:
    """Return convolutions with a batch norm, pools, and linear layers."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip


def rows_model() -> Module:
    """Return an embedding-free model of layers that dynamic and weight-only conversion take, and floats."""
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 4), nn.Softmax(-1))


def functions_model() -> Module:
    """Return layers with functions between them that are tables on codes, and a softmax."""
    return nn.Sequential(
        nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.PReLU(), nn.Tanh(), nn.Linear(8, 4), nn.GELU(),
        nn.Softmax(-1),
    )  # fmt: skip


def signals_model() -> Module:
    """Return layers of signals, one that widens them, and pools.  (N, 2, 16)."""
    return nn.Sequential(
        nn.ConstantPad1d(2, 0.5), nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.ReflectionPad1d(1),
        nn.ConvTranspose1d(4, 3, 3, stride=2), nn.AvgPool1d(2), nn.AdaptiveMaxPool1d(4),
        nn.AdaptiveAvgPool1d(2), nn.ZeroPad1d(1),
    )  # fmt: skip


def widening_model() -> Module:
    """Return layers that move images and make them larger.  (N, 2, 8, 8)."""
    return nn.Sequential(
        nn.ZeroPad2d(1), nn.Conv2d(2, 4, 3), nn.PixelShuffle(2), nn.ConvTranspose2d(1, 2, 2, stride=2),
        nn.Upsample(scale_factor=2), nn.AdaptiveMaxPool2d((3, 4)), nn.Unflatten(1, (1, 2)), nn.Flatten(1, 2),
    )  # fmt: skip


class Gate(Module):
    """a b - a, of two linear layers.  (N, 6) -> (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.times, self.less = nn.Linear(6, 4), nn.Linear(6, 4), Mul(), Sub(relu=True)

    def forward(self, x: Any) -> Any:
        """Return the gated values."""
        a = self.a(x)
        return self.less(self.times(a, self.b(x)), a)


def tied() -> Module:
    """Return two layers with one weight."""
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    return model


Case = tuple[Module, Array]


def _attention() -> Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu").eval()


CASES: dict[str, Callable[[], Case]] = {
    "static": lambda: (static(image_model(), normal(4, 2, 8, 8)), normal(4, 2, 8, 8)),
    "static, fixed point": lambda: (
        static(image_model(), normal(4, 2, 8, 8), mode="fixed-point"), normal(4, 2, 8, 8)),
    "static, per tensor": lambda: (
        static(image_model(), normal(4, 2, 8, 8), weight=lambda: MinMaxObserver(
            quant_min=-8, quant_max=7, symmetric=True)), normal(4, 2, 8, 8)),
    "functions": lambda: (static(functions_model(), normal(4, 6)), normal(4, 6)),
    "signals": lambda: (static(signals_model(), normal(4, 2, 16)), normal(4, 2, 16)),
    "images that grow": lambda: (static(widening_model(), normal(4, 2, 8, 8)), normal(4, 2, 8, 8)),
    "a ResNet": lambda: (static(resnet((2, 8, 8), 3, width=4), normal(4, 2, 8, 8)), normal(4, 2, 8, 8)),
    "an island in float16": lambda: (
        static(image_model(), normal(4, 2, 8, 8), keep_float={"4": "float16"}), normal(4, 2, 8, 8)),
    "an island of floats": lambda: (
        static(image_model(), normal(4, 2, 8, 8), keep_float=["8"]), normal(4, 2, 8, 8)),
    "dynamic": lambda: (quantize_dynamic(rows_model())[0], normal(3, 6)),
    "dynamic, tied": lambda: (quantize_dynamic(tied(), granularity="per-channel")[0], normal(3, 6)),
    "dynamic LSTM": lambda: (quantize_dynamic(nn.LSTM(3, 4, 2, bidirectional=True))[0], normal(5, 2, 3)),
    "dynamic attention": lambda: (quantize_dynamic(_attention())[0], normal(2, 3, 8)),
    "dynamic beside a cell": lambda: (
        quantize_dynamic(nn.Sequential(nn.GRUCell(6, 4), nn.Linear(4, 2)))[0], normal(3, 6)),
    "dynamic embedding": lambda: (
        quantize_dynamic(nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2)))[0], np.arange(6).reshape(2, 3)),
    "weights in int8": lambda: (weight_only(rows_model())[0], normal(3, 6)),
    "weights in mxfp4": lambda: (weight_only(rows_model(), "mxfp4")[0], normal(3, 6)),
    "weights in nvfp4": lambda: (weight_only(tied(), "nvfp4")[0], normal(3, 6)),
    "weights in groups": lambda: (
        weight_only(_attention(), "float8_e4m3fn", granularity="per-group", group_size=5)[0],
        normal(2, 3, 8)),
    "floats in bfloat16": lambda: (rows_model().bfloat16(), normal(3, 6)),
}  # fmt: skip
"""Name -> a model and an input."""


def case(name: str) -> Case:
    """Return a case of CASES, drawn anew."""
    manual_seed(0)
    model, x = CASES[name]()
    return model.eval(), x


def results(model: Module, x: Array) -> list[Array]:
    """Return the arrays that a model gives."""
    given: Any = tensor(x)
    if x.dtype == np.float32 and any(each.dtype.name == "bfloat16" for each in model.parameters()):
        given = given.bfloat16()
    made = model(given)
    return [np.asarray(each.detach().array) for each in _flat(made)]


def _flat(value: Any) -> list[Any]:
    return [each for inner in value for each in _flat(inner)] if isinstance(value, tuple) else [value]
