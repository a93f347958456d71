"""How the real CuPy's functions are called on held arrays: what may go in, and what comes out.

A StrictArray holds its numbers in a private ndarray. Everything goes the same way: take what is held out of
the arguments, refusing host arrays; call NumPy's function of that name, without a warning, as a device gives
none; and wrap every result, single numbers too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minimp import formats
from minimp_backends.strict.counts import DEVICE
from minimp_backends.strict.naming import MANY, Callee

__all__ = ["check_call", "check_dtype", "held_of", "run", "settle", "unwrapped", "wrap"]

Held = np.ndarray[Any, Any]
KINDS = frozenset("?bBhHiIlLqQefdFD")
"""The type characters of the dtypes that CuPy has; bfloat16 beside them."""
SMALLEST = np.finfo(np.float32).smallest_normal


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype if CuPy has it.

    Raises:
        ValueError: it has not, as CuPy says it.
    """
    found: np.dtype[Any] = np.dtype(dtype)
    if found.char not in KINDS and found != formats.bfloat16.dtype:
        raise ValueError(f"Unsupported dtype {found}")
    return found


def check_call(name: str, callee: Callee, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Refuse arguments that CuPy's function has not.

    Raises:
        TypeError: too many by position, or a keyword that it does not take.
    """
    if callee.positional != MANY and len(args) > callee.positional:
        raise TypeError(f"{name}() takes {callee.positional} positional arguments, got {len(args)}")
    unknown = () if callee.keywords is None else sorted(set(options) - callee.keywords)
    if unknown:
        raise TypeError(
            f"CuPy's {name}() has no argument {', '.join(unknown)}; "
            f"it has {', '.join(sorted(callee.keywords or ()))}"
        )


def held_of(thing: Any) -> Held | None:
    """Return the numbers of a device array, None of anything else."""
    found: Held | None = getattr(thing, "_held", None)
    return found


def unwrapped(thing: Any) -> Any:
    """Return what NumPy is to be given for an argument, whatever its place.

    Raises:
        TypeError: a NumPy array, here or in a list: a device takes none.
    """
    if isinstance(thing, np.ndarray):
        raise TypeError(f"Unsupported type {type(thing)}")
    held = held_of(thing)
    if held is not None:
        return held
    if isinstance(thing, list | tuple):
        return type(thing)(unwrapped(each) for each in thing) if type(thing) in (list, tuple) else thing
    return thing


def run(function: Callable[..., Any], args: Iterable[Any], options: dict[str, Any]) -> Any:
    """Call one of NumPy's functions on what the arguments hold, and wrap what it returns."""
    taken = [unwrapped(each) for each in args]
    chosen = {name: unwrapped(each) for name, each in options.items()}
    with np.errstate(all="ignore"):
        found = function(*taken, **chosen)
    return settle(found, (*taken, *chosen.values()))


def settle(found: Any, taken: Iterable[Any] = ()) -> Any:
    """Wrap results: arrays and single numbers, alone or in a tuple or list."""
    if isinstance(found, tuple | list):
        return type(found)(settle(each, taken) for each in found) if type(found) in (tuple, list) else tuple(
            settle(each, taken) for each in found
        )  # fmt: skip
    if isinstance(found, np.ndarray):
        return wrap(_flushed(found), taken)
    if isinstance(found, np.generic | bool | int | float | complex):
        return wrap(_flushed(np.asarray(found)), ())
    return found


def wrap(held: Held, taken: Iterable[Any] = ()) -> Any:
    """Make a device array of numbers; it is an allocation unless it looks into an array that was taken."""
    from minimp_backends.strict.arrays import StrictArray  # which is made of these functions

    check_dtype(held.dtype)
    if DEVICE.counters:
        owner, owners = _owner(held), {id(_owner(each)) for each in _flat(taken)}
        if id(owner) not in owners:
            DEVICE.allocated(held)
    return StrictArray._of(held)


def _flat(taken: Iterable[Any]) -> Iterable[Held]:
    for each in taken:
        if isinstance(each, np.ndarray):
            yield each
        elif isinstance(each, list | tuple):
            yield from _flat(each)


def _owner(held: Held) -> Held:
    while isinstance(held.base, np.ndarray):
        held = held.base
    return held


def _flushed(held: Held) -> Held:
    if not DEVICE.options.ftz or held.dtype != np.float32 or held.base is not None:
        return held
    tiny = (np.abs(held) < SMALLEST) & (held != 0)
    return np.where(tiny, np.copysign(np.float32(0), held), held)
