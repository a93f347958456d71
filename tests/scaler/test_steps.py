"""Unscaling, stepping, updating; oracle: PyTorch 2.13.0 as measured, where a test names it."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest

from minimp.errors import ScalerError, ScaleWarning, SettingError
from minimp.scaler import GradScaler
from tests.scaler.plain import (
    PlainSGD,
    begun,
    grad_of,
    parameter,
    params_of,
    set_grad,
    with_grads,
)

INF, NAN = math.inf, math.nan


def test_a_good_step_divides_by_s_and_runs_the_optimizer() -> None:
    """Oracle: w - g / S by hand; the optimizer's return value and arguments pass through."""
    scaler, optimizer = begun(growth_interval=2), with_grads((8.0, -16.0))
    assert scaler.step(optimizer, "value").returned == "value"
    assert params_of(optimizer)[0].tolist() == [-1.0, 2.0]
    assert grad_of(optimizer).tolist() == [1.0, -2.0]
    scaler.update()
    assert (scaler.get_scale(), scaler.state.growth_tracker) == (8.0, 1)


@pytest.mark.parametrize("fault", [INF, -INF, NAN])
def test_a_bad_step_is_skipped_and_halves_the_scale(fault: float) -> None:
    """Oracle: PyTorch 2.13.0: parameters untouched, None returned, all gradients multiplied all the same."""
    scaler, optimizer = begun(), with_grads((8.0,), (8.0, fault))
    assert scaler.step(optimizer, "value").returned is None
    assert optimizer.calls == 0
    assert [p.tolist() for p in params_of(optimizer)] == [[0.0], [0.0, 0.0]]
    assert grad_of(optimizer).tolist() == [1.0]
    scaler.update()
    assert (scaler.get_scale(), scaler.state.growth_tracker) == (4.0, 0)


def test_finiteness_is_judged_before_multiplying() -> None:
    """Oracle: PyTorch 2.13.0: at S = 2^-149 the finite gradient 1 becomes inf, and is no reason to skip."""
    scaler, optimizer = begun(init_scale=2.0**-149), with_grads((1.0, 0.0))
    scaler.unscale_(optimizer)
    np.testing.assert_array_equal(grad_of(optimizer).numpy(), [INF, NAN])
    scaler.step(optimizer)
    assert optimizer.calls == 1


def test_a_scale_of_zero_gives_nan_and_stays() -> None:
    """Oracle: PyTorch 2.13.0."""
    scaler, optimizer = begun(init_scale=0.0, growth_interval=1), with_grads((0.0,))
    scaler.step(optimizer)
    with pytest.warns(ScaleWarning, match="dead: loss scale 0"):
        scaler.update()
    assert math.isnan(params_of(optimizer)[0].item())
    assert scaler.get_scale() == 0.0


def test_an_infinite_scale_skips_for_ever() -> None:
    """Oracle: PyTorch 2.13.0: S = inf makes every gradient non-finite; backing off leaves it infinite."""
    scaler, w = GradScaler(init_scale=INF), parameter(1.0)
    optimizer = PlainSGD([w])
    for expected in (pytest.warns(ScaleWarning, match="dead: loss scale inf"), nullcontext(), nullcontext()):
        w.grad = None
        scaler.scale((w * 2.0).sum()).backward()
        scaler.step(optimizer)
        with expected:
            scaler.update()
    assert (optimizer.calls, scaler.get_scale()) == (0, INF)


def test_parameters_without_gradient_are_passed_over() -> None:
    """Oracle: PyTorch 2.13.0."""
    optimizer = with_grads((8.0,), (8.0,))
    params_of(optimizer)[0].grad = None
    begun().step(optimizer)
    assert [p.tolist() for p in params_of(optimizer)] == [[0.0], [-1.0]]


@pytest.mark.parametrize(("dtype", "grad"), [("bfloat16", 3.0), ("float64", 1e300), ("float64", 3.0)])
def test_other_formats_are_unscaled_in_their_own(dtype: str, grad: float) -> None:
    """Oracle: g * float32(1 / S), by NumPy and ml_dtypes in the parameter's dtype, for an S of 3."""
    w = parameter(0.0, dtype=dtype)
    set_grad(w, grad)
    inverse = np.float32(1.0 / 3.0)
    optimizer = PlainSGD([w])
    given = grad_of(optimizer).numpy().copy()
    begun(init_scale=3.0).unscale_(optimizer)
    expected = (
        given * np.float64(inverse)
        if dtype == "float64"
        else (np.float32(given) * inverse).astype(given.dtype)
    )
    np.testing.assert_array_equal(grad_of(optimizer).numpy(), expected)


def test_the_old_gradient_is_left_as_it_was() -> None:
    """Oracle: the contract: `.grad` is replaced, and no array is written to."""
    optimizer = with_grads((8.0,))
    old = grad_of(optimizer)
    begun().unscale_(optimizer)
    assert old.tolist() == [8.0]
    assert grad_of(optimizer) is not old


def test_float16_gradients_are_refused_by_name_and_nothing_changes() -> None:
    """Oracle: PyTorch 2.13.0 refuses them, too late to say which; the stage stays ready."""
    low = [parameter(0.0, dtype="float16") for _ in range(7)]
    wide = parameter(0.0)
    for p in (*low, wide):
        set_grad(p, 8.0)
    optimizer = PlainSGD([wide], low)
    scaler = begun().name_parameters([("fc.weight", low[0]), ("fc.bias", low[1])])
    for _ in range(2):
        with pytest.raises(ScalerError, match=(
            r"unscale_: cannot unscale float16 gradients: fc\.weight, fc\.bias, "
            r"(parameter \d of group 1 \(1,\)(, | )){3}and 2 more\n"
            r"  help: keep master weights: parameters in float32"
        )):  # fmt: skip
            scaler.step(optimizer)
    assert wide.grad is not None
    assert wide.grad.tolist() == [8.0]
    with pytest.raises(ScalerError, match="no inf checks were recorded prior to update"):
        scaler.update()


ORDERS = {
    "unscale_ before scale": (lambda s, o: s.unscale_(o), r"unscale_\(\) was called before scale\(\)"),
    "step before scale": (lambda s, o: s.step(o), r"step\(\) was called before scale\(\)"),
    "update before scale": (lambda s, _: s.update(), r"update\(\) was called before scale\(\)"),
    "update to a value before scale": (lambda s, _: s.update(2.0), r"update\(\) was called before scale\(\)"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_works_before_scale(order: str) -> None:
    """Oracle: PyTorch 2.13.0."""
    call, message = ORDERS[order]
    with pytest.raises(ScalerError, match=message):
        call(GradScaler(), with_grads((1.0,)))


def test_the_stages_of_an_iteration_are_kept() -> None:
    """Oracle: PyTorch 2.13.0: unscale_ once, before step; step once; update begins anew."""
    scaler, optimizer = begun(), with_grads((8.0,))
    scaler.unscale_(optimizer)
    with pytest.raises(
        ScalerError, match=r"unscale_\(\) has been called on this optimizer since the last update"
    ):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    for call in (scaler.step, scaler.unscale_):
        with pytest.raises(
            ScalerError, match=r"step\(\) has been called on this optimizer since the last update"
        ):
            call(optimizer)
    scaler.update()
    with pytest.raises(ScalerError, match="no inf checks were recorded prior to update"):
        scaler.update()
    scaler.unscale_(optimizer)
    assert grad_of(optimizer).tolist() == [0.125]
    scaler.update()
    assert (optimizer.calls, scaler.state.growth_tracker) == (1, 2)


def test_a_step_without_gradients_names_the_parameters() -> None:
    """Oracle: our message; PyTorch 2.13.0 says no more than "No inf checks were recorded"."""
    w, b = parameter(0.0), parameter(0.0)
    scaler = begun().name_parameters({"w": w, "b": b}.items())
    with pytest.raises(ScalerError, match=(
        r"step: no inf checks were recorded: none of the optimizer's 2 parameters has a gradient \(w, b\)\n"
        r"  help: call scaler.scale\(loss\).backward\(\) before step"
    )):  # fmt: skip
        scaler.step(PlainSGD([w, b]))


def test_a_step_of_frozen_parameters_says_that_they_are() -> None:
    """Oracle: the error; one that requires a gradient and has none makes it the usual one."""
    frozen, other, scaler = parameter(1.0).requires_grad_(False), parameter(1.0), begun()
    with pytest.raises(ScalerError, match=r"has a gradient, and none requires one .*\n.*requires_grad_\(\)"):
        scaler.step(PlainSGD([frozen]))
    with pytest.raises(ScalerError, match=r"has a gradient \(.*\n.*the loss must depend on these parameters"):
        scaler.step(PlainSGD([frozen, other]))


def test_gradients_that_came_after_unscaling_are_told_from_none() -> None:
    """Oracle: the error says that there are gradients now, and its remedy works."""
    p, scaler = parameter(1.0), begun()
    optimizer = PlainSGD([p])
    scaler.unscale_(optimizer)
    scaler.scale((p * 2.0).sum()).backward()
    with pytest.raises(ScalerError, match="had a gradient when they were unscaled, and some have one now"):
        scaler.step(optimizer)
    scaler.update(scaler.get_scale())
    assert not scaler.step(optimizer).skipped


def test_a_closure_is_refused_as_keyword_and_passed_on_by_place() -> None:
    """Oracle: PyTorch 2.13.0."""
    scaler, optimizer = begun(), with_grads((8.0,))
    with pytest.raises(ScalerError, match="a closure cannot be used with loss scaling"):
        scaler.step(optimizer, closure=lambda: 1.0)

    def closure() -> float:
        return 1.0

    assert scaler.step(optimizer, closure).returned is closure


def test_two_optimizers_skip_apart_and_back_off_together() -> None:
    """Oracle: PyTorch 2.13.0: the clean one steps, the other skips, one backoff."""
    scaler, clean, faulty = begun(), with_grads((8.0,)), with_grads((INF,))
    for optimizer in (clean, faulty):
        scaler.step(optimizer)
    scaler.update()
    assert (clean.calls, faulty.calls, scaler.get_scale()) == (1, 0, 4.0)


def test_a_parameter_of_two_optimizers_is_unscaled_twice() -> None:
    """Oracle: PyTorch 2.13.0: a gradient of 8 becomes 1, then 0.125, at S = 8."""
    w = parameter(0.0)
    set_grad(w, 8.0)
    scaler = begun()
    for optimizer in (PlainSGD([w]), PlainSGD([w])):
        scaler.unscale_(optimizer)
    assert w.grad is not None
    assert w.grad.tolist() == [0.125]


def test_an_optimizer_is_told_from_one_that_took_its_place_in_memory() -> None:
    """Oracle: the contract: a record belongs to an optimizer, not to its address."""
    scaler = begun()
    for _ in range(20):
        scaler.unscale_(with_grads((8.0,)))


def test_things_that_are_no_optimizers_are_refused() -> None:
    """Oracle: the contract of the messages."""
    with pytest.raises(SettingError, match="expected an optimizer with param_groups, got object"):
        begun().step(object())
    optimizer = PlainSGD()
    optimizer.param_groups = [{"params": [np.ones(2)]}]
    with pytest.raises(SettingError, match="expected tensors in group 0, got ndarray"):
        begun().step(optimizer)
