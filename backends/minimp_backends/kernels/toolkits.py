"""Where NVIDIA's compiler library and headers are: in pip wheels, or in an installed CUDA toolkit.

===========  =====================================================================================
CUDA 12      wheels ``nvidia-cuda-nvrtc-cu12`` and ``nvidia-cuda-runtime-cu12``: ``nvidia/cuda_nvrtc/lib``,
             ``nvidia/cuda_runtime/include``
CUDA 13      wheels ``nvidia-cuda-nvrtc`` and ``nvidia-cuda-runtime``: both in ``nvidia/cu13``
a toolkit    ``$CUDA_PATH``, ``$CUDA_HOME`` or ``/usr/local/cuda``, with ``lib64`` and ``include``
===========  =====================================================================================

``cuda_fp16.h`` needs ``<nv/target>``, which the runtime wheels lack; CuPy brings it along.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minimp.errors import DeviceError

__all__ = ["PACKAGES", "Toolkit", "find", "search"]

PACKAGES = {
    12: "nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12",
    13: "nvidia-cuda-nvrtc nvidia-cuda-runtime",
}
"""CUDA version -> the wheels that have the compiler and its headers."""

_LIBRARY = re.compile(r"libnvrtc\.so\.(\d+)$")  # not libnvrtc.alt.so.12, a second build of the same
_READ = ("cuda_fp16", "cuda_bf16", "cuda_fp8")  # the headers whose functions end up in our kernels


@dataclass(frozen=True)
class Toolkit:
    """One compiler library with its headers.

    Attributes:
        library: of NVRTC.
        cuda: the major version of CUDA.
        includes: folders of headers, in the order in which they are searched.
    """

    library: Path
    cuda: int
    includes: tuple[Path, ...]

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the headers' text: compiled kernels hold what these headers define."""
        digest = hashlib.sha256()
        for path in sorted(path for stem in _READ for path in self.includes[0].glob(f"{stem}.h*")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()


def _package(name: str) -> list[Path]:
    """The folders of an installed package, which is not imported; none where it is missing."""
    spec = importlib.util.find_spec(name)
    return [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []


def _places() -> Iterator[tuple[Path, Path]]:
    """Each (folder of the library, folder of the headers) to look into, the likeliest first."""
    for root in _package("nvidia"):
        yield root / "cuda_nvrtc" / "lib", root / "cuda_runtime" / "include"
        yield root / "cu13" / "lib", root / "cu13" / "include"
    named = (os.environ.get(name) for name in ("CUDA_PATH", "CUDA_HOME"))
    for root in (*(Path(name) for name in named if name), Path("/usr/local/cuda")):
        yield root / "lib64", root / "include"


def _target_folders(headers: Path) -> Iterator[Path]:
    """Each folder that may hold ``nv/target``."""
    yield headers
    yield headers / "cccl"
    yield from (root / "cuda_cccl" / "include" for root in _package("nvidia"))
    bundled = Path("_core/include/cupy/_cccl/libcudacxx")
    yield from (root / bundled for root in _package("cupy"))


def search() -> list[Toolkit]:
    """Return every toolkit there is, wheels before installed ones."""
    found = []
    for folder, headers in _places():
        libraries = [path for path in sorted(folder.glob("libnvrtc.so.*")) if _LIBRARY.search(path.name)]
        target = next((each for each in _target_folders(headers) if (each / "nv" / "target").exists()), None)
        if libraries and target and (headers / "cuda_fp16.h").exists():
            cuda = _LIBRARY.search(libraries[-1].name)
            assert cuda, "the list above holds matches alone"
            found.append(Toolkit(libraries[-1], int(cuda[1]), tuple(dict.fromkeys((headers, target)))))
    return found


def find(cuda: int | None = None) -> Toolkit:
    """Return the toolkit for one major version of CUDA, or the first there is.

    Raises:
        DeviceError: there is none, or none of that version; the message names the wheels to install.
    """
    found = search()
    chosen = next((each for each in found if cuda in {None, each.cuda}), None)
    if chosen:
        return chosen
    came = ", ".join(f"CUDA {each.cuda} ({each.library})" for each in found) or "none"
    wanted = f"for CUDA {cuda} " if cuda else ""
    wheels = f"cupy-cuda{cuda or 12}x {PACKAGES.get(cuda or 12, PACKAGES[13])}"
    raise DeviceError(
        f"expected the CUDA compiler library NVRTC {wanted}and the CUDA headers, found {came}",
        op="compile",
        help=f"pip install {wheels}, or set CUDA_PATH to a CUDA toolkit",
    )
