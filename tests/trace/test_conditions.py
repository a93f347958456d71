"""Conditions as text: what they mean, and that nothing in them is executed."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import trace
from minimp.errors import SettingError
from minimp.trace.conditions import COUNTS, NAMES, NUMBERS, as_condition, parse
from tests.trace.cases import batch, grown, make_step


@pytest.fixture(scope="module")
def made() -> trace.Trace:
    """A step with an overflow, one with an underflow, and a cast of one's own."""
    with trace.record(shadow=True) as found:
        make_step(change=grown(2, 1.5e5))(*batch())
        make_step(scale=2.0**-16)(*batch())
        mp.tensor([1.0, 1e-9]).half()
    return found


MEANINGS: dict[str, Any] = {
    "underflow": lambda e: e.flushed > 0,
    "flushed >= 3": lambda e: e.flushed >= 3,
    "underflow > 10%": lambda e: e.flushed > 0.1 * (sum(s.stats.nonzero for s in outs(e)) + e.flushed),
    "zeros == 100%": lambda e: bool(outs(e)) and all(s.stats.zeros == s.stats.size for s in outs(e)),
    "overflow": lambda e: e.overflowed > 0,
    "nonfinite": lambda e: e.nonfinite > 0,
    "nan": lambda e: any(s.stats.nan for s in outs(e)),
    "amax > 30000": lambda e: any(s.stats.inf or (s.stats.amax or 0) > 30000 for s in outs(e)),
    "max < 2^-3": lambda e: max((s.stats.max for s in outs(e) if s.stats.max is not None), default=9) < 0.125,
    "op == linear": lambda e: e.op == "linear",
    "op = 'l*'": lambda e: e.op.startswith("l"),
    "op != linear": lambda e: e.op != "linear",
    "module == 2 and phase == backward": lambda e: e.module == "2" and e.phase == "backward",
    "op == relu or op == cast and step == 2": lambda e: e.op == "relu" or (e.op == "cast" and e.step == 2),
    "(op == relu or op == cast) and step == 2": lambda e: e.op in ("relu", "cast") and e.step == 2,
    "not op == linear": lambda e: e.op != "linear",
    "not not nonfinite": lambda e: e.nonfinite > 0,
    "format == float16": lambda e: any(s.format == "float16" for s in outs(e)),
    "given == float32": lambda e: any(s.given == "float32" for s in e.inputs if s),
    "stage == backward": lambda e: e.stage == "backward",
    "ulps > 1": lambda e: any(x.made.max_ulp > 1 for x in e.errors if x),
    "step<1": lambda e: e.step == 0,
    "scale == 1024": lambda e: e.facts.get("loss_scale") == 1024,
    "elements >= 256": lambda e: sum(s.stats.size for s in outs(e)) >= 256,
}  # fmt: skip


def outs(event: trace.TraceEvent) -> list[Any]:
    """Outputs that have statistics."""
    return [side for side in event.outputs if side is not None and side.stats is not None]


@pytest.mark.parametrize("text", MEANINGS)
def test_a_condition_means_what_it_says(text: str, made: trace.Trace) -> None:
    """Oracle: the same in Python, by hand; each must tell events apart."""
    events = [event for event in made.events if outs(event) or "==" in text]
    found = [event.number for event in events if parse(text)(event)]
    wanted = [event.number for event in events if MEANINGS[text](event)]
    assert found == wanted
    assert found or text in ("nan", "zeros == 100%")
    assert len(found) < len(events)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a comparison at the end"),
        ("underflo > 1%", "unknown word 'underflo'; did you mean 'underflow'?"),
        ("amax", "expected a comparison after 'amax'"),
        ("amax >", "expected a value at the end"),
        ("amax > big", "expected a number after amax >, got 'big'"),
        ("amax > nan", "expected a number"),
        ("amax > '3'", "expected a number"),
        ("amax > 1%", "amax is no count"),
        ("op > 3", "op is a name: compare it by == or !="),
        ("(nonfinite", "expected ')' at the end"),
        ("nonfinite)", "did not expect ')' there"),
        ("nonfinite overflow", "did not expect 'overflow' there"),
        ("nonfinite and", "expected a comparison at the end"),
        ("op == 'soft", "cannot read"),
        ("amax > 2^99999", "expected a number"),
        ("(" * 200, "too many parentheses"),
        ("not " * 200, "too many parentheses"),
        ("__import__('os').abort()", "unknown word '__import__'"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    """Oracle: by hand: what the message names."""
    with pytest.raises(SettingError) as fault:
        parse(text)
    assert said in str(fault.value)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_one_clear_error(text: str) -> None:
    """Oracle: the docstring: SettingError and nothing else; a condition answers of any event."""
    event = trace.TraceEvent(0, "forward", "mul", "", "", "", 0, (), ())
    try:
        found = parse(text)
    except SettingError:
        return
    assert found(event) in (True, False)


TRUTHS = {"nonfinite": False, "op == mul": True, "op != mul": False, "step > 0": False, "flushed == 0": True}


def longer(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return what is made of shorter conditions."""
    joined = st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join)
    return joined | joined.map("({})".format) | inner.map("not ({})".format)


@given(st.recursive(st.sampled_from(list(TRUTHS)), longer, max_leaves=12))
def test_and_or_not_are_pythons(text: str) -> None:
    """Oracle: Python's own reading of the same words, each replaced by its truth for one event."""
    event = trace.TraceEvent(0, "forward", "mul", "", "", "", 0, (), ())
    truths = {
        "nonfinite": False,
        "op == mul": True,
        "op != mul": False,
        "step > 0": False,
        "flushed == 0": True,
    }
    python = text
    for word, truth in truths.items():
        python = python.replace(word, str(truth))
    assert parse(text)(event) is eval(python, {})


def test_what_a_condition_asks_for_is_known() -> None:
    """Oracle: the tables: names need no statistics, errors need the shadow."""
    for word in NAMES:
        assert not parse(f"{word} == x").statistics
    for word in COUNTS:
        assert parse(word).statistics
    assert {word for word in NUMBERS if parse(f"{word} > 1").shadow} == {"ulps", "error"}
    assert not parse("step == 3").statistics
    assert as_condition(lambda event: True).statistics
    assert as_condition(parse("nonfinite")).text == "nonfinite"
    with pytest.raises(SettingError, match="a condition as text or a function"):
        as_condition(3)  # type: ignore[arg-type]  # that is the point


def test_an_infinity_is_larger_than_any_number() -> None:
    """Oracle: by hand: amax of a result that overflowed is infinite, although its finite part is small."""
    x = mp.tensor([300.0, 1.0], dtype=mp.float16)
    with trace.record() as found:
        x * x
    assert found.events[0].outputs[0].stats.amax == 1.0
    assert NUMBERS["amax"](found.events[0]) == math.inf
