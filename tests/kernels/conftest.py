"""What the rungs of the ladder need, each skipped with its reason where that is missing."""

from __future__ import annotations

import shutil

import pytest

from minimp.errors import DeviceError
from minimp_backends.kernels import nvrtc, toolkits
from minimp_backends.kernels.nvrtc import Compiler


@pytest.fixture(scope="session")
def compiler() -> Compiler:
    """NVRTC, where its wheel is installed."""
    try:
        return nvrtc.compiler()
    except DeviceError as fault:
        pytest.skip(f"needs NVRTC and the CUDA headers (the extra gpu-check): {fault}")


@pytest.fixture(scope="session")
def host_compiler() -> str:
    """A C++ compiler and NVIDIA's headers, where both are installed."""
    try:
        toolkits.find()
    except DeviceError as fault:
        pytest.skip(f"needs the CUDA headers (the extra gpu-check): {fault}")
    found = shutil.which("g++")
    if not found:
        pytest.skip("needs g++")
    return found
