"""Products of codes on a device; oracle throughout: the NumPy backend's, number for number."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.backend import get_backend
from minimp.errors import FormatError, MinimpError
from minimp_backends import device_integers
from minimp_backends.device_integers import DeviceIntegers
from minimp_backends.strict_backend import StrictBackend

Array = npt.NDArray[Any]
HOST = get_backend("numpy")
DTYPES = (np.int8, np.uint8)


class Device(DeviceIntegers, StrictBackend):
    """The strict device with a product of int8 in int32, as cuBLAS has it."""

    depths: list[int]

    def int8_product(self, a: Any, b: Any) -> Any:
        """Multiply, wrapping around."""
        assert a.dtype == b.dtype == np.int8
        self.depths.append(a.shape[-1])
        return self.xp.matmul(a.astype("int32"), b.astype("int32"))


@pytest.fixture
def device() -> Device:
    """Return a device that notes the depths of its products."""
    made = Device()
    made.depths = []
    return made


def codes(shape: tuple[int, ...], dtype: Any, seed: int) -> Array:
    """Return codes of every kind, the ends among them."""
    limits = np.iinfo(dtype)
    made = np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)
    made.reshape(-1)[: made.size // 3] = limits.min if seed % 2 else limits.max
    return made


def both(
    device: Device, name: str, arrays: tuple[Array, Array], *how: Any, **more: Any
) -> tuple[Array, Array]:
    """Return what a kernel makes on the device, and what on the host."""
    made = getattr(device, name)(*(device.from_host(each) for each in arrays), *how, **more)
    return device.to_host(made), getattr(HOST, name)(*arrays, *how, **more)


@given(
    st.sampled_from(DTYPES),
    st.sampled_from(DTYPES),
    st.integers(0, 40),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_products_with_zero_points(a: Any, b: Any, depth: int, rows: bool, columns: bool, data: Any) -> None:
    """One zero point, or one a row and column, with a batch that broadcasts."""
    made = Device()
    made.depths = []
    arrays = codes((2, 1, 5, depth), a, 1), codes((3, depth, 4), b, 2)
    zeros = [
        data.draw(st.lists(st.integers(np.iinfo(d).min, np.iinfo(d).max), min_size=n, max_size=n))
        for d, n in ((a, 5 if rows else 1), (b, 4 if columns else 1))
    ]
    left, right = (each if many else each[0] for each, many in zip(zeros, (rows, columns), strict=True))
    ours, theirs = both(made, "integer_matmul", arrays, left, right)
    assert ours.dtype == np.int32
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("block", [50, 4096, 1 << 17])
def test_long_sums_are_cut_and_exact(device: Device, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may leave int32 goes in parts that cannot, and is added in int64; it may also stay."""
    monkeypatch.setattr(device_integers, "BLOCK", block)
    depth = 40_000
    arrays = codes((3, depth), np.uint8, 4), codes((depth, 2), np.uint8, 5)
    ours, theirs = both(device, "integer_matmul", arrays, 255, 0)
    np.testing.assert_array_equal(ours, theirs)
    assert max(device.depths) <= block
    assert sum(device.depths) == depth


def test_a_block_is_as_long_as_can_be() -> None:
    """Oracle: int32's end by hand."""
    assert device_integers.BLOCK * 2**14 < 2**31 <= (device_integers.BLOCK + 1) * 2**14


def test_what_int32_has_not_is_refused(device: Device) -> None:
    """A sum beyond int32 raises the host's error."""
    ones = np.full((1, 40_000), 255, np.uint8)
    with pytest.raises(FormatError, match="a sum of 40000 products is 2601000000"):
        device.integer_matmul(device.from_host(ones), device.from_host(ones.T.copy()))


GEOMETRIES: tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 7, 6), (4, 3, 3, 2), {}),
    ((2, 4, 8, 7), (6, 2, 3, 3), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}),
    ((3, 5, 6, 6), (10, 1, 3, 3), {"padding": 1, "groups": 5}),
    ((1, 2, 1, 5), (3, 2, 1, 1), {"stride": 3}),
)  # fmt: skip


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_convolutions(device: Device, geometry: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups, strides, padding with the zero point, a zero point a filter; many tiles and one."""
    image, kernel, sizes = geometry
    arrays = codes(image, dtype, 6), codes(kernel, np.int8, 7)
    zeros = {"x_zero": 3, "w_zero": np.arange(kernel[0]) - 2}
    for room in (1 << 28, 64):
        monkeypatch.setattr("minimp_backends.device_convolution.COLUMN_BYTES", room)
        ours, theirs = both(device, "integer_conv2d", arrays, **sizes, **zeros)
        assert ours.dtype == np.int32
        np.testing.assert_array_equal(ours, theirs)


def test_saturating_products_are_the_hosts(device: Device) -> None:
    """What is emulated is emulated on the host."""
    arrays = codes((3, 9), np.uint8, 1), codes((9, 2), np.int8, 2)
    ours, theirs = both(device, "integer_matmul", arrays, 1, 2, accumulate="int16-saturating")
    np.testing.assert_array_equal(ours, theirs)
    assert device.depths == []


def test_exact_products_do_not_wait(device: Device) -> None:
    """Where the sums cannot leave int32 nobody looks at them; oracle: the strict device's count."""
    a, b = (device.from_host(codes((8, 8), np.uint8, seed)) for seed in (1, 2))
    with device.counting() as counts:
        device.integer_matmul(a, b, 3, 4)
    assert (counts.syncs, counts.to_device) == (0, 0)


def test_refusals_are_the_hosts(device: Device) -> None:
    """Wrong dtypes, shapes and zero points raise what the host raises."""
    a, b = codes((3, 4), np.int8, 1), codes((4, 2), np.int8, 2)
    for arrays, how in (
        ((a.astype(np.int32), b), ()),
        ((a, b[:3]), ()),
        ((a, b), (200,)),
        ((a, b), ([1, 2],)),
    ):
        said = []
        for backend in (HOST, device):
            with pytest.raises(MinimpError) as fault:
                backend.integer_matmul(*(backend.from_host(each) for each in arrays), *how)
            said.append(str(fault.value))
        assert said[0] == said[1]
