"""Losses as modules beside torch 2.13.0's: values, gradients, how they are shown, what they keep."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import SettingError
from tests.arrays import host
from tests.tolerances import assert_close

SIGNS = np.float32([1, -1, -1, 1, 1, -1])
WEIGHT = np.float32([0.5, 2.0, 1.0, 0.25])

# what is written with torch's names, and what it is called with beside scores (6, 4)
ROWS: dict[str, tuple[str, ...]] = {
    "L1Loss()": ("values",),
    "L1Loss(reduction='none')": ("values",),
    "SmoothL1Loss(beta=0.5)": ("values",),
    "SmoothL1Loss(reduction='sum', beta=0.0)": ("values",),
    "HuberLoss('sum', 0.5)": ("values",),
    "GaussianNLLLoss(full=True)": ("values", "positive"),
    "PoissonNLLLoss()": ("positive",),
    "PoissonNLLLoss(True, True, reduction='none')": ("positive",),
    "BCEWithLogitsLoss()": ("unit",),
    "BCEWithLogitsLoss(weight, pos_weight=weight, reduction='sum')": ("unit",),
    "KLDivLoss(reduction='batchmean')": ("positive",),
    "KLDivLoss(log_target=True)": ("values",),
    "NLLLoss(weight)": ("labels",),
    "CrossEntropyLoss(weight, label_smoothing=0.2)": ("unit",),
    "MarginRankingLoss(0.5)": ("values", "sign_columns"),
    "HingeEmbeddingLoss()": ("sign_columns",),
    "SoftMarginLoss(reduction='none')": ("sign_columns",),
    "CosineEmbeddingLoss(0.25)": ("values", "signs"),
    "TripletMarginLoss(swap=True)": ("values", "positive"),
}


def others(kinds: tuple[str, ...], rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    """Return the inputs beside the scores."""
    make = {
        "values": lambda: rng.standard_normal((6, 4)),
        "positive": lambda: rng.uniform(0.5, 2.0, (6, 4)),
        "unit": lambda: rng.uniform(0.0, 1.0, (6, 4)),
        "labels": lambda: rng.integers(0, 4, 6),
        "signs": lambda: SIGNS,
        "sign_columns": lambda: np.repeat(SIGNS[:, None], 4, 1),
    }
    arrays = [make[kind]() for kind in kinds]
    return [a.astype(np.float32) if a.dtype.kind == "f" else a for a in arrays]


@pytest.mark.torch
@pytest.mark.parametrize("text", list(ROWS))
def test_losses_are_torchs(text: str, rng: np.random.Generator) -> None:
    """Oracle: torch's module: its loss, gradient, repr and buffers."""
    torch = pytest.importorskip("torch")
    names = {"weight": WEIGHT}
    ours = eval(f"nn.{text}", {"nn": nn} | names)
    theirs = eval(f"nn.{text}", {"nn": torch.nn} | {k: torch.tensor(v) for k, v in names.items()})
    scores = rng.standard_normal((6, 4)).astype(np.float32)
    beside = others(ROWS[text], rng)
    a, b = mp.tensor(scores, requires_grad=True), torch.tensor(scores, requires_grad=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "reduction: 'mean' divides", UserWarning)
        x, y = ours(a, *beside), theirs(b, *map(torch.tensor, beside))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert_close(host(x.detach()), y.detach().numpy(), "parity_op_fp32")
    x.sum().backward()
    y.sum().backward()
    assert a.grad is not None
    assert_close(host(a.grad), b.grad.numpy(), "parity_gradient_fp32")


@pytest.mark.torch
def test_probabilities_are_judged_as_by_torch(rng: np.random.Generator) -> None:
    """Oracle: torch.nn.BCELoss with a weight."""
    torch = pytest.importorskip("torch")
    p, t = (rng.uniform(0.05, 0.95, (6, 4)).astype(np.float32) for _ in range(2))
    ours, theirs = nn.BCELoss(WEIGHT), torch.nn.BCELoss(torch.tensor(WEIGHT))
    assert_close(ours(mp.tensor(p), t).item(), theirs(*map(torch.tensor, (p, t))).item(), "parity_op_fp32")
    assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]


LOSSES = sorted(name for name in nn.__all__ if name.endswith("Loss"))


@pytest.mark.parametrize("name", LOSSES)
def test_reductions_are_checked_when_a_loss_is_made(name: str) -> None:
    """Oracle: the docstring; batchmean is KLDivLoss's alone."""
    with pytest.raises(SettingError, match="unknown reduction 'average'"):
        getattr(nn, name)(reduction="average")
    if name == "KLDivLoss":
        return
    with pytest.raises(SettingError, match="unknown reduction 'batchmean'"):
        getattr(nn, name)(reduction="batchmean")


def test_a_triplet_needs_a_margin() -> None:
    """Oracle: torch refuses it too, when the loss is made."""
    with pytest.raises(SettingError, match="TripletMarginLoss: expected a margin above 0, got 0"):
        nn.TripletMarginLoss(margin=0)
