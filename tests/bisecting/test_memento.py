"""What a run changes is put back; oracle: bytes, values and identities from before."""

from __future__ import annotations

import random
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.bisecting import Memento


class Slotted:
    """Attributes in slots, one of them not there at first."""

    __slots__ = ("later", "name")

    def __init__(self) -> None:
        self.name = "before"


class Owner:
    """An object with a list inside, a method that changes it, and a property."""

    def __init__(self) -> None:
        self.items, self.total = [1, 2], 0

    def grow(self) -> None:
        """Change what it has."""
        self.items.append(3)
        self.total += 1
        self.fresh = True


def change_dict(held: Any) -> None:
    """Replace, add and take away."""
    held["a"] = 5
    held["c"] = 6
    del held["b"]


def in_place(array: Any) -> None:
    """Write into an array."""
    array += 1.0


def frozen_after(array: Any) -> None:
    """Write into an array, then freeze it."""
    array += 1.0
    array.setflags(write=False)


def frozen_whole(array: Any) -> None:
    """Write into a view, then freeze it and what it is a view of."""
    frozen_after(array)
    array.base.setflags(write=False)


def locked(array: Any) -> Any:
    """A view that is not to be written to."""
    seen = array[:]
    seen.setflags(write=False)
    return seen


def slots(held: Slotted) -> None:
    """Set what was there and what was not."""
    held.name, held.later = "after", 1


def gradient(x: Any) -> None:
    """Give a leaf another array and a gradient."""
    (x * x).sum().backward()
    x.array = x.array * np.float32(2.0)


def view(held: Any) -> tuple[Any, ...]:
    """What is there, to be compared."""
    if isinstance(held, np.ndarray):
        return (held.tobytes(),)
    if isinstance(held, mp.Tensor):
        return id(held.array), held.array.tobytes(), held.grad, held.requires_grad
    if isinstance(held, Slotted):
        return held.name, getattr(held, "later", None)
    if isinstance(held, Owner):
        return id(held.items), [*held.items], held.total, hasattr(held, "fresh")
    if isinstance(held, np.random.Generator | np.random.RandomState | random.Random):
        name = "getstate" if isinstance(held, random.Random) else "get_state"
        return (repr(getattr(held, name)() if hasattr(held, name) else held.bit_generator.state),)
    return type(held), [*held.items()] if isinstance(held, dict) else [*held]


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: {"a": 1, "b": 2}, change_dict),
        (lambda: OrderedDict(a=1, b=2), change_dict),
        (lambda: [1, 2], lambda held: held.append(3)),
        (lambda: [3, 1], lambda held: held.sort()),
        (lambda: deque([1, 2]), lambda held: held.popleft()),
        (lambda: {1, 2}, lambda held: held.add(3)),
        (lambda: np.arange(4.0), in_place),
        (lambda: np.arange(4.0)[::2], in_place),
        (lambda: np.arange(4.0), frozen_after),
        (lambda: mp.tensor([1.0, 2.0], requires_grad=True), gradient),
        (lambda: locked(np.arange(4.0)), lambda held: in_place(held.base)),
        (lambda: np.arange(8.0)[::2], frozen_whole),
        (Slotted, slots),
        (Owner, Owner.grow),
        (lambda: np.random.default_rng(0), lambda held: held.random()),
        (lambda: np.random.RandomState(0), lambda held: held.rand()),
        (lambda: random.Random(0), lambda held: held.random()),
    ],
)
@pytest.mark.parametrize("reached", ["closure", "default", "partial", "method", "container", "attribute"])
def test_each_kind_of_object_is_put_back_however_it_is_reached(
    make: Callable[[], Any], change: Callable[[Any], Any], reached: str
) -> None:
    """Oracle: the same object, with what it had; and the change does change it."""
    held = make()
    holder = type("Holder", (), {"go": lambda self: change(self.held)})()
    holder.held = held
    run: Any = {
        "closure": lambda: change(held),
        "default": lambda x=held: change(x),
        "partial": partial(change, held),
        "method": holder.go,
        "container": lambda box=({"x": [held]},): change(box[0]["x"][0]),
        "attribute": lambda: change(holder.held),
    }[reached]
    before, memento = view(held), Memento([run])
    for _ in range(2):
        run()
        assert view(held) != before
        memento.restore()
        assert view(held) == before
        assert holder.held is held


VARIABLE = 1


def helper() -> None:
    """Change a global of this module."""
    global VARIABLE  # noqa: PLW0603 - what is put back
    VARIABLE += 1


def test_variables_are_put_back_also_those_of_functions_that_are_called() -> None:
    """Oracle: a global two calls away, a variable of the function around, three kinds of random numbers."""
    local, legacy = 1, np.random.mtrand._rand

    def run() -> None:
        nonlocal local
        local += 1
        partial(helper)()
        np.random.random()  # noqa: NPY002 - what is put back
        random.random()
        mp.rng.generator().random()

    def state() -> tuple[Any, ...]:
        return VARIABLE, local, repr(legacy.get_state()), random.getstate(), mp.get_rng_state()

    before, memento = state(), Memento([run])
    run()
    assert VARIABLE == 2
    assert all(now != then for now, then in zip(state(), before, strict=True))
    memento.restore()
    assert state() == before


def test_what_is_fixed_is_not_copied() -> None:
    """Oracle: a read-only array costs no copy: nothing is kept of it."""
    data = np.zeros(1000)
    data.setflags(write=False)
    fixed, free = Memento([data]), Memento([np.zeros(1000)])
    assert len(free._restores) == len(fixed._restores) + 1
