"""Models with a batch each, for the ledger: made anew on whatever backend is in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import minimp as mp
from minimp import nn
from minimp.models import MODELS, build
from minimp.models.resnet import resnet

Shape = tuple[int, ...]


class LastOfLSTM(nn.Module):
    """Scores from the last state of an LSTM.  (N, T, F) -> (N, classes)."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Any) -> Any:
        """Return the scores."""
        return self.head(self.lstm(x)[0][:, -1])


@dataclass(frozen=True)
class Workload:
    """A model to train and the shape of its batch.

    Attributes:
        make: makes the model.
        inputs, targets: shapes.
        labels: classes, or characters.
        text: whether the inputs are codes of characters.
        loss_fn: of outputs and targets.
    """

    make: Callable[[], nn.Module]
    inputs: Shape
    targets: Shape
    labels: int = 10
    text: bool = False
    loss_fn: Callable[[Any, Any], Any] = field(default=mp.functional.cross_entropy)

    @property
    def described(self) -> Any:
        """The inputs as `forecast` takes them."""
        return (self.inputs, "int64") if self.text else self.inputs

    def batch(self) -> tuple[Any, Any]:
        """Return inputs and targets."""
        rng = np.random.default_rng(3)
        x = rng.integers(0, self.labels, self.inputs) if self.text else rng.standard_normal(self.inputs)
        return x if self.text else x.astype(np.float32), rng.integers(0, self.labels, self.targets)


def gpt(width: int, layers: int, rows: int, context: int, dropout: float = 0.0) -> Workload:
    """Return a GPT over 96 characters."""
    make = partial(build, "gpt", ((context,), 96), width=width, layers=layers, dropout=dropout)
    return Workload(make, (rows, context), (rows, context), 96, True, MODELS["gpt"].loss_fn)


SMALL = {
    "mlp": Workload(lambda: build("mlp", ((64,), 10), hidden=(48, 64), dropout=0.25), (40, 64), (40,)),
    "cnn": Workload(lambda: build("cnn", ((1, 12, 12), 10), channels=(8, 8)), (20, 1, 12, 12), (20,)),
    "resnet": Workload(lambda: resnet((3, 16, 16), 10), (6, 3, 16, 16), (6,)),
    "gpt": gpt(32, 2, 4, 24, dropout=0.1),
    "lstm": Workload(lambda: LastOfLSTM(16, 48, 10), (9, 7, 16), (9,)),
}
LARGE = {
    "mlp": Workload(lambda: build("mlp", ((784,), 10), hidden=(512, 512)), (128, 784), (128,)),
    "cnn": Workload(lambda: build("cnn", ((1, 28, 28), 10), channels=(32, 64)), (64, 1, 28, 28), (64,)),
    "gpt": gpt(128, 4, 16, 128),
}
"""The sizes that the project's figures are given for."""
