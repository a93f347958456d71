"""One submission in a process of its own, within limits of time, memory and output.

This keeps an accident from spoiling a batch. It does not keep out malice: whoever runs other people's code
should do so in a container.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimp.errors import SettingError
from minimp.labs.answers import exercises_of
from minimp.labs.catalogue import LabFolder
from minimp.labs.child import load_checks
from minimp.labs.session import Verdict

__all__ = ["Limits", "Outcome", "run_submission"]

TAIL = 4000
"""Characters that are kept of what a submission printed last."""


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        seconds: of the clock.
        megabytes: of address space; 0: no limit. Needs an operating system that can (not Windows).
        printed: bytes that it may print.

    Raises:
        SettingError: a limit that is not positive, or cannot be set here.
    """

    seconds: float = 120.0
    megabytes: int = 4096 if os.name == "posix" else 0
    printed: int = 2**20

    def __post_init__(self) -> None:
        if not self.seconds > 0 or self.megabytes < 0 or self.printed < 1:
            raise SettingError(f"expected limits above 0 (memory: 0 for none), got {self}", op="labs")
        if self.megabytes and os.name != "posix":
            raise SettingError("memory cannot be limited on this system", op="labs", help="pass megabytes=0")


@dataclass(frozen=True)
class Outcome:
    """What became of one submission.

    Attributes:
        file: the submission.
        verdicts: one for each exercise of the lab, in order.
        reason: why it did not run to its end; empty if it did.
        broken: the errors of its cells.
        printed: the end of what it printed.
    """

    file: Path
    verdicts: tuple[Verdict, ...]
    reason: str
    broken: tuple[str, ...]
    printed: str

    @property
    def points(self) -> int:
        """The points of the exercises that passed."""
        return sum(each.points for each in self.verdicts if each.word == "passed")

    @property
    def most(self) -> int:
        """The points that there are."""
        return sum(each.points for each in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "file": str(self.file), "points": self.points, "of": self.most, "reason": self.reason,
            "exercises": [each.to_json() for each in self.verdicts], "cell_errors": list(self.broken),
            "printed": self.printed,
        }  # fmt: skip


def run_submission(lab: LabFolder, file: Path, limits: Limits | None = None) -> Outcome:
    """Run a student's notebook or script, then the instructor's checks on what it defined.

    It runs in an empty folder, which is removed afterwards.

    Raises:
        DataError: the lab's own checks cannot be read.
    """
    limits = limits or Limits()
    exercises = exercises_of(load_checks(lab.checks))
    with tempfile.TemporaryDirectory(prefix="minimp-lab-", ignore_cleanup_errors=True) as place:
        result = Path(place) / "result.jsonl"
        work = Path(place) / "work"
        work.mkdir()
        command = [sys.executable, "-m", "minimp.labs.child", str(lab.checks), str(file.resolve())]
        reason, printed = _watch([*command, str(result), str(limits.megabytes)], work, limits)
        said = _read(result)
    given = {each["verdict"]["name"]: Verdict(**each["verdict"]) for each in said if "verdict" in each}
    reason = next((each["fault"] for each in said if "fault" in each), reason)
    if not reason and not any("ended" in each for each in said):
        reason = "it ended the interpreter before the checks were done"
    lost = tuple(
        given.get(each.name, Verdict(each.name, each.points, "not run", reason)) for each in exercises
    )
    broken = tuple(text for each in said for text in each.get("broken", ()))
    return Outcome(file, lost, reason, broken, printed)


def _read(result: Path) -> list[dict[str, Any]]:
    """Return the lines that are whole."""
    found = []
    try:
        text = result.read_text("utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            each = json.loads(line)
        except ValueError:
            continue
        if isinstance(each, dict):
            found.append(each)
    return found


def _watch(command: list[str], work: Path, limits: Limits) -> tuple[str, str]:
    """Run a command; return (why it was ended, or empty; the end of what it printed)."""
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=os.name == "posix",
    )  # fmt: skip
    kept, total, reason = bytearray(), 0, [""]

    def end(why: str) -> None:
        reason[0] = reason[0] or why
        _kill(process)

    clock = threading.Timer(limits.seconds, end, [f"it took longer than {limits.seconds:g} seconds"])
    clock.start()
    assert process.stdout is not None
    try:
        while block := process.stdout.read1(65536):  # type: ignore[attr-defined]  # a buffered reader has it
            total += len(block)
            kept = (kept + block)[-TAIL:]
            if total > limits.printed:
                end(f"it printed more than {limits.printed} bytes")
                break
        code = process.wait()
    finally:
        clock.cancel()
        _kill(process)
        process.stdout.close()
    if not reason[0] and code < 0:
        reason[0] = f"its process was ended by signal {-code}"
    return reason[0], kept.decode("utf-8", errors="replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started."""
    try:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
