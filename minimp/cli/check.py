"""`minimp check`: minimp's rules and results beside those of a framework that is installed, compared live."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minimp.cli.base import console, examples, json_text, progress_console
from minimp.cli.check_page import page
from minimp.cli.check_view import as_json, show, show_suites
from minimp.errors import SettingError
from minimp.files import check_writable, write_whole
from minimp.frameworks.suites import SUITES, run_suite, sections_of
from minimp.pages import require_renderer

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "check",
        help="compare rules and results with PyTorch, JAX, Keras or ONNX where installed",
        description="Run the same calls in minimp and in a framework that is installed, and compare formats, "
        "bits, loss scales and training. Without FRAMEWORK, list what can be compared. The exit code is 1 if "
        "anything differs that is not in the list of documented differences.",
        epilog=examples(
            "minimp check torch",
            "minimp check torch --only values --find softmax",
            "minimp check torch --html torch.html --json torch.json",
            "minimp check torch --only integers",
            "minimp check jax",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("framework", metavar="FRAMEWORK", nargs="?", help=f"one of {', '.join(SUITES)}")
    add("--only", metavar="A,B", help="sections to run (default: all)")
    add("--find", metavar="TEXT", help="show what was compared of the ops and cases that contain TEXT")
    add("--all", action="store_true", help="show each row of each section")
    add("--brief", action="store_true", help="leave out the table of ops and the rows of sections")
    add("--reasons", action="store_true", help="say of each documented difference why it is there")
    add(
        "--seed",
        type=int,
        default=0,
        help="of inputs, traces of the scaler and the training run (default: 0)",
    )
    add("--json", metavar="FILE", type=Path, help="write every row and figure to FILE")
    add("--html", metavar="FILE", type=Path, help="write a page that works offline to FILE (needs Jinja2)")
    add("--quiet", action="store_true", help="no progress on the screen")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code: 1 on a disagreement that is not documented."""
    if args.framework is None:
        _refuse_idle(args)
        show_suites(console())
        return 0
    if args.brief and (args.all or args.find is not None):
        raise SettingError("--brief leaves out what --all and --find show", help="give one of them")
    suite = SUITES[args.framework]
    only = () if args.only is None else tuple(name.strip() for name in args.only.split(","))
    parts = sections_of(suite, only)
    for file in (args.json, args.html):
        if file is not None:
            check_writable(file)
    if args.html is not None:
        require_renderer()
    screen = progress_console()
    with screen.status("starting ...") as status:
        unseen = args.quiet or not screen.is_terminal
        status.stop() if unseen else None
        names = [part.name for part in parts]
        found = run_suite(
            suite, only, seed=args.seed,
            begin=lambda name: status.update(f"{name} ({names.index(name) + 1} of {len(names)}) ..."),
        )  # fmt: skip
    show(console(), found, find=args.find, everything=args.all, reasons=args.reasons, brief=args.brief)
    if args.json is not None:
        write_whole(args.json, json_text(as_json(found, args.seed)))
    if args.html is not None:
        write_whole(args.html, page(found))
    return 0 if found else 1


def _refuse_idle(args: argparse.Namespace) -> None:
    """Refuse options that say how to run a comparison where none is asked for."""
    idle = [f"--{name}" for name in ("only", "find", "json", "html") if getattr(args, name) is not None]
    idle += [f"--{name}" for name in ("all", "brief", "reasons") if getattr(args, name)]
    if idle:
        raise SettingError(f"{idle[0]} cannot act without a framework", help="minimp check torch")
