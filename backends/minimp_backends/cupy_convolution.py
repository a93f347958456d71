"""Which engine the CuPy backend convolves with: columns and one product, or cuDNN where it is asked for.

Under cuDNN a result of 16-bit operands comes rounded to their format (to nearest even, once, from float32
sums): it is what an op rounds to next, so that nothing is rounded twice. Where sums are wanted as they are
(before a bias of another format, of a transposed convolution, or while a recording counts what rounding
loses), the operands are widened and convolved as float32. Where TF32 is allowed it takes nothing from them:
its 11 bits are as many as float16 has, its exponents are bfloat16's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from minimp import formats
from minimp.errors import FormatError, SettingError
from minimp.formats import Format
from minimp_backends.array_backend import LOW, Array
from minimp_backends.columns import Geometry, check_gradient, geometry_of
from minimp_backends.cudnn_convolution import TYPES
from minimp_backends.cupy_activations import CupyActivations

__all__ = ["ENGINES", "CupyConvolution"]

ENGINES = ("columns", "cudnn")
_engine: ContextVar[str] = ContextVar("minimp_cupy_convolutions", default="columns")


class CupyConvolution(CupyActivations):
    """The kernels of convolution, by either engine."""

    @contextmanager
    def convolving(self, engine: str) -> Iterator[None]:
        """Convolve by another engine in a `with` block.

        Args:
            engine: ``"columns"``, the default: columns (im2col) and one product of cuBLAS's; or ``"cudnn"``.

        Both sum in float32 and round once; their results differ by the order of sums. cuDNN takes float16,
        bfloat16 and float32 with ``accumulate="float32"``; anything else raises under it, and so does what
        cuDNN has no plan for. Convolutions of nothing (a size of 0) and of int8 codes are no concern of
        cuDNN's. ``allowing(tf32=True)`` holds for cuDNN as well; ``allowing(fp16_accumulation=True)`` does
        not. What runs inside is meant, so that a backward pass is to run inside as well.

        Raises:
            SettingError: an engine that there is not.
            DeviceError: cuDNN or its frontend is missing; it says what to install.
        """
        if engine not in ENGINES:
            raise SettingError(
                f"expected an engine of convolutions, got {engine!r}", op="convolving",
                help=f"use {' or '.join(map(repr, ENGINES))}",
            )  # fmt: skip
        if engine == "cudnn":
            self.gpu.cudnn()  # refuses here, not in the middle of a step
        token = _engine.set(engine)
        try:
            yield
        finally:
            _engine.reset(token)

    def allows_tf32(self) -> bool:
        """Tell whether float32 operands may be rounded to TF32."""
        return False

    # ---- the kernels ------------------------------------------------------------------------------------

    def conv2d(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Convolve; the sums are wide, by whatever engine."""
        sizes = self._for_cudnn("conv2d", x.shape, weight.shape, geometry, (x, weight), accumulate)
        if sizes is None:
            return super().conv2d(x, weight, bias, geometry, accumulate=accumulate)
        y = self.gpu.cudnn().forward(*self._wide(x, weight), None, sizes, tf32=self.allows_tf32())
        return y if bias is None else y + self.wide(bias)[:, None, None]

    def conv2d_with_bias(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], format: Format | None, *,
        accumulate: str,
    ) -> Array:  # fmt: skip
        """Convolve, add the bias and round: by cuDNN in one graph, where all is of one format."""
        given = (x, weight) if bias is None else (x, weight, bias)
        sizes = self._for_cudnn("conv2d", x.shape, weight.shape, geometry, given, accumulate)
        if sizes is None or self._needs_sums(format, given):
            return super().conv2d_with_bias(x, weight, bias, geometry, format, accumulate=accumulate)
        return self.gpu.cudnn().forward(x, weight, bias, sizes, tf32=self.allows_tf32())

    def conv2d_input(
        self, grad: Array, weight: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return the gradient by the image, wide; by cuDNN in the operands' format, rounded."""
        sizes = self._for_cudnn("conv2d_input", shape, weight.shape, geometry, (grad, weight), accumulate)
        if sizes is None:
            return super().conv2d_input(grad, weight, shape, geometry, accumulate=accumulate)
        check_gradient("conv2d_input_gradient", sizes, grad)
        grad, weight = self._given(grad, weight)
        return self.gpu.cudnn().input_gradient(grad, weight, sizes, tf32=self.allows_tf32())

    def conv2d_input_with_bias(
        self, grad: Array, weight: Array, shape: tuple[int, ...], bias: Array | None,
        geometry: dict[str, Any], format: Format | None, *, accumulate: str,
    ) -> Array:  # fmt: skip
        """Spread, add the bias and round: by cuDNN from float32 sums where there is a bias."""
        if bias is not None and _engine.get() == "cudnn":
            grad, weight = self._wide(grad, weight)
        return super().conv2d_input_with_bias(
            grad, weight, shape, bias, geometry, format, accumulate=accumulate
        )

    def conv2d_weight(
        self, x: Array, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return the gradient by the weights, wide; by cuDNN in the operands' format, rounded."""
        sizes = self._for_cudnn("conv2d_weight", x.shape, shape, geometry, (x, grad), accumulate)
        if sizes is None:
            return super().conv2d_weight(x, grad, shape, geometry, accumulate=accumulate)
        check_gradient("conv2d_weight_gradient", sizes, grad)
        x, grad = self._given(x, grad)
        return self.gpu.cudnn().weight_gradient(x, grad, sizes, tf32=self.allows_tf32())

    # ---- what cuDNN is given ----------------------------------------------------------------------------

    def _for_cudnn(
        self, op: str, image: tuple[int, ...], weight: tuple[int, ...], geometry: dict[str, Any],
        given: tuple[Array, ...], accumulate: str,
    ) -> Geometry | None:  # fmt: skip
        """Return all sizes for cuDNN; None where the columns are to do it.

        Raises:
            FormatError: cuDNN is asked for, and does not do this.
        """
        if _engine.get() != "cudnn":
            return None
        names = tuple(each.dtype.name for each in given)
        if accumulate != "float32" or not TYPES.keys() >= set(names):
            raise FormatError(
                f"cuDNN convolves {', '.join(TYPES)} with float32 sums, not this with {accumulate} sums",
                op=op, formats=names, help="use backend.convolving('columns') for it",
            )  # fmt: skip
        sizes = geometry_of(op, (), image, weight, **geometry)
        empty = 0 in (*image, *weight, *sizes.out_shape)
        return None if empty else sizes

    def _needs_sums(self, format: Format | None, given: tuple[Array, ...]) -> bool:
        """Tell whether the sums of a product are needed before they are rounded to `format`."""
        return format is None or self.rounds_apart(format) or {each.dtype for each in given} != {format.dtype}

    def _given(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Return two operands in one format: their own, if they have one and its rounding is not counted."""
        apart = a.dtype in LOW and self.rounds_apart(formats.get(a.dtype))
        return self._wide(a, b) if apart or a.dtype != b.dtype else (a, b)

    def _wide(self, a: Array, b: Array) -> tuple[Array, Array]:
        return self.wide(a), self.wide(b)
