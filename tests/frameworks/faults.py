"""Faults planted in minimp's scaler, by name: what a comparison must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from minimp.frameworks.results import Section, Verdict
from minimp.scaler import machine
from minimp.scaler.machine import ScaleRule, ScaleState


def differing(section: Section) -> list[tuple[str, str]]:
    """Return (subject, case) of the rows that differ."""
    return [(row.subject, row.case) for row in section.of(Verdict.DIFFERS)]


def grow_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Grow one good step later than the rule says."""
    real = machine._after_good_step
    monkeypatch.setattr(
        machine, "_after_good_step",
        lambda rule, state: real(replace(rule, growth_interval=rule.growth_interval + 1), state),
    )  # fmt: skip


def back_off_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off by the factor and by the factor again."""
    real = ScaleRule.backed_off
    monkeypatch.setattr(ScaleRule, "backed_off", lambda rule, scale: real(rule, real(rule, scale)))


def keep_the_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on counting good steps after a bad one."""
    real = machine.next_state

    def next_state(rule: ScaleRule, state: ScaleState, found_inf: bool) -> ScaleState:
        moved = real(rule, state, found_inf)
        return replace(moved, growth_tracker=state.growth_tracker) if found_inf else moved

    monkeypatch.setattr("minimp.scaler.moving.next_state", next_state)


def forget_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off below the floor."""
    monkeypatch.setattr(
        ScaleRule, "backed_off", lambda rule, scale: rule.rounded(scale * rule.backoff_factor)
    )


def stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never let a scale become infinite, whatever the rule says."""
    real = ScaleRule.grown
    monkeypatch.setattr(
        ScaleRule, "grown", lambda rule, scale, by: real(replace(rule, stays_finite=True), scale, by)
    )


Fault = Callable[[Any], None]
