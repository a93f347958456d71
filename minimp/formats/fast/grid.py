"""Deterministic rounding of a block: float numbers in, values of a format in the same float out.

The module ``plans`` says why the two tricks are right. Either has a table with one row a rounding mode: what
to do after the nearest value is known (shift), or before the last bits are cleared (pattern).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan
from types import MappingProxyType

import numpy as np

from minimp.formats.fast.lanes import Array, Kernel, Width, constant_lane, lane
from minimp.formats.fast.plans import Plan, RefusedError

__all__ = ["clip", "finish", "rounder", "settle", "top_of"]


def rounder(plan: Plan) -> Kernel:
    """Return the kernel of a plan; its result block may be the block that it is given."""
    core = _by_pattern if plan.by_pattern else _by_shift

    def kernel(_: int, given: Array, result: Array) -> None:
        core(plan, given, result)
        finish(plan, result)

    return kernel


def _by_shift(plan: Plan, given: Array, result: Array) -> None:
    width, n = plan.width, given.size
    word, bits, x = width.word, given.view(width.word), given
    magic = np.bitwise_and(bits, width.exponent, out=lane("magic", word, n))
    top = int(np.maximum.reduce(magic))
    risky = top >= plan.fence
    no_zeros = plan.seldom_zero and int(np.minimum.reduce(magic)) >= plan.ground
    if risky:
        if plan.clips:
            x = clip(plan, given)
            np.bitwise_and(x.view(word), width.exponent, out=magic)
        else:
            np.minimum(magic, constant_lane("cap", word, n, plan.cap), out=magic)
    np.maximum(magic, constant_lane("floor", word, n, plan.floor), out=magic)
    np.add(magic, plan.lift, out=magic)
    shift, total = magic.view(width.real), _room(given, result, "total")
    if plan.rounding in _ON_MAGNITUDES:
        x = np.abs(x, out=lane("spare", width.real, n))
    np.add(x, shift, out=total)
    if plan.rounding != "nearest_even":
        near = np.subtract(total, shift, out=lane("near", width.real, n))
        _SHIFTED[plan.rounding](plan, x, near, total.view(word), magic)
    elif no_zeros and not risky:
        np.subtract(total, shift, out=result)
        return
    np.subtract(total, shift, out=total)
    if risky:
        settle(plan, given, total, top)
    # The subtraction turns every number that rounds to zero into +0.
    signs = np.bitwise_and(bits, width.sign, out=magic)
    np.bitwise_or(total.view(word), signs, out=result.view(word))


# After the nearest value `near` of x is known: the pattern of x + M counts ulps, so 1 more is 1 ulp more.
def _shift_away(plan: Plan, x: Array, near: Array, total: Array, magic: Array) -> None:
    width = plan.width
    np.subtract(x, near, out=near)  # exact, and half an ulp where a tie went down
    half = np.bitwise_and(magic, width.exponent, out=lane("half", width.word, x.size))
    np.subtract(half, width.constant((width.stored + 1) << width.stored), out=half)
    np.add(total, np.equal(near, half.view(width.real)), out=total)


def _shift_toward_zero(_plan: Plan, x: Array, near: Array, total: Array, _magic: Array) -> None:
    np.subtract(total, np.greater(near, x), out=total)


def _shift_up(_plan: Plan, x: Array, near: Array, total: Array, _magic: Array) -> None:
    np.add(total, np.less(near, x), out=total)


def _shift_to_odd(_plan: Plan, x: Array, near: Array, total: Array, _magic: Array) -> None:
    np.subtract(total, np.greater(near, x), out=total)
    np.bitwise_or(total, np.not_equal(near, x), out=total)


_SHIFTED: Mapping[str, Callable[[Plan, Array, Array, Array, Array], None]] = MappingProxyType(
    {
        "nearest_away": _shift_away,
        "toward_zero": _shift_toward_zero,
        "up": _shift_up,
        "down": _shift_toward_zero,  # which on signed numbers is down
        "to_odd": _shift_to_odd,
    }
)
_ON_MAGNITUDES = frozenset(("nearest_away", "toward_zero", "to_odd"))


def _room(given: Array, result: Array, name: str) -> Array:
    """Where to compute: in the result's own memory, one lane less in the cache, unless x is still in it."""
    return lane(name, result.dtype, result.size) if np.may_share_memory(given, result) else result


def _by_pattern(plan: Plan, given: Array, result: Array) -> None:
    width, n = plan.width, given.size
    # An overflow to infinity happens by itself: only NaN needs care, which a maximum of floats brings up.
    plain = plan.infinite and not isnan(np.maximum.reduce(given))
    top = 0 if plain else top_of(width, given)
    risky = top >= plan.fence
    words = (clip(plan, given) if risky and plan.clips else given).view(width.word)
    target = _room(given, result, "total").view(width.word)
    final = target if risky else result.view(width.word)
    if plan.dropped == 0:
        np.copyto(final, words)
    else:
        np.bitwise_and(_BIASES[plan.rounding](plan, words, target), plan.kept, out=final)
    if risky:
        settle(plan, given, target.view(width.real), top)
        signs = np.bitwise_and(given.view(width.word), width.sign, out=lane("magic", width.word, n))
        np.bitwise_or(target, signs, out=result.view(width.word))


# What becomes of a pattern before its last s bits are cleared; `spare` receives it.
def _pattern_nearest(plan: Plan, words: Array, spare: Array) -> Array:
    constant, s = plan.width.constant, plan.dropped
    np.right_shift(words, constant(s), out=spare)
    np.bitwise_and(spare, constant(1), out=spare)
    np.add(spare, constant((1 << (s - 1)) - 1), out=spare)
    return np.add(spare, words, out=spare)


def _pattern_away(plan: Plan, words: Array, spare: Array) -> Array:
    return np.add(words, plan.width.constant(1 << (plan.dropped - 1)), out=spare)


def _pattern_toward_zero(_plan: Plan, words: Array, _spare: Array) -> Array:
    return words


def _pattern_up(plan: Plan, words: Array, spare: Array) -> Array:
    """Add all that is dropped to positive numbers."""
    _signs(plan, words, spare)
    np.invert(spare, out=spare)
    return _pattern_grown(plan, words, spare)


def _pattern_down(plan: Plan, words: Array, spare: Array) -> Array:
    _signs(plan, words, spare)
    return _pattern_grown(plan, words, spare)


def _signs(plan: Plan, words: Array, spare: Array) -> None:
    """All ones where the number is negative, or else 0."""
    whole = plan.width.whole
    shift = np.array(8 * whole.itemsize - 1, whole)
    np.right_shift(words.view(whole), shift, out=spare.view(whole))


def _pattern_grown(plan: Plan, words: Array, spare: Array) -> Array:
    np.bitwise_and(spare, plan.width.constant((1 << plan.dropped) - 1), out=spare)
    return np.add(spare, words, out=spare)


def _pattern_to_odd(plan: Plan, words: Array, spare: Array) -> Array:
    """Carry into the last bit that is kept, and take it where there was none."""
    ones = plan.width.constant((1 << plan.dropped) - 1)
    np.bitwise_and(words, ones, out=spare)
    np.add(spare, ones, out=spare)
    return np.bitwise_or(spare, words, out=spare)


_BIASES: Mapping[str, Callable[[Plan, Array, Array], Array]] = MappingProxyType(
    {
        "nearest_even": _pattern_nearest,
        "nearest_away": _pattern_away,
        "toward_zero": _pattern_toward_zero,
        "up": _pattern_up,
        "down": _pattern_down,
        "to_odd": _pattern_to_odd,
    }
)


def top_of(width: Width, given: Array) -> int:
    """The largest pattern of a block, signs aside."""
    positive, negative = np.maximum.reduce(given.view(width.whole)), np.maximum.reduce(given.view(width.word))
    return max(int(positive), int(negative) - int(width.sign))


def clip(plan: Plan, given: Array) -> Array:
    """A block with its numbers clipped to the format's ends, in work space; NaN stays."""
    real, n, (low, high) = given.dtype, given.size, plan.ends
    clipped = np.minimum(given, constant_lane("high", real, n, high), out=lane("clipped", real, n))
    return np.maximum(clipped, constant_lane("low", real, n, low), out=clipped)


def settle(plan: Plan, given: Array, rounded: Array, top: int) -> None:
    """Put right what lies beyond the ends, and the NaNs, in a block that was rounded as if there were no end.

    The caller then gives `rounded` the signs of `given`. top: at least the largest exponent field.
    """
    if not plan.clips:
        over = np.abs(rounded, out=lane("spare", given.dtype, given.size)) > plan.ends[1]
        if plan.one_past:
            np.copyto(rounded, plan.past[0], where=over)
        elif over.any():
            x = given[over]
            rounded[over] = plan.past[2 * np.isinf(x) + np.signbit(x)]
    if top >= int(plan.width.exponent) and (nans := np.isnan(given)).any():
        if not plan.fmt.has_nan:
            raise RefusedError
        np.copyto(rounded, given + given, where=nans)  # the same NaN, quiet


def finish(plan: Plan, rounded: Array) -> None:
    """Flush subnormals, and take the sign of zeros, where either is asked for."""
    if plan.flush and not plan.fmt.is_integer:
        normal = np.abs(rounded) >= plan.fmt.smallest_normal
        np.multiply(rounded, normal, out=rounded)
    if not plan.fmt.has_negative_zero:
        np.add(rounded, plan.width.real.type(0), out=rounded)
