"""Corners of backward and of rules on recorded arrays: settings, formats, what is kept."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, rng
from minimp.backend import default_backend
from minimp.errors import GradientError
from minimp.higher.arrays import Recorded
from minimp.modes import MODES, setting
from minimp.tape import walk
from tests.arrays import host
from tests.tolerances import assert_close

NUMBERS = np.array([0.5, 1.25, 3.0], np.float32)
OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("other", [2.0, 3, NUMBERS[::-1].astype(np.float64)], ids=["float", "int", "array"])
@pytest.mark.parametrize("call", OPERATORS, ids=lambda f: f.__name__)
def test_recorded_arrays_compute_as_arrays(call: Callable[..., Any], other: Any) -> None:
    """Oracle: NumPy's operators on the same float32 numbers, from both sides; constants take the format."""
    x = Recorded(mp.tensor(NUMBERS, requires_grad=True))
    plain = other.astype(np.float32) if isinstance(other, np.ndarray) else other
    for found, wanted in [
        (call(x, other), call(NUMBERS, plain)),
        (call(other, x), call(plain, NUMBERS)),
        (call(x, x), call(NUMBERS, NUMBERS)),
    ]:
        assert found.dtype == np.float32
        assert found.tensor.requires_grad
        assert_close(found.tensor.detach().numpy(), wanted, "parity_op_fp32")


@pytest.mark.parametrize("call", COMPARISONS, ids=lambda f: f.__name__)
def test_recorded_arrays_compare_as_arrays(call: Callable[..., Any]) -> None:
    """Oracle: NumPy's comparisons, from both sides; the result is a plain array."""
    x, other = Recorded(mp.tensor(NUMBERS)), np.array([0.5, 2.0, 2.0], np.float32)
    given = default_backend().from_host(other)
    for found, wanted in [(call(x, given), call(NUMBERS, other)), (call(x, x), call(NUMBERS, NUMBERS))]:
        assert isinstance(found, default_backend().xp.ndarray)
        np.testing.assert_array_equal(host(found), wanted)


@pytest.mark.parametrize("name", ["float16", "chunked:2", "bfloat16", "exact"])
def test_recorded_gradients_accumulate_as_the_forward(name: str) -> None:
    """Oracle: the gradient without create_graph, bit for bit; backward runs outside the block."""
    random = np.random.default_rng(0)
    x, w = (
        mp.tensor(random.standard_normal((33, 33)), dtype="float32", requires_grad=True) for _ in range(2)
    )
    with mp.accumulate(name):
        y = (x @ w).tanh() @ w + w.sum(0)
    seed = mp.tensor(random.standard_normal((33, 33)), dtype="float32")
    plain = mp.grad(y, [x, w], seed, retain_graph=True)
    recorded = mp.grad(y, [x, w], seed, create_graph=True)
    for a, b in zip(plain, recorded, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.detach().numpy())
    again = mp.grad(x @ w, x, seed)[0].numpy()
    assert not np.array_equal(again, mp.grad(_under(name, x, w), x, seed)[0].numpy()) or name == "exact"


def _under(name: str, x: mp.Tensor, w: mp.Tensor) -> mp.Tensor:
    with mp.accumulate(name):
        return x @ w


def test_recorded_gradients_know_no_region() -> None:
    """Oracle: create_graph inside a region gives the float32 bits of outside, hooks included."""
    seen: list[Any] = []
    x = mp.tensor(np.linspace(0.1, 1, 9).reshape(3, 3), dtype="float32", requires_grad=True)
    y = x @ x
    y.retain_grad()
    y.register_hook(lambda g: seen.append((mp.is_autocast_enabled(), (g @ x.detach()).format.name)))
    seed = mp.tensor(np.full((3, 3), 1 / 3), dtype="float32")
    wanted = mp.grad(y, x, seed, retain_graph=True)[0].numpy()
    with mp.autocast("bfloat16"):
        found = mp.grad(y, x, seed, create_graph=True)[0]
        y.backward(seed)
    np.testing.assert_array_equal(found.detach().numpy(), wanted)
    np.testing.assert_array_equal(x.grad.numpy(), wanted)
    assert seen == [(False, "float32")] * 3
    assert y.grad.format is mp.float32


def test_retained_gradients_are_recorded_only_when_asked() -> None:
    """Oracle: a plain backward adds numbers to a recorded gradient: no graph comes of it."""
    x = mp.tensor([2.0], requires_grad=True)
    y = x * x
    y.retain_grad()
    z = y * y
    z.backward(create_graph=True)
    assert y.grad.requires_grad
    z.backward()
    assert (y.grad.requires_grad, y.grad.tolist()) == (False, [16.0])
    x.grad = y.grad = None


def test_composites_are_worked_through_in_the_wide_format() -> None:
    """Oracle: the fused float16 gradient; squares of 300 are beyond float16, so it must not square there."""
    x = mp.tensor([300.0, -200.0, 100.0, 50.0], dtype="float16", requires_grad=True)
    seed = mp.tensor([1.0, 2.0, -1.0, 3.0], dtype="float16") * 64.0
    for y in (functional.layer_norm(x, (4,)), functional.rms_norm(x, (4,))):
        plain = mp.grad(y, x, seed, retain_graph=True)[0].numpy().astype(np.float64)
        found = mp.grad(y, x, seed, create_graph=True)[0]
        assert found.format is mp.float16
        assert_close(found.detach().numpy().astype(np.float64), plain, "composite_gradient_fp16")


def test_losses_share_what_saved_nothing() -> None:
    """Oracle: two backwards through one addition and one cast, which need nothing that could be freed."""
    x = mp.tensor([1.0], requires_grad=True)
    with mp.autocast("float16"):
        y = (x + 1.0).half()
    (y * 2.0).backward()
    (y * 3.0).backward()
    assert x.grad.tolist() == [5.0]


def test_telling_inputs_apart_draws_nothing() -> None:
    """Oracle: the state of the random numbers before and after; the first order by hand."""

    @mp.op()
    def noisy(ctx: Any, a: Any, b: Any) -> Any:
        rng.generator().random(3)
        ctx.save(a, b)
        return a * b

    @noisy.gradient
    def _(ctx: Any, grad: Any) -> Any:
        a, b = ctx.saved
        return grad * b, grad * a

    x = mp.tensor([3.0], requires_grad=True)
    try:
        y = noisy(x, x.detach())
        state = mp.get_rng_state()
        (slope,) = mp.grad(y, x, create_graph=True)
        assert (slope.tolist(), slope.requires_grad) == ([3.0], False)
        assert mp.get_rng_state() == state
    finally:
        del mp.OPS["noisy"]


@pytest.mark.parametrize(
    "kernel",
    [lambda backend, x: backend.conv2d(x, x, 2), lambda backend, x: backend.conv2d(x, x, stride=2),
     lambda backend, x: backend.positive_part(x)],
    ids=["number", "keyword", "no op"],
)  # fmt: skip
def test_a_kernel_with_arguments_that_its_op_would_not_get_is_refused(kernel: Any) -> None:
    """Oracle: what cannot be passed on raises; dropped, it would be another kernel's gradient."""

    @mp.op()
    def kernelled(ctx: Any, x: Any) -> Any:
        ctx.save(x)
        return x * x

    @kernelled.gradient
    def _(ctx: Any, grad: Any) -> Any:
        return kernel(ctx.backend, ctx.saved[0]) * grad

    x = mp.tensor(np.ones((1, 1, 2, 2)), dtype="float32", requires_grad=True)
    try:
        with pytest.raises(GradientError, match=r"the kernel (conv2d with|positive_part)"):
            mp.grad(kernelled(x).sum(), x, create_graph=True)
    finally:
        del mp.OPS["kernelled"]


# ---- Functions ---------------------------------------------------------------------------------------------


def test_a_function_runs_unrecorded_and_its_backward_as_it_accumulated() -> None:
    """Oracle: the settings that each method sees, wherever backward is called."""
    seen: list[Any] = []

    def look() -> None:
        modes = MODES.get()
        seen.append((modes.grad_enabled, modes.autocast is None, modes.accumulate))

    class Looks(mp.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            look()
            return x * 2.0

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            look()
            return grad * 2.0

    x = mp.tensor([1.0], requires_grad=True)
    with mp.accumulate("float64"), mp.autocast("float16"):
        y = Looks.apply(x)
    with mp.autocast("bfloat16"), mp.accumulate("exact"):
        y.backward(retain_graph=True)
        mp.grad(y, x, create_graph=True)
    assert seen == [(False, False, "float64"), (False, True, "float64"), (True, True, "float64")]


def test_marked_outputs_are_constants_where_they_were_saved() -> None:
    """Oracle: torch 2.13.0: a slope that reads a marked output alone needs no gradient; marks add up."""

    class Marked(mp.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            a, b = x * 2.0, x * 4.0
            ctx.mark_non_differentiable(a)
            ctx.mark_non_differentiable(b)
            ctx.save_for_backward(a)
            return a, b, x * x

        @staticmethod
        def backward(ctx: Any, by_a: Any, by_b: Any, by_c: Any) -> Any:
            return by_c * ctx.saved_tensors[0]

    x = mp.tensor([3.0], requires_grad=True)
    a, b, c = Marked.apply(x)
    assert [t.requires_grad for t in (a, b, c)] == [False, False, True]
    (slope,) = mp.grad(c, x, create_graph=True)
    assert (slope.tolist(), slope.requires_grad) == ([6.0], False)


def test_nothing_outlives_backward_on_the_context() -> None:
    """Oracle: weak references: what was saved is gone after backward, though the result lives."""
    made: list[Any] = []

    class Keeps(mp.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            halfway = x * 3.0
            made.append(weakref.ref(halfway.array))
            ctx.save_for_backward(halfway)
            return halfway * x

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * ctx.saved_tensors[0] * 2.0

    x = mp.tensor([1.0], requires_grad=True)
    y = Keeps.apply(x)
    assert made[0]() is not None
    y.backward()
    assert made[0]() is None
    assert y.requires_grad


def test_custom_fwd_keeps_no_low_copies_and_records_only_where_asked() -> None:
    """Oracle: the region's cast of a weight dies with the region; under no_grad the body sees no gradient."""
    seen: list[Any] = []

    class Reads(mp.Function):
        @staticmethod
        @mp.custom_fwd
        def forward(ctx: Any, x: Any, w: Any) -> Any:
            ctx.save_for_backward(x, w)
            return (x @ w).float()

        @staticmethod
        @mp.custom_bwd
        def backward(ctx: Any, grad: Any) -> Any:
            x, _ = ctx.saved_tensors
            return None, x.T @ grad

    w = mp.tensor(np.ones((8, 8)), dtype="float32", requires_grad=True)
    x = mp.tensor(np.ones((2, 8)), dtype="float32")
    with mp.autocast("float16"):
        y = Reads.apply(x, w)
        cast = weakref.ref(next(iter(MODES.get().autocast.cache.values()))[2].array)
        assert cast() is not None
    assert cast() is None
    y.sum().backward()
    assert w.grad.tolist() == [[2.0] * 8] * 8

    @mp.custom_fwd(cast_inputs="float16")
    def forward(ctx: Any, x: Any) -> None:
        seen.append(x.requires_grad)

    with mp.autocast("float16"), setting(grad_enabled=False):
        forward(type("Ctx", (), {"needs_input_grad": (False,)})(), w)
        forward(type("Ctx", (), {"needs_input_grad": (True,)})(), w)
    assert seen == [False, True]


def test_a_composites_own_walk_ends_at_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: edges visited: all of a chain of 200 once, and a few for each composite at its end."""
    visited: list[int] = []
    plain = walk.newest_first

    def spy(*args: Any) -> Any:
        found = plain(*args)
        visited.append(len(found))
        return found

    monkeypatch.setattr(walk, "newest_first", spy)
    x = mp.tensor([1.0, 2.0, 4.0], requires_grad=True)
    y = x
    for _ in range(200):
        y = y * 1.0
    for _ in range(3):
        y = functional.layer_norm(y, (3,))
    mp.grad(y[0], x, create_graph=True)
    assert visited[0] > 200
    assert len(visited) == 4
    assert max(visited[1:]) < 30


def test_an_op_of_anothers_name_is_refused() -> None:
    """Oracle: the message; relu is still the engine's. One's own may be declared again, as in a notebook."""
    known = mp.OPS["relu"]
    with pytest.raises(mp.errors.SettingError, match="there is an op 'relu' already"):

        @mp.op()
        def relu(ctx: Any, x: Any) -> Any:
            return x

    assert mp.OPS["relu"] is known
    made = []
    try:
        for _ in range(2):

            @mp.op()
            def doubled_twice(ctx: Any, x: Any) -> Any:
                return ctx.round(ctx.wide(x) * 4)

            made.append(mp.OPS["doubled_twice"])
    finally:
        mp.OPS.pop("doubled_twice", None)
    assert made[0] is not made[1]
