"""Quantised numbers and integer layers beside PyTorch's: all codes, scales and zero points, counted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minimp.frameworks.integers.beside import SECTION
from minimp.frameworks.integers.choosing import compare_choosing
from minimp.frameworks.integers.dynamic import compare_dynamic
from minimp.frameworks.integers.edges import compare_edges
from minimp.frameworks.integers.engines import compare_engines, compare_limited, limited
from minimp.frameworks.integers.layers import compare_layers
from minimp.frameworks.integers.rounding import compare_rounding
from minimp.frameworks.integers.torch_engines import engine, has_engine
from minimp.frameworks.results import Row, Section, Verdict
from minimp.rng import get_rng_state, set_rng_state

__all__ = ["compare"]

CLAIM = (
    "The same codes, scales, zero points, values and gradients, all of them, to the last bit: beside torch's "
    "functions and observers, and its layers on QNNPACK, whose sums are exact on any processor; states of "
    "dynamic LSTM and GRU within 2^-20. In a documented row the rule that its case begins with gives every "
    "code that torch gave."
)


def compare(seed: int) -> Section:
    """Compare minimp's integers with PyTorch's on the CPU.

    Args:
        seed: of the numbers, codes and weights.
    """
    with _alone():
        rows = tuple(_rows(seed))
    compared = sum(int(row.figures.get("elements", 0)) for row in rows)
    return Section(
        SECTION, "quantised numbers and integer layers", CLAIM, rows,
        {"elements": "compared", "others": "different", "apart": "furthest"}, {"numbers": f"{compared:,}"},
    )  # fmt: skip


def _rows(seed: int) -> Iterator[Row]:
    """Compare one part after the other, each from numbers of its own; a second process works meanwhile."""
    draws = iter(np.random.default_rng(seed).spawn(6))
    given, process = limited(next(draws))
    try:
        yield from _here(draws)
        yield from compare_limited(given, process)
    finally:
        if process is not None:
            process.close()


def _here(draws: Iterator[np.random.Generator]) -> Iterator[Row]:
    """Compare all parts of this process."""
    yield from compare_choosing(next(draws))
    yield from compare_rounding(next(draws))
    if has_engine("qnnpack"):
        with engine("qnnpack"):
            yield from compare_layers(next(draws))
            yield from compare_dynamic(next(draws))
            yield from compare_edges()
    else:
        yield Row("layers", "qnnpack", "-", "-", Verdict.NOT_COMPARED, "torch was built without QNNPACK")
    yield from compare_engines(next(draws))


@contextmanager
def _alone() -> Iterator[None]:
    """Leave both random generators as they were, and torch's warnings unsaid.

    torch.ao is deprecated and says so, as it does of quantised tensors and of what reduce_range may do.
    """
    import torch

    state = get_rng_state()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        set_rng_state(state)
