"""What every test of benchmarks runs under."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True)
def _nothing_left_to_walk_through() -> None:
    """Freeze what other tests have loaded: there is a collection before each sample, of all that is not."""
    gc.freeze()
