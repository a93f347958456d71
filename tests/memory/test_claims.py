"""Sayings about memory; oracle: bytes counted by hand on layers that can be counted."""

from __future__ import annotations

from typing import Any

import pytest

import minimp as mp
from minimp import nn
from minimp.memory import Claim, claims, inference
from tests.memory.workloads import LARGE

ROWS, INPUTS, HIDDEN, CLASSES = 64, 40, 32, 10
WEIGHTS = INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES


def two_layers() -> nn.Module:
    """Return two linear layers with a ReLU between them."""
    return nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def by_name(*args: Any) -> dict[str, Claim]:
    """Return name -> claim."""
    return {each.name: each for each in claims(*args)}


def test_the_figures_by_hand() -> None:
    """Oracle: elements times bytes for two layers: x, the hidden one, log-probabilities, labels."""
    found = by_name(two_layers, (ROWS, INPUTS), (ROWS,), mp.functional.cross_entropy)
    rest = ROWS * CLASSES * 4 + ROWS * 8
    before, after = (size * ROWS * (INPUTS + HIDDEN) + rest for size in (4, 2))
    state = WEIGHTS * (4 + 4 + 8)
    assert found["activations"].value == pytest.approx(after / before)
    assert found["activations and copies"].value == pytest.approx((after + 2 * WEIGHTS) / before)
    assert found["masters"].value == 4.0
    assert found["state, SGD with momentum"].value == pytest.approx(14 / 12)
    assert found["state, Adam"].value == pytest.approx(18 / 16)
    assert found["inference"].value == 0.5
    assert found["total"].value == pytest.approx((state + 2 * WEIGHTS + after) / (state + before))
    assert f"{after:,} / {before:,}" in found["activations"].arithmetic


@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        ("mlp", {"activations and copies": "does not hold", "total": "does not hold"}),
        ("gpt", {"activations": "holds in part", "activations and copies": "holds in part",
                 "total": "holds in part"}),
    ],
)  # fmt: skip
def test_verdicts_differ_between_models(name: str, verdicts: dict[str, str]) -> None:
    """Oracle: ratios measured before: an MLP's copies outweigh its activations, a GPT's saved bytes x 0.6."""
    work = LARGE[name]
    found = by_name(work.make, work.described, work.targets, work.loss_fn)
    expected = dict.fromkeys(found, "holds") | verdicts
    assert {each: claim.verdict for each, claim in found.items()} == expected
    assert all(claim.as_dict()["source"] for claim in found.values())
    if name == "gpt":
        assert 0.55 < found["activations"].value < 0.62


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2), ("float64", 8)])
def test_inference_by_hand(dtype: str, size: int) -> None:
    """Oracle: weights and the first layer's input and result, in bytes of the format; nothing recorded."""
    found = inference(two_layers, (ROWS, INPUTS), dtype)
    assert (found.weights, found.elements) == (size * WEIGHTS, WEIGHTS)
    assert found.working == size * ROWS * (INPUTS + HIDDEN)
    assert found.total == found.weights + found.working
    assert found.dtype == dtype


def test_inference_reads_codes_and_leaves_a_module_alone() -> None:
    """Oracle: the module's formats and arrays afterwards; codes of characters stay whole numbers."""
    work = LARGE["gpt"]
    model = work.make()
    before = {name: p.array for name, p in model.named_parameters()}
    found = inference(model, work.batch()[0], "float16")
    assert found.weights == 2 * found.elements
    assert all(p.array is before[name] for name, p in model.named_parameters())
    assert model.training
