"""Every tolerance of the test suite: one table, a reason in each row.

A test names a row and never writes a number of its own::

    assert_ulp(actual, expected, "fp32_elementwise")
    assert_close(losses, torch_losses, "parity_trajectory")
    assert_bound(actual, expected, dot_bound(...), "dot_product")

``expected`` is the oracle, in float64 where it has one. When a check fails, the message gives the worst
element, its index, both values and the row's reason.

The kinds, for one element with actual value a and expected value e:

========  ==============================================================================
``ulp``   |a - e| <= value * ulp(e), ulp taken in the format of ``actual`` (its dtype)
``rel``   |a - e| <= value * |e|
``peak``  |a - e| <= value * max |e| over the whole array: for gradients and other sums that cancel
``abs``   |a - e| <= value
``bound`` |a - e| <= value * the element's own bound, which the test derives from the operation
========  ==============================================================================

Under every kind NaN must meet NaN, and an infinity the same infinity.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tests.arrays import host

Kind = Literal["ulp", "rel", "peak", "abs", "bound"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """One row: how far `actual` may lie from `expected`, and why that far."""

    name: str
    kind: Kind
    value: float
    reason: str


ROWS = (
    Tolerance("exact", "ulp", 0.0, "the result is representable, so nothing is rounded"),
    Tolerance(
        "one_rounding", "ulp", 0.5, "round to nearest, once: at most half an ulp (IEEE 754-2019, 4.3.1)"
    ),
    Tolerance(
        "fp16_from_fp32",
        "ulp",
        0.5 + 2.0**-13,
        "computed with one float32 rounding (half an ulp of float32 = 2^-14 ulp of float16), then rounded to "
        "float16; twice that for an oracle that is itself a rounded float64",
    ),
    Tolerance(
        "bf16_from_fp32",
        "ulp",
        0.5 + 2.0**-16,
        "computed with one float32 rounding (half an ulp of float32 = 2^-17 ulp of bfloat16), then rounded "
        "to bfloat16; twice that for an oracle that is itself a rounded float64",
    ),
    Tolerance(
        "fp32_elementwise", "ulp", 0.5, "+ - * / and sqrt are correctly rounded (IEEE 754-2019, 5.4.1)"
    ),
    Tolerance(
        "fp32_transcendental",
        "ulp",
        4.0,
        "NumPy's own limit for float32 exp, log, sin, cos, tanh, ... is 4 ulp (its umath accuracy tests)",
    ),
    Tolerance(
        "fp32_composed",
        "ulp",
        16.0,
        "a handful of float32 roundings in a row without cancellation (softmax, gelu, a mean of few terms)",
    ),
    Tolerance(
        "fp16_transcendental",
        "ulp",
        0.5 + 2.0**-10,
        "4 ulp in float32 (4 * 2^-13 ulp of float16 = 2^-11), then one rounding to float16; doubled",
    ),
    Tolerance(
        "bf16_transcendental",
        "ulp",
        0.5 + 2.0**-13,
        "4 ulp in float32 (4 * 2^-16 ulp of bfloat16 = 2^-14), then one rounding to bfloat16; doubled",
    ),
    Tolerance(
        "dot_product",
        "bound",
        1.0,
        "the bound is a theorem: u_out|y| + gamma_K sum|a||b| (1 + u_out) + half the smallest subnormal, "
        "gamma_K = K u / (1 - K u) (Higham, Accuracy and Stability, 2nd ed., 3.1)",
    ),
    Tolerance(
        "standardize",
        "bound",
        1.0,
        "the bound is derived in the test: one float32 rounding, plus float64 cancellation in x - mean",
    ),
    Tolerance(
        "erf_float64",
        "ulp",
        2.0,
        "1.8 measured on 60,000 points: Cody's quotients in float64, and 1 - erfc from 1/2 on",
    ),
    Tolerance(
        "erf_float32",
        "ulp",
        0.51,
        "computed in float64 and rounded once: half an ulp, and two ulps of float64",
    ),
    Tolerance(
        "fp64_sums",
        "peak",
        1e-14,
        "the same float64 sums of under a hundred terms in another order: about K 2^-53 of the largest",
    ),
    Tolerance(
        "parity_gradient_fp16",
        "peak",
        4 * 2.0**-10,
        "the gradient rounds where torch does not (what forward saved), and sums over a broadcast again",
    ),
    Tolerance(
        "parity_gradient_bf16",
        "peak",
        4 * 2.0**-7,
        "as parity_gradient_fp16, in units of bfloat16",
    ),
    Tolerance(
        "uniform_orders",
        "abs",
        30.9,
        "chi-square with 5 degrees of freedom exceeds 30.9 once in 100,000 tries; the seed is fixed",
    ),
    Tolerance(
        "fp64_gradient",
        "rel",
        1e-7,
        "float64 central difference, h ~ eps^(1/3): error ~ eps^(2/3) = 4e-11 of the function's scale, which "
        "may exceed the derivative's a thousandfold",
    ),
    Tolerance(
        "fp64_same_maths", "rel", 1e-12, "the same float64 formula in another order of summation, K < 1e4"
    ),
    Tolerance(
        "parity_op_fp32", "peak", 1e-5, "one float32 op against torch's: other SIMD order, K up to about 1e3"
    ),
    Tolerance(
        "parity_gradient_fp32", "peak", 1e-5, "one float32 gradient against torch's, relative to its largest"
    ),
    Tolerance(
        "parity_op_fp16", "peak", 2.0**-10, "one unit of float16 in the last place of the largest element"
    ),
    Tolerance(
        "parity_op_bf16", "peak", 2.0**-7, "one unit of bfloat16 in the last place of the largest element"
    ),
    Tolerance(
        "parity_first_loss",
        "rel",
        1e-6,
        "a float32 loss before any update: about ten float32 ulps, other order of summation only",
    ),
    Tolerance(
        "parity_trajectory",
        "rel",
        1e-4,
        "60 float32 steps from the same start: only the order of summation differs, but each step's "
        "differences feed the next; a missed decay, a wrong epsilon or a wrong average lies far above",
    ),
    Tolerance(
        "parity_trajectory_weights",
        "peak",
        1e-5,
        "the weights after 60 float32 steps, of the largest of each layer: 1.5e-6 is the most measured",
    ),
    Tolerance(
        "parity_mixed_losses",
        "rel",
        5e-4,
        "10 to 20 steps in 16 bits against torch's: sums in another order round to the neighbouring number "
        "now and then, one ulp (2^-11, 2^-8) of one gradient among thousands; 1.6e-4 is the most measured",
    ),
    Tolerance(
        "parity_mixed_weights",
        "peak",
        5e-3,
        "the weights after those steps, of the largest of each layer; 1.9e-3 is the most measured, in six "
        "biases that moved by 0.76 of the largest",
    ),
    Tolerance(
        "loss_in_16_bits",
        "rel",
        0.05,
        "the same forward in bfloat16 beside float32: a few roundings of 2^-9 of scores of about 10",
    ),
    Tolerance(
        "parity_optimizer",
        "peak",
        1e-6,
        "50 float32 updates with equal gradients: torch fuses some products with the sum that follows, half "
        "a unit of 6e-8 a step at most, mostly cancelling; a wrong term or order of decay lies far above",
    ),
    Tolerance(
        "parity_schedule",
        "rel",
        1e-13,
        "float64 learning rates by the same formula, a hundred factors in a row",
    ),
    Tolerance(
        "parity_range",
        "rel",
        0.03,
        "the largest of at least 160 uniform draws is within 3 % of the bound but for 1 in 130, of 800 "
        "but for 1 in 4e10; the seeds are fixed",
    ),
    Tolerance(
        "six_deviations",
        "abs",
        6.0,
        "a mean of many independent draws, in its own standard deviations: beyond 6 once in 5e8 tries",
    ),
    Tolerance(
        "kahan_compensation",
        "bound",
        1.0,
        "the bound is derived in the test: one rounding of the compensation a step",
    ),
    Tolerance(
        "kahan_sum",
        "ulp",
        1.0,
        "the compensated sum is rounded once to nearest; the rounded compensation is worth the other half",
    ),
    Tolerance(
        "sqnr_model",
        "abs",
        0.1,
        "decibels: the models take the noise as even within a step, which subnormals and the sampling of "
        "262,144 numbers break by less than 0.05 dB",
    ),
    Tolerance(
        "parity_optimizer_fp64",
        "peak",
        1e-12,
        "50 float64 updates by one formula, of the largest element: 1e-14 but where v - m^2 cancels",
    ),
    Tolerance(
        "composite_gradient_fp64",
        "peak",
        1e-13,
        "a kernel's gradient against that of its composite: other sums",
    ),
    Tolerance(
        "composite_gradient_fp32",
        "peak",
        1e-4,
        "as composite_gradient_fp64, in float32; terms cancel to a hundredth",
    ),
    Tolerance(
        "composite_gradient_fp16",
        "peak",
        4 * 2.0**-10,
        "a composite is computed wide, a kernel reads what it saved",
    ),
    Tolerance(
        "composite_gradient_bf16", "peak", 4 * 2.0**-7, "as composite_gradient_fp16, in units of bfloat16"
    ),
    Tolerance(
        "autocast_penalty_fp16",
        "peak",
        8 * 2.0**-10,
        "a gradient penalty in float16: forward, gradient and its gradient round some units of the largest",
    ),
    Tolerance(
        "parity_module_fp16",
        "peak",
        8 * 2.0**-10,
        "a whole module in float16 against torch's, which rounds in other places now and then: four in five "
        "are equal bit for bit; 2.6 units of the largest is the most measured, in a stack of transformers",
    ),
    Tolerance(
        "parity_module_bf16",
        "peak",
        8 * 2.0**-8,
        "as parity_module_fp16, in units of bfloat16: 2.8 is the most measured, in torch's fused LSTM",
    ),
    Tolerance(
        "parity_spread",
        "rel",
        0.1,
        "the deviation of at least 500 draws is known to 1/sqrt(2 N) = 3.2 %, a difference of two to 4.5 %; "
        "the seeds are fixed",
    ),
    Tolerance(
        "parity_long_weights",
        "peak",
        2e-4,
        "weights and statistics after 100 float32 steps, of the largest of each array: 6e-7, but for a relu "
        "at its edge that opens in one run and not in the other, 5.6e-5, as between torch's own runs from "
        "weights a float32 unit apart",
    ),
    Tolerance(
        "torch_spread",
        "bound",
        1.0,
        "the largest distance between two of torch's own runs, from weights that differ by one rounding",
    ),
    Tolerance(
        "torch_spread_elsewhere",
        "bound",
        1.5,
        "as torch_spread, where torch's kernel rounds more often than ours: float32 lies at 1.04 of it",
    ),
    Tolerance(
        "fp32_recurrence", "rel", 1e-5, "some hundred float32 roundings in a row, each 2^-24 of the value"
    ),
    Tolerance(
        "layout_fp64",
        "peak",
        64 * 2.0**-53,
        "the same op on an input that lies otherwise in memory: up to a hundred terms in another order",
    ),
    Tolerance("parity_op_fp64", "peak", 1e-13, "one float64 op of a few terms against torch's"),
    Tolerance(
        "parity_gradient_fp64", "peak", 1e-12, "one float64 gradient against torch's: terms may cancel"
    ),
    Tolerance(
        "layout_16",
        "peak",
        2.0**-8,
        "float32 sums in another order, then rounded: the neighbouring number of bfloat16, at the largest",
    ),
    Tolerance("layout_fp32", "peak", 64 * 2.0**-24, "as layout_fp64, in float32: sums in another order"),
    Tolerance(
        "normal_model",
        "rel",
        0.05,
        "240,000 sums of 48 normal products taken for normal ones, in shares of 0.03 to 0.3: within 0.022",
    ),
    Tolerance(
        "equalized",
        "rel",
        1e-5,
        "equalisation ends when no factor moves by more than 1e-6 octaves a sweep; as it converges by a "
        "share a sweep, what is left may be some times that",
    ),
    Tolerance(
        "merged_histograms",
        "rel",
        0.02,
        "histograms whose bins were split in 16 and counted where the parts' middles lie: values move to the "
        "neighbouring bin, and the search may stop a bin or a few of 2048 elsewhere",
    ),
    Tolerance(
        "sqnr_of_histogram",
        "abs",
        0.2,
        "decibels: values are taken as even within a bin, 4096 of which lie below the largest magnitude",
    ),
    Tolerance(
        "beside_torch",
        "ulp",
        16.0,
        "ulps at an array's largest element: three layers beside torch's, whose sums run in other orders; 4 "
        "are seen, and a layer that differs shows by thousands",
    ),
    Tolerance(
        "activation_kernels",
        "bound",
        1.0,
        "the bound is the kernels' own (references/activations.py: ULPS, ROUNDINGS), or twice that for "
        "two ways of computing; seen over dense float32 numbers, with a little to spare",
    ),
    Tolerance(
        "row_kernels",
        "bound",
        1.0,
        "the bound is derived in the test: a few float32 roundings for each number, and for a sum as many as "
        "one number goes through, some 8 in its thread and 10 halvings",
    ),
)

TOLERANCES = MappingProxyType({row.name: row for row in ROWS})
if len(TOLERANCES) != len(ROWS):
    raise ValueError("two rows of tests/tolerances.py have one name")


def tolerance(name: str, *kinds: Kind) -> Tolerance:
    """Return the row called `name`; its kind must be one of `kinds` (when any are given)."""
    if name not in TOLERANCES:
        raise KeyError(
            f"tests/tolerances.py has no row {name!r}; add one with its reason, or use: {list(TOLERANCES)}"
        )
    row = TOLERANCES[name]
    if kinds and row.kind not in kinds:
        raise TypeError(f"row {name!r} is of kind {row.kind!r}; this check takes {' or '.join(kinds)}")
    return row


def assert_ulp(actual: npt.ArrayLike, expected: npt.ArrayLike, row: str) -> None:
    """Check every element to within the row's units in the last place of ``actual``'s format.

    A unit is 2^(max(floor(log2|e|), e_min) - p): p stored mantissa bits, e_min the exponent of the smallest
    normal. An ``expected`` beyond the format's range must have come out as what the format makes of it.
    """
    chosen = tolerance(row, "ulp")
    got, want = _pair(actual, expected)
    with np.errstate(over="ignore", invalid="ignore"):  # a conversion out of range is the case asked about
        wanted_there = want.astype(got.dtype).astype(np.float64)
    want = np.where(np.isfinite(wanted_there), want, wanted_there)
    _judge(got, want, _ulp_of(want, got.dtype), chosen)


def assert_close(actual: npt.ArrayLike, expected: npt.ArrayLike, row: str) -> None:
    """Check every element to within a relative, peak-relative or absolute tolerance."""
    chosen = tolerance(row, "rel", "peak", "abs")
    got, want = _pair(actual, expected)
    size = np.abs(np.where(np.isfinite(want), want, 0.0))
    units = {"rel": size, "peak": np.full_like(size, size.max(initial=0.0)), "abs": np.ones_like(size)}
    _judge(got, want, units[chosen.kind], chosen)


def assert_bound(actual: npt.ArrayLike, expected: npt.ArrayLike, bound: npt.ArrayLike, row: str) -> None:
    """Check every element against its own bound (same shape as ``expected``, or broadcast to it)."""
    chosen = tolerance(row, "bound")
    got, want = _pair(actual, expected)
    _judge(got, want, np.broadcast_to(np.asarray(bound, np.float64), want.shape), chosen)


def dot_bound(
    expected: npt.ArrayLike,
    magnitude: npt.ArrayLike,
    length: int,
    accumulate: npt.DTypeLike,
    output: npt.DTypeLike,
) -> npt.NDArray[np.float64]:
    """Return the bound of a dot product, products exact, sums in `accumulate`, one rounding to `output`.

    u_out |y| + gamma_K sum|a||b| (1 + u_out) + half the smallest subnormal, gamma_K = K u / (1 - K u).

    Args:
        expected: y, the exact results in float64.
        magnitude: sum |a||b| for each result, float64.
        length: K, the number of products in each sum.
        accumulate: the dtype of the running sums.
        output: the dtype of the results.
    """
    unit_sum, unit_out = (0.5 * float(ml_dtypes.finfo(each).eps) for each in (accumulate, output))
    if length * unit_sum >= 1.0:
        raise ValueError(f"no bound holds for {length} sums in {np.dtype(accumulate).name}: K u >= 1")
    gamma = length * unit_sum / (1.0 - length * unit_sum)
    floor = 0.5 * float(ml_dtypes.finfo(output).smallest_subnormal)
    wanted, mass = np.asarray(expected, np.float64), np.asarray(magnitude, np.float64)
    bound: npt.NDArray[np.float64] = unit_out * np.abs(wanted) + gamma * mass * (1.0 + unit_out) + floor
    return bound


def _pair(actual: npt.ArrayLike, expected: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Return both as arrays of one shape, on the host, the expected one in float64."""
    got, want = host(actual), host(expected).astype(np.float64)
    assert got.shape == want.shape, f"shapes differ: actual {got.shape}, expected {want.shape}"
    return got, want


def _ulp_of(values: npt.NDArray[np.float64], dtype: npt.DTypeLike) -> npt.NDArray[np.float64]:
    """Return one unit in the last place of each value, in the format of `dtype`."""
    info = ml_dtypes.finfo(dtype)
    finite = np.where(np.isfinite(values), values, 1.0)
    lowest = np.frexp(float(info.smallest_normal))[1]
    exponent = np.where(finite == 0.0, lowest, np.maximum(np.frexp(finite)[1], lowest))
    return np.ldexp(1.0, exponent - 1 - int(info.nmant))


def _judge(
    actual: npt.NDArray[Any], expected: npt.NDArray[np.float64], unit: npt.NDArray[np.float64], row: Tolerance
) -> None:
    """Raise AssertionError naming the worst element where |actual - expected| > row.value * unit."""
    got = actual.astype(np.float64)
    special = ~np.isfinite(got) | ~np.isfinite(expected)
    alike = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):  # inf - inf: replaced on the next line
        distance = np.abs(got - expected)
    distance = np.where(special, np.where(alike, 0.0, np.inf), distance)
    wrong = distance > row.value * unit
    if not wrong.any():
        return
    with np.errstate(divide="ignore", invalid="ignore"):  # a unit of zero: any distance is infinitely many
        ratio = np.where(distance == 0.0, 0.0, distance / unit)
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    raise AssertionError(
        f"{int(wrong.sum())} of {wrong.size} elements lie outside {row.name} "
        f"({row.kind} {row.value:g}: {row.reason})\n"
        f"  worst at {worst}: actual {actual[worst]!r}, expected {float(expected[worst])!r}, "
        f"off by {float(distance[worst]):.6g} = {float(ratio[worst]):.6g} x unit {float(unit[worst]):.6g}"
    )
