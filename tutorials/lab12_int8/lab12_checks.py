"""Checks of lab 12; oracles: minimp's affine numbers, whole numbers of Python, converted networks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

quant = mp.quant
UINT8, INT8 = (0, 255), (-128, 127)


@exercise("1a", points=2, hints=(
    "low = min(low, 0.0), high = max(high, 0.0); there are quant_max - quant_min steps, not codes",
    "low has the code quant_min, and 0 lies -low / scale steps above it",
))  # fmt: skip
def check_1a(lab: Any) -> None:
    """minimp's numbers under the rule of ONNX, which are these in float64."""
    for low, high, codes in (
        (-1.0, 3.0, INT8), (-1.0, 3.0, UINT8), (-0.7, 2.0, UINT8), (0.0, 6.0, UINT8), (0.0, 6.0, INT8),
        (-4.0, 0.0, INT8), (2.0, 3.0, UINT8), (-3.0, -2.0, INT8), (-1e-6, 2e-6, INT8), (-1.0, 2.0, (0, 15)),
        (-1.0, 1.06, INT8), (0.0, 0.0, INT8), (0.0, 0.0, UINT8),
    ):  # fmt: skip
        numbers = quant.choose(low, high, rule="onnx", quant_min=codes[0], quant_max=codes[1])
        want = float(numbers.scale), int(numbers.zero_point)
        what = f"affine({low:g}, {high:g}, {codes[0]}, {codes[1]})"
        try:
            with np.errstate(all="ignore"):
                got = lab.affine(low, high, *codes)
        except ZeroDivisionError:
            raise AssertionError(f"{what}: expected (1.0, 0), got a division by zero") from None
        is_pair = isinstance(got, tuple | list) and len(got) == 2
        assert is_pair, f"{what}: expected (scale, zero_point), got {got!r}"
        scale, zero = got
        assert math.isclose(scale, want[0], rel_tol=1e-6), (
            f"{what}: expected the scale {want[0]:.6g}, got {scale:.6g}; {_hint_1a(low, high, codes, scale)}"
        )
        assert zero == want[1], (
            f"{what}: expected the zero point {want[1]}, got {zero}; {_zero_1a(low, codes, scale, zero)}"
        )


def _hint_1a(low: float, high: float, codes: tuple[int, int], got: float) -> str:
    steps = codes[1] - codes[0]
    for other, hint in (
        ((high - low) / steps, "the range is to contain 0: widen it first"),
        ((max(high, 0) - min(low, 0)) / (steps + 1), f"there are {steps + 1} codes, and {steps} steps between"),
        (2 * max(abs(low), abs(high)) / steps, "that is a symmetric range; this one goes from low to high"),
        (max(abs(low), abs(high)) / 127, "that is a symmetric range; this one goes from low to high"),
    ):  # fmt: skip
        if math.isclose(got, other, rel_tol=1e-6):
            return hint
    return "the width of the range, widened to contain 0, over the steps from the first code to the last"


def _zero_1a(low: float, codes: tuple[int, int], scale: float, got: Any) -> str:
    exact = codes[0] - min(low, 0.0) / scale
    for applies, hint in (
        (got != round(got), "a zero point is a code, and a whole number"),
        (low > 0 or not codes[0] <= got <= codes[1], "0 must have a code: widen the range first"),
        (got == round(-min(low, 0.0) / scale), "codes begin at quant_min, not at 0"),
        (got == round(codes[0] + min(low, 0.0) / scale), "0 lies above low: -low / scale steps above quant_min"),
        (got == math.floor(exact), "round to the nearest whole number; int() cuts off"),
        (got == math.ceil(exact), "round to the nearest whole number; int() cuts off"),
    ):  # fmt: skip
        if applies:
            return hint
    return "low has the code quant_min, and 0 lies -low / scale steps above it"


@exercise("1b", points=2, hints=(
    "np.rint(x / scale) + zero_point, np.clip of that, .astype(np.int32)",
    "clamp the codes after the zero point was added, and before the type becomes integer",
))  # fmt: skip
def check_1b(lab: Any) -> None:
    """minimp's codes, away from ties."""
    random = np.random.default_rng(3)
    for scale, zero, codes, size in (
        (0.02, 3, INT8, 1.0), (0.02, 130, UINT8, 1.0), (0.5, 0, INT8, 20.0), (0.1, 200, UINT8, 50.0),
        (0.25, 5, (0, 15), 2.0), (1e-3, -128, INT8, 1.0),
    ):  # fmt: skip
        x = random.standard_normal((4, 16)) * size
        x = x[(np.abs(x / scale - np.floor(x / scale) - 0.5) > 1e-3)]
        numbers = quant.Affine(np.float32(scale), np.int32(zero), *codes, rule="onnx")
        want = quant.quantize(x.astype(np.float32), numbers).astype(np.int64)
        got = np.asarray(lab.quantise(x.copy(), scale, zero, *codes))
        what = f"quantise(x, {scale}, {zero}, {codes[0]}, {codes[1]})"
        assert got.dtype.kind in "iu", f"{what}: expected integers, got {got.dtype}; codes are whole numbers"
        assert got.shape == x.shape, f"{what}: expected the shape {x.shape}, got {got.shape}"
        if not np.array_equal(got, want):
            at = int(np.argmax(got != want))
            raise AssertionError(
                f"{what} of {x[at]:.4f}: expected {want[at]}, got {got[at]}; {_hint_1b(x, scale, zero, codes, got)}"
            )


def _hint_1b(x: Any, scale: float, zero: int, codes: tuple[int, int], got: Any) -> str:
    ratio = x / scale
    for other, hint in (
        (np.clip(np.trunc(ratio) + zero, *codes), "round to the nearest: a cast to integer cuts off"),
        (np.clip(np.trunc(ratio + zero), *codes), "round to the nearest: a cast to integer cuts off"),
        (np.clip(np.floor(ratio) + zero, *codes), "round to the nearest: // rounds down"),
        (np.clip(np.rint(ratio), *codes) + zero, "clamp after the zero point was added"),
        (np.clip(np.rint(ratio) - zero, *codes), "x = s (q - z), so q = x / s + z"),
        (np.clip(np.rint(ratio), *codes), "the zero point is missing"),
        (np.rint(ratio) + zero, "clamp to the codes"),
        (np.clip(np.rint(x * scale) + zero, *codes), "divide by the scale"),
    ):  # fmt: skip
        if np.array_equal(got, other):
            return hint
    if np.array_equal(np.asarray(got, np.int64) % 256, (np.rint(ratio) + zero).astype(np.int64) % 256):
        return "codes wrapped around: clamp before the type becomes narrow"
    return "rint(x / scale) + zero_point, clamped"


@exercise("1c", points=2, hints=(
    "the last code stands for scale * (quant_max - zero_point), and the first for its like",
    "np.maximum of scale / 2 and of what x lies beyond either",
))  # fmt: skip
def check_1c(lab: Any) -> None:
    """The distance to the first and the last number; what minimp reads back never errs by more."""
    for scale, zero, codes in ((0.1, 3, INT8), (0.1, 130, UINT8), (0.18, 4, (0, 15)), (2.0, 0, INT8)):
        first, last = scale * (codes[0] - zero), scale * (codes[1] - zero)
        width = last - first
        x = np.linspace(first - width / 2, last + width / 2, 999)
        x = np.concatenate([x, [first - 0.3 * scale, last + 0.3 * scale]])
        want = np.maximum(scale / 2, np.maximum(first - x, x - last))
        read = quant.fake_quantize(x, quant.Affine(np.float32(scale), np.int32(zero), *codes))
        assert np.all(np.abs(x - read) <= want + 1e-4 * scale)
        got = np.asarray(lab.largest_error(x.copy(), scale, zero, *codes), np.float64)
        what = f"largest_error(x, {scale}, {zero}, {codes[0]}, {codes[1]})"
        assert got.shape == x.shape, (
            f"{what}: expected the shape {x.shape}, got {got.shape}; one for each number"
        )
        off = ~np.isclose(got, want, rtol=1e-6)
        if off.any():
            at = int(np.argmax(off))
            raise AssertionError(
                f"{what} of {x[at]:.3f} (the codes reach from {first:.3f} to {last:.3f}): expected {want[at]:.4f}, "
                f"got {got[at]:.4f}; {_hint_1c(x, scale, zero, codes, got)}"
            )


def _hint_1c(x: Any, scale: float, zero: int, codes: tuple[int, int], got: Any) -> str:
    first, last = scale * (codes[0] - zero), scale * (codes[1] - zero)
    beyond = np.maximum(first - x, x - last)
    without = np.maximum(scale * codes[0] - x, x - scale * codes[1])
    for other, hint in (
        (np.full_like(x, scale / 2), "beyond the last code the error grows with the number: clipping"),
        (np.maximum(scale, beyond), "the nearest code is half a step away at most, not a step"),
        (np.maximum(scale / 2, without), "the zero point moves both ends: scale * (quant_max - zero_point)"),
        (np.maximum(scale / 2, x - last), "there are two ends"),
        (np.where(beyond > 0, beyond, scale / 2), "just beyond the end: half a step, if the distance is less"),
        (np.maximum(beyond, 0), "inside, a number is rounded: by half a step at most"),
        (scale / 2 + np.maximum(beyond, 0), "a clipped number is not rounded as well: its error is the distance"),
    ):  # fmt: skip
        if np.allclose(got, other, rtol=1e-6):
            return hint
    if np.all(got <= np.maximum(scale / 2, beyond) * (1 + 1e-6)):
        return "that is no bound: inside the range, a number may lie half a step from its code"
    return "half a step, or the distance beyond the first or the last number if that is more"


@exercise("2a", points=3, hints=(
    "row_sums belong to activations: row_sums[:, None]; each is multiplied by the weights' zero point",
    "raw - zero_w * rows - zero_x * columns + depth * zero_x * zero_w",
))  # fmt: skip
def check_2a(lab: Any) -> None:
    """Products of Python's whole numbers, the zero points subtracted first."""
    random = np.random.default_rng(5)
    for rows, depth, columns, zero_x, zero_w in (
        (6, 40, 6, 0, 0), (6, 40, 6, 12, 0), (6, 40, 6, 0, -7), (6, 40, 6, 12, -7), (3, 100, 5, 130, 9),
        (1, 7, 4, 255, -128), (5, 2000, 1, 77, 3),
    ):  # fmt: skip
        q, p = random.integers(0, 256, (rows, depth)), random.integers(-128, 128, (depth, columns))
        q, p = q.astype(np.int32), p.astype(np.int32)
        want = (q.astype(object) - zero_x) @ (p.astype(object) - zero_w)
        given = (q @ p, q.sum(1, dtype=np.int32), p.sum(0, dtype=np.int32), depth, zero_x, zero_w)
        what = f"corrected of ({rows}, {depth}) and ({depth}, {columns}) with zero points {zero_x}, {zero_w}"
        got = np.asarray(lab.corrected(*(np.array(each) if np.ndim(each) else each for each in given)))
        assert got.shape == want.shape, f"{what}: expected the shape {want.shape}, got {got.shape}"
        if not np.array_equal(got, want.astype(np.int64)):
            at = tuple(int(i) for i in np.argwhere(got != want)[0])
            raise AssertionError(
                f"{what}: expected {want[at]} at {at}, got {got[at]}; {_hint_2a(*given, got)}"
            )


def _hint_2a(raw: Any, rows: Any, columns: Any, depth: int, zx: int, zw: int, got: Any) -> str:
    r, c, k = rows[:, None], columns[None, :], depth * zx * zw
    for other, hint in (
        (raw - zw * r - zx * c, "the product of both zero points was taken off twice: add depth * zero_x * zero_w"),
        (raw - zw * r - zx * c + zx * zw, "the last term stands in each of the depth products"),
        (raw - zw * r - zx * c - k, "the last term has a plus: minus times minus"),
        (raw - zx * r - zw * c + k, "the sums of activations are multiplied by the weights' zero point"),
        (raw + zw * r + zx * c + k, "both sums are taken off"),
        (raw, "raw is only the first of four terms"),
    ):  # fmt: skip
        if np.array_equal(got, other):
            return hint
    if len(rows) == len(columns) and np.array_equal(got, raw - zw * rows[None] - zx * columns[:, None] + k):
        return "row sums belong to rows: row_sums[:, None]"
    if len(rows) == len(columns) and np.array_equal(got, raw - zw * rows[None] - zx * columns + k):
        return "row sums belong to rows: row_sums[:, None]"
    return "multiply out (q - z_x)(p - z_w)"


@exercise("3a", points=3, hints=(
    "half of 2**(31 + n) is 1 << (30 + n); add it before the shift",
    "np.asarray(sums, np.int64) * m0: the product has 62 bits",
))  # fmt: skip
def check_3a(lab: Any) -> None:
    """Python's whole numbers, which have no end."""
    random = np.random.default_rng(6)
    least = 1 << 30
    for what, numbers, m0, n, zero, codes in (
        ("halves", np.array([1, 3, 5, -1, -3]), least, 0, 0, INT8),
        ("small sums", np.array([2, 3, -2, -3, 7, -7]), 1_431_655_765, 0, 0, INT8),
        ("small sums", np.arange(-200, 200), 2_000_000_001, 4, 0, INT8),
        ("sums of a layer", random.integers(-50_000, 50_000, (8, 10)), 1_319_413_953, 8, 10, INT8),
        ("sums of a layer", random.integers(-50_000, 50_000, (8, 10)), 2_000_000_001, 8, 100, UINT8),
        ("sums of 2^30", np.array([2**30 - 1, 2**30]), least + 1, 30, 0, INT8),
        ("sums of 2^30", random.integers(-(2**31), 2**31 - 1, 40), 1_999_999_999, 25, 3, UINT8),
    ):  # fmt: skip
        sums = numbers.astype(np.int32)
        exact = [int(each) * m0 for each in sums.ravel()]
        rounded = [(each + (1 << (30 + n))) >> (31 + n) for each in exact]
        want = np.clip(np.array(rounded) + zero, *codes).reshape(sums.shape)
        with np.errstate(all="ignore"):
            got = np.asarray(lab.requantise(sums.copy(), m0, n, zero, *codes))
        called = f"requantise of {what}, {m0}, {n}, {zero}, {codes[0]}, {codes[1]}"
        assert got.dtype.kind in "iu", f"{called}: expected integers, got {got.dtype}; no float is needed"
        assert got.shape == sums.shape, f"{called}: expected the shape {sums.shape}, got {got.shape}"
        if not np.array_equal(got, want):
            at = tuple(int(i) for i in np.argwhere(got != want)[0])
            times = int(sums[at]) * m0 / 2 ** (31 + n)
            raise AssertionError(
                f"{called}: the sum {sums[at]} times M is {times:.6g}; expected the code {want[at]}, got {got[at]}; "
                f"{_hint_3a(sums, m0, n, zero, codes, got)}"
            )


def _hint_3a(sums: Any, m0: int, n: int, zero: int, codes: tuple[int, int], got: Any) -> str:
    wide, shift = sums.astype(np.int64) * m0, 31 + n
    floats = wide.astype(np.float64) / 2.0**shift
    twice = ((wide + (1 << 30)) >> 31) + ((1 << n) >> 1) >> n
    for other, hint in (
        (wide >> shift, "a shift rounds down: add half of 2**(31 + n) before"),
        (np.trunc(floats), "cutting off is not rounding: add half of 2**(31 + n) before the shift"),
        ((wide + (1 << (shift - 1))) >> (31 - n) if n < 31 else wide, "n shifts further to the right: 31 + n"),
        (wide >> (31 - n) if n < 31 else wide, "n shifts further to the right: 31 + n"),
        (np.floor(floats + 0.5), "float64 has 53 bits, and the product 62: whole numbers all the way"),
        (twice, "round once: add half of 2**(31 + n) before the one shift"),
        (np.rint(floats), "halves go upward here, and np.rint sends them to the even neighbour; no float is needed"),
        (np.copysign(np.floor(np.abs(floats) + 0.5), floats), "halves go upward, those of negative numbers, too"),
        (np.rint(sums * (m0 / 2.0**shift)),
         "halves go upward here, and np.rint sends them to the even neighbour; no float is needed"),
    ):  # fmt: skip
        if np.array_equal(got, np.clip(other + zero, *codes)):
            return hint
    narrow = sums * np.int32(m0 & 0x7FFFFFFF)
    for sum_of in (narrow.astype(np.int64) + (1 << (shift - 1)), narrow + np.int32(1 << 30)):
        if np.array_equal(got, np.clip((sum_of >> shift) + zero, *codes)):
            return "the product has 62 bits: multiply in int64"
    if np.any((got < codes[0]) | (got > codes[1])):
        return "clamp to the codes, after the zero point was added"
    return "(sums * m0 + half) >> (31 + n), then the zero point, then the clamp"


@exercise("4a", points=2, hints=(
    "for each clip np.mean((x - reading(x, clip, bits)) ** 2); min(clips, key=...)",
    "over all of x, those beyond the clip as well",
))  # fmt: skip
def check_4a(lab: Any) -> None:
    """Every clip tried, with minimp's codes."""
    random = np.random.default_rng(7)
    normal, heavy = random.standard_normal(4000), random.standard_t(3, 4000)
    wild = normal.copy()
    wild[9] = 60.0
    clips = [float(clip) for clip in np.geomspace(0.5, 64, 40)]
    for what, x, bits in (
        ("8 times normal numbers", 8 * normal, 3), ("normal numbers", normal, 4), ("normal numbers", normal, 8),
        ("one outlier of 60", wild, 8), ("one outlier of 60", wild, 4), ("heavy tails", heavy, 4),
    ):  # fmt: skip
        errors = {clip: _errors_of(x, clip, bits) for clip in clips}
        want = min(clips, key=lambda clip: np.mean(errors[clip] ** 2))
        got = float(
            lab.best_clip(x.copy(), list(clips), bits) if bits != 8 else lab.best_clip(x.copy(), clips)
        )
        assert got in errors, f"best_clip of {what}: expected one of the clips given, got {got!r}"
        assert got == want, (
            f"best_clip of {what} in {bits} bits: expected {want:.3g}, with a mean squared error of "
            f"{np.mean(errors[want] ** 2):.4g}, got {got:.3g}, with {np.mean(errors[got] ** 2):.4g}; "
            f"{_hint_4a(x, errors, got, bits)}"
        )


def _errors_of(x: Any, clip: float, bits: int) -> Any:
    most = 2 ** (bits - 1) - 1
    numbers = quant.choose(-clip, clip, rule="onnx", quant_min=-most, quant_max=most, symmetric=True)
    return np.abs(x - quant.fake_quantize(x, numbers))


def _hint_4a(x: Any, errors: Any, got: float, bits: int) -> str:
    for hint, key in (
        ("that is the least of the largest errors; the mean is asked for", lambda c: np.max(errors[c])),
        ("clipped numbers have errors, too, and large ones", lambda c: np.mean(errors[c][np.abs(x) <= c] ** 2)),
        ("that is the worst of all", lambda c: -np.mean(errors[c] ** 2)),
        ("squares are asked for; mean magnitudes care less for outliers", lambda c: np.mean(errors[c])),
        ("bits says how many codes there are: hand it on to reading", lambda c: np.mean(_errors_of(x, c, 8 if bits != 8 else 4) ** 2)),
    ):  # fmt: skip
        if got == min(errors, key=key):
            return hint
    if got >= np.abs(x).max():
        return "that is min-max, or wider: a smaller clip has smaller steps"
    return "the mean of the squares of x - reading(x, clip, bits), over all of x"


@exercise("5a", points=2, hints=(
    "np.abs(w).reshape(len(w), -1).max(axis=1) / 127",
    "np.where(largest > 0, largest / 127, 1.0)",
))  # fmt: skip
def check_5a(lab: Any) -> None:
    """minimp's observer of channels, with codes from -127 to 127."""
    random = np.random.default_rng(8)
    for shape in ((12, 12), (5, 9), (8, 4, 3, 3), (16, 1, 3, 3), (1, 7)):
        w = random.standard_normal(shape) * 2.0 ** random.integers(
            -4, 4, (shape[0],) + (1,) * (len(shape) - 1)
        )
        w = w.astype(np.float32)
        w[0].flat[0] = -40.0
        observer = quant.PerChannelMinMaxObserver(quant_min=-127, quant_max=127, symmetric=True)
        observer.observe(w)
        want = np.asarray(observer.affine().scale, np.float64)
        got = np.asarray(lab.channel_scales(w.copy()), np.float64)
        what = f"channel_scales of a weight of shape {shape}"
        assert got.shape == want.shape, (
            f"{what}: expected the shape {want.shape}, got {got.shape}; one scale for each output channel, the "
            "first axis, over all others"
        )
        if not np.allclose(got, want, rtol=1e-5):
            at = int(np.argmax(~np.isclose(got, want, rtol=1e-5)))
            raise AssertionError(
                f"{what}: expected {want[at]:.5g} for channel {at}, got {got[at]:.5g}; {_hint_5a(w, got, want)}"
            )
    w = np.array([[1.0, -2.0], [0.0, 0.0]], np.float32)
    with np.errstate(all="ignore"):
        got = np.asarray(lab.channel_scales(w), np.float64)
    assert np.allclose(got, [2 / 127, 1.0]), (
        f"channel_scales of [[1, -2], [0, 0]]: expected [{2 / 127:.5f}, 1.0], got {got.tolist()}; "
        "nothing can be divided by a scale of 0"
    )


def _hint_5a(w: Any, got: Any, want: Any) -> str:
    flat = w.reshape(len(w), -1)
    for applies, hint in (
        (np.allclose(got, flat.max(1) / 127, rtol=1e-5), "magnitudes: the largest may be negative"),
        (len(set(got.tolist())) == 1 and len(got) > 1, "each output channel has a scale of its own"),
        (flat.shape[0] == flat.shape[1] and np.allclose(got, np.abs(flat).max(0) / 127, rtol=1e-5),
         "those are the inputs: output channels are the first axis"),
        (np.allclose(got, want * 127 / 128, rtol=1e-5) or np.allclose(got, want * 127 / 127.5, rtol=1e-5),
         "the largest magnitude gets the code 127"),
        (np.allclose(got, (flat.max(1) - flat.min(1)) / 254, rtol=1e-3)
         or np.allclose(got, (flat.max(1) - flat.min(1)) / 255, rtol=1e-5),
         "a symmetric scale has the largest magnitude at 127, whatever lies on the other side"),
        (np.allclose(got * want, 1, rtol=1e-4) or np.allclose(got, want * 127**2, rtol=1e-4),
         "the scale is the size of a step: largest / 127"),
    ):  # fmt: skip
        if applies:
            return hint
    return "the largest magnitude of each output channel over 127"


@exercise("6a", points=3, hints=(
    "leave out rows whose without is None, and look for the largest row.without.metric",
    "max(rows, key=lambda row: row.without.metric).path",
))  # fmt: skip
def check_6a(lab: Any) -> None:
    """Each layer kept in floats in its turn, the network converted and its accuracy counted."""
    model, example, train, test = _network()
    for path, octaves, seed in (("0.0", 6, 0), ("6.0", 6, 2), ("3.0", 6, 1), ("0.0", 6, 3)):
        channels = len(model.get_submodule(path).weight.detach().numpy())
        factors = 2.0 ** np.random.default_rng(seed).integers(-octaves, octaves, channels, endpoint=True)
        hurt, _ = quant.rescale_channels(model, example, factors={path: factors})
        calibration = quant.calibrate(hurt, mp.data.DataLoader(train, 256))
        found = quant.sweep(hurt, calibration, mp.data.DataLoader(test, 256), weight=_one_scale)
        scores = {
            each: _accuracy(quant.convert(hurt, calibration, weight=_one_scale, keep_float=[each]), test)
            for each in ("0", "3", "6", "10")
        }
        got = lab.to_keep(found)
        what = f"to_keep, channels behind '{path[0]}' rescaled by up to 2^{octaves}"
        shown = repr(got) if isinstance(got, str | int | None) else f"a {type(got).__name__}"
        is_path = isinstance(got, str) and got in scores
        assert is_path, f"{what}: expected one of {list(scores)}, got {shown}; the path of a layer, a string"
        want = max(scores, key=lambda each: scores[each])
        assert scores[got] == scores[want], (
            f"{what}: expected '{want}', without which the rest has {scores[want]:.1f} %, got '{got}', with "
            f"{scores[got]:.1f} %; {_hint_6a(found, got)}"
        )
    got = lab.to_keep(replace(found, rows=tuple(_turned(row) for row in found)))
    assert got == want, (
        f"to_keep of a report that praises others in decibels: expected '{want}', got {got!r}; ask for the accuracy, "
        ".metric"
    )


def _turned(row: Any) -> Any:
    """Return a row whose decibels without it are the worse, the better they were."""
    return (
        row
        if row.without is None
        else replace(row, without=replace(row.without, sqnr_db=-row.without.sqnr_db))
    )


def _hint_6a(found: Any, got: str) -> str:
    rows = [row for row in found if row.without is not None]
    for hint, path in (
        ("that is the layer that looks worst alone, in decibels; ask for the accuracy of the rest, without it",
         min(rows, key=lambda row: row.both.sqnr_db).path),
        ("that layer has the worst accuracy alone; ask for that of the rest, without it",
         min(rows, key=lambda row: row.both.metric).path),
        ("'up to' includes all layers before; the column is 'without'",
         max(rows, key=lambda row: row.upto.metric).path),
        ("without this one the rest is worst", min(rows, key=lambda row: row.without.metric).path),
        ("'up to' includes all layers before; the column is 'without'",
         min(rows, key=lambda row: row.upto.metric).path),
        ("that is the layer that hurts least alone", max(rows, key=lambda row: row.both.metric).path),
    ):  # fmt: skip
        if got == path:
            return hint
    return "the largest row.without.metric"


def _one_scale() -> Any:
    return quant.MinMaxObserver(quant_min=-128, quant_max=127, symmetric=True)


def _accuracy(model: Any, test: Any) -> float:
    with mp.no_grad():
        return 100 * float(np.mean(model(mp.tensor(test.inputs)).numpy().argmax(1) == test.targets))


def _network() -> Any:
    """Return the lab's network, trained from another seed, an example, and the data."""
    train, test = mp.data.digits("train", shape="image"), mp.data.digits("test", shape="image")
    nn = mp.nn
    mp.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = mp.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(4):
        for x, y in mp.data.DataLoader(train, 64, shuffle=True, seed=epoch):
            optimizer.zero_grad()
            mp.functional.cross_entropy(model(mp.tensor(x)), mp.tensor(y)).backward()
            optimizer.step()
    example = mp.tensor(train.inputs[:4])
    return quant.fuse(model.eval(), example)[0], example, train, test
