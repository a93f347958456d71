"""Sums, pools and shapes of codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minimp.backend import default_backend
from minimp.errors import SettingError, ShapeError
from minimp.quant.affine import Affine
from minimp.quant.modules.base import QuantizedModule, one_scale
from minimp.quant.qtensor import QTensor

__all__ = [
    "QuantizedAdaptiveAvgPool2d", "QuantizedAdd", "QuantizedAvgPool2d", "QuantizedCat", "QuantizedFlatten",
    "QuantizedMaxPool2d", "QuantizedReLU",
]  # fmt: skip


class QuantizedAdd(QuantizedModule):
    """Codes of a + b, each of a scale of its own; shapes broadcast.

    Args:
        a, b, output: the affine numbers of both inputs and of the sum, one scale each.
        relu: whether a ReLU follows.
        mode: ``"float"`` or ``"fixed-point"`` (:func:`minimp_backends.integer_layers.integer_add`).

    Raises:
        SettingError: channels; when called, codes of other numbers than these.
    """

    def __init__(
        self, a: Affine, b: Affine, output: Affine, *, relu: bool = False, mode: str = "float"
    ) -> None:
        super().__init__()
        for name, affine in (("a_", a), ("b_", b), ("", output)):
            self.keep(name, one_scale(affine, "a term and a sum", "QuantizedAdd"))
        self.relu, self.mode = relu, mode

    def forward(self, a: Any, b: Any) -> QTensor:
        """Return the codes of the sum."""
        affines = [self.kept(name) for name in ("a_", "b_", "")]
        left, right = self.taken(a, affines[0]), self.taken(b, affines[1])
        output, backend = affines[2], default_backend()
        codes = backend.integer_add(
            left.codes, right.codes, tuple(float(each.scale) for each in affines),
            tuple(int(each.zero_point) for each in affines), output.quant_min, output.quant_max, self.mode,
            relu=self.relu, dtype=output.storage,
        )  # fmt: skip
        return QTensor(backend.to_host(codes), output)

    def extra_repr(self) -> str:
        """Show the sum's numbers."""
        return f"{self.kept('')}, relu={self.relu}"


class QuantizedCat(QuantizedModule):
    """Codes one after the other along an axis, all of one scale: q - z of each, times s_i / s, rounded once.

    Args:
        inputs, output: the affine numbers of what is joined, in order, and of the whole; one scale each.
            Inputs of the output's numbers stay as they are.
        dim: the axis.
        mode: how numbers of other scales are rounded (:mod:`minimp_backends.requantizing`).

    Raises:
        SettingError: channels; when called, another count of inputs, or other numbers than these.
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

    def forward(self, *inputs: Any) -> QTensor:
        """Return the codes of the whole."""
        if len(inputs) != self.count:
            raise SettingError(
                f"{self.label} joins {self.count} inputs, got {len(inputs)}", op="QuantizedCat"
            )
        output = self.kept("")
        taken = [self.taken(each, self.kept(f"input_{i}_")) for i, each in enumerate(inputs)]
        try:
            codes = np.concatenate([self._rescaled(each, output) for each in taken], self.dim)
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
        backend, exact = default_backend(), np.float64 if self.mode == "fixed-point" else np.float32
        multiplier = x.affine.scale.astype(exact) / output.scale.astype(exact)
        codes = backend.requantize(
            x.codes.astype(np.int32) - x.affine.zero_point, multiplier, int(output.zero_point),
            output.quant_min, output.quant_max, self.mode, dtype=output.storage,
        )  # fmt: skip
        return backend.to_host(codes)

    def extra_repr(self) -> str:
        """Show the axis and the whole's numbers."""
        return f"dim={self.dim}, {self.kept('')}"


class QuantizedReLU(QuantizedModule):
    """max(q, z): the codes of max(x, 0), of the same scale and zero point.  (...) -> (...)."""

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x = self.taken(input)
        return QTensor(np.maximum(x.codes, x.affine.zero_point.astype(x.codes.dtype)), _whole(self, x))


class QuantizedFlatten(QuantizedModule):
    """Join the axes from `start_dim` to `end_dim`: (N, C, H, W) -> (N, C H W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> QTensor:
        """Return the same codes with these axes joined."""
        x = self.taken(input)
        ndim = len(x.shape)
        first, last = (each + ndim if each < 0 else each for each in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < max(ndim, 1):
            raise ShapeError(
                f"{self.label} cannot join axes {self.start_dim} to {self.end_dim} of {x.shape}",
                op="QuantizedFlatten", shapes=[x.shape],
            )  # fmt: skip
        joined = math.prod(x.shape[first : last + 1])
        shape = (*x.shape[:first], joined, *x.shape[last + 1 :])
        return QTensor(x.codes.reshape(shape), _whole(self, x))


class QuantizedMaxPool2d(QuantizedModule):
    """The largest code of each window, of the same scale and zero point.  (N, C, H, W) -> (N, C, H', W').

    Arguments of :class:`minimp.nn.MaxPool2d`, but for the indices.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window = (kernel_size, stride, padding, dilation, ceil_mode)

    def extra_repr(self) -> str:
        """Show the geometry."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return ", ".join(f"{name}={value}" for name, value in zip(names, self.window, strict=True))

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x, backend = self.taken(input), default_backend()
        return QTensor(backend.to_host(backend.integer_max_pool2d(x.codes, *self.window)), _whole(self, x))


class QuantizedAvgPool2d(QuantizedModule):
    """The mean code of each window, of the same scale and zero point.  (N, C, H, W) -> (N, C, H', W').

    Arguments of :class:`minimp.nn.AvgPool2d`, and `mode`, how means are rounded
    (:func:`minimp_backends.integer_layers.integer_avg_pool2d`).
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, *, mode: str = "float",
    ) -> None:  # fmt: skip
        super().__init__()
        self.window, self.mode = (kernel_size, stride, padding, ceil_mode, count_include_pad), mode

    def extra_repr(self) -> str:
        """Show the geometry."""
        return ", ".join(
            f"{name}={value}"
            for name, value in zip(("kernel_size", "stride", "padding"), self.window[:3], strict=True)
        )

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x, backend = self.taken(input), default_backend()
        zero = int(_whole(self, x).zero_point)
        codes = backend.integer_avg_pool2d(x.codes, *self.window, zero_point=zero, mode=self.mode)
        return QTensor(backend.to_host(codes), x.affine)


class QuantizedAdaptiveAvgPool2d(QuantizedModule):
    """The mean code of each of H' W' windows, of the same scale and zero point.

    (N, C, H, W) -> (N, C, H', W'). Window i of H' covers rows floor(i H / H') to ceil((i + 1) H / H').

    Args:
        output_size: H' and W', or one number for both; None keeps a length.
        mode: how means are rounded, as of :class:`QuantizedAvgPool2d`.
    """

    def __init__(self, output_size: Any, *, mode: str = "float") -> None:
        super().__init__()
        pair = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        self.output_size, self.mode = tuple(pair), mode

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x, backend = self.taken(input), default_backend()
        zero = int(_whole(self, x).zero_point)
        if len(x.shape) != 4:
            raise ShapeError(f"{self.label} takes (N, C, H, W), got {x.shape}", shapes=[x.shape])
        rows, columns = (
            [(i * n // m, -((i + 1) * -n // m)) for i in range(m)]
            for n, m in zip(x.shape[2:], (s or n for s, n in zip(self.output_size, x.shape[2:], strict=True)),
                            strict=True)
        )  # fmt: skip
        made = np.empty((*x.shape[:2], len(rows), len(columns)), x.codes.dtype)
        for i, (top, bottom) in enumerate(rows):
            for j, (left, right) in enumerate(columns):
                window = x.codes[:, :, top:bottom, left:right]
                mean = backend.integer_avg_pool2d(window, window.shape[2:], zero_point=zero, mode=self.mode)
                made[:, :, i : i + 1, j : j + 1] = backend.to_host(mean)
        return QTensor(made, x.affine)


def _whole(module: QuantizedModule, x: QTensor) -> Affine:
    """Return the numbers of codes that have one scale: channels would move."""
    if x.affine.per_channel:
        raise SettingError(
            f"{module.label} takes codes of one scale, got {x.affine}", op=type(module).__name__,
            help="quantise activations without ch_axis",
        )  # fmt: skip
    return x.affine
