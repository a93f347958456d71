"""Rows, sections, verdicts and suites; oracles: counts by hand, parts made up here."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from minimp.errors import SettingError
from minimp.frameworks import suites
from minimp.frameworks.results import Comparison, Row, Section, Verdict
from minimp.frameworks.suites import SUITES, Part, Suite, run_suite, sections_of


def row(verdict: Verdict, subject: str = "add") -> Row:
    """Return a row of a verdict."""
    return Row(subject, "float16", "1", "1", verdict)


@pytest.mark.parametrize(
    ("verdicts", "holds"),
    [
        ([Verdict.AGREES], True),
        ([Verdict.AGREES, Verdict.DOCUMENTED, Verdict.NOT_COMPARED], True),
        ([Verdict.DOCUMENTED], True),
        ([Verdict.AGREES, Verdict.DIFFERS], False),
        ([Verdict.DIFFERS], False),
        ([Verdict.NOT_COMPARED], False),
        ([], False),
    ],
)
def test_a_section_holds_if_something_was_compared_and_nothing_differs(
    verdicts: list[Verdict], holds: bool
) -> None:
    """Oracle: by hand: a reason excuses a difference, and what was not compared proves nothing."""
    section = Section("values", "", "", tuple(row(verdict) for verdict in verdicts))
    assert bool(section) is holds
    assert bool(Comparison("torch", {}, "", (section,))) is holds


def test_counts_add_up_over_sections() -> None:
    """Oracle: counted by hand."""
    one = Section("a", "", "", (row(Verdict.AGREES), row(Verdict.DIFFERS, "mul")))
    two = Section("b", "", "", (row(Verdict.AGREES), row(Verdict.DOCUMENTED)))
    both = Comparison("torch", {}, "", (one, two))
    assert both.counts == {Verdict.AGREES: 2, Verdict.DIFFERS: 1, Verdict.DOCUMENTED: 1}
    assert [each.name for each in both] == ["a", "b"]
    assert [each.subject for each in one.of(Verdict.DIFFERS)] == ["mul"]
    assert not both
    assert not Comparison("torch", {}, "", ())


def test_a_suite_runs_its_parts_in_order_with_one_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what two made-up parts were called with."""
    seen: list[tuple[str, int]] = []
    for name in ("one", "two"):
        module = ModuleType(f"made_up_{name}")

        def compare(seed: int, name: str = name) -> Section:
            seen.append((name, seed))
            return Section(name, "", "", (row(Verdict.AGREES),))

        module.compare = compare
        monkeypatch.setitem(sys.modules, module.__name__, module)
    suite = Suite("made-up", "", ("numpy",), tuple(Part(n, f"made_up_{n}", ()) for n in ("one", "two")))
    begun: list[str] = []
    found = run_suite(suite, seed=7, begin=begun.append)
    assert (seen, begun) == ([("one", 7), ("two", 7)], ["one", "two"])
    assert found
    assert all(section.seconds >= 0 for section in found)
    assert set(found.versions) == {"minimp", "numpy", "python"}
    assert [section.name for section in run_suite(suite, ("two",))] == ["two"]


def test_an_unknown_part_is_refused_with_the_nearest() -> None:
    """Oracle: the parts of torch's suite: "value" is near "values"."""
    with pytest.raises(SettingError, match="values"):
        sections_of(SUITES["torch"], ("value",))


def test_a_missing_framework_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Oracle: a machine on which no module is found."""
    monkeypatch.setattr(suites, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"torch is not installed.*pip install"):
        sections_of(SUITES["torch"])
