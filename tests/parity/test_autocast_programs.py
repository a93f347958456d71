"""PyTorch's own tests of what a region does to programs, by their description: one program, both libraries.

They are named in PyTorch's test/test_autocast.py and test/test_cuda.py: a decorated method, several formats
in one region, custom functions with cast_inputs, checkpoints, recurrences, and weights first used under
no_grad. The region is the CPU's, run for real in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minimp as mp
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

LOW = ("bfloat16", "float16")


class Ours:
    """minimp, as the programs speak to it."""

    nn, no_grad, Function, tensor = mp.nn, mp.no_grad, mp.Function, staticmethod(mp.tensor)
    custom_bwd, cat = staticmethod(mp.custom_bwd), staticmethod(mp.functional.cat)
    checkpoint = staticmethod(mp.recompute)

    @staticmethod
    def region(low: str, **options: Any) -> Any:
        """Return a region."""
        return mp.autocast(low, policy="torch-cpu", **options)

    @staticmethod
    def custom_fwd(cast_inputs: str | None) -> Any:
        """Return the decorator."""
        return mp.custom_fwd(cast_inputs=cast_inputs)

    @staticmethod
    def set(param: Any, values: np.ndarray[Any, Any]) -> None:
        """Give a parameter its values."""
        param.array = values


class Theirs:
    """PyTorch, as the programs speak to it."""

    nn, no_grad, Function, tensor = (
        torch.nn,
        torch.no_grad,
        torch.autograd.Function,
        staticmethod(torch.tensor),
    )
    custom_bwd, cat = staticmethod(torch.amp.custom_bwd(device_type="cpu")), staticmethod(torch.cat)

    @staticmethod
    def region(low: str, **options: Any) -> Any:
        """Return a region."""
        return torch.autocast("cpu", getattr(torch, low), **options)

    @staticmethod
    def custom_fwd(cast_inputs: str | None) -> Any:
        """Return the decorator."""
        target = None if cast_inputs is None else getattr(torch, cast_inputs)
        return torch.amp.custom_fwd(device_type="cpu", cast_inputs=target)

    @staticmethod
    def checkpoint(function: Callable[..., Any], *args: Any) -> Any:
        """Run a part that is run again in backward."""
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)

    @staticmethod
    def set(param: Any, values: np.ndarray[Any, Any]) -> None:
        """Give a parameter its values."""
        param.data = torch.tensor(values)


Lib = type[Ours] | type[Theirs]
TOLERANCE = {"bfloat16": "parity_gradient_bf16", "float16": "parity_gradient_fp16"}


def formats_and_values(results: Any) -> tuple[list[str], list[Any]]:
    """Return the formats of tensors, and their values in float64."""
    names = [str(each.dtype).removeprefix("torch.") for each in results]
    arrays = [np.asarray(each.detach().tolist(), np.float64) for each in results]
    return names, arrays


def same(program: Callable[[Lib, str], Iterator[Any]], low: str) -> list[str]:
    """Run a program in both; compare the formats of all it yields, and the values; return the formats."""
    ours, theirs = (formats_and_values(list(program(lib, low))) for lib in (Ours, Theirs))
    assert ours[0] == theirs[0]
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert_close(a, b, TOLERANCE[low])
    return ours[0]


def numbers(*shape: int) -> np.ndarray[Any, Any]:
    """Return the same random numbers for the same shape."""
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def filled(lib: Lib, module: Any) -> Any:
    """Give a module the same weights in both."""
    for i, (_, param) in enumerate(module.named_parameters()):
        lib.set(param, np.random.default_rng(i).uniform(-0.5, 0.5, tuple(param.shape)).astype(np.float32))
    return module


@pytest.mark.parametrize("low", LOW)
def test_a_decorated_method_has_its_own_region(low: str) -> None:
    """Oracle: PyTorch: low inside the method, whoever calls it; float32 around it and in the gradients."""

    def program(lib: Lib, low: str) -> Iterator[Any]:
        class Net(lib.nn.Module):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                super().__init__()
                self.inner, self.outer = lib.nn.Linear(8, 4), lib.nn.Linear(4, 3)

            @lib.region(low)  # type: ignore[untyped-decorator]
            def low_part(self, x: Any) -> Any:
                return self.inner(x)

            @lib.region(low, enabled=False)  # type: ignore[untyped-decorator]
            def exact_part(self, x: Any) -> Any:
                return self.outer(x.float())

            def forward(self, x: Any) -> Any:
                self.hidden = self.low_part(x)
                return self.exact_part(self.hidden)

        net = filled(lib, Net())
        x = lib.tensor(numbers(5, 8))
        y = net(x)
        yield from (net.hidden, y)
        with lib.region(low):
            z = net(x)
        yield from (net.hidden, z)
        (y.sum() + z.sum()).backward()
        yield from (p.grad for p in net.parameters())

    assert same(program, low) == [low, "float32", low, "float32", *["float32"] * 4]


@pytest.mark.parametrize("low", LOW)
def test_several_formats_in_one_region(low: str) -> None:
    """Oracle: PyTorch: float32 and low meet in listed ops, the wider wins elsewhere, float64 stays alone."""

    def program(lib: Lib, low: str) -> Iterator[Any]:
        a = lib.tensor(numbers(4, 4), requires_grad=True)
        double = lib.tensor(numbers(4, 4).astype(np.float64), requires_grad=True)
        with lib.region(low):
            b = a @ a
            c = b.float() @ b
            d = double @ double
            e = (b + a, b + b, b.float() + c, lib.cat([b, a]), lib.cat([b, c]), d + d)
            f = (b.softmax(-1), b.exp(), b.relu(), b.sum(), d.exp(), b * 2.0, double * 2.0)
        total: Any = sum(each.float().sum() for each in (*e, *f))
        total.backward()
        yield from (b, c, d, *e, *f, a.grad, double.grad)

    same(program, low)


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("cast_inputs", [None, "float32", "float16", "bfloat16"])
def test_custom_functions_are_cast_as_they_ask(cast_inputs: str | None, low: str) -> None:
    """Oracle: PyTorch: what forward and backward see, inside and outside of a region; the gradients."""

    def program(lib: Lib, low: str) -> Iterator[Any]:
        seen: list[Any] = []

        class Product(lib.Function):  # type: ignore[name-defined, misc]
            @staticmethod
            @lib.custom_fwd(cast_inputs)  # type: ignore[untyped-decorator]
            def forward(ctx: Any, a: Any, b: Any, scale: float) -> Any:
                ctx.save_for_backward(a, b)
                ctx.scale = scale
                seen.append(a)
                return (a @ b) * scale

            @staticmethod
            @lib.custom_bwd  # type: ignore[untyped-decorator]
            def backward(ctx: Any, grad: Any) -> Any:
                a, b = ctx.saved_tensors
                seen.append(grad)
                by_a = (grad @ b.T) * ctx.scale
                seen.append(by_a)
                return by_a, (a.T @ grad) * ctx.scale, None

        for inside in (True, False):
            a, b = (lib.tensor(numbers(*s), requires_grad=True) for s in ((3, 4), (4, 2)))
            with lib.region(low, enabled=inside):
                y = Product.apply(a, b, 2.0)
            y.float().sum().backward()
            yield from (y, a.grad, b.grad)
        yield from seen

    same(program, low)


@pytest.mark.parametrize("low", LOW)
def test_a_checkpoint_runs_again_in_its_region(low: str) -> None:
    """Oracle: PyTorch's checkpoint; in each library the gradients of the ordinary run, bit for bit."""

    def program(lib: Lib, low: str) -> Iterator[Any]:
        for again in (False, True):
            net = filled(lib, lib.nn.Sequential(lib.nn.Linear(8, 8), lib.nn.Tanh(), lib.nn.Linear(8, 4)))
            x = lib.tensor(numbers(3, 8), requires_grad=True)
            with lib.region(low):
                y = lib.checkpoint(net, x) if again else net(x)
            y.float().sum().backward()
            yield from (y, x.grad, *(p.grad for p in net.parameters()))

    same(program, low)
    for lib in (Ours, Theirs):
        _, found = formats_and_values(list(program(lib, low)))
        half = len(found) // 2
        for a, b in zip(found[:half], found[half:], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrences_in_a_region(kind: str, bias: bool) -> None:
    """Oracle: PyTorch: formats of outputs, states and gradients; values near; two layers, both directions."""

    def program(lib: Lib, low: str) -> Iterator[Any]:
        layer = getattr(lib.nn, kind)(3, 4, num_layers=2, bias=bias, bidirectional=True)
        net = filled(lib, layer)
        x = lib.tensor(numbers(5, 2, 3), requires_grad=True)
        with lib.region(low):
            y, state = net(x)
        y.float().sum().backward()
        yield from (y, *(state if isinstance(state, tuple) else (state,)))
        yield from (x.grad, *(p.grad for p in net.parameters()))

    ours, theirs = (formats_and_values(list(program(lib, "bfloat16"))) for lib in (Ours, Theirs))
    assert ours[0] == theirs[0]
    for a, b in zip(ours[1], theirs[1], strict=True):
        assert_close(a, b, "parity_module_bf16")


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("cache", [True, False])
def test_a_weight_first_used_under_no_grad_keeps_its_gradient(cache: bool, low: str) -> None:
    """Oracle: PyTorch 2.13.0: a forward under no_grad inside the region, then one that is recorded."""

    def program(lib: Lib, low: str) -> Iterator[Any]:
        net = filled(lib, lib.nn.Linear(4, 2))
        x = lib.tensor(numbers(3, 4))
        with lib.region(low, cache_enabled=cache):
            with lib.no_grad():
                quiet = net(x)
            loss = net(x).float().sum()
        loss.backward()
        yield from (quiet, loss, *(p.grad for p in net.parameters()))

    assert same(program, low) == [low, "float32", "float32", "float32"]
