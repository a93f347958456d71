"""Sums by name in plain scalars: the oracle of accumulation, written from the definitions.

A way of adding takes two lists of Python floats and gives the sum of their products as the engine hands it
on: a NumPy float32, or a float64 where the name is ``exact``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np

from minimp import formats
from minimp.formats.exact import floor_log2, round_fraction

Numbers = Sequence[float]
Way = Callable[[Numbers, Numbers], Any]
f32, f16 = np.float32, np.float16


def sequential(x: Numbers, y: Numbers) -> Any:
    """Float32 products and running sum."""
    total = f32(0)
    for a, b in zip(x, y, strict=True):
        total = total + f32(a) * f32(b)
    return total


def running(fmt: str) -> Way:
    """Each product and each sum the nearest number of a format, by fractions."""

    def add(x: Numbers, y: Numbers) -> Any:
        total = 0.0
        for a, b in zip(x, y, strict=True):
            total = _nearest(total, _nearest(0.0, Fraction(a) * Fraction(b), fmt), fmt)
        return f32(total)

    return add


def fused(x: Numbers, y: Numbers) -> Any:
    """Each sum with an exact product the nearest float16."""
    total = 0.0
    for a, b in zip(x, y, strict=True):
        total = _nearest(total, Fraction(a) * Fraction(b), "float16")
    return f32(total)


def _nearest(total: float, term: Any, fmt: str) -> float:
    if not (math.isfinite(total) and math.isfinite(term)):
        return float(total + term)
    return round_fraction(Fraction(total) + Fraction(term), fmt)


def chunked(size: int) -> Way:
    """Float32 inside a chunk, the nearest float16 of sum and chunk."""

    def add(x: Numbers, y: Numbers) -> Any:
        total = 0.0
        for first in range(0, len(x), size):
            part = slice(first, first + size)
            total = _nearest(total, float(sequential(x[part], y[part])), "float16")
        return f32(total)

    return add


def split(parts: int) -> Way:
    """Runs of ceil(K / parts) terms, added first to last."""

    def add(x: Numbers, y: Numbers) -> Any:
        size = max(1, -(-len(x) // parts))
        sums = [sequential(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)] or [f32(0)]
        total = sums[0]
        for each in sums[1:]:
            total = total + each
        return total

    return add


def tree(x: Numbers, y: Numbers) -> Any:
    """Neighbours are added in rounds until one number is left; an odd one out moves up."""
    level = [f32(a) * f32(b) for a, b in zip(x, y, strict=True)] or [f32(0)]
    while len(level) > 1:
        pairs = [level[i] + level[i + 1] for i in range(0, len(level) - 1, 2)]
        level = pairs + level[2 * len(pairs) :]
    return level[0] + f32(0)


def kahan(x: Numbers, y: Numbers) -> Any:
    """What each addition loses is taken off the next product."""
    total, lost = f32(0), f32(0)
    for a, b in zip(x, y, strict=True):
        term = f32(a) * f32(b) - lost
        bigger = total + term
        lost = (bigger - total) - term
        total = bigger
    return total


def exact(x: Numbers, y: Numbers) -> Any:
    """The exact sum rounded to odd in float64: any rounding after it is as good as the only one."""
    total = sum((Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True)), Fraction(0))
    nearest = float(total)
    if Fraction(nearest) == total or np.float64(nearest).view(np.int64) % 2:
        return np.float64(nearest)
    return np.float64(math.nextafter(nearest, math.inf if total > Fraction(nearest) else -math.inf))


def unit(terms: int, fraction_bits: int, floor: int) -> Way:
    """Blocks of terms and the running sum cut `fraction_bits` below the largest, then to 24 bits."""

    def add(x: Numbers, y: Numbers) -> Any:
        acc = Fraction(0)
        for first in range(0, len(x), terms):
            pairs = list(zip(x[first : first + terms], y[first : first + terms], strict=True))
            exponents = [_exponent(a, -14) + _exponent(b, -14) for a, b in pairs if a and b]
            exponents += [max(floor_log2(abs(acc)), -126)] if acc else []
            grid = Fraction(2) ** (max([floor, *exponents]) - fraction_bits)
            whole = sum(math.trunc(t / grid) for t in (acc, *(Fraction(a) * Fraction(b) for a, b in pairs)))
            acc = _toward_zero(whole * grid)
        return f32(float(acc))

    return add


def _exponent(a: float, lowest: int) -> int:
    return max(floor_log2(abs(Fraction(a))), lowest)


def _toward_zero(total: Fraction) -> Fraction:
    if not total:
        return total
    grid = Fraction(2) ** (max(floor_log2(abs(total)), -126) - 23)
    return math.trunc(total / grid) * grid


WAYS: dict[str, Way] = {
    "exact": exact,
    "float32:sequential": sequential,
    "float16": running("float16"),
    "float16:fma": fused,
    "bfloat16": running("bfloat16"),
    "chunked:1": chunked(1),
    "chunked:4": chunked(4),
    "pairwise": tree,
    "kahan": kahan,
    "splitk:3": split(3),
    "splitk:50": split(50),
    "tensorcore:volta": unit(4, 23, -131),
    "tensorcore:turing": unit(8, 24, -132),
    "tensorcore:ampere": unit(8, 24, -132),
    "tensorcore:ada": unit(8, 24, -132),
    "tensorcore:hopper": unit(16, 25, -133),
    "tensorcore:blackwell": unit(16, 25, -133),
}
"""Names with one result -> how they add. "float32" and "float64" have no stated order."""


def sums(name: str, x: Any, axes: tuple[int, ...]) -> Any:
    """Sum an array over axes, one scalar after the other in C order; the summed axes stay, of length 1."""
    x = np.asarray(x)
    axes = tuple(axis % x.ndim for axis in axes)
    kept = [i for i in range(x.ndim) if i not in axes]
    rows = x.transpose(*kept, *axes).reshape(*(x.shape[i] for i in kept), -1)
    found = np.empty(rows.shape[:-1], np.float64)
    for index in np.ndindex(found.shape):
        terms = [float(each) for each in rows[index]]
        found[index] = WAYS[name](terms, [1.0] * len(terms))
    shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return found.astype(np.float64 if name == "exact" else f32).reshape(shape)


def products(name: str, a: Any, b: Any) -> Any:
    """(M, K), (K, N) -> (M, N)."""
    dots = [[WAYS[name](row.tolist(), column.tolist()) for column in b.T] for row in a]
    return np.array(dots, np.float64 if name == "exact" else f32)


Meeting = tuple[tuple[int, ...], float, float]


def forward_terms(x: Any, w: Any, geometry: dict[str, Any]) -> Iterator[Meeting]:
    """The definition of a convolution, term by term: (output index, value of x or 0, weight)."""
    (n_, _, height, width), (o_, c_, kh, kw) = x.shape, w.shape
    (oh, ow), groups = out_size(x.shape, w.shape, geometry), geometry["groups"]
    for n, o, i, j in itertools.product(range(n_), range(o_), range(oh), range(ow)):
        first = o // (o_ // groups) * c_
        for c, u, v in itertools.product(range(c_), range(kh), range(kw)):
            y, z = _reads(i, u, 0, geometry), _reads(j, v, 1, geometry)
            inside = 0 <= y < height and 0 <= z < width
            yield (n, o, i, j), float(x[n, first + c, y, z]) if inside else 0.0, float(w[o, c, u, v])


def weight_terms(x: Any, g: Any, shape: tuple[int, ...], geometry: dict[str, Any]) -> Iterator[Meeting]:
    """(weight index, value of x or 0, incoming gradient), over images and output positions."""
    o_, c_, kh, kw = shape
    for o, c, u, v in itertools.product(range(o_), range(c_), range(kh), range(kw)):
        channel = o // (o_ // geometry["groups"]) * c_ + c
        for n, i, j in itertools.product(range(len(x)), range(g.shape[2]), range(g.shape[3])):
            y, z = _reads(i, u, 0, geometry), _reads(j, v, 1, geometry)
            inside = 0 <= y < x.shape[2] and 0 <= z < x.shape[3]
            yield (o, c, u, v), float(x[n, channel, y, z]) if inside else 0.0, float(g[n, o, i, j])


def input_terms(g: Any, w: Any, shape: tuple[int, ...], geometry: dict[str, Any]) -> Iterator[Meeting]:
    """(input index, incoming gradient or 0, weight), over filters of the group and taps."""
    (o_, c_, kh, kw), groups = w.shape, geometry["groups"]
    for n, channel, y, z in itertools.product(*map(range, shape)):
        group, c = divmod(channel, c_)
        for o, u, v in itertools.product(range(o_ // groups), range(kh), range(kw)):
            filter_ = group * (o_ // groups) + o
            found = [  # the output positions that read this element through (u, v): none or one
                float(g[n, filter_, i, j])
                for i in range(g.shape[2]) if _reads(i, u, 0, geometry) == y
                for j in range(g.shape[3]) if _reads(j, v, 1, geometry) == z
            ]  # fmt: skip
            yield (n, channel, y, z), found[0] if found else 0.0, float(w[filter_, c, u, v])


def _reads(position: int, tap: int, axis: int, geometry: dict[str, Any]) -> int:
    stride, dilation, padding = (geometry[key][axis] for key in ("stride", "dilation", "padding"))
    return int(stride * position + dilation * tap - padding)


def out_size(x: tuple[int, ...], w: tuple[int, ...], geometry: dict[str, Any]) -> tuple[int, int]:
    """OH and OW."""
    sizes = [
        (x[2 + a] + 2 * geometry["padding"][a] - geometry["dilation"][a] * (w[2 + a] - 1) - 1)
        // geometry["stride"][a] + 1
        for a in (0, 1)
    ]  # fmt: skip
    return sizes[0], sizes[1]


def gathered(name: str, terms: Iterator[Meeting], shape: tuple[int, ...]) -> Any:
    """Sum the terms of each place."""
    found: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for place, left, right in terms:
        found.setdefault(place, []).append((left, right))
    total = np.empty(shape, np.float64 if name == "exact" else f32)
    for place, pairs in found.items():
        total[place] = WAYS[name]([a for a, _ in pairs], [b for _, b in pairs])
    return total


def to(fmt: str, x: Any) -> Any:
    """Round an array to storage, once: ml_dtypes from float32, fractions from float64."""
    x = np.asarray(x)
    dtype = formats.get(fmt).dtype
    if x.dtype == np.float64 and dtype == ml_dtypes.bfloat16:  # ml_dtypes would round twice
        return formats.round(x, fmt).astype(np.float32).astype(dtype)
    return x.astype(dtype)
