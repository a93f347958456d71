"""Checks of lab 11; oracles: minimp's FP8 scales and losses, its block formats, and an exact count."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

E4M3, E5M2 = mp.formats.float8_e4m3fn, mp.formats.float8_e5m2
FP6, FP4, INT8 = mp.formats.float6_e2m3fn, mp.formats.float4_e2m1fn, mp.formats.int8


def _pair(got: Any, what: str) -> tuple[float, float]:
    is_pair = isinstance(got, tuple | list) and len(got) == 2
    assert is_pair, f"{what}: expected two shares, got {got!r}"
    return float(got[0]), float(got[1])


@exercise("1a", points=2, hints=(
    "leave zeros out first; then round, and look at what is 0 and at what is not finite",
    "np.isfinite is False for NaN and for infinities, np.isinf only for the latter",
))  # fmt: skip
def check_1a(lab: Any) -> None:
    """Cases counted by hand, at and around the ends of both formats."""
    for name, x, fmt, expected, hint in (
        ("E4M3", [500.0, -1e6, 1.0, 2.0], E4M3, (0.0, 0.5), "E4M3 has no infinity: what is too large is NaN"),
        ("E5M2", [1e6, -1e6, 1.0, 2.0], E5M2, (0.0, 0.5), "what is too large is infinite in E5M2, of either sign"),
        ("E4M3", [460.0, -449.0, 448.0, 465.0], E4M3, (0.0, 0.25),
         "up to 464, half a step above 448, numbers are still rounded to 448"),
        ("E4M3", [0.0, 0.0, 1.0, 2.0], E4M3, (0.0, 0.0), "a zero that was zero before is not flushed"),
        ("E4M3", [0.0, 0.0, 1e-4, 1.0], E4M3, (0.5, 0.0), "shares of the numbers that are not zero"),
        ("E5M2", [1e-6, -1e-6, 7e-6, 1e-5], E5M2, (0.75, 0.0), "E5M2 flushes up to half of 2^-16"),
        ("E4M3", [0.0, 0.0], E4M3, (0.0, 0.0), "no numbers that are not zero: both shares are 0"),
        ("E5M2", np.full((3, 4), 500.0), E5M2, (0.0, 0.0), "500 lies well within E5M2"),
    ):  # fmt: skip
        with np.errstate(all="ignore"):
            got = _pair(lab.fates(np.array(x), fmt), "fates")
        shown = np.array(x).ravel().tolist()[:4]
        assert np.allclose(got, expected), f"fates({shown}, {name}): expected {expected}, got {got}; {hint}"


@exercise("2a", points=2, hints=(
    "three steps: times the scale, mp.formats.round(..., fmt, overflow='saturate'), over the scale",
))  # fmt: skip
def check_2a(lab: Any) -> None:
    """minimp's rounding of exact products; scales are powers of two."""
    random = np.random.default_rng(4)
    for fmt, scale, size in ((E4M3, 64.0, 1.0), (E5M2, 2.0**20, 1e-5), (E4M3, 2.0**-6, 1e3), (FP4, 2.0, 1.0),
                             (E4M3, 1024.0, 1.0)):  # fmt: skip
        x = np.append(random.standard_normal((4, 8)) * size, [[0.0] * 8], 0)
        want = np.asarray(mp.formats.round(x * scale, fmt, overflow="saturate")) / scale
        got = np.asarray(lab.quantise(x.copy(), scale, fmt), np.float64)
        what = f"quantise(x, {scale:g}, {fmt.name})"
        assert got.shape == x.shape, f"{what}: expected the shape {x.shape}, got {got.shape}; x's own"
        off = ~np.isclose(got, want, rtol=1e-6, atol=0)
        at = np.unravel_index(int(np.argmax(off)), x.shape)
        assert not off.any(), (
            f"{what} of {float(x[at])!r}: expected {float(want[at])!r}, got {float(got[at])!r}; "
            f"{_hint_2a(x, scale, fmt, got)}"
        )


def _hint_2a(x: Any, scale: float, fmt: Any, got: Any) -> str:
    scaled = np.asarray(mp.formats.round(x * scale, fmt, overflow="saturate"))
    wrong_way = np.asarray(mp.formats.round(x / scale, fmt, overflow="saturate")) * scale
    if not np.all(np.isfinite(got)):
        return "what is too large takes the largest number: overflow='saturate'"
    if np.array_equal(got, mp.formats.round(x, fmt, overflow="saturate")):
        return "the scale has done nothing: multiply by it before rounding"
    if np.allclose(got, scaled):
        return "the result is still scaled: divide by the scale at the end"
    if np.allclose(got, wrong_way):
        return "the wrong way round: multiply by the scale before rounding, divide after"
    return "x times the scale, rounded, over the scale"


@exercise("2b", points=2, hints=("sums of squares, then 10 * np.log10 of their quotient",
                                 "no noise at all: math.inf"))  # fmt: skip
def check_2b(lab: Any) -> None:
    """minimp's report on a tensor."""
    random = np.random.default_rng(5)
    for fmt, size in ((E4M3, 1.0), (E5M2, 100.0), (FP4, 1.0), (INT8, 30.0), (E4M3, 3e-3)):
        x = random.standard_normal((8, 32)) * size
        q = np.asarray(mp.formats.round(x, fmt, overflow="saturate"))
        want = mp.formats.block_report(x, fmt).sqnr_db
        with np.errstate(all="ignore"):
            got = float(lab.sqnr(x, q))
        assert math.isclose(got, want, rel_tol=1e-6), (
            f"sqnr of {fmt.name} on numbers of about {size:g}: expected {want:.4f} dB, got {got:.4f}; "
            f"{_hint_2b(x, q, got, want)}"
        )
    with np.errstate(all="ignore"):
        exact = lab.sqnr(np.ones(4), np.ones(4))
    assert exact == math.inf, f"sqnr(x, x): expected inf, got {exact}; nothing was lost, so there is no noise"
    one = float(lab.sqnr(np.array([10.0, 0.0]), np.array([9.0, 0.0])))
    assert math.isclose(one, 20), (
        f"sqnr of [10, 0] as [9, 0]: expected 20 dB, got {one}; a tenth of the signal; zeros are numbers too"
    )


def _hint_2b(x: Any, q: Any, got: float, want: float) -> str:
    if math.isclose(got, -want, rel_tol=1e-6):
        return "signal over noise, not noise over signal"
    if math.isclose(got, 2 * want, rel_tol=1e-6):
        return "sums of squares are powers: 10 times the logarithm (20 belongs to amplitudes)"
    if math.isclose(got, 10 * math.log10(np.sum(np.abs(x)) / np.sum(np.abs(x - q))), rel_tol=1e-6):
        return "the sums are of squares, not of magnitudes"
    if math.isclose(got, want * math.log(10), rel_tol=1e-6):
        return "the logarithm is that to the base 10"
    return "10 log10 of the sum of x^2 over the sum of (x - q)^2"


@exercise("2c", points=2, hints=(
    "2.0 ** floor(log2(fmt.max / amax)), less the margin in the exponent",
    "np.max(np.abs(x)); zeros alone: 1.0",
))  # fmt: skip
def check_2c(lab: Any) -> None:
    """minimp's current scaling with powers of two, and the margin in the exponent."""
    random = np.random.default_rng(6)
    for fmt, size, margin in ((E4M3, 3.0, 0), (E4M3, 5.0, 0), (E5M2, 1e-6, 0), (E4M3, -6.0, 0), (FP4, 0.3, 0),
                              (E4M3, 3.0, 2), (E5M2, 1e4, 1), (E4M3, 1e3, 5)):  # fmt: skip
        x = random.uniform(-1, 1, (3, 8))
        x = x / np.abs(x).max() * abs(size) * (0.999 if size > 0 else 0.2)
        x[1, 2] = size
        want = mp.fp8.current_scale(abs(size), fmt.max, power_of_2=True) / 2.0**margin
        got = float(lab.power_scale(x, fmt, margin) if margin else lab.power_scale(x, fmt))
        what = f"power_scale of amax {abs(size):g} for {fmt.name}, margin {margin}"
        assert got == want, (
            f"{what}: expected {want:g}, got {got:g}; {_hint_2c(got, want, abs(size), fmt, margin)}"
        )
    with np.errstate(all="ignore"):
        zeros = lab.power_scale(np.zeros(5), E4M3)
    assert zeros == 1.0, f"power_scale of zeros: expected 1.0, got {zeros}; nothing to scale: 1"


def _hint_2c(got: float, want: float, amax: float, fmt: Any, margin: int) -> str:
    for applies, hint in (
        (not 0 < got < math.inf, "a scale is finite and above 0"),
        (margin and got in (want * 2.0**margin, want * 4.0**margin),
         "a margin leaves room above amax: it makes the scale smaller, by 2**margin"),
        (math.frexp(got)[0] != 0.5, "that is no power of two: cut it down to one"),
        (got > 2 * want, "amax is the largest magnitude: negative numbers count"),
        (got > want, "amax would saturate: the power of two below max / amax, not the nearest"),
        (0.5 <= got * fmt.max / amax <= 2, "amax over max is the inverse; x is multiplied by the scale"),
    ):  # fmt: skip
        if applies:
            return hint
    return "the largest power of two with amax * s at most fmt.max"


@exercise("3a", hints=("v scaled is fmt.max / r; when is that the smallest normal number?",))
def check_3a(lab: Any) -> None:
    """The quotient of the ends of the normal numbers, for five formats."""
    for fmt in (E4M3, E5M2, FP6, FP4, mp.float16):
        want, got = fmt.max / fmt.smallest_normal, float(lab.room(fmt))
        hint = (
            "there v is the smallest subnormal, with one digit left" if got == fmt.max / fmt.smallest_subnormal
            else "the inverse: the outlier is the larger one" if got * want == 1
            else "v is not scaled to 1, but may go down to the smallest normal number" if got == fmt.max
            else "the largest number over the smallest normal one"
        )  # fmt: skip
        assert got == want, f"room({fmt.name}): expected {want:g}, got {got:g}; {hint}"


def _scaled_by(x: Any, fmt: Any, divisors: Any) -> Any:
    divisors = np.where(divisors > 0, divisors, 1.0)
    return np.asarray(mp.formats.round(x / divisors, fmt, overflow="saturate")) * divisors


@exercise("3b", points=4, hints=(
    "x.reshape(len(x), -1, 32), and amax over the last axis with keepdims=True",
    "np.ldexp(1.0, np.frexp(amax)[1] - 1 - fmt.emax) is what to divide by; 1.0 where amax is 0",
))  # fmt: skip
def check_3b(lab: Any) -> None:
    """minimp's block formats by the standard's rule, bit for bit."""
    random = np.random.default_rng(7)
    spread = random.standard_normal((4, 128)) * 2.0 ** random.integers(-20, 20, (4, 4)).repeat(32, 1)
    tame = random.uniform(-3.3, 3.3, (2, 64))
    spread[0, 5] = np.exp2(np.ceil(np.log2(np.abs(spread[0, :32]).max())))  # an amax that is a power of two
    holed = spread.copy()
    holed[1, 32:64] = 0
    for what, x, fmt, name in (
        ("one size", tame, E4M3, "mxfp8_e4m3"), ("blocks of many sizes", spread, E4M3, "mxfp8_e4m3"),
        ("blocks of many sizes", spread, FP4, "mxfp4"), ("blocks of many sizes", spread, FP6, "mxfp6_e2m3"),
        ("one size", tame, E5M2, "mxfp8_e5m2"), ("a block of zeros", holed, E4M3, "mxfp8_e4m3"),
    ):  # fmt: skip
        want = mp.formats.quantize(x, name).dequantize(np.float64)
        with np.errstate(all="ignore"):
            got = np.asarray(lab.mx_quantise(x.copy(), fmt), np.float64)
        assert got.shape == x.shape, f"mx_quantise: expected the shape {x.shape}, got {got.shape}; x's own"
        if not np.array_equal(got, want):
            at = tuple(np.argwhere(~(got == want))[0])
            raise AssertionError(
                f"mx_quantise of {what} to {fmt.name}: {float(x[at])!r} at {tuple(map(int, at))}: expected "
                f"{float(want[at])!r}, got {float(got[at])!r}; {_hint_3b(x, fmt, got)}"
            )


def _power_below(x: Any) -> Any:
    return np.where(x > 0, np.ldexp(1.0, np.frexp(x)[1] - 1), 0.0)


def _hint_3b(x: Any, fmt: Any, got: Any) -> str:
    blocks = x.reshape(len(x), -1, 32)
    amax = np.abs(blocks).max(2, keepdims=True)
    power = np.ldexp(1.0, np.frexp(amax)[1] - 1 - fmt.emax)
    row = np.abs(x).max(1, keepdims=True)
    if not np.all(np.isfinite(got)):
        lost = np.any(~np.isfinite(got.reshape(blocks.shape)), 2, keepdims=True)
        return (
            "a block of zeros has no logarithm: it stays zero" if np.any(lost & (amax == 0))
            else "what is too large takes the largest number: overflow='saturate'"
        )  # fmt: skip
    for hint, other in (
        ("round the exponent down: that of the power of two at or below amax", _scaled_by(blocks, fmt, 2 * power)),
        ("the scale is a power of two, held in one byte of exponent", _scaled_by(blocks, fmt, amax / fmt.max)),
        ("the logarithm is that of amax alone: fmt.max is no power of two, fmt.emax takes its place",
         _scaled_by(blocks, fmt, _power_below(amax / fmt.max))),
        ("there the largest number lands below 2: fmt.emax brings it to the top of the format",
         _scaled_by(blocks, fmt, power * 2.0**fmt.emax)),
    ):  # fmt: skip
        if np.array_equal(got, other.reshape(x.shape)):
            return hint
    whole = (row, np.abs(x).max(keepdims=True), np.abs(x).max(0, keepdims=True))
    if any(
        np.array_equal(got, _scaled_by(x, fmt, np.ldexp(1.0, np.frexp(each)[1] - 1 - fmt.emax)))
        for each in whole
    ):
        return "each 32 numbers along a row have a scale of their own"
    return "floor(log2(amax)) of each 32 numbers along a row, less fmt.emax"


@exercise("4a", points=3, hints=("the first scale is 1.0; step t looks at amaxes[max(0, t - length):t]",
                                 "fmt.max / 2.0**margin / max(...)"))  # fmt: skip
def check_4a(lab: Any) -> None:
    """The state that minimp's layers keep for delayed scaling, step by step."""
    random = np.random.default_rng(8)
    drawn = np.exp2(random.uniform(-4, 4, 12)).tolist()
    for amaxes, length, margin, fmt in (
        ([2.0, 4.0], 4, 0, E4M3), ([4.0, 2.0, 1.0, 8.0], 8, 0, E4M3), ([8.0, 1.0, 2.0, 1.0, 0.5, 1.0], 2, 0, E4M3),
        (drawn, 3, 0, E5M2), ([2.0, 4.0, 1.0], 4, 3, E4M3), (drawn, 1024, 1, E4M3), (drawn, 1, 0, E5M2),
        ([7.0], 4, 0, E4M3),
    ):  # fmt: skip
        want = _library_scales(amaxes, length, margin, fmt)
        given = {} if fmt is E4M3 else {"fmt": fmt}
        got = [float(each) for each in lab.delayed_scales(list(amaxes), length, margin, **given)]
        shown = [round(each, 4) for each in amaxes[:6]]
        what = f"delayed_scales({shown}{'...' if len(amaxes) > 6 else ''}, {length}, {margin})"
        assert len(got) == len(want), (
            f"{what}: expected {len(want)} scales, got {len(got)}; one for each step"
        )
        for step, (mine, theirs) in enumerate(zip(got, want, strict=True)):
            assert math.isclose(mine, theirs, rel_tol=1e-6), (
                f"{what}: expected {theirs:g} in step {step}, got {mine:g}; "
                f"{_hint_4a(amaxes, step, length, margin, fmt, mine)}"
            )


def _library_scales(amaxes: Any, length: int, margin: int, fmt: Any) -> list[float]:
    recipe = mp.fp8.DelayedScaling(margin=margin, amax_history_len=length)
    state = mp.fp8.TensorState(np.zeros(length, np.float32))
    scales = []
    for amax in amaxes:
        scales.append(state.scale)
        state.stage(amax)
        state.advance(recipe, fmt.max)
    return scales


def _hint_4a(amaxes: Any, step: int, length: int, margin: int, fmt: Any, got: float) -> str:
    def is_of(found: Any, power: int = margin) -> bool:
        return bool(found) and math.isclose(got, fmt.max / 2.0**power / max(found), rel_tol=1e-6)

    if step == 0:
        return "the first step knows no amax: its scale is 1"
    before, begin = amaxes[:step], max(0, step - length)
    right = fmt.max / 2.0**margin / max(amaxes[begin:step])
    for applies, hint in (
        (margin and is_of(amaxes[begin:step], -margin), "a margin makes the scale smaller"),
        (margin and is_of(amaxes[begin:step], 0), "leave the margin free"),
        (step > length and is_of(before), "older steps than the history is long are forgotten"),
        (is_of(amaxes[step - 1 : step]), "the largest of the history, not the most recent"),
        (is_of(amaxes[begin : step + 1]) or is_of(amaxes[max(0, begin + 1) : step + 1]),
         "a step does not know its own amax yet"),
        (fmt is not E4M3 and math.isclose(got * fmt.max / E4M3.max, right, rel_tol=1e-6), "fmt.max, not E4M3's"),
        (math.isclose(got * right, 1, rel_tol=1e-6), "the inverse: numbers are multiplied by the scale"),
    ):  # fmt: skip
        if applies:
            return hint
    return "fmt.max over 2**margin over the largest of the steps before"


@exercise("5a", points=3, hints=(
    "begin with all three at 1 and print what train_with(my_scales, 20)[1] counted",
    "flushed: a larger scale; saturated: a smaller one; gradients need 2**14 at least",
))  # fmt: skip
def check_5a(lab: Any) -> None:
    """What minimp counts in 20 steps of training, from two other seeds."""
    scales = lab.my_scales
    assert isinstance(scales, mp.fp8.FixedScaling), (
        f"my_scales: expected an mp.fp8.FixedScaling, got {scales!r}; three scales that do not move"
    )
    assert scales.fp8_format == "HYBRID", (
        f"my_scales: expected fp8_format 'HYBRID', got {scales.fp8_format!r}; gradients in E5M2"
    )
    for role in mp.fp8.ROLES:
        scale = getattr(scales, role)
        assert math.frexp(scale)[0] == 0.5, (
            f"my_scales: expected a power of two for {role}, got {scale!r}; then scaling itself rounds nothing"
        )
    for seed in (11, 12):
        seen = _counted(scales, seed)
        for role in ("input", "weight", "grad"):  # gradients depend on what forward lost
            flushed, saturated, scale = seen[role].flushed_share, seen[role].saturated, getattr(scales, role)
            assert saturated == 0, (
                f"my_scales: expected no saturated number among those of {role}, got {saturated} at a scale of "
                f"{scale:g}; they are multiplied by it, so it is too large"
            )
            assert flushed < 1e-3, (
                f"my_scales: expected less than 0.1 % of {role} flushed, got {flushed:.2%} at a scale of {scale:g}; "
                + (f"{role} is multiplied by it: a scale below 1 makes it smaller" if scale < 1
                   else f"{role} needs a larger scale")
            )  # fmt: skip


def _counted(scales: Any, seed: int) -> Any:
    train = mp.data.digits("train").inputs
    mp.manual_seed(seed)
    layers = [
        layer for before, after in pairwise((64, 128, 16, 128, 64))
        for layer in (mp.nn.Linear(before, after), mp.nn.ReLU())
    ]  # fmt: skip
    model = mp.nn.Sequential(*layers[:-1])
    recipe = mp.recipes["mixed-fp8"].with_(fp8=scales)
    optimizer = mp.optim.Adam(model.parameters(), lr=1e-3)
    step = mp.TrainStep(model, mp.functional.mse_loss, optimizer, recipe, micro_batches=16)
    with mp.fp8.watch(model) as seen:
        for rows in np.random.default_rng(seed).integers(0, len(train), (20, 256)):
            step(train[rows], train[rows])
    return seen
