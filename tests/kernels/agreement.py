"""A kernel's arguments as a launch wants them, and its results against those of its NumPy reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minimp_backends.kernels.declaring import KINDS, Kernel, Parameter
from tests.kernels.samples import Arguments, differences

__all__ = ["Launched", "cell", "expected", "launched", "mismatches"]

MARGIN = 64  # bytes before and behind every array, which no kernel may touch
FILL = 0xC3


@dataclass
class Launched:
    """The arguments of one launch on host memory: guarded copies, and what holds their addresses."""

    kernel: Kernel
    copies: Arguments
    cells: list[np.ndarray]
    guards: list[tuple[str, np.ndarray, int]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Blocks, threads of each, and bytes of dynamic shared memory."""
        launch = self.kernel.launch(self.copies)
        return launch.grid, launch.block, launch.shared_bytes

    @property
    def addresses(self) -> list[int]:
        """Where each argument lies, as cuLaunchKernel wants them."""
        return [int(cell.ctypes.data) for cell in self.cells]

    def overruns(self) -> Iterator[str]:
        """Yield each array beside which something was written."""
        for name, buffer, size in self.guards:
            outside = np.concatenate([buffer[:MARGIN], buffer[MARGIN + size :]])
            if (outside != FILL).any():
                yield f"{name}: written outside its {size} bytes"


def _guarded(
    name: str, array: np.ndarray, guards: list[tuple[str, np.ndarray, int]], offset: int
) -> np.ndarray:
    buffer = np.full(array.nbytes + 2 * MARGIN + 32, FILL, np.uint8)
    skip = -buffer.ctypes.data % 16 + offset  # a device's arrays are aligned
    buffer = buffer[skip : skip + array.nbytes + 2 * MARGIN]
    inside = buffer[MARGIN : MARGIN + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    guards.append((name, buffer, array.nbytes))
    return inside


def cell(parameter: Parameter, value: Any) -> np.ndarray:
    """Return the argument's own bytes: a pointer or a number, or N of them."""
    several = value if parameter.many else [value]
    if parameter.role == "value":
        made = np.zeros(parameter.many or 1, KINDS[parameter.kind].dtype)
        made[: len(several)] = several
    else:
        made = np.zeros(parameter.many or 1, np.uint64)
        made[: len(several)] = [each.ctypes.data for each in several]
    return made


def launched(kernel: Kernel, arguments: Arguments, *, offset: int = 0) -> Launched:
    """Return guarded copies of a sample's arrays and the launch's arguments on them.

    The copies begin `offset` bytes behind a multiple of 16, as slices of a device's arrays may.
    """
    guards: list[tuple[str, np.ndarray, int]] = []
    copies: Arguments = {}
    for parameter in kernel.parameters:
        name, value = parameter.name, arguments[parameter.name]
        if parameter.role == "value":
            copies[name] = value
        elif parameter.many:
            copies[name] = [
                _guarded(f"{name}[{place}]", each, guards, offset) for place, each in enumerate(value)
            ]
        else:
            copies[name] = _guarded(name, value, guards, offset)
    cells = [cell(parameter, copies[parameter.name]) for parameter in kernel.parameters]
    return Launched(kernel, copies, cells, guards)


def expected(kernel: Kernel, arguments: Arguments) -> Arguments:
    """Return copies of a sample's arguments after the NumPy reference has run on them."""
    copies = copy.deepcopy(arguments)
    with np.errstate(all="ignore"):
        kernel.reference(**copies)
    return copies


def _each(value: Any) -> list[np.ndarray]:
    return list(value) if isinstance(value, list | tuple) else [value]


def same_bits(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return, element by element, whether the bits are the same or both are NaN."""
    bits = np.dtype(f"u{got.itemsize}")
    same = np.ascontiguousarray(got).view(bits) == np.ascontiguousarray(wanted).view(bits)
    if not np.issubdtype(got.dtype, np.integer):
        with np.errstate(invalid="ignore"):  # ml_dtypes asks a signalling NaN aloud
            same |= np.isnan(got) & np.isnan(wanted)
    return same


def mismatches(kernel: Kernel, arguments: Arguments, got: Arguments, wanted: Arguments) -> Iterator[str]:
    """Yield what is wrong with each array of a kernel's results, inputs that changed among it."""
    judge = differences(kernel.name)
    for parameter in kernel.parameters:
        if parameter.role == "value":
            continue
        pairs = zip(_each(got[parameter.name]), _each(wanted[parameter.name]), strict=True)
        for place, (one, other) in enumerate(pairs):
            name = f"{parameter.name}[{place}]" if parameter.many else parameter.name
            if judge and parameter.role != "in":
                told = judge(arguments, parameter.name, one, other)
            else:
                told = _different(one, other)
            if told:
                yield f"{name}: {told}"


def _different(got: np.ndarray, wanted: np.ndarray) -> str:
    wrong = ~same_bits(got, wanted)
    if not wrong.any():
        return ""
    at = tuple(int(each[0]) for each in np.nonzero(wrong))
    return f"{int(wrong.sum())} of {wrong.size} differ, first at {at}: {got[at]!r} for {wanted[at]!r}"
