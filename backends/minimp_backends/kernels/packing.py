"""A kernel's arguments, checked against its declaration and brought into the form that CuPy launches with.

CuPy hands a kernel (14.2.0, ``cupy/cuda/function.pyx``): a ``cupy.ndarray`` as its device pointer, a NumPy
scalar or a NumPy array of one element by value, byte for byte, and a Python float as a double, an int as 64
bits, whatever the kernel expects. So every number becomes a NumPy scalar of the declared type here, and a
table of pointers or numbers (``many``) a NumPy array of one structured element. Kernel parameters may take 4
KiB in all on every chip (CUDA C++ Programming Guide, ``__global__`` function parameters).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp.errors import DeviceError, FormatError, SettingError, ShapeError, unknown_name
from minimp_backends.kernels.declaring import KINDS, Kernel, Launch, Parameter

__all__ = ["MOST_SHARED_BYTES", "PARAMETER_BYTES", "pack"]

MOST_SHARED_BYTES = 48 * 1024  # of a block, on every chip without asking the driver for more
PARAMETER_BYTES = 4096
_BLOCK = 1024  # threads at most


def _name(value: Any) -> str:
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"


def _pointer(kernel: Kernel, parameter: Parameter, array: Any, array_type: type[Any]) -> Any:
    """The array itself, once it is what the kernel will take it for."""
    where = f"{kernel.name}: {parameter.name}"
    if not isinstance(array, array_type):
        raise DeviceError(
            f"expected an array on the device, got {_name(array)}",
            op=where,
            help="move it there first: backend.from_host(array)",
        )
    dtype = KINDS[parameter.kind].dtype
    if array.dtype != dtype:
        raise FormatError(f"expected {dtype}, got {array.dtype}", op=where, formats=(str(array.dtype),))
    if not array.flags.c_contiguous:
        raise ShapeError(
            f"expected elements side by side, got strides {array.strides} for shape {array.shape}",
            op=where,
            shapes=(array.shape,),
            help="xp.ascontiguousarray(array)",
        )
    return array


def _number(kernel: Kernel, parameter: Parameter, value: Any) -> Any:
    """The number as a NumPy scalar of the declared type."""
    dtype = KINDS[parameter.kind].dtype
    where = f"{kernel.name}: {parameter.name}"
    if not isinstance(value, int | float | np.number | np.bool_):
        raise FormatError(
            f"expected a number of the host, got {_name(value)}",
            op=where,
            help="what lies on the device goes by pointer, as an array of one element",
        )
    if dtype.kind not in "iu":
        return dtype.type(value)
    limits = np.iinfo(dtype)
    whole = not isinstance(value, float | np.floating) or float(value).is_integer()
    if not whole or not limits.min <= value <= limits.max:
        raise FormatError(f"expected a whole number from {limits.min} to {limits.max}, got {value}", op=where)
    return dtype.type(int(value))


def _table(kernel: Kernel, parameter: Parameter, values: Any, array_type: type[Any]) -> Any:
    """Several pointers or numbers as one element of a structure; null or 0 behind the last."""
    if not isinstance(values, list | tuple) or len(values) > parameter.many:
        came = f"{len(values)}" if isinstance(values, list | tuple) else _name(values)
        raise ShapeError(
            f"expected a list of at most {parameter.many}, got {came}",
            op=f"{kernel.name}: {parameter.name}",
            help="more than that takes several launches",
        )
    if parameter.role == "value":
        table = np.zeros((), [("at", KINDS[parameter.kind].dtype, (parameter.many,))])
        table["at"][: len(values)] = [_number(kernel, parameter, each) for each in values]
    else:
        table = np.zeros((), [("at", np.uint64, (parameter.many,))])
        table["at"][: len(values)] = [
            _pointer(kernel, parameter, each, array_type).data.ptr for each in values
        ]
    return table


def _packed(kernel: Kernel, parameter: Parameter, value: Any, array_type: type[Any]) -> Any:
    if parameter.many:
        return _table(kernel, parameter, value, array_type)
    if parameter.role == "value":
        return _number(kernel, parameter, value)
    return _pointer(kernel, parameter, value, array_type)


def _check_names(kernel: Kernel, arguments: Mapping[str, Any]) -> None:
    names = [parameter.name for parameter in kernel.parameters]
    for name in arguments:
        if name not in names:
            raise SettingError(unknown_name("argument", name, names), op=kernel.name)
    missing = [name for name in names if name not in arguments]
    if missing:
        raise SettingError(
            f"expected arguments {', '.join(names)}; {', '.join(missing)} missing", op=kernel.name
        )


def _check_launch(kernel: Kernel, launch: Launch) -> None:
    allowed = {
        "grid": (launch.grid, 1, 2**31 - 1),
        "block": (launch.block, 1, _BLOCK),
        "shared_bytes": (launch.shared_bytes, 0, MOST_SHARED_BYTES),
    }
    for name, (came, least, most) in allowed.items():
        if not least <= came <= most:
            raise ShapeError(f"expected a {name} of {least} to {most}, got {came}", op=kernel.name)


def pack(
    kernel: Kernel, arguments: Mapping[str, Any], array_type: type[Any]
) -> tuple[Launch, tuple[Any, ...]]:
    """Return a kernel's launch, and its arguments in the kernel's order as CuPy wants them.

    Args:
        kernel: what will be launched.
        arguments: by name. Arrays on the device; numbers of the host; lists of either for ``many``.
        array_type: the class of arrays on the device, ``cupy.ndarray``.

    Raises:
        SettingError: an argument is missing or not the kernel's.
        DeviceError: an array of the host stands where the kernel wants one on the device.
        FormatError: an array of another dtype, or a number that its type cannot hold.
        ShapeError: an array that is not contiguous, a list that is too long, or a launch too large.
    """
    _check_names(kernel, arguments)
    packed = tuple(_packed(kernel, each, arguments[each.name], array_type) for each in kernel.parameters)
    launch = kernel.launch(arguments)
    _check_launch(kernel, launch)
    return launch, packed
