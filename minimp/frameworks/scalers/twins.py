"""One GradScaler of each library, side by side: the same calls, and after each all that can be seen."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minimp.frameworks.scalers.refusals import kind_of_refusal
from minimp.frameworks.sides import Side, show

__all__ = ["OPTIMIZERS", "PARAMETERS", "Call", "Parting", "ScalerSide", "Twins"]

PARAMETERS = (("float32", 3), ("float32", 1), ("bfloat16", 2), ("float64", 2), ("float16", 2))
"""Format and size of each parameter; gradients in float16 cannot be unscaled."""
OPTIMIZERS = ((0, 1), (2, 3), (4, 1))
"""Which parameters each optimizer has; parameter 1 is in two of them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a trace: a method of :class:`ScalerSide`, and its arguments."""

    name: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """Write it as a call."""
        return f"{self.name}({', '.join(map(repr, self.args))})"


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two scalers part: after which call, and what is seen in each.

    Attributes:
        number: how many calls were made, this one included.
        call: the call.
        what: what differs: ``"scale"``.
        ours, theirs: what is seen.
    """

    number: int
    call: Call
    what: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        """Say it in a line."""
        return f"call {self.number}, {self.call}: {self.what} is {self.ours}, in PyTorch {self.theirs}"


@cache
def _counted(base: Any) -> Any:
    """Return an SGD that counts its steps and returns what it was given."""

    class Counted(base):  # type: ignore[misc]  # one of two, only one of which has types
        steps = 0

        def step(self, closure: Any = None) -> Any:
            self.steps += 1
            super().step()
            return None if closure is None else closure()

    return Counted


class ScalerSide:
    """One library's scaler over parameters in several optimizers: w <- w - g, so that weights tell all.

    Args:
        side: the library.
        settings: of its scaler.
    """

    def __init__(self, side: Side, settings: Mapping[str, Any]) -> None:
        self.side = side
        rng = np.random.default_rng(7)
        self.parameters = [
            side.tensor(rng.standard_normal(size), dtype, requires_grad=True) for dtype, size in PARAMETERS
        ]
        own = {"master_weights": False} if side.name == "minimp" else {}
        kind = _counted(side.optim.SGD)
        self.optimizers = [kind([self.parameters[i] for i in each], lr=1.0, **own) for each in OPTIMIZERS]
        self.scaler = side.scaler(**settings)

    # ---- calls --------------------------------------------------------------------------------------------

    def scale(self, value: float, dtype: str, shape: tuple[int, ...]) -> str:
        """Scale a tensor; give the product and its format."""
        scaled = self.scaler.scale(self.side.tensor(np.full(shape, value), dtype))
        return f"{show(self.side.wide(scaled))} {self.side.format_of(scaled)}"

    def scale_anything(self, outputs: Any) -> str:
        """Scale what has no tensor in it."""
        return repr(self.scaler.scale(outputs))

    def gradients(self, index: int, values: list[float] | None) -> str:
        """Give a parameter a gradient, or none."""
        dtype, size = PARAMETERS[index]
        grad = None if values is None else self.side.tensor(np.resize(np.array(values), size), dtype)
        self.parameters[index].grad = grad
        return ""

    def unscale_(self, index: int) -> str:
        """Unscale an optimizer's gradients."""
        self.scaler.unscale_(self.optimizers[index])
        return ""

    def step(self, index: int, *args: Any, **options: Any) -> str:
        """Step an optimizer; give what it returned."""
        result = self.scaler.step(self.optimizers[index], *args, **options)
        return repr(getattr(result, "returned", result))

    def step_with_closure(self, index: int) -> str:
        """Step with a closure given by keyword."""
        return self.step(index, closure=float)

    def update(self, *value: float) -> str:
        """Move the scale, or set it to a Python number."""
        self.scaler.update(*value)
        return ""

    def update_with_tensor(self, value: float, shape: tuple[int, ...]) -> str:
        """Set the scale to a tensor of float32."""
        self.scaler.update(self.side.tensor(np.full(shape, value, np.float32)))
        return ""

    def load_state_dict(self, state: Mapping[str, Any]) -> str:
        """Load a state."""
        self.scaler.load_state_dict(dict(state))
        return ""

    def copy(self) -> str:
        """Go on with a copy."""
        self.scaler = copy.deepcopy(self.scaler)
        return ""

    def set(self, name: str, value: float) -> str:
        """Set the growth factor, the backoff factor or the growth interval; give it as it is read."""
        getattr(self.scaler, f"set_{name}")(value)
        return repr(getattr(self.scaler, f"get_{name}")())

    # ---- what can be seen ---------------------------------------------------------------------------------

    def make(self, call: Call) -> dict[str, Any]:
        """Make a call, and return all that can be seen afterwards, how it ended first."""
        try:
            result = getattr(self, call.name)(*call.args)
        except self.side.refusals as fault:
            result = f"refused: {kind_of_refusal(fault)}"
        return {"result": result} | self.seen()

    def seen(self) -> dict[str, Any]:
        """Return the scaler's state and scale, the optimizers' steps, all parameters and gradients."""
        wide = self.side.wide
        found: dict[str, Any] = {f"state_dict {k}": repr(v) for k, v in self.scaler.state_dict().items()}
        found["scale"] = repr(self.scaler.get_scale())
        for i, optimizer in enumerate(self.optimizers):
            found[f"steps of optimizer {i}"] = optimizer.steps
        for i, parameter in enumerate(self.parameters):
            found[f"parameter {i}"] = _bits(wide(parameter))
            grad = parameter.grad
            found[f"gradient {i}"] = None if grad is None else (self.side.format_of(grad), *_bits(wide(grad)))
        return found


def _bits(array: np.ndarray[Any, Any]) -> tuple[float | str, ...]:
    """Return values that are equal only if the bits are; all NaN are one."""
    return tuple("nan" if np.isnan(x) else x.hex() for x in array.ravel().tolist())


class Twins:
    """Both scalers. Once they have parted, further calls do nothing.

    Attributes:
        ours, theirs: the two.
        parting: where they parted, or None.
        calls: how many calls were compared.
        steps, skips: how many of them were steps, and how many of these were skipped, in both.
        refused: how often each kind of refusal was met, in both.
    """

    def __init__(self, ours: Side, theirs: Side, settings: Mapping[str, Any]) -> None:
        self.ours, self.theirs = ScalerSide(ours, settings), ScalerSide(theirs, settings)
        self.parting: Parting | None = None
        self.calls = self.steps = self.skips = 0
        self.refused: Counter[str] = Counter()

    def call(self, name: str, *args: Any) -> None:
        """Make a call in both, and compare what it gave and what can be seen then."""
        self._each(Call(name, args), args, args)

    def swap_states(self) -> None:
        """Let each load what the other one saved."""
        mine, other = self.ours.scaler.state_dict(), self.theirs.scaler.state_dict()
        self._each(Call("load_state_dict", ("the other's",)), (other,), (mine,))

    def _each(self, call: Call, ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
        if self.parting is not None:
            return
        self.calls += 1
        before = [optimizer.steps for optimizer in self.theirs.optimizers]
        mine = self.ours.make(Call(call.name, ours))
        other = self.theirs.make(Call(call.name, theirs))
        for what in dict.fromkeys((*mine, *other)):
            if mine.get(what, "absent") != other.get(what, "absent"):
                self.parting = Parting(self.calls, call, what, str(mine.get(what)), str(other.get(what)))
                return
        self._count(call, mine["result"], before == [optimizer.steps for optimizer in self.theirs.optimizers])

    def _count(self, call: Call, result: str, idle: bool) -> None:
        kind = result.removeprefix("refused: ")
        if kind != result:
            self.refused[kind] += 1
        elif call.name == "step":
            self.steps += 1
            self.skips += idle
