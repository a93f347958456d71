"""What is said where a GPU cannot be used; oracle throughout: the facts given, and the sentence by hand."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from minimp.backend import available_backends, get_backend
from minimp.errors import DeviceError
from minimp_backends.gpu_diagnosis import RULES, Facts, basic_facts, diagnose, driver_version, library_facts

GOOD = Facts(built_for=12090, version="14.2.0")
CASES: dict[str, tuple[Facts, str, str]] = {
    "no driver": (replace(GOOD, driver=None), "no NVIDIA driver was found", "install NVIDIA's driver"),
    "no CuPy": (
        replace(GOOD, packages=(), driver=13010),
        "CuPy is not installed; the driver here has CUDA 13.1", "pip install 'minimp[gpu13]'",
    ),
    "two CuPys": (
        replace(GOOD, packages=("cupy-cuda12x", "cupy-cuda13x")),
        "cupy-cuda12x and cupy-cuda13x are installed at once",
        "pip uninstall cupy-cuda12x cupy-cuda13x, then pip install 'minimp[gpu]'",
    ),
    "CuPy for AMD's GPUs": (
        replace(GOOD, packages=("cupy-rocm-7-0",)),
        "cupy-rocm-7-0 is installed, which is for AMD", "minimp[gpu]",
    ),
    "CuPy does not load": (
        replace(GOOD, fault="\n=====\nFailed to import CuPy.\nmore"),
        "cupy-cuda12x is installed and does not load: Failed to import CuPy.", "pip uninstall cupy-cuda12x",
    ),
    "an old CuPy": (replace(GOOD, version="13.6.0"), "CuPy 13.6.0 is installed", "'cupy-cuda12x>=14'"),
    "CuPy for a newer CUDA": (
        replace(GOOD, packages=("cupy-cuda13x",), built_for=13000, driver=12080, status=35),
        "cupy-cuda13x is built for CUDA 13.0, and the driver here has CUDA 12.8",
        "pip install 'minimp[gpu]'; or update the driver to 580.65.06 or newer",
    ),
    "an old driver": (
        replace(GOOD, driver=11040, status=35), "it has CUDA 11.4, and cupy-cuda12x needs CUDA 12",
        "update the driver to 525.60.13 or newer",
    ),
    "no GPU": (replace(GOOD, devices=0, status=100), "it shows no GPU", "CUDA_VISIBLE_DEVICES"),
    "a GPU that does not answer": (
        replace(GOOD, status=46, status_text="cudaErrorDevicesUnavailable: busy"),
        "does not answer: cudaErrorDevicesUnavailable: busy", "nvidia-smi",
    ),
    "an old chip": (replace(GOOD, capability=61), "compute capability 6.1, and 7.0", "'numpy'"),
    "no cuBLAS": (
        replace(GOOD, library_fault="libcublasLt.so.12: no such file"),
        "cannot load cuBLAS: libcublasLt.so.12: no such file", "'cupy-cuda12x[ctk]'",
    ),
}  # fmt: skip


def test_every_rule_has_a_case() -> None:
    """Oracle: the two tables."""
    assert [rule.name for rule in RULES] == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_each_case_says_what_was_found_and_what_to_do(name: str) -> None:
    """One rule holds first, and its error has both halves."""
    facts, found, advice = CASES[name]
    assert next(rule.name for rule in RULES if rule.holds(facts)) == name
    fault = diagnose(facts)
    assert fault is not None
    assert str(fault).startswith("backend 'cupy' cannot run here: ")
    assert found in str(fault)
    assert advice in (fault.help or "")


def test_nothing_is_wrong_where_nothing_is() -> None:
    """A CUDA 12 CuPy on a CUDA 13 driver runs: drivers know the older runtimes."""
    assert diagnose(GOOD) is None
    assert diagnose(replace(GOOD, driver=13000)) is None
    assert diagnose(replace(GOOD, driver=12000)) is None, "minor versions are compatible"
    assert diagnose(replace(GOOD, packages=("cupy-cuda13x",), built_for=13000, driver=13000)) is None


FURTHER = {
    "no CuPy, and an old driver": (
        replace(GOOD, packages=(), driver=11040), "CuPy is not installed; the driver here has CUDA 11.4",
        "update the driver to 525.60.13 or newer, then pip install 'minimp[gpu]'",
    ),
    "CuPy for CUDA 13 is not imported where the driver is older than any": (
        replace(GOOD, packages=("cupy-cuda13x",), built_for=None, driver=11040),
        "it has CUDA 11.4, and cupy-cuda13x needs CUDA 13", "update the driver to 580.65.06 or newer",
    ),
    "CuPy for CUDA 11 fits its driver, and is too old": (
        replace(GOOD, packages=("cupy-cuda11x",), built_for=None, driver=11080),
        "it has CUDA 11.8, and minimp needs CUDA 12", "update the driver to 525.60.13 or newer",
    ),
    "there is no newer CuPy for CUDA 11": (
        replace(GOOD, packages=("cupy-cuda11x",), version="13.6.0", built_for=11080),
        "CuPy 13.6.0 is installed", "pip uninstall cupy-cuda11x, then pip install 'minimp[gpu]'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FURTHER)
def test_advice_leads_to_a_gpu_that_works(name: str) -> None:
    """Where one thing stands in the way of another; oracle: what the registry has, and NVIDIA's drivers."""
    facts, found, advice = FURTHER[name]
    fault = diagnose(facts)
    assert fault is not None
    assert found in str(fault)
    assert fault.help == advice


class Driver:
    """A driver's library; it answers with a version and a status."""

    def __init__(self, version: int, status: int = 0) -> None:
        self.version, self.status = version, status

    def cuDriverGetVersion(self, where: Any) -> int:  # noqa: N802 - CUDA's name
        """Write the version where CUDA would."""
        ctypes.cast(where, ctypes.POINTER(ctypes.c_int))[0] = self.version
        return self.status


def test_the_driver_tells_its_version() -> None:
    """From the library's own function, without CuPy; what does not load is None."""
    assert driver_version(load=lambda name: Driver(12090)) == 12090
    assert driver_version(load=lambda name: Driver(12090, status=1)) is None
    assert driver_version(load=lambda name: SimpleNamespace()) is None

    def missing(name: str) -> None:
        raise OSError(name)

    assert driver_version(load=missing) is None


class StatusError(RuntimeError):
    """CuPy's CUDARuntimeError."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}")
        self.status = status


def cupy_like(devices: int, status: int = 0, cublas: bool = True) -> Any:
    """Return what of CuPy is asked."""

    def count() -> int:
        if status:
            raise StatusError(status)
        return devices

    runtime = SimpleNamespace(
        CUDARuntimeError=StatusError, runtimeGetVersion=lambda: 12090, getDeviceCount=count
    )
    cuda = SimpleNamespace(runtime=runtime, Device=lambda: SimpleNamespace(compute_capability="86"))
    if cublas:
        cuda.cublas = object()
    return SimpleNamespace(__version__="14.2.0", cuda=cuda)


def test_facts_come_from_cupy() -> None:
    """Versions, devices, the chip, and whether cuBLAS loads."""
    facts = library_facts(Facts(), load=lambda name: cupy_like(2))
    assert (facts.version, facts.built_for, facts.devices, facts.capability) == ("14.2.0", 12090, 2, 86)
    assert diagnose(facts) is None
    assert library_facts(Facts(), load=lambda name: cupy_like(0, status=100)).status == 100
    assert library_facts(Facts(), load=lambda name: cupy_like(0)).devices == 0
    assert library_facts(Facts(), load=lambda name: cupy_like(1, cublas=False)).library_fault

    def broken(name: str) -> None:
        raise ImportError("libnvrtc.so.12: cannot open")

    assert library_facts(Facts(), load=broken).fault == "libnvrtc.so.12: cannot open"


@pytest.mark.skipif(driver_version() is not None, reason="there is an NVIDIA driver here")
def test_without_a_driver_that_is_what_is_said() -> None:
    """On a machine without a GPU; `available_backends` leaves it out, and does not import CuPy for it."""
    assert basic_facts().driver is None
    with pytest.raises(DeviceError, match="no NVIDIA driver was found"):
        get_backend("cupy")
    assert "cupy" not in available_backends()


def test_nothing_imports_cupy_before_it_is_asked_for() -> None:
    """`import minimp` and, without a driver, `available_backends()` leave CuPy alone; oracle: sys.modules."""
    code = "import sys, minimp; minimp.available_backends(); print('cupy' in sys.modules)"
    if driver_version() is not None:
        code = code.replace("minimp.available_backends(); ", "")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
