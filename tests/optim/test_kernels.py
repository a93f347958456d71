"""The kernels of weight updates; oracle: their readable twins, bit for bit, and counting over all dice."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.backend import get_backend
from minimp.formats.rounding import round_to
from minimp_backends import updates
from minimp_backends.updates import plain_adam, plain_sgd, plain_stochastic_bfloat16

numbers = st.sampled_from([0.0, 1e-3, 0.1, 0.5, 0.9, 0.999])
rates = st.sampled_from([0.0, 1e-8, 1e-3, 0.1, 1.0])


def draw(rng: np.random.Generator, size: int, dtype: str, count: int) -> list[Any]:
    """Return arrays over many magnitudes, with zeros among them."""
    made = []
    for _ in range(count):
        values = rng.standard_normal(size) * 10.0 ** rng.integers(-12, 3, size)
        values[rng.random(size) < 0.1] = 0.0
        made.append(values.astype(dtype))
    return made


def same(a: Any, b: Any) -> None:
    """Hold two arrays, or None, to the same bits."""
    assert (a is None) == (b is None)
    if a is not None:
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Any:
    """Make blocks so small that a few hundred elements cross several of them."""
    before, updates.BLOCK = updates.BLOCK, 64
    yield
    updates.BLOCK = before


@given(
    size=st.sampled_from([0, 1, 63, 64, 65, 200]), dtype=st.sampled_from(["float32", "float64"]), lr=rates,
    momentum=numbers, dampening=numbers, weight_decay=rates, nesterov=st.booleans(), maximize=st.booleans(),
    first=st.booleans(), asked=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_sgd_in_blocks_is_the_readable_sgd(
    size: int, dtype: str, first: bool, asked: bool, seed: int, **options: Any
) -> None:
    """Oracle: plain_sgd, bit for bit, for every combination of options."""
    weight, grad, buffer = draw(np.random.default_rng(seed), size, dtype, 3)
    held = buffer if options["momentum"] else None
    change = np.full(size, np.nan, dtype) if asked else None
    new, step, after = plain_sgd(weight, grad, None if held is None else held.copy(), first=first, **options)
    inputs = weight.tobytes(), grad.tobytes()
    got = get_backend("numpy").sgd(weight, grad, held, change, first=first, **options)
    same(got, new)
    same(held, after)
    same(change, step if asked else None)
    assert (weight.tobytes(), grad.tobytes()) == inputs


@given(
    size=st.sampled_from([0, 1, 63, 64, 65, 200]), dtype=st.sampled_from(["float32", "float64"]), lr=rates,
    beta1=numbers, beta2=numbers, eps=st.sampled_from([1e-8, 1e-3]), weight_decay=rates,
    decoupled=st.booleans(), maximize=st.booleans(), amsgrad=st.booleans(), step=st.integers(1, 10_000),
    asked=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_adam_in_blocks_is_the_readable_adam(
    size: int, dtype: str, amsgrad: bool, asked: bool, seed: int, **options: Any
) -> None:
    """Oracle: plain_adam, bit for bit, for every combination of options."""
    weight, grad, mean, square, peak = draw(np.random.default_rng(seed), size, dtype, 5)
    square, peak = np.abs(square), np.abs(peak) if amsgrad else None
    change = np.full(size, np.nan, dtype) if asked else None
    wanted = plain_adam(
        np, weight, grad, mean.copy(), square.copy(), peak if peak is None else peak.copy(), **options
    )
    inputs = weight.tobytes(), grad.tobytes()
    got = get_backend("numpy").adam(weight, grad, mean, square, peak, change, **options)
    new, step, *state = wanted
    same(got, new)
    for ours, theirs in zip((mean, square, peak), state, strict=True):
        same(ours, theirs)
    same(change, step if asked else None)
    assert (weight.tobytes(), grad.tobytes()) == inputs


def test_weights_that_are_views_are_read_in_their_own_order(rng: np.random.Generator) -> None:
    """Oracle: plain_sgd of the same transposed view."""
    weight, grad = (rng.standard_normal((20, 30)).astype(np.float32).T for _ in range(2))
    options: dict[str, Any] = {
        "lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.1, "nesterov": False,
        "maximize": False,
    }  # fmt: skip
    got = get_backend("numpy").sgd(weight, grad, None, first=True, **options)
    assert np.array_equal(got, plain_sgd(weight, grad, None, first=True, **options)[0])
    assert got.flags.c_contiguous


ALL_DICE = np.arange(2**16, dtype=np.uint16)


@pytest.mark.parametrize(
    "value", [1.0, 1.0 + 2.0**-20, -1.0 - 3 * 2.0**-9, 3e-39, -1e-45, 2.0**-126, 0.0, 1.0 + 2.0**-7, 3.3e38]
)
def test_stochastic_rounding_is_exactly_unbiased(value: float) -> None:
    """Oracle: the mean over all 65,536 dice, in exact float64 sums, is the value itself."""
    wide = np.full(ALL_DICE.shape, value, np.float32)
    got = plain_stochastic_bfloat16(np, wide, ALL_DICE)
    assert got.dtype == ml_dtypes.bfloat16
    unit = float(mp.formats.ulp(np.float64(wide[0]), "bfloat16"))
    steps = got.astype(np.float64) / unit  # whole numbers of ulps: their sum is exact
    assert steps.sum() == float(wide[0]) / unit * 2**16
    assert np.array_equal(np.signbit(got.astype(np.float32)), np.signbit(wide))


def test_stochastic_rounding_of_what_is_no_number() -> None:
    """Oracle: IEEE 754: infinities stay, NaNs stay NaNs, past the largest is infinity."""
    bits = np.array([0x7F800000, 0xFF800000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF, 0x7F7FFFFF], np.uint32)
    for dice in (0, 1, 0xFFFF):
        got = plain_stochastic_bfloat16(np, bits.view(np.float32), np.full(bits.shape, dice, np.uint16))
        wide = got.astype(np.float32)
        assert wide[:2].tolist() == [np.inf, -np.inf]
        assert np.isnan(wide[2:5]).all()
        assert wide[5] == (np.inf if dice else float(ml_dtypes.finfo("bfloat16").max))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1))
def test_stochastic_rounding_takes_a_neighbour(pattern: int, dice: int) -> None:
    """Oracle: minimp.formats.round towards and away from zero; law: nothing else can come out."""
    wide = np.array([pattern], np.uint32).view(np.float32)
    if not np.isfinite(wide[0]):
        return
    got = plain_stochastic_bfloat16(np, wide, np.array([dice], np.uint16)).astype(np.float32)
    exact = wide.astype(np.float64)
    low, high = (mp.formats.round(exact, "bfloat16", rounding=mode) for mode in ("down", "up"))
    assert got[0] in (low[0], high[0])


def test_the_backend_draws_its_dice_from_the_generator(rng: np.random.Generator) -> None:
    """Oracle: plain_stochastic_bfloat16 with the same draws; float16 by the readable rounding, same seed."""
    wide = rng.standard_normal(500).astype(np.float32)
    backend = get_backend("numpy")
    got = backend.round_stochastic(wide, mp.bfloat16, np.random.default_rng(5))
    dice = np.random.default_rng(5).integers(0, 1 << 16, 500, np.uint16)
    same(got, plain_stochastic_bfloat16(np, wide, dice))
    half = backend.round_stochastic(wide, mp.float16, np.random.default_rng(5))
    seed = int(np.random.default_rng(5).integers(0, 1 << 64, dtype=np.uint64))
    expected = round_to(wide, "float16", "stochastic", rng=seed)
    assert np.array_equal(half.astype(np.float32), expected)
