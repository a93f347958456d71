"""What the tests of optimizers run under: minimp's generator at one seed, given back as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import minimp as mp


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Start minimp's generator from a seed, and give it back as it was."""
    before = mp.get_rng_state()
    mp.manual_seed(20180215)
    yield
    mp.set_rng_state(before)
