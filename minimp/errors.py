"""Every error that minimp raises on purpose, and what it warns of.

The tree (the built-in parent in brackets, so that ``except ValueError`` keeps working)::

    MinimpError
    ├── ShapeError          [ValueError]    shapes that do not fit together
    ├── FormatError         [TypeError]     a number format that is unknown, or not allowed here
    ├── DeviceError         [RuntimeError]  a backend that is missing, or arrays of two backends mixed
    │   └── OutOfMemoryError                a device has no room for an array
    ├── GradientError       [RuntimeError]  backward asked for where there is nothing to differentiate
    ├── ScalerError         [RuntimeError]  loss scaling called out of order
    ├── DataError           [ValueError]    input data that cannot be used
    ├── CheckpointError     [ValueError]    a checkpoint that cannot be written, or not be trusted
    ├── SettingError        [ValueError]    an option or name that does not exist, or cannot act
    ├── AnomalyError        [RuntimeError]  an infinity or NaN that was watched for (detect_anomaly)
    └── BreakpointError     [RuntimeError]  a condition that was waited for holds (trace.break_when)

Two warnings [UserWarning]: :class:`ScaleWarning`, of a loss scale that skipping does not help, and
:class:`FrameworkWarning`, of what a framework that is imitated would warn of.

A message says what was expected, what came, and, after ``help:``, what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "AnomalyError",
    "BreakpointError",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "FormatError",
    "FrameworkWarning",
    "GradientError",
    "MinimpError",
    "OutOfMemoryError",
    "ScaleWarning",
    "ScalerError",
    "SettingError",
    "ShapeError",
    "plain",
    "unknown_name",
]


class MinimpError(Exception):
    """The root of the tree.

    Args:
        message: what was expected and what came, in one sentence.
        op: the operation that found the fault, for example ``"matmul"``.
        shapes: the shapes that were met.
        formats: the names of the formats that were met.
        help: what to do next; printed on a line of its own.
    """

    def __init__(
        self,
        message: str,
        *,
        op: str | None = None,
        shapes: Iterable[tuple[int, ...]] = (),
        formats: Iterable[str] = (),
        help: str | None = None,  # noqa: A002 - the printed word is "help:", and so is the argument
    ) -> None:
        self.op, self.shapes, self.formats, self.help = op, tuple(shapes), tuple(formats), help
        head = f"{op}: {message}" if op else message
        super().__init__(f"{head}\n  help: {help}" if help else head)


class ShapeError(MinimpError, ValueError):
    """Shapes that do not fit together."""


class FormatError(MinimpError, TypeError):
    """A number format that is unknown, or not allowed where it was met."""


class DeviceError(MinimpError, RuntimeError):
    """A backend that is missing or cannot run, or arrays of two backends in one operation."""


class OutOfMemoryError(DeviceError):
    """A device has no room for an array.

    Attributes:
        asked: the bytes that were asked for.
        used: the bytes that arrays hold.
        total: the bytes that the memory pool holds, of which the rest is free, in pieces too small.
        limit: the most that the pool may hold, None for all that there is.
        held: in a training step, cause -> bytes, by the names of :data:`minimp.memory.CAUSES`; what is not
            known apart stands together under ``"activations and workspaces"``.
    """

    def __init__(
        self, message: str, *, asked: int = 0, used: int = 0, total: int = 0, limit: int | None = None,
        held: Mapping[str, int] | None = None, **told: Any,
    ) -> None:  # fmt: skip
        super().__init__(message, **told)
        self.asked, self.used, self.total, self.limit = asked, used, total, limit
        self.held = dict(held or {})


class FrameworkWarning(UserWarning):
    """What a framework warns of where it does something else than asked: autocast(faithful=True)."""


class GradientError(MinimpError, RuntimeError):
    """A gradient was asked for where there is none."""


class ScalerError(MinimpError, RuntimeError):
    """Loss scaling was called out of order, or on gradients it cannot serve."""


class ScaleWarning(UserWarning):
    """The loss scale is stuck, collapsing or dead: steps are skipped, and skipping more will not help."""


class DataError(MinimpError, ValueError):
    """Input data that cannot be used: wrong shape, empty, NaN, labels out of range, an unreadable file."""


class CheckpointError(MinimpError, ValueError):
    """A checkpoint that cannot be written, or that cannot be trusted."""


class SettingError(MinimpError, ValueError):
    """An option or name that does not exist, or that cannot act here."""


def plain(fault: MinimpError) -> str:
    """Return what an error says, without the op before it and the help behind it.

    >>> plain(SettingError("expected 1, got 2", op="choose", help="give 1"))
    'expected 1, got 2'
    """
    head = str(fault).partition("\n  help: ")[0]
    return head.removeprefix(f"{fault.op}: ") if fault.op else head


class BreakpointError(MinimpError, RuntimeError):
    """A condition that was waited for holds: :func:`minimp.trace.break_when`.

    Attributes:
        event: the :class:`minimp.trace.TraceEvent` for which it holds.
        trace: the :class:`minimp.trace.Trace` of what ran before it, as far as it was kept.
    """

    event: Any = None
    trace: Any = None


class AnomalyError(MinimpError, RuntimeError):
    """An infinity or NaN that no loss scale explains: :func:`minimp.detect_anomaly`.

    Attributes:
        event: the :class:`minimp.trace.TraceEvent` of the op or gradient that made it.
        trace: the :class:`minimp.trace.Trace` of what ran before it, as far as it was kept.
    """

    event: Any = None
    trace: Any = None


MOST_LISTED = 64
"""So many known names are listed where an unknown one is refused."""


def unknown_name(kind: str, name: object, known: Iterable[str], also: Iterable[str] = ()) -> str:
    """Say that a name is unknown and offer the nearest one, `also` among other spellings.

    All known names are listed, or of more than a screen holds the nearest eight.

    >>> unknown_name("recipe", "mixed-fp61", ["fp32", "mixed-fp16"])
    "unknown recipe 'mixed-fp61'; did you mean 'mixed-fp16'? (known: fp32, mixed-fp16)"
    """
    names = [str(each) for each in known]
    near = difflib.get_close_matches(str(name), [*names, *also], n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    told = f"known: {', '.join(names)}"
    if len(names) > MOST_LISTED:
        some = difflib.get_close_matches(str(name), names, n=8, cutoff=0.0)
        told = f"{len(names)} are known, the nearest are: {', '.join(some)}"
    return f"unknown {kind} {str(name)!r}{hint} ({told})"
