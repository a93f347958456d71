"""Steps that the device decides on, by the kernels of the CuPy backend; oracle: the same steps by arrays.

The loss is one whose gradient has the same bits on both routes: e^x and sums over rows have not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import backend as backends
from minimp import models, optim
from minimp.errors import DeviceError
from minimp.scaler import ScaleRule, ScaleState, next_state
from minimp.scaler.on_device import DeviceScale
from minimp_backends.cupy_backend import CupyBackend
from minimp_backends.strict.counts import DEVICE
from tests.backends.cupy_on_strict import gpu_on_strict
from tests.backends.test_cupy_backend import as_cupy, device

__all__ = ["as_cupy", "device"]

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9},
    "Adam": {"lr": 0.01, "amsgrad": True},
    "AdamW": {"lr": 0.01},
    "Lion": {"lr": 0.01},
}


def run(backend: Any, name: str, recipe: str, route: str) -> tuple[list[Any], list[bytes], int]:
    """Train some steps, the first of them bad; return the reports, all bits, and the waits."""
    rng = np.random.default_rng(0)
    with mp.use_backend("cupy"), backend.use_route(route):
        mp.manual_seed(2)
        model = models.mlp((8,), 3)
        optimizer = getattr(optim, name)(model.parameters(), **OPTIMIZERS[name])
        scaler = mp.GradScaler(2.0**24, growth_interval=4) if recipe == "mixed-fp16" else None
        step = mp.TrainStep(model, mp.functional.mse_loss, optimizer, recipe, scaler=scaler)
        with DEVICE.counting() as counts:  # sees what the array library waits for by itself, too
            reports = [
                step(rng.standard_normal((6, 8), np.float32), rng.standard_normal((6, 3), np.float32))
                for _ in range(14)
            ]
        said = [(each.loss, each.loss_scale, each.skipped, each.nonfinite) for each in reports]
        bits = [backend.to_host(p.array).tobytes() for p in model.parameters()]
        saved = optimizer.state_dict()["state"]
        bits += [np.asarray(saved[key]).tobytes() for key in sorted(saved)]
    return said, bits, counts.syncs


@pytest.mark.parametrize("recipe", ["mixed-fp16", "fp32", "bf16-kahan", "fp16-master"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_kernels_and_arrays_come_to_the_same_bits(as_cupy: Any, name: str, recipe: str) -> None:
    """Oracle: the route of arrays, weights and state; neither makes the host wait."""
    by_kernels = run(as_cupy, name, recipe, "kernels")
    by_arrays = run(as_cupy, name, recipe, "arrays")
    assert by_kernels == by_arrays
    assert by_kernels[2] == 0
    if recipe == "mixed-fp16":
        assert [each[2] for each in by_kernels[0]].count(True) >= 5


RULES = (
    ScaleRule(growth_interval=2),
    ScaleRule(smooth=True, growth_interval=3),
    ScaleRule(2.0**20, hysteresis=2, max_scale=2.0**21, min_scale=1.0),
)


@pytest.mark.parametrize("rule", RULES)
def test_the_scale_moves_by_a_kernel(device: CupyBackend, rule: ScaleRule) -> None:
    """Oracle: next_state."""
    state = ScaleState(rule.init_scale)
    scale = DeviceScale(rule, state, device)
    for bad in (False, True, True, False, False, False, True, False):
        scale.advance(device.from_host(np.asarray(bad)))
        state = next_state(rule, state, bad)
        assert scale.read() == state


@pytest.mark.parametrize("recipe", ["mixed-bf16", "bf16-kahan", "mixed-fp8"])
def test_a_recipe_that_the_chip_cannot_multiply_changes_nothing(
    recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a chip of 7.5, Turing; the model's formats, and settings that serve another recipe."""
    monkeypatch.setitem(backends.MADE, "cupy", CupyBackend(gpu_on_strict(75)))
    with mp.use_backend("cupy"):
        model = models.mlp((8,), 3)
        optimizer = optim.AdamW(model.parameters())
        before = optimizer.settings
        with pytest.raises(DeviceError, match=r"compute capability 7\.5\) does not multiply bfloat16"):
            mp.TrainStep(model, mp.functional.mse_loss, optimizer, recipe)
        assert {p.format for p in model.parameters()} == {mp.float32}
        assert optimizer.settings == before
        step = mp.TrainStep(model, mp.functional.mse_loss, optimizer, "mixed-fp16")
        assert np.isfinite(step(np.ones((2, 8), np.float32), np.ones((2, 3), np.float32)).loss)
