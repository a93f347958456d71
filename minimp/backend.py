"""The table of backends and the choice of one.

A backend is a class that follows :class:`minimp_backends.array_backend.ArrayBackend`. It is named in a
table as ``"module:class"`` and imported on first use, so that a missing GPU library costs nothing until
it is asked for. Other packages add theirs under the entry-point group ``minimp.backends``.
"""

from __future__ import annotations

import importlib
from contextlib import ContextDecorator
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from minimp.errors import DeviceError, SettingError, unknown_name
from minimp.modes import MODES

if TYPE_CHECKING:
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = [
    "available_backends", "default_backend", "get_backend", "refuse_another_device", "use_backend",
]  # fmt: skip

BACKENDS = {
    "numpy": "minimp_backends.numpy_backend:NumpyBackend",
    "cupy": "minimp_backends.cupy_backend:CupyBackend",
    "shapes": "minimp_backends.shapes_backend:ShapesBackend",
    "device-shapes": "minimp_backends.device_shapes_backend:DeviceShapesBackend",
    "cupy-shapes": "minimp_backends.device_shapes_backend:CupyShapesBackend",
    "strict": "minimp_backends.strict_backend:StrictBackend",
}
"""Built-in backends: name -> where the class is. Those of shapes and "strict" are for planning and tests."""


@cache
def _table() -> dict[str, str]:
    """Return name -> "module:class" for the built-in and the installed third-party backends."""
    from importlib.metadata import entry_points  # a slow import that few processes need

    third_party = {entry.name: entry.value for entry in entry_points(group="minimp.backends")}
    return {**third_party, **BACKENDS}


MADE: dict[str, Backend] = {}
"""The backends that have been asked for; there is one instance of each."""


def get_backend(name: str) -> Backend:
    """Return the one instance of the backend called `name`.

    Raises:
        SettingError: there is no backend of that name (the nearest one is offered).
        DeviceError: it exists but cannot run here; the message says what is missing.
    """
    made = MADE.get(name)
    if made is not None:
        return made
    where = BACKENDS.get(name) or _table().get(name)
    if where is None:
        raise SettingError(unknown_name("backend", name, _table()))
    module, _, attribute = where.partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), attribute)()
    except ImportError as fault:
        raise DeviceError(
            f"backend {name!r} cannot run here: {fault}", help="install what is missing, or use 'numpy'"
        ) from fault
    MADE[name] = backend
    return backend


def default_backend() -> Backend:
    """Return the backend on which new tensors are made."""
    return get_backend(MODES.get().backend)


CPU = 1
"""kDLCPU of DLPack's DLDeviceType (dlpack 1.0, dlpack.h)."""


def refuse_another_device(data: Any, backend: Backend) -> None:
    """Refuse an array that says by DLPack that it lies on a device, where `backend` cannot read it.

    Raises:
        DeviceError: naming its class and the backend.
    """
    where = getattr(data, "__dlpack_device__", None)
    if where is not None and where()[0] != CPU:
        came = f"{type(data).__module__}.{type(data).__name__}"
        raise DeviceError(
            f"expected data for the {backend.name} backend, got {came} on a device",
            help="copy it to the host first, or make the tensor with the backend= whose arrays these are",
        )


def available_backends() -> list[str]:
    """Return the names of the backends that can run on this machine."""
    found = []
    for name in _table():
        try:
            get_backend(name)
        except DeviceError:
            continue
        found.append(name)
    return found


class use_backend(ContextDecorator):  # noqa: N801 - reads as a statement, with or without `with`
    """Make new tensors on the backend called `name`: from now on, or inside a `with` block.

    >>> import minimp as mp
    >>> with mp.use_backend("numpy"):
    ...     mp.tensor([1.0, 2.0]).backend.name
    'numpy'

    Raises:
        SettingError, DeviceError: as :func:`get_backend`; the choice in force stays as it was.
    """

    def __init__(self, name: str) -> None:
        self.name = get_backend(name).name
        self._before = MODES.get()
        MODES.set(replace(self._before, backend=self.name))

    def __enter__(self) -> Self:
        """Enter the block; the choice was made when the object was."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Put the backend back that was in force before."""
        restored = replace(MODES.get(), backend=self._before.backend)
        MODES.set(self._before if restored == self._before else restored)  # the very record, where it can be
