"""cuBLAS for a machine without a GPU: it takes the calls as CuPy makes them, on arrays in host memory.

What is passed is checked as cuBLAS's manual demands (cublasGemmEx, cublasGemmStridedBatchedEx, cuBLAS 12.9):
operations, sizes, leading dimensions, types that go together, addresses; and what a GPU would not check, that
every element read or written lies in one allocation and that nothing read is written. The product itself is
worked out by columns in NumPy. Nothing here knows how the calls came about.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["HANDLE", "Block", "StandIn", "over"]

HANDLE = 0x5EED
Array = npt.NDArray[Any]
TYPES = {
    0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16), 3: np.dtype(np.int8),
    10: np.dtype(np.int32), 14: np.dtype(ml_dtypes.bfloat16),
}  # fmt: skip
"""cudaDataType (CUDA 12.9, library_types.h)."""
TOGETHER = {
    64: {(2, 2): np.float16},
    68: {(2, 2): np.float32, (2, 0): np.float32, (14, 14): np.float32, (14, 0): np.float32,
         (0, 0): np.float32, (3, 0): np.float32},
    77: {(0, 0): np.float32},
    70: {(1, 1): np.float64},
    72: {(3, 10): np.int32},
}  # fmt: skip
"""Compute type -> (type of A and B, type of C) -> dtype of alpha and beta; the table of cublasGemmEx."""
EXACT = 16
"""CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION, without TF32."""


def over(address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array over any memory, given its first element's address."""
    if 0 in shape:
        return np.empty(shape, dtype)
    reach = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    low, high = sum(min(0, r) for r in reach), sum(max(0, r) for r in reach)
    memory = _bytes(high - low + dtype.itemsize).from_address(address + low)
    return np.ndarray(shape, dtype, memory, offset=-low, strides=strides)


@cache
def _bytes(count: int) -> type[ctypes.Array[ctypes.c_char]]:
    """Return the type of so many bytes; each is garbage that refers to itself, so they are kept."""
    return ctypes.c_char * count


@dataclass(frozen=True, slots=True)
class Block:
    """One allocation."""

    start: int
    size: int
    owner: Array


class Memory(Protocol):
    """What remembers the allocations."""

    blocks: list[Block]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One matrix of a call, by columns."""

    address: int
    type: int
    ld: int
    stride: int
    rows: int
    columns: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The elements'."""
        return TYPES[self.type]

    def each(self, batch: int) -> Array:
        """Return the matrices as an array (batch, rows, columns) over their memory."""
        size = self.dtype.itemsize
        strides = (self.stride * size, size, self.ld * size)
        return over(self.address, (batch, self.rows, self.columns), strides, self.dtype)

    def span(self, batch: int) -> tuple[int, int]:
        """Return the first byte and the byte behind the last."""
        last = (batch - 1) * self.stride + (self.columns - 1) * self.ld + self.rows
        return self.address, self.address + last * self.dtype.itemsize


class StandIn:
    """The functions of `cupy.cuda.cublas`; AssertionError is for what no GPU would check."""

    def __init__(self, memory: Memory, mode: int = 0) -> None:
        self.memory, self.mode, self.calls = memory, mode, 0

    def getMathMode(self, handle: int) -> int:  # noqa: N802 - cuBLAS's name
        """Return the handle's math mode."""
        assert handle == HANDLE
        return self.mode

    def setMathMode(self, handle: int, mode: int) -> None:  # noqa: N802 - cuBLAS's name
        """Set it."""
        assert handle == HANDLE
        self.mode = mode

    def gemmEx(  # noqa: N802 - cuBLAS's name
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, a: int, a_type: int,
        lda: int, b: int, b_type: int, ldb: int, beta: int, c: int, c_type: int, ldc: int,
        compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        """C = alpha op(A) op(B) + beta C."""
        self.gemmStridedBatchedEx(
            handle, transa, transb, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta, c, c_type,
            ldc, 0, 1, compute, algorithm,
        )  # fmt: skip

    def gemmStridedBatchedEx(  # noqa: N802 - cuBLAS's name
        self, handle: int, transa: int, transb: int, m: int, n: int, k: int, alpha: int, a: int, a_type: int,
        lda: int, stride_a: int, b: int, b_type: int, ldb: int, stride_b: int, beta: int, c: int, c_type: int,
        ldc: int, stride_c: int, batch: int, compute: int, algorithm: int,
    ) -> None:  # fmt: skip
        """The same of each matrix of a batch."""
        self.calls += 1
        assert handle == HANDLE
        assert algorithm == -1, "CUBLAS_GEMM_DEFAULT"
        assert self.mode == EXACT, "sums might be rounded on the way, or factors to TF32"
        _refuse(transa not in (0, 1) or transb not in (0, 1) or min(m, n, k, batch) < 1, "INVALID_VALUE")
        left = Matrix(a, a_type, lda, stride_a, *((k, m) if transa else (m, k)))
        right = Matrix(b, b_type, ldb, stride_b, *((n, k) if transb else (k, n)))
        out = Matrix(c, c_type, ldc, stride_c, m, n)
        scale = TOGETHER.get(compute, {}).get((a_type, c_type))
        _refuse(scale is None or a_type != b_type, "NOT_SUPPORTED")
        self._check_memory(left, right, out, batch)
        if compute == 72:
            _refuse(any(x % 4 for x in (a, b, lda, ldb, k)), "NOT_SUPPORTED")
            _refuse(batch > 1 and any(x % 4 for x in (stride_a, stride_b)), "NOT_SUPPORTED")
        _multiply(left, right, out, batch, (transa, transb), _number(alpha, scale), _number(beta, scale))

    def _check_memory(self, left: Matrix, right: Matrix, out: Matrix, batch: int) -> None:
        for each in (left, right, out):
            _refuse(each.ld < max(1, each.rows), "INVALID_VALUE")
            assert each.address % each.dtype.itemsize == 0, "an address between two elements"
            assert each.stride >= 0
            start, end = each.span(batch)
            assert any(x.start <= start and end <= x.start + x.size for x in self.memory.blocks), (
                "out of bounds"
            )
        assert batch == 1 or out.stride >= out.ld * out.columns, "results on top of each other"
        low, high = out.span(batch)
        for each in (left, right):
            start, end = each.span(batch)
            assert end <= low or high <= start, "a factor is overwritten"


def _refuse(wrong: bool, status: str) -> None:
    if wrong:
        raise RuntimeError(f"CUBLAS_STATUS_{status}")


def _number(address: int, dtype: Any) -> Any:
    """Read alpha or beta from where the pointer says."""
    return over(address, (1,), (0,), np.dtype(dtype))[0]


def _multiply(
    left: Matrix, right: Matrix, out: Matrix, batch: int, turned: tuple[int, int], alpha: Any, beta: Any
) -> None:
    """Work out the product in the type that is wide enough to be exact for what tests multiply."""
    wide = np.int64 if out.dtype.kind == "i" else np.float64
    a, b = (each.each(batch).astype(wide) for each in (left, right))
    a, b = (x.swapaxes(-1, -2) if turn else x for x, turn in zip((a, b), turned, strict=True))
    target = out.each(batch)
    with np.errstate(all="ignore"):
        product = wide(alpha) * (a @ b)
        target[...] = product if beta == 0 else product + wide(beta) * target.astype(wide)
