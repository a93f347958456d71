"""Sums of terms, by the same names as products: the product with ones, which changes no term.

So a term is where a product would be: ``float16`` and ``bfloat16`` round each term to that format before it
is added, ``float16:fma`` and the others add it as it is, and a matrix unit takes those terms that it takes as
factors. The order is that of the terms: k counts them in C order over the axes summed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import ShapeError
from minimp.formats.accumulation.operands import Factors, Reals, checked
from minimp.formats.accumulation.orders import multiply, parse_accumulate, require_room
from minimp.formats.rounding import Float64s
from minimp.formats.table import Format, get

__all__ = ["sum_of"]

_PIECE = 1 << 20  # numbers copied at a time where axes cannot be merged without a copy


def sum_of(
    x: npt.ArrayLike,
    axis: int | Sequence[int] | None = None,
    *,
    fmt: Any = None,
    accumulate: str = "float32",
    output: Any = None,
    keepdims: bool = False,
) -> Float64s:
    """Sum terms as ``accumulate`` says, and round once to ``output``; exported as ``minimp.formats.sum``.

    With x_1 ... x_K the terms of one sum, in C order over the axes summed, this is ``matmul`` of ones (1, K)
    and x (K, 1): every name means what it means there, a product being the term itself. ``float16`` and
    ``bfloat16`` round each term to that format first, then each running sum.

    Args:
        x: real numbers of any shape, values of ``fmt``.
        axis: an axis, several, or None for all; an empty tuple sums each number by itself.
        fmt: the terms' format, anything that ``minimp.formats.get`` knows; None means that of x's dtype.
        accumulate: a name that ``minimp.formats.matmul`` knows.
        output: the format of the result; ``fmt`` when None. Rounding is to nearest even, overflow as IEEE
            754.
        keepdims: whether the axes summed stay, with length 1.

    Returns:
        A float64 array of values of ``output``; a sum of no terms is +0.

    Raises:
        FormatError: unknown format; values that are not of their format; NaN where ``output`` has none.
        SettingError: unknown accumulation; one that cannot hold terms of ``fmt``; a matrix unit that does not
            multiply ``fmt``.
        ShapeError: an axis that x does not have, or twice the same.

    Many sums side by side cost a few passes over x. A few long ones (under 256 sums) are chains that no array
    operation shortens: some 10 ns a term where NumPy has the running sum (``float16``, ``bfloat16``,
    ``float32:sequential``, ``splitk``, and ``chunked`` inside its chunks), some microseconds a step elsewhere
    (``kahan``, matrix units, ``float16:fma`` of terms longer than float16).
    """
    x = np.asarray(x)
    fmt, how = get(x.dtype if fmt is None else fmt), parse_accumulate(accumulate)
    require_room(fmt, how, "sum")
    x = checked(x, fmt, "sum")
    axes = _axes(axis, x.ndim)
    kept = [each for each in range(x.ndim) if each not in axes]
    result = np.empty([x.shape[each] for each in kept])
    moved, target = x.transpose(*kept, *axes), fmt if output is None else get(output)
    for terms, sums in _rows(moved, result, len(kept)):
        factors, place = _with_ones(terms, sums, fmt)
        multiply(factors, how, place, target)
    shape = [1 if each in axes else length for each, length in enumerate(x.shape)]
    return result.reshape(shape) if keepdims else result


def _with_ones(terms: Reals, sums: Float64s, fmt: Format) -> tuple[Factors, Float64s]:
    """(..., M, K) times ones (K, 1), or ones (1, K) times (..., K, M), as the terms lie in memory."""
    start, one, length = np.zeros((1, 1)), np.ones((), np.float32), terms.shape[-1]
    if abs(terms.strides[-1]) <= abs(terms.strides[-2]):
        return Factors(terms, np.broadcast_to(one, (length, 1)), start, fmt), sums[..., None]
    return Factors(np.broadcast_to(one, (1, length)), terms.swapaxes(-1, -2), start, fmt), sums[..., None, :]


def _rows(x: Reals, result: Float64s, kept: int) -> Iterator[tuple[Reals, Float64s]]:
    """The terms of each sum in one row, (..., M, K), and the sums' places, (..., M): views where they can be.

    The first ``kept`` axes of x are those of the result. Where the others cannot be seen as one, some sums'
    terms are copied at a time.
    """
    length, together = math.prod(x.shape[kept:]), _merged(x, range(kept, x.ndim))
    if len(together) <= 1 or kept == 0:
        rows = _merged(x, range(kept)) or [1]
        yield x.reshape(*rows, length), result.reshape(rows)
        return
    step = max(1, _PIECE * len(x) // max(1, x.size))
    for first in range(0, len(x), step):
        some = result[first : first + step]
        yield x[first : first + step].reshape(some.size, length), some.reshape(-1)


def _merged(x: Reals, axes: Iterable[int]) -> list[int]:
    """The lengths of some neighbouring axes, those that are one in memory taken together."""
    lengths: list[int] = []
    for axis in axes:
        apart = not lengths or x.strides[axis - 1] != x.strides[axis] * x.shape[axis]
        lengths = [*lengths, x.shape[axis]] if apart else [*lengths[:-1], lengths[-1] * x.shape[axis]]
    return lengths


def _axes(axis: int | Sequence[int] | None, ndim: int) -> list[int]:
    given = range(ndim) if axis is None else [axis] if isinstance(axis, int | np.integer) else list(axis)
    if not all(-ndim <= each < ndim for each in given) or len({each % ndim for each in given}) < len(given):
        raise ShapeError(
            f"axis {axis} of an array of {ndim} axes: expected different axes from {-ndim} to {ndim - 1}",
            op="sum",
            help="give each axis once; None sums over all",
        )
    return sorted(each % ndim for each in given)
