"""What gradients are asked for, where a walk goes, and what it leaves: beside torch, case by case."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, nn
from minimp.backend import default_backend
from minimp.errors import GradientError, SettingError, ShapeError
from minimp.modes import MODES, listen
from minimp.tape import Event, Node


def leaf(lib: Any, *values: float, dtype: str = "float64") -> Any:
    """Return a leaf of a library, made from the same numbers."""
    return lib.tensor(values, dtype=dtype if lib is mp else getattr(lib, dtype), requires_grad=True)


def lists(tensors: Any) -> list[Any]:
    """Return tensors as lists of numbers, None as it is."""
    return [None if t is None else np.round(t.detach().tolist(), 9).tolist() for t in tensors]


def by_an_intermediate(lib: Any, grad: Any) -> Any:
    """Differentiate by a result, then go on from there: nothing behind it was freed."""
    x = leaf(lib, 2.0, 3.0)
    y = x * x
    return lists(grad((y * y).sum(), y)), lists(grad(y.sum(), x))


def hooks_off_the_path(lib: Any, grad: Any) -> Any:
    """Note the hooks that a gradient by one of two leaves calls."""
    x, w = leaf(lib, 2.0, 3.0), leaf(lib, 1.0, 1.0)
    log: list[str] = []
    y, v = x * 2.0, w * 2.0
    for name, t in {"x": x, "w": w, "y": y, "v": v}.items():
        t.register_hook(lambda g, name=name: log.append(name))
    found = lists(grad((y * v).sum(), x, create_graph=True))
    return found, log, lists(grad((y * v).sum(), x)), log


def an_output_that_is_an_input(lib: Any, grad: Any) -> Any:
    """Differentiate a leaf and a result by themselves; the result can be used afterwards."""
    x = leaf(lib, 2.0, 3.0)
    y = x * x
    seed = lib.ones_like(x.detach()) if lib is not mp else mp.tensor([1.0, 1.0], dtype="float64")
    return lists(grad(x, x, seed)), lists(grad(y, y, seed)), lists(grad(y.sum(), x))


def the_same_twice_and_an_ancestor(lib: Any, grad: Any) -> Any:
    """Ask by a leaf and a result of it, each twice."""
    x = leaf(lib, 2.0, 3.0)
    y = x * x
    z = (y * y * x).sum()
    return lists(grad(z, [x, y, x, y], retain_graph=True)), lists(grad(z, [x, y, x, y], create_graph=True))


def backward_from_a_leaf(lib: Any, grad: Any) -> Any:
    """Call backward of a leaf, twice."""
    x = leaf(lib, 2.0, 3.0)
    for _ in range(2):
        x.backward(lib.tensor([1.0, 2.0], dtype=x.dtype))
    return lists([x.grad])


def one_memory_two_tensors(lib: Any, grad: Any) -> Any:
    """Multiply a tensor by its detached self, from both sides, and by a leaf that shares its memory."""
    x = leaf(lib, 2.0, 3.0)
    still, other = x.detach(), x.detach().requires_grad_()
    (a,) = grad((x * still).sum(), x, create_graph=True)
    (b,) = grad((still * x * x).sum(), x, create_graph=True)
    c = grad((x * other * other).sum(), [x, other], create_graph=True)
    curves = [lists(grad(s.sum(), [x, other], retain_graph=True, allow_unused=True)) for s in c]
    return a.requires_grad, lists([a, b, *grad(b.sum(), x)]), lists(c), curves


def hooks_before_a_composite(lib: Any, grad: Any) -> Any:
    """Hook a leaf and a result that layer_norm, whose second derivatives go a way of their own, takes."""
    log: list[Any] = []
    x = leaf(lib, 1.0, 2.0, 4.0)
    u = x * 1.5
    u.register_hook(lambda g: g * 10.0)
    x.register_hook(lambda g: log.extend(lists([g])))
    u.retain_grad()
    norm = functional.layer_norm if lib is mp else lib.nn.functional.layer_norm
    found = grad((norm(u, (3,)) ** 3).sum(), x, create_graph=True)
    return lists(found), log, lists([u.grad])


def one_tensor_twice_in_a_composite(lib: Any, grad: Any) -> Any:
    """Give rms_norm one tensor as input and as weight."""
    x = leaf(lib, 1.0, 2.0, 4.0)
    norm = functional.rms_norm if lib is mp else lib.nn.functional.rms_norm
    y = norm(x, (3,), x, 1e-6)
    (s,) = grad((y**3).sum(), x, create_graph=True)
    return lists([s, *grad(s.sum(), x)])


def retained(lib: Any, grad: Any) -> Any:
    """Retain twice, then hook: one gradient, as the last hook leaves it; a second backward adds to it."""
    x = leaf(lib, 2.0)
    y = x * x
    y.retain_grad()
    y.retain_grad()
    handle = y.register_hook(lambda g: g * 10.0)
    z = (y * 3.0).sum()
    z.backward(retain_graph=True)
    first = lists([y.grad, x.grad])
    handle.remove()
    z.backward()
    return first, lists([y.grad, x.grad])


def retained_and_recorded(lib: Any, grad: Any) -> Any:
    """Retain under create_graph, and under grad()."""
    x = leaf(lib, 2.0)
    y = x * x
    y.retain_grad()
    (y * y).sum().backward(create_graph=True)
    kept, x.grad, y.grad = y.grad, None, None
    found = lists([kept, *grad(kept.sum(), x, retain_graph=True)])
    return found, lists([y.grad, *grad((y * y).sum(), x), y.grad])


def no_axes_and_no_elements(lib: Any, grad: Any) -> Any:
    """Differentiate twice a tensor of no axes and one of no elements."""
    found = []
    for x in (leaf(lib, 3.0).reshape(()), leaf(lib).reshape(0, 2)):
        (slope,) = grad((x * x * x).sum(), x, create_graph=True)
        (curve,) = grad(slope.sum(), x)
        found += [tuple(slope.shape), tuple(curve.shape), *lists([curve])]
    return found


def several_outputs(lib: Any, grad: Any) -> Any:
    """Differentiate the sum of several outputs: weighted, repeated, and one of them an ancestor."""
    x = leaf(lib, 2.0)
    y = x * x
    seed = lib.tensor([3.0], dtype=x.dtype)
    found = lists(grad([y, x * 3.0, y * y], x, retain_graph=True))
    found += lists(grad([y, y, x], [x, y], [seed, None, seed], retain_graph=True))
    (slope,) = grad((y, y * x), x, create_graph=True)
    return found, lists([slope, *grad(slope, x)])


def gradients_are_nobody_elses(lib: Any, grad: Any) -> Any:
    """Write to one gradient; those that came along the same way stay as they are."""
    a, b, seed = leaf(lib, 2.0), leaf(lib, 3.0), lib.tensor([1.0], dtype=leaf(lib, 1.0).dtype)
    (a + b).backward(seed)
    a.grad.numpy()[:] = 77.0
    return lists([a.grad, b.grad, seed])


def a_hook_that_raises(lib: Any, grad: Any) -> Any:
    """Let a hook raise; the leaf has no gradient then, and backward works once the hook is gone."""
    x = leaf(lib, 2.0)
    y = x * x

    def bad(_: Any) -> None:
        raise KeyError("hook")

    handle = y.register_hook(bad)
    z = (y * y).sum()
    with suppress(KeyError):
        z.backward(retain_graph=True)
    before = x.grad
    handle.remove()
    z.backward()
    return before, lists([x.grad])


def a_block_around_a_generator(lib: Any, grad: Any) -> Any:
    """Decorate a generator: its steps record nothing, the code between them does."""
    x = leaf(lib, 2.0)
    log: list[Any] = []

    @lib.no_grad()
    def steps() -> Any:
        try:
            given = yield (x * 2.0).requires_grad
            log.append(given)
            with suppress(KeyError):
                yield (x * 2.0).requires_grad
            log.append((x * 2.0).requires_grad)
            yield 3
        finally:
            log.append((x * 2.0).requires_grad)
        return "end"

    running = steps()
    found = [next(running), (x * 2.0).requires_grad, running.send("given"), running.throw(KeyError("k"))]
    other = steps()
    next(other)
    other.close()
    with pytest.raises(StopIteration, match="end"):
        next(running)
    return found, log, (x * 2.0).requires_grad


CASES: list[Callable[[Any, Any], Any]] = [
    by_an_intermediate, hooks_off_the_path, an_output_that_is_an_input, the_same_twice_and_an_ancestor,
    backward_from_a_leaf, one_memory_two_tensors, hooks_before_a_composite, one_tensor_twice_in_a_composite,
    retained, retained_and_recorded, no_axes_and_no_elements, several_outputs,
    pytest.param(gradients_are_nobody_elses, marks=pytest.mark.host("numpy() copies from a device")),
    a_hook_that_raises, a_block_around_a_generator,
]  # fmt: skip


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_as_in_torch(case: Callable[[Any, Any], Any]) -> None:
    """Oracle: torch 2.13.0, the same lines in float64: numbers, order of hooks, what needs a gradient."""
    torch = pytest.importorskip("torch")
    ours = case(mp, mp.grad)
    assert ours == case(torch, torch.autograd.grad)


def test_an_earlier_gradient_is_replaced_not_written_to() -> None:
    """Oracle: the rule that arrays never change in place; torch adds to the tensor that was there."""
    x = mp.tensor([2.0], requires_grad=True)
    first = x.grad = mp.tensor([1.0])
    (x * x).backward()
    assert (first.tolist(), x.grad.tolist()) == ([1.0], [5.0])


def test_shared_memory_that_cannot_be_told_apart_is_refused() -> None:
    """Oracle: a rule that needs the forward's other input, which nobody saved; a copy of its own works."""

    @mp.op()
    def third(ctx: Any, a: Any, b: Any, c: Any) -> Any:
        ctx.save(b)
        return a * b

    @third.gradient
    def _(ctx: Any, grad: Any) -> Any:
        return grad * ctx.saved[0], None, None

    x, c = mp.tensor([2.0], requires_grad=True), mp.tensor([1.0])
    try:
        with pytest.raises(GradientError, match=r"third: two inputs share their memory"):
            mp.grad(third(x, x.detach(), c), x, create_graph=True)
        (slope,) = mp.grad(third(x, x.detach().clone(), c), x, create_graph=True)
        assert (slope.tolist(), slope.requires_grad) == ([2.0], False)
        assert mp.grad(third(x, x.detach(), c), x)[0].tolist() == [2.0]
    finally:
        del mp.OPS["third"]


def test_a_rule_that_leaves_an_input_out_is_refused() -> None:
    """Oracle: an op of two inputs with one gradient; what needs none may be left out."""

    @mp.op()
    def halved(ctx: Any, a: Any, b: Any) -> Any:
        return a * b

    halved.gradient(lambda ctx, grad: (grad,))
    x = mp.tensor([2.0], requires_grad=True)
    try:
        assert mp.grad(halved(x, mp.tensor([1.0])), x)[0].tolist() == [1.0]
        with pytest.raises(
            GradientError, match="halved: its gradient rule returned 1 gradients for 2 inputs"
        ):
            mp.grad(halved(x, x), x)
    finally:
        del mp.OPS["halved"]


def test_a_rule_on_recorded_arrays_cannot_leave_the_tape() -> None:
    """Oracle: ways to a plain array, each of which would make second derivatives 0; the first order works."""
    ways: list[Callable[[Any, Any], Any]] = [
        lambda xp, x: default_backend().xp.asarray(x),
        lambda xp, x: xp.concatenate([x]),
        lambda xp, x: xp.max(x) + 0 * x,
        lambda xp, x: xp.full_like(xp.ones(1), x),
        lambda xp, x: xp.zeros(1) + xp.stack([x, x])[0],
    ]
    for way in ways:

        @mp.op()
        def leaving(ctx: Any, x: Any) -> Any:
            ctx.save(x)
            return x * x

        @leaving.gradient
        def _(ctx: Any, grad: Any, way: Any = way) -> Any:
            return grad * 2 * way(ctx.backend.xp, ctx.saved[0])

        x = mp.tensor([2.0], requires_grad=True)
        try:
            assert mp.grad(leaving(x), x)[0].tolist() == [4.0]
            with pytest.raises(GradientError, match="no second derivative"):
                mp.grad(leaving(x), x, create_graph=True)
        finally:
            del mp.OPS["leaving"]


def test_hooks_of_leaves_come_in_the_same_order_each_time() -> None:
    """Oracle: the order in which the walk meets the leaves, whatever their addresses."""
    orders = []
    for _ in range(6):
        log: list[int] = []
        leaves = [mp.tensor([1.0], requires_grad=True) for _ in range(12)]
        for i, x in enumerate(leaves):
            x.register_hook(lambda g, i=i, log=log: log.append(i))
        sum((x * 2.0 for x in leaves[1:]), leaves[0] * 2.0).backward()
        orders.append(log)
        del leaves[::2]
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0]) == list(range(12))


def test_a_hook_on_a_weight_cast_by_a_region() -> None:
    """Oracle: two uses of one cast: the leaf's hook is called once, with the float32 sum."""
    seen: list[Any] = []
    w = mp.tensor([[1.0]], requires_grad=True)
    w.register_hook(lambda g: seen.append((g.format.name, g.tolist())))
    with mp.autocast("bfloat16"):
        y = (mp.tensor([[256.0]]) @ w) + (mp.tensor([[1.0]]) @ w)
    y.float().sum().backward()
    assert seen == [("float32", [[256.0]])]


# ---- what is left over -------------------------------------------------------------------------------------


class Both(mp.Function):
    """A sum and a product, with everything kept that can be kept."""

    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        """Compute both."""
        product, ctx.total = x * y, x + y
        ctx.save_for_backward(x, y, product)
        return product, ctx.total

    @staticmethod
    def backward(ctx: Any, by_product: Any, by_sum: Any) -> Any:
        """Read all that was kept."""
        x, y, product = ctx.saved_tensors
        return by_product * y + by_sum + (product - product) * ctx.total, by_product * x + by_sum


def plain(x: mp.Tensor, w: mp.Tensor) -> Any:
    """Take one step."""
    (x @ w).tanh().sum().backward()


def penalty(x: mp.Tensor, w: mp.Tensor) -> Any:
    """Take a step with a gradient of a gradient, by way of a composite."""
    (slope,) = mp.grad(functional.layer_norm((x @ w).tanh(), (4,)).sum(), x, create_graph=True)
    (slope * slope).sum().backward()


def own(x: mp.Tensor, w: mp.Tensor) -> Any:
    """The same through a Function of several outputs, with hooks and retained gradients."""
    a, b = Both.apply(x @ w, x)
    a.register_hook(lambda g: g * 2.0)
    b.retain_grad()
    (slope,) = mp.grad((a * b).sum(), x, create_graph=True)
    (slope * slope).sum().backward()


def again(x: mp.Tensor, w: mp.Tensor) -> Any:
    """The same through recomputed parts, one inside another, in a region."""
    with mp.autocast("float16"):
        y = mp.recompute(lambda x: functional.dropout((x @ w).tanh(), 0.5) @ w, x)
        y = mp.recompute(lambda x: mp.recompute(lambda x: x @ w, x).tanh(), y)
    (slope,) = mp.grad(y.float().sum(), x, create_graph=True)
    (slope * slope).sum().backward()


def dropped(x: mp.Tensor, w: mp.Tensor) -> Any:
    """Go forward, and never back."""
    with mp.autocast("float16"):
        mp.recompute(lambda x: (x @ w).tanh(), x)
    Both.apply(x, x @ w)


def failed(x: mp.Tensor, w: mp.Tensor) -> Any:
    """Raise in the middle of a backward."""

    def bad(_: Any) -> None:
        raise KeyError("hook")

    x.register_hook(bad)
    with suppress(KeyError):
        mp.recompute(lambda x: (x @ w).tanh(), x).sum().backward()


def alive() -> tuple[int, int]:
    """Return how many nodes and how many tensors there are."""
    kinds = [type(each) for each in gc.get_objects()]
    return sum(issubclass(kind, Node) for kind in kinds), sum(issubclass(kind, mp.Tensor) for kind in kinds)


@pytest.mark.parametrize("step", [plain, penalty, own, again, dropped, failed], ids=lambda f: f.__name__)
def test_a_step_leaves_nothing_behind(step: Callable[..., Any]) -> None:
    """Oracle: nodes and tensors alive after 20 steps without the collector, and what it finds then."""
    w = mp.tensor(np.ones((4, 4)), dtype="float32", requires_grad=True)

    def run() -> None:
        step(mp.tensor(np.ones((4, 4)), dtype="float32", requires_grad=True), w)
        w.grad = None

    run()
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(20):
            run()
        assert alive() == before
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_errors_leave_the_settings_as_they_were() -> None:
    """Oracle: modes, random numbers, NumPy's error state and `.grad` before and after; then it works."""

    class Bad(mp.Function):
        fail = ""

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            if Bad.fail == "forward":
                raise RuntimeError(Bad.fail)
            ctx.save_for_backward(x)
            return x * 2.0

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            functional.dropout(grad, 0.0)
            if Bad.fail == "backward":
                raise RuntimeError(Bad.fail)
            return grad * 2.0

    def part(x: mp.Tensor) -> mp.Tensor:
        y = functional.dropout(x * x, 0.5)
        if Bad.fail == "second run" and mp.rerun.is_recomputing():
            raise RuntimeError(Bad.fail)
        return y

    def run(create_graph: bool) -> None:
        with mp.autocast("float16"):
            y = mp.recompute(part, Bad.apply(x)).sum()
            states.append((MODES.get(), np.geterr(), mp.get_rng_state()))
            y.backward(create_graph=create_graph)

    x = mp.tensor(np.ones(8), dtype="float32", requires_grad=True)
    for fault in ("backward", "second run"):
        for create_graph in (False, True):
            Bad.fail = fault
            before, states = (MODES.get(), np.geterr()), []
            with pytest.raises(RuntimeError, match=fault):
                run(create_graph)
            assert (MODES.get(), np.geterr()) == before
            assert mp.get_rng_state() == states[0][2]
            assert x.grad is None
    Bad.fail = "forward"
    with pytest.raises(RuntimeError, match="forward"):
        Bad.apply(x)
    assert (MODES.get(), np.geterr()) == before
    Bad.fail = ""
    run(create_graph=False)
    assert set(x.grad.tolist()) <= {0.0, 16.0}


def test_threads_have_settings_of_their_own() -> None:
    """Oracle: the same steps one after the other: bits of four threads at once in two formats."""
    x0 = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)

    def work(low: str) -> bytes:
        layer = nn.LayerNorm(6)
        x = mp.tensor(x0, requires_grad=True)
        with mp.autocast(low):
            y = mp.recompute(lambda x: layer(x @ x).tanh(), x)
        a, b = Both.apply(y.float(), x)
        (slope,) = mp.grad((a * b).sum(), x, create_graph=True)
        return slope.detach().numpy().tobytes()

    lows = ["float16", "bfloat16"] * 2
    wanted = [work(low) for low in lows]
    found: dict[int, list[bytes]] = {}
    name = default_backend().name

    def repeat(i: int) -> None:
        with mp.use_backend(name):  # a thread starts with the default
            found[i] = [work(lows[i]) for _ in range(10)]

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [set(found[i]) for i in range(4)] == [{each} for each in wanted]


def test_listeners_hear_only_what_is_walked() -> None:
    """Oracle: a gradient by a result: the ops between, not those behind it."""
    events: list[Event] = []
    x = mp.tensor([2.0], requires_grad=True)
    y = x.exp()
    z = y * y
    with listen(events.append):
        mp.grad(z, y)
    assert [e.node.op.name for e in events] == ["mul"]


@pytest.mark.host("numpy() copies from a device")
def test_gradients_that_are_given_out_share_nothing_that_can_be_written_to() -> None:
    """Oracle: the rule that nobody changes another's array; torch gives out one memory twice here."""
    a, b = (mp.tensor([1.0], requires_grad=True) for _ in range(2))
    found = mp.grad(a + b, [a, b, a])
    found[0].numpy()[:] = 77.0
    assert [g.tolist() for g in found] == [[77.0], [1.0], [1.0]]


def test_what_cannot_be_is_refused() -> None:
    """Oracle: type and words of each error."""
    x = mp.tensor([1.0, 2.0], requires_grad=True)
    y = x.sum()
    for call in (lambda: mp.grad(3, x), lambda: mp.grad([], x), lambda: mp.grad([y, 3], x)):
        with pytest.raises(SettingError, match="grad: outputs: expected a tensor or a sequence of tensors"):
            call()
    for wrong in ("x", [x, 3], []):
        with pytest.raises(SettingError, match="grad: inputs: expected a tensor or a sequence of tensors"):
            mp.grad(y, wrong)
    for seeds in ([None], [None] * 3, mp.tensor(1.0), 2.0):
        with pytest.raises(SettingError, match="grad_outputs: expected one for each of 2 outputs"):
            mp.grad([y, y], x, seeds)
    with pytest.raises(ShapeError, match=r"expected a gradient of shape \(\), got \(1,\)"):
        mp.grad(y, x, mp.tensor([1.0]))
    with pytest.raises(GradientError, match="does not depend on anything that requires a gradient"):
        mp.grad([y, mp.tensor(1.0)], x)
    with pytest.raises(GradientError, match="input 0 does not require a gradient"):
        mp.grad(y, mp.tensor(1.0))
    with pytest.raises(GradientError, match=r"does not depend on input 1\n  help: pass allow_unused=True"):
        mp.grad(y, [x, mp.tensor(1.0, requires_grad=True)])
    with pytest.raises(SettingError, match="register_hook: expected a function of a gradient, got int"):
        x.register_hook(3)

    async def later() -> None:
        """Do nothing."""

    async def many() -> Any:
        yield 1

    for function in (later, many):
        with pytest.raises(SettingError, match="no_grad cannot decorate an async function"):
            mp.no_grad()(function)
