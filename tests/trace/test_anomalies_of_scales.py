"""detect_anomaly and loss scales, wherever gradients are made of ops: the scale explains, or it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import AnomalyError
from minimp.quant import prepare_qat
from tests.trace.cases import batch, make_model

F = mp.functional
Wrap = Callable[[Any, Any], Any]


class Squares(mp.Function):
    """x^2, whose backward is on tensors; `factor` makes a large number on the way to a small one."""

    factor = 8.0

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """x^2."""
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """2 x grad."""
        (x,) = ctx.saved_tensors
        return grad * Squares.factor * x * (2.0 / Squares.factor)


class Spoilt(mp.Function):
    """x, whose backward multiplies by so much that it overflows at every scale."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """x."""
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Much more than grad."""
        return grad * 6e4 * 6e4


def plain(model: Any, x: Any) -> Any:
    """The model alone."""
    return model(x)


def hooked(factor: float) -> Wrap:
    """The model, with a hook on its output that multiplies the gradient."""

    def run(model: Any, x: Any) -> Any:
        y = model(x)
        y.register_hook(lambda grad: grad * factor)
        return y

    return run


def loop(
    scale: float, wrap: Wrap = plain, *, parts: int = 1, model: Any = None, loss_fn: Any = F.cross_entropy,
    dtype: str = "float16", steps: int = 4,
) -> int:  # fmt: skip
    """Train in a loop by hand; return how many steps the scaler skipped."""
    model = model or make_model()
    optimizer = mp.optim.SGD(model.parameters(), lr=0.01)
    scaler = mp.GradScaler(init_scale=scale)
    skipped = 0
    for _ in range(steps):
        optimizer.zero_grad()
        for part in range(parts):
            x, y = batch(part)
            with mp.autocast(dtype):
                loss = loss_fn(wrap(model, mp.tensor(x)), y) / parts
            scaler.scale(loss).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped += scaler.get_scale() < before
    return skipped


def penalty(scale: float) -> int:
    """A step whose loss has a gradient in it (create_graph), taken at a loss scale; 1 if it was skipped."""
    model = make_model()
    optimizer, scaler = mp.optim.SGD(model.parameters(), lr=0.01), mp.GradScaler(init_scale=scale)
    x, y = batch()
    inputs = mp.tensor(x, requires_grad=True)
    with mp.autocast("float16"):
        loss = F.cross_entropy(model(inputs), y)
    (grad,) = mp.grad(scaler.scale(loss), [inputs], create_graph=True)
    scaler.scale(loss + (grad * (1.0 / scaler.get_scale())).square().sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    return int(scaler.get_scale() < scale)


def fake_quantised() -> Any:
    """A model whose weights and activations are rounded to codes as it trains."""
    return prepare_qat(make_model(), mp.tensor(batch()[0]))


BY_SCALE: dict[str, Callable[[float], int]] = {
    "a manual loop": loop,
    "accumulation": lambda scale: loop(scale, parts=3),
    "recomputation": lambda scale: loop(scale, mp.recompute),
    "a Function": lambda scale: loop(scale, lambda model, x: Squares.apply(model(x))),
    "a hook": lambda scale: loop(scale, hooked(100.0)),
    "create_graph": penalty,
    "QAT": lambda scale: loop(scale, model=fake_quantised()),
}
"""What makes gradients -> training at a loss scale, which tells how many steps were skipped."""


@pytest.mark.parametrize("name", BY_SCALE)
def test_an_overflow_by_the_scale_alone_is_none(name: str) -> None:
    """Oracle: the same training is skipped at a large scale, and not at a small one."""
    with mp.detect_anomaly():
        assert BY_SCALE[name](2.0**24) > 0
        assert BY_SCALE[name](2.0**4) == 0


def test_an_overflow_on_the_way_in_a_backward_of_ones_own_is_explained_by_the_scale() -> None:
    """Oracle: by hand: 0.1 x 2^18 x 8 is beyond 65504, and 0.1 x 8 is not; without a scaler it is a fault."""
    x = mp.tensor([1.5, 0.1], dtype="float16", requires_grad=True)
    scaler = mp.GradScaler(init_scale=2.0**18)
    with mp.detect_anomaly():
        scaler.scale(Squares.apply(x).float().sum() * 0.1).backward()
    assert np.isinf(x.grad.array).any()
    with pytest.raises(AnomalyError) as fault, mp.detect_anomaly():
        (Squares.apply(x).float().sum() * (0.1 * 2.0**18)).backward()
    assert fault.value.event.title == "mul"
    assert "test_anomalies_of_scales.py:" in str(fault.value)


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "accumulation": (
        lambda: loop(8.0, parts=2, loss_fn=lambda y, _: (y - y).float().sqrt().sum()), "sqrt backward",
    ),
    "recomputation": (
        lambda: loop(8.0, lambda model, x: mp.recompute(lambda t: model(t * 1e6), x)), "cast",
    ),
    "a Function's backward": (
        lambda: loop(8.0, lambda model, x: Spoilt.apply(model(x))), "mul",
    ),
    "a hook": (lambda: loop(8.0, hooked(1e9)), "mul"),
    "QAT": (
        lambda: loop(8.0, model=fake_quantised(), loss_fn=lambda y, _: (y - y).float().sqrt().sum()),
        "sqrt backward",
    ),
    "bfloat16": (
        lambda: loop(8.0, dtype="bfloat16", loss_fn=lambda y, _: (y - y).float().sqrt().sum()),
        "sqrt backward",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_raised_at_wherever_gradients_are_made(name: str) -> None:
    """Oracle: the fault that was planted, which no scale explains."""
    run, title = FAULTS[name]
    with pytest.raises(AnomalyError) as fault, mp.detect_anomaly():
        run()
    assert fault.value.event.title == title
    assert "test_anomalies_of_scales.py:" in str(fault.value)


def test_a_second_derivative_that_is_infinite_is_named() -> None:
    """Oracle: by hand: that of x^1.5 is 0.75 / sqrt(x), infinite at 0."""
    x = mp.tensor([1.0, 0.0], requires_grad=True)
    (grad,) = mp.grad((x**1.5).sum(), [x], create_graph=True)
    with pytest.raises(AnomalyError) as fault, mp.detect_anomaly():
        grad.sum().backward()
    assert fault.value.event.phase == "backward"


def test_forward_is_watched_without_gradients_too() -> None:
    """Oracle: by hand: log 0, and 1e6 in float16."""
    for run, title in (
        (lambda: mp.tensor([0.0]).log(), "log"),
        (lambda: mp.functional.linear(mp.tensor([[1e6]]), mp.tensor([[1.0]])), "cast"),
    ):
        with (
            pytest.raises(AnomalyError) as fault,
            mp.detect_anomaly(), mp.no_grad(), mp.autocast("float16"),
        ):  # fmt: skip
            run()
        assert fault.value.event.title == title
