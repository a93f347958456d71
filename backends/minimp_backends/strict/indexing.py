"""Reading and writing by index, as a device does it."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp_backends.strict.calls import settle, unwrapped
from minimp_backends.strict.counts import DEVICE

__all__ = ["read_at", "write_at"]

Held = np.ndarray[Any, Any]


def read_at(held: Held, index: Any) -> Any:
    """Return a[index]: a view for slices and whole numbers; for a mask the host waits, to know how many."""
    where, masks = _taken(index)
    if masks:
        DEVICE.wait()
    if not _is_fancy(where):
        found = held[where]
        return settle(found if isinstance(found, np.ndarray) else held[(*_tuple(where), ...)], (held,))
    if DEVICE.options.wrap_index:
        where = _in_range(where, held.shape)
    found = DEVICE.launch(lambda: held[where])
    if found is None:
        found = _spoiled(held[_in_range(where, held.shape)])
    return settle(np.asarray(found), (held,))


def write_at(held: Held, index: Any, value: Any) -> None:
    """Do a[index] = value."""
    (where, masks), given = _taken(index), unwrapped(value)
    if isinstance(given, list | tuple):
        raise TypeError(f"Unsupported type {type(given)}")
    if masks and np.ndim(given):
        DEVICE.wait()
    if DEVICE.options.wrap_index and _is_fancy(where):
        where = _in_range(where, held.shape)
    with np.errstate(all="ignore"):
        if DEVICE.options.undefined_duplicates and _is_fancy(where) and not masks:
            _write_in_any_order(held, where, given)
        else:
            DEVICE.launch(lambda: held.__setitem__(where, given))


def _taken(index: Any) -> tuple[Any, bool]:
    """Return an index of what is held, and whether it has masks.

    Raises:
        TypeError: a NumPy array, which the real CuPy would copy to the device without a word.
    """
    parts = [unwrapped(part) for part in _tuple(index)]
    masks = False
    for i, part in enumerate(parts):
        if isinstance(part, list | tuple):
            parts[i] = np.asarray(part, None if len(part) else np.int32)
            DEVICE.count(to_device=1, to_device_bytes=parts[i].nbytes)
        elif isinstance(part, np.ndarray) and part.dtype.kind == "f":
            raise IndexError(f"arrays used as indices must be of integer or boolean type, not {part.dtype}")
        masks = masks or (isinstance(parts[i], np.ndarray) and parts[i].dtype.kind == "b")
    return (tuple(parts) if isinstance(index, tuple) else parts[0]), masks


def _tuple(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _is_fancy(where: Any) -> bool:
    return any(isinstance(part, np.ndarray) for part in _tuple(where))


def _in_range(where: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Let the numbers of index arrays wrap around their axis."""
    parts = list(_tuple(where))
    used = sum(part.ndim if _is_mask(part) else 1 for part in parts if part is not None and part is not ...)
    axis, made = 0, []
    for part in parts:
        if part is ...:
            axis += len(shape) - used
        elif part is not None:
            if isinstance(part, np.ndarray) and not _is_mask(part) and shape[axis]:
                part = part % shape[axis]  # noqa: PLW2901 - the same, in range
            axis += part.ndim if _is_mask(part) else 1
        made.append(part)
    return tuple(made)


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind == "b"


def _write_in_any_order(held: Held, where: Any, given: Any) -> None:
    """Write the values in an order that chance makes, so that of several for one place, any may stay."""
    places = np.arange(held.size).reshape(held.shape)[where]
    values = np.broadcast_to(np.asarray(given), places.shape).reshape(-1)
    order = DEVICE.dice.permutation(places.size)
    held[np.unravel_index(places.reshape(-1)[order], held.shape)] = values[order]


def _spoiled(found: Held) -> Held:
    """What a kernel that failed leaves behind."""
    return np.full(found.shape, np.nan if found.dtype.kind not in "iub" else 0, found.dtype)
