"""Saving and loading optimizers; oracle: the run that was not interrupted, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn, optim
from minimp.errors import DeviceError, FormatError, SettingError, ShapeError
from tests.optim.helpers import gradients, parameter

SHAPE = (6, 5)
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("SGD", "float32", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", "float32", {"lr": 0.1}),
    ("Adam", "float16", {"lr": 0.01, "master_weights": True, "amsgrad": True}),
    ("AdamW", "bfloat16", {"lr": 0.01, "update": "kahan"}),
    ("AdamW", "bfloat16", {"lr": 0.01, "update": "stochastic"}),
    ("Adam", "float64", {"lr": 0.01}),
    ("RMSprop", "float16", {"lr": 0.01, "momentum": 0.9, "centered": True, "update": "kahan"}),
    ("Adagrad", "bfloat16", {"lr": 0.01, "lr_decay": 0.1, "master_weights": True}),
    ("Lion", "bfloat16", {"lr": 0.01, "update": "stochastic"}),
    ("LAMB", "float16", {"lr": 0.01, "master_weights": True}),
)
IDS = [f"{kind}-{dtype}-{list(options)[-1]}" for kind, dtype, options in CASES]


def make(kind: str, dtype: str, options: dict[str, Any]) -> tuple[list[Any], optim.Optimizer]:
    """Return two parameters in two groups, and an optimizer over them."""
    params = [parameter(np.ones(SHAPE), dtype), parameter(np.full((3,), 2.0), dtype)]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.5}]
    optimizer: optim.Optimizer = getattr(optim, kind)(groups, **options)
    return params, optimizer


def advance(params: list[Any], optimizer: optim.Optimizer, first: int, count: int) -> None:
    """Take steps `first` to `first + count` of a fixed sequence of gradients."""
    wide = "float64" if params[0].format is mp.float64 else "float32"
    drawn = [gradients(first + count, p.shape)[first:] for p in params]
    for parts in zip(*drawn, strict=True):
        optimizer.step(gradients={p: g.astype(wide) for p, g in zip(params, parts, strict=True)})


def frozen(optimizer: optim.Optimizer, params: list[Any]) -> Any:
    """Return everything of an optimizer and its parameters in comparable form."""
    state = optimizer.state_dict()
    arrays = {k: v.tobytes() if isinstance(v, np.ndarray) else v for k, v in state["state"].items()}
    return {**state, "state": arrays}, [p.array.tobytes() for p in params]


@pytest.mark.parametrize(("kind", "dtype", "options"), CASES, ids=IDS)
def test_a_run_goes_on_bit_for_bit(kind: str, dtype: str, options: dict[str, Any]) -> None:
    """Oracle: the uninterrupted run; weights, every state array and every option."""
    params, optimizer = make(kind, dtype, options)
    advance(params, optimizer, 0, 3)
    saved, weights, dice = optimizer.state_dict(), [p.array for p in params], mp.get_rng_state()
    advance(params, optimizer, 3, 4)
    other, resumed = make(kind, dtype, {**options, "lr": 0.7, "master_weights": None, "update": None})
    for param, array in zip(other, weights, strict=True):
        param.array = array.copy()
    mp.set_rng_state(dice)
    resumed.load_state_dict(saved)
    advance(other, resumed, 3, 4)
    assert frozen(resumed, other) == frozen(optimizer, params)


@pytest.mark.parametrize(("kind", "dtype", "options"), CASES, ids=IDS)
def test_the_state_is_flat_plain_data_of_its_own(kind: str, dtype: str, options: dict[str, Any]) -> None:
    """Oracle: arrays under flat names and the rest in JSON; later steps leave it as it was."""
    params, optimizer = make(kind, dtype, options)
    advance(params, optimizer, 0, 2)
    saved = optimizer.state_dict()
    before = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in saved["state"].items()}
    numbers = {k: v for k, v in saved["state"].items() if not isinstance(v, np.ndarray)}
    json.dumps({**saved, "state": numbers})
    assert all(name.split(".")[0] in ("0", "1") for name in saved["state"])
    assert saved["param_groups"][1]["params"] == [1]
    advance(params, optimizer, 2, 2)
    assert all(np.array_equal(before[k], saved["state"][k]) for k in before)


def test_a_state_that_was_through_json_can_be_loaded() -> None:
    """Oracle: lists in the place of tuples are taken; the options come back equal."""
    params, optimizer = make("Adam", "float32", {"betas": (0.5, 0.6)})
    advance(params, optimizer, 0, 1)
    saved = optimizer.state_dict()
    saved["param_groups"] = json.loads(json.dumps(saved["param_groups"]))
    _, other = make("Adam", "float32", {})
    other.load_state_dict(saved)
    assert other.param_groups[0]["betas"] == (0.5, 0.6)


def test_the_rate_that_a_schedule_began_with_is_kept() -> None:
    """Oracle: the schedule that was not interrupted."""
    _, optimizer = make("SGD", "float32", {"lr": 1.0})
    schedule = optim.StepLR(optimizer, 2)
    for _ in range(3):
        schedule.step()
    saved, position = optimizer.state_dict(), schedule.state_dict()
    _, other = make("SGD", "float32", {"lr": 1.0})
    later = optim.StepLR(other, 1, gamma=0.9)
    other.load_state_dict(saved)
    later.load_state_dict(json.loads(json.dumps(position)))
    for _ in range(4):
        schedule.step()
        later.step()
        assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]


Change = Callable[[dict[str, Any]], Any]
FAULTS: tuple[tuple[str, Change, type[Exception], str], ...] = (
    ("key", lambda s: s.pop("rule"), SettingError, "expected a state with rule, settings"),
    ("rule", lambda s: s.update(rule="sgd"), SettingError, "expected a state of rule 'adam', got 'sgd'"),
    ("settings", lambda s: s["settings"].update(update="kahan"), SettingError, "contradicts the optimizer"),
    ("setting", lambda s: s["settings"].pop("update"), SettingError, "expected settings"),
    ("groups", lambda s: s["param_groups"].pop(), SettingError, r"groups of \[1, 1\] parameters"),
    ("sizes", lambda s: s["param_groups"][0]["params"].append(1), SettingError, r"got groups of \[2, 1\]"),
    ("option", lambda s: s["param_groups"][0].pop("eps"), SettingError, "missing or unknown: eps"),
    ("options", lambda s: s["param_groups"][0].update(nesterov=1), SettingError, "unknown: nesterov"),
    ("range", lambda s: s["param_groups"][1].update(lr=-1.0), SettingError, "expected lr to be"),
    ("entry", lambda s: s["state"].update({"2.exp_avg": np.ones(3)}), SettingError, r"unknown entry '2\.exp"),
    ("lack", lambda s: s["state"].pop("1.exp_avg_sq"), SettingError, "parameter 1 has .* but no exp_avg_sq"),
    ("shape", lambda s: s["state"].update({"1.exp_avg": np.ones(4, "f")}), ShapeError, r"\(3,\), got \(4,\)"),
    ("dtype", lambda s: s["state"].update({"1.exp_avg": np.ones(3)}), FormatError, "float32, got float64"),
    ("step", lambda s: s["state"].update({"1.step": -1}), SettingError, "expected a number of steps, got -1"),
    ("steps", lambda s: s["state"].update({"1.step": 0.5}), SettingError, "a number of steps, got 0.5"),
)  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_wrong_state_changes_nothing(change: Change, kind: type[Exception], message: str) -> None:
    """Oracle: the errors, and everything of the optimizer before."""
    params, source = make("Adam", "float16", {"master_weights": True, "lr": 0.3})
    advance(params, source, 0, 3)
    saved = source.state_dict()
    change(saved)
    others, target = make("Adam", "float16", {"master_weights": True, "update": "fp32"})
    advance(others, target, 0, 1)
    before = frozen(target, others)
    with pytest.raises(kind, match=message):
        target.load_state_dict(saved)
    assert frozen(target, others) == before


def test_what_configure_was_told_is_not_undone_by_loading() -> None:
    """Oracle: the promise of load_state_dict: a state of other settings is refused."""
    params, source = make("SGD", "float16", {"lr": 0.1})
    advance(params, source, 0, 1)
    _, target = make("SGD", "float16", {"lr": 0.1})
    target.configure(master_weights=True)
    with pytest.raises(SettingError, match="master_weights=False contradicts"):
        target.load_state_dict(source.state_dict())
    assert target.master_weights is True
    _, open_one = make("SGD", "float16", {"lr": 0.1})
    open_one.load_state_dict(source.state_dict())
    assert open_one.master_weights is False


def test_masters_that_do_not_belong_to_the_weights_are_refused() -> None:
    """Oracle: the promise of load_state_dict; with the weights loaded too, the step runs."""
    params, source = make("SGD", "bfloat16", {"lr": 0.1, "master_weights": True})
    advance(params, source, 0, 3)
    others, target = make("SGD", "bfloat16", {"lr": 0.1, "master_weights": True})
    target.load_state_dict(source.state_dict())
    with pytest.raises(SettingError, match="no longer its master"):
        advance(others, target, 3, 1)
    for param, source_param in zip(others, params, strict=True):
        param.array = source_param.array.copy()
    advance(others, target, 3, 1)


@pytest.mark.host("two backends")
def test_a_parameter_that_was_moved_after_a_step_is_refused() -> None:
    """Oracle: torch, which finds state on another device; nothing changes, and loaded state goes along."""
    layer = nn.Linear(3, 2)
    optimizer = optim.AdamW(layer.parameters(), lr=0.1)
    layer.weight.grad = mp.tensor(np.ones((2, 3), np.float32))
    optimizer.step()
    layer.to("strict")
    before = layer.weight.detach().numpy()
    layer.weight.grad = mp.tensor(np.ones((2, 3), np.float32), backend="strict")
    with pytest.raises(DeviceError, match=r"\(2, 3\) went to strict after a step") as caught:
        optimizer.step()
    assert "old state_dict()" in (caught.value.help or "")
    np.testing.assert_array_equal(layer.weight.detach().numpy(), before)
    fresh = optim.AdamW(layer.parameters(), lr=0.1)
    fresh.load_state_dict(optimizer.state_dict())
    fresh.step()
    assert (layer.weight.detach().numpy() != before).all()
