"""Models, batches and codes that the tests of quantisation-aware training share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minimp import functional, nn
from minimp.models.resnet import Mean
from minimp.nn.module import Module
from minimp.optim import SGD
from minimp.quant import QTensor
from minimp.quant.modules import Add, Cat, Mul
from minimp.quant.qat import FakeQuantize, PreparedModel, RoundedAgain, prepare_qat
from minimp.tensors import Tensor, tensor

Array = np.ndarray[Any, Any]


class Branches(Module):
    """Three layers side by side, joined and multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 8)
        self.cat, self.mul = Cat(1), Mul()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 6) -> (N, 8)."""
        y: Tensor = self.mul(self.cat(self.a(x), self.b(x)), self.c(x))
        return y


class Sums(Module):
    """A convolution, and a sum with what goes into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.add = nn.Conv2d(3, 3, 3, padding=1), Add(relu=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> the same."""
        y: Tensor = self.add(self.conv(x), x)
        return y


IMAGES, SIGNALS, ROWS = (16, 3, 8, 8), (16, 3, 12), (64, 6)
LAYERS: dict[str, tuple[Callable[[], Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(6, 5), ROWS),
    "Linear, no bias": (lambda: nn.Linear(6, 5, bias=False), ROWS),
    "LinearReLU": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU()), ROWS),
    "LinearBn1d": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), ROWS),
    "LinearBnReLU1d": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()), ROWS),
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), SIGNALS),
    "ConvReLU1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), SIGNALS),
    "ConvBn1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3, stride=2), nn.BatchNorm1d(4)), SIGNALS),
    "ConvBnReLU1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU()), SIGNALS),
    "Conv2d": (lambda: nn.Conv2d(3, 4, 3, padding="same"), IMAGES),
    "Conv2d, groups": (lambda: nn.Conv2d(3, 6, 3, stride=2, groups=3, bias=False), IMAGES),
    "ConvReLU2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2), nn.ReLU()), IMAGES),
    "ConvBn2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), IMAGES),
    "ConvBnReLU2d": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        IMAGES,
    ),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(3, 4, 3, stride=2), SIGNALS),
    "ConvTranspose1d, groups": (
        lambda: nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2),
        (16, 4, 12),
    ),
    "ConvTranspose2d, groups": (lambda: nn.ConvTranspose2d(3, 6, 3, stride=2, groups=3), IMAGES),
    "Sigmoid": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Sigmoid()), ROWS),
    "Softmax": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Softmax(-1)), ROWS),
    "Add": (Sums, IMAGES),
    "Cat, Mul": (Branches, ROWS),
    "AvgPool2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2)), IMAGES),
    "AvgPool1d": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.AvgPool1d(2, 1)), SIGNALS),
    "AdaptiveAvgPool2d": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d((2, 3)), nn.Conv2d(3, 4, 1)), IMAGES),
    "Mean": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), Mean()), IMAGES),
    "MaxPool2d": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten()), IMAGES),
}
"""Name -> (makes a model, the shape of its input)."""


def batch(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return normal numbers, not about 0."""
    return np.random.default_rng(seed).normal(0.3, 1.0, size=shape).astype(np.float32)


def trained(model: Module, x: Array, *, steps: int = 4, **widths: Any) -> PreparedModel:
    """Return a prepared model after some steps towards random targets."""
    prepared = prepare_qat(model, tensor(x[:4]), **widths)
    optimizer = SGD(prepared.parameters(), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        y = prepared(tensor(x))
        target = np.random.default_rng(step).normal(size=y.shape).astype(np.float32)
        functional.mse_loss(y, tensor(target)).backward()
        optimizer.step()
    return prepared


def codes_of_floats(prepared: PreparedModel, x: Array) -> dict[str, Array]:
    """Return path -> codes that the numbers stand for at each place where a prepared model rounds."""
    seen: dict[str, Array] = {}

    def note(path: str, numbers: FakeQuantize) -> Callable[..., None]:
        def hook(module: Module, args: Any, output: Tensor) -> None:
            affine = numbers.affine()
            steps = output.detach().array / affine.scale
            assert np.abs(steps - np.rint(steps)).max() < 1e-3  # multiples of the scale
            seen[path] = np.rint(steps).astype(int) + int(affine.zero_point)

        return hook

    hooks = [
        each.register_forward_hook(note(f"input {i}", each))
        for i, each in enumerate(prepared.inputs)
        if isinstance(each, FakeQuantize)
    ]
    for path, each in prepared.model.named_modules():
        found = each.source[0] if isinstance(each, RoundedAgain) else None
        found = found or getattr(each, "activation_post_process", None)
        if isinstance(found, FakeQuantize):
            hooks.append(each.register_forward_hook(note(path, found)))
    prepared.eval()(tensor(x))
    for handle in hooks:
        handle.remove()
    return seen


def codes_of_integers(converted: Any, x: Array) -> dict[str, Array]:
    """Return path -> codes that each module of a converted model gives."""
    seen: dict[str, Array] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: Module, args: Any, output: Any) -> None:
            if isinstance(output, QTensor):
                seen[path] = output.codes.astype(int)

        return hook

    hooks = [each.register_forward_hook(note(f"input {i}")) for i, each in enumerate(converted.quantize)]
    hooks += [each.register_forward_hook(note(path)) for path, each in converted.model.named_modules()]
    converted(tensor(x))
    for handle in hooks:
        handle.remove()
    return seen


def differences(prepared: PreparedModel, converted: Any, x: Array) -> tuple[int, int, int]:
    """Return how many codes differ, of how many, and by how much at most."""
    floats, integers = codes_of_floats(prepared, x), codes_of_integers(converted, x)
    assert floats.keys() <= integers.keys()
    far = [np.abs(floats[path] - integers[path]) for path in floats]
    return sum(int((each > 0).sum()) for each in far), sum(each.size for each in far), max(map(np.max, far))
