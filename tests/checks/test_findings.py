"""Findings; oracle: records written out by hand, and the width of a page."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from minimp.checks import Finding, Findings, merge
from minimp.checks.findings import compare

ONE = Finding("equals the reference", "1.0 within 1e-07", "2.0", "layer.weight[3]")


def test_findings_are_true_when_nothing_is_wrong() -> None:
    """Oracle: the truth of an empty and of a filled record; both are frozen."""
    assert Findings("nothing", (), ("all is said",))
    assert not Findings("something", (ONE,))
    assert len(Findings("something", (ONE, ONE))) == 2
    assert list(Findings("something", (ONE,))) == [ONE]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ONE.what = "other"  # type: ignore[misc]  # the fault under test


def test_findings_read_as_text() -> None:
    """Oracle: the two texts, word for word."""
    assert str(Findings("w16 = round(w32)", checked=1200)) == "ok: w16 = round(w32) (1,200 values)"
    told = Findings("w16 = round(w32)", (ONE,), ("2 overflowed",), 12)
    assert str(told) == (
        "WRONG: w16 = round(w32) (12 values)\n"
        "  - layer.weight[3]: equals the reference; expected 1.0 within 1e-07, got 2.0\n"
        "  note: 2 overflowed"
    )


def test_no_line_is_wider_than_a_page() -> None:
    """Oracle: 100 columns, with long names, claims and notes; many findings are cut short."""
    long = Finding("what " * 30, "expected " * 20, "got " * 30, "where." * 10)
    text = str(Findings("claim " * 40, (long,) * 30, ("note " * 40,)))
    assert max(map(len, text.split("\n"))) <= 100
    assert "  - and 10 more" in text


def test_merging_keeps_everything_once() -> None:
    """Oracle: two records joined by hand."""
    parts = [Findings("a", (ONE,), ("n",), 3), Findings("b", (), ("n", "m"), 4)]
    assert merge("both", parts) == Findings("both", (ONE,), ("n", "m"), 7)


def test_comparing_tells_the_worst_element() -> None:
    """Oracle: three elements, the second furthest beyond its allowance, though the third is further off."""
    got, wanted = np.array([1.0, 2.0, 9.0], np.float32), np.zeros(3)
    allowed = np.array([1.0, 0.1, 5.0])
    (finding,) = compare("is near", "x", got, wanted, np.abs(got) > allowed, detail=allowed)
    assert finding == Finding("is near (2 of 3 elements)", "0.0 within 0.1", "2.0", "x[1]")
    assert compare("is near", "x", got, wanted, np.zeros(3, bool)) == ()
    (scalar,) = compare("is right", "loss", np.float32(np.nan) * np.ones(()), np.ones(()), np.ones((), bool))
    assert scalar == Finding("is right", "1.0", "nan", "loss")
