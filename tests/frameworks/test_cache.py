"""The section on the cast cache; oracles: the installed torch, arithmetic by hand, and planted faults."""

from __future__ import annotations

from typing import Any

import pytest

from minimp import door
from minimp.frameworks.cache import torch_cache
from minimp.frameworks.cache.programs import DEFECTS, PROGRAMS
from minimp.frameworks.documented.scalers import SCALER_DIFFERENCES
from minimp.frameworks.results import Section, Verdict
from minimp.policy import caches
from tests.frameworks.faults import differing

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch


def outcome(section: Section, subject: str, case: str) -> tuple[str, str]:
    """Return both outcomes of a row."""
    (row,) = (row for row in section.rows if (row.subject, row.case) == (subject, case))
    return row.ours, row.theirs


def test_the_section_holds() -> None:
    """Oracle: the installed torch; every choice of cache is compared, and every known difference is met."""
    section = torch_cache.compare(0)
    assert section, differing(section)
    assert {row.case for row in section.rows} == {
        f"{low}, {case}"
        for low in ("bfloat16", "float16")
        for case in (*(f"cache={name!r}" for name in caches), "faithful=True")
    }
    assert len({row.subject for row in section.rows}) == len(PROGRAMS) + len(DEFECTS)
    known = {each.name for each in SCALER_DIFFERENCES if each.section == "cache"}
    assert {row.known for row in section.of(Verdict.DOCUMENTED)} == known


@pytest.mark.parametrize(("low", "kept", "fresh"), [("bfloat16", 256, 257), ("float16", 2048, 2049)])
def test_the_gradients_are_those_known_beforehand(low: str, kept: int, fresh: int) -> None:
    """Oracle: 256 + 1 rounded to the 8 bits of bfloat16, 2048 + 1 to the 11 of float16, and in float32."""
    section = torch_cache.compare(0)
    expected = {
        "Two uses in one region": (kept, 3), "One use in each of two regions": (fresh, 4),
        "Two regions inside one": (kept, 3), "Two uses of views of it": (fresh, 4),
        "First used under no_grad": (kept, 4), "One use in a disabled inner region": (fresh, 2),
    }  # fmt: skip
    for subject, (gradient, casts) in expected.items():
        both = outcome(section, subject, f"{low}, cache='torch'")
        assert all(f"gradient {gradient} float32, {casts} casts" in each for each in both), (subject, both)


def test_documented_rows_say_what_is_documented() -> None:
    """Oracle: by hand: two formats meet in torch's product, a square in the wrong format, a stale weight."""
    section = torch_cache.compare(0)
    expected = {
        "An inner region in the other low format": (
            "output 257 float32",
            "refused, two formats in a product",
        ),
        "The weight's square in such an inner region": ("output 1 float16", "output 1 bfloat16"),
        "The weight changed inside the region": ("output 260 bfloat16", "output 256 bfloat16"),
    }
    for subject, (ours, theirs) in expected.items():
        mine, other = outcome(section, subject, "bfloat16, cache='torch'")
        assert ours in mine, subject
        assert theirs in other, subject
        assert theirs in outcome(section, subject, "bfloat16, faithful=True")[0], subject
    mine, other = outcome(section, "First used under no_grad", "bfloat16, cache='torch-before-2.13'")
    assert "gradient none" in mine
    assert "gradient 256" in other


@pytest.mark.parametrize(
    ("cacheable", "found", "unharmed"),
    [
        (False, "Two uses in one region", "Two uses, cache_enabled=False"),
        (True, "Two uses of what was computed from it", "Two uses in one region"),
    ],
)
def test_a_cache_that_keeps_nothing_or_all_is_found(
    monkeypatch: pytest.MonkeyPatch, cacheable: bool, found: str, unharmed: str
) -> None:
    """Oracle: the fault: what is kept is decided wrongly."""
    monkeypatch.setattr(door, "_cacheable", lambda x: cacheable)
    subjects = {subject for subject, _ in differing(torch_cache.compare(0))}
    assert found in subjects
    assert unharmed not in subjects


def test_a_cache_that_takes_one_weight_for_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the fault: every tensor has the same key, and nobody looks whose cast it is."""
    real = door.cast_in_region

    def cast_in_region(x: Any, target: Any, region: Any) -> Any:
        held = region.cache.setdefault("first", x) if door._cacheable(x) else x
        return real(held if held.shape == x.shape else x, target, region)

    monkeypatch.setattr(door, "cast_in_region", cast_in_region)
    assert "Two weights in one region" in {subject for subject, _ in differing(torch_cache.compare(0))}
