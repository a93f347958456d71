"""The contract of the update for every rule: honest steps keep it, planted faults do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import optim
from minimp.backend import get_backend
from minimp.checks import check_update
from minimp.step import Stage, TrainStep
from minimp_backends import updates
from tests.arrays import host
from tests.optim.helpers import parameter

RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("RMSprop", {"lr": 1e-2}),
    ("RMSprop", {"lr": 1e-2, "alpha": 0.4, "momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 1e-2, "alpha": 0.9, "centered": True, "maximize": True, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.3, "maximize": True}),
    ("Lion", {"lr": 1e-2, "weight_decay": 0.3}),
    ("Lion", {"lr": 1e-2, "betas": (0.5, 0.8), "maximize": True}),
    ("LAMB", {"lr": 1e-2, "weight_decay": 0.1}),
    ("LAMB", {"lr": 1e-2, "betas": (0.4, 0.8), "weight_decay": 0.0, "maximize": True}),
)
IDS = [f"{kind}-{i}" for i, (kind, _) in enumerate(RULES)]
LATER = {"betas": (0.7, 0.95), "alpha": 0.93, "momentum": 0.89, "lr_decay": 0.11}
"""Settings that need not show at the first step."""


def wrongly(settings: dict[str, Any]) -> dict[str, Any]:
    """Return one wrong value for each setting: what a slip of the hand would give."""
    wrong = {"lr": settings["lr"] * 1.001, "maximize": not settings["maximize"]}
    wrong["weight_decay"] = settings["weight_decay"] + 1e-2
    if "eps" in settings:
        wrong["eps"] = settings["eps"] + 0.05
    if "initial_accumulator_value" in settings:
        wrong["initial_accumulator_value"] = 0.7
    return wrong


def grads(count: int) -> list[Any]:
    """Return gradients of many magnitudes."""
    rng = np.random.default_rng(1)
    return [
        (rng.standard_normal(300) * 10.0 ** rng.integers(-6, 1, 300)).astype(np.float32) for _ in range(count)
    ]


def ours(kind: str, options: dict[str, Any]) -> Callable[[Any], tuple[Any, dict[str, Any], dict[str, Any]]]:
    """Return a function from a gradient to (weights after, state after, settings): minimp's optimizer."""
    param = parameter(np.random.default_rng(2).standard_normal(300))
    optimizer = getattr(optim, kind)([param], **options)

    def step(grad: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        if grad is not None:
            optimizer.step(gradients={param: grad})
        state = optimizer.state.get(param, {})
        kept = {k: v.copy() if hasattr(v, "copy") else v for k, v in state.items()}
        return param.array.copy(), kept, optimizer.param_groups[0]

    return step


def theirs(kind: str, options: dict[str, Any]) -> Callable[[Any], tuple[Any, dict[str, Any], dict[str, Any]]]:
    """As :func:`ours`, by torch's optimizer."""
    torch = pytest.importorskip("torch")
    start = np.random.default_rng(2).standard_normal(300).astype(np.float32)
    w = torch.tensor(start, requires_grad=True)
    optimizer = getattr(torch.optim, kind)([w], **options)

    def step(grad: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        if grad is not None:
            w.grad = torch.from_numpy(grad)
            optimizer.step()
        state = {key: value.numpy().copy() for key, value in optimizer.state[w].items()}
        return w.detach().numpy().copy(), state, optimizer.param_groups[0]

    return step


def hold(kind: str, step: Any) -> None:
    """Hold four steps to the contract, and every wrong setting or spoiled state to be found."""
    rule = kind.lower()
    before, state, settings = step(None)
    settings = {key: value for key, value in settings.items() if key != "params"}
    first = {k: v for k, v in state.items() if k != "sum"}  # torch's sum is there from the beginning
    state = first if rule == "adagrad" else state
    for number, grad in enumerate(grads(4)):
        after, made, _ = step(grad)
        found = check_update(rule, before, grad, state, settings, after, made)
        assert found, str(found)
        wrong = wrongly(settings)
        if number:
            wrong.pop("initial_accumulator_value", None)
            wrong |= {key: value for key, value in LATER.items() if settings.get(key)}
        for key, value in wrong.items():
            faulty = check_update(rule, before, grad, state, {**settings, key: value}, after)
            assert not faulty, f"step {number}: {key} = {value} instead of {settings[key]} was not seen"
        for name in made.keys() - {"step"}:
            spoiled = {**made, name: made[name] * np.float32(1.00001)}
            assert not check_update(rule, before, grad, state, settings, after, spoiled), name
        before, state = after, made


@pytest.mark.parametrize(("kind", "options"), RULES, ids=IDS)
def test_honest_steps_keep_the_contract_and_wrong_settings_do_not(kind: str, options: dict[str, Any]) -> None:
    """Oracle: float64; the steps of minimp's own optimizer, with one setting at a time misread."""
    hold(kind, ours(kind, options))


@pytest.mark.torch
@pytest.mark.parametrize(("kind", "options"), RULES[:5], ids=IDS[:5])
def test_torchs_steps_keep_the_contract(kind: str, options: dict[str, Any]) -> None:
    """Oracle: float64; the steps of torch's optimizer, with one setting at a time misread."""
    hold(kind, theirs(kind, options))


# ---- formulas that were got wrong


W, G, M = (np.random.default_rng(seed).standard_normal(200).astype(np.float32) for seed in (5, 6, 7))
V = np.abs(M)
ADAM = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.1}
SLIPS: tuple[tuple[str, str, dict[str, Any], Callable[[], Any]], ...] = (
    ("Lion's m before the sign", "lion", ADAM, lambda: W * (1 - 0.01) - 0.1 * np.sign(0.99 * M + 0.01 * G)),
    ("Lion's decay in g", "lion", ADAM, lambda: W - 0.1 * np.sign(0.9 * M + 0.1 * (G + 0.1 * W))),
    ("LAMB without the decay in |u|", "lamb", ADAM, lambda: _lamb(lambda aim: aim)),
    ("LAMB's ratio upside down", "lamb", ADAM, lambda: _lamb(lambda aim: aim + 0.1 * W, invert=True)),
    ("LAMB's norm over half the tensor", "lamb", ADAM, lambda: _lamb(lambda aim: (aim + 0.1 * W)[:100])),
    ("RMSprop's eps under the root", "rmsprop", {"lr": 0.1, "alpha": 0.9, "eps": 1e-3},
     lambda: W - 0.1 * G / np.sqrt(0.9 * V + 0.1 * G * G + 1e-3)),
    ("Adagrad's eps under the root", "adagrad", {"lr": 0.1, "eps": 1e-3},
     lambda: W - 0.1 * G / np.sqrt(V + G * G + 1e-3)),
    ("Adagrad's decay from t", "adagrad", {"lr": 0.1, "eps": 0.0, "lr_decay": 0.5},
     lambda: W - 0.1 / (1 + 4 * 0.5) * G / np.sqrt(V + G * G)),
)  # fmt: skip


def _lamb(part: Callable[[Any], Any], *, invert: bool = False) -> Any:
    """Return LAMB's weights at step 4, the norm being taken of `part` of the direction."""
    mean, square = 0.9 * M + 0.1 * G, 0.99 * V + 0.01 * G * G
    aim = mean / (1 - 0.9**4) / (np.sqrt(square / (1 - 0.99**4)) + 1e-6)
    size, length = np.linalg.norm(W), np.linalg.norm(part(aim))
    return W - 0.1 * (length / size if invert else size / length) * (aim + 0.1 * W)


@pytest.mark.parametrize(("rule", "settings", "slip"), [s[1:] for s in SLIPS], ids=[s[0] for s in SLIPS])
def test_a_slip_in_a_formula_is_found(rule: str, settings: dict[str, Any], slip: Callable[[], Any]) -> None:
    """Oracle: the formula with one slip, in NumPy; the kernel's own result from the same state passes."""
    state = {"exp_avg": M, "exp_avg_sq": V, "square_avg": V, "sum": V, "step": 3}
    assert not check_update(rule, W, G, state, settings, np.asarray(slip()).astype(np.float32))
    options = {k: v for k, v in settings.items() if k != "betas"} | {"maximize": False}
    options.setdefault("weight_decay", 0.0)
    if "betas" in settings:
        options["beta1"], options["beta2"] = settings["betas"]
    kept: dict[str, list[Any]] = {"lion": [M], "lamb": [M, V], "rmsprop": [V, None, None], "adagrad": [V]}
    options |= {"lion": {}, "lamb": {"step": 4}, "rmsprop": {"momentum": 0.0},
                "adagrad": {"step": 4, "lr_decay": settings.get("lr_decay", 0.0)}}[rule]  # fmt: skip
    if rule == "lion":
        del options["eps"]
    room = updates.Room(np.empty_like(W))
    arrays = [each if each is None else each.copy() for each in kept[rule]]
    getattr(get_backend("numpy"), rule)(room, W, G, *arrays, **options)
    found = check_update(rule, W, G, state, settings, room.new)
    assert found, str(found)


def test_a_sign_that_rounding_decides_is_not_held_against_lion() -> None:
    """Oracle: 0.9 m + 0.1 g = 0 but for float32's rounding of 0.9 and 0.1: both signs are honest."""
    settings = {"lr": 0.5, "betas": (0.9, 0.99)}
    w, g = np.zeros(1, np.float32), np.full(1, 9.0, np.float32)
    state = {"exp_avg": np.full(1, -1.0, np.float32)}
    for moved in (0.5, -0.5, 0.0):
        assert check_update("lion", w, g, state, settings, np.full(1, moved, np.float32))
    assert not check_update("lion", w, g, state, settings, np.full(1, 0.75, np.float32))


# ---- the stage of a training step


KINDS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Lion", "LAMB")


def make_step(recipe: str, kind: str, scale: float = 1024.0, **options: Any) -> TrainStep:
    """Return a small classifier's step; the scale is low enough that nothing overflows."""
    mp.manual_seed(3)
    model = mp.nn.Sequential(mp.nn.Linear(12, 16), mp.nn.Tanh(), mp.nn.Linear(16, 4))
    optimizer = getattr(optim, kind)(model.parameters(), lr=0.01, weight_decay=0.1, **options)
    scaled = mp.recipes[recipe].loss_scale is not None
    scaler = mp.GradScaler(init_scale=scale) if scaled else None
    return TrainStep(model, mp.functional.cross_entropy, optimizer, recipe, scaler=scaler)


def update_of(step: TrainStep, number: int) -> Stage:
    """Run one step, and return its stage `update`."""
    rng = np.random.default_rng(number)
    x, y = rng.standard_normal((8, 12)).astype(np.float32), rng.integers(0, 4, 8)
    return next(stage for stage in list(step.stages(x, y)) if stage.name == "update")


@pytest.mark.parametrize("recipe", list(mp.recipes))
@pytest.mark.parametrize("kind", KINDS)
def test_the_stage_proves_every_rule_under_every_recipe(recipe: str, kind: str) -> None:
    """Oracle: the contract itself over three steps; one ulp more on one weight in the third is found."""
    step = make_step(recipe, kind)
    for number in range(3):
        stage = update_of(step, number)
        assert stage.check(), str(stage.check())
    param = next(iter(step.model.parameters()))
    honest = step.optimizer.step

    def tampered(**given: Any) -> Any:
        honest(**given)
        state, array = step.optimizer.state[param], host(param).copy()
        array[0, 0] += np.asarray(64 * mp.formats.ulp(array[:1, :1], array.dtype)[0, 0]).astype(array.dtype)
        param.array = param.backend.from_host(array)
        if "master" in state:
            state["master"] = param.backend.from_host(array.astype(np.float32))

    step.optimizer.step = tampered  # type: ignore[method-assign]  # the fault
    assert not update_of(step, 3).check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_skip_leaves_every_bit_and_a_step_that_should_have_been_one_is_found(kind: str) -> None:
    """Oracle: a loss scale of 2^40 overflows float16: no bit of weights, masters, state and counts moves."""
    step = make_step("mixed-fp16", kind)
    update_of(step, 0)
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**40})
    before = [p.array.tobytes() for p in step.model.parameters()]
    state = {k: np.asarray(v).tobytes() for k, v in step.optimizer.state_dict()["state"].items()}
    stage = update_of(step, 1)
    assert stage.facts["skipped"] is True
    assert stage.check(), str(stage.check())
    assert [p.array.tobytes() for p in step.model.parameters()] == before
    assert {k: np.asarray(v).tobytes() for k, v in step.optimizer.state_dict()["state"].items()} == state
    honest = step._update

    def eager(state: Any) -> Any:
        step.optimizer.step(gradients={p: np.zeros(p.shape, np.float32) for p in step.model.parameters()})
        return honest(state)

    step._update = eager  # type: ignore[method-assign]  # the fault
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**40})
    assert not update_of(step, 2).check()
