"""Forecasts of a GPU's memory; oracle: the ledger of a real step of the CuPy backend on the strict device."""

from __future__ import annotations

from typing import Any

import pytest

import minimp as mp
from minimp.backend import use_backend
from minimp.errors import SettingError
from minimp.memory import claims, forecast, measure
from minimp.memory.forecasting import on_shapes
from minimp.step import TrainStep
from tests.memory.test_forecast import OPTIMIZERS, RECIPES, assert_same, scaler_of
from tests.memory.workloads import SMALL, Workload


def both(work: Workload, recipe: Any, optimizer: Any = mp.optim.Adam, **chosen: Any) -> Any:
    """Return the forecast of a step and the ledger of a real one, with scalers that skip no step."""
    with use_backend("cupy"):
        model = work.make()
        step = TrainStep(model, work.loss_fn, optimizer(model.parameters()), recipe, **scaler_of(recipe))
        assert not step(*work.batch()).skipped
        measured = measure(step, *work.batch())
    how = scaler_of(recipe) | chosen
    found = forecast(work.make, recipe, optimizer, work.described, work.targets, work.loss_fn, **how)
    return found, measured


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: getattr(recipe, "name", recipe))
@pytest.mark.parametrize("name", ["mlp", *(pytest.param(n, marks=pytest.mark.slow) for n in [*SMALL][1:])])
def test_a_forecast_is_what_a_device_holds(name: str, recipe: Any, device: Any) -> None:
    """Oracle: a real step on the strict device; both columns, every cause and every moment, to the byte."""
    assert device.kernels_in_force() is not None
    assert_same(*both(SMALL[name], recipe, backend="cupy"))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("recipe", ["fp32", "mixed-bf16", "bf16-kahan"])
def test_every_optimizer(optimizer: str, recipe: str, device: Any) -> None:
    """Oracle: a real step of each update rule, to the byte; parameters share the array that counts steps."""
    assert device.decides_on_device
    assert_same(*both(SMALL["mlp"], recipe, OPTIMIZERS[optimizer], backend="cupy"))


@pytest.mark.parametrize("accumulate", ["float64", "kahan"])
def test_sums_that_no_kernel_takes(accumulate: str, device: Any) -> None:
    """Oracle: a real step: log_softmax and nll_loss run one after the other there, too."""
    recipe = mp.recipes["fp32"].with_(name="by name", accumulate=accumulate)
    found, measured = both(SMALL["mlp"], recipe, backend="cupy")
    assert_same(found, measured)
    assert not [name for name in device.ran if name.startswith("cross_entropy")]
    assert found.activations < both(SMALL["mlp"], "fp32", backend="cupy")[0].activations
    assert [name for name in device.ran if name.startswith("cross_entropy")]


def test_whose_memory_it_is() -> None:
    """Oracle: two float32 numbers and a label of 8 bytes, that the fused loss keeps a row; no twins."""
    work = SMALL["mlp"]
    made = {
        name: forecast(work.make, "mixed-bf16", mp.optim.Adam, work.described, work.targets, work.loss_fn,
                       backend=name)
        for name in ("numpy", "cupy")
    }  # fmt: skip
    assert made["cupy"].activations - made["numpy"].activations == (4 + 4 + 8) * work.targets[0]
    assert made["cupy"].moments["forward"].low_copies < made["numpy"].moments["forward"].low_copies
    assert made["cupy"].peak < made["numpy"].peak


def test_the_backend_in_force_is_meant(device: Any) -> None:
    """Oracle: the forecasts with the name given, and the host's where it is in force."""
    work = SMALL["mlp"]
    given = (work.make, "mixed-fp16", mp.optim.Adam, work.described, work.targets, work.loss_fn)
    with use_backend("cupy"):
        assert mp.tensor([1.0]).backend is device
        assert_same(forecast(*given), forecast(*given, backend="cupy"))
        asked = forecast(*given, backend="numpy")
    assert_same(asked, forecast(*given))  # by the host, where nobody asks for another
    assert asked.logical != forecast(*given, backend="cupy").logical


def test_claims_are_of_the_backend_that_is_named() -> None:
    """Oracle: the saved bytes of the forecasts that they are made of."""
    work = SMALL["mlp"]
    given = (work.make, work.described, work.targets, work.loss_fn)
    first = [claims(*given, backend=name)[0] for name in ("numpy", "cupy")]
    assert first[0].name == first[1].name == "activations"
    assert first[0].arithmetic != first[1].arithmetic


def test_a_backend_of_which_nothing_is_known() -> None:
    """Oracle: one clear error, and the backend that was in force."""
    with pytest.raises(SettingError, match="unknown backend to forecast 'cuda'"), on_shapes("cuda"):
        pass
    assert mp.tensor([1.0]).backend.name == "numpy"
