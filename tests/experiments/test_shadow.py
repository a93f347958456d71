"""Float64 gradients beside a step; oracles: the chain rule in NumPy, a model in float64, counts by hand."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import minimp as mp
from minimp import nn, optim
from minimp.checks.shadow import Fate, fate_of, float64_gradients
from minimp.errors import GradientError, ShapeError
from minimp.recipe import recipes
from minimp.step import TrainStep
from tests.tolerances import assert_close
from tests.trainer.runs import bits

Array = npt.NDArray[Any]
LOSSES = {"cross_entropy": mp.functional.cross_entropy, "mse_loss": mp.functional.mse_loss}
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def make_model(*, dropout: float = 0.0, dtype: str = "float32") -> nn.Module:
    """Return two layers with a ReLU between them, always with the same weights."""
    mp.manual_seed(8)
    middle: list[nn.Module] = [nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(nn.Linear(5, 7), *middle, nn.Linear(7, 3)).to(dtype)


def batch(loss: str = "cross_entropy") -> tuple[Array, Array]:
    """Return rows, and labels or values."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((9, 5)).astype(np.float32)
    return x, (np.arange(9) % 3 if loss == "cross_entropy" else rng.standard_normal((9, 3)).astype("f4"))


def everything(model: nn.Module) -> Any:
    """Return what a model and the engine hold, as bits: arrays, formats, gradients, modes, random state."""
    named = dict(model.named_parameters())
    return bits(
        {
            "weights": named,
            "formats": [str(p.format) for p in named.values()],
            "gradients": {name: p.grad for name, p in named.items()},
            "modes": [module.training for module in model.modules()],
            "random": mp.get_rng_state(),
        }
    )


def by_hand(model: nn.Module, loss: str, x: Array, target: Array) -> dict[str, Array]:
    """Return the gradients of the two layers by the chain rule, in float64."""
    w1, b1, w2, b2 = (np.asarray(p).astype(np.float64) for p in model.parameters())
    h = np.maximum(x @ w1.T + b1, 0)  # (N, 7)
    y = h @ w2.T + b2  # (N, 3)
    if loss == "cross_entropy":
        e = np.exp(y - y.max(axis=1, keepdims=True))
        by_y = (e / e.sum(axis=1, keepdims=True) - np.eye(3)[target]) / len(x)
    else:
        by_y = 2 * (y - target) / y.size
    by_h = by_y @ w2 * (h > 0)
    return {"0.weight": by_h.T @ x, "0.bias": by_h.sum(0), "2.weight": by_y.T @ h, "2.bias": by_y.sum(0)}


# ---- the values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_the_chain_rule(loss: str, dtype: str) -> None:
    """Oracle: the chain rule in NumPy, float64, from the weights as they are stored."""
    model, (x, target) = make_model(dtype=dtype), batch(loss)
    found = float64_gradients(model, LOSSES[loss], x, target)
    for name, expected in by_hand(model, loss, x.astype(np.float64), target).items():
        assert found[name].dtype == np.float64
        assert_close(found[name], expected, "fp64_same_maths")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weights_in", DTYPES)
def test_gradients_are_those_of_a_model_in_float64(loss: str, weights_in: str) -> None:
    """Oracle: the bits of backward through a float64 model whose weights NumPy or ml_dtypes has rounded."""
    model, (x, target) = make_model(), batch(loss)
    found = float64_gradients(model, LOSSES[loss], x, target, weights_in=mp.formats.get(weights_in))
    twin = make_model(dtype="float64")
    rounded = {
        name: mp.tensor(np.asarray(p).astype(DTYPES[weights_in]).astype(np.float64))
        for name, p in model.named_parameters()
    }
    twin.load_state_dict(rounded)
    wide = np.asarray(target, np.float64 if target.dtype.kind == "f" else None)
    LOSSES[loss](twin(mp.tensor(x, dtype="float64")), wide).backward()
    assert bits(found) == bits({name: p.grad for name, p in twin.named_parameters()})


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "mixed-fp16", "bf16-stochastic"])
def test_regions_and_accumulation_around_it_do_not_reach_in(recipe: str) -> None:
    """Oracle: the same bits with and without an autocast region and a coarse accumulation in force."""
    model = make_model(dtype=recipes[recipe].param_dtype.name)
    alone = float64_gradients(model, mp.functional.cross_entropy, *batch())
    with mp.autocast("float16"), mp.accumulate("float16"):
        inside = float64_gradients(model, mp.functional.cross_entropy, *batch())
    assert bits(inside) == bits(alone)


def test_inputs_and_targets_may_be_tensors_in_16_bits() -> None:
    """Oracle: the same values given as float64 arrays."""
    model, (x, target) = make_model(), batch("mse_loss")
    low = [mp.tensor(each, dtype="bfloat16") for each in (x, target)]
    wide = [np.asarray(each).astype(np.float64) for each in low]
    found = float64_gradients(model, mp.functional.mse_loss, *low)
    assert bits(found) == bits(float64_gradients(model, mp.functional.mse_loss, *wide))


def test_a_parameter_that_is_not_used_has_no_gradient() -> None:
    """Oracle: the names of those that the loss depends on."""
    model = make_model()
    found = float64_gradients(model, lambda y, t: (y * 0 + model[2].bias).sum() + t.sum() * 0, *batch())
    assert set(found) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    only = float64_gradients(model, lambda _, __: model[2].bias.sum(), *batch())
    assert set(only) == {"2.bias"}


# ---- nothing changes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", recipes)
def test_everything_is_left_as_it_was(recipe: str) -> None:
    """Oracle: every bit of weights, formats, gradients, modes and random state, before a step and after."""
    model = make_model(dropout=0.5)
    step = TrainStep(model, mp.functional.cross_entropy, optim.Adam(model.parameters()), recipe)
    for _ in range(2):
        before, arrays = everything(model), [p.array for p in model.parameters()]
        float64_gradients(model, step.loss_fn, *batch(), weights_in=step.recipe.compute_dtype)
        assert everything(model) == before
        assert all(p.array is array for p, array in zip(model.parameters(), arrays, strict=True))
        step(*batch())


@pytest.mark.parametrize("dtype", DTYPES)
def test_so_it_is_when_the_loss_raises(dtype: str) -> None:
    """Oracle: the same bits, where the loss raises, where backward does and where the batch does not fit."""

    def broken(output: Any, target: Any) -> Any:
        raise ZeroDivisionError

    model, (x, target) = make_model(dropout=0.5, dtype=dtype), batch()
    model(mp.tensor(x, dtype=dtype)).sum().backward()
    before = everything(model)
    with pytest.raises(ZeroDivisionError):
        float64_gradients(model, broken, x, target)
    with pytest.raises(GradientError, match="of shape"):
        float64_gradients(model, lambda y, _: y, x, target)
    with pytest.raises(ShapeError):
        float64_gradients(model, mp.functional.cross_entropy, x[:, :4], target)
    assert everything(model) == before


def test_dropout_draws_the_mask_of_the_forward_that_follows() -> None:
    """Oracle: whole numbers, exact in float32: the gradient of the layer after dropout is the mask."""
    mp.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 64, bias=False), nn.Dropout(0.5), nn.Linear(64, 1, bias=False))
    model.load_state_dict({"0.weight": mp.tensor(np.ones((64, 4))), "2.weight": mp.tensor(np.ones((1, 64)))})
    x = np.ones((2, 4), np.float32)
    exact = float64_gradients(model, lambda y, _: y.sum(), x, None)
    model(mp.tensor(x)).sum().backward()
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(np.asarray(p.grad), exact[name])
    assert set(np.unique(exact["2.weight"])) == {0.0, 8.0, 16.0}  # of two rows none, one or both kept


# ---- counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, *DTYPES.values()])
def test_fates_by_hand(dtype: Any) -> None:
    """Oracle: of eleven gradients, six are not zero in float64; two became zero, and three are not finite."""
    exact = {"a": np.array([1e-9, 1.0, 7.0, -8.0, 0.0, 0.0]), "b": np.array([[-1e-30, 5.0], [0.0, np.inf]])}
    low = {"a": np.array([0, 1, np.inf, np.nan, 0, 3]), "b": np.array([[-0.0, -np.inf], [np.nan, 0]])}
    exact["c"], low["c"] = np.array([np.nan]), np.array([0.0])
    found = fate_of({name: value.astype(dtype) for name, value in low.items()}, exact)
    assert found == Fate(nonzero=6, flushed=2, overflowed=3)
    assert (found.flushed_share, found.overflowed_share) == (2 / 6, 3 / 6)


def test_fates_add_up_and_an_empty_one_has_no_share() -> None:
    """Oracle: sums by hand; 0 of 0 is 0."""
    assert Fate(6, 2, 3) + Fate(4, 1, 0) == Fate(10, 3, 3)
    assert fate_of({}, {}) == Fate(0, 0, 0)
    assert (Fate(0, 0, 0).flushed_share, Fate(0, 0, 0).overflowed_share) == (0.0, 0.0)


def test_a_gradient_that_is_missing_is_not_passed_over() -> None:
    """Oracle: KeyError: every float64 gradient needs one to compare with."""
    with pytest.raises(KeyError, match="a"):
        fate_of({}, {"a": np.ones(1)})


def test_the_fate_of_a_real_step() -> None:
    """Oracle: powers of two. w_j's gradient is 2^-j / 16; zero in float16 from 2^-25 down, j = 21 on."""
    slopes = np.exp2(-np.arange(40.0)).astype(np.float32)
    model = nn.Sequential(nn.Linear(1, 40, bias=False))

    def loss_fn(output: Any, _: Any) -> Any:
        return (output * slopes).sum()

    optimizer = optim.SGD(model.parameters(), lr=0.1)
    step = TrainStep(model, loss_fn, optimizer, "fp16-master", micro_batches=16)
    x = np.ones((1, 1), np.float32)
    exact = float64_gradients(model, loss_fn, x, None, weights_in=mp.float16)
    np.testing.assert_array_equal(exact["0.weight"][:, 0], slopes)
    step(x, None)
    low = {name: p.grad for name, p in model.named_parameters()}
    assert fate_of(low, exact) == Fate(nonzero=40, flushed=19, overflowed=0)
