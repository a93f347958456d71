"""What trained models lose by dynamic quantisation and by narrow weights; oracle: what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp import functional, models, nn, optim
from minimp.data import digits, stdlib
from minimp.modes import no_grad
from minimp.quant.dynamic import quantize_dynamic
from minimp.quant.narrow_weights import weight_only
from minimp.rng import manual_seed

pytestmark = pytest.mark.slow

CONTEXT, SYMBOLS = 32, 96
HALF_A_POINT = 0.005
"""What int8 may cost in accuracy."""
HUNDREDTH, TENTH = 0.01, 0.1
"""What 8 bits and 4 bits may cost in loss, nats a character, of about 2: more than the noise of one batch."""
WAYS: dict[str, Any] = {
    "dynamic": quantize_dynamic,
    "dynamic, channels": lambda model: quantize_dynamic(model, granularity="per-channel"),
    **{
        name: lambda model, name=name: weight_only(model, name)
        for name in ("int8", "float8_e4m3fn", "mxfp8", "mxint8", "mxfp4", "nvfp4")
    },
}


class Reader(nn.Module):
    """An LSTM over characters."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(SYMBOLS, 32)
        self.lstm = nn.LSTM(32, 64, batch_first=True)
        self.head = nn.Linear(64, SYMBOLS)

    def forward(self, codes: Any) -> Any:
        """(N, T) integers -> (N, T, V) scores."""
        return self.head(self.lstm(self.table(codes))[0])


def score(model: nn.Module, codes: Any, targets: Any) -> Any:
    """Return the mean cross-entropy, in nats a character."""
    return functional.cross_entropy(model(codes).reshape(-1, SYMBOLS), targets.reshape(-1))


@pytest.fixture(scope="module", params=["gpt", "lstm"])
def reader(request: pytest.FixtureRequest) -> tuple[nn.Module, Any, Any]:
    """Train a model on characters; return it, and a batch that it has not seen."""
    manual_seed(0)
    rng = np.random.default_rng(0)
    train, test = stdlib(context=CONTEXT)
    model = models.build("gpt", train, width=48, layers=2) if request.param == "gpt" else Reader()
    optimizer = optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(200):
        codes, targets = train.take(rng.integers(0, len(train), 16))
        optimizer.zero_grad()
        score(model, codes, targets).backward()
        optimizer.step()
    return model.eval(), *test.take(rng.integers(0, len(test), 64))


@pytest.mark.parametrize("way", WAYS)
def test_readers_keep_their_loss(reader: tuple[nn.Module, Any, Any], way: str) -> None:
    """Oracle: the model in floating point, which has learnt: 8 bits cost a hundredth of a nat at most, 4 bits
    a tenth, and more than 8; bytes are less than a third, or than a fifth in 4 bits."""
    model, *batch = reader
    made, report = WAYS[way](model)
    with no_grad():
        plain, narrow = (score(each, *batch).item() for each in (model, made))
    assert plain < 0.6 * np.log(SYMBOLS)
    four = way in ("mxfp4", "nvfp4")
    assert abs(narrow - plain) < (TENTH if four else HUNDREDTH)
    assert report.ratio < (1 / 5 if four else 1 / 3)
    assert narrow != plain


@pytest.fixture(scope="module")
def classifier() -> tuple[nn.Module, Any, Any]:
    """Train a network of linear layers on the digits; return it, and the digits that it has not seen."""
    manual_seed(0)
    rng = np.random.default_rng(0)
    train, test = digits("train"), digits("test")
    model = models.mlp((64,), 10)
    optimizer = optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(10):
        for rows in np.array_split(rng.permutation(len(train)), len(train) // 64):
            optimizer.zero_grad()
            functional.cross_entropy(model(train.inputs[rows]), train.targets[rows]).backward()
            optimizer.step()
    return model.eval(), test.inputs, test.targets


@pytest.mark.parametrize("way", WAYS)
def test_digits_keep_their_accuracy(classifier: tuple[nn.Module, Any, Any], way: str) -> None:
    """Oracle: the network in floating point, of 94 % at least: 8 bits cost half a point at most (one of the
    397 digits is a quarter), 4 bits three times that; bytes are at most 0.29 times as many."""
    model, inputs, targets = classifier
    made, report = WAYS[way](model)
    with no_grad():
        plain, narrow = (
            float((each(inputs).numpy().argmax(axis=1) == targets).mean()) for each in (model, made)
        )
    assert plain > 0.94
    assert narrow >= plain - (3 if way in ("mxfp4", "nvfp4") else 1) * HALF_A_POINT
    assert report.ratio <= 0.29
