"""Several losses with a scale each; oracle: gradients by hand, or in float32 without scaling."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.errors import ScalerError, ScaleWarning, SettingError
from minimp.optim import clip_grad_norm_
from minimp.scaler import GradScaler, LossScalers, ScaleRule
from minimp.tensors import Tensor
from tests.scaler.plain import PlainSGD, grad_of, parameter, params_of, set_grad
from tests.scaler.traces import torch as torch_trace

INF, NAN = math.inf, math.nan


def backward(scalers: LossScalers, optimizer: Any, loss_id: int, *factors: float) -> None:
    """Give the i-th parameter of an optimizer the gradient factors[i] from one loss."""
    chosen = optimizer if isinstance(optimizer, list) else [optimizer]
    params = list({id(p): p for each in chosen for p in params_of(each)}.values())
    block(scalers, weighted(params, *factors), optimizer, loss_id)


def block(
    scalers: LossScalers, loss: Any, optimizer: Any, loss_id: int = 0, then: Callable[[], Any] = lambda: None
) -> None:
    """Run backward in a block, and something after it, still in the block."""
    with scalers.scale_loss(loss, optimizer, loss_id) as scaled:
        scaled.backward()
        then()


def weighted(params: list[Tensor], *factors: float) -> Tensor:
    """Return the sum of each parameter times its factor."""
    parts = [(p * f).sum() for p, f in zip(params, factors, strict=True)]
    return sum(parts[1:], parts[0]) if parts else mp.tensor(0.0)


def test_each_loss_is_scaled_and_unscaled_by_its_own() -> None:
    """Oracle: 3 + 0.5 by hand; what the blocks give is loss times S_i, and S_i is 8 and 1024."""
    scalers = LossScalers.from_rules([ScaleRule(8.0), ScaleRule(1024.0)])
    w = parameter(0.0)
    optimizer = PlainSGD([w])
    for loss_id, slope in ((0, 3.0), (1, 0.5)):
        with scalers.scale_loss((w * slope + 1.0).sum(), optimizer, loss_id) as scaled:
            assert scaled.item() == scalers.get_scale(loss_id)
            scaled.backward()
            assert grad_of(optimizer).item() == slope * scalers.get_scale(loss_id)
    assert grad_of(optimizer).tolist() == [3.5]
    report = scalers.step(optimizer, "value")
    assert (report.skipped, report.returned, report.checked, report.scale) == (False, "value", 2, 8.0)
    assert w.tolist() == [-3.5]
    scalers.update()
    assert [scalers[i].state.growth_tracker for i in (0, 1)] == [1, 1]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(-100, 100, width=32)), min_size=1, max_size=6),
    st.sampled_from(["float32", "bfloat16", "float64"]),
)
def test_gradients_add_up_as_without_scaling(parts: list[tuple[int, float]], dtype: str) -> None:
    """Oracle: the sum of the same gradients in NumPy and ml_dtypes, rounded once a loss."""
    scalers = LossScalers.from_rules([ScaleRule(2.0**k) for k in (4, 9, 0)])
    w = parameter(0.0, dtype=dtype)
    optimizer = PlainSGD([w])
    kind = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float64": np.float64}[dtype]
    wide = np.float64 if dtype == "float64" else np.float32
    total = None
    for loss_id, slope in parts:
        backward(scalers, optimizer, loss_id, slope)
        # in bfloat16 the product of slope and weight rounds the slope, as without scaling
        grad = wide(kind(wide(slope))) if dtype == "bfloat16" else wide(slope)
        total = kind(grad) if total is None else kind(wide(total) + grad)
    assert grad_of(optimizer).numpy().tolist() == [total]


def test_a_sum_in_bfloat16_is_rounded_once() -> None:
    """Oracle: h + g float32(1/3) in float32 and one rounding; rounding the quotient first ends elsewhere."""
    rng = np.random.default_rng(0)
    held, grad = (rng.standard_normal(200).astype(ml_dtypes.bfloat16) for _ in range(2))
    w = mp.tensor(np.zeros(200), dtype="bfloat16", requires_grad=True)
    w.grad = mp.tensor(held)
    block(LossScalers(1, init_scale=3.0), (w * mp.tensor(grad)).sum(), PlainSGD([w]))
    scaled = np.float32(grad * ml_dtypes.bfloat16(3.0))
    quotient = scaled * np.float32(1.0 / 3.0)
    once = (np.float32(held) + quotient).astype(ml_dtypes.bfloat16)
    twice = held + quotient.astype(ml_dtypes.bfloat16)
    assert w.grad.numpy().tolist() == once.tolist()
    assert once.tolist() != twice.tolist()


def test_a_gradient_that_a_loss_does_not_reach_stays() -> None:
    """Oracle: the very tensor that was there before the block."""
    scalers, optimizer = LossScalers(2), PlainSGD([parameter(0.0), parameter(0.0)])
    first, second = params_of(optimizer)
    backward(scalers, optimizer, 0, 2.0, 3.0)
    held = first.grad
    block(scalers, second.sum(), optimizer, 1)
    assert first.grad is held
    assert second.grad is not None
    assert second.grad.tolist() == [4.0]
    assert scalers.step(optimizer).checked == 3


def test_one_loss_overflows_and_only_its_scale_moves() -> None:
    """Oracle: by hand: the first loss is 1e38 S too steep at S = 1024, the second is not."""
    scalers = LossScalers(2, init_scale=1024.0, growth_interval=2)
    a, b = parameter(1.0), parameter(1.0)
    optimizer = PlainSGD([a, b])
    scalers.name_parameters({"a": a, "b": b}.items())
    for order in ((0, 1), (1, 0)):
        a.grad = b.grad = None
        for loss_id in order:
            backward(scalers, optimizer, loss_id, *((1e38, 2.0) if loss_id == 0 else (2.0, 2.0)))
        report = scalers.step(optimizer)
        scalers.update()
        assert (report.skipped, report.nonfinite, report.checked) == (True, ("a (loss 0)",), 4)
        assert b.grad is not None
        assert b.grad.tolist() == [4.0]
    assert report.consecutive_skips == 2
    assert (scalers.get_scale(0), scalers.get_scale(1)) == (256.0, 2048.0)
    assert (optimizer.calls, a.tolist()) == (0, [1.0])
    assert repr(scalers) == "LossScalers(256 backing off, 2048 ok)"
    assert [each.word for each in scalers.health] == ["backing off", "ok"]


def test_overflow_of_the_sum_is_not_the_scales_doing() -> None:
    """Oracle: NVIDIA apex, which looks at incoming gradients alone: 3e38 + 3e38 is inf, and stepped."""
    scalers, optimizer = LossScalers(2, init_scale=1.0), PlainSGD([parameter(0.0)])
    for loss_id in (0, 1):
        backward(scalers, optimizer, loss_id, 3e38)
    assert not scalers.step(optimizer).skipped
    assert grad_of(optimizer).tolist() == [INF]


VERDICTS = st.tuples(st.sampled_from([(0,), (1,), (0, 1)]), st.booleans(), st.booleans())


@given(st.lists(VERDICTS, max_size=30))
def test_scales_move_each_by_its_own_verdicts(trace: list[tuple[tuple[int, ...], bool, bool]]) -> None:
    """Oracle: PyTorch's rule written out in traces.py, for each loss over the steps that it took part in."""
    scalers, optimizer = LossScalers(2, init_scale=2.0**10, growth_interval=3), PlainSGD([parameter(0.0)])
    seen: dict[int, list[bool]] = {0: [], 1: []}
    for used, *bad in trace:
        optimizer.param_groups[0]["params"][0].grad = None
        for loss_id in used:
            backward(scalers, optimizer, loss_id, INF if bad[loss_id] else 1.0)
            seen[loss_id].append(bad[loss_id])
        assert scalers.step(optimizer).skipped == any(bad[i] for i in used)
        with warnings.catch_warnings(action="ignore", category=ScaleWarning):
            scalers.update()
        for i, verdicts in seen.items():
            assert scalers.get_scale(i) == [2.0**10, *torch_trace(verdicts, 2.0**10, 3)][-1]


@given(st.lists(st.sampled_from([0.3, -7.0, 3e38, INF, NAN, 1e-40]), max_size=15), st.integers(1, 3))
def test_one_loss_is_a_gradscaler(slopes: list[float], interval: int) -> None:
    """Oracle: GradScaler itself over the same losses: weights, gradients and states, bit for bit."""
    settings = {"init_scale": 1024.0, "growth_interval": interval}
    scalers, scaler = LossScalers(1, **settings), GradScaler(**settings)
    one, other = (PlainSGD([parameter(0.5, -2.0)]) for _ in range(2))
    with warnings.catch_warnings(action="ignore", category=ScaleWarning):
        for slope in slopes:
            for optimizer in (one, other):
                params_of(optimizer)[0].grad = None
            backward(scalers, one, 0, slope)
            scaler.scale(weighted(params_of(other), slope)).backward()
            reports = [scalers.step(one), scaler.step(other)]
            scalers.update()
            scaler.update()
            assert reports[0].skipped == reports[1].skipped
            assert reports[0].consecutive_skips == reports[1].consecutive_skips
            assert (scalers[0].state, scalers[0].health) == (scaler.state, scaler.health)
            np.testing.assert_array_equal(grad_of(one).numpy(), grad_of(other).numpy())
            assert (
                params_of(one)[0].detach().numpy().tobytes() == params_of(other)[0].detach().numpy().tobytes()
            )


def test_a_loss_may_come_in_parts() -> None:
    """Oracle: GradScaler.scale, which takes lists too: the parts by hand."""
    scalers, optimizer = LossScalers(1, init_scale=4.0), PlainSGD([parameter(0.0)])
    (w,) = params_of(optimizer)
    with scalers.scale_loss([w.sum(), (w * 2.0).sum()], optimizer) as scaled:
        for part in scaled:
            part.backward()
    assert grad_of(optimizer).tolist() == [3.0]


def test_a_loss_accumulated_over_blocks_is_one_verdict() -> None:
    """Oracle: the contract: update() moves S_i, once, whatever the number of blocks."""
    scalers, optimizer = LossScalers(1, init_scale=64.0), PlainSGD([parameter(0.0)])
    for slope in (1.0, INF, INF, 2.0):
        backward(scalers, optimizer, 0, slope)
    report = scalers.step(optimizer)
    assert (report.skipped, report.checked) == (True, 4)
    scalers.update()
    assert scalers.get_scale() == 32.0


def test_two_optimizers_and_a_shared_parameter() -> None:
    """Oracle: by hand: a shared parameter is unscaled once; each optimizer skips for its own gradients."""
    scalers = LossScalers(2, init_scale=16.0)
    a, shared, b = (parameter(0.0) for _ in range(3))
    one, other = PlainSGD([a, shared]), PlainSGD([shared, b])
    backward(scalers, [one, other], 0, 1.0, 2.0, 4.0)
    assert [each.grad.item() for each in (a, shared, b) if each.grad is not None] == [1.0, 2.0, 4.0]
    with scalers.scale_loss((b * NAN).sum(), other, 1) as scaled:
        scaled.backward()
    reports = [scalers.step(each) for each in (one, other)]
    assert [(r.skipped, r.checked, r.place) for r in reports] == [(False, 2, 0), (True, 3, 1)]
    assert reports[1].nonfinite == ("parameter 1 of group 0 (1,) (loss 1)",)
    scalers.update()
    assert [scalers.get_scale(i) for i in (0, 1)] == [16.0, 8.0]


def test_gradients_can_be_clipped_between_blocks_and_step() -> None:
    """Oracle: the norm of (3, 4) is 5: clipped to 1, gradients are 0.6 and 0.8 to a rounding."""
    scalers, optimizer = LossScalers(2), PlainSGD([parameter(0.0, 0.0)])
    (w,) = params_of(optimizer)
    for loss_id, at in ((0, [3.0, 0.0]), (1, [0.0, 4.0])):
        with scalers.scale_loss((w * mp.tensor(at)).sum(), optimizer, loss_id) as scaled:
            scaled.backward()
    norm = clip_grad_norm_([w], 1.0)
    assert float(norm) == 5.0
    np.testing.assert_allclose(grad_of(optimizer).numpy(), [0.6, 0.8], rtol=1e-6)


def test_a_whole_training_with_two_losses_goes_as_in_float32() -> None:
    """Oracle: the same losses added up without scaling: powers of two round nothing, so bits are equal."""
    x = mp.tensor(np.random.default_rng(0).standard_normal((16, 4), dtype=np.float32))
    ends = []
    for scalers in (LossScalers.from_rules([ScaleRule(2.0**12), ScaleRule(2.0**3)]), None):
        mp.manual_seed(0)
        model = mp.nn.Linear(4, 2)
        optimizer = mp.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            for loss_id, part in enumerate((lambda y: (y * y).mean(), lambda y: y.tanh().sum() * 0.001)):
                loss = part(model(x))
                if scalers is None:
                    loss.backward()
                else:
                    block(scalers, loss, optimizer, loss_id)
            if scalers is None:
                optimizer.step()
            else:
                assert not scalers.step(optimizer).skipped
                scalers.update()
        ends.append([p.detach().numpy() for p in model.parameters()])
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(mine, other)


# ---- order -------------------------------------------------------------------------------------------------


def test_calls_out_of_order_are_refused_with_the_remedy() -> None:
    """Oracle: the contract of each call."""
    scalers, optimizer = LossScalers(2), PlainSGD([parameter(0.0)])
    for call in (lambda: scalers.step(optimizer), scalers.update):
        with pytest.raises(
            ScalerError, match=r"no inf checks were recorded .*\n  help: run backward in `with"
        ):
            call()
    with pytest.raises(ScalerError, match="a closure cannot be used"):
        scalers.step(optimizer, closure=float)
    backward(scalers, optimizer, 0, 1.0)
    with pytest.raises(ScalerError, match="copied between iterations only"):
        copy.deepcopy(scalers)
    scalers.step(optimizer)
    with pytest.raises(ScalerError, match=r"LossScalers.step: step\(\) has been called on this optimizer"):
        scalers.step(optimizer)
    with pytest.raises(ScalerError, match=r"LossScalers.scale_loss: step\(\) has been called on this"):
        backward(scalers, optimizer, 1, 1.0)
    scalers.update()
    with pytest.raises(ScalerError, match=r"no inf checks were recorded prior to update\(\)"):
        scalers.update()
    assert copy.deepcopy(scalers).state_dict() == scalers.state_dict()


def test_blocks_do_not_nest() -> None:
    """Oracle: the contract: the inner one would take the outer one's gradients for its own."""
    scalers, optimizer = LossScalers(2), PlainSGD([parameter(0.0)])
    (w,) = params_of(optimizer)
    set_grad(w, 5.0)
    calls = {
        r"scale_loss\(loss_id=1\) was called within the block of": lambda: backward(
            scalers, optimizer, 1, 1.0
        ),
        r"step\(\) was called within the block of": lambda: scalers.step(optimizer),
        r"update\(\) was called within the block of": scalers.update,
        "copied between iterations only": lambda: copy.deepcopy(scalers),
    }
    for message, call in calls.items():
        with pytest.raises(ScalerError, match=message):
            block(scalers, w.sum(), optimizer, 0, call)
        assert grad_of(optimizer).tolist() == [5.0]
    backward(scalers, optimizer, 0, 1.0)
    assert grad_of(optimizer).tolist() == [6.0]


def test_an_exception_in_a_block_leaves_gradients_and_verdicts_as_they_were() -> None:
    """Oracle: the tensors themselves, from before the block."""
    scalers, optimizer = LossScalers(1), PlainSGD([parameter(0.0)], [parameter(0.0)])
    first, second = params_of(optimizer)
    set_grad(first, 2.0)
    held = first.grad
    with pytest.raises(KeyError):
        block(scalers, (first * INF).sum(), optimizer, 0, lambda: {}["nothing"])
    assert (first.grad is held, second.grad) == (True, None)
    with pytest.raises(ScalerError, match="no inf checks"):
        scalers.update()


def test_a_block_without_gradients_is_refused() -> None:
    """Oracle: the contract: backward was forgotten, or the loss depends on other parameters."""
    scalers, optimizer = LossScalers(2), PlainSGD([parameter(0.0)])
    scalers.name_parameters([("w", params_of(optimizer)[0])])
    with (
        pytest.raises(
            ScalerError, match=r"loss 1 gave no gradient to any of 1 parameters \(w\)\n  help: call scaled"
        ),
        scalers.scale_loss(mp.tensor(1.0), optimizer, 1),
    ):
        pass


def test_float16_and_scaled_gradients_are_refused() -> None:
    """Oracle: the contract; the gradients stay what they were."""
    scalers = LossScalers(1)
    half, optimizer = parameter(0.0, dtype="float16"), PlainSGD([parameter(0.0)])
    with pytest.raises(ScalerError, match="cannot unscale float16 gradients: parameter 0 of group 0"):
        block(scalers, half.sum(), PlainSGD([half]))
    assert half.grad is None
    (w,) = params_of(optimizer)
    GradScaler(init_scale=8.0).scale(w.sum()).backward()
    with pytest.raises(
        ScalerError, match=r"1 gradients are still multiplied by the loss scale 8 .*unscaled ones"
    ):
        backward(scalers, optimizer, 0, 1.0)
    assert grad_of(optimizer).tolist() == [8.0]


@pytest.mark.parametrize("loss_id", [2, -1, True, 0.0, "0"])
def test_there_are_only_so_many_losses(loss_id: Any) -> None:
    """Oracle: the contract."""
    scalers, optimizer = LossScalers(2), PlainSGD([parameter(0.0)])
    with pytest.raises(SettingError, match=r"loss_id: expected a whole number from 0 to 1, got"):
        backward(scalers, optimizer, loss_id, 1.0)


def test_settings_that_cannot_act_are_refused() -> None:
    """Oracle: the contract; the settings are GradScaler's."""
    for count in (0, 1.0, True):
        with pytest.raises(SettingError, match="num_losses: expected a whole number, at least 1"):
            LossScalers(count)
    with pytest.raises(SettingError, match="num_losses"):
        LossScalers.from_rules([])
    with pytest.raises(SettingError, match="enabled cannot act"):
        LossScalers(2, enabled=False)
    with pytest.raises(SettingError, match="growth_factor: expected a number above 1"):
        LossScalers(2, growth_factor=1.0)
    with pytest.raises(SettingError, match="expected an optimizer, or several, got none"):
        backward(LossScalers(1), [], 0)
    with pytest.raises(SettingError, match="expected an optimizer with param_groups, got float"):
        block(LossScalers(1), mp.tensor(1.0), 1.0)
    apex = LossScalers.preset("apex", 3, growth_interval=7)
    assert (len(apex), apex[2].rule) == (3, GradScaler.preset("apex", growth_interval=7).rule)


# ---- saving, warnings --------------------------------------------------------------------------------------


def test_a_state_is_taken_up_by_another() -> None:
    """Oracle: the saved scalers, over the same verdicts afterwards."""

    def run(scalers: LossScalers, trace: list[tuple[float, float]]) -> None:
        optimizer = PlainSGD([parameter(0.0)])
        for slopes in trace:
            for loss_id, slope in enumerate(slopes):
                backward(scalers, optimizer, loss_id, slope)
            scalers.step(optimizer)
            scalers.update()

    saved, loaded = LossScalers(2, growth_interval=2, hysteresis=2), LossScalers(2, init_scale=4.0)
    run(saved, [(1.0, INF), (1.0, INF), (INF, 1.0)])
    loaded.load_state_dict(saved.state_dict())
    for scalers in (saved, loaded):
        run(scalers, [(INF, 1.0), (1.0, 1.0), (1.0, INF)])
    assert loaded.state_dict() == saved.state_dict()
    assert [saved.get_scale(i) for i in (0, 1)] == [2.0**17, 2.0**16]
    good = saved.state_dict()
    for state, message in [
        ({"losses": good["losses"][:1]}, "expected the states of 2 losses, got 1"),
        ({}, "expected the states of 2 losses, got none"),
        (None, "expected the states of 2 losses, got none"),
        (
            {"losses": [{**good["losses"][0], "scale": 2.0}, {"scale": 2.0}]},
            "the state dict lacks growth_factor",
        ),
    ]:
        with pytest.raises(SettingError, match=message):
            loaded.load_state_dict(state)
    assert loaded.state_dict() == good


def test_a_loss_in_trouble_is_named() -> None:
    """Oracle: the second loss is planted to overflow; the warning points at update()."""
    scalers, optimizer = LossScalers(2, init_scale=2.0), PlainSGD([parameter(0.0)])
    for step in range(2):
        for loss_id, slope in ((0, 1.0), (1, NAN)):
            backward(scalers, optimizer, loss_id, slope)
        scalers.step(optimizer)
        if step == 0:
            scalers.update()
    with pytest.warns(
        ScaleWarning, match=r"LossScalers\[1\]: collapsing: loss scale 0\.5.*not finite in parameter 0"
    ) as told:
        scalers.update()
    assert [each.filename for each in told] == [__file__]
    assert scalers.get_scale(0) == 2.0


def test_a_loss_can_stop_the_run() -> None:
    """Oracle: the contract of max_consecutive_skips, for the loss that overflows; nothing moves."""
    scalers, optimizer = LossScalers(2, max_consecutive_skips=1), PlainSGD([parameter(0.0)])
    for step in range(2):
        for loss_id, slope in ((0, 1.0), (1, NAN)):
            backward(scalers, optimizer, loss_id, slope)
        if step == 0:
            scalers.step(optimizer)
            scalers.update()
    before = [scalers[i].state for i in (0, 1)]
    for call in (lambda: scalers.step(optimizer), scalers.update):
        with pytest.raises(ScalerError, match=r"LossScalers\[1\]: 1 steps in a row have been skipped"):
            call()
    assert [scalers[i].state for i in (0, 1)] == before
