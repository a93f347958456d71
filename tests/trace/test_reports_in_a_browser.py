"""Pages as Chromium lays them out: at three widths, light and dark, everything opened."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minimp import formats, trace
from minimp.experiments import EXPERIMENTS
from minimp.trace.events import Side, TraceEvent
from minimp.trace.statistics import measure

pytest.importorskip("jinja2", reason="needs Jinja2")

from minimp.cli.compare_page import page as compared
from minimp.trace.reporting.page import report_html
from tests.cli.test_compare_report import OUTCOME
from tests.trace.cases import batch, grown, make_step
from tests.trace.test_reports import CHROMIUM, browse, of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]

WIDTHS = (360, 800, 1400)
PROBE = """
<script>
const numbers = colour => [...colour.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const linear = x => x <= 0.04045 * 255 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4;
const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
function faint(inner, style) {
  const found = {}, texts = inner.createTreeWalker(inner.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const owner = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || owner.closest(".sr, script, style")) continue;
    if (!owner.getClientRects().length) continue;
    const layers = [];
    for (let each = owner; each; each = each.parentElement)
      layers.unshift(numbers(style(each).backgroundColor));
    const paper = layers.reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
    const pair = [light(over(numbers(style(owner).color), paper)), light(paper)].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < 4.5) found[owner.className + ": " + texts.currentNode.data.slice(0, 30)] = contrast;
  }
  return found;
}
onload = () => {
  const seen = [...document.querySelectorAll("iframe")].map(frame => {
    const inner = frame.contentDocument, style = each => frame.contentWindow.getComputedStyle(each);
    for (const each of inner.querySelectorAll("details")) each.open = true;
    const labels = [...inner.querySelectorAll(".xs, .ys, .names")].map(axis => {
      const boxes = [...axis.children].map(each => each.getBoundingClientRect());
      return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right && b.left < a.right
                                                             && a.top < b.bottom && b.top < a.bottom));
    });
    const names = [...inner.querySelectorAll(".names span")];
    return { width: inner.documentElement.scrollWidth, wide: Number(frame.dataset.width),
             over: labels.filter(Boolean).length, axes: labels.length,
             cut: names.filter(each => each.scrollWidth > each.clientWidth).length,
             faint: faint(inner, style), paper: style(inner.body).backgroundColor };
  });
  const out = document.createElement("pre"); out.id = "results"; out.textContent = JSON.stringify(seen);
  document.body.append(out);
}
</script>"""


def training() -> str:
    """A page with everything on it."""
    step = make_step(scale=2.0**-14, change=grown(2, 30.0))
    with trace.record(values="all", shadow=True) as made:
        for i in range(60):
            step(*batch(i))
    checks = {stage.name: stage.check() for stage in step.stages(*batch())}
    memory = {"weights": 10**9, "optimizer": 3 * 10**9, "nothing": 0}
    return report_html(made, title="x" * 80, checks=checks, memory=memory)


def long_names() -> str:
    """A page whose modules have long names, and whose gradients were those of bfloat16."""
    values = np.linspace(-2, 2, 64, dtype=np.float32)
    stats = measure(values, formats.bfloat16, values, (formats.bfloat16,))
    side = Side("bfloat16", (64,), stats, flushed=9, overflowed=9, reach=1e39)
    names = [f"{'encoder.' * 20}{i}" for i in range(9)]
    events = [
        TraceEvent(i, "backward", "linear", names[i % 9], "a.py:1", "backward", 1 + i // 9, (), (side,))
        for i in range(900)
    ]
    return report_html(of(events), title="names")


def recipes() -> str:
    """The page of recipes side by side."""
    names = ("fp32", "mixed-fp16", "a-recipe-of-a-long-name", "mixed-bf16", "fp8")
    losses = tuple(1.0 / (1 + i) for i in range(300))
    rows = [
        (replace(OUTCOME, recipe=name, losses=losses, loss_scales=(2.0**16,) * 300), "As good.")
        for name in names
    ]
    return compared([(EXPERIMENTS["loss-scaling"], "what was run " * 20, rows)], "what the figures are")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_pages_keep_their_width_their_labels_apart_and_their_text_readable(
    scheme: str, tmp_path: Path
) -> None:
    """Oracle: Chromium: nothing wider than the window, no label upon another, WCAG 2.2's contrast of 4.5."""
    texts = [html.escape(text) for text in (training(), long_names(), recipes())]
    frames = "".join(
        f'<iframe data-width="{width}" style="width:{width}px;border:0" srcdoc="{text}"></iframe>'
        for text in texts
        for width in WIDTHS
    )
    path = tmp_path / "page.html"
    # without a charset Chromium guesses from the bytes it has read by then: raised digits may grow wide
    head = '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
    path.write_text(f"{head}{frames}{PROBE}", "utf-8")
    dom, console = browse(path, 1500, f"--blink-settings=preferredColorScheme={int(scheme == 'light')}")
    assert console == ""
    found = json.loads(html.unescape(re.search(r'<pre id="results">(.*?)</pre>', dom, re.DOTALL).group(1)))
    assert len(found) == 9
    for each in found:
        assert each["axes"] > 0
        assert 0 < each["width"] <= each["wide"]
        assert each["over"] == 0
        assert each["cut"] == 0
        assert each["faint"] == {}
        assert (each["paper"] == "rgb(255, 255, 255)") is (scheme == "light")
