"""One submission in a process of its own, within limits of time, memory and output.

This keeps an accident from spoiling a batch. It does not keep out malice: whoever runs other people's code
should do so in a container.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimp.errors import SettingError
from minimp.files import write_whole
from minimp.labs.answers import exercises_of
from minimp.labs.catalogue import LabFolder
from minimp.labs.child import load_checks
from minimp.labs.session import Verdict

__all__ = ["Limits", "Outcome", "cleaned", "run_submission"]

TAIL = 4000
"""Characters that are kept of what a submission printed last."""
LEAST = 1024
OWN = "MINIMP_LABS_RUN"
"""A variable of the environment by which processes are known that a submission left behind."""


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        seconds: of the clock, for one run. A check that ends the run, or does not end, costs one more run
            without it.
        megabytes: of address space, at least 1024; 0: no limit. Needs an operating
            system that can (not Windows).
        printed: bytes that it may print.

    Raises:
        SettingError: a limit that is not positive, or cannot be set here.
    """

    seconds: float = 120.0
    megabytes: int = 4096 if os.name == "posix" else 0
    printed: int = 2**20

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= threading.TIMEOUT_MAX or self.megabytes < 0 or self.printed < 1:
            raise SettingError(f"expected limits above 0 (memory: 0 for none), got {self}", op="labs")
        if 0 < self.megabytes < LEAST:
            raise SettingError(
                f"expected at least {LEAST} megabytes, which Python and NumPy need, got {self.megabytes}",
                op="labs", help="pass 0 for no limit",
            )  # fmt: skip
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

    @property
    def why(self) -> str:
        """Why points may be missing, in a line: the reason, else the first error of a cell.

        Exercises left open are none, nor are names that are missing for them.
        """
        unanswered = any(text.startswith("NotAnswered") for text in self.broken)
        passed_over = ("NotAnswered", "NameError") if unanswered else ("NotAnswered",)
        own = [text for text in self.broken if not text.startswith(passed_over)]
        if self.reason or not own:
            return self.reason
        more = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
        return f"a cell ended with {own[0].splitlines()[0]}{more}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "file": cleaned(str(self.file)), "points": self.points, "of": self.most, "reason": self.reason,
            "exercises": [each.to_json() for each in self.verdicts], "cell_errors": list(self.broken),
            "printed": self.printed,
        }  # fmt: skip


def run_submission(lab: LabFolder, file: Path, limits: Limits | None = None) -> Outcome:
    """Run a student's notebook or script, then the instructor's checks on what it defined.

    It runs in an empty folder, which is removed afterwards, beside a copy of the checks. An answer that ends
    the interpreter, or never ends, is left out of another run, so that it costs no other exercise. If the
    lab's own folder was changed, it is put back, and what was changed is kept beside it.

    Raises:
        DataError: the lab's own checks cannot be read.
    """
    limits = limits or Limits()
    exercises = exercises_of(load_checks(lab.checks))
    before = _kept(lab)
    given: dict[str, Verdict] = {}
    while True:
        said, reason, printed = _attempt(before[lab.checks], lab, file, limits, list(given))
        given |= {each["verdict"]["name"]: _verdict(**each["verdict"]) for each in said if "verdict" in each}
        begun = next((each["begun"] for each in reversed(said) if "begun" in each), None)
        if not reason or begun is None or begun in given:
            break
        points = next(each.points for each in exercises if each.name == begun)
        given[begun] = Verdict(begun, points, "error", f"its check did not come to an end: {reason}")
    broken = tuple(cleaned(text) for each in said for text in each.get("broken", ()))
    ran = any("ran" in each for each in said)
    reason = "" if ran and len(given) == len(exercises) else cleaned(reason)
    if changed := _put_back(before):
        reason = f"the lab's own files were changed while it ran, and put back: {', '.join(changed)}"
    verdicts = tuple(
        given.get(each.name, Verdict(each.name, each.points, "not run", reason)) for each in exercises
    )
    return Outcome(file, verdicts, reason, broken, printed)


def cleaned(text: str) -> str:
    """Return a text without what steers a terminal, and without what UTF-8 cannot hold."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def _verdict(name: str, points: int, word: str, message: str) -> Verdict:
    return Verdict(name, points, word, cleaned(message))


def _kept(lab: LabFolder) -> dict[Path, bytes]:
    """Return the lab's own files."""
    return {path: path.read_bytes() for path in sorted(lab.path.iterdir()) if path.is_file()}


def _put_back(before: dict[Path, bytes]) -> list[str]:
    """Write again the files that were changed or removed; say which, and where the changed ones are kept.

    It may be the teacher who changed them, in an editor beside the batch.
    """
    said = []
    for path, data in before.items():
        if path.is_file() and path.read_bytes() == data:
            continue
        kept = path.is_file()
        other = next(each for each in map(path.with_suffix, _spare()) if not each.exists())
        path.parent.mkdir(parents=True, exist_ok=True)
        if kept:
            path.rename(other)
        write_whole(path, data)
        said.append(f"{path.name} (what came is kept as {other.name})" if kept else f"{path.name} (removed)")
    return said


def _spare() -> Iterator[str]:
    """Endings for files that are kept beside others."""
    return (f".changed{number}" for number in itertools.count(1))


def _attempt(
    checks: bytes, lab: LabFolder, file: Path, limits: Limits, skipped: list[str]
) -> tuple[list[dict[str, Any]], str, str]:
    """Run it once; return (what its process said, why it did not end well, the end of what it printed)."""
    with tempfile.TemporaryDirectory(prefix="minimp-lab-", ignore_cleanup_errors=True) as place:
        result, work, copy = Path(place) / "result.jsonl", Path(place) / "work", Path(place) / lab.checks.name
        work.mkdir()
        copy.write_bytes(checks)
        command = [
            sys.executable,
            "-B",
            "-m",
            "minimp.labs.child",
            str(copy),
            os.path.abspath(file),
            str(result),
        ]
        reason, printed = _watch([*command, str(limits.megabytes), *skipped], work, limits)
        said = _read(result)
    reason = next((each["fault"] for each in said if "fault" in each), reason)
    if not reason and not any("ended" in each for each in said):
        full = "MemoryError" in printed and limits.megabytes
        reason = (
            f"it needed more memory than {limits.megabytes} megabytes" if full
            else "it ended the interpreter before the checks were done" + _last_error(printed)
        )  # fmt: skip
    return said, "" if any("ended" in each for each in said) else reason, cleaned(printed)


def _last_error(printed: str) -> str:
    """Return the last line of a traceback, if one was printed."""
    _, traceback, text = printed.rpartition("Traceback (most recent call last)")
    return f" ({text.strip().splitlines()[-1][:200]})" if traceback else ""


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
    token = uuid.uuid4().hex
    path = os.pathsep.join(os.path.abspath(part) for part in sys.path if part)
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": path, OWN: token}
    process = subprocess.Popen(
        command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=os.name == "posix",
    )  # fmt: skip
    kept, reason = bytearray(), [""]

    def read() -> None:
        total = 0
        assert process.stdout is not None
        while block := process.stdout.read1(65536):  # type: ignore[attr-defined]  # a buffered reader has it
            total += len(block)
            kept[:] = (kept + block)[-TAIL:]
            if total > limits.printed and not reason[0]:
                reason[0] = f"it printed more than {limits.printed} bytes"
                _kill(process)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        process.wait(limits.seconds)
    except subprocess.TimeoutExpired:
        reason[0] = reason[0] or f"it took longer than {limits.seconds:g} seconds"
    finally:
        _kill(process)
        _kill_left(token)
        reader.join(5.0)  # it ends when nobody is left who could print
        if not reader.is_alive() and process.stdout is not None:
            process.stdout.close()
    if not reason[0] and process.returncode < 0:
        reason[0] = f"its process was ended by signal {-process.returncode}{_signal(-process.returncode)}"
    return reason[0], kept.decode("utf-8", errors="replace")


def _signal(number: int) -> str:
    known = {each.value: each.name for each in signal.Signals}
    return f" ({known[number]})" if number in known else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group."""
    try:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _kill_left(token: str) -> None:
    """End what left the group, where the system tells (Linux): processes that carry this run's variable."""
    wanted = f"{OWN}={token}".encode()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                os.kill(int(place.name), signal.SIGKILL)
        except OSError:
            continue
