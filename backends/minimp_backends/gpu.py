"""The GPU of this machine, ready for use: CuPy, cuBLAS, the memory pool, and what they are for headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Protocol

from minimp.errors import DeviceError, MinimpError
from minimp_backends.cublas import Cublas
from minimp_backends.cudnn_convolution import CudnnConvolution
from minimp_backends.cudnn_loading import open_cudnn
from minimp_backends.gpu_diagnosis import Facts, basic_facts, diagnose, library_facts
from minimp_backends.kernels import toolkits
from minimp_backends.kernels.loading import launch
from minimp_backends.kernels.nvrtc import VARIANTS
from minimp_backends.memory_pool import WatchedPool, full_beside_the_pool, in_words, watch

__all__ = ["Gpu", "Kernels", "gpu_of", "open_gpu"]


class Kernels(Protocol):
    """What runs our kernels: :data:`minimp_backends.kernels.registry.KERNELS`, by name."""

    def __call__(self, name: str, /, **arguments: Any) -> None:
        """Run one on arrays of the device, in C order, without waiting for it."""


def no_cudnn() -> CudnnConvolution:
    """Refuse: nothing says where cuDNN is."""
    raise DeviceError("this device has no cuDNN", op="convolving", help="use convolving('columns')")


@dataclass(frozen=True)
class Gpu:
    """What a backend needs of a GPU; in tests, what stands in for it.

    Attributes:
        xp: the module `cupy`.
        cublas: matrix products.
        cudnn: returns cuDNN's convolutions, or raises a DeviceError that says why there are none.
        memory: the memory pool, watched; None where nothing is allocated on a GPU.
        kernels: runs our kernels; None: the array library does everything.
        variants: name -> the same kernels compiled with other options
            (:data:`minimp_backends.kernels.nvrtc.VARIANTS`), for benchmarks.
        to_host: `cupy.asnumpy`, which waits.
        synchronize: waits until the GPU has done what it was given.
        about: name of a fact -> the fact, for the headers of benchmarks.
    """

    xp: Any
    cublas: Cublas
    memory: WatchedPool | None
    kernels: Kernels | None
    to_host: Callable[[Any], Any]
    synchronize: Callable[[], None]
    about: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    variants: Mapping[str, Kernels] = field(default_factory=lambda: MappingProxyType({}))
    cudnn: Callable[[], CudnnConvolution] = no_cudnn


def open_gpu() -> Gpu:
    """Return the current GPU.

    Raises:
        DeviceError: there is none that can be used; it says what was found and what to do.
    """
    facts = basic_facts()
    if (fault := diagnose(facts)) is not None:
        raise fault
    facts = library_facts(facts)
    if (fault := diagnose(facts)) is not None:
        raise fault
    import cupy

    try:
        return gpu_of(cupy, facts)
    except MinimpError:
        raise
    except (RuntimeError, MemoryError) as refused:  # of CUDA and cuBLAS, which take room of their own
        raise DeviceError(
            f"backend 'cupy' cannot run here: the GPU is there and does not open: {refused}",
            help="look at what nvidia-smi says: another process may hold the GPU, or all of its memory",
        ) from refused


def gpu_of(cupy: Any, facts: Facts) -> Gpu:
    """Return the current GPU of a CuPy that works.

    Raises:
        DeviceError: the compiler of our kernels is missing; it says what to install.
    """
    toolkits.find(cupy.cuda.runtime.runtimeGetVersion() // 1000)  # refuses here, not in the middle of a step
    device, handle = cupy.cuda.Device(), cupy.cuda.device.get_cublas_handle()
    about = MappingProxyType(_about(cupy, facts, device.id, handle))
    return Gpu(
        xp=cupy,
        cublas=Cublas(cupy, cupy.cuda.cublas, handle, facts.capability),
        memory=watch(cupy),
        kernels=_launch,
        to_host=_told(cupy, cupy.asnumpy),
        synchronize=_told(cupy, device.synchronize),
        about=about,
        variants=MappingProxyType({name: _launching(more) for name, more in VARIANTS.items()}),
        cudnn=cache(lambda: open_cudnn(cupy)),
    )


def _told(cupy: Any, wait: Callable[..., Any]) -> Callable[..., Any]:
    """Return what waits for the GPU, and says in our words what it failed at meanwhile.

    Faults of kernels show when the host next waits, and to go on the process must be started anew (CUDA 12.9,
    cudaErrorIllegalAddress in driver_types.h).
    """

    def waited(*given: Any) -> Any:
        try:
            return wait(*given)
        except cupy.cuda.runtime.CUDARuntimeError as fault:
            raise full_beside_the_pool("wait", fault) or DeviceError(
                f"the GPU failed at something that it was given before: {fault}",
                help="what it held is lost: start a new process, under CUDA_LAUNCH_BLOCKING=1 to see where",
            ) from fault

    return waited


def _launch(name: str, /, **arguments: Any) -> None:
    launch(name, arguments)


def _launching(more: tuple[str, ...]) -> Kernels:
    def launched(name: str, /, **arguments: Any) -> None:
        launch(name, arguments, more)

    return launched


def _about(cupy: Any, facts: Facts, device: int, handle: int) -> dict[str, str]:
    runtime = cupy.cuda.runtime
    told = runtime.getDeviceProperties(device)
    name = told["name"]
    chip = f"compute capability {facts.capability // 10}.{facts.capability % 10}"
    return {
        "GPU": f"{name.decode() if isinstance(name, bytes) else name}, {chip}, "
        f"{in_words(int(told['totalGlobalMem']))}",
        "driver": f"CUDA {_dotted(facts.driver or 0)}",
        "CUDA runtime": _dotted(runtime.runtimeGetVersion()),
        "cuBLAS": _cublas_version(cupy.cuda.cublas.getVersion(handle)),
    }


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _cublas_version(version: int) -> str:
    """cublasGetVersion says 120905 for 12.9.5 (cuBLAS 12.9, cublas_api.h)."""
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"
