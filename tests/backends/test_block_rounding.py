"""The block-wise casts. Oracle: the plain casts (NumPy's float16, ml_dtypes' bfloat16), bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minimp.errors import FormatError, ShapeError
from minimp_backends import block_rounding, plain_casts
from tests.backends.cast_samples import (
    ALL_CODES,
    BFLOAT16,
    assert_same_bits,
    bfloat16_boundaries,
    float16_boundaries,
    random_words,
)

BLOCK, SMALL = block_rounding.BLOCK, block_rounding.SMALL
SIZES = (0, 1, 2, SMALL - 1, SMALL, SMALL + 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + SMALL + 3)
UNDER_LIMIT = 127 + 14  # the exponent field of the binade below 2^15


def check_narrow_float16(wide: NDArray[Any]) -> None:
    """Hold every way into float16 to the plain cast; leave ``wide`` as it was."""
    expected, expected_grid = np.empty(wide.shape, np.float16), np.empty(wide.shape, np.float32)
    plain_casts.narrow_float16(wide, expected, expected_grid)
    for with_grid in (False, True):
        half, grid = np.empty_like(expected), np.empty_like(expected_grid) if with_grid else None
        block_rounding.narrow_float16(wide, half, grid)
        assert_same_bits(half, expected, wide)
        if grid is not None:
            assert_same_bits(grid, expected_grid, wide)
    grid = np.empty_like(expected_grid)
    block_rounding.round_to_float16_grid(wide, grid)
    assert_same_bits(grid, expected_grid, wide)
    in_place, half = wide.copy(), np.empty_like(expected)
    block_rounding.narrow_float16(in_place, half, in_place)
    assert_same_bits(half, expected, wide)
    assert_same_bits(in_place, expected_grid, wide)
    in_place = wide.copy()
    block_rounding.round_to_float16_grid(in_place, in_place)
    assert_same_bits(in_place, expected_grid, wide)


def check_widen_float16(half: NDArray[Any]) -> None:
    """Hold the way out of float16 to the plain cast."""
    expected, wide = np.empty(half.shape, np.float32), np.empty(half.shape, np.float32)
    plain_casts.widen_float16(half, expected)
    block_rounding.widen_float16(half, wide)
    assert_same_bits(wide, expected, half)


def check_bfloat16(wide: NDArray[Any]) -> None:
    """Hold both ways of bfloat16 to the plain cast."""
    expected, expected_grid = np.empty(wide.shape, BFLOAT16), np.empty(wide.shape, np.float32)
    plain_casts.narrow_bfloat16(wide, expected, expected_grid)
    low, grid, back = np.empty_like(expected), np.empty_like(expected_grid), np.empty_like(expected_grid)
    block_rounding.narrow_bfloat16(wide, low)
    assert_same_bits(low, expected, wide)
    block_rounding.narrow_bfloat16(wide, low, grid)
    assert_same_bits(low, expected, wide)
    assert_same_bits(grid, expected_grid, wide)
    block_rounding.widen_bfloat16(low, back)
    assert_same_bits(back, expected_grid, wide)
    in_place = wide.copy()
    block_rounding.narrow_bfloat16(in_place, low, in_place)
    assert_same_bits(in_place, expected_grid, wide)


class Spy:
    """Counts the blocks that a fast kernel did, and those that it handed back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.fast = self.handed_back = 0
        self._kernel: Callable[..., bool] = getattr(block_rounding, name)
        monkeypatch.setattr(block_rounding, name, self)

    def __call__(self, *args: Any) -> bool:
        """Run the kernel and count."""
        done = self._kernel(*args)
        self.fast += done
        self.handed_back += not done
        return done


def test_every_half_midpoint_and_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: plain cast, on every value where the rounding could turn; most blocks go the fast way."""
    spy = Spy(monkeypatch, "_round_block")
    check_narrow_float16(float16_boundaries())
    assert spy.fast > spy.handed_back > 0


def test_every_bfloat16_midpoint_and_neighbour() -> None:
    """Oracle: plain cast (ml_dtypes), on every value where the rounding could turn."""
    check_bfloat16(bfloat16_boundaries())


def test_random_patterns_take_both_routes(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Oracle: plain cast, on 2^22 bit patterns: half of the blocks without large values, half with any."""
    spy = Spy(monkeypatch, "_round_block")
    tame = random_words(rng, 1 << 21, top_exponent=UNDER_LIMIT).reshape(-1, BLOCK)
    wild = random_words(rng, 1 << 21).reshape(-1, BLOCK)
    check_narrow_float16(np.stack([tame, wild], axis=1))
    assert spy.fast == spy.handed_back == 5 * (1 << 21) // BLOCK  # five casts in a check


def test_random_patterns_in_the_float16_range(rng: np.random.Generator) -> None:
    """Oracle: plain cast, on 2^21 patterns whose exponents float16 resolves (random words seldom do)."""
    exponents = rng.integers(127 - 27, 127 + 15, 1 << 21, dtype=np.uint32)
    words = (rng.integers(0, 1 << 32, 1 << 21, dtype=np.uint32) & np.uint32(0x807FFFFF)) | (exponents << 23)
    check_narrow_float16(words.view(np.float32))


def test_random_patterns_bfloat16(rng: np.random.Generator) -> None:
    """Oracle: plain cast (ml_dtypes), on 2^20 bit patterns."""
    check_bfloat16(random_words(rng, 1 << 20))


def test_every_half_widens_by_both_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: plain cast, all 65,536 codes: finite ones the fast way, the others the plain way."""
    spy = Spy(monkeypatch, "_decode_block")
    finite = ALL_CODES[(ALL_CODES & 0x7C00) != 0x7C00].view(np.float16)
    check_widen_float16(finite)
    assert (spy.fast, spy.handed_back) == (1, 0)
    check_widen_float16(ALL_CODES.view(np.float16))
    check_widen_float16(np.append(finite, np.float16("-inf")))
    assert (spy.fast, spy.handed_back) == (1, 2)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_around_the_block_edges(size: int, rng: np.random.Generator) -> None:
    """Oracle: plain cast; a block too short, too long or left out shows at these sizes."""
    wide = random_words(rng, size, top_exponent=UNDER_LIMIT)
    check_narrow_float16(wide)
    check_bfloat16(wide)
    half = np.empty(size, np.float16)
    plain_casts.narrow_float16(wide, half)
    check_widen_float16(half)


@pytest.mark.parametrize("special", [32768.0, 65519.996, 65520.0, -65536.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK - 1])
def test_one_large_value_disturbs_nothing_else(
    special: float, place: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: plain cast; the block of a value that the magic cannot round goes the plain way, alone."""
    wide = (rng.standard_normal(2 * BLOCK) * 1e-4).astype(np.float32)
    wide[place] = special
    spy = Spy(monkeypatch, "_round_block")
    check_narrow_float16(wide)
    assert spy.fast == spy.handed_back == 5
    half = np.empty(wide.shape, np.float16)
    plain_casts.narrow_float16(wide, half)
    check_widen_float16(half)


LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "transposed": lambda a: a.T,
    "every second column": lambda a: a[:, ::2],
    "reversed": lambda a: a[::-1],
    "axes moved": lambda a: np.moveaxis(a.reshape(8, -1, 3), 2, 0),
    "one row broadcast": lambda a: np.broadcast_to(a[0], a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, rng: np.random.Generator) -> None:
    """Oracle: plain cast of the same view, into targets in C order, in the view's order, and strided."""
    view = LAYOUTS[layout]
    base = random_words(rng, 96 * BLOCK // 32, top_exponent=UNDER_LIMIT).reshape(96, -1)
    wide = view(base)
    check_narrow_float16(wide)
    check_bfloat16(wide)
    expected = np.empty(wide.shape, np.float16)
    plain_casts.narrow_float16(wide, expected)
    check_widen_float16(view(base.astype(np.float16)))
    for order in ("C", "F"):
        half = np.empty(wide.shape, np.float16, order=order)
        block_rounding.narrow_float16(wide, half)
        assert_same_bits(half, expected, wide)
    room = np.zeros((*wide.shape, 2), np.float16)
    block_rounding.narrow_float16(wide, room[..., 0])
    assert_same_bits(room[..., 0], expected, wide)
    assert not room[..., 1].any()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1)])
def test_empty_and_scalar_shapes(shape: tuple[int, ...]) -> None:
    """Oracle: plain cast."""
    check_narrow_float16(np.full(shape, -1.0009765, np.float32))
    check_bfloat16(np.full(shape, -1.01, np.float32))
    check_widen_float16(np.full(shape, -0.1, np.float16))


def test_casts_do_not_heed_errstate(rng: np.random.Generator) -> None:
    """An overflow is a result: no warning, no error, whatever the caller's errstate, on either route."""
    for size in (16, 2 * BLOCK):
        wide = random_words(rng, size)
        wide[:4] = (1e6, 1e-9, np.inf, np.nan)
        with np.errstate(all="raise"):
            check_narrow_float16(wide)
            check_bfloat16(wide)


def test_threads_have_their_own_scratch(rng: np.random.Generator) -> None:
    """Oracle: plain cast; four threads cast different arrays at the same time."""
    arrays = [random_words(rng, 8 * BLOCK, top_exponent=UNDER_LIMIT) for _ in range(4)]
    failures: list[BaseException] = []

    def work(wide: NDArray[Any]) -> None:
        try:
            check_narrow_float16(wide)
        except BaseException as error:  # noqa: BLE001, RUF100 - carried to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(each,)) for each in arrays]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failures, failures[0]


@pytest.mark.torch
def test_flushed_subnormals_change_nothing() -> None:
    """Oracle: plain cast, with the processor set to flush subnormals (torch.set_flush_denormal)."""
    torch = pytest.importorskip("torch")
    wide = float16_boundaries()
    expected, expected_grid = np.empty(wide.shape, np.float16), np.empty(wide.shape, np.float32)
    plain_casts.narrow_float16(wide, expected, expected_grid)
    half, grid, back = np.empty_like(expected), np.empty_like(expected_grid), np.empty_like(expected_grid)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        flushes = block_rounding._flushes_subnormals()
        block_rounding.narrow_float16(wide, half, grid)
        block_rounding.widen_float16(half, back)
    finally:
        torch.set_flush_denormal(False)
    assert flushes
    assert not block_rounding._flushes_subnormals()
    for actual, wanted in ((half, expected), (grid, expected_grid), (back, expected_grid)):
        assert_same_bits(actual, wanted, wide)


@pytest.mark.parametrize(
    ("kernel", "arguments", "error"),
    [
        ("narrow_float16", ("f8", "f2"), FormatError),
        ("narrow_float16", (">f4", "f2"), FormatError),
        ("narrow_float16", ("f4", "f4"), FormatError),
        ("narrow_float16", ("f4", "f2", "f8"), FormatError),
        ("widen_float16", ("f4", "f4"), FormatError),
        ("round_to_float16_grid", ("f4", "f2"), FormatError),
        ("narrow_bfloat16", ("f4", "f2"), FormatError),
    ],
)
def test_wrong_dtypes_are_refused(kernel: str, arguments: tuple[str, ...], error: type[Exception]) -> None:
    """The message names the kernel and the dtypes that came."""
    for size in (4, 2 * BLOCK):
        with pytest.raises(error, match=kernel):
            getattr(block_rounding, kernel)(*(np.zeros(size, each) for each in arguments))


def test_shapes_never_broadcast() -> None:
    """A row into a matrix is a mistake, not a broadcast."""
    wide, row = np.zeros((4, 4), np.float32), np.zeros(4, np.float16)
    with pytest.raises(ShapeError, match=r"\(4,\).*\(4, 4\)"):
        block_rounding.widen_float16(row, wide)
    with pytest.raises(ShapeError, match="grid"):
        block_rounding.narrow_float16(wide, wide.astype(np.float16), np.zeros((2, 4, 4), np.float32))


def exact_round(wide64: NDArray[np.float64], mantissa_bits: int, lowest: int) -> NDArray[np.float64]:
    """Round to nearest, ties to even, by rint on exact multiples of each value's quantum; no overflow."""
    exponent = np.maximum(np.frexp(wide64)[1] - 1, lowest)
    quantum = np.ldexp(1.0, exponent - mantissa_bits)
    rounded: NDArray[np.float64] = np.rint(wide64 / quantum) * quantum
    return rounded


@pytest.mark.parametrize(
    ("name", "dtype", "mantissa_bits", "lowest", "infinity"),
    [
        ("float16", np.dtype(np.float16), 10, -14, 2.0**16),
        ("bfloat16", BFLOAT16, 7, -126, 2.0**128),
    ],
)
def test_float64_is_rounded_once(
    name: str, dtype: np.dtype[Any], mantissa_bits: int, lowest: int, infinity: float
) -> None:
    """Oracle: exact_round in float64, on every midpoint and points beside it that float32 cannot see."""
    codes = ALL_CODES[: 0x7C00 if name == "float16" else 0x7F80]
    values = np.append(codes.view(dtype).astype(np.float64), infinity)
    middles = (values[:-1] + values[1:]) / 2
    beside = [middles * (1 + sign * 2.0**-k) for k in (26, 40, 52) for sign in (-1, 1)]
    wide64 = np.concatenate([values[:-1], middles, *beside])
    wide64 = np.concatenate([wide64, -wide64])
    expected = exact_round(wide64, mantissa_bits, lowest)
    expected[np.abs(expected) >= infinity] *= np.inf
    low = np.empty(wide64.shape, dtype)
    block_rounding.narrow_from_float64(wide64, low, name)
    assert_same_bits(low, expected.astype(dtype), wide64)
    with np.errstate(over="ignore"):
        twice = wide64.astype(np.float32).astype(dtype)
    assert (twice != low).any(), "the sample must tell one rounding from two"


def test_float64_specials() -> None:
    """Zeros keep their sign, what float32 cannot hold becomes 0 or infinity, NaN stays NaN."""
    wide64 = np.array([0.0, -0.0, 1e-310, -1e-60, 1e300, -1e39, np.inf, -np.inf, np.nan])
    expected = np.array([0.0, -0.0, 0.0, -0.0, np.inf, -np.inf, np.inf, -np.inf, np.nan], np.float32)
    for name, dtype in (("float16", np.dtype(np.float16)), ("bfloat16", BFLOAT16)):
        low = np.empty(wide64.shape, dtype)
        with np.errstate(all="raise"):
            block_rounding.narrow_from_float64(wide64, low, name)
        assert_same_bits(low[:-1], expected[:-1].astype(dtype), wide64)
        assert np.isnan(low[-1])
        scalar = np.empty((), dtype)
        block_rounding.narrow_from_float64(np.array(-1e-60), scalar, name)
        assert_same_bits(scalar, np.array(-0.0, dtype), wide64)


def test_float64_refuses_other_formats() -> None:
    """The nearest known name is offered."""
    with pytest.raises(FormatError, match="did you mean 'float16'"):
        block_rounding.narrow_from_float64(np.zeros(2), np.zeros(2, np.float16), "float61")
    with pytest.raises(FormatError, match="bfloat16"):
        block_rounding.narrow_from_float64(np.zeros(2), np.zeros(2, np.float16), "bfloat16")


@pytest.mark.slow
def test_every_float32_pattern() -> None:
    """Oracles: zero of the same sign below 2^-25, whole multiples of 2^-24 up to 2^-14, then the plain cast.

    Every pattern with |x| < 2^16, every infinity and NaN; of what overflows, where whole blocks go the plain
    way, one chunk in 67: NumPy reports each overflow at length.
    """
    size = 1 << 18  # what works on a chunk stays in the cache
    codes = np.arange(size, dtype=np.uint32)
    bits, half, grid = np.empty(size, np.uint32), np.empty(size, np.float16), np.empty(size, np.float32)
    expected, expected_grid = np.empty(size, np.float16), np.empty(size, np.float32)
    for start in range(0, 1 << 32, size):
        wide = np.add(codes, np.uint32(start), out=bits).view(np.float32)
        exponents = (start >> 23) & 0xFF  # of all of a chunk: it is part of a binade
        if 127 + 16 <= exponents < 0xFF:
            if start // size % 67:
                continue
            expected[...] = expected_grid[...] = np.copysign(np.inf, wide[0])
        elif exponents < 127 - 25:
            expected[...] = expected_grid[...] = np.copysign(0.0, wide[0])
        elif exponents < 127 - 14:
            units = np.rint(np.abs(wide) * np.float32(2**24))
            np.copysign(units * np.float32(2**-24), wide, out=expected_grid)
            np.bitwise_or(units.astype(np.uint16), start >> 31 << 15, out=expected.view(np.uint16))
        else:
            plain_casts.narrow_float16(wide, expected, expected_grid)
        block_rounding.narrow_float16(wide, half, grid)
        assert np.array_equal(half.view(np.uint16), expected.view(np.uint16)), hex(start)
        assert np.array_equal(grid.view(np.uint32), expected_grid.view(np.uint32)), hex(start)
