"""FP8 in training: state that moves and resumes, layers that are left out, and what it is worth.

Oracles: runs that were not interrupted, loops written out, the definitions, and float32.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, memory, models, nn, optim
from minimp.checks.eight_bits import check_fp8_scales
from minimp.data import digits
from minimp.errors import CheckpointError, SettingError
from minimp.evaluation import evaluate
from minimp.experiments import EXPERIMENTS, run_experiment
from minimp.fp8 import (
    DelayedScaling,
    LinearState,
    aligned,
    fp8_autocast,
    is_fp8_enabled,
    linears,
    load_state_dict,
    next_history,
    state_dict,
    watch,
)
from minimp.modes import MODES, listen
from minimp.recipe import Recipe, recipes
from minimp.step import TrainStep
from minimp.tape import Event
from minimp.verdicts import as_good, verdict
from tests.arrays import host
from tests.trainer.runs import bits, make_trainer, timeless

FP8 = [name for name in recipes if "fp8" in name]
SHORT = recipes["mixed-fp8"].with_(name="short", fp8=DelayedScaling(amax_history_len=5, margin=1))


def small(seed: int = 0) -> nn.Sequential:
    """Return a model of three layers."""
    mp.manual_seed(seed)
    return nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 5))


def batch(seed: int = 0) -> tuple[Any, Any]:
    """Return 24 rows and their labels."""
    random = np.random.default_rng(seed)
    return random.standard_normal((24, 32)).astype(np.float32), random.integers(0, 5, 24)


def step_of(recipe: Any, model: Any = None, **options: Any) -> TrainStep:
    """Return a step."""
    made = small() if model is None else model
    return TrainStep(
        made, functional.cross_entropy, optim.Adam(made.parameters(), lr=1e-3), recipe, **options
    )


# ---- state moves ------------------------------------------------------------------------------------------


def test_scales_are_those_of_the_steps_before() -> None:
    """Oracle: amaxes read off the op events of each step, in lists; s = max / (2 largest of the last 5)."""
    step = step_of(SHORT)
    seen: dict[str, list[float]] = {"input": [], "weight": [], "grad": []}
    for number in range(9):
        events: list[Event] = []
        with listen(events.append):
            step(*batch(number))
        mine = [event for event in events if event.node.op.name == "linear_fp8"]
        used = mine[0].node.options["scales"]
        for place, (role, top) in enumerate({"input": 448.0, "weight": 448.0, "grad": 57344.0}.items()):
            window = [a for a in seen[role][-5:] if a]
            wanted = float(np.float32(top / 2) / np.float32(max(window))) if window else 1.0
            assert used[place] == wanted, (number, role)
        amaxes = [np.abs(mine[0].inputs[i].astype(np.float32)).max() for i in (0, 1)]
        backward = [e for e in mine if e.phase == "backward" and e.node is mine[0].node]
        amaxes.append(np.abs(backward[0].inputs[0].astype(np.float32)).max())
        for role, amax in zip(seen, amaxes, strict=True):
            seen[role].append(float(amax))


def test_a_region_by_hand_is_the_training_step() -> None:
    """Oracle: TrainStep: the same losses, weights and scales, bit for bit."""
    step, model = step_of(SHORT), small()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    for number in range(6):
        x, y = batch(number)
        with mp.autocast("bfloat16"), fp8_autocast(recipe=SHORT.fp8):
            loss = functional.cross_entropy(model(mp.tensor(x)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert step(x, y).loss == loss.item()
    for a, b in zip(step.model.parameters(), model.parameters(), strict=True):
        np.testing.assert_array_equal(host(a), host(b))
    with fp8_autocast(recipe=SHORT.fp8):  # the scales of the last step move when the next one begins
        model(mp.tensor(x))
    for (_, mine), (_, theirs) in zip(mp_states(model), mp_states(step.model), strict=True):
        assert mine.scales == theirs.scales


def mp_states(model: Any) -> list[tuple[str, LinearState]]:
    """Return the states of a model."""
    return [(path, each.fp8_state) for path, each in linears(model).items()]


def test_evaluation_changes_nothing() -> None:
    """Oracle: bits of the state before, after runs under no_grad and evaluate."""
    step = step_of("mixed-fp8")
    step(*batch())
    before = bits(state_dict(step.model))
    with mp.no_grad(), fp8_autocast():
        step.model(mp.tensor(batch(1)[0] * 1e3))
    assert bits(state_dict(step.model)) == before
    memory.ledger(step, *batch(2))
    assert bits(state_dict(step.model)) == before
    data = models.MODELS["mlp"].prepare(digits("test"))
    model = models.build("mlp", data)
    evaluate(model, data, "mixed-fp8")
    assert state_dict(model) == {}


def test_a_step_dropped_half_way_is_forgotten() -> None:
    """Oracle: a twin that never began it: scales, weights and loss of the next step."""
    step, twin = step_of(SHORT), step_of(SHORT)
    for each in (step, twin):
        each(*batch())
    for name, _ in step.walk(batch(1)[0] * 100, batch(1)[1]):
        if name == "backward":
            break
    assert step(*batch(2)).loss == twin(*batch(2)).loss
    assert bits(state_dict(step.model)) == bits(state_dict(twin.model))


def test_a_layer_used_twice_notes_the_larger_amax() -> None:
    """Oracle: amaxes by hand: one layer, two inputs, one region."""
    layer = nn.Linear(4, 4, bias=False)
    with fp8_autocast(recipe=SHORT.fp8):
        layer(mp.tensor([[1.0, 2.0, -3.0, 0.0]]))
        layer(mp.tensor([[0.5, 0.5, 0.5, 0.5]]))
    assert layer.fp8_state.tensors["input"].amax_history.tolist() == [3, 0, 0, 0, 0]


def test_recompute_reads_by_the_scales_of_the_first_run() -> None:
    """Oracle: the same model without recompute: gradients and scales, bit for bit."""
    found = []
    for again in (False, True):
        model = small()
        for number in range(3):
            x = mp.tensor(batch(number)[0])
            with mp.autocast("bfloat16"), fp8_autocast(recipe=SHORT.fp8):
                y = mp.recompute(model, x) if again else model(x)
                loss = functional.cross_entropy(y, batch(number)[1])
            loss.backward()
        grads = [p.grad.numpy() for p in model.parameters()]
        found.append((bits(grads), bits(state_dict(model))))
    assert found[0] == found[1]


def test_a_copied_step_knows_its_layers() -> None:
    """Oracle: the original: what the first stage casts (nothing, all weights are read in FP8), and losses."""
    step = step_of("mixed-fp8")
    step(*batch())
    twin = copy.deepcopy(step)
    assert next(iter(twin.stages(*batch()))).tensors == {}
    assert twin(*batch(1)).loss == step(*batch(1)).loss


def test_a_copy_has_a_state_of_its_own() -> None:
    """Oracle: the original's bits after the copy has trained on."""
    step = step_of("mixed-fp8")
    step(*batch())
    before = bits(state_dict(step.model))
    twin = copy.deepcopy(step.model)
    step_of("mixed-fp8", twin)(*batch(3))
    assert bits(state_dict(step.model)) == before
    assert bits(state_dict(twin)) != before


# ---- and is kept ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [SHORT, *FP8], ids=lambda recipe: getattr(recipe, "name", recipe))
def test_a_resumed_run_has_no_bit_of_difference(recipe: Any, tmp_path: Path) -> None:
    """Oracle: 30 steps straight; 12 of them, a file, and 18 more."""
    straight = make_trainer(recipe)
    wanted = straight.run(30)
    file = tmp_path / "run.safetensors"
    first = make_trainer(recipe, checkpoint=file).run(12)
    second = make_trainer(recipe, checkpoint=file)
    second.resume()
    found = second.run(18)
    assert timeless([*first.records, *found.records]) == timeless(wanted.records)
    assert bits(second.state_dict()) == bits(straight.state_dict())
    scales = recipes[recipe].fp8 if isinstance(recipe, str) else recipe.fp8
    assert ("fp8" in second.state_dict()) is scales.has_history


def test_a_state_of_another_run_is_refused() -> None:
    """Oracle: CheckpointError, and nothing changed: other recipes, layers, or no histories."""
    trainer = make_trainer("mixed-fp8")
    trainer.run(2)
    state = trainer.state_dict()
    before = bits((state["model"], state["fp8"]))
    with pytest.raises(CheckpointError, match="recipe"):
        make_trainer("mixed-bf16").load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"recipe\.fp8"):
        make_trainer(recipes["mixed-fp8"].with_(fp8=DelayedScaling(margin=1))).load_state_dict(state)
    with pytest.raises(CheckpointError, match="FP8 scales are missing"):
        trainer.load_state_dict({key: value for key, value in state.items() if key != "fp8"})
    with pytest.raises(CheckpointError, match="no Linear layer"):
        load_state_dict(trainer.step.model, {"7": {}})
    with pytest.raises(CheckpointError, match="histories and scales"):
        load_state_dict(trainer.step.model, {"0": {}})
    for scale in (1, 0.0, -1.0, np.inf, np.nan):
        wrong = {"0": {**state["fp8"]["0"], "grad.scale": scale}}
        with pytest.raises(CheckpointError, match=r"0\.grad"):
            load_state_dict(trainer.step.model, wrong)
    after = trainer.state_dict()
    assert bits((after["model"], after["fp8"])) == before


def test_the_check_of_scales_finds_faults() -> None:
    """Faults: a history that is not rotated, one rotated the wrong way, a scale of the wrong slot."""
    step = step_of(SHORT)
    for number in range(4):
        for stage in step.stages(*batch(number)):
            if stage.name == "backward":
                before = state_dict(step.model)
            if stage.name == "update_scale":
                assert stage.check()
                assert set(stage.facts["fp8_scales"]) == {"0", "2", "4"}
    after = state_dict(step.model)
    assert check_fp8_scales(SHORT.fp8, before, after)
    history = "grad.amax_history"
    for fault in (
        {history: before["0"][history]},
        {history: np.roll(before["0"][history], 1)},
        {"input.scale": float(np.float32(224) / before["0"]["input.amax_history"][3])},
        {"weight.scale": before["0"]["weight.scale"] * 2},
    ):
        assert not check_fp8_scales(SHORT.fp8, before, {**after, "0": {**after["0"], **fault}})
    assert not check_fp8_scales(SHORT.fp8, before, {})
    np.testing.assert_array_equal(next_history(before["0"][history]), after["0"][history])


# ---- which layers -----------------------------------------------------------------------------------------


def events_of(step: TrainStep) -> list[str]:
    """Return the products of a step's forward."""
    seen: list[Event] = []
    with listen(seen.append):
        step(*batch())
    return [e.node.op.name for e in seen if e.phase == "forward" and e.node.op.name.startswith("linear")]


def test_layers_can_be_left_out() -> None:
    """Oracle: the ops that run: by alignment to 16, by path, and all."""
    assert events_of(step_of("mixed-fp8")) == ["linear_fp8"] * 3
    assert events_of(step_of("mixed-fp8", fp8_filter_fn=aligned)) == ["linear_fp8", "linear_fp8", "linear"]
    ends = ("0", "4")
    step = step_of("mixed-mxfp8", fp8_filter_fn=lambda module, path: path not in ends)
    assert list(step.fp8_layers) == ["2"]
    assert events_of(step) == ["linear", "linear_fp8", "linear"]
    first = next(step.stages(*batch()))
    assert "2.weight" not in first.tensors
    assert "0.weight" in first.tensors


def test_a_region_takes_the_layers_that_it_was_given() -> None:
    """Oracle: the ops that run; nested regions, a region switched off, and what is no nn.Linear."""
    model = small()
    seen: list[Event] = []
    x = mp.tensor(batch()[0])
    with listen(seen.append), fp8_autocast(recipe="current", layers=[model[0]]):
        assert is_fp8_enabled()
        model(x)
        with fp8_autocast(False):
            assert not is_fp8_enabled()
            model[0](x)
        functional.linear(x, model[0].weight)
    assert not is_fp8_enabled()
    found = [e.node.op.name for e in seen if e.node.op.name.startswith("linear")]
    assert found == ["linear_fp8", "linear", "linear", "linear", "linear"]


def test_a_nested_region_is_part_of_the_step() -> None:
    """Oracle: the scales: one step, although three regions used the layer, one inside a switched-off one."""
    layer = nn.Linear(4, 4)
    x = mp.tensor([[1.0, 2.0, 3.0, 4.0]])
    with fp8_autocast(recipe=SHORT.fp8):
        layer(x)
        with fp8_autocast(recipe=SHORT.fp8):
            layer(x)
        with fp8_autocast(False), fp8_autocast(recipe=SHORT.fp8):
            layer(x)
        layer(x)
    assert layer.fp8_state.scales == (1.0, 1.0, 1.0)
    with fp8_autocast(recipe=SHORT.fp8):
        layer(x)
    assert layer.fp8_state.scales[0] == 56.0


def test_a_history_fits_the_recipe_that_uses_it() -> None:
    """Oracle: lengths, and the first slots."""
    layer = nn.Linear(4, 4)
    x = mp.tensor([[1.0, 2.0, 3.0, 4.0]])
    for length in (5, 3, 7):
        with fp8_autocast(recipe=DelayedScaling(amax_history_len=length)):
            layer(x)
        assert layer.fp8_state.tensors["input"].amax_history.shape == (length,)
        assert layer.fp8_state.tensors["input"].amax_history[0] == 4


def test_a_setting_that_cannot_act_is_refused() -> None:
    """Oracle: SettingError: no FP8 in the recipe, no layer for it, float64, a matrix unit, no such name."""
    with pytest.raises(SettingError, match="has no FP8"):
        step_of("mixed-bf16", fp8_filter_fn=aligned)
    wide = small().double()
    with pytest.raises(SettingError, match="there is none"):
        step_of("mixed-fp8", wide, fp8_filter_fn=lambda module, path: False)
    assert {p.format.name for p in wide.parameters()} == {"float64"}, "and the model is as it was"
    with pytest.raises(SettingError, match="no layers"):
        fp8_autocast(layers=[])
    with pytest.raises(SettingError, match=r"'0', which is no nn\.Linear"):
        fp8_autocast(layers=linears(small()))
    with pytest.raises(SettingError, match="enabled is True or False"):
        fp8_autocast("current")
    with pytest.raises(SettingError, match="fp8_layers cannot act"):
        evaluate(small(), digits("test"), "fp32", fp8_layers=[small()[0]])
    with pytest.raises(SettingError, match="float64"):
        Recipe("wide", "float64", "float64", fp8="current")
    with pytest.raises(SettingError, match="cannot be accumulated"):
        recipes["mixed-fp8"].with_(accumulate="tensorcore:hopper")
    with pytest.raises(SettingError, match="FP8 recipe"):
        recipes["mixed-fp8"].with_(fp8="delaid")
    assert MODES.get().fp8 is None


# ---- what it is worth -------------------------------------------------------------------------------------


def test_bytes_are_forecast_and_counted() -> None:
    """Oracle: closed forms: a byte a number saved, FP8 copies of weights that backward reads, histories."""
    step = step_of(SHORT)
    held = memory.measure(step, *batch())
    saved = 24 * (32 + 48 + 16)
    loss = memory.measure(step_of("mixed-bf16"), *batch()).logical.activations - 2 * saved
    relus = 24 * 2 * (48 + 16)  # in bfloat16 they keep the array that the next layer keeps
    assert held.logical.activations == saved + relus + loss
    assert held.logical.low_copies == 48 * 16 + 16 * 5  # the gradient of the first layer's input is not asked
    assert held.logical.parameters == 3 * 3 * 4 * (5 + 1)
    assert held.logical.masters == 4 * sum(p.size for p in step.model.parameters())
    forecast = memory.forecast(small, SHORT, optim.Adam, (24, 32), (24,), functional.cross_entropy)
    assert forecast.logical == held.logical


@pytest.mark.slow
def test_the_digits_are_learned_as_well_as_in_float32() -> None:
    """Oracle: the verdict's tolerance beside fp32 on the built-in digits; without scales, far from it."""
    experiment = EXPERIMENTS["fp8-scaling"]
    every = (*experiment.recipes, "mixed-fp8-block")
    data = models.MODELS["mlp"].load("digits")
    made = {each.recipe: each for each in run_experiment(experiment.with_(recipes=every), data)}
    reference = made["fp32"]
    for name in every:
        assert as_good(made[name], reference) is (name != "fp8-unscaled"), name
    bare, scaled = made["fp8-unscaled"], made["mixed-fp8"]
    assert bare.score < reference.score - 0.5
    assert bare.fp8["grad"].flushed_share > 0.5
    assert scaled.fp8["grad"].flushed_share < 0.01
    assert "too small for float8_e5m2; no scale lifts them" in verdict(bare, reference)
    for name in ("mixed-fp8", "mixed-fp8-current", "mixed-mxfp8", "mixed-fp8-block"):
        assert 20 < made[name].fp8["grad"].sqnr < made[name].fp8["input"].sqnr + 1
        assert "are in range by their scales" in verdict(made[name], reference)


def test_without_scales_small_gradients_are_lost_and_with_them_not() -> None:
    """Oracle: the shares counted: gradients of a loss over 4096, before and after the first amax is known."""
    shares = {}
    for name in ("fp8-unscaled", "mixed-fp8", "mixed-fp8-current"):
        step = step_of(name, micro_batches=4096)
        for _ in range(3):  # a step brings the gradient one layer further: where it was lost, amax was 0
            step(*batch())
        with watch(step.model) as seen:
            step(*batch())
        shares[name] = seen["grad"].flushed_share
    assert shares["fp8-unscaled"] > 0.9
    assert max(shares["mixed-fp8"], shares["mixed-fp8-current"]) < 0.01
