"""Forecasts from shapes; oracle: the same ledger measured on a real step, and tracemalloc."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import nn, optim
from minimp.backend import get_backend
from minimp.errors import DataError, DeviceError, SettingError, ShapeError
from minimp.memory import CAUSES, MOMENTS, Ledger, forecast, measure
from minimp.memory.counting import held_by
from minimp.memory.measuring import AFTER
from minimp.recipe import Recipe, recipes
from minimp.step import TrainStep
from tests.memory.workloads import LARGE, SMALL, Workload

RECIPES: list[Any] = [*recipes, Recipe("mastered", mp.bfloat16, mp.bfloat16, master_weights=True)]
OPTIMIZERS = {
    "sgd": optim.SGD,
    "momentum": lambda params: optim.SGD(params, momentum=0.9),
    "adam": optim.Adam,
    "amsgrad": lambda params: optim.Adam(params, amsgrad=True),
    "adamw": optim.AdamW,
    "rmsprop": lambda params: optim.RMSprop(params, momentum=0.5, centered=True),
    "adagrad": optim.Adagrad,
    "lion": optim.Lion,
    "lamb": optim.LAMB,
}
MIB = 2**20


def scaler_of(recipe: Any) -> dict[str, Any]:
    """Return a scaler whose first step is not skipped, for a recipe that scales."""
    chosen = recipes[recipe] if isinstance(recipe, str) else recipe
    return {"scaler": mp.GradScaler(init_scale=1024.0)} if chosen.loss_scale else {}


def step_of(work: Workload, recipe: Any, optimizer: Any = optim.Adam) -> TrainStep:
    """Return a real step that has its optimizer's state."""
    model = work.make()
    step = TrainStep(model, work.loss_fn, optimizer(model.parameters()), recipe, **scaler_of(recipe))
    assert not step(*work.batch()).skipped
    return step


def forecast_of(work: Workload, recipe: Any, optimizer: Any = optim.Adam) -> Ledger:
    """Return the forecast of a workload."""
    return forecast(work.make, recipe, optimizer, work.described, work.targets, work.loss_fn)


def assert_same(found: Ledger, measured: Ledger) -> None:
    """Hold both columns of a forecast to those measured, byte for byte."""
    assert found.logical == measured.logical
    assert found.moments == measured.moments
    assert found.elements == measured.elements


# ---- forecast and measurement ------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: getattr(recipe, "name", recipe))
@pytest.mark.parametrize("name", SMALL)
def test_a_forecast_is_what_is_measured(name: str, recipe: Any) -> None:
    """Oracle: a real step; both columns, every cause and every moment, to the byte.

    The step comes first, as a forecast counts the scratch that the process keeps already.
    """
    work = SMALL[name]
    measured = measure(step_of(work, recipe), *work.batch())
    assert_same(forecast_of(work, recipe), measured)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("recipe", ["fp32", "mixed-bf16", "bf16-kahan", RECIPES[-1]], ids=str)
def test_every_optimizer(optimizer: str, recipe: Any) -> None:
    """Oracle: a real step of each update rule, to the byte."""
    work, make = SMALL["mlp"], OPTIMIZERS[optimizer]
    assert_same(forecast_of(work, recipe, make), measure(step_of(work, recipe, make), *work.batch()))


@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt"])
@pytest.mark.parametrize("accumulate", ["float64", "exact", "kahan", "float16"])
def test_every_accumulation(accumulate: str, name: str) -> None:
    """Oracle: a real step, to the byte; sums in float64 have no twins."""
    work = SMALL[name]
    for base in ("fp32", "mixed-bf16") if accumulate != "float16" else ("fp16",):
        recipe = recipes[base].with_(name="by name", accumulate=accumulate)
        measured = measure(step_of(work, recipe), *work.batch())  # first: scratch grows with it
        assert_same(forecast_of(work, recipe), measured)


@given(
    widths=st.lists(st.integers(1, 90), min_size=1, max_size=3), rows=st.integers(1, 70),
    features=st.integers(1, 120), recipe=st.sampled_from(["fp32", "mixed-fp16", "bf16", "bf16-kahan"]),
)  # fmt: skip
def test_any_mlp(widths: list[int], rows: int, features: int, recipe: str) -> None:
    """Oracle: a real step of fully connected layers of any width, to the byte."""
    sizes = {"hidden": tuple(widths)}
    work = Workload(lambda: mp.models.build("mlp", ((features,), 10), **sizes), (rows, features), (rows,))
    assert_same(forecast_of(work, recipe), measure(step_of(work, recipe), *work.batch()))


@given(
    channels=st.lists(st.integers(1, 12), min_size=1, max_size=2), rows=st.integers(1, 6),
    image=st.tuples(st.integers(1, 3), st.integers(4, 13), st.integers(4, 13)),
    recipe=st.sampled_from(["fp32", "mixed-bf16", "fp16"]),
)  # fmt: skip
def test_any_cnn(channels: list[int], rows: int, image: tuple[int, int, int], recipe: str) -> None:
    """Oracle: a real step of convolutions and pools on images of any size, to the byte."""
    sizes = {"channels": tuple(channels)}
    work = Workload(lambda: mp.models.build("cnn", (image, 10), **sizes), (rows, *image), (rows,))
    assert_same(forecast_of(work, recipe), measure(step_of(work, recipe), *work.batch()))


def test_a_part_that_is_computed_twice() -> None:
    """Oracle: a real step; when the part has run again, all is there but what the loss had saved."""

    class Part(nn.Module):
        def __init__(self, again: bool) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
            self.again = again

        def forward(self, x: Any) -> Any:
            return mp.recompute(self.part, x) if self.again else self.part(x)

    found = {}
    for again in (False, True):
        work = Workload(lambda again=again: Part(again), (32, 64), (32,))  # type: ignore[misc]
        found[again] = forecast_of(work, "mixed-bf16")
        assert_same(found[again], measure(step_of(work, "mixed-bf16"), *work.batch()))
    less = found[False].activations - found[True].activations
    assert less == 4 * 32 * 10 + 8 * 32
    again = found[True].logical.low_copies - found[False].logical.low_copies
    assert again == 2 * 10 * 256  # that backward reads; the first is on the region's table still


@pytest.mark.parametrize("nested", [False, True])
def test_the_height_of_parts_that_are_computed_twice(nested: bool) -> None:
    """Oracle: the inputs of three of four parts and what the fourth saves, by hand; a real step."""

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(3)]
            self.parts = nn.ModuleList(
                [*layers, nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))]
            )

        def forward(self, x: Any) -> Any:
            for part in self.parts:
                run = (lambda x, part=part: mp.recompute(part, x)) if nested else part
                x = mp.recompute(run, x)
            return x

    work = Workload(Parts, (32, 64), (32,))
    found = forecast_of(work, "mixed-bf16")
    assert_same(found, measure(step_of(work, "mixed-bf16"), *work.batch()))
    assert found.activations == 4 * 32 * 64 + 2 * (2 * 32 * 64) + 2 * 32 * (64 + 256)


def test_other_models_do_not_count() -> None:
    """Oracle: the ledger of the same step while another model's 16-bit weights and their twins are alive."""
    work = SMALL["mlp"]
    step = step_of(work, "mixed-bf16")
    alone = measure(step, *work.batch())
    other = work.make().half()
    twins = [parameter.backend.wide(parameter.array) for parameter in other.parameters()]
    assert any(each.nbytes >= 4 * 2048 for each in twins)
    assert_same(measure(step, *work.batch()), alone)


# ---- tracemalloc ------------------------------------------------------------------------------------------


def traced() -> int:
    """Return the bytes that NumPy holds."""
    numpys = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(numpys).traces)


def scratch() -> int:
    """Return the bytes of work space that is there already."""
    return get_backend("numpy").scratch_bytes()


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16"])
@pytest.mark.parametrize("name", ["mlp", "cnn", pytest.param("gpt", marks=pytest.mark.slow)])
def test_the_physical_column_is_what_the_process_holds(name: str, recipe: str) -> None:
    """Oracle: tracemalloc's count of NumPy's memory at each moment, within 1 % (5 % were asked for)."""
    work = LARGE[name]
    expected = forecast_of(work, recipe)
    x, y = work.batch()
    before = scratch()
    tracemalloc.start()
    try:
        step = step_of(work, recipe)
        for stage, state in step.walk(x, y):
            if stage in AFTER:
                seen, held = traced(), held_by(step, state)
                assert held.total - before == pytest.approx(seen, rel=0.01)
                assert held == expected.moments[AFTER[stage]]
    finally:
        tracemalloc.stop()


def test_a_model_that_would_never_fit() -> None:
    """Oracle: 25 thousand million weights by hand; a second, and some MiB by tracemalloc."""
    wide, deep = 2**15, 24

    def make() -> nn.Module:
        return nn.Sequential(*(nn.Linear(wide, wide) for _ in range(deep)), nn.Linear(wide, 10))

    tracemalloc.start()
    try:
        start = time.process_time()
        found = forecast(make, "mixed-fp16", optim.Adam, (4096, wide), (4096,), mp.functional.cross_entropy)
        spent = time.process_time() - start
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    weights = deep * (wide * wide + wide) + wide * 10 + 10
    assert found.logical.masters == 4 * weights > 100e9
    assert found.logical.optimizer == 8 * weights
    assert spent < 1.0
    assert most < 8 * MIB


# ---- what is taken, and what is refused --------------------------------------------------------------------


def test_a_module_is_read_and_stays_as_it_is() -> None:
    """Oracle: the forecast from a function; the module's arrays are the same objects afterwards."""
    work = SMALL["resnet"]
    model = work.make()
    before = {name: p.array for name, p in (*model.named_parameters(), *model.named_buffers())}
    drawn = mp.get_rng_state()
    given = forecast(model, "mixed-fp16", optim.Adam, *work.batch(), work.loss_fn)
    after = {name: p.array for name, p in (*model.named_parameters(), *model.named_buffers())}
    assert_same(given, forecast_of(work, "mixed-fp16"))
    assert all(after[name] is array for name, array in before.items())
    assert mp.get_rng_state() == drawn
    assert mp.tensor([1.0]).backend.name == "numpy"


def test_batches_can_be_given_in_four_ways() -> None:
    """Oracle: the same ledger from arrays, tensors, shapes, and shapes with a dtype."""
    x, y = SMALL["mlp"].batch()
    ways = [
        (x, y), (mp.tensor(x), y), (x.shape, y.shape), ((x.shape, "float32"), (y.shape, np.int64)),
    ]  # fmt: skip
    work = SMALL["mlp"]
    found = [forecast(work.make, "fp32", optim.SGD, *way, work.loss_fn) for way in ways]
    assert all(each.logical == found[0].logical for each in found)


def test_what_is_refused() -> None:
    """Oracle: errors by name: no batch, no model, a batch that does not fit, values that are asked for."""
    loss, make = mp.functional.cross_entropy, SMALL["mlp"].make
    with pytest.raises(SettingError, match="expected an array, a shape"):
        forecast(make, "fp32", optim.SGD, 40, (40,), loss)
    with pytest.raises(SettingError, match="makes a module, and it made a list"):
        forecast(lambda: [1], "fp32", optim.SGD, (40, 64), (40,), loss)  # type: ignore[arg-type,return-value]
    with pytest.raises(ShapeError, match="linear"):
        forecast(make, "fp32", optim.SGD, (40, 63), (40,), loss)
    with pytest.raises(DataError, match="as many targets as inputs"):
        forecast(make, "fp32", optim.SGD, (40, 64), (41,), loss)
    with pytest.raises(SettingError, match="recipe"):
        forecast(make, "fp31", optim.SGD, (40, 64), (40,), loss)

    class Peeks(nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.detach().numpy().sum() > 0 else -x

    with pytest.raises(DeviceError, match="has no values"):
        forecast(lambda: nn.Sequential(nn.Linear(4, 2), Peeks()), "fp32", optim.SGD, (3, 4), (3,), loss)
    assert mp.tensor([1.0]).backend.name == "numpy"


def test_causes_and_moments_are_described() -> None:
    """Oracle: the fields of a ledger's column, and the moments of a measured step."""
    found = forecast_of(SMALL["mlp"], "fp32")
    assert list(found.logical.as_dict()) == list(CAUSES)
    assert list(found.moments) == list(MOMENTS)
