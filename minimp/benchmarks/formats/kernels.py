"""Who takes part, element by element: rounding, storing, reading back, rounding at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.formats import casting, codes, rounding
from minimp.formats.dice import Counter
from minimp.formats.table import Format, get

__all__ = ["FAMILIES", "OURS", "SUBJECTS", "Kernel", "Subject", "kernels"]

Array = npt.NDArray[Any]
OURS = "minimp"
INTO, REFERENCE = "minimp, out=", "minimp, reference"
SEED = 7

FAMILIES = {
    "copy": "the yardstick: float32 copied from one array to another (np.copyto)",
    "grid": "rounding to nearest even (fp8 saturating): float32 in, float32 holding values of the format out",
    "storage": "storage (fp8 saturating): float32 in, the format's codes out",
    "decode": "reading back: the format's codes in, float32 out",
    "stochastic": "stochastic rounding, random bits from a counter: float32 in, float32 out",
    "blocks": "block formats: float32 in, quantised to codes and scales and read back, float32 out",
}
"""Family -> what its kernels do. Each table of the report is a family."""


@dataclass(frozen=True)
class Subject:
    """A format that is measured.

    Attributes:
        name: its name in the report.
        format: the format.
        overflow: the overflow rule of our kernels.
        library: who else casts to it: ``numpy`` or ``ml_dtypes``.
        stored: whether storage and reading back are measured too.
    """

    name: str
    format: Format
    overflow: str | None
    library: str
    stored: bool = True


SUBJECTS = (
    Subject("fp16", get("float16"), None, "numpy"),
    Subject("bf16", get("bfloat16"), None, "ml_dtypes", stored=False),  # there ml_dtypes is as fast as memory
    Subject("e4m3fn", get("float8_e4m3fn"), "saturate", "ml_dtypes"),
    Subject("e5m2", get("float8_e5m2"), "saturate", "ml_dtypes"),
)


@dataclass(frozen=True)
class Kernel:
    """One contender.

    Attributes:
        family: a key of ``FAMILIES``.
        format: a subject's name, ``float32`` for the yardstick.
        maker: whose it is.
        source: what it works on.
        run: (part of the source, place of its first element, threads) -> the result, of the same shape.
            Only ours look at the threads.
        expected: the readable reference of that result: (part, place of its first element).
        block: how many neighbours are worked on together.
    """

    family: str
    format: str
    maker: str
    source: Array
    run: Callable[[Array, int, int], Array]
    expected: Callable[[Array, int], Array]
    block: int = 1

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.family} {self.format}, {self.maker}"


def kernels(x: npt.NDArray[np.float32], *, with_torch: bool) -> list[Kernel]:
    """Return every contender on the float32 values x.

    Each result is a new array, which costs the system some time, but for ``np.copyto``, ``INTO`` and torch's.
    """
    target = np.empty_like(x)
    made = [_copy(x, target)]
    for subject in SUBJECTS:
        made += _grid(x, target, subject)
        if with_torch:
            made.append(_torch_grid(x, target, subject))
        if subject.stored:
            made += [*_storage(x, subject), *_decode(x, subject)]
        made.append(_stochastic(x, subject))
    return made


def _copy(x: Array, target: Array) -> Kernel:
    def run(part: Array, first: int, _: int) -> Array:
        into = target[first : first + part.size]
        np.copyto(into, part)
        return into

    return Kernel("copy", "float32", "numpy", x, run, lambda part, _: part)


def _grid(x: Array, target: Array, subject: Subject) -> Iterator[Kernel]:
    fmt, overflow = subject.format, subject.overflow

    def reference(part: Array, _: int) -> Array:
        return rounding.round_to(part, fmt, overflow=overflow)

    def ours(part: Array, _: int, threads: int) -> Array:
        return casting.round(part, fmt, overflow=overflow, threads=threads)

    def into(part: Array, first: int, threads: int) -> Array:
        there = target[first : first + part.size]
        return casting.round(part, fmt, overflow=overflow, threads=threads, out=there)

    def theirs(part: Array, _: int, __: int) -> Array:
        return part.astype(fmt.dtype).astype(np.float32)

    yield Kernel("grid", subject.name, OURS, x, ours, reference)
    yield Kernel("grid", subject.name, INTO, x, into, reference)
    yield Kernel("grid", subject.name, f"{subject.library} astype", x, theirs, reference)
    few = x[: max(1, x.size // 64)]  # it is some 50 times slower: enough to tell its rate
    yield Kernel("grid", subject.name, REFERENCE, few, lambda part, *_: reference(part, 0), reference)


def _torch_grid(x: Array, target: Array, subject: Subject) -> Kernel:
    import torch

    torch.set_num_threads(1)
    dtype = getattr(torch, subject.format.name)

    there, back = torch.empty(x.size, dtype=dtype), torch.from_numpy(target)

    def run(part: Array, _: int, __: int) -> Array:
        low, wide = there[: part.size], back[: part.size]
        wide.copy_(low.copy_(torch.from_numpy(part)))
        rounded: Array = wide.numpy()
        return rounded

    return Kernel(
        "grid", subject.name, "torch copy_", x, run,
        lambda part, _: rounding.round_to(part, subject.format, overflow=subject.overflow),
    )  # fmt: skip


def _storage(x: Array, subject: Subject) -> Iterator[Kernel]:
    fmt, overflow = subject.format, subject.overflow

    def reference(part: Array, _: int) -> Array:
        return codes.encode(part, fmt, overflow=overflow)

    def ours(part: Array, _: int, threads: int) -> Array:
        return casting.encode(part, fmt, overflow=overflow, threads=threads)

    def theirs(part: Array, _: int, __: int) -> Array:
        return part.astype(fmt.dtype).view(fmt.code_dtype)

    yield Kernel("storage", subject.name, OURS, x, ours, reference)
    yield Kernel("storage", subject.name, f"{subject.library} astype", x, theirs, reference)


def _decode(x: Array, subject: Subject) -> Iterator[Kernel]:
    fmt = subject.format
    stored = x.astype(fmt.dtype).view(fmt.code_dtype)

    def reference(part: Array, _: int) -> Array:
        return codes.decode(part, fmt).astype(np.float32)

    def ours(part: Array, _: int, threads: int) -> Array:
        return casting.decode(part, fmt, dtype=np.float32, threads=threads)

    def theirs(part: Array, _: int, __: int) -> Array:
        return part.view(fmt.dtype).astype(np.float32)

    yield Kernel("decode", subject.name, OURS, stored, ours, reference)
    yield Kernel("decode", subject.name, f"{subject.library} astype", stored, theirs, reference)


def _stochastic(x: Array, subject: Subject) -> Kernel:
    fmt, overflow = subject.format, subject.overflow

    def reference(part: Array, first: int) -> Array:
        return rounding.round_to(part, fmt, "stochastic", overflow, Counter(SEED, first))

    def ours(part: Array, first: int, threads: int) -> Array:
        return casting.round(part, fmt, "stochastic", overflow, Counter(SEED, first), threads=threads)

    return Kernel("stochastic", subject.name, OURS, x, ours, reference)
