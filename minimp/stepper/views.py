"""What is seen of a moment, as lines of text: equation, tensors, statistics, and a histogram by binade."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from minimp import formats
from minimp.errors import FormatError
from minimp.step import STAGES
from minimp.stepper.outcomes import Outcome, beside, scale_text
from minimp.stepper.running import OURSELVES
from minimp.trace.questions.tables import number

if TYPE_CHECKING:
    from minimp.checks import Findings
    from minimp.stepper.running import Moment
    from minimp.stepper.session import Session
    from minimp.trace.events import Side, TraceEvent
    from minimp.trace.statistics import Stats

__all__ = [
    "Row",
    "comparison",
    "headline",
    "histogram",
    "listing",
    "moment_lines",
    "place",
    "seen",
    "table",
    "tensors",
]

WRAPPED = 100
"""The columns at which checks and traces wrap what they say."""
BULLETS = ("<-", "-", "note:")
"""What begins a line that is no rest of the one before."""
MOST_BINADES = 14
MOST_TENSORS = 12


@dataclass(frozen=True)
class Row:
    """One line of the list of stages and ops.

    Attributes:
        text: what it says.
        cursor: the moment that it stands for; None of a stage that has not run.
        here: whether the session is there.
    """

    text: str
    cursor: int | None
    here: bool


def table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return lines of cells in columns, two spaces apart; `right` are aligned to the right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def cut(text: str, width: int) -> str:
    """Return at most so many columns of a text."""
    return text if len(text) <= width else text[: width - 3] + "..."


def sourceless(text: str) -> str:
    """Return what is said of events without the source of those that no line of the user's called."""
    return text.replace(f" at {OURSELVES}:", ":")


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Return a text in lines of at most so many columns."""
    return wrap(text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False)


def refitted(text: str, width: int) -> list[str]:
    """Return a text that has lines; those too long for so many columns are wrapped."""
    lines = []
    for line in _unwrapped(text.split("\n")):
        indent = line[: len(line) - len(line.lstrip())]
        lines += wrapped(line.strip(), width, indent) if len(line) > width else [line]
    return lines


def _unwrapped(lines: Iterable[str]) -> list[str]:
    """Put together what was wrapped: lines whose first word had no room in the one before."""
    made: list[str] = []
    room = 0
    for line in lines:
        first, *_ = line.split() or [""]
        if room and first not in BULLETS and len(first) + 1 > room:
            made[-1] += " " + line.strip()
        else:
            made.append(line)
        room = 0 if not line.strip() or line.endswith("...") else max(WRAPPED + 1 - len(line), 0)
    return made


# ---- where ------------------------------------------------------------------------------------------------


def place(session: Session) -> str:
    """Return where the session is, in one line: step, stage, op, and what was changed."""
    parts = [f"step {session.number}"]
    run = session.run
    if run is None or session.stage is None:
        parts.append("before the first stage")
    else:
        parts.append(f"stage {run.done}/{len(STAGES)} {session.stage.name}")
        ops = run.ends[-1] - run.first - 1
        parts.append(
            f"op {session.cursor - run.first + 1}/{ops}" if not session.at_end else f"end, {ops} ops"
        )
    if session.edits:
        parts.append(f"{len(session.edits)} changed")
    return ", ".join(parts)


def listing(session: Session) -> list[Row]:
    """Return the stages of the step, and under those that have run their ops."""
    rows = []
    run = session.run
    for i, name in enumerate(STAGES):
        if run is None or i >= run.done:
            rows.append(Row(f"{i + 1:2} {name}", None, here=False))
            continue
        end = run.ends[i] - 1
        rows.append(Row(f"{i + 1:2} {name}{_marks(run.moments[end].event)}", end, session.cursor == end))
        first = run.ends[i - 1] if i else 0
        for cursor in range(first, end):
            event = run.moments[cursor].event
            rows.append(Row(f"    {short(event)}", cursor, session.cursor == cursor))
    return rows


def short(event: TraceEvent) -> str:
    """Return "linear 0", "linear' 0" (its gradient), "cast 0.weight to float16"; and what is wrong."""
    sides = [side for side in event.outputs if side is not None]
    prime = "'" if event.phase == "backward" else ""
    to = f" to {sides[0].format}" if event.op == "cast" and sides else ""
    ends = event.outputs if event.phase == "backward" else event.inputs
    names = [link for side in ends if side is not None for link in side.links if isinstance(link, str)]
    of = names[0] if event.op == "cast" and names else event.module
    return f"{event.op}{prime}{f' {of}' if of else ''}{to}{_marks(event)}"


def _marks(event: TraceEvent) -> str:
    """Return what is wrong with an event, in few letters: NaN, inf, flushed."""
    said = []
    for word, count in (("nan", _sum(event, "nan")), ("inf", _sum(event, "inf")), ("lost", event.flushed)):
        if count:
            said.append(word)
    return f" !{','.join(said)}" if said else ""


def _sum(event: TraceEvent, name: str) -> int:
    return sum(getattr(side.stats, name) for side in event.outputs if side is not None and side.stats)


# ---- one moment -------------------------------------------------------------------------------------------


def headline(event: TraceEvent) -> str:
    """Return "#5 linear in 0", with the source where there is one."""
    where = f" in {event.module}" if event.module and event.module != "" else ""
    return f"#{event.number} {event.title}{where}"


def moment_lines(session: Session, width: int, cursor: int | None = None) -> list[str]:
    """Return all that is seen of a moment of the step, in lines of at most `width` columns.

    Args:
        session: the session.
        width: the most columns.
        cursor: which moment; None: where the session is.
    """
    run, at = session.run, session.cursor if cursor is None else cursor
    if run is None or at < 0:
        return _beginning(session, width)
    moment = run.moments[at]
    return seen(moment, run.stages[run.place_of(at)].facts if moment.event.phase == "stage" else {}, width)


def seen(moment: Moment, facts: Mapping[str, Any], width: int) -> list[str]:
    """Return all that is seen of an op, gradient or stage; `facts` are the numbers of a stage."""
    event = moment.event
    if event.phase == "stage":
        lines = [f"{event.op}   {STAGES.get(event.op, '')}".rstrip(), *fact_lines(facts, width)]
    else:
        lines = [headline(event) + (f"   at {event.source}" if event.source != OURSELVES else "")]
        lines += [*_equation(moment, width), *_losses(event, width)]
    lines += ["", *tensors(event, width)]
    named = _main_side(event)
    if named is not None:
        lines += ["", *histogram(*named, width)]
    return [cut(line, width) for line in lines]


def _beginning(session: Session, width: int) -> list[str]:
    recipe = session.step.recipe
    lines = [session.title, *wrap(f"recipe {recipe.name}: {recipe.note}", width)]
    lines += [f"loss scale {scale_text(session.step.scaler.get_scale())}; the step begins here", ""]
    return [cut(line, width) for line in [*lines, *table(("stage", "what it computes"), STAGES.items())]]


def _equation(moment: Moment, width: int) -> list[str]:
    """Return what an op computes: the first paragraph of its docstring."""
    event = moment.event
    words = " ".join(moment.doc.strip().partition("\n\n")[0].split())
    if event.phase == "backward":
        words = f"the gradient of: {words}" if words else "a gradient"
    lines = wrap(words, width - 2)[:3]
    told = [f"{name}={value}" for name, value in event.options.items() if value != "None"]
    if event.accumulate and event.accumulate != "float32":
        told.append(f"sums: {event.accumulate}")
    return ["  " + line for line in [*lines, *wrap(", ".join(told), width - 2)]]


def fact_lines(facts: Mapping[str, Any], width: int) -> list[str]:
    """Return the numbers of a stage that are no tensors."""
    said = [
        f"{name} = {scale_text(value) if name == 'loss_scale' else _value(value)}"
        for name, value in facts.items()
    ]
    return ["  " + line for line in wrap("; ".join(said), width - 2)]


def _losses(event: TraceEvent, width: int) -> list[str]:
    """Return what an op lost, and its errors where there is a shadow."""
    said = []
    if event.flushed:
        said.append(f"{event.flushed:,} results flushed to 0")
    if event.overflowed:
        said.append(f"{event.overflowed:,} overflowed")
    for i, error in enumerate(event.errors):
        if error is not None:
            made = f"made here {error.made.max_ulp:.3g} ulp ({error.made.relative:.2g})"
            said.append(f"error of out{i}: {made}, inherited {error.inherited.relative:.2g}")
    return ["  " + line for line in wrap("; ".join(said), width - 2)]


def _value(value: object) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items()) or "none"
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def sides_of(event: TraceEvent) -> list[tuple[str, Side]]:
    """Return (name, side) of the arrays of an event: "in0", "out0", or the names of a stage's tensors."""
    if event.phase == "stage":
        return [(side.name, side) for side in event.outputs if side is not None]
    named = [(f"in{i}", side) for i, side in enumerate(event.inputs)]
    named += [(f"out{i}", side) for i, side in enumerate(event.outputs)]
    return [(name, side) for name, side in named if side is not None]


def tensors(event: TraceEvent, width: int) -> list[str]:
    """Return a table of the arrays of an event, with their statistics."""
    sides = sides_of(event)
    if not sides:
        return ["no tensors"]
    shown = sides[:MOST_TENSORS]
    rest = [f"and {len(sides) - MOST_TENSORS} more: `open NAME` shows one"] * (len(sides) > MOST_TENSORS)
    for numbers in (("min", "max", "mean"), ("min", "max")):
        lines = _table_of(shown, numbers)
        if max(map(len, lines)) <= width:
            return [*lines, *rest]
    return [*(line for name, side in shown for line in _told(name, side, width)), *rest]


def _table_of(sides: Sequence[tuple[str, Side]], numbers: Sequence[str]) -> list[str]:
    """Return arrays and their statistics, a row each."""
    counts = {"zeros": "zeros", "sub": "subnormals", "inf": "inf", "nan": "nan"}
    head = ["name", "format", "shape", *numbers, *counts]
    rows = []
    for name, side in sides:
        form = side.format if side.given in (None, side.format) else f"{side.format}<{side.given}"
        rows.append([
            cut(name, 16), form, "x".join(map(str, side.shape)) or "()",
            *(_tiny(side.stats, each) for each in numbers),
            *(_count(side.stats, each) for each in counts.values()),
        ])  # fmt: skip
    return table(head, rows, right=range(3, len(head)))


def _told(name: str, side: Side, width: int) -> list[str]:
    """Return a tensor in a few lines, for narrow screens."""
    shape = "x".join(map(str, side.shape)) or "()"
    form = side.format if side.given in (None, side.format) else f"{side.format} from {side.given}"
    return [f"{name} {form}[{shape}]", *wrapped(str(side.stats or "not measured"), width, "  ")]


def _tiny(stats: Stats | None, name: str) -> str:
    value = None if stats is None else getattr(stats, name)
    return "-" if value is None else f"{value:.3g}"


def _count(stats: Stats | None, name: str) -> str:
    return "-" if stats is None else number(getattr(stats, name))


def _main_side(event: TraceEvent) -> tuple[str, Side] | None:
    """Return the array whose histogram is shown: the first result with numbers."""
    made = [(name, side) for name, side in sides_of(event) if not name.startswith("in")]
    made += [each for each in sides_of(event) if each not in made and event.phase == "stage"]
    return next(((name, side) for name, side in made if side.stats and side.stats.binades), None)


def histogram(name: str, side: Side, width: int) -> list[str]:
    """Return the numbers of an array by powers of two, beside the limits of its format."""
    stats = side.stats
    assert stats is not None
    exponents = sorted(stats.binades, reverse=True)
    top, low = exponents[0], exponents[-1]
    step = max(-(-(top - low + 1) // MOST_BINADES), 1)
    bins: dict[int, int] = {}
    for exponent, count in stats.binades.items():
        start = top - (top - exponent) // step * step
        bins[start] = bins.get(start, 0) + count
    room = max(width - 24, 10)
    most = max(bins.values())
    lowest = _lowest(side)
    lines = wrapped(f"{name} by binade{_limits(side)}", width)
    for start in range(top, low - 1, -step):
        count = bins.get(start, 0)
        bar = ("#" if start >= lowest else ":") * max(round(room * count / most), 1 if count else 0)
        label = f"2^{start}" if step == 1 else f"2^{start}..2^{max(start - step + 1, low)}"
        lines.append(f"{label:>14} {count:>8,} {bar}".rstrip())
    if stats.zeros:
        lines.append(f"{'zero':>14} {stats.zeros:>8,}")
    return lines


def _limits(side: Side) -> str:
    try:
        fmt = formats.get(side.format)
    except FormatError:
        return ""
    if fmt.is_integer:
        return ""
    below = "; : is below" if side.stats is not None and side.stats.subnormals else ""
    return f" ({fmt.name}: normal from 2^{fmt.emin}{below}, less than 2^{fmt.emax + 1})"


def _lowest(side: Side) -> float:
    """Return the exponent of the smallest normal number."""
    try:
        return formats.get(side.format).emin
    except FormatError:
        return -inf


# ---- two outcomes -----------------------------------------------------------------------------------------


def found_lines(found: Findings, event: TraceEvent, width: int) -> list[str]:
    """Return what a check has found; of an op by its name alone, for the tape's numbers are not ours."""
    text = str(found)
    return refitted(text if event.phase == "stage" else re.sub(rf"\b{event.op}#\d+", event.op, text), width)


def comparison(before: Outcome, after: Outcome, width: int) -> list[str]:
    """Return two outcomes of a step side by side; what differs is marked with a star."""
    rows = [(("*" if old != new else ""), what, old, new) for what, old, new in beside(before, after)]
    half = (width - 30) // 2
    rows = [(star, what, cut(old, half), cut(new, half)) for star, what, old, new in rows]
    return table(("", "the whole step", "before", "after"), rows)
