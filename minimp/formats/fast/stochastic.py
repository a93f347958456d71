"""Stochastic rounding of a block of float32 with each element's own dice, as ``dice.Counter`` throws them.

With s bits to drop, an element rounds up where residue + throw >= 1, both in ulps of the format; adding the
first s bits of the throw below the ulp and clearing them afterwards is that rule exactly, for the last s bits
of a normal number are its residue:

    Z = bits(|x|) + (throw's first s bits),   result = Z with its last s bits cleared

A result below 2^emin has a fixed ulp, so there |x| + 2^emin takes the place of |x|: its pattern ends in the
residue, rounded to s bits. What this rounding, and the rest of the throw, might decide shows in Z: only where
its last s bits are all 0 or all 1, one element of 2^(s-1), is there a doubt, and there the rule is applied as
it is written in ``dice.Dice.lifts``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from minimp.formats.dice import GOLDEN, Counter, Dice
from minimp.formats.fast.grid import clip, finish, settle, top_of
from minimp.formats.fast.lanes import SINGLE, Array, Kernel, block_of, lane
from minimp.formats.fast.plans import Plan

__all__ = ["dice_rounder", "words_into"]

_MASK = (1 << 64) - 1
_QUAD = np.dtype("u8")
_FACTORS = tuple(np.array(each, _QUAD) for each in (0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB))
_SHIFTS = tuple(np.array(each, _QUAD) for each in (30, 27, 31))
_STEPS = np.arange(block_of(SINGLE.word) // 2 + 1, dtype=_QUAD) * np.uint64(GOLDEN)
_STEPS.setflags(write=False)


def words_into(counter: Counter, first: int, count: int) -> npt.NDArray[np.uint32]:
    """``counter.advance(first).words(count)``, in this thread's work space; count fits a block.

    The hash is that of ``dice.mix64``, seven passes over the half as many 64-bit words.
    """
    place = int(counter.start) + first
    pair, skip = divmod(place, 2)
    z = lane("words", _QUAD, (skip + count + 1) // 2)
    mixed = lane("total", _QUAD, z.size)
    base = (counter.key() + (pair + 1) * GOLDEN) & _MASK
    np.add(_STEPS[: z.size], np.array(base, _QUAD), out=z)
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        np.right_shift(z, shift, out=mixed)
        np.bitwise_xor(z, mixed, out=z)
        np.multiply(z, factor, out=z)
    np.right_shift(z, _SHIFTS[2], out=mixed)
    np.bitwise_xor(z, mixed, out=z)
    halves = z.view(np.uint32)
    if sys.byteorder == "big":
        halves = halves.reshape(-1, 2)[:, ::-1].reshape(-1)
    return halves[skip : skip + count]


def dice_rounder(plan: Plan, counter: Counter) -> Kernel:
    """Return the kernel that rounds float32 blocks, given with their places in C order."""
    shift = plan.width.constant(32 - plan.dropped)
    core = _by_pattern if plan.by_pattern else _by_shift

    def kernel(place: int, given: Array, result: Array) -> None:
        throw = words_into(counter, place, given.size)
        np.right_shift(throw, shift, out=throw)
        core(plan, given, throw, result, lambda at: counter.dice_at(at + place))
        finish(plan, result)

    return kernel


def _by_pattern(
    plan: Plan, given: Array, throw: Array, result: Array, _dice_at: Callable[[Array], Dice]
) -> None:
    word, n, top = plan.width.word, given.size, top_of(plan.width, given)
    risky = top >= plan.fence
    x = clip(plan, given) if risky and plan.clips else given
    bits = np.add(x.view(word), throw, out=throw)
    np.bitwise_and(bits, plan.kept, out=bits if risky else result.view(word))
    if risky:
        settle(plan, given, bits.view(given.dtype), top)
        signs = np.bitwise_and(given.view(word), plan.width.sign, out=lane("magic", word, n))
        np.bitwise_or(bits, signs, out=result.view(word))


def _by_shift(
    plan: Plan, given: Array, throw: Array, result: Array, dice_at: Callable[[Array], Dice]
) -> None:
    width, n, x = plan.width, given.size, given
    word, sizes = width.word, width.constant(int(width.sign) - 1)
    bits = np.bitwise_and(x.view(word), sizes, out=lane("total", word, n))
    top, rounded = int(np.maximum.reduce(bits)), bits.view(width.real)
    risky = top >= plan.fence
    if risky and plan.clips:
        x = clip(plan, given)
        np.bitwise_and(x.view(word), sizes, out=bits)
    if int(np.minimum.reduce(bits)) >= plan.floor:
        np.add(bits, throw, out=bits)
        np.bitwise_and(bits, plan.kept, out=bits)
    else:
        small = _below_floor(plan, bits)
        np.add(rounded, small, out=rounded)
        np.add(bits, throw, out=bits)
        doubtful = _doubtful(plan, bits, small)
        np.bitwise_and(bits, plan.kept, out=bits)
        np.subtract(rounded, small, out=rounded)
        if doubtful is not None:
            rounded[doubtful] = _by_the_rule(plan, x[doubtful], dice_at(doubtful))
    if risky:
        settle(plan, given, rounded, top)
    signs = np.bitwise_and(given.view(word), width.sign, out=lane("magic", word, n))
    np.bitwise_or(bits, signs, out=result.view(word))


def _below_floor(plan: Plan, bits: Array) -> Array:
    """2^emin where a magnitude is below it, 0 elsewhere: float32 in work space."""
    width, floor = plan.width, plan.width.constant(plan.floor)
    small = np.subtract(bits, floor, out=lane("magic", width.word, bits.size))
    whole = small.view(width.whole)
    np.right_shift(whole, np.array(31, width.whole), out=whole)  # all ones where below
    np.bitwise_and(small, floor, out=small)
    return small.view(width.real)


def _doubtful(plan: Plan, bits: Array, small: Array) -> Array | None:
    """The places where a small number's last bits are all 0 or all 1 after the throw."""
    width = plan.width
    last = np.add(bits, width.constant(1), out=lane("spare", width.word, bits.size))
    np.bitwise_and(last, width.constant((1 << plan.dropped) - 1), out=last)
    np.subtract(last, small.view(width.word), out=last)  # negative where small
    ranked, limit = last.view(width.whole), 1 - plan.floor
    return np.flatnonzero(ranked <= limit) if int(np.minimum.reduce(ranked)) <= limit else None


def _by_the_rule(plan: Plan, x: Array, dice: Dice) -> Array:
    """The magnitudes of a few rounded numbers below 2^emin."""
    q = plan.fmt.emin - plan.fmt.mantissa_bits
    scaled = np.ldexp(np.abs(x.astype(np.float64)), -q)
    whole = np.floor(scaled)
    rounded: Array = np.ldexp(whole + dice.lifts(scaled - whole), q)
    return rounded
