"""What a line of the ladder looks like."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy.typing as npt

__all__ = ["WIDTH", "cast_line", "flow", "nonfinite", "op_line", "shape_flow", "values_line", "write"]

WIDTH = 100
SHORTEST_NAME = 8
MOST_VALUES = 16


def write(line: str) -> None:
    """Write a line to stderr at once; a program goes on where stderr has gone away."""
    printable = "".join(c if c.isprintable() else "?" for c in line)
    text = printable if len(printable) <= WIDTH else printable[: WIDTH - 3] + "..."
    stream = sys.stderr
    if stream is not None:  # None where there is no console
        encoding = getattr(stream, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):
            stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            stream.flush()


def flow(came: Sequence[str], made: Sequence[str]) -> str:
    """Return the formats that went in and came out: "float16", "float32->float16"."""
    into, out = dict.fromkeys(came), dict.fromkeys(made)
    if not into or list(into) == list(out):
        return ",".join(out)
    return f"{','.join(into)}->{','.join(out)}"


def shape_flow(came: Sequence[tuple[int, ...]], made: Sequence[tuple[int, ...]]) -> str:
    """Return the shapes that went in and came out: "[32,64][64,10]->[32,10]"; one if it stays."""
    into, out = "".join(map(_shape, came)), "".join(map(_shape, made))
    if not into or set(came) == set(made):
        return _shape(made[0]) if set(came) == set(made) and made else out
    return f"{into}->{out}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def nonfinite(inf: int, nan: int) -> str:
    """Return "3 inf, 1 nan", or ""."""
    return ", ".join(f"{count:,} {name}" for count, name in ((inf, "inf"), (nan, "nan")) if count)


def cast_line(
    phase: str, formats: str, shape: str, amax: float | None, made: tuple[int, int, int], where: str
) -> str:
    """Return the line of a cast; `made` counts the zeros, infinities and NaNs that were none before."""
    zeros, infinite, nan = made
    counts = f"made {zeros:,} zeros {infinite:,} infs" + (f" {nan:,} nans" if nan else "")
    return fitted(f"minimp 2 {phase} cast {formats:17} {shape:12} {largest(amax)} {counts}", where)


def op_line(
    phase: str, op: str, formats: str, shapes: str, amax: float | None, notes: Iterable[str], where: str
) -> str:
    """Return the line of an op or a gradient."""
    told = ", ".join(note for note in notes if note)
    tail = f"{largest(amax)} {told}" if told else largest(amax)
    head = f"minimp 3 {phase} {op:11} {formats:16}"
    if "->" in shapes and len(f"{head} {shapes} {tail.rstrip()}  {where}") > WIDTH:
        shapes = f"..->{shapes.rpartition('->')[2]}"
    line = fitted(f"{head} {shapes:26} {tail}", where)
    return line if line.endswith(where) else fitted(f"{head} {tail}", where)


def values_line(phase: str, op: str, label: str, values: npt.NDArray[Any], source: str) -> str:
    """Return the line of the first values of a result, as many as there is room for."""
    head = f"minimp 4 {phase} {op:11} {label}"
    place = f"  at {clipped(source, 40)}" if source else ""
    room, parts = WIDTH - len(head) - len(place) - len("[, ...]"), list[str]()
    for value in values.reshape(-1)[:MOST_VALUES].tolist():
        text = f"{value:.5g}"
        if sum(map(len, parts)) + 2 * len(parts) + len(text) > room:
            break
        parts.append(text)
    more = ["..."] if len(parts) < values.size else []
    return f"{head}[{', '.join([*parts, *more])}]{place}"


def largest(amax: float | None) -> str:
    """Return "|max| 0.125", in a column: the largest finite magnitude, none where nothing is finite."""
    return f"|max| {'none' if amax is None else f'{abs(amax):.4g}':9}"


def fitted(head: str, where: str) -> str:
    """Return a line with a name at its end.

    Where there is not room for all, columns go first, then the beginning of the name, then all of it. (Of an
    op, shapes go before the name does: whose it is matters more.)
    """
    line = f"{head}  {where}".rstrip()
    if len(line) <= WIDTH:
        return line
    head = " ".join(head.split())
    room = WIDTH - len(head) - 1
    return f"{head} {clipped(where, room)}".rstrip() if room >= SHORTEST_NAME else head


def clipped(text: str, most: int) -> str:
    """Return at most so many characters, the last ones."""
    return text if len(text) <= most else ".." + text[len(text) - most + 2 :]
