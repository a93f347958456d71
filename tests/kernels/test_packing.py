"""Arguments of a launch: what is refused, and what reaches the kernel byte for byte."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minimp.errors import DeviceError, FormatError, MinimpError, SettingError, ShapeError
from minimp_backends.kernels.declaring import KINDS, Kernel, Launch, Parameter
from minimp_backends.kernels.packing import MOST_SHARED_BYTES, PARAMETER_BYTES, pack
from minimp_backends.kernels.registry import KERNELS


class DeviceArray:
    """An array that says of itself what a cupy.ndarray says."""

    def __init__(self, array: Any, address: int = 4096) -> None:
        self.array = np.asarray(array)
        self.dtype, self.flags = self.array.dtype, self.array.flags
        self.shape, self.strides = self.array.shape, self.array.strides
        self.data = type("Memory", (), {"ptr": address})()


def kernel(*parameters: Parameter, launch: Launch | None = None) -> Kernel:
    """Return a kernel with these parameters."""
    return Kernel("tried", "tried.cu", parameters, lambda _: launch or Launch(2, 64), print)


X = Parameter("x", "half", "in")
N = Parameter("n", "int32", "value")
S = Parameter("s", "float", "value")
MANY = Parameter("xs", "float", "out", 4)
SIZES = Parameter("sizes", "int64", "value", 4)


def test_arrays_pass_as_they_are_and_numbers_as_their_type() -> None:
    """Oracle: the kernel's C types; a Python number would reach it as 64 bits."""
    array = DeviceArray(np.ones(3, np.float16))
    launch, packed = pack(kernel(X, N, S), {"s": 0.1, "n": 7, "x": array}, DeviceArray)
    assert launch == Launch(2, 64)
    assert packed[0] is array
    assert [(type(each), each.itemsize) for each in packed[1:]] == [(np.int32, 4), (np.float32, 4)]
    assert packed[2] == np.float32(0.1)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_number_has_its_size(kind: str) -> None:
    """Oracle: the size of its dtype, and the value 1."""
    _, (value,) = pack(kernel(Parameter("v", kind, "value")), {"v": 1}, DeviceArray)
    assert value.dtype == KINDS[kind].dtype
    assert value == 1


def test_tables_are_one_element_with_zeros_behind() -> None:
    """Oracle: the bytes of `Many<float*, 4>` and `Many<long long, 4>`, by hand."""
    arrays = [DeviceArray(np.ones(2, np.float32), address) for address in (256, 512)]
    _, (pointers, sizes) = pack(kernel(MANY, SIZES), {"xs": arrays, "sizes": [2, 2**40]}, DeviceArray)
    assert pointers.size == sizes.size == 1
    assert pointers.tobytes() == np.array([256, 512, 0, 0], np.uint64).tobytes()
    assert sizes.tobytes() == np.array([2, 2**40, 0, 0], np.int64).tobytes()


HALF = np.ones(3, np.float16)
REFUSED: dict[str, tuple[Kernel, dict[str, Any], type[MinimpError], str]] = {
    "host array": (
        kernel(X),
        {"x": HALF},
        DeviceError,
        "tried: x: expected an array on the device, got numpy",
    ),
    "number for array": (kernel(X), {"x": 1.0}, DeviceError, "got builtins.float"),
    "dtype": (kernel(X), {"x": DeviceArray([1.0])}, FormatError, "expected float16, got float64"),
    "bfloat16": (kernel(X), {"x": DeviceArray(HALF.astype(ml_dtypes.bfloat16))}, FormatError, "got bfloat16"),
    "strides": (kernel(X), {"x": DeviceArray(HALF[::2])}, ShapeError, "elements side by side, got strides"),
    "too large": (kernel(N), {"n": 2**31}, FormatError, "whole number from -2147483648 to 2147483647"),
    "no number": (kernel(N), {"n": float("nan")}, FormatError, "got nan"),
    "endless": (kernel(N), {"n": float("inf")}, FormatError, "got inf"),
    "fraction": (kernel(N), {"n": 1.5}, FormatError, "got 1.5"),
    "array for number": (kernel(S), {"s": DeviceArray(1.0)}, FormatError, "expected a number of the host"),
    "text": (kernel(S), {"s": "1"}, FormatError, "got builtins.str"),
    "missing": (kernel(X, N), {"n": 1}, SettingError, "expected arguments x, n; x missing"),
    "unknown": (kernel(N), {"n": 1, "nn": 1}, SettingError, "unknown argument 'nn'; did you mean 'n'"),
    "too many": (kernel(SIZES), {"sizes": [1] * 5}, ShapeError, "a list of at most 4, got 5"),
    "no list": (kernel(SIZES), {"sizes": 5}, ShapeError, "a list of at most 4, got builtins.int"),
    "host in list": (
        kernel(MANY),
        {"xs": [np.ones(1, "f4")]},
        DeviceError,
        "tried: xs: expected an array on",
    ),
    "no grid": (kernel(N, launch=Launch(0, 32)), {"n": 1}, ShapeError, "a grid of 1 to"),
    "block": (kernel(N, launch=Launch(1, 1025)), {"n": 1}, ShapeError, "a block of 1 to 1024, got 1025"),
    "shared": (kernel(N, launch=Launch(1, 32, 49153)), {"n": 1}, ShapeError, "shared_bytes of 0 to 49152"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_kernel_would_misread_is_refused(case: str) -> None:
    """Oracle: the table above: one fault each, an error that says what was expected and what came."""
    tried, arguments, error, message = REFUSED[case]
    with pytest.raises(error) as caught:
        pack(tried, arguments, DeviceArray)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_parameters_fit_every_chip(name: str) -> None:
    """Oracle: 4 KiB of kernel parameters, each at a multiple of its own size (CUDA C++ Programming Guide)."""
    end = 0
    for each in KERNELS[name].parameters:
        size = KINDS[each.kind].dtype.itemsize if each.role == "value" else 8
        end = -(-end // size) * size + size * (each.many or 1)
    assert end <= PARAMETER_BYTES


def test_shared_memory_has_no_more_than_any_chip_gives() -> None:
    """Oracle: 48 KiB (CUDA C++ Programming Guide, technical specifications per compute capability)."""
    assert MOST_SHARED_BYTES == 49152
