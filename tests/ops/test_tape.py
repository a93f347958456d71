"""The tape: order, memory, modes and listeners; oracle: derivatives by hand, torch.autograd's rules."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, ops
from minimp.checks import check_events
from minimp.errors import GradientError, ShapeError
from minimp.modes import MODES, listen
from minimp.tape import Event

MOST_CALLS = 20


def leaf(*values: float, dtype: str = "float32") -> mp.Tensor:
    """Return a leaf that requires a gradient."""
    return mp.tensor(np.array(values), dtype=dtype, requires_grad=True)


def test_a_chain_of_100_000_ops_is_walked_without_recursion() -> None:
    """Oracle: the derivative of x + 1 + 1 + ... is 1; the recursion limit is far below the chain's length."""
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    assert y.item() == 100_001.0
    y.backward()
    assert x.grad.item() == 1.0


def test_a_tensor_used_twice_adds_its_gradients() -> None:
    """Oracle: d(x x + x) = 2 x + 1, through a diamond, and by a second backward on top."""
    x = leaf(3.0, -2.0)
    (x * x + x).backward(np.ones(2))
    np.testing.assert_array_equal(x.grad.numpy(), [7.0, -3.0])
    (x * 2.0).backward(np.ones(2))
    np.testing.assert_array_equal(x.grad.numpy(), [9.0, -1.0])
    x.grad = None
    z = x * 2.0
    (z * z).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [24.0, -16.0])


def test_gradients_add_up_in_the_tensors_format() -> None:
    """Oracle: 256 + 1 is 256 in bfloat16, 257 in float32."""
    for dtype, total in [("bfloat16", 256.0), ("float32", 257.0)]:
        x = leaf(1.0, dtype=dtype)
        (x * 256.0 + x * 1.0).backward()
        assert x.grad.item() == total
        assert x.grad.format.name == dtype


def test_retain_graph_and_a_second_backward() -> None:
    """Oracle: torch: the second backward fails, with the same advice, unless the first kept the graph."""
    x = leaf(2.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 8.0
    with pytest.raises(GradientError, match=r"mul: .*freed.*\n  help: pass retain_graph=True"):
        y.backward()
    assert x.grad.item() == 8.0


def test_no_grad_records_nothing_and_enable_grad_records_again() -> None:
    """Oracle: torch.no_grad and torch.enable_grad, as blocks and as decorators."""
    x = leaf(2.0)
    with mp.no_grad():
        assert not mp.is_grad_enabled()
        assert (x * x).is_leaf
        with mp.enable_grad():
            assert (x * x).requires_grad
        assert not (x * x).requires_grad
    assert mp.is_grad_enabled()
    assert not mp.no_grad()(lambda: x * x)().requires_grad
    with pytest.raises(ZeroDivisionError), mp.no_grad():
        _ = 1 / 0
    assert mp.is_grad_enabled()


def test_no_grad_in_one_thread_does_not_reach_another() -> None:
    """Oracle: modes live in a context variable."""
    seen = []
    with mp.no_grad():
        thread = threading.Thread(target=lambda: seen.append(mp.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_grad_touches_no_leaf() -> None:
    """Oracle: torch.autograd.grad: values by hand, of leaves and of tensors on the way."""
    x, w = leaf(2.0, 3.0), leaf(5.0, 7.0)
    hidden = x * w
    y = (hidden * hidden).sum()
    by_x, by_hidden = mp.grad(y, [x, hidden], retain_graph=True)
    np.testing.assert_array_equal(by_x.numpy(), [100.0, 294.0])
    np.testing.assert_array_equal(by_hidden.numpy(), [20.0, 42.0])
    assert x.grad is None
    assert w.grad is None
    (by_w,) = mp.grad(y, w)
    np.testing.assert_array_equal(by_w.numpy(), [40.0, 126.0])
    weighted = mp.grad(x * w, [x], grad_outputs=np.array([10.0, 1.0]))
    np.testing.assert_array_equal(weighted[0].numpy(), [50.0, 7.0])


def test_grad_of_something_unused() -> None:
    """Oracle: torch: an error, or None with allow_unused."""
    x, other = leaf(1.0), leaf(1.0)
    with pytest.raises(GradientError, match=r"does not depend on input 1\n  help: pass allow_unused=True"):
        mp.grad(x * 2.0, [x, other])
    assert mp.grad(x * 2.0, [x, other], allow_unused=True)[1] is None
    with pytest.raises(GradientError, match="input 0 does not require a gradient"):
        mp.grad(x * 2.0, [mp.tensor([1.0])])


def test_backward_asks_for_what_it_needs() -> None:
    """Oracle: the messages: a seed for several elements, its shape, something recorded."""
    x = leaf(1.0, 2.0)
    with pytest.raises(GradientError, match="needs a gradient for an output of shape"):
        (x * x).backward()
    with pytest.raises(ShapeError, match=r"expected a gradient of shape \(2,\), got \(3,\)"):
        (x * x).backward(np.ones(3))
    with pytest.raises(GradientError, match=r"depend on anything that requires a gradient\n  help: "):
        mp.tensor([1.0]).backward()
    with pytest.raises(GradientError, match="depend on anything that requires"):
        ops.argmax(x).backward()
    with pytest.raises(ShapeError, match="expected a gradient of shape"):
        x.grad = mp.tensor([1.0])


def test_only_floating_leaves_require_gradients() -> None:
    """Oracle: torch's rules for requires_grad_."""
    x = leaf(1.0)
    with pytest.raises(GradientError, match="only a leaf"):
        (x * 2.0).requires_grad_(False)
    with pytest.raises(GradientError, match="only floating tensors"):
        mp.tensor(np.array([1])).requires_grad_()
    assert not x.requires_grad_(False).requires_grad


def test_listeners_are_told_of_every_op_and_gradient_in_order() -> None:
    """Oracle: the ops of the expression, forward as written, backward in the opposite order."""
    x = leaf(1.0, 2.0, dtype="float16")
    events: list[Event] = []
    with listen(events.append):
        with mp.autocast("float16"):
            loss = functional.relu(x * 2.0).exp().sum()
        loss.backward()
    names = [(e.phase, e.node.op.name) for e in events]
    forward = ["mul", "relu", "cast", "exp", "sum"]
    assert names == [("forward", n) for n in forward] + [("backward", n) for n in reversed(forward)]
    cast = events[2]
    assert [f.name for f in cast.given] == ["float16"]
    assert cast.outputs[0].dtype == np.float32
    assert cast.modes.autocast is not None
    assert all(e.inputs[0].shape == e.node.shape for e in events if e.phase == "backward")
    assert check_events(events)


def test_listeners_nest_and_end() -> None:
    """Oracle: both hear what happens inside both blocks, nobody hears what happens after."""
    heard: dict[str, list[str]] = {"outer": [], "inner": []}
    x = leaf(1.0)
    with listen(lambda e: heard["outer"].append(e.node.op.name)):
        x + 1.0
        with listen(lambda e: heard["inner"].append(e.node.op.name)):
            x * 1.0
        with pytest.raises(ShapeError), listen(lambda e: heard["inner"].append(e.node.op.name)):
            functional.cat([x.reshape(1, 1), x])
    x - 1.0
    assert heard == {"outer": ["add", "mul", "reshape"], "inner": ["mul", "reshape"]}
    assert not MODES.get().listeners


def test_backward_runs_outside_autocast_in_the_formats_of_the_forward() -> None:
    """Oracle: torch: a gradient rule sees no autocast, and gradients have the formats of the forward."""
    x = leaf(1.0, 2.0, 3.0, 4.0)
    with mp.autocast("bfloat16"):
        y = x.reshape(2, 2) @ x.reshape(2, 2)
        events: list[Event] = []
        with listen(events.append):
            y.sum().backward()
    dtypes = {e.node.op.name: e.outputs[0].dtype.name for e in events if e.phase == "backward"}
    assert dtypes == {"sum": "float32", "cast": "float32", "matmul": "bfloat16", "reshape": "float32"}
    assert x.grad.format.name == "float32"


def test_gradients_of_overflow_are_infinite_and_silent() -> None:
    """Oracle: float16 overflows from 65520 on; warnings are errors in this suite."""
    x = leaf(2.0, dtype="float16")
    (x * 60000.0).backward(np.array([2.0]))
    assert x.grad.item() == np.inf


def python_calls(call: Any) -> list[str]:
    """Return the Python functions that a call enters, C functions left out."""
    entered: list[str] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            entered.append(f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}")

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered[1:]  # the lambda itself


@pytest.mark.host("the steps are those of NumPy's backend")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_plain_op_can_be_stepped_through(dtype: str) -> None:
    """Oracle: the house's limit of Python calls for `a * b` with a tape, counted by sys.setprofile."""
    a, b = leaf(1.0, 2.0, dtype=dtype), leaf(3.0, 4.0, dtype=dtype)
    a * b
    entered = python_calls(lambda: a * b)
    assert 3 <= len(entered) <= MOST_CALLS, entered
    files = {each.rpartition(":")[0] for each in entered}
    assert len(files) <= (5 if dtype == "float32" else 6), files
