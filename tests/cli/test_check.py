"""`minimp check`; oracles: comparisons made up here, exit codes, its JSON, a machine without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minimp.cli import check, check_view, main
from minimp.cli.base import console
from minimp.cli.check_ops import op_lines
from minimp.cli.check_page import page
from minimp.errors import SettingError
from minimp.frameworks import suites
from minimp.frameworks.documented import Difference
from minimp.frameworks.results import Comparison, Row, Section, Verdict
from minimp.frameworks.suites import SUITES, Part, Suite

Capture = pytest.CaptureFixture[str]
KNOWN = Difference(
    "sums-in-16-bits", "torch", "values", ("cumsum",), "*", "torch rounds each running sum.", "torch 2.13.0"
)
EQUAL = Row("softmax", "float16", "float16", "float16", Verdict.AGREES, figures={"ulps": 1.0})
LISTED = Row("cumsum", "bfloat16", "1.0", "1.5", Verdict.DOCUMENTED, known=KNOWN.name, figures={"ulps": 34.0})
WRONG = Row("tanh", "float16", "0.5", "0.25", Verdict.DIFFERS, "outside of the bound", figures={"ulps": 9.0})
REFUSED = Row("lstm", "float16", "float16", "-", Verdict.NOT_COMPARED, "no kernel")
MANY = tuple(Row(f"op{i}", "float16", "float16", "float16", Verdict.AGREES) for i in range(30))


def made(*rows: Row) -> Comparison:
    """Return a comparison of two sections, one of them with `rows`."""
    sections = (
        Section("rules", "rules of autocast", "The same rule.", MANY, seconds=1.0),
        Section("values", "results", "Within the bound.", rows, {"ulps": "max ULP"}, {"values": "99"}),
    )
    versions = {"minimp": "0.1.0", "torch": "2.13.0"}
    return Comparison("torch", versions, "a machine", sections, seconds=2.0)


@pytest.fixture
def giving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Return what puts a made-up comparison in the place of the real one, and lists what was asked for."""
    monkeypatch.setattr(check_view, "DIFFERENCES", (KNOWN,))
    monkeypatch.setattr(check, "sections_of", lambda suite, only: ())
    asked: list[Any] = []

    def give(*rows: Row) -> list[Any]:
        def run(suite: Suite, only: tuple[str, ...], *, seed: int, begin: Any) -> Comparison:
            asked.append((suite.name, only, seed, callable(begin)))
            return made(*rows)

        monkeypatch.setattr(check, "run_suite", run)
        return asked

    return give


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ((EQUAL,), 0),
        ((EQUAL, LISTED), 0),
        ((EQUAL, REFUSED), 0),
        ((EQUAL, LISTED, WRONG), 1),
        ((REFUSED,), 1),
    ],
)
def test_the_exit_code_is_1_on_what_is_not_documented(giving: Any, rows: tuple[Row, ...], code: int) -> None:
    """Oracle: the rows made up here; a section in which nothing was compared proves nothing."""
    giving(*rows)
    assert main(["check", "torch"]) == code


def test_options_reach_the_comparison(giving: Any) -> None:
    """Oracle: what was typed."""
    asked = giving(EQUAL)
    main(["check", "torch", "--only", "values, rules", "--seed", "7"])
    assert asked == [("torch", ("values", "rules"), 7, True)]


def test_the_screen_says_all_in_100_columns(giving: Any, capsys: Capture) -> None:
    """Oracle: the words of each row that is not equal; the width of every line."""
    giving(EQUAL, LISTED, WRONG)
    main(["check", "torch", "--reasons"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    for words in (
        "rules", "30", "sums-in-16-bits (values, 1 row): torch rounds each running sum.",
        "Disagreements (1)", "values: tanh (float16): minimp 0.5, torch 0.25. outside of the bound",
        "values: 99", "max ULP", "DISAGREE: 1 row differs",
    ):  # fmt: skip
        assert words in text
    assert "op17" not in text


def values(op: str, low: str, **figures: Any) -> Row:
    """Return a row of section "values"."""
    counts = dict.fromkeys(("max_ulp", "ours_out", "theirs_out", "otherwise"), 0)
    given = {"elements": 100, "equal": 100} | counts | figures
    verdict = Verdict.DIFFERS if given["ours_out"] else Verdict.AGREES
    return Row(op, f"{low}, result", "", "", verdict, figures=given)


def test_each_op_has_a_line(giving: Any, capsys: Capture) -> None:
    """Oracle: the figures made up here: the worst of an op's rows, and the shares of all their elements."""
    formats = [
        Row(op, f"{device}, float16", "", "", Verdict.AGREES, figures={"of_float32": name})
        for op, device, name in [
            ("tanh", "cpu", "float16"), ("tanh", "cuda", "float32"), ("argmax", "cpu", "int64"),
            ("argmax", "cuda", "int64"),
        ]
    ]  # fmt: skip
    found = Comparison("torch", {}, "a machine", (
        Section("formats", "", "", tuple(formats)),
        Section("values", "", "", (
            values("tanh", "float16", equal=50, max_ulp=3),
            values("tanh", "float16", max_ulp=7, theirs_out=1),
            values("tanh", "bfloat16"), values("exp", "float16", ours_out=2, max_ulp=12_345),
            values("argmax", "float16", otherwise=1),
        )),
    ))  # fmt: skip
    lines = {line.op: line for line in op_lines(found)}
    assert list(lines) == ["argmax", "exp", "tanh"]
    assert lines["tanh"].formats == {"cpu": "low", "cuda": "fp32"}
    assert lines["argmax"].formats == {"cpu": "-", "cuda": "-"}
    assert lines["argmax"].values["float16"] == (100.0, 0, "minimp")
    assert lines["tanh"].values == {"float16": (75.0, 7, "minimp"), "bfloat16": (100.0, 0, "both")}
    assert lines["exp"].values == {"float16": (100.0, 12_345, "NOT minimp"), "bfloat16": None}
    assert lines["exp"].verdict is Verdict.DIFFERS
    giving(EQUAL)
    check_view.show(console(), found)
    text = capsys.readouterr().out
    assert ["tanh", "low", "fp32", "75.0%", "7", "minimp", "100%", "0", "both"] in map(
        str.split, text.splitlines()
    )


def test_a_share_of_100_percent_means_all(capsys: Capture) -> None:
    """Oracle: one element of a million that is not equal."""
    rows = (values("tanh", "float16", elements=10**6, equal=10**6 - 1),)
    check_view.show(console(), Comparison("torch", {}, "", (Section("values", "", "", rows),)))
    assert "99.9%" in capsys.readouterr().out


def test_the_brief_report_has_no_rows(giving: Any, capsys: Capture) -> None:
    """Oracle: the rows made up here; what differs is told all the same."""
    giving(EQUAL, LISTED, WRONG)
    main(["check", "torch", "--brief"])
    text = capsys.readouterr().out
    assert "softmax" not in text
    assert "sums-in-16-bits (1)" in text
    assert "values: tanh (float16)" in text


@pytest.mark.parametrize("width", ["40", "80", "100"])
def test_narrow_screens_lose_no_row(
    giving: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    """Oracle: the number of columns."""
    monkeypatch.setenv("COLUMNS", width)
    giving(EQUAL, LISTED, WRONG)
    main(["check", "torch"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= int(width)


@pytest.mark.parametrize(
    ("option", "shown", "hidden"),
    [
        (["--all"], "op17", "op99"),
        (["--find", "OP17"], "op17", "op18"),
        (["--find", "float16"], "op29", "cumsum"),
    ],
)
def test_rows_can_be_asked_for(
    giving: Any, capsys: Capture, option: list[str], shown: str, hidden: str
) -> None:
    """Oracle: the rows made up here."""
    giving(EQUAL)
    main(["check", "torch", *option])
    text = capsys.readouterr().out
    assert shown in text
    assert hidden not in text


def test_what_nothing_contains_is_told(giving: Any, capsys: Capture) -> None:
    """Oracle: a text that no row made up here contains; and one that some do."""
    giving(EQUAL)
    main(["check", "torch", "--find", "sofmax"])
    assert "Nothing that was compared contains 'sofmax'." in capsys.readouterr().out
    main(["check", "torch", "--find", "softmax"])
    assert "Nothing" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ran", "told"),
    [("2.13.0", False), ("2.13.0+cpu", False), ("2.13.1", True), ("2.12.0+cu130", True), ("2.13.0a0", True)],
)
def test_another_version_than_the_documented_one_is_told(ran: str, told: bool, capsys: Capture) -> None:
    """Oracle: the versions, by hand: a local build of one version is that version."""
    pytest.importorskip("jinja2", reason="needs Jinja2")
    found = replace(made(EQUAL), versions={"torch": ran}, seen_with={"torch": "2.13.0"})
    check_view.show(console(), found)
    words = f"were seen in torch 2.13.0, and this is torch {ran}"
    assert (words in capsys.readouterr().out) is told
    assert (words in page(found)) is told
    assert check_view.as_json(found, 0)["documented_in_versions"] == {"torch": "2.13.0"}


def test_json_has_every_row_and_figure(giving: Any, tmp_path: Path) -> None:
    """Oracle: the rows made up here, read back by Python's JSON."""
    giving(EQUAL, LISTED, WRONG)
    main(["check", "torch", "--json", str(tmp_path / "x.json"), "--seed", "3"])
    found = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert (found["framework"], found["agrees"], found["seed"]) == ("torch", False, 3)
    assert found["documented"] == {KNOWN.name: {"rows": 1, "reason": KNOWN.reason, "source": KNOWN.source}}
    values = found["sections"]["values"]
    assert values["counts"] == {"agrees": 1, "documented": 1, "DIFFERS": 1, "not compared": 0}
    assert [(row["subject"], row["verdict"], row["figures"]) for row in values["rows"]] == [
        ("softmax", "agrees", {"ulps": 1.0}),
        ("cumsum", "documented", {"ulps": 34.0}),
        ("tanh", "DIFFERS", {"ulps": 9.0}),
    ]
    assert len(found["sections"]["rules"]["rows"]) == 30


def test_html_has_every_row(giving: Any, tmp_path: Path) -> None:
    """Oracle: the rows made up here."""
    pytest.importorskip("jinja2", reason="needs Jinja2")
    giving(EQUAL, LISTED, WRONG)
    main(["check", "torch", "--html", str(tmp_path / "x.html")])
    html = (tmp_path / "x.html").read_text("utf-8")
    for words in ("op29", "softmax", "outside of the bound", 'href="#known-sums-in-16-bits"', KNOWN.reason):
        assert words in html


def test_a_file_that_cannot_be_written_is_refused_before_the_work(giving: Any, tmp_path: Path) -> None:
    """Oracle: a folder that is not there; nothing ran."""
    asked = giving(EQUAL)
    assert main(["check", "torch", "--json", str(tmp_path / "no" / "x.json")]) == 2
    assert asked == []


@pytest.mark.parametrize("name", SUITES)
def test_a_missing_framework_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Oracle: an import system that finds none of them."""
    monkeypatch.setattr(suites, "find_spec", lambda _: None)
    assert main(["check", name]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert SUITES[name].install in said.err


def test_without_a_framework_the_choices_are_listed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the table of suites, and an import system that lacks them all."""
    monkeypatch.setattr(check_view, "find_spec", lambda _: None)
    assert main(["check"]) == 0
    text = capsys.readouterr().out
    for suite in SUITES.values():
        assert suite.install in text
        for part in suite.parts:
            assert part.name in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "--all"], "--all cannot act without a framework"),
        (["check", "--json", "x.json"], "--json cannot act"),
        (["check", "--reasons"], "--reasons cannot act"),
        (["check", "torch", "--brief", "--all"], "--brief leaves out what"),
        (["check", "torhc"], "did you mean 'torch'"),
        (["check", "torch", "--only", "vlues"], "unknown section"),
        (["check", "torch", "--seed", "x"], "--seed"),
        (["check", "torch", "--seed", "-1"], "seed: expected a whole number"),
    ],
)
def test_what_cannot_act_is_refused(
    arguments: list[str], words: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: exit code 2 and the words, also where no framework is installed."""
    monkeypatch.setattr(suites, "find_spec", lambda _: True)
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_part_that_needs_more_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a suite made up here, of which one part can run."""
    suite = Suite("made-up", "pip install it", (), (Part("a", "m", ("numpy",)), Part("b", "m", ("nowhere",))))
    assert [part.name for part in suites.sections_of(suite, ("a",))] == ["a"]
    with pytest.raises(SettingError, match="nowhere is not installed; install with: pip install it"):
        suites.sections_of(suite)
