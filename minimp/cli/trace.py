"""`minimp trace`: ask a trace on the disk what a computation did to its numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimp import trace
from minimp.cli.base import console, examples, json_text
from minimp.cli.trace_answers import ANSWERS, as_data
from minimp.errors import SettingError, unknown_name

if TYPE_CHECKING:
    from minimp.trace import Trace

__all__ = ["FILES", "QUESTIONS", "add_parser", "run"]


@dataclass(frozen=True)
class Question:
    """A question: what it asks, and the options that act on it."""

    text: str
    options: tuple[str, ...] = ()


QUESTIONS: Mapping[str, Question] = {
    "summary": Question("how much there is, and the first thing that went wrong"),
    "nonfinite": Question("the first infinity or NaN, its cause, and the chain that led to it"),
    "underflow": Question("where results that were not 0 became 0, or subnormal", ("by",)),
    "overflow": Question("where finite numbers became infinite", ("by",)),
    "scales": Question(
        "what each gradient would lose at every power-of-two loss scale", ("by", "into", "source")
    ),
    "swallowed": Question("the updates that left a weight as it was, by parameter"),
    "errors": Question("errors against float64, made and inherited (with a shadow)", ("by",)),
    "amplifiers": Question("the ops that multiply the error of their inputs most (with a shadow)"),
    "counts": Question("how often each op ran in each format"),
    "events": Question("the events themselves, those for which --where holds", ("where", "limit")),
    "diff": Question("where this trace and the trace OTHER part", ("ulps", "at")),
}
FILES: Mapping[str, tuple[str, Callable[[Trace, Path], Path]]] = {
    "chrome": ("write the file OUT for ui.perfetto.dev and chrome://tracing", lambda t, out: t.chrome(out)),
    "tensorboard": ("write scalars and histograms into the folder OUT", lambda t, out: t.tensorboard(out)),
    "report": ("write the HTML page OUT", lambda t, out: t.report(out)),
}
"""Word -> what it writes, and how."""
NEEDS = {"diff": "OTHER", **dict.fromkeys(FILES, "OUT")}
OPTIONS = {"by": None, "into": None, "source": None, "where": None, "limit": None, "ulps": None, "at": None}
SHOWN = 40


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    width = max(map(len, (*QUESTIONS, *FILES))) + len(" OTHER")
    lines = [f"  {_usage(name):{width}}  {each.text}" for name, each in QUESTIONS.items()]
    lines += [f"  {_usage(name):{width}}  {text}" for name, (text, _) in FILES.items()]
    parser = subparsers.add_parser(
        "trace",
        help="ask a recorded trace where numbers were lost, and why",
        description="Ask a trace that was recorded by mp.trace.record(spill=DIR), Trace.save or\n"
        "`minimp train --trace DIR`. The questions:\n\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=examples(
            "minimp train --steps 20 --trace mytrace",
            "minimp trace mytrace",
            "minimp trace mytrace underflow --by module",
            "minimp trace mytrace events --where 'underflow > 1% and phase == backward'",
            "minimp trace mytrace diff othertrace --ulps 2",
            "minimp trace mytrace chrome mytrace.json",
        ),
    )
    add = parser.add_argument
    add("folder", metavar="DIR", type=Path, help="the folder of a trace")
    add(
        "question",
        metavar="QUESTION",
        nargs="?",
        default="summary",
        help="one of the above (default: summary)",
    )
    add("other", metavar="OTHER|OUT", nargs="?", type=Path, help="of diff: another trace; else what to write")
    groups = "underflow, overflow, errors: op, module, stage, step or place (default: op)"
    add("--by", metavar="GROUP", help=f"{groups}; scales: place or parameter (default: place)")
    add("--into", metavar="FORMAT", help="scales: the format that gradients must fit")
    add("--source", metavar="NAME", help="scales: recorded or shadow (default: recorded)")
    add("--where", metavar="COND", help="events: a condition, such as 'op == softmax' or 'amax > 30000'")
    add("--limit", type=int, metavar="N", help=f"events: show so many (default: {SHOWN}; all in JSON)")
    add("--ulps", type=float, metavar="X", help="diff: results so far apart count as the same (default: 0)")
    add("--at", metavar="PLACE", help="diff: an ulp of each element or of the largest (default: element)")
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _usage(name: str) -> str:
    return f"{name} {NEEDS[name]}" if name in NEEDS else name


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    name = _checked(args)
    made = trace.load(args.folder)
    if name in FILES:
        written = FILES[name][1](made, args.other)
        console().print(f"wrote {_shown(str(written))}", markup=False, soft_wrap=True)
        return 0
    given = {key: getattr(args, key) for key in OPTIONS if getattr(args, key) is not None}
    if name == "diff":
        given["other"] = trace.load(args.other)
    if name == "events" and not args.json:
        given.setdefault("limit", SHOWN)
    answer = ANSWERS[name](made, **given)
    if args.json:
        console().out(json_text(as_data(answer)), end="", highlight=False)
    else:
        console().print(_shown(str(answer)), markup=False, highlight=False, soft_wrap=True)
    return 0


def _checked(args: argparse.Namespace) -> str:
    """Return the question, once all that was given can act on it."""
    name = str(args.question)
    if name not in QUESTIONS and name not in FILES:
        raise SettingError(unknown_name("question", name, [*QUESTIONS, *FILES]))
    if (args.other is None) != (name not in NEEDS):
        what = f"needs {NEEDS[name]}" if name in NEEDS else f"takes nothing more, got {str(args.other)!r}"
        raise SettingError(f"the question {name} {what}", help=f"minimp trace DIR {_usage(name)}")
    taken = QUESTIONS[name].options if name in QUESTIONS else ()
    for option in OPTIONS:
        if getattr(args, option) is not None and option not in taken:
            able = [each for each, question in QUESTIONS.items() if option in question.options]
            raise SettingError(
                f"--{option} cannot act on the question {name}",
                help=f"it acts on {', '.join(able)}",
            )
    if args.json and name in FILES:
        raise SettingError(f"--json cannot act on {name}, which writes a file of its own")
    if args.limit is not None and args.limit < 1:
        raise SettingError(f"--limit must be at least 1, got {args.limit}")
    return name


def _shown(text: str) -> str:
    """Return a text with what a terminal would act on as it is written in Python."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
