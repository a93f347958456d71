"""Wang et al. 2018: a long sum in a short format stalls; sums of chunks, or stochastic rounding, mend it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from minimp import formats
from minimp.reproductions.record import Bar, Bench, Measures, Paper, Reproduction

__all__ = ["CHUNKED_SUMS", "running_sum"]

FP16_169 = formats.make(6, 9)
"""The paper's format of sums: 6 exponent and 9 mantissa bits."""
NUMBERS, CHUNK = 16384, 64
HALF_WIDTH = np.sqrt(3.0)
"""A uniform distribution this far to either side of its mean has the standard deviation 1."""
TOLD = 2048

Float64s = npt.NDArray[np.float64]


def running_sum(
    terms: Float64s, rounding: str = "nearest_even", rng: np.random.Generator | None = None,
    tell: Callable[[float], None] = lambda _done: None,
) -> Float64s:  # fmt: skip
    """Sum along the last axis, each running sum rounded to 1-6-9.  (..., n) -> (...)"""
    total = np.zeros(terms.shape[:-1])
    for k in range(terms.shape[-1]):
        total = np.asarray(formats.round(total + terms[..., k], FP16_169, rounding, rng=rng), np.float64)
        if k % TOLD == 0:
            tell(k / terms.shape[-1])
    return total


def _run(seed: int, bench: Bench) -> Measures:
    rng = np.random.default_rng(seed)
    count = bench.part(NUMBERS // CHUNK) * CHUNK
    drawn = rng.uniform(1.0 - HALF_WIDTH, 1.0 + HALF_WIDTH, count)
    terms = np.asarray(formats.round(drawn, FP16_169), np.float64)
    exact = float(terms.sum())  # 1-6-9 numbers: float64 adds them without an error
    plain = running_sum(terms, tell=lambda done: bench.tell("plain", done))
    chunks = running_sum(running_sum(terms.reshape(-1, CHUNK)))
    dice = running_sum(terms, "stochastic", rng, lambda done: bench.tell("stochastic", done))
    return {
        "plain": 100 * float(plain) / exact, "chunks of 64": 100 * float(chunks) / exact,
        "stochastic": 100 * float(dice) / exact,
    }  # fmt: skip


CHUNKED_SUMS = Reproduction(
    "chunked-sums",
    Paper("Wang et al.", 2018, "Training Deep Neural Networks with 8-bit Floating Point Numbers",
          "1812.08011", "figure 3"),
    "A long running sum in a 16-bit format of 9 mantissa bits goes badly wrong (swamping); summing chunks of "
    "32 and more first, or rounding stochastically, keeps it near the FP32 sum.",
    f"{NUMBERS} uniform numbers of mean 1 and standard deviation 1, and their running sum, in 6 exponent "
    f"and 9 mantissa bits; plainly, by chunks of {CHUNK}, and rounded stochastically.",
    dict.fromkeys(("plain", "chunks of 64", "stochastic"), "% of the exact sum"),
    (
        Bar("% of the exact sum that a plain sum reaches", lambda m: m["plain"], 30.0, 80.0, at_least=False),
        Bar("% by which chunks are off", lambda m: abs(m["chunks of 64"] - 100), 1.0, 5.0, at_least=False),
        Bar("% by which stochastic rounding is off", lambda m: abs(m["stochastic"] - 100), 4.0, 10.0,
            at_least=False),
    ),
    _run,
    trains=False,
)  # fmt: skip
