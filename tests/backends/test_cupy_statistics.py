"""Statistics that a device counts, beside those of the same array on the host; what is copied for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.trace.statistics import Stats, measure, targets_of
from minimp.trace.tallies import stats_of
from minimp_backends.tallies import Tally
from tests.tolerances import assert_close

STORED = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
LARGE = 5000
"""Elements of an array that is larger than any table."""


@pytest.fixture(scope="module")
def device() -> Any:
    """Return CuPy's backend on the strict device, where a kernel is its NumPy reference."""
    pytest.importorskip("cupy")
    from tests.backends.cupy_on_strict import CupyOnStrict

    return CupyOnStrict()


def of_host(host: np.ndarray, *, backward: bool) -> Stats:
    """Return what the host measures."""
    form = formats.get(host.dtype) if host.dtype.name in (*STORED, "float64") else None
    wide = host.astype(np.float32) if host.dtype.itemsize == 2 and form is not None else host
    return measure(host, form, wide, targets_of(form) if backward else ())


def same(device: Any, host: np.ndarray, *, backward: bool, array: Any = None) -> Stats:
    """Hold the statistics of an array on the device to those of its copy on the host; return them."""
    array = device.from_host(host) if array is None else array
    form = formats.get(host.dtype) if host.dtype.name in (*STORED, "float64") else None
    found = stats_of(device, array, form, targets_of(form) if backward else ())
    wanted = of_host(host, backward=backward)
    assert replace(found, mean=None) == replace(wanted, mean=None)
    assert list(found.binades) == sorted(found.binades)
    if found.mean is None:
        assert wanted.mean is None
    else:
        assert_close([found.mean, wanted.amax], [wanted.mean, wanted.amax], "fp64_sums")
    return found


def patterns(name: str) -> np.ndarray:
    """Return numbers by their bits, of all kinds and all exponents."""
    dtype = np.dtype(STORED[name])
    bits = np.random.default_rng(2).integers(0, 1 << 8 * dtype.itemsize, LARGE, np.uint64)
    return bits.astype(f"u{dtype.itemsize}").view(dtype)


ARRAYS: dict[str, Callable[[str], np.ndarray]] = {
    "bits": patterns,
    "normal": lambda name: np.random.default_rng(0).standard_normal(LARGE).astype(STORED[name]),
    "zeros": lambda name: np.zeros(LARGE, STORED[name]),
    "zeros of both signs": lambda name: np.array([0.0, -0.0, 1.0, -1.0] * LARGE, STORED[name]),
    "NaN": lambda name: np.full(LARGE, np.nan, STORED[name]),
    "infinities": lambda name: np.array([np.inf, -np.inf] * LARGE, STORED[name]),
    "one finite": lambda name: np.array([*[np.inf] * LARGE, -3.0], STORED[name]),
    "powers of two": lambda name: np.full(LARGE, 2.0**-13, STORED[name]),
    "largest": lambda name: np.full(LARGE, formats.get(name).max, STORED[name]),
    "subnormal": lambda name: np.full(LARGE, -3 * formats.get(name).smallest_subnormal, STORED[name]),
    "no axes": lambda name: np.array(-0.75, STORED[name]),
    "empty": lambda name: np.zeros((3, 0), STORED[name]),
}


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("kind", ARRAYS)
def test_the_device_counts_as_the_host_measures(device: Any, kind: str, name: str, backward: bool) -> None:
    """Oracle: `measure` on a copy: all is equal, the mean to the bound of sums in another order."""
    same(device, ARRAYS[kind](name), backward=backward)


@given(data=st.data())
def test_any_numbers_in_any_place(device: Any, data: st.DataObject) -> None:
    """Law: `measure` of the same numbers, repeated until the device counts them."""
    name = data.draw(st.sampled_from(sorted(STORED)))
    dtype = np.dtype(STORED[name])
    codes = data.draw(st.lists(st.integers(0, 2 ** (8 * dtype.itemsize) - 1), min_size=1, max_size=30))
    some = np.array(codes, f"u{dtype.itemsize}").view(dtype)
    more = data.draw(st.integers(0, 7))
    host = np.concatenate([np.tile(some, LARGE // len(codes)), some[:more]])
    same(device, host, backward=data.draw(st.booleans()))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int8, np.uint8, np.bool_])
@pytest.mark.parametrize("size", [7, LARGE])
def test_what_has_no_kernel_is_measured_on_the_host(device: Any, dtype: Any, size: int) -> None:
    """Oracle: `measure` on a copy."""
    numbers = np.random.default_rng(1).integers(0, 2, (size, 2)).astype(dtype)
    same(device, numbers, backward=dtype == np.float64)


def test_codes_of_8_bits_come_as_they_are(device: Any) -> None:
    """Oracle: the codes."""
    host = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e5m2)
    (told,) = device.tally([device.from_host(host)])
    assert isinstance(told, np.ndarray)
    np.testing.assert_array_equal(told.view(np.uint8), host.view(np.uint8), strict=True)


def test_the_order_of_memory_is_nobodys_concern(device: Any) -> None:
    """Oracle: `measure` on a copy: transposed, every third row, backwards."""
    whole = device.from_host(patterns("float32").reshape(50, 100))
    for change in (lambda x: x.T, lambda x: x[::3], lambda x: x[:, ::-1]):
        part = change(whole)
        same(device, device.to_host(part), backward=True, array=part)


def test_one_copy_brings_what_is_told_of_many(device: Any) -> None:
    """Oracle: the backend's counts: one wait for all; a table each, and small arrays as they are."""
    hosts = [ARRAYS["normal"](name) for name in STORED] + [np.arange(5), np.float32([1.5]), np.array([True])]
    arrays = [device.from_host(each) for each in hosts]
    with device.counting() as counts:
        told = device.tally(arrays, with_cuts=True)
    assert (counts.syncs, counts.to_host) == (1, 1)
    assert counts.to_host_bytes < 16_000 < sum(each.nbytes for each in hosts)
    assert [isinstance(each, Tally) for each in told] == [True] * 3 + [False] * 3
    for each, host in zip(told[3:], hosts[3:], strict=True):
        np.testing.assert_array_equal(each, host, strict=True)


@pytest.mark.parametrize("size", [100, 1000, 2000, 20_000, 500_000])
@pytest.mark.parametrize("name", STORED)
def test_no_table_is_larger_than_its_array(device: Any, name: str, size: int) -> None:
    """Oracle: the array's bytes, and those of a table."""
    array = device.xp.zeros(size, np.dtype(STORED[name]))
    for with_cuts in (False, True):
        with device.counting() as counts:
            device.tally([array], with_cuts=with_cuts)
        assert counts.to_host_bytes <= min(-(-array.nbytes // 8) * 8, 17_000)


def test_without_kernels_arrays_come_whole(device: Any) -> None:
    """Oracle: the arrays, under the route of array functions."""
    host = ARRAYS["bits"]("bfloat16")
    array = device.from_host(host)
    assert device.tallies()
    with device.use_route("arrays"):
        assert not device.tallies()
        (told,) = device.tally([array], with_cuts=True)
        same(device, host, backward=True, array=array)
    assert isinstance(told, np.ndarray)
    np.testing.assert_array_equal(told.view(np.uint16), host.view(np.uint16), strict=True)
