"""Recipes; oracles: the table of the named ones by hand, a rule of what can act, and steps that are run."""

from __future__ import annotations

import itertools
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import fp8, nn, optim
from minimp.errors import FormatError, SettingError
from minimp.modes import listen
from minimp.recipe import Recipe, recipes
from minimp.step import TrainStep
from minimp.tape import Event

F32, F16, BF16, F64 = mp.float32, mp.float16, mp.bfloat16, mp.float64
LOW = (F16, BF16)

NAMED = {
    # name: (parameters, products, masters, loss scale, policy, update, FP8)
    "fp32": (F32, F32, False, None, None, "fp32", None),
    "fp16": (F16, F16, False, None, None, "fp32", None),
    "fp16-master": (F32, F16, True, None, "torch-cuda", "fp32", None),
    "fp16-scaled": (F16, F16, False, "dynamic", "torch-cuda", "fp32", None),
    "mixed-fp16": (F32, F16, True, "dynamic", "torch-cuda", "fp32", None),
    "mixed-layerwise": (F32, F16, True, "layerwise", "torch-cuda", "fp32", None),
    "mixed-bf16": (F32, BF16, True, None, "torch-cuda", "fp32", None),
    "bf16": (BF16, BF16, False, None, "torch-cuda", "fp32", None),
    "bf16-stochastic": (BF16, BF16, False, None, "torch-cuda", "stochastic", None),
    "bf16-kahan": (BF16, BF16, False, None, "torch-cuda", "kahan", None),
    "mixed-fp8": (F32, BF16, True, None, "torch-cuda", "fp32", fp8.DelayedScaling()),
    "mixed-fp8-current": (F32, BF16, True, None, "torch-cuda", "fp32", fp8.Float8CurrentScaling()),
    "mixed-fp8-block": (F32, BF16, True, None, "torch-cuda", "fp32", fp8.Float8BlockScaling()),
    "mixed-mxfp8": (F32, BF16, True, None, "torch-cuda", "fp32", fp8.MXFP8BlockScaling()),
    "fp8-unscaled": (F32, BF16, True, None, "torch-cuda", "fp32", fp8.FixedScaling()),
}


def tiny_step(recipe: Recipe | str) -> TrainStep:
    """Return a step of a small classifier, always from the same weights."""
    mp.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    return TrainStep(model, mp.functional.cross_entropy, optim.Adam(model.parameters(), lr=0.05), recipe)


def batch() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return 16 rows in three classes that lie apart."""
    rng = np.random.default_rng(5)
    labels = np.arange(16) % 3
    rows = rng.standard_normal((16, 6)) + 3 * np.eye(3, 6)[labels]
    return rows.astype(np.float32), labels


# ---- the named ones ----------------------------------------------------------------------------------------


def test_the_named_recipes_are_these() -> None:
    """Oracle: the table above, which says in choices what each name promises."""
    found = {
        name: (r.param_dtype, r.compute_dtype, r.master_weights, r.loss_scale, r.policy, r.update, r.fp8)
        for name, r in recipes.items()
    }
    assert found == NAMED
    assert all(recipe.name == name and recipe.note for name, recipe in recipes.items())
    assert {recipe.accumulate for recipe in recipes.values()} == {"float32"}
    assert mp.recipes is recipes


def test_an_unknown_name_meets_the_nearest() -> None:
    """Oracle: the message, which lists what there is; `in` and `get` do not raise."""
    with pytest.raises(SettingError, match=r"unknown recipe 'mixed-fp61'; did you mean 'mixed-fp16'\?.*fp32"):
        recipes["mixed-fp61"]
    assert "mixed-fp61" not in recipes
    assert len(recipes) == len(list(recipes)) == len(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_recipe_trains(name: str) -> None:
    """Oracle: after 20 steps the loss is below half of the first; the weights are in the recipe's format."""
    step = tiny_step(name)
    losses = [step(*batch()).loss for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    assert {p.format for p in step.model.parameters()} == {NAMED[name][0]}


# ---- spelling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["fp16", "float16", np.float16, np.dtype("float16"), mp.float16])
def test_formats_in_any_spelling(half: Any) -> None:
    """Oracle: the Format object; two recipes that say the same are equal."""
    made = Recipe("mine", half, half)
    assert (made.param_dtype, made.compute_dtype) == (F16, F16)
    assert made == Recipe("mine", F16, F16)


def test_a_copy_is_checked_and_the_original_stays() -> None:
    """Oracle: the contract of `with_` and of a frozen record."""
    mixed = recipes["mixed-fp16"]
    assert mixed.with_(loss_scale=1024.0).loss_scale == 1024.0
    assert mixed.loss_scale == "dynamic"
    with pytest.raises(SettingError, match="a power of two"):
        mixed.with_(loss_scale=1000.0)
    with pytest.raises(FrozenInstanceError):
        mixed.loss_scale = None  # type: ignore[misc]  # the fault under test


# ---- what cannot act ---------------------------------------------------------------------------------------

HALF = {"param_dtype": F16, "compute_dtype": F16}
MIXED = {"compute_dtype": F16, "policy": "torch-cuda", "master_weights": True}


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"compute_dtype": F16}, "without a policy everything is computed in param_dtype"),
        ({"compute_dtype": F64}, "without a policy everything is computed in param_dtype"),
        ({"policy": "torch-cuda"}, "an autocast policy needs a compute_dtype of float16 or bfloat16"),
        (MIXED | {"param_dtype": F64}, "autocast leaves float64 alone"),
        (MIXED | {"param_dtype": BF16}, "parameters in a low format must be in the compute format"),
        (MIXED | {"master_weights": False}, "FP32 parameters are master weights"),
        ({"master_weights": True}, "master weights need a low compute format"),
        ({"loss_scale": "layerwise"}, "loss_scale='layerwise' acts on float16 products with float32"),
        (MIXED | {"compute_dtype": BF16, "loss_scale": "layerwise"}, "loss_scale='layerwise' acts on"),
        (HALF | {"policy": "torch-cuda", "loss_scale": "layerwise"}, "loss_scale='layerwise' acts on"),
        ({"update": "kahan"}, "update='kahan' acts on low-format weights without masters only"),
        (MIXED | {"update": "stochastic"}, "update='stochastic' acts on low-format weights"),
        (HALF | {"master_weights": True, "update": "kahan"}, "acts on low-format weights without masters"),
        ({"param_dtype": mp.int8}, "param_dtype cannot be int8"),
        ({"compute_dtype": "tfloat32"}, "compute_dtype cannot be tfloat32"),
        (HALF | {"compute_dtype": "float8_e5m2"}, "compute_dtype cannot be float8_e5m2"),
        ({"accumulate": "float3"}, "unknown accumulation 'float3'; did you mean 'float32'"),
        ({"accumulate": 32}, "accumulate is the name of an accumulation, not 32"),
        ({"policy": "torch-cudo"}, "unknown policy 'torch-cudo'; did you mean 'torch-cuda'"),
        (MIXED | {"policy": 1}, "policy is the name of a policy, a Policy or None, not 1"),
        (HALF | {"update": "kahn"}, "unknown update 'kahn'; did you mean 'kahan'"),
        (HALF | {"update": None}, "unknown update 'None'"),
        (HALF | {"master_weights": "no"}, "master_weights is True or False, not 'no'"),
        ({"name": None}, "name is a string, not None"),
        *(
            ({"loss_scale": scale}, r"None, 'dynamic', 'layerwise' or a power of two from 2\^-126 ")
            for scale in (0, -2.0, 3, 0.3, True, "dynamo", float("nan"), float("inf"), 2.0**-127, 2**128,
                          10**400, [1024.0])
        ),
    ],
)  # fmt: skip
def test_what_cannot_act_is_refused(choices: dict[str, Any], said: str) -> None:
    """Oracle: SettingError, with a sentence that names the choice."""
    with pytest.raises(SettingError, match=said) as caught:
        Recipe(**({"name": "mine"} | choices))
    assert str(caught.value)[0] != "<"
    assert len(str(caught.value).split()) >= 6


def test_an_unknown_format_is_refused() -> None:
    """Oracle: the error of `mp.formats.get`."""
    with pytest.raises(FormatError, match="unknown number format 'fp61'"):
        Recipe("mine", "fp61")


def can_act(param: Any, compute: Any, master: bool, policy: str | None, update: str) -> bool:
    """Tell whether every choice does something: the rule, said once more in other words."""
    if policy is None:
        kept_low = param in LOW
        sane = compute is param and (kept_low or not master)
    else:
        kept_low = param in LOW and compute is param
        sane = compute in LOW and (kept_low or (param is F32 and master))
    return sane and (update == "fp32" or (kept_low and not master))


def test_every_combination_is_refused_or_does_what_it_says() -> None:
    """Oracle: the rule above; for what is accepted, the ops, weights and state of a few steps."""
    accepted = 0
    formats = (F64, F32, F16, BF16)
    updates = ("fp32", "stochastic", "kahan")
    for choice in itertools.product(formats, formats, (False, True), (None, "torch-cuda"), updates):
        param, compute, master, policy, update = choice
        row = {"param_dtype": param, "compute_dtype": compute, "master_weights": master, "policy": policy}
        if not can_act(*choice):
            with pytest.raises(SettingError):
                Recipe("mine", **row, update=update)
            continue
        for scale in (None, 8.0, "dynamic"):
            check_steps(Recipe("mine", **row, update=update, loss_scale=scale))
            accepted += 1
    assert accepted == 3 * (2 + 2 * 4 + 2 * 5)  # scales x (wide, low without policy, low with one)


def check_steps(recipe: Recipe) -> None:
    """Run some steps and see each choice in what happened.

    A loss that is itself in float16 cannot be scaled by 2^16, so that the first step is skipped there.
    """
    events: list[Event] = []
    step = tiny_step(recipe)
    with listen(events.append):
        reports = [step(*batch()) for _ in range(3)]
    assert np.isfinite([report.loss for report in reports]).all()
    too_large = (recipe.param_dtype, recipe.policy, recipe.loss_scale) == (F16, None, "dynamic")
    assert [report.skipped for report in reports] == [too_large, False, False]
    scales = {None: 1.0, "dynamic": 2.0**16}
    assert reports[0].loss_scale == scales.get(recipe.loss_scale, recipe.loss_scale)
    products = [e.node.format for e in events if e.node.op.name == "linear" and e.phase == "forward"]
    assert set(products) == {recipe.compute_dtype}
    params = list(step.model.parameters())
    assert {p.format for p in params} == {recipe.param_dtype}
    kept_master = recipe.master_weights and recipe.param_dtype in LOW
    assert [step.optimizer.master_of(p) is not None for p in params] == [kept_master] * len(params)
    compensated = ["compensation" in step.optimizer.state[p] for p in params]
    assert compensated == [recipe.update == "kahan"] * len(params)


@pytest.mark.parametrize("name", ["float64", "float16", "chunked:4", "kahan"])
def test_the_accumulation_reaches_every_product(name: str) -> None:
    """Oracle: what each op's context was told."""
    events: list[Event] = []
    step = tiny_step(recipes["mixed-fp16"].with_(accumulate=name))
    with listen(events.append):
        step(*batch())
    products = [e.node.accumulate for e in events if e.node.op.name == "linear"]
    assert len(products) == 4  # two layers, forward and backward
    assert set(products) == {name}
