"""Fixtures of dynamic quantisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def qnnpack() -> Iterator[Any]:
    """Give torch with its engine qnnpack, whose sums are exact on any CPU, and put the old one back."""
    torch = pytest.importorskip("torch")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "qnnpack"
    yield torch
    torch.backends.quantized.engine = before
