"""Optimizers, clipping and schedules beside torch 2.13.0's (CPU, single-tensor) in float32."""

from __future__ import annotations

import inspect
import itertools
import math
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn, optim
from tests.arrays import host
from tests.optim.helpers import SEED, gradients, run, values
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

SHAPE, STEPS = (17, 9), 50
START = np.random.default_rng(SEED + 1).standard_normal(SHAPE).astype(np.float32)

SGDS = [
    {"lr": 0.05, "momentum": m, "dampening": d, "weight_decay": w, "nesterov": n, "maximize": x}
    for m, d, w, n, x in itertools.product((0, 0.9), (0, 0.3), (0, 0.1), (False, True), (False, True))
    if not (n and (d or not m))
]
ADAMS = [
    {"lr": 0.01, "betas": b, "eps": e, "weight_decay": w, "amsgrad": a, "maximize": x}
    for b, e, w, a, x in itertools.product(
        ((0.9, 0.999), (0.4, 0.8)), (1e-8, 1e-2), (0, 0.1), (False, True), (False, True)
    )
]
RMSPROPS = [
    {"lr": 0.01, "alpha": a, "eps": e, "weight_decay": w, "momentum": m, "centered": c, "maximize": x}
    for (a, e), w, m, c, x in itertools.product(
        ((0.99, 1e-8), (0.4, 1e-2)), (0, 0.1), (0, 0.9), (False, True), (False, True)
    )
]
ADAGRADS = [
    {"lr": 0.05, "lr_decay": d, "weight_decay": w, "initial_accumulator_value": v, "eps": e, "maximize": x}
    for d, w, (v, e), x in itertools.product((0, 0.1), (0, 0.1), ((0, 1e-10), (0.5, 1e-2)), (False, True))
]
ROWS = {
    "float32": ("parity_optimizer", "parity_trajectory_weights"),
    "float64": ("parity_optimizer_fp64", "parity_optimizer_fp64"),
}
CASES = [
    *(("SGD", o) for o in SGDS),
    *((kind, o) for kind in ("Adam", "AdamW") for o in ADAMS),
    *(("RMSprop", o) for o in RMSPROPS),
    *(("Adagrad", o) for o in ADAGRADS),
]


def torch_run(kind: str, options: dict[str, Any], dtype: str) -> tuple[Any, Any]:
    """Run torch's optimizer over the same start and gradients."""
    param = torch.nn.Parameter(torch.tensor(START, dtype=getattr(torch, dtype)))
    optimizer = getattr(torch.optim, kind)([param], foreach=False, **options)
    for grad in gradients(STEPS, SHAPE):
        param.grad = torch.tensor(grad, dtype=param.dtype)
        optimizer.step()
    return param, optimizer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=[f"{k}-{'-'.join(str(v) for v in o.values())}" for k, o in CASES]
)
def test_fifty_steps_end_at_torchs_weights_and_state(kind: str, options: dict[str, Any], dtype: str) -> None:
    """Oracle: torch's parameter and every array of its state; v - m^2 of a centered RMSprop cancels."""
    row = ROWS[dtype][bool(options.get("centered"))]
    param, optimizer = run(kind, START, gradients(STEPS, SHAPE), dtype=dtype, **options)
    other, theirs = torch_run(kind, options, dtype)
    assert_close(values(param), other.detach().numpy(), row)
    state = theirs.state[other]
    kept = {name: value for name, value in state.items() if value is not None}
    assert set(optimizer.state[param]) == set(kept)
    for name, value in kept.items():
        assert_close(values(optimizer.state[param][name]), value.numpy(), row)


def test_defaults_and_options_are_torchs() -> None:
    """Oracle: torch's defaults, but for the options that choose how torch computes."""
    ways = {"foreach", "capturable", "differentiable", "fused", "decoupled_weight_decay"}
    for kind in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad"):
        theirs = getattr(torch.optim, kind)([torch.nn.Parameter(torch.ones(1))])
        ours = getattr(optim, kind)([nn.Parameter([1.0])])
        assert ours.defaults == {k: v for k, v in theirs.defaults.items() if k not in ways}
        plain = [line for line in repr(theirs).split("\n") if line.strip().split(":")[0] not in ways]
        assert repr(ours).split("\n") == plain
        names = [name for name in inspect.signature(type(theirs)).parameters if name not in ways]
        assert [n for n in inspect.signature(type(ours)).parameters if n in names] == names


def test_groups_have_options_of_their_own() -> None:
    """Oracle: torch with the same groups, names and a group added later."""
    steps = gradients(5, (4,))
    ours = [nn.Parameter(np.ones(4, np.float32)) for _ in range(3)]
    theirs = [torch.nn.Parameter(torch.ones(4)) for _ in range(3)]
    optimizers = [
        kind([{"params": [("a", p[0])], "lr": 0.5}, {"params": [("b", p[1])]}], lr=0.1, momentum=0.9)
        for kind, p in ((optim.SGD, ours), (torch.optim.SGD, theirs))
    ]
    for optimizer, p in zip(optimizers, (ours, theirs), strict=True):
        optimizer.add_param_group({"params": [("c", p[2])], "weight_decay": 0.5})
    assert [g["param_names"] for g in optimizers[0].param_groups] == [["a"], ["b"], ["c"]]
    for grad in steps:
        for a, b in zip(ours, theirs, strict=True):
            a.grad, b.grad = mp.tensor(grad), torch.tensor(grad)
        ours[1].grad = theirs[1].grad = None  # no gradient: no step, though there is momentum
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        assert_close(values(a), b.detach().numpy(), "parity_optimizer")
    assert values(ours[1]).tolist() == [1.0] * 4


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_by_norm(norm_type: float, max_norm: float) -> None:
    """Oracle: torch.nn.utils.clip_grad_norm_: the norm returned and the gradients left."""
    steps = [gradients(1, shape)[0] for shape in ((5, 3), (7,))]
    ours = [nn.Parameter(np.zeros_like(g)) for g in steps] + [nn.Parameter([1.0])]
    theirs = [torch.nn.Parameter(torch.zeros(g.shape)) for g in steps] + [torch.nn.Parameter(torch.ones(1))]
    for p, q, g in zip(ours, theirs, steps, strict=False):
        p.grad, q.grad = mp.tensor(g), torch.tensor(g)
    a = optim.clip_grad_norm_(iter(ours), max_norm, norm_type)
    b = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type, foreach=False)
    assert_close(a.item(), b.item(), "parity_first_loss")
    for p, q in zip(ours[:2], theirs[:2], strict=True):
        assert p.grad is not None
        assert_close(values(p.grad), q.grad.numpy(), "parity_gradient_fp32")
    assert ours[2].grad is None


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_clipping_what_is_not_finite(bad: float) -> None:
    """Oracle: torch: an infinite norm leaves 0 and NaN, a NaN norm leaves NaN."""
    grad = np.array([1.0, bad, -2.0], np.float32)
    ours, theirs = nn.Parameter(np.zeros(3, np.float32)), torch.nn.Parameter(torch.zeros(3))
    ours.grad, theirs.grad = mp.tensor(grad), torch.tensor(grad)
    a, b = optim.clip_grad_norm_(ours, 1.0), torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    assert np.array_equal([a.item()], [b.item()], equal_nan=True)
    assert np.array_equal(host(ours.grad), theirs.grad.numpy(), equal_nan=True)


def test_clipping_by_value() -> None:
    """Oracle: torch.nn.utils.clip_grad_value_, with NaN and infinities among the values."""
    grad = np.array([0.3, -5.0, 7.0, np.nan, np.inf, -np.inf], np.float32)
    ours, theirs = nn.Parameter(np.zeros(6, np.float32)), torch.nn.Parameter(torch.zeros(6))
    ours.grad, theirs.grad = mp.tensor(grad), torch.tensor(grad)
    optim.clip_grad_value_([ours], 0.7)
    torch.nn.utils.clip_grad_value_([theirs], 0.7)
    assert np.array_equal(host(ours.grad), theirs.grad.numpy(), equal_nan=True)


SCHEDULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5, 9], "gamma": 0.3}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 0.9**epoch}),
    ("LambdaLR", {"lr_lambda": [lambda epoch: 1 / (1 + epoch), lambda epoch: 0.5 ** (epoch // 7)]}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 1e-3}),
    ("CosineAnnealingLR", {"T_max": 1}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.1, "total_iters": 8}),
    ("MultiplicativeLR", {"lr_lambda": lambda epoch: 1 - 0.5 / epoch}),
    ("ConstantLR", {}),
    ("ConstantLR", {"factor": 0.1, "total_iters": 0}),
    ("ConstantLR", {"factor": 0.7, "total_iters": 9}),
    ("ExponentialLR", {"gamma": 0.95}),
    ("PolynomialLR", {}),
    ("PolynomialLR", {"total_iters": 30, "power": 2.5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 1e-3}),
)


@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=[name for name, _ in SCHEDULES])
def test_rates_are_torchs(name: str, options: dict[str, Any]) -> None:
    """Oracle: torch's rates over 40 epochs, of two groups, and after one more scheduler on top."""
    made = []
    for space, p in (
        (optim, [nn.Parameter([1.0]), nn.Parameter([1.0])]),
        (torch.optim, [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]),
    ):
        optimizer = space.SGD([{"params": [p[0]]}, {"params": [p[1]], "lr": 2.0}], lr=0.1)
        optimizer.step()
        first = getattr(space.lr_scheduler, name)(optimizer, **options)
        second = space.lr_scheduler.StepLR(optimizer, 4, 0.9) if name != "LambdaLR" else None
        rates = []
        for _ in range(40):
            rates.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            first.step()
            if second is not None:
                second.step()
        made.append(rates)
        assert first.get_last_lr() is not None
    assert_close(np.array(made[0]), np.array(made[1]), "parity_schedule")


CYCLES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"max_lr": 0.5, "total_steps": 40}),
    ("SGD", {"max_lr": [0.5, 3.0], "epochs": 10, "steps_per_epoch": 4, "anneal_strategy": "linear"}),
    ("SGD", {"max_lr": 0.5, "total_steps": 41, "three_phase": True, "pct_start": 0.2, "div_factor": 7.0}),
    ("SGD", {"max_lr": 0.5, "total_steps": 40, "cycle_momentum": False, "final_div_factor": 10.0}),
    ("AdamW", {"max_lr": 0.5, "total_steps": 40, "base_momentum": [0.5, 0.6], "max_momentum": 0.99}),
    ("RMSprop", {"max_lr": 0.5, "total_steps": 40, "pct_start": 0.5}),
)


def two_groups(space: Any, kind: str = "SGD", **options: Any) -> Any:
    """Return an optimizer over two groups, minimp's or torch's."""
    p = [space.nn.Parameter(space.tensor([1.0])) for _ in range(2)]
    groups = [{"params": [p[0]]}, {"params": [p[1]], "lr": 2.0}]
    made = getattr(space.optim, kind)(groups, lr=0.1, **options)
    made.step()
    return made


def rates_of(optimizer: Any) -> list[float]:
    """Return the rates and momenta in force, and what OneCycleLR keeps in each group."""
    kept = []
    for group in optimizer.param_groups:
        numbers = [group["lr"], group.get("momentum", 0.0), *group.get("betas", ())]
        kept += [*numbers, *(group.get(k, 0.0) for k in ("initial_lr", "max_lr", "min_lr", "max_momentum"))]
    return kept


@pytest.mark.parametrize(("kind", "options"), CYCLES, ids=[f"{k}-{i}" for i, (k, _) in enumerate(CYCLES)])
def test_one_cycle_is_torchs_momentum_and_all(kind: str, options: dict[str, Any]) -> None:
    """Oracle: torch's rates, momenta, betas and group entries at each of 40 steps."""
    curves = []
    for space in (mp, torch):
        optimizer = two_groups(space, kind)
        schedule = space.optim.lr_scheduler.OneCycleLR(optimizer, **options)
        curve = [rates_of(optimizer)]
        for _ in range(39):
            optimizer.step()
            schedule.step()
            curve.append(rates_of(optimizer))
        curves.append(curve)
    assert_close(np.array(curves[0]), np.array(curves[1]), "parity_schedule")


def several(space: Any, name: str, optimizer: Any) -> Any:
    """Return a scheduler that is made of others."""
    s = space.optim.lr_scheduler
    if name == "warm-up":
        parts = [s.LinearLR(optimizer, 0.1, total_iters=5), s.CosineAnnealingLR(optimizer, 20)]
        return s.SequentialLR(optimizer, parts, [5])
    if name == "three":
        parts = [
            s.ConstantLR(optimizer, 0.1, 100), s.ExponentialLR(optimizer, 0.9),
            s.CosineAnnealingWarmRestarts(optimizer, 4),
        ]  # fmt: skip
        return s.SequentialLR(optimizer, parts, [3, 11])
    if name == "all":
        parts = [
            s.StepLR(optimizer, 3, 0.5), s.MultiStepLR(optimizer, [2, 2]), s.PolynomialLR(optimizer, 9),
            s.LinearLR(optimizer, total_iters=4),
        ]  # fmt: skip
        return s.SequentialLR(optimizer, parts, [4, 8, 13])
    return s.ChainedScheduler([s.ConstantLR(optimizer, 0.1, 4), s.ExponentialLR(optimizer, 0.9)])


@pytest.mark.parametrize("name", ["warm-up", "three", "all", "chained"])
def test_schedulers_of_schedulers_are_torchs(name: str) -> None:
    """Oracle: torch's rates over 30 epochs, and `get_last_lr`."""
    curves = []
    for space in (mp, torch):
        optimizer = two_groups(space)
        schedule = several(space, name, optimizer)
        curve = [rates_of(optimizer)]
        for _ in range(30):
            optimizer.step()
            schedule.step()
            curve.append(rates_of(optimizer))
            assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
        curves.append(curve)
    assert_close(np.array(curves[0]), np.array(curves[1]), "parity_schedule")


PLATEAUS: tuple[dict[str, Any], ...] = (
    {"patience": 2},
    {"patience": 0, "mode": "max", "factor": 0.5, "threshold": 0.05, "cooldown": 2},
    {"patience": 1, "threshold_mode": "abs", "threshold": 0.2, "min_lr": [1e-3, 0.3], "factor": 0.3},
    {"patience": 1, "mode": "max", "threshold_mode": "abs", "eps": 0.05},
)


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_a_plateau_is_torchs(options: dict[str, Any]) -> None:
    """Oracle: torch's rates and counters over 40 measured values, a NaN and an infinity among them."""
    rng = np.random.default_rng(SEED)
    measured = [*np.cumsum(rng.normal(-0.05, 0.3, 38)).tolist(), math.nan, math.inf]
    made = []
    for space in (mp, torch):
        optimizer = two_groups(space)
        schedule = space.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        curve = []
        for value in measured:
            schedule.step(value)
            counts = [schedule.best, schedule.num_bad_epochs, schedule.cooldown_counter]
            curve.append([*rates_of(optimizer), *counts, *schedule.get_last_lr()])
        made.append(curve)
    assert_close(np.array(made[0]), np.array(made[1]), "parity_schedule")
    assert len({tuple(row[:1]) for row in made[0]}) > 1  # the rate did fall


def test_the_arguments_of_schedulers_are_torchs() -> None:
    """Oracle: the signatures of torch's classes: names, order and defaults."""
    ours, theirs = optim.lr_scheduler, torch.optim.lr_scheduler
    for name in ours.__all__:
        mine, other = (inspect.signature(getattr(each, name)).parameters for each in (ours, theirs))
        assert list(mine) == list(other), name
        assert [p.default for p in mine.values()] == [p.default for p in other.values()], name


def test_a_small_network_trains_as_torchs() -> None:
    """Oracle: torch's losses over 60 steps of AdamW with a warm-up, from the same weights and data."""
    rng = np.random.default_rng(SEED)
    x, y = rng.standard_normal((64, 6)).astype(np.float32), rng.integers(0, 3, 64)
    ours = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    theirs = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))
    theirs.load_state_dict({k: torch.tensor(host(v)) for k, v in ours.state_dict().items()})
    losses = []
    for space, model, inputs, targets in (
        (mp, ours, mp.tensor(x), y),
        (torch, theirs, torch.tensor(x), torch.tensor(y)),
    ):
        optimizer = space.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.1)
        schedule = space.optim.lr_scheduler.LinearLR(optimizer, total_iters=10)
        curve = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = space.nn.CrossEntropyLoss()(model(inputs), targets)
            loss.backward()
            optimizer.step()
            schedule.step()
            curve.append(loss.item())
        losses.append(curve)
    assert_close(losses[0][0], losses[1][0], "parity_first_loss")
    assert_close(losses[0], losses[1], "parity_trajectory")
    assert losses[0][-1] < 0.8 * losses[0][0]
