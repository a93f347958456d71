"""Checks of lab 01; oracles: minimp's formats, and sums that are rounded one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

MODES = ("nearest_even", "nearest_away", "toward_zero", "up", "down")


def rounded(x: float, fmt: Any = mp.float16) -> float:
    """Return x rounded to nearest."""
    return float(mp.formats.round(np.float64(x), fmt))


@exercise("1a", hints=("half an ulp, divided by the smallest value of its binade",))
def check_1a(lab: Any) -> None:
    """2^-(bits + 1)."""
    for bits in (10, 7, 23, 3):
        want, got = 2.0 ** -(bits + 1), lab.roundoff(bits)
        hint = "that is a whole ulp: the nearest number is at most half of it away" if got == 2 * want else (
            "the hidden bit counts once, and halving counts once" if got == want / 2 else "2 to a negative power"
        )  # fmt: skip
        assert got == want, f"roundoff({bits}): expected {want}, got {got}; {hint}"


@exercise("1b", points=2, hints=("mp.formats.ulp(np.float64(truth), fmt)", "the ulp is taken at the truth"))
def check_1b(lab: Any) -> None:
    """The definition, on both sides of a power of two."""
    for result, truth, fmt in (
        (1.0, 1.0004, mp.float16), (1024.0, 1023.7, mp.float16), (-3.0, -3.01, mp.bfloat16), (2.0, 2.0, mp.float16),
        (1.0, 0.9999, mp.float16),
    ):  # fmt: skip
        want = abs(result - truth) / float(mp.formats.ulp(np.float64(truth), fmt))
        got = lab.ulp_error(result, truth, fmt)
        hint = "an error has no sign here" if got < 0 else (
            "which ulp? that at the truth, of the format that was given"
        )  # fmt: skip
        close = math.isclose(got, want, rel_tol=1e-9)
        assert close, f"ulp_error({result}, {truth}, {fmt.name}): expected {want:.6g}, got {got:.6g}; {hint}"


@exercise(
    "2a", hints=("up is toward plus infinity: -1.5 becomes -1", "write the four results of each mode down")
)
def check_2a(lab: Any) -> None:
    """minimp's own modes, rounding halves to whole numbers."""
    whole = np.array([1.5, 2.5, -1.5, -2.5])
    for mode in MODES:
        row = _by(mode, whole)
        got = lab.which_mode(row)
        hint = "up and down follow the number line, not the size" if mode in ("up", "down") else (
            "ties to even: 2.5 becomes 2" if mode == "nearest_even" else "look at the signs"
        )  # fmt: skip
        assert got == mode, f"which_mode({row}): expected {mode!r}, got {got!r}; {hint}"
    got = lab.which_mode([2.0, 2.0, -1.0, -3.0])
    assert got == "none", (
        f"which_mode([2.0, 2.0, -1.0, -3.0]): expected 'none', got {got!r}; no mode makes these"
    )


def _by(mode: str, x: Any) -> list[float]:
    ways: dict[str, Any] = {
        "nearest_even": np.rint, "toward_zero": np.trunc, "up": np.ceil, "down": np.floor,
        "nearest_away": lambda v: np.copysign(np.floor(np.abs(v) + 0.5), v),
    }  # fmt: skip
    return [float(each) for each in ways[mode](x)]


@exercise("3a", hints=("where is the ulp 2?",))
def check_3a(lab: Any) -> None:
    """By counting where that is short, by the rule elsewhere."""
    for bits in (2, 3, 7, 10, 23):
        want, got = 2.0 ** (bits + 1), lab.stalls_at(bits)
        hint = (
            "there the ulp is 1, and one more still arrives" if got == want / 2 else "where the ulp becomes 2"
        )
        assert got == want, f"stalls_at({bits}): expected {want:.0f}, got {got}; {hint}"


@exercise("3b", points=3, hints=(
    "half the distance to the next float16 number in the direction of the update",
    "at exactly half, the number with the even code wins: mp.formats.encode gives codes",
))  # fmt: skip
def check_3b(lab: Any) -> None:
    """Adding and rounding, on ties, powers of two, both signs and 300 random pairs."""
    random = np.random.default_rng(2)
    pairs = [(1.0, 2.0**-11), (1.0, -(2.0**-11)), (1.0, -(2.0**-12)), (1.0009765625, 2.0**-11), (1.0, 0.0)]
    pairs += [(1.0, 2.0**-11 + 2.0**-30), (-1.0, 2.0**-12), (-1.0, 2.0**-13), (0.75, 2.0**-13)]
    drawn = random.uniform(0.1, 2.0, 300)
    pairs += [(rounded(w), float(w * s)) for w, s in zip(drawn, random.choice([-1, 1], 300) * 2.0 ** random.uniform(
        -13, -9, 300), strict=True)]  # fmt: skip
    for weight, update in pairs:
        want, got = rounded(weight + update) == weight, bool(lab.is_swallowed(weight, update))
        power = math.frexp(abs(weight))[0] == 0.5
        gap = abs(float(mp.formats.ulp(np.float64(weight), mp.float16)))
        hint = "toward zero from a power of two the numbers lie twice as close" if power and weight * update < 0 else (
            "a tie goes to the even neighbour" if abs(update) == gap / 2 else "compare with half an ulp"
        )  # fmt: skip
        assert got == want, f"is_swallowed({weight!r}, {update!r}): expected {want}, got {got}; {hint}"


@exercise("4a", points=2, hints=("math.floor, also below zero", "the part of the way is x - math.floor(x)"))
def check_4a(lab: Any) -> None:
    """The definition, at draws on both sides of the threshold."""
    for x, draw, want in (
        (2.3, 0.1, 3.0), (2.3, 0.5, 2.0), (-2.3, 0.5, -2.0), (-2.3, 0.8, -3.0), (4.0, 0.0, 4.0), (2.75, 0.75, 2.0),
    ):  # fmt: skip
        got = lab.stochastic(x, draw)
        hint = "below zero, down is away from zero: math.floor" if x < 0 else (
            "a whole number stays" if x == 4.0 else "up when draw < part of the way, not when above"
        )  # fmt: skip
        assert got == want, f"stochastic({x}, {draw}): expected {want}, got {got}; {hint}"


@exercise("4b", hints=("3 with probability 0.3, 2 with probability 0.7",))
def check_4b(lab: Any) -> None:
    """A Bernoulli variable: p and p (1 - p)."""
    for name, want, hint in (
        ("expected", 2.3, "on average it is right"),
        ("variance", 0.21, "of a coin with p = 0.3: p (1 - p)"),
    ):
        got = getattr(lab, name)
        assert math.isclose(got, want, rel_tol=1e-6), f"{name}: expected {want}, got {got}; {hint}"
