"""FP8 on a device, over an array namespace; oracle: the same functions on the host, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp import formats
from minimp.backend import get_backend
from minimp_backends.cupy_backend import CupyBackend
from minimp_backends.device_codes import Codes
from tests.backends.cupy_on_strict import gpu_on_strict

EIGHT = ("float8_e4m3fn", "float8_e5m2")
HOST = get_backend("numpy")
STRICT = get_backend("strict")


@pytest.fixture(params=["strict", "cupy by kernels", "cupy by arrays"])
def device(request: pytest.FixtureRequest) -> Any:
    """Return a device: the strict one, or the CuPy backend on it, with kernels and without."""
    if request.param == "strict":
        return STRICT
    return CupyBackend(gpu_on_strict(kernels=request.param == "cupy by kernels"))


def numbers() -> np.ndarray[Any, Any]:
    """Return float32 numbers of every kind: all float16s, their neighbours, random bits, ties of FP8."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    bits = np.random.default_rng(5).integers(0, 1 << 32, 1 << 14, np.uint32).view(np.float32)
    codes = [formats.decode(np.arange(256, dtype=np.uint8), name, dtype=np.float32) for name in EIGHT]
    ties = [(each[:-1] + each[1:]) / np.float32(2) for each in codes]
    with np.errstate(all="ignore"):
        return np.concatenate([halves, np.nextafter(halves, np.float32(0)), bits, *codes, *ties])


@pytest.mark.parametrize("name", EIGHT)
def test_rounding_to_fp8_gives_the_hosts_codes(device: Any, name: str) -> None:
    """Nearest even, saturating, subnormals and NaN; NaN's sign is not compared."""
    wide, fmt = numbers(), formats.get(name)
    made = device.to_eight_bits(device.from_host(wide), fmt)
    assert (made.dtype, made.shape, made.nbytes, made.ndim) == (fmt.dtype, wide.shape, wide.size, 1)
    ours = device.to_host(made.codes)
    theirs = HOST.to_eight_bits(wide, fmt).view(np.uint8)
    nan = np.isnan(wide)
    np.testing.assert_array_equal(ours[~nan], theirs[~nan])
    np.testing.assert_array_equal(ours[nan] & 0x7F, theirs[nan] & 0x7F)


@pytest.mark.parametrize("name", [*EIGHT, "float8_e8m0fnu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_code_is_read_back(device: Any, name: str, dtype: str) -> None:
    """All 256 codes, in a matrix."""
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    made = device.from_eight_bits(Codes(device.from_host(codes), formats.get(name).dtype), dtype)
    assert made.dtype == dtype
    np.testing.assert_array_equal(device.to_host(made), formats.decode(codes, name, dtype=np.dtype(dtype)))


@pytest.mark.parametrize("name", EIGHT)
def test_scales_of_blocks_are_the_hosts(device: Any, name: str) -> None:
    """Powers of two, their ends, zero and what is not finite; then in a byte each."""
    powers = np.ldexp(np.float32(1), np.arange(-149, 128))
    amax = np.abs(np.concatenate([powers, numbers()[::16], np.float32([0, np.inf, np.nan])]))
    fmt = formats.get(name)
    ours = device.power_scales(device.from_host(amax), fmt)
    host = HOST.power_scales(amax, fmt)
    np.testing.assert_array_equal(device.to_host(ours), host)
    coded = device.to_scale_codes(ours)
    np.testing.assert_array_equal(device.to_host(coded.codes), HOST.to_scale_codes(host).view(np.uint8))


def test_nothing_waits(device: Any) -> None:
    """Rounding, reading and scaling stay on the device; oracle: the strict device's count."""
    wide = device.from_host(numbers()[:1000])
    with STRICT.counting() as counts:
        codes = device.to_eight_bits(wide, formats.get("float8_e4m3fn"))
        device.from_eight_bits(codes, "float32")
        device.to_scale_codes(device.power_scales(abs(wide), formats.get("float8_e4m3fn")))
    assert (counts.syncs, counts.to_host) == (0, 0)
    assert repr(codes) == "Codes(float8_e4m3fn, shape=(1000,))"
