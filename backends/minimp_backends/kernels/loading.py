"""Kernels onto the device: compiled for its chip, kept on disk, loaded by CuPy, launched.

CuPy only loads the machine code here (``RawModule(path=...)``); what it would compile it would compile with
flush-to-zero (:mod:`minimp_backends.kernels.nvrtc`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from minimp.errors import DeviceError, SettingError, unknown_name
from minimp_backends.kernels import cache, nvrtc, sources
from minimp_backends.kernels.declaring import Kernel
from minimp_backends.kernels.nvrtc import Compiler, Image
from minimp_backends.kernels.packing import pack
from minimp_backends.kernels.registry import KERNELS
from minimp_backends.memory_pool import full_beside_the_pool

__all__ = ["image_path", "launch", "load", "target"]

_UNKEPT: dict[str, str] = {}
"""The key of what could not be kept on disk -> the path of its file in memory, one for all of its kernels."""


def target(chip: int, compiler: Compiler) -> tuple[int, Image]:
    """Return what to compile for a chip: its own machine code, or PTX where the compiler is older than it.

    PTX for an earlier chip is translated by the driver when it is loaded.

    Args:
        chip: the compute capability without its dot, for example 90.
        compiler: which chips it knows decides.

    Raises:
        DeviceError: the chip is older than every one that the compiler knows.
    """
    if chip in compiler.chips:
        return chip, "cubin"
    earlier = [each for each in compiler.chips if each < chip]
    if not earlier:
        raise DeviceError(
            f"expected a GPU of compute capability {compiler.chips[0]} or later, got {chip}",
            op="compile",
            help="NVRTC of an earlier CUDA version still compiles for it",
        )
    return earlier[-1], "ptx"


def image_path(source_name: str, chip: int, compiler: Compiler, more: tuple[str, ...] = ()) -> str:
    """Return the path of the compiled source for a chip, from the cache or compiled now.

    Where the cache cannot be written the file lives in memory, as long as this process.
    """
    source = sources.read(source_name)
    which, kind = target(chip, compiler)
    key = compiler.key(source, which, kind, more)
    if key in _UNKEPT:
        return _UNKEPT[key]
    kept = cache.fetch(key, lambda: compiler.compile(source, which, kind, more=more))
    return str(kept.path) if kept.path else _UNKEPT.setdefault(key, _in_memory(source_name, kept.data))


def _in_memory(name: str, data: bytes) -> str:
    handle = os.memfd_create(name)
    with os.fdopen(handle, "wb", closefd=False) as file:
        file.write(data)
    return f"/proc/self/fd/{handle}"


@functools.cache
def load(name: str, chip: int, more: tuple[str, ...] = ()) -> Any:
    """Return CuPy's RawKernel of a kernel, for a chip. It is loaded onto a device when first launched there.

    Args:
        name: of :data:`~minimp_backends.kernels.registry.KERNELS`.
        chip: the compute capability without its dot, for example 90.
        more: options of the compiler behind those of every kernel.

    Raises:
        SettingError: there is no such kernel.
        DeviceError: NVRTC or the headers for CuPy's version of CUDA are missing.
    """
    import cupy

    kernel = _kernel(name)
    compiler = nvrtc.compiler(cupy.cuda.runtime.runtimeGetVersion() // 1000)
    return cupy.RawModule(path=image_path(kernel.source, chip, compiler, more)).get_function(name)


def _kernel(name: str) -> Kernel:
    found = KERNELS.get(name)
    if found is None:
        raise SettingError(unknown_name("kernel", name, KERNELS))
    return found


def launch(name: str, arguments: Mapping[str, Any], more: tuple[str, ...] = ()) -> None:
    """Launch a kernel on CuPy's current device and stream; nothing is waited for.

    Args:
        name: of :data:`~minimp_backends.kernels.registry.KERNELS`.
        arguments: by the names of its parameters: CuPy arrays, numbers, lists of them where the parameter
            takes many. Arrays with the role ``out`` or ``inout`` are written.
        more: options of the compiler behind those of every kernel.

    Raises:
        SettingError, DeviceError, FormatError, ShapeError: as :func:`~minimp_backends.kernels.packing.pack`
            says; nothing was launched.
        DeviceError: the kernel could not be compiled or loaded; OutOfMemoryError: for want of room.
    """
    import cupy

    shape, packed = pack(_kernel(name), arguments, cupy.ndarray)
    try:
        function = load(name, int(cupy.cuda.Device().compute_capability), more)
        function((shape.grid,), (shape.block,), packed, shared_mem=shape.shared_bytes)
    except (cupy.cuda.driver.CUDADriverError, cupy.cuda.runtime.CUDARuntimeError) as fault:
        full = full_beside_the_pool(name, fault)
        raise full or DeviceError(f"the device refused the kernel: {fault}", op=name) from fault
