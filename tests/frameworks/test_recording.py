"""A recording of a PyTorch model, by itself and beside one of ours."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.benchmarks.workloads import WORKLOADS, batch_of, weights_of
from minimp.frameworks import record_torch
from minimp.interop import from_torch
from tests.tolerances import tolerance

pytestmark = pytest.mark.torch
NEAR = tolerance("beside_torch", "ulp").value


def both(name: str, low: str | None, plant: Any = None) -> tuple[trace.Trace, trace.Trace]:
    """One pass of a network with the same weights in both libraries; `plant` changes torch's."""
    torch = pytest.importorskip("torch")
    work = WORKLOADS[name]
    mine, other = work.model(mp.nn, mp.functional), work.model(torch.nn, torch.nn.functional)
    weights = weights_of(work)
    mine.load_state_dict({key: mp.tensor(value) for key, value in weights.items()})
    other.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
    if plant is not None:
        plant(torch, other)
    x, labels = (each[:2] for each in batch_of(work))
    with record_torch(other) as theirs:
        with torch.autocast("cpu", getattr(torch, low or "bfloat16"), enabled=low is not None):
            loss = torch.nn.functional.cross_entropy(other(torch.tensor(x)), torch.tensor(labels))
        loss.backward()
    with trace.record(values="all", model=mine) as ours:
        with nullcontext() if low is None else mp.autocast(low, policy="torch-cpu"):
            score = mp.functional.cross_entropy(mine(mp.tensor(x)), mp.tensor(labels))
        score.backward()
    return ours, theirs


@pytest.mark.parametrize("low", [None, "bfloat16", "float16"])
def test_the_same_network_has_the_same_events(low: str | None) -> None:
    """Oracle: torch's own run of the same weights; one op computes the whole of a cross-entropy there."""
    ours, theirs = both("mlp", low)
    found = ours.diff(theirs, ulps=NEAR, at="largest")
    assert found.first is None, str(found)
    assert {"log_softmax", "log_softmax backward"} <= {event.title for event in found.only_ours}
    assert {event.op for event in found.only_ours} <= {"log_softmax", "cast"}
    assert [event.title for event in found.only_theirs] == ["stage backward"]
    backward = [pair for pair in found.pairs if pair.ours.title == "linear backward"]
    assert [pair.ours.module for pair in backward] == ["4", "2", "0"]
    assert all(part is not None for pair in backward[:2] for part in pair.theirs.outputs)
    assert {pair.by for pair in found.pairs} == {"values"}


def test_a_layer_that_differs_is_the_first_to_part() -> None:
    """Oracle: the layer of torch's that was made another one by hand."""

    def plant(torch: Any, model: Any) -> None:
        with torch.no_grad():
            model[2].weight[7, 9] *= 1.5

    ours, theirs = both("mlp", None, plant)
    first = ours.diff(theirs, ulps=NEAR, at="largest").first
    assert first is not None
    assert (first.ours.op, first.ours.module, first.theirs.module) == ("linear", "2", "2")


def test_another_formula_is_the_first_to_part() -> None:
    """Oracle: the GELU that torch was given, by the error function, in the place of the tangent's."""

    def plant(torch: Any, model: Any) -> None:
        model[1] = torch.nn.GELU()

    def network(n: Any) -> Any:
        return n.Sequential(n.Linear(8, 8), n.GELU(approximate="tanh"), n.Linear(8, 3))

    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    other = network(torch.nn)
    mine = from_torch(other)
    plant(torch, other)
    x = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    with record_torch(other) as theirs:
        other(torch.tensor(x))
    with trace.record(values="all") as ours:
        mine(mp.tensor(x))
    first = ours.diff(theirs, ulps=NEAR, at="largest").first
    assert first is not None
    assert (first.ours.op, first.ours.module) == ("gelu", "1")


def test_values_and_statistics_are_torchs(tmp_path: Path) -> None:
    """Oracle: what torch's own hooks are given, and NumPy's counts of it; the folder gives it back."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    seen: dict[str, Any] = {}
    model[1].register_forward_hook(lambda _, __, y: seen.update(forward=y.detach().numpy().copy()))
    model[1].register_full_backward_hook(lambda _, part, __: seen.update(backward=part[0].numpy().copy()))
    with record_torch(model, spill=tmp_path / "t") as made:
        model(torch.randn(3, 6)).square().sum().backward()
    assert trace.load(tmp_path / "t") == made
    for phase, kept in seen.items():
        (event,) = made.select(op="relu", module="1", phase=phase)
        np.testing.assert_array_equal(made.values(event)["out0"], kept)
        assert event.outputs[0].stats.zeros == np.count_nonzero(kept == 0)
        assert event.outputs[0].stats.amax == np.abs(kept).max()
    (stage,) = made.select(phase="stage", op="backward")
    for side, (name, leaf) in zip(stage.outputs, model.named_parameters(), strict=True):
        assert side.name == name
        assert side.stats.amax == leaf.grad.abs().max().item()
    assert made.select(op="linear", module="0")[0].source.startswith("tests/frameworks/test_recording.py:")
    assert made.info["steps"] == 1


def test_a_step_with_a_scaler_stands_beside_ours() -> None:
    """Oracle: torch's gradients of the same step; its scaler has another scale, which is no difference."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(2)
    other = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
    mine = from_torch(other)
    x, labels = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32), np.array([0, 1, 1])
    optimizer = torch.optim.Adam(other.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with record_torch(other, scaler=scaler) as theirs:
        with torch.autocast("cpu", torch.float16):
            loss = torch.nn.functional.cross_entropy(other(torch.tensor(x)), torch.tensor(labels))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    adam = mp.optim.Adam(mine.parameters())
    step = mp.TrainStep(
        mine, mp.functional.cross_entropy, adam, "mixed-fp16", scaler=mp.GradScaler(init_scale=1024.0)
    )
    with trace.record(values="all") as ours:
        step(x, labels)
    found = ours.diff(theirs, ulps=NEAR, at="largest")
    assert found.first is None, str(found)
    assert not found.only_theirs
    (stage,) = [pair for pair in found.pairs if pair.ours.title == "stage backward"]
    assert [side.name for side in stage.theirs.outputs] == [side.name for side in stage.ours.outputs]
    assert [event.facts["loss_scale"] for event in theirs.select(op="mul")] == [256.0] * 2
    assert theirs.gradients_at_scales().used == (256.0,)


def test_an_infinity_in_torch_is_found() -> None:
    """Oracle: the weight that was made too large by hand."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
    with torch.no_grad():
        model[2].weight.fill_(6e4)
        model[0].bias.fill_(10.0)
    with record_torch(model) as made, torch.autocast("cpu", torch.float16):
        model(torch.zeros(2, 4))
    first = made.first_nonfinite()
    assert first is not None
    assert (first.event.op, first.event.module, first.event.overflowed) == ("linear", "2", 8)


def test_what_is_no_torch_model_is_refused() -> None:
    """Oracle: the error names what came, and where models of minimp are recorded."""
    pytest.importorskip("torch")
    with pytest.raises(mp.errors.SettingError, match=r"got Linear.*\n.*mp\.trace\.record"):
        record_torch(mp.nn.Linear(2, 2))


def test_an_op_in_place_is_recorded_by_its_result() -> None:
    """Oracle: torch's own result; what came in was overwritten, and is not called its input."""
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.ReLU(inplace=True))
    with record_torch(model) as made:
        y = model(torch.tensor([[1.0, -2.0, 3.0], [-1.0, 2.0, 5.0]]))
    assert [(event.op, event.module) for event in made.events] == [("batch_norm", "0"), ("relu", "1")]
    relu = made.events[1]
    assert relu.inputs == (None,)
    np.testing.assert_array_equal(made.values(relu)["out0"], y.detach().numpy())


def test_what_torch_does_not_tell_is_not_called_none() -> None:
    """Oracle: by hand: a product that float16 flushes to 0; a complex number has no format here."""
    torch = pytest.importorskip("torch")
    x = torch.tensor([1e-5, 1.0], dtype=torch.float16)
    with record_torch(torch.nn.ReLU()) as made:
        assert float((x * x)[0]) == 0.0
        torch.view_as_complex(torch.ones(1, 2))
    assert {event.op for event in made.events} == {"mul", "getitem"}
    for answer in (str(made), str(made.underflow())):
        assert "what ops flushed to 0 is not known" in answer
