"""The workloads: the same model, weights, data and optimizer for minimp, PyTorch and mygrad.

MLP 784-512-512-10, batch 128; CNN 28x28x1, conv3x3 32, conv3x3 64, max-pool 2, 128, 10, batch 64; GPT of
width 128 with 4 heads and 4 layers over 128 of 96 tokens, batch 16, pre-norm, tanh-GELU, learned positions;
all with cross-entropy and plain SGD. Data and weights are random: time does not depend on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp import functional, nn, tensor
from minimp.optim import SGD
from minimp.recipe import recipes
from minimp.scaler import GradScaler
from minimp.step import TrainStep

__all__ = ["LEARNING_RATE", "WORKLOADS", "Workload", "batch_of", "minimp_step", "torch_step", "weights_of"]

LEARNING_RATE = 0.003
"""So small that the loss falls smoothly: where it jumps (0.01 on the CNN), the last bit decides the path."""
Array = np.ndarray[Any, Any]
WIDTH, HEADS, DEPTH, LENGTH, TOKENS = 128, 4, 4, 128, 96


@dataclass(frozen=True)
class Workload:
    """A model to train and the shape of its batches.

    Attributes:
        name: how it is called.
        batch: the shape of the inputs, batch first.
        model: from a namespace with torch.nn's names, and one with torch.nn.functional's, to the model.
        flops: floating-point operations of the products of one step: 2 M N K forward, 2 M N K for each
            gradient. The first layer's input needs none.
        classes: how many there are.
        tokens: whether inputs are integers below `classes`, each with a label of its own; else numbers.
    """

    name: str
    batch: tuple[int, ...]
    model: Callable[[Any, Any], Any]
    flops: float
    classes: int = 10
    tokens: bool = False


def _mlp(n: Any, f: Any) -> Any:
    del f
    return n.Sequential(n.Linear(784, 512), n.ReLU(), n.Linear(512, 512), n.ReLU(), n.Linear(512, 10))


def _cnn(n: Any, f: Any) -> Any:
    del f
    return n.Sequential(
        n.Conv2d(1, 32, 3), n.ReLU(), n.Conv2d(32, 64, 3), n.ReLU(), n.MaxPool2d(2), n.Flatten(),
        n.Linear(64 * 12 * 12, 128), n.ReLU(), n.Linear(128, 10),
    )  # fmt: skip


def _gpt(n: Any, f: Any) -> Any:
    """Radford et al. 2019, section 2.3: normalisation before each part, and once more at the end."""

    class Block(n.Module):  # type: ignore[misc]  # either library's
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = n.LayerNorm(WIDTH), n.LayerNorm(WIDTH)
            self.q, self.k, self.v, self.out = (n.Linear(WIDTH, WIDTH) for _ in range(4))
            self.up, self.down = n.Linear(WIDTH, 4 * WIDTH), n.Linear(4 * WIDTH, WIDTH)
            self.gelu = n.GELU(approximate="tanh")

        def forward(self, x: Any) -> Any:  # (B, T, C)
            h = self.norm1(x)
            q, k, v = (_heads(layer(h)) for layer in (self.q, self.k, self.v))  # (B, H, T, C/H)
            y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(*x.shape))
            return x + self.down(self.gelu(self.up(self.norm2(x))))

    class Gpt(n.Module):  # type: ignore[misc]  # either library's
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = n.Embedding(TOKENS, WIDTH), n.Embedding(LENGTH, WIDTH)
            self.blocks = n.Sequential(*(Block() for _ in range(DEPTH)))
            self.norm, self.head = n.LayerNorm(WIDTH), n.Linear(WIDTH, TOKENS)

        def forward(self, indices: Any) -> Any:  # (B, T) -> (B T, tokens)
            x = self.tokens(indices) + self.places.weight
            return self.head(self.norm(self.blocks(x))).reshape(-1, TOKENS)

    return Gpt()


def _heads(x: Any) -> Any:
    """(B, T, C) -> (B, H, T, C/H)."""
    return x.reshape(*x.shape[:2], HEADS, -1).transpose(1, 2)


def _gpt_flops(batch: int) -> float:
    rows = batch * LENGTH
    linear = DEPTH * 12 * WIDTH**2 + WIDTH * TOKENS
    attention = DEPTH * 2 * LENGTH * WIDTH
    return 6.0 * rows * (linear + attention)


WORKLOADS = {
    "mlp": Workload("mlp", (128, 784), _mlp, 128 * (4 * 784 * 512 + 6 * (512 * 512 + 512 * 10))),
    "cnn": Workload(
        "cnn", (64, 1, 28, 28), _cnn,
        64 * (4 * 26 * 26 * 9 * 32 + 6 * (24 * 24 * 288 * 64 + 9216 * 128 + 128 * 10)),
    ),
    "gpt": Workload("gpt", (16, LENGTH), _gpt, _gpt_flops(16), TOKENS, tokens=True),
}  # fmt: skip


def weights_of(workload: Workload, seed: int = 0) -> dict[str, Array]:
    """Return He-normal weights, zero biases and layer norms of factor 1 under torch's names, float32."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for name, p in workload.model(nn, functional).named_parameters():
        spread = math.sqrt(2.0 / math.prod(p.shape[1:])) if p.ndim > 1 else 0.0
        made[name] = (rng.standard_normal(p.shape) * spread).astype(np.float32)
        if p.ndim == 1 and name.endswith("weight"):
            made[name] += 1
    return made


def batch_of(workload: Workload, seed: int = 1) -> tuple[Array, Array]:
    """Return one batch: inputs as the workload has them, and a class for each row of scores."""
    rng = np.random.default_rng(seed)
    if workload.tokens:
        inputs = rng.integers(0, workload.classes, workload.batch)
        return inputs, rng.integers(0, workload.classes, workload.batch)
    inputs = rng.standard_normal(workload.batch).astype(np.float32)
    return inputs, rng.integers(0, workload.classes, workload.batch[0])


def minimp_step(workload: Workload, recipe: str) -> Callable[[], float]:
    """Return a function that runs one training step of ours and gives its loss."""
    model = workload.model(nn, functional)
    model.load_state_dict({name: tensor(value) for name, value in weights_of(workload).items()})
    scaler = GradScaler(init_scale=1024.0) if recipes[recipe].loss_scale is not None else None
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE)
    step = TrainStep(model, _loss, optimizer, recipe, scaler=scaler)
    x, labels = (tensor(each) for each in batch_of(workload))
    return lambda: step(x, labels).loss


def _loss(scores: Any, labels: Any) -> Any:
    return functional.cross_entropy(scores, labels.reshape(-1))


def torch_step(workload: Workload, dtype: str | None) -> Callable[[], float]:
    """Return the same step in PyTorch on the CPU: float32, or autocast to `dtype` with a GradScaler.

    Raises:
        ImportError: torch is not installed.
    """
    import torch

    torch.set_num_threads(1)
    model = workload.model(torch.nn, torch.nn.functional)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights_of(workload).items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=dtype == "float16")
    x, labels = (torch.tensor(each) for each in batch_of(workload))

    def run() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=getattr(torch, dtype or "bfloat16"), enabled=dtype is not None):
            loss = torch.nn.functional.cross_entropy(model(x), labels.reshape(-1))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss.detach())

    return run
