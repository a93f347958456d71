"""The CuPy backend: the engine on an NVIDIA GPU.

Arrays are `cupy.ndarray`, all but three things written once over their namespace
(:mod:`minimp_backends.device_backend`): products are cuBLAS's, with their types spelled out
(:mod:`minimp_backends.cublas`); casts are kernels of ours, for CuPy compiles its own with flush-to-zero; and
codes of 8 bits are multiplied as int8 (:mod:`minimp_backends.device_integers`). Convolutions are columns
and one product, or cuDNN's where it is asked for (:mod:`minimp_backends.cupy_convolution`).

CuPy's elementwise kernels, which do the rest, take float32 numbers below 2^-126 for zero (cupy 14,
cupy/cuda/compiler.py): there alone results differ from the NumPy backend's by more than the order of sums and
the last places of exp and its like.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp import formats
from minimp.errors import FormatError, ShapeError, plain
from minimp.formats import Format
from minimp_backends.array_backend import FLOAT64, LOW, Array
from minimp_backends.cupy_attention import CupyAttention
from minimp_backends.cupy_convolution import CupyConvolution
from minimp_backends.cupy_embedding import CupyEmbedding
from minimp_backends.cupy_losses import CupyLosses
from minimp_backends.cupy_rows import CupyRows
from minimp_backends.cupy_statistics import CupyStatistics
from minimp_backends.cupy_updates import CupyUpdates
from minimp_backends.device_backend import PLAIN, DeviceBackend
from minimp_backends.device_codes import Codes
from minimp_backends.device_integers import DeviceIntegers
from minimp_backends.gpu import Gpu, open_gpu
from minimp_backends.strict.counts import Counts

__all__ = ["CupyBackend"]

FLOAT16 = formats.float16.dtype
KINDS = "fiub"
"""Kinds of dtypes that CuPy has, bfloat16 aside."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What products accumulated as "float32" may be instead; names as in torch.backends.cuda.matmul."""

    tf32: bool = False
    fp16_accumulation: bool = False


NOTHING = Allowed()
_allowed: ContextVar[Allowed | None] = ContextVar("minimp_cupy_products", default=None)


class CupyBackend(
    CupyAttention,
    CupyConvolution,
    CupyEmbedding,
    CupyLosses,
    CupyRows,
    CupyStatistics,
    CupyUpdates,
    DeviceIntegers,
    DeviceBackend,
):
    """Arrays are `cupy.ndarray`, on the current GPU.

    Args:
        gpu: the GPU; None: that of this machine.

    Raises:
        DeviceError: there is no GPU, no driver or no CuPy that can be used; it says what was found.
    """

    name = "cupy"

    def __init__(self, gpu: Gpu | None = None) -> None:
        self.gpu = open_gpu() if gpu is None else gpu
        self.xp, self.memory = self.gpu.xp, self.gpu.memory
        self._counters: list[Counts] = []

    # ---- storage ----------------------------------------------------------------------------------------

    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        """Copy a NumPy array to the GPU, in C order; 8-bit floating formats become :class:`.Codes`.

        CuPy takes the numbers into page-locked memory and returns; the copy to the GPU follows by itself.

        Raises:
            FormatError: a dtype that neither CuPy nor this engine stores.
        """
        host = np.asarray(array, order="C")
        if host.dtype.kind in "fV" and host.dtype.itemsize == 1:
            return Codes(self._sent(host.view(np.uint8)), host.dtype)
        if host.dtype.kind not in KINDS and host.dtype not in LOW:
            raise FormatError(
                f"CuPy has no arrays of {host.dtype}", formats=(str(host.dtype),),
                help="use float64, float32, float16, bfloat16, FP8, integers or bool",
            )  # fmt: skip
        return self._sent(host)

    def _sent(self, host: np.ndarray[Any, Any]) -> Array:
        self._count(to_device=1, to_device_bytes=host.nbytes)
        return self.xp.array(host)

    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy an array of the GPU to the host, which waits for it."""
        if isinstance(array, Codes):
            return self.to_host(array.codes).view(array.dtype)
        if not isinstance(array, self.xp.ndarray):
            return np.asarray(array)
        self._count(syncs=1, to_host=1, to_host_bytes=array.nbytes)
        host: np.ndarray[Any, Any] = self.gpu.to_host(array)
        return host

    def release(self, array: Array) -> Array:
        """Return the array itself, for DLPack: nothing is copied.

        As in PyTorch, what another library writes to it is read by all that was recorded from it; hand out a
        clone where that must not be.
        """
        return array

    def synchronize(self) -> None:
        """Wait until the GPU has done all that it was given."""
        self._count(syncs=1)
        self.gpu.synchronize()

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """Count in a `with` block the copies and waits that go through this backend.

        What CuPy does by itself, as in ``float(array)``, it does not see; the strict backend counts that.
        """
        counts = Counts()
        self._counters.append(counts)
        try:
            yield counts
        finally:
            self._counters[:] = [each for each in self._counters if each is not counts]

    def _count(self, **more: int) -> None:
        for each in self._counters:
            each.add(**more)

    # ---- products ---------------------------------------------------------------------------------------

    @contextmanager
    def allowing(self, *, tf32: bool = False, fp16_accumulation: bool = False) -> Iterator[None]:
        """Let products accumulated as "float32" be less than that in a `with` block, for speed.

        Args:
            tf32: float32 factors are rounded to TF32, 11 bits, on the way in, as under
                ``torch.backends.cuda.matmul.allow_tf32``.
            fp16_accumulation: float16 products are summed in float16 in an order of cuBLAS's, as under
                ``torch.backends.cuda.matmul.allow_fp16_accumulation``. (``mp.accumulate("float16")`` is not
                this: it rounds each product and each sum, one after the other, and is emulated.)

        What runs inside is meant, so that a backward pass is to run inside as well.
        """
        token = _allowed.set(Allowed(tf32, fp16_accumulation))
        try:
            yield
        finally:
            _allowed.reset(token)

    def allows_tf32(self) -> bool:
        """Tell whether float32 operands may be rounded to TF32."""
        return (_allowed.get() or NOTHING).tf32

    def matmul(self, a: Array, b: Array, *, accumulate: str) -> Array:
        """One call of cuBLAS: 16-bit factors as they are, with float32 sums and a float32 result."""
        if accumulate not in PLAIN or a.dtype.kind in "iub":
            return super().matmul(a, b, accumulate=accumulate)
        try:
            return self._multiplied(a, b, accumulate)
        except ShapeError as fault:
            raise ValueError(plain(fault)) from fault  # as array libraries do: the op that asked names itself

    def _multiplied(self, a: Array, b: Array, accumulate: str) -> Array:
        if accumulate == "float64" or FLOAT64 in (a.dtype, b.dtype):
            a, b = (self.wide(each).astype(FLOAT64, copy=False) for each in (a, b))
            return self.gpu.cublas.matmul(a, b, output="float64", compute="float64")
        if a.dtype != b.dtype:
            a, b = self.wide(a), self.wide(b)
        allowed = _allowed.get() or NOTHING
        if a.dtype == FLOAT16 and allowed.fp16_accumulation:
            return self.wide(self.gpu.cublas.matmul(a, b, output="float16", compute="float16"))
        compute = "tf32" if allowed.tf32 and a.dtype not in LOW else "float32"
        return self.gpu.cublas.matmul(a, b, output="float32", compute=compute)

    def int8_product(self, a: Array, b: Array) -> Array:
        """(..., M, K), (..., K, N) int8 -> (..., M, N) int32."""
        return self.gpu.cublas.matmul(a, b, output="int32", compute="int32")

    # ---- figures ----------------------------------------------------------------------------------------

    def require(self, format: Format) -> None:
        """Refuse a format that has no storage, and bfloat16 where the chip cannot multiply it.

        Raises:
            FormatError, DeviceError: saying which formats there are.
        """
        super().require(format)
        self.gpu.cublas.require(format.name)

    def scratch_bytes(self) -> int:
        """Return the bytes that the memory pool keeps for the next arrays."""
        return 0 if self.memory is None else self.memory.figures().free

    def describe(self) -> dict[str, str]:
        """Return the GPU, the driver, CUDA's, cuBLAS's and CuPy's versions, and what casts run on."""
        return {**super().describe(), **self.gpu.about, "casts": self.routes()[0]}
