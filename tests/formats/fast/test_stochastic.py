"""Fast stochastic rounding gives the bits of the readable one, however the array is cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.formats.casting import encode
from minimp.formats.casting import round as fast_round
from minimp.formats.codes import encode as readable_encode
from minimp.formats.dice import Counter, roll
from minimp.formats.fast import lanes
from minimp.formats.fast.plans import plan_for
from minimp.formats.fast.stochastic import words_into
from minimp.formats.rounding import round_to
from minimp.formats.table import FORMATS, Format
from tests.formats.fast.samples import EVERY, assert_bits, inside, numbers
from tests.formats.oracle import assert_same

NARROW = [fmt for fmt in FORMATS.values() if plan_for(fmt, "stochastic", None, "keep", np.dtype("f4"))]


def _small(fmt: Format, count: int) -> np.ndarray:
    """Numbers about the smallest normal one, zeros among them."""
    random = np.random.default_rng(5)
    x = random.standard_normal(count) * 2.0 ** random.integers(max(fmt.emin - 12, -149), fmt.emin + 2, count)
    return np.where(random.random(count) < 0.1, 0.0, x).astype(np.float32)


@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_the_readable_bits(fmt: Format, overflow: str) -> None:
    """Oracle: the readable rounding with the same counter, over specials, overflow and all midpoints."""
    x = numbers(fmt)[::2]
    for given_, counter in ((x, Counter(3)), (inside(x, fmt), Counter(4, 12345))):
        got = fast_round(given_, fmt, "stochastic", overflow, counter)
        assert_same(got, round_to(given_, fmt, "stochastic", overflow, counter), given_)


@pytest.mark.parametrize("fmt", NARROW, ids=repr)
def test_subnormal_results(fmt: Format) -> None:
    """Oracle: the readable rounding, where residues are longer than the first random word."""
    x = _small(fmt, 150_001)
    for subnormals in ("keep", "flush"):
        got = fast_round(x, fmt, "stochastic", rng=7, subnormals=subnormals)
        assert_bits(got, round_to(x, fmt, "stochastic", rng=7, subnormals=subnormals), x)


def test_the_doubtful_ones_are_met() -> None:
    """Oracle: the readable rounding, on residues set so that the first word leaves it open."""
    fmt, counter = FORMATS["float16"], Counter(11)
    count = 1 << 15
    ulp = 2.0 ** (fmt.emin - fmt.mantissa_bits)
    throw = counter.words(count).astype(np.float64) * 2.0**-32
    close = (1 - throw) * ulp  # part + throw = 1 but for float32's rounding
    x = (close * np.exp2(0) + 3 * ulp).astype(np.float32)
    beside = [np.nextafter(x, np.float32(each)) for each in (0, 1)]
    for numbers_ in (x, *beside, -x):
        got = fast_round(numbers_, fmt, "stochastic", rng=counter)
        assert_bits(got, round_to(numbers_, fmt, "stochastic", rng=counter), numbers_)


@given(start=st.integers(0, 2**64 - 1), first=st.integers(0, 1000), count=st.integers(1, 500))
def test_words_are_the_counters(start: int, first: int, count: int) -> None:
    """Oracle: Counter.words, for any start, odd or even."""
    counter = Counter(9, start)
    assert (words_into(counter, first, count) == counter.words(first + count)[first:]).all()


@given(start=st.integers(0, 2**64 - 1), further=st.booleans())
def test_words_of_scattered_places(start: int, further: bool) -> None:
    """Oracle: Counter.words and roll, of all the places."""
    counter, places = Counter(9, start), np.array([0, 5, 2, 99, 98, 5])
    assert (counter.words_at(places, further=further) == counter.words(100, further=further)[places]).all()
    assert (counter.dice_at(places).throw == roll((100,), counter).throw[places]).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn"])
def test_any_cut_gives_the_same_bits(name: str) -> None:
    """Oracle: the array in one piece; block borders, odd places and threads do not show."""
    fmt = FORMATS[name]
    x, counter = _small(fmt, 300_007) * np.float32(3), Counter(21, 1)
    whole = fast_round(x, fmt, "stochastic", rng=counter)
    assert_bits(whole, round_to(x, fmt, "stochastic", rng=counter), x)
    cuts = [0, 1, 2, 65_535, 65_536, 65_537, 131_071, 200_001, x.size]
    pieces = [fast_round(x[a:b], fmt, "stochastic", rng=counter.advance(a)) for a, b in pairwise(cuts)]
    assert_bits(np.concatenate(pieces), whole, x)
    for threads in (2, 3):
        assert_bits(fast_round(x, fmt, "stochastic", rng=counter, threads=threads), whole, x)


@pytest.mark.parametrize("kilobytes", [16, 64])
def test_any_block_gives_the_same_bits(kilobytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the usual block size."""
    x = _small(FORMATS["float16"], 100_003)
    usual = fast_round(x, "fp16", "stochastic", rng=2)
    monkeypatch.setattr(lanes, "BLOCK_BYTES", kilobytes << 10)
    assert_bits(fast_round(x, "fp16", "stochastic", rng=2), usual, x)


def test_places_follow_the_shape_not_the_memory() -> None:
    """Oracle: the readable rounding of a transposed and a strided array."""
    x = _small(FORMATS["float16"], 120_000).reshape(300, 400)
    for view in (x.T, x[::2, ::3], x[::-1], x.reshape(20, 15, 400).transpose(1, 2, 0)):
        got = fast_round(view, "fp16", "stochastic", rng=6)
        assert_bits(got.ravel(), round_to(view, "fp16", "stochastic", rng=6).ravel(), view)


def test_generators_and_bits_take_the_readable_form() -> None:
    """Oracle: the readable rounding with the same generator and the same bits."""
    x = numbers(FORMATS["float16"])[:1000]
    got = fast_round(x, "fp16", "stochastic", rng=np.random.default_rng(1))
    assert_same(got, round_to(x, "fp16", "stochastic", rng=np.random.default_rng(1)))
    bits = np.random.default_rng(2).integers(0, 1 << 16, x.shape, np.uint16)
    assert_same(fast_round(x, "fp16", "stochastic", bits=bits), round_to(x, "fp16", "stochastic", bits=bits))


@pytest.mark.parametrize("fmt", NARROW, ids=repr)
def test_codes(fmt: Format) -> None:
    """Oracle: the readable codes with the same counter."""
    x = numbers(fmt)[::7]
    got = encode(x, fmt, "stochastic", rng=8)
    assert (got == readable_encode(x, fmt, "stochastic", rng=8)).all()
