"""Learning rates; oracle: the closed form of each rule in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minimp import optim
from minimp.errors import SettingError
from tests.optim.helpers import parameter
from tests.tolerances import assert_close

BASES = (0.1, 2.0)
Make = Callable[[optim.Optimizer], optim.LRScheduler]
RULES: tuple[tuple[str, Make, Callable[[int], float]], ...] = (
    ("StepLR", lambda o: optim.StepLR(o, 4, 0.5), lambda t: 0.5 ** (t // 4)),
    ("MultiStepLR", lambda o: optim.MultiStepLR(o, [3, 8, 8]), lambda t: 0.1 ** ((t >= 3) + 2 * (t >= 8))),
    ("LambdaLR", lambda o: optim.LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 1 / (1 + t)),
    ("CosineAnnealingLR", lambda o: optim.CosineAnnealingLR(o, 9), lambda t: math.cos(math.pi * t / 18) ** 2),
    ("LinearLR", lambda o: optim.LinearLR(o, 0.2, 1.0, 10), lambda t: 0.2 + 0.8 * min(t, 10) / 10),
)  # fmt: skip


def optimizer() -> optim.Optimizer:
    """Return an optimizer of two groups with their own rates."""
    return optim.SGD([{"params": [parameter([1.0])], "lr": lr} for lr in BASES])


def rates(of: optim.Optimizer) -> list[float]:
    """Return the rates in force."""
    return [group["lr"] for group in of.param_groups]


@pytest.mark.parametrize(("make", "factor"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_rates_follow_the_closed_form(make: Make, factor: Callable[[int], float]) -> None:
    """Oracle: base rate times the closed form over 30 epochs (up to the lowest rate for the cosine)."""
    of = optimizer()
    schedule = make(of)
    for epoch in range(9 if isinstance(schedule, optim.CosineAnnealingLR) else 30):
        assert schedule.last_epoch == epoch
        assert schedule.get_last_lr() == rates(of)
        assert_close(rates(of), np.array(BASES) * factor(epoch), "fp64_same_maths")
        schedule.step()


@pytest.mark.parametrize("make", [rule[1] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_a_schedule_goes_on_where_it_stopped(make: Make) -> None:
    """Oracle: the schedule that was not interrupted, to the last bit."""
    first = optimizer()
    schedule = make(first)
    for _ in range(7):
        schedule.step()
    second = optimizer()
    resumed = make(second)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for _ in range(12):
        assert rates(second) == rates(first)
        schedule.step()
        resumed.step()


def test_a_schedule_can_begin_at_an_epoch() -> None:
    """Oracle: the schedule that came there step by step."""
    first = optimizer()
    schedule = optim.LinearLR(first, 0.5, 1.0, 4)
    schedule.step()
    second = optimizer()
    second.load_state_dict(first.state_dict())
    later = optim.LinearLR(second, 0.5, 1.0, 4, last_epoch=0)
    for _ in range(6):
        assert rates(second) == rates(first)
        schedule.step()
        later.step()


def test_mistakes_are_named() -> None:
    """Oracle: the errors in the docstrings; a refused state changes nothing."""
    cases: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: optim.StepLR(3, 1), "expected an optimizer, got int"),  # type: ignore[arg-type]  # the fault
        (
            lambda: optim.StepLR(optimizer(), 0),
            "expected step_size to be a whole number of at least 1, got 0",
        ),
        (lambda: optim.CosineAnnealingLR(optimizer(), 0), "expected T_max to be a whole number"),
        (lambda: optim.LinearLR(optimizer(), start_factor=0.0), "expected factors from above 0"),
        (lambda: optim.LinearLR(optimizer(), total_iters=0), "expected total_iters to be a whole number"),
        (lambda: optim.LambdaLR(optimizer(), [abs]), "expected one function, or 2 of them"),
        (lambda: optim.StepLR(optimizer(), 1, last_epoch=3), "group 0 has no 'initial_lr'"),
    )
    for make, message in cases:
        with pytest.raises(SettingError) as caught:
            make()
        assert message in str(caught.value)
    schedule = optim.StepLR(optimizer(), 2)
    before = schedule.state_dict()
    with pytest.raises(SettingError, match="expected base_lrs, last_epoch"):
        schedule.load_state_dict(optim.LinearLR(optimizer()).state_dict())
    assert schedule.state_dict() == before
