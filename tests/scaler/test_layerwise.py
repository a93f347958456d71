"""Adaptive layer-wise loss scaling; oracles: plain backward's bits, float64, and what was planted."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import functional as F  # noqa: N812 - torch's habit
from minimp import nn
from minimp.checks.shadow import Fate, fate_of, float64_gradients
from minimp.errors import GradientError, ScalerError, SettingError, ShapeError
from minimp.modes import listen
from minimp.scaler import GradScaler
from minimp.scaler.layerwise import LayerwiseScaler
from minimp.tensors import Tensor
from tests.scaler.plain import PlainSGD
from tests.tolerances import assert_close

RNG = np.random.default_rng(0)
Arrays = Mapping[str, np.ndarray[Any, Any]]


class TwoWays(mp.Function):
    """(x, 3 x), with a gradient for each."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """Return both."""
        del ctx
        return x * 1.0, x * 3.0

    @staticmethod
    def backward(ctx: Any, once: Any, thrice: Any) -> Any:
        """Add both up."""
        del ctx
        return once + thrice * 3.0


class Tangle(nn.Module):
    """All that gradients of different scales can meet in.

    A residual connection, a layer used twice, slices that overlap, a Function with two results, a product of
    two activations, a convolution, an embedding, and a tensor used by several ops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.first = nn.Linear(6, 6)
        self.shared = nn.Linear(6, 6)
        self.conv = nn.Conv2d(2, 3, 2, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, codes: Any) -> Tensor:
        """Codes (N,) to scores (N, 4)."""
        x = self.table(codes)  # (N, 6)
        h = self.first(x)
        h = h + self.shared(F.tanh(h))  # a branch
        h = x + self.shared(h)  # the same weights, and the embedding again
        left, right = h[:, :4], h[:, 2:]  # slices that meet
        once, thrice = TwoWays.apply(self.conv((left * right).reshape(-1, 2, 1, 2)).mean((1, 2, 3)))
        mixed = (h @ h.T) @ h  # both operands are activations
        return self.head(mixed + once[:, None]) + thrice[:, None]


CODES = np.array([0, 3, 1, 4, 3, 2, 0])
TARGETS = np.array([0, 1, 2, 3, 0, 1, 2])


def tangle() -> Tangle:
    """Return the model, the same each time."""
    mp.manual_seed(3)
    return Tangle()


def gradients(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    """Return the gradients by name, and drop them."""
    found = {name: np.array(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_same_bits(actual: Arrays, expected: Arrays) -> None:
    """Compare all gradients."""
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def loss_of(model: nn.Module, dtype: str = "float32") -> Tensor:
    """Run the model, in the format of its parameters or under autocast to float16."""
    if dtype == "float16":
        with mp.autocast("float16"):
            return F.cross_entropy(model(CODES), TARGETS)
    return F.cross_entropy(model(CODES), TARGETS)


# ---- the laws ---------------------------------------------------------------------------------------------


NAMES = ("first", "shared", "conv", "head", "matmul-1", "matmul-2")
POWERS = st.integers(-12, 12).map(lambda k: 2.0**k)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(factors=st.fixed_dictionaries(dict.fromkeys(NAMES, POWERS)), start=POWERS)
def test_whatever_the_factors_the_gradients_are_the_same_bits(
    dtype: str, factors: dict[str, float], start: float
) -> None:
    """Oracle: plain backward: powers of two round nothing, and each leaf divides out what it came with."""
    model = tangle().to(dtype)
    loss_of(model).backward()
    expected = gradients(model)
    scaler = LayerwiseScaler(fixed=factors, init_scale=start).name_parameters(model)
    scaler.scale(loss_of(model)).backward()
    assert_same_bits(gradients(model), expected)
    assert scaler.factors.items() >= factors.items()


def test_listeners_change_nothing() -> None:
    """Oracle: the same gradients, whole where someone listens and in pieces where nobody does."""
    model = tangle()
    scaler = LayerwiseScaler(fixed={"first": 8.0, "shared": 0.5}).name_parameters(model)
    scaler.scale(loss_of(model)).backward()
    expected = gradients(model)
    heard: list[Any] = []
    with listen(heard.append):
        scaler.scale(loss_of(model)).backward()
    assert_same_bits(gradients(model), expected)
    assert sum(event.phase == "backward" for event in heard) > 10


@given(factors=st.fixed_dictionaries(dict.fromkeys(NAMES, st.sampled_from([1.0, 2.0]))))
def test_in_float16_too_where_nothing_leaves_its_range(factors: dict[str, float]) -> None:
    """Oracle: plain backward of 2^3 times the loss, in float16: each sum of what meets is rounded once."""
    model = tangle()
    (loss_of(model, "float16") * 2.0**3).backward()
    expected = {name: array / 2.0**3 for name, array in gradients(model).items()}
    scaler = LayerwiseScaler(init_scale=2.0**3, fixed=factors).name_parameters(model)
    scaler.scale(loss_of(model, "float16")).backward()
    assert_same_bits(gradients(model), expected)


def test_gradients_add_up_over_backwards_of_different_scales() -> None:
    """Oracle: the sum of both, each by itself; the layers' factors differ by 2^10 between them."""
    model = tangle()
    loss_of(model).backward()
    once = gradients(model)
    for first, second in [(2.0**10, 1.0), (1.0, 2.0**10)]:
        for factor in (first, second):
            scaler = LayerwiseScaler(fixed={"shared": factor}).name_parameters(model)
            scaler.scale(loss_of(model)).backward()
        assert_same_bits(gradients(model), {name: 2 * array for name, array in once.items()})


def test_the_graph_can_be_kept_and_is_freed_otherwise() -> None:
    """Oracle: twice the gradient; then the error of plain backward."""
    model = tangle()
    scaler = LayerwiseScaler(fixed={"head": 4.0}).name_parameters(model)
    loss = loss_of(model)
    scaler.scale(loss).backward(retain_graph=True)
    once = {name: np.array(p.grad) for name, p in model.named_parameters()}
    scaler.scale(loss).backward()
    assert_same_bits(gradients(model), {name: 2 * array for name, array in once.items()})
    with pytest.raises(GradientError, match="freed by an earlier backward"):
        scaler.scale(loss).backward()


def test_recomputed_parts_are_scaled_too() -> None:
    """Oracle: the same bits as without recomputation."""
    model = tangle()
    scaler = LayerwiseScaler(fixed={"first": 32.0, "head": 4.0}).name_parameters(model)
    scaler.scale(loss_of(model)).backward()
    expected = gradients(model)
    scaler.scale(F.cross_entropy(mp.recompute(model, CODES), TARGETS)).backward()
    assert_same_bits(gradients(model), expected)


def test_a_loss_of_several_elements_starts_from_the_gradient_it_is_given() -> None:
    """Oracle: plain backward from the same gradient."""
    model, weight = tangle(), RNG.normal(size=(7, 4)).astype(np.float32)
    model(CODES).backward(mp.tensor(weight))
    expected = gradients(model)
    scaler = LayerwiseScaler(fixed={"first": 8.0}).name_parameters(model)
    (outputs,) = scaler.scale([model(CODES)])
    with pytest.raises(GradientError, match=r"needs a gradient for a loss of shape \(7, 4\)"):
        outputs.backward()
    with pytest.raises(ShapeError, match=r"shape \(7, 4\), got \(4,\)"):
        outputs.backward(weight[0])
    outputs.backward(weight.astype(np.float64))
    assert_same_bits(gradients(model), expected)


def test_hooks_see_the_scale_that_they_are_told() -> None:
    """Oracle: by hand: y = w2 (w1 x): the gradient at the hidden tensor is w2, times the factor of b."""
    w1, w2 = (mp.tensor([[v]], requires_grad=True) for v in (3.0, 5.0))
    scaler = LayerwiseScaler(fixed={"a": 4.0, "b": 8.0}, init_scale=2.0)
    scaler.name_parameters([("a.weight", w1), ("b.weight", w2)])
    seen: list[tuple[float, float]] = []
    hidden = F.linear(mp.tensor([[7.0]]), w1)
    hidden.register_hook(lambda g: seen.append((g.item(), scaler.scale_of(hidden))))
    hidden.retain_grad()
    w2.register_hook(lambda g: g * 10.0)
    scaler.scale(F.linear(hidden, w2).sum()).backward()
    assert seen == [(5.0 * 16.0, 16.0)]
    assert hidden.grad is not None
    assert hidden.grad.item() / scaler.scale_of(hidden) == 5.0
    assert (w1.grad.item(), scaler.scale_of(w1)) == (35.0, 64.0)
    assert (w2.grad.item(), scaler.scale_of(w2)) == (210.0, 16.0)
    with pytest.raises(GradientError, match="no gradient arrived here"):
        scaler.scale_of(mp.tensor([1.0], requires_grad=True))


# ---- what it is for ---------------------------------------------------------------------------------------


def deep(depth: int = 20, width: int = 32) -> nn.Module:
    """Return a network of sigmoids: each layer's gradients are about 7 times smaller than the next one's."""
    mp.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(64, width)]
    for _ in range(depth - 2):
        layers += [nn.Sigmoid(), nn.Linear(width, width)]
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(width, 10))


def deep_loss(model: nn.Module) -> Tensor:
    """Return the loss of 128 digits in mixed precision."""
    digits = mp.data.digits("train")
    with mp.autocast("float16"):
        return F.cross_entropy(model(mp.tensor(digits.inputs[:128])), digits.targets[:128])


def fate(model: nn.Module, scaler: Any, exact: Arrays) -> Fate:
    """Return what became of the gradients under a scaler."""
    scaler.scale(deep_loss(model)).backward()
    return fate_of(gradients(model), exact)


def test_one_scale_cannot_serve_a_deep_network_and_one_for_each_layer_does() -> None:
    """Oracle: float64 gradients. Of 21,066, S = 1 flushes 74 %, the best S that overflows nothing 38 %.

    Layer-wise it is 3 of them, and none overflows; the model promises no more than one in a thousand.
    """
    model, digits = deep(), mp.data.digits("train")
    exact = float64_gradients(
        model, F.cross_entropy, digits.inputs[:128], digits.targets[:128], weights_in=mp.float16
    )
    single = [fate(model, GradScaler(init_scale=2.0**k), exact) for k in range(26)]
    best = min(each.flushed_share for each in single if not each.overflowed)
    scaler = LayerwiseScaler(measure=True).name_parameters(model)
    layerwise = fate(model, scaler, exact)
    assert single[0].flushed_share > 0.7
    assert best > 0.3
    assert all(each.overflowed for each in single if each.flushed_share < best)
    assert layerwise.overflowed == 0
    assert layerwise.flushed_share < scaler.settings.threshold
    rows = scaler.report().rows
    assert max(row.expected_after for row in rows) <= scaler.settings.threshold
    assert rows[-1].total > 2.0**40  # beyond what one scale could be


def test_gradients_that_need_no_factor_get_none() -> None:
    """Oracle: a threshold that is met already: every factor is 1, and the bits are those of S = 1."""
    model = tangle()
    loss_of(model, "float16").backward()
    expected = gradients(model)
    scaler = LayerwiseScaler(threshold=0.5).name_parameters(model)
    scaler.scale(loss_of(model, "float16")).backward()
    assert set(scaler.factors.values()) == {1.0}
    assert_same_bits(gradients(model), expected)


def test_it_trains_as_a_scaler_of_a_training_step() -> None:
    """Oracle: the loss falls as float32's does, on digits; the scale of the gradients is 1."""
    losses = {}
    for name, recipe, scaler in [("fp32", "fp32", None), ("layerwise", "mixed-fp16", LayerwiseScaler())]:
        mp.manual_seed(1)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        step = mp.TrainStep(
            model, F.cross_entropy, mp.optim.SGD(model.parameters(), lr=0.5), recipe,
            scaler=scaler,  # type: ignore[arg-type]  # it has the calls of a GradScaler
        )  # fmt: skip
        digits = mp.data.digits("train")
        reports = [step(digits.inputs[:256], digits.targets[:256]) for _ in range(20)]
        losses[name] = [report.loss for report in reports]
        assert all(report.loss_scale == 1.0 and not report.skipped for report in reports)
    assert losses["layerwise"][-1] < losses["layerwise"][0] / 2
    assert_close(losses["layerwise"], losses["fp32"], "parity_mixed_losses")


# ---- overflow ---------------------------------------------------------------------------------------------


def trap(scaler: LayerwiseScaler) -> tuple[Tensor, Tensor, Any]:
    """Return two weights, and the loss of a network between whose layers the gradient grows by 2^28."""
    first, second = (mp.tensor(np.full((8, 8), v, np.float32), requires_grad=True) for v in (2.0**-13, 0.5))
    scaler.name_parameters([("first.weight", first), ("second.weight", second)])

    def loss() -> Tensor:
        with mp.autocast("float16"):
            hidden = F.linear(mp.tensor(np.full((4, 8), 2.0**-10, np.float32)), first)
            return F.linear(hidden * 2.0**14 * 2.0**14, second).float().sum() * 2.0**-24

    return first, second, loss


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
        assert not np.isfinite(np.asarray(start.grad)).any()
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
        bad.append(not np.isfinite(np.asarray(first.grad)).all())
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
    loaded.name_parameters(going._named)
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
            scaler.advance(not np.isfinite(np.asarray(first.grad)).all())
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
