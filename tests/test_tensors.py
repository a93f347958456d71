"""The tensor itself: copies, ways in and out, and what numpy() shares."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

import minimp as mp
from minimp.modes import MODES
from tests.arrays import share_memory


def test_a_deep_copy_of_a_leaf_shares_nothing_but_its_backend() -> None:
    """Oracle: the docstring, and torch, which copies leaves with their gradients."""
    leaf = mp.tensor([1.0, 2.0], requires_grad=True)
    (leaf * leaf).sum().backward()
    first, second = copy.deepcopy([leaf, leaf])
    assert first is second
    assert first.backend is leaf.backend
    assert first.format is leaf.format
    assert first.requires_grad
    assert first.grad is not None
    assert first.grad is not leaf.grad
    assert not share_memory(first.array, leaf.array)
    assert first.grad.tolist() == [2.0, 4.0]


def test_only_leaves_are_deep_copied() -> None:
    """Oracle: torch refuses too."""
    with pytest.raises(mp.errors.GradientError, match="leaf"):
        copy.deepcopy(mp.tensor([1.0], requires_grad=True) * 2)


@pytest.mark.host("numpy() copies from a device")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_was_recorded_does_not_change(dtype: str) -> None:
    """Oracle: value semantics: writing through numpy() after a product was recorded leaves its gradient."""
    size = 4096  # large enough for a float32 twin
    x = mp.tensor(np.ones(size), dtype=dtype)
    w = mp.tensor(np.full(size, 2.0), dtype=dtype, requires_grad=True)
    product = w * x
    x.numpy()[:] = 100.0
    assert float(x[0]) == 100.0
    product.sum().backward()
    assert w.grad is not None
    assert float(w.grad.amax()) == 1.0
    assert float((x * 1.0).amax()) == 100.0


@pytest.mark.host("numpy() copies from a device")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_write_through_numpy_is_seen_by_every_later_op(dtype: str) -> None:
    """Oracle: NumPy, on the same bits: a float32 twin made before the write must not be used after it."""
    x = mp.tensor(np.ones(4096), dtype=dtype)
    assert float((x + x)[0]) == 2.0  # makes a twin
    x.numpy()[0] = 7.0
    assert float((x + x)[0]) == 14.0
    x.numpy()[0] = 9.0
    assert float((x + x)[0]) == 18.0


@pytest.mark.host("the host's memory")
def test_from_dlpack_shares_memory() -> None:
    """Oracle: NumPy's own exchange."""
    array = np.arange(4, dtype=np.float32)
    taken = mp.from_dlpack(array)
    array[0] = 5.0
    assert taken.tolist() == [5.0, 1.0, 2.0, 3.0]
    assert np.from_dlpack(mp.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_from_dlpack_refuses_what_cannot_be_exchanged() -> None:
    """Oracle: the error tree."""
    with pytest.raises(mp.errors.FormatError, match=r"help: mp\.tensor copies arrays"):
        mp.from_dlpack([1.0, 2.0])


@pytest.mark.host("NumPy's DLPack, which has no bfloat16; CuPy's has it")
def test_bfloat16_is_not_exchanged() -> None:
    """Oracle: the error tree."""
    with pytest.raises(mp.errors.FormatError, match="DLPack"):
        mp.tensor([1.0], dtype="bfloat16").__dlpack__()


@pytest.mark.host("the host's memory")
def test_a_device_that_cannot_be_shared_is_named() -> None:
    """Oracle: the advice is about the place, not about the format; what leaves the tape says so itself."""
    with pytest.raises(mp.errors.GradientError):
        mp.from_dlpack(mp.tensor([1.0], requires_grad=True))
    with pytest.raises(mp.errors.FormatError, match=r"the strict device .*\n  help: export \.numpy\(\)"):
        np.from_dlpack(mp.tensor([1.0], backend="strict"))


@pytest.mark.host("two backends")
def test_a_tensor_goes_to_the_backend_that_is_named() -> None:
    """Oracle: torch.tensor(x, device=...), which copies; without a device x stays where it is."""
    here, there = mp.tensor([1.0, 2.0]), mp.tensor([3.0], backend="strict")
    moved = mp.tensor(here, backend="strict", dtype="float16", requires_grad=True)
    assert (moved.backend.name, moved.format, moved.tolist()) == ("strict", mp.float16, [1.0, 2.0])
    assert moved.requires_grad
    assert mp.tensor(there).backend.name == "strict"
    assert mp.tensor(there, backend="numpy").tolist() == [3.0]


@pytest.mark.host("two backends")
def test_an_array_of_another_device_is_named() -> None:
    """Oracle: the class of the array and the backend; rows of equal lengths would not help."""
    theirs = mp.tensor([1.0, 2.0], backend="strict").array
    for use in (lambda: mp.tensor(theirs, backend="numpy"), lambda: mp.tensor([1.0, 2.0]) + theirs):
        with pytest.raises(mp.errors.DeviceError, match=r"the numpy backend, got .*StrictArray on a device"):
            use()


def test_losses_of_one_region_share_the_cast_of_a_weight() -> None:
    """Oracle: torch, where a cast saves nothing, so that backward passes it again; gradients add up."""
    weight = mp.tensor([[1.0, 2.0]], requires_grad=True)
    x = mp.tensor([[3.0], [4.0]])
    with mp.autocast("float16"):
        first, second = (weight @ x).sum(), (weight @ (x + 1.0)).sum()
    first.backward()
    second.backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[7.0, 9.0]]


def test_what_was_freed_is_not_differentiated_again() -> None:
    """Oracle: torch's rule: an op that saved arrays needs retain_graph for a second backward."""
    x = mp.tensor([2.0], requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [8.0]
    with pytest.raises(mp.errors.GradientError, match="freed"):
        y.backward()
    assert x.grad.tolist() == [8.0]


def test_leaving_a_backend_puts_the_very_settings_back() -> None:
    """Oracle: the record that was in force before; what changed meanwhile stays changed."""
    before = MODES.get()
    with mp.use_backend("strict"):
        pass
    assert MODES.get() is before
    block = mp.use_backend("strict")
    token = MODES.set(replace(MODES.get(), accumulate="float64"))
    with block:
        pass
    assert (MODES.get().backend, MODES.get().accumulate) == (before.backend, "float64")
    MODES.reset(token)
    MODES.set(before)


def test_a_gradient_is_a_tensor() -> None:
    """Oracle: one of our errors for an array or a number, and the gradient that was there."""
    x = mp.tensor([1.0, 2.0], requires_grad=True)
    x.sum().backward()
    before = x.grad
    for wrong in (np.ones(2, np.float32), 1.0, [1.0, 1.0]):
        with pytest.raises(mp.errors.GradientError, match=r"expected a tensor or None for \.grad, got"):
            x.grad = wrong
    assert x.grad is before
    x.grad = None
    assert x.grad is None
