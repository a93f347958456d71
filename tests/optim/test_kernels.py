"""The kernels of weight updates; oracle: their readable twins, bit for bit, and counting over all dice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.backend import get_backend
from minimp.formats.rounding import round_to
from minimp.quiet import hush, speak
from minimp_backends import updates_blocks, updates_plain
from minimp_backends.updates import (
    Room,
    plain_adagrad,
    plain_adam,
    plain_kahan,
    plain_lamb,
    plain_lion,
    plain_rmsprop,
    plain_sgd,
    plain_stochastic_bfloat16,
)

numbers = st.sampled_from([0.0, 1e-3, 0.1, 0.5, 0.9, 0.999])
rates = st.sampled_from([0.0, 1e-8, 1e-3, 0.1, 1.0])
tiny = st.sampled_from([1e-8, 1e-3])
count = st.integers(1, 10_000)


@dataclass(frozen=True)
class Rule:
    """One update rule: its readable form over (w, g, kept arrays), and what may be chosen.

    `kept` has a letter for each array: "m" of any sign, "v" at least 0; a capital one may be None.
    """

    name: str
    plain: Callable[..., Any]
    kept: str
    options: dict[str, Any]


RULES = (
    Rule("sgd", plain_sgd, "M", {"momentum": numbers, "dampening": numbers, "nesterov": st.booleans(),
                                 "first": st.booleans()}),
    Rule("adam", lambda *a, **o: plain_adam(np, *a, **o), "mvV",
         {"beta1": numbers, "beta2": numbers, "eps": tiny, "decoupled": st.booleans(), "step": count}),
    Rule("rmsprop", lambda *a, **o: plain_rmsprop(np, *a, **o), "vMM",
         {"alpha": numbers, "eps": tiny, "momentum": numbers}),
    Rule("adagrad", lambda *a, **o: plain_adagrad(np, *a, **o), "v",
         {"lr_decay": rates, "eps": tiny, "step": count}),
    Rule("lion", lambda *a, **o: plain_lion(np, *a, **o), "m", {"beta1": numbers, "beta2": numbers}),
    Rule("lamb", lambda *a, **o: plain_lamb(np, *a, **o), "mv",
         {"beta1": numbers, "beta2": numbers, "eps": tiny, "step": count}),
)  # fmt: skip
COMMON = {"lr": rates, "weight_decay": rates, "maximize": st.booleans()}
LOW = (None, "float16", "bfloat16")


def draw(rng: np.random.Generator, size: int, dtype: str, count: int) -> list[Any]:
    """Return arrays over many magnitudes, with zeros among them."""
    made = []
    for _ in range(count):
        values = rng.standard_normal(size) * 10.0 ** rng.integers(-12, 3, size)
        values[rng.random(size) < 0.1] = 0.0
        made.append(values.astype(dtype))
    return made


def same(a: Any, b: Any) -> None:
    """Hold two arrays, or None, to the same bits; of a NaN only that it is one."""
    assert (a is None) == (b is None)
    if a is not None:
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        x, y = (np.where(np.isnan(each), each.dtype.type(np.nan), each) for each in (a, b))
        assert x.tobytes() == y.tobytes()


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Any:
    """Make blocks so small that a few hundred elements cross several of them."""
    before = updates_blocks.BLOCK, updates_plain.TERMS
    updates_blocks.BLOCK, updates_plain.TERMS = 64, 48
    yield
    updates_blocks.BLOCK, updates_plain.TERMS = before


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    """Overflow is a result here, as it is inside a step."""
    token = hush()
    yield
    speak(token)


def copies(arrays: list[Any]) -> list[Any]:
    """Return copies of arrays, None staying None."""
    return [None if each is None else each.copy() for each in arrays]


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
@given(data=st.data(), size=st.sampled_from([0, 1, 63, 64, 65, 200]), seed=st.integers(0, 2**32))
def test_a_kernel_in_blocks_is_the_readable_rule(rule: Rule, data: Any, size: int, seed: int) -> None:
    """Oracle: the readable rule, bit for bit, for every combination of options; inputs stay as they are."""
    options = {name: data.draw(each, name) for name, each in {**COMMON, **rule.options}.items()}
    dtype, asked = data.draw(st.sampled_from(["float32", "float64"])), data.draw(st.booleans())
    weight, grad, *kept = draw(np.random.default_rng(seed), size, dtype, 2 + len(rule.kept))
    for i, kind in enumerate(rule.kept):
        kept[i] = np.abs(kept[i]) if kind in "vV" else kept[i]
        if kind.isupper() and not (options["momentum"] if rule.name == "sgd" else data.draw(st.booleans())):
            kept[i] = None
    new, step, *after = rule.plain(weight, grad, *copies(kept), **options)
    inputs = weight.tobytes(), grad.tobytes()
    room = Room(np.full(size, np.nan, dtype), np.full(size, np.nan, dtype) if asked else None)
    getattr(get_backend("numpy"), rule.name)(room, weight, grad, *kept, **options)
    same(room.new, new)
    for ours, theirs in zip(kept, after, strict=True):
        same(ours, theirs)
    same(room.change, step if asked else None)
    assert (weight.tobytes(), grad.tobytes()) == inputs


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
@given(data=st.data(), size=st.sampled_from([0, 1, 64, 200]), seed=st.integers(0, 2**32))
def test_low_copies_made_in_the_block_are_one_rounding_of_the_new_weight(
    rule: Rule, low: str, data: Any, size: int, seed: int
) -> None:
    """Oracle: ml_dtypes' casts of the readable rule's weight; plain_kahan with the readable change."""
    options = {name: data.draw(each, name) for name, each in {**COMMON, **rule.options}.items()}
    rng, dtype = np.random.default_rng(seed), mp.formats.get(low).dtype
    weight, grad, *kept = draw(rng, size, "float32", 2 + len(rule.kept))
    weight = weight.astype(dtype).astype(np.float32)
    kept = [np.abs(k) if kind in "vV" else k for k, kind in zip(kept, rule.kept, strict=True)]
    if rule.name == "sgd" and not options["momentum"]:
        kept = [None]
    new, step, *_ = rule.plain(weight, grad, *copies(kept), **options)
    kernel = getattr(get_backend("numpy"), rule.name)
    room = Room(np.empty(size, "f"), low=np.empty(size, dtype), grid=np.empty(size, "f"))
    kernel(room, weight, grad, *copies(kept), **options)
    same(room.new, new)
    same(room.low, new.astype(dtype))
    same(room.grid, new.astype(dtype).astype(np.float32))
    held = (draw(rng, size, "float32", 1)[0] * 1e-3).astype(dtype)
    wanted = plain_kahan(weight, step, held, lambda a: a.astype(np.float32), lambda a: a.astype(dtype))
    room = Room(np.empty(size, "f"), low=np.empty(size, dtype), compensation=held)
    room.grid = room.new
    kernel(room, weight, grad, *copies(kept), **options)
    same(room.low, wanted[0])
    same(room.compensation, wanted[1])
    same(room.grid, wanted[0].astype(np.float32))


def test_weights_that_are_views_are_read_in_their_own_order(rng: np.random.Generator) -> None:
    """Oracle: plain_sgd of the same transposed view."""
    weight, grad = (rng.standard_normal((20, 30)).astype(np.float32).T for _ in range(2))
    options: dict[str, Any] = {
        "lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.1, "nesterov": False,
        "maximize": False,
    }  # fmt: skip
    room = Room(np.empty(weight.shape, "f"))
    get_backend("numpy").sgd(room, weight, grad, None, first=True, **options)
    assert np.array_equal(room.new, plain_sgd(weight, grad, None, first=True, **options)[0])


def test_a_trust_ratio_without_length_is_one() -> None:
    """Oracle: the definition: |w| / |u|, and 1 where one of them is 0."""
    ratio = updates_plain.trust_ratio
    three, none = np.array([3.0, 4.0], "f"), np.zeros(2, "f")
    assert [ratio(np, three, np.array([0.5, 0.0], "f")), ratio(np, none, three)] == [10.0, 1.0]
    assert ratio(np, three, none) == ratio(np, none[:0], none[:0]) == 1.0


@pytest.mark.parametrize("size", [1, 47, 48, 49, 97])
def test_a_trust_ratio_is_of_every_element(size: int) -> None:
    """Oracle: whole numbers, whose squares add up exactly in any order: sqrt(4 n) / sqrt(n)."""
    twos, ones = np.full(size, 2.0, "f"), np.ones(size, "f")
    assert updates_plain.trust_ratio(np, twos, ones) == (4 * size) ** 0.5 / size**0.5


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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_tensors_end_to_end_draw_as_if_each_came_by_itself(rng: np.random.Generator, dtype: str) -> None:
    """Oracle: one call for each tensor, from the same seed."""
    sizes, backend, fmt = [3, 0, 1, 7, 64], get_backend("numpy"), mp.formats.get(dtype)
    pieces = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    one = np.random.default_rng(5)
    by_itself = [backend.round_stochastic(piece, fmt, one) for piece in pieces]
    joined = backend.round_stochastic(np.concatenate(pieces), fmt, np.random.default_rng(5), sizes)
    same(joined, np.concatenate(by_itself))
