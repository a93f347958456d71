"""What tests read of tensors and arrays, on whatever backend they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.backend import default_backend
from minimp.tape import Value

__all__ = ["host", "share_memory"]


def host(x: Any, dtype: Any = None) -> Any:
    """Return a tensor, recorded or not, or an array of the backend in force, as an array on the host."""
    if isinstance(x, Value):
        return np.asarray(x.backend.to_host(x.array), dtype)
    backend = default_backend()
    return np.asarray(backend.to_host(x) if isinstance(x, backend.xp.ndarray) else x, dtype)


def share_memory(a: Any, b: Any) -> bool:
    """Tell whether two arrays of the backend in force lie in the same memory."""
    return bool(default_backend().xp.may_share_memory(a, b))
