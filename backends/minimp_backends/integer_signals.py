"""Convolutions of codes along one axis, and transposed ones: a signal is an image of height 1.

Sums are exact, as those of :mod:`minimp_backends.integers`, on whose products they run. The references are
the definitions in int64, one output at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError, ShapeError
from minimp_backends.integer_checks import Array
from minimp_backends.integer_layers import IntegerLayers, integer_conv_transpose2d
from minimp_backends.integers import integer_conv2d

__all__ = [
    "IntegerSignals", "integer_conv1d", "integer_conv1d_reference", "integer_conv_transpose1d",
    "integer_conv_transpose_reference",
]  # fmt: skip

Zero = npt.ArrayLike
Size = int | tuple[int, ...]


def integer_conv1d(
    x: Array, w: Array, stride: Size = 1, padding: Size = 0, dilation: Size = 1, groups: int = 1,
    x_zero: Zero = 0, w_zero: Zero = 0, *, accumulate: str = "int32",
) -> Array:  # fmt: skip
    """Convolve signals of codes: sum over c, u of (x[..] - x_zero) (w[o,c,u] - w_zero), exactly.

    (N, C, L), (O, C/G, K), each int8 | uint8 -> (N, O, OL) int32, as torch.nn.functional.conv1d. The padding
    is x_zero, the code of real zero.

    Args:
        x, w: codes of signals and filters.
        stride, padding, dilation: whole numbers, in elements.
        groups: G, a divisor of C and of O.
        x_zero, w_zero, accumulate: as of :func:`~minimp_backends.integers.integer_conv2d`.

    Raises:
        ShapeError, FormatError, SettingError: as there.
    """
    op = "integer_conv1d"
    _check_axes(op, x, w)
    sizes: dict[str, Any] = {name: _flat(op, name, size, rest) for name, size, rest in
             (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1))}  # fmt: skip
    rest: dict[str, Any] = {"x_zero": x_zero, "w_zero": w_zero, "accumulate": accumulate}
    made = integer_conv2d(x[:, :, None], w[:, :, None], **sizes, groups=groups, **rest)
    return made[:, :, 0]


def integer_conv1d_reference(
    x: Array, w: Array, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1,
    x_zero: int = 0, w_zero: Zero = 0,
) -> Array:  # fmt: skip
    """Return what :func:`integer_conv1d` does, by the definition and in int64; nothing is checked."""
    signals = np.pad(x.astype(np.int64) - x_zero, ((0, 0), (0, 0), (padding, padding)))
    weights = w.astype(np.int64) - np.reshape(np.asarray(w_zero, np.int64), (-1, 1, 1))
    (filters, channels, taps), reach = w.shape, dilation * (w.shape[2] - 1)
    made = np.zeros((len(x), filters, (signals.shape[2] - reach - 1) // stride + 1), np.int64)
    for o, i in np.ndindex(made.shape[1:]):
        first = o // (filters // groups) * channels
        seen = signals[:, first : first + channels, i * stride : i * stride + reach + 1 : dilation]
        assert seen.shape[1:] == (channels, taps)
        made[:, o, i] = np.einsum("ncu,cu->n", seen, weights[o])
    return made


def integer_conv_transpose1d(
    x: Array, w: Array, stride: Size = 1, padding: Size = 0, output_padding: Size = 0, groups: int = 1,
    dilation: Size = 1, x_zero: int = 0, w_zero: Zero = 0,
) -> Array:  # fmt: skip
    """Transpose a convolution of signals of codes, exactly: each code spreads over what its weights reach.

    (N, C, L), (C, O/G, K), each int8 | uint8 -> (N, O, OL) int32, with OL = (L - 1) stride - 2 padding +
    dilation (K - 1) + output_padding + 1, as torch.nn.functional.conv_transpose1d. Arguments and errors as of
    :func:`~minimp_backends.integer_layers.integer_conv_transpose2d`.
    """
    op = "integer_conv_transpose1d"
    _check_axes(op, x, w)
    named = (("stride", stride, 1), ("padding", padding, 0), ("output_padding", output_padding, 0))
    steps, cuts, extra = (_flat(op, name, size, rest) for name, size, rest in named)
    gaps = _flat(op, "dilation", dilation, 1)
    made = integer_conv_transpose2d(
        x[:, :, None], w[:, :, None], steps, cuts, extra, groups, gaps, x_zero, w_zero
    )
    return made[:, :, 0]


def integer_conv_transpose_reference(
    x: Array, w: Array, stride: tuple[int, ...], padding: tuple[int, ...], output_padding: tuple[int, ...],
    groups: int, dilation: tuple[int, ...], x_zero: int = 0, w_zero: Zero = 0,
) -> Array:  # fmt: skip
    """Return transposed convolutions along any number of axes, by the definition and in int64.

    The code at i adds (x[c,i] - x_zero) (w[c,o,u] - w_zero) to the output at i stride + u dilation - padding,
    where there is one. Nothing is checked.
    """
    share, per_group = w.shape[1], w.shape[0] // groups
    zeros = np.broadcast_to(np.asarray(w_zero, np.int64), groups * share).reshape(groups, share)
    axes = zip(x.shape[2:], w.shape[2:], stride, padding, output_padding, dilation, strict=True)
    lengths = [(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, e, d in axes]
    made = np.zeros((len(x), groups * share, *lengths), np.int64)
    for c, o, *u in np.ndindex(w.shape):
        group = c // per_group
        weight = int(w[c, o, *u]) - int(zeros[group, o])
        for i in np.ndindex(x.shape[2:]):
            at = tuple(
                a * s + b * d - p for a, s, b, d, p in zip(i, stride, u, dilation, padding, strict=True)
            )
            if all(0 <= a < length for a, length in zip(at, lengths, strict=True)):
                made[:, group * share + o, *at] += (x[:, c, *i].astype(np.int64) - x_zero) * weight
    return made


def _flat(op: str, name: str, size: Size, rest: int) -> tuple[int, int]:
    """Return a size along the one axis as a pair, `rest` along the height that is 1."""
    given = tuple(size) if isinstance(size, tuple | list) else (size,)
    if len(given) != 1 or not isinstance(given[0], int | np.integer):
        raise SettingError(
            f"{name} must be a whole number, got {size!r}", op=op, help=f"for example {name}=1"
        )
    return rest, int(given[0])


def _check_axes(op: str, x: Array, w: Array) -> None:
    if x.ndim != 3 or w.ndim != 3:
        raise ShapeError(
            f"expected signals (N, C, L) and filters of three axes, got {x.shape} and {w.shape}", op=op,
            shapes=(x.shape, w.shape), help="give a signal alone an axis of length 1 in front",
        )  # fmt: skip


class IntegerSignals(IntegerLayers):
    """The kernels of this module, on the host: the reference, and what runs on NumPy."""

    def integer_conv1d(self, x: Any, w: Any, *how: Any, **more: Any) -> Any:
        """(N, C, L), (O, C/G, K) codes -> (N, O, OL) int32, see :func:`integer_conv1d`."""
        return self._taken(x, integer_conv1d(self.to_host(x), self.to_host(w), *how, **more))

    def integer_conv_transpose1d(self, x: Any, w: Any, *how: Any, **more: Any) -> Any:
        """(N, C, L), (C, O/G, K) codes -> (N, O, OL) int32, see :func:`integer_conv_transpose1d`."""
        return self._taken(x, integer_conv_transpose1d(self.to_host(x), self.to_host(w), *how, **more))
