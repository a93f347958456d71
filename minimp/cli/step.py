"""`minimp step`: go through training stage by stage and op by op, back again, and what if."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from minimp.cli.base import columns, console, examples
from minimp.errors import MinimpError, SettingError
from minimp.models import MODELS
from minimp.recipe import recipes
from minimp.stepper.commands import Prompt
from minimp.stepper.session import Session
from minimp.stepper.sources import digits, open_script
from minimp.stepper.views import refitted

__all__ = ["add_parser", "run"]

ON_DIGITS = ("recipe", "model", "seed", "batch", "lr")
"""Options that make the built-in example; a script has settings of its own."""
COMMENT = re.compile(r"#(?!\d)")


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "step",
        help="go through training stage by stage and op by op, back again, and what if",
        description="Step through training. Without SCRIPT: through a model on the built-in digits. With "
        "one: through the first training step that it runs (a TrainStep), or that it defines as step, inputs "
        "and targets, or that its function session() returns. A stage runs whole; its ops are then gone "
        "through, each with its inputs and results. Going back restores every bit. What stands after -- is "
        'for the script. The screen needs textual (pip install "minimp[tui]") and a terminal; '
        "--plain needs neither. The exit code is 1 if a check failed.",
        epilog=examples(
            "minimp step",
            "minimp step --recipe fp16 --model autoencoder",
            "minimp step train.py -- --epochs 1",
            "minimp step --plain --do 'set scale 2^24; run nonfinite; why'",
            "minimp step --plain < commands.txt",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("script", metavar="SCRIPT", nargs="?", help="a Python script; it is run")
    parser.add_argument("--plain", action="store_true", help="a prompt in lines, in place of the screen")
    parser.add_argument("--do", metavar="COMMANDS", help="with --plain: commands, `;` between them, then end")
    parser.add_argument("--light", action="store_true", help="the screen has dark letters on light ground")
    parser.add_argument("--shadow", action="store_true", help="compute every op in float64 too: its errors")
    parser.add_argument("--recipe", metavar="NAME", help="of the digits (default mixed-fp16)")
    parser.add_argument(
        "--model", metavar="NAME", help="of the digits: mlp (default), cnn, autoencoder, resnet"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the digits' weights (default 0)")
    parser.add_argument("--batch", type=int, metavar="N", help="rows of a batch of the digits (default 32)")
    parser.add_argument("--lr", type=float, metavar="X", help="learning rate on the digits (default 1e-3)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code: 1 if a check failed."""
    if args.do is not None and not args.plain:
        raise SettingError("--do cannot act on the screen", help="add --plain")
    if args.light and args.plain:
        raise SettingError("--light cannot act on the prompt, which has no colours", help="leave one away")
    if not args.plain:
        _require_terminal()
    with _opened(args) as session:
        return _prompt(session, args.do) if args.plain else _screen(session, light=args.light)


def _opened(args: argparse.Namespace) -> Session:
    given = {name: value for name in ON_DIGITS if (value := getattr(args, name)) is not None}
    if args.script is not None:
        if given:
            raise SettingError(
                f"--{next(iter(given))} cannot act on a script, which has settings of its own",
                help="change it in the script, or with `set` in the session",
            )  # fmt: skip
        return open_script(args.script, args.rest, shadow=args.shadow)
    if "recipe" in given:
        recipes[given["recipe"]]
    if "model" in given:
        MODELS[given["model"]]
    return digits(given.pop("recipe", "mixed-fp16"), shadow=args.shadow, **given)


def _require_terminal() -> None:
    """Refuse to open the screen where it cannot be seen."""
    if find_spec("textual") is None:
        raise SettingError(
            "the screen needs textual, which is not installed", op="step",
            help='pip install "minimp[tui]", or use the prompt: minimp step --plain',
        )  # fmt: skip
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise SettingError(
            "the screen needs a terminal for input and output", op="step",
            help="minimp step --plain reads commands, a line each, from anywhere",
        )  # fmt: skip
    if os.environ.get("TERM") == "dumb":
        raise SettingError(
            "the screen needs a terminal that can place text; TERM says that this one cannot (dumb)",
            op="step", help="minimp step --plain is a prompt in lines, with the same commands",
        )  # fmt: skip


def _screen(session: Session, *, light: bool) -> int:
    """Open the screen."""
    from minimp.stepper.screen import open_screen

    return open_screen(session, light=light)


def _prompt(session: Session, commands: str | None) -> int:
    """Read commands until `quit` or the end; at a terminal a mistake is told, elsewhere it is the end."""
    prompt, out = Prompt(session, width=columns()), console()
    asking = commands is None and sys.stdin.isatty()

    def say(text: str) -> None:
        out.print(text, markup=False, highlight=False, soft_wrap=True)

    for line in refitted(session.note, prompt.width) if session.note else ():
        say(line)
    if asking:
        say(f"{session.title}. `help` lists the commands, `quit` ends.\n{prompt.do('where')}")
    for line in _lines(commands, asking=asking):
        if not asking and line:
            say(f"> {line}")
        told = _told(prompt, line, asking=asking)
        if told:
            say(told)
        if prompt.closed:
            break
    return int(prompt.failed)


def _told(prompt: Prompt, line: str, *, asking: bool) -> str:
    """Return what a command says; a mistake is an answer too where somebody is asked, else it is raised."""
    try:
        return prompt.do(line)
    except KeyboardInterrupt:
        if not asking:
            raise
        return f"stopped: {prompt.do('where')}"
    except MinimpError as fault:
        if not asking:
            raise
        return "\n".join(refitted(f"error: {fault}", prompt.width))
    except Exception as fault:  # a model or loss may raise anything; the session stands before it
        told = f"the stage raised {type(fault).__name__}: {fault}"
        if not asking:
            raise SettingError(told, op="step") from fault
        return "\n".join(refitted(f"error: {told}", prompt.width))


def _lines(commands: str | None, *, asking: bool) -> Iterator[str]:
    """Yield commands; what follows a # in a line is no part of it, unless it is the number of a moment."""
    if commands is not None:
        yield from (COMMENT.split(each)[0].strip() for each in commands.split(";"))
        return
    if asking:
        with suppress(ImportError):  # lines can be edited, and are remembered, where Python has it
            import_module("readline")
    while True:
        try:
            line = input("(minimp) ") if asking else sys.stdin.readline()
        except EOFError:
            return
        except KeyboardInterrupt:  # too late for a run that has just ended: nothing is lost for it
            if not asking:
                raise
            line = "#"
            console().print("\n`quit` ends the session", markup=False, highlight=False)
        if not line and not asking:
            return
        yield COMMENT.split(line)[0].strip()
