"""Sums and products of codes, codes joined, and ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minimp.backend import default_backend
from minimp.errors import SettingError, ShapeError
from minimp.quant.affine import Affine
from minimp.quant.modules.base import QuantizedModule, one_scale, several, usable, whole
from minimp.quant.qtensor import QTensor

__all__ = ["QuantizedAdd", "QuantizedCat", "QuantizedMul", "QuantizedReLU", "QuantizedSub"]


class QuantizedAdd(QuantizedModule):
    """Codes of a + b, each of a scale of its own; shapes broadcast.

    Args:
        a, b, output: the affine numbers of both inputs and of the sum, one scale each.
        relu: whether a ReLU follows.
        mode: ``"float"`` or ``"fixed-point"`` (:func:`minimp_backends.integer_layers.integer_add`).

    Raises:
        SettingError: channels; a scale 2^31 times that of the sum; when called, codes of other numbers than
            these.
    """

    def __init__(
        self, a: Affine, b: Affine, output: Affine, *, relu: bool = False, mode: str = "float"
    ) -> None:
        super().__init__()
        for name, affine in (("a_", a), ("b_", b), ("", output)):
            self.keep(name, one_scale(affine, "a term and a sum", "QuantizedAdd"))
        self.relu, self.mode = relu, mode
        scales = np.array([each.scale for each in (a, b)], np.float64)
        usable(scales / np.float64(output.scale), "QuantizedAdd")

    def forward(self, a: Any, b: Any) -> QTensor:
        """Return the codes of the sum."""
        affines = [self.kept(name) for name in ("a_", "b_", "")]
        left, right = self.taken(a, affines[0]), self.taken(b, affines[1])
        zeros = [int(each.zero_point) for each in affines]
        return self._sum(left.codes, right.codes, affines, zeros)

    def _sum(self, a: Any, b: Any, affines: list[Affine], zeros: list[int]) -> QTensor:
        output, backend = affines[2], default_backend()
        codes = backend.integer_add(
            a, b, tuple(float(each.scale) for each in affines), tuple(zeros), output.quant_min,
            output.quant_max, self.mode, relu=self.relu, dtype=output.storage,
        )  # fmt: skip
        return QTensor(backend.to_host(codes), output)

    def extra_repr(self) -> str:
        """Show the result's numbers."""
        return f"{self.kept('')}, relu={self.relu}"


class QuantizedSub(QuantizedAdd):
    """Codes of a - b: the sum of a and of the bits of b turned round, as ~q - ~z = -(q - z).

    Arguments and errors as :class:`QuantizedAdd`.
    """

    def forward(self, a: Any, b: Any) -> QTensor:
        """Return the codes of the difference."""
        affines = [self.kept(name) for name in ("a_", "b_", "")]
        left, right = self.taken(a, affines[0]), self.taken(b, affines[1])
        zeros = [int(each.zero_point) for each in affines]
        zeros[1] = int(np.invert(affines[1].zero_point.astype(affines[1].storage)))
        return self._sum(left.codes, np.invert(right.codes), affines, zeros)


class QuantizedMul(QuantizedModule):
    """Codes of a b: round((q_a - z_a) (q_b - z_b) M) + z, M = s_a s_b / s; shapes broadcast.

    Args:
        a, b, output: the affine numbers of both inputs and of the product, one scale each.
        relu: whether a ReLU follows.
        mode: ``"float"``, M in float32, or ``"fixed-point"`` (:mod:`minimp_backends.requantizing`).

    Raises:
        SettingError: channels; M of 2^31 or more; when called, codes of other numbers than these.
    """

    def __init__(
        self, a: Affine, b: Affine, output: Affine, *, relu: bool = False, mode: str = "float"
    ) -> None:
        super().__init__()
        for name, affine in (("a_", a), ("b_", b), ("", output)):
            self.keep(name, one_scale(affine, "a factor and a product", "QuantizedMul"))
        self.relu, self.mode = relu, mode
        usable(np.asarray(self.multiplier()), "QuantizedMul")

    def forward(self, a: Any, b: Any) -> QTensor:
        """Return the codes of the product."""
        affines = [self.kept(name) for name in ("a_", "b_", "")]
        left, right = self.taken(a, affines[0]), self.taken(b, affines[1])
        output, backend = affines[2], default_backend()
        codes = backend.integer_mul(
            left.codes, right.codes, self.multiplier(), tuple(int(each.zero_point) for each in affines),
            output.quant_min, output.quant_max, self.mode, relu=self.relu, dtype=output.storage,
        )  # fmt: skip
        return QTensor(backend.to_host(codes), output)

    def multiplier(self) -> float:
        """Return M = s_a s_b / s, in float64."""
        s_a, s_b, s = (float(self.kept(name).scale) for name in ("a_", "b_", ""))
        return s_a * s_b / s

    def extra_repr(self) -> str:
        """Show the result's numbers."""
        return f"{self.kept('')}, relu={self.relu}"


class QuantizedCat(QuantizedModule):
    """Codes one after the other along an axis, all of one scale: q - z of each, times s_i / s, rounded once.

    Args:
        inputs, output: the affine numbers of what is joined, in order, and of the whole; one scale each.
            Inputs of the output's numbers stay as they are.
        dim: the axis.
        mode: how numbers of other scales are rounded (:mod:`minimp_backends.requantizing`).

    Raises:
        SettingError: channels; s_i / s of 2^31 or more; when called, another count of inputs, or other
            numbers than these.
        ShapeError: when called, shapes that differ elsewhere than along `dim`.
    """

    def __init__(
        self, inputs: Sequence[Affine], output: Affine, dim: int = 0, *, mode: str = "float"
    ) -> None:
        super().__init__()
        names = [f"input_{i}_" for i in range(len(inputs))]
        for name, affine in zip([*names, ""], [*inputs, output], strict=True):
            self.keep(name, one_scale(affine, "what is joined", "QuantizedCat"))
        self.count, self.dim, self.mode = len(inputs), dim, mode
        for each in inputs:
            usable(self.multiplier(each, output), "QuantizedCat")

    def forward(self, *inputs: Any) -> QTensor:
        """Return the codes of the whole; one list of inputs will do."""
        inputs = several(inputs)
        if len(inputs) != self.count:
            raise SettingError(
                f"{self.label} joins {self.count} inputs, got {len(inputs)}",
                op="QuantizedCat",
                help="calibrate and convert the model anew, as it runs now",
            )
        output = self.kept("")
        taken = [self.taken(each, self.kept(f"input_{i}_")) for i, each in enumerate(inputs)]
        parts = [self._rescaled(each, output) for each in taken]
        try:
            codes = np.concatenate(parts, self.dim)
        except ValueError:
            shapes = [each.shape for each in taken]
            raise ShapeError(
                f"{self.label} cannot join {shapes} along axis {self.dim}", op="QuantizedCat", shapes=shapes,
                help="shapes must be alike on all other axes",
            ) from None  # fmt: skip
        return QTensor(codes, output)

    def _rescaled(self, x: QTensor, output: Affine) -> Any:
        """Return the codes that x has in the numbers of the output."""
        if x.affine == output:
            return x.codes
        backend = default_backend()
        codes = backend.requantize(
            x.codes.astype(np.int32) - x.affine.zero_point, self.multiplier(x.affine, output),
            int(output.zero_point), output.quant_min, output.quant_max, self.mode, dtype=output.storage,
        )  # fmt: skip
        return backend.to_host(codes)

    def multiplier(self, input: Affine, output: Affine) -> Any:
        """Return s_i / s, in float64 for ``"fixed-point"``, else in float32."""
        exact = np.float64 if self.mode == "fixed-point" else np.float32
        with np.errstate(over="ignore", under="ignore"):
            return input.scale.astype(exact) / output.scale.astype(exact)

    def extra_repr(self) -> str:
        """Show the axis and the whole's numbers."""
        return f"dim={self.dim}, {self.kept('')}"


class QuantizedReLU(QuantizedModule):
    """max(q, z): the codes of max(x, 0), of the same scale and zero point.  (...) -> (...)."""

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x = self.taken(input)
        return QTensor(np.maximum(x.codes, x.affine.zero_point.astype(x.codes.dtype)), whole(self, x))
