"""Why a GPU cannot be used: from what was found on the machine to one sentence and what to do about it.

:func:`diagnose` is given facts and touches nothing, so that every case is tested where there is no GPU.
:func:`basic_facts` and :func:`library_facts` find the facts; the first does not import CuPy, which takes most
of a second.

What a CuPy wheel needs of the driver: one of its CUDA's major version or newer (CUDA 12.9 and 13.0 Release
Notes, "CUDA Toolkit and Corresponding Driver Versions"; minor versions are compatible among each other).
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from minimp.errors import DeviceError

__all__ = ["Facts", "Rule", "basic_facts", "diagnose", "library_facts"]

PACKAGES = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-rocm-7-0", "cupy-rocm-7-1")
"""Distributions that all bring a module `cupy`; one of them at a time."""
EXTRAS = MappingProxyType({12: "gpu", 13: "gpu13"})
"""CUDA's major version -> our extra that brings a CuPy for it."""
MADE_FOR = MappingProxyType({"cupy-cuda12x": 12, "cupy-cuda13x": 13})
"""Distribution -> the major version of CUDA in its name. There is no CuPy 14 for CUDA 11."""
DRIVERS = MappingProxyType({12: "525.60.13", 13: "580.65.06"})
"""CUDA's major version -> the first Linux driver that has it."""
OLDEST_CUPY = 14
OLDEST_CHIP = 70
"""Compute capability 7.0, Volta: the first with matrix units, and what our kernels are compiled for."""
NO_DEVICE, INSUFFICIENT_DRIVER = 100, 35
"""cudaErrorNoDevice and cudaErrorInsufficientDriver (CUDA 12.9, driver_types.h)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. Nothing is wrong with what was not looked at yet.

    Attributes:
        packages: installed distributions that bring a module `cupy`.
        driver: the CUDA version of the driver, 12090 for 12.9; None if there is no driver.
        fault: what importing CuPy raised.
        version: of CuPy.
        built_for: the CUDA version that CuPy was built with, 12090 for 12.9.
        devices: how many GPUs the driver shows.
        status: the number of the error that counting them raised, 0 for none.
        status_text: its text.
        capability: the compute capability of the GPU in use, 90 for 9.0.
        library_fault: what loading cuBLAS raised.
    """

    packages: tuple[str, ...] = ("cupy-cuda12x",)
    driver: int | None = 12090
    fault: str | None = None
    version: str = "14.0.0"
    built_for: int | None = None
    devices: int = 1
    status: int = 0
    status_text: str = ""
    capability: int = 90
    library_fault: str | None = None

    @property
    def extra(self) -> str:
        """The extra of ours that fits the driver."""
        return EXTRAS[13 if self.driver is not None and self.driver >= 13000 else 12]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that can be wrong.

    Attributes:
        name: of the case.
        holds: whether it is this.
        found: what was found.
        advice: what to do.
    """

    name: str
    holds: Callable[[Facts], bool]
    found: Callable[[Facts], str]
    advice: Callable[[Facts], str]


def _cuda(version: int) -> str:
    return f"CUDA {version // 1000}.{version % 1000 // 10}"


def _built_major(facts: Facts) -> int:
    """CUDA's major version that CuPy was built with, the nearest that we know a driver for."""
    return min((facts.built_for or 0) // 1000, max(DRIVERS))


def _needed_major(facts: Facts) -> int:
    """CUDA's major version that the driver has to have, as far as is known: CuPy's, and 12 at least."""
    named = max((MADE_FOR.get(each, 0) for each in facts.packages), default=0)
    return max(min(EXTRAS), _built_major(facts), named)


def _needs(facts: Facts) -> str:
    """Say what needs that version: an installed CuPy, where this is one that we can use."""
    usable = facts.packages and facts.packages[0] != "cupy-cuda11x"
    return f"{facts.packages[0] if usable else 'minimp'} needs CUDA {_needed_major(facts)}"


def _newer_cupy(facts: Facts) -> str:
    package = facts.packages[0]
    if package == "cupy" or package in MADE_FOR:
        return f"pip install --upgrade '{package}>={OLDEST_CUPY}'"
    return f"pip uninstall {package}, then pip install 'minimp[{facts.extra}]'"


def _first_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines()]
    return next((line for line in lines if line and set(line) - set("=-")), "no reason was given")


RULES = (
    Rule(
        "no driver",
        lambda f: f.driver is None,
        lambda _: "no NVIDIA driver was found (libcuda does not load)",
        lambda f: "install NVIDIA's driver; in a container, start it with its GPUs (docker run --gpus all)"
        + ("" if f.packages else "; then pip install 'minimp[gpu]'"),
    ),
    Rule(
        "no CuPy",
        lambda f: not f.packages,
        lambda f: f"CuPy is not installed; the driver here has {_cuda(f.driver or 0)}",
        lambda f: f"update the driver to {DRIVERS[12]} or newer, then pip install 'minimp[gpu]'"
        if (f.driver or 0) // 1000 < min(EXTRAS)
        else f"pip install 'minimp[{f.extra}]'",
    ),
    Rule(
        "two CuPys",
        lambda f: len(f.packages) > 1,
        lambda f: f"{' and '.join(f.packages)} are installed at once, and write over each other's files",
        lambda f: f"pip uninstall {' '.join(f.packages)}, then pip install 'minimp[{f.extra}]'",
    ),
    Rule(
        "CuPy for AMD's GPUs",
        lambda f: f.packages[0].startswith("cupy-rocm"),
        lambda f: f"{f.packages[0]} is installed, which is for AMD's GPUs",
        lambda f: f"pip uninstall {f.packages[0]}, then pip install 'minimp[{f.extra}]'",
    ),
    Rule(
        "CuPy does not load",
        lambda f: f.fault is not None,
        lambda f: f"{f.packages[0]} is installed and does not load: {_first_line(f.fault)}",
        lambda f: f"pip uninstall {f.packages[0]}, then pip install 'minimp[{f.extra}]'",
    ),
    Rule(
        "an old CuPy",
        lambda f: int(f.version.partition(".")[0]) < OLDEST_CUPY,
        lambda f: f"CuPy {f.version} is installed, and {OLDEST_CUPY}.0 is the oldest that is supported",
        _newer_cupy,
    ),
    Rule(
        "CuPy for a newer CUDA",
        lambda f: _built_major(f) > (f.driver or 0) // 1000 >= min(EXTRAS),
        lambda f: f"{f.packages[0]} is built for {_cuda(f.built_for or 0)}, and the driver here has "
        f"{_cuda(f.driver or 0)}",
        lambda f: f"pip uninstall {f.packages[0]}, then pip install 'minimp[{f.extra}]'; or update the "
        f"driver to {DRIVERS[_built_major(f)]} or newer",
    ),
    Rule(
        "an old driver",
        lambda f: (f.driver or 0) // 1000 < min(EXTRAS) or f.status == INSUFFICIENT_DRIVER,
        lambda f: f"the NVIDIA driver is too old: it has {_cuda(f.driver or 0)}, and {_needs(f)}",
        lambda f: f"update the driver to {DRIVERS[_needed_major(f)]} or newer",
    ),
    Rule(
        "no GPU",
        lambda f: f.status == NO_DEVICE or (not f.status and f.devices < 1),
        lambda _: "an NVIDIA driver is there, and it shows no GPU",
        lambda _: "look at what nvidia-smi lists, and at CUDA_VISIBLE_DEVICES",
    ),
    Rule(
        "a GPU that does not answer",
        lambda f: f.status != 0,
        lambda f: f"the GPU does not answer: {f.status_text or f'CUDA error {f.status}'}",
        lambda _: "look at what nvidia-smi says; another process may hold the GPU, or it needs a restart",
    ),
    Rule(
        "an old chip",
        lambda f: f.capability < OLDEST_CHIP,
        lambda f: f"the GPU has compute capability {f.capability // 10}.{f.capability % 10}, and 7.0 (Volta) "
        "is the oldest that is supported",
        lambda _: "use a newer GPU, or the backend 'numpy'",
    ),
    Rule(
        "no cuBLAS",
        lambda f: f.library_fault is not None,
        lambda f: f"CuPy cannot load cuBLAS: {_first_line(f.library_fault)}",
        lambda f: f"pip install '{f.packages[0]}[ctk]', or install NVIDIA's CUDA toolkit",
    ),
)  # fmt: skip
"""In this order: the first that holds is told."""


def diagnose(facts: Facts) -> DeviceError | None:
    """Return the error that says what is wrong and what to do; None if nothing is."""
    rule = next((rule for rule in RULES if rule.holds(facts)), None)
    if rule is None:
        return None
    return DeviceError(f"backend 'cupy' cannot run here: {rule.found(facts)}", help=rule.advice(facts))


def basic_facts() -> Facts:
    """Find what can be known without importing CuPy."""
    found = [name for name in PACKAGES if _is_installed(name)]
    return Facts(packages=tuple(found), driver=driver_version())


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def driver_version(
    names: Mapping[str, str] = MappingProxyType({"win32": "nvcuda.dll"}),
    load: Callable[[str], Any] = ctypes.CDLL,
) -> int | None:
    """Return the driver's CUDA version, 12090 for 12.9; None if it does not load."""
    number = ctypes.c_int(0)
    try:
        status = load(names.get(sys.platform, "libcuda.so.1")).cuDriverGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return None if status else number.value


def library_facts(facts: Facts, load: Callable[[str], Any] = importlib.import_module) -> Facts:
    """Import CuPy and add what it says; what is wrong ends up in the facts."""
    try:
        cupy = load("cupy")
    except ImportError as fault:
        return replace(facts, fault=str(fault))
    runtime = cupy.cuda.runtime
    facts = replace(facts, version=cupy.__version__, built_for=runtime.runtimeGetVersion())
    try:
        devices = runtime.getDeviceCount()
        capability = int(cupy.cuda.Device().compute_capability) if devices else 0
    except runtime.CUDARuntimeError as fault:
        return replace(facts, status=fault.status, status_text=str(fault))
    facts = replace(facts, devices=devices, capability=capability)
    try:
        _ = cupy.cuda.cublas  # loads it
    except (ImportError, AttributeError, OSError, RuntimeError) as fault:
        return replace(facts, library_fault=str(fault))
    return facts
