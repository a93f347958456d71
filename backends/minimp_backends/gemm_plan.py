"""How a product of row-major matrices is put to a library that thinks in columns; nothing here needs a GPU.

cuBLAS computes C = op(A) op(B) of column-major matrices: element (i, j) lies at i + j ld, and op transposes
or does not. What lies row-major, element (i, j) at i ld + j, is the transpose of a column-major matrix. Hence

    C = A B  (row-major)   <=>   C^T = B^T A^T  (column-major):

the operands change places, m is the number of C's columns, n that of its rows, and no element is moved. A
view whose rows lie apart (a slice, a head of attention) has a longer ld; one that lies transposed is read
with op = T. Matrices of a batch lie a fixed stride apart; stride 0 is one matrix for all. Only what has no
such description is copied.

cuBLAS wants int8 operands at addresses and leading dimensions that are multiples of 4 (cuBLAS 12.9,
cublasGemmEx), and k with them (cupy 14, _routines_linalg.pyx): K and N are filled up with zeros, which add
nothing, and the columns too many are cut off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.errors import FormatError, ShapeError

__all__ = ["PRODUCTS", "Call", "Layout", "Plan", "Product", "Side", "name_of", "plan", "product_of"]

Shape = tuple[int, ...]
Pair = tuple[int, int]
LARGEST = (1 << 31) - 1
"""m, n, k, leading dimensions and the count of a batch are C's int."""
GRAIN = 4
"""int8: what k, leading dimensions and addresses are multiples of."""


@dataclass(frozen=True, slots=True)
class Product:
    """One way to multiply: what the elements are, and what they are summed in.

    Attributes:
        compute: the name of cuBLAS's compute type.
        scale: the dtype of alpha and beta.
        since: the compute capability of the first chip that has it, 80 for 8.0.
        grain: what k, leading dimensions and addresses must be multiples of.
    """

    compute: str
    scale: str
    since: int
    grain: int = 1


_WIDE = Product("CUBLAS_COMPUTE_32F", "float32", 53)
_BFLOAT16 = replace(_WIDE, since=80)
PRODUCTS = MappingProxyType(
    {
        ("float16", "float32", "float32"): _WIDE,
        ("float16", "float16", "float32"): _WIDE,
        ("bfloat16", "float32", "float32"): _BFLOAT16,
        ("bfloat16", "bfloat16", "float32"): _BFLOAT16,
        ("float32", "float32", "float32"): _WIDE,
        ("float32", "float32", "tf32"): Product("CUBLAS_COMPUTE_32F_FAST_TF32", "float32", 80),
        ("float16", "float16", "float16"): Product("CUBLAS_COMPUTE_16F", "float16", 53),
        ("float64", "float64", "float64"): Product("CUBLAS_COMPUTE_64F", "float64", 53),
        ("int8", "int32", "int32"): Product("CUBLAS_COMPUTE_32I", "int32", 61, GRAIN),
    }
)
"""(dtype of the factors, dtype of the result, what sums are kept in) -> how. cuBLAS 12.9, cublasGemmEx."""


def product_of(inputs: str, output: str, compute: str) -> Product:
    """Return the row of :data:`PRODUCTS`.

    Raises:
        FormatError: cuBLAS does not multiply so; what it does with these factors is listed.
    """
    found = PRODUCTS.get((inputs, output, compute))
    if found is None:
        others = [f"{made} (sums in {kept})" for factors, made, kept in PRODUCTS if factors == inputs]
        raise FormatError(
            f"cuBLAS does not make {output} of {inputs} factors with sums in {compute}",
            op="matmul", formats=(inputs, output, compute),
            help=f"it makes {', '.join(others)}" if others else "cast the factors to a format that it has",
        )  # fmt: skip
    return found


@lru_cache(maxsize=32)
def name_of(dtype: np.dtype[Any]) -> str:
    """Return a dtype's name; NumPy works it out anew each time."""
    return dtype.name


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array lies in memory: what a plan is made from.

    Attributes:
        shape: (..., rows, columns).
        strides: of each axis, in elements.
        dtype: the name of the elements.
        address: the first element's, in bytes, modulo GRAIN: plans depend on no more, and are remembered.
    """

    shape: Shape
    strides: tuple[int, ...]
    dtype: str
    address: int = 0

    @classmethod
    def of(cls, array: Any) -> Layout:
        """Describe a CuPy array."""
        size = array.itemsize
        strides = tuple([stride // size for stride in array.strides])
        return cls(array.shape, strides, name_of(array.dtype), array.data.ptr % GRAIN)

    @classmethod
    def fresh(cls, shape: Shape, dtype: str) -> Layout:
        """Describe a new array in C order; the allocator aligns its address."""
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        return cls(shape, tuple(strides), dtype)


@dataclass(frozen=True, slots=True)
class Side:
    """One operand as cuBLAS reads it.

    Attributes:
        transposed: whether its op is T, and not N.
        ld: the leading dimension, in elements.
        stride: from one matrix of the batch to the next, in elements.
        copy: the shape of the array in C order that is to be made of it first, its last axes filled up with
            zeros; None: it is used where it lies.
    """

    transposed: bool
    ld: int
    stride: int
    copy: Shape | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of cublasGemmEx, or of cublasGemmStridedBatchedEx where `batch` is above 1.

    `first` and `second` are cuBLAS's A and B: our right and our left operand.
    """

    m: int
    n: int
    k: int
    first: Side
    second: Side
    ldc: int
    stride_c: int
    batch: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a product takes.

    Attributes:
        shape: of the array to make.
        columns: how many of its columns are the result; the others are filling.
        product: how its elements are made.
        call: the call; None: there is nothing to add up, the result is zeros.
    """

    shape: Shape
    columns: int
    product: Product
    call: Call | None


@lru_cache(maxsize=4096)
def plan(a: Layout, b: Layout, output: str, compute: str) -> Plan:
    """Plan (..., M, K) @ (..., K, N) -> (..., M, N), a new array in C order.

    Args:
        a, b: the operands, of one dtype; leading axes broadcast.
        output: the dtype of the result.
        compute: what the sums are kept in.

    Raises:
        ShapeError: the shapes do not fit, or are beyond what cuBLAS counts.
        FormatError: two dtypes, or a product that cuBLAS has not.
    """
    lead = _fitting(a, b)
    if a.dtype != b.dtype:
        raise FormatError(
            f"expected factors of one dtype, got {a.dtype} and {b.dtype}", op="matmul",
            formats=(a.dtype, b.dtype), help="cast one of them",
        )  # fmt: skip
    product = product_of(a.dtype, output, compute)
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    shape = (*lead, rows, _filled(columns, product.grain))
    if not math.prod(shape) or not depth:
        return Plan(shape, columns, product, None)
    call = _call(a, b, lead, product.grain)
    _check_size(a, b, call)
    return Plan(shape, columns, product, call)


def _fitting(a: Layout, b: Layout) -> Shape:
    """Return the broadcast leading axes."""
    fault = ShapeError(
        f"matrices of {a.shape} and {b.shape} do not fit together", op="matmul", shapes=(a.shape, b.shape),
        help="expected (..., M, K) and (..., K, N), leading axes broadcast",
    )  # fmt: skip
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
        raise fault
    try:
        return np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise fault from None


def _call(a: Layout, b: Layout, lead: Shape, grain: int) -> Call:
    depth, columns = _filled(a.shape[-1], grain), _filled(b.shape[-1], grain)
    count, rows = math.prod(lead), a.shape[-2]
    left = _side(a, lead, (1, grain))
    if count > 1 and math.prod(b.shape[:-2]) == 1 and (folded := _folded(a, left, grain)) is not None:
        count, rows, left = 1, count * rows, folded
    right = _side(b, lead, (grain, grain))
    return Call(
        m=columns,
        n=rows,
        k=depth,
        first=right,
        second=left,
        ldc=columns,
        stride_c=rows * columns,
        batch=count,
    )


def _folded(a: Layout, left: Side, grain: int) -> Side | None:
    """Describe a batch as one matrix, if its rows all lie one step apart: one B for all needs no batch."""
    if left.copy is not None:
        return replace(left, stride=0)
    step = _one_stride(a.shape[:-1], a.strides[:-1])
    if step is None:
        return None
    shape = (math.prod(a.shape[:-1]), a.shape[-1])
    return _where_it_lies(replace(a, shape=shape, strides=(step, a.strides[-1])), (1, grain))


def _side(x: Layout, lead: Shape, grains: Pair) -> Side:
    """Describe an operand of a batch of `lead`: where it lies, else a copy of it, else one copy a batch."""
    rows, columns = (_filled(length, grain) for length, grain in zip(x.shape[-2:], grains, strict=True))
    side = _where_it_lies(replace(x, shape=x.shape[-2:], strides=x.strides[-2:]), grains)
    stride = _batch_stride(x, lead)
    if side is not None and stride is not None and stride % grains[1] == 0:
        return replace(side, stride=stride)
    copy = (*x.shape[:-2], rows, columns)
    stride = _batch_stride(Layout.fresh(copy, x.dtype), lead)
    if stride is None:
        copy, stride = (*lead, rows, columns), rows * columns
    return Side(transposed=False, ld=columns, stride=stride, copy=copy)


def _batch_stride(x: Layout, lead: Shape) -> int | None:
    """Return how far apart the matrices lie once broadcast to `lead`; None if not evenly."""
    if math.prod(lead) == 1:
        return 0
    own = zip(x.shape[:-2], x.strides[:-2], strict=True)
    strides = [0 if length == 1 else stride for length, stride in own]
    return _one_stride(lead, [0] * (len(lead) - len(strides)) + strides)


def _where_it_lies(x: Layout, grains: Pair) -> Side | None:
    """Describe a matrix that cuBLAS can read in place; None if it cannot.

    A row-major matrix is read as it lies, by columns: its own transpose.
    """
    (rows, columns), (down, across), grain = x.shape, x.strides, grains[1]
    if rows % grains[0] or columns % grain or x.address % grain:
        return None
    for transposed, length, count, inner, outer in (
        (False, columns, rows, across, down),
        (True, rows, columns, down, across),
    ):
        ld = outer if count > 1 else length
        if (length == 1 or inner == 1) and ld >= length and ld % grain == 0:
            return Side(transposed, ld, 0)
    return None


def _one_stride(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """Return the one step at which the elements of some axes follow each other; None if several."""
    steps = [(length, stride) for length, stride in zip(shape, strides, strict=True) if length != 1]
    for (_, outer), (length, inner) in pairwise(steps):
        if outer != inner * length:
            return None
    return steps[-1][1] if steps else 0


def _filled(length: int, grain: int) -> int:
    return -(-length // grain) * grain


def _check_size(a: Layout, b: Layout, call: Call) -> None:
    numbers = (call.m, call.n, call.k, call.first.ld, call.second.ld, call.batch)
    if max(numbers) > LARGEST:
        raise ShapeError(
            f"a product of {a.shape} and {b.shape} needs a count of {max(numbers)}, and cuBLAS counts to "
            f"{LARGEST}",
            op="matmul", shapes=(a.shape, b.shape), help="multiply it in parts",
        )  # fmt: skip
