"""What the page of a recording claims; oracles: the recording, arrays by hand, what was not looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import minimp as mp
from minimp import formats, trace
from minimp.memory import ledger
from minimp.pages.charts import Curve, curves
from minimp.trace.events import Side, TraceEvent
from minimp.trace.statistics import measure

pytest.importorskip("jinja2", reason="needs Jinja2")

from minimp.trace.reporting.budget import error_budget
from minimp.trace.reporting.page import report_html
from tests.test_pages import Reader
from tests.trace.cases import batch, grown, make_step
from tests.trace.test_reports import of


def read(made: trace.Trace, **settings: object) -> tuple[Reader, str]:
    """Return what html.parser reads of a page, and its text in one line."""
    page = Reader(report_html(made, **{"title": "Recording", **settings}))
    return page, " ".join(" ".join(page.text).split())


def backward(number: int, module: str, values: list[float], step: int = 1, flushed: int = 0) -> TraceEvent:
    """A gradient with these values."""
    array = np.array(values, np.float16)
    stats = measure(array, formats.float16, array.astype(np.float32))
    side = Side("float16", array.shape, stats, flushed=flushed)
    return TraceEvent(number, "backward", "linear", module, "a.py:1", "backward", step, (), (side,))


def test_what_was_not_looked_at_is_not_called_good() -> None:
    """Oracle: a recording without statistics and one of nothing: no claim that all went well."""
    with trace.record(statistics=False) as blind:
        make_step(scale=2.0**24)(*batch())
    with trace.record() as nothing:
        pass
    for made in (blind, nothing):
        page, text = read(made)
        assert text.count("not counted") == 2
        assert "what was lost is not known" in text
        assert not [each for each in page.tags if "good" in (each[1].get("class") or "").split()]
        assert "None of the recorded results" not in text
    assert "No picture: no statistics were taken." in read(blind)[1]
    assert "There is nothing to judge" in read(nothing)[1]


def test_what_was_let_go_is_not_called_good() -> None:
    """Oracle: a ring that lost its first events: the verdict is on what is left."""
    with trace.record(keep=20) as made:
        for i in range(3):
            make_step()(*batch(i))
    assert made.dropped > 0
    assert "in what is left of the recording: all values are finite" in read(made)[1]


def test_gradients_that_are_gone_are_missed() -> None:
    """Oracle: three places by hand: one lives, one is rounded to 0, one has only zeros to hand on."""
    events = [backward(0, "c", [1.0, 2.0]), backward(1, "b", [0.0, 0.0], flushed=2), backward(2, "a", [0.0])]
    events += [replace(each, number=each.number + 3, step=2) for each in events]
    _, text = read(of(events))
    told = "in 1 of 3 places of the backward pass: nothing but 0 came out, first in a."
    assert told in text
    assert "2 places lost nothing and are not shown; 1 of them gave nothing but 0." in text
    alive = [replace(event, number=i) for i, event in enumerate((events[0], events[1]))]
    assert "No gradient was left" not in read(of(alive))[1]
    assert "Nothing went wrong" in read(of(alive[:1]))[1]


def test_scales_that_lose_nothing_more_do_not_hide_what_is_lost() -> None:
    """Oracle: the trace's own count of what roundings had lost before."""
    with trace.record() as made:
        make_step(change=grown(2, 1.5e5))(*batch())
    lost = made.gradients_at_scales().total.lost
    assert lost > 0
    text = read(made)[1]
    assert text.count(f"{lost:,} had become 0 or infinite by a rounding before they could be counted.") == 2
    assert "lose no gradient;" not in text


def test_the_slider_stands_at_the_scale_of_the_last_step() -> None:
    """Oracle: scales by hand: the last is one that was used before."""
    with trace.record() as made:
        for scale in (2.0**4, 2.0**5, 2.0**4):
            make_step(scale=scale)(*batch())
    page, text = read(made)
    slider = next(attributes for _, attributes in page.tags if attributes.get("id") == "power")
    assert slider["value"] == "4"
    assert "At loss scale 2⁴ = 16:" in text


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_the_parts_of_the_picture_are_named_where_there_is_room(name: str) -> None:
    """Oracle: the widths of the regions: names above where each has a tenth of the width, else below."""
    x = mp.tensor([0.5, 1.0, 2.0], dtype=name, requires_grad=True)
    with trace.record() as made:
        (x * x).sum().backward()
    page, _ = read(made)
    widths = [
        float(each["width"]) for tag, each in page.tags if tag == "rect" and "region" in (each["class"] or "")
    ]
    above = any(each.get("class") == "names" for _, each in page.tags)
    below = any(each.get("class") == "key parts always" for _, each in page.tags)
    assert len(widths) == 4
    assert above is (min(widths) >= 100)
    assert below is not above


def test_errors_of_results_near_zero_leave_room_for_the_others() -> None:
    """Oracle: places on the axis by hand: 10^-4 and 10^-3 stay apart beside 10^12, which is at the end."""
    table = trace.Table(
        "errors", ("op", "module", "phase", "made rel", "inh. rel", "total rel", "made ulp"),
        tuple((op, "m", "forward", x, 0.0, x, 1.0) for op, x in (("a", 1e-4), ("b", 1e-3), ("c", 1e12))),
    )  # fmt: skip
    drawn = error_budget(lambda _: table, rows=9)[0]
    places = [float(row["made_at"]) for row in drawn["rows"]]
    assert places[1] - places[0] > 15
    assert places[2] == 100
    assert (drawn["low"], drawn["high"]) == ("10⁻⁴", "10¹ and more")


def test_a_lone_point_is_a_dot() -> None:
    """Oracle: points by hand: the one between two gaps has a dot, those of a line have none."""
    drawn = curves([Curve("x", [(1, None), (2, 5.0), (3, None), (4, 1.0), (5, 2.0)])],
                   label="x", y_label="y", x_label="x")  # fmt: skip
    assert drawn is not None
    line = drawn["lines"][0]
    assert line["lone"].count("M") == 1
    assert line["path"].startswith(line["lone"])


def test_bytes_of_nothing_have_no_bar() -> None:
    """Oracle: the ledger: one bar for each cause with bytes, and one of full length in each column."""
    held = ledger(make_step(), *batch())
    page, _ = read(of([backward(0, "a", [1.0])]), memory=held)
    bars = [each["style"] for tag, each in page.tags if each.get("class") == "part"]
    columns = [each.as_dict() for each in (held.logical, held.physical)]
    assert len(bars) == sum(value > 0 for column in columns for value in column.values())
    assert bars.count("width:100.0%") >= 2


def test_arrays_are_named_by_step_and_by_which_of_several() -> None:
    """Oracle: the events: a number only where there are several results, the step where there is one."""
    x = mp.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    with trace.record(values="all") as made:
        x.sum().backward()
        make_step()(*batch())
    titles = [each["data-title"] for _, each in read(made)[0].tags if "data-title" in each]
    assert "#0 sum: result" in titles
    assert any("linear backward in 4, step 1: result 1" in each for each in titles)


def test_rows_of_an_answer_by_their_place() -> None:
    """Oracle: by hand; beyond the end an IndexError, as of a list."""
    table = trace.Table("what", ("op", "count"), (("a", 1), ("b", 2)))
    assert table[0] == {"op": "a", "count": 1}
    assert table[-1] == list(table)[1]
    with pytest.raises(IndexError):
        table[2]
