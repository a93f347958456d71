"""Launches over more elements than 32 bits can count, of which the last few are a sample's.

What lies before them takes no memory until it is touched, and only those blocks run that come to the sample:
each thread of the launch has one turn. An index that is cut to 32 bits meets zeros there, and shows.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from minimp_backends.kernels.declaring import Kernel
from minimp_backends.kernels.families.unscaling import CHUNK
from minimp_backends.kernels.references.statistics import GROUP
from minimp_backends.kernels.sources import Source
from tests.kernels.agreement import Launched, cell, expected, mismatches
from tests.kernels.rungs import built_with
from tests.kernels.samples import Arguments, arrays, small_samples
from tests.kernels.shim.building import Build, build

__all__ = ["FAR", "far_faults", "is_far"]

FAR = 1 << 35
"""Elements before the sample: neither their number nor that of runs of eight fits 32 bits."""
ROOM = 1 << 34
"""Elements around an array: where an index that wraps may lead."""
NO_RESERVE = 0x4000  # MAP_NORESERVE of Linux, which Python's mmap names from 3.13 on
PER_COLUMN = ("weight", "bias")
"""Arrays of one number for each column."""


@dataclass
class Far:
    """One launch.

    Attributes:
        given: the sample, as the reference takes it.
        more: what the launch has in the place of the sample's numbers and indices.
        before: array -> elements before those of the sample. Of the others each is as it is.
        grid, block: of the whole launch.
        blocks: those that run.
    """

    given: Arguments
    more: Arguments
    before: dict[str, int]
    grid: int
    block: int
    blocks: list[range] = field(default_factory=list)


def _sparse(array: np.ndarray, before: int) -> tuple[int, np.ndarray]:
    """Return the address of an array that ends with this one, and its end."""
    size = (2 * ROOM + before + array.size) * array.itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
    whole = np.frombuffer(mmap.mmap(-1, size, flags=flags), array.dtype)
    end = whole[ROOM + before :][: array.size].reshape(array.shape)
    end[...] = array
    return int(whole[ROOM:].ctypes.data), end


def _launched(kernel: Kernel, far: Far) -> tuple[Launched, list[np.ndarray]]:
    """Return the launch, whose copies are the ends of the arrays as given, and what keeps their memory."""
    copies: Arguments = dict(far.given)
    cells, ends = [], []
    for parameter in kernel.parameters:
        name = parameter.name
        if parameter.role == "value":
            cells.append(cell(parameter, far.more.get(name, copies[name])))
            continue
        value = far.more.get(name, copies[name])
        several = value if parameter.many else [value]
        last = len(several) - 1  # of several tensors, the last one is far
        made = [_sparse(each, far.before.get(name, 0) * (at == last)) for at, each in enumerate(several)]
        found = np.zeros(parameter.many or 1, np.uint64)
        found[: len(made)] = [address for address, _ in made]
        cells.append(found)
        ends += [end for _, end in made]
        if name not in far.more:
            copies[name] = [end for _, end in made] if parameter.many else made[0][1]
    return Launched(kernel, copies, cells), ends


def far_faults(source: Source, kernel: Kernel) -> Iterator[str]:
    """Yield what is wrong with a kernel far away, built by g++."""
    plan = _plan(kernel)
    if plan is None:
        return
    built = build(source, built_with(source, kernel))
    for place, far in enumerate(plan()):
        launch, _held = _launched(kernel, far)
        told = _run(built, launch, far)
        wanted = expected(kernel, far.given)
        faults = [told] if told else mismatches(kernel, far.given, launch.copies, wanted)
        yield from (f"far sample {place}: {fault}" for fault in faults)


def _run(built: Build, launch: Launched, far: Far) -> str:
    shape = (far.grid, far.block, 0)
    for blocks in far.blocks:
        told = built.launch(launch.kernel, shape, launch.addresses, backwards=False, blocks=blocks)
        if told:
            return told
    return ""


# ---- what is far, by the kind of launch ------------------------------------------------------------------


def is_far(kernel: Kernel) -> bool:
    """Return whether a kernel is tried far away: all are that have as many elements as one likes."""
    return _plan(kernel) is not None


def _plan(kernel: Kernel) -> Callable[[], Iterator[Far]] | None:
    names = {each.name for each in kernel.parameters}
    plans = {
        "rows_each": _columns, "vocabulary": _segments, "rows": _rows, "counts": _tensors,
        "with_cuts": _tally, "totals": _parts, "inner": _channels, "count": _elements,
    }  # fmt: skip
    return next((partial(plan, kernel) for name, plan in plans.items() if name in names), None)


def _largest(kernel: Kernel, fits: Callable[[Arguments], bool] = lambda _: True) -> Arguments:
    """Return the largest small sample that fits."""
    return max(filter(fits, small_samples(kernel.name)), key=lambda each: sum(map(np.size, arrays(each))))


def _elements(kernel: Kernel, far: int = FAR, *, left: int = 3) -> Iterator[Far]:
    """One element after the other: the last runs and what is over behind them; `left` stay as they are."""
    whole = _largest(kernel, lambda each: each["count"] > 7 and _shows(kernel, each))
    before = {
        name: far * (each.size // whole["count"])
        for name, each in whole.items()
        if isinstance(each, np.ndarray) and each.size >= whole["count"]
    }
    several, block, count = 1 << 18, kernel.launch(whole).block, whole["count"] - left
    turn = several // kernel.launch({**whole, "count": several}).grid  # elements of a block
    given, more = {**whole, "count": count}, {"count": far + count}
    if "start" in whole:
        given["start"], more["start"] = (whole["start"] + far) % 2**64, whole["start"]
    grid = -(-more["count"] // turn)
    yield Far(given, more, before, grid, block, [range(1), range(far // turn, grid)])


def _shows(kernel: Kernel, given: Arguments) -> bool:
    """Return whether a flag tells of the sample, where nothing else does."""
    return "values" not in given or bool((expected(kernel, given)["found"] != given["found"]).all())


def _channels(kernel: Kernel) -> Iterator[Far]:
    """As elements, of which there are no more than 2^32 - 1 here: whole images before the sample."""
    given = _largest(kernel)
    unit = given["inner"] * given["channels"] << 11
    (far,) = _elements(kernel, -(-(1 << 31) // unit) * unit, left=0)
    yield replace(far, before={**far.before, "bias": 0})


def _tally(kernel: Kernel) -> Iterator[Far]:
    """As elements, with a sum for each block."""
    given = {**_largest(kernel), "sums": np.full(1, np.nan)}
    block = kernel.launch(given).block
    first = FAR // (block * GROUP)
    more = {"count": FAR + given["count"]}
    yield Far(given, more, {"values": FAR, "sums": first}, first + 1, block, [range(first, first + 1)])


def _rows(kernel: Kernel) -> Iterator[Far]:
    """Rows of warps, then one of a block: many rows before the sample's."""
    for least in (40, 257):
        given = _largest(kernel, lambda each: least <= each["length"] < 6 * least)  # noqa: B023 - asked at once
        rows, length, launch = given["rows"], given["length"], kernel.launch(given)
        unit = 8 * given.get("queries", 1)
        far = FAR // length // unit * unit
        first = far // 8 if length <= 256 else far
        before = _by_rows(given, far)
        yield Far(
            given, {"rows": far + rows}, before, first + launch.grid, launch.block,
            [range(first, first + launch.grid)],
        )  # fmt: skip


def _by_rows(given: Arguments, far: int) -> dict[str, int]:
    """Return how many elements lie before each array: whole rows, or a number for each."""
    rows, length = given["rows"], given["length"]
    before = {}
    for name, value in given.items():
        for each in arrays({name: value}):
            if name not in PER_COLUMN and each.size in (rows, rows * length):
                before[name] = far * (each.size // rows)
    if not given.get("each", 1):
        before["grads"] = 0  # one for all rows
    return before


def _columns(kernel: Kernel) -> Iterator[Far]:
    """Parts of many rows before the sample's one part."""
    given = _largest(kernel, lambda each: each["rows"] <= each["rows_each"] and each["length"] >= 40)
    length, launch = given["length"], kernel.launch(given)
    parts = FAR // (length * given["rows_each"])
    far = parts * given["rows_each"]
    before = {**_by_rows(given, far), "parts": parts * given["parts"].size}
    first = parts * launch.grid
    grid = first + launch.grid
    yield Far(given, {"rows": far + given["rows"]}, before, grid, launch.block, [range(first, grid)])


def _tensors(kernel: Kernel) -> Iterator[Far]:
    """Several tensors, of which the last one is far longer, with each thing that may be asked for."""
    tables = [each.name for each in kernel.parameters if each.many > 1 and each.role != "value"]
    for asked in [name for name in ("compensations", "changes", "peaks") if name in tables] or ["grads"]:
        given = _largest(kernel, lambda each, asked=asked: len(each["counts"]) > 1 and len(each[asked]) > 0)
        counts = [*given["counts"][:-1], FAR + given["counts"][-1]]
        first = sum(-(-count // CHUNK) for count in counts[:-1])
        grid = sum(-(-count // CHUNK) for count in counts)
        blocks = [range(first), range(first + FAR // CHUNK, grid)]
        before = dict.fromkeys(tables, FAR)
        yield Far(given, {"counts": counts}, before, grid, kernel.launch(given).block, blocks)


def _segments(kernel: Kernel) -> Iterator[Far]:
    """Many places before the sample's, and many rows before those that are looked up."""
    given = _largest(kernel)
    width, launch = given["width"], kernel.launch(given)
    far = FAR // width // launch.block * launch.block
    first = far * width // launch.block
    more = {"vocabulary": far + given["vocabulary"], "order": given["order"] + far}
    before = {"rows": far * width, "table": far * width, "starts": far}
    grid = first + launch.grid
    yield Far(given, more, before, grid, launch.block, [range(first, grid)])


def _parts(kernel: Kernel) -> Iterator[Far]:
    """Three rows of parts, of which the last one's end is the sample's."""
    given = _largest(kernel, lambda each: each["count"] == 1)
    launch = kernel.launch(given)
    width, first = FAR + given["width"], FAR // launch.block
    before = {"parts": 2 * width + FAR, "totals": FAR}
    grid = first + launch.grid
    yield Far(given, {"count": 3, "width": width}, before, grid, launch.block, [range(first, grid)])
