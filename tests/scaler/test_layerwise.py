"""Adaptive layer-wise loss scaling: its laws, and what it is for; oracles: plain backward's bits, float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import functional as F  # noqa: N812 - torch's habit
from minimp import nn
from minimp.checks.shadow import Fate, fate_of, float64_gradients
from minimp.errors import GradientError, ShapeError
from minimp.modes import listen
from minimp.scaler import GradScaler
from minimp.scaler.layerwise import LayerwiseScaler
from tests.arrays import host
from tests.scaler.layered import (
    CODES,
    TARGETS,
    Arrays,
    assert_same_bits,
    deep,
    deep_loss,
    gradients,
    loss_of,
    tangle,
)
from tests.tolerances import assert_close

RNG = np.random.default_rng(0)


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
    once = {name: np.array(host(p.grad)) for name, p in model.named_parameters()}
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
            scaler=scaler,
        )  # fmt: skip
        digits = mp.data.digits("train")
        reports = [step(digits.inputs[:256], digits.targets[:256]) for _ in range(20)]
        losses[name] = [report.loss for report in reports]
        assert all(report.loss_scale == 1.0 and not report.skipped for report in reports)
    assert losses["layerwise"][-1] < losses["layerwise"][0] / 2
    assert_close(losses["layerwise"], losses["fp32"], "parity_mixed_losses")
