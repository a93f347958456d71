"""What ops on float32 and float64 flushed to zero: by their inputs, where those tell an honest zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minimp.tape import Event

__all__ = ["FLUSHING", "flushed_wide"]


def _product(a: Any, b: Any) -> Any:
    return np.logical_and(a != 0, b != 0)


def _quotient(a: Any, b: Any) -> Any:
    return np.logical_and(a != 0, np.isfinite(b))


def _power_of_e(a: Any) -> Any:
    return a != -np.inf


FLUSHING: Mapping[str, Callable[..., Any]] = {
    "mul": _product, "div": _quotient, "exp": _power_of_e, "sigmoid": _power_of_e,
}  # fmt: skip
"""Op by elements -> where its result is not 0, before it is rounded."""


def flushed_wide(event: Event, result: Any) -> int:
    """Return how many results of a forward op on wide formats became 0 without being it.

    Of other ops than those of :data:`FLUSHING` it is not known without a shadow, and 0 is returned.
    """
    tell = FLUSHING.get(event.node.op.name)
    if tell is None or event.phase != "forward" or len(event.inputs) != tell.__code__.co_argcount:
        return 0
    hosts = _hosts(event.inputs, event.node.backend)
    zero = np.asarray(event.node.backend.to_host(result)) == 0
    return int(np.count_nonzero(np.logical_and(zero, tell(*hosts))))


def _hosts(inputs: Sequence[Any], backend: Any) -> list[Any]:
    return [backend.to_host(x) if hasattr(x, "dtype") else x for x in inputs]
