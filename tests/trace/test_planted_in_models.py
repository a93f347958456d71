"""The same faults, planted in three architectures: each tool that is asked for one names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn, trace
from minimp.bisecting import bisect
from minimp.errors import AnomalyError, BreakpointError

F = mp.functional
CUDA = mp.policies["torch-cuda"]
CLASSES = 4


class Attention(nn.Module):
    """Attention of one head, its softmax written out.  (B, T, C) -> (B, T, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Any) -> Any:
        """Mix the positions."""
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        return F.softmax(scores, dim=-1) @ self.value(x)


class Transformer(nn.Module):
    """One block, and a head over the mean of the positions.  (B, T, 8) -> (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(8), Attention(8)
        self.wide, self.out, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Any) -> Any:
        """Score the classes."""
        x = x + self.attention(self.norm(x))
        x = x + self.out(F.gelu(self.wide(x)))
        return self.head(x.mean(1))


def mlp() -> nn.Module:
    """Three linear layers."""
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def cnn() -> nn.Module:
    """Two convolutions, a batch norm, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(16, CLASSES),
    )  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A model; the shape of an input; a layer inside of it, its op, and the name of its last layer."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layer: str
    op: str
    head: str


ARCHITECTURES = {
    "MLP": Architecture(mlp, (12,), "2", "linear", "4"),
    "CNN": Architecture(cnn, (1, 6, 6), "3", "conv2d", "6"),
    "transformer": Architecture(Transformer, (5, 8), "attention.value", "linear", "head"),
}
each = pytest.mark.parametrize("kind", ARCHITECTURES.values(), ids=ARCHITECTURES)


def batch(kind: Architecture, rows: int = 8) -> tuple[Any, Any]:
    """Random inputs and labels."""
    rng = np.random.default_rng(5)
    return rng.standard_normal((rows, *kind.shape)).astype(np.float32), rng.integers(0, CLASSES, rows)


def step_of(
    kind: Architecture, *, recipe: Any = "mixed-fp16", loss: Any = F.cross_entropy, lr: float = 0.01,
    plant: Callable[[nn.Module], object] = lambda _: None,
) -> mp.TrainStep:  # fmt: skip
    """A training step of a model in which something was planted."""
    mp.manual_seed(7)
    model = kind.make()
    plant(model)
    return mp.TrainStep(model, loss, mp.optim.SGD(model.parameters(), lr=lr), recipe)


def grown(path: str) -> Callable[[nn.Module], None]:
    """Return what makes a layer's results overflow float16: its weights are finite there."""

    def plant(model: nn.Module) -> None:
        layer: Any = model.get_submodule(path)
        layer.weight.array = np.sign(layer.weight.array) * np.float32(6e4)

    return plant


@each
def test_a_layer_that_overflows_is_named(kind: Architecture, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the layer whose weights were made 60,000: by trace, anomaly, breakpoint, ladder and blame."""
    step = step_of(kind, plant=grown(kind.layer))
    data = batch(kind)
    with trace.record() as made:
        step(*data)
    first = made.first_nonfinite()
    assert first is not None
    assert (first.event.op, first.event.module, first.event.phase) == (kind.op, kind.layer, "forward")
    assert made.overflow("module").rows[0][0] == kind.layer
    with pytest.raises(AnomalyError) as fault, mp.detect_anomaly():
        step(*data)
    assert (fault.value.event.op, fault.value.event.module) == (kind.op, kind.layer)
    with pytest.raises(BreakpointError) as stop, trace.break_when("overflow"):
        step(*data)
    assert (stop.value.event.op, stop.value.event.module) == (kind.op, kind.layer)
    capsys.readouterr()
    with mp.debug(3):
        step(*data)
    lines = [line for line in capsys.readouterr().err.splitlines() if " infs" in line or "holds" in line]
    lines = [line for line in lines if "made 0 zeros 0 infs" not in line]
    assert lines[0].startswith(f"minimp 3 fwd {kind.op}")
    assert lines[0].endswith(f" in {kind.layer}")
    found = bisect(lambda: step(*data).loss, agree="finite")
    assert kind.op in found.ops
    assert (kind.op, kind.layer) in {(call.op, call.module) for call in found.instances}


@each
def test_a_softmax_in_fp16_is_named(kind: Architecture) -> None:
    """Oracle: the edit that lowers softmax, under which a probability below 2^-25 is 0."""

    def surprise(scores: Any, labels: Any) -> Any:
        return -F.softmax(scores * 400.0, dim=-1).clamp(min=1e-12).log().mean()

    policy = CUDA.with_(softmax="lower", clamp="promote")
    recipe = mp.recipes["mixed-fp16"].with_(policy=policy)
    step, data = step_of(kind, recipe=recipe, loss=surprise), batch(kind)
    with trace.record(shadow=True) as made:
        step(*data)
    assert {row["inputs"] for row in made.counts() if row["op"] == "softmax"} == {"float16"}
    assert made.underflow("op").rows[0][0] == "softmax"
    found = bisect(lambda: step(*data).loss)
    assert "softmax" in found.ops
    assert 'softmax="fp32"' in found.code


@each
def test_a_missing_cast_is_named(kind: Architecture) -> None:
    """Oracle: the layer that leaves the region: the two traces part there, and it alone is wide."""

    def plant(model: nn.Module) -> None:
        layer: Any = model.get_submodule(kind.layer)
        inner = layer.forward

        def apart(x: Any) -> Any:
            with mp.autocast("float16", enabled=False):
                return inner(x.float())

        layer.forward = apart

    traces = []
    for planted in (lambda _: None, plant):
        with trace.record() as made:
            step_of(kind, plant=planted)(*batch(kind))
        traces.append(made)
    honest, faulty = traces
    wide = [e for e in faulty.select(op=kind.op, phase="forward") if e.outputs[0].format == "float32"]
    assert [event.module for event in wide] == [kind.layer]
    parted = honest.diff(faulty)
    assert parted.first is not None
    assert (parted.first.ours.op, parted.first.ours.module) == (kind.op, kind.layer)
    assert f"cast in {kind.layer}" in str(parted).partition("only in ours")[2]


@each
def test_swallowed_updates_are_named(kind: Architecture) -> None:
    """Oracle: the bits of the weights before and after: of those that did not move, the question tells."""
    step = step_of(kind, recipe="bf16", lr=1e-4)
    before = {name: np.array(p.array) for name, p in step.model.named_parameters()}
    with trace.record() as made:
        step(*batch(kind))
    rows = {row["parameter"]: row for row in made.swallowed()}
    for name, p in step.model.named_parameters():
        moved = int(np.count_nonzero(before[name] != np.array(p.array)))
        if name in rows:
            assert rows[name]["non-zero"] - rows[name]["swallowed"] == moved
        else:  # no gradient but 0
            assert moved == 0
    assert rows[f"{kind.layer}.weight"]["share"] > 0.5


@each
def test_a_bad_label_is_named(kind: Architecture) -> None:
    """Oracle: the label that was made infinite: the loss is the first to read it."""
    x, _ = batch(kind)
    labels = np.zeros((8, CLASSES), np.float32)
    labels[3, 1] = np.inf
    step = step_of(kind, loss=F.mse_loss)
    with trace.record() as made:
        step(x, labels)
    first = made.first_nonfinite()
    assert first is not None
    assert (first.event.op, first.event.stage) == ("mse_loss", "loss")
    assert "came from outside holds 1 infinite of 32" in first.cause
    with pytest.raises(AnomalyError) as fault, mp.detect_anomaly():
        step(x, labels)
    assert fault.value.event.op == "mse_loss"
    assert "came from outside holds 1 infinite of 32" in str(fault.value)
