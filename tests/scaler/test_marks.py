"""Gradients that carry a loss scale: who is marked, and who refuses; oracle: the scales, kept by hand."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import nn, optim
from minimp.errors import ScalerError, SettingError
from minimp.scaler import GradScaler
from minimp.tape.scales import RECORDED, SOURCES, mark_of
from minimp.tensors import Tensor
from tests.scaler.plain import SelfScalingSGD, parameter
from tests.tolerances import assert_close

S = 1024.0


def scaler_at(scale: float = S) -> GradScaler:
    """Return a scaler."""
    return GradScaler(init_scale=scale)


def carried(gradient: Any) -> set[float]:
    """Return the factors that a gradient is marked with; 1 for one without mark."""
    found = mark_of(gradient)
    return {1.0} if found is None else set(found.factors)


def scaled_pair(scale: float = S) -> tuple[list[Tensor], optim.Optimizer, GradScaler]:
    """Return two parameters whose gradients, 3 and 4, are times the scale; their optimizer; the scaler."""
    params, scaler = [parameter(1.0), parameter(1.0)], scaler_at(scale)
    scaler.scale((params[0] * 3.0 + params[1] * 4.0).sum()).backward()
    return params, optim.SGD(params, lr=1.0), scaler


# ---- who is marked


def test_the_mark_is_of_the_very_gradient_that_backward_left() -> None:
    """Oracle: after dividing by hand, optimizer and norm take the gradient for what it is: 3 and 4."""
    params, optimizer, _ = scaled_pair()
    assert [carried(p.grad) for p in params] == [{S}, {S}]
    for p in params:
        p.grad = p.grad / S  # type: ignore[operator, assignment]
    assert optim.get_total_norm([p.grad for p in params]).item() == 5.0  # type: ignore[misc]
    optimizer.step()
    assert [p.item() for p in params] == [-2.0, -3.0]


def test_a_scaled_gradient_says_so() -> None:
    """Oracle: the text; a plain one, and one that was unscaled, say nothing."""
    params, optimizer, scaler = scaled_pair(65536.0)
    assert repr(params[0].grad) == "tensor([196608.], scale=65536)"
    assert repr(params[0].grad.half()) == "tensor([inf], dtype=float16)"  # type: ignore[union-attr]
    scaler.unscale_(optimizer)
    assert repr(params[0].grad) == "tensor([3.])"
    scaler.unscale_(optim.SGD(params))
    assert repr(params[0].grad) == "tensor([4.57764e-05], scale=1/65536)"


BACKWARDS = st.lists(
    st.tuples(
        st.sampled_from([1.0, 2.0, 256.0]), st.sampled_from([0.0, 1.0, 8.0, 512.0]),
        st.sets(st.integers(0, 2), min_size=1), st.sets(st.integers(0, 2)),
        st.sampled_from(["backward", "create_graph", "drop first", "zero first"]),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


@given(BACKWARDS)
def test_marks_are_the_scales_of_the_parts(backwards: list[Any]) -> None:
    """Oracle: for each leaf, the set of scales of the parts that were added up in it.

    Each loss is S (sum of some leaves) + T (sum of some leaves), T = 0 for no second scale: paths of one
    backward meet in a leaf as backwards do.
    """
    leaves = [parameter(1.0), parameter(2.0), parameter(3.0)]
    expected: list[set[float]] = [set(), set(), set()]
    keep = []
    for first, second, ours, theirs, way in backwards:
        if "first" in way:
            for leaf, factors in zip(leaves, expected, strict=True):
                leaf.grad = mp.tensor([0.0]) if way == "zero first" and leaf.grad is not None else None
                factors.clear()
        loss = scaler_at(first).scale(sum_of(leaves, ours)) * 3.0
        for index in ours:
            expected[index].add(first)
        if second and theirs:
            scaled = scaler_at(second).scale(sum_of(leaves, theirs))
            keep.append(scaled)  # a scale node of an earlier loss lives on
            loss = loss + scaled
            for index in theirs:
                expected[index].add(second)
        loss.backward(create_graph=way == "create_graph")
    found = [set() if leaf.grad is None else carried(leaf.grad) for leaf in leaves]
    held = [set() if leaf.grad is not None and leaf.grad.item() == 0.0 else each
            for leaf, each in zip(leaves, found, strict=True)]  # fmt: skip
    assert held == expected


def sum_of(leaves: list[Tensor], which: set[int]) -> Tensor:
    """Return the sum of some leaves, each used twice."""
    total = mp.tensor(0.0)
    for index in sorted(which):
        total = total + (leaves[index] * 2.0 + leaves[index]).sum()
    return total


def test_one_scale_after_another_multiplies() -> None:
    """Oracle: 8 * 4 times the gradient; where the paths part, each has its own."""
    p, q = parameter(1.0), parameter(1.0)
    scaler_at(8.0).scale(scaler_at(4.0).scale((p * 3.0).sum()) + (q * 3.0).sum()).backward()
    assert (p.grad.item(), q.grad.item()) == (96.0, 24.0)  # type: ignore[union-attr]
    assert (carried(p.grad), carried(q.grad)) == ({32.0}, {8.0})


@pytest.mark.parametrize("module", [False, True])
def test_zeros_carry_every_scale(module: bool) -> None:
    """Oracle: zero_grad(set_to_none=False), then a scaled loss: gradients that carry S, and no mixture."""
    net = nn.Linear(2, 1)
    optimizer, scaler = optim.SGD(net.parameters(), lr=1.0), scaler_at()
    for _ in range(2):
        (net if module else optimizer).zero_grad(set_to_none=False)
        scaler.scale(net(mp.tensor([[1.0, 2.0]])).sum()).backward()
        assert {frozenset(carried(p.grad)) for p in net.parameters()} == {frozenset({S})}
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_that_are_returned_are_marked(create_graph: bool) -> None:
    """Oracle: S where the scaled loss is differentiated, 1 where another one is; several outputs add up."""
    p, q = parameter(2.0), parameter(3.0)
    scaler = scaler_at()
    kept = scaler.scale((p * p * q).sum())
    by_p, by_q = mp.grad(kept, [p, q], create_graph=create_graph, retain_graph=True)
    assert (by_p.item(), by_q.item()) == (12.0 * S, 4.0 * S)  # type: ignore[union-attr]
    assert (carried(by_p), carried(by_q)) == ({S}, {S})
    assert p.grad is None
    (plain,) = mp.grad((p * p).sum(), p, create_graph=create_graph)
    assert carried(plain) == {1.0}
    both, none = mp.grad([kept, (p * q).sum()], [p, parameter(1.0)], create_graph=create_graph,
                         allow_unused=True)  # fmt: skip
    assert carried(both) == {1.0, S}
    assert none is None
    with pytest.raises(ScalerError, match="the norm would be 1024 times too large"):
        optim.get_total_norm([by_p, by_q])  # type: ignore[list-item]
    with pytest.raises(ScalerError, match=r"1 of 1 gradients \(tensor 0 \(1,\)\) were added up of parts"):
        optim.get_total_norm(both)  # type: ignore[arg-type]
    with mp.no_grad():
        assert carried(mp.grad(kept, kept)[0]) == {1.0}


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_and_retained_gradients_know_the_scale(create_graph: bool) -> None:
    """Oracle: a gradient before the scale is plain, one behind it carries S; in the same walk."""
    p = parameter(2.0)
    seen = []
    hidden = p * 3.0
    loss = hidden.sum()
    scaled = scaler_at().scale(loss)
    for each in (p, hidden, scaled):
        each.register_hook(lambda grad: seen.append((grad.item(), carried(grad))))
    hidden.retain_grad()
    scaled.retain_grad()
    scaled.backward(create_graph=create_graph)
    assert seen == [(1.0, {1.0}), (S, {S}), (3.0 * S, {S})]
    assert (carried(hidden.grad), carried(scaled.grad), carried(p.grad)) == ({S}, {1.0}, {S})


def test_copies_of_a_parameter_keep_the_mark() -> None:
    """Oracle: deepcopy of tensors and modules, and another format."""
    leaf, net, scaler = parameter(1.0), nn.Linear(1, 1), scaler_at()
    scaler.scale((leaf * 3.0).sum() + net(mp.tensor([[2.0]])).sum()).backward()
    assert carried(copy.deepcopy(leaf).grad) == {S}
    assert [carried(p.grad) for p in copy.deepcopy(net).parameters()] == [{S}, {S}]
    assert [carried(p.grad) for p in net.half().parameters()] == [{S}, {S}]


@pytest.mark.parametrize("how", ["backward", "create_graph", "grad", "cast"])
def test_a_scaled_gradient_that_is_handed_over_carries_its_scale_on(how: str) -> None:
    """Oracle: 3 * 2 S and the factor S, by halves as in one backward; a scaled part then adds up with it."""
    p, scaler = parameter(1.0), scaler_at()
    first = p * 3.0
    cut = first.detach().requires_grad_()
    scaler.scale((cut * 2.0).sum()).backward()
    if how == "grad":
        (p.grad,) = mp.grad(first, p, cut.grad)
    elif how == "cast":
        first.half().backward(cut.grad)
    else:
        first.backward(cut.grad, create_graph=how == "create_graph")
    assert (p.grad.item(), carried(p.grad)) == (6.0 * S, {S})  # type: ignore[union-attr]
    scaler.scale((p * 4.0).sum()).backward()
    scaler.step(optim.SGD([p], lr=1.0))
    assert p.item() == 1.0 - 10.0


def test_what_a_pickle_would_rebuild_of_a_mark_has_no_scaler() -> None:
    """Oracle: the factors and the count; no weak reference, which cannot be pickled, is among the parts."""
    _, optimizer, scaler = scaled_pair()
    found = mark_of(optimizer.param_groups[0]["params"][0].grad)
    assert found is not None
    make, parts = found.__reduce__()
    assert not any(isinstance(part, weakref.ref) for part in parts)
    assert (found.scaler(), make(*parts).scaler()) == (scaler, None)
    assert (make(*parts).factors, make(*parts).unscaled) == ({S}, 0)


def test_gradients_that_overflow_apart_are_added_up_in_silence() -> None:
    """Oracle: inf - inf is NaN, found by the step and by nobody else (warnings are errors here)."""
    p, scaler = parameter(1.0), scaler_at()
    for sign in (1.0, -1.0):
        scaler.scale((p * (sign * 3e38)).sum()).backward()
    assert math.isnan(p.grad.item())  # type: ignore[union-attr]
    assert scaler.step(optim.SGD([p], lr=1.0)).skipped


def test_nothing_is_held_and_nothing_walked_when_the_losses_are_gone() -> None:
    """Oracle: the two tables, empty but for what lives."""
    gc.collect()
    before = len(SOURCES), len(RECORDED)
    p, scaler = parameter(2.0), scaler_at()
    scaled = scaler.scale((p * p).sum())
    (slope,) = mp.grad(scaled, p, create_graph=True)
    assert (len(SOURCES), len(RECORDED)) == (before[0] + 1, before[1] + 1)
    del scaled, slope
    for _ in range(20):
        scaler.scale((p * p).sum()).backward()
    gc.collect()
    assert (len(SOURCES), len(RECORDED)) == before


def test_a_scale_of_one_and_a_disabled_scaler_mark_nothing() -> None:
    """Oracle: no mark, and the optimizer's own step is taken."""
    for scaler in (GradScaler(enabled=False), scaler_at(1.0)):
        p = parameter(1.0)
        scaler.scale((p * 3.0).sum()).backward()
        assert mark_of(p.grad) is None
        optim.SGD([p], lr=1.0).step()
        assert p.item() == -2.0


# ---- optimizers


def test_a_step_on_scaled_gradients_is_refused() -> None:
    """Oracle: the error names factor, parameters and remedy; weights, state and counts are untouched."""
    p, q, scaler = parameter(1.0), parameter(1.0), scaler_at()
    scaler.scale((p * 3.0).sum()).backward()
    q.grad = mp.tensor([1.0])
    optimizer = optim.Adam([("first", p), ("second", q)], lr=1.0)
    with pytest.raises(ScalerError) as caught:
        optimizer.step()
    assert "1 of 2 gradients are still multiplied by the loss scale 1024 (first)" in str(caught.value)
    assert "the update would be by 1024 times the gradient" in str(caught.value)
    assert "scaler.step(optimizer) in the place of optimizer.step()" in str(caught.value)
    assert (p.item(), q.item(), optimizer.state, optimizer.steps_taken) == (1.0, 1.0, {}, 0)
    assert scaler.step(optimizer).skipped is False
    assert (carried(p.grad), optimizer.steps_taken) == ({1.0}, 1)


def test_a_refused_step_has_the_names_that_the_scaler_was_told() -> None:
    """Oracle: the names; without them the optimizer's own, or the places."""
    params, optimizer, scaler = scaled_pair()
    with pytest.raises(
        ScalerError, match=r"\(parameter 0 of group 0 \(1,\), parameter 1 of group 0 \(1,\)\)"
    ):
        optimizer.step()
    with pytest.raises(ScalerError, match=r"\(w, b\)"):
        optim.SGD([("w", params[0]), ("b", params[1])], lr=1.0).step()
    scaler.name_parameters([("weight", params[0]), ("bias", params[1])])
    with pytest.raises(ScalerError, match=r"\(weight, bias\)"):
        optimizer.step()


def test_who_means_it_may_step_on_scaled_gradients() -> None:
    """Oracle: 1 - 3 * 1024 / 1024 with the scale taken out by the learning rate."""
    params, _, _ = scaled_pair()
    optim.SGD(params, lr=1.0 / S).step(allow_scaled=True)
    assert [p.item() for p in params] == [-2.0, -3.0]


def test_gradients_that_are_handed_over_are_looked_at_too() -> None:
    """Oracle: marked tensors are refused, plain arrays and unscaled tensors are taken."""
    params, optimizer, scaler = scaled_pair()
    with pytest.raises(ScalerError, match="still multiplied by the loss scale 1024"):
        optimizer.step(gradients={params[0]: params[0].grad})
    optimizer.step(gradients={params[0]: np.array([1.0], np.float32)})
    scaled = mp.grad(scaler.scale((params[0] * 5.0).sum()), params[0])
    optimizer.step(gradients=dict(zip(params[:1], scaler.unscaled(scaled), strict=True)))
    assert params[0].item() == 1.0 - 1.0 - 5.0


def test_a_closure_that_scales_is_refused_by_the_step_itself() -> None:
    """Oracle: the error, after the closure ran."""
    p, scaler = parameter(1.0), scaler_at()

    def closure() -> float:
        scaler.scale((p * 3.0).sum()).backward()
        return 0.0

    with pytest.raises(ScalerError, match="still multiplied"):
        optim.SGD([p]).step(closure)


def test_optimizers_that_unscale_by_themselves_take_scaled_gradients() -> None:
    """Oracle: 1 - 3 through the scaler; the base class lets them step without asking."""

    class Fused(optim.SGD):
        _step_supports_amp_scaling = True

    p, scaler = parameter(1.0), scaler_at()
    optimizer = SelfScalingSGD([p])
    scaler.scale((p * 3.0).sum()).backward()
    scaler.step(optimizer)
    assert p.item() == -2.0
    fused = Fused([p], lr=1.0 / S)
    fused.step()
    assert p.item() == -5.0
    scaler.update(512.0)
    with pytest.raises(ScalerError, match=r"were scaled by 1024 .* the scale is now 512"):
        scaler.step(optimizer)


def test_the_training_step_leaves_gradients_that_say_what_they_are() -> None:
    """Oracle: the step's report has the unscaled norm; the norm of `.grad` is refused without the scaler."""
    net = nn.Linear(2, 1)
    sgd, scaler = optim.SGD(net.parameters(), lr=0.1), scaler_at()
    step = mp.TrainStep(net, mp.functional.mse_loss, sgd, "mixed-fp16", scaler=scaler, control="host")
    report = step(np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32))
    grads: Any = [p.grad for p in net.parameters()]
    with pytest.raises(ScalerError, match="2 of 2 gradients are still multiplied by the loss scale 1024"):
        optim.get_total_norm(grads)
    norm = optim.get_total_norm(grads, scaler=scaler).item()
    assert_close(norm, report.grad_norm, "parity_first_loss")


# ---- parts, updates, two optimizers


def test_parts_of_one_scale_add_up() -> None:
    """Oracle: 3 + 3 through one step; also over an update that leaves the scale as it is."""
    for between in (False, True):
        p, scaler = parameter(1.0), scaler_at()
        optimizer = optim.SGD([p], lr=1.0)
        for _ in range(2):
            scaler.scale((p * 3.0).sum()).backward()
            if between:
                scaler.update(S)
        scaler.step(optimizer)
        assert p.item() == -5.0


def test_a_loss_that_was_scaled_twice_is_refused() -> None:
    """Oracle: 1024 * 1024, and what came of it in words."""
    p, scaler = parameter(1.0), scaler_at()
    scaler.scale(scaler.scale((p * 3.0).sum())).backward()
    with pytest.raises(
        ScalerError, match=r"scaled by 1048576 .* now 1024: .* the loss was scaled more than once"
    ):
        scaler.step(optim.SGD([p], lr=1.0))
    assert p.item() == 1.0


def test_parts_under_two_scales_are_refused_by_whoever_meets_them() -> None:
    """Oracle: clip, norm, step and unscale_ say both scales; nothing changes."""
    params, optimizer, scaler = scaled_pair()
    scaler.update(32.0)
    scaler.scale((params[0] * 3.0).sum()).backward()
    scaler.name_parameters([("weight", params[0]), ("bias", params[1])])
    before = [p.grad for p in params]
    text = r"1 of 2 gradients \(weight\) were added up under different loss scales, 1024, 32"
    grads: list[Any] = before
    for call in (
        lambda: scaler.unscale_(optimizer), lambda: scaler.step(optimizer),
        lambda: optim.clip_grad_norm_(params, 1.0), lambda: optim.clip_grad_norm_(params, 1.0, scaler=scaler),
    ):  # fmt: skip
        with pytest.raises(ScalerError, match=text):
            call()
    for refusing in (optimizer.step, lambda: optim.get_total_norm(grads)):
        with pytest.raises(ScalerError, match="were added up under different loss scales, 1024, 32"):
            refusing()
    assert all(p.grad is grad for p, grad in zip(params, before, strict=True))
    optimizer.zero_grad()
    scaler.scale((params[0] * 3.0).sum()).backward()
    scaler.step(optimizer)
    assert params[0].item() == -2.0


@pytest.mark.parametrize("change", ["update", "update with a value", "load_state_dict"])
def test_unscaling_by_another_scale_than_that_of_backward_is_refused(change: str) -> None:
    """Oracle: S_old / S_new = 2 would go into the update; the error says both; the optimizer can go on."""
    params, optimizer, scaler = scaled_pair(65536.0)
    if change == "update":
        other = parameter(1.0)
        scaler.scale((other * math.inf).sum()).backward()
        scaler.step(optim.SGD([other]))
        scaler.update()
    elif change == "update with a value":
        scaler.update(32768.0)
    else:
        scaler.load_state_dict(scaler.state_dict() | {"scale": 32768.0})
    with pytest.raises(ScalerError, match=r"2 of 2 gradients were scaled by 65536 .* the scale is now 32768"):
        scaler.unscale_(optimizer)
    assert [p.grad.item() for p in params] == [3.0 * 65536, 4.0 * 65536]  # type: ignore[union-attr]
    optimizer.zero_grad()
    scaler.scale((params[0] * 3.0).sum()).backward()
    scaler.step(optimizer)
    assert params[0].item() == -2.0


def test_gradients_that_were_not_renewed_are_refused() -> None:
    """Oracle: unscaled in two iterations, with no backward between: 1/8 of the gradient; remedy."""
    p, scaler = parameter(1.0), scaler_at(8.0)
    optimizer = optim.SGD([p], lr=1.0)
    scaler.scale(p.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    with pytest.raises(
        ScalerError, match=r"unscaled 2 times: .* 1/8.*\n.*zero the gradients after each step"
    ):
        scaler.step(optimizer)
    assert p.item() == 0.0


@pytest.mark.parametrize("first", [True, False])
def test_scaled_and_unscaled_parts_do_not_mix(first: bool) -> None:
    """Oracle: whichever comes first; what is meant passes, as in PyTorch."""
    p, scaler = parameter(1.0), scaler_at()
    for scaled in (first, not first):
        (scaler.scale((p * 3.0).sum()) if scaled else (p * 3.0).sum()).backward()
    with pytest.raises(ScalerError, match="of parts with the loss scale 1024 and parts without"):
        scaler.step(optim.SGD([p]))
    p.grad = p.grad.detach()  # type: ignore[union-attr]
    scaler.step(optim.SGD([p], lr=1.0))
    assert p.item() == 1.0 - 3.0 - 3.0 / S


def test_nothing_is_added_after_unscaling() -> None:
    """Oracle: PyTorch adds S g to g and steps; here the step names the parameter and what to do."""
    params, optimizer, scaler = scaled_pair()
    scaler.unscale_(optimizer)
    scaler.scale((params[1] * 2.0).sum()).backward()
    text = r"1 of 2 gradients \(parameter 1 .*\n.* call unscale_\(\) after the last backward"
    with pytest.raises(ScalerError, match=text):
        scaler.step(optimizer)
    assert [p.item() for p in params] == [1.0, 1.0]


def test_a_parameter_of_two_optimizers_is_unscaled_twice_and_refused() -> None:
    """Oracle: PyTorch's value, 1 -> 0.125 at S = 8; who meets it raises; who means it gets it."""
    p, scaler = parameter(1.0), scaler_at(8.0)
    first, second = optim.SGD([p], lr=1.0), optim.SGD([p], lr=1.0)
    scaler.scale(p.sum()).backward()
    scaler.unscale_(first)
    scaler.unscale_(second)
    assert p.grad.item() == 0.125  # type: ignore[union-attr]
    for call in (
        lambda: scaler.step(first), lambda: optim.clip_grad_norm_(p, 1.0),
        lambda: optim.clip_grad_norm_(p, 1.0, scaler=scaler),
    ):  # fmt: skip
        with pytest.raises(
            ScalerError, match=r"unscaled 2 times: they are multiplied by 1/8.*\n.*two of them"
        ):
            call()
    scaler.step(second, allow_scaled=True)
    assert p.item() == 0.875


def test_a_scale_of_zero_and_one_of_infinity_are_unscaled_as_in_torch() -> None:
    """Oracle: facts measured on PyTorch 2.13.0: weights become NaN at S = 0, and stay at S = inf."""
    for scale, after in ((0.0, math.nan), (math.inf, 1.0)):
        p, scaler = parameter(1.0), GradScaler()
        scaler.scale(mp.tensor(1.0))
        scaler.update(scale)
        scaler.scale((p * 3.0).sum()).backward()
        scaler.step(optim.SGD([p], lr=1.0))
        np.testing.assert_equal(p.item(), after)


# ---- clipping that is meant


def test_clipping_to_a_scaled_limit() -> None:
    """Oracle: the same gradients as unscaling first and clipping to the limit itself."""
    after = []
    for first in (True, False):
        params, optimizer, scaler = scaled_pair()
        if first:
            scaler.unscale_(optimizer)
            norm = optim.clip_grad_norm_(params, 2.5).item()
        else:
            norm = optim.clip_grad_norm_(params, 2.5 * S, allow_scaled=True).item() / S
            assert [carried(p.grad) for p in params] == [{S}, {S}]
            scaler.unscale_(optimizer)
        after.append((norm, [round(p.grad.item(), 5) for p in params]))  # type: ignore[union-attr]
    assert after[0] == after[1] == (5.0, [1.5, 2.0])


def test_every_clip_can_be_told_that_scaled_gradients_are_meant() -> None:
    """Oracle: values by hand; beside scaler= it is refused, as one of the two cannot act."""
    params, _, scaler = scaled_pair()
    grads: Any = [p.grad for p in params]
    assert optim.get_total_norm(grads, allow_scaled=True).item() == 5.0 * S
    optim.clip_grad_value_(params, 3.5 * S, allow_scaled=True)
    assert [p.grad.item() for p in params] == [3.0 * S, 3.5 * S]  # type: ignore[union-attr]
    optim.clip_grads_with_norm_(params, S, mp.tensor(2.0 * S), allow_scaled=True)
    assert [round(p.grad.item() / S, 5) for p in params] == [1.5, 1.75]  # type: ignore[union-attr]
    calls: list[Callable[..., Any]] = [
        lambda **o: optim.get_total_norm(grads, **o), lambda **o: optim.clip_grad_value_(params, 1.0, **o),
        lambda **o: optim.clip_grads_with_norm_(params, 1.0, mp.tensor(2.0), **o),
        lambda **o: optim.clip_grad_norm_(params, 1.0, **o),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(SettingError, match="scaler= cannot act beside allow_scaled=True"):
            call(scaler=scaler, allow_scaled=True)
