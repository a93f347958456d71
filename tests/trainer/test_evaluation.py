"""Evaluation; oracles: NumPy in float64 on the model's outputs, and the formats that a recipe names."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import minimp as mp
from minimp import models, optim
from minimp.data import ArrayDataset, digits
from minimp.evaluation import evaluate
from minimp.fp8 import fp8_autocast
from minimp.modes import listen
from minimp.recipe import Recipe, recipes
from minimp.step import TrainStep
from tests.arrays import host
from tests.tolerances import assert_close

Array = npt.NDArray[np.float64]


def made(name: str, recipe: Recipe | str, **sizes: Any) -> tuple[Any, ArrayDataset]:
    """Return a model of a recipe and the digits to test it on."""
    mp.manual_seed(1)
    data = models.MODELS[name].prepare(digits("test", shape="image"))
    model = models.build(name, data, **sizes)
    TrainStep(model, mp.functional.mse_loss, optim.SGD(model.parameters(), lr=0.1), recipe)
    return model, data


def outputs(model: Any, data: ArrayDataset, recipe: Recipe) -> Array:
    """Return the outputs on all rows at once, by way of the public autocast."""
    x = mp.tensor(data.inputs)
    region = mp.autocast(recipe.compute_dtype if recipe.policy else "float16", bool(recipe.policy))
    with mp.no_grad(), region, fp8_autocast(recipe.fp8 is not None, recipe.fp8):
        return host(model(x if recipe.policy else x.to(recipe.param_dtype))).astype(np.float64)


def cross_entropy(scores: Array, labels: npt.NDArray[Any]) -> float:
    """Return the mean of ln sum e^x - x[label]."""
    top = scores.max(axis=1)
    sums = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
    return float(np.mean(sums - scores[np.arange(len(labels)), labels]))


@pytest.mark.parametrize("recipe", recipes)
def test_classes_are_judged_by_accuracy_and_cross_entropy(recipe: str) -> None:
    """Oracle: NumPy in float64 on the outputs in the recipe's formats."""
    model, data = made("mlp", recipe)
    scores = outputs(model, data, recipes[recipe])
    found = evaluate(model, data, recipe, batch_size=len(data))
    assert found["test_accuracy"] == np.mean(scores.argmax(axis=1) == data.targets)
    assert_close(found["test_loss"], cross_entropy(scores, data.targets), "fp64_same_maths")


@pytest.mark.parametrize("recipe", recipes)
def test_values_are_judged_by_squared_error(recipe: str) -> None:
    """Oracle: NumPy in float64 on the outputs in the recipe's formats."""
    model, data = made("autoencoder", recipe)
    wanted = np.mean((outputs(model, data, recipes[recipe]) - data.targets) ** 2)
    found = evaluate(model, data, recipe, batch_size=len(data))
    assert set(found) == {"test_loss"}
    assert_close(found["test_loss"], wanted, "fp64_same_maths")


@pytest.mark.parametrize("recipe", recipes)
def test_products_run_in_the_formats_of_the_recipe(recipe: str) -> None:
    """Oracle: the recipe's compute_dtype and accumulation; the loss is float64 without autocast."""
    chosen = recipes[recipe].with_(accumulate="float64")
    model, data = made("cnn", chosen)
    seen = []
    with listen(seen.append):
        evaluate(model, data, chosen)
    products = [event for event in seen if event.node.op.name in ("linear", "conv2d")]
    assert products
    assert {str(event.node.format) for event in products} == {chosen.compute_dtype.name}
    assert {event.node.accumulate for event in products} == {"float64"}
    losses = [event for event in seen if event.node.op.name == "nll_loss"]
    assert {(str(event.node.format), event.node.accumulate) for event in losses} == {("float64", "float64")}


def test_batches_do_not_matter() -> None:
    """Oracle: the same figures from batches of 1, of 7 (the last is short) and of everything, in float64."""
    wide = Recipe("float64", "float64", "float64")
    model, data = made("mlp", wide)
    wanted = evaluate(model, data, wide, batch_size=len(data))
    for size in (1, 7):
        found = evaluate(model, data, wide, batch_size=size)
        assert found["test_accuracy"] == wanted["test_accuracy"]
        assert_close(found["test_loss"], wanted["test_loss"], "fp64_same_maths")


def test_a_row_with_nan_is_wrong() -> None:
    """Oracle: the count; argmax takes NaN for the largest, which would make every label 0 right."""
    model, data = made("mlp", "fp32")
    for parameter in model.parameters():
        parameter.array = parameter.backend.xp.full_like(parameter.array, np.nan)
    found = evaluate(model, data, "fp32")
    assert found["test_accuracy"] == 0.0
    assert np.isnan(found["test_loss"])


def test_nothing_is_left_changed() -> None:
    """Oracle: weights, random state, training modes and settings before; dropout is off meanwhile."""
    model, data = made("mlp", "mixed-fp16", dropout=0.5)
    model[0].eval()
    before = [p.array for p in model.parameters()], [m.training for m in model.modules()], mp.get_rng_state()
    first, second = evaluate(model, data, "mixed-fp16"), evaluate(model, data, "mixed-fp16")
    assert first == second
    after = [p.array for p in model.parameters()], [m.training for m in model.modules()], mp.get_rng_state()
    assert all(a is b for a, b in zip(before[0], after[0], strict=True))
    assert before[1:] == after[1:]
    assert before[1].count(False) == 1
    assert all(p.grad is None for p in model.parameters())


def test_a_loss_of_ones_own() -> None:
    """Oracle: NumPy; the loss is averaged over rows, not over batches (397 rows, the last batch is short)."""
    model, data = made("autoencoder", "fp32")

    def largest(output: Any, target: Any) -> Any:
        return (output - target).abs().max(dim=1).values.mean()

    wanted = np.abs(outputs(model, data, recipes["fp32"]) - data.targets).max(axis=1).mean()
    found = evaluate(model, data, "fp32", loss_fn=largest, batch_size=len(data))
    assert_close(found["test_loss"], wanted, "fp64_same_maths")
