"""The ratios that have an aim."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minimp.benchmarks.figure import Figure
from minimp.benchmarks.formats.kernels import OURS, SUBJECTS
from minimp.benchmarks.formats.products import NUMPY, SGEMM
from minimp.benchmarks.formats.rows import FormatTimes, Row

__all__ = ["AIMS", "CPFLOAT", "PRODUCTS", "figures"]


@dataclass(frozen=True)
class Aim:
    """How many times faster than the library's cast a kernel of ours is to be."""

    family: str
    format: str
    times: float


AIMS = (
    Aim("grid", "fp16", 4.0),
    Aim("grid", "bf16", 1.2),
    Aim("grid", "e4m3fn", 7.0),
    Aim("grid", "e5m2", 7.0),
    Aim("storage", "e4m3fn", 4.0),
    Aim("storage", "e5m2", 4.0),
    Aim("decode", "fp16", 2.0),
    Aim("decode", "e4m3fn", 5.0),
    Aim("decode", "e5m2", 5.0),
)
STOCHASTIC = 1 / 3
"""The least rate of stochastic rounding, over that of rounding to nearest."""

CPFLOAT = {"grid": 275 / 2290, "stochastic": 70 / 2290}
"""Family -> the rate of CPFloat's C code for fp16 over that of memcpy, on one core of an AMD Zen 3.

CPFloat: Fasi and Mikaitis 2023, "CPFloat: A C library for simulating low-precision arithmetic" (ACM TOMS
49:2); 275 and 70 million values a second, where a copy of float32 makes 2290.
"""

PRODUCTS = (("chunked:16", 4.0), ("float16", 60.0), ("tensorcore:", 90.0))
"""The accumulation, or how its name begins -> the most time, over that of sgemm with rounding."""
GROWTH = 1.05
"""The most that memory may grow with the values: it is to be equal, short of Python's own small objects."""


def figures(times: FormatTimes) -> list[Figure]:
    """Return the ratios that have an aim, as far as they were measured."""
    return [*_casts(times), *_stochastic(times), *_cpfloat(times), *_products(times), *_memory(times)]


def _casts(times: FormatTimes) -> Iterator[Figure]:
    libraries = {subject.name: f"{subject.library} astype" for subject in SUBJECTS}
    for aim in AIMS:
        other = libraries[aim.format]
        mine, theirs = times.row(aim.family, aim.format, OURS), times.row(aim.family, aim.format, other)
        if mine and theirs:
            there_and_back = " there and back" * (aim.family == "grid")
            name = f"{aim.format} {aim.family}: minimp's speed / {other}{there_and_back}"
            yield Figure(name, mine.rate / theirs.rate, aim.times, at_most=False)


def _stochastic(times: FormatTimes) -> Iterator[Figure]:
    for subject in SUBJECTS:
        random, nearest = (times.row(family, subject.name, OURS) for family in ("stochastic", "grid"))
        if random and nearest:
            name = f"{subject.name}: speed of stochastic rounding / nearest even"
            yield Figure(name, random.rate / nearest.rate, STOCHASTIC, at_most=False)


def _cpfloat(times: FormatTimes) -> Iterator[Figure]:
    copy = times.row("copy", "float32", "numpy")
    words = {"grid": "nearest even", "stochastic": "stochastic"}
    for family, share in CPFLOAT.items():
        mine = times.row(family, "fp16", OURS)
        if mine and copy:
            name = f"fp16 {words[family]}: speed / memcpy (aim: CPFloat in C, Zen 3)"
            yield Figure(name, mine.rate / copy.rate, share, at_most=False)


def _products(times: FormatTimes) -> Iterator[Figure]:
    sgemm, numpy = (times.row("matmul", "float16", maker) for maker in (SGEMM, NUMPY))
    if sgemm is None or numpy is None:
        return
    ours = [row for row in times.rows if row.family == "matmul" and row.maker not in (SGEMM, NUMPY)]
    for row in ours:
        for start, most in PRODUCTS:
            if row.maker == start or (start.endswith(":") and row.maker.startswith(start)):
                yield Figure(f"{_label(row)}: time / {SGEMM}", row.seconds / sgemm.seconds, most)
    if ours:
        slowest = max(ours, key=lambda row: row.seconds)
        name = f"the slowest ({_label(slowest)}): time / {NUMPY}"
        yield Figure(name, slowest.seconds / numpy.seconds, 1.0)


def _label(row: Row) -> str:
    return row.maker if row.format == "float16" else f"{row.maker} of {row.format}"


def _memory(times: FormatTimes) -> Iterator[Figure]:
    if times.weights:
        worst = max(times.weights, key=lambda weight: weight.growth)
        few, most = min(worst.bytes), max(worst.bytes)
        name = f"extra memory for {most // few} times the values, at worst ({worst.family} {worst.format})"
        yield Figure(name, worst.growth, GROWTH)
