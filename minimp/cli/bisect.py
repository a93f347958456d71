"""`minimp bisect`: which ops must compute in FP32 for a mixed run to agree with one in FP32."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.resources import files
from pathlib import Path
from typing import Any

from minimp.bisecting import Blame, Progress, bisect
from minimp.cli.base import console, examples, json_text, print_wrapped, progress_console
from minimp.cli.scripts import execute, function_of, leaving_refused, running_as
from minimp.errors import SettingError
from minimp.files import check_writable, write_whole
from minimp.policy import policies

__all__ = ["add_parser", "run"]

EXAMPLE = "bisect_example.py"
RULES_OF_EXAMPLE = {"policy": "torch-cpu", "dtype": "float16"}
ABOUT_EXAMPLE = (
    "The example: attention over rows of digits, its softmax written out as exp and sum.",
    "`minimp bisect --example` prints its source; name a script of your own to search that.",
)
PHASES = {
    "FP32": "in FP32, twice",
    "mixed": "mixed",
    "ops": "searching ops",
    "calls": "searching calls",
}


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "bisect",
        help="find the ops that must run in FP32 for a mixed run to agree with its FP32 self",
        description="SCRIPT is a Python file. If it defines run(), which computes (forward, loss, gradients, "
        "a step) and returns numbers (a tensor, an array, a number, or a dict or list of them), that is "
        "searched; else its first training step, by a TrainStep or Trainer or in a loop of your own: loss "
        "and gradients. For the last the script is run again and again up to there. It is run in FP32 and "
        "mixed; if these differ, a minimal set of ops is searched that must run in FP32, then the calls of "
        "them. State and random numbers are put back before each run. What stands after -- is for the "
        "script. Without SCRIPT, an example is run. The exit code is 1 if the budget ended before the search "
        "did; Ctrl-C shows what was found so far.",
        epilog=examples(
            "minimp bisect",
            "minimp bisect train.py -- --epochs 1",
            "minimp bisect --example > mine.py",
            "minimp bisect mine.py --dtype float16 --policy torch-cpu",
            "minimp bisect package.module:function --tolerance 0.001 -- --steps 3",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("script", metavar="SCRIPT", nargs="?", help="FILE.py, FILE.py:FUNCTION or MODULE:FUNCTION")
    add(
        "--dtype", metavar="FORMAT", help="the low format (default: that of the script's regions, or float16)"
    )
    add("--policy", metavar="NAME", help=f"one of {', '.join(policies)} (default: that of the regions, or "
        "torch-cuda)")  # fmt: skip
    add("--tolerance", metavar="X", type=float,
        help="runs agree within X of the largest element (default: 32 roundings of the format)")  # fmt: skip
    add("--finite", action="store_true", help="runs agree if every number is finite")
    add("--budget", metavar="N", type=int, default=200, help="the most runs (default: 200)")
    add("--seconds", metavar="S", type=float, help="begin no run after S seconds")
    add("--only-classes", action="store_true", help="search ops, not the calls of them")
    add("--example", action="store_true", help="print the example's source and end")
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    add("--quiet", action="store_true", help="no progress on the screen")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code: 1 if the budget ended before the search did."""
    source = files("minimp.cli").joinpath(EXAMPLE).read_text("utf-8")
    if args.example:
        console().print(source, end="", markup=False, highlight=False, soft_wrap=True)
        return 0
    if args.finite and args.tolerance is not None:
        raise SettingError("--finite and --tolerance say two things", help="give one of them")
    if args.json is not None:
        check_writable(args.json)
    script = args.script or EXAMPLE
    with redirect_stdout(sys.stderr), running_as(script, args.rest):
        if args.script is None:
            code: Callable[[], Any] = execute(source, EXAMPLE).run
        else:
            code = function_of(script)
        found: Blame | None
        stop: KeyboardInterrupt | None = None
        try:
            with leaving_refused(script):
                found = _search(args, code)
        except KeyboardInterrupt as fault:
            found, stop = getattr(fault, "blame", None), fault
            if found is None:
                raise
    _show(found, args.script is None)
    if args.json is not None:
        write_whole(args.json, json_text({"script": script, **found.as_dict()}))
    if stop is not None:
        raise stop
    return 0 if found.minimal else 1


def _search(args: argparse.Namespace, code: Callable[[], Any]) -> Blame:
    """Search, and show how it goes on."""
    rules = {"policy": args.policy, "dtype": args.dtype}
    if args.script is None:
        rules = {name: given or RULES_OF_EXAMPLE[name] for name, given in rules.items()}
    screen = progress_console()
    with screen.status("starting ...") as status:
        unseen = args.quiet or not screen.is_terminal
        status.stop() if unseen else None
        return bisect(
            code, **rules, agree="finite" if args.finite else args.tolerance, budget=args.budget,
            seconds=args.seconds, instances=not args.only_classes,
            progress=lambda now: status.update(_line(now, args.budget)),
        )  # fmt: skip


def _line(now: Progress, budget: int) -> str:
    text = f"{now.runs} of at most {budget} runs, {PHASES[now.phase]}"
    if now.kept is not None:
        verb = "is" if now.kept == 1 else "are"
        text += f": {now.kept} {verb} enough, {now.tried} tried: {'yes' if now.agreement else 'no'}"
    return f"{text} ..."


def _show(found: Blame, example: bool) -> None:
    out = console()
    if example:
        for line in ABOUT_EXAMPLE:
            print_wrapped(out, line)
        out.print()
    out.print(found.text(out.width), markup=False, highlight=False, soft_wrap=True)
