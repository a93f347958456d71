"""Casts over an array namespace alone; oracle: minimp.formats.round and the NumPy backend, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp import formats
from minimp.backend import get_backend
from minimp.formats import ROUNDINGS
from minimp_backends.device_rounding import round_on_device

FORMATS = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
DEVICE: Any = get_backend("strict")


def numbers(dtype: Any) -> np.ndarray[Any, Any]:
    """Return numbers of every size, ties of every format among them, and what has no size."""
    random = np.random.default_rng(0)
    wide = random.standard_normal(3000) * 2.0 ** random.integers(-160, 140, 3000)
    ties = np.ldexp(random.integers(-(1 << 12), 1 << 12, 3000) + 0.5, random.integers(-30, 12, 3000))
    ends = [
        x * s for f in map(formats.get, FORMATS) for x in (f.max, f.smallest_subnormal / 2) for s in (1, -1)
    ]
    near = np.nextafter(np.array(ends), np.inf)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 65520.0, 65519.0, 464.0, 465.0, -449.0, 57344.0, 61440.0]
    with np.errstate(over="ignore"):
        return np.concatenate([wide, ties, ends, near, special]).astype(dtype)


@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
@pytest.mark.parametrize("rounding", list(ROUNDINGS))
@pytest.mark.parametrize("name", FORMATS)
def test_every_rounding_gives_the_reference_s_bits(name: str, rounding: str, overflow: str) -> None:
    """Oracle: minimp.formats.round on the host, random numbers by place; NaN is NaN."""
    fmt = formats.get(name)
    for dtype in (np.float32, np.float64):
        x = numbers(dtype)
        rng = formats.Counter(7) if rounding == "stochastic" else None
        wanted = formats.round(x, fmt, rounding=rounding, overflow=overflow, rng=rng)
        found = round_on_device(DEVICE, DEVICE.from_host(x), fmt, rounding, overflow, rng).get()
        np.testing.assert_array_equal(found, wanted.astype(np.float64))
        np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


@pytest.mark.parametrize("source", ["float64", "float32", "float16", "bfloat16", "int64", "bool"])
@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_casts_to_nearest_are_numpys(name: str, source: str) -> None:
    """Oracle: the NumPy backend's bits: one rounding, from float64 to bfloat16 too; large integers."""
    fmt = formats.get(name)
    if source in ("int64", "bool"):
        x = np.array([0, 1, -3, 1 << 53, (1 << 60) + 1, 65520, 70000, -2049]).astype(source)
    else:
        x = get_backend("numpy").cast(
            np.append(numbers(np.float64), 1 + 2.0**-8 + 2.0**-40), formats.get(source)
        )
    wanted = get_backend("numpy").cast(x, fmt)
    found = DEVICE.cast(DEVICE.from_host(x), fmt).get()
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found.astype(np.float64), wanted.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))
