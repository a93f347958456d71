"""Random numbers made on a device; oracle: the counter on the host, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.backend import get_backend
from minimp.formats import Counter
from minimp.formats.dice import roll
from minimp_backends.device_dice import counter_words, keep_mask, roll_on_device

SEEDS = st.integers(0, 2**64 - 1)


@given(SEEDS, st.integers(0, 2**40), st.integers(0, 67), st.booleans())
def test_words_are_the_counters(seed: int, start: int, count: int, further: bool) -> None:
    """Oracle: Counter.words, from even and odd places."""
    backend = get_backend("strict")
    counter = Counter(seed, start)
    found = backend.to_host(counter_words(backend.xp, counter, count, further=further))
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, counter.words(count, further=further))


@given(SEEDS, st.integers(0, 33))
def test_dice_are_the_counters(seed: int, count: int) -> None:
    """Oracle: roll with the same counter."""
    backend = get_backend("strict")
    found = roll_on_device(backend.xp, (count, 2), Counter(seed))
    wanted = roll((count, 2), Counter(seed))
    assert found.bits == wanted.bits
    np.testing.assert_array_equal(backend.to_host(found.throw), wanted.throw)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_mask_keeps_its_share(p: float) -> None:
    """Oracle: the binomial distribution, six standard deviations."""
    kept = keep_mask(np, (300, 401), p, 7)
    assert kept.shape == (300, 401)
    assert abs(kept.mean() - (1 - p)) <= 6 * (p * (1 - p) / kept.size) ** 0.5


def test_dropout_on_a_device_sends_nothing() -> None:
    """Oracle: the strict backend's counts; the same seed gives the same mask."""
    backend = get_backend("strict")
    x = mp.tensor(np.ones((64, 64), np.float32), backend="strict")
    masks = []
    for _ in range(2):
        mp.manual_seed(4)
        with backend.counting() as counts:  # type: ignore[attr-defined]  # the strict backend has it
            y = mp.functional.dropout(x, 0.25)
        assert (counts.syncs, counts.to_device) == (0, 0)
        masks.append(y.numpy() != 0)
    np.testing.assert_array_equal(*masks)
    assert 0.7 < masks[0].mean() < 0.8
