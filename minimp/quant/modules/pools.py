"""Pools of codes: the largest code of a window, or the mean; scale and zero point stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from minimp.backend import default_backend
from minimp.errors import SettingError, ShapeError
from minimp.quant.modules.base import QuantizedModule, whole
from minimp.quant.qtensor import QTensor

__all__ = [
    "QuantizedAdaptiveAvgPool1d", "QuantizedAdaptiveAvgPool2d", "QuantizedAdaptiveMaxPool1d",
    "QuantizedAdaptiveMaxPool2d", "QuantizedAvgPool1d", "QuantizedAvgPool2d", "QuantizedMaxPool1d",
    "QuantizedMaxPool2d",
]  # fmt: skip

Array = npt.NDArray[Any]


class _Pool(QuantizedModule):
    """What all share; `axes` is the number of axes that windows move over. A signal has a height of 1."""

    axes: ClassVar[int] = 2

    def pooled(self, x: QTensor, pool: Callable[[Array], Any]) -> QTensor:
        """Return what `pool`, which takes (N, C, H, W), makes of the codes.

        (N, C, H, W), (N, C, L), or without N as a batch of one.
        """
        codes = x.codes
        if codes.ndim not in (self.axes + 1, self.axes + 2):
            wanted = "(N, C, L) or (C, L)" if self.axes == 1 else "(N, C, H, W) or (C, H, W)"
            raise ShapeError(
                f"{self.label} takes {wanted}, got {codes.shape}", op=self._name(), shapes=[codes.shape]
            )
        images = codes if codes.ndim == self.axes + 2 else codes[np.newaxis]
        images = images if self.axes == 2 else images[:, :, np.newaxis]
        made = np.asarray(default_backend().to_host(pool(images)))
        made = made if self.axes == 2 else made[:, :, 0]
        return QTensor(made if codes.ndim == self.axes + 2 else made[0], x.affine)

    def lengths(self, sizes: Any, rest: int) -> Any:
        """Return lengths of windows as a kernel takes them: `rest` along the height of a signal."""
        if self.axes == 2 or sizes is None:
            return sizes
        return (rest, *sizes) if isinstance(sizes, tuple | list) else (rest, sizes)


class QuantizedMaxPool2d(_Pool):
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
        x = self.taken(input)
        whole(self, x)
        *sizes, ceil_mode = self.window
        how = [self.lengths(each, rest) for each, rest in zip(sizes, (1, 1, 0, 1), strict=True)]
        return self.pooled(x, lambda codes: default_backend().integer_max_pool2d(codes, *how, ceil_mode))


class QuantizedMaxPool1d(QuantizedMaxPool2d):
    """The largest code of each window of a signal.  (N, C, L) -> (N, C, L').

    Arguments of :class:`minimp.nn.MaxPool1d`, but for the indices.
    """

    axes = 1


class QuantizedAvgPool2d(_Pool):
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
        names = ("kernel_size", "stride", "padding")
        return ", ".join(f"{name}={value}" for name, value in zip(names, self.window[:3], strict=True))

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x = self.taken(input)
        zero = int(whole(self, x).zero_point)
        how = [self.lengths(each, rest) for each, rest in zip(self.window[:3], (1, 1, 0), strict=True)]
        how += self.window[3:]
        more: dict[str, Any] = {"zero_point": zero, "mode": self.mode}
        return self.pooled(x, lambda codes: default_backend().integer_avg_pool2d(codes, *how, **more))


class QuantizedAvgPool1d(QuantizedAvgPool2d):
    """The mean code of each window of a signal.  (N, C, L) -> (N, C, L').

    Arguments of :class:`minimp.nn.AvgPool1d`, and `mode`.
    """

    axes = 1


class _Adaptive(_Pool):
    """What adaptive pools share: the size of the output.

    Args:
        output_size: H' and W', or one number for both; None keeps a length. Of a signal one number.

    Raises:
        SettingError: a size that is no whole number of at least 1, or another count of them.
        ShapeError: when called, on images without rows or columns.
    """

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        many = isinstance(output_size, tuple | list)
        self.output_size = tuple(output_size) if many else (output_size,) * self.axes
        given = [
            isinstance(each, int | np.integer) and each >= 1 for each in self.output_size if each is not None
        ]
        if len(self.output_size) != self.axes or not all(given):
            raise SettingError(
                f"expected output_size to be a whole number of at least 1, or {self.axes} of them, "
                f"got {output_size!r}",
                op=self._name(), help="None keeps a length",
            )  # fmt: skip

    def extra_repr(self) -> str:
        """Show the size."""
        return f"output_size={self.output_size}"

    def by_window(self, codes: Array, function: Callable[[Array], Any]) -> Array:
        """Return a code for each window; `function` takes (N, C, h, w) to (N, C).

        Window i of H' covers rows floor(i H / H') to ceil((i + 1) H / H').
        """
        if 0 in codes.shape[2:]:
            raise ShapeError(
                f"{self.label} has no windows in images of {codes.shape[2:]}", op=self._name(),
                shapes=[codes.shape],
            )  # fmt: skip
        wanted = self.output_size if self.axes == 2 else (1, *self.output_size)
        spans = [
            [slice(i * n // m, -((i + 1) * -n // m)) for i in range(m)]
            for n, m in ((n, m or n) for n, m in zip(codes.shape[2:], wanted, strict=True))
        ]
        made = np.empty((*codes.shape[:2], *map(len, spans)), codes.dtype)
        for i, rows in enumerate(spans[0]):
            for j, columns in enumerate(spans[1]):
                made[:, :, i, j] = function(codes[:, :, rows, columns])
        return made


class QuantizedAdaptiveAvgPool2d(_Adaptive):
    """The mean code of each of H' W' windows, of the same scale and zero point.

    (N, C, H, W) -> (N, C, H', W'). Window i of H' covers rows floor(i H / H') to ceil((i + 1) H / H').

    Args:
        output_size: H' and W', or one number for both; None keeps a length.
        mode: how means are rounded, as of :class:`QuantizedAvgPool2d`.
    """

    def __init__(self, output_size: Any, *, mode: str = "float") -> None:
        super().__init__(output_size)
        self.mode = mode

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x, backend = self.taken(input), default_backend()
        zero = int(whole(self, x).zero_point)

        def mean(window: Array) -> Any:
            how = {"zero_point": zero, "mode": self.mode}
            return backend.to_host(backend.integer_avg_pool2d(window, window.shape[2:], **how))[:, :, 0, 0]

        return self.pooled(x, lambda codes: self.by_window(codes, mean))


class QuantizedAdaptiveAvgPool1d(QuantizedAdaptiveAvgPool2d):
    """The mean code of each of `output_size` windows of a signal.  (N, C, L) -> (N, C, output_size)."""

    axes = 1


class QuantizedAdaptiveMaxPool2d(_Adaptive):
    """The largest code of each of H' W' windows, of the same scale and zero point.

    (N, C, H, W) -> (N, C, H', W'), the windows of :class:`QuantizedAdaptiveAvgPool2d`.
    """

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x = self.taken(input)
        whole(self, x)
        return self.pooled(x, lambda codes: self.by_window(codes, lambda window: window.max(axis=(2, 3))))


class QuantizedAdaptiveMaxPool1d(QuantizedAdaptiveMaxPool2d):
    """The largest code of each of `output_size` windows of a signal.  (N, C, L) -> (N, C, output_size)."""

    axes = 1
