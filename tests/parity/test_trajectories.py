"""Whole trajectories against PyTorch 2.13.0 on the CPU: losses step by step, scales, final weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn, optim
from minimp.benchmarks import trajectory_gap
from minimp.step import StepReport, TrainStep
from tests.tolerances import assert_close, tolerance

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

SGD = {"lr": 0.05, "momentum": 0.9}
OPTIMIZERS = {
    "SGD": SGD,
    "nesterov": SGD | {"nesterov": True, "weight_decay": 1e-3},
    "Adam": {"lr": 2e-3, "weight_decay": 1e-2},
    "AdamW": {"lr": 2e-3, "amsgrad": True},
}


def mlp(n: Any) -> list[Any]:
    """Return three layers: 32-48-48-10."""
    return [n.Linear(32, 48), n.ReLU(), n.Linear(48, 48), n.GELU(), n.Linear(48, 10)]


def cnn(n: Any) -> list[Any]:
    """Return two convolutions, a pool between them, and a layer: 1x8x8 to 10."""
    return [
        n.Conv2d(1, 6, 3, padding=1), n.ReLU(), n.MaxPool2d(2), n.Conv2d(6, 8, 3), n.Tanh(), n.Flatten(),
        n.Linear(32, 10),
    ]  # fmt: skip


@dataclass
class Pair:
    """The same model twice, with the same weights, and the same optimizer."""

    ours: nn.Module
    theirs: Any
    our_optimizer: optim.Optimizer
    their_optimizer: Any
    rng: np.random.Generator

    def batch(self, shape: tuple[int, ...] = (64, 32)) -> tuple[Any, Any]:
        """Return rows or images, and labels."""
        x = self.rng.standard_normal(shape).astype(np.float32)
        return x, self.rng.integers(0, 10, shape[0])

    def check_weights(self, row: str) -> None:
        """Compare every parameter."""
        theirs = self.theirs.state_dict()
        for name, mine in self.ours.named_parameters():
            assert_close(np.asarray(mine), theirs[name].numpy().astype(np.float64), row)


def pair(layers: Callable[[Any], list[Any]], optimizer: str = "SGD", seed: int = 0) -> Pair:
    """Make both sides from one set of weights."""
    rng = np.random.default_rng(seed)
    ours, theirs = nn.Sequential(*layers(nn)), torch.nn.Sequential(*layers(torch.nn))
    for name, p in ours.named_parameters():
        spread = np.sqrt(2 / max(int(np.prod(p.shape[1:])), 1)) if p.ndim > 1 else 0.1
        value = (rng.standard_normal(p.shape) * spread).astype(np.float32)
        ours.load_state_dict({name: mp.tensor(value)}, strict=False)
        theirs.load_state_dict({name: torch.tensor(value)}, strict=False)
    kind, options = ("SGD" if optimizer == "nesterov" else optimizer), OPTIMIZERS[optimizer]
    mine = getattr(optim, kind)(ours.parameters(), **options)
    return Pair(ours, theirs, mine, getattr(torch.optim, kind)(theirs.parameters(), **options), rng)


def torch_loss(model: Any, x: Any, labels: Any, dtype: Any = None) -> Any:
    """Return torch's cross-entropy, under autocast if a dtype is given."""
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        return torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(labels))


# ---- float32 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_the_benchmark_s_workloads(name: str) -> None:
    """Oracle: torch's losses over 60 steps of the same model, from the same weights on the same batch."""
    first, largest = trajectory_gap(name, steps=60)
    assert first.value <= tolerance("parity_first_loss", "rel").value
    assert largest.value <= tolerance("parity_trajectory", "rel").value
    assert largest.value >= first.value > 0.0  # two engines, not one beside itself
    assert first.reached
    assert largest.reached


def wide_steps(
    both: Pair, steps: int, shape: tuple[int, ...] = (64, 32), max_norm: float | None = None
) -> None:
    """Run float32 steps on both sides, a new batch in each; compare losses, norms and final weights."""
    step = TrainStep(both.ours, mp.functional.cross_entropy, both.our_optimizer, "fp32", max_norm=max_norm)
    reports, losses, norms = [], [], []
    for _ in range(steps):
        x, labels = both.batch(shape)
        reports.append(step(x, labels))
        both.their_optimizer.zero_grad()
        loss = torch_loss(both.theirs, x, labels)
        loss.backward()
        bound = float("inf") if max_norm is None else max_norm
        norms.append(torch.nn.utils.clip_grad_norm_(both.theirs.parameters(), bound).item())
        both.their_optimizer.step()
        losses.append(loss.item())
    assert_close([report.loss for report in reports], losses, "parity_trajectory")
    assert_close([report.grad_norm for report in reports], norms, "parity_trajectory")
    both.check_weights("parity_trajectory_weights")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("layers", "shape"), [(mlp, (64, 32)), (cnn, (16, 1, 8, 8))])
def test_sixty_steps_in_float32(layers: Any, shape: tuple[int, ...], optimizer: str) -> None:
    """Oracle: torch's loss and gradient norm of each step, and its weights after the last."""
    wide_steps(pair(layers, optimizer), 60, shape)


def test_clipped_steps_in_float32() -> None:
    """Oracle: torch.nn.utils.clip_grad_norm_ between backward and step; every norm is above the bound."""
    wide_steps(pair(mlp), 30, max_norm=0.5)


# ---- mixed precision ---------------------------------------------------------------------------------------


def mixed_steps(
    both: Pair, steps: int, *, init_scale: float, interval: int, shape: tuple[int, ...] = (64, 32),
    max_norm: float | None = None,
) -> tuple[list[StepReport], list[float], list[float]]:  # fmt: skip
    """Run mixed-fp16 beside torch.autocast and GradScaler; return our reports, their losses and scales."""
    options = {"init_scale": init_scale, "growth_interval": interval}
    step = TrainStep(
        both.ours, mp.functional.cross_entropy, both.our_optimizer, "mixed-fp16",
        scaler=mp.GradScaler(**options), max_norm=max_norm,
    )  # fmt: skip
    scaler = torch.amp.GradScaler("cpu", **options)
    reports, losses, scales = [], [], []
    for _ in range(steps):
        x, labels = both.batch(shape)
        reports.append(step(x, labels))
        both.their_optimizer.zero_grad()
        loss = torch_loss(both.theirs, x, labels, torch.float16)
        scales.append(scaler.get_scale())
        scaler.scale(loss).backward()
        if max_norm is not None:
            scaler.unscale_(both.their_optimizer)
            torch.nn.utils.clip_grad_norm_(both.theirs.parameters(), max_norm)
        scaler.step(both.their_optimizer)
        scaler.update()
        losses.append(loss.item())
    return reports, losses, scales


def check_mixed(both: Pair, reports: Sequence[StepReport], losses: list[float], scales: list[float]) -> None:
    """Compare losses, scales and final weights."""
    assert [report.loss_scale for report in reports] == scales
    assert_close([report.loss for report in reports], losses, "parity_mixed_losses")
    both.check_weights("parity_mixed_weights")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mixed_fp16_beside_autocast_and_grad_scaler(optimizer: str, seed: int) -> None:
    """Oracle: ten steps of torch's CPU autocast in float16; the scale grows every three steps in both."""
    both = pair(mlp, optimizer, seed)
    made = mixed_steps(both, 10, init_scale=1024.0, interval=3)
    check_mixed(both, *made)
    assert not any(report.skipped for report in made[0])
    assert made[2][-1] == 8192.0


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_both_skip_the_same_steps(optimizer: str) -> None:
    """Oracle: torch's scales from 2^26 down, step by step: the same steps overflow, the same go through."""
    both = pair(mlp, optimizer)
    reports, losses, scales = mixed_steps(both, 20, init_scale=2.0**26, interval=4)
    check_mixed(both, reports, losses, scales)
    skipped = [report.skipped for report in reports]
    assert 5 < sum(skipped) < 15
    assert True in skipped[skipped.index(False) :]  # it grew until it overflowed again


def test_clipping_comes_after_unscaling() -> None:
    """Oracle: torch's unscale_, clip_grad_norm_ and step; the norm is far above the bound in every step."""
    both = pair(mlp)
    reports, losses, scales = mixed_steps(both, 10, init_scale=4096.0, interval=3, max_norm=0.1)
    assert min(report.grad_norm for report in reports) > 0.5
    check_mixed(both, reports, losses, scales)


def test_a_cnn_in_mixed_fp16() -> None:
    """Oracle: torch's convolutions in float16 under CPU autocast, with its pool and its tanh."""
    both = pair(cnn)
    check_mixed(both, *mixed_steps(both, 10, init_scale=1024.0, interval=3, shape=(16, 1, 8, 8)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("layers", "shape"), [(mlp, (64, 32)), (cnn, (16, 1, 8, 8))])
def test_mixed_bf16_beside_autocast(layers: Any, shape: tuple[int, ...], optimizer: str) -> None:
    """Oracle: ten steps of torch's CPU autocast in bfloat16, without a scaler on either side."""
    both = pair(layers, optimizer)
    step = TrainStep(both.ours, mp.functional.cross_entropy, both.our_optimizer, "mixed-bf16")
    reports, losses = [], []
    for _ in range(10):
        x, labels = both.batch(shape)
        reports.append(step(x, labels))
        both.their_optimizer.zero_grad()
        loss = torch_loss(both.theirs, x, labels, torch.bfloat16)
        loss.backward()
        both.their_optimizer.step()
        losses.append(loss.item())
    check_mixed(both, reports, losses, [1.0] * 10)
