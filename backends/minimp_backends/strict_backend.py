"""The strict backend: the engine on a device of host memory, to find on a CPU what would break on a GPU.

It computes with NumPy, and behaves like CuPy: its arrays do not become host arrays by themselves and mix with
none, only functions that the real CuPy has exist, single numbers are arrays, and every wait of the host,
every copy and every allocation is counted. It is for tests; as fast as it needs to be.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from minimp_backends.device_backend import DeviceBackend
from minimp_backends.strict.calls import held_of, wrap
from minimp_backends.strict.counts import DEVICE, Counts, Options
from minimp_backends.strict.namespace import StrictNamespace

__all__ = ["StrictBackend"]


class StrictBackend(DeviceBackend):
    """Arrays are :class:`~minimp_backends.strict.arrays.StrictArray`.

    >>> import minimp as mp
    >>> x = mp.tensor([3.0, 4.0], backend="strict")
    >>> with x.backend.counting() as counts:
    ...     norm = (x * x).sum().sqrt()
    >>> counts.syncs, norm.item(), counts.syncs
    (0, 5.0, 0)
    """

    name = "strict"
    xp = StrictNamespace()

    def from_host(self, array: np.ndarray[Any, Any]) -> Any:
        """Copy a NumPy array to the device."""
        made = np.array(array, order="C", copy=True)
        DEVICE.count(to_device=1, to_device_bytes=made.nbytes)
        return wrap(made)

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """Copy a device array to the host, which waits for it."""
        held = held_of(array)
        return np.asarray(array) if held is None else DEVICE.read(held)

    def synchronize(self) -> None:
        """Wait: a fault that is still in the queue comes out now."""
        DEVICE.wait()

    def counting(self) -> AbstractContextManager[Counts]:
        """Count waits, copies and allocations in a `with` block."""
        return DEVICE.counting()

    def behaving(self, **options: bool) -> AbstractContextManager[Options]:
        """Change how the device behaves in a `with` block; names as of :class:`strict.counts.Options`."""
        return DEVICE.behaving(**options)
