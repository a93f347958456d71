"""FP8 and recompute, where the scales have moved on before backward; oracle: the same without recompute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import GradientError
from minimp.fp8 import DelayedScaling, fp8_autocast, state_dict
from tests.trainer.runs import bits


def of_two_forwards(again: bool, where: str) -> Any:
    """Return gradients and states after two forwards, each a step of its own, and their backwards."""
    mp.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    region = fp8_autocast(recipe=DelayedScaling(amax_history_len=2))

    def opening(x: mp.Tensor) -> mp.Tensor:
        with region:
            return model(x)

    results = []
    for factor in (1.0, 0.77):
        x = mp.tensor(np.float32(factor) * np.array([[1.3, 2.3, 3.3, 4.3]], np.float32))
        with region if where != "inside" else fp8_autocast(False):
            function = model if where == "outside" else opening
            results.append(mp.recompute(function, x) if again else function(x))
    for y in reversed(results):
        y.sum().backward()
    return bits(([p.grad.numpy() for p in model.parameters()], state_dict(model)))


@pytest.mark.parametrize("where", ["outside", "both"])
def test_recompute_after_the_scales_have_moved(where: str) -> None:
    """Oracle: the same without recompute, bit for bit: two forwards come before the first backward."""
    assert of_two_forwards(True, where) == of_two_forwards(False, where)


def test_recompute_refuses_scales_that_it_cannot_bring_back() -> None:
    """Oracle: GradientError, for the region that knew them was opened in the function, and is gone."""
    with pytest.raises(GradientError, match="scales of linear_fp8 have moved"):
        of_two_forwards(True, "inside")
