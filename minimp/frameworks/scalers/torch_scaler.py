"""GradScaler beside PyTorch's: each rule of its behaviour, and random traces of calls and of verdicts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator

import numpy as np

from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row, Section
from minimp.frameworks.scalers.programs import MAKING, SCALING
from minimp.frameworks.scalers.rules import SAVING, STEPPING, UNSCALING, UPDATING
from minimp.frameworks.scalers.traces import (
    CALLS,
    VERDICTS,
    CallFamily,
    VerdictFamily,
    settings_from,
    verdicts,
)
from minimp.frameworks.scalers.twins import Parting, Twins
from minimp.frameworks.sides import Side, both_sides
from minimp.scaler import GradScaler, ScaleRule

__all__ = ["compare"]

SECTION = "scaler"
CLAIM = (
    "After every call the same: scale and growth tracker, whether the optimizer ran, what it returned, all "
    "bits of parameters and gradients, and the kind of error where a call is refused."
)


def compare(seed: int) -> Section:
    """Compare minimp's GradScaler with PyTorch's on the CPU.

    Args:
        seed: of the random traces.
    """
    ours, theirs = both_sides()
    with warnings.catch_warnings():  # both warn of collapsing scales and missing devices, which are meant
        warnings.simplefilter("ignore")
        programs = tuple(_programs(ours, theirs))
        moved = [_moved(family, np.random.default_rng([seed, i])) for i, family in enumerate(VERDICTS)]
        called = [
            _called(family, ours, theirs, np.random.default_rng([seed, 100 + i]))
            for i, family in enumerate(CALLS)
        ]
    totals = {
        "rules": f"{len(programs):,}",
        "verdicts": f"{sum(row.figures['steps'] for row in moved):,}",
        "mixed calls": f"{sum(row.figures['calls'] for row in called):,}",
        "refused in both": f"{sum(row.figures['refused'] for row in called):,}",
    }
    return Section(
        SECTION, "GradScaler, rule by rule and on random traces", CLAIM, (*programs, *moved, *called),
        {"calls": "calls", "steps": "steps", "skips": "skipped", "refused": "refused"}, totals,
    )  # fmt: skip


def _programs(ours: Side, theirs: Side) -> Iterator[Row]:
    for program in (*MAKING, *SCALING, *UNSCALING, *STEPPING, *UPDATING, *SAVING):
        mine, other = program.outcome(ours), program.outcome(theirs)
        yield judged("torch", SECTION, program.subject, program.case, mine, other)


def _moved(family: VerdictFamily, rng: np.random.Generator) -> Row:
    """Move the scale by random verdicts, in minimp's machine and in PyTorch's kernel."""
    import torch

    init, growth, backoff, interval = family.rule
    mine = GradScaler.from_rule(ScaleRule(init, growth, backoff, interval))
    scale = torch.full((), init, dtype=torch.float32)
    tracker = torch.zeros((), dtype=torch.int32)
    ours = theirs = (init, 0)
    steps = skips = 0
    for bad in verdicts(family, rng):
        mine.advance(bad)
        torch._amp_update_scale_(scale, tracker, torch.tensor(float(bad)), growth, backoff, interval)
        steps, skips = steps + 1, skips + bad
        ours, theirs = (mine.get_scale(), mine.state.growth_tracker), (scale.item(), tracker.item())
        if repr(ours) != repr(theirs):
            break
    told = [f"S = {s:.9g}, tracker {t} after step {steps:,}" for s, t in (ours, theirs)]
    return judged(
        "torch", SECTION, "update by verdicts", family.name, *told,
        figures={"steps": steps, "skips": skips},
    )  # fmt: skip


def _called(family: CallFamily, ours: Side, theirs: Side, rng: np.random.Generator) -> Row:
    """Make random traces of calls, each from new scalers; the first parting ends it."""
    met: Counter[str] = Counter()
    parting: Parting | None = None
    for _ in range(family.traces):
        twins = Twins(ours, theirs, settings_from(rng))
        family.run(twins, rng)
        met.update(calls=twins.calls, steps=twins.steps, skips=twins.skips, refused=twins.refused.total())
        if twins.parting is not None:
            parting = twins.parting
            break
    told = ("the same after each call",) * 2
    if parting is not None:
        told = (f"{parting.what}: {parting.ours}", f"{parting.what}: {parting.theirs}")
    return judged(
        "torch", SECTION, "random calls", family.name, *told,
        note="" if parting is None else f"after call {parting.number}, {parting.call}",
        figures={name: met[name] for name in ("calls", "steps", "skips", "refused")},
    )  # fmt: skip
