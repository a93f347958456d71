"""Integer, bit and comparison instructions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.kernels.ptx.parsing import PtxError
from tests.kernels.ptx.values import INTEGERS, Bits, bits_of, read

__all__ = ["BITWISE", "LONG", "bitfield", "compare", "integer", "permute", "shift"]

Values = np.ndarray
_LOW32 = np.uint64(0xFFFF_FFFF)


def _divided(a: Values, b: Values) -> Values:
    if (b == 0).any():
        raise PtxError("an integer division by zero")
    if a.dtype.kind == "u":
        return a // b
    quotient = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -quotient, quotient)


def _upper(a: Values, b: Values) -> Values:
    """The upper half of the full product."""
    exact = a.astype(object) * b.astype(object)
    bits = 8 * a.dtype.itemsize
    return (
        np.array([int(each) >> bits for each in exact.reshape(-1)], object)
        .astype(a.dtype)
        .reshape(exact.shape)
    )


_PLAIN: dict[str, Callable[..., Values]] = {
    "add": np.add,
    "sub": np.subtract,
    "div": _divided,
    "rem": lambda a, b: a - _divided(a, b) * b,
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "abs": np.abs,
}


def integer(name: str, part: str, type_name: str, operands: list[Bits]) -> Bits:
    """Return add, sub, mul, mad, div, rem, min, max, neg or abs of integers.

    Args:
        name: the instruction.
        part: of mul and mad: ``lo``, ``hi`` or ``wide``; "" for the others.
        type_name: of the operands.
        operands: as registers hold them.
    """
    if name in _PLAIN and not part:
        return bits_of(_PLAIN[name](*(read(each, type_name) for each in operands)))
    if name not in {"mul", "mad"} or part not in {"lo", "hi", "wide"}:
        raise PtxError(f"no {name}.{part}.{type_name} here")
    a, b = (read(each, type_name) for each in operands[:2])
    if part == "wide":
        double = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
        product = a.astype(double) * b.astype(double)
    else:
        product = a * b if part == "lo" else _upper(a, b)
    if name == "mad":
        product = product + read(operands[2], f"u{8 * product.itemsize}").view(product.dtype)
    return bits_of(product)


def shift(name: str, type_name: str, value: Bits, amount: Bits) -> Bits:
    """Return shl or shr; an amount beyond the width counts as the width."""
    values = read(value, type_name)
    width = 8 * values.itemsize
    by = np.minimum(amount & _LOW32, np.uint64(width))
    inside = np.minimum(by, np.uint64(width - 1)).astype(values.dtype)
    if name == "shl":
        return bits_of(np.where(by == width, values.dtype.type(0), values << inside))
    signed = values.dtype.kind == "i"
    beyond = np.where(values < 0, -1, 0).astype(values.dtype) if signed else values.dtype.type(0)
    return bits_of(np.where(by == width, beyond, values >> inside))


def funnel(direction: str, mode: str, low: Bits, high: Bits, amount: Bits) -> Bits:
    """Return ``shf``: 32 bits out of two registers side by side, shifted."""
    if mode not in {"wrap", "clamp"}:
        raise PtxError(f"unknown shf.{mode}")
    by = amount & np.uint64(31) if mode == "wrap" else np.minimum(amount & _LOW32, np.uint64(32))
    both = (high & _LOW32) << np.uint64(32) | low & _LOW32
    return (both << by >> np.uint64(32)) & _LOW32 if direction == "l" else (both >> by) & _LOW32


def permute(a: Bits, b: Bits, selector: Bits) -> Bits:
    """Return ``prmt`` without a mode: four of eight bytes, each as it is or as copies of its sign."""
    both = (b & _LOW32) << np.uint64(32) | a & _LOW32
    result = np.zeros_like(both | selector)
    for k in range(4):
        nibble = selector >> np.uint64(4 * k) & np.uint64(15)
        byte = both >> (nibble & np.uint64(7)) * np.uint64(8) & np.uint64(0xFF)
        signs = np.where(byte & np.uint64(0x80), np.uint64(0xFF), np.uint64(0))
        result = result | np.where(nibble & np.uint64(8), signs, byte) << np.uint64(8 * k)
    return result


def bitfield(name: str, type_name: str, operands: list[Bits]) -> Bits:
    """Return bfe (a field of bits out of a register) or bfi (into one)."""
    width = np.uint64(8 * INTEGERS[type_name].itemsize)
    *values, start, length = operands
    start, length = start & np.uint64(0xFF), length & np.uint64(0xFF)
    length = np.where(start >= width, np.uint64(0), np.minimum(length, width - np.minimum(start, width)))
    mask = np.where(
        length >= np.uint64(64), ~np.uint64(0), (np.uint64(1) << length % np.uint64(64)) - np.uint64(1)
    )
    start = start % np.uint64(64)
    if name == "bfi":
        return values[1] & ~(mask << start) | (values[0] & mask) << start
    field = values[0] >> start & mask
    if type_name.startswith("u"):
        return field
    raise PtxError(f"no bfe.{type_name} here")


def _count(function: Callable[[int, int], int]) -> Callable[[Values], Bits]:
    def counted(values: Values) -> Bits:
        bits = 8 * values.itemsize
        return np.array([function(int(each), bits) for each in values.reshape(-1)], np.uint64)

    return counted


BITWISE: dict[str, Callable[..., Bits]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.bitwise_not,
    "cnot": lambda a: (a == 0).astype(np.uint64),
}
LONG: dict[str, Callable[[Values], Bits]] = {
    "popc": _count(lambda value, _: value.bit_count()),
    "clz": _count(lambda value, bits: bits - value.bit_length()),
    "brev": _count(lambda value, bits: int(f"{value:0{bits}b}"[::-1], 2)),
}


def lop3(table: int, a: Bits, b: Bits, c: Bits) -> Bits:
    """Return any function of three bits, bit by bit, by its table of eight."""
    result = np.zeros_like(a | b | c)
    for place in range(8):
        if table >> place & 1:
            chosen = [each if place >> k & 1 else ~each for each, k in ((a, 2), (b, 1), (c, 0))]
            result = result | chosen[0] & chosen[1] & chosen[2]
    return result & _LOW32


def dot4(signs: str, a: Bits, b: Bits, c: Bits) -> Bits:
    """Return ``dp4a``: four products of bytes added to a 32-bit integer."""
    total = read(c, "s32").astype(np.int64)
    for k in range(0, 32, 8):
        one, other = (
            read(each >> np.uint64(k) & np.uint64(0xFF), f"{sign}8").astype(np.int64)
            for each, sign in ((a, signs[0]), (b, signs[1]))
        )
        total = total + one * other
    return bits_of(total) & _LOW32


_ORDERED: dict[str, Callable[..., Values]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def compare(how: str, a: Values, b: Values) -> Values:
    """Return, as booleans, a comparison by its PTX name; ``equ`` and its like are true of a NaN."""
    if a.dtype.kind != "f" and how in _ORDERED:
        return _ORDERED[how](a, b)
    odd = np.isnan(a) | np.isnan(b)
    if how in {"num", "nan"}:
        return odd if how == "nan" else ~odd
    if how in _ORDERED:
        return _ORDERED[how](a, b) & ~odd
    if how[:-1] in _ORDERED and how.endswith("u"):
        return _ORDERED[how[:-1]](a, b) | odd
    raise PtxError(f"unknown comparison .{how}")
