"""Pages of recordings; oracles: Python's HTML parser, formats.inspect, the recording itself, Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import formats, trace
from minimp.errors import DataError, SettingError
from minimp.memory import ledger
from minimp.step import STAGES
from minimp.trace.events import Side, TraceEvent
from minimp.trace.reporting.stages import STAGES as TOLD
from minimp.trace.statistics import measure
from minimp.trace.stores import Memory

pytest.importorskip("jinja2", reason="needs Jinja2")

from minimp.trace.reporting.page import MOST_BYTES, report_html
from tests.test_pages import Reader
from tests.trace.cases import batch, grown, make_model, make_step

OUTSIDE = r"https?:|//[a-z]|@import|url\(|<link|src="


def recorded(**settings: Any) -> trace.Trace:
    """A few steps that lose something both ways."""
    step = make_step(scale=2.0**-14, change=grown(2, 30.0))
    with trace.record(**settings) as made:
        for i in range(4):
            step(*batch(i))
    return made


def page(made: trace.Trace, **settings: Any) -> Reader:
    """Return what html.parser reads of the page; ids are held to be unique."""
    text = report_html(made, **{"title": "Recording", **settings})
    assert len(text.encode()) < MOST_BYTES
    read = Reader(text)
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    read.html = text
    return read


def invented(name: str, number: int = 0, step: int = 1, size: int = 8) -> TraceEvent:
    """An event in which every string is `name`."""
    values = np.linspace(-2, 2, size, dtype=np.float32)
    stats = measure(values, formats.float32, values)
    side = Side("float16", (size,), stats, (name,), name=name, flushed=1, overflowed=1, reach=1e5)
    return TraceEvent(number, "forward", name, name, name, name, step, (side,), (side,), {name: name})


def of(events: list[TraceEvent], **info: Any) -> trace.Trace:
    """A trace that holds events."""
    return trace.Trace(Memory.holding(events, [], {}, 0), info)


PLAIN = len(page(of([invented("plain")], notes={"plain": "plain"}), title="plain", notes="plain").tags)


@given(st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=50) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;", "'\"`", "</style>",
     "{{ 7 * 7 }}"]
))  # fmt: skip
def test_every_string_stays_text(text: str) -> None:
    """Oracle: html.parser: no name adds a tag or an attribute that acts, and it is read back as it was."""
    read = page(of([invented(text)], notes={text: text}), title=text, notes=text)
    assert len(read.tags) == PLAIN
    assert sum(text in each for each in read.text) >= 5
    assert not any(name.startswith("on") for _, attributes in read.tags for name in attributes)


def test_unseen_marks_and_half_characters_are_spelled_out() -> None:
    """Oracle: the page encodes as UTF-8, and has no mark that turns the direction of writing."""
    read = page(of([invented("a\u202eb\ud800c\0")]), title="\u202e\udfff")
    assert read.html.encode()
    assert not {"\u202e", "\0"} & set(read.html)
    assert any("\\u202e" in each for each in read.text)


def test_a_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    """Oracle: what makes a browser fetch; the policy that forbids it; the file is what was made."""
    made = recorded(values="all", shadow=True)
    step = make_step()
    checks = {stage.name: stage.check() for stage in step.stages(*batch())}
    path = made.report(tmp_path / "r.html", memory=ledger(step, *batch()), checks=checks)
    text = path.read_text("utf-8")
    assert not re.findall(OUTSIDE, text)
    assert "default-src 'none'" in text
    assert len(text) < 1_000_000
    for heading in ("Error budget", "Memory, by cause", "Stages of a training step", "holds"):
        assert heading in text


def test_layers_on_codes_have_a_page(tmp_path: Path) -> None:
    """Oracle: the name of its op on the page; weights in int8 have no binades to draw."""
    model, _ = mp.quant.quantize_dynamic(make_model())
    with trace.record(shadow=True, values="all") as made:
        model(mp.tensor(batch()[0]))
    text = made.report(tmp_path / "t.html").read_text("utf-8")
    assert made.events[0].op in text


def test_the_page_tells_what_the_trace_answers() -> None:
    """Oracle: the recording's own answers."""
    made = recorded(shadow=True)
    text = " ".join(page(made).text)
    first = made.first_nonfinite()
    flushed = sum(event.flushed for event in made.events)
    assert flushed > 0
    assert f"{flushed:,} of" in text
    assert first is None
    whole = made.gradients_at_scales().total
    fate = whole.at(-14)
    assert f"({fate.flushed:,}) become 0" in text or not fate.flushed
    low, high = made.gradients_at_scales().powers() or (0, 0)
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    assert f"2{str(low).translate(raised)} to 2{str(high).translate(raised)}" in text


def test_the_first_fault_is_named() -> None:
    """Oracle: a layer whose weights were multiplied by hand."""
    with trace.record() as made:
        make_step(change=grown(2, 1.5e5))(*batch())
    text = " ".join(page(made).text)
    assert "First value that is not finite: linear in module 2" in text
    assert "65,504" in text


@pytest.mark.parametrize(
    "settings", [{}, {"statistics": False}, {"shadow": True}, {"keep": 7}, {"values": "all"}]
)
def test_recordings_of_little_make_a_page(settings: dict[str, Any]) -> None:
    """Oracle: html.parser, on recordings of nothing, of no gradients, and of infinities and NaN alone."""
    with trace.record(**settings) as nothing:
        pass
    with trace.record(**settings) as forward:
        mp.tensor([1.0, 2.0], dtype=mp.float16) * 3.0
    with trace.record(**settings) as broken:
        x = mp.tensor(np.full(4, np.nan, np.float32), requires_grad=True)
        (x * float("inf")).sum().backward()
    for made in (nothing, forward, broken):
        read = page(made)
        places = {"d", "x", "y", "width", "height", "transform", "style"}
        drawn = [
            value or "" for _, attributes in read.tags for name, value in attributes.items() if name in places
        ]
        assert not [value for value in drawn if re.search("nan|inf", value)]
    why = "no gradients" if settings.get("statistics", True) else "no statistics were taken"
    assert any(why in each for each in page(forward).text)


def test_losses_that_are_not_finite_become_marks() -> None:
    """Oracle: the losses that were put in by hand; no path holds a word."""
    events = []
    for i, loss in enumerate((1.0, np.inf, 0.5, np.nan, -3e38)):
        values = np.array([loss], np.float32)
        side = Side("float32", (), measure(values, formats.float32, values), name="loss")
        events.append(TraceEvent(i, "stage", "loss", "", "", "loss", i + 1, (), (side,)))
    read = page(of(events))
    assert any("not finite (2)" in each for each in read.text)
    paths = [attributes["d"] for tag, attributes in read.tags if tag == "path"]
    assert paths
    assert all(re.fullmatch(r"[MLHVh\d\s.\-]*", path) for path in paths)


def test_a_page_of_a_huge_trace_is_small() -> None:
    """Oracle: the bound; long names, many modules, many steps; the page says what it leaves out."""
    events = [invented(f"{'x' * 400}{i % 500}", i, i // 500 + 1) for i in range(20_000)]
    read = page(of(events), notes="n" * 10**6)
    assert any("left out" in each for each in read.text)
    values = np.zeros(50_000, np.float64)
    kept = {i: {"out0": values} for i in range(300)}
    full = [replace(event, values=("out0",), outputs=(replace(event.outputs[0], format="float64"),))
            for event in events[:300]]  # fmt: skip
    page(trace.Trace(Memory.holding(full, [], kept, 0)))


def test_tables_of_values_show_the_bits() -> None:
    """Oracle: NumPy's view of the recorded arrays; formats.inspect takes the elements apart."""
    made = recorded(values="all")
    read = page(made)
    for _, attributes in read.tags:
        if "data-codes" in attributes and attributes["data-format"] == "float16":
            codes = bytes.fromhex(attributes["data-codes"])
            number = int(re.match(r"#(\d+)", attributes["data-title"]).group(1))
            arrays = [
                a.reshape(-1)[:1024].astype(">f2").tobytes()
                for a in made.values(number).values()
                if a.dtype == np.float16
            ]
            assert codes in arrays
    array = mp.tensor([1.0, -6e-8, float("inf"), float("nan")], dtype=mp.float16)
    with trace.record(values="all") as small:
        array * 1.0
    words = page(small).text
    for expected in ("0 | 01111 | 0000000000", "1 | 00000 | 0000000001", "subnormal", "inf", "nan"):
        assert expected in words


def test_equations_are_those_of_the_step() -> None:
    """Oracle: minimp.step.STAGES, which stands above this package."""
    assert {name: equation for name, (equation, _) in TOLD.items()} == dict(STAGES)


def test_a_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the folder's contents; the name of the extra."""
    with pytest.raises(DataError, match="folder"):
        recorded().report(tmp_path / "missing" / "r.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SettingError, match=r"minimp\[report\]"):
        recorded().report(tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


# ---- in a browser ------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
    "--virtual-time-budget=2000", "--dump-dom",
)  # fmt: skip
USE = """
<script>
const results = {};
const press = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const said = id => document.getElementById(id).textContent;
const power = document.getElementById("power");
power.value = "3"; power.dispatchEvent(new Event("input"));
results.fate = said("fate");
results.moved = document.getElementById("moving").getAttribute("transform");
const cell = document.querySelector("table.heat td[class]");
cell.focus(); results.heat = said("read-under"); results.told = cell.title;
press(cell, "ArrowRight"); const right = document.activeElement; right.focus();
press(cell, "ArrowDown"); const under = document.activeElement;
results.keys = [right.cellIndex - cell.cellIndex, right.parentNode === cell.parentNode,
  under.parentNode.rowIndex - cell.parentNode.rowIndex];
const all = [...document.querySelectorAll("details.tensor")], which = document.getElementById("which");
const grid = document.getElementById("cells"), seen = [];
for (let i = 0; i < all.length; i++) {
  which.selectedIndex = i; which.dispatchEvent(new Event("change"));
  const rows = [...all[i].querySelectorAll("tbody tr")]
    .map(row => [...row.cells].map(each => each.textContent));
  for (const row of rows.slice(0, 3)) {
    press(grid, "Home");
    for (let n = 0; n < Number(row[0].replace(",", "")); n++) press(grid, "ArrowRight");
    const bits = [...document.querySelectorAll("#bits span")]
      .map(each => each.lastChild.textContent).join(" | ");
    const one = Object.fromEntries([...document.querySelectorAll("#one dt")]
      .map(dt => [dt.textContent, dt.nextSibling.textContent]));
    seen.push([row, bits, one]);
  }
}
results.seen = seen;
which.selectedIndex = 0; which.dispatchEvent(new Event("change"));
press(grid, "End"); results.end = said("place");
press(grid, "Home"); document.getElementById("odd").click(); results.odd = said("place");
document.getElementById("more").click(); results.more = said("place");
results.width = document.documentElement.scrollWidth;
results.plain = document.getElementById("plain").hidden;
const out = document.createElement("pre"); out.id = "results";
out.textContent = JSON.stringify(results); document.body.append(out);
</script></body>"""


def browse(path: Path, width: int = 800, *flags: str) -> tuple[str, str]:
    """Open a page in Chromium; return its document afterwards, and what the console said."""
    command = [
        str(CHROMIUM),
        *FLAGS,
        *flags,
        f"--window-size={width},900",
        f"--user-data-dir={path.parent / 'chromium'}",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    """Oracle: Chromium: nothing on the console, the slider and the maps say what the tables say, the viewer's
    JavaScript takes elements apart as formats.inspect does.
    """  # fmt: skip
    made = recorded(values="all", shadow=True)
    text = report_html(made, title="<script>alert(1)</script>")
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", USE), "utf-8")
    dom, console = browse(path)
    assert console == ""
    found = json.loads(html.unescape(re.search(r'<pre id="results">(.*?)</pre>', dom, re.DOTALL).group(1)))
    fate = made.gradients_at_scales().total.at(3)
    assert "2³ = 8" in found["fate"]
    assert f"({fate.overflowed:,})" in found["fate"] or not fate.overflowed
    assert found["moved"].startswith("translate(")
    assert found["heat"] == found["told"] != ""
    assert found["keys"][0] > 0
    assert found["keys"][1:] == [True, 1]
    assert found["plain"] is True
    assert found["end"].startswith("element ")
    assert len(found["seen"]) > 60
    kinds = {"zero": "zero", "subnormal": "subnormal", "normal": "normal", "infinite": "inf", "NaN": "nan"}
    for row, bits, one in found["seen"]:
        assert bits == row[2]
        assert kinds[one["class"]] == row[3]
        assert float(one["value"].split()[0].replace("Infinity", "inf")) == pytest.approx(
            float(row[1]), rel=1e-5, nan_ok=True
        )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_telephone_needs_no_sideways_scrolling(tmp_path: Path) -> None:
    """Oracle: Chromium's own layout, in a frame of 360 pixels."""
    path = tmp_path / "page.html"
    inner = report_html(recorded(values="all", shadow=True), title="x" * 80)
    framed = f'<iframe style="width:360px;height:800px;border:0" srcdoc="{html.escape(inner)}"></iframe>'
    probe = """<script>onload = () => {
      const inner = document.querySelector("iframe").contentDocument;
      document.title = inner.documentElement.scrollWidth;
    }</script>"""
    path.write_text(f"<!doctype html><title></title>{framed}{probe}", "utf-8")
    dom, _ = browse(path)
    assert 0 < int(re.search("<title>(.*?)</title>", dom).group(1)) <= 360
