"""Rounding, encoding and decoding of whole arrays: the front door.

Each function has a readable form (``rounding.round_to``, ``codes.encode``, ``codes.decode``) that defines the
result, and for most formats a fast twin (``minimp.formats.fast``) that gives the same bits. The route never
shows in a result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, FormatError, SettingError, ShapeError
from minimp.formats import codes as readable
from minimp.formats.dice import Counter, Source
from minimp.formats.fast import grid, storage
from minimp.formats.fast.lanes import SINGLE, Array, Kernel, block_of, each_block
from minimp.formats.fast.plans import Plan, RefusedError, plan_for, table_serves
from minimp.formats.fast.stochastic import dice_rounder
from minimp.formats.flags import Flags
from minimp.formats.overflows import overflow_named
from minimp.formats.rounding import Floats, as_array, flushes, round_to, widen
from minimp.formats.roundings import mode_named
from minimp.formats.table import Format, get

__all__ = ["decode", "encode", "round"]

Codes = npt.NDArray[np.unsignedinteger[Any]]
_FLOAT64 = np.dtype(np.float64)


def round(  # noqa: A001 - the pinned name; inside the package it shadows only in here
    x: npt.ArrayLike,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Source = None,
    *,
    subnormals: str = "keep",
    bits: npt.ArrayLike | None = None,
    flags: Flags | None = None,
    out: Array | None = None,
    threads: int = 1,
) -> Floats:
    """Round every element of x to a value of ``fmt``, once.

    The values of ``fmt`` near x are the multiples of its ulp 2^(max(floor(log2 |x|), emin) - m); one of the
    two around x is taken, as ``rounding`` says. Overflow is judged after that, as if the exponent had had no
    end (IEEE 754-2019, 7.4; OCP OFP8 1.0).

    Args:
        x: real numbers of any shape. float32 and float64 keep their precision; narrower types are widened to
            float32, integers that float32 cannot hold exactly to float64.
        fmt: anything that ``get`` knows.
        rounding: a key of ``ROUNDINGS``.
        overflow: a key of ``OVERFLOWS``; None means ``"ieee"``.

            - ``ieee``: a value whose rounding exceeds ``fmt.max`` becomes inf under the nearest modes and
              ``stochastic``; ``toward_zero`` gives the largest value, and so do ``up`` and ``down`` on the
              side that they turn away from. A format without inf has NaN in its place (OFP8's non-saturating
              mode); one without NaN too (float6, float4, int8) clamps, the only rule OCP MX 1.0 has for them.
            - ``saturate``: the largest value of that sign, for infinities too (OFP8's saturating mode).
            - ``torch``, ``ml_dtypes``: what their casts do; see ``minimp.formats.overflows``.

            NaN stays NaN. OFP8 specifies ``nearest_even`` only; what the other modes do in formats without
            inf is IEEE's rule with NaN in the place of inf.
        rng: random numbers for ``stochastic``: a ``Counter``, or an integer that seeds one; or a NumPy
            Generator, which is slower. Other modes take no notice of it. With a counter an element's bits
            depend on the seed and its place in C order only: rounding ``x[:n]`` with ``counter`` and
            ``x[n:]`` with ``counter.advance(n)`` is the same as rounding x. The chance of going up is the
            residue in ulps, to within 2^-54.
        subnormals: ``"keep"``, or ``"flush"``: results below ``fmt.smallest_normal`` become a zero of their
            sign (x86's flush-to-zero, which looks at the rounded result).
        bits: in place of rng, the random bits themselves: unsigned integers of x's shape, every bit of their
            type random. With r bits the chance is the residue rounded to a multiple of 2^-r.
        flags: where to count what happened; counting takes the readable form, which is some fifty times
            slower and needs several float64 arrays of x's size.
        out: where the result goes, of x's shape and the result's dtype; it may be x itself. Its content is
            undefined after an error.
        threads: how many threads share the work; the bits do not depend on it. Two of them gain from nothing
            to half (``minimp bench formats --threads 1,2``). Where the readable form serves, there is one.

    Returns:
        ``out``, or a new array of x's shape holding values of ``fmt``: float64 if x is or if they may not fit
        float32, else float32. Zeros keep their sign where the format has -0. The memory used beside it does
        not grow with x (where the fast twin serves).

    Raises:
        FormatError: unknown format; or NaN in x, and ``fmt`` has no NaN; ``out`` is of another dtype.
        SettingError: unknown rounding, overflow or subnormals; stochastic without a random source; bits
            without stochastic; flags that are no Flags; threads is no positive whole number.
        DataError: x is not real numbers, is masked, or holds integers that float64 cannot hold; bits are not
            unsigned integers; ``out`` is read-only. ShapeError: bits, or ``out``, are not of x's shape.
    """
    fmt = get(fmt)
    _check_threads(threads, "round")
    if flags is None and bits is None:
        numbers, dtype = _numbers(x)
        route = _round_route(_Ask(fmt, rounding, overflow, subnormals, dtype), rng, numbers.size)
        if route is not None:
            result = _target(out, numbers, _result_dtype(fmt, overflow, dtype), "round")
            if route.run(numbers, result, threads):
                return result
    rounded = round_to(x, fmt, rounding, overflow, rng, subnormals=subnormals, bits=bits, flags=flags)
    return _delivered(rounded, out, "round")


def encode(
    x: npt.ArrayLike,
    fmt: Any,
    rounding: str = "nearest_even",
    overflow: str | None = None,
    rng: Source = None,
    *,
    subnormals: str = "keep",
    bits: npt.ArrayLike | None = None,
    flags: Flags | None = None,
    out: Array | None = None,
    threads: int = 1,
) -> Codes:
    """Round x to ``fmt`` and give the bits: unsigned codes of x's shape, right-aligned.

    A code is ``sign | exponent | mantissa``. tfloat32 comes as the float32 pattern (its 19 bits, then 13
    zeros). NaN is the format's quiet NaN and keeps its sign; a payload is not carried over. int8 is two's
    complement.

    Args and errors are those of ``round``; ``out`` has the dtype ``fmt.code_dtype``.
    """
    fmt = get(fmt)
    _check_threads(threads, "encode")
    if flags is None and bits is None:
        numbers, dtype = _numbers(x)
        route = _encode_route(_Ask(fmt, rounding, overflow, subnormals, dtype), rng, numbers.size)
        if route is not None:
            result = _target(out, numbers, fmt.code_dtype, "encode")
            if route.run(numbers, result, threads):
                return result if out is not None else result[()]
    codes = readable.encode(x, fmt, rounding, overflow, rng, subnormals=subnormals, bits=bits, flags=flags)
    return _delivered(codes, out, "encode")


def decode(
    codes: npt.ArrayLike,
    fmt: Any,
    *,
    dtype: npt.DTypeLike = np.float64,
    out: Array | None = None,
    threads: int = 1,
) -> Floats:
    """Read codes as numbers; every value is exact.

    Args:
        codes: integers of any integer dtype, right-aligned as ``encode`` gives them; quickest as
            ``fmt.code_dtype``.
        fmt: anything that ``get`` knows.
        dtype: of the result: float64 holds every value of every format; float32, faster, those of formats
            with ``within_float32``.
        out: where the result goes, of codes' shape and of dtype. threads: as in ``round``.

    Returns:
        ``out``, or a new array of codes' shape. NaN is quiet and has the code's sign.

    Raises:
        FormatError: unknown format; dtype is another, or does not hold the format; ``out`` is of another.
        DataError: codes are not integers, or not codes of ``fmt``. ShapeError: ``out`` is of another shape.
        SettingError: threads is no positive whole number.
    """
    fmt, codes = get(fmt), np.asarray(codes)
    _check_threads(threads, "decode")
    real = _check_decoded(np.dtype(dtype), fmt)
    route = _decode_route(fmt, codes, real)
    if route is not None:
        result = _target(out, codes, real, "decode")
        if route.run(codes, result, threads):
            return result if out is not None else result[()]
    return _delivered(readable.decode(codes, fmt).astype(real), out, "decode")


@dataclass(frozen=True)
class Route:
    """How the fast twin goes.

    Attributes:
        kernel: what is done to a block.
        read: the dtype that it reads.
        write: the dtype that it writes; the result's own if None.
        lane: the widest dtype of its work space.
        by_place: whether it needs the elements' places.
    """

    kernel: Kernel
    read: np.dtype[Any]
    lane: np.dtype[Any]
    write: np.dtype[Any] | None = None
    by_place: bool = False

    def run(self, source: Array, target: Array, threads: int) -> bool:
        """Write the result for `source` to `target`; False if the readable form has to raise an error."""
        block = block_of(self.read, self.lane)
        try:
            each_block(
                self.kernel,
                source,
                target,
                read=self.read,
                write=self.write,
                block=block,
                by_place=self.by_place,
                threads=threads,
            )
        except RefusedError:
            return False
        return True


@dataclass(frozen=True)
class _Ask:
    """What is to be rounded how; refused where the readable form would.

    Attributes:
        fmt, rounding, overflow, subnormals: as given. dtype: of the numbers, float32 or float64.
    """

    fmt: Format
    rounding: str
    overflow: str | None
    subnormals: str
    dtype: np.dtype[Any]

    def __post_init__(self) -> None:
        mode_named(self.rounding)
        overflow_named(self.overflow, self.fmt)
        flushes(self.subnormals)

    def plan(self) -> Plan | None:
        return plan_for(self.fmt, self.rounding, self.overflow, self.subnormals, self.dtype)

    def has_table(self, size: int) -> bool:
        """Whether so many numbers are worth a table of 65,536 answers, and it would serve."""
        single = self.dtype == SINGLE.real and self.rounding != "stochastic"
        return single and size >= storage.WORTH_A_TABLE and table_serves(self.fmt)

    def table_route(self, table: Callable[..., Array]) -> Route:
        answers = table(self.fmt, self.rounding, self.overflow, self.subnormals)
        kernel = storage.sticky_lookup(answers, refuse_nan=not storage.takes_nan(self.fmt, self.overflow))
        return Route(kernel, SINGLE.real, storage.INDEX)


def _round_route(ask: _Ask, rng: Source, size: int) -> Route | None:
    plan = ask.plan()
    if plan is not None:
        return _plan_route(plan, rng)
    return ask.table_route(storage.rounded_table) if ask.has_table(size) else None


def _encode_route(ask: _Ask, rng: Source, size: int) -> Route | None:
    if ask.has_table(size):
        return ask.table_route(storage.code_table)
    plan = ask.plan()
    if storage.casts(ask.fmt) and ask == _Ask(ask.fmt, "nearest_even", None, "keep", SINGLE.real):
        return Route(storage.cast(ask.fmt), SINGLE.real, SINGLE.real)
    route = None if plan is None else _plan_route(plan, rng)
    if route is None or not (ask.fmt.is_integer or storage.packs(ask.fmt)):
        return None
    return replace(route, kernel=storage.encoder(ask.fmt, route.kernel, route.read), write=None)


def _plan_route(plan: Plan, rng: Source) -> Route | None:
    """The route of a plan; None where the random source is not a counter."""
    real = plan.width.real
    if plan.rounding != "stochastic":
        return Route(grid.rounder(plan), real, real, write=real)
    if isinstance(rng, np.integer | int):
        rng = Counter(rng)
    if not isinstance(rng, Counter):
        return None
    return Route(dice_rounder(plan, rng), real, real, write=real, by_place=True)


def _decode_route(fmt: Format, codes: Array, real: np.dtype[Any]) -> Route | None:
    if codes.dtype != fmt.code_dtype:
        return None
    if storage.unpacks(fmt):
        return Route(storage.unpack(fmt), fmt.code_dtype, storage.INDEX)
    small = fmt.bits <= 8 or codes.size >= storage.WORTH_A_TABLE
    if fmt.bits > storage.WORTH_A_TABLE_BITS or not small:
        return None
    return Route(storage.lookup(storage.value_table(fmt, real)), fmt.code_dtype, storage.INDEX)


def _numbers(x: Any) -> tuple[Array, np.dtype[Any]]:
    """x as an array, and the dtype that ``widen`` gives it; widened where that has to look at the numbers."""
    x = as_array(x)
    if x.dtype in (SINGLE.real, _FLOAT64):
        return x, x.dtype.newbyteorder("=")
    if x.dtype.kind in "iu" and x.dtype.itemsize > 2:
        x = widen(x)
    return x, widen(np.empty(0, x.dtype)).dtype


@lru_cache(maxsize=256)
def _result_dtype(fmt: Format, overflow: str | None, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that the readable form gives."""
    return round_to(np.empty(0, dtype), fmt, overflow=overflow).dtype


def _check_threads(threads: Any, op: str) -> None:
    if not isinstance(threads, int) or threads < 1:
        raise SettingError(f"expected threads to be a whole number of at least 1, got {threads!r}", op=op)


def _check_decoded(dtype: np.dtype[Any], fmt: Format) -> np.dtype[Any]:
    if dtype != _FLOAT64 and not (dtype == SINGLE.real and fmt.within_float32):
        raise FormatError(
            f"expected dtype float64{', or float32' * fmt.within_float32}, got {dtype}",
            op="decode",
            formats=(fmt.name,),
            help="float64 holds every value of every format",
        )
    return dtype


def _target(out: Any, like: Array, dtype: np.dtype[Any], op: str) -> Array:
    """``out`` if it fits, or a new array."""
    if out is None:
        return np.empty_like(like, dtype, subok=False)
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        came = getattr(out, "dtype", type(out).__name__)
        raise FormatError(f"expected out to be a {dtype} array, got {came}", op=op)
    if out.shape != like.shape:
        raise ShapeError(
            f"expected out of shape {like.shape}, got {out.shape}", op=op, shapes=(like.shape, out.shape)
        )
    if not out.flags.writeable:
        raise DataError("expected out to be writeable, got a read-only array", op=op, shapes=(out.shape,))
    return out


def _delivered(value: Array, out: Array | None, op: str) -> Array:
    if out is None:
        return value
    np.copyto(_target(out, value, value.dtype, op), value)
    return out
