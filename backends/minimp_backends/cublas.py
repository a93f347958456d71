"""Matrix products over cuBLAS with the types spelled out: of factors, of results, of the sums between.

CuPy's own matmul hides them: a batch of float16 matrices it multiplies in float32 (twice the memory, no
matrix units), one of bfloat16 not at all, and int8 sums it keeps in int8 (cupy 14, _routines_linalg.pyx).
Here one call of cublasGemmEx, or cublasGemmStridedBatchedEx for a batch, does each product as
:mod:`minimp_backends.gemm_plan` plans it.

Before each call the handle's math mode is set, and put back after it: no TF32 unless asked for, and no
partial sums rounded to a 16-bit result's format on the way (cuBLAS 12.9, cublasMath_t).

cuBLAS adds in blocks of its own choice. Its float16 sums (``compute="float16"``) are therefore not what
``accumulate="float16"`` of :func:`minimp.formats.matmul` means, which rounds each product and each running
sum, k ascending; they have a name of their own wherever they can be asked for.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.errors import DeviceError
from minimp_backends.gemm_plan import PRODUCTS, Call, Layout, Plan, Product, Side, name_of, plan
from minimp_backends.memory_pool import full_beside_the_pool

__all__ = ["COMPUTE_TYPES", "DATA_TYPES", "Cublas"]

Array = Any
OPERATIONS = MappingProxyType({False: 0, True: 1})
"""cublasOperation_t: CUBLAS_OP_N and CUBLAS_OP_T."""
DEFAULT_ALGORITHM = -1
"""cublasGemmAlgo_t, CUBLAS_GEMM_DEFAULT: cuBLAS chooses, matrix units included."""
EXACT_REDUCTIONS = 16
"""cublasMath_t: CUBLAS_DEFAULT_MATH with CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION."""
COMPUTE_TYPES = MappingProxyType(
    {
        "CUBLAS_COMPUTE_16F": 64,
        "CUBLAS_COMPUTE_32F": 68,
        "CUBLAS_COMPUTE_32F_FAST_TF32": 77,
        "CUBLAS_COMPUTE_64F": 70,
        "CUBLAS_COMPUTE_32I": 72,
    }
)
"""cublasComputeType_t (cuBLAS 12.9; cupy 14, cublas.pxd)."""
DATA_TYPES = MappingProxyType(
    {"float32": 0, "float64": 1, "float16": 2, "int8": 3, "int32": 10, "bfloat16": 14}
)
"""dtype -> cudaDataType: CUDA_R_32F, ... (CUDA 12.9, library_types.h)."""
_HELD = {name: np.array([1, 0], name) for name in ("float16", "float32", "float64", "int32")}
_NUMBERS = {name: (held.ctypes.data, held.ctypes.data + held.itemsize) for name, held in _HELD.items()}
"""dtype -> where alpha and beta are, 1 and 0: cuBLAS reads them from the host's memory."""


class Cublas:
    """cuBLAS on one device.

    Args:
        xp: the array library: CuPy, or what stands in for it.
        library: a module with gemmEx, gemmStridedBatchedEx, getMathMode and setMathMode as
            ``cupy.cuda.cublas`` has them.
        handle: the handle of the current device.
        capability: its compute capability, 90 for 9.0.
    """

    def __init__(self, xp: Any, library: Any, handle: int, capability: int) -> None:
        self.xp, self.library, self.handle, self.capability = xp, library, handle, capability

    def matmul(self, a: Array, b: Array, *, output: str, compute: str) -> Array:
        """Multiply: (..., M, K) @ (..., K, N) -> (..., M, N); 1-D operands as in `numpy.matmul`.

        Args:
            a, b: arrays of the device, of one dtype; views are read where they lie if cuBLAS can.
            output: the dtype of the result. Sums are rounded to it once, to nearest even.
            compute: what the sums are kept in: ``"float32"``, ``"tf32"`` (float32 factors rounded to 11
                bits), ``"float16"``, ``"float64"`` or ``"int32"``, which wraps around.

        Returns:
            A new array. The columns that fill int8 matrices up are cut off, which leaves a view.

        Raises:
            DeviceError: an operand that is not of the device, a chip without the product, or a fault of
                cuBLAS.
            FormatError, ShapeError: as :func:`~minimp_backends.gemm_plan.plan`.
        """
        for each in (a, b):
            if not isinstance(each, self.xp.ndarray):
                raise DeviceError(
                    f"expected arrays of the GPU, got {type(each).__name__}", op="matmul",
                    help="move it there with backend.from_host, or make tensors with backend='cupy'",
                )  # fmt: skip
        left = a[None, :] if a.ndim == 1 else a
        right = b[:, None] if b.ndim == 1 else b
        made = self._multiply(left, right, output, compute)
        if b.ndim == 1:
            made = made[..., 0]
        return made[..., 0] if a.ndim == b.ndim == 1 else made[..., 0, :] if a.ndim == 1 else made

    def _multiply(self, a: Array, b: Array, output: str, compute: str) -> Array:
        planned = plan(Layout.of(a), Layout.of(b), output, compute)
        self._require(planned.product, name_of(a.dtype))
        if planned.call is None:
            made = self.xp.zeros(planned.shape, output)
        else:
            made = self.xp.empty(planned.shape, output)
            first = self._laid_out(b, planned.call.first)
            second = self._laid_out(a, planned.call.second)
            self._run(planned, planned.call, first, second, made)
        return made if planned.columns == planned.shape[-1] else made[..., : planned.columns]

    def require(self, name: str) -> None:
        """Refuse a format whose products with float32 sums this chip has not.

        Raises:
            DeviceError: saying what it has.
        """
        for (inputs, _, compute), product in PRODUCTS.items():
            if inputs == name and compute == "float32":
                self._require(product, name)

    def _require(self, product: Product, inputs: str) -> None:
        if self.capability < product.since:
            raise DeviceError(
                f"this GPU (compute capability {_dotted(self.capability)}) does not multiply {inputs} with "
                f"{product.compute}, which needs {_dotted(product.since)}",
                op="matmul", formats=(inputs,),
                help="use float16 or float32 on this GPU" if inputs == "bfloat16" else "use float32",
            )  # fmt: skip

    def _laid_out(self, array: Array, side: Side) -> Array:
        """Return the array as the call reads it: itself, or a copy in C order filled up with zeros."""
        if side.copy is None:
            return array
        rows, columns = array.shape[-2:]
        whole = side.copy[-2:] == (rows, columns)
        copy = (self.xp.empty if whole else self.xp.zeros)(side.copy, array.dtype)
        copy[..., :rows, :columns] = array
        return copy

    def _run(self, planned: Plan, call: Call, first: Array, second: Array, made: Array) -> None:
        one, zero = _NUMBERS[planned.product.scale]
        factors, sums = DATA_TYPES[name_of(first.dtype)], DATA_TYPES[name_of(made.dtype)]
        operations = (OPERATIONS[call.first.transposed], OPERATIONS[call.second.transposed])
        a = (first.data.ptr, factors, call.first.ld)
        b = (second.data.ptr, factors, call.second.ld)
        c = (made.data.ptr, sums, call.ldc)
        how = (COMPUTE_TYPES[planned.product.compute], DEFAULT_ALGORITHM)
        sizes = (call.m, call.n, call.k)
        mode = self.library.getMathMode(self.handle)
        self.library.setMathMode(self.handle, EXACT_REDUCTIONS)
        try:
            if call.batch == 1:
                self.library.gemmEx(self.handle, *operations, *sizes, one, *a, *b, zero, *c, *how)
            else:
                self.library.gemmStridedBatchedEx(
                    self.handle, *operations, *sizes, one, *a, call.first.stride, *b, call.second.stride,
                    zero, *c, call.stride_c, call.batch, *how,
                )  # fmt: skip
        except RuntimeError as fault:
            if "CUBLAS_STATUS" not in str(fault):
                raise
            raise full_beside_the_pool("matmul", fault) or _explained(planned, call, fault) from fault
        finally:
            self.library.setMathMode(self.handle, mode)


def _explained(planned: Plan, call: Call, fault: RuntimeError) -> DeviceError:
    """Say what was asked of cuBLAS where it refuses."""
    return DeviceError(
        f"cuBLAS refused {planned.product.compute} with m, n, k = {call.m}, {call.n}, {call.k}, leading "
        f"dimensions {call.first.ld}, {call.second.ld}, {call.ldc} and a batch of {call.batch}: {fault}",
        op="matmul", help="this chip or this cuBLAS does not offer the product: use float32",
    )  # fmt: skip


def _dotted(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"
