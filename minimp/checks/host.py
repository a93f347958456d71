"""Bringing what is checked to the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.backend import default_backend
from minimp.tape import Value

__all__ = ["on_host"]


def on_host(value: Any, dtype: Any = None) -> np.ndarray[Any, Any]:
    """Return a tensor, an array of the backend in force, or what NumPy reads, as an array on the host."""
    if isinstance(value, Value):
        return np.asarray(value.backend.to_host(value.array), dtype)
    backend = default_backend()
    return np.asarray(backend.to_host(value) if isinstance(value, backend.xp.ndarray) else value, dtype)
