"""The models of the steps, from a namespace with torch.nn's names: one code builds ours and PyTorch's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minimp.benchmarks.gpu.sizes import Sizes

__all__ = [
    "CLASSES",
    "Batch",
    "Make",
    "block",
    "cnn",
    "lenet",
    "mlp",
    "pixels_of",
    "product_flops",
    "tokens_of",
    "vectors_of",
]

Make = Callable[[Any, Any], Any]
Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
CLASSES = 10


def mlp(sizes: Sizes) -> Make:
    """Return layers of one width with ReLUs between them."""

    def make(n: Any, f: Any) -> Any:
        del f
        layers: list[Any] = []
        for _ in range(sizes.depth):
            layers += [n.Linear(sizes.width, sizes.width), n.ReLU()]
        return n.Sequential(*layers[:-1])

    return make


def cnn(n: Any, f: Any) -> Any:
    """Return two 3x3 convolutions over 28x28, a pool and two layers."""
    del f
    return n.Sequential(
        n.Conv2d(1, 32, 3), n.ReLU(), n.Conv2d(32, 64, 3), n.ReLU(), n.MaxPool2d(2), n.Flatten(),
        n.Linear(64 * 12 * 12, 128), n.ReLU(), n.Linear(128, CLASSES),
    )  # fmt: skip


def lenet(n: Any, f: Any) -> Any:
    """Return LeNet-5's layers, with ReLU and maximum pools (LeCun et al. 1998, section II.B)."""
    del f
    return n.Sequential(
        n.Conv2d(1, 6, 5, padding=2), n.ReLU(), n.MaxPool2d(2), n.Conv2d(6, 16, 5), n.ReLU(), n.MaxPool2d(2),
        n.Flatten(), n.Linear(400, 120), n.ReLU(), n.Linear(120, 84), n.ReLU(), n.Linear(84, CLASSES),
    )  # fmt: skip


def block(sizes: Sizes) -> Make:
    """Return one transformer block, normalised before each part (Radford et al. 2019, section 2.3)."""
    _, _, width, heads = sizes.tokens

    def make(n: Any, f: Any) -> Any:
        class Block(n.Module):  # type: ignore[misc]  # either library's
            def __init__(self) -> None:
                super().__init__()
                self.norm1, self.norm2 = n.LayerNorm(width), n.LayerNorm(width)
                self.q, self.k, self.v, self.out = (n.Linear(width, width) for _ in range(4))
                self.up, self.down = n.Linear(width, 4 * width), n.Linear(4 * width, width)
                self.gelu = n.GELU(approximate="tanh")

            def forward(self, x: Any) -> Any:  # (B, T, C)
                h = self.norm1(x)
                q, k, v = (self.split(layer(h)) for layer in (self.q, self.k, self.v))  # (B, H, T, C/H)
                y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
                x = x + self.out(y.transpose(1, 2).reshape(*x.shape))
                return x + self.down(self.gelu(self.up(self.norm2(x))))

            def split(self, x: Any) -> Any:  # (B, T, C) -> (B, H, T, C/H)
                return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)

        return Block()

    return make


def vectors_of(sizes: Sizes) -> Batch:
    """Return a batch for the MLP."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((sizes.batch, sizes.width), np.float32)
    return x, rng.integers(0, sizes.width, sizes.batch)


def pixels_of(count: int) -> Batch:
    """Return a batch of 28x28 pictures."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((count, 1, 28, 28), np.float32), rng.integers(0, CLASSES, count)


def tokens_of(sizes: Sizes) -> Batch:
    """Return a batch for the block, and a class for each place."""
    batch, length, width, _ = sizes.tokens
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch, length, width), np.float32)
    return x, rng.integers(0, width, (batch, length))


def product_flops(sizes: Sizes) -> dict[str, float]:
    """Return the operations of the products of one step: 2 M N K forward, and for each gradient."""
    batch, length, width, _ = sizes.tokens
    tokens = float(batch * length)
    return {
        "mlp": 6.0 * sizes.batch * sizes.width**2 * sizes.depth - 2.0 * sizes.batch * sizes.width**2,
        "block": 6.0 * tokens * (12 * width**2 + 2 * length * width),
        "cnn": sizes.images
        * (4.0 * 26 * 26 * 9 * 32 + 6.0 * (24 * 24 * 288 * 64 + 9216 * 128 + 128 * CLASSES)),
        "lenet": math.nan,
    }
