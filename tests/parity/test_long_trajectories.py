"""A hundred steps beside PyTorch 2.13.0 on the CPU, from the same weights: a GPT, a ResNet and an LSTM.

The learning rates are such that the paths are not chaotic: moving every weight by a float32 unit at the start
moves torch's own losses by 1e-6 of themselves at most over the hundred steps (2e-7 for the GPT and the LSTM).

In 16 bits two right engines part where one of them rounds the other way, so they are judged by how far torch
parts from itself: it is run again from weights that were moved by at most the unit roundoff of the format,
which is what the first cast does to them anyway. Our path must lie among its paths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import minimp as mp
from tests.parity.long_models import RECIPES, Run, jittered, libraries, start, train
from tests.tolerances import assert_close, tolerance

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

STEPS = 100
AGAIN = 4
"""How often torch is run again; with the first run that makes ten pairs."""
UNIT = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
KEY_BIASES = ("blocks.0.qkv.bias", "blocks.1.qkv.bias")
"""Softmax does not see what is added to all scores of a row, so the gradient by the biases of the keys is 0
but for rounding, and AdamW makes whole steps of it: torch's own runs differ by 3e-3 there."""


@contextmanager
def plain_kernels() -> Iterator[None]:
    """Run torch without oneDNN, whose LSTM has no float16 on this kind of processor."""
    before = torch.backends.mkldnn.set_flags(_enabled=False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before[0])


def movement(end: Run, begin: dict[str, np.ndarray]) -> np.ndarray:
    """Return how far every float weight has gone, the biases of keys left out."""
    names = [k for k, v in begin.items() if v.dtype == np.float32 and k not in KEY_BIASES]
    return np.concatenate([(end.state[k] - begin[k]).ravel() for k in names])


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_hundred_steps_in_float32(name: str) -> None:
    """Oracle: torch's loss and gradient norm of every step, and its weights and statistics after the last."""
    recipe, (ours, theirs) = RECIPES[name], libraries()
    begin = start(recipe, 0)
    mine, other = (train(lib, recipe, begin, STEPS) for lib in (ours, theirs))
    assert other.losses[-1] < 0.7 * other.losses[0]  # it learns
    assert_close(mine.losses, other.losses, "parity_trajectory")
    assert_close(mine.norms, other.norms, "parity_trajectory")
    for key, wanted in other.state.items():
        if key not in KEY_BIASES:
            assert_close(mine.state[key], wanted, "parity_long_weights")


def paths(name: str, dtype: str, again: int = AGAIN) -> tuple[Run, list[Run], dict[str, np.ndarray]]:
    """Return our run, torch's runs, and the weights that all begin with."""
    recipe, (ours, theirs) = RECIPES[name], libraries()
    begin = start(recipe, 0)
    with plain_kernels():
        others = [
            train(theirs, recipe, jittered(begin, seed, UNIT[dtype]) if seed else begin, STEPS, dtype)
            for seed in range(again + 1)
        ]
    return train(ours, recipe, begin, STEPS, dtype), others, begin


def other_seed(name: str, dtype: str) -> Run:
    """Return torch's run from weights of another seed."""
    _, theirs = libraries()
    with plain_kernels():
        return train(theirs, RECIPES[name], start(RECIPES[name], 1), STEPS, dtype)


def apart(a: Run, b: Run) -> float:
    """Return the distance of two paths: the root of the mean square of the differences of their losses."""
    return float(np.sqrt(np.mean((a.losses - b.losses) ** 2)))


def spread(runs: list[Run]) -> float:
    """Return the largest distance of two of the runs."""
    return max(apart(a, b) for i, a in enumerate(runs) for b in runs[:i])


def distance(mine: Run, others: list[Run]) -> float:
    """Return the middle of our distances from the runs."""
    return float(np.median([apart(mine, other) for other in others]))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", list(UNIT))
@pytest.mark.parametrize("name", list(RECIPES))
def test_a_hundred_steps_in_16_bits(name: str, dtype: str) -> None:
    """Oracle: torch's CPU autocast, with a GradScaler for float16: losses and weights in its own spread.

    Another seed of torch's is farther away than we are, and so are, but for the LSTM, its runs from weights
    that were nudged: of the LSTM ours rounds the states alone in 16 bits, torch's kernels the gates too.
    """
    mine, others, begin = paths(name, dtype)
    allowed = tolerance("torch_spread_elsewhere" if name == "lstm" else "torch_spread", "bound").value
    assert distance(mine, others) < apart(others[0], other_seed(name, dtype)) / 2
    assert all(np.isfinite(run.losses).all() for run in (mine, *others))
    assert mine.scales == others[0].scales
    assert distance(mine, others) <= allowed * spread(others)
    ends = [movement(run, begin) for run in others]
    widest = max(np.linalg.norm(a - b) for i, a in enumerate(ends) for b in ends[:i])
    ours = np.median([np.linalg.norm(movement(mine, begin) - end) for end in ends])
    assert ours <= allowed * widest


@pytest.mark.slow
def test_the_spread_of_the_lstm_tells_coarse_sums() -> None:
    """Oracle: sums in bfloat16, which lie some seventy spreads away."""
    _, others, begin = paths("lstm", "bfloat16", again=2)
    with mp.accumulate("bfloat16"):
        coarse = train(libraries()[0], RECIPES["lstm"], begin, STEPS, "bfloat16")
    assert distance(coarse, others) > 2 * tolerance("torch_spread_elsewhere", "bound").value * spread(others)


@pytest.mark.slow
def test_the_spread_is_narrow() -> None:
    """Oracle: engines that are a little wrong lie far outside: float16 sums, a larger epsilon, bfloat16."""
    mine, others, begin = paths("gpt", "float16", again=2)
    ours, _ = libraries()
    allowed = spread(others)
    assert distance(mine, others) <= allowed
    with mp.accumulate("float16"):
        low_sums = train(ours, RECIPES["gpt"], begin, STEPS, "float16")
    kind, options = RECIPES["gpt"].optimizer
    changed: dict[str, Any] = {**options, "eps": 1e-6}
    coarse = dataclasses.replace(RECIPES["gpt"], optimizer=(kind, changed))
    for faulty in (
        low_sums,
        train(ours, coarse, begin, STEPS, "float16"),
        train(ours, RECIPES["gpt"], begin, STEPS, "bfloat16"),
    ):
        assert distance(faulty, others) > 2 * allowed
