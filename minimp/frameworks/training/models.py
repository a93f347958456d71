"""Three small networks for the digits, written once for both libraries, and how each is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minimp.frameworks.sides import Side

__all__ = ["TASKS", "Task"]

SIDE, CLASSES, WIDTH, HEADS = 8, 10, 32, 4
"""Pixels of a row and rows of a picture; classes; the width of attention, and its heads."""


def perceptron(side: Side) -> Any:
    """Return 64 -> 48 -> 48 -> 10 with ReLU."""
    n = side.nn
    return n.Sequential(
        n.Flatten(), n.Linear(SIDE * SIDE, 48), n.ReLU(), n.Linear(48, 48), n.ReLU(), n.Linear(48, CLASSES)
    )


def convolutions(side: Side) -> Any:
    """Return two convolutions, the first with a batch norm, between them a pooling, and a head.

    It has no edges: where many thousand elements meet a ReLU or a maximum, one of them may open in one run
    and not in the other, and the paths part.
    """
    n = side.nn
    return n.Sequential(
        n.Conv2d(1, 8, 3, padding=1, bias=False), n.BatchNorm2d(8), n.SiLU(), n.AvgPool2d(2),
        n.Conv2d(8, 16, 3, padding=1), n.SiLU(), n.Flatten(), n.Linear(256, CLASSES),
    )  # fmt: skip


def attention(side: Side) -> Any:
    """Return a pre-LN transformer block over the rows of a picture, and a head on their mean."""
    n, f = side.nn, side.functional

    class Block(n.Module):  # type: ignore[misc,name-defined]  # one of two libraries
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = n.Linear(SIDE, WIDTH), n.Linear(WIDTH, CLASSES)
            self.ln_1, self.ln_2, self.ln_f = n.LayerNorm(WIDTH), n.LayerNorm(WIDTH), n.LayerNorm(WIDTH)
            self.qkv, self.proj = n.Linear(WIDTH, 3 * WIDTH, bias=False), n.Linear(WIDTH, WIDTH)
            self.up, self.down = n.Linear(WIDTH, 2 * WIDTH), n.Linear(2 * WIDTH, WIDTH)

        def attend(self, x: Any) -> Any:
            parts = self.qkv(x).reshape(-1, SIDE, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            mixed = f.scaled_dot_product_attention(parts[0], parts[1], parts[2])  # (B, heads, rows, C/heads)
            return self.proj(mixed.transpose(1, 2).reshape(-1, SIDE, WIDTH))

        def forward(self, images: Any) -> Any:
            x = self.enter(images.reshape(-1, SIDE, SIDE))  # (B, rows, C)
            x = x + self.attend(self.ln_1(x))
            x = x + self.down(f.gelu(self.up(self.ln_2(x))))
            return self.head(self.ln_f(x).mean(1))

    return Block()


@dataclass(frozen=True)
class Task:
    """A network and how it is trained.

    Attributes:
        name: how a report calls it.
        model: makes the network in one library.
        optimizer: its name, the same in both.
        options: of the optimizer.
        init_scale: where the loss scale begins. 2^24 is too much for most gradients, so the first steps are
            skipped. PyTorch's kernel for the CPU adds up the weight gradient of a float16 convolution image
            by image in float16, which overflows before the sum does: there it begins low.
    """

    name: str
    model: Callable[[Side], Any]
    optimizer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    init_scale: float = 2.0**24


TASKS = (
    Task("perceptron, SGD", perceptron, "SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}),
    Task("perceptron, AdamW", perceptron, "AdamW", {"lr": 1e-3, "weight_decay": 0.01}),
    Task(
        "convolutions, SGD",
        convolutions,
        "SGD",
        {"lr": 0.03, "momentum": 0.9, "nesterov": True},
        init_scale=2.0**10,
    ),
    Task("attention, AdamW", attention, "AdamW", {"lr": 2e-3, "weight_decay": 0.1}),
)
"""What is trained; the learning rates are such that a path is not chaotic."""
