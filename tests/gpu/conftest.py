"""The devices of these tests: the strict one, the CuPy backend's stand-in, and a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

import minimp as mp
from minimp import backend as backends
from minimp.backend import get_backend
from minimp.errors import DeviceError
from tests.backends.cupy_on_strict import CupyOnStrict

STAND_IN = "cupy on strict"
"""The CuPy backend's own Python, with the kernels' references and a cuBLAS that checks its calls."""


@cache
def there_is_a_gpu() -> bool:
    """Tell whether the cupy backend can run here."""
    try:
        get_backend("cupy")
    except DeviceError:
        return False
    return True


def devices(backend: str) -> list[str]:
    """Return the devices to test on, where `--backend` is this."""
    if backend in ("cupy", "cupy-on-strict"):
        return ["cupy"]
    return ["strict", "cupy"] if there_is_a_gpu() else ["strict", STAND_IN]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes a device on each."""
    if "device" in metafunc.fixturenames:
        names = devices(metafunc.config.getoption("--backend"))
        if "kernel_device" in metafunc.fixturenames:
            names = names[-1:]  # the strict device has none
        metafunc.parametrize("device", names, indirect=True, ids=[each.replace(" ", "-") for each in names])


@pytest.fixture
def kernel_device(device: Any) -> Any:
    """A device's backend that runs our kernels, or their references in their place."""
    return device


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A device's backend, in force."""
    if request.param == STAND_IN:
        monkeypatch.setitem(backends.MADE, "cupy", CupyOnStrict())
    name = "strict" if request.param == "strict" else "cupy"
    with mp.use_backend(name):
        yield get_backend(name)


@pytest.fixture
def gpu() -> Iterator[Any]:
    """The cupy backend on a GPU, in force; for tests that are marked `gpu`."""
    with mp.use_backend("cupy"):
        yield get_backend("cupy")
