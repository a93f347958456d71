r"""How a weight is kept from one step to the next: five ways, one row each.

========== ==================================== ===========================================================
own        float32 and float64 parameters       they are their own masters: w <- w + delta
master     16 bits, master_weights=True         an FP32 master adds updates up; the parameter is its rounding
nearest    16 bits, update="fp32"               w <- round(w + delta) to nearest even: what is less than half
                                                an ulp of w is swallowed
stochastic 16 bits, update="stochastic"         w <- w + delta rounded up or down, right on average
kahan      16 bits, update="kahan"              what rounding cut off is kept, in 16 bits, and given back
========== ==================================== ===========================================================

Sources: Micikevicius et al. 2018, section 3.1 (master weights, arXiv 1710.03740); Zamirai et al. 2020,
section 3 (stochastic rounding and Kahan summation, arXiv 2010.06192).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from minimp import formats, rng
from minimp.errors import SettingError
from minimp.formats import Format
from minimp.tape import Array, Value

__all__ = ["LOW", "STORED", "UPDATES", "Storage", "storage_of"]

LOW = (formats.float16, formats.bfloat16)
State = dict[str, Any]


class Storage(ABC):
    """One way to keep a weight.

    Attributes:
        state_names: what it keeps in the parameter's state.
        needs_change: whether :meth:`put` reads the change, and not only the sum.
    """

    state_names: frozenset[str] = frozenset()
    needs_change = False

    def check(self, param: Value, state: State, written: Array | None) -> None:  # noqa: B027 - most keep nothing
        """Refuse to go on if the kept state does not belong to the parameter any more.

        Args:
            param: the parameter.
            state: its state.
            written: the array that the optimizer gave it last, or None.
        """

    @abstractmethod
    def weight(self, param: Value, state: State) -> Array:
        """Return the weight that the update is added to, wide; it may be read only."""

    @abstractmethod
    def put(self, param: Value, state: State, new: Array, change: Array) -> None:
        """Store a new weight.

        Args:
            param: the parameter, which gets a new array.
            state: its state.
            new: w + delta, wide; its memory may be taken over.
            change: delta, wide, if `needs_change`; left as it is.
        """

    def parts(self, param: Value, state: State) -> tuple[Array, ...]:
        """Return the arrays that all stay the same when an update is swallowed."""
        del state
        return (param.array,)


class _Own(Storage):
    def weight(self, param: Value, state: State) -> Array:
        del state
        return param.array

    def put(self, param: Value, state: State, new: Array, change: Array) -> None:
        del state, change
        param.array = new


class _Master(Storage):
    state_names = frozenset({"master"})

    def check(self, param: Value, state: State, written: Array | None) -> None:
        """Refuse a parameter that somebody else gave other values: the master would undo them."""
        master = state.get("master")
        if master is None or param.array is written:
            return
        backend = param.backend
        rounded = backend.wide(backend.cast(master, param.format))  # type: ignore[arg-type]  # it has one
        if not bool(backend.xp.array_equal(rounded, backend.wide(param.array), equal_nan=True)):
            raise SettingError(
                f"a parameter of shape {param.shape} is no longer its master, rounded to {param.format}",
                op="Optimizer.step",
                shapes=[param.shape],
                help="load the optimizer's state that belongs to these weights, or call reset_masters()",
            )

    def weight(self, param: Value, state: State) -> Array:
        if "master" not in state:
            state["master"] = param.backend.wide(param.array)
        return state["master"]

    def put(self, param: Value, state: State, new: Array, change: Array) -> None:
        del change
        state["master"] = new
        param.array = param.backend.cast(new, param.format)  # type: ignore[arg-type]  # it has one

    def parts(self, param: Value, state: State) -> tuple[Array, ...]:
        del param
        return (state["master"],)


class _Nearest(Storage):
    def weight(self, param: Value, state: State) -> Array:
        del state
        return param.backend.wide(param.array)

    def put(self, param: Value, state: State, new: Array, change: Array) -> None:
        del state, change
        param.array = param.backend.narrow(new, param.format)


class _Stochastic(_Nearest):
    def put(self, param: Value, state: State, new: Array, change: Array) -> None:
        del state, change
        param.array = param.backend.round_stochastic(new, param.format, rng.generator())  # type: ignore[arg-type]  # it has one


class _Kahan(_Nearest):
    """y = delta - c;  s = round(w + y);  c <- round((s - w) - y);  w <- s."""

    state_names = frozenset({"compensation"})
    needs_change = True

    def put(self, param: Value, state: State, new: Array, change: Array) -> None:
        del new
        backend = param.backend
        weight = backend.wide(param.array)
        due = change - backend.wide(self._compensation(param, state))
        param.array = backend.narrow(backend.xp.asarray(weight + due), param.format)
        excess = (backend.wide(param.array) - weight) - due
        state["compensation"] = backend.narrow(backend.xp.asarray(excess), param.format)

    def parts(self, param: Value, state: State) -> tuple[Array, ...]:
        return param.array, self._compensation(param, state)

    def _compensation(self, param: Value, state: State) -> Array:
        if "compensation" not in state:
            state["compensation"] = param.backend.xp.zeros_like(param.array)
        return state["compensation"]


OWN, MASTER = _Own(), _Master()
UPDATES: Mapping[str, Storage] = MappingProxyType(
    {"fp32": _Nearest(), "stochastic": _Stochastic(), "kahan": _Kahan()}
)
"""The names of `update=`: how a 16-bit weight without a master takes its update."""
STORED = frozenset().union(*(each.state_names for each in (OWN, MASTER, *UPDATES.values())))
"""All names under which a storage keeps something."""


def storage_of(form: Format | None, master_weights: bool, update: str) -> Storage:
    """Return how a parameter of a format is kept under an optimizer's settings."""
    if form not in LOW:
        return OWN
    return MASTER if master_weights else UPDATES[update]
