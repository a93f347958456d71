"""An optional accelerator for the casts: numkong, which uses the processor's own conversion instructions.

It is looked for on first use, never when the backend is imported, and it is trusted only after a
self-test against the plain casts. The environment variable ``MINIMP_ACCELERATOR`` decides: ``auto`` (the
default) uses it if it is there and right, ``off`` never looks, ``numkong`` makes its absence an error.
:func:`accelerator_status` says in words what was decided and why.

Only float16 is accelerated: numkong 7.8.6 rounds the NaN 0x7fffffff, the one that GPUs write, to -0 in
bfloat16, and ml_dtypes is fast enough.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp.errors import DeviceError, SettingError, unknown_name
from minimp_backends import plain_casts
from minimp_backends.block_rounding import as_flat
from minimp_backends.plain_casts import FLOAT16, FLOAT32, Array, check_cast

__all__ = [
    "VARIABLE",
    "Accelerator",
    "Finding",
    "accelerator_status",
    "find_accelerator",
    "search",
    "self_test",
]

VARIABLE = "MINIMP_ACCELERATOR"
SETTINGS = ("auto", "off", "numkong")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """The float16 casts of an accelerating library, with the arguments and results of the plain casts.

    A signalling NaN may come back quiet, which is all that may differ.

    Attributes:
        name: the library.
        version: its version.
        convert: ``convert(source, dtype_name, out=target)`` on aligned C-contiguous arrays of one shape.
    """

    name: str
    version: str
    convert: Callable[..., object]

    def narrow_float16(self, wide: Array, half: Array, grid: Array | None = None) -> None:
        """Write ``wide`` rounded to float16 into ``half``, and as float32 into ``grid`` (may be ``wide``)."""
        check_cast("narrow_float16", wide, FLOAT32, half, FLOAT16)
        if grid is not None:
            check_cast("narrow_float16 grid", half, FLOAT16, grid, FLOAT32)
        arrays = _in_order(self.narrow_float16, wide, *((half,) if grid is None else (half, grid)))
        if arrays is None:
            return
        self.convert(arrays[0], "float16", out=arrays[1])
        for each in arrays[2:]:
            self.convert(arrays[1], "float32", out=each)

    def widen_float16(self, half: Array, wide: Array) -> None:
        """Write the float16 array ``half`` into the float32 array ``wide``; exact."""
        check_cast("widen_float16", half, FLOAT16, wide, FLOAT32)
        arrays = _in_order(self.widen_float16, half, wide)
        if arrays is not None:
            self.convert(arrays[0], "float32", out=arrays[1])

    def round_to_float16_grid(self, wide: Array, out: Array) -> None:
        """Write ``wide`` rounded to float16 into the float32 array ``out``, which may be ``wide`` itself."""
        check_cast("round_to_float16_grid", wide, FLOAT32, out, FLOAT32)
        self.narrow_float16(wide, np.empty(wide.shape, FLOAT16), out)


def _in_order(kernel: Callable[..., None], *arrays: Array) -> tuple[Array, ...] | None:
    """Return the arrays as they are where that will do, else as :func:`as_flat`."""
    if all(each.flags.c_contiguous and each.flags.aligned for each in arrays):
        return arrays
    return as_flat(kernel, *arrays)


@dataclass(frozen=True, slots=True)
class Finding:
    """What the search found: an accelerator or None, and the reason in words."""

    accelerator: Accelerator | None
    status: str


def find_accelerator() -> Accelerator | None:
    """Return the accelerator that ``MINIMP_ACCELERATOR`` and the self-test allow; the search is made once.

    Raises:
        SettingError: ``MINIMP_ACCELERATOR`` is none of auto, off, numkong.
        DeviceError: it is numkong, and numkong is missing or failed its self-test.
    """
    return _finding().accelerator


def accelerator_status() -> str:
    """Say which accelerator is in use, or why none is; raises as :func:`find_accelerator` does."""
    return _finding().status


@functools.cache
def _finding() -> Finding:
    return search(os.environ.get(VARIABLE, "auto"))


def search(setting: str) -> Finding:
    """Look for an accelerator as ``setting`` says: auto, off or numkong."""
    if setting not in SETTINGS:
        raise SettingError(
            unknown_name(f"setting of {VARIABLE}", setting, SETTINGS),
            help=f"unset {VARIABLE}, or set it to auto",
        )
    if setting == "off":
        return Finding(None, f"none: {VARIABLE}=off")
    finding = _load_numkong()
    if setting == "numkong" and finding.accelerator is None:
        raise DeviceError(
            f"expected the accelerator numkong; {finding.status}",
            help=f"pip install 'minimp[accel]', or set {VARIABLE}=auto to run without it",
        )
    return finding


def _load_numkong() -> Finding:
    try:
        library: Any = importlib.import_module("numkong")
        candidate = Accelerator("numkong", str(library.__version__), library.astype)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "numkong":
            return Finding(None, "none: numkong is not installed (pip install 'minimp[accel]')")
        return Finding(None, f"none: numkong cannot be loaded ({error})")
    except AttributeError as error:
        return Finding(None, f"none: this numkong is not one that minimp knows ({error})")
    label = f"numkong {candidate.version}"
    fault = self_test(candidate)
    if fault is not None:
        return Finding(None, f"none: {label} failed its self-test ({fault})")
    return Finding(candidate, f"{label}, self-test passed")


def self_test(candidate: Accelerator) -> str | None:
    """Compare an accelerator with the plain casts; return the first fault in words, or None.

    The inputs are all 65,536 halves and, around every value and every midpoint of two, the float32
    neighbours: so all ties, subnormals, zeros, infinities, NaNs and the overflow threshold. Then every
    length up to 130 at an odd offset, with the elements beside the target watched.
    """
    try:
        for what, expected, actual in _comparisons(candidate):
            fault = _difference(expected, actual)
            if fault is not None:
                return f"{what}: {fault}"
    except Exception as error:  # noqa: BLE001 - whatever a foreign library raises is a reason not to use it
        return f"{type(error).__name__}: {error}"
    return None


def _comparisons(candidate: Accelerator) -> Iterator[tuple[str, Array, Array]]:
    """Yield what was tried, the plain cast's answer and the candidate's."""
    sample = _boundaries()
    expected, half = np.empty(sample.shape, FLOAT16), np.empty(sample.shape, FLOAT16)
    expected_grid, grid = np.empty(sample.shape, FLOAT32), sample.copy()
    plain_casts.narrow_float16(sample, expected, expected_grid)
    candidate.narrow_float16(sample, half)
    yield "float32 to float16", expected, half
    candidate.narrow_float16(grid, half, grid)
    yield "float32 to float16 and back, in place", expected_grid, grid
    codes = np.arange(1 << 16).astype(np.uint16).view(FLOAT16)
    wide, expected_wide = np.empty(codes.shape, FLOAT32), np.empty(codes.shape, FLOAT32)
    plain_casts.widen_float16(codes, expected_wide)
    candidate.widen_float16(codes, wide)
    yield "float16 to float32", expected_wide, wide
    for length in range(131):
        room, wide_room = np.ones(length + 2, FLOAT16), np.ones(length + 2, FLOAT32)
        part = slice(1, length + 1)
        candidate.narrow_float16(sample[part], room[part])
        yield f"{length} elements to float16", expected[part], room[part]
        candidate.widen_float16(codes[part], wide_room[part])
        yield f"{length} elements to float32", expected_wide[part], wide_room[part]
        beside = np.append(room[[0, -1]], wide_room[[0, -1]])
        yield f"what lies beside {length} elements", np.ones(4, FLOAT32), beside


def _boundaries() -> Array:
    """Every half, every midpoint of two, the float32 neighbours of both, and what lies beyond."""
    values = np.arange(0x7C00).astype(np.uint16).view(FLOAT16).astype(np.float64)
    middles = (values + np.append(values[1:], 65536.0)) / 2  # the last one is 65520, the overflow threshold
    centres = np.concatenate([values, middles]).astype(FLOAT32).view(np.uint32)
    specials = np.array([0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7FFFFFFF, 1, 0x00800000], np.uint32)
    positive = np.concatenate([centres, centres + np.uint32(1), centres[1:] - np.uint32(1), specials])
    return np.stack([positive, positive | np.uint32(0x80000000)], axis=1).reshape(-1).view(FLOAT32)


def _difference(expected: Array, actual: Array) -> str | None:
    """Compare bit for bit, any NaN of the same sign standing for a NaN; None if alike."""
    words = f"u{expected.dtype.itemsize}"
    nan = np.isnan(expected)
    alike = np.where(
        nan,
        np.isnan(actual) & (np.signbit(actual) == np.signbit(expected)),
        actual.view(words) == expected.view(words),
    )
    if alike.all():
        return None
    first = int(np.argmin(alike))
    return f"{alike.size - int(alike.sum())} wrong, first {actual[first]} for {expected[first]}"
