"""Matrix products with the accumulation spelled out: order, precision, hardware."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError, ShapeError, unknown_name
from minimp.formats import summation
from minimp.formats.exactdot import exact_dot, exact_dot_by_fractions
from minimp.formats.operations import as_values
from minimp.formats.rounding import Float64s, round_to
from minimp.formats.table import FORMATS, Format, get
from minimp.formats.tensorcore import UNITS, tensor_core, unit_for

__all__ = ["ACCUMULATES", "Accumulate", "matmul", "parse_accumulate"]

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
class Dot:
    """What a row of ``ACCUMULATES`` has to work on.

    Attributes:
        a, b: the factors (..., M, K) and (..., K, N).
        start: what the sum starts from (..., M, N).
        inputs: the factors' format.
        size: B or S; 0 where the order has none.
    """

    a: Float64s
    b: Float64s
    start: Float64s
    inputs: Format
    size: int


@dataclass(frozen=True)
class Order:
    """A row of ``ACCUMULATES``.

    Attributes:
        format: the format of the running sum, and of c.
        run: the sum in float64, not yet rounded to the output.
        note: one line for people.
        by_planes: whether ``run`` works plane by plane (then it is given few rows at a time), or leaves it to
            BLAS.
    """

    format: Format
    run: Callable[[Dot], Float64s]
    note: str
    by_planes: bool = True


def _unit_order(name: str) -> Order:
    return Order(
        _FLOAT32,
        lambda dot: tensor_core(dot.a, dot.b, dot.start, unit_for(name, dot.inputs), dot.inputs),
        f"{name.capitalize()}'s matrix unit with a float32 accumulator",
    )


_ORDERS = {
    "float32": Order(
        _FLOAT32,
        lambda dot: summation.any_order(dot.a, dot.b, dot.start, np.float32),
        "float32 products and sums, in whatever order is fast",
        by_planes=False,
    ),
    "float32:sequential": Order(
        _FLOAT32,
        lambda dot: summation.sequential(dot.a, dot.b, dot.start),
        "float32 products and running sum, k ascending",
    ),
    "float64": Order(
        _FLOAT64,
        lambda dot: summation.any_order(dot.a, dot.b, dot.start, np.float64),
        "float64 products and sums, in whatever order is fast",
        by_planes=False,
    ),
    "float16": Order(
        _FLOAT16,
        lambda dot: summation.running(dot.a, dot.b, dot.start, _FLOAT16, dot.inputs),
        "each product and each running sum rounded to float16, k ascending",
    ),
    "float16:fma": Order(
        _FLOAT16,
        lambda dot: summation.running_fma(dot.a, dot.b, dot.start, _FLOAT16),
        "each running sum rounded to float16, the products not, k ascending",
    ),
    "bfloat16": Order(
        _BFLOAT16,
        lambda dot: summation.running(dot.a, dot.b, dot.start, _BFLOAT16, dot.inputs),
        "each product and each running sum rounded to bfloat16, k ascending",
    ),
    "chunked:B": Order(
        _FLOAT16,
        lambda dot: summation.chunked(dot.a, dot.b, dot.start, dot.size, _FLOAT16),
        "a float32 running sum inside B terms, a float16 running sum of the chunks",
    ),
    "pairwise": Order(
        _FLOAT32,
        lambda dot: summation.pairwise(dot.a, dot.b, dot.start),
        "a balanced float32 tree over neighbours",
    ),
    "kahan": Order(
        _FLOAT32,
        lambda dot: summation.kahan(dot.a, dot.b, dot.start),
        "Kahan's compensated float32 running sum, k ascending",
    ),
    "splitk:S": Order(
        _FLOAT32,
        lambda dot: summation.splitk(dot.a, dot.b, dot.start, dot.size),
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
    wide = not fmt.within_float32
    if wide and accumulate not in ("float64", "exact"):
        raise SettingError(
            f"accumulate={accumulate!r} cannot hold {fmt.name} factors",
            op="matmul",
            formats=(fmt.name, how.format.name),
            help='use accumulate="float64" or "exact", or round the inputs to float32 or less',
        )
    left, right = as_values(a, fmt, "matmul"), as_values(b, fmt, "matmul")
    start_format = _FLOAT32 if accumulate == "exact" and not wide else how.format
    start = as_values(0.0 if c is None else c, start_format, "matmul")
    shape = _result_shape(left.shape, right.shape, start.shape)
    start = np.ascontiguousarray(np.broadcast_to(start, shape))
    with np.errstate(all="ignore"):  # what overflows or turns NaN is part of the result
        if accumulate == "exact":
            return (exact_dot_by_fractions if wide else exact_dot)(left, right, start, output)
        total = _by_rows(ACCUMULATES[how.order], Dot(left, right, start, fmt, how.size or 0))
    return round_to(total, output).astype(np.float64)


_PLANE = 1 << 15  # numbers: a few such planes stay in a core's own cache


def _by_rows(order: Order, dot: Dot) -> Float64s:
    """Run an order on few rows of A at a time: no element depends on another, and small planes are faster."""
    height, width = dot.start.shape[-2:]
    step = max(1, _PLANE // max(1, width)) if order.by_planes else height
    if step >= height:
        return order.run(dot)
    total = np.empty_like(dot.start)
    for first in range(0, height, step):
        rows = (..., slice(first, first + step), slice(None))
        total[rows] = order.run(replace(dot, a=dot.a[rows], start=dot.start[rows]))
    return total


def _result_shape(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> tuple[int, ...]:
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
