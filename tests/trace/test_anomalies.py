"""detect_anomaly: planted faults are raised at by name, and what a loss scale explains is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import AnomalyError
from tests.trace.cases import batch, grown, make_step
from tests.trace.test_loops import run_loop

F = mp.functional


def caught(run: Callable[[], object]) -> AnomalyError:
    """The error that a run raises."""
    with pytest.raises(AnomalyError) as fault, mp.detect_anomaly():
        run()
    assert mp.modes.MODES.get().listeners == ()
    return fault.value


def bad_label() -> object:
    """A step whose labels hold one infinity."""
    x, _ = batch()
    labels = np.zeros((8, 4), np.float32)
    labels[3, 1] = np.inf
    return make_step(loss=F.mse_loss)(x, labels)


def masked(*, all_of_a_row: bool) -> None:
    """A softmax of scores plus a mask of -inf, with its gradient."""
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    if all_of_a_row:
        mask[2] = -np.inf
    scores = mp.tensor(np.ones((4, 4), np.float32), requires_grad=True)
    F.softmax(scores + mp.tensor(mask), dim=-1).square().sum().backward()


def large_loss(y: Any, _: Any) -> Any:
    """A loss whose gradients overflow at any scale."""
    return (y * y).sum() * 1e6


def meeting(scale: float, factor: float) -> mp.GradScaler:
    """Three gradients of `factor` times the scale meet in float16 numbers."""
    scaler = mp.GradScaler(init_scale=scale)
    y = mp.tensor([1.0, 0.5], dtype=mp.float16, requires_grad=True) * 1.0
    parts = [(y * factor).float().sum() for _ in range(3)]
    scaler.scale(parts[0] + parts[1] + parts[2]).backward()
    return scaler


FAULTS: dict[str, tuple[Callable[[], object], tuple[str, str, str]]] = {
    "an overflow in one layer": (
        lambda: make_step(change=grown(2, 1.5e5))(*batch()), ("linear", "2", "results overflowed float16"),
    ),
    "a weight that is NaN": (
        lambda: make_step(change=grown(2, float("nan")))(*batch()),
        ("cast", "", "parameter 2.weight holds 256 NaN of 256"),
    ),
    "a bad label": (bad_label, ("mse_loss", "", "input 1, which came from outside holds 1 infinite of 32")),
    "a root of zero": (
        lambda: make_step(loss=lambda y, _: (y - y).float().sqrt().sum())(*batch()),
        ("sqrt backward", "", "would not be finite either"),
    ),
    "gradients too large at every scale": (
        lambda: make_step(scale=2.0, loss=large_loss)(*batch()),
        ("cast backward", "", "at a loss scale of 1, in the place of 2, it would not be finite either"),
    ),
    "no scaler": (
        lambda: (mp.tensor([1.0], dtype=mp.float16, requires_grad=True).float() * 1e6).sum().backward(),
        ("cast backward", "", "1 of 1 results overflowed float16"),
    ),
    "a row of masks alone": (
        lambda: masked(all_of_a_row=True), ("softmax", "", "made of infinities that were asked for"),
    ),
    "gradients that meet, without a scale": (
        lambda: meeting(1.0, 6e4), ("mul backward", "", "gradients that met here overflowed"),
    ),
    "gradients that meet, too large at every scale": (
        lambda: meeting(2.0, 3e4), ("mul backward", "", "in the place of 2, it would not be finite either"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_raised_at(name: str) -> None:
    """Oracle: the fault that was planted: the op, the module, and the cause in words."""
    run, (title, module, said) = FAULTS[name]
    fault = caught(run)
    assert (fault.event.title, fault.event.module) == (title, module)
    assert said in str(fault)
    assert "test_anomalies.py:" in str(fault) or "cases.py:" in str(fault)
    assert "input 0" in str(fault)
    first = fault.trace.first_nonfinite()
    assert first is not None


FINE: dict[str, Callable[[], object]] = {
    "an overflow by the scale of a TrainStep": lambda: make_step(scale=2.0**24)(*batch()),
    "an overflow by the scale of a bare loop": lambda: run_loop(scale=2.0**24, steps=3),
    "a loss that overflows when it is scaled": lambda: make_step(
        scale=2.0**40, loss=lambda y, t: F.cross_entropy(y, t) + 1e30)(*batch()),
    "gradients that meet": lambda: meeting(2.0**13, 5.0),
    "a loss that overflows when a bare scaler scales it": lambda: mp.GradScaler(init_scale=2.0**120).scale(
        mp.tensor(1e10, requires_grad=True)),
    "a causal mask": lambda: masked(all_of_a_row=False),
    "masked_fill": lambda: mp.tensor([1.0, 2.0]).masked_fill(mp.tensor([True, False]), -np.inf).exp(),
    "attention": lambda: F.scaled_dot_product_attention(
        *(mp.tensor(np.ones((1, 1, 4, 2), np.float32)) for _ in range(3)), is_causal=True),
    "plain steps": lambda: [make_step("bf16")(*batch()), make_step("mixed-bf16")(*batch())],
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_what_has_an_explanation_is_no_anomaly(name: str) -> None:
    """Oracle: the run itself, which ends with the same weights or results as without."""
    with mp.detect_anomaly():
        FINE[name]()


def test_the_overflow_by_scaling_was_there() -> None:
    """Oracle: the step's own report: it was skipped, and the next ones find their scale."""
    step = make_step(scale=2.0**24)
    with mp.detect_anomaly():
        reports = [step(*batch(seed)) for seed in range(8)]
    assert reports[0].skipped
    assert not reports[-1].skipped
    plain = make_step(scale=2.0**24)
    assert list(map(str, reports)) == [str(plain(*batch(seed))) for seed in range(8)]


def test_a_scaler_that_is_gone_explains_nothing() -> None:
    """Oracle: by hand: nobody will skip the step whose scaler is no more."""
    y = mp.tensor([1.0, 2.0], dtype=mp.float16, requires_grad=True)
    with pytest.raises(AnomalyError, match="but no enabled scaler looks at it"), mp.detect_anomaly():
        mp.GradScaler(init_scale=2.0**20).scale((y * 2.0).float().sum()).backward()


def test_lines_of_forward_and_backward_are_named() -> None:
    """Oracle: by hand: this file's lines."""
    x = mp.tensor([0.0, 1.0], requires_grad=True)
    first = sys._getframe().f_lineno + 3

    def run() -> None:
        y = x.sqrt()
        y.sum().backward()

    fault = caught(run)
    assert f"test_anomalies.py:{first} of its forward" in str(fault)
    assert f"test_anomalies.py:{first + 1}" in str(fault).split("backward was called at")[1]
    assert x.grad is None


class Failing(mp.Function):
    """An op whose gradient raises."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """Twice x."""
        return x * 2.0

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Raise."""
        raise KeyError("planted")


@pytest.mark.parametrize("check_nan", [True, False])
def test_an_error_in_a_gradient_is_told_the_line_of_its_forward(check_nan: bool) -> None:
    """Oracle: torch 2.13.0's anomaly mode, which prints the forward's line; here it is a note."""
    x = mp.tensor([1.0], requires_grad=True)
    line = sys._getframe().f_lineno + 2
    with pytest.raises(KeyError) as fault, mp.detect_anomaly(check_nan=check_nan):
        Failing.apply(x).sum().backward()
    (note,) = fault.value.__notes__
    assert f"test_anomalies.py:{line}" in note


def test_without_check_nan_values_are_not_looked_at() -> None:
    """Oracle: torch's meaning of check_nan=False."""
    x = mp.tensor([0.0, 1.0], requires_grad=True)
    with mp.detect_anomaly(check_nan=False):
        x.sqrt().sum().backward()
    assert np.isinf(x.grad.array[0])


@pytest.mark.torch
def test_torch_raises_where_we_raise() -> None:
    """Oracle: torch 2.13.0: a NaN made in backward raises RuntimeError there, and names the op."""
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    with pytest.warns(UserWarning, match="Anomaly Detection"):
        mode = torch.autograd.detect_anomaly(check_nan=True)
    with (
        pytest.raises(RuntimeError, match="SqrtBackward0"),
        pytest.warns(UserWarning, match="Error detected"),
        mode,
    ):
        (x.sqrt() * 0.0).sum().backward()
    ours = mp.tensor([0.0, 1.0], requires_grad=True)
    fault = caught(lambda: (ours.sqrt() * 0.0).sum().backward())
    assert fault.event.title == "sqrt backward"
    assert isinstance(fault, RuntimeError)


def test_scales_that_differ_from_layer_to_layer_are_known() -> None:
    """Oracle: the step's own report: skipped for the factor that was planted; then a fault."""
    model = mp.nn.Sequential(mp.nn.Linear(12, 16), mp.nn.ReLU(), mp.nn.Linear(16, 4))
    scaler = mp.LayerwiseScaler(fixed={"2": 2.0**24})
    optimizer = mp.optim.SGD(model.parameters(), lr=0.1)
    step = mp.TrainStep(model, F.cross_entropy, optimizer, "mixed-fp16", scaler=scaler)
    with mp.detect_anomaly():
        assert step(*batch()).skipped
    step.loss_fn = lambda y, _: (y - y).float().sqrt().sum()
    assert caught(lambda: step(*batch())).event.title == "sqrt backward"


def test_masks_in_a_long_loop_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the limit; and no mask of the loop is taken for a fault."""
    from minimp.trace import anomalies

    monkeypatch.setattr(anomalies, "MOST_EXPLAINED", 5)
    mask = mp.tensor([[0.0, -np.inf], [0.0, 0.0]])
    x = mp.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    watching = mp.detect_anomaly()
    with watching:
        for _ in range(8):
            mp.functional.softmax(x + mask, dim=-1).sum().backward()
    assert len(watching._explained.meant) == 5


def test_overflows_of_the_scale_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the limit; and no gradient of the loop, which overflows at each step, is taken for a fault."""
    from minimp.trace import anomalies

    monkeypatch.setattr(anomalies, "MOST_EXPLAINED", 3)
    x = mp.tensor([1.0, 2.0], requires_grad=True)
    optimizer, scaler = mp.optim.SGD([x], lr=0.1), mp.GradScaler(init_scale=2.0**20)
    watching = mp.detect_anomaly()
    with watching:
        for _ in range(6):
            optimizer.zero_grad()
            scaler.scale((x.half() * 8.0).float().sum()).backward()
            assert not np.isfinite(x.grad.numpy()).any()
    assert len(watching._explained.scaled) == 3


def test_settings_that_cannot_be_are_refused() -> None:
    """Oracle: the words; torch 2.13.0 raises a TypeError for a check_nan that is no bool, when it begins."""
    with pytest.raises(mp.errors.SettingError, match="expected check_nan to be a bool, got 3"):
        mp.detect_anomaly(3)  # type: ignore[arg-type]
    with pytest.raises(mp.errors.SettingError, match="detect_anomaly: model: expected a module, got int"):
        mp.detect_anomaly(model=3)  # type: ignore[arg-type]
    with pytest.raises(mp.errors.SettingError, match="model: expected a module, got str"):
        mp.trace.record(model="model")  # type: ignore[arg-type]
