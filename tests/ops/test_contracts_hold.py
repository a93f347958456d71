"""Every op keeps its contract in every format, on ordinary and on adversarial numbers."""

from __future__ import annotations

import numpy as np
import pytest

import minimp as mp
from minimp import functional
from minimp.checks import check_events
from minimp.checks.tables import FAMILIES, GRADIENTS, REFERENCE
from minimp.modes import listen
from minimp.ops import OPS
from minimp.tape import Event
from tests.ops.samples import DIFFERENTIABLE, FLOATS, KINDS, SAMPLES, Sample, numbers, run

BUILT_IN = {name: op for name, op in OPS.items() if op.forward.__module__.startswith("minimp.")}


def test_every_op_is_sampled_and_has_a_reference_a_bound_and_a_gradient() -> None:
    """Oracle: the list of ops itself; nothing may be left out."""
    assert {sample.op for sample in SAMPLES} == set(BUILT_IN) == set(REFERENCE)
    for name, op in BUILT_IN.items():
        assert FAMILIES[op.bound].knows(name), f"{name}: bound={op.bound!r} does not know it"
        assert (name in GRADIENTS) == (op.backward_rule is not None), name
    assert {sample.op for sample in DIFFERENTIABLE} == set(GRADIENTS)


@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_every_op_keeps_its_contract(sample: Sample, fmt: str) -> None:
    """Oracle: float64 NumPy references, error bounds from running error analysis, difference quotients."""
    for seed, kind in enumerate(KINDS):
        events = run(sample, fmt, kind, seed)
        found = check_events(events)
        assert found, f"{fmt}, {kind} numbers\n{found}"
        assert any(event.node.op.name == sample.op for event in events)


ACCUMULATIONS = (
    "float64", "exact", "float32:sequential", "pairwise", "kahan", "splitk:3", "float16", "float16:fma",
    "bfloat16", "chunked:4", "tensorcore:volta", "tensorcore:ampere", "tensorcore:hopper",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["normal", "wide", "subnormal", "large"])
@pytest.mark.parametrize("name", ACCUMULATIONS)
def test_sums_keep_their_bound_however_they_are_accumulated(name: str, kind: str) -> None:
    """Oracle: einsum in float64, with the gamma of each accumulation; 200 terms, where float16 errs most."""
    random = np.random.default_rng(5)
    events: list[Event] = []
    with mp.accumulate(name), listen(events.append):
        x = mp.tensor(numbers(random, (3, 200), "float16", kind), dtype="float16", requires_grad=True)
        w = mp.tensor(numbers(random, (4, 200), "float16"), dtype="float16", requires_grad=True)
        y = functional.linear(x, w)
        (y.sum() + x.mean(0)[0] + (x * w[0]).sum()).backward()
    assert len(events) > 12
    found = check_events(events)
    assert found, str(found)


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_a_network_under_autocast_keeps_every_contract(low: str) -> None:
    """Oracle: the policy in force and the bounds, for each op of a small CNN with scaled gradients."""
    mp.manual_seed(1)
    random = np.random.default_rng(2)
    body = mp.nn.Sequential(
        mp.nn.Conv2d(1, 4, 3, padding=1), mp.nn.ReLU(), mp.nn.MaxPool2d(2), mp.nn.Flatten(),
        mp.nn.Linear(64, 16), mp.nn.GELU(), mp.nn.Dropout(0.2), mp.nn.Linear(16, 10),
    )  # fmt: skip
    events: list[Event] = []
    with listen(events.append):
        with mp.autocast(low):
            scores = body(mp.tensor(random.standard_normal((6, 1, 8, 8)), dtype="float32"))
            loss = functional.cross_entropy(scores, random.integers(0, 10, 6))
        (loss * 1024.0).backward()
    found = check_events(events)
    assert found, str(found)
    assert {event.phase for event in events} == {"forward", "backward"}
    assert not found.notes
