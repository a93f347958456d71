"""The suites as they are wired; oracles: the modules that they name, and frameworks that are not there."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest

from minimp.errors import SettingError
from minimp.frameworks import suites
from minimp.frameworks.documented import DIFFERENCES, known_difference
from minimp.frameworks.documented.scalers import SCALER_DIFFERENCES
from minimp.frameworks.suites import SUITES, run_suite, sections_of


def test_torchs_sections_are_all_there() -> None:
    """Oracle: what `minimp check torch` is to compare, in the order in which it is told."""
    assert [part.name for part in SUITES["torch"].parts] == [
        "formats",
        "values",
        "scaler",
        "cache",
        "integers",
        "training",
    ]
    assert [part.name for part in SUITES["jax"].parts] == ["scalers"]
    assert [part.name for part in SUITES["keras"].parts] == ["scaler"]
    assert [part.name for part in SUITES["onnx"].parts] == ["integers"]


@pytest.mark.parametrize(
    "module",
    [part.module for suite in SUITES.values() for part in suite.parts],
    ids=lambda x: x.split(".")[-1],
)
def test_each_section_is_a_module_that_loads_without_its_framework(module: str) -> None:
    """Oracle: the import itself, and a callable of that name: nothing is loaded before it runs."""
    assert callable(import_module(module).compare)


@pytest.mark.parametrize(
    ("framework", "absent", "told"),
    [
        ("torch", ("torch",), "torch is not installed"),
        ("jax", ("jax", "jmp", "flax"), "flax and jax and jmp are not installed"),
        ("jax", ("jmp",), "jmp is not installed"),
        ("keras", ("keras",), "keras is not installed"),
        ("onnx", ("onnx",), "onnx is not installed"),
    ],
)
def test_a_framework_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, framework: str, absent: tuple[str, ...], told: str
) -> None:
    """Oracle: one line: what is missing and the command that installs it; nothing has run."""
    monkeypatch.setattr(suites, "find_spec", lambda name: None if name in absent else find_spec("numpy"))
    monkeypatch.setattr(suites, "_run", lambda *_: pytest.fail("a section has run"))
    with pytest.raises(SettingError) as refused:
        run_suite(SUITES[framework])
    assert str(refused.value) == f'{told}; install with: pip install "minimp[{framework}]"'


@pytest.mark.parametrize(("framework", "name"), [("torch", "scalar"), ("jax", "scaler"), ("keras", "values")])
def test_an_unknown_section_is_refused(framework: str, name: str) -> None:
    """Oracle: the names of the sections, which the message lists or from which it offers the nearest."""
    with pytest.raises(SettingError, match=f"section of the comparison with {framework}.*{name}.*scaler"):
        sections_of(SUITES[framework], (name,))


def test_only_some_sections_need_only_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the parts that are asked for, in the suite's order."""
    monkeypatch.setattr(suites, "find_spec", lambda name: find_spec("numpy"))
    chosen = sections_of(SUITES["torch"], ("cache", "scaler"))
    assert [part.name for part in chosen] == ["scaler", "cache"]


def test_known_differences_are_listed_once_and_with_reasons() -> None:
    """Oracle: the table: frameworks and sections that there are; a name of a scaler's stands in one row."""
    names = [each.name for each in SCALER_DIFFERENCES]
    assert len(names) == len(set(names))
    for each in DIFFERENCES:
        assert each.section in {part.name for part in SUITES[each.framework].parts}, each.name
        assert len(each.reason.split()) > 8, each.name
        assert any(character.isdigit() for character in each.source), each.name


def test_each_documented_difference_was_seen_in_the_version_that_a_report_names() -> None:
    """Oracle: the sources of the differences, which name frameworks and versions."""
    for each in DIFFERENCES:
        seen = SUITES[each.framework].seen_with
        named = [f"{name} {number}".lower() in each.source.lower() for name, number in seen.items()]
        assert any(named) or "pytorch#" in each.source or "IEEE" in each.source, each.name


def test_a_difference_is_known_in_its_own_place_alone() -> None:
    """Oracle: by hand: the same subject in another section, another framework, another case."""
    assert known_difference("torch", "scaler", "update", "to NaN").name == "a-scale-of-nan"
    assert known_difference("torch", "cache", "update", "to NaN") is None
    assert known_difference("jax", "scaler", "update", "to NaN") is None
    assert known_difference("torch", "scaler", "update", "to infinity") is None
