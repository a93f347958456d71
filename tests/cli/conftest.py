"""Screens of one width: what the tests are started from does not reach them."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_width_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take COLUMNS away, which pytest-xdist sets for its workers."""
    monkeypatch.delenv("COLUMNS", raising=False)
