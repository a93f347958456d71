"""The workloads: the same model, weights, data and optimizer for minimp and for PyTorch.

MLP 784-512-512-10, batch 128; CNN 28x28x1, conv3x3 32, conv3x3 64, max-pool 2, 128, 10, batch 64; both
with cross-entropy and plain SGD. Data and weights are random: time does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp import functional, nn, tensor
from minimp.optim import SGD
from minimp.recipe import recipes
from minimp.scaler import GradScaler
from minimp.step import TrainStep

__all__ = ["WORKLOADS", "Workload", "minimp_step", "torch_step"]

LEARNING_RATE = 0.003
"""So small that the loss falls smoothly: where it jumps (0.01 on the CNN), the last bit decides the path."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Workload:
    """A model to train and the shape of its batches.

    Attributes:
        name: how it is called.
        batch: the shape of the inputs, batch first.
        layers: takes a namespace with torch.nn's names, returns the layers in order.
        flops: floating-point operations of the products of one step: 2 M N K forward, 2 M N K for each
            gradient. The first layer's input needs none.
    """

    name: str
    batch: tuple[int, ...]
    layers: Callable[[Any], list[Any]]
    flops: float


def _mlp(n: Any) -> list[Any]:
    return [n.Linear(784, 512), n.ReLU(), n.Linear(512, 512), n.ReLU(), n.Linear(512, 10)]


def _cnn(n: Any) -> list[Any]:
    return [
        n.Conv2d(1, 32, 3), n.ReLU(), n.Conv2d(32, 64, 3), n.ReLU(), n.MaxPool2d(2), n.Flatten(),
        n.Linear(64 * 12 * 12, 128), n.ReLU(), n.Linear(128, 10),
    ]  # fmt: skip


WORKLOADS = {
    "mlp": Workload("mlp", (128, 784), _mlp, 128 * (4 * 784 * 512 + 6 * (512 * 512 + 512 * 10))),
    "cnn": Workload(
        "cnn", (64, 1, 28, 28), _cnn,
        64 * (4 * 26 * 26 * 9 * 32 + 6 * (24 * 24 * 288 * 64 + 9216 * 128 + 128 * 10)),
    ),
}  # fmt: skip


def weights_of(workload: Workload, seed: int = 0) -> dict[str, Array]:
    """Return He-normal weights and zero biases under torch's names, float32."""
    rng = np.random.default_rng(seed)
    model = nn.Sequential(*workload.layers(nn))
    made: dict[str, Array] = {}
    for name, p in model.named_parameters():
        fan_in = int(np.prod(p.shape[1:])) if p.ndim > 1 else 1
        spread = np.sqrt(2.0 / fan_in) if p.ndim > 1 else 0.0
        made[name] = (rng.standard_normal(p.shape) * spread).astype(np.float32)
    return made


def batch_of(workload: Workload, seed: int = 1) -> tuple[Array, Array]:
    """Return one batch: standard normal inputs, float32, and labels from 0 to 9."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal(workload.batch).astype(np.float32)
    return inputs, rng.integers(0, 10, workload.batch[0])


def minimp_step(workload: Workload, recipe: str) -> Callable[[], float]:
    """Return a function that runs one training step of ours and gives its loss."""
    model = nn.Sequential(*workload.layers(nn))
    model.load_state_dict({name: tensor(value) for name, value in weights_of(workload).items()})
    scaler = GradScaler(init_scale=1024.0) if recipes[recipe].loss_scale is not None else None
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE)
    step = TrainStep(model, functional.cross_entropy, optimizer, recipe, scaler=scaler)
    inputs, labels = batch_of(workload)
    x = tensor(inputs)
    return lambda: step(x, labels).loss


def torch_step(workload: Workload, dtype: str | None) -> Callable[[], float]:
    """Return the same step in PyTorch on the CPU: float32, or autocast to `dtype` with a GradScaler.

    Raises:
        ImportError: torch is not installed.
    """
    import torch

    torch.set_num_threads(1)
    model = torch.nn.Sequential(*workload.layers(torch.nn))
    model.load_state_dict({name: torch.tensor(value) for name, value in weights_of(workload).items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=dtype == "float16")
    x, labels = (torch.tensor(each) for each in batch_of(workload))

    def run() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=getattr(torch, dtype or "bfloat16"), enabled=dtype is not None):
            loss = torch.nn.functional.cross_entropy(model(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(loss.detach())

    return run
