"""Kernels on int8 and uint8 codes with int32 sums: no number of theirs is ever rounded but in `requantize`.

Codes q stand for real numbers s (q - z) (Jacob et al. 2018, equation 1). With zero points za and zb,

    sum_k (a[m,k] - za) (b[k,n] - zb)
        = sum_k a[m,k] b[k,n] - za sum_k b[k,n] - zb sum_k a[m,k] + K za zb

(equation 7), so that the product runs on the codes as they are. The four terms are added modulo 2^32: what
leaves int32 on the way comes back, as long as the sum itself fits. Whether it always does follows from K, the
dtypes and the zero points; where it may not, everything is added in int64, and a sum beyond int32 is refused.
A result is therefore exact or an error.

Reference: Benoit Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-
Arithmetic-Only Inference", CVPR 2018, arXiv 1712.05877.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError
from minimp_backends.columns import Geometry, Tiling, columns_of, geometry_of, pixels, windows_of
from minimp_backends.integer_checks import (
    EXACT,
    SATURATING,
    Array,
    Sizes,
    check_accumulate,
    check_codes,
    check_matrices,
    pair_of,
    zero_points,
)
from minimp_backends.integer_products import (
    exact_product,
    exact_product_reference,
    saturating_product,
    shift_of,
)
from minimp_backends.requantizing import Requantizing

__all__ = [
    "IntegerKernels", "as_int32", "conv2d_geometry", "integer_conv2d", "integer_conv2d_reference",
    "integer_matmul", "integer_matmul_reference", "largest_term",
]  # fmt: skip

Zero = npt.ArrayLike
LEAST, MOST = -(1 << 31), (1 << 31) - 1
CUT = (2 * 255 * 128 - (1 << 15)) // 2
"""The most that cutting pairs off at int16 can change a sum by, a term."""


# ---- matrices --------------------------------------------------------------------------------------------


def integer_matmul(
    a: Array, b: Array, a_zero: Zero = 0, b_zero: Zero = 0, *, accumulate: str = EXACT
) -> Array:
    """Multiply matrices of codes: sum_k (a[m,k] - a_zero) (b[k,n] - b_zero), exactly.

    (..., M, K) int8 | uint8 @ (..., K, N) int8 | uint8 -> (..., M, N) int32; leading axes broadcast.

    Args:
        a, b: codes, in any memory order.
        a_zero: a whole number that the dtype of a has, or an array of them for (..., M).
        b_zero: the same of b, for (..., N).
        accumulate: ``"int32"``, or ``"int16-saturating"``: the codes' products are added as
            :func:`~minimp_backends.integer_products.saturating_product` does, the zero points' terms exactly.
            One of a and b must be uint8 then, and the other int8.

    Raises:
        ShapeError: the shapes do not fit together.
        FormatError: something else than codes, or a sum beyond int32.
        SettingError: a zero point that is no code, or an accumulation that cannot act.
    """
    op = "integer_matmul"
    check_codes(op, a, b)
    check_accumulate(op, accumulate, a, b)
    check_matrices(op, a, b)
    left = zero_points(op, "a_zero", a_zero, a, a.shape[:-1])
    right = zero_points(op, "b_zero", b_zero, b, (*b.shape[:-2], b.shape[-1]))
    return _product(op, a, b, left, right, accumulate)


def integer_matmul_reference(a: Array, b: Array, a_zero: Zero = 0, b_zero: Zero = 0) -> Array:
    """Return what :func:`integer_matmul` does, by the definition and in int64; nothing is checked."""
    left = np.atleast_1d(np.asarray(a_zero, np.int64))[..., np.newaxis]
    right = np.atleast_1d(np.asarray(b_zero, np.int64))[..., np.newaxis, :]
    return exact_product_reference(a - left, b - right)


def _product(op: str, a: Array, b: Array, a_zero: Array, b_zero: Array, accumulate: str) -> Array:
    """Return what :func:`integer_matmul` does; everything is checked but whether the sums fit."""
    left, right = np.atleast_1d(a_zero)[..., np.newaxis], np.atleast_1d(b_zero)[..., np.newaxis, :]
    depth, exact = a.shape[-1], accumulate == EXACT
    most = largest_term(a, left) * largest_term(b, right) + (0 if exact else CUT)
    dtype = np.int32 if depth * most <= MOST else np.int64
    shifts = (shift_of(a), shift_of(b)) if exact else (0, 0)  # what the codes are shifted by on the way
    made = (exact_product if exact else saturating_product)(a, b, dtype)
    _add_zero_terms(made, a, b, (left, right), shifts)
    return made if dtype is np.int32 else as_int32(op, made, depth)


def _add_zero_terms(
    made: Array, a: Array, b: Array, zeros: tuple[Array, Array], shifts: tuple[int, int]
) -> None:
    """Add -za sum_k b - zb sum_k a + K za zb in place, of codes and zeros less their shifts.

    A zero point that is 0 costs nothing.
    """
    depth, dtype = a.shape[-1], made.dtype
    left, right = ((zero - shift).astype(dtype) for zero, shift in zip(zeros, shifts, strict=True))
    if left.any():
        made -= left * (b.sum(axis=-2, keepdims=True, dtype=dtype) - depth * shifts[1])
    if right.any():
        made -= (a.sum(axis=-1, keepdims=True, dtype=dtype) - depth * shifts[0]) * right
    if left.any() and right.any():
        made += depth * left * right


def largest_term(codes: Array, zero: Array) -> int:
    """The largest |q - z| that the dtype and the zero points allow."""
    limits = np.iinfo(codes.dtype)
    if not zero.size:
        return int(limits.max - limits.min)
    return int(max(limits.max - zero.min(), zero.max() - limits.min))


def as_int32(op: str, made: Array, depth: int) -> Array:
    """Narrow int64 sums, and refuse those that int32 has not."""
    low, high = (int(made.min()), int(made.max())) if made.size else (0, 0)
    if low < LEAST or high > MOST:
        raise FormatError(
            f"a sum of {depth} products is {high if high > MOST else low}, and int32 ends at "
            f"{MOST if high > MOST else LEAST}",
            op=op, formats=("int32",), help="cut K into parts, and add their results in int64",
        )  # fmt: skip
    return made.astype(np.int32)


# ---- images ----------------------------------------------------------------------------------------------


def integer_conv2d(
    x: Array, w: Array, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1,
    x_zero: Zero = 0, w_zero: Zero = 0, *, accumulate: str = EXACT,
) -> Array:  # fmt: skip
    """Convolve images of codes: sum over c, u, v of (x[..] - x_zero) (w[o,c,u,v] - w_zero), exactly.

    (N, C, H, W), (O, C/G, kh, kw), each int8 | uint8 -> (N, O, OH, OW) int32, as torch.nn.functional.conv2d
    lays them out. The padding is x_zero, the code of real zero, and so adds nothing. Depthwise: groups = C.

    Args:
        x, w: codes of images and filters.
        stride, padding, dilation: a number, or one for each of height and width; in elements.
        groups: G, a divisor of C and of O.
        x_zero: a whole number that the dtype of x has.
        w_zero: the same of w, or an array of them for (O,).
        accumulate: as of :func:`integer_matmul`; a pair are channels 2 j and 2 j + 1 seen at one tap, as they
            lie in the channels-last memory of engines that saturate (with C/G odd, pairs go on across taps).

    Raises:
        ShapeError: shapes, groups and kernel do not fit together.
        FormatError, SettingError: as :func:`integer_matmul`.
    """
    op = "integer_conv2d"
    check_codes(op, x, w)
    check_accumulate(op, accumulate, x, w)
    geometry = conv2d_geometry(op, x, w, stride, padding, dilation, groups)
    zero = zero_points(op, "x_zero", x_zero, x, ())
    by_filter = np.broadcast_to(zero_points(op, "w_zero", w_zero, w, w.shape[:1]), w.shape[:1])
    by_filter = by_filter.reshape(groups, -1)
    padded, inside = _padded(x, geometry, int(zero))
    order = _in_pairs if accumulate == SATURATING else _as_it_lies
    matrix = order(geometry.matrix(w), inside, axis=2)
    tiling = Tiling.of(inside, inside.out_size[1], 8)  # codes, and what they become: measured
    y = np.empty(geometry.out_shape, np.int32)
    by_group = geometry.by_group(y)
    for tile, columns in columns_of(padded, inside, tiling):
        seen = order(columns, inside, axis=2)
        product = _product(op, matrix, seen, by_filter, zero, accumulate)
        if tiling.side_by_side:
            product = product.reshape(*matrix.shape[:2], -1, geometry.positions).transpose(2, 0, 1, 3)
        by_group[tile.images, :, :, pixels(tile, geometry)] = product
    return y


def integer_conv2d_reference(
    x: Array, w: Array, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1,
    x_zero: Zero = 0, w_zero: Zero = 0,
) -> Array:  # fmt: skip
    """Return what :func:`integer_conv2d` does, in int64: what each tap sees times its weights, added up."""
    geometry = conv2d_geometry("integer_conv2d", x, w, stride, padding, dilation, groups)
    padded, inside = _padded(x, geometry, int(np.asarray(x_zero)))
    windows = windows_of(padded.astype(np.int64) - np.asarray(x_zero), inside)  # (N, C, kh, kw, OH, OW)
    weights = w.astype(np.int64) - np.reshape(np.asarray(w_zero, np.int64), (-1, 1, 1, 1))
    seen = windows.reshape(len(x), groups, w.shape[1], *windows.shape[2:])
    weights = weights.reshape(groups, -1, *weights.shape[1:])  # (G, O/G, C/G, kh, kw)
    sums: Array = np.einsum("ngcuvij,gocuv->ngoij", seen, weights)
    return sums.reshape(geometry.out_shape)


def conv2d_geometry(
    op: str, x: Array, w: Array, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Geometry:
    """Check the sizes of a convolution of codes against each other."""
    named = {"stride": stride, "padding": padding, "dilation": dilation}
    sizes = {name: pair_of(op, name, size) for name, size in named.items()}
    return geometry_of(op, (), x.shape, w.shape, **sizes, groups=groups)


def _padded(x: Array, geometry: Geometry, zero: int) -> tuple[Array, Geometry]:
    """Lay images out in a border of their zero; return them, and the geometry that has no padding left."""
    (ph, pw), (height, width) = geometry.padding, geometry.size
    if not (ph or pw):
        return x, geometry
    room = np.full((*x.shape[:2], *geometry.padded), zero, x.dtype)
    room[:, :, ph : ph + height, pw : pw + width] = x
    return room, replace(geometry, size=geometry.padded, padding=(0, 0))


def _as_it_lies(matrix: Array, geometry: Geometry, axis: int) -> Array:
    del geometry, axis
    return matrix


def _in_pairs(matrix: Array, geometry: Geometry, axis: int) -> Array:
    """Reorder an axis of (c, u, v) to (u, v, c)."""
    taps = geometry.kernel[0] * geometry.kernel[1]
    lead, rest = matrix.shape[:axis], matrix.shape[axis + 1 :]
    return matrix.reshape(*lead, -1, taps, *rest).swapaxes(axis, axis + 1).reshape(matrix.shape)


# ---- what a backend has ----------------------------------------------------------------------------------


class IntegerKernels(Requantizing):
    """The kernels of this module, on the host: the reference, and what runs on NumPy."""

    def integer_matmul(
        self, a: Any, b: Any, a_zero: Zero = 0, b_zero: Zero = 0, *, accumulate: str = EXACT
    ) -> Any:
        """(..., M, K), (..., K, N) codes -> (..., M, N) int32, see :func:`integer_matmul`."""
        made = integer_matmul(self.to_host(a), self.to_host(b), a_zero, b_zero, accumulate=accumulate)
        return self._taken(a, made)

    def integer_conv2d(
        self, x: Any, w: Any, stride: Sizes = 1, padding: Sizes = 0, dilation: Sizes = 1, groups: int = 1,
        x_zero: Zero = 0, w_zero: Zero = 0, *, accumulate: str = EXACT,
    ) -> Any:  # fmt: skip
        """(N, C, H, W), (O, C/G, kh, kw) codes -> (N, O, OH, OW) int32, see :func:`integer_conv2d`."""
        how = (stride, padding, dilation, groups, x_zero, w_zero)
        made = integer_conv2d(self.to_host(x), self.to_host(w), *how, accumulate=accumulate)
        return self._taken(x, made)
