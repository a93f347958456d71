"""The quick forms of the orders, against the readable ones; what they cost in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.errors import FormatError
from minimp.formats import matmul
from minimp.formats.accumulation import quicksums, quickunits, summation, tensorcore
from minimp.formats.accumulation.operands import Factors, checked, quantum, to_float32
from minimp.formats.accumulation.tensorcore import UNITS, Unit
from tests.formats.accumulation.products import draw
from tests.formats.oracle import assert_same

f16, bf16 = formats.float16, formats.bfloat16
SHAPES = ((1, 40, 37, 20), (3, 9, 21, 33), (1, 1, 50, 400), (1, 400, 50, 1), (300, 1, 20, 1), (2, 3, 19, 2))
INPUTS = ("float16", "bfloat16", "float8_e5m2", "tfloat32", "float32", "int8")


def spread(fmt: str) -> int:
    """Say over how many binades to draw: float16's overflow and underflow are near enough at 9."""
    return {"float16": 9, "bfloat16": 60, "tfloat32": 60, "float32": 12}.get(fmt, 4)


def factors_of(fmt: str, shape: tuple[int, ...], kind: str, size: int, start: str) -> Factors:
    """Draw factors: plain ones; over many binades; sparse ones with infinities and NaN among them."""
    batch, height, length, width = shape
    binades = {"plain": 1, "wide": spread(fmt), "special": 2}[kind]
    a = draw(fmt, (batch, height, length), 1, binades)
    b = draw(fmt, (batch, length, width), 2, binades)
    if kind == "special" and fmt != "int8":
        random = np.random.default_rng(3)
        for each in (a, b):
            each[random.random(each.shape) < 0.7] = -0.0
            each[random.random(each.shape) < 0.003] = np.inf
        a[0, 0, length // 2] = np.nan
    c = draw(start, (batch, height, width), 4, 3)
    c[np.random.default_rng(5).random(c.shape) < 0.3] = -0.0 if kind == "special" else 0.0
    return Factors(a, b, c, formats.get(fmt), size)


PAIRS: dict[str, tuple[Callable, Callable, str]] = {
    "float16": (lambda x: quicksums.running(x, f16), lambda x: summation.running(x, f16), "float16"),
    "bfloat16": (lambda x: quicksums.running(x, bf16), lambda x: summation.running(x, bf16), "bfloat16"),
    "fma": (lambda x: quicksums.running_fma(x, f16), lambda x: summation.running_fma(x, f16), "float16"),
    "chunked": (lambda x: quicksums.chunked(x, f16), lambda x: summation.chunked(x, f16), "float16"),
    "pairwise": (quicksums.pairwise, summation.pairwise, "float32"),
}


@pytest.mark.parametrize("kind", ["plain", "wide", "special"])
@pytest.mark.parametrize("fmt", INPUTS)
@pytest.mark.parametrize("name", PAIRS)
def test_quick_sums_are_the_readable_ones(name: str, fmt: str, kind: str) -> None:
    """Oracle: ``summation``, bit for bit: signs of zeros, overflow, underflow, infinities, few and many."""
    quick, readable, start = PAIRS[name]
    for shape in SHAPES:
        for size in (1, 7, 16) if name == "chunked" else (0,):
            factors = factors_of(fmt, shape, kind, size, start)
            with np.errstate(all="ignore"):
                assert_same(quick(factors), readable(factors))


ROWS = [(fmt, unit) for rows in UNITS.values() for unit in rows for fmt in unit.formats[:2]]


@pytest.mark.parametrize("kind", ["plain", "wide", "special"])
@pytest.mark.parametrize(("fmt", "unit"), ROWS, ids=str)
def test_quick_units_are_the_readable_ones(fmt: str, unit: Unit, kind: str) -> None:
    """Oracle: ``tensorcore.tensor_core``, bit for bit."""
    for shape in SHAPES:
        factors = factors_of(fmt, shape, kind if fmt != "float4_e2m1fn" else "plain", 0, "float32")
        with np.errstate(all="ignore"):
            assert_same(quickunits.tensor_core(factors, unit), tensorcore.tensor_core(factors, unit))


@pytest.mark.parametrize("kind", ["plain", "wide", "special"])
@pytest.mark.parametrize("fmt", INPUTS)
def test_a_chunk_is_a_running_sum(fmt: str, kind: str) -> None:
    """Oracle: ``summation.running32``, bit for bit: no later rounding hides the order of the terms."""
    for shape in SHAPES:
        factors = factors_of(fmt, shape, kind, shape[2], "float32")
        zero = np.zeros(factors.start.shape, np.float32)
        with np.errstate(all="ignore"):
            for part, most in quicksums._chunks(factors):
                assert_same(quicksums._running32(part, most, zero.copy()), summation.running32(part, zero))


@pytest.mark.parametrize("width", [1, 20])
def test_signs_of_zero(width: int) -> None:
    """Oracle: IEEE 754: -0 + -0 is -0, -0 + +0 is +0, and a chunk starts from +0; few sums and many."""
    a, b = np.full((width, 3), -1.0), np.zeros((3, width))
    for name, expected in (("float16", -0.0), ("float16:fma", -0.0), ("bfloat16", -0.0), ("chunked:2", 0.0)):
        assert_same(matmul(a, b, -0.0, fmt="float16", accumulate=name), np.full((width, width), expected))
        assert_same(matmul(a, b, fmt="float16", accumulate=name), np.zeros((width, width)))
    small = np.full((width, 1), -(2.0**-20))
    got = matmul(small, -small.T, fmt="float16", accumulate="float16:fma")
    assert_same(got, np.full((width, width), -0.0))


def test_long_factors_are_not_rounded_twice() -> None:
    """Oracle: by hand. 1 + 2^-10 plus 2^-11 (1 - 2^-46) lies below a tie, by less than float64 can see."""
    a = np.tile([1 + 2.0**-10, 2.0**-11 * (1 + 2.0**-23)], (20, 1))
    b = np.tile([[1.0], [1 - 2.0**-23]], (1, 20))
    got = matmul(a, b, fmt="float32", accumulate="float16:fma", output="float16")
    assert (got == 1 + 2.0**-10).all()


def test_units_add_their_largest_terms() -> None:
    """Oracle: by hand: whole numbers near 2^31 and beyond, in units of the last place."""
    for name, fmt, factor, terms in (
        ("blackwell", "float8_e4m3fn", 1.875, 32),
        ("hopper", "float16", 2 - 2.0**-10, 16),
        ("ampere", "float16", 2 - 2.0**-10, 8),
        ("volta", "float16", 2 - 2.0**-10, 4),
    ):
        a = np.full((1, terms), factor)
        for sign in (1.0, -1.0):
            got = matmul(a, sign * a.T, fmt=fmt, accumulate=f"tensorcore:{name}", output="float64")
            assert got.item() == sign * terms * factor**2


@pytest.mark.parametrize(("fmt", "unit"), ROWS, ids=str)
def test_tiny_starts_are_cut_where_the_result_ends(fmt: str, unit: Unit) -> None:
    """Oracle: ``tensorcore.tensor_core``, bit for bit: starts down to float32's smallest, few products."""
    random, known = np.random.default_rng(8), formats.get(fmt)
    a, b = draw(fmt, (1, 20, 40), 9, 1), draw(fmt, (1, 40, 21), 10, 1)
    a[random.random(a.shape) < 0.8] = 0.0
    a[:, :5] = 0.0
    c = random.standard_normal((1, 20, 21)) * 2.0 ** random.integers(-150, -90, (1, 20, 21))
    factors = Factors(a, b, formats.round(c, "float32").astype(np.float64), known)
    with np.errstate(all="ignore"):
        assert_same(quickunits.tensor_core(factors, unit), tensorcore.tensor_core(factors, unit))


def test_a_small_last_chunk_may_leave_a_negative_zero() -> None:
    """Oracle: IEEE 754: -2^-40 rounds to -0 in float16; a chunk of zeros after it makes that +0."""
    a, b = np.full((20, 2), -(2.0**-20)), np.full((2, 20), 2.0**-20)
    got = matmul(a, b, fmt="float16", accumulate="chunked:2")
    assert_same(got, np.full((20, 20), -0.0))
    longer = matmul(np.hstack([a, 0 * a]), np.vstack([b, b]), fmt="float16", accumulate="chunked:2")
    assert_same(longer, np.zeros((20, 20)))


def test_a_sum_that_comes_back_from_overflow_does_not() -> None:
    """Oracle: IEEE 754: inf stays although later terms would bring the sum back; inside one block of k."""
    a, b = np.tile([60000.0, 60000.0, -60000.0, -60000.0], (20, 1)), np.ones((4, 20))
    for name in ("float16", "float16:fma", "chunked:1"):
        assert (matmul(a, b, fmt="float16", accumulate=name) == np.inf).all()
    assert (matmul(a, b, fmt="float16", accumulate="chunked:4") == 0).all()


def test_every_half_is_widened_right() -> None:
    """Oracle: NumPy's own cast, all 65,536 codes."""
    codes = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        assert_same(to_float32(codes), codes.astype(np.float32))
        finite = codes[np.isfinite(codes)]
    assert_same(to_float32(finite), finite.astype(np.float32))


def test_the_quantum_divides_every_number() -> None:
    """Law: x / quantum is whole, and the quantum is a power of two at least the format's smallest."""
    x = draw("bfloat16", (500,), 6, 60)
    q = quantum(x, bf16)
    assert np.frexp(q)[0] == 0.5
    assert (x / q == np.round(x / q)).all()
    assert quantum(np.zeros(3), bf16) == np.inf


def test_values_are_checked_piece_by_piece() -> None:
    """Oracle: ``representable``: one stranger among a million is found, wherever the array is cut."""
    x = np.ones((3, 1 << 19))
    assert checked(x, f16, "matmul") is x
    for place in ((0, 0), (1, 77), (2, (1 << 19) - 1)):
        y = x.copy()
        y[place] = 0.1
        for strange in (y, y[::-1]):
            with pytest.raises(FormatError, match=r"0\.1"):
                checked(strange, f16, "matmul")


EVERY = ("exact", *(name.replace(":B", ":16").replace(":S", ":2") for name in formats.ACCUMULATES))


STEPWISE = ("tensorcore", "kahan", "float16:fma")  # a Python step for each few terms of a long sum


@pytest.mark.parametrize("name", EVERY)
def test_extra_memory_does_not_grow_with_the_input(name: str) -> None:
    """Oracle: tracemalloc, beside the result. The factors in float64 would be 64 MiB; blocks are less."""
    bits = np.random.default_rng(7).integers(0x3000, 0x3C00, 1 << 23, dtype=np.uint16)
    x = bits.view(ml_dtypes.bfloat16 if name == "bfloat16" else np.float16)
    length = 1 << 12 if name.startswith(STEPWISE) else 1 << 20
    for a in (x.reshape(-1, 64), x[: 8 * length].reshape(8, length)):
        b = np.ones((a.shape[1], 4), a.dtype)
        tracemalloc.start()
        try:
            result = matmul(a, b, fmt=a.dtype, accumulate=name)
            extra = tracemalloc.get_traced_memory()[1] - result.nbytes
        finally:
            tracemalloc.stop()
        assert extra < 24 << 20
