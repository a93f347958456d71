"""Hooks; oracle: torch 2.13.0's calls, order and values for the same hooks, and the promises by hand."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.nn import hooks
from tests.arrays import host
from tests.tolerances import assert_close


def linear() -> nn.Module:
    """Return a layer of known weights: y = 2 x."""
    layer = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(layer.weight)
    layer.weight.array = layer.weight.backend.from_host(np.eye(2, dtype=np.float32) * 2)
    return layer


def ones(requires_grad: bool = False) -> mp.Tensor:
    """Return a row of ones."""
    return mp.tensor([[1.0, 1.0]], requires_grad=requires_grad)


def test_a_pre_hook_replaces_arguments_and_a_hook_the_output() -> None:
    """Oracle: by hand; 2 (1 + 3) = 8, then 8 * 10."""
    layer = linear()
    layer.register_forward_pre_hook(lambda module, args: args[0] + 3.0)
    layer.register_forward_hook(lambda module, args, output: output * 10.0)
    assert layer(ones()).tolist() == [[80.0, 80.0]]


def test_keyword_arguments_are_shown_and_replaced() -> None:
    """Oracle: by hand; the hook turns the keyword around."""

    class Scale(nn.Module):
        def forward(self, x: Any, *, by: float) -> Any:
            return x * by

    module, seen = Scale(), []
    module.register_forward_pre_hook(
        lambda module, args, kwargs: (args, {"by": -kwargs["by"]}), with_kwargs=True
    )
    module.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((kwargs, output.tolist())), with_kwargs=True
    )
    assert module(ones(), by=2.0).tolist() == [[-2.0, -2.0]]
    assert seen == [({"by": -2.0}, [[-2.0, -2.0]])]
    module.register_forward_pre_hook(lambda module, args, kwargs: args, with_kwargs=True)
    with pytest.raises(SettingError, match=r"pair \(args, kwargs\)"):
        module(ones(), by=2.0)


def test_a_handle_takes_its_hook_away_once_and_as_a_block() -> None:
    """Oracle: by hand."""
    layer = linear()
    with layer.register_forward_hook(lambda module, args, output: output + 1.0) as handle:
        assert layer(ones()).tolist() == [[3.0, 3.0]]
    assert layer(ones()).tolist() == [[2.0, 2.0]]
    handle.remove()
    with pytest.raises(SettingError, match="expected a function as hook, got int"):
        layer.register_forward_hook(3)  # type: ignore[arg-type]  # the fault under test


def test_an_always_called_hook_sees_a_forward_that_raised() -> None:
    """Oracle: torch's rule: called once, output None; the first fault goes on, with a note on the second."""

    class Broken(nn.Module):
        def forward(self, *_: Any) -> Any:
            raise ZeroDivisionError("first")

    module, seen = Broken(), []
    module.register_forward_hook(lambda module, args, output: seen.append(output), always_call=True)
    module.register_forward_hook(lambda module, args, output: seen.append("not this"))
    module.register_forward_hook(lambda module, args, output: 1 / 0, always_call=True)
    with pytest.raises(ZeroDivisionError, match="first") as caught:
        module(ones())
    assert seen == [None]
    assert "always_call=True raised too" in caught.value.__notes__[0]


@pytest.fixture
def _no_global_hooks() -> Iterator[None]:
    """Check that a test leaves no hook of all modules behind."""
    yield
    assert nn.Module._hooks is None


@pytest.mark.usefixtures("_no_global_hooks")
def test_hooks_of_all_modules_come_first_and_leave_nothing() -> None:
    """Oracle: the order in the docstring; without hooks a call looks at one attribute."""
    order: list[str] = []
    layer = linear()
    layer.register_forward_hook(lambda module, args, output: order.append("own"))
    with hooks.register_module_forward_hook(lambda module, args, output: order.append("all")):
        with hooks.register_module_forward_pre_hook(lambda module, args: order.append("all before")):
            layer(ones())
        nn.ReLU()(ones())
    assert order == ["all before", "all", "own", "all"]
    seen: list[Any] = []
    x = ones(requires_grad=True)
    with (
        hooks.register_module_full_backward_pre_hook(lambda module, grad: seen.append(grad[0].tolist())),
        hooks.register_module_full_backward_hook(lambda module, i, o: seen.append(i[0].tolist())),
    ):
        nn.Sequential(linear()).get_submodule("0")(x).sum().backward()
    assert seen == [[[1.0, 1.0]], [[2.0, 2.0]]]


class Two(nn.Module):
    """Two inputs, an argument that is no tensor, two outputs."""

    def forward(self, a: Any, k: float, b: Any) -> Any:
        """Return (k a b, b)."""
        return a * b * k, b


@pytest.mark.torch
def test_backward_hooks_see_what_torch_shows(rng: np.random.Generator) -> None:
    """Oracle: the same module, hooks and inputs in torch: order, Nones, values, and what replaces them."""
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0")

    class TorchTwo(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch has no types here
        def forward(self, a: Any, k: float, b: Any) -> Any:
            return a * b * k, b

    values = rng.standard_normal((2, 3)).astype(np.float32)

    def run(module: Any, make: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
        seen: list[Any] = []

        def show(name: str, grads: Any) -> None:
            seen.append((name, [None if g is None else host(g).tolist() for g in grads]))

        def pre(module: Any, grad_output: Any) -> Any:
            show("pre", grad_output)
            return tuple(g * 2.0 for g in grad_output)

        def full(module: Any, grad_input: Any, grad_output: Any) -> Any:
            show("in", grad_input)
            show("out", grad_output)
            return tuple(None if g is None else g + 1.0 for g in grad_input)

        module.register_full_backward_hook(full)
        module.register_full_backward_pre_hook(pre)
        module.register_full_backward_hook(lambda m, i, o: show("first", i), prepend=True)
        a, b = make(values[0]), make(values[1])
        c, d = module(a, 3.0, b)
        (c.sum() + d.sum()).backward()
        return seen, [a.grad.tolist(), b.grad.tolist()]

    ours = run(Two(), lambda x: mp.tensor(x, requires_grad=True))
    theirs = run(TorchTwo(), lambda x: torch.tensor(x, requires_grad=True))
    assert [name for name, _ in ours[0]] == [name for name, _ in theirs[0]]
    for (_, left), (_, right) in zip(ours[0], theirs[0], strict=True):
        assert [x is None for x in left] == [x is None for x in right]
        for x, y in zip(left, right, strict=True):
            if x is not None:
                assert_close(x, y, "parity_gradient_fp32")
    assert_close(ours[1], theirs[1], "parity_gradient_fp32")


def test_a_gradient_that_never_came_is_shown_as_zeros() -> None:
    """Oracle: torch's rule: only the first output is used."""
    module, seen = Two(), []
    module.register_full_backward_hook(lambda m, i, o: seen.append((i[0].tolist(), o[1].tolist())))
    a, b = mp.tensor([2.0], requires_grad=True), mp.tensor([5.0], requires_grad=True)
    module(a, 3.0, b)[0].backward()
    assert seen == [([15.0], [0.0])]
    assert a.grad is not None
    assert b.grad is not None
    assert (a.grad.tolist(), b.grad.tolist()) == ([15.0], [6.0])


def test_hooks_run_in_each_backward_and_not_without_gradients() -> None:
    """Oracle: the count of calls by hand."""
    layer, seen = linear(), []
    layer.register_full_backward_hook(lambda m, i, o: seen.append(i[0]))
    x = ones(requires_grad=True)
    y = layer(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert len(seen) == 2
    with mp.no_grad():
        layer(x)
    layer(ones()).sum().backward()  # only the weight needs a gradient
    assert seen[2] is None


def test_taps_change_no_bit_and_keep_no_graph_alive() -> None:
    """Oracle: the output and the gradients without hooks, bit for bit; a freed graph."""
    x = np.linspace(-3, 3, 8, dtype=np.float32).reshape(4, 2)
    layer = nn.Linear(2, 3)
    found = []
    for hooked in (False, True):
        handle = layer.register_full_backward_hook(lambda m, i, o: None) if hooked else None
        leaf = mp.tensor(x, requires_grad=True)
        layer.zero_grad()
        with mp.autocast("float16"):
            y = layer(leaf)
        y.sum().backward()
        assert leaf.grad is not None
        assert layer.weight.grad is not None
        found.append((host(y), leaf.grad.numpy(), layer.weight.grad.numpy()))
        del y
        gc.collect()
        if handle is not None:
            handle.remove()
    for plain, tapped in zip(*found, strict=True):
        np.testing.assert_array_equal(plain, tapped)
        assert plain.dtype == tapped.dtype


@pytest.mark.parametrize(
    ("hook", "error", "message"),
    [
        (lambda m, i, o: (i[0], i[0]), SettingError, "returned 2 gradients for grad_input, which has 1"),
        (lambda m, i, o: (i[0].half(),), FormatError, "in the format they came in, float32"),
        (lambda m, i, o: (i[0].sum(),), ShapeError, r"expected grad_input of shape \(1, 2\)"),
    ],
)
def test_what_a_backward_hook_returns_must_fit(hook: Any, error: type[Exception], message: str) -> None:
    """Oracle: the errors of the docstring."""
    layer = linear()
    layer.register_full_backward_hook(hook)
    y = layer(ones(requires_grad=True)).sum()
    with pytest.raises(error, match=message):
        y.backward()


def test_backward_hooks_refuse_what_they_cannot_serve() -> None:
    """Oracle: the docstring: an output that is no tensor, a replacement where there is nothing to replace."""

    class Named(nn.Module):
        def forward(self, x: Any) -> Any:
            return {"y": x}

    module = Named()
    module.register_full_backward_hook(lambda m, i, o: None)
    with pytest.raises(SettingError, match="an output that is a tensor or a tuple, got dict"):
        module(ones(requires_grad=True))
    layer = linear()
    layer.register_full_backward_hook(lambda m, i, o: (ones(),))
    with pytest.raises(SettingError, match="no input needs a gradient"):
        layer(ones()).sum().backward()


def test_state_hooks_are_called_around_saving_and_loading() -> None:
    """Oracle: by hand; prefixes as torch gives them."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False))
    layer, seen = model[0], []
    layer.register_state_dict_pre_hook(lambda m, prefix, keep_vars: seen.append((prefix, keep_vars)))
    layer.register_state_dict_post_hook(lambda m, state, prefix, meta: state.update({prefix + "more": 1}))
    state: dict[str, Any] = dict(model.state_dict(keep_vars=True))
    assert seen == [("0.", True)]
    assert state["0.weight"] is layer.weight
    assert list(state) == ["0.weight", "0.more"]
    layer.register_load_state_dict_pre_hook(lambda m, state, prefix, *rest: state.pop(prefix + "more"))
    layer.register_load_state_dict_post_hook(lambda m, result: seen.append(result))
    assert repr(model.load_state_dict(state)) == "<All keys matched successfully>"
    assert "0.more" in state
    assert len(seen) == 2
    layer.register_load_state_dict_pre_hook(lambda *args: args[-1].append("old file"))
    before = layer.weight.array
    with pytest.raises(SettingError, match="a hook found faults in the state: old file"):
        model.load_state_dict(state)
    assert layer.weight.array is before


def test_a_copy_has_the_hooks_of_its_own() -> None:
    """Oracle: torch's deepcopy: the functions are there, the tables are not shared."""
    layer = linear()
    handle = layer.register_forward_hook(lambda module, args, output: output + 1.0)
    made = copy.deepcopy(layer)
    handle.remove()
    assert layer(ones()).tolist() == [[2.0, 2.0]]
    assert made(ones()).tolist() == [[3.0, 3.0]]


def test_gradients_through_a_tap_can_be_differentiated_again() -> None:
    """Oracle: by hand: y = 3 a x^2, so y' = 6 a x and y'' = 6 a; the hook doubles both."""
    module, seen = Two(), []

    def double(module: Any, grad_input: Any, grad_output: Any) -> Any:
        seen.append(grad_input)
        return tuple(None if g is None else g * 2.0 for g in grad_input)

    module.register_full_backward_hook(double)
    x, a = mp.tensor([5.0], requires_grad=True), mp.tensor([7.0])
    (slope,) = mp.grad(module(x * x, 3.0, a)[0].sum(), x, create_graph=True)
    assert slope is not None
    assert slope.tolist() == [2 * 2 * 5.0 * 3.0 * 7.0]
    (curve,) = mp.grad(slope.sum(), x)
    assert curve is not None
    assert curve.tolist() == [2 * 2 * 3.0 * 7.0]
    assert len(seen) == 1


def test_each_backward_shows_its_own_gradients() -> None:
    """Oracle: torch's rule: what another backward brought is not shown again; zeros stand for it."""
    module, seen = Two(), []
    module.register_full_backward_hook(lambda m, i, o: seen.append([g.tolist() for g in o]))
    a, b = mp.tensor([2.0], requires_grad=True), mp.tensor([5.0], requires_grad=True)
    c, d = module(a, 3.0, b)
    c.backward(retain_graph=True)
    d.backward()
    assert seen == [[[1.0], [0.0]], [[0.0], [1.0]]]


def test_a_gradient_that_passes_the_outputs_by_calls_no_hook() -> None:
    """Oracle: torch's rule: the hook waits for the gradients of the outputs, each time anew."""

    class Leaking(nn.Module):
        kept: Any = None

        def forward(self, x: Any) -> Any:
            self.kept = x * 2.0
            return x * 3.0

    module, seen = Leaking(), []
    module.register_full_backward_hook(lambda m, i, o: seen.append(i[0].tolist()))
    x = mp.tensor([1.0], requires_grad=True)
    module(x).backward(retain_graph=True)
    module.kept.backward()
    assert seen == [[3.0]]
    assert x.grad is not None
    assert x.grad.tolist() == [5.0]


def test_an_always_called_hook_is_called_once() -> None:
    """Oracle: torch's rule: a hook that has run is not run again when a later one raises."""
    layer, seen = linear(), []
    layer.register_forward_hook(lambda module, args, output: seen.append(output), always_call=True)
    layer.register_forward_hook(lambda module, args, output: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        layer(ones())
    assert len(seen) == 1
