"""The way in: the table of commands, and what becomes of an error."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

from rich.text import Text

from minimp import __version__
from minimp.cli.base import examples, progress_console
from minimp.cli.parsing import Parser
from minimp.errors import MinimpError, SettingError, unknown_name

__all__ = ["COMMANDS", "Command", "main"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its module, loaded when it is chosen, with `add_parser` and `run`; and one line of help.

    What stands after ``--`` is for a script, where the command passes it on: it finds it in `args.rest`.
    """

    module: str
    summary: str
    passes_on: bool = False


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "compare": Command(
            "minimp.cli.compare", "train the same model by several recipes; show what each part is worth"
        ),
        "train": Command(
            "minimp.cli.train", "train one model by one recipe; stop and resume without a bit of difference"
        ),
        "export": Command(
            "minimp.cli.export",
            "write the weights of a run in 16 bits; show the size, what was lost, and the accuracy",
        ),
        "quantize": Command(
            "minimp.cli.quantize",
            "store a trained model in 8 bits or fewer; show each layer, the accuracy, and the size",
        ),
        "memory": Command(
            "minimp.cli.memory",
            "show the bytes that training would hold, by cause, and check what is said of them",
        ),
        "inspect": Command(
            "minimp.cli.inspect",
            "show the bits, error and neighbours of a number, or take a calculation apart",
        ),
        "range": Command(
            "minimp.cli.ranges", "show where the values of formats lie, and what a tensor would lose in them"
        ),
        "explain": Command(
            "minimp.cli.explain",
            "a page on each way of accumulating a sum: order, roundings, error bound, who uses it",
        ),
        "check": Command(
            "minimp.cli.check", "compare rules and results with PyTorch, JAX, Keras or ONNX where installed"
        ),
        "trace": Command("minimp.cli.trace", "ask a recorded trace where numbers were lost, and why"),
        "step": Command(
            "minimp.cli.step",
            "go through training stage by stage and op by op, back again, and what if",
            passes_on=True,
        ),
        "bisect": Command(
            "minimp.cli.bisect",
            "find the ops that must run in FP32 for a mixed run to agree with its FP32 self",
            passes_on=True,
        ),
        "bench": Command(
            "minimp.cli.bench", "measure speed, as ratios, beside PyTorch and mygrad where they are installed"
        ),
        "reproduce": Command(
            "minimp.cli.reproduce", "measure claims of papers on the data at hand; say which are reproduced"
        ),
        "labs": Command("minimp.cli.labs", "a course of labs: student copies, checks with hints, grading"),
    }
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How the command ends on an error: the exit code, and what is said of it."""

    kind: type[BaseException]
    code: int
    words: Callable[[Any], str]


ENDINGS = (  # the first that fits
    Ending(MinimpError, 2, lambda fault: f"error: {fault}"),
    Ending(BrokenPipeError, 141, lambda _: ""),  # who went away wants to hear nothing
    Ending(OSError, 2, lambda fault: f"error: the system refused: {fault}"),
    Ending(MemoryError, 2, lambda fault: f"error: not enough memory: {str(fault) or 'ask for less'}"),
    Ending(KeyboardInterrupt, 130, lambda _: "interrupted"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code (see `minimp.cli`).

    Args:
        argv: the arguments; None takes those of the process.
    """
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        _flush()
    except tuple(each.kind for each in ENDINGS) as fault:
        ending = next(each for each in ENDINGS if isinstance(fault, each.kind))
        _say(fault, ending.words(fault))
        _abandon_output()
        return ending.code
    return code


def _run(argv: list[str]) -> int:
    parser = Parser(
        prog="minimp",
        description="Mixed-precision training that can be read, stepped through and checked.",
        epilog=examples("minimp compare", "minimp inspect 0.1 --format fp16,bf16", "minimp train --help"),
    )
    parser.add_argument("--version", action="version", version=f"minimp {__version__}")
    name = _chosen(argv, parser)
    module = import_module(COMMANDS[name].module) if name else None
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for each, command in COMMANDS.items():
        if module is not None and each == name:
            module.add_parser(commands)
        else:
            commands.add_parser(each, help=command.summary)
    ours, rest = _split(argv) if name is not None and COMMANDS[name].passes_on else (argv, [])
    try:
        args, extra = parser.parse_known_args(ours)
    except SystemExit as done:  # --help and --version have been printed
        return int(done.code or 0)
    if module is None or name is None:
        raise SettingError(f"expected a command: {', '.join(COMMANDS)}", help="minimp --help")
    if extra:
        commands.choices[name].refuse(extra)
    args.argv, args.rest = argv, rest
    return int(module.run(args))


def _chosen(argv: list[str], parser: Parser) -> str | None:
    """Return the command's name, which comes first; None for what needs no command."""
    if not argv or argv[0] in {"-h", "--help", "--version"}:
        return None
    if argv[0].startswith("-"):
        parser.refuse(argv[:1])
    if argv[0] not in COMMANDS:
        raise SettingError(unknown_name("command", argv[0], COMMANDS), help="minimp --help")
    return argv[0]


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return what stands before the first ``--``, and what stands after it."""
    end = argv.index("--") if "--" in argv else len(argv)
    return argv[:end], argv[end + 1 :]


def _say(fault: BaseException, words: str) -> None:
    with suppress(OSError):  # stderr may be gone too
        if os.environ.get("MINIMP_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exception(fault)
        if words:
            head, _, rest = words.partition(":")
            style = "bold red" if rest else "bold"
            text = Text.assemble(("minimp: ", style), (head, style), f":{rest}" if rest else "")
            progress_console().print(text, soft_wrap=True)


def _flush() -> None:
    if sys.stdout is not None:  # None where the caller closed it
        sys.stdout.flush()


def _abandon_output() -> None:
    """Where stdout takes nothing any more, send the rest nowhere, or Python would complain when it ends."""
    try:
        _flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
