"""Module: registration, the tree, switches, conversions; oracle: the contracts by hand, and formats.round."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import FormatError, SettingError
from tests.arrays import host, share_memory
from tests.tolerances import assert_close


class Block(nn.Module):
    """A parameter, a buffer, a transient buffer, a child, and an attribute that is none of these."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter([1.0 + 2.0**-12, 3.0])
        self.register_buffer("seen", mp.tensor([7, 8]))
        self.register_buffer("scratch", mp.tensor([0.1]), persistent=False)
        self.inner = nn.Linear(2, 3)
        self.width = 3

    def forward(self, x: Any) -> Any:
        """Return W (x scale) + b."""
        return self.inner(x * self.scale)


class Tied(nn.Module):
    """One weight under two paths."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight


def test_attributes_are_registered_in_order() -> None:
    """Oracle: torch's naming rules, by hand."""
    block = Block()
    assert [name for name, _ in block.named_parameters()] == ["scale", "inner.weight", "inner.bias"]
    assert [name for name, _ in block.named_buffers()] == ["seen", "scratch"]
    assert [name for name, _ in block.named_modules()] == ["", "inner"]
    assert [name for name, _ in block.named_children()] == ["inner"]
    assert [name for name, _ in block.named_parameters("model", recurse=False)] == ["model.scale"]
    assert list(block.state_dict()) == ["scale", "seen", "inner.weight", "inner.bias"]
    assert list(block.state_dict("model.")) == [
        "model.scale",
        "model.seen",
        "model.inner.weight",
        "model.inner.bias",
    ]
    assert nn.count_parameters(block) == 2 + 6 + 3
    block.inner.requires_grad_(False)
    assert nn.count_parameters(block, trainable_only=True) == 2
    assert block.get_submodule("inner") is block.inner


def test_a_new_parameter_keeps_its_place_in_the_order() -> None:
    """Oracle: the order before."""
    block = Block()
    fresh = block.scale = nn.Parameter([2.0])
    assert next(iter(block.named_parameters())) == ("scale", fresh)
    setattr(block, "width", nn.Parameter([1.0]))  # noqa: B010 - an int so far
    assert "width" not in vars(block)
    assert "width" in dict(block.named_parameters())


def test_a_registered_name_keeps_its_kind_or_becomes_none() -> None:
    """Oracle: torch's rule, in the docstring."""
    block = Block()
    for name in ("scale", "inner"):
        with pytest.raises(SettingError, match=f"{name!r} is registered as a"):
            setattr(block, name, 3.0)
        setattr(block, name, None)
    assert list(block.parameters()) == []
    block.seen = mp.tensor([1])
    assert block.state_dict()["seen"].tolist() == [1]
    with pytest.raises(SettingError, match="registered as a Tensor"):
        block.seen = "text"
    del block.seen
    assert not hasattr(block, "seen")
    del block.width
    assert not hasattr(block, "width")


def test_mistakes_are_named() -> None:
    """Oracle: the errors in the docstrings."""

    class Late(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter([1.0])

    with pytest.raises(SettingError, match=r"call super\(\).__init__\(\) first"):
        Late()
    block = Block()
    with pytest.raises(AttributeError, match="no attribute 'inne'; did you mean 'inner'"):
        _ = block.inne
    with pytest.raises(SettingError, match="taken by another attribute"):
        block.register_parameter("forward", nn.Parameter([1.0]))
    with pytest.raises(SettingError, match="non-empty string without a dot"):
        block.add_module("a.b", nn.ReLU())
    with pytest.raises(SettingError, match="expected a Parameter or None for 'w', got Tensor"):
        block.register_parameter("w", mp.tensor([1.0]))  # type: ignore[arg-type]  # the fault under test
    with pytest.raises(SettingError, match="expected a tensor or None"):
        block.register_buffer("w", 1.0)  # type: ignore[arg-type]  # the fault under test
    with pytest.raises(SettingError, match="expected a Module or None"):
        block.add_module("w", 1.0)  # type: ignore[arg-type]  # the fault under test
    with pytest.raises(SettingError, match="Module has no forward"):
        nn.Module()(1)
    with pytest.raises(SettingError, match=r"no module at 'inner\.0'"):
        block.get_submodule("inner.0")


def test_tied_parameters_come_once_but_are_saved_under_each_path() -> None:
    """Oracle: torch's rule, by hand."""
    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["first.weight"]
    both = [name for name, _ in tied.named_parameters(remove_duplicate=False)]
    assert both == ["first.weight", "second.weight"]
    assert list(tied.state_dict()) == ["first.weight", "second.weight"]
    assert nn.count_parameters(tied) == 4
    made = copy.deepcopy(tied)
    assert made.second.weight is made.first.weight
    assert made.first.weight is not tied.first.weight


def test_a_module_under_two_paths_comes_once() -> None:
    """Oracle: torch's rule, by hand: the first path stands for both, except in what is saved."""
    shared = nn.Linear(2, 2, bias=False)
    model = nn.Sequential(shared, nn.Sequential(shared))
    assert [name for name, _ in model.named_modules()] == ["", "0", "1"]
    assert [name for name, _ in model.named_modules(remove_duplicate=False)] == ["", "0", "1", "1.0"]
    assert [name for name, _ in model.named_parameters()] == ["0.weight"]
    assert list(model.state_dict()) == ["0.weight", "1.0.weight"]
    assert nn.Sequential(shared, shared).apply(lambda _: None).state_dict().keys() == {"0.weight", "1.weight"}


def test_forward_and_gradients_flow_through_the_tree() -> None:
    """Oracle: the same maths in NumPy, float64."""
    block = Block()
    x = np.array([[1.0, -2.0]], np.float32)
    y = block(mp.tensor(x))
    w, b, s = (
        block.state_dict()[name].numpy().astype(np.float64)
        for name in ("inner.weight", "inner.bias", "scale")
    )
    assert_close(y.detach().numpy(), (x * s) @ w.T + b, "parity_op_fp32")
    y.sum().backward()
    assert block.scale.grad is not None
    assert_close(block.scale.grad.numpy(), (w.sum(0) * x)[0], "parity_gradient_fp32")


def test_zero_grad_drops_or_zeroes() -> None:
    """Oracle: torch's set_to_none, by hand."""
    block = Block()
    block.scale.grad = mp.tensor([1.0, 2.0])
    block.zero_grad(set_to_none=False)
    assert block.scale.grad is not None
    assert block.scale.grad.tolist() == [0.0, 0.0]
    assert block.inner.weight.grad is None
    block.zero_grad()
    assert block.scale.grad is None


def test_train_and_eval_reach_every_module() -> None:
    """Oracle: the flag, and dropout as the identity in evaluation."""
    model = nn.Sequential(Block(), nn.Dropout(0.5))
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    x = mp.tensor(np.ones((4, 2), np.float32))
    assert model[1](x) is x
    model.train()
    assert all(module.training for module in model.modules())


def test_apply_visits_children_first() -> None:
    """Oracle: torch's order, by hand."""
    seen: list[str] = []
    model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh())
    assert model.apply(lambda module: seen.append(type(module).__name__)) is model
    assert seen == ["ReLU", "Sequential", "Tanh", "Sequential"]


@pytest.mark.parametrize(
    ("method", "form"), [("half", "float16"), ("bfloat16", "bfloat16"), ("double", "float64")]
)
def test_conversion_rounds_once_in_place_and_leaves_integers(method: str, form: str) -> None:
    """Oracle: minimp.formats.round (its own oracle is ml_dtypes and the IEEE text)."""
    block = Block()
    before = {name: p.array for name, p in block.named_parameters()}
    held = dict(block.named_parameters())
    block.scale.grad = mp.tensor([1.0 / 3.0, 2.0])
    assert getattr(block, method)() is block
    for name, param in block.named_parameters():
        assert param is held[name]
        assert param.format is mp.formats.get(form)
        expected = mp.formats.round(host(before[name]).astype(np.float64), form)
        assert np.array_equal(host(param).astype(np.float64), expected)
    assert block.scale.grad is not None
    assert block.scale.grad.format is block.scale.format
    assert block.seen.dtype == np.int64
    assert block.scratch.format is mp.formats.get(form)
    block.float()
    assert block.scale.format is mp.float32


def test_a_conversion_that_cannot_be_changes_nothing() -> None:
    """Oracle: the promise in the docstring."""
    block = Block()
    grad = block.scale.grad = mp.tensor([1.0, 2.0])
    with pytest.raises(FormatError, match="has no tensors of float8_e4m3fn"):
        block.to("float8_e4m3fn")
    assert block.scale.grad is grad
    with pytest.raises(SettingError, match="unknown backend 'flaot16'"):
        block.to("flaot16")
    assert {p.format for p in block.parameters()} == {mp.float32}
    assert block.to("numpy") is block
    assert block.to(dtype="float16").scale.format is mp.float16


def test_a_deep_copy_shares_nothing() -> None:
    """Oracle: memory, and independence of the copy's registries."""
    block = Block()
    made = copy.deepcopy(block)
    for name, leaf in [*block.named_parameters(), *block.named_buffers()]:
        other = dict([*made.named_parameters(), *made.named_buffers()])[name]
        assert other is not leaf
        assert other.backend is leaf.backend
        assert np.array_equal(host(other), host(leaf))
        assert not share_memory(other.array, leaf.array)
    made.extra = nn.Parameter([1.0])
    assert not hasattr(block, "extra")
    assert made.width == 3


def test_containers_behave_like_lists_and_dicts() -> None:
    """Oracle: Python's list and dict, and torch's renaming rules, by hand."""
    a, b, c, d = nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Identity()
    row = nn.ModuleList([a, b])
    assert row.append(c) is row
    row.insert(0, d)
    assert [m is n for m, n in zip(row, [d, a, b, c], strict=True)] == [True] * 4
    assert [name for name, _ in row.named_children()] == ["0", "1", "2", "3"]
    assert row[-1] is c
    assert list(row[1:3]) == [a, b]
    del row[0]
    assert [name for name, _ in row.named_children()] == ["0", "1", "2"]
    row[0] = d
    assert row[0] is d
    assert len(row) == 3
    with pytest.raises(IndexError, match="has 3 modules, there is none at 3"):
        _ = row[3]
    part = nn.Sequential(a, b, c)[1:]
    assert [name for name, _ in part.named_children()] == ["1", "2"]
    assert list(part.append(d)) == [b, c, d]
    named = nn.ModuleDict({"x": a})
    named["y"] = b
    assert list(named) == ["x", "y"]
    assert named.pop("x") is a
    assert "x" not in named
    assert list(named.values()) == [b]
    with pytest.raises(KeyError, match="did you mean 'y'"):
        _ = named["yy"]
    named.clear()
    assert len(named) == 0
    with pytest.raises(SettingError, match="expected a Module"):
        nn.ModuleList([3])  # type: ignore[list-item]  # the fault under test


def test_members_are_found_by_path_and_modules_replaced() -> None:
    """Oracle: identity, and the errors in the docstrings."""
    model = nn.Sequential(Block(), nn.ReLU())
    assert model.get_parameter("0.inner.weight") is model[0].inner.weight
    assert model.get_buffer("0.seen") is model[0].seen
    with pytest.raises(SettingError, match=r"unknown parameter '0\.inner\.wieght'; did you mean"):
        model.get_parameter("0.inner.wieght")
    with pytest.raises(SettingError, match="no module at '2'"):
        model.get_buffer("2.seen")
    fresh = nn.Tanh()
    model.set_submodule("0.inner", fresh)
    assert model[0].inner is fresh
    model.set_submodule("2", fresh)
    assert model[2] is fresh
    with pytest.raises(SettingError, match="no module at '3'"):
        model.set_submodule("3", fresh, strict=True)
    with pytest.raises(SettingError, match="cannot replace itself"):
        model.set_submodule("", fresh)
    model.register_module("last", nn.Identity())
    assert {"last", "forward"} <= set(dir(model))
    assert {"scale", "seen", "inner"} <= set(dir(model[0]))


def test_numbers_of_parameters_and_conversion_by_name() -> None:
    """Oracle: by hand; `type` is torch's other name for `to`."""
    block = Block()
    block.inner.requires_grad_(False)
    assert block.num_parameters() == nn.count_parameters(block) == 11
    assert block.num_parameters(only_trainable=True) == 2
    assert block.type("float16").scale.format is mp.float16
    with pytest.raises(SettingError, match="assign=True cannot act"):
        block.load_state_dict({}, assign=True)
