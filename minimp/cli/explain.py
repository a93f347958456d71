"""`minimp explain`: a page on each way of accumulating a sum."""

from __future__ import annotations

import argparse
from typing import Any

from minimp import formats
from minimp.cli.base import console, examples

__all__ = ["add_parser", "run"]


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "explain",
        help="a page on each way of accumulating a sum: order, roundings, error bound, who uses it",
        description="Without NAME, list the accumulations that minimp.accumulate and minimp.formats.matmul "
        "know, each with its error bound. With NAME, explain one; its numbers are computed on the spot.",
        epilog=examples("minimp explain", "minimp explain chunked:16", "minimp explain tensorcore:hopper"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="an accumulation, for example kahan")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    console().print(formats.explain(args.name), markup=False, highlight=False)
    return 0
