"""Running statistics stay in float32 under every recipe; oracle: the same moves in float64."""

from __future__ import annotations

import numpy as np
import pytest

import minimp as mp
from minimp import functional, nn
from tests.tolerances import assert_close


@pytest.mark.parametrize("recipe", [name for name in mp.recipes if name != "fp32"])
def test_running_statistics_are_float32(recipe: str) -> None:
    """Oracle: r <- 0.999 r + 0.001 s in float64, 300 times: in float16 and bfloat16 r would stand still."""
    mp.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(2, momentum=0.001), nn.Flatten(), nn.Linear(18, 3))
    step = mp.TrainStep(model, functional.cross_entropy, mp.optim.SGD(model.parameters(), lr=0.0), recipe)
    random = np.random.default_rng(0)
    low = mp.recipes[recipe].param_dtype
    x = mp.tensor(random.standard_normal((8, 2, 3, 3)) + 3, dtype=low)
    for _ in range(300):
        step(x, np.arange(8) % 3)
    assert model[0].running_mean.format is mp.float32
    assert model[0].running_var.format is mp.float32
    assert model[2].weight.format is low
    seen = x.numpy().astype(np.float64)
    mean, var = seen.mean((0, 2, 3)), seen.var((0, 2, 3), ddof=1)
    kept = 0.999**300
    assert_close(model[0].running_mean.numpy(), mean * (1 - kept), "fp32_recurrence")
    assert_close(model[0].running_var.numpy(), kept + var * (1 - kept), "fp32_recurrence")


def test_half_follows_torch_unless_told_otherwise() -> None:
    """Oracle: torch's module.half(), which turns buffers too; keep_statistics leaves those alone."""
    layer = nn.BatchNorm1d(3).half()
    assert {t.dtype.name for t in layer.state_dict().values()} == {"float16", "int64"}
    layer = nn.Sequential(nn.BatchNorm1d(3)).to("bfloat16", keep_statistics=True)
    names = {name: t.dtype.name for name, t in layer.state_dict().items()}
    assert names == {
        "0.weight": "bfloat16", "0.bias": "bfloat16", "0.running_mean": "float32", "0.running_var": "float32",
        "0.num_batches_tracked": "int64",
    }  # fmt: skip
