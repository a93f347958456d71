"""Checks of lab 05; oracles: NumPy's logarithms and float16, and minimp's own scaler, step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

HISTOGRAMS = (
    {-40: 5, -30: 10, -20: 100, -10: 3},
    {-26: 1, -25: 2, -24: 4, 14: 8, 15: 16, 16: 32},
    {-3: 7},
    {-60: 1, 10: 1},
)


@exercise("1a", hints=("np.frexp(v) gives (m, e) with v = m * 2**e and 0.5 <= m < 1: one larger than asked",
                       "np.unique(exponents, return_counts=True)"))  # fmt: skip
def check_1a(lab: Any) -> None:
    """Numbers made of their exponents."""
    random = np.random.default_rng(6)
    exponents = random.integers(-40, 12, 300)
    drawn = random.choice([-1.0, 1.0], 300) * random.uniform(1, 2, 300) * 2.0**exponents
    found, counts = np.unique(exponents, return_counts=True)
    many = dict(zip(found.tolist(), counts.tolist(), strict=True))
    for name, values, want, hint in (
        (
            "[1.5, 3.0, -3.5]",
            np.array([1.5, 3.0, -3.5]),
            {0: 1, 1: 2},
            "3 lies from 2^1 on, whatever its sign",
        ),
        (
            "[0.3, 0.7]",
            np.array([0.3, 0.7]),
            {-2: 1, -1: 1},
            "0.7 is at least 2^-1, 0.3 at least 2^-2: round down",
        ),
        ("[0.0, 1.0]", np.array([0.0, 1.0]), {0: 1}, "zeros are left out; 1 is 2^0"),
        ("[0.125, 8.0]", np.array([0.125, 8.0]), {-3: 1, 3: 1}, "a power of two belongs to its own exponent"),
        ("300 numbers", drawn, many, "2^e <= |v| < 2^(e + 1)"),
    ):
        with np.errstate(all="ignore"):
            got = {int(e) if math.isfinite(e) else e: int(n) for e, n in dict(lab.histogram(values)).items()}
        shown = (want, got) if len(want) < 5 else (f"{len(want)} exponents", "others")
        assert got == want, f"histogram of {name}: expected {shown[0]}, got {shown[1]}; {hint}"


@exercise("1b", points=2, hints=("the scale 2**k moves exponent e to e + k",
                                 "flushed: e + k < -25; infinite: e + k >= 16"))  # fmt: skip
def check_1b(lab: Any) -> None:
    """One number for each exponent, its digits 1.25, scaled and rounded by NumPy's float16."""
    for counts in HISTOGRAMS:
        exponents, sizes = np.array(list(counts)), np.array(list(counts.values()))
        for power in (0, 7, -12, 16, 40, -300):
            with np.errstate(over="ignore"):
                low = (1.25 * 2.0 ** (exponents + float(power))).astype(np.float16)
            want = int(sizes[low == 0].sum()), int(sizes[np.isinf(low)].sum())
            got = tuple(lab.fate(counts, power))
            hint = _hint_1b(counts, power, got)
            assert got == want, f"fate({counts}, {power}): expected {want}, got {got}; {hint}"


def _hint_1b(counts: dict[int, int], power: int, got: tuple[Any, ...]) -> str:
    def count(sign: int, low: int, high: int) -> tuple[int, int]:
        moved = {e + sign * power: n for e, n in counts.items()}
        return sum(n for e, n in moved.items() if e < low), sum(n for e, n in moved.items() if e >= high)

    if got == count(1, -14, 16):
        return "subnormal numbers are not zero yet: only below 2^-25"
    if got == count(-1, -25, 16):
        return "a scale above 1 makes gradients larger: it adds to the exponent"
    if got == count(1, -24, 16):
        return "from 2^-25 to 2^-24 the nearest number is 2^-24, not zero"
    return "2^16 is the first power of two that float16 does not have"


@exercise(
    "2a", points=2, hints=("the smallest exponent must come to -25 at least", "the largest to 15 at most")
)
def check_2a(lab: Any) -> None:
    """Every power tried out with the definition of 1b."""
    for counts in (*HISTOGRAMS, {-20: 1, 20: 2}, {-25: 1, 15: 1}, {-26: 1, 15: 1}):
        good = [k for k in range(-100, 100) if min(counts) + k >= -25 and max(counts) + k < 16]
        want = (good[0], good[-1]) if good else None
        made = lab.scale_range(counts)
        got = None if made is None else tuple(made)
        hint = "no scale serves the smallest and the largest: None" if want is None else (
            "2^-1 is a scale, too: powers may be negative" if got is not None and got[0] == max(want[0], 0) != want[0]
            else "both ends belong to the range: the largest exponent may come to 15"
            if got is not None and got[0] == want[0]
            else "the smallest number needs the scale most: it must come to -25"
        )  # fmt: skip
        assert got == want, f"scale_range({counts}): expected {want}, got {got}; {hint}"


@exercise("2b", hints=("begin where all is flushed, and go up", "at most: equality is allowed"))
def check_2b(lab: Any) -> None:
    """The definition, power by power."""
    few = {-40: 5, -30: 10, -20: 84, -10: 1}
    for counts, share in ((few, 0.1), (few, 0.05), (few, 0.0), ({3: 4, 6: 4}, 0.5), ({-7: 3}, 0.99)):
        whole = sum(counts.values())
        want = next(k for k in range(-100, 100) if _flushed(counts, k) <= share * whole)
        strict = next((k for k in range(-100, 100) if _flushed(counts, k) < share * whole), None)
        got = lab.smallest_power(counts, share)
        hint = "the power was asked for, not the scale" if got == 2.0**want else (
            "2^-1 is a scale, too: powers may be negative" if got == max(want, 0) != want else
            "exactly that share is allowed" if got == strict or share == 0
            else "it is numbers that count, not exponents"
        )  # fmt: skip
        assert got == want, f"smallest_power({counts}, {share}): expected {want}, got {got}; {hint}"


def _flushed(counts: dict[int, int], power: int) -> int:
    return sum(n for e, n in counts.items() if e + power < -25)


@exercise("3a", points=2, hints=("three cases: bad; good, and enough of them; good",
                                 "whenever the scale moves, the count begins at 0"))  # fmt: skip
def check_3a(lab: Any) -> None:
    """mp.GradScaler, over histories of verdicts that were drawn at random."""
    random = np.random.default_rng(8)
    for interval, bad in ((1, 0.2), (3, 0.0), (3, 0.3), (5, 0.1), (2, 0.7)):
        scaler = mp.GradScaler(init_scale=2.0**16, growth_interval=interval)
        scale, good, history = 2.0**16, 0, []
        for found_inf in (random.random(25) < bad).tolist():
            scaler.advance(found_inf)
            history.append("bad" if found_inf else "good")
            want = (scaler.get_scale(), scaler.state.growth_tracker)
            scale, good = lab.next_scale(scale, good, found_inf, interval)
            hint = _hint_3a(history, want, (scale, good))
            assert (scale, good) == want, (
                f"growth_interval {interval}, steps {', '.join(history[-4:])}: expected (scale, good_steps) = {want}, "
                f"got {(scale, good)}; {hint}"
            )


def _hint_3a(history: list[str], want: tuple[float, int], got: tuple[float, int]) -> str:
    if history[-1] == "bad":
        return "a bad step ends the row of good ones: the count is 0" if got[0] == want[0] else (
            "a bad step halves the scale at once"
        )  # fmt: skip
    return "when it has grown, the count begins anew" if got[0] == want[0] and want[1] == 0 else (
        "it doubles on the good step that makes growth_interval of them"
    )  # fmt: skip


@exercise("3b", points=3, hints=(
    "first unscale all gradients and look at all of them; then decide once, for the whole step",
    "np.isfinite is False for infinities and for NaN",
))  # fmt: skip
def check_3b(lab: Any) -> None:
    """The same steps with mp.GradScaler, weight by weight; infinities and NaN planted in one gradient."""
    for planted, hint in (
        (None, "the step is taken with gradients divided by the scale"),
        (math.inf, "one infinite gradient, and no parameter moves"),
        (math.nan, "NaN is not finite either"),
        (None, "after a skipped step the next one counts"),
    ):
        ours, theirs = _problem(), _problem()
        scaler = mp.GradScaler(init_scale=2.0**10)
        for parameters, optimizer, loss in (ours, theirs):
            scaler.scale(loss).backward() if optimizer is theirs[1] else (loss * 2.0**10).backward()
            if planted is not None:
                gradient = parameters[1].grad.numpy().copy()
                gradient[0] = planted
                parameters[1].grad = mp.tensor(gradient)
        found_inf = lab.unscale_and_step(ours[0], ours[1], 2.0**10)
        report = scaler.step(theirs[1])
        said = "one infinite gradient" if planted == math.inf else "a NaN" if planted else "finite gradients"
        for mine, other in zip(ours[0], theirs[0], strict=True):
            a, b = mine.detach().numpy(), other.detach().numpy()
            close = np.allclose(a, b, rtol=1e-6, atol=0)
            assert close, f"unscale_and_step, {said}: expected weights {b}, got {a}; {hint}"
        assert bool(found_inf) == report.skipped, (
            f"unscale_and_step, {said}: expected found_inf {report.skipped}, got {found_inf!r}"
        )


def _problem() -> tuple[list[Any], Any, Any]:
    """Return parameters, an optimizer over them, and a loss; the last parameter takes no part."""
    weights = [mp.tensor(each, requires_grad=True) for each in ([1.0, -2.0], [0.5, 3.0], [7.0])]
    loss = (weights[0] * weights[0]).sum() + (weights[1] * weights[0]).sum()
    return weights, mp.optim.SGD(weights, lr=0.1), loss


@exercise("4a", hints=("draw one tooth of the saw: n good steps, and then?",))
def check_4a(lab: Any) -> None:
    """mp.GradScaler before such a wall, counted over whole teeth."""
    for n in (1, 3, 10):
        scaler = mp.GradScaler(init_scale=1.0, growth_interval=n)
        bad = 0
        for _ in range(20 * (n + 1)):
            found_inf = scaler.get_scale() > 1.0
            scaler.advance(found_inf)
            bad += found_inf
        want, got = bad / (20 * (n + 1)), float(lab.skipped_share(n))
        hint = "the skipped step is one of the steps, too" if math.isclose(got, 1 / n) else (
            "one tooth: n good steps and one bad one; the fall is one step, not two"
        )  # fmt: skip
        assert math.isclose(got, want), f"skipped_share({n}): expected {want:.4g}, got {got:.4g}; {hint}"
