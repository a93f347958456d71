"""The section on scalers; oracles: the installed torch, and faults that are planted in minimp's scaler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp.frameworks.documented.scalers import SCALER_DIFFERENCES
from minimp.frameworks.results import Section, Verdict
from minimp.frameworks.scalers import torch_scaler
from minimp.frameworks.scalers.refusals import REFUSALS
from minimp.frameworks.scalers.traces import CALLS, VERDICTS, CallFamily, VerdictFamily, settings_from
from minimp.frameworks.scalers.twins import Twins
from minimp.frameworks.sides import both_sides
from minimp.scaler import GradScaler
from tests.frameworks.faults import Fault, back_off_twice, differing, grow_late, keep_the_tracker

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

FEW_VERDICTS = (VerdictFamily("powers of two", (2.0**16, 2.0, 0.5, 3), steps=200),)
FEW_CALLS = (CallFamily("iterations", {"iteration": 1}, traces=3, actions=10),)


def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare fewer random calls."""
    monkeypatch.setattr(torch_scaler, "VERDICTS", FEW_VERDICTS)
    monkeypatch.setattr(torch_scaler, "CALLS", FEW_CALLS)


@pytest.fixture(scope="module")
def whole() -> Section:
    """Return the section of the seed 0."""
    return torch_scaler.compare(0)


def test_the_section_holds(whole: Section) -> None:
    """Oracle: the installed torch: a hundred rules, 10,000 verdicts and 2,000 mixed calls without difference.

    Every known difference of the section is met, so none is kept after it has gone.
    """
    section = whole
    assert section, differing(section)
    steps = sum(row.figures["steps"] for row in section.rows if row.subject == "update by verdicts")
    calls = sum(row.figures["calls"] for row in section.rows if row.subject == "random calls")
    assert (steps >= 10_000, calls >= 2_000) == (True, True), (steps, calls)
    assert len(section.rows) - len(VERDICTS) - len(CALLS) >= 100
    known = {
        each.name for each in SCALER_DIFFERENCES if (each.framework, each.section) == ("torch", "scaler")
    }
    assert {row.known for row in section.of(Verdict.DOCUMENTED)} == known


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_other_seeds_hold_too(seed: int) -> None:
    """Oracle: the installed torch, on other random calls."""
    section = torch_scaler.compare(seed)
    assert section, differing(section)


DOCUMENTED = {
    "init_scale=nan": ("refused: SettingError", "nan"),
    "device='cuda' without CUDA": ("refused: TypeError", "abled"),
    "a named tuple": ("Pair, 24 float32", "refused: TypeError"),
    "a dict": ("refused: no tensor", "map"),
    "a string": ("refused: no tensor", "map"),
    "another name on the gradient": ("it sees [8] float32", "it sees [1] float32"),
    "sparse gradients": ("there are no sparse tensors", "weights [0, -1]"),
    "to NaN": ("S 8, tracker 1", "S nan, tracker 1"),
    "one without a tracker": ("'scale': 8.0", "'scale': 4.0"),
    "set_growth_factor(0.5)": ("refused: SettingError: growth_factor", "0.5; weights [-0.125]"),
    "set_backoff_factor(2)": ("refused: SettingError: backoff_factor", "2.0; weights [-0.125]"),
}
"""What each library is known to do where they differ: words of both outcomes."""


def test_documented_rows_say_what_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: both outcomes, by hand: a difference of another kind must not pass as a known one."""
    few(monkeypatch)
    rows = torch_scaler.compare(0).of(Verdict.DOCUMENTED)
    assert {row.case for row in rows} == set(DOCUMENTED)
    for row in rows:
        ours, theirs = DOCUMENTED[row.case]
        assert ours in row.ours, row
        assert theirs in row.theirs, row


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (grow_late, {("update by verdicts", "powers of two"), ("update", "grows at the interval")}),
        (
            back_off_twice,
            {
                ("update by verdicts", "powers of two"), ("step", "two bad optimizers, one backoff"),
                ("extremes", "149 bad steps from 1"), ("random calls", "iterations"),
            },
        ),
        (
            keep_the_tracker,
            {("update by verdicts", "powers of two"), ("update", "counts anew after a bad step")},
        ),
    ],
)  # fmt: skip
def test_planted_faults_are_found(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, found: set[tuple[str, str]]
) -> None:
    """Oracle: the fault; the rows that it must show in differ, and what it has no part in agrees."""
    few(monkeypatch)
    fault(monkeypatch)
    section = torch_scaler.compare(0)
    assert not section
    assert found <= set(differing(section))
    assert ("step", "closure by position") not in differing(section)


def test_gradients_off_by_one_bit_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: each unscaled float32 gradient moved to its neighbour."""
    few(monkeypatch)
    real = GradScaler.unscale_

    def unscale_(scaler: GradScaler, optimizer: Any) -> None:
        real(scaler, optimizer)
        for param in optimizer.param_groups[0]["params"]:
            if param.grad is not None and param.grad.array.dtype == np.float32:
                param.grad.array = np.nextafter(param.grad.array, np.float32(np.inf))

    monkeypatch.setattr(GradScaler, "unscale_", unscale_)
    assert {("unscale_", "1/3.7 rounded from float64"), ("random calls", "iterations")} <= set(
        differing(torch_scaler.compare(0))
    )


def test_an_error_that_is_not_raised_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a scaler that forgets which optimizers were stepped."""
    few(monkeypatch)
    real = GradScaler.step

    def step(scaler: GradScaler, optimizer: Any, *args: Any, **options: Any) -> Any:
        result = real(scaler, optimizer, *args, **options)
        scaler._records.pop(id(optimizer))
        return result

    monkeypatch.setattr(GradScaler, "step", step)
    found = differing(torch_scaler.compare(0))
    assert {("step", "twice"), ("unscale_", "after step()")} <= set(found)


def test_every_kind_of_refusal_is_met(whole: Section) -> None:
    """Oracle: the table of refusals: a kind that no program meets would prove nothing."""
    section = whole
    told = " ".join(row.ours for row in section.rows if row.verdict is Verdict.AGREES)
    unmet = {row.kind for row in REFUSALS if f"refused: {row.kind}" not in told}
    assert unmet <= {"an entry is missing"}  # met where the state then differs, in a documented row
    assert "refused: an entry is missing" in " ".join(row.theirs for row in section.rows)


def test_twins_name_the_call_after_which_they_part() -> None:
    """Oracle: by hand: an interval that is set in one of them alone; all goes well until the scale grows."""
    twins = Twins(*both_sides(), {"init_scale": 8.0, "growth_interval": 3})
    twins.ours.scaler.set_growth_interval(2)
    twins.theirs.scaler.set_growth_interval(2)
    twins.call("scale", 1.0, "float32", ())
    twins.ours.scaler.set_growth_factor(4.0)
    twins.call("gradients", 0, [1.0])
    assert twins.parting is not None
    assert (twins.parting.number, twins.parting.what) == (2, "state_dict growth_factor")
    assert (
        str(twins.parting) == "call 2, gradients(0, [1.0]): state_dict growth_factor is 4.0, in PyTorch 2.0"
    )
    twins.call("update")
    assert twins.calls == 2  # nothing more is called


@pytest.mark.filterwarnings("ignore::minimp.errors.ScaleWarning")  # scales collapse, as they are meant to
def test_a_trace_is_the_seeds() -> None:
    """Oracle: the same draw twice."""
    first, second = (settings_from(np.random.default_rng(5)) for _ in range(2))
    assert first == second
    twins = [Twins(*both_sides(), first) for _ in range(2)]
    for each in twins:
        CALLS[2].run(each, np.random.default_rng(6))
    assert twins[0].calls == twins[1].calls
    assert twins[0].refused == twins[1].refused
    assert twins[0].ours.seen() == twins[1].ours.seen()
