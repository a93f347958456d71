"""Penalties on gradients under loss scaling; oracles: training without scaling, and powers of S by hand."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import functional, nn, ops
from minimp.errors import ScalerError, SettingError
from minimp.scaler import GradScaler
from minimp.scaler.penalties import refuse_scaled_penalty
from minimp.tape.scales import RECORDED
from minimp.tensors import Tensor
from tests.arrays import host
from tests.tolerances import assert_close

S = 1024.0
Penalty = Callable[[list[Any], float, GradScaler], Tensor]

TAKEN: dict[str, Penalty] = {
    "PyTorch's recipe": lambda g, s, _: sum((each * (1.0 / s)).pow(2).sum() for each in g) ** 0.5,
    "number first": lambda g, s, _: ((1.0 / s) * g[0]).sum(),
    "divided": lambda g, s, _: ((g[0] / s) ** 2).sum(),
    "divided by a tensor": lambda g, s, _: ((g[0] / mp.tensor(s)) ** 2).sum(),
    "helper": lambda g, _, scaler: sum((each**2).sum() for each in scaler.unscaled(g)) ** 0.5,
    "a norm after": lambda g, s, _: ops.linalg_vector_norm(g[0]) / s,
    "squares after": lambda g, s, _: (g[0] * g[0]).sum() / (s * s),
    "squares, twice": lambda g, s, _: (g[0] ** 2).sum() / s / s,
    "the root's way": lambda g, s, _: (g[0] ** 2 + g[0] ** 2).sum().sqrt() * (1.0 / s),
    "a weight before": lambda g, s, _: (0.3 * g[0]).abs().sum() / s,
    "a ratio": lambda g, _, __: (g[0] / (g[0] * g[0]).sum().sqrt()).sum(),
    "joined": lambda g, s, _: functional.relu(ops.cat(*[x.reshape(-1) for x in g]).abs()).sum() / s,
    "not linear, after": lambda g, s, _: functional.softplus(g[0] / s).exp().mean(),
    "WGAN's": lambda g, s, _: (ops.linalg_vector_norm(g[0] / s) - 1.0) ** 2,
    "weighed by S": lambda g, s, _: ((g[0] / s) ** 2).sum() * s,
    "in float16": lambda g, s, _: ((g[0] / s).half() ** 2).sum().float(),
    "recomputed": lambda g, s, _: mp.recompute(lambda x: ((x / s) ** 2).sum(), g[0]),
}
REFUSED: dict[str, Penalty] = {
    "raw": lambda g, _, __: (g[0] ** 2).sum(),
    "raw norm": lambda g, _, __: ops.linalg_vector_norm(g[0]),
    "one of two": lambda g, s, _: (g[0] / s).sum() + g[1].sum(),
    "half": lambda g, s, _: (g[0] ** 2).sum() / s,
    "by another number": lambda g, s, _: (g[0] / (2.0 * s)).sum(),
    "the wrong way": lambda g, s, _: (g[0] * s).sum(),
    "not linear": lambda g, s, _: g[0].exp().mean() / s,
    "a sum of both": lambda g, s, _: (g[0] + g[0] / s).sum() / s,
    "inverse": lambda g, s, _: (g[0].reciprocal() / s).sum(),
    "joined": lambda g, s, _: ops.cat(*[g[0].reshape(-1), (g[1] / s).reshape(-1)]).sum(),
    "hidden": lambda g, _, __: functional.mse_loss(g[0], mp.tensor(np.zeros(g[0].shape, np.float32))),
}


def weights() -> list[Tensor]:
    """Return two weights."""
    return [
        mp.tensor([[0.5, -1.0], [2.0, 0.25]], requires_grad=True), mp.tensor([1.0, 0.5], requires_grad=True)
    ]  # fmt: skip


def loss_of(params: list[Tensor]) -> Tensor:
    """Return a loss whose gradients depend on the weights."""
    return ((params[0] @ params[1]) ** 2).mean() + (params[0] ** 2).sum() * 0.5


def gradients(params: list[Tensor], scaler: GradScaler) -> list[Any]:
    """Return the gradients of the scaled loss, to be differentiated again."""
    return list(mp.grad(scaler.scale(loss_of(params)), params, create_graph=True))


@pytest.mark.parametrize("name", TAKEN)
def test_penalties_without_the_scale_are_taken_and_have_their_weight(name: str) -> None:
    """Oracle: the gradients of loss + penalty without any scaling."""
    found = []
    for scale in (S, 1.0):
        params, scaler = weights(), GradScaler(init_scale=scale)
        penalty = TAKEN[name](gradients(params, scaler), scale, scaler)
        weight = 1.0 / scale if name == "weighed by S" else 1.0
        scaler.scale(loss_of(params) + weight * penalty).backward()
        found.append(np.concatenate([np.ravel(p.grad.numpy()) / scale for p in params]))  # type: ignore[union-attr]
    assert_close(found[0], found[1], "parity_first_loss" if name != "in float16" else "parity_op_fp16")


@pytest.mark.parametrize("name", REFUSED)
def test_penalties_with_the_scale_are_refused(name: str) -> None:
    """Oracle: the error names the scale and PyTorch's recipe; who means it may; scaling 1 is taken."""
    params, scaler = weights(), GradScaler(init_scale=S)
    penalty = REFUSED[name](gradients(params, scaler), S, scaler)
    with pytest.raises(ScalerError) as caught:
        scaler.scale([loss_of(params) + penalty])
    assert "still multiplied by the loss scale 1024: a penalty built from them" in str(caught.value)
    assert "scaler.unscaled(" in str(caught.value)
    assert "inv_scale = 1 / scaler.get_scale()" in str(caught.value)
    assert all(p.grad is None for p in params)
    (product,) = scaler.scale([penalty], allow_scaled=True)
    assert product.item() == pytest.approx(penalty.item() * S)
    plain = GradScaler(init_scale=1.0)
    plain.scale(REFUSED[name](gradients(params, plain), 1.0, plain)).backward()


def steps_of(scale: float) -> dict[str, Callable[[Any], Any]]:
    """Return what can be done to a number that carries S."""
    return {
        "square": lambda x: x * x, "root": lambda x: x.sqrt(), "sum": lambda x: x.sum(),
        "norm": ops.linalg_vector_norm, "double": lambda x: 2.5 * x,
        "/S": lambda x: x / scale, "*S": lambda x: x * scale, "*1/S": lambda x: (1.0 / scale) * x,
    }  # fmt: skip


@given(
    st.sampled_from([2.0, 16.0, 65536.0, 1000.0, 3.5]),
    st.lists(st.sampled_from(["square", "root", "norm", "sum", "double", "/S", "*S", "*1/S"]), max_size=6),
)
def test_the_power_of_the_scale_is_followed(scale: float, path: list[str]) -> None:
    """Oracle: the value at S over that at 1 is S^n; refused unless n = 0. Steps away from 0 are not taken.

    A number that is a power of S counts only where it brings n nearer to 0: elsewhere it is a weight.
    """
    params, scaler = weights(), GradScaler(init_scale=scale)
    x: Any = gradients(params, scaler)[0].abs()
    degree = 1.0
    for step in path:
        away = {"/S": -1, "*1/S": -1, "*S": 1}.get(step, 0)
        x = steps_of(scale)[step](x)
        degree = {"square": 2.0, "root": 0.5}.get(step, 1.0) * degree
        degree += away if abs(degree + away) < abs(degree) else 0.0
    if degree == 0.0:
        refuse_scaled_penalty(x.sum(), scale)
    else:
        with pytest.raises(ScalerError, match="still multiplied"):
            refuse_scaled_penalty(x.sum(), scale)


def test_weights_at_a_small_scale_are_not_taken_for_it() -> None:
    """Oracle: at S = 2, a weight of 2 or a half is no scale: S is divided out once, beside it."""
    for weight in (2.0, 4.0, 0.5):
        params, scaler = weights(), GradScaler(init_scale=2.0)
        grads = gradients(params, scaler)
        scaler.scale((weight * grads[0]).abs().sum() / 2.0)
        scaler.scale(weight * (grads[0] / 2.0).abs().sum())


def test_gradients_in_grad_are_followed_too() -> None:
    """Oracle: backward(create_graph=True) leaves gradients from which a penalty can be built."""
    params, scaler = weights(), GradScaler(init_scale=S)
    scaler.scale(loss_of(params)).backward(create_graph=True)
    grads: list[Any] = [p.grad for p in params]
    with pytest.raises(ScalerError, match="the loss depends on gradients"):
        scaler.scale((grads[0] ** 2).sum())
    scaler.scale((scaler.unscaled(grads)[0] ** 2).sum())
    for p in params:
        p.grad = None
    scaler.scale(loss_of(params)).backward()


def test_losses_beside_a_living_penalty_are_not_suspected() -> None:
    """Oracle: another loss on the same weights is scaled while scaled gradients live; also under autocast."""
    net, scaler = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), GradScaler(init_scale=S)
    x = mp.tensor(np.ones((2, 3), np.float32))
    params = list(net.parameters())
    with mp.autocast("float16"):
        loss = net(x).float().sum()
    scaled = mp.grad(scaler.scale(loss), params, create_graph=True)
    with mp.autocast("float16"):
        other = net(x).float().sum()
        penalty = sum((g**2).sum() for g in scaler.unscaled(scaled) if g is not None)
    scaler.scale(other).backward()
    scaler.scale(penalty).backward()
    with mp.autocast("float16"), pytest.raises(ScalerError, match="still multiplied"):
        scaler.scale(other + sum((g * g).sum() for g in scaled if g is not None))


def test_unscaled_gradients_come_back_as_they_were_given() -> None:
    """Oracle: g / S by hand; lists, tuples and None; 16 bits become float32 before they are divided."""
    params, scaler = weights(), GradScaler(init_scale=S)
    grads = gradients(params, scaler)
    plain = mp.grad(loss_of(params), params)
    for given_as in (list, tuple):
        found = scaler.unscaled(given_as([*grads, None]))
        assert type(found) is given_as
        assert found[2] is None
        for each, exact in zip(found, plain, strict=False):
            np.testing.assert_array_equal(host(each), host(exact))
    x = mp.tensor(np.full(3, 2.0**-20, np.float16), requires_grad=True)
    (low,) = mp.grad(scaler.scale((x.float() * 2.0**-20).sum()), x)
    wide = scaler.unscaled(low)
    assert wide.format is mp.float32
    assert wide.tolist() == [2.0**-20] * 3


class Pair(NamedTuple):
    """Two gradients."""

    first: Any
    second: Any


def test_named_tuples_are_unscaled_and_what_is_no_gradient_is_refused() -> None:
    """Oracle: g / S by hand; the error in the docstring."""
    params, scaler = weights(), GradScaler(init_scale=S)
    found = scaler.unscaled(Pair(gradients(params, scaler)[0], None))
    assert type(found) is Pair
    np.testing.assert_array_equal(host(found.first), host(mp.grad(loss_of(params), params)[0]))
    for wrong in (3.0, [3.0], "x", {"a": params[0]}):
        with pytest.raises(SettingError, match="expected gradients, or a list or tuple of them, got"):
            scaler.unscaled(wrong)


def test_gradients_may_come_while_those_that_live_are_looked_through() -> None:
    """Oracle: no error; as by another thread, gradients are recorded between any two calls of `weakref`."""
    params, scaler = weights(), GradScaler(init_scale=S)
    kept = [*gradients(params, scaler), *gradients(params, scaler)]
    loss, others = loss_of(params), [(each * 2.0).sum() for each in params * 8]
    coming = [each.node for each in others]

    def come(frame: Any, event: str, _: Any) -> None:
        if coming and event == "call" and frame.f_code.co_filename == weakref.__file__:
            RECORDED[coming.pop()] = RECORDED[kept[0].node]  # type: ignore[index]  # each has a node

    sys.setprofile(come)
    try:
        scaled = scaler.scale(loss)
    finally:
        sys.setprofile(None)
    assert len(coming) < len(others)
    assert scaled.item() == loss.item() * S


def test_what_carries_no_scale_or_several_cannot_be_unscaled() -> None:
    """Oracle: the errors; a disabled scaler and a scale of 1 give back what they are given."""
    params, scaler = weights(), GradScaler(init_scale=S)
    plain = mp.grad(loss_of(params), params)
    with pytest.raises(ScalerError, match=r"got one of shape \(2, 2\) that carries no scale"):
        scaler.unscaled(plain)
    (both,) = mp.grad([scaler.scale(loss_of(params)), loss_of(params)], params[0])
    with pytest.raises(ScalerError, match="carries several scales"):
        scaler.unscaled(both)
    for idle in (GradScaler(enabled=False), GradScaler(init_scale=1.0)):
        found = mp.grad(idle.scale(loss_of(params)), params)
        assert idle.unscaled(found)[0] is found[0]
    dead = GradScaler()
    dead.scale(mp.tensor(1.0))
    dead.update(0.0)
    zero = dead.unscaled(mp.grad(dead.scale(loss_of(params)), params))[0]
    assert all(math.isnan(each) for each in np.ravel(host(zero)))
