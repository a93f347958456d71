"""Three small models written once for both libraries, and the loops that train them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

import minimp as mp

BATCH, CONTEXT, VOCABULARY, CLASSES = 8, 16, 29, 10


def libraries() -> tuple[Any, Any]:
    """Return both libraries under one face: modules, functions, optimizers, schedulers, tensors."""
    import torch

    ours = SimpleNamespace(
        nn=mp.nn, f=mp.functional, optim=mp.optim, clip=mp.optim.clip_grad_norm_,
        tensor=mp.tensor, labels=np.asarray, schedulers=mp.optim.lr_scheduler, name="minimp",
        formats=mp.formats,
    )  # fmt: skip
    theirs = SimpleNamespace(
        nn=torch.nn, f=torch.nn.functional, optim=torch.optim, clip=torch.nn.utils.clip_grad_norm_,
        tensor=torch.tensor, labels=torch.tensor, schedulers=torch.optim.lr_scheduler, name="torch",
        formats=torch,
    )  # fmt: skip
    return ours, theirs


# ---- models --------------------------------------------------------------------------------------------


def gpt(lib: Any, width: int = 32, heads: int = 4, layers: int = 2) -> Any:
    """Return a pre-LN transformer: embeddings, causal attention, tanh GELU, a head of its own weights."""
    n, f = lib.nn, lib.f

    class Block(n.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = n.LayerNorm(width), n.LayerNorm(width)
            self.qkv, self.proj = n.Linear(width, 3 * width), n.Linear(width, width)
            self.up, self.down = n.Linear(width, 4 * width), n.Linear(4 * width, width)

        def attend(self, x: Any) -> Any:
            parts = self.qkv(x).reshape(-1, CONTEXT, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            mixed = f.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
            return self.proj(mixed.transpose(1, 2).reshape(-1, CONTEXT, width))

        def forward(self, x: Any) -> Any:
            x = x + self.attend(self.ln_1(x))
            return x + self.down(f.gelu(self.up(self.ln_2(x)), approximate="tanh"))

    class GPT(n.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = n.Embedding(VOCABULARY, width), n.Embedding(CONTEXT, width)
            self.blocks = n.Sequential(*(Block() for _ in range(layers)))
            self.ln_f, self.head = n.LayerNorm(width), n.Linear(width, VOCABULARY, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.wte(tokens) + self.wpe(lib.labels(np.arange(CONTEXT)))
            return self.head(self.ln_f(self.blocks(x))).reshape(-1, VOCABULARY)

    return GPT()


def resnet(lib: Any) -> Any:
    """Return two residual blocks of convolutions and batch norms, the second with a stride and a shortcut."""
    n, f = lib.nn, lib.f

    class Block(n.Module):
        def __init__(self, channels: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = n.Conv2d(channels, out, 3, stride, padding=1, bias=False)
            self.bn1, self.bn2 = n.BatchNorm2d(out), n.BatchNorm2d(out)
            self.conv2 = n.Conv2d(out, out, 3, padding=1, bias=False)
            self.shortcut = n.Sequential()
            if stride > 1:
                self.shortcut = n.Sequential(
                    n.Conv2d(channels, out, 1, stride, bias=False), n.BatchNorm2d(out)
                )

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(f.relu(self.bn1(self.conv1(x)))))
            return f.relu(y + self.shortcut(x))

    return n.Sequential(
        n.Conv2d(3, 8, 3, padding=1, bias=False), n.BatchNorm2d(8), n.ReLU(), Block(8, 8, 1), Block(8, 16, 2),
        n.AdaptiveAvgPool2d(1), n.Flatten(), n.Linear(16, CLASSES),
    )  # fmt: skip


def lstm(lib: Any, width: int = 24) -> Any:
    """Return a character model: an embedding, two layers of LSTM, a head."""
    n = lib.nn

    class Characters(n.Module):
        low = None  # under autocast: the format of the states, which on the CPU are of the input's in torch

        def __init__(self) -> None:
            super().__init__()
            self.embedding = n.Embedding(VOCABULARY, width)
            self.lstm = n.LSTM(width, width, num_layers=2, batch_first=True)
            self.head = n.Linear(width, VOCABULARY)

        def forward(self, tokens: Any) -> Any:
            x = self.embedding(tokens)
            states, _ = self.lstm(x if self.low is None else x.to(getattr(lib.formats, self.low)))
            return self.head(states).reshape(-1, VOCABULARY)

    return Characters()


# ---- data ----------------------------------------------------------------------------------------------


def characters(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return rows that count on by a step of their own, with some noise, and what follows each place."""
    start, step = rng.integers(0, VOCABULARY, (BATCH, 1)), rng.integers(1, 4, (BATCH, 1))
    rows = (start + step * np.arange(CONTEXT + 1)) % VOCABULARY
    rows = np.where(rng.random(rows.shape) < 0.05, rng.integers(0, VOCABULARY, rows.shape), rows)
    return rows[:, :-1], rows[:, 1:].reshape(-1)


def images(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return images with a bright column or row for each class, and the classes."""
    labels = rng.integers(0, CLASSES, 2 * BATCH)
    pixels = rng.standard_normal((2 * BATCH, 3, 8, 8)) * 0.5
    for image, label in zip(pixels, labels, strict=True):
        image[label % 3, :, label % 8] += 1.5
        image[label // 4, label % 8] -= 1.0
    return pixels.astype(np.float32), labels


# ---- training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """One way to train a model.

    Attributes:
        model: makes it, given a library.
        data: draws a batch.
        optimizer: its name, and its settings.
        scheduler: makes it, given the module of schedulers and the optimizer.
        max_norm: what gradients are clipped to.
    """

    model: Callable[[Any], Any]
    data: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    optimizer: tuple[str, dict[str, Any]]
    scheduler: Callable[[Any, Any], Any]
    max_norm: float


RECIPES = {
    "gpt": Recipe(
        gpt, characters, ("AdamW", {"lr": 3e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}),
        lambda s, o: s.SequentialLR(
            o, [s.LinearLR(o, 0.1, total_iters=10), s.CosineAnnealingLR(o, 90)], milestones=[10]
        ),
        1.0,
    ),
    "resnet": Recipe(
        resnet, images, ("SGD", {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}),
        lambda s, o: s.StepLR(o, 40, 0.3), 2.0,
    ),
    "lstm": Recipe(
        lstm, characters, ("AdamW", {"lr": 1e-2, "weight_decay": 0.01}),
        lambda s, o: s.OneCycleLR(o, 1e-2, total_steps=101), 0.5,
    ),
}  # fmt: skip


@dataclass
class Run:
    """What came of one training run: the losses, the scales, and the state of the model at the end."""

    losses: np.ndarray
    scales: list[float]
    state: dict[str, np.ndarray]
    norms: np.ndarray


def start(recipe: Recipe, seed: int) -> dict[str, np.ndarray]:
    """Return the state in which both models begin: torch's own draw."""
    import torch

    torch.manual_seed(seed)
    return {k: v.numpy().copy() for k, v in recipe.model(libraries()[1]).state_dict().items()}


def jittered(state: dict[str, np.ndarray], seed: int, unit: float) -> dict[str, np.ndarray]:
    """Return the state with every weight moved by at most `unit` of itself, evenly."""
    rng = np.random.default_rng(seed)
    ways = {k: 1 + unit * rng.uniform(-1, 1, v.shape) for k, v in state.items()}
    return {k: (v * ways[k]).astype(v.dtype) if v.dtype == np.float32 else v for k, v in state.items()}


def train(
    lib: Any, recipe: Recipe, state: dict[str, np.ndarray], steps: int, dtype: str | None = None
) -> Run:
    """Train from `state`: the same batches, optimizer, schedule and clipping in both libraries.

    Args:
        lib: one of :func:`libraries`.
        recipe: what is trained.
        state: the weights and buffers to begin with.
        steps: how many.
        dtype: the format of autocast; float16 with a GradScaler; None for float32.
    """
    rng = np.random.default_rng(99)
    model = recipe.model(lib)
    model.load_state_dict({k: lib.tensor(v) for k, v in state.items()})
    model.low = dtype
    kind, options = recipe.optimizer
    optimizer = getattr(lib.optim, kind)(model.parameters(), **options)
    schedule = recipe.scheduler(lib.schedulers, optimizer)
    scaler = _scaler(lib, dtype == "float16")
    losses, norms, scales = [], [], []
    for _ in range(steps):
        x, labels = recipe.data(rng)
        inputs = lib.tensor(x) if x.dtype == np.float32 else lib.labels(x)
        optimizer.zero_grad()
        with _autocast(lib, dtype):
            loss = lib.f.cross_entropy(model(inputs), lib.labels(labels))
        scales.append(scaler.get_scale())
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norms.append(float(lib.clip(model.parameters(), recipe.max_norm)))
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        losses.append(float(loss.detach()))
    end = {k: np.asarray(v.detach()).astype(np.float64) for k, v in model.state_dict().items()}
    return Run(np.array(losses), scales, end, np.array(norms))


def _scaler(lib: Any, enabled: bool) -> Any:
    options = {"init_scale": 2.0**12, "growth_interval": 40, "enabled": enabled}
    if lib.name == "minimp":
        return mp.GradScaler(**options)
    import torch

    return torch.amp.GradScaler("cpu", **options)


def _autocast(lib: Any, dtype: str | None) -> Any:
    if dtype is None:
        return nullcontext()
    if lib.name == "minimp":
        return mp.autocast(dtype, policy="torch-cpu")
    import torch

    return torch.autocast("cpu", getattr(torch, dtype))
