"""Matrix products by the name of their accumulation, against plain loops and exact fractions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from minimp import formats
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.formats import matmul, parse_accumulate
from minimp.formats.exact import round_fraction
from tests.formats.accumulation.products import INPUTS, K, M, N, by_loops, draw
from tests.formats.oracle import assert_same

f16, f32, bf16 = np.float16, np.float32, ml_dtypes.bfloat16


def running_float32(x: np.ndarray, y: np.ndarray, start: float) -> np.float32:
    """Sum in scalars: each product and each sum a NumPy float32."""
    total = f32(start)
    for left, right in zip(x, y, strict=True):
        total = total + f32(left) * f32(right)
    return total


def running_float16(x: np.ndarray, y: np.ndarray, start: float) -> np.float16:
    """Sum in scalars: the product exact in float64, rounded by NumPy; the sum NumPy's float16 addition."""
    total = f16(start)
    for left, right in zip(x, y, strict=True):
        total = total + np.float64(left * right).astype(f16)
    return total


def running_bfloat16(x: np.ndarray, y: np.ndarray, start: float) -> np.float32:
    """Sum in scalars: every result the nearest bfloat16 of the exact fraction."""
    total = float(start)
    for left, right in zip(x, y, strict=True):
        product = round_fraction(Fraction(left) * Fraction(right), "bfloat16")
        total = round_fraction(Fraction(total) + Fraction(product), "bfloat16")
    return f32(total)


def running_fma(x: np.ndarray, y: np.ndarray, start: float) -> float:
    """Sum in scalars: the exact sum and product, rounded once to float16."""
    total = float(start)
    for left, right in zip(x, y, strict=True):
        if math.isinf(total):
            return total
        total = round_fraction(Fraction(total) + Fraction(left) * Fraction(right), "float16")
    return total


def chunks_of(size: int) -> Callable:
    """Sum in scalars: float32 inside a chunk, the exact sum with the chunk rounded once to float16."""

    def dot(x: np.ndarray, y: np.ndarray, start: float) -> float:
        total = float(start)
        for first in range(0, len(x), size):
            chunk = running_float32(x[first : first + size], y[first : first + size], 0.0)
            if math.isinf(total):
                return total
            total = round_fraction(Fraction(total) + Fraction(float(chunk)), "float16")
        return total

    return dot


def split_in(parts: int) -> Callable:
    """Sum in scalars: runs of ceil(K / parts), their sums added first to last."""

    def dot(x: np.ndarray, y: np.ndarray, start: float) -> np.float32:
        size = -(-len(x) // parts)
        total = running_float32(x[:size], y[:size], start)
        for first in range(size, len(x), size):
            total = total + running_float32(x[first : first + size], y[first : first + size], 0.0)
        return total

    return dot


def tree(x: np.ndarray, y: np.ndarray, start: float) -> np.float32:
    """Sum in scalars: neighbours are added in rounds until one number is left; an odd one out moves up."""
    level = [f32(left) * f32(right) for left, right in zip(x, y, strict=True)]
    while len(level) > 1:
        pairs = [level[i] + level[i + 1] for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0] + f32(start)


def compensated(x: np.ndarray, y: np.ndarray, start: float) -> np.float32:
    """Sum in scalars: Kahan 1965, as printed."""
    total, lost = f32(start), f32(0)
    for left, right in zip(x, y, strict=True):
        term = f32(left) * f32(right) - lost
        bigger = total + term
        lost = (bigger - total) - term
        total = bigger
    return total


LOOPS = {
    "float32:sequential": running_float32,
    "float16": running_float16,
    "float16:fma": running_fma,
    "bfloat16": running_bfloat16,
    "chunked:1": chunks_of(1),
    "chunked:8": chunks_of(8),
    "chunked:100": chunks_of(100),
    "pairwise": tree,
    "kahan": compensated,
    "splitk:1": split_in(1),
    "splitk:4": split_in(4),
    "splitk:37": split_in(37),
    "splitk:99": split_in(99),
}


@pytest.mark.parametrize("with_c", [False, True], ids=["plain", "with c"])
@pytest.mark.parametrize("fmt", INPUTS)
@pytest.mark.parametrize("name", LOOPS)
def test_orders_are_those_of_plain_loops(name: str, fmt: str, with_c: bool) -> None:
    """Oracle: loops over scalars in NumPy's float32 and float16, or in fractions rounded once a step."""
    a, b = draw(fmt, (M, K), 1), draw(fmt, (K, N), 2)
    wide = str(parse_accumulate(name).format)
    c = draw(wide, (M, N), 3) if with_c else np.zeros((M, N))
    with np.errstate(over="ignore"):  # int8 products fill float16 soon
        expected = by_loops(a, b, c, LOOPS[name])
    got = matmul(a, b, c if with_c else None, fmt=fmt, accumulate=name, output="float32")
    assert got.dtype == np.float64
    assert_same(got, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 8, 64, 100])
def test_the_tree_at_any_length(size: int) -> None:
    """Oracle: the tree built round by round."""
    a, b, c = draw("float16", (2, size), 4), draw("float16", (size, 3), 5), np.zeros((2, 3))
    assert_same(matmul(a, b, fmt="float16", accumulate="pairwise", output="float32"), by_loops(a, b, c, tree))


def test_bfloat16_running_sum_is_ml_dtypes() -> None:
    """Oracle: ml_dtypes' bfloat16 scalars, which multiply and add with one rounding each."""
    a, b = draw("bfloat16", (M, K), 6), draw("bfloat16", (K, N), 7)

    def dot(x: np.ndarray, y: np.ndarray, start: float) -> float:
        total = bf16(start)
        for left, right in zip(x, y, strict=True):
            total = bf16(total + bf16(left) * bf16(right))
        return float(total)

    got = matmul(a, b, fmt="bfloat16", accumulate="bfloat16")
    assert_same(got, by_loops(a, b, np.zeros((M, N)), dot))


@pytest.mark.parametrize(
    "name", ["float32", "float32:sequential", "pairwise", "kahan", "splitk:4", "float64"]
)
@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float32"])
def test_sums_stay_within_their_bound(name: str, fmt: str) -> None:
    """Law (Higham 2002, 3.1): |s - sum| <= gamma_(K+1) sum |a||b|, against math.fsum."""
    a, b = draw(fmt, (M, 500), 8), draw(fmt, (500, N), 9)
    got = matmul(a, b, fmt=fmt, accumulate=name, output="float64")
    unit = 2.0**-53 if name == "float64" else 2.0**-24
    gamma = 501 * unit / (1 - 501 * unit)
    exact = by_loops(a, b, np.zeros((M, N)), lambda x, y, _: math.fsum(x * y))  # x * y is exact in float64
    assert (np.abs(got - exact) <= gamma * (np.abs(a) @ np.abs(b))).all()
    if name == "kahan" and fmt != "float32":  # Higham 2002, 4.3: 2u whatever K; the products are exact here
        assert (np.abs(got - exact) <= (2 * unit + 500 * unit**2 * 2) * (np.abs(a) @ np.abs(b))).all()


# --- the lessons --------------------------------------------------------------------------------------------


def test_small_running_sums_stagnate() -> None:
    """Oracle: by hand. 2048 + 1 is 2048 in float16, 256 + 1 is 256 in bfloat16."""
    ones = np.ones((1, 4096))
    expected = {
        "float16": 2048,
        "float16:fma": 2048,
        "bfloat16": 256,
        "chunked:64": 4096,
        "float32": 4096,
        "kahan": 4096,
        "exact": 4096,
    }
    for name, total in expected.items():
        fmt = "bfloat16" if name == "bfloat16" else "float16"
        assert matmul(ones, ones.T, fmt=fmt, accumulate=name, output="float32").item() == total


def test_fma_and_product_rounding_differ() -> None:
    """Oracle: by hand. (1 + 2^-10)^2 = 1 + 2^-9 + 2^-20; the product alone rounds the last bit away."""
    x = 1 + 2.0**-10
    a, b = np.array([[1.0, x]]), np.array([[-(1 + 2.0**-9)], [x]])
    assert matmul(a, b, fmt="float16", accumulate="float16:fma").item() == 2.0**-20
    assert matmul(a, b, fmt="float16", accumulate="float16").item() == 0.0


def test_a_fused_product_breaks_a_tie_that_float64_cannot_see() -> None:
    """Oracle: by hand. 1 + 2^-10 plus 2^-11 (1 - 2^-46) lies below the tie by 2^-57, and rounds down."""
    a = np.array([[1 + 2.0**-10, 2.0**-11 * (1 + 2.0**-23)]])
    b = np.array([[1.0], [1 - 2.0**-23]])
    got = matmul(a, b, fmt="float32", accumulate="float16:fma", output="float16").item()
    assert got == 1 + 2.0**-10


def test_overflow_in_a_running_sum_stays() -> None:
    """Oracle: IEEE 754: inf + finite is inf, inf - inf is NaN; float32 and kahan do not overflow here."""
    a = np.array([[60000.0, 60000.0, -60000.0]])
    ones = np.ones((3, 1))
    for name in ("float16", "float16:fma", "chunked:1"):
        assert matmul(a, ones, fmt="float16", accumulate=name).item() == np.inf
    for name in ("float32", "kahan", "exact", "chunked:3", "tensorcore:ampere"):
        assert matmul(a, ones, fmt="float16", accumulate=name).item() == 60000.0
    for name in ("float32:sequential", "kahan", "pairwise", "float16", "exact", "tensorcore:hopper"):
        special = matmul(
            [[np.inf, 1.0], [np.inf, -np.inf], [np.nan, 0.0]], [[1.0], [1.0]], fmt="float16", accumulate=name
        )
        assert_same(special[:, 0], np.array([np.inf, np.nan, np.nan]))


# --- shapes, names, settings --------------------------------------------------------------------------------

EVERY = ("exact", *(name.replace(":B", ":4").replace(":S", ":2") for name in formats.ACCUMULATES))


@pytest.mark.parametrize("name", EVERY)
def test_leading_axes_broadcast(name: str) -> None:
    """Oracle: the same product, one matrix at a time."""
    a, b, c = (
        draw("float16", (2, 1, M, 9), 16),
        draw("float16", (3, 9, N), 17),
        draw("float8_e4m3fn", (N,), 18),
    )  # also in bfloat16
    got = matmul(a, b, c, fmt="float16", accumulate=name)
    assert got.shape == (2, 3, M, N)
    for i in range(2):
        for j in range(3):
            assert_same(got[i, j], matmul(a[i, 0], b[j], c, fmt="float16", accumulate=name))


@pytest.mark.parametrize("name", EVERY)
def test_large_products_are_those_of_their_parts(name: str) -> None:
    """Oracle: the same product, in four pieces; large planes are worked off a few rows at a time inside."""
    a, b, c = (
        draw("float16", (300, 9), 21),
        draw("float16", (9, 250), 22),
        draw("float8_e4m3fn", (300, 1), 23),
    )
    got = matmul(a, b, c, fmt="float16", accumulate=name)
    for rows in (slice(0, 111), slice(111, 300)):
        for columns in (slice(0, 7), slice(7, 250)):
            part = matmul(a[rows], b[:, columns], c[rows], fmt="float16", accumulate=name)
            if name in ("float32", "float64"):  # BLAS may choose another order for another shape
                close = np.abs(got[rows, columns] - part) <= formats.ulp(part, "float16")
                assert close.all()
            else:
                assert_same(got[rows, columns], part)


@pytest.mark.parametrize("name", EVERY)
def test_empty_sums(name: str) -> None:
    """Oracle: a sum of nothing is +0, or c."""
    a, b = np.zeros((2, 0)), np.zeros((0, 3))
    assert_same(matmul(a, b, fmt="float16", accumulate=name), np.zeros((2, 3)))
    assert_same(matmul(a, b, 1.5, fmt="float16", accumulate=name), np.full((2, 3), 1.5))
    assert matmul(np.zeros((0, 4)), np.zeros((4, 3)), fmt="float16", accumulate=name).shape == (0, 3)


@pytest.mark.parametrize("name", EVERY)
def test_the_output_format(name: str) -> None:
    """Oracle: 3 · 1.0625 = 3.1875 in float16 (the inputs' format is the default), 3.25 in float8_e4m3fn."""
    a, b = [[1.0, 1.0, 1.0]], [[1.0625]] * 3
    assert matmul(a, b, fmt="float16", accumulate=name).item() == 3.1875
    assert matmul(a, b, fmt="float16", accumulate=name, output="float8_e4m3fn").item() == 3.25
    assert matmul([[240.0]], [[240.0]], fmt="float16", accumulate=name, output="int8").item() == 127.0


def test_integers_multiply_exactly() -> None:
    """Oracle: NumPy's int64 product."""
    a, b = draw("int8", (M, 200), 19), draw("int8", (200, N), 20)
    expected = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.float64)
    assert_same(matmul(a, b, fmt="int8", accumulate="float32", output="float64"), expected)


@pytest.mark.parametrize(
    ("name", "order", "fmt", "size"),
    [
        ("float32", "float32", "float32", None),
        ("float16:fma", "float16:fma", "float16", None),
        ("chunked:32", "chunked:B", "float16", 32),
        ("splitk:4", "splitk:S", "float32", 4),
        ("exact", "exact", "float64", None),
        ("tensorcore:ada", "tensorcore:ada", "float32", None),
    ],
)
def test_names_are_parsed(name: str, order: str, fmt: str, size: int | None) -> None:
    """Oracle: the table; one name gives one record."""
    how = parse_accumulate(name)
    assert (how.name, how.order, how.format, how.size) == (name, order, formats.get(fmt), size)
    assert parse_accumulate(name) is how


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("float23", "did you mean 'float32'"),
        ("float32:sequentiel", "did you mean 'float32:sequential'"),
        ("chunked", "did you mean 'chunked:B'"),
        ("chunked:B", "unknown accumulation"),
        ("chunked:0", "positive whole number"),
        ("splitk:-1", "positive whole number"),
        ("splitk:1.5", "positive whole number"),
        ("chunked:", "positive whole number"),
        ("tensorcore:pascal", "unknown accumulation"),
        ("tensorcore:hoper", "did you mean 'tensorcore:hopper'"),
        ("kahan:2", "unknown accumulation"),
        ("", "unknown accumulation"),
    ],
)
def test_unknown_names_are_refused(wrong: str, said: str) -> None:
    """Oracle: the message offers the nearest name."""
    with pytest.raises(SettingError, match=said):
        matmul([[1.0]], [[1.0]], fmt="float16", accumulate=wrong)


@pytest.mark.parametrize(
    ("a", "b", "c"),
    [
        ((2, 3), (2, 3), ()),
        ((3,), (3, 2), ()),
        ((2, 3), (3,), ()),
        ((2, 4, 3), (3, 3, 2), ()),
        ((2, 3), (3, 4), (5,)),
        ((2, 3), (3, 4), (7, 2, 4)),
    ],
)
def test_shapes_are_checked(a: tuple, b: tuple, c: tuple) -> None:
    """Oracle: the error carries the shapes that came."""
    with pytest.raises(ShapeError) as caught:
        matmul(np.zeros(a), np.zeros(b), np.zeros(c), fmt="float16")
    assert caught.value.shapes == (a, b, c)


def test_values_are_checked() -> None:
    """Oracle: 0.1 is in no binary format; 1/1024 beside 1 is not in bfloat16; 2^-30 is no float16 start."""
    with pytest.raises(FormatError, match="float16"):
        matmul([[0.1]], [[1.0]], fmt="float16")
    with pytest.raises(FormatError, match="bfloat16"):
        matmul([[1.0]], [[1 + 2.0**-10]], fmt="bfloat16")
    with pytest.raises(FormatError, match="float16"):
        matmul([[1.0]], [[1.0]], 2.0**-30, fmt="float16", accumulate="float16")
    with pytest.raises(FormatError, match="float4_e2m1fn has no NaN"):
        matmul([[np.inf]], [[0.0]], fmt="float16", output="float4_e2m1fn")


@pytest.mark.parametrize("name", [each for each in EVERY if each not in ("float64", "exact")])
def test_float64_needs_a_float64_sum(name: str) -> None:
    """Oracle: the message names both formats."""
    with pytest.raises(SettingError, match="cannot hold float64 factors"):
        matmul([[1.0]], [[1.0]], fmt="float64", accumulate=name)
