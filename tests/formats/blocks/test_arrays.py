"""Block formats: scales, elements, what is defined at the edges, and where blocks lie."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.formats.blocks.arrays import quantize
from minimp.formats.blocks.table import BLOCK_FORMATS
from tests.formats.blocks.oracle import ELEMENTS, MX_RULES, mx_block, torchao_exponent

POWERS = tuple(name for name, fmt in BLOCK_FORMATS.items() if fmt.scale.mantissa_bits == 0)
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    """Return float32 Gaussian numbers of many magnitudes: each row has a scale of its own."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * 2.0 ** random.integers(-20, 20, (*shape[:-1], 1))
    return x.astype(np.float32)


@pytest.mark.parametrize("rule", MX_RULES)
@pytest.mark.parametrize("name", ELEMENTS)
@given(data=st.data())
def test_mx_blocks_in_fractions(name: str, rule: str, data: st.DataObject) -> None:
    """Oracle: the scale rules and MX 1.0, 6.3, in exact fractions, over the ranges of float32 and float64."""
    numbers = st.floats(allow_nan=False, allow_infinity=False) | FLOAT32 | st.floats(-1e3, 1e3)
    x = data.draw(st.lists(numbers, min_size=1, max_size=4))
    mode = data.draw(st.sampled_from(["nearest_even", "nearest_away", "toward_zero", "up", "down"]))
    wide = any(float(np.float32(min(max(each, -3e38), 3e38))) != each for each in x)
    array = np.array(x, np.float64 if wide else np.float32)
    q = quantize(array, name, scale_rule=rule, rounding=mode)
    code, values = mx_block(x, name, rule, mode)
    assert q.scale_codes.tolist() == [code]
    assert q.dequantize(np.float64).tolist() == values


@pytest.mark.parametrize("rule", MX_RULES)
@pytest.mark.parametrize("name", sorted(set(ELEMENTS) - {"mxint8"}))
def test_scales_are_torchaos(name: str, rule: str) -> None:
    """Oracle: torchao's float32 bit operations, on 200,000 patterns and each side of every threshold."""
    random = np.random.default_rng(7)
    amax = random.integers(0, 0x7F7FFFFF, 200_000, np.uint32).view(np.float32)
    edges = np.concatenate(
        [
            np.float32(each) * np.exp2(np.arange(-100.0, 90)).astype(np.float32)
            for each in (1, 1.75, 1.5, 1.875, 1.9375, 1.25, 2 - 2.0**-23, float(ELEMENTS[name][1]))
        ]
    )
    amax = np.concatenate(
        [amax, edges, np.nextafter(edges, np.float32(0)), np.nextafter(edges, np.float32(1e38))]
    )
    got = quantize(amax[:, None], name, scale_rule=rule).scale_codes[:, 0]
    expected = torchao_exponent(amax, name, rule)
    # torchao rounds amax / max to a float32 subnormal, and FLT_MAX up to a NaN scale: neither is copied.
    kept = (amax > 2.0**-126 * float(ELEMENTS[name][1])) & (amax < 2.0**127.99)
    assert np.array_equal(got[kept], expected[kept])
    assert kept.mean() > 0.9


@pytest.mark.parametrize("name", ELEMENTS)
def test_floor_is_gfloats(name: str) -> None:
    """Oracle: gfloat 0.5.2's quantize_block with compute_scale_amax; where it reads -2 in mxint8, -127/64."""
    from gfloat import block
    from gfloat import formats as gfloat_formats

    theirs = {each.name: each for each in gfloat_formats.all_block_formats}
    theirs["mxfp4"] = theirs["mxfp4_e2m1"]
    x = gaussian(12, 32, seed=5).astype(np.float64)
    x[3] = 0
    x[4] *= 2.0**-140  # the scale is clamped below
    got = quantize(x, name).dequantize(np.float64)
    for row, ours in zip(x, got, strict=True):
        expected = block.quantize_block(theirs[name], row, block.compute_scale_amax)
        if name == "mxint8":
            scale = block.compute_scale_amax(0, row)
            expected = np.where(expected == -2 * scale, -127 / 64 * scale, expected)
        assert np.array_equal(ours, expected)


@pytest.mark.parametrize(("rule", "expected"), [("floor", 896), ("even", 896), ("ceil", 960), ("rceil", 960)])
def test_the_published_957(rule: str, expected: float) -> None:
    """Oracle: microxcaling#4: 957 becomes 896 under the scale of MX 1.0; the others by hand."""
    x = np.array([957.0, 902.4, 960.0, 291.7882] + [0.0] * 28, np.float32)
    assert quantize(x, "mxfp8_e4m3", scale_rule=rule).dequantize()[0] == expected


def test_the_published_clamp_of_e5m2() -> None:
    """Oracle: torchao#436: amax 127.99999 has scale code 118, and becomes 57344 · 2^-9 = 112."""
    x = np.array([*range(1, 32), 127.99999], np.float32)
    q = quantize(x, "mxfp8_e5m2")
    assert q.scale_codes.tolist() == [118]
    assert q.dequantize()[-1] == 112.0
    assert q.dequantize()[:3].tolist() == [1, 2, 3]


def test_elements_are_ml_dtypes_casts() -> None:
    """Oracle: ml_dtypes' cast of x / scale, where nothing is clamped (rceil)."""
    x = gaussian(64, 96, seed=2)
    for name in ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4"):
        q = quantize(x, name, scale_rule="rceil")
        ratio = x / np.repeat(q.scales, 32, axis=1).astype(np.float32)
        assert np.array_equal(q.codes, ratio.astype(q.format.element.dtype).view(np.uint8)), name


def test_deepgemm() -> None:
    """Oracle: DeepGEMM's float32 formulas; codes of x · (1/sf) differ only beside a tie, and by one."""
    x = gaussian(200, 300, seed=3)
    x[5], x[6] = 0, 1e-6
    padded = np.pad(x, ((0, 56), (0, 84)))
    for name, view in (("deepseek_1x128", (256, 1, 3, 128)), ("deepseek_128x128", (2, 128, 3, 128))):
        amax = np.abs(padded.reshape(view)).max(axis=(1, 3)).clip(np.float32(1e-4))
        sf = amax / np.float32(448)
        q = quantize(x, name)
        assert np.array_equal(q.scales.astype(np.float32), sf[: q.scales.shape[0]])
        cast = (padded.reshape(view) * (1 / sf)[:, None, :, None]).astype(ml_dtypes.float8_e4m3fn)
        theirs = cast.reshape(padded.shape)[:200, :300].view(np.uint8)
        assert np.abs(theirs.astype(int) - q.codes).max() <= 1
        assert (theirs != q.codes).mean() < 1e-5
        bits = sf.view(np.int32)
        power = (((bits >> 23 & 0xFF) + (bits & 0x7FFFFF != 0)).clip(1, 254) << 23).view(np.float32)
        q = quantize(x, f"{name}_ue8m0")
        assert np.array_equal(q.scales.astype(np.float32), power[: q.scales.shape[0]])
        cast = (padded.reshape(view) / power[:, None, :, None]).astype(ml_dtypes.float8_e4m3fn)
        assert np.array_equal(cast.reshape(padded.shape)[:200, :300].view(np.uint8), q.codes)


def test_nvfp4_is_the_two_level_recipe() -> None:
    """Oracle: torchao's float32 steps: t = amax / 2688, s = e4m3(amax_b / 6 / t), e = x / (s t)."""
    x = np.random.default_rng(4).standard_normal((64, 160)).astype(np.float32) * np.float32(3)
    q = quantize(x, "nvfp4")
    tensor = np.abs(x).max() / np.float32(2688)
    assert q.tensor_scale == tensor
    amax = np.abs(x.reshape(64, 10, 16)).max(axis=2)
    scale = (amax / np.float32(6) / tensor).astype(ml_dtypes.float8_e4m3fn)
    assert np.array_equal(q.scale_codes, scale.view(np.uint8))
    total = np.repeat(scale.astype(np.float32) * tensor, 16, axis=1)
    codes = np.clip(x / total, -6, 6).astype(ml_dtypes.float4_e2m1fn).view(np.uint8)
    assert np.array_equal(q.codes, codes)
    assert q.scales.max() == 448


def test_nvfp4_block_scales_that_vanish() -> None:
    """Oracle: e4m3's smallest values 2^-9 (0 below half of it) and 2^-6, by hand."""
    x = np.zeros((4, 16))
    x[:, 0] = [2688, 6 * 2.0**-9, 6 * 2.0**-11, 0]
    q = quantize(x, "nvfp4")
    assert q.tensor_scale == 1
    assert q.scales[:, 0].tolist() == [448, 2.0**-9, 0, 0]
    assert q.dequantize()[:, 0].tolist() == [2688, 6 * 2.0**-9, 0, 0]
    q = quantize(x, "nvfp4", scale_rule="amax_normal")
    assert q.scales[:, 0].tolist() == [448, 2.0**-6, 2.0**-6, 2.0**-6]
    assert q.dequantize()[:, 0].tolist() == [2688, 2.0**-6, 0, 0]


def test_tensor_scales_at_the_edge() -> None:
    """Oracle: by hand: zeros have t = 1; t is never below 2^-128, nor beyond float32."""
    assert quantize(np.zeros(16), "nvfp4").tensor_scale == 1
    assert quantize(np.zeros(0), "nvfp4").tensor_scale == 1
    assert quantize(np.full(16, 1e-44), "nvfp4").tensor_scale == 2.0**-128
    top = quantize(np.full(16, 1e300), "nvfp4")
    assert top.tensor_scale == np.finfo(np.float32).max
    assert top.dequantize(np.float64)[0] == 2688 * float(np.finfo(np.float32).max)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_a_block_with_inf_or_nan_is_nan(name: str, bad: float) -> None:
    """Oracle: MX 1.0: a NaN scale makes the block NaN; the other blocks are as without it."""
    x = gaussian(256, 256, seed=6)
    clean = quantize(np.where(np.arange(256)[:, None] < 128, 0, x), name)
    x[:128] = 0
    x[3, 5] = bad
    q = quantize(x, name)
    values, expected = q.dequantize(), clean.dequantize()
    lost = np.isnan(values)
    block = q.format.block
    rows, columns = (slice(3, 4) if len(block) == 1 else slice(0, 128)), slice(0, block[-1])
    assert lost[rows, columns].all()
    assert lost.sum() == q.format.values_per_block
    assert np.array_equal(values[~lost], expected[~lost])
    assert int(q.scale_codes.flat[np.flatnonzero(np.isnan(q.scales))[0]]) == q.format.scale.nan_code
    assert not q.codes[lost].any()


def test_scales_at_the_ends_of_e8m0() -> None:
    """Oracle: by hand: -127 <= exponent <= 127; below, elements underflow; above, they are clamped."""
    tiny = quantize(np.array([2.0**-149, 2.0**-130]), "mxfp8_e4m3")
    assert tiny.scale_codes.tolist() == [0]
    assert tiny.dequantize().tolist() == [0, 2.0**-130]  # e4m3's smallest is 2^-9: 2^-136 under this scale
    high = quantize(np.array([1e300, -1.0]), "mxfp8_e4m3")
    assert high.scale_codes.tolist() == [254]
    assert high.dequantize(np.float64).tolist() == [448 * 2.0**127, -0.0]
    assert high.dequantize(np.float32).tolist() == [np.inf, -0.0]
    zero = quantize(np.array([0.0, -0.0]), "mxfp8_e4m3")
    assert (zero.scale_codes.tolist(), zero.codes.tolist()) == ([0], [0x00, 0x80])
    subnormal = np.array([2.0**-140, 2.0**-145], np.float32)
    assert quantize(subnormal, "mxint8").dequantize().tolist() == [0, 0]  # 64ths of 2^-127
    assert quantize(subnormal, "mxfp8_e5m2").dequantize().tolist() == [2.0**-140, 0]
