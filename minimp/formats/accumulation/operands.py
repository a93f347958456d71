"""The factors of a product, as they came: checked piece by piece, widened only where and when they are used.

A product of (M, K) and (K, N) needs no wide copy of its factors: ``tiles`` cuts the result into pieces that
stay in a core's cache, and ``blocks`` widens the factors of one piece, a few k at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import ShapeError
from minimp.formats.accumulation.quickround import nearest_even, serves
from minimp.formats.operations import as_values
from minimp.formats.rounding import Float64s
from minimp.formats.table import FORMATS, Format

__all__ = ["Factors", "Reals", "Tile", "checked", "quantum", "result_shape", "tiles", "to_float32"]

Reals = npt.NDArray[Any]
_PIECE = 1 << 18  # numbers widened at a time when values are checked
_TERMS = 64  # k widened at a time
_BLOCK = 1 << 20  # numbers of a factor widened at a time
_HALF = FORMATS["float16"]


@dataclass(frozen=True)
class Factors:
    """What there is to multiply and add: a B of one tile, and what the sum starts from.

    Attributes:
        a, b: (T, M, K) and (T, K, N), real numbers of any dtype: values of ``fmt``.
        start: (T, M, N) in float64.
        fmt: the factors' format.
        size: B of ``chunked:B``, S of ``splitk:S``; 0 elsewhere.
    """

    a: Reals
    b: Reals
    start: Float64s
    fmt: Format
    size: int = 0

    @property
    def length(self) -> int:
        """K, the number of terms."""
        return int(self.a.shape[-1])

    def blocks(self, step: int, dtype: Any) -> Iterator[tuple[Reals, Reals]]:
        """Yield ``step`` columns of a and rows of b at a time, in ``dtype``: (T, M, k) and (T, k, N)."""
        for first in range(0, self.length, step):
            part = slice(first, first + step)
            yield widened(self.a[..., part], dtype), widened(self.b[..., part, :], dtype)

    def terms(self, dtype: Any) -> Iterator[tuple[Reals, Reals]]:
        """Yield the factors of each k: a column (T, M, 1) and a row (T, 1, N)."""
        for a, b in self.blocks(_TERMS, dtype):
            for k in range(a.shape[-1]):
                yield a[..., k, None], b[..., k, None, :]


def checked(x: npt.ArrayLike, fmt: Format, op: str) -> Reals:
    """x as an array of its own dtype, refused where it is no value of ``fmt``.

    Errors are those of ``as_values``; no more than a piece of x is widened at a time.
    """
    x = np.asarray(x)
    if FORMATS.get(fmt.name) is fmt and x.dtype == fmt.dtype and fmt.padding == 0:
        return x  # whatever its bits are, they are a value of the format
    pieces = x.reshape(-1) if x.flags.c_contiguous or x.ndim == 0 else x
    rows = max(1, _PIECE * len(pieces) // max(1, x.size))
    for first in range(0, max(1, len(pieces)), rows):
        piece = pieces[first : first + rows]
        if not _plainly(piece, fmt):
            as_values(piece, fmt, op)
    return x


def _plainly(x: Reals, fmt: Format) -> bool:
    """Whether quick rounding finds nothing to change; no is no verdict."""
    if x.dtype.kind != "f" or x.dtype.itemsize > 8 or not serves(fmt):
        return False
    wide = x.astype(np.float64)
    return bool((nearest_even(wide, fmt) == wide).all())


@np.errstate(invalid="ignore")  # a signalling NaN becomes quiet
def widened(x: Reals, dtype: Any) -> Reals:
    """x in float32 or float64, C-contiguous: a copy, or x itself."""
    if x.dtype == np.float16 and dtype is np.float32:
        return to_float32(x)
    return np.ascontiguousarray(x, dtype) if x.dtype.kind in "fiu" else np.asarray(x).astype(dtype, "C")


def to_float32(x: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """Widen float16 by its bits: some times faster than ``astype`` where NumPy does that in software.

    Sign and magnitude are moved to float32's places; the exponent is off by 127 - 15, which a product with
    2^112 mends, for subnormals too. Infinities and NaN, at the top exponent, go the plain way.
    """
    codes = x.view(np.int16).astype(np.int32, "C")
    codes <<= 13
    codes &= np.int32(0x8FFFE000 - (1 << 32))
    wide = codes.view(np.float32)
    wide *= np.float32(2.0**112)
    special = max(wide.max(initial=0), -wide.min(initial=0)) > _HALF.max
    return x.astype(np.float32, "C") if special else wide


def quantum(x: Reals, fmt: Format) -> float:
    """A power of two of which every number of x, finite values of ``fmt``, is a whole multiple."""
    lowest = fmt.smallest_subnormal
    if 2 * (fmt.emin - fmt.mantissa_bits) >= -149:
        return lowest  # a product of two cannot be too small for float32: no need to look
    magnitude = np.abs(x)
    smallest = float(magnitude.min(where=magnitude > 0, initial=np.inf))
    if math.isinf(smallest):
        return math.inf
    return max(lowest, math.ldexp(1.0, math.frexp(smallest)[1] - 1 - fmt.mantissa_bits))


@dataclass(frozen=True)
class Tile:
    """A piece of the result: a view (T, M, N) to be filled, and its factors."""

    result: Float64s
    factors: Factors


def tiles(factors: Factors, result: Float64s, plane: int, terms: int) -> Iterator[Tile]:
    """Cut a product into tiles of about ``plane`` numbers of the result.

    Small matrices are taken several at a time, large ones in pieces. No number of the result depends on how
    it is cut.

    Args:
        factors: a (..., M, K), b (..., K, N) and start (..., M, N), all leading axes there or missing.
        result: (..., M, N), to be filled.
        plane: how many numbers of the result one tile holds.
        terms: how many k will be widened at a time; tiles are so small that these are a small block too.
    """
    lead = result.shape[:-2]
    a = np.broadcast_to(factors.a, (*lead, *factors.a.shape[-2:]))
    b = np.broadcast_to(factors.b, (*lead, *factors.b.shape[-2:]))
    start = np.broadcast_to(factors.start, result.shape)
    for index in np.ndindex(lead[:-1]):
        here = [each[index] for each in (a, b, start, result)]
        if not lead:
            here = [each[None] for each in here]
        yield from _cut(here, factors, plane, terms)


def _cut(here: list[Any], factors: Factors, plane: int, terms: int) -> Iterator[Tile]:
    a, b, start, result = here
    count, height, width = result.shape
    most = max(1, _BLOCK // max(1, min(factors.length, terms)))  # rows or columns
    columns = max(1, min(width, most, max(1024, math.isqrt(plane), plane // max(1, height))))
    rows = max(1, min(height, most, plane // columns))
    group = max(1, min(plane // (rows * columns), most // max(rows, columns)))
    for t in range(0, count, group):
        for m in range(0, height, rows):
            for n in range(0, width, columns):
                T, M, N = slice(t, t + group), slice(m, m + rows), slice(n, n + columns)
                piece = Factors(a[T, M], b[T, :, N], start[T, M, N], factors.fmt, factors.size)
                yield Tile(result[T, M, N], piece)


def result_shape(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of A B + C.

    Raises:
        ShapeError: the shapes do not fit.
    """
    shapes, problem = (a, b, c), ""
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        problem = f"expected (..., M, K) and (..., K, N), got {a} and {b}"
    else:
        try:
            shape = (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
            if np.broadcast_shapes(shape, c) == shape:
                return shape
            problem = f"c of shape {c} does not broadcast to {shape}"
        except ValueError:
            problem = f"leading axes of {a} and {b}, or c of shape {c}, do not broadcast"
    raise ShapeError(problem, op="matmul", shapes=shapes, help="K is a's last axis and b's last but one")
