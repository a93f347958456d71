"""DeepSeek-V3: FP8 products need their sums promoted to FP32 every so often."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minimp import formats
from minimp.reproductions.record import Bar, Bench, Measures, Paper, Reproduction

__all__ = ["PROMOTION"]

UNIT, FP8 = "tensorcore:hopper", "float8_e4m3fn"
SIDE, SHORT, LONG, EVERY = 64, 512, 4096, 128

Float64s = npt.NDArray[np.float64]


def _sums(a: Float64s, b: Float64s, every: int) -> Float64s:
    """Multiply in the unit, `every` terms at a time; what comes out is added in FP32.  (M, K) (K, N)"""
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for start in range(0, a.shape[1], every):
        here = slice(start, start + every)
        part = formats.matmul(a[:, here], b[here], fmt=FP8, accumulate=UNIT, output="float32")
        total += part.astype(np.float32)
    return total.astype(np.float64)


def _error(a: Float64s, b: Float64s, every: int) -> float:
    """Return the largest error, in percent of the largest result."""
    exact = a @ b  # E4M3 products are multiples of 2^-18 below 2^18: float64 adds them without an error
    return float(100 * np.max(np.abs(_sums(a, b, every) - exact)) / np.max(np.abs(exact)))


def _run(seed: int, bench: Bench) -> Measures:
    rng = np.random.default_rng(seed)
    side = bench.part(SIDE, 4)
    a, b = (
        np.asarray(formats.round(rng.standard_normal(shape), FP8), np.float64)
        for shape in ((side, LONG), (LONG, side))
    )
    bench.tell("sums of 4096 terms", 0.3)
    whole, promoted = _error(a, b, LONG), _error(a, b, EVERY)
    return {"K = 512": _error(a[:, :SHORT], b[:SHORT], SHORT), "K = 4096": whole,
            "K = 4096, promoted": promoted}  # fmt: skip


PROMOTION = Reproduction(
    "fp8-promotion",
    Paper("DeepSeek-AI", 2024, "DeepSeek-V3 Technical Report", "2412.19437", "section 3.3.2"),
    "FP8 products on Hopper are summed in about 14 bits: at K = 4096 the error of random matrices reaches "
    "nearly 2 %. Adding the sums of every 128 terms in FP32 mends it.",
    f"A model of Hopper's adder (13 fraction bits, cut off, {UNIT}); {SIDE} x {SIDE} dot products of normal "
    f"numbers in E4M3; whole, or added in FP32 every {EVERY} terms. The model is made of published tests of "
    "the hardware; how the paper counted its 2 % is not published.",
    dict.fromkeys(("K = 512", "K = 4096", "K = 4096, promoted"), "% of the largest result"),
    (
        Bar("error whole over error promoted, K = 4096", lambda m: m["K = 4096"] / m["K = 4096, promoted"],
            10.0, 2.0),
        Bar("error at K = 4096 over error at K = 512", lambda m: m["K = 4096"] / m["K = 512"], 1.5, 1.0),
    ),
    _run,
    trains=False,
)  # fmt: skip
