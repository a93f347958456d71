"""One program for each known defect of a framework's autocast, for minimp and for PyTorch alike.

A program speaks to a library through the few names of :class:`Ours`; those of PyTorch are in
`tests/parity/test_autocast_semantics.py`.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import minimp as mp
from minimp.backend import default_backend
from minimp.errors import FormatError, SettingError
from minimp.modes import DEFAULT_MODES, MODES

Pair = namedtuple("Pair", "first second")  # noqa: PYI024 - the kind that has no types, as in the wild


class Ours:
    """minimp, as the programs speak to it."""

    refusals: tuple[type[Exception], ...] = (FormatError, SettingError)
    no_grad = mp.no_grad
    Function = mp.Function
    custom_bwd = staticmethod(mp.custom_bwd)

    def __init__(self, policy: str = "torch-cpu", **options: Any) -> None:
        self.options = {"policy": policy, **options}
        self.backend = default_backend()  # in threads too

    def region(self, low: str = "bfloat16", **options: Any) -> Any:
        """Return an autocast region."""
        return mp.autocast(low, **self.options, **options)

    def custom_fwd(self, cast_inputs: str) -> Any:
        """Return the decorator of a Function's forward."""
        return mp.custom_fwd(cast_inputs=cast_inputs)

    def leaf(self, value: float) -> Any:
        """Return a 1 x 1 float32 weight."""
        return mp.tensor([[value]], requires_grad=True, backend=self.backend.name)

    def const(self, value: float, low: str = "float32") -> Any:
        """Return a 1 x 1 constant."""
        return mp.tensor([[value]], dtype=low, backend=self.backend.name)

    def change(self, weight: Any, value: float) -> None:
        """Give a weight another value, as an optimizer does."""
        weight.array = weight.array * 0 + weight.backend.xp.asarray(value, weight.array.dtype)

    def format(self, x: Any) -> str:
        """Return the name of a tensor's format."""
        return str(x.format)

    def promoted(self, *inputs: Any) -> Any:
        """Run an op that promotes."""
        cpu = self.options["policy"] == "torch-cpu"
        return mp.functional.cat(inputs) if cpu else mp.OPS["atan2"](*inputs)

    def grad(self, y: Any, x: Any, create_graph: bool = False) -> Any:
        """Return dy/dx."""
        return mp.grad(y, x, create_graph=create_graph)[0]

    def enabled(self) -> bool:
        """Tell whether autocast acts."""
        return mp.is_autocast_enabled()

    def reset(self) -> None:
        """Leave every region."""
        MODES.set(replace(DEFAULT_MODES, backend=self.backend.name))


def _product(lib: Any) -> str:
    """Return the format in which a product of float32 constants comes out."""
    return str(lib.format(lib.const(1.0) @ lib.const(1.0)))


def _tried(lib: Any, compute: Callable[[], Any]) -> str:
    """Return the format of a result, or "refused"."""
    try:
        return str(lib.format(compute()))
    except lib.refusals:
        return "refused"


def nested_formats(lib: Any) -> list[str]:
    """Use a weight in a bfloat16 region, and in a float16 region inside: alone, and with itself."""
    w, one = lib.leaf(1.0), lib.const(1.0)
    with lib.region():
        first = _tried(lib, lambda: one @ w)
        with lib.region("float16"):
            return [first, _tried(lib, lambda: one @ w), _tried(lib, lambda: w @ w)]


def changed_weight(lib: Any) -> list[float]:
    """Use a weight, change it, use it again, all in one region."""
    w, one = lib.leaf(1.0), lib.const(1.0)
    with lib.region():
        before = (one @ w).item()
        with lib.no_grad():
            lib.change(w, 3.0)
        return [before, (one @ w).item()]


def beside_a_thread(lib: Any) -> list[Any]:
    """Use a weight twice; between the uses another thread has a region of its own, in the other format."""
    w, seen = lib.leaf(1.0), []

    def other() -> None:
        with lib.region("float16"):
            seen.append(_tried(lib, lambda: lib.const(1.0) @ w))

    with lib.region():
        y = lib.const(256.0) @ w
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=60)
        y = y + lib.const(1.0) @ w
    y.sum().backward()
    return [*seen, w.grad.item()]


def unsupported_formats(lib: Any) -> list[Any]:
    """Open regions in formats that no region has: warnings, whether it acts, and the format of a product."""
    found: list[Any] = []
    for low in ("float32", "float64", "float8_e4m3fn", "int8"):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                with lib.region(), lib.region(low):
                    found.append((len(said), lib.enabled(), _product(lib)))
            except lib.refusals:
                found.append("refused")
    return found


def unchecked_formats(lib: Any) -> list[Any]:
    """Open CUDA regions in formats that no region has: products, a softmax, and promotion."""
    one, low = lib.const(1.0), lib.const(1.0, "float16")
    found: list[Any] = []
    for name in ("float32", "float64"):
        try:
            with lib.region(name):
                made = [one @ one, low @ one, low.softmax(-1)]
                promoted = _tried(lib, lambda: lib.promoted(low, one))
                found.append([*map(lib.format, made), promoted])
        except lib.refusals:
            found.append("refused")
    return found


def promotion(lib: Any) -> list[str]:
    """Promote float32 with the other low format, in both orders."""
    one, other = lib.const(1.0), lib.const(1.0, "float16")
    with lib.region():
        return [_tried(lib, lambda pair=pair: lib.promoted(*pair)) for pair in ((one, other), (other, one))]


def entered_twice(lib: Any) -> list[str]:
    """Enter a region inside itself, then recurse into a decorated function; look at what is left behind."""
    region = lib.region()
    with region, region:
        pass
    found = [_product(lib)]
    lib.reset()

    @lib.region()
    def recurse(depth: int) -> None:
        if depth:
            recurse(depth - 1)

    recurse(0)
    found.append(_product(lib))
    recurse(1)
    found.append(_product(lib))
    lib.reset()
    return found


def decorated_generator(lib: Any) -> list[str]:
    """Decorate a generator function and an async function."""

    @lib.region()
    def steps() -> Iterator[str]:
        yield _product(lib)
        yield _product(lib)

    found = list(steps())
    try:

        @lib.region()
        async def task() -> str:
            return _product(lib)

        found.append(asyncio.run(task()))
    except lib.refusals:
        found.append("refused")
    return found


def second_derivative(lib: Any) -> float:
    """d2 (a b)^2 / da db = 4 a b of a Function that saves its cast inputs; a = 2, b = 3."""

    class Product(lib.Function):  # type: ignore[misc,name-defined]  # the library's own base
        @staticmethod
        @lib.custom_fwd("bfloat16")
        def forward(ctx: Any, a: Any, b: Any) -> Any:
            ctx.save_for_backward(a, b)
            return a * b

        @staticmethod
        @lib.custom_bwd
        def backward(ctx: Any, grad: Any) -> Any:
            a, b = ctx.saved_tensors
            return grad * b, grad * a

    a, b = lib.leaf(2.0), lib.leaf(3.0)
    with lib.region():
        y = Product.apply(a, b)
    slope = lib.grad((y * y).sum(), a, create_graph=True)
    return float(lib.grad(slope.sum(), b).item())


def containers(lib: Any) -> list[str]:
    """Give containers of tensors to a forward under custom_fwd: what comes in."""
    seen: list[Any] = []

    @lib.custom_fwd("bfloat16")
    def forward(ctx: Any, x: Any) -> None:
        seen.append(x)

    x, found = lib.const(1.0), []
    for given in ([(x, 3)], {"key": [x]}, Pair(x, 3), {1, 2}, "text"):
        seen.clear()
        try:
            with lib.region():
                forward(SimpleNamespace(), given)
            found.append(type(seen[0]).__name__)
        except lib.refusals:
            found.append("refused")
    return found


def backward_inside(lib: Any) -> float:
    """Call backward of a float32 product inside a region: the gradient is 1 + 2^-12, which bfloat16 lacks."""
    w = lib.leaf(1.0)
    y = (lib.const(1 + 2.0**-12) @ w).sum()
    with lib.region():
        y.backward()
    return float(w.grad.item() - 1)


def beside_a_task(lib: Any) -> list[str]:
    """Run a task outside of regions while another one waits inside of one."""

    async def inside() -> None:
        with lib.region():
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def outside() -> str:
        await asyncio.sleep(0)
        return _product(lib)

    async def both() -> str:
        return (await asyncio.gather(inside(), outside()))[1]

    found = [asyncio.run(both())]
    lib.reset()
    return found


@dataclass(frozen=True)
class Case:
    """A program, what minimp makes of it, and what the framework with the defect does."""

    program: Callable[[Any], Any]
    right: Any
    wrong: Any


SWITCHED_OFF = (1, False, "float32")
CASES = {
    "cache-ignores-format": Case(
        nested_formats, ["bfloat16", "float16", "float16"], ["bfloat16", "refused", "bfloat16"]
    ),
    "cache-ignores-changes": Case(changed_weight, [1.0, 3.0], [1.0, 1.0]),
    "cache-shared-by-threads": Case(beside_a_thread, ["float16", 256.0], ["refused", 257.0]),
    "unsupported-dtype-switches-off": Case(unsupported_formats, ["refused"] * 4, [SWITCHED_OFF] * 4),
    "dtype-unchecked": Case(
        unchecked_formats,
        ["refused"] * 2,
        [["float32"] * 4, ["float64", "float64", "float32", "refused"]],
    ),
    "promotion-goes-by-order": Case(promotion, ["refused", "refused"], ["float32", "refused"]),
    "reentry-leaves-region-on": Case(entered_twice, ["float32"] * 3, ["bfloat16", "float32", "bfloat16"]),
    "decorated-generator-runs-outside": Case(
        decorated_generator, ["bfloat16", "bfloat16", "refused"], ["float32"] * 3
    ),
    "custom-fwd-loses-derivatives": Case(second_derivative, 24.0, 12.0),
    "custom-fwd-spoils-containers": Case(
        containers, ["list", "dict", "Pair", "set", "str"], ["list", "dict", "refused", "generator", "str"]
    ),
    "backward-obeys-region": Case(backward_inside, 2.0**-12, 0.0),
    "tasks-share-a-region": Case(beside_a_task, ["float32"], ["bfloat16"]),
}
