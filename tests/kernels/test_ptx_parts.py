"""The parts of the PTX interpreter: reading the text, arithmetic in every rounding, conversions, integers."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from tests.kernels.ptx.conversions import convert, decode, encode
from tests.kernels.ptx.floats import FORMATS, arithmetic, flushed, larger_or_smaller, rounded
from tests.kernels.ptx.integers import (
    BITWISE,
    LONG,
    bitfield,
    compare,
    dot4,
    funnel,
    integer,
    lop3,
    permute,
    shift,
)
from tests.kernels.ptx.memory import Clock, Region
from tests.kernels.ptx.operations import computes
from tests.kernels.ptx.parsing import PtxError, parse
from tests.kernels.ptx.threads import shuffle_source
from tests.kernels.ptx.values import bits_of, read

GENERATOR = np.random.default_rng(0)
STORED = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "f32": np.float32,
}


def floats(count: int) -> np.ndarray:
    """Return float32 values of every size, subnormals among them, and the odd ones."""
    some = GENERATOR.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    near = (GENERATOR.standard_normal(count) * np.exp2(GENERATOR.integers(-30, 30, count))).astype(np.float32)
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 2.0**-149, -(2.0**-126)], np.float32)
    return np.concatenate([some, near, odd])


def directed(exact: Fraction, mode: str) -> np.float32:
    """Return the FP32 number next to an exact value in a direction (small sizes, no overflow)."""
    nearest = np.float32(0.0) if exact == 0 else np.float32(float_near(exact))
    while Fraction(float(nearest)) > exact:
        nearest = np.nextafter(nearest, np.float32(-np.inf))
    below = nearest
    above = below if Fraction(float(below)) == exact else np.nextafter(below, np.float32(np.inf))
    if mode == "rn":
        low, high = exact - Fraction(float(below)), Fraction(float(above)) - exact
        even = below if int(below.view(np.uint32)) % 2 == 0 else above
        return below if low < high else above if high < low else even
    return {"rm": below, "rp": above, "rz": below if exact > 0 else above}[mode]


def float_near(exact: Fraction) -> float:
    """Return a float64 close to an exact value."""
    return exact.numerator / exact.denominator


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["add", "sub", "mul", "fma"])
def test_arithmetic_rounds_once_in_every_mode(name: str, mode: str) -> None:
    """Oracle: exact rational arithmetic and the neighbours of the result in FP32."""
    sizes = np.exp2(GENERATOR.integers(-20, 20, (3, 300)))
    a, b, c = (GENERATOR.standard_normal((3, 300)) * sizes).astype(np.float32)
    c[:100] = -(a[:100].astype(np.float64) * b[:100]).astype(np.float32)  # sums that cancel
    operands = [a, b, c] if name == "fma" else [a, b]
    exact = {
        "add": lambda x, y, _: x + y,
        "sub": lambda x, y, _: x - y,
        "mul": lambda x, y, _: x * y,
        "fma": lambda x, y, z: x * y + z,
    }[name]
    wanted = [
        directed(exact(*(Fraction(float(each)) for each in row)), mode) for row in zip(a, b, c, strict=True)
    ]
    assert np.array_equal(arithmetic(name, mode, operands), np.array(wanted))


def test_arithmetic_of_float32_to_nearest_is_numpys() -> None:
    """Oracle: NumPy, over random bits; a NaN is NVIDIA's."""
    a, b = floats(2000), floats(2000)[::-1]
    with np.errstate(all="ignore"):
        for name, function in (
            ("add", np.add),
            ("sub", np.subtract),
            ("mul", np.multiply),
            ("div", np.divide),
        ):
            wanted, got = function(a, b), arithmetic(name, "rn", [a, b])
            assert np.array_equal(got, wanted, equal_nan=True), name
            assert np.array_equal(np.signbit(got), np.signbit(np.where(np.isnan(wanted), 0, wanted))), name
            assert set(got[np.isnan(got)].view(np.uint32).tolist()) == {0x7FFFFFFF}


@pytest.mark.parametrize("mode", ["rn", "rm"])
def test_a_sum_that_cancels_has_the_sign_of_the_mode(mode: str) -> None:
    """Oracle: IEEE 754-2019, 6.3: +0, and -0 where the rounding is downward."""
    one = np.ones(1, np.float32)
    for name, operands in (("add", [one, -one]), ("sub", [one, one]), ("fma", [one, one, -one])):
        assert np.signbit(arithmetic(name, mode, operands))[0] == (mode == "rm"), name
    assert np.signbit(arithmetic("add", mode, [-0 * one, -0.0 * one]))[0] == (mode == "rm")


def test_fma_of_float64_rounds_once() -> None:
    """Oracle: exact rational arithmetic."""
    a, b, c = GENERATOR.standard_normal((3, 100))
    c[:50] = -(a * b)[:50]
    with np.errstate(all="ignore"):
        got = arithmetic("fma", "rn", [a, b, c])
    wanted = [float_near(Fraction(x) * Fraction(y) + Fraction(z)) for x, y, z in zip(a, b, c, strict=True)]
    assert np.array_equal(got, wanted)


def test_flushing_keeps_the_sign() -> None:
    """Oracle: the largest subnormal and the smallest normal number."""
    x = np.array([2.0**-126, -(2.0**-126) * (1 - 2.0**-23), 2.0**-149, np.inf, np.nan], np.float32)
    assert flushed(x)[:4].tolist() == [2.0**-126, -0.0, 0.0, np.inf]
    assert np.signbit(flushed(x)[1])
    assert np.isnan(flushed(x)[4])


def test_the_larger_and_the_smaller() -> None:
    """Oracle: PTX ISA, min and max: a NaN loses but where .NaN is said, and -0 < +0."""
    a = np.array([1, np.nan, -0.0, 0.0, np.nan], np.float32)
    b = np.array([2, 3, 0.0, -0.0, np.nan], np.float32)
    assert larger_or_smaller("max", a, b, keep_nan=False)[:2].tolist() == [2, 3]
    assert np.signbit(larger_or_smaller("min", a, b, keep_nan=False)[2:4]).tolist() == [True, True]
    assert np.signbit(larger_or_smaller("max", a, b, keep_nan=False)[2:4]).tolist() == [False, False]
    assert np.isnan(larger_or_smaller("min", a, b, keep_nan=True)).tolist() == [
        False,
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("name", ["f16", "bf16", "e4m3", "e5m2"])
def test_narrowing_to_nearest_is_that_of_ml_dtypes(name: str) -> None:
    """Oracle: NumPy's float16 and ml_dtypes, over random bits, ties between codes, the ends of the range."""
    codes = np.arange(2 ** (8 * np.dtype(STORED[name]).itemsize), dtype=f"u{np.dtype(STORED[name]).itemsize}")
    with np.errstate(all="ignore"):
        values = codes.view(STORED[name]).astype(np.float64)
        values = np.sort(values[np.isfinite(values)])
        x = np.concatenate([floats(3000).astype(np.float64), values, (values[1:] + values[:-1]) / 2])
        x = x.astype(np.float32)
        saturate = name in {"e4m3", "e5m2"}
        got = encode(rounded(x.astype(np.float64), name, saturate=saturate), name)
        limit = FORMATS[name].largest
        wanted = np.where(np.isnan(x), x, np.clip(x, -limit, limit)) if saturate else x
        wanted_bits = wanted.astype(STORED[name]).view(codes.dtype)
    real = ~np.isnan(x)
    assert np.array_equal(got[real], wanted_bits[real])
    assert np.isnan(decode(got, name)[~real]).all()


@pytest.mark.parametrize("name", ["f16", "bf16", "e4m3", "e5m2"])
@pytest.mark.parametrize("mode", ["rz", "rm", "rp", "rna"])
def test_narrowing_in_other_modes_gives_a_neighbour(name: str, mode: str) -> None:
    """Oracle: the two codes around a value, by bisection in the sorted codes."""
    itemsize = np.dtype(STORED[name]).itemsize
    grid = np.arange(2 ** (8 * itemsize), dtype=f"u{itemsize}").view(STORED[name])
    with np.errstate(all="ignore"):
        grid = grid.astype(np.float64)
    grid = np.unique(grid[np.isfinite(grid)])
    x = np.concatenate(
        [GENERATOR.uniform(grid[0], grid[-1], 300), GENERATOR.standard_normal(300), grid[50:90]]
    )
    x = np.concatenate([x, (grid[1:] + grid[:-1])[100:200] / 2])
    x = x[(x > grid[0]) & (x < grid[-1])]
    low = grid[np.searchsorted(grid, x, "right") - 1]
    high = grid[np.searchsorted(grid, x, "left")]
    away = np.where(x > 0, high, low)
    nearest = np.where(x - low < high - x, low, np.where(high - x < x - low, high, away))
    wanted = {"rm": low, "rp": high, "rz": np.where(x > 0, low, high), "rna": nearest}[mode]
    assert np.array_equal(rounded(x, name, mode), wanted)


@pytest.mark.parametrize(("mode", "wanted"), [("rn", np.inf), ("rz", 65504), ("rm", 65504), ("rp", np.inf)])
def test_what_is_too_large_follows_the_mode(mode: str, wanted: float) -> None:
    """Oracle: IEEE 754-2019, 7.4."""
    assert rounded(np.array([65520.0]), "f16", mode)[0] == wanted
    mirrored = {"rm": "rp", "rp": "rm"}.get(mode, mode)
    assert rounded(np.array([-65520.0]), "f16", mirrored)[0] == -wanted


def bits(*values: float, dtype: object = np.float32) -> np.ndarray:
    """Return register contents of values."""
    return bits_of(np.array(values, dtype))


CONVERSIONS = [
    ("rzi.s32.f32", bits(2.9, -2.9, 3e9, -3e9, np.nan), [2, -2, 2**31 - 1, -(2**31), 0], "s32"),
    ("rni.s32.f32", bits(2.5, 3.5, -2.5), [2, 4, -2], "s32"),
    ("rmi.s32.f32", bits(2.5, -2.5), [2, -3], "s32"),
    ("rpi.s32.f32", bits(2.5, -2.5), [3, -2], "s32"),
    ("rzi.u8.f32", bits(255.9, 256.0, -1.0), [255, 255, 0], "u8"),
    ("rzi.s64.f32", bits(2.0**63, -(2.0**63), np.nan), [2**63 - 1, -(2**63), -(2**63)], "s64"),
    ("rzi.u32.f64", bits(4e9, 5e9, dtype=np.float64), [4 * 10**9, 2**32 - 1], "u32"),
    ("rn.f32.s32", bits(2**24 + 1, -7, dtype=np.int32), [2.0**24, -7.0], "f32"),
    ("rn.f32.u64", bits(2**64 - 1, dtype=np.uint64), [2.0**64], "f32"),
    ("rn.f64.s64", bits(2**53 + 1, dtype=np.int64), [2.0**53], "f64"),
    ("rn.f32.f64", bits(1 + 2.0**-24, 1e300, dtype=np.float64), [1.0, np.inf], "f32"),
    ("rz.f32.f64", bits(1 + 2.0**-23.5, dtype=np.float64), [1.0], "f32"),
    ("f64.f32", bits(1.5, 2.0**-149), [1.5, 2.0**-149], "f64"),
    ("rzi.f32.f32", bits(2.9, -0.5), [2.0, -0.0], "f32"),
    ("sat.f32.f32", bits(-1.0, 0.5, 7.0, np.nan), [0.0, 0.5, 1.0, 0.0], "f32"),
    ("ftz.f64.f32", bits(2.0**-140), [0.0], "f64"),
    ("s32.s8", bits(200, dtype=np.uint32), [-56], "s32"),
    ("u64.u32", bits(-1, dtype=np.int32), [2**32 - 1], "u64"),
    ("s64.s32", bits(-1, dtype=np.int32), [-1], "s64"),
    ("u16.u32", bits(65537, dtype=np.uint32), [1], "u16"),
    ("sat.u8.s32", bits(-5, 300, 7, dtype=np.int32), [0, 255, 7], "u8"),
    ("rn.f16.f32", bits(65520.0, 2.0**-25, 1 / 3), [np.inf, 0.0, np.float16(1 / 3)], "f16"),
    ("f32.f16", bits(1.5, dtype=np.float16), [1.5], "f32"),
]


@pytest.mark.parametrize(
    ("words", "source", "wanted", "type_name"), CONVERSIONS, ids=[row[0] for row in CONVERSIONS]
)
def test_conversions(words: str, source: np.ndarray, wanted: list[float], type_name: str) -> None:
    """Oracle: PTX ISA, cvt, by hand."""
    with np.errstate(all="ignore"):
        got = read(convert(tuple(words.split(".")), [source]), type_name)
    assert np.array_equal(got, np.array(wanted, got.dtype))
    if got.dtype.kind == "f":
        assert np.array_equal(np.signbit(got), np.signbit(np.array(wanted, got.dtype)))


def test_pairs_are_packed_the_first_above() -> None:
    """Oracle: PTX ISA, cvt to packed formats: d = {a, b}, a in the upper half."""
    one, two = bits(1.0), bits(-448.0)
    assert convert(("rn", "f16x2", "f32"), [one, two])[0] == 0x3C00_DF00
    assert convert(("rn", "bf16x2", "f32"), [one, two])[0] == 0x3F80_C3E0
    assert convert(("rn", "satfinite", "e4m3x2", "f32"), [one, two])[0] == 0x38FE
    assert convert(("rn", "satfinite", "e5m2x2", "f32"), [one, bits(1e9)])[0] == 0x3C7B
    assert convert(("rn", "f16x2", "e4m3x2"), [np.array([0x38FE], np.uint64)])[0] == 0x3C00_DF00


@pytest.mark.parametrize(
    ("taken", "to", "wanted"),
    [("f32", "f16", 0x7FFF), ("f32", "bf16", 0x7FFF), ("f64", "f32", 0x7FFFFFFF), ("f16", "f32", 0x7FFFFFFF)],
)
def test_a_nan_is_converted_to_nvidias(taken: str, to: str, wanted: int) -> None:
    """Oracle: PTX ISA, cvt: the canonical NaN of the format."""
    source = bits(-np.nan, dtype={"f16": np.float16, "f32": np.float32, "f64": np.float64}[taken])
    assert convert((*(("rn",) if taken > to or to != "f32" else ()), to, taken), [source])[0] == wanted


def test_a_nan_in_fp8_is_nvidias() -> None:
    """Oracle: PTX ISA, cvt.satfinite of a NaN: 0x7F in both formats."""
    for to in ("e4m3x2", "e5m2x2"):
        assert convert(("rn", "satfinite", to, "f32"), [bits(np.nan), bits(-np.nan)])[0] == 0x7F7F


def words(*values: int, width: int = 32) -> np.ndarray:
    """Return register contents of integers."""
    return np.array([value & (1 << width) - 1 for value in values], np.uint64)


INTEGER_CASES = {
    "wraps": (integer("add", "", "s32", [words(2**31 - 1), words(1)]), -(2**31), "s32"),
    "mul.lo": (integer("mul", "lo", "u32", [words(2**31), words(3)]), 2**31, "u32"),
    "mul.hi": (integer("mul", "hi", "u32", [words(2**31), words(6)]), 3, "u32"),
    "mul.hi.s64": (integer("mul", "hi", "s64", [words(-1, width=64), words(5)]), -1, "s64"),
    "mul.hi.u64": (integer("mul", "hi", "u64", [words(-1, width=64)] * 2), 2**64 - 2, "u64"),
    "mul.wide": (integer("mul", "wide", "s32", [words(-3), words(2**31 - 1)]), -3 * (2**31 - 1), "s64"),
    "mad.lo": (integer("mad", "lo", "s32", [words(-3), words(4), words(5)]), -7, "s32"),
    "mad.wide": (integer("mad", "wide", "u32", [words(-1), words(2), words(5)]), 2 * (2**32 - 1) + 5, "u64"),
    "div to zero": (integer("div", "", "s32", [words(-7), words(2)]), -3, "s32"),
    "rem has the sign": (integer("rem", "", "s32", [words(-7), words(2)]), -1, "s32"),
    "div.u64": (integer("div", "", "u64", [words(-1, width=64), words(3)]), (2**64 - 1) // 3, "u64"),
    "shl all": (shift("shl", "b32", words(5), words(32)), 0, "u32"),
    "shl most": (shift("shl", "b32", words(5), words(31)), 2**31, "u32"),
    "shr.s all": (shift("shr", "s32", words(-5), words(40)), -1, "s32"),
    "shr.u": (shift("shr", "u64", words(-1, width=64), words(60)), 15, "u64"),
    "shf.l": (funnel("l", "wrap", words(0x80000000), words(1), words(33)), 3, "u32"),
    "shf.r": (funnel("r", "clamp", words(7), words(9), words(32)), 9, "u32"),
    "prmt": (permute(words(0x33221100), words(0x77665544), words(0x7351)), 0x77335511, "u32"),
    "prmt sign": (permute(words(0x00008000), words(0), words(0x0009)), 0xFF, "u8"),
    "bfe": (bitfield("bfe", "u32", [words(0xABCD), words(4), words(8)]), 0xBC, "u32"),
    "bfe beyond": (bitfield("bfe", "u32", [words(0xF0000000), words(28), words(40)]), 0xF, "u32"),
    "bfi": (bitfield("bfi", "b32", [words(0xF), words(0), words(8), words(4)]), 0xF00, "u32"),
    "bfi.b64": (bitfield("bfi", "b64", [words(5), words(1), words(21), words(43)]), 5 << 21 | 1, "u64"),
    "lop3 xor": (lop3(0x96, words(12), words(10), words(7)), 12 ^ 10 ^ 7, "u32"),
    "lop3 select": (lop3(0xCA, words(12), words(10), words(7)), (12 & 10) | (~12 & 7), "u32"),
    "dp4a": (dot4("ss", words(0xFF020304), words(0x02010101), words(100)), 100 - 2 + 9, "s32"),
    "dp4a.u": (dot4("uu", words(0xFF000000), words(0x02000000), words(1)), 511, "u32"),
    "clz": (LONG["clz"](words(1).astype(np.uint32)), 31, "u32"),
    "popc": (LONG["popc"](words(0xFF0).astype(np.uint32)), 8, "u32"),
    "brev": (LONG["brev"](words(1).astype(np.uint32)), 2**31, "u32"),
    "cnot": (BITWISE["cnot"](words(0)), 1, "u32"),
}


@pytest.mark.parametrize("case", INTEGER_CASES)
def test_integers(case: str) -> None:
    """Oracle: PTX ISA, integer and logic instructions, by hand."""
    got, wanted, type_name = INTEGER_CASES[case]
    assert int(read(got, type_name)[0]) == wanted


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("lt", [True, False, False]),
        ("ltu", [True, False, True]),
        ("ne", [True, False, False]),
        ("neu", [True, False, True]),
        ("eq", [False, True, False]),
        ("equ", [False, True, True]),
        ("num", [True, True, False]),
        ("nan", [False, False, True]),
    ],
)
def test_comparisons_with_nan(how: str, wanted: list[bool]) -> None:
    """Oracle: PTX ISA, setp: ordered comparisons are false of a NaN, unordered ones true."""
    a, b = np.array([1, 2, np.nan], np.float32), np.array([2, 2, 2], np.float32)
    assert compare(how, a, b).tolist() == wanted


@pytest.mark.parametrize(
    ("mode", "b", "wanted"),
    [
        ("down", 1, [1, 2, 3, 3, 5, 6, 7, 7]),
        ("up", 1, [0, 0, 1, 2, 4, 4, 5, 6]),
        ("bfly", 3, [3, 2, 1, 0, 7, 6, 5, 4]),
        ("idx", 2, [2, 2, 2, 2, 6, 6, 6, 6]),
    ],
)
def test_shuffles_stay_in_their_segment(mode: str, b: int, wanted: list[int]) -> None:
    """Oracle: PTX ISA, shfl.sync, segments of four lanes as NVRTC writes them."""
    clamp = 0 if mode == "up" else 31
    source, _ = shuffle_source(mode, np.arange(8), words(b), words((32 - 4) << 8 | clamp))
    assert source.tolist() == wanted


def test_text_is_read_with_its_variables() -> None:
    """Oracle: an entry by hand: parameters, shared memory in and out of it, constants, comments, vectors."""
    text = """.version 8.8
.target sm_90
.address_size 64
// a comment with { in it
.global .align 4 .b8 table[4] = {1, 0, 0, 2};
.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(
    .param .u64 .ptr .align 1 k_param_0,
    .param .align 8 .b8 k_param_1[32]
)
.maxntid 256, 1, 1
{
    .reg .b32 %r<3>;
    .shared .align 4 .b8 inner[128];
    /* another
       comment */
$L_1:
    @!%p1 ld.global.v2.u32 {%r1, %r2}, [%rd1+-8];
    bra.uni $L_1;
}
"""
    (entry,) = parse(text).values()
    assert [(each.name, each.size) for each in entry.parameters] == [("k_param_0", 8), ("k_param_1", 32)]
    sizes = {each.name: (each.space, each.size) for each in entry.variables}
    assert sizes == {"table": ("global", 4), "dynamic": ("shared", 0), "inner": ("shared", 128)}
    assert entry.variables[0].content == bytes([1, 0, 0, 2])
    assert entry.labels == {"$L_1": 0}
    load = entry.instructions[0]
    assert (load.guard, load.negated, load.type, load.line) == ("%p1", True, "u32", 18)
    assert [part.name for part in load.operands[0].parts] == ["%r1", "%r2"]
    assert (load.operands[1].name, load.operands[1].value) == ("%rd1", -8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".func f() { ret; }\n", "a function of its own"),
        (".frob x;\n", "unknown declaration: .frob x"),
        (".visible .entry k() { add.s32 %r1, %r2, 3 }\n", "no end to 'add.s32"),
        (".visible .entry k() { ret;\n", "a brace is never closed"),
        (".visible .entry k() { .reg .b32 %r<2>; ADD %r1; }", "not an instruction: ADD"),
    ],
)
def test_text_that_is_not_known_is_refused(text: str, message: str) -> None:
    """Oracle: one thing each that this reader does not know."""
    with pytest.raises(PtxError, match=message):
        parse(text)


def test_what_an_instruction_does_not_compute_is_none() -> None:
    """Oracle: a branch."""
    (entry,) = parse(".visible .entry k() { $L_1: bra $L_1; }").values()
    assert computes(entry.instructions[0]) is None


def region(threads: int = 64, blocks: int = 1) -> tuple[Region, int]:
    """Return watched memory of 64 bytes, all written, and where it begins."""
    number = np.arange(threads * blocks)
    clock = Clock(number // threads, number // 32)
    memory = Region("memory", clock)
    places, _ = memory.frames({"x": (64, 4)}, 1)
    memory.fill(places["x"], bytes(64))
    return memory, places["x"]


def access(memory: Region, thread: int, at: int, *, write: int | None = None, atomic: bool = False) -> None:
    """Let one thread read or write four bytes."""
    memory.clock.now += 1
    if write is None:
        memory.load(np.array([thread]), np.array([at]), 4, atomic=atomic)
    else:
        memory.store(np.array([thread]), np.array([at]), 4, np.array([write], np.uint64), atomic=atomic)


def test_races_and_what_prevents_them() -> None:
    """Oracle: CUDA's memory model in a few lines: a write and another access need a barrier between."""
    memory, x = region()
    access(memory, 0, x, write=1)
    with pytest.raises(PtxError, match="thread 5 reads what another wrote"):
        access(memory, 5, x)
    memory.clock.barrier(np.arange(64))
    access(memory, 5, x)
    access(memory, 6, x)
    access(memory, 5, x, write=1)  # what is there already
    with pytest.raises(PtxError, match="thread 5 overwrites what another read"):
        access(memory, 5, x, write=2)
    memory.clock.barrier(np.arange(64))
    access(memory, 5, x, write=2)
    with pytest.raises(PtxError, match="thread 7 overwrites what another wrote"):
        access(memory, 7, x, write=3)


def test_warps_join_by_mask() -> None:
    """Oracle: __syncwarp orders the lanes of its mask, and no others."""
    memory, x = region()
    access(memory, 0, x, write=1)
    memory.clock.join(np.array([0, 1]), np.array([3, 3], np.uint64))
    access(memory, 1, x)
    with pytest.raises(PtxError, match="thread 2 reads what another wrote"):
        access(memory, 2, x)


@pytest.mark.parametrize(("readers", "ordered"), [((33, 34), True), ((0, 33), False)])
def test_readers_are_remembered_by_warp(readers: tuple[int, int], ordered: bool) -> None:
    """Oracle: __syncwarp of the second warp orders its own two readers, and no reader of the first."""
    memory, x = region()
    for reader in readers:
        access(memory, reader, x)
    memory.clock.join(np.arange(32, 64), np.full(32, 2**32 - 1, np.uint64))
    if ordered:
        access(memory, 33, x, write=5)
    else:
        with pytest.raises(PtxError, match="thread 33 overwrites what another read"):
            access(memory, 33, x, write=5)


def test_blocks_are_never_ordered_but_atomics_need_no_order() -> None:
    """Oracle: two blocks of 32: a barrier of each orders nothing between them."""
    memory, x = region(32, 2)
    access(memory, 0, x, write=1, atomic=True)
    access(memory, 40, x, write=2, atomic=True)
    access(memory, 40, x + 4, write=1)
    for block in (np.arange(32), np.arange(32, 64)):
        memory.clock.barrier(block)
    with pytest.raises(PtxError, match="thread 3 reads what another wrote"):
        access(memory, 3, x + 4)


def test_sizes_of_formats_are_those_of_ml_dtypes() -> None:
    """Oracle: ml_dtypes.finfo."""
    for name, dtype in STORED.items():
        info, format_ = ml_dtypes.finfo(dtype), FORMATS[name]
        assert format_.precision == info.nmant + 1
        assert format_.largest == float(info.max)
        assert format_.lowest == round(math.log2(float(info.smallest_normal)))
