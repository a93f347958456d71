"""What adds values at places of an array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.bounds import Program
from minimp.checks.case import Case
from minimp.checks.gradients import Rules
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


def put_into(shape: tuple[int, ...], index: Any) -> Callable[[Array], Array]:
    """Return the function that adds values at `index` to zeros of `shape`, one after the other."""

    def put(values: Array) -> Array:
        out = np.zeros(shape)
        np.add.at(out, index, values)
        return out

    return put


def unindex(values: Array, *, shape: tuple[int, ...], index: Any) -> Array:
    """Zeros, with the values added at their places."""
    return put_into(shape, index)(values)


def _unindex(x: Running, *, shape: tuple[int, ...], index: Any) -> Running:
    """As many terms as meet in one place at most; what meets nothing is moved."""
    put = put_into(shape, index)
    most = int(put(np.ones(x.exact.shape)).max(initial=0.0))
    return x.move(put) if most <= 1 else x.gather(put, most)


def _taken(c: Case) -> Running:
    shape = c.shape(0)
    return c.grad.move(lambda a: a[c.options["index"]].reshape(shape))


REFERENCE: Mapping[str, Callable[..., Any]] = MappingProxyType({"unindex": unindex})
BOUNDS: Mapping[str, Mapping[str, Program]] = MappingProxyType({"sum": {"unindex": _unindex}})
GRADIENTS: Mapping[str, Rules] = MappingProxyType({"unindex": (_taken,)})
