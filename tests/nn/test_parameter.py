"""Parameters; oracle: the contract in the docstrings, and NumPy."""

from __future__ import annotations

import copy

import pytest

import minimp as mp
from minimp import nn
from minimp.errors import GradientError
from minimp.tensors import Tensor
from tests.arrays import share_memory


def test_it_is_a_leaf_that_wants_a_gradient_and_ops_give_plain_tensors() -> None:
    """Oracle: d(sum of 3 w)/dw = 3, by hand."""
    w = nn.Parameter([1.0, 2.0])
    assert w.requires_grad
    assert w.is_leaf
    y = w * 3.0
    assert type(y) is Tensor
    assert type(w.detach()) is Tensor
    y.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [3.0, 3.0]


def test_it_shares_the_array_of_a_tensor() -> None:
    """Oracle: object identity."""
    source = mp.tensor([1.0])
    assert nn.Parameter(source).array is source.array
    assert nn.Parameter(source, requires_grad=False).requires_grad is False


def test_it_must_be_a_floating_leaf() -> None:
    """Oracle: the errors in the docstring."""
    made = nn.Parameter([1.0]) * 2.0
    with pytest.raises(GradientError, match="must be a leaf"):
        nn.Parameter(made)
    with pytest.raises(GradientError, match="only floating tensors"):
        nn.Parameter([1, 2])


def test_a_deep_copy_has_memory_of_its_own_and_the_same_backend() -> None:
    """Oracle: object identity and NumPy equality."""
    w = nn.Parameter([1.0, 2.0], requires_grad=False)
    w.grad = mp.tensor([5.0, 6.0])
    made = copy.deepcopy(w)
    assert type(made) is nn.Parameter
    assert made.backend is w.backend
    assert made.format is w.format
    assert made.requires_grad is False
    assert not share_memory(made.array, w.array)
    assert made.grad is not None
    assert made.grad.tolist() == [5.0, 6.0]
    assert not share_memory(made.grad.array, w.grad.array)


def test_it_is_shown_under_a_heading() -> None:
    """Oracle: torch's two lines, by hand."""
    assert repr(nn.Parameter([1.0])) == "Parameter containing:\ntensor([1.], requires_grad=True)"
