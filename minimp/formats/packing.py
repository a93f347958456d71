"""Codes without gaps: 4-bit and 6-bit formats as a file or a kernel holds them.

The codes of a row (the last axis) form one little-endian stream of bits. With w <= 8 bits a code, bit b of
element i, counted from the least significant, is bit i·w + b of the stream, and bit s of the stream is bit
s mod 8 of byte floor(s/8). The last byte of a row is filled up with zeros. So

    w = 4:  byte 0 = e1 << 4 | e0                         two codes a byte, the first in the low nibble
    w = 6:  bytes 0..2 = e3 << 18 | e2 << 12 | e1 << 6 | e0, low byte first         four codes in three bytes
    w = 8:  byte 0 = e0

Wider formats take the fewest whole bytes that hold a code (its zero padding too: tfloat32 takes 4), low byte
first.

Sources: the pair of ``torch.float4_e2m1fn_x2`` and of PTX ``cvt.*.e2m1x2`` has the first element in the low
nibble (torchao ``pack_uint4``, DeepGEMM ``per_token_cast_to_fp4``; torch 2.13 can only view the bytes). OCP
MX 1.0 leaves the layout in memory open; for 6 bits the same stream rule is taken. ml_dtypes has no packed
arrays: its ``float4_e2m1fn`` and ``float6_*`` spend a byte on a value.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, ShapeError
from minimp.formats.table import Format, get

__all__ = ["pack", "packed_bytes", "unpack"]

Bytes = npt.NDArray[np.uint8]
_GROUP = 8  # codes of w bits fill w bytes: what one 64-bit word is built from


def packed_bytes(count: int, fmt: Any) -> int:
    """Bytes of a packed row of `count` codes: ceil(count · w / 8), w bits a code (whole bytes above 8)."""
    fmt = get(fmt)
    return -(-count * fmt.bits // 8) if _is_narrow(fmt) else count * _whole_bytes(fmt)


def pack(codes: npt.ArrayLike, fmt: Any) -> Bytes:
    """Pack codes along the last axis; the layout is the module's.

    Args:
        codes: integers (..., n) as ``minimp.formats.encode`` gives them, right-aligned.
        fmt: anything that ``get`` knows.

    Returns:
        uint8 (..., ``packed_bytes(n, fmt)``).

    Raises:
        FormatError: unknown format.
        DataError: codes are not integers, or not codes of `fmt`.
        ShapeError: codes have no axis.
    """
    fmt, codes = get(fmt), np.asarray(codes)
    _need_axis(codes, "pack", fmt)
    if codes.dtype.kind not in "iu":
        raise DataError(
            f"expected integer codes of {fmt.name}, got {codes.dtype}",
            op="pack",
            shapes=(codes.shape,),
            formats=(fmt.name,),
            help="minimp.formats.encode turns numbers into codes",
        )
    _refuse_strange(codes, fmt, "pack")
    if _is_narrow(fmt):
        return _pack_bits(codes, fmt)
    size = _whole_bytes(fmt)
    words = codes.astype(f"<u{fmt.code_dtype.itemsize}")
    return _as_bytes(words)[..., :size].reshape(*codes.shape[:-1], codes.shape[-1] * size)


def unpack(packed: npt.ArrayLike, fmt: Any, count: int) -> npt.NDArray[np.unsignedinteger[Any]]:
    """Unpack `count` codes a row: the inverse of :func:`pack`.

    Args:
        packed: uint8 (..., ``packed_bytes(count, fmt)``).
        fmt: anything that ``get`` knows.
        count: codes in each row. It must be given: a last byte may or may not hold one more.

    Returns:
        Unsigned codes (..., count) in ``fmt.code_dtype``.

    Raises:
        FormatError: unknown format.
        DataError: not bytes; a count below 0 or one that does not belong to this many bytes; bits that are
            set in the padding of a row, or above the code of a wide format.
        ShapeError: packed has no axis.
    """
    fmt, packed, count = get(fmt), np.asarray(packed), operator.index(count)
    _need_axis(packed, "unpack", fmt)
    _check_bytes(packed, fmt, count)
    if _is_narrow(fmt):
        _refuse_bits_after(packed, fmt, count)
        return np.ascontiguousarray(_unpack_bits(packed, fmt, count), fmt.code_dtype)
    size = _whole_bytes(fmt)
    words = np.zeros((*packed.shape[:-1], count, fmt.code_dtype.itemsize), np.uint8)
    words[..., :size] = packed.reshape(*packed.shape[:-1], count, size)
    codes = words.view(f"<u{fmt.code_dtype.itemsize}")[..., 0].astype(fmt.code_dtype)
    _refuse_strange(codes, fmt, "unpack")
    return codes


def _is_narrow(fmt: Format) -> bool:
    return fmt.bits + fmt.padding < 8


def _whole_bytes(fmt: Format) -> int:
    return -(-(fmt.bits + fmt.padding) // 8)


def _pack_bits(codes: npt.NDArray[Any], fmt: Format) -> Bytes:
    rows, count, width = codes.shape[:-1], codes.shape[-1], fmt.bits
    groups = -(-count // _GROUP)
    words = np.zeros((*rows, groups), np.dtype("<u8"))
    for i in range(min(_GROUP, count)):
        part = codes[..., i::_GROUP].astype(np.uint64)
        words[..., : part.shape[-1]] |= part << np.uint64(i * width)
    filled = _as_bytes(words)[..., :width].reshape(*rows, groups * width)
    return np.ascontiguousarray(filled[..., : packed_bytes(count, fmt)])


def _unpack_bits(packed: npt.NDArray[Any], fmt: Format, count: int) -> npt.NDArray[Any]:
    rows, width = packed.shape[:-1], fmt.bits
    groups = -(-count // _GROUP)
    held = np.zeros((*rows, groups, 8), np.uint8)
    filled = np.zeros((*rows, groups * width), np.uint8)
    filled[..., : packed.shape[-1]] = packed
    held[..., :width] = filled.reshape(*rows, groups, width)
    words = held.view("<u8")[..., 0]
    codes = np.empty((*rows, groups, _GROUP), np.uint8)
    for i in range(_GROUP):
        codes[..., i] = words >> np.uint64(i * width) & np.uint64((1 << width) - 1)
    return codes.reshape(*rows, groups * _GROUP)[..., :count]


def _refuse_bits_after(packed: npt.NDArray[Any], fmt: Format, count: int) -> None:
    spare = 8 * packed.shape[-1] - count * fmt.bits
    strange = int((packed[..., -1:] >> np.uint8(8 - spare) != 0).sum()) if spare else 0
    if strange:
        raise DataError(
            f"expected {spare} zero bits after the last of {count} codes of {fmt.name}, and {strange} rows"
            " have other bits there",
            op="unpack",
            shapes=(packed.shape,),
            formats=(fmt.name,),
            help="these are not the bytes of this count, or their bits are in another order",
        )


def _as_bytes(words: npt.NDArray[Any]) -> Bytes:
    """Little-endian words (..., n) as bytes (..., n, bytes of a word)."""
    return np.ascontiguousarray(words)[..., None].view(np.uint8)


def _need_axis(x: npt.NDArray[Any], op: str, fmt: Format) -> None:
    if x.ndim == 0:
        raise ShapeError(
            "expected an array with at least one axis, got a single number",
            op=op,
            shapes=(x.shape,),
            formats=(fmt.name,),
            help="codes are packed along the last axis",
        )


def _check_bytes(packed: npt.NDArray[Any], fmt: Format, count: int) -> None:
    if packed.dtype != np.uint8:
        raise DataError(
            f"expected packed codes as uint8, got {packed.dtype}",
            op="unpack",
            shapes=(packed.shape,),
            formats=(fmt.name,),
            help="view the bytes as np.uint8",
        )
    if count < 0 or packed.shape[-1] != packed_bytes(count, fmt):
        expected = f"{packed_bytes(count, fmt)} bytes a row" if count >= 0 else "a count of at least 0"
        raise DataError(
            f"expected {expected} for {count} codes of {fmt.name}, got {packed.shape[-1]} bytes",
            op="unpack",
            shapes=(packed.shape,),
            formats=(fmt.name,),
            help="a row of n codes of w bits takes ceil(n w / 8) bytes",
        )


def _refuse_strange(codes: npt.NDArray[Any], fmt: Format, op: str) -> None:
    """Codes beyond the format's bits, or with bits in the padding below them."""
    top, below = fmt.bits + fmt.padding, (1 << fmt.padding) - 1
    if codes.dtype.kind == "u" and 8 * codes.dtype.itemsize <= top and not below:
        return
    strange = codes < 0 if codes.dtype.kind == "i" else np.zeros(codes.shape, bool)
    bits = codes.astype(np.uint64)
    if top < 64:
        strange = strange | (bits >> np.uint64(top) != 0)
    if below:
        strange = strange | (bits & np.uint64(below) != 0)
    if strange.any():
        raise DataError(
            f"{int(strange.sum())} of {codes.size} codes are not {fmt.name}'s: it has {fmt.bits} bits"
            + (f" above {fmt.padding} zeros" if fmt.padding else ""),
            op=op,
            shapes=(codes.shape,),
            formats=(fmt.name,),
            help="codes are right-aligned and unsigned",
        )
