"""Error reports: each number against its definition, and the text."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minimp import formats
from minimp.errors import DataError, FormatError, SettingError, ShapeError
from minimp.formats.blocks import grid as block_grid
from minimp.formats.blocks.arrays import quantize
from minimp.formats.blocks.report import BlockReport, block_report, compare_blocks
from minimp.formats.blocks.table import BLOCK_FORMATS
from tests.tolerances import assert_close

ALL = (*BLOCK_FORMATS, "float16", "bfloat16", "float8_e4m3fn", "float4_e2m1fn", "int8")


HALF_THE_SMALLEST = Fraction(1, 2**1075)  # of float64: where a mean of tiny errors is rounded to


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    """Return float32 standard Gaussian numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def became(x: np.ndarray, fmt: str) -> np.ndarray:
    """What x becomes in a format, in float64."""
    if fmt in BLOCK_FORMATS:
        return quantize(x, fmt).dequantize(np.float64).astype(np.float64)
    return formats.round(x, fmt, overflow="saturate").astype(np.float64)


@pytest.mark.parametrize("fmt", ALL)
@given(
    x=hnp.arrays(np.float64, (3, 21), elements=st.floats(-1e6, 1e6, allow_subnormal=False) | st.just(0.0)),
    power=st.sampled_from([0, -30, 300, -400]),
)
def test_every_number_by_its_definition(fmt: str, x: np.ndarray, power: int) -> None:
    """Oracle: the definitions in fractions, number by number."""
    x = np.ldexp(x, power)
    q = became(x, fmt)
    report = block_report(x, fmt)
    pairs = [(Fraction(float(a)), Fraction(float(b))) for a, b in zip(x.flat, q.flat, strict=True)]
    errors = [b - a for a, b in pairs]
    signal, noise = sum(a * a for a, _ in pairs), sum(each * each for each in errors)
    if noise < signal * Fraction(10) ** -250:  # float64 need not hold it
        assert report.sqnr_db > 2500
    elif signal:
        assert_close(10 ** (report.sqnr_db / 10), float(signal / noise), "fp64_same_maths")
    assert_close(report.max_abs_error, float(max(abs(each) for each in errors)), "fp64_same_maths")
    relative = [abs(each / a) for each, (a, _) in zip(errors, pairs, strict=True) if a]
    assert_close(report.max_rel_error, float(max(relative, default=0)), "fp64_same_maths")
    largest = max(abs(each) for each in errors)
    assert abs(Fraction(report.bias) - sum(errors) / 63) <= largest / 10**12 + HALF_THE_SMALLEST
    assert report.flushed == sum(a != 0 and b == 0 for a, b in pairs) / 63
    assert (report.count, report.lost) == (63, 0)


def test_shares() -> None:
    """Oracle: by hand, mxfp8_e4m3 under the scale 2: max 896, smallest 2^-8, half an ulp of max 32."""
    x = np.zeros(64)
    x[:7] = [957, -960, 928, 929, 2.0**-9, 2.0**-9 * 1.01, -1e-9]
    x[32] = 1e-45  # the scale would be 2^-158
    report = block_report(x, "mxfp8_e4m3")
    assert report.saturated == 3 / 64  # 928 is half an ulp beyond 896: rounding alone may bring it there
    assert report.flushed == 3 / 64
    assert report.scale_clamped == 1 / 2
    assert report.max_abs_error == 64
    assert report.worst is not None
    assert (report.worst.index, report.worst.amax) == ((0,), 960)
    noise = 61**2 + 64**2 + 32**2 + 33**2 + 2.0**-18 + (2.0**-8 - 2.0**-9 * 1.01) ** 2 + 1e-18
    assert_close(report.worst.rms_error, math.sqrt(noise / 32), "fp64_same_maths")
    assert_close(report.bias, (-61 + 64 - 32 - 33) / 64, "parity_op_fp32")


def test_the_last_block_has_fewer_numbers() -> None:
    """Oracle: by hand: an error of 61 in a block of 3 numbers that are there, and 5 bits of 8.25 unused."""
    x = np.zeros((2, 35))
    x[1, 33] = 957
    report = block_report(x, "mxfp8_e4m3")
    assert report.worst is not None
    assert report.worst.index == (1, 1)
    assert_close(report.worst.rms_error, 61 / math.sqrt(3), "fp64_same_maths")
    assert report.bits_per_value == 4 * 33 * 8 / 70


def test_lost_blocks_do_not_count() -> None:
    """Oracle: the report of the other blocks alone."""
    x = gaussian(4, 64)
    alone = block_report(x[1:], "mxfp4")
    x[0, 5], x[0, 40] = np.nan, np.inf
    report = block_report(x, "mxfp4")
    assert report.lost == 1 / 4
    assert report.sqnr_db == alone.sqnr_db
    assert report.max_abs_error == alone.max_abs_error
    assert report.saturated == alone.saturated * 3 / 4
    nothing = block_report(np.full(32, np.nan), "mxfp4")
    assert nothing.lost == 1
    assert math.isnan(nothing.sqnr_db)
    plain = block_report(np.array([np.inf, 1.0, np.nan, 3.3]), "float16")
    assert plain.lost == 1 / 2
    assert plain.max_abs_error == abs(float(np.float16(3.3)) - 3.3)


def test_vanished_nvfp4_blocks_are_flushed_not_saturated() -> None:
    """Oracle: by hand: a block 2^-20 of the largest has an e4m3 scale of 0."""
    x = np.zeros((2, 16))
    x[0, 0], x[1] = 2688, 2.0**-10
    report = block_report(x, "nvfp4")
    assert report.flushed == 1 / 2
    assert report.saturated == 0
    assert report.scale_clamped == 1 / 2


def test_deepgemms_floor_counts_as_clamped() -> None:
    """Oracle: by hand: amax 1e-6 is taken as 1e-4."""
    x = np.full((2, 128), 1e-6)
    x[0] = 1.0
    assert block_report(x, "deepseek_1x128").scale_clamped == 1 / 2
    assert block_report(np.zeros(128), "deepseek_1x128").scale_clamped == 0


@pytest.mark.parametrize("fmt", ["mxint8", "deepseek_128x128", "nvfp4"])
def test_tiles_and_quantised_arrays_give_the_same(fmt: str) -> None:
    """Oracle: the report made in one piece; integers and order of summation aside, for any tiling."""
    x = gaussian(150, 200)
    whole = block_report(x, fmt)
    assert block_report(x, quantize(x, fmt)) == whole
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_grid, "_TILE", 1000)
        pieces = block_report(x, fmt)
    for name in ("max_abs_error", "max_rel_error", "saturated", "flushed", "scale_clamped", "count"):
        assert getattr(pieces, name) == getattr(whole, name)
    assert_close(pieces.sqnr_db, whole.sqnr_db, "fp64_same_maths")
    assert pieces.worst is not None
    assert whole.worst is not None
    assert pieces.worst.index == whole.worst.index


@pytest.mark.parametrize(
    ("fmt", "precision"),
    [("mxfp8_e4m3", 4), ("mxfp8_e5m2", 3), ("mxfp6_e3m2", 3), ("bfloat16", 8), ("float16", 11)],
)
def test_gaussian_noise_of_floating_point(fmt: str, precision: int) -> None:
    """Oracle: Widrow and Kollár 2008, "Quantization Noise", 12: noise = 0.180 · 2^-2p of the signal."""
    rule = "rceil" if fmt.startswith("mx") else None  # nothing is clamped
    report = block_report(gaussian(1 << 10, 256, seed=1), fmt, scale_rule=rule)
    assert_close(report.sqnr_db, 20 * precision * math.log10(2) - 10 * math.log10(0.180), "sqnr_model")


def test_gaussian_noise_of_mxint8() -> None:
    """Oracle: a uniform step d makes noise d^2 / 12 (Bennett 1948), d = scale / 64."""
    x = gaussian(1 << 10, 256, seed=2)
    q = quantize(x, "mxint8", scale_rule="rceil")
    step = q.scales / 64
    signal = float(np.mean(x.astype(np.float64) ** 2))
    expected = 10 * math.log10(signal / float(np.mean(step**2) / 12))
    assert_close(block_report(x, q).sqnr_db, expected, "sqnr_model")


def test_more_bits_are_better() -> None:
    """Oracle: the order of published comparisons: int8 > e4m3 > e5m2 > nvfp4 > mxfp4 > plain e2m1."""
    order = ["mxint8", "mxfp8_e4m3", "mxfp8_e5m2", "nvfp4", "mxfp4", "float4_e2m1fn"]
    reports = compare_blocks(gaussian(64, 256, seed=3), order).reports
    assert [each.format for each in reports] == order
    numbers = [each.sqnr_db for each in reports]
    assert numbers == sorted(numbers, reverse=True)


def test_the_text() -> None:
    """Oracle: at most 100 columns, every number's meaning, one line a format."""
    x = gaussian(8, 256)
    x[0, 0] = 1e30
    report = block_report(x, "nvfp4")
    lines = str(report).splitlines()
    assert lines[0] == "nvfp4, scales by amax: 2048 numbers"
    for word in ("SQNR", "largest error", "bias", "saturated", "flushed", "scale clamped", "lost", "worst"):
        assert any(line.strip().startswith(word) for line in lines)
    table = compare_blocks(x, [*ALL[:8], ("mxfp4", "rceil"), "float16"])
    rows = str(table).splitlines()
    assert len(rows) == 1 + 10 + 1 + 4
    assert rows[9].startswith("mxfp4 rceil ")
    assert all(len(line) <= 100 for line in (*lines, *rows))
    assert len({len(row) for row in rows[:11]}) == 1


def test_settings_reach_the_quantisation() -> None:
    """Oracle: the report of the array quantised with the same settings."""
    x = gaussian(64, 40)
    asked = {"axis": 0, "scale_rule": "ceil", "rounding": "stochastic", "rng": 5}
    assert block_report(x, "mxfp4", **asked) == block_report(x, quantize(x, "mxfp4", **asked))
    assert compare_blocks(x, ["mxfp4", "float16"], axis=0).reports[0] == block_report(x, "mxfp4", axis=0)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: block_report([1.0], "mxfp9"),
        FormatError,
        "unknown block or number format 'mxfp9'; did you mean",
    ),
    (lambda: block_report([], "mxfp8"), DataError, "at least one number"),
    (lambda: block_report([1.0], "float16", axis=0), SettingError, "float16, which has no blocks"),
    (lambda: block_report([1.0], "float16", scale_rule="floor"), SettingError, "no blocks"),
    (lambda: block_report([1.0], quantize([1.0], "mxfp8"), axis=0), SettingError, "quantised already"),
    (lambda: block_report([1.0], quantize([1.0], "mxfp8"), rng=0), SettingError, "quantised already"),
    (lambda: block_report([1.0, 2.0], quantize([1.0], "mxfp8")), ShapeError, r"shape \(1,\), got \(2,\)"),
    (lambda: compare_blocks([1.0], [("mxfp4", "flor")]), SettingError, "did you mean 'floor'"),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    """Oracle: the error of the tree, and the words that say what was expected and what came."""
    with pytest.raises(error, match=words):
        call()


def test_a_report_is_data() -> None:
    """Oracle: a frozen record, equal to another of the same array."""
    x = gaussian(2, 64)
    report = block_report(x, "mxfp8")
    assert isinstance(report, BlockReport)
    assert report == block_report(x.copy(), "mxfp8")
    with pytest.raises(AttributeError):
        report.sqnr_db = 0.0  # type: ignore[misc]
