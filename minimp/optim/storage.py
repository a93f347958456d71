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
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minimp import formats, rng
from minimp.errors import SettingError
from minimp.formats import Format
from minimp.tape import Array, Value

if TYPE_CHECKING:
    from minimp_backends.updates import Room

__all__ = ["LOW", "STORED", "UPDATES", "Storage", "storage_of"]

LOW = (formats.float16, formats.bfloat16)
State = dict[str, Any]


class Storage(ABC):
    """One way to keep a weight.

    Attributes:
        state_names: what it keeps in the parameter's state.
        in_order: whether parameters must be updated in the order of the optimizer.
    """

    state_names: frozenset[str] = frozenset()
    in_order = False

    def check(self, param: Value, state: State, written: Array | None) -> None:  # noqa: B027 - most keep nothing
        """Refuse to go on if the kept state does not belong to the parameter any more.

        Args:
            param: the parameter.
            state: its state.
            written: the array that the optimizer gave it last, or None.
        """

    def begin(self, param: Value, state: State) -> None:  # noqa: B027 - most keep nothing
        """Make what the state lacks, as it is before the first step."""

    @abstractmethod
    def weight(self, param: Value, state: State) -> Array:
        """Return the weight that the update is added to, wide; it may be read only."""

    @abstractmethod
    def room(self, param: Value, like: Array, kept: State) -> Room:
        """Return the arrays that a kernel is to fill.

        Args:
            param: one of the parameters that are updated together: its format and backend are theirs.
            like: their weights, end to end or of the one parameter's shape.
            kept: what this storage keeps for them, in the same shape; what is missing is made.
        """

    def finish(self, param: Value, room: Room, sizes: list[int] | None) -> None:  # noqa: B027 - most are done
        """Do what is left to do when the kernel has filled the room.

        Args:
            param: one of the parameters.
            room: the filled arrays.
            sizes: the elements of each parameter, if several lie end to end.
        """

    @abstractmethod
    def put(self, param: Value, state: State, room: Room, cut: Callable[[Array], Array]) -> None:
        """Store what a kernel made for one parameter.

        Args:
            param: the parameter, which gets a new array.
            state: its state.
            room: the filled arrays.
            cut: returns the parameter's piece of an array, with memory of its own.
        """

    def parts(self, param: Value, state: State) -> tuple[Array, ...]:
        """Return the arrays that all stay the same when an update is swallowed."""
        del state
        return (param.array,)


class _Own(Storage):
    def weight(self, param: Value, state: State) -> Array:
        del state
        return param.array

    def room(self, param: Value, like: Array, kept: State) -> Room:
        del kept
        return _room(param, like)

    def put(self, param: Value, state: State, room: Room, cut: Callable[[Array], Array]) -> None:
        del state
        param.array = cut(room.new)


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

    def begin(self, param: Value, state: State) -> None:
        state["master"] = self.weight(param, state)

    def weight(self, param: Value, state: State) -> Array:
        master = state.get("master")
        return param.backend.wide(param.array) if master is None else master

    def room(self, param: Value, like: Array, kept: State) -> Room:
        del kept
        room = _room(param, like)
        room.low = _empty(param, like, param.array.dtype)
        room.grid = _empty(param, like, like.dtype) if param.backend.keeps_twin(like.size) else None
        return room

    def put(self, param: Value, state: State, room: Room, cut: Callable[[Array], Array]) -> None:
        state["master"] = cut(room.new)
        _put_low(param, room, cut)

    def parts(self, param: Value, state: State) -> tuple[Array, ...]:
        return (self.weight(param, state),)


class _Nearest(Storage):
    def weight(self, param: Value, state: State) -> Array:
        del state
        return param.backend.wide(param.array)

    def room(self, param: Value, like: Array, kept: State) -> Room:
        del kept
        room = _room(param, like)
        room.low, room.grid = _empty(param, like, param.array.dtype), room.new
        return room

    def put(self, param: Value, state: State, room: Room, cut: Callable[[Array], Array]) -> None:
        del state
        _put_low(param, room, cut)


class _Stochastic(_Nearest):
    in_order = True  # of the numbers that the generator draws

    def room(self, param: Value, like: Array, kept: State) -> Room:
        del kept
        return _room(param, like)

    def finish(self, param: Value, room: Room, sizes: list[int] | None) -> None:
        assert param.format is not None
        room.low = param.backend.round_stochastic(room.new, param.format, rng.generator(), sizes)


class _Kahan(_Nearest):
    """y = delta - c;  s = round(w + y);  c <- round((s - w) - y);  w <- s."""

    state_names = frozenset({"compensation"})

    def begin(self, param: Value, state: State) -> None:
        if "compensation" not in state:
            state["compensation"] = param.backend.xp.zeros_like(param.array)

    def room(self, param: Value, like: Array, kept: State) -> Room:
        room = super().room(param, like, kept)
        held = kept.get("compensation")
        zeros = param.backend.xp.zeros(like.shape, param.array.dtype)
        room.compensation = zeros if held is None else held.copy()
        return room

    def put(self, param: Value, state: State, room: Room, cut: Callable[[Array], Array]) -> None:
        state["compensation"] = cut(room.compensation)
        _put_low(param, room, cut)

    def parts(self, param: Value, state: State) -> tuple[Array, ...]:
        held = state.get("compensation")
        return param.array, param.backend.xp.zeros_like(param.array) if held is None else held


def _room(param: Value, like: Array) -> Room:
    return param.backend.room(_empty(param, like, like.dtype))


def _empty(param: Value, like: Array, dtype: Any) -> Array:
    return param.backend.xp.empty(like.shape, dtype)


def _put_low(param: Value, room: Room, cut: Callable[[Array], Array]) -> None:
    """Give a parameter its 16-bit array, and the backend the wide values that were made with it."""
    low = cut(room.low)
    param.array = low
    if room.grid is not None and param.backend.keeps_twin(low.size):
        param.backend.keep_twin(low, cut(room.grid))


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
