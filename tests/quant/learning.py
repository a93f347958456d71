"""Networks that learn the digits, for the tests of what quantising costs them."""

from __future__ import annotations

from minimp import functional, nn
from minimp.data import DataLoader, digits
from minimp.nn.module import Module
from minimp.optim import Adam
from minimp.rng import manual_seed
from minimp.tensors import tensor

__all__ = ["learn", "two_convolutions"]

LEARNING_RATE, BATCH, EPOCHS = 2e-3, 64, 6


def learn(model: Module) -> Module:
    """Train a model on the digits as images, six times over them, and return it in evaluation mode."""
    optimizer = Adam(model.parameters(), lr=LEARNING_RATE)
    loader = DataLoader(digits("train", shape="image"), BATCH, shuffle=True, seed=1)
    for _ in range(EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(tensor(x)), tensor(y)).backward()
            optimizer.step()
    return model.eval()


def two_convolutions() -> Module:
    """Return a network of two convolutions with batch norms that has learnt the digits, always the same."""
    manual_seed(0)
    return learn(
        nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10),
        )
    )  # fmt: skip
