"""Block formats: the laws they keep, where blocks lie, random rounding, formats of one's own, bad input."""

from __future__ import annotations

import copy
import dataclasses
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
from minimp.formats.blocks.arrays import dequantize, quantize
from minimp.formats.blocks.scales import quotient
from minimp.formats.blocks.table import BLOCK_FORMATS, SCALE_RULES, BlockFormat, block_format
from minimp.formats.codes import encode
from minimp.formats.dice import Counter
from minimp.formats.making import make
from minimp.formats.packing import pack
from tests.formats.blocks.oracle import MX_RULES

POWERS = tuple(name for name, fmt in BLOCK_FORMATS.items() if fmt.scale.mantissa_bits == 0)
E4M3, E8M0 = formats.get("e4m3fn"), formats.get("e8m0")


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    """Return float32 Gaussian numbers of many magnitudes: each row has a scale of its own."""
    random = np.random.default_rng(seed)
    x = random.standard_normal(shape) * 2.0 ** random.integers(-20, 20, (*shape[:-1], 1))
    return x.astype(np.float32)


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@given(data=st.data())
def test_what_was_quantised_stays(name: str, data: st.DataObject) -> None:
    """Oracle: the law that a value of the format is its own nearest; NVFP4 while its scales are normal."""
    shape = (130, 129) if len(BLOCK_FORMATS[name].block) == 2 else (3, 40)
    seed = data.draw(st.integers(0, 2**32 - 1))
    x = np.random.default_rng(seed).standard_normal(shape) + 0.5
    rule = data.draw(st.sampled_from([None, *MX_RULES] if name in POWERS else [None]))
    once = quantize(x, name, scale_rule=rule).dequantize(np.float64)
    twice = quantize(once, name, scale_rule=rule).dequantize(np.float64)
    assert np.array_equal(once, twice)


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-10, 10))
def test_powers_of_two_pass_through(name: str, seed: int, power: int) -> None:
    """Oracle: the law quantize(2^k x) = 2^k quantize(x): the same codes, every scale times 2^k."""
    x = np.random.default_rng(seed).standard_normal((2, 140)).astype(np.float32) + np.float32(0.25)
    one, other = quantize(x, name), quantize(np.ldexp(x, power), name)
    assert np.array_equal(one.codes, other.codes)
    factor = 2.0**power
    assert np.array_equal(one.scales * one.tensor_scale * factor, other.scales * other.tensor_scale)


@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_signs_are_symmetric(name: str) -> None:
    """Oracle: the law quantize(-x) = -quantize(x), bit for bit, in mxint8 too."""
    x = gaussian(40, 130, seed=8)
    one, other = quantize(x, name), quantize(-x, name)
    assert np.array_equal(one.scale_codes, other.scale_codes)
    assert np.array_equal(one.dequantize(), -other.dequantize())
    if name != "mxint8":
        assert np.array_equal(one.codes ^ (1 << (one.format.element.bits - 1)), other.codes)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (name, rule)
        for name in BLOCK_FORMATS
        for rule in SCALE_RULES
        if name not in POWERS or SCALE_RULES[rule].rounding is None
    ],
)
def test_errors_are_half_an_ulp_at_most(name: str, rule: str) -> None:
    """Oracle: half the distance of elements around x / scale, times the scale; not where x was clamped."""
    x = np.random.default_rng(9).standard_normal((256, 256)) * 3
    q = quantize(x, name, scale_rule=rule)
    fmt = q.format
    block = fmt.block if len(fmt.block) == 2 else (1, fmt.block[0])
    scale = np.kron(q.scales, np.ones(block)) * q.tensor_scale * 2.0**fmt.element_exponent
    error = np.abs(q.dequantize(np.float64) - x)
    inside = np.abs(x) <= fmt.element.max * scale
    bound = np.where(
        scale > 0, formats.ulp(x / np.where(scale > 0, scale, 1), fmt.element) * scale / 2, np.inf
    )
    assert (error <= bound * (1 + 2.0**-50))[inside].all()
    if rule in ("ceil", "rceil", "amax_up") and not fmt.tensor_scale:
        assert inside.all()
    assert inside.mean() > 0.9


@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=7),
    block=st.tuples(st.integers(1, 4)) | st.tuples(st.integers(1, 3), st.integers(1, 4)),
    tile=st.sampled_from([1, 8, 1 << 17]),
    data=st.data(),
)
def test_where_blocks_lie(
    shape: tuple[int, ...], block: tuple[int, ...], tile: int, data: st.DataObject
) -> None:
    """Oracle: each block cut out by its indices and quantised alone, for any axis and any tiling."""
    if len(block) > len(shape):
        return
    axis = data.draw(st.integers(len(block) - 1, len(shape) - 1))
    fmt = BlockFormat("mine", formats.get("e4m3fn"), formats.get("e8m0"), block, "floor")
    alone = dataclasses.replace(fmt, block=(fmt.values_per_block,))
    x = np.random.default_rng(math.prod(shape)).standard_normal(shape).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_grid, "_TILE", tile)
        q = quantize(x, fmt, axis=axis if data.draw(st.booleans()) else axis - len(shape))
        values = dequantize(q)
    steps = [1] * len(shape)
    steps[axis - len(block) + 1 : axis + 1] = block
    assert q.scale_codes.shape == tuple(-(-n // step) for n, step in zip(shape, steps, strict=True))
    assert q.padding == tuple(-shape[axis - len(block) + 1 + i] % n for i, n in enumerate(block))
    for index in np.ndindex(*q.scale_codes.shape):
        part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, steps, strict=True))
        single = quantize(x[part].reshape(-1), alone)
        assert single.scale_codes[0] == q.scale_codes[index]
        assert np.array_equal(single.codes, q.codes[part].reshape(-1))
        assert np.array_equal(single.dequantize(), values[part].reshape(-1))


@pytest.mark.parametrize("name", ["mxfp4", "deepseek_128x128", "nvfp4"])
def test_random_bits_belong_to_a_place(name: str) -> None:
    """Oracle: x / scale encoded in one go with the same seed; any tiling, a seed or its Counter."""
    x = np.random.default_rng(11).standard_normal((200, 300)).astype(np.float32)
    whole = quantize(x, name, rounding="stochastic", rng=42)
    block = whole.format.block if len(whole.format.block) == 2 else (1, whole.format.block[0])
    scale = np.kron(whole.scales, np.ones(block))[:200, :300] * whole.tensor_scale
    at_most = whole.format.element.max
    ratio = np.clip(x.astype(np.float64) / scale, -at_most, at_most)
    expected = encode(ratio, whole.format.element, "stochastic", "saturate", Counter(42))
    assert np.array_equal(whole.codes, expected)
    for tile in (1, 1000, 20_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(block_grid, "_TILE", tile)
            assert np.array_equal(
                quantize(x, name, rounding="stochastic", rng=Counter(42)).codes, whole.codes
            )
    assert not np.array_equal(quantize(x, name, rounding="stochastic", rng=43).codes, whole.codes)
    assert not np.array_equal(quantize(x, name).codes, whole.codes)


def test_random_rounding_is_right_on_average() -> None:
    """Oracle: the mean of 4,000 rounded copies of 3.3 between 3 and 4, within five standard errors."""
    x = np.full((4000, 32), 3.3)
    x[:, 0] = 6
    got = quantize(x, "mxfp4", rounding="stochastic", rng=np.random.default_rng(0)).dequantize()[:, 1:]
    assert set(np.unique(got)) == {3, 4}
    assert abs(got.mean() - 3.3) < 5 * math.sqrt(0.3 * 0.7 / got.size)


@given(
    x=hnp.arrays(np.float64, 5, elements=st.floats(-1e300, 1e300)),
    y=st.floats(2.0**-200, 2.0**200),
)
def test_quotients_are_rounded_to_odd(x: np.ndarray, y: float) -> None:
    """Oracle: fractions: the exact quotient, or the neighbour of it whose last bit is 1."""
    for each, got in zip(x, quotient(x, y), strict=True):
        exact = Fraction(float(each)) / Fraction(y)
        if not 2.0**-1000 < abs(exact) < 2.0**1000:
            assert np.sign(got) == np.sign(exact)
        elif Fraction(float(got)) != exact:
            assert int(np.float64(got).view(np.int64)) & 1
            assert abs(Fraction(float(got)) - exact) < Fraction(float(np.spacing(abs(got))))


def test_float64_is_rounded_once() -> None:
    """Oracle: by hand: each side of a tie under a scale of 24 bits; a quotient that float64 cannot hold."""
    fmt = BlockFormat("mine", E4M3, formats.get("float32"), (2,), "amax")
    third = float(np.float32(1 / 3))
    x = np.array([448 * third, np.nextafter(17 * third, 1e9)])  # 17 is halfway between 16 and 18
    q = quantize(x, fmt)
    assert q.scales.tolist() == [third]
    assert q.dequantize(np.float64)[1] == 18 * third
    assert quantize(np.nextafter(x, 0), fmt).dequantize(np.float64)[1] == 16 * third
    spread = quantize([2.0**1000, 2.0**-1070, -(2.0**-1070)], "mxfp8", rounding="up")
    assert spread.dequantize(np.float64).tolist() == [448 * 2.0**127, 2.0 ** (127 - 9), -0.0]


def test_random_bits_of_inner_axes() -> None:
    """Oracle: the same numbers in one tile, for blocks that are neither first nor last in memory."""
    x = np.random.default_rng(12).standard_normal((6, 9, 14, 3))
    fmt = BlockFormat("mine", formats.get("e2m1"), E8M0, (4, 5), "floor")
    whole = quantize(x, fmt, axis=2, rounding="stochastic", rng=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_grid, "_TILE", 1)
        pieces = quantize(x, fmt, axis=2, rounding="stochastic", rng=1)
    assert np.array_equal(pieces.codes, whole.codes)


@pytest.mark.parametrize(
    ("name", "bits"),
    [("mxfp8", 8.25), ("mxfp6_e2m3", 6.25), ("mxfp4", 4.25), ("mxint8", 8.25), ("nvfp4", 4.5)],
)
def test_sizes(name: str, bits: float) -> None:
    """Oracle: element bits + 8 / block (MX 1.0, table 1), and the length of the packed codes."""
    fmt = block_format(name)
    assert fmt.bits_per_value == bits
    q = quantize(np.zeros((4, 64)), name)
    assert q.nbytes == pack(q.codes, fmt.element).size + q.scale_codes.nbytes + 4 * fmt.tensor_scale
    assert q.bits_per_value == bits + 32 / 256 * fmt.tensor_scale
    short = quantize(np.zeros((4, 33)), name)
    assert short.padding == (-33 % fmt.block[0],)
    assert short.nbytes == quantize(np.zeros((4, 33 + short.padding[0])), name).nbytes


def test_a_format_of_ones_own() -> None:
    """Oracle: by hand: e3m0 elements 2^-2 .. 16 (no inf), fp16 scales, blocks of 4, rounded up."""
    element = make(3, 0, flavour="finite")
    fmt = BlockFormat("mine", element, formats.get("fp16"), (4,), "amax_up")
    q = quantize([16.0, 3.0, -0.1, 0.0, 1.0], fmt)
    assert q.scales.tolist() == [16 / element.max, float(np.float16(1 / element.max))]
    assert q.dequantize().tolist()[:2] == [16.0, 4.0]
    assert str(q).splitlines()[0] == "mine"
    assert "3 zeros of padding" in str(q)
    assert "element" in fmt.describe()
    assert all(len(line) <= 100 for line in (*fmt.describe().splitlines(), *str(q).splitlines()))


def test_names() -> None:
    """Oracle: the table itself; a copy of a format is equal to it."""
    assert block_format("MXFP8") is BLOCK_FORMATS["mxfp8_e4m3"]
    assert block_format("fp8_1x128") is BLOCK_FORMATS["deepseek_1x128"]
    for name, fmt in BLOCK_FORMATS.items():
        assert block_format(name) is fmt
        assert copy.deepcopy(fmt) == fmt
        assert max(len(line) for line in fmt.describe().splitlines()) <= 100
        assert fmt.scale_rule in SCALE_RULES
    assert repr(quantize(np.zeros(64), "mxfp4")) == "BlockArray(mxfp4, shape=(64,), axis=0, 34 bytes)"


def test_nothing_is_nothing() -> None:
    """Oracle: shapes with a 0 in them have no block, and no byte."""
    for shape in ((0,), (0, 32), (3, 0)):
        q = quantize(np.zeros(shape), "mxfp8")
        assert q.dequantize().shape == shape
        assert (q.nbytes, q.scale_codes.size) == (0, 0)


ONES = np.ones((2, 32))
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: quantize(ONES, "mxpf8"), FormatError, "did you mean 'mxfp8'"),
    (lambda: quantize(ONES, "mxfp8", scale_rule="flour"), SettingError, "did you mean 'floor'"),
    (
        lambda: quantize(ONES, "mxfp8", scale_rule="amax"),
        SettingError,
        "take one of floor, ceil",
    ),
    (lambda: quantize(ONES, "mxfp8", rounding="nearest"), SettingError, "unknown rounding"),
    (lambda: quantize(ONES, "mxfp8", rounding="stochastic"), SettingError, "random"),
    (lambda: quantize([], "mxfp8", rounding="stochastic"), SettingError, "random"),
    (lambda: quantize([], "mxfp8", rounding="nearest"), SettingError, "unknown rounding"),
    (lambda: quantize(ONES, "mxfp8", axis=2), ShapeError, "got axis=2"),
    (lambda: quantize(ONES, "mxfp8", axis=-3), ShapeError, "got axis=-3"),
    (lambda: quantize(ONES, "deepseek_128x128", axis=0), ShapeError, "another one before it"),
    (lambda: quantize(1.0, "mxfp8"), ShapeError, "0 axes"),
    (lambda: quantize(ONES + 1j, "mxfp8"), DataError, "real numbers"),
    (lambda: quantize(ONES, "mxfp8").dequantize(np.float16), SettingError, "float32 or float64"),
    (lambda: BlockFormat("x", E4M3, E8M0, (0,), "floor"), SettingError, "one or two extents"),
    (lambda: BlockFormat("x", E4M3, E8M0, (2, 2, 2), "floor"), SettingError, "one or two extents"),
    (lambda: BlockFormat("x", E4M3, E8M0, (32,), "amax"), SettingError, "rule for powers of two"),
    (lambda: BlockFormat("x", E8M0, E8M0, (32,), "floor"), FormatError, "elements that have a zero"),
    (
        lambda: BlockFormat("x", E4M3, formats.get("int8"), (32,), "floor"),
        FormatError,
        "floating-point",
    ),
    (lambda: BlockFormat("x", E4M3, E8M0, (32,), "floor", smallest_amax=-1), SettingError, "smallest_amax"),
    (
        lambda: quantize([np.inf], BlockFormat("x", E4M3, formats.get("e2m1"), (32,), "floor")),
        FormatError,
        "1 of 1 blocks hold an infinity or NaN",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    """Oracle: the error of the tree, and the words that say what was expected and what came."""
    with pytest.raises(error, match=words):
        call()
