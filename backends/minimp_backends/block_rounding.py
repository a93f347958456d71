"""Fast exact casts between float32 and the 16-bit formats in pure NumPy.

Each is the bit-equal twin of a readable cast in :mod:`minimp_backends.plain_casts`.
NumPy converts float16 in scalar software on x86 (numpy/numpy#28753), so these kernels let the FPU round
instead, one cache-sized block at a time. For float32 values x with |x| < 2^15 and exponent e:

* **Round.** With M = 1.5 * 2^(e + 13), x + M lies in the binade whose ulp is 2^(e - 10), the float16 ulp
  of x, so the addition rounds x to that grid, and (x + M) - M gives the rounded value back exactly. Ties
  go to even because M is an even multiple of that ulp; the factor 1.5 keeps x + M in the binade of M for
  negative x too. Raising e to at least -14, the exponent of the smallest normal float16, makes the ulp
  2^-24, which is what subnormals need.
* **Sign.** The subtraction turns every x that rounds to zero into +0; the sign bit of x is put back.
* **Encode.** The rounded value times 2^-112 is a float32 whose bits 13 to 27 are the float16 code (the
  exponent biases differ by 112, and a float16 subnormal becomes a float32 subnormal).
* **Decode.** The same backwards: sign-extend, shift left by 13, clear what is neither sign nor code,
  times 2^112.

A block that holds |x| >= 2^15 (where the grid could show 65536 for infinity), an infinity or a NaN takes
the plain cast as a whole; so do small arrays, where the calls cost more than the work. The encoding needs
float32 subnormals: where a library has set the processor to flush them, the plain cast, which is integer
arithmetic, takes over. The route never shows in a result.

bfloat16 is left to ml_dtypes, whose casts are vectorised already.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import numpy as np

from minimp_backends import plain_casts
from minimp_backends.plain_casts import FLOAT16, FLOAT32, Array, check_cast

__all__ = [
    "as_flat",
    "narrow_bfloat16",
    "narrow_float16",
    "narrow_from_float64",
    "round_to_float16_grid",
    "widen_bfloat16",
    "widen_float16",
]

BLOCK = 64 * 1024  # elements: long enough to hide the calls, short enough for a 1 MiB level-2 cache
SMALL = (
    4096  # elements: below, the plain cast is quicker (measured with AVX-512; the crossing is at 2 to 8 Ki)
)

_UINT32, _UINT16, _INT32, _INT16 = (np.dtype(name) for name in ("uint32", "uint16", "int32", "int16"))


def _word(value: int) -> Array:
    """A 32-bit constant as a 0-d array: a ufunc takes it with no conversion."""
    return np.array(value, _UINT32)


_SIGN, _EXPONENT = _word(0x8000_0000), _word(0x7F80_0000)
_LIFT = _word(
    (13 << 23) | 0x0040_0000
)  # the exponent field up by 13, and the top mantissa bit: times 1.5 * 2^13
_TOP = (127 + 15) << 23  # the exponent field of 2^15
_FLOOR = np.full(
    BLOCK, (127 - 14) << 23, _UINT32
)  # an array, because np.maximum with a scalar is 5 times slower
_FLOOR.setflags(write=False)
_TO_CODE, _FROM_CODE = np.array(2.0**-112, FLOAT32), np.array(2.0**112, FLOAT32)
_SHIFT, _SIGN_SHIFT = _word(13), _word(16)
_CODE_SHIFT, _CODE_MASK = np.array(13, _INT32), np.array(0x8FFF_E000 - (1 << 32), _INT32)
_HALF_INF, _HALF_NEGATIVE_INF = 0x7C00, 0xFC00


class _Scratch(threading.local):
    """Work space of one thread: two blocks of 32-bit words, each with its float32 view."""

    def __init__(self) -> None:
        self.magic = np.empty(BLOCK, _UINT32)
        self.magic_values = self.magic.view(FLOAT32)
        self.rounded = np.empty(BLOCK, _UINT32)
        self.rounded_values = self.rounded.view(FLOAT32)


_scratch = _Scratch()


def kept_bytes() -> int:
    """Return the bytes of work space that this thread keeps, and of the block of floors beside it."""
    return int(_FLOOR.nbytes + _scratch.magic.nbytes + _scratch.rounded.nbytes)


def _flushes_subnormals() -> bool:
    """Whether this thread's FPU replaces subnormal results or operands by zero."""
    return sys.float_info.min * 0.5 == 0.0


def _round_block(wide: Array, bits: Array) -> bool:
    """Round a block into the scratch, where its sign bits replace the magic numbers.

    Returns False, and leaves the block to the plain cast, where it holds a value that the magic cannot round.
    """
    scratch, n = _scratch, wide.size
    magic, rounded = scratch.magic[:n], scratch.rounded_values[:n]
    np.bitwise_and(bits, _EXPONENT, out=magic)
    if np.maximum.reduce(magic) >= _TOP:
        return False
    np.maximum(magic, _FLOOR[:n], out=magic)
    np.add(magic, _LIFT, out=magic)
    magic_values = scratch.magic_values[:n]
    np.add(wide, magic_values, out=rounded)
    np.subtract(rounded, magic_values, out=rounded)
    np.bitwise_and(bits, _SIGN, out=magic)
    return True


def _encode_block(code: Array) -> None:
    """Write the block in the scratch as float16 bits; uses the scratch up."""
    scratch, n = _scratch, code.size
    signs, rounded = scratch.magic[:n], scratch.rounded[:n]
    np.multiply(scratch.rounded_values[:n], _TO_CODE, out=scratch.rounded_values[:n])
    np.right_shift(rounded, _SHIFT, out=rounded)
    np.right_shift(signs, _SIGN_SHIFT, out=signs)
    np.bitwise_or(rounded, signs, out=rounded)
    np.copyto(code, rounded, casting="unsafe")  # keeps the low 16 bits


def _decode_block(half: Array, wide: Array) -> bool:
    """Widen one block; False if it holds an infinity or a NaN."""
    if (
        np.maximum.reduce(half.view(_INT16)) >= _HALF_INF
        or np.maximum.reduce(half.view(_UINT16)) >= _HALF_NEGATIVE_INF
    ):
        return False
    words = wide.view(_INT32)
    np.copyto(words, half.view(_INT16))
    np.left_shift(words, _CODE_SHIFT, out=words)
    np.bitwise_and(words, _CODE_MASK, out=words)
    np.multiply(wide, _FROM_CODE, out=wide)
    return True


def _take_plain(size: int) -> bool:
    return size < SMALL or _flushes_subnormals()


def as_flat(kernel: Callable[..., None], source: Array, *targets: Array) -> tuple[Array, ...] | None:
    """One-dimensional views of arrays that lie in one memory order, aligned.

    Where they do not, run ``kernel(source, *targets)`` on packed copies instead, and return None.
    """
    arrays = (source, *targets)
    if all(each.flags.aligned for each in arrays):
        if all(each.flags.c_contiguous for each in arrays):
            return tuple(each.reshape(-1) for each in arrays)
        if all(each.flags.f_contiguous for each in arrays):
            return tuple(each.T.reshape(-1) for each in arrays)
    packed = [np.empty(each.shape, each.dtype) for each in targets]
    kernel(np.array(source, order="C"), *packed)
    for target, result in zip(targets, packed, strict=True):
        target[...] = result
    return None


def narrow_float16(wide: Array, half: Array, grid: Array | None = None) -> None:
    """Write ``wide`` rounded to float16 (nearest, ties to even) into ``half``, and as float32 into ``grid``.

    Args:
        wide: float32, any shape; quickest when contiguous.
        half: float16 of the same shape; must not share memory with the others. grid: float32 of the same
        shape, or ``wide`` itself, or None: receives the rounded values, -0, infinities
            and NaNs included.

    Raises:
        FormatError, ShapeError: as :func:`minimp_backends.plain_casts.check_cast`.
    """
    check_cast("narrow_float16", wide, FLOAT32, half, FLOAT16)
    if grid is not None:
        check_cast("narrow_float16 grid", half, FLOAT16, grid, FLOAT32)
    if _take_plain(wide.size):
        plain_casts.narrow_float16(wide, half, grid)
        return
    flat = as_flat(narrow_float16, wide, half) if grid is None else as_flat(narrow_float16, wide, half, grid)
    if flat is None:
        return
    values, halves, *grids = flat
    bits, codes = values.view(_UINT32), halves.view(_UINT16)
    for start in range(0, values.size, BLOCK):
        part = slice(start, start + BLOCK)
        if not _round_block(values[part], bits[part]):
            plain_casts.narrow_float16(values[part], halves[part], *(each[part] for each in grids))
            continue
        for each in grids:
            _write_grid(each[part])
        _encode_block(codes[part])


def _write_grid(out: Array) -> None:
    """Write the block in the scratch as float32, signs put back."""
    n = out.size
    np.bitwise_or(_scratch.rounded[:n], _scratch.magic[:n], out=out.view(_UINT32))


def round_to_float16_grid(wide: Array, out: Array) -> None:
    """Write ``wide`` rounded to float16 into ``out``; both float32, and ``out`` may be ``wide`` itself.

    Raises FormatError and ShapeError as :func:`narrow_float16` does.
    """
    check_cast("round_to_float16_grid", wide, FLOAT32, out, FLOAT32)
    if _take_plain(wide.size):
        plain_casts.round_to_float16_grid(wide, out)
        return
    flat = as_flat(round_to_float16_grid, wide, out)
    if flat is None:
        return
    values, grid = flat
    bits = values.view(_UINT32)
    for start in range(0, values.size, BLOCK):
        part = slice(start, start + BLOCK)
        if _round_block(values[part], bits[part]):
            _write_grid(grid[part])
        else:
            plain_casts.round_to_float16_grid(values[part], grid[part])


def widen_float16(half: Array, wide: Array) -> None:
    """Write the float16 array ``half`` into the float32 array ``wide``; exact, subnormals and -0 included.

    Raises FormatError and ShapeError as :func:`narrow_float16` does.
    """
    check_cast("widen_float16", half, FLOAT16, wide, FLOAT32)
    if _take_plain(half.size):
        plain_casts.widen_float16(half, wide)
        return
    flat = as_flat(widen_float16, half, wide)
    if flat is None:
        return
    halves, values = flat
    for start in range(0, values.size, BLOCK):
        part = slice(start, start + BLOCK)
        if not _decode_block(halves[part], values[part]):
            plain_casts.widen_float16(halves[part], values[part])


narrow_bfloat16 = plain_casts.narrow_bfloat16  # vectorised by ml_dtypes: integer tricks take as long
widen_bfloat16 = plain_casts.widen_bfloat16  # at the speed of a copy
narrow_from_float64 = plain_casts.narrow_from_float64  # rare: only input data and checks are float64
