"""Products by BLAS in a stated order: bits of the running sum, and what the trial refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from minimp import formats
from minimp.formats import matmul
from minimp.formats.accumulation import ordered, quicksums, summation
from minimp.formats.accumulation.operands import Factors
from minimp.formats.accumulation.ordered import ordered_product
from tests.formats.accumulation.test_quick_sums import factors_of
from tests.formats.oracle import assert_same

f16 = formats.float16
SHAPES = (
    (128, 16, 256),
    (128, 4, 64),
    (131, 5, 67),
    (100, 16, 48),
    (64, 33, 64),
    (60, 128, 90),
    (16, 7, 300),
)
BATCHES = ((1, 128, 70, 64), (1, 67, 64, 256), (3, 65, 40, 66), (1, 20, 33, 300))


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    ordered._find.cache_clear()
    yield
    ordered._find.cache_clear()


def in_order(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply as a BLAS does whose kernels all keep the order."""
    out[...] = 0
    for k in range(len(b)):
        out += a[:, k, None] * b[k]
    return out


def last_first(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply with k descending."""
    return in_order(a[:, ::-1], b[::-1], out)


def two_sums(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply with a sum of every second k each."""
    other = in_order(a[:, 1::2], b[1::2], np.empty_like(out))
    return np.add(in_order(a[:, ::2], b[::2], out), other, out=out)


def wide(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply in float64, rounded once."""
    out[...] = a.astype(np.float64) @ b.astype(np.float64)
    return out


def flushed(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply in order; subnormal sums become zero."""
    in_order(a, b, out)[np.abs(out) < 2.0**-126] = 0
    return out


def corner(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply in order, but for a rest of two rows and two columns."""
    right = in_order(a, b, out)[:-2, :-2].copy()
    last_first(a, b, out)[:-2, :-2] = right
    return out


def some_rows(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply in order in rows 6 to 11 of every 12."""
    right = in_order(a, b, out).copy()
    last_first(a, b, out)
    good = np.arange(len(a)) % 12 >= 6
    out[good] = right[good]
    return out


def from_first(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Multiply in order, the first product being no addition."""
    np.multiply(a[:, 0, None], b[0], out=out)
    for k in range(1, len(b)):
        out += a[:, k, None] * b[k]
    return out


def fake(monkeypatch: pytest.MonkeyPatch, multiply: Callable) -> None:
    """Put another BLAS in place."""

    def instead(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return multiply(a, b, np.empty((len(a), b.shape[1]), np.float32) if out is None else out)

    monkeypatch.setattr(ordered, "_multiply", instead)


def halves(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw float16 values over some binades."""
    random, (height, length, width) = np.random.default_rng(seed), shape
    a, b = random.standard_normal((height, length)), random.standard_normal((length, width))
    a *= 2.0 ** random.integers(-20, 4, a.shape)
    return a.astype(np.float16).astype(np.float32), b.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_whatever_is_trusted_sums_in_order(shape: tuple[int, int, int]) -> None:
    """Oracle: ``summation.running32``, bit for bit, with this machine's BLAS, on data it was not tried on.

    A shape that this BLAS sums in another order is not trusted; then there is nothing to compare.
    """
    product, (height, _, width) = ordered_product(*shape), shape
    for seed in range(5) if product else ():
        a, b = halves(shape, seed)
        a[3] = -0.0
        zero = np.zeros((1, height, width), np.float32)
        expected = summation.running32(Factors(a[None], b[None], zero.astype(np.float64), f16), zero)[0]
        assert_same(product.product(a, b) + np.float32(0), expected)


@pytest.mark.parametrize("kind", ["plain", "wide", "special"])
@pytest.mark.parametrize(
    "blas", [None, in_order, some_rows, from_first], ids=lambda each: each and each.__name__
)
def test_chunks_by_blas_are_the_readable_ones(
    blas: Callable | None, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: ``summation.chunked``, bit for bit: batches, overflow, infinities, NaN and zeros, any BLAS."""
    if blas:
        fake(monkeypatch, blas)
    for fmt in ("float16", "bfloat16", "float8_e4m3fn", "float32"):
        for shape in BATCHES:
            for size in (5, 16, 64):
                factors = factors_of(fmt, shape, kind, size, "float16")
                with np.errstate(all="ignore"):
                    assert_same(quicksums.chunked(factors, f16), summation.chunked(factors, f16))


@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
def test_small_and_large_factors(fmt: str) -> None:
    """Oracle: ``summation.chunked``, bit for bit: underflow and overflow inside and between the chunks."""
    for power in (-70, -20, -12, 7, 9, 60):
        if fmt == "float16" and not -24 <= power <= 9:
            continue
        factors = factors_of(fmt, (1, 64, 40, 65), "wide", 16, "float16")
        scaled = formats.round(factors.a * 2.0**power, fmt)
        factors = replace(factors, a=np.clip(scaled, -60000 * 2.0**40, 60000 * 2.0**40))
        with np.errstate(all="ignore"):
            assert_same(quicksums.chunked(factors, f16), summation.chunked(factors, f16))


@pytest.mark.parametrize("blas", [last_first, two_sums, wide, flushed], ids=lambda each: each.__name__)
def test_other_orders_are_refused(blas: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: a BLAS made to sum in another way, or to flush."""
    fake(monkeypatch, blas)
    for shape in ((128, 16, 64), (70, 5, 71), (64, 64, 64)):
        assert ordered_product(*shape) is None
    a, b = halves((128, 40, 64), 1)
    got = matmul(a, b, fmt="float16", accumulate="chunked:20", output="float32")
    factors = Factors(a[None], b[None], np.zeros((1, 128, 64)), f16, 20)
    assert_same(got, summation.chunked(factors, f16)[0])


def test_blas_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: one product a chunk and one trial for each length, of a matrix and of a batch."""
    calls = []

    def counted(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
        calls.append(b.shape)
        return in_order(a, b, out)

    fake(monkeypatch, counted)
    for batch, count in (((), 5), ((2,), 8)):
        a, b = np.ones((*batch, 70, 40), np.float16), np.ones((*batch, 40, 66), np.float16)
        for _ in range(2):
            calls.clear()
            assert (matmul(a, b, fmt="float16", accumulate="chunked:16") == 40).all()
        assert calls.count((16, 66)) + calls.count((8, 66)) == len(calls) == count
    calls.clear()
    matmul(a.astype(np.float32), b.astype(np.float32), fmt="float32", accumulate="chunked:16")
    assert len(calls) == 2  # the trials: products of float32 are not exact


def test_good_rows_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: rows 6 to 11 of every 12 are in order; the product is put there, twice as high."""
    fake(monkeypatch, some_rows)
    product = ordered_product(128, 16, 64)
    assert product is not None
    assert product.places is not None
    assert product.rows == 264
    assert (product.places % 12 >= 6).all()
    fake(monkeypatch, in_order)
    ordered._find.cache_clear()
    plain = ordered_product(128, 16, 64)
    assert plain is not None
    assert plain.places is None


def test_bad_rests_are_framed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: the last rows and columns are out of order, so that zeros go there."""
    fake(monkeypatch, corner)
    product = ordered_product(130, 16, 64)
    assert product is not None
    assert (product.rows, product.margin) == (132, 8)
    a, b = halves((130, 16, 64), 3)
    expected = in_order(a, b, np.empty((130, 64), np.float32))
    assert_same(product.product(a, b) + np.float32(0), expected)
    assert ordered_product(132, 16, 64) is None


def test_a_blas_that_changes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: an order kept when a shape was tried, and no longer, as with other threads."""
    fake(monkeypatch, in_order)
    assert ordered_product(128, 16, 64) is not None
    fake(monkeypatch, corner)
    assert ordered_product(128, 16, 64) is None
    fake(monkeypatch, in_order)
    ordered._find.cache_clear()
    a, b = halves((128, 32, 64), 2)
    right = matmul(a, b, fmt="float16", accumulate="chunked:16")
    fake(monkeypatch, last_first)
    assert_same(matmul(a, b, fmt="float16", accumulate="chunked:16"), right)


def test_zero_sums_are_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: IEEE 754: a sum that starts from +0 is never -0, though all its products are."""
    fake(monkeypatch, from_first)
    assert ordered_product(128, 16, 64) is not None
    for length in (16, 32, 40):
        a, b = np.full((128, length), -0.0), np.ones((length, 64))
        sums = matmul(a, b, np.full((128, 64), -0.0), fmt="float16", accumulate="chunked:16")
        assert_same(sums, np.zeros((128, 64)))


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: the bytes of all trials kept, after more shapes than there is room for."""
    for blas in (in_order, some_rows):
        fake(monkeypatch, blas)
        ordered._find.cache_clear()
        kept = [ordered_product(128, length, 256) for length in range(8, 20)]
        assert ordered._find.cache_info().currsize == ordered._SHAPES
        for each in kept:
            assert each is not None
            places = 0 if each.places is None else each.places.nbytes
            assert each.a.nbytes + each.b.nbytes + each.sums.nbytes + places <= 1 << 19
    assert ordered_product(1 << 10, 16, 1 << 10) is None
    assert ordered_product(8, 16, 1 << 12) is None
