"""The section on training; oracles: the installed torch, its own spread, and faults in one op or setting."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minimp import functional
from minimp.frameworks.sides import Minimp, Torch
from minimp.frameworks.training import torch_training
from minimp.frameworks.training.models import TASKS
from minimp.frameworks.training.runs import FAULTS, STEPS, apart, begin, moved, nudged, train
from minimp.modes import accumulate
from tests.frameworks.faults import back_off_twice, differing, grow_late

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

SMALL = TASKS[0]


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the quickest network alone."""
    monkeypatch.setattr(torch_training, "TASKS", (SMALL,))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_section_holds(seed: int) -> None:
    """Oracle: the installed torch: four networks in three formats."""
    section = torch_training.compare(seed)
    assert section, differing(section)
    assert len(section.rows) == len(TASKS) * (2 + 2 + 3) + 1


@pytest.mark.usefixtures("_small")
def test_a_small_network_agrees() -> None:
    """Oracle: the installed torch; its threads and its generator are left as they were."""
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    section = torch_training.compare(0)
    assert section, differing(section)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)
    rows = {(row.subject, row.case): row for row in section.rows}
    assert rows[SMALL.name, "float32, losses"].figures["gap"] < 1e-5
    scale = rows[SMALL.name, "float16, scale and skipped steps"]
    assert scale.ours == scale.theirs
    assert scale.figures["skips"] > len(FAULTS)  # the faults, and what overflows at first
    assert set(map(str, FAULTS)) <= set(scale.ours.replace(",", "").split())
    assert "loss of step 1: 2." in rows[SMALL.name, "bfloat16, losses"].note
    (row,) = (row for row in section.rows if row.subject == "convolution")
    assert row.ours == "[40000]"
    assert (row.theirs, row.known) in [("[40000]", ""), ("[inf]", "convolutions-summed-in-float16")]


@pytest.mark.usefixtures("_small")
def test_an_op_that_is_a_hundredth_off_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a loss that is multiplied by 1.01 on its way."""

    def cross_entropy(scores: Any, labels: Any) -> Any:
        return functional.cross_entropy(scores, labels) * 1.01

    monkeypatch.setattr(
        Minimp, "functional", SimpleNamespace(**vars(functional) | {"cross_entropy": cross_entropy})
    )
    found = differing(torch_training.compare(0))
    assert (SMALL.name, "float32, losses") in found
    assert (SMALL.name, "float16, losses") in found
    assert (SMALL.name, "float16, scale and skipped steps") not in found


@pytest.mark.slow
def test_sums_in_float16_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: minimp's own engine with every sum rounded to float16 as it goes."""
    monkeypatch.setattr(torch_training, "TASKS", TASKS[1:2])
    with accumulate("float16"):
        found = differing(torch_training.compare(0))
    assert {(TASKS[1].name, f"{each}, losses") for each in ("float32", "float16")} <= set(found)


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("fault", [grow_late, back_off_twice])
def test_a_scale_that_moves_otherwise_is_found(monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    """Oracle: the fault in the scaler; it shows in float16 alone."""
    fault(monkeypatch)
    found = differing(torch_training.compare(0))
    assert (SMALL.name, "float16, scale and skipped steps") in found
    assert not [case for _, case in found if not case.startswith("float16")]


def test_runs_are_the_seeds() -> None:
    """Oracle: the same run twice, bit for bit; other batches with another seed."""
    side, theirs = Minimp(), Torch()
    state = begin(SMALL, theirs, 3)
    first, second, other = (train(side, SMALL, state, "bfloat16", seed) for seed in (3, 3, 4))
    assert np.array_equal(first.losses, second.losses)
    assert apart(first, second) == moved(first.weights, second.weights) == 0.0
    assert apart(first, other) > 0
    assert (len(first.losses), first.skipped) == (STEPS, ())
    assert first.losses[-1] < 0.7 * first.losses[0]  # it learns


def test_a_nudge_is_at_most_one_unit() -> None:
    """Oracle: the definition: each float moves by at most `unit` of itself, whole numbers not at all."""
    state = {"w": np.array([1.0, -4.0, 0.0], np.float32), "n": np.array([3])}
    near = nudged(state, 2.0**-8, np.random.default_rng(0))
    assert np.all(np.abs(near["w"] - state["w"]) <= 2.0**-8 * np.abs(state["w"]) * (1 + 1e-6))
    assert np.count_nonzero(near["w"] != state["w"]) == 2
    assert near["n"] is state["n"]
