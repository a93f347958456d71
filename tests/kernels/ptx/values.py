"""Register contents: arrays of uint64, one element a thread; an instruction's type says how to read them."""

from __future__ import annotations

import numpy as np

from tests.kernels.ptx.parsing import PtxError

__all__ = ["INTEGERS", "Bits", "bits_of", "read", "typed", "width_of"]

Bits = np.ndarray  # of uint64

INTEGERS = {
    f"{sign}{bits}": np.dtype(f"{code}{bits // 8}")
    for sign, code in (("u", "u"), ("s", "i"), ("b", "u"))
    for bits in (8, 16, 32, 64)
}
_FLOATS = {"f16": np.dtype("f2"), "f32": np.dtype("f4"), "f64": np.dtype("f8")}


def width_of(type_name: str) -> int:
    """Return the bits of a register of that type, 1 for a predicate."""
    if type_name == "pred":
        return 1
    if type_name in {"e4m3x2", "e5m2x2", "bf16"}:
        return 16
    if type_name in {"f16x2", "bf16x2", "tf32"}:
        return 32
    return int(type_name.lstrip("usbf"))


def typed(type_name: str) -> np.dtype:
    """Return the NumPy type of a PTX type."""
    found = INTEGERS.get(type_name) or _FLOATS.get(type_name)
    if found is None:
        raise PtxError(f"no values of type .{type_name} here")
    return found


def read(bits: Bits, type_name: str) -> np.ndarray:
    """Return register contents as values of a type: its low bits."""
    dtype = typed(type_name)
    return bits.astype(f"u{dtype.itemsize}").view(dtype)


def bits_of(values: np.ndarray) -> Bits:
    """Return values as register contents; signed ones are extended, for the register to cut to its width."""
    if values.dtype.kind == "i":
        return values.astype(np.int64).view(np.uint64)
    if values.dtype.kind == "b":
        return values.astype(np.uint64)
    return np.ascontiguousarray(values).view(f"u{values.itemsize}").astype(np.uint64)
