"""A layer-wise scaler around an optimizer: overflow, report, state, refusals; oracle: what was planted."""

from __future__ import annotations

import copy
import json
import math
from typing import Any, NamedTuple

import numpy as np
import pytest

import minimp as mp
from minimp import functional as F  # noqa: N812 - torch's habit
from minimp import nn
from minimp.errors import GradientError, ScalerError, SettingError
from minimp.scaler import GradScaler
from minimp.scaler.layerwise import LayerwiseScaler
from minimp.tape.scales import mark_of
from tests.arrays import host
from tests.scaler.layered import (
    deep,
    deep_loss,
    gradients,
    loss_of,
    tangle,
    trap,
)
from tests.scaler.plain import PlainSGD
from tests.tolerances import assert_close

RNG = np.random.default_rng(0)


# ---- overflow ---------------------------------------------------------------------------------------------


def test_an_overflow_is_skipped_and_halves_the_layer_it_came_from() -> None:
    """Oracle: by hand: the gradient grows behind `second`: that layer takes less, until it fits."""
    scaler = LayerwiseScaler()
    first, second, loss = trap(scaler)
    optimizer = PlainSGD([first, second])
    factors = []
    for _ in range(8):
        first.grad = second.grad = None
        scaler.scale(loss()).backward()
        factors.append(scaler.factors["second"])
        scaler.step(optimizer)
        scaler.update()
        assert scaler.last_step is not None
        if not scaler.last_step.skipped:
            break
        assert scaler.overflowed == ("second",)
        ceilings = {name: layer["scale"] for name, layer in scaler.state_dict()["layers"].items()}
        assert {name for name, ceiling in ceilings.items() if ceiling < 2.0**24} == {"second"}
        assert "overflowed, and halved: second" in str(scaler.report())
        assert scaler.last_step.nonfinite == ("first.weight",)
    assert 2 <= len(factors) < 8
    assert factors == [factors[0] / 2**i for i in range(len(factors))]
    assert (optimizer.calls, scaler.overflowed) == (1, ())
    assert scaler.report().skips == 0


def test_a_given_factor_stays_where_it_overflows_and_says_so() -> None:
    """Oracle: 2^20 in every step, in `factors` and in what is saved; no word of halving in the report."""
    scaler = LayerwiseScaler(fixed={"second": 2.0**20})
    first, second, loss = trap(scaler)
    optimizer = PlainSGD([first, second])
    for _ in range(2):
        first.grad = second.grad = None
        scaler.scale(loss()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.overflowed == ("second",)
        assert scaler.factors["second"] == scaler.state_dict()["layers"]["second"]["factor"] == 2.0**20
    assert "though its factor was given, and stays: second; skipped in a row: 2" in str(scaler.report())
    assert "halved" not in str(scaler.report())


def test_an_overflow_on_the_way_to_a_leaf_names_all_that_came_that_way() -> None:
    """Oracle: two layers, one of them behind a growth of 2^28; behind both there is a parameter, no layer."""
    weights = {name: mp.tensor(np.full((8, 8), 0.5, np.float32), requires_grad=True) for name in "ab"}
    start = mp.tensor(np.full((4, 8), 2.0**-23, np.float32), requires_grad=True)
    for both in (False, True):
        start.grad = None
        scaler = LayerwiseScaler().name_parameters([(f"{name}.weight", w) for name, w in weights.items()])
        with mp.autocast("float16"):
            low = start.half()
            y = F.linear(low * 2.0**14 * 2.0**14, weights["a"])
            y = y + F.linear(low, weights["b"]) if both else y
            loss = y.float().sum() * 2.0**-24
        scaler.scale(loss).backward()
        assert start.grad is not None
        assert not np.isfinite(host(start.grad)).any()
        scaler.advance(True)
        assert sorted(scaler.overflowed) == (["a", "b"] if both else ["a"])


def test_a_halved_layer_grows_back_after_good_steps() -> None:
    """Oracle: growth_interval good steps double what the layer may take; then it overflows again."""
    scaler = LayerwiseScaler(growth_interval=2)
    first, second, loss = trap(scaler)
    bad = []
    for _ in range(9):
        first.grad = second.grad = None
        scaler.scale(loss()).backward()
        bad.append(not np.isfinite(host(first.grad)).all())
        scaler.advance(bad[-1])
    skips = bad.index(False)
    assert skips > 0
    assert bad[skips : skips + 6] == [False, False, True, False, False, True]


def test_a_fault_before_any_layer_blames_none() -> None:
    """Oracle: a NaN in the loss itself: the step is skipped, and no factor moves."""
    scaler = LayerwiseScaler()
    first, second, loss = trap(scaler)
    optimizer = PlainSGD([first, second])
    for factor, overflowed in [(1.0, ("second",)), (float("nan"), ())]:
        first.grad = second.grad = None
        scaler.scale(loss() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.last_step is not None
        assert (scaler.last_step.skipped, scaler.overflowed, optimizer.calls) == (True, overflowed, 0)


def test_limits_and_the_interval_of_updates_hold() -> None:
    """Oracle: factors within their limits; chosen in the first and third step, kept in the second."""
    model = deep(8)
    for limits in ({"max_scale": 2.0}, {"min_scale": 2.0, "max_scale": 4.0}):
        scaler = LayerwiseScaler(**limits).name_parameters(model)
        scaler.scale(deep_loss(model)).backward()
        assert max(scaler.factors.values()) == limits["max_scale"]
        assert min(scaler.factors.values()) == limits.get("min_scale", 1.0)
    scaler = LayerwiseScaler(update_every=2).name_parameters(model)
    totals = []
    for weight in (1.0, 2.0**-10, 2.0**-10):
        scaler.scale(deep_loss(model) * weight).backward()
        scaler.advance(False)
        totals.append(scaler.report().rows[-1].total)
    assert totals[0] == totals[1] < totals[2]


# ---- names, report, state ---------------------------------------------------------------------------------


def test_layers_are_named_by_their_weights_or_their_place() -> None:
    """Oracle: the model's names; the two uses of `shared`; without names, op and place from the loss."""
    model = tangle()
    scaler = LayerwiseScaler().name_parameters(model)
    scaler.scale(loss_of(model, "float16")).backward()
    names = [row.name for row in scaler.report().rows]
    assert [name for name in names if not name.startswith("cast")] == [
        "head", "matmul-1", "matmul-2", "conv", "shared", "shared/2", "first",
    ]  # fmt: skip
    unnamed = LayerwiseScaler()
    unnamed.scale(loss_of(model, "float16")).backward()
    rows = unnamed.report().rows
    assert [row.name for row in rows if row.op in ("linear", "conv2d")] == [
        "linear-1", "conv2d-1", "linear-2", "linear-3", "linear-4",
    ]  # fmt: skip
    other = nn.Linear(64, 10)
    unnamed.scale(deep_loss(other)).backward()
    assert {row.name for row in unnamed.report().rows if row.op == "linear"} == {"linear-1"}


def test_the_report_is_a_table_within_100_columns() -> None:
    """Oracle: one line a layer, with its factor and shares; a long name is cut, a given factor is marked."""
    model = nn.ModuleDict({"a_name_that_is_longer_than_its_column": nn.Linear(64, 8)})
    scaler = LayerwiseScaler(measure=True, fixed={"a_name_that_is_longer_than_its_column": 2.0**-20})
    scaler.name_parameters(model)
    with mp.autocast("float16"):
        loss = (
            next(iter(model.values()))(mp.tensor(RNG.normal(size=(16, 64)).astype(np.float32))).float().mean()
        )
    scaler.scale(loss).backward()
    text = str(scaler.report())
    assert max(map(len, text.splitlines())) <= 100
    row = scaler.report().rows[-1]
    assert (row.fixed, row.factor, row.op) == (True, 2.0**-20, "linear")
    assert row.measured_after is not None
    assert row.measured_before is not None
    assert row.measured_after > row.measured_before  # 2^-20 is a factor to do harm with
    line = next(line for line in text.splitlines() if "longer" in line)
    assert line.startswith("...")
    assert "2^-20*" in line


def test_measured_shares_are_those_of_the_products() -> None:
    """Oracle: the layer's result in float64, and its roundings to float16 with and without the scale."""
    g, w = RNG.normal(0, 2.0**-14, (64, 32)), RNG.normal(0, 2.0**-12, (32, 48))
    x, weight = mp.tensor(np.ones((64, 48), np.float32), requires_grad=True), mp.tensor(w, dtype="float32")
    scaler = LayerwiseScaler(measure=True, init_scale=4.0)
    with mp.autocast("float16"):
        y = F.linear(x, weight)
    scaler.scale(y).backward(mp.tensor(g, dtype="float16"))
    row = next(row for row in scaler.report().rows if row.op == "linear")
    exact = g.astype(np.float16).astype(np.float64) @ w.astype(np.float16).astype(np.float64)
    assert row.measured_before == np.mean(exact.astype(np.float16) == 0)
    assert row.measured_after == np.mean((exact * row.total).astype(np.float16) == 0)
    assert row.measured_before > 0.1 > row.measured_after
    sigma = math.sqrt(
        32
        * np.mean(g.astype(np.float16).astype(np.float64) ** 2)
        * np.mean(w.astype(np.float16).astype(np.float64) ** 2)
    )
    for scale, share in [(1.0, row.expected_before), (row.total, row.expected_after)]:
        assert_close(share, math.erf(2.0**-24 / (math.sqrt(2) * sigma * scale)), "parity_first_loss")


def test_the_state_goes_through_json_and_back() -> None:
    """Oracle: a scaler that went on without a break: the same factors, ceilings and steps."""
    going, loaded = LayerwiseScaler(update_every=3, threshold=5e-4, fixed={"first": 2.0}), LayerwiseScaler()
    first, _, loss = trap(going)
    loaded._steps._names = going._steps._names
    for _ in range(2):
        going.scale(loss()).backward()
        going.advance(True)
    loaded.load_state_dict(json.loads(json.dumps(going.state_dict())))
    assert loaded.state_dict() == going.state_dict()
    assert loaded.settings == going.settings
    assert loaded.state_dict()["layers"]["second"]["met_bad"]
    for _ in range(3):
        for scaler in (going, loaded):
            first.grad = None
            scaler.scale(loss()).backward()
            scaler.advance(not np.isfinite(host(first.grad)).all())
        assert loaded.state_dict() == going.state_dict()
        assert loaded.factors == going.factors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": {"a": {}}}, r"layers\['a'\] lacks factor"),
        ({"steps": -1}, "steps: expected a count"),
        ({"settings": {}}, "settings lacks threshold"),
        (
            {
                "layers": {
                    "a": {"factor": 3.0, "scale": 1.0, "growth_tracker": 0, "skips": 0, "met_bad": False}
                }
            },
            "factor: expected a power of two, got 3.0",
        ),
        ({"skipping": {}}, "empty"),
    ],
)
def test_a_state_that_cannot_be_used_changes_nothing(change: dict[str, Any], message: str) -> None:
    """Oracle: an error that names the entry, and the state from before."""
    scaler = LayerwiseScaler(threshold=0.01)
    before = scaler.state_dict()
    with pytest.raises((SettingError, ScalerError), match=message):
        scaler.load_state_dict(LayerwiseScaler().state_dict() | change)
    assert scaler.state_dict() == before
    with pytest.raises(SettingError, match="the state dict lacks settings"):
        scaler.load_state_dict(GradScaler().state_dict())


def test_a_copy_goes_on_by_itself() -> None:
    """Oracle: copy.deepcopy between steps: the same state, and its own from then on."""
    scaler = LayerwiseScaler(fixed={"linear-1": 2.0})
    with mp.autocast("float16"):
        y = F.linear(
            mp.tensor(np.ones((2, 3), np.float32)),
            mp.tensor(np.ones((2, 3)), dtype="float32", requires_grad=True),
        )
    scaler.scale(y.sum()).backward()
    scaler.advance(False)
    copied = copy.deepcopy(scaler)
    assert copied.state_dict() == scaler.state_dict()
    assert repr(copied) == repr(scaler)
    copied.advance(False)
    assert copied.state_dict() != scaler.state_dict()


# ---- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.0}, "threshold: expected above 0 and below 1, got 0.0"),
        ({"threshold": 1}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"update_every": 0}, "update_every: expected a whole number of at least 1, got 0"),
        ({"growth_interval": 2.5}, "growth_interval"),
        ({"init_scale": 3.0}, "init_scale: expected a power of two"),
        ({"max_scale": 0.0}, "max_scale"),
        ({"min_scale": 2.0**-127}, "min_scale"),
        ({"min_scale": 4.0, "max_scale": 2.0}, r"min_scale: expected at most max_scale=2.0, got 4.0"),
        ({"fixed": {"fc": 6.0}}, r"fixed\['fc'\]: expected a power of two"),
        ({"measure": 1}, "measure: expected True or False, got 1"),
    ],
)
def test_settings_that_cannot_act_are_refused(settings: dict[str, Any], message: str) -> None:
    """Oracle: an error that names the setting, what it takes and what it got."""
    with pytest.raises(SettingError, match=message):
        LayerwiseScaler(**settings)


def test_what_cannot_be_scaled_is_refused_before_anything_is_computed() -> None:
    """Oracle: each fault by itself; nothing got a gradient, and the graph is still there."""
    model = tangle()
    with pytest.raises(ScalerError, match="no layer computes in float16"):
        LayerwiseScaler().name_parameters(model).scale(loss_of(model)).backward()
    with pytest.raises(SettingError, match="unknown layer 'heads'; did you mean 'head'"):
        LayerwiseScaler(fixed={"heads": 2.0}).name_parameters(model).scale(loss_of(model)).backward()
    with pytest.raises(GradientError, match="does not depend on anything"):
        LayerwiseScaler().backward(mp.tensor(1.0))
    with pytest.raises(SettingError, match="expected a tensor, or a list or tuple of tensors, got float"):
        LayerwiseScaler().scale(1.0)
    loss, scaler = loss_of(model), LayerwiseScaler(fixed={"head": 2.0}).name_parameters(model)
    with pytest.raises(GradientError, match="cannot be recorded"):
        scaler.scale(loss).backward(create_graph=True)
    low = tangle().to("float16")
    with pytest.raises(ScalerError, match=r"cannot unscale float16 gradients: .*weight"):
        LayerwiseScaler().name_parameters(low).scale(loss_of(low)).backward()
    assert gradients(model) == gradients(low) == {}
    loss.backward()


@pytest.mark.parametrize("name", ["table", "linear-99"])
def test_a_fixed_factor_that_met_no_layer_is_refused_at_the_first_step(name: str) -> None:
    """Oracle: an embedding, which passes the scale on, and a place that no layer is at."""
    model = tangle()
    scaler = LayerwiseScaler(fixed={name: 2.0, "head": 2.0}).name_parameters(model)
    scaler.scale(loss_of(model)).backward()
    with pytest.raises(SettingError, match=f"fixed: {name} took no part in this step as a layer"):
        scaler.advance(False)


def test_calls_out_of_order_are_refused() -> None:
    """Oracle: what has to come first; a plain backward is none that this scaler knows of."""
    scaler = LayerwiseScaler()
    first, second, loss = trap(scaler)
    optimizer = PlainSGD([first, second])
    (scaler.scale(loss()) * 1.0).backward()  # a plain tensor by now
    for call in (lambda: scaler.unscale_(optimizer), lambda: scaler.step(optimizer), scaler.update):
        with pytest.raises(ScalerError, match="no backward went through this scaler since the last update"):
            call()
    scaler.scale(loss()).backward()
    with pytest.raises(ScalerError, match="no inf checks were recorded prior to update"):
        scaler.update()
    scaler.unscale_(optimizer)
    with pytest.raises(ScalerError, match="has been called on this optimizer since the last update"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    with pytest.raises(ScalerError, match="no backward went through this scaler since the last update"):
        scaler.update()


def test_gradients_of_another_scaler_stay_marked() -> None:
    """Oracle: the factors: S where the loss was scaled before, S and 1 where parts were added up."""
    outer = GradScaler(init_scale=8.0)
    for both in (True, False):
        scaler = LayerwiseScaler()
        first, second, loss = trap(scaler)
        if both:
            scaler.scale(outer.scale(loss())).backward()
        else:
            outer.scale(loss()).backward()
            scaler.scale(loss()).backward()
        for p in (first, second):
            carried = mark_of(p.grad)
            assert carried is not None
            assert carried.factors == ({8.0} if both else {1.0, 8.0})
        with pytest.raises(ScalerError, match="2 of 2 gradients"):
            scaler.step(PlainSGD([first, second]))


def test_infinities_of_two_losses_are_added_up_in_silence() -> None:
    """Oracle: inf - inf is NaN, found by the step alone (warnings are errors here)."""
    scaler = LayerwiseScaler()
    first, second, loss = trap(scaler)
    for sign in (1.0, -1.0):
        scaler.scale(loss() * (sign * math.inf)).backward()
    assert scaler.step(PlainSGD([first, second])).skipped


class Losses(NamedTuple):
    """Two losses."""

    near: Any
    far: Any


def test_named_tuples_of_losses_are_scaled() -> None:
    """Oracle: the type, and the values of the losses."""
    scaler = LayerwiseScaler()
    _, _, loss = trap(scaler)
    scaled = scaler.scale(Losses(loss(), loss()))
    assert type(scaled) is Losses
    assert scaled.near.item() == scaled.far.item() == loss().item()
