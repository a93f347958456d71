"""Checks of lab 02; oracles: minimp's named accumulations, and sums rounded one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise


def rounded(x: float) -> float:
    """Return x rounded to float16."""
    return float(mp.formats.round(np.float64(x), mp.float16))


def terms(count: int, seed: int, mean: float = 1.0) -> list[float]:
    """Return float16 numbers."""
    drawn = np.random.default_rng(seed).normal(mean, 1.0, count)
    return [float(each) for each in mp.formats.round(drawn, mp.float16)]


def by_name(values: list[float], name: str) -> float:
    """Return a sum by name; the values are float16 numbers."""
    made = mp.formats.matmul(
        np.array(values)[None], np.ones((len(values), 1)), fmt=mp.float16, accumulate=name, output=mp.float64
    )
    return float(made[0, 0])


@exercise("1a", hints=("11 bits times 11 bits are 22: add", "8 + 8 <= 24, and 24 + 24 <= 53"))
def check_1a(lab: Any) -> None:
    """Bits add up."""
    for p, q in ((11, 11), (8, 8), (24, 24), (4, 11)):
        got = lab.product_bits(p, q)
        hint = "the longest product is that of the two largest numbers: (2^p - 1) (2^q - 1) < 2^(p + q)"
        assert got == p + q, f"product_bits({p}, {q}): expected {p + q}, got {got}; {hint}"
    for name, bits, room in (("bf16_in_float32", 16, 24), ("float32_in_float64", 48, 53)):
        got = getattr(lab, name)
        assert got is True, f"{name}: expected True, got {got}; {bits} bits fit into {room}"


@exercise("2a", hints=("total = rounded(total + term), for each term",))
def check_2a(lab: Any) -> None:
    """The accumulation "float16", on sums that stall and sums that do not."""
    small = [rounded(each) for each in (0.1, 0.2, -0.3)]
    for values in ([1.0, 2.0, 3.0], [2048.0, 1.0, 1.0], terms(3000, 0), small, terms(50, 1, 0.0)):
        want, got = by_name(values, "float16"), float(lab.running_sum(values))
        hint = "2048 + 1 is 2048, twice: round after every addition, not once at the end" if len(values) == 3 else (
            "from left to right, one rounding an addition"
        )  # fmt: skip
        assert got == want, f"running_sum of {len(values)} terms: expected {want}, got {got}; {hint}"


@exercise("2b", points=2, hints=("K terms are K - 1 rounded additions", "gamma = n u / (1 - n u)"))
def check_2b(lab: Any) -> None:
    """The formula, with terms of both signs."""
    u = 2.0**-11
    for values in ([1.0, -2.0, 3.0], terms(100, 2), terms(1500, 3), [5.0]):
        n = len(values) - 1
        want, got = n * u / (1 - n * u) * sum(map(abs, values)), float(lab.bound(values, u))
        more = (n + 1) * u / (1 - (n + 1) * u) * sum(map(abs, values))
        hint = "K - 1 additions are rounded: the first, to 0, is exact" if math.isclose(got, more) else (
            "the sizes of the terms count, not their sum: |t|" if any(v < 0 for v in values) else "gamma_n"
        )  # fmt: skip
        close = math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-300)
        assert close, f"bound of {len(values)} terms: expected {want:.6g}, got {got:.6g}; {hint}"
    try:
        got = lab.bound([1.0] * 2049, u)
    except ZeroDivisionError:
        got = "a division by zero"
    assert got == math.inf, (
        f"bound of 2049 terms: expected inf, got {got}; n u is 1 there, the bound says nothing"
    )


@exercise("3a", points=2, hints=("one term is itself; else the sum of two sums, rounded",))
def check_3a(lab: Any) -> None:
    """The recursion, with odd lengths."""

    def pairwise(values: list[float]) -> float:
        half = len(values) // 2
        return values[0] if len(values) == 1 else rounded(pairwise(values[:half]) + pairwise(values[half:]))

    for values in (
        [0.5],
        [1.0, 2.0, 3.0],
        terms(37, 4),
        terms(1024, 5),
        terms(777, 8),
        [2048.0, 1.0, 1.0, 1.0, 2048.0],
    ):
        want, got = pairwise(values), float(lab.pairwise_sum(values))
        running = by_name(values, "float16")
        hint = "that is the running sum: split in the middle" if got == running else (
            "that is not rounded at every addition" if got == math.fsum(values) else "halves: n // 2, and the rest"
        )  # fmt: skip
        assert got == want, f"pairwise_sum of {len(values)} terms: expected {want}, got {got}; {hint}"


@exercise("3b", points=3, hints=("c is what was added too much: subtract it from the next term",
                                 "c = rounded(rounded(t - total) - y), before total = t"))  # fmt: skip
def check_3b(lab: Any) -> None:
    """Kahan's four lines, every operation rounded."""
    for values in (
        terms(500, 6),
        terms(3000, 7),
        [2048.0, 1.0, 1.0, 1.0, 1.0],
        [1.0, 2.0**15, 1.0, -(2.0**15)],
    ):
        total = c = 0.0
        for term in values:
            y = rounded(term - c)
            t = rounded(total + y)
            c, total = rounded(rounded(t - total) - y), t
        got = float(lab.kahan_sum(values))
        hint = "mind the sign of c, and that it is computed before total changes"
        if len(values) > 5 and got == by_name(values, "float16"):
            hint = "nothing is carried over: that is the running sum"
        elif got == rounded(math.fsum(values)):
            hint = "that is the exact sum: round to float16 after every operation, not once at the end"
        assert got == total, f"kahan_sum of {len(values)} terms: expected {total}, got {got}; {hint}"


@exercise("4a", hints=("addition of floats is not associative",))
def check_4a(lab: Any) -> None:
    """Two of the four."""
    got = set(lab.true_statements)
    hint = "no bug is needed: (a + b) + c need not be a + (b + c)" if "a" in got else (
        "two numbers on both sides of a tie round apart, however close they are" if "d" in got else
        "a bound and an order are two reasons"
    )  # fmt: skip
    assert got == {"b", "c"}, f"true_statements: expected two letters, got {sorted(got)}; {hint}"
