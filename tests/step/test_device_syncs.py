"""A training step makes the host wait for nothing; oracle: the strict backend counts every wait and copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import models, nn, optim
from minimp.backend import get_backend

RNG = np.random.default_rng(0)
Batch = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class Recurrent(nn.Module):
    """An LSTM and a layer on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.out = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: mp.Tensor) -> mp.Tensor:
        """(N, T, 4) -> (N, 3)."""
        return self.out(self.rows(x)[0][:, -1])


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    """Return float32 inputs."""
    return RNG.standard_normal(shape, np.float32)


def next_tokens(scores: mp.Tensor, targets: Any) -> mp.Tensor:
    """Return the mean loss over all places of all rows."""
    return mp.functional.cross_entropy(scores.reshape(-1, 20), targets.reshape(-1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Batch], Any]] = {
    "mlp": (
        lambda: models.mlp((8,), 3), lambda: (numbers(12, 8), RNG.integers(0, 3, 12)),
        mp.functional.cross_entropy,
    ),
    "regression": (
        lambda: models.mlp((8,), 3), lambda: (numbers(12, 8), numbers(12, 3)), mp.functional.mse_loss
    ),
    "cnn": (
        lambda: models.cnn((1, 8, 8), 10), lambda: (numbers(6, 1, 8, 8), RNG.integers(0, 10, 6)),
        mp.functional.cross_entropy,
    ),
    "resnet": (
        lambda: models.resnet((1, 8, 8), 10, width=4),
        lambda: (numbers(6, 1, 8, 8), RNG.integers(0, 10, 6)), mp.functional.cross_entropy,
    ),
    "gpt": (
        lambda: models.gpt((8,), 20, width=16),
        lambda: (RNG.integers(0, 20, (3, 8)), RNG.integers(0, 20, (3, 8))), next_tokens,
    ),
    "lstm": (
        Recurrent, lambda: (numbers(5, 7, 4), RNG.integers(0, 3, 5)), mp.functional.cross_entropy
    ),
}  # fmt: skip
RECIPES = ("mixed-fp16", "mixed-bf16", "fp32", "fp16", "fp16-master", "bf16", "bf16-stochastic", "bf16-kahan")
OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion", "LAMB")


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    with mp.use_backend("strict"):
        yield


def count(name: str, recipe: str, optimizer: str, **options: Any) -> list[tuple[Any, int]]:
    """Return (what was counted, bytes of the batch) for each of four steps."""
    make, batch, loss = MODELS[name]
    mp.manual_seed(1)
    model, backend = make(), get_backend("strict")
    step = mp.TrainStep(
        model, loss, getattr(optim, optimizer)(model.parameters(), lr=0.01), recipe, control="device",
        **options,
    )  # fmt: skip
    found = []
    for _ in range(4):
        inputs, targets = batch()
        with backend.counting() as counts:  # type: ignore[attr-defined]  # the strict backend has it
            step(inputs, targets)
        found.append((counts, inputs.nbytes + targets.nbytes))
    return found


CASES = [
    *((name, "mixed-fp16", "AdamW") for name in MODELS),
    *(("mlp", recipe, "AdamW") for recipe in RECIPES[1:]),
    *(("mlp", "mixed-fp16", optimizer) for optimizer in OPTIMIZERS if optimizer != "AdamW"),
]


@pytest.mark.parametrize(("name", "recipe", "optimizer"), CASES)
def test_a_step_waits_for_nothing(name: str, recipe: str, optimizer: str) -> None:
    """Oracle: no wait, nothing read back, and beside the batch only numbers sent, in every step."""
    found = count(name, recipe, optimizer)
    for counts, _ in found:
        assert (counts.syncs, counts.to_host) == (0, 0)
    for counts, batch in found[2:]:
        assert counts.to_device_bytes <= batch + 64
    assert found[2][0].allocations == found[3][0].allocations


@pytest.mark.parametrize("layers", [2, 9])
def test_fp8_waits_for_three_maxima_a_layer(layers: int) -> None:
    """Oracle: input, weight and gradient have a scale each, which the host sets; the rest as in any step."""
    model, backend = models.mlp((8,), 3, hidden=(16,) * (layers - 1)), get_backend("strict")
    step = mp.TrainStep(model, mp.functional.mse_loss, optim.SGD(model.parameters()), "mixed-fp8")
    for _ in range(3):
        batch = mp.tensor(numbers(4, 8)), mp.tensor(numbers(4, 3))
        with backend.counting() as counts:  # type: ignore[attr-defined]  # the strict backend has it
            step(*batch)
        assert counts.syncs <= 3 * layers + 3


def test_clipping_and_micro_batches_wait_for_nothing_either() -> None:
    """Oracle: as above."""
    found = count("mlp", "mixed-fp16", "SGD", max_norm=0.1, micro_batches=4)
    assert [counts.syncs for counts, _ in found] == [0] * 4


def test_the_host_waits_where_it_decides() -> None:
    """Oracle: the host has to read whether the gradients are finite: the counting counts."""
    make, batch, loss = MODELS["mlp"]
    model, backend = make(), get_backend("strict")
    step = mp.TrainStep(model, loss, optim.SGD(model.parameters()), "mixed-fp16", control="host")
    with backend.counting() as counts:  # type: ignore[attr-defined]  # the strict backend has it
        step(*batch())
    assert counts.syncs >= 1


def test_reading_a_report_waits_once() -> None:
    """Oracle: one copy to the host, of all that the report says, and one for each question left open."""
    make, batch, loss = MODELS["mlp"]
    model, backend = make(), get_backend("strict")
    step = mp.TrainStep(model, loss, optim.SGD(model.parameters()), "mixed-bf16", control="device")
    report = step(*batch())
    questions = len(step.doubts)
    with backend.counting() as counts:  # type: ignore[attr-defined]  # the strict backend has it
        said = (report.loss, report.loss_scale, report.skipped, report.nonfinite, report.grad_norm)
    assert len(said) == 5
    assert counts.syncs == 1 + questions


@pytest.mark.parametrize("norm_type", [2.0, 3.0, float("inf")])
def test_clipping_in_a_loop_of_ones_own_waits_once(norm_type: float) -> None:
    """Oracle: one copy to the host, however many gradients there are; and the norm on NumPy."""
    rng, tensors = np.random.default_rng(0), {}
    for name in ("strict", "numpy"):
        zeros = [mp.tensor(np.zeros(3, np.float32), backend=name) for _ in range(9)]
        tensors[name] = [each.requires_grad_() for each in zeros]
    for pair in zip(*tensors.values(), strict=True):
        grad = rng.standard_normal(3).astype(np.float32)
        for param in pair:
            param.grad = mp.tensor(grad, backend=param.backend.name)
    with get_backend("strict").counting() as counts:  # type: ignore[attr-defined]  # the strict backend has it
        norm = optim.clip_grad_norm_(tensors["strict"], 0.5, norm_type)
    assert (counts.syncs, counts.to_host) == (1, 1)
    assert norm.item() == optim.clip_grad_norm_(tensors["numpy"], 0.5, norm_type).item()
    for ours, theirs in zip(*tensors.values(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        np.testing.assert_array_equal(ours.grad.numpy(), theirs.grad.numpy())
