"""Matrix products with the accumulation spelled out: order, precision, hardware."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError, unknown_name
from minimp.formats.accumulation import quicksums, quickunits, summation
from minimp.formats.accumulation.exactdot import exact_dot, exact_dot_by_fractions
from minimp.formats.accumulation.operands import Factors, checked, result_shape, tiles
from minimp.formats.accumulation.quickround import nearest_even
from minimp.formats.accumulation.tensorcore import UNITS, unit_for
from minimp.formats.operations import as_values
from minimp.formats.rounding import Float64s
from minimp.formats.table import FORMATS, Format, get

__all__ = ["ACCUMULATES", "Accumulate", "matmul", "multiply", "parse_accumulate", "require_room"]

_FLOAT64, _FLOAT32 = FORMATS["float64"], FORMATS["float32"]
_FLOAT16, _BFLOAT16 = FORMATS["float16"], FORMATS["bfloat16"]


@dataclass(frozen=True)
class Accumulate:
    """One way to sum a dot product, as ``parse_accumulate`` reads it.

    Attributes:
        name: the whole name, ``"chunked:32"``.
        order: its row in ``ACCUMULATES``, ``"chunked:B"``.
        format: the format of the running sum.
        size: B of ``chunked:B``, S of ``splitk:S``; None elsewhere.
    """

    name: str
    order: str
    format: Format
    size: int | None = None


@dataclass(frozen=True)
class Order:
    """A row of ``ACCUMULATES``.

    Attributes:
        format: the format of the running sum, and of c.
        run: the sum in float64, not yet rounded to the output.
        note: one line for people.
        plane: how many sums are worked on together.
        terms: how many k are widened at a time.
    """

    format: Format
    run: Callable[[Factors], Float64s]
    note: str
    plane: int = 1 << 15
    terms: int = 64


def _unit_order(name: str) -> Order:
    return Order(
        _FLOAT32,
        lambda factors: quickunits.tensor_core(factors, unit_for(name, factors.fmt)),
        f"{name.capitalize()}'s matrix unit with a float32 accumulator",
        plane=1 << 14,
    )


_ORDERS = {
    "float32": Order(
        _FLOAT32,
        lambda factors: summation.any_order(factors, np.float32),
        "float32 products and sums, in whatever order is fast",
        plane=1 << 22,
        terms=summation.BLAS_TERMS,
    ),
    "float32:sequential": Order(
        _FLOAT32,
        summation.sequential,
        "float32 products and running sum, k ascending",
    ),
    "float64": Order(
        _FLOAT64,
        lambda factors: summation.any_order(factors, np.float64),
        "float64 products and sums, in whatever order is fast",
        plane=1 << 22,
        terms=summation.BLAS_TERMS,
    ),
    "float16": Order(
        _FLOAT16,
        lambda factors: quicksums.running(factors, _FLOAT16),
        "each product and each running sum rounded to float16, k ascending",
    ),
    "float16:fma": Order(
        _FLOAT16,
        lambda factors: quicksums.running_fma(factors, _FLOAT16),
        "each running sum rounded to float16, the products not, k ascending",
    ),
    "bfloat16": Order(
        _BFLOAT16,
        lambda factors: quicksums.running(factors, _BFLOAT16),
        "each product and each running sum rounded to bfloat16, k ascending",
    ),
    "chunked:B": Order(
        _FLOAT16,
        lambda factors: quicksums.chunked(factors, _FLOAT16),
        "a float32 running sum inside B terms, a float16 running sum of the chunks",
        plane=1 << 16,
    ),
    "pairwise": Order(_FLOAT32, quicksums.pairwise, "a balanced float32 tree over neighbours"),
    "kahan": Order(_FLOAT32, summation.kahan, "Kahan's compensated float32 running sum, k ascending"),
    "splitk:S": Order(
        _FLOAT32,
        summation.splitk,
        "S float32 running sums over ceil(K/S) terms each, then added first to last",
    ),
}
ACCUMULATES: Mapping[str, Order] = MappingProxyType(
    _ORDERS | {f"tensorcore:{name}": _unit_order(name) for name in UNITS}
)
_SIZED = {"chunked": "chunked:B", "splitk": "splitk:S"}
_NAMES = ("exact", *ACCUMULATES)


@lru_cache(maxsize=256)
def parse_accumulate(name: str) -> Accumulate:
    """Read the name of an accumulation.

    Raises:
        SettingError: the name is unknown (the nearest one is offered), or B or S is no positive whole number.
    """
    if name == "exact":
        return Accumulate(name, name, _FLOAT64)
    head, colon, number = name.partition(":")
    order = _SIZED.get(head)
    if order is not None and colon and number != order[-1]:
        if not (number.isascii() and number.isdigit() and int(number) > 0):
            raise SettingError(
                f"expected a positive whole number in the place of {order[-1]} in {order!r}, got {number!r}",
                op="matmul",
                help=f"for example {head}:32",
            )
        return Accumulate(name, order, ACCUMULATES[order].format, int(number))
    if order is not None or name not in ACCUMULATES:
        raise SettingError(
            unknown_name("accumulation", name, _NAMES),
            op="matmul",
            help="chunked and splitk carry a number: chunked:32, splitk:4",
        )
    return Accumulate(name, name, ACCUMULATES[name].format)


def matmul(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    c: npt.ArrayLike | None = None,
    *,
    fmt: Any,
    accumulate: str = "float32",
    output: Any = None,
) -> Float64s:
    """A B (+ C): inputs of ``fmt``, sums as ``accumulate`` says, rounded once to ``output``.

    Args:
        a, b: (..., M, K) and (..., K, N), values of ``fmt``; leading axes broadcast.
        c: broadcasts to (..., M, N), values of the running sum's format: what the sum starts from. Where the
            order is a tree or not stated (``pairwise``, ``float32``, ``float64``) it is added at the end.
            None means +0.
        fmt: the inputs' format, anything that ``minimp.formats.get`` knows.
        accumulate: a key of ``ACCUMULATES``, or ``"exact"``: the exact sum, rounded once to ``output``.
        output: the format of the result; ``fmt`` when None. Rounding is to nearest even, overflow as IEEE
            754.

    Returns:
        A float64 array (..., M, N) of values of ``output``.

    Raises:
        FormatError: unknown format; values that are not of their format; NaN where ``output`` has none.
        SettingError: unknown accumulation, or one that cannot hold products of ``fmt``.
        ShapeError: the shapes do not fit.

    float64 inputs go with ``float64`` and ``exact`` only; ``exact`` then takes microseconds a product.
    """
    fmt, how = get(fmt), parse_accumulate(accumulate)
    output = fmt if output is None else get(output)
    require_room(fmt, how, "matmul")
    left, right = checked(a, fmt, "matmul"), checked(b, fmt, "matmul")
    start_format = _FLOAT32 if accumulate == "exact" and fmt.within_float32 else how.format
    start = as_values(0.0 if c is None else c, start_format, "matmul")
    result = np.empty(result_shape(left.shape, right.shape, start.shape))
    if left.ndim > 2 and right.ndim == 2 and start.ndim < 2:  # one B for all: the leading axes are rows
        multiply(Factors(_as_rows(left), right, start, fmt), how, _as_rows(result), output)
    else:
        multiply(Factors(left, right, start, fmt), how, result, output)
    return result


def _as_rows(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def multiply(factors: Factors, how: Accumulate, result: Float64s, output: Format) -> None:
    """Fill ``result`` with A B + start, rounded once to ``output``, a tile at a time."""
    factors = replace(factors, size=how.size or 0)
    order = ACCUMULATES.get(how.order)  # None: exact
    plane, terms = (order.plane, order.terms) if order else _EXACT
    terms = max(terms, min(factors.size, quicksums.LONGEST_CHUNK))
    with np.errstate(all="ignore"):  # what overflows or turns NaN is part of the result
        for tile in tiles(factors, result, plane, terms):
            if order is None:
                tile.result[...] = _exactly(tile.factors, output)
            else:
                tile.result[...] = _rounded(order.run(tile.factors), how.format, output)


_EXACT = 1 << 15, 1 << 14  # sums together, and terms: each is cut into some slices


def _exactly(factors: Factors, output: Format) -> Float64s:
    if factors.fmt.within_float32:
        return exact_dot(factors.a, factors.b, factors.start, output)
    a, b = (each.astype(np.float64) for each in (factors.a, factors.b))
    return exact_dot_by_fractions(a, b, factors.start, output)


def _rounded(total: Float64s, held: Format, output: Format) -> Float64s:
    """The sum, whose values are those of ``held``, rounded to ``output``."""
    if output is held or output is _FLOAT64:
        return total
    if output is _FLOAT32:
        return total.astype(np.float32).astype(np.float64)
    return nearest_even(total, output)


def require_room(fmt: Format, how: Accumulate, op: str) -> None:
    """Refuse factors that the accumulation cannot hold.

    Raises:
        SettingError: values of ``fmt`` are no float32, and the sum is not in float64 or exact.
    """
    if not fmt.within_float32 and how.format is not _FLOAT64:
        raise SettingError(
            f"accumulate={how.name!r} cannot hold {fmt.name} factors",
            op=op,
            formats=(fmt.name, how.format.name),
            help='use accumulate="float64" or "exact", or round the inputs to float32 or less',
        )
