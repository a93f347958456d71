"""The log of a run: JSON lines, one object a step, appended as the steps are done.

======================  ==================================================================
field                   what it is
======================  ==================================================================
``schema``              the version of this table, 1
``step``                the step's number, from 1; it rises by 1 from line to line
``epoch``               the epoch that its batch came from, from 0
``loss``                the loss, unscaled
``loss_scale``          the scale S that the step used
``skipped``             whether the update was skipped
``nonfinite``           names of the parameters whose gradient was not finite
``grad_norm``           the norm of all unscaled gradients, before clipping
``seconds``             wall time of the step, its batch included
======================  ==================================================================

JSON has no NaN and no infinities: they stand as the strings ``"nan"``, ``"inf"`` and ``"-inf"``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minimp.errors import DataError, MinimpError, SettingError
from minimp.files import AnyPath, read_whole, sync_folder

__all__ = ["SCHEMA", "RunLog", "StepRecord", "read_log"]

SCHEMA = 1
NOT_FINITE = ("nan", "inf", "-inf")
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system says that cannot lock files."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one step of a run did; the fields are those of the log, see :mod:`minimp.runlog`."""

    step: int
    epoch: int
    loss: float
    loss_scale: float
    skipped: bool
    nonfinite: tuple[str, ...]
    grad_norm: float
    seconds: float

    def to_line(self) -> bytes:
        """Return the record as one line of JSON."""
        values = {name: _plain(value) for name, value in asdict(self).items()}
        return json.dumps({"schema": SCHEMA, **values}, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> StepRecord:
        """Return what a line says.

        Raises:
            ValueError, KeyError, TypeError: it is not the record of a step.
        """
        found = json.loads(line)
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']!r}")
        return cls(
            step=_checked(found["step"], int),
            epoch=_checked(found["epoch"], int),
            loss=_number(found["loss"]),
            loss_scale=_number(found["loss_scale"]),
            skipped=_checked(found["skipped"], bool),
            nonfinite=tuple(_checked(name, str) for name in _checked(found["nonfinite"], list)),
            grad_norm=_number(found["grad_norm"]),
            seconds=_number(found["seconds"]),
        )


def _plain(value: Any) -> Any:
    """Return a value that JSON has."""
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> float:
    if value in NOT_FINITE or type(value) in (int, float):
        return float(value)
    raise ValueError(f"{value!r} is no number")


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{value!r} is no {kind.__name__}")
    return value


def read_log(path: AnyPath) -> list[StepRecord]:
    """Return the steps of a log. A last line that was cut off by a crash is left out.

    Raises:
        DataError: the file cannot be read, or a line is not the record of the step that comes next.
    """
    return [record for record, _ in _records(path)]


def _records(path: AnyPath) -> Iterator[tuple[StepRecord, bytes]]:
    """Yield each step with its line."""
    before = None
    for number, line in enumerate(read_whole(path).splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            return
        try:
            record = StepRecord.from_line(line)
        except (ValueError, KeyError, TypeError) as fault:
            raise _not_a_log(path, number, "it is not the record of a step") from fault
        if before is not None and record.step != before + 1:
            raise _not_a_log(path, number, f"step {record.step} follows step {before}")
        before = record.step
        yield record, line


def _not_a_log(path: AnyPath, number: int, why: str) -> DataError:
    return DataError(
        f"{os.fspath(path)}, line {number}: {why}; the file is no log of a run, or was changed",
        help="move it away; the run can go on without the lines of earlier steps",
    )


class RunLog:
    """A log that is being written: each step is on the disk's queue before the next one begins.

    Args:
        path: the file; its folder must exist.
    """

    def __init__(self, path: AnyPath) -> None:
        self.path = Path(path)
        self._handle: int | None = None

    def begin(self, after: int, *, resumed: bool = False) -> None:
        """Open the log to append the steps after number `after`; later ones, of a run cut short, are removed.

        What follows step `after` need not be readable: a power cut may have left anything there. The file is
        locked until `close`: two runs never write into one log.

        Args:
            after: the steps done so far.
            resumed: whether they, even if there are none, are of the run whose log this is.

        Raises:
            SettingError: a new run (`after` is 0 and not `resumed`), and the log already holds another one's
                steps; or another process is writing into it.
            DataError: the file cannot be read or written, is no log, or ends before step `after`.
        """
        if self._handle is not None:
            return
        try:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            self._lock()
            size = os.fstat(self._handle).st_size
            if size and after == 0 and not resumed:
                raise SettingError(
                    f"{self.path} already holds the log of a run",
                    help="resume that run, or name another file",
                )
            if size:
                self._cut(after, size)
            else:
                sync_folder(self.path.parent)  # its name must be on the disk before a checkpoint counts on it
        except OSError as fault:
            self.close()
            raise _unwritable(self.path, fault) from fault
        except MinimpError:
            self.close()
            raise

    def _lock(self) -> None:
        assert self._handle is not None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise SettingError(
                f"{self.path} is being written by another run",
                help="stop that one first, or name another file",
            ) from fault
        except OSError as fault:
            if fault.errno not in NO_LOCKS:
                raise

    def _cut(self, after: int, size: int) -> None:
        """Keep the lines up to step `after`."""
        whole = last = 0
        for record, line in _records(self.path) if after else ():
            if record.step > after:
                break
            whole, last = whole + len(line), record.step
            if last == after:  # what follows is not looked at
                break
        if 0 < last < after:
            raise DataError(
                f"{self.path} ends at step {last}, and the run goes on after step {after}",
                help="lines of the log are missing; move it away to begin a new one",
            )
        if whole != size and self._handle is not None:
            os.ftruncate(self._handle, whole)

    def append(self, record: StepRecord) -> None:
        """Add one step.

        Raises:
            DataError: it cannot be written, as when the disk is full.
        """
        assert self._handle is not None
        left = memoryview(record.to_line())
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except OSError as fault:
            raise _unwritable(self.path, fault) from fault

    def sync(self) -> None:
        """Force what was appended to the disk: before a checkpoint that counts on it."""
        try:
            if self._handle is not None:
                os.fsync(self._handle)
        except OSError as fault:
            if fault.errno != errno.EINVAL:  # a pipe or a device has nothing to force
                raise _unwritable(self.path, fault) from fault

    def close(self) -> None:
        """Close the file; `begin` opens it again."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _unwritable(path: Path, fault: OSError) -> DataError:
    return DataError(
        f"cannot write {path}: {fault.strerror or fault}",
        help="the run can be resumed from its last checkpoint",
    )
