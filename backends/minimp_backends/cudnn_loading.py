"""cuDNN of this machine: its frontend and its library, found when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from minimp.errors import DeviceError
from minimp_backends.cudnn_convolution import CudnnConvolution

__all__ = ["open_cudnn"]

OLDEST = 90000
"""cuDNN 9.0.0, as its `backend_version` counts: the graphs of before lack some of the notes."""


def open_cudnn(cupy: Any, load: Callable[[str], Any] = importlib.import_module) -> CudnnConvolution:
    """Return cuDNN's convolutions on the current GPU.

    Args:
        cupy: the module `cupy`.
        load: imports a module by name.

    Raises:
        DeviceError: the frontend or the library is missing, or too old; it says what to install.
    """
    extra = "cudnn13" if cupy.cuda.runtime.runtimeGetVersion() >= 13000 else "cudnn"
    try:
        cudnn = load("cudnn")
    except ImportError as fault:
        raise _missing(f"its Python frontend does not load: {fault}", extra) from fault
    try:
        version = int(cudnn.backend_version())
        handle = cudnn.create_handle()
    except (RuntimeError, OSError) as fault:
        raise _missing(f"its library does not load: {fault}", extra) from fault
    if version < OLDEST:
        raise _missing(f"cuDNN {version} is older than {OLDEST}", extra)
    return CudnnConvolution(cupy, cudnn, handle, lambda: int(cupy.cuda.get_current_stream().ptr))


def _missing(found: str, extra: str) -> DeviceError:
    return DeviceError(
        f"convolutions by cuDNN cannot run here: {found}", op="convolving",
        help=f"pip install 'minimp[{extra}]'; or stay with convolving('columns'), which needs nothing",
    )  # fmt: skip
