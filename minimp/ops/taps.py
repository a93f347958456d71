"""Taps: places in the graph where the gradients of several tensors are seen together, and may be replaced.

A tap changes no bit of what flows through it. Its tensors meet in one *gate*, a recorded 0 that depends on
all of them; from the gate hangs one *outlet* for each tensor, with the tensor's values. In backward the
outlets come first and hand their gradients in; the gate, older than they, comes when all that will arrive
have arrived, and passes them on::

    x1 ──┐        ┌── outlet 1 ──> module
    x2 ──┴─ gate ─┴── outlet 2 ──>

The two ops are no ops of the table: no policy rules them, and they compute nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minimp.door import Op
from minimp.modes import is_grad_enabled
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node, Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["tap"]

Grads = tuple[Any, ...]  # of tensors and None


@dataclass(eq=False)
class _Meeting:
    """What the outlets of one tap hand in during a backward pass, and who looks at it."""

    see: Callable[[Grads], Grads]
    length: int
    backend: Any
    kinds: dict[int, tuple[tuple[int, ...], Any]]  # place -> shape and dtype
    found: dict[int, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{len(self.kinds)} tensors"

    def close(self) -> list[Tensor | None]:
        """Show all gradients, zeros where none arrived, and return what is to be passed on."""
        seen: list[Any] = [None] * self.length
        for place, (shape, dtype) in self.kinds.items():
            got = self.found.get(place)
            raw = self.backend.xp.zeros(shape, dtype) if got is None else got
            seen[place] = raw.tensor if hasattr(raw, "tensor") else Value.make(raw, self.backend)
        self.found = {}
        passed = self.see(tuple(seen))
        return [passed[place] for place in self.kinds]


def tap_gate(ctx: Node, *arrays: Array, meeting: _Meeting) -> Array:
    """0, depending on every input."""
    return ctx.backend.xp.zeros((), arrays[0].dtype)


def _pass_on(ctx: Node, grad: Array, *, meeting: _Meeting) -> tuple[Any, ...]:
    """Return the gradients that were handed in, after they were shown."""
    passed = meeting.close()
    if hasattr(grad, "tensor"):  # backward is being recorded: gradients are arrays that record
        return tuple(None if x is None else type(grad)(x) for x in passed)
    return tuple(None if x is None else x.array for x in passed)


def tap_outlet(ctx: Node, gate: Array, x: Array, *, meeting: _Meeting, place: int) -> Array:
    """x, bit for bit."""
    return x


def _hand_in(ctx: Node, grad: Array, *, meeting: _Meeting, place: int) -> tuple[Any, ...]:
    """Keep the gradient for the gate, which gets a 0 so that its turn comes."""
    meeting.found[place] = grad
    return ctx.backend.xp.zeros((), grad.dtype), None


GATE = Op(tap_gate, CastClass.KEEP, Mixed.KEEP, "exact")
GATE.backward_rule = _pass_on
OUTLET = Op(tap_outlet, CastClass.KEEP, Mixed.KEEP, "exact")
OUTLET.backward_rule = _hand_in


def tap(values: tuple[Any, ...], see: Callable[[Grads], Grads]) -> tuple[Any, ...] | None:
    """Pass the tensors among `values` through a tap; None if none of them is being recorded.

    Args:
        values: tensors that need a gradient, and anything else, which passes as it is.
        see: called in each backward pass that reaches one of them, with a gradient for each of them and None
            for everything else; returns what is passed on, of the same length.
    """
    places = [i for i, x in enumerate(values) if isinstance(x, Value) and x.requires_grad]
    if not places or not is_grad_enabled():
        return None
    kinds = {i: (values[i].shape, values[i].array.dtype) for i in places}
    meeting = _Meeting(see, len(values), values[places[0]].backend, kinds)
    gate = GATE(*(values[i] for i in places), meeting=meeting)
    out = list(values)
    for i in places:
        out[i] = OUTLET(gate, Value.make(values[i].array, values[i].backend), meeting=meeting, place=i)
    return type(values)(*out) if hasattr(values, "_fields") else tuple(out)
