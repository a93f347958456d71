"""`minimp labs`: the course in tutorials/: student copies, checks with hints, grading."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from minimp.cli.base import console, examples, json_text, print_wrapped, progress_console
from minimp.errors import DataError, SettingError
from minimp.files import check_writable, write_whole
from minimp.labs.answers import Exercise, exercises_of
from minimp.labs.catalogue import LabFolder, lab_named, labs
from minimp.labs.child import load_checks
from minimp.labs.grading import grade, start, to_csv
from minimp.labs.running import Limits, Outcome, cleaned, run_submission

__all__ = ["add_parser", "run"]

MARKS = {"passed": "+", "failed": "-", "unanswered": ".", "error": "!", "not run": "?"}
FILE_HELP = "the copy: a notebook, or a script in percent format (default: LAB's in this folder)"
CONTAINER = "Grading runs the students' programs: do it in a container, or on a machine that holds nothing."


def add_parser(subparsers: Any) -> None:
    """Add the command and its parts."""
    parser = subparsers.add_parser(
        "labs",
        help="a course of labs: student copies, checks with hints, grading",
        description="Thirteen labs, from the bits of a number to the operation to blame. `start` writes "
        "copies without solutions; `check` says of each exercise what was expected and what came; `grade` "
        "does so for many submissions, each in a process of its own.",
        epilog=examples(
            "minimp labs list", "minimp labs start course", "minimp labs check bits course/lab00_bits.ipynb",
            "minimp labs check bits --hint 1b", "minimp labs grade bits handed-in/*.ipynb --csv marks.csv",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parts = parser.add_subparsers(dest="part", metavar="PART", required=True)
    _add(parts, "list", "the labs, how long each takes, its exercises", _list)
    each = _add(parts, "start", "write student copies without solutions into DIR", _start)
    each.add_argument("dir", metavar="DIR", type=Path)
    each.add_argument("labs", metavar="LAB", nargs="*", help="all, if none is named")
    each.add_argument("--scripts", action="store_true", help="as scripts in percent format, not notebooks")
    each = _add(
        parts, "strip", "the same as `start --scripts`, for those who make notebooks themselves", _strip
    )
    each.add_argument("dir", metavar="OUT", type=Path)
    _add_check(parts)
    _add_grade(parts)
    parser.set_defaults(run=run)


def _add_check(parts: Any) -> None:
    each = _add(parts, "check", "check the answers in a copy of LAB", _check)
    each.add_argument("lab", metavar="LAB")
    each.add_argument("file", metavar="FILE", nargs="?", type=Path, help=FILE_HELP)
    each.add_argument(
        "--hint", metavar="EXERCISE", help="print the hints for one exercise, and check nothing"
    )
    each.add_argument("--more", metavar="N", type=int, help="how many hints (default: 1)")
    _add_limits(each)


def _add_grade(parts: Any) -> None:
    each = _add(parts, "grade", f"grade submissions. {CONTAINER}", _grade)
    each.add_argument("lab", metavar="LAB")
    each.add_argument("files", metavar="FILE", nargs="+", type=Path)
    each.add_argument("--json", metavar="FILE", type=Path, help="write every verdict to FILE")
    each.add_argument("--csv", metavar="FILE", type=Path, help="write a row a submission to FILE")
    each.add_argument("--quiet", action="store_true", help="print only the table at the end")
    _add_limits(each)


def _add_limits(part: Any) -> None:
    part.add_argument("--seconds", type=float, default=120.0, help="the time a copy may take (default: 120)")
    part.add_argument("--megabytes", type=int, help="the memory it may have (default: 4096; 0: any)")


def _add(parts: Any, name: str, about: str, act: Callable[[argparse.Namespace], int]) -> Any:
    sentence = about.removesuffix(".") + "."
    made = parts.add_parser(name, help=about, description=sentence[0].upper() + sentence[1:])
    made.set_defaults(act=act)
    return made


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code: 1 if an answer is missing or wrong."""
    act: Callable[[argparse.Namespace], int] = args.act
    return act(args)


def _list(args: argparse.Namespace) -> int:
    del args
    table = Table(box=None, pad_edge=False)
    for title, side in (("lab", "left"), ("what it is about", "left"), ("minutes", "right"),
                        ("exercises", "right"), ("points", "right")):  # fmt: skip
        table.add_column(title, justify=side)  # type: ignore[arg-type]  # two of rich's words
    for lab in labs():
        exercises = exercises_of(load_checks(lab.checks))
        points = sum(each.points for each in exercises)
        table.add_row(lab.name, Text(lab.title), str(lab.minutes or "-"), str(len(exercises)), str(points))
    console().print(table)
    return 0


def _start(args: argparse.Namespace) -> int:
    chosen = [lab_named(name) for name in args.labs] or labs()
    return _written(start(chosen, args.dir, notebooks=not args.scripts), args.dir)


def _strip(args: argparse.Namespace) -> int:
    return _written(start(labs(), args.dir, notebooks=False), args.dir)


def _written(paths: list[Path], folder: Path) -> int:
    out = console()
    for path in paths:
        out.print(str(path), markup=False, soft_wrap=True)
    print_wrapped(out, f"{len(paths)} written. Check your answers with: minimp labs check LAB {folder}/FILE")
    return 0


def _check(args: argparse.Namespace) -> int:
    lab, out = lab_named(args.lab), console()
    exercises = exercises_of(load_checks(lab.checks))
    if args.hint is not None:
        return _hints(exercises, args.hint, 1 if args.more is None else args.more)
    if args.more is not None:
        raise SettingError("--more: says how many hints, and none was asked for", help="add --hint EXERCISE")
    outcome = run_submission(lab, args.file or _own_copy(lab), _limits(args))
    _show(outcome)
    if outcome.points < outcome.most:
        print_wrapped(out, f"A hint: minimp labs check {lab.name} --hint EXERCISE")
    return 0 if outcome.points == outcome.most else 1


def _hints(exercises: list[Exercise], name: str, count: int) -> int:
    found = next((each for each in exercises if each.name == name), None)
    if found is None:
        raise SettingError(f"there is no exercise {name!r}", help=", ".join(e.name for e in exercises))
    if count < 1:
        raise SettingError(f"--more: expected a whole number above 0, got {count}")
    out = console()
    for number, hint in enumerate(found.hints[:count], 1):
        print_wrapped(out, f"{number} of {len(found.hints)}: {hint}")
    if not found.hints:
        print_wrapped(out, f"Exercise {name} has no hints; its check says what it expects.")
    return 0


def _own_copy(lab: LabFolder) -> Path:
    for ending in ("ipynb", "py"):
        path = Path(f"{lab.name}.{ending}")
        if path.exists():
            return path
    raise DataError(
        f"there is no {lab.name}.ipynb and no {lab.name}.py in this folder",
        op="labs", help=f"name the file, or begin with: minimp labs start . {lab.name}",
    )  # fmt: skip


def _limits(args: argparse.Namespace) -> Limits:
    chosen = {} if args.megabytes is None else {"megabytes": args.megabytes}
    return Limits(seconds=args.seconds, **chosen)


def _grade(args: argparse.Namespace) -> int:
    lab, screen = lab_named(args.lab), progress_console()
    for path in (args.json, args.csv):
        if path is not None:
            check_writable(path)
    if not args.quiet:
        print_wrapped(screen, CONTAINER)

    outcomes: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        _keep(args, outcomes)
        if not args.quiet:
            name = cleaned(str(outcome.file))
            print_wrapped(screen, f"{name}: {outcome.points} of {outcome.most}  {outcome.why}")

    try:
        grade(lab, args.files, _limits(args), tell)
    except KeyboardInterrupt:
        if outcomes:
            _table(outcomes)
        print_wrapped(screen, f"Interrupted: {len(outcomes)} of {len(args.files)} were graded, and are kept.")
        raise
    _table(outcomes)
    return 0


def _keep(args: argparse.Namespace, outcomes: list[Outcome]) -> None:
    """Write the reports after each submission: what ends the batch takes none of them along."""
    if args.json is not None:
        write_whole(args.json, json_text([each.to_json() for each in outcomes]))
    if args.csv is not None:
        write_whole(args.csv, to_csv(outcomes))


def _table(outcomes: list[Outcome]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("submission", overflow="fold")
    for verdict in outcomes[0].verdicts:
        table.add_column(verdict.name, justify="center")
    table.add_column("points", justify="right")
    table.add_column("", overflow="fold")
    names = Counter(each.file.name for each in outcomes)
    for each in outcomes:
        marks = [MARKS[verdict.word] for verdict in each.verdicts]
        name = each.file.name if names[each.file.name] == 1 else str(each.file)
        table.add_row(Text(cleaned(name)), *marks, f"{each.points}/{each.most}", Text(each.why))
    out = console()
    out.print(table)
    print_wrapped(out, "  ".join(f"{mark} {word}" for word, mark in MARKS.items()))


def _show(outcome: Outcome) -> None:
    out = console()
    for each in outcome.verdicts:
        print_wrapped(out, f"{MARKS[each.word]} {each.name:4} {each.word}{': ' if each.message else ''}"
                      f"{each.message}")  # fmt: skip
    for text in outcome.broken:
        if not text.startswith("NotAnswered"):
            print_wrapped(out, f"  a cell ended with {text}")
    if outcome.reason:
        print_wrapped(out, f"It did not run to its end: {outcome.reason}.")
    print_wrapped(out, f"{outcome.points} of {outcome.most} points.")
