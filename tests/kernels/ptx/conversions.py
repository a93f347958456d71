"""cvt: from every format to every format that kernels here meet."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tests.kernels.ptx.floats import FORMATS, canonical, flushed, rounded
from tests.kernels.ptx.parsing import PtxError
from tests.kernels.ptx.values import INTEGERS, Bits, bits_of, read

__all__ = ["convert", "decode", "encode"]

_STORED = {
    "f64": np.dtype("f8"),
    "f32": np.dtype("f4"),
    "f16": np.dtype("f2"),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
_NAN = {"f16": 0x7FFF, "bf16": 0x7FFF, "e4m3": 0x7F, "e5m2": 0x7F}
_INTEGRAL = {"rni": "rn", "rzi": "rz", "rmi": "rm", "rpi": "rp"}
_MODES = ("rn", "rna", "rz", "rm", "rp")


def decode(bits: Bits, name: str) -> np.ndarray:
    """Return the values that the low bits of registers hold, as float64."""
    stored = _STORED[name]
    return bits.astype(f"u{stored.itemsize}").view(stored).astype(np.float64)


def encode(values: np.ndarray, name: str) -> Bits:
    """Return float64 values that the format can hold as its bits; a NaN as NVIDIA writes it."""
    if name in {"f32", "f64"}:
        return bits_of(canonical(values.astype(_STORED[name])))
    bits = bits_of(values.astype(_STORED[name]).view(f"u{_STORED[name].itemsize}"))
    return np.where(np.isnan(values), np.uint64(_NAN[name]), bits)


def convert(words: tuple[str, ...], sources: list[Bits]) -> Bits:
    """Return what ``cvt`` with these words gives.

    Args:
        words: of the opcode, behind ``cvt``: modifiers, then the type it gives, then the type it takes.
        sources: one operand, or two that are packed, the first into the upper half.

    Raises:
        PtxError: a type or a modifier is not known.
    """
    *modifiers, to, taken = words
    if taken in {"e4m3x2", "e5m2x2"} and to == "f16x2":
        return _unpack_fp8(taken.removesuffix("x2"), sources[0])
    if to.endswith("x2") and to.removesuffix("x2") in FORMATS:
        name = to.removesuffix("x2")
        upper, lower = (_to_float(modifiers, name, taken, each) for each in sources)
        return upper << np.uint64(8 if name.startswith("e") else 16) | lower
    (source,) = sources
    if to in FORMATS:
        return _to_float(modifiers, to, taken, source)
    if to in INTEGERS:
        return _to_integer(modifiers, to, taken, source)
    raise PtxError(f"unknown conversion cvt.{'.'.join(words)}")


def _checked(modifiers: list[str], known: set[str]) -> None:
    if unknown := set(modifiers) - known:
        raise PtxError(f"unknown modifier of cvt: .{', .'.join(sorted(unknown))}")


def _unpack_fp8(name: str, source: Bits) -> Bits:
    halves = [encode(decode(source >> np.uint64(shift) & np.uint64(0xFF), name), "f16") for shift in (8, 0)]
    return halves[0] << np.uint64(16) | halves[1]


def _to_float(modifiers: list[str], to: str, taken: str, source: Bits) -> Bits:
    _checked(modifiers, {*_MODES, *_INTEGRAL, "ftz", "sat", "satfinite"})
    mode = next((each for each in modifiers if each in _MODES), "rn")
    if taken in INTEGERS:
        values = read(source, taken)
        if mode != "rn" or to not in {"f32", "f64", "f16"}:
            raise PtxError(f"no cvt.{mode}.{to}.{taken} here")
        if to == "f16":
            return encode(rounded(values.astype(np.float64), "f16"), "f16")
        return bits_of(values.astype(_STORED[to]))
    if taken not in _STORED:
        raise PtxError(f"unknown conversion from .{taken}")
    values = decode(source, taken)
    if "ftz" in modifiers and taken == "f32":
        values = flushed(values.astype(np.float32)).astype(np.float64)
    integral = next((_INTEGRAL[each] for each in modifiers if each in _INTEGRAL), None)
    if integral:
        values = _integral(values, integral)
    result = rounded(values, to, mode, saturate="satfinite" in modifiers)
    if "sat" in modifiers:
        result = np.where(np.isnan(result), 0.0, np.clip(result, 0.0, 1.0))
    if "ftz" in modifiers and to == "f32":
        result = flushed(result.astype(np.float32)).astype(np.float64)
    return encode(result, to)


def _integral(values: np.ndarray, mode: str) -> np.ndarray:
    """Round to whole numbers, which stay floats."""
    whole = {"rn": np.rint, "rz": np.trunc, "rm": np.floor, "rp": np.ceil}[mode](values)
    return np.copysign(whole, values)


def _to_integer(modifiers: list[str], to: str, taken: str, source: Bits) -> Bits:
    limits = np.iinfo(INTEGERS[to])
    if taken in INTEGERS:
        _checked(modifiers, {"sat"})
        values = read(source, taken)
        if "sat" in modifiers:
            inside = [min(max(int(each), limits.min), limits.max) for each in values]
            return bits_of(np.array(inside, INTEGERS[to]))
        return bits_of(bits_of(values).astype(f"u{INTEGERS[to].itemsize}").view(INTEGERS[to]))
    _checked(modifiers, {*_INTEGRAL, "ftz", "sat"})
    mode = next((_INTEGRAL[each] for each in modifiers if each in _INTEGRAL), None)
    if mode is None:
        raise PtxError(f"cvt to .{to} without a rounding to integers")
    values = decode(source, taken)
    if "ftz" in modifiers and taken == "f32":
        values = flushed(values.astype(np.float32)).astype(np.float64)
    return bits_of(_saturated(_integral(values, mode), to))


def _saturated(whole: np.ndarray, to: str) -> np.ndarray:
    """Whole float64 values as integers of a type: what does not fit becomes the end of the range.

    A NaN becomes 0, or in 64 bits the sign bit alone (CUDA Math API, type casting intrinsics).
    """
    dtype = INTEGERS[to]
    limits = np.iinfo(dtype)
    above = whole >= float(
        limits.max
    )  # float(2**31 - 1) is exact; float(2**63 - 1) is 2**63, the first beyond
    below = whole <= float(limits.min)
    nan = np.isnan(whole)
    inside = np.where(above | below | nan, 0.0, whole).astype(dtype)
    result = np.where(above, limits.max, np.where(below, limits.min, inside)).astype(dtype)
    odd = np.array([1 << 63], np.uint64).astype(dtype) if dtype.itemsize == 8 else np.zeros(1, dtype)
    return np.where(nan, odd, result)
