"""Student copies, and many submissions graded one after the other."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from minimp.errors import DataError
from minimp.files import write_whole
from minimp.labs.catalogue import LabFolder
from minimp.labs.cells import notebook_of
from minimp.labs.running import Limits, Outcome, cleaned, run_submission
from minimp.labs.stripping import strip

__all__ = ["grade", "start", "to_csv"]


def start(labs: Iterable[LabFolder], target: Path, *, notebooks: bool = True) -> list[Path]:
    """Write student copies, without solutions, into a folder; what is there already is not touched.

    Args:
        labs: which.
        target: made where it is missing.
        notebooks: ``.ipynb``; or else scripts in percent format.

    Raises:
        DataError: a file is there already, or cannot be written; then none was written.
    """
    ending = "ipynb" if notebooks else "py"
    labs = list(dict.fromkeys(labs))
    wanted = [(target / f"{lab.name}.{ending}", strip(lab.script.read_text("utf-8"))) for lab in labs]
    there = [path for path, _ in wanted if os.path.lexists(path)]
    if there:
        raise DataError(
            f"{there[0]} is there already",
            op="labs",
            help="answers are never overwritten: take another folder",
        )
    texts = [(path, notebook_of(text) if notebooks else text) for path, text in wanted]
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise DataError(f"{target} cannot be made: {fault.strerror}", op="labs") from fault
    for number, (path, text) in enumerate(texts):
        try:
            write_whole(path, text.encode(), op="labs")
        except BaseException:
            for written, _ in texts[:number]:
                written.unlink(missing_ok=True)
            raise
    return [path for path, _ in texts]


def grade(
    lab: LabFolder, files: Sequence[Path], limits: Limits | None = None,
    on_each: Callable[[Outcome], object] | None = None,
) -> list[Outcome]:  # fmt: skip
    """Run every submission in a process of its own; whatever one does, the batch goes on."""
    outcomes: list[Outcome] = []
    for file in files:
        outcome = run_submission(lab, file, limits)
        outcomes.append(outcome)
        if on_each is not None:
            on_each(outcome)
    return outcomes


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """Return a table: a row a submission, a column an exercise with its verdict; the points, the reason."""
    names = [each.name for each in outcomes[0].verdicts] if outcomes else []
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["file", *names, "points", "of", "reason"])
    for each in outcomes:
        words = [verdict.word for verdict in each.verdicts]
        table.writerow([_plain(cleaned(str(each.file))), *words, each.points, each.most, _plain(each.why)])
    return out.getvalue()


def _plain(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else text
