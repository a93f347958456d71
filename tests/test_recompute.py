"""Recomputing a part of the forward in backward: the same bits, less memory, and what it refuses."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, nn
from minimp.backend import default_backend
from minimp.errors import GradientError
from minimp.modes import MODES, listen, setting
from minimp.tape import Event, Node

Bits = list[Any]


def network() -> nn.Module:
    """Return layers with dropout, and one used twice."""
    mp.manual_seed(0)
    first = nn.Linear(6, 6)
    return nn.Sequential(first, nn.GELU(), nn.Dropout(0.3), first, nn.LayerNorm(6), nn.Linear(6, 4))


def gradients(run: Callable[[nn.Module, mp.Tensor], mp.Tensor], region: Any = None) -> Bits:
    """Return the loss and every gradient of a step, as arrays."""
    model = network()
    x = mp.tensor(np.random.default_rng(1).standard_normal((5, 6)), dtype="float32", requires_grad=True)
    mp.manual_seed(7)
    with region or mp.enable_grad():
        loss = functional.cross_entropy(run(model, x), np.arange(5) % 4)
    (loss * 8.0).backward()
    return [loss.detach().numpy(), x.grad.numpy(), *(p.grad.numpy() for p in model.parameters())]


def parts(model: nn.Module, x: mp.Tensor) -> mp.Tensor:
    """Run a network in two recomputed parts."""
    layers = list(model)
    x = mp.recompute(lambda x: layers[2](layers[1](layers[0](x))), x)
    return mp.recompute(lambda x: layers[5](layers[4](layers[3](x))), x)


def nested(model: nn.Module, x: mp.Tensor) -> mp.Tensor:
    """Run a network in a part that has a part inside."""
    layers = list(model)

    def inner(x: mp.Tensor) -> mp.Tensor:
        return layers[3](layers[2](layers[1](x)))

    return mp.recompute(lambda x: layers[5](layers[4](mp.recompute(inner, layers[0](x)))), x)


def doubled(model: nn.Module, x: mp.Tensor) -> mp.Tensor:
    """Run a network in a part that is nothing but a part."""
    return mp.recompute(lambda x: mp.recompute(model, x), x)


@pytest.mark.parametrize("way", [parts, nested, doubled, mp.recompute])
@pytest.mark.parametrize("low", [None, "float16", "bfloat16", "uncached"])
def test_the_gradients_are_the_same_bits(way: Any, low: str | None) -> None:
    """Oracle: the ordinary run: loss and gradients bit for bit, dropout and shared weights included."""

    def region() -> Any:
        if low is None:
            return None
        return mp.autocast("float16", cache_enabled=False) if low == "uncached" else mp.autocast(low)

    plain, again = gradients(lambda m, x: m(x), region()), gradients(way, region())
    for a, b in zip(plain, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["float64", "float16", "chunked:4"])
def test_the_second_run_accumulates_as_the_first(name: str) -> None:
    """Oracle: the ordinary run under the same name; backward itself runs outside the block."""

    def under(way: Any) -> Any:
        def run(model: nn.Module, x: mp.Tensor) -> mp.Tensor:
            with mp.accumulate(name):
                return way(model, x)

        return run

    for a, b in zip(gradients(under(lambda m, x: m(x))), gradients(under(parts)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_weight_that_the_region_had_cast_before_is_found_cast() -> None:
    """Oracle: the ordinary run; the cast of a weight used before the part is no op of the part."""
    x = mp.tensor(np.random.default_rng(0).standard_normal((3, 4)), dtype="float32")
    found = []
    for way in (lambda f, a: f(a), mp.recompute):
        w = mp.tensor(np.random.default_rng(1).standard_normal((4, 4)), dtype="float32", requires_grad=True)
        with mp.autocast("float16"):
            y = x @ w
            z = way(lambda a, w=w: (a @ w).tanh() @ w, y)
        z.sum().backward()
        found.append(w.grad.numpy())
    np.testing.assert_array_equal(*found)


def test_nothing_is_kept_until_backward_needs_it() -> None:
    """Oracle: bytes of the arrays on the nodes, added up: 0 inside the part, all of it without."""
    x = mp.tensor(np.ones((50, 40)), dtype="float32", requires_grad=True)

    def part(a: mp.Tensor) -> mp.Tensor:
        return ((a * a).tanh() * a).sigmoid()

    def kept(way: Any) -> int:
        nodes: list[Node] = []
        with listen(lambda event: nodes.append(event.node)):
            result = way(part, x)
        assert result.requires_grad
        return sum(a.nbytes for node in nodes for a in node.saved)

    assert kept(lambda f, a: f(a)) >= 3 * x.nbytes
    assert kept(mp.recompute) == 0


def test_second_derivatives_go_through() -> None:
    """Oracle: d2/dx2 of (x^3)^2 = 30 x^4."""
    x = mp.tensor([1.0, 2.0], dtype="float64", requires_grad=True)
    y = mp.recompute(lambda x: (x * x * x) * (x * x * x), x)
    (slope,) = mp.grad(y.sum(), x, create_graph=True)
    (curve,) = mp.grad(slope.sum(), x)
    np.testing.assert_allclose(curve.numpy(), 30 * np.array([1.0, 16.0]), rtol=0, atol=0)


def test_batch_statistics_are_updated_once() -> None:
    """Oracle: is_recomputing tells the second run from the first."""
    seen: list[bool] = []

    def part(x: mp.Tensor) -> mp.Tensor:
        seen.append(mp.rerun.is_recomputing())
        return x * x

    x = mp.tensor([3.0], requires_grad=True)
    mp.recompute(part, x).backward()
    assert seen == [False, True]
    assert x.grad.tolist() == [6.0]


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_those_of_one_run(momentum: float | None) -> None:
    """Oracle: the ordinary run: mean, variance and count of the batches, bit for bit."""
    x = mp.tensor(np.random.default_rng(0).standard_normal((6, 3, 4, 4)), dtype="float32")
    found = []
    for way in (lambda f, a: f(a), mp.recompute):
        layer = nn.BatchNorm2d(3, momentum=momentum)
        for _ in range(2):
            (way(layer, x) ** 2).sum().backward()
        found.append([t.numpy() for t in layer.state_dict().values()])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[0][-1] == 2


def test_without_recording_it_is_the_function() -> None:
    """Oracle: one call, no graph."""
    calls: list[int] = []
    with mp.no_grad():
        y = mp.recompute(lambda x: (calls.append(1), x * 2.0)[1], mp.tensor([1.0], requires_grad=True))
    assert calls == [1]
    assert not y.requires_grad


def test_listeners_hear_the_second_run() -> None:
    """Oracle: two forwards and one backward of the multiplication."""
    x = mp.tensor([3.0], requires_grad=True)
    y = mp.recompute(lambda x: x * x, x)
    events: list[Event] = []
    with listen(events.append):
        y.backward()
    assert [(e.phase, e.node.op.name) for e in events] == [("forward", "mul"), ("backward", "mul")]


def test_another_second_run_is_refused() -> None:
    """Oracle: a function that does something else the second time; the message names the op."""
    turn = iter([lambda x: x * x, lambda x: (x * x).tanh(), lambda x: x / x])
    x = mp.tensor([3.0], requires_grad=True)

    def part(x: mp.Tensor) -> mp.Tensor:
        return next(turn)(x)

    y = mp.recompute(part, x)
    with pytest.raises(GradientError, match="1 ops were recorded, now 2"):
        y.backward(retain_graph=True)
    with pytest.raises(GradientError, match=r"op 0 was mul of \(1,\), now div"):
        y.backward()


def test_a_weight_replaced_before_backward_is_refused() -> None:
    """Oracle: an optimizer's step between forward and backward would give gradients of no forward."""
    w = mp.tensor([2.0], requires_grad=True)
    y = mp.recompute(lambda w: w * w, w)
    w.array = w.array + 1
    with pytest.raises(GradientError, match="was given another array between forward and backward"):
        y.backward()


def test_backward_twice_needs_retain_graph() -> None:
    """Oracle: the ordinary rule: freed the first time, refused the second."""
    x = mp.tensor([3.0], requires_grad=True)
    y = mp.recompute(lambda x: x * x, x)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [12.0]
    with pytest.raises(GradientError, match="freed by an earlier backward"):
        y.backward()


def test_random_numbers_go_on_after_the_second_run() -> None:
    """Oracle: the generator's state is the same as after an ordinary run, and as before backward."""
    x = mp.tensor(np.ones(100), dtype="float32", requires_grad=True)
    mp.manual_seed(3)
    y = mp.recompute(lambda x: functional.dropout(x, 0.5), x)
    functional.dropout(x, 0.5)
    state = mp.get_rng_state()
    y.sum().backward()
    assert mp.get_rng_state() == state
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


def test_whatever_the_function_returns() -> None:
    """Oracle: the ordinary run: dicts, tuples, numbers, None and an argument that comes back unchanged."""
    found = []
    for way in (lambda f, *a, **k: f(*a, **k), mp.recompute):
        x, plain = mp.tensor([1.0, 2.0], requires_grad=True), mp.tensor([3.0, 4.0])
        made = way(
            lambda x, k, scale: {"a": x * x * k, "b": (x * scale, 3, None), "x": x}, x, plain, scale=plain
        )
        assert made["x"] is x
        assert made["b"][1:] == (3, None)
        (made["a"].sum() + (made["b"][0] * made["x"]).sum()).backward()
        found.append(x.grad.tolist())
    assert found[0] == found[1]


def slope_of(way: Any, region: Any) -> Bits:
    """Return a slope, under a scale, and the gradient of its square."""
    random = np.random.default_rng(2)
    w = mp.tensor(random.standard_normal((4, 4)), dtype="float32", requires_grad=True)
    x = mp.tensor(random.standard_normal((3, 4)), dtype="float32", requires_grad=True)
    with region:
        y = way(lambda x: functional.dropout((x @ w).tanh(), 0.4) @ w, x)
    (slope,) = mp.grad(y.float().sum() * 64.0, x, create_graph=True)
    (slope * slope).sum().backward()
    return [slope.detach().numpy(), x.grad.numpy(), w.grad.numpy()]


@pytest.mark.parametrize("low", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("cached", [True, False])
def test_second_derivatives_under_autocast(low: str, cached: bool) -> None:
    """Oracle: the ordinary run, bit for bit."""
    found = []
    for way in (lambda f, *a: f(*a), mp.recompute):
        mp.manual_seed(5)
        enabled = low != "float32"
        region = mp.autocast(low if enabled else "float16", enabled=enabled, cache_enabled=cached)
        found.append(slope_of(way, region))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_weight_replaced_behind_a_cast_is_refused(before: bool, times: int) -> None:
    """Oracle: an optimizer's steps after a forward in a region: only the cast saw the weight itself."""
    w = mp.tensor(np.ones((4, 4)), dtype="float32", requires_grad=True)
    with mp.autocast("float16"):
        x = mp.tensor(np.ones((4, 4)), dtype="float32")
        y = x @ w if before else x
        y = mp.recompute(lambda y: (y @ w).tanh(), y)
    for _ in range(times):  # the second array may have the first one's address
        w.array = w.array + 1
    with pytest.raises(GradientError, match=r"a leaf of shape \(4, 4\) was given another array"):
        y.sum().backward()
    assert w.grad is None


def test_a_weight_replaced_inside_the_region_before_the_part() -> None:
    """Oracle: the ordinary run: the region casts it anew, in both runs."""
    found = []
    for way in (lambda f, *a: f(*a), mp.recompute):
        w = mp.tensor(np.eye(4), dtype="float32", requires_grad=True)
        with mp.autocast("float16"):
            x = mp.tensor(np.ones((4, 4)), dtype="float32")
            first = x @ w
            w.array = w.array * 2
            y = way(lambda x, w=w: (x @ w).tanh(), x) + first
        y.sum().backward()
        found.append(w.grad.tolist())
    assert found[0] == found[1]


@pytest.mark.host("numpy() copies from a device")
def test_writing_to_an_argument_changes_nothing_recorded() -> None:
    """Oracle: the gradient without the write; arguments by position and by name, running statistics too."""
    found = []
    for write in (False, True):
        w = mp.tensor(np.eye(3), dtype="float32", requires_grad=True)
        x, k = (mp.tensor(np.arange(9.0).reshape(3, 3) / 9 + i, dtype="float32") for i in range(2))
        mean, var = mp.tensor(np.zeros(3), dtype="float32"), mp.tensor(np.ones(3), dtype="float32")
        y = mp.recompute(lambda x, k, w=w: ((x + 1.0) @ w).tanh() * (k + 1.0), x, k=k)
        y = mp.recompute(functional.batch_norm, y, mean, var, training=True)
        if write:
            x.numpy()[...] = 0
            k.numpy()[...] = 0
        (y * y * y).sum().backward()
        found.append(w.grad.tolist())
        assert not write or not x.numpy().any()
    assert found[0] == found[1]


def test_a_part_keeps_no_low_copies() -> None:
    """Oracle: bytes that a region's casts of two weights take, which are gone when the region is."""
    weights = [mp.tensor(np.ones((64, 64)), dtype="float32", requires_grad=True) for _ in range(2)]

    def run() -> tuple[mp.Tensor, list[Any]]:
        casts: list[Any] = []
        with (
            mp.autocast("float16"),
            listen(lambda e: casts.append(weakref.ref(e.outputs[0])) if e.node.op.name == "cast" else None),
        ):
            x = mp.recompute(
                lambda x: (x @ weights[0]).tanh() @ weights[1], mp.tensor(np.ones((2, 64)), dtype="float32")
            )
        return x, casts

    y, casts = run()
    assert len(casts) >= 2
    assert [c for c in casts if c() is not None and c().size == 64 * 64] == []
    y.sum().backward()
    assert all(w.grad is not None for w in weights)


def test_hooks_and_retained_gradients_inside_a_part() -> None:
    """Oracle: one call with the gradient of the first run's tensor; the second run's are never reached."""
    seen: list[Any] = []
    kept: list[mp.Tensor] = []

    def part(x: mp.Tensor) -> mp.Tensor:
        y = x * x
        y.register_hook(lambda g: seen.append(g.tolist()))
        y.retain_grad()
        kept.append(y)
        return y * y

    x = mp.tensor([2.0], requires_grad=True)
    mp.recompute(part, x).backward()
    assert seen == [[8.0]]
    assert [None if y.grad is None else y.grad.tolist() for y in kept] == [[8.0], None]


def test_the_backend_of_the_first_run() -> None:
    """Oracle: the name in force in both runs, wherever backward runs."""
    names: list[str] = []

    def part(x: mp.Tensor) -> mp.Tensor:
        names.append(MODES.get().backend)
        return x * x

    x = mp.tensor([2.0], requires_grad=True)
    y = mp.recompute(part, x)
    with setting(backend="elsewhere"):
        y.backward()
    assert names == [default_backend().name] * 2


@pytest.mark.parametrize("region", [None, "float16"])
def test_a_function_that_finds_another_layer_is_refused(region: str | None) -> None:
    """Oracle: the message; bound, the same loop gives the ordinary run's gradients."""
    layers = [nn.Linear(3, 3) for _ in range(2)]

    def run(bound: bool) -> list[Any]:
        x = mp.tensor(np.ones((2, 3), np.float32), requires_grad=True)
        with mp.autocast(region) if region else mp.enable_grad():
            for layer in layers:
                layer(x)  # a cast that the region keeps
            for layer in layers:
                loose = lambda x: layer(x).tanh()  # noqa: B023, E731 - that is the mistake
                x = mp.recompute((lambda x, layer=layer: layer(x).tanh()) if bound else loose, x)
            loss = x.sum()
        for layer in layers:
            layer.weight.grad = None
        loss.backward()
        return [layer.weight.grad.numpy() for layer in layers]

    with pytest.raises(GradientError, match=r"linear \(2, 3\) read another leaf"):
        run(bound=False)
    assert all(np.any(grad) for grad in run(bound=True))
