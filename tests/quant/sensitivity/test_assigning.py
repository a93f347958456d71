"""Formats within a budget: kept by the converted model, near the optimum, refused where it cannot be."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from minimp import nn
from minimp.data import ArrayDataset, DataLoader
from minimp.errors import DataError, FormatError, MinimpError, SettingError
from minimp.nn.module import Module
from minimp.quant.layer_reports import bytes_of, sqnr
from minimp.quant.modules import FloatIsland, QuantizedLinear
from minimp.quant.observers import MinMaxObserver
from minimp.quant.sensitivity import assign
from minimp.quant.sensitivity.assigning import FORMATS
from minimp.quant.sensitivity.measuring import Batch, Config, measure
from minimp.quant.sensitivity.spots import Bench
from minimp.quant.static import calibrate, convert, walked
from minimp.tensors import Tensor, tensor
from tests.quant.static.samples import MODES, Array, batches, residual

int4 = partial(MinMaxObserver, quant_min=-8, quant_max=7, symmetric=True)


def run(model: Any, x: Array) -> Array:
    """Return what a model makes of an array."""
    return np.asarray(model(tensor(x)).detach().array)


def uneven(seed: int) -> tuple[Module, Array]:
    """Return a row of three layers of other sizes and spreads, and inputs."""
    rng = np.random.default_rng(seed)
    sizes = [int(each) for each in rng.integers(4, 40, 4)]
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    for layer in layers:
        spread = np.exp(rng.uniform(0, 1.5) * rng.normal(size=layer.weight.shape))
        layer.weight.array = (rng.normal(size=layer.weight.shape) * spread).astype(np.float32)
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).eval()
    return model, rng.normal(size=(60, sizes[0])).astype(np.float32)


def labelled(model: Module, x: Array) -> DataLoader:
    """Return a loader of inputs and the classes that the model gives them."""
    return DataLoader(ArrayDataset(x, run(model, x).argmax(1).astype(np.int64)), len(x))


# ---- islands in float16 ------------------------------------------------------------------------------------


def test_an_island_computes_in_float16() -> None:
    """Oracle: operands rounded to float16, their product in float64, rounded once."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    made: Any = convert(model, calibration, keep_float={"last": "float16", "hidden": "int8"})
    island = made.model.last
    assert (type(island), type(made.model.hidden)) == (FloatIsland, QuantizedLinear)
    assert island.inner.weight.dtype == island.inner.bias.dtype == np.float16
    assert (island.compute, model.last.weight.dtype) == ("float16", np.float32)
    seen: list[Any] = []
    island.inner.register_forward_hook(lambda _, args, made: seen.append(made))
    taken: list[Any] = []
    island.register_forward_pre_hook(lambda _, args: taken.append(args[0]))
    run(made, x)
    halves = taken[0].dequantize().astype(np.float16).astype(np.float64)
    inner = (np.asarray(each.array).astype(np.float64) for each in (island.inner.weight, island.inner.bias))
    weight, bias = inner
    assert seen[0].dtype == np.float16
    wanted = halves @ weight.T + bias
    far = np.abs(np.asarray(seen[0].array).astype(np.float64) - wanted)
    assert np.all(far <= 0.51 * np.spacing(np.abs(wanted).astype(np.float16)).astype(np.float64) + 1e-6)


def test_an_island_of_batch_norm_keeps_its_statistics() -> None:
    """Oracle: running statistics in float32 beside weights in float16; overflow is refused."""
    made = FloatIsland(nn.BatchNorm2d(3), walk_affine(), "float16")
    inner: Any = made.inner
    assert (inner.weight.dtype, inner.running_var.dtype) == (np.float16, np.float32)
    large = nn.Linear(2, 2)
    large.weight.array = np.float32([[1e5, 0], [0, 1]])
    with pytest.raises(SettingError, match=r"its weight reaches 1e\+05, and float16 ends at 65504"):
        FloatIsland(large, walk_affine(), "float16")
    with pytest.raises(SettingError, match="unknown compute 'float8'"):
        FloatIsland(large, walk_affine(), "float8")


def walk_affine() -> Any:
    """Return some numbers for codes."""
    observer = MinMaxObserver()
    observer.observe(np.float32([-1, 1]))
    return observer.affine()


# ---- budgets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("budget", [{"bytes_ratio": 0.6}, {"sqnr_db": 33.0}, {"loss": 2.0}])
def test_the_converted_model_keeps_the_budget(mode: str, budget: dict[str, float]) -> None:
    """Oracle: what convert makes of the assignment: its bytes, its SQNR, its accuracy."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    plan = assign(model, calibration, labelled(model, x), mode=mode, **budget)
    made = convert(model, calibration, mode=mode, keep_float=plan.formats)
    y, q = run(model, x), run(made, x)
    assert plan.nbytes == bytes_of(made)
    assert plan.ratio == bytes_of(made) / bytes_of(model)
    assert plan.measured.sqnr_db == pytest.approx(sqnr([(y, q)]))
    agree = 100 * np.mean(y.argmax(1) == q.argmax(1))
    assert plan.measured.metric == pytest.approx(agree)
    assert plan.ratio <= budget.get("bytes_ratio", 1)
    assert plan.measured.sqnr_db >= budget.get("sqnr_db", 0)
    assert agree >= 100 - budget.get("loss", 100)
    assert set(plan.formats) == {"first.0", "second", "hidden", "last"}
    assert plan.ratio < 0.7  # far from all in float32
    assert plan.formats == assign(model, calibration, labelled(model, x), mode=mode, **budget).formats


def best(bench: Bench, model: Module, calibration: Any, x: Array) -> list[tuple[int, float]]:
    """Return (bytes, SQNR) of every assignment."""
    paths = ("0", "2", "4")
    choices = list(itertools.product(FORMATS, repeat=3))
    codes = dict.fromkeys(bench.sites, "int8")
    configs = {each: Config(codes | dict(zip(paths, each, strict=True))) for each in choices}
    found = measure(bench, [Batch((tensor(x),), None)], configs, None, "test")
    sizes = {
        each: sum(bench.sites[path].bytes_in(form) for path, form in zip(paths, each, strict=True))
        for each in choices
    }
    rest = bytes_of(convert(model, calibration, weight=int4)) - sizes["int8", "int8", "int8"]
    spared = {each: bench.bytes_spared(dict(zip(paths, each, strict=True))) for each in choices}
    return [(sizes[each] + rest - spared[each], found[each].sqnr_db) for each in choices]


@pytest.mark.parametrize("count", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_greedy_is_near_the_optimum(count: int) -> None:
    """Oracle: all 27 assignments of some networks, weights in 4 bits: bytes and dB short of the best."""
    dearer, worse = [], []
    for seed in range(count):
        model, x = uneven(seed)
        calibration = calibrate(model, [x])
        bench = Bench(model, walked(model, calibration, weight=int4), FORMATS[:2])
        every = best(bench, model, calibration, x)
        least, most = (pick(db for _, db in every if math.isfinite(db)) for pick in (min, max))
        for part in (0.25, 0.5, 0.75):
            goal = least + part * (most - least)
            plan = assign(model, calibration, [x], sqnr_db=goal, weight=int4)
            dearer.append(plan.nbytes / min(size for size, db in every if db >= goal))
            ratio = 0.3 + 0.6 * part
            plan = assign(model, calibration, [x], bytes_ratio=ratio, weight=int4)
            fits = max(db for size, db in every if size <= ratio * bytes_of(model))
            worse.append(fits - plan.measured.sqnr_db)
    print(f"bytes over the least: {np.mean(dearer):.3f} x on average, {np.max(dearer):.3f} x at most")
    print(f"dB under the best: {np.mean(worse):.2f} on average, {np.max(worse):.2f} at most")
    assert min(dearer) >= 1
    assert min(worse) >= -1e-9
    assert np.mean(dearer) < 1.05
    assert np.mean(worse) < 1


def test_formats_and_modules_in_floats() -> None:
    """Oracle: only formats that were allowed; what has no integer form is among what convert takes."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    plan = assign(model, calibration, [x], bytes_ratio=0.6, formats=("int8", "float16"))
    assert set(plan.formats.values()) <= {"int8", "float16"}
    norm = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 4)).eval()
    rows = x.reshape(-1, 8)[:64]
    seen = calibrate(norm, [rows])
    plan = assign(norm, seen, [rows], bytes_ratio=0.7, keep_float=["1"])
    assert plan.formats["1"] in ("float16", "float32")
    assert bytes_of(convert(norm, seen, keep_float=plan.formats)) == plan.nbytes


def test_a_layer_of_few_weights_is_smallest_in_float16() -> None:
    """Oracle: bytes by hand: 2 x 9 in float16 and biases, and 1 a code with scales and zero points."""
    x = np.random.default_rng(1).normal(size=(60, 7)).astype(np.float32)
    small = nn.Sequential(nn.Linear(7, 2), nn.Linear(2, 9)).eval()
    seen = calibrate(small, [x])
    every = assign(small, seen, [x], bytes_ratio=1.0)
    (_, last) = every.rows
    assert last.nbytes["float16"] == 2 * (2 * 9 + 9) + 8  # and the scale and zero point of what it gives
    assert last.nbytes["int8"] == 2 * 9 + 9 * (4 + 4 + 4) + 16
    least = every.nbytes + sum(min(row.nbytes.values()) - row.nbytes[row.format] for row in every)
    plan = assign(small, seen, [x], bytes_ratio=least / bytes_of(small))
    assert (plan.nbytes, plan.formats["1"]) == (least, "float16")


def test_a_layer_that_float16_cannot_hold_does_not_get_it() -> None:
    """Oracle: a weight of 1e5, and its formats."""
    model, x = uneven(1)
    layer: Any = model.get_submodule("2")
    layer.weight.array = layer.weight.array * np.float32(1e5 / np.abs(layer.weight.array).max())
    plan = assign(model, calibrate(model, [x]), [x], bytes_ratio=0.6)
    sizes = {row.path: set(row.nbytes) for row in plan}
    assert sizes == {"0": set(FORMATS), "2": {"float32", "int8"}, "4": set(FORMATS)}


def test_the_table_fits() -> None:
    """Oracle: 100 columns of ASCII; each layer, its formats, and the budget."""
    model, x = residual()
    calibration = calibrate(model, batches(x))
    seen: list[Any] = []
    text = str(assign(model, calibration, labelled(model, x), loss=5, progress=seen.append))
    assert all(len(line) <= 100 for line in text.splitlines())
    assert text.isascii()
    assert all(word in text for word in ("hidden", "float16", "loss=5", "accuracy", "dB alone"))
    assert [each.done for each in seen] == list(range(1, len(seen) + 1))


def fault_of(y: Array) -> float:
    """Return how far results lie from those of the float model."""
    model, x = residual()
    return float(np.abs(y - run(model, x)).max())


@pytest.mark.parametrize(
    ("change", "fault", "said"),
    [
        ({"bytes_ratio": 0.1}, SettingError, r"no assignment keeps bytes_ratio=0.1: 0\.\d+ can be reached"),
        ({"sqnr_db": 90}, SettingError, r"no assignment keeps sqnr_db=90: \d\d\.\d\d dB can be reached"),
        ({"loss": 0, "metric": lambda y, t: -fault_of(y)}, SettingError, "no assignment keeps loss=0"),
        ({"loss": 1}, SettingError, "a loss of what"),
        ({"loss": -1}, SettingError, "loss must be a number from 0 on"),
        ({"bytes_ratio": math.nan}, SettingError, "bytes_ratio must be a number"),
        ({}, SettingError, "expected one budget of bytes_ratio, loss, sqnr_db, got none"),
        ({"loss": 1, "sqnr_db": 3}, SettingError, "got loss, sqnr_db"),
        ({"sqnr_db": 3, "formats": ["int8", "int4"]}, SettingError, "unknown format 'int4'"),
        ({"sqnr_db": 3, "formats": ["int8"]}, SettingError, "fewer than two formats"),
        ({"sqnr_db": 3, "data": []}, DataError, "the data are empty"),
        ({"sqnr_db": 3, "keep_float": ["lats"]}, SettingError, "did you mean 'last'"),
    ],
)
def test_refusals(change: dict[str, Any], fault: type[MinimpError], said: str) -> None:
    """Oracle: the class of the error and its words: the least that can be reached is named."""
    model, x = residual()
    given: dict[str, Any] = {"data": [x]} | change
    with pytest.raises(fault, match=said) as caught:
        assign(model, calibrate(model, batches(x)), **given)
    assert caught.value.op == "assign"


def test_codes_are_no_floats() -> None:
    """Oracle: an island refuses floats, in float16 too."""
    island = FloatIsland(nn.Linear(2, 2), walk_affine(), "float16")
    with pytest.raises(FormatError, match="takes codes"):
        island(Tensor(np.zeros((1, 2), np.float32), tensor([0.0]).backend))
