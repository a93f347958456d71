"""From int32 sums back to int8 and uint8 codes: by a float32 multiplier, or without any float.

A sum of codes stands for s_acc times itself; a code of the output for s_out times (code - zero_point). So a
code is zero_point + round(acc M), M = s_acc / s_out, clamped to [qmin, qmax]. Two modes round, as two
families of engines do, and their codes differ by one at most:

``"float"``
    clamp(rint(float32(acc) * float32(M)) + zero_point), ties to even: QNNPACK's (torch 2.13, engine qnnpack).
``"fixed-point"``
    M = 2^-n M0 / 2^31 with M0 a whole number in [2^30, 2^31) (Jacob et al. 2018, section 2.2). acc M0 / 2^31
    is rounded first, ties up, and that by 2^n, ties away from zero: gemmlowp's and TFLite's
    RoundingDivideByPOT(SaturatingRoundingDoublingHighMul(acc, M0), n). Whole numbers throughout. In one of
    2^n sums the first rounding makes a tie for the second, half of which then go the wrong way: of all codes
    about one in 2^(n+1) is one too far from zero.

Each is monotone in acc.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError, SettingError, ShapeError, unknown_name

__all__ = [
    "MODES", "Requantizing", "clamp_of", "fixed_point", "fixed_point_product", "requantize",
    "requantize_reference",
]  # fmt: skip

Array = npt.NDArray[Any]
MODES = ("float", "fixed-point")
BLOCK = 1 << 15
"""Sums worked on at a time: what stays in the cache between the steps."""
INT32 = np.iinfo(np.int32)
LARGEST = 2.0**31
Clamp = tuple[int, int, int]
"""The zero point, the least and the largest code."""


def fixed_point(multiplier: npt.ArrayLike) -> tuple[Array, Array]:
    """Return (M0, n), int32 of the multiplier's shape, with M0 in [2^30, 2^31) and M ~ 2^-n M0 / 2^31.

    M0 is the nearest whole number, ties up: |M - 2^-n M0 / 2^31| <= 2^-32-n, a relative 2^-31. n is negative
    for M >= 1. Multipliers below 2^-32 are (0, 0): no sum makes more than a half of them.

    >>> fixed_point(0.375)
    (array(1610612736, dtype=int32), array(1, dtype=int32))

    Raises:
        SettingError: a multiplier that is negative, not finite, or not below 2^31.
    """
    fraction, exponent = np.frexp(_multipliers("fixed_point", multiplier))
    whole = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)  # fraction in [1/2, 1)
    carried = whole == 1 << 31
    shift = -(exponent.astype(np.int64) + carried)
    whole = np.where(carried, 1 << 30, whole)
    some = (whole > 0) & (shift <= 31)
    return np.where(some, whole, 0).astype(np.int32), np.where(some, shift, 0).astype(np.int32)


def requantize(
    acc: Array, multiplier: npt.ArrayLike, zero_point: int, qmin: int, qmax: int, mode: str = "float", *,
    axis: int = -1, relu: bool = False, dtype: npt.DTypeLike | None = None,
) -> Array:  # fmt: skip
    """Return clamp(round(acc M) + zero_point, qmin, qmax), rounded as `mode` says.

    int32 of any shape -> int8 | uint8 of that shape.

    Args:
        acc: sums, as :func:`~minimp_backends.integers.integer_matmul` makes them.
        multiplier: M, from 0 up to 2^31: one, or one for each index of `axis`.
        zero_point: the output's code of real zero.
        qmin, qmax: the least and the largest code.
        mode: ``"float"`` or ``"fixed-point"``, see above.
        axis: the channels of `acc`, where there are several multipliers.
        relu: whether to clamp at zero_point from below too, which is a ReLU.
        dtype: of the codes; int8 where qmin is negative, else uint8.

    Raises:
        FormatError: acc is not int32.
        ShapeError: there are not as many multipliers as channels.
        SettingError: a mode, a multiplier, codes or a zero point that cannot be.
    """
    op = "requantize"
    clamp, chosen = clamp_of(op, zero_point, qmin, qmax, relu=relu, dtype=dtype)
    if acc.dtype != np.int32:
        raise FormatError(
            f"expected int32 sums, got {acc.dtype}", op=op, formats=(str(acc.dtype),),
            help="requantise what integer_matmul or integer_conv2d gave",
        )  # fmt: skip
    if mode not in MODES:
        raise SettingError(unknown_name("mode", mode, MODES), op=op)
    factors = _multipliers(op, multiplier)
    if factors.ndim:
        _check_channels(op, acc, factors, axis)
    made = np.empty(acc.shape, chosen)
    turn = _by_float if mode == "float" else _by_fixed_point
    turn(acc, factors, axis, made, clamp)
    return made


def requantize_reference(
    acc: Array, multiplier: npt.ArrayLike, zero_point: int, qmin: int, qmax: int, mode: str = "float", *,
    axis: int = -1,
) -> Array:  # fmt: skip
    """Return the codes of :func:`requantize` in int64, step by step on whole arrays; nothing is checked."""
    factors = _along(np.asarray(multiplier, np.float64), acc.ndim, axis)
    if mode == "float":
        scaled = np.rint(acc.astype(np.float32) * factors.astype(np.float32)).astype(np.float64)
    else:
        scaled = fixed_point_product(acc, *fixed_point(factors)).astype(np.float64)  # int32, so exact
    return np.clip(scaled + zero_point, qmin, qmax).astype(np.int64)


def fixed_point_product(acc: Array, whole: Array, shift: Array) -> Array:
    """Return acc whole / 2^31 / 2^shift in int64, rounded twice; `shift` may be negative.

    A sum that a negative shift would take out of int32 is stopped there, far beyond every code.
    """
    left, right = np.maximum(-shift, 0), np.maximum(shift, 0).astype(np.int64)
    lifted = np.clip(np.left_shift(acc.astype(np.int64), left), INT32.min, INT32.max)
    high = (lifted * whole.astype(np.int64) + (1 << 30)) >> 31  # ties up
    half = (np.int64(1) << right) >> 1
    away = (high >> 63) * (right > 0)  # -1 for what is negative: its ties go down
    rounded: Array = (high + half + away) >> right
    return rounded


# ---- in blocks -------------------------------------------------------------------------------------------


def _by_float(acc: Array, factors: Array, axis: int, made: Array, codes: Clamp) -> None:
    """Fill `made` in one float32 block after another.

    Clamping before the zero point is added is the same, and keeps every number small enough to be exact.
    """
    zero, low, high = (np.float32(code) for code in codes)
    room = np.empty(0, np.float32)
    for sums, target, factor in _blocks(acc, made, axis, factors.astype(np.float32)):
        if room.shape != sums.shape:
            room = np.empty(sums.shape, np.float32)
        np.copyto(room, sums)  # to nearest even where |acc| > 2^24
        np.multiply(room, factor, out=room)
        np.rint(room, out=room)
        np.clip(room, low - zero, high - zero, out=room)
        np.add(room, zero, out=room)
        target[...] = room


def _by_fixed_point(acc: Array, factors: Array, axis: int, made: Array, codes: Clamp) -> None:
    """Fill `made` in one block after another, as :func:`fixed_point_product` does; shifts below 1 at once."""
    zero, low, high = codes
    whole, shift = fixed_point(factors)
    if (shift < 1).any():
        scaled = fixed_point_product(acc, *(_along(each, acc.ndim, axis) for each in (whole, shift)))
        made[...] = np.clip(scaled + zero, low, high)
        return
    for sums, target, factor, steps in _blocks(acc, made, axis, whole.astype(np.int64), shift - 1):
        product = sums.astype(np.int64)
        np.multiply(product, factor, out=product)
        np.add(product, 1 << 30, out=product)
        np.right_shift(product, 31, out=product)
        value = product.astype(np.int32)  # |acc M0 / 2^31| < 2^31, for M0 < 2^31
        np.add(value, value >> 31, out=value)
        # floor((v + 2^(n-1)) / 2^n) in two steps that int32 has room for
        np.right_shift(value, steps, out=value)
        np.add(value, 1, out=value)
        np.right_shift(value, 1, out=value)
        np.clip(value, low - zero, high - zero, out=value)
        np.add(value, zero, out=value)
        target[...] = value


def _blocks(acc: Array, made: Array, axis: int, *factors: Array) -> Iterator[tuple[Array, ...]]:
    """Yield (sums, where their codes go, the factors they have), about BLOCK elements at a time."""
    if not factors[0].ndim:
        sums, codes = acc.reshape(-1), made.reshape(-1)
        for first in range(0, sums.size, BLOCK):
            yield sums[first : first + BLOCK], codes[first : first + BLOCK], *factors
        return
    channels, tail = acc.shape[axis], math.prod(acc.shape[axis % acc.ndim + 1 :])
    lead = math.prod(acc.shape[: axis % acc.ndim])
    last = tail == 1
    shape = (lead, channels) if last else (lead * channels, tail)
    sums, codes = acc.reshape(shape), made.reshape(shape)
    step = max(1, BLOCK // max(1, shape[1]))
    columns = factors if last else tuple(np.tile(each, lead)[:, np.newaxis] for each in factors)
    for first in range(0, len(sums), step):
        part = slice(first, first + step)
        yield sums[part], codes[part], *(columns if last else (each[part] for each in columns))


def _along(factors: Array, ndim: int, axis: int) -> Array:
    """Return factors that broadcast along an axis of an array."""
    if not factors.ndim:
        return factors
    shape = [1] * ndim
    shape[axis] = -1
    return factors.reshape(shape)


# ---- checks ----------------------------------------------------------------------------------------------


def _multipliers(op: str, multiplier: npt.ArrayLike) -> Array:
    """Return multipliers as float64, each from 0 up to 2^31."""
    given = np.asarray(multiplier)
    if given.dtype.kind not in "fiu" or not ((given >= 0) & (given < LARGEST)).all():  # NaN is neither
        raise SettingError(
            f"a multiplier must be a number from 0 up to 2^31, got {given}", op=op,
            help="it is the scale of the sums over that of the output; both are positive and finite",
        )  # fmt: skip
    return given.astype(np.float64)


def _check_channels(op: str, acc: Array, factors: Array, axis: int) -> None:
    there = -acc.ndim <= axis < acc.ndim
    if not there or factors.shape != (acc.shape[axis],):
        raise ShapeError(
            f"expected one multiplier, or one for each index of axis {axis} of {acc.shape}, "
            f"got {factors.shape}",
            op=op, shapes=(acc.shape, factors.shape), help="say with axis= where the channels are",
        )  # fmt: skip


def clamp_of(
    op: str, zero_point: int, qmin: int, qmax: int, *, relu: bool, dtype: npt.DTypeLike | None
) -> tuple[Clamp, np.dtype[Any]]:
    """Return what a result is clamped with, and the dtype of its codes; see :func:`requantize`."""
    chosen = np.dtype(dtype if dtype is not None else np.int8 if qmin < 0 else np.uint8)
    if chosen not in (np.int8, np.uint8):
        raise FormatError(
            f"codes are int8 or uint8, not {chosen}", op=op, formats=(str(chosen),), help="leave dtype out"
        )
    limits = np.iinfo(chosen)
    if not limits.min <= qmin <= qmax <= limits.max:
        raise SettingError(
            f"codes from {qmin} to {qmax} are no range of {chosen}, {limits.min} to {limits.max}",
            op=op, help="for example qmin=-128, qmax=127 (int8) or qmin=0, qmax=255 (uint8)",
        )  # fmt: skip
    if not limits.min <= zero_point <= limits.max:
        raise SettingError(
            f"zero_point must be a code of {chosen}, {limits.min} to {limits.max}, got {zero_point}",
            op=op, help="real zero must be representable: choose the zero point within the codes",
        )  # fmt: skip
    low = min(max(qmin, zero_point), qmax) if relu else qmin
    return (zero_point, low, qmax), chosen


# ---- what a backend has ----------------------------------------------------------------------------------


class Requantizing:
    """The kernels of this module, on the host: the reference, and what runs on NumPy."""

    if TYPE_CHECKING:

        def to_host(self, array: Any) -> np.ndarray[Any, Any]:
            """Return the host's array."""

        def _taken(self, like: Any, made: np.ndarray[Any, Any]) -> Any: ...

    def fixed_point(self, multiplier: npt.ArrayLike) -> tuple[Array, Array]:
        """Return (M0, n) on the host, see :func:`fixed_point`."""
        return fixed_point(multiplier)

    def requantize(
        self, acc: Any, multiplier: npt.ArrayLike, zero_point: int, qmin: int, qmax: int,
        mode: str = "float", *, axis: int = -1, relu: bool = False, dtype: npt.DTypeLike | None = None,
    ) -> Any:  # fmt: skip
        """int32 sums -> int8 | uint8 codes, see :func:`requantize`."""
        how = (multiplier, zero_point, qmin, qmax, mode)
        return self._taken(acc, requantize(self.to_host(acc), *how, axis=axis, relu=relu, dtype=dtype))
