"""From arrays to rows; oracles: by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp.frameworks.documented import DIFFERENCES
from minimp.frameworks.integers.beside import Excuse, apart, beside, nearest, same
from minimp.frameworks.results import Verdict

NAN, INF = np.nan, np.inf


def single(*values: float) -> Any:
    """Return float32 numbers."""
    return np.array(values, np.float32)


def test_same_is_to_the_last_bit() -> None:
    """Oracle: by hand: NaN is NaN, 0 is -0, the next number is another."""
    a = single(1.0, NAN, 0.0, INF, 1.0)
    b = single(1.0, NAN, -0.0, -INF, np.nextafter(np.float32(1), np.float32(2)))
    assert same(a, b).tolist() == [True, True, True, False, False]
    with pytest.raises(TypeError, match=r"float32 \(5,\) beside float32 \(4,\)"):
        same(a, b[:4])
    with pytest.raises(TypeError, match=r"float32 .* beside float64"):
        same(a, b.astype(np.float64))


def test_distances() -> None:
    """Oracle: by hand: codes; floats in parts of the larger one; NaN beside a number is infinitely far."""
    assert apart(np.array([0, 255], np.uint8), np.array([3, 250], np.uint8)) == 5.0
    assert apart(single(4.0, 1.0), single(3.0, 1.0)) == 0.25
    assert apart(single(NAN), single(1.0)) == INF
    assert apart(single(NAN, INF), single(NAN, INF)) == 0.0
    assert apart(single(), single()) == 0.0


@pytest.mark.parametrize(
    ("code", "exact", "slack", "holds"),
    [
        (3, 2.5, 0.0, True), (2, 2.5, 0.0, True), (3, 2.49, 0.0, False), (3, 2.49, 0.0001, True),
        (4, 2.5, 0.0001, False), (255, 300.0, 0.0, True), (254, 300.0, 0.0, False), (0, -7.0, 0.0, True),
    ],
)  # fmt: skip
def test_a_nearest_code(code: int, exact: float, slack: float, holds: bool) -> None:
    """Oracle: by hand: either side of a tie, a little further with slack, and the ends of the codes."""
    assert nearest(np.array([code], np.uint8), np.array([exact]), slack) is holds


def test_rows() -> None:
    """Oracle: by hand: equal; explained by the second reason; by none; by one unheard of; ours wrong."""
    a, b = (np.array(each, np.uint8) for each in ([1, 2, 3], [1, 2, 5]))
    row = beside("sums", "fbgemm, codes 0..255, linear", (a, a), (a, a))
    assert (row.verdict, row.ours, row.theirs) == (Verdict.AGREES, "6 the same", "6 the same")
    assert row.figures == {"elements": 6, "others": 0, "apart": 0.0}
    tried: list[str] = []

    def reason(name: str, holds: bool) -> Any:
        def trial() -> bool:
            tried.append(name)
            return holds

        return trial

    reasons = {
        "no": reason("no", False),
        "cut off at int16": reason("cut", True),
        "more": reason("more", True),
    }
    row = beside("sums", "fbgemm, codes 0..255, linear", (a, a), (a, b), Excuse(lambda: True, reasons))
    assert (row.verdict, row.known) == (Verdict.DOCUMENTED, "sums-cut-off-at-int16")
    assert row.case == "cut off at int16: fbgemm, codes 0..255, linear"
    assert (row.ours, row.theirs) == ("3 at (2,)", "5 at (2,); 1 of 6 differ")
    assert (row.figures, tried) == ({"elements": 6, "others": 1, "apart": 2.0}, ["no", "cut"])
    for why in ({}, {"no": reason("no", False)}, {"unheard of": reason("x", True)}):
        row = beside("sums", "fbgemm, codes 0..255, linear", (a,), (b,), Excuse(lambda: True, why))
        assert row.verdict is Verdict.DIFFERS
    wrong = Excuse(lambda: False, {"cut off at int16": reason("cut", True)})
    assert beside("sums", "fbgemm, codes 0..255, linear", (a,), (b,), wrong).verdict is Verdict.DIFFERS


def test_a_reason_excuses_no_row_that_was_not_tried() -> None:
    """Oracle: the table: what is tried begins a case, before a colon; edges are whole cases of their own."""
    ours = [each for each in DIFFERENCES if each.section == "integers"]
    edges = {"nothing-observed", "infinite-ranges", "ranges-of-nan", "empty-batches", "scales-that-cannot-be",
             "bias-beyond-int32"}  # fmt: skip
    assert edges < {each.name for each in ours}
    for each in ours:
        assert (": " in each.cases.replace("*", "")) is (each.name not in edges), each.name
        plain = "fbgemm, codes 0..255, linear", "qnnpack, quint8, 3", "quint8, ties, any z, axis 0"
        assert not any(each.covers(each.framework, "integers", each.subjects[0], case) for case in plain)
