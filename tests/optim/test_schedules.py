"""Learning rates; oracle: the closed form of each rule in float64."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
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


# ---- what was skipped


def skipping_scaler(param: Any) -> Any:
    """Return a function that runs one scaled step, skipped or not, and says whether it was skipped."""
    scaler = mp.GradScaler(init_scale=256.0, growth_interval=1000)

    def train(of: optim.Optimizer, value: float) -> bool:
        of.zero_grad()
        scaler.scale((param * value).sum()).backward()
        scaler.step(of)
        scaler.update()
        assert scaler.last_step is not None
        return scaler.last_step.skipped

    return train


@pytest.mark.parametrize("make", [rule[1] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_a_skipped_step_does_not_move_the_schedule(make: Make) -> None:
    """Oracle: the schedule of a run without the skipped steps; each scheduler notices by itself."""
    param = parameter([1.0])
    of = optim.SGD([{"params": [param], "lr": 0.1}, {"params": [parameter([1.0])], "lr": 2.0}])
    train, schedule, second = skipping_scaler(param), make(of), optim.ExponentialLR(of, 0.99)
    plain = optimizer()
    wanted, other = make(plain), optim.ExponentialLR(plain, 0.99)
    for value in (math.inf, 1.0, math.inf, math.nan, 2.0, 3.0):
        skipped = train(of, value)
        assert skipped is not math.isfinite(value)
        assert schedule.step() is second.step() is not skipped
        if not skipped:
            wanted.step()
            other.step()
        assert rates(of) == rates(plain)
        assert schedule.last_epoch == wanted.last_epoch
        assert schedule.get_last_lr() == wanted.get_last_lr()


def test_an_epoch_counts_if_one_of_its_steps_was_taken() -> None:
    """Oracle: the contract of step: three steps, two of them skipped, are an epoch; three skips none."""
    param = parameter([1.0])
    of = optim.SGD([param], lr=1.0)
    train, schedule = skipping_scaler(param), optim.ExponentialLR(of, 0.5)
    for values, moved in (((math.inf, 1.0, math.inf), True), ((math.inf,) * 3, False), ((1.0, 1.0), True)):
        for value in values:
            train(of, value)
        assert schedule.step() is moved
    assert rates(of) == [0.25]


def test_chains_and_sequences_stand_still_too() -> None:
    """Oracle: a one-cycle of five steps that is stepped seven times, two of them after skipped steps."""
    param = parameter([1.0])
    of = optim.SGD([param], lr=1.0, momentum=0.5)
    train, schedule = skipping_scaler(param), optim.OneCycleLR(of, 1.0, total_steps=5)
    chain = optim.ChainedScheduler([optim.ConstantLR(of, 0.5, 2)])
    turn = optim.SequentialLR(of, [optim.ConstantLR(of, 0.5, 9), optim.ExponentialLR(of, 0.5)], [2])
    for value in (math.inf, 1.0, 1.0, math.inf, 1.0, 1.0, 1.0):
        skipped = train(of, value)
        assert {each.step() for each in (schedule, chain, turn)} == {not skipped}
    assert schedule.last_epoch == turn.last_epoch == 5
    with pytest.raises(SettingError, match="the cycle has 5 steps, and this is step 6"):
        schedule.step()


def test_rates_can_be_drawn_up_without_an_optimizers_step() -> None:
    """Oracle: the closed form; nothing was skipped, so the scheduler goes on, with no warning either."""
    of = optimizer()
    schedule = optim.ExponentialLR(of, 0.5)
    assert [schedule.step() for _ in range(3)] == [True] * 3
    assert rates(of) == [0.1 / 8, 0.25]


# ---- saving the new ones

SAVED: tuple[tuple[str, Callable[[optim.Optimizer], Any]], ...] = (
    ("ConstantLR", lambda o: optim.ConstantLR(o, 0.3, 9)),
    ("ExponentialLR", lambda o: optim.ExponentialLR(o, 0.9)),
    ("MultiplicativeLR", lambda o: optim.MultiplicativeLR(o, lambda t: 1 / t)),
    ("PolynomialLR", lambda o: optim.PolynomialLR(o, 12, 2.0)),
    ("WarmRestarts", lambda o: optim.CosineAnnealingWarmRestarts(o, 3, 2)),
    ("OneCycleLR", lambda o: optim.OneCycleLR(o, 1.0, 25)),
    ("Chained", lambda o: optim.ChainedScheduler([optim.StepLR(o, 3), optim.LinearLR(o)])),
    ("Sequential", lambda o: optim.SequentialLR(
        o, [optim.LinearLR(o, 0.1), optim.CosineAnnealingLR(o, 9), optim.StepLR(o, 1)], [5, 11])),
)  # fmt: skip


@pytest.mark.parametrize("make", [each[1] for each in SAVED], ids=[each[0] for each in SAVED])
def test_every_schedule_goes_on_through_json(make: Callable[[optim.Optimizer], Any]) -> None:
    """Oracle: the schedule that was not interrupted, momentum and group entries too, to the last bit."""
    first = optimizer()
    schedule = make(first)
    for _ in range(7):
        schedule.step()
    second = optimizer()
    resumed = make(second)
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    for _ in range(12):
        assert [g | {"params": 0} for g in second.param_groups] == [
            g | {"params": 0} for g in first.param_groups
        ]
        schedule.step()
        resumed.step()


def test_a_plateau_goes_on_through_json() -> None:
    """Oracle: the schedule that was not interrupted."""
    first, second = optimizer(), optimizer()
    schedule, resumed = (optim.ReduceLROnPlateau(each, patience=2, cooldown=1) for each in (first, second))
    for value in (3.0, 2.0, 2.5, 2.5):
        assert schedule.step(mp.tensor(value)) is False
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    moved = [schedule.step(2.5) for _ in range(9)]
    assert moved == [resumed.step(2.5) for _ in range(9)]
    assert any(moved)
    assert rates(first) == rates(second)


NEW_MISTAKES: tuple[tuple[Callable[[], Any], str], ...] = (
    (lambda: optim.ConstantLR(optimizer(), 0.0), "expected a factor above 0, up to 1; got 0.0"),
    (lambda: optim.PolynomialLR(optimizer(), 0), "expected total_iters to be a whole number"),
    (lambda: optim.CosineAnnealingWarmRestarts(optimizer(), 0), "expected T_0 to be a whole number"),
    (lambda: optim.CosineAnnealingWarmRestarts(optimizer(), 2, 0), "expected T_mult to be a whole number"),
    (lambda: optim.OneCycleLR(optimizer(), 1.0), "expected total_steps, or epochs and steps_per_epoch"),
    (lambda: optim.OneCycleLR(optimizer(), 1.0, 10, pct_start=1.5), "expected pct_start from 0 to 1"),
    (lambda: optim.OneCycleLR(optimizer(), 1.0, 10, anneal_strategy="cosine"), "did you mean 'cos'"),
    (lambda: optim.OneCycleLR(optimizer(), [1.0], 10), "expected one max_lr, or 2 of them, got 1"),
    (lambda: optim.OneCycleLR(optim.Adagrad([parameter([1.0])]), 1.0, 10), "neither momentum nor betas"),
    (lambda: optim.OneCycleLR(3, 1.0, 10), "expected an optimizer, got int"),  # type: ignore[arg-type]  # the fault
    (lambda: optim.ReduceLROnPlateau(optimizer(), factor=1.0), "expected a factor below 1, got 1.0"),
    (lambda: optim.ReduceLROnPlateau(optimizer(), mode="mx"), "unknown mode 'mx'; did you mean 'max'"),
    (lambda: optim.ReduceLROnPlateau(optimizer(), min_lr=[0.1]), "expected one min_lr, or 2 of them"),
    (lambda: optim.ChainedScheduler([]), "expected at least one scheduler"),
    (lambda: chain_of_two(optimizer(), optimizer()), "scheduler 1 is of another optimizer"),
    (lambda: optim.SequentialLR(o := optimizer(), [optim.StepLR(o, 1)], [1]), "one milestone fewer"),
    (lambda: optim.SequentialLR(o := optimizer(), [optim.ReduceLROnPlateau(o)], []), "a ReduceLROnPlateau"),
)  # fmt: skip


def chain_of_two(one: optim.Optimizer, other: optim.Optimizer) -> Any:
    """Chain schedulers of two optimizers, which is a mistake."""
    return optim.ChainedScheduler([optim.StepLR(one, 1), optim.StepLR(other, 1)])


@pytest.mark.parametrize(("make", "message"), NEW_MISTAKES, ids=[message for _, message in NEW_MISTAKES])
def test_more_mistakes_are_named(make: Callable[[], Any], message: str) -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(SettingError) as caught:
        make()
    assert message in str(caught.value)


def test_a_wrong_state_of_a_sequence_changes_nothing() -> None:
    """Oracle: the promise of load_state_dict, for a fault in the last part."""
    of = optimizer()
    schedule = optim.SequentialLR(of, [optim.StepLR(of, 1), optim.ExponentialLR(of, 0.5)], [3])
    saved = schedule.state_dict()
    schedule.step()
    before = schedule.state_dict()
    del saved["_schedulers"][1]["gamma"]
    with pytest.raises(SettingError, match="expected base_lrs"):
        schedule.load_state_dict(saved)
    assert schedule.state_dict() == before
    with pytest.raises(SettingError, match="expected the states of 2 schedulers"):
        schedule.load_state_dict({**saved, "_schedulers": []})
