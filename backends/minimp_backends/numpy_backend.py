"""The NumPy backend: the reference, and the engine on any CPU.

Tensors are stored in true float16 and bfloat16 arrays. A product is: widen to float32 (exact), SGEMM with
float32 accumulation, round once: the contract of a Tensor Core, up to the order of the sum.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import numpy as np

from minimp import formats
from minimp.formats import Format
from minimp.formats.dice import Source
from minimp_backends import accumulating, convolution, pooling
from minimp_backends.accelerator import accelerator_status, find_accelerator
from minimp_backends.array_backend import FLOAT32, FLOAT64, LOW, Array, ArrayBackend
from minimp_backends.attention_blocks import BlockedAttention
from minimp_backends.casts import casts, use_casts
from minimp_backends.choosing import BitChoosing
from minimp_backends.host_scratch import kept_bytes
from minimp_backends.numpy_layers import NumpyLayers
from minimp_backends.row_blocks import BlockedRows, memory_order
from minimp_backends.scattering import FlatScatter, add_rows
from minimp_backends.twins import Twins

__all__ = ["NumpyBackend"]

CORE_NAMES = ("scipy_openblas_get_corename64_", "openblas_get_corename64_", "openblas_get_corename")
"""What OpenBLAS calls the function that names its kernels, in NumPy's wheels and elsewhere."""
FLOAT16, BFLOAT16 = formats.float16.dtype, formats.bfloat16.dtype
PLAIN = frozenset({"float32", "float64"})
"""The accumulations that are BLAS's and NumPy's own."""
LONG = 16
"""Elements from which a row is long enough to be sorted by its place."""
SMALL = 2048
"""Elements below which a twin costs more than widening again."""


class NumpyBackend(BitChoosing, BlockedAttention, BlockedRows, NumpyLayers, FlatScatter, ArrayBackend):
    """Arrays are `numpy.ndarray`; kernels are NumPy, with one BLAS call for each product."""

    name = "numpy"
    xp = np

    def __init__(self) -> None:
        self.twins = Twins()

    # ---- storage ----------------------------------------------------------------------------------------

    def from_host(self, array: Array) -> Array:
        """Copy a NumPy array, in C order."""
        return np.array(array, order="C", copy=True)

    def to_host(self, array: Array) -> Array:
        """Return the array itself."""
        return array

    def release(self, array: Array) -> Array:
        """Return `array` if it is writeable and no view, else a copy; it gets no twin from now on.

        Of one element NumPy's functions return a scalar, no array; it becomes one here.
        """
        free = array if array.flags.writeable and array.base is None else np.array(array, order="C")
        if free.dtype in LOW:
            self.twins.share(free)
        return free

    def freeze(self, arrays: tuple[Any, ...]) -> None:
        """Make arrays read-only, and the arrays that they are views of."""
        for array in arrays:
            while isinstance(array, np.ndarray):
                array.setflags(False)  # type: ignore[call-arg]  # by position, and so twice as fast
                array = array.base  # noqa: PLW2901 - up to the owner

    def synchronize(self) -> None:
        """Return at once: NumPy has finished when it returns."""

    # ---- formats ----------------------------------------------------------------------------------------

    def wide(self, array: Any) -> Any:
        """Widen float16 and bfloat16 to float32, through the array's twin if it has one."""
        try:
            dtype = array.dtype
        except AttributeError:  # a Python number
            return array
        if dtype is FLOAT32 or dtype not in LOW:
            return array
        twin = self.twins.get(array)
        return self._widen(array) if twin is None else twin

    def _widen(self, array: Array) -> Array:
        if array.size < SMALL:
            return array.astype(FLOAT32)
        wide = np.empty(array.shape, FLOAT32)
        widen = casts().widen_float16 if array.dtype == FLOAT16 else casts().widen_bfloat16
        widen(array, wide)
        self.twins.put(array, wide)
        return wide

    def narrow(self, array: Array, format: Format | None) -> Array:
        """Round once; the rounded float32 values stay behind as the twin."""
        if format is None or array.dtype == format.dtype:
            return array
        if array.dtype != FLOAT32 or format.dtype not in LOW:
            return self.cast(array, format)
        if array.flags.c_contiguous or (order := memory_order(array)) is None:
            return self._narrow_with_twin(np.asarray(array, order="C"), format.dtype)
        low = self._narrow_with_twin(array.transpose(order), format.dtype)
        return self.view(low, lambda a: a.transpose(np.argsort(order)))

    def _narrow_with_twin(self, wide: Array, dtype: np.dtype[Any]) -> Array:
        """Round a contiguous float32 array that nobody else holds; it becomes the twin."""
        if wide.size < SMALL:
            return wide.astype(dtype)
        low = np.empty(wide.shape, dtype)
        if not wide.flags.writeable:
            wide = wide.copy()
        narrow = casts().narrow_float16 if dtype == FLOAT16 else casts().narrow_bfloat16
        narrow(wide, low, wide)
        self.twins.put(low, wide)
        return low

    def cast(
        self,
        array: Array,
        format: Format,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        rng: Source = None,
    ) -> Array:
        """Round each element once; float64 never passes through float32 on its way to 16 bits."""
        with np.errstate(all="ignore"):  # an overflow is a result; also called outside an op
            return self._cast(array, format, rounding, overflow, rng)

    def _cast(
        self,
        array: Array,
        format: Format,
        rounding: str,
        overflow: str | None,
        rng: Source,
    ) -> Array:
        self.require(format)
        if array.dtype == format.dtype:
            return array
        if rounding != "nearest_even" or overflow not in (None, "ieee"):
            rounded = formats.round(self.wide(array), format, rounding=rounding, overflow=overflow, rng=rng)
            return rounded.astype(format.dtype)
        if format.dtype == FLOAT32 and array.dtype in LOW:
            return self.wide(array)
        if format.dtype not in LOW:
            return array.astype(format.dtype)
        if array.dtype in LOW or array.dtype == FLOAT32:
            return self._narrow_with_twin(np.array(self.wide(array), order="C"), format.dtype)
        # Integers go through float64 as well: float32 would round the large ones first.
        low = np.empty(array.shape, format.dtype)
        casts().narrow_from_float64(np.asarray(array, FLOAT64, order="C"), low, format.name)
        return low

    def narrow_into(self, wide: Array, low: Array, grid: Array | None) -> None:
        """Round with the casts in force; a few elements with NumPy's own."""
        if wide.size < SMALL or wide.dtype != FLOAT32:
            super().narrow_into(wide, low, grid)
        elif low.dtype == FLOAT16:
            casts().narrow_float16(wide, low, grid)
        else:
            casts().narrow_bfloat16(wide, low, grid)

    def widen_into(self, low: Array, wide: Array) -> None:
        """Widen with the casts in force."""
        (casts().widen_float16 if low.dtype == FLOAT16 else casts().widen_bfloat16)(low, wide)

    def keeps_twin(self, size: int) -> bool:
        """Tell whether an array of `size` elements is large enough."""
        return size >= SMALL

    def keep_twin(self, low: Array, grid: Array) -> None:
        """Keep the float32 values beside a 16-bit array that is large enough; both become read-only."""
        if low.size >= SMALL:
            self.twins.put(low, grid)

    def view(self, array: Array, change: Callable[[Array], Array]) -> Array:
        """Return `change(array)`, and give a view of a twinned array the same view of its twin."""
        moved = change(array)
        if array.dtype in LOW and moved is not array:
            twin = self.twins.get(array)
            if twin is not None:
                self.twins.put(moved, change(twin))
        return moved

    def positive_part(self, array: Array) -> Array:
        """One pass where the storage format can be compared as it is."""
        if array.dtype in LOW:
            return super().positive_part(array)
        return np.maximum(array, array.dtype.type(0))

    def keep_where(self, array: Array, mask: Array) -> Array:
        """Select on the stored bits, and on the twin."""
        if array.dtype not in LOW:
            return np.multiply(array.view(f"u{array.itemsize}"), mask).view(array.dtype)
        kept = np.multiply(array.view(np.uint16), mask).view(array.dtype)
        twin = self.twins.get(array)
        if twin is not None and twin.flags.c_contiguous:
            self.twins.put(kept, np.multiply(twin.view(np.uint32), mask).view(FLOAT32))
        return kept

    def _add_at(self, out: Array, index: Any, values: Array) -> None:
        """Long rows are sorted by their place and summed together: `np.add.at` takes element by element."""
        whole = isinstance(index, np.ndarray) and index.dtype.kind in "iu"
        if not whole or values.size < LONG * index.size or not values.size:
            super()._add_at(out, index, values)
            return
        add_rows(out.reshape(len(out), -1), index.reshape(-1) % len(out), values.reshape(index.size, -1))

    # ---- kernels that sum -------------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array, *, accumulate: str) -> Array:
        """One GEMM: float32 for the 16-bit formats and float32, float64 for float64.

        Any other accumulation is :mod:`minimp_backends.accumulating`'s, here and in the kernels below.
        """
        if accumulate in PLAIN:
            return np.matmul(*self._operands(a, b, accumulate))
        return accumulating.product(self.wide(a), self.wide(b), self._format(a), accumulate)

    def sum(
        self,
        array: Array,
        axis: int | tuple[int, ...] | None = None,
        keepdims: bool = False,
        *,
        accumulate: str,
    ) -> Array:
        """NumPy's pairwise sum, in float32 (float64 for float64 arrays) or in float64, or one by name."""
        if array.dtype.kind in "iub":
            return np.sum(array, axis=axis, keepdims=keepdims, dtype=np.int64)
        wide, name = self.wide(array), accumulating.name_for_sums(accumulate)
        if name in PLAIN:
            wide = wide if name == "float32" else np.asarray(wide, FLOAT64)
            return np.asarray(wide.sum(axis=axis, keepdims=keepdims))
        return accumulating.sum_terms(wide, axis, self._format(array), name, keepdims=keepdims)

    def conv2d(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """im2col and GEMM, a few images at a time."""
        bias = None if bias is None else self.wide(bias)
        if accumulate in PLAIN:
            wide_x, wide_weight = self._operands(x, weight, accumulate)
            bias = None if bias is None else bias.astype(wide_x.dtype, copy=False)
            return convolution.conv2d_forward(wide_x, wide_weight, bias, **geometry)
        y = accumulating.conv2d_forward(
            self.wide(x), self.wide(weight), self._format(x), accumulate, **geometry
        )
        return y if bias is None else np.add(y, bias[:, None, None], out=y)

    def conv2d_input(
        self, grad: Array, weight: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """GEMM and col2im; by name, the full correlation."""
        if accumulate in PLAIN:
            operands = self._operands(grad, weight, accumulate)
            return convolution.conv2d_input_gradient(*operands, shape, **geometry)
        return accumulating.conv2d_input_gradient(
            self.wide(grad), self.wide(weight), shape, self._format(grad), accumulate, **geometry
        )

    def conv2d_weight(
        self, x: Array, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """im2col and GEMM over positions."""
        if accumulate in PLAIN:
            operands = self._operands(x, grad, accumulate)
            return convolution.conv2d_weight_gradient(*operands, shape, **geometry)
        return accumulating.conv2d_weight_gradient(
            self.wide(x), self.wide(grad), shape, self._format(x), accumulate, **geometry
        )

    def _operands(self, a: Array, b: Array, accumulate: str) -> tuple[Array, Array]:
        """Return both operands in the format in which BLAS is to accumulate."""
        if accumulate == "float32":
            return self.wide(a), self.wide(b)
        return np.asarray(self.wide(a), FLOAT64), np.asarray(self.wide(b), FLOAT64)

    # ---- pooling ----------------------------------------------------------------------------------------

    def max_pool2d(self, x: Array, geometry: dict[str, Any], need_index: bool) -> tuple[Array, Array | None]:
        """Pool the wide values; a maximum is one of them, so storing it rounds nothing."""
        best, index = pooling.max_pool2d_forward(self.wide(x), need_index=need_index, **geometry)
        return self.narrow(best, self._format(x)), index

    def max_pool2d_input(
        self, grad: Array, index: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Scatter by the index inside each window."""
        add = self._adder(accumulate, grad)
        return pooling.max_pool2d_backward(self.wide(grad), index, shape, add=add, **geometry)

    def avg_pool2d(self, x: Array, geometry: dict[str, Any], *, accumulate: str) -> Array:
        """Sum the shifted slices of each window, then divide."""
        return pooling.avg_pool2d_forward(self.wide(x), add=self._adder(accumulate, x), **geometry)

    def avg_pool2d_input(
        self, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Divide, then add the shifted slices."""
        add = self._adder(accumulate, grad)
        return pooling.avg_pool2d_backward(self.wide(grad), shape, add=add, **geometry)

    def _adder(self, accumulate: str, array: Array) -> pooling.Add | None:
        """Return what adds the slices of windows by name; None where they are added one by one."""
        name = accumulating.name_for_sums(accumulate)
        if name == "float32" or (name == "float64" and array.dtype == FLOAT64):
            return None
        return lambda taps: self.sum(np.stack(taps), axis=0, accumulate=name)

    # ---- figures ----------------------------------------------------------------------------------------

    def scratch_bytes(self) -> int:
        """Return the bytes that kernels and formats keep, in this thread."""
        return kept_bytes()

    def describe(self) -> dict[str, str]:
        """Return NumPy's version, its BLAS, the processor features it uses, and the casts in force."""
        config = np.show_config(mode="dicts")
        blas = config["Build Dependencies"]["blas"]
        return {
            **super().describe(),
            "BLAS": f"{blas['name']} {blas['version']}, {_blas_kernels()}",
            "SIMD": ", ".join(_simd()) or "baseline only",
            "casts": casts().name,
            "accelerator": accelerator_status(),
        }

    def routes(self) -> list[str]:
        """Return "blocks" (pure NumPy), and "numkong" where it passes its self-test."""
        accelerated = find_accelerator()
        return ["blocks"] if accelerated is None else ["blocks", accelerated.name]

    def use_route(self, name: str) -> AbstractContextManager[Any]:
        """Use the casts called `name`, see :mod:`minimp_backends.casts`."""
        return use_casts(name)


def _blas_kernels() -> str:
    """Say for which processor OpenBLAS chose its kernels, and what to do if it overlooked AVX-512.

    On processors that it does not know, OpenBLAS takes kernels of an older one: half the speed.
    """
    library = ctypes.CDLL(import_module("numpy._core._multiarray_umath").__file__)  # its BLAS's names too
    name = next((f for f in CORE_NAMES if hasattr(library, f)), None)
    if name is None:
        return "kernels not known"
    question = getattr(library, name)
    question.restype = ctypes.c_char_p
    core = question().decode()
    wider = any("AVX512" in feature or feature == "X86_V4" for feature in _simd())
    if wider and core in ("Haswell", "Zen"):
        return f"{core} kernels (no AVX-512: OPENBLAS_CORETYPE=SkylakeX in the environment uses it)"
    return f"{core} kernels"


def _simd() -> list[str]:
    """Return the processor features that NumPy found, beyond those it was built to expect."""
    found: list[str] = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return found
