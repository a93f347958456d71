"""What tests read of tensors and arrays, on whatever backend they are."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from minimp.backend import default_backend
from minimp.tape import Value

__all__ = ["flushes_subnormals", "host", "share_memory"]


def host(x: Any, dtype: Any = None) -> Any:
    """Return a tensor, recorded or not, or an array of the backend in force, as an array on the host."""
    if isinstance(x, Value):
        return np.asarray(x.backend.to_host(x.array), dtype)
    backend = default_backend()
    return np.asarray(backend.to_host(x) if isinstance(x, backend.xp.ndarray) else x, dtype)


def flushes_subnormals() -> bool:
    """Tell whether the array library takes float32 numbers below 2^-126 for zero: CuPy's own functions do."""
    xp = default_backend().xp
    return isinstance(xp, ModuleType) and xp.__name__ == "cupy"


def share_memory(a: Any, b: Any) -> bool:
    """Tell whether two arrays of the backend in force lie in the same memory."""
    return bool(default_backend().xp.may_share_memory(a, b))
