"""Clipping; oracle: norms in NumPy float64, and values by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import minimp as mp
from minimp import nn, optim
from minimp.errors import GradientError, ScalerError, SettingError
from tests.optim.helpers import parameter, values
from tests.tolerances import assert_close

finite = st.floats(-(2.0**20), 2.0**20, width=32)


@given(
    st.lists(arrays.arrays(np.float32, st.integers(0, 9), elements=finite), max_size=4), st.floats(0.01, 1e4)
)
def test_the_norm_after_clipping_is_at_most_the_limit(parts: list[np.ndarray], limit: float) -> None:
    """Oracle: the norm in float64; law: never above the limit, and unchanged bits where it was below."""
    params = [parameter(np.zeros_like(part)) for part in parts]
    for param, part in zip(params, parts, strict=True):
        param.grad = mp.tensor(part)
    norm = optim.clip_grad_norm_(params, limit)
    exact = math.sqrt(sum(float((part.astype(np.float64) ** 2).sum()) for part in parts))
    assert_close(norm.item(), exact, "parity_first_loss")
    after = math.sqrt(sum(float((values(p.grad) ** 2).sum()) for p in params))
    assert after <= limit * (1 + 2.0**-22)
    if exact <= limit * (1 - 1e-5) - 1e-5:
        assert all(np.array_equal(values(p.grad), part) for p, part in zip(params, parts, strict=True))


def test_the_norm_of_float16_gradients_does_not_overflow() -> None:
    """Oracle: the norm of 4 times 60000 is 120000, beyond float16; what is clipped is rounded once."""
    param = parameter(np.zeros(4), "float16")
    before = param.grad = mp.tensor(np.full(4, 60000, np.float16))
    norm = optim.clip_grad_norm_(param, 3.0)
    assert norm.item() == 120000.0
    assert norm.format is mp.float32
    coefficient = np.float32(3.0) / (np.float32(120000) + np.float32(1e-6))
    assert param.grad.format is mp.float16
    assert values(param.grad).tolist() == [float(np.float16(np.float32(60000) * coefficient))] * 4
    assert values(before).tolist() == [60000.0] * 4


def test_a_norm_that_is_not_finite_can_be_an_error() -> None:
    """Oracle: the error; no gradient has changed."""
    param = parameter([0.0, 0.0])
    grad = param.grad = mp.tensor([1.0, math.inf])
    with pytest.raises(GradientError, match="the norm of the gradients is inf"):
        optim.clip_grad_norm_([param], 1.0, error_if_nonfinite=True)
    assert param.grad is grad


def test_norms_of_nothing_and_of_wide_tensors() -> None:
    """Oracle: torch's 0 for no gradients; float64 where a tensor is."""
    assert optim.clip_grad_norm_([parameter([1.0])], 1.0).item() == 0.0
    wide = mp.tensor(np.array([3.0, 4.0]))
    assert optim.get_total_norm([wide]).item() == 5.0
    assert optim.get_total_norm(wide).format is mp.float64
    assert optim.get_total_norm(wide, math.inf).item() == 4.0
    assert optim.clip_coefficient(optim.get_total_norm(wide), 2.5) == 2.5 / (5.0 + 1e-6)


def test_values_are_clamped_in_their_own_format() -> None:
    """Oracle: NumPy's clip; 0.1 rounded to float16."""
    param = parameter([0.0, 0.0, 0.0], "float16")
    param.grad = mp.tensor(np.array([-1.0, 0.05, math.inf], np.float16))
    optim.clip_grad_value_(param, 0.1)
    tenth = float(np.float16(0.1))
    assert values(param.grad).tolist() == [-tenth, float(np.float16(0.05)), tenth]


def test_mistakes_are_named() -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(SettingError, match="expected norm_type greater than 0, got 0"):
        optim.clip_grad_norm_([], 1.0, 0)
    with pytest.raises(SettingError, match="expected clip_value of at least 0, got -1"):
        optim.clip_grad_value_([], -1)
    net = nn.Linear(1, 1)
    for wrong, kind in ((net, "Linear"), (net.named_parameters(), "tuple"), ([None], "NoneType"), (3, "int")):
        with pytest.raises(SettingError, match=f"clip_grad_norm_: expected tensors, got {kind}\\n"):
            optim.clip_grad_norm_(wrong, 1.0)
    with pytest.raises(SettingError, match="scaler: expected a GradScaler, got float"):
        optim.clip_grad_norm_(net.parameters(), 1.0, scaler=1024.0)  # type: ignore[arg-type]
    with pytest.raises(GradientError, match="get_total_norm: the norm of the gradients is inf"):
        optim.get_total_norm([mp.tensor([math.inf])], error_if_nonfinite=True)


# ---- under loss scaling


def scaled_gradients(scale: float = 1024.0) -> tuple[Any, optim.Optimizer, mp.GradScaler]:
    """Return two parameters whose gradients, 3 and 4, are still multiplied by the scale."""
    params = [parameter([1.0]), parameter([1.0])]
    scaler = mp.GradScaler(init_scale=scale)
    scaler.scale((params[0] * 3.0 + params[1] * 4.0).sum()).backward()
    return params, optim.SGD(params, lr=1.0), scaler


CLIPS: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("clip_grad_norm_", lambda params, **o: optim.clip_grad_norm_(params, 2.5, **o)),
    ("clip_grad_value_", lambda params, **o: optim.clip_grad_value_(params, 2.5, **o)),
    ("get_total_norm", lambda params, **o: optim.get_total_norm([p.grad for p in params], **o)),
    ("clip_grads_with_norm_", lambda params, **o: optim.clip_grads_with_norm_(
        params, 2.5, mp.tensor(5.0), **o)),
)  # fmt: skip


@pytest.mark.parametrize("clip", [each[1] for each in CLIPS], ids=[each[0] for each in CLIPS])
def test_gradients_that_carry_a_scale_are_refused(clip: Callable[..., Any]) -> None:
    """Oracle: the error names the scale and the way out; no gradient has changed; unscaled ones are taken."""
    params, optimizer, scaler = scaled_gradients()
    before = [param.grad for param in params]
    with pytest.raises(ScalerError, match="2 of 2 gradients are still multiplied by the loss scale 1024"):
        clip(params)
    with pytest.raises(ScalerError, match=r"scale 1024 .*, and the scaler that was passed is another"):
        clip(params, scaler=mp.GradScaler())
    assert all(param.grad is grad for param, grad in zip(params, before, strict=True))
    scaler.unscale_(optimizer)
    clip(params)
    clip(params, scaler=scaler)


@given(
    st.integers(-10, 20).map(lambda e: 2.0**e), st.floats(2.0**-6, 20.0, width=32),
    st.sampled_from([1.0, 2.0, 3.0, math.inf]), st.booleans(),
)  # fmt: skip
def test_with_the_scaler_it_makes_no_difference_when_one_unscales(
    scale: float, limit: float, p: float, by_value: bool
) -> None:
    """Oracle: unscale_ first, then clip: the same norm and, once unscaled, the same bits of gradients."""
    after = []
    for first in (True, False):
        params, optimizer, scaler = scaled_gradients(scale)
        if first:
            scaler.unscale_(optimizer)
        if by_value:
            optim.clip_grad_value_(params, limit, scaler=scaler)
            norm = 0.0
        else:
            norm = optim.clip_grad_norm_(params, limit, p, scaler=scaler).item()
        if not first:
            scaler.unscale_(optimizer)
        after.append([norm, *(param.grad.item() for param in params)])
    assert after[0] == after[1]


def test_the_norm_with_the_scaler_is_the_unscaled_one() -> None:
    """Oracle: |(3, 4)| = 5, and the largest magnitude 4, whatever the scale."""
    params, _, scaler = scaled_gradients(2.0**16)
    grads = [param.grad for param in params]
    assert optim.get_total_norm(grads, scaler=scaler).item() == 5.0
    assert optim.get_total_norm(grads[1], math.inf, scaler=scaler).item() == 4.0
    assert optim.clip_grad_norm_(params, 2.5, scaler=scaler).item() == 5.0
    assert_close([p.grad.item() / 2.0**16 for p in params], [1.5, 2.0], "parity_first_loss")


def test_what_was_clipped_with_the_scaler_still_carries_its_scale() -> None:
    """Oracle: the next clip without the scaler is refused; the step divides the scale out once."""
    params, optimizer, scaler = scaled_gradients()
    optim.clip_grad_value_(params, 0.5, scaler=scaler)
    with pytest.raises(ScalerError, match="still multiplied"):
        optim.clip_grad_norm_(params, 1.0)
    scaler.step(optimizer)
    assert [param.item() for param in params] == [0.5, 0.5]


def test_a_scale_is_forgotten_with_its_gradients() -> None:
    """Oracle: once zeroed or dropped, the gradients of a loss that was not scaled are plain ones."""
    params, optimizer, scaler = scaled_gradients()
    optimizer.zero_grad()
    (params[0] * 3.0 + params[1] * 4.0).sum().backward()
    assert optim.clip_grad_norm_(params, 100.0).item() == 5.0
    params[0].grad = None
    scaler.scale((params[0] * 3.0).sum()).backward()
    with pytest.raises(ScalerError, match="1 of 2 gradients"):
        optim.clip_grad_norm_(params, 1.0)
    scaler.step(optimizer)
    scaler.update()
    for param in params:
        param.grad = None
    (params[0] * 3.0 + params[1] * 4.0).sum().backward()
    assert optim.clip_grad_norm_(params, 100.0).item() == 5.0


def test_only_gradients_of_the_scaled_loss_are_marked() -> None:
    """Oracle: two models, one of them trained with a scaler, both between backward and step."""
    params, _, scaler = scaled_gradients()
    plain, never = parameter([2.0]), parameter([1.0])
    (plain * 7.0).sum().backward()
    assert optim.clip_grad_norm_(plain, 99.0).item() == 7.0
    scaler.scale((plain * 0.0 + never).sum())  # no backward: nothing was added anywhere
    assert optim.clip_grad_norm_(plain, 99.0).item() == 7.0
    mp.grad(scaler.scale((plain * 2.0).sum()), [plain])  # touches no .grad
    assert optim.clip_grad_norm_(plain, 99.0).item() == 7.0
    with pytest.raises(ScalerError, match="2 of 3"):
        optim.clip_grad_norm_([*params, plain], 1.0)


def test_marks_outlast_other_gradients_and_end_with_their_own() -> None:
    """Oracle: mp.grad touches no `.grad`, so a scaled one stays scaled; one in its place is a plain one."""
    params, _, scaler = scaled_gradients()
    mp.grad(scaler.scale((params[0] * 2.0).sum()), [params[0]])
    with pytest.raises(ScalerError, match="2 of 2"):
        optim.clip_grad_norm_(params, 1.0)
    other = parameter([1.0])
    scaler.scale((other * 2.0).sum()).backward()
    scaler.step(optim.SGD([other]))
    scaler.update()
    for param in params:
        param.grad = None
    (params[0] * 3.0 + params[1] * 4.0).sum().backward()
    assert optim.clip_grad_norm_(params, 99.0).item() == 5.0
    scaler.scale((params[0] * 2.0).sum()).backward()
    scaler.update(4.0)
    params[0].grad = mp.tensor([3.0])
    assert optim.clip_grad_norm_(params, 99.0).item() == 5.0


def test_a_scaler_that_does_nothing_marks_nothing() -> None:
    """Oracle: enabled=False, and a scale of 1."""
    for scaler in (mp.GradScaler(enabled=False), mp.GradScaler.preset("static", init_scale=1.0)):
        param = parameter([1.0])
        scaler.scale((param * 3.0).sum()).backward()
        assert optim.clip_grad_norm_(param, 99.0).item() == 3.0
        assert optim.clip_grad_norm_(param, 99.0, scaler=scaler).item() == 3.0
