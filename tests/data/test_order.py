"""Random orders; oracle: Philox4x64-10 written out here in plain integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.data.order import Purpose, check_seed, permutation
from minimp.errors import SettingError

MASK = 2**64 - 1
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Encrypt one counter block, as section 3.2 of Salmon et al. 2011 describes it."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(ROUNDS):
        first, second = MULTIPLIERS[0] * a, MULTIPLIERS[1] * c
        a, b, c, d = (second >> 64) ^ b ^ k, second & MASK, (first >> 64) ^ d ^ m, first & MASK
        k, m = (k + WEYL[0]) & MASK, (m + WEYL[1]) & MASK
    return a, b, c, d


def order_by_hand(count: int, seed: int, stream: int, purpose: int) -> list[int]:
    """Sort rows by their keys; NumPy's first block has counter 1."""
    keys: list[int] = []
    block = 1
    while len(keys) < count:
        keys.extend(philox((block, 0, stream, purpose), (seed, 0)))
        block += 1
    return sorted(range(count), key=lambda row: keys[row])


def test_the_generator_written_here_gives_the_published_answer() -> None:
    """Oracle: the known-answer vector of Random123 for philox4x64-10 with all-zero counter and key."""
    assert philox((0, 0, 0, 0), (0, 0)) == (
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    )


@given(st.integers(0, 70), st.integers(0, MASK), st.integers(0, MASK), st.sampled_from(Purpose))
def test_orders_are_those_of_philox(count: int, seed: int, stream: int, purpose: Purpose) -> None:
    """Oracle: keys from the plain-integer Philox above, sorted by Python."""
    order = permutation(count, seed=seed, stream=stream, purpose=purpose)
    assert order.tolist() == order_by_hand(count, seed, stream, purpose)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", None, True])
def test_seeds_out_of_range_are_refused(seed: object) -> None:
    """Oracle: the documented range, integers from 0 to 2^64 - 1."""
    with pytest.raises(SettingError, match="seed must be an integer from 0 to"):
        check_seed(seed, "test")
    assert check_seed(2**64 - 1, "test") == 2**64 - 1
