"""The benchmark's figures; oracles: arithmetic by hand, ops counted as they run, torch's layers."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.backend import default_backend
from minimp.benchmarks import (
    Figure,
    StepTimes,
    describe_machine,
    step_times,
    suite,
    workloads,
)  # fmt: skip
from minimp.benchmarks.machine import THREAD_VARIABLES, one_thread
from minimp.benchmarks.mygrad_steps import mygrad_is_there, mygrad_step
from minimp.benchmarks.suite import TARGETS, add_overhead, step_peak, torch_is_there, trajectory_gap
from minimp.benchmarks.workloads import WORKLOADS, batch_of, minimp_step, torch_step, weights_of
from minimp.modes import listen
from minimp.tape import Event
from tests.conftest import HAS_TORCH
from tests.tolerances import assert_close

NAN = float("nan")
f32 = np.float32

# ---- figures -----------------------------------------------------------------------------------------------


def test_a_bound_is_reached_from_its_own_side() -> None:
    """Oracle: by hand; a figure that is no number reaches nothing."""
    cases = [(1.0, True), (1.5, True), (1.6, False), (NAN, False)]
    assert [Figure("f", value, 1.5).reached for value, _ in cases] == [reached for _, reached in cases]
    cases = [(6.0, True), (5.0, True), (4.9, False), (NAN, False)]
    assert [Figure("f", value, 5.0, at_most=False).reached for value, _ in cases] == [r for _, r in cases]
    assert Figure("f", 6.0, 5.0, at_most=False).as_dict() == {
        "name": "f", "value": 6.0, "bound": "at least", "target": 5.0, "reached": True
    }  # fmt: skip
    assert Figure("f", 6.0, 5.0).as_dict()["bound"] == "at most"


SECONDS = {
    "minimp fp32": 2.0, "minimp mixed-fp16": 3.0, "minimp mixed-fp16 numkong": 2.5, "minimp mixed-bf16": 9.0,
    "torch fp32": 1.6, "torch autocast fp16": 18.0, "torch autocast bf16": 7.0, "mygrad fp32": 5.2,
}  # fmt: skip
BOUNDS = {
    # figure: (measured, bound for the MLP, the CNN, the GPT, an upper one), as the project's aims have them
    "minimp fp32 / torch fp32": (1.25, 1.4, 1.5, 1.4, True),
    "minimp mixed-fp16 / minimp fp32": (1.5, 2.2, 1.6, 1.8, True),
    "minimp mixed-fp16 numkong / minimp fp32": (1.25, 1.4, 1.4, 1.4, True),
    "torch autocast fp16 / minimp mixed-fp16": (6.0, 5.0, 5.0, 5.0, False),
    "torch autocast fp16 / minimp mixed-fp16 numkong": (7.2, 7.0, 7.0, 7.0, False),
    "mygrad fp32 / minimp fp32": (2.6, None, 2.5, 1.0, False),
}


@pytest.mark.parametrize(("workload", "column"), [("mlp", 1), ("cnn", 2), ("gpt", 3)])
def test_ratios_of_made_up_times(workload: str, column: int) -> None:
    """Oracle: quotients by hand, each with the bound of its workload."""
    found = StepTimes(workload, SECONDS, 5).figures()
    rows = {name: row for name, row in BOUNDS.items() if row[column] is not None}
    assert [(f.name, f.target, f.at_most) for f in found] == [
        (f"{workload}: {name}", row[column], row[4]) for name, row in rows.items()
    ]
    assert_close([f.value for f in found], [row[0] for row in rows.values()], "fp64_same_maths")
    assert set(BOUNDS) == {" / ".join(names) for names in TARGETS}


def test_peaks_of_made_up_steps() -> None:
    """Oracle: bytes over 2^20, beside the aims for the GPT; other workloads have none."""
    peaks = {"minimp fp32": 180 << 20, "minimp mixed-fp16": 121 << 20, "minimp mixed-bf16": 1}
    found = StepTimes("gpt", {}, 5, peaks).figures()
    assert [(f.name, f.value, f.target, f.reached) for f in found] == [
        ("gpt: minimp fp32, MiB at a step's peak", 180.0, 180.0, True),
        ("gpt: minimp mixed-fp16, MiB at a step's peak", 121.0, 120.0, False),
    ]
    assert StepTimes("cnn", {}, 5, peaks).figures() == []
    assert StepTimes("gpt", {}, 5).figures() == []


def test_the_peak_of_a_call() -> None:
    """Oracle: what the call allocates by hand: a new array of 8 MiB before the old one goes."""
    held = [np.ones(1 << 20)]

    def call() -> None:
        held[0] = np.ones(1 << 20)

    assert 8 << 20 <= step_peak(call) < (8 << 20) + (1 << 16)
    assert not tracemalloc.is_tracing()


def test_what_was_not_measured_has_no_ratio() -> None:
    """Oracle: without torch and accelerator one figure is left."""
    own = {name: SECONDS[name] for name in ("minimp fp32", "minimp mixed-fp16")}
    assert [f.name for f in StepTimes("mlp", own, 5).figures()] == ["mlp: minimp mixed-fp16 / minimp fp32"]


# ---- what is measured --------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_torch", [False, pytest.param(True, marks=pytest.mark.torch)])
def test_the_contenders(with_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: every recipe on every route that runs here, each on its own route, and torch if asked for."""
    routes: list[tuple[str, str]] = []
    real = default_backend().use_route
    monkeypatch.setattr(default_backend(), "use_route", lambda name: (routes.append(name), real(name))[1])

    def once(contenders: Any, rounds: int, on_round: Any) -> dict[str, list[float]]:
        assert all(math.isfinite(call()) for call in contenders.values())
        return {name: [float(rounds)] for name in contenders}

    monkeypatch.setattr(suite, "interleave", once)
    monkeypatch.setattr(suite, "step_peak", lambda _: 7)
    times = step_times("mlp", 3, with_torch=with_torch)
    here = default_backend().routes()
    labels = ["minimp mixed-fp16" if route == "blocks" else f"minimp mixed-fp16 {route}" for route in here]
    theirs = ["torch fp32", "torch autocast fp16", "torch autocast bf16"] if with_torch else []
    assert list(times.seconds) == ["minimp fp32", "minimp mixed-bf16", *labels, *theirs]
    assert routes == here
    assert times.peaks == dict.fromkeys(["minimp fp32", "minimp mixed-bf16", *labels], 7)
    assert (times.workload, times.rounds, set(times.seconds.values())) == ("mlp", 3, {3.0})


@pytest.mark.parametrize("name", WORKLOADS)
def test_layers_and_operations_are_those_that_run(name: str) -> None:
    """Oracle: 2 M N K for each product that a step runs, from the shapes that its ops are given.

    Attention is two products of all queries with all keys, masked or not, and two gradients of each.
    """
    workload = WORKLOADS[name]
    events: list[Event] = []
    with listen(events.append):
        minimp_step(workload, "fp32")()
    count = 0
    for event in events:
        if event.node.op.name in ("linear", "conv2d") and event.phase == "forward":
            x, weight = event.inputs[0], event.inputs[1]
            terms = int(np.prod(weight.shape[1:]))  # K: the length of each sum
            products = event.outputs[0].size * terms
            count += 2 * products * (3 if event.node.inputs[0] is not None else 2)
            assert x.shape[-1 if x.ndim < 4 else 1] == weight.shape[1]
        if event.node.op.name == "scaled_dot_product_attention" and event.phase == "forward":
            q, k, v = event.inputs[:3]
            count += 6 * math.prod(q.shape) * k.shape[-2] + 6 * math.prod(q.shape[:-1]) * math.prod(
                v.shape[-2:]
            )
    assert count == workload.flops


def test_the_workloads_are_these() -> None:
    """Oracle: the shapes of 784-512-512-10 with 128 rows, and of two convolutions with 64 images."""
    shapes = {name: [value.shape for value in weights_of(each).values()] for name, each in WORKLOADS.items()}
    assert shapes["mlp"] == [(512, 784), (512,), (512, 512), (512,), (10, 512), (10,)]
    assert shapes["cnn"] == [
        (32, 1, 3, 3), (32,), (64, 32, 3, 3), (64,), (128, 64 * 12 * 12), (128,), (10, 128), (10,)
    ]  # fmt: skip
    block = [
        (128,),
        (128,),
        (128,),
        (128,),
        *4 * [(128, 128), (128,)],
        (512, 128),
        (512,),
        (128, 512),
        (128,),
    ]
    table, end = [(96, 128), (128, 128)], [(128,), (128,), (96, 128), (96,)]
    assert shapes["gpt"] == [*table, *4 * block, *end]
    assert [each.batch for each in WORKLOADS.values()] == [(128, 784), (64, 1, 28, 28), (16, 128)]


@pytest.mark.parametrize("name", WORKLOADS)
def test_weights_and_batches_are_fixed(name: str) -> None:
    """Oracle: equal bits from equal seeds; He's spread, sqrt(2 / fan_in), in every layer of size.

    Biases are 0, and the factors of normalising layers 1.
    """
    workload = WORKLOADS[name]
    once, again, other = weights_of(workload), weights_of(workload), weights_of(workload, seed=5)
    for key, value in once.items():
        assert value.dtype == np.float32
        assert value.tobytes() == again[key].tobytes()
        if value.ndim == 1:
            assert set(value.tolist()) == {float(key.endswith("weight"))}
        else:
            assert value.tobytes() != other[key].tobytes()
            spread = value.std() / math.sqrt(2 / math.prod(value.shape[1:]))
            assert_close((spread - 1) * math.sqrt(2 * value.size), 0.0, "six_deviations")
    x, labels = batch_of(workload)
    shape = workload.batch if workload.tokens else workload.batch[:1]
    assert (x.shape, x.dtype, labels.shape) == (workload.batch, np.int64 if workload.tokens else f32, shape)
    assert set(np.unique(labels)) == set(range(workload.classes))
    assert batch_of(workload)[0].tobytes() == x.tobytes()


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16", "mixed-bf16"])
def test_our_step_starts_from_those_weights_and_learns(recipe: str) -> None:
    """Oracle: the first loss of a forward with the same weights, and a smaller one after some steps."""
    step = minimp_step(WORKLOADS["mlp"], recipe)
    losses = [step() for _ in range(6)]
    model = WORKLOADS["mlp"].model(nn, mp.functional)
    model.load_state_dict({name: mp.tensor(value) for name, value in weights_of(WORKLOADS["mlp"]).items()})
    x, labels = batch_of(WORKLOADS["mlp"])
    low = recipe.removeprefix("mixed-")
    with mp.no_grad(), mp.autocast("fp16" if recipe == "fp32" else low, enabled=recipe != "fp32"):
        expected = mp.functional.cross_entropy(model(mp.tensor(x)), labels).item()
    assert losses[0] == expected
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 6


@pytest.mark.parametrize(
    ("recipe", "accumulate"),
    [
        *((recipe, name) for recipe in ("fp32", "mixed-fp16", "mixed-bf16") for name in ("float32", "kahan")),
        ("mixed-fp16", "tensorcore:ampere"), ("mixed-bf16", "tensorcore:ampere"),
    ],
)  # fmt: skip
def test_a_gpt_s_step_keeps_its_contracts(
    recipe: str, accumulate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the stages' own checks, on a model with short rows: every op of it, forward and backward."""
    for name, value in {"WIDTH": 16, "HEADS": 2, "DEPTH": 1, "LENGTH": 12, "TOKENS": 11}.items():
        monkeypatch.setattr(workloads, name, value)
    mp.manual_seed(0)
    model = WORKLOADS["gpt"].model(nn, mp.functional)
    scaler = None if recipe != "mixed-fp16" else mp.GradScaler(init_scale=256.0)
    settings = mp.recipes[recipe].with_(accumulate=accumulate)
    sgd = mp.optim.SGD(model.parameters(), lr=0.01)
    step = mp.TrainStep(model, workloads._loss, sgd, settings, scaler=scaler)
    indices, labels = np.random.default_rng(0).integers(0, 11, (2, 3, 12))
    for stage in step.stages(mp.tensor(indices), mp.tensor(labels)):
        found = stage.check()
        assert found, f"{stage.name}: {found}"


@pytest.mark.torch
@pytest.mark.parametrize("name", ["mlp", pytest.param("gpt", marks=pytest.mark.slow)])
def test_torch_s_step_has_the_same_weights_and_batch(name: str) -> None:
    """Oracle: the first loss of ours, to a few float32 roundings; autocast gives others, near it."""
    ours = minimp_step(WORKLOADS[name], "fp32")()
    wide, half, brain = (torch_step(WORKLOADS[name], dtype)() for dtype in (None, "float16", "bfloat16"))
    assert_close(wide, ours, "parity_first_loss")
    assert_close([half, brain], [ours, ours], "loss_in_16_bits")
    assert len({wide, half, brain}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "gpt"])
def test_mygrad_s_step_is_the_same(name: str) -> None:
    """Oracle: three losses of ours, to a few float32 roundings."""
    pytest.importorskip("mygrad")
    ours, theirs = minimp_step(WORKLOADS[name], "fp32"), mygrad_step(WORKLOADS[name])
    for _ in range(3):
        assert_close(theirs(), ours(), "parity_first_loss")


def test_torch_is_found_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what the tests themselves found; and the answer where Python cannot find it."""
    assert torch_is_there() is HAS_TORCH
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert torch_is_there() is False
    assert mygrad_is_there() is False


@pytest.mark.parametrize(("losses", "worst"), [([2.0, 5.0, 8.8], 0.25), ([2.0, NAN, 8.0], NAN)])
def test_the_gap_between_two_trajectories(
    losses: list[float], worst: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: by hand: ours beside 2, 4, 8. A loss that is no number must not be passed over."""
    mine, theirs = iter(losses), iter([2.0, 4.0, 8.0])
    monkeypatch.setattr(suite, "minimp_step", lambda *_: lambda: next(mine))
    monkeypatch.setattr(suite, "torch_step", lambda *_: lambda: next(theirs))
    first, largest = trajectory_gap("mlp", steps=3)
    assert (first.value, first.reached) == (0.0, True)
    assert_close(largest.value, worst, "fp64_same_maths")
    assert largest.reached is False


def test_the_overhead_of_an_add_is_a_ratio() -> None:
    """Oracle: a recorded add calls np.add, so that it cannot be faster; one round is enough to run it."""
    figure = add_overhead(rounds=1)
    assert figure.value > 1.0
    assert (figure.target, figure.at_most) == (6.0, True)


# ---- the machine -------------------------------------------------------------------------------------------


def test_the_machine_is_described() -> None:
    """Oracle: facts that the platform module or this process knows, and none of them empty."""
    facts = describe_machine()
    assert {"processor", "cores", "system", "python", "array library", "BLAS threads"} <= set(facts)
    assert all(isinstance(fact, str) and fact for fact in facts.values())
    assert facts["array library"].endswith(np.__version__)
    assert facts["BLAS threads"] == ("1" if one_thread() else "not pinned")


@pytest.mark.parametrize("name", THREAD_VARIABLES)
def test_one_thread_means_every_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the environment: all of the variables are 1, or it is not pinned."""
    for each in THREAD_VARIABLES:
        monkeypatch.setenv(each, "1")
    assert one_thread()
    for other in ("2", ""):
        monkeypatch.setenv(name, other)
        assert not one_thread()
    monkeypatch.delenv(name)
    assert not one_thread()
