"""softmax, log_softmax, layer_norm, rms_norm and sums on the GPU: our kernels, each one pass over the rows.

What they do not take (float64, sums by another name, another axis than the last, ``use_route("arrays")``) is
done with array functions, as on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

from minimp import formats
from minimp.formats import Format
from minimp_backends.accumulating import name_for_sums
from minimp_backends.array_backend import FLOAT32, Array
from minimp_backends.cupy_casts import CupyCasts
from minimp_backends.gpu import Kernels
from minimp_backends.kernels.calls import SPELLINGS
from minimp_backends.kernels.families.rows import KINDS_SERVED, part_rows

__all__ = ["CupyRows"]

ALONG = MappingProxyType(
    {
        "softmax": ("softmax", ("x", "y"), 0),
        "log_softmax": ("softmax", ("x", "y"), 1),
        "softmax_gradient": ("softmax_gradient", ("grad", "y", "dx"), 0),
        "log_softmax_gradient": ("softmax_gradient", ("grad", "y", "dx"), 1),
    }
)
"""Formula -> (kernel, its arrays, the last of which is the result, and whether it is the logarithm's)."""

LONGEST_SUM = 64 * 1024
"""Numbers of a row that one team is given: a guess at where many blocks begin to be faster, not timed yet."""


class CupyRows(CupyCasts):
    """The kernels of rows."""

    def along_axis(
        self, name: str, formula: Callable[..., Array], format: Format | None, *arrays: Array, axis: int,
        accumulate: str,
    ) -> Array:  # fmt: skip
        """Return the formula of each row, rounded once, in one launch where there is a kernel for it."""
        made, first = None, arrays[0]
        if name in ALONG and format is not None and axis in (-1, first.ndim - 1):
            apart = first.dtype != format.dtype or self.rounds_apart(format)
            made = self._along(name, self._laid(accumulate, arrays, wide=apart))
        if made is None:
            return super().along_axis(name, formula, format, *arrays, axis=axis, accumulate=accumulate)
        return self.narrow(made, format)

    def _along(self, name: str, laid: tuple[Kernels, str, list[Array]] | None) -> Array | None:
        if laid is None:
            return None
        kernels, kind, given = laid
        kernel, names, logs = ALONG[name]
        made = self.xp.empty(given[0].shape, given[0].dtype)
        kernels(
            f"{kernel}_{kind}", **dict(zip(names, (*given, made), strict=True)), logs=logs,
            **_sizes(made, made.shape[-1:]),
        )  # fmt: skip
        return made

    def sum(
        self, array: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, *,
        accumulate: str,
    ) -> Array:  # fmt: skip
        """Return the sums over the last axes in one launch and one order; others as on every device."""
        kept = _kept_axes(array, axis)
        laid = self._laid(accumulate, (array,), wide=False) if kept else None
        if laid is None:
            return super().sum(array, axis, keepdims, accumulate=accumulate)
        kernels, kind, (x,) = laid
        y = self.xp.empty(x.shape[:kept] + (1,) * (x.ndim - kept) * keepdims, FLOAT32)
        kernels(f"row_sum_{kind}", x=x, y=y, **_sizes(x, x.shape[kept:]))
        return y

    def layer_norm(
        self, x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float, *,
        accumulate: str,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Return y, rounded at once to the format of `x`, the mean and the scale, in one launch."""
        made = self._norm(x, weight, bias, axes, eps, accumulate, centred=True)
        if made is None:
            return super().layer_norm(x, weight, bias, axes, eps, accumulate=accumulate)
        y, (mean,), scale = made
        return y, mean, scale

    def rms_norm(
        self, x: Array, weight: Array | None, axes: tuple[int, ...], eps: float, *, accumulate: str
    ) -> tuple[Array, Array]:
        """Return y, rounded at once to the format of `x`, and the scale, in one launch."""
        made = self._norm(x, weight, None, axes, eps, accumulate, centred=False)
        if made is None:
            return super().rms_norm(x, weight, axes, eps, accumulate=accumulate)
        return made[0], made[2]

    def layer_norm_gradient(
        self, grad: Array, x: Array, weight: Array | None, mean: Array, scale: Array,
        axes: tuple[int, ...], needs: tuple[bool, bool, bool], *, accumulate: str,
    ) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
        """Return the gradients that are needed, that of x in its format: one launch, the others two."""
        made = self._norm_gradient(grad, x, weight, [mean], scale, axes, needs, accumulate)
        if made is None:
            return super().layer_norm_gradient(
                grad, x, weight, mean, scale, axes, needs, accumulate=accumulate
            )
        return made

    def rms_norm_gradient(
        self, grad: Array, x: Array, weight: Array | None, scale: Array, axes: tuple[int, ...],
        needs: tuple[bool, bool], *, accumulate: str,
    ) -> tuple[Array | None, Array | None]:  # fmt: skip
        """Return the gradients that are needed, as :meth:`layer_norm_gradient`."""
        made = self._norm_gradient(grad, x, weight, [], scale, axes, (*needs, False), accumulate)
        if made is None:
            return super().rms_norm_gradient(grad, x, weight, scale, axes, needs, accumulate=accumulate)
        return made[:2]

    def _norm(
        self, x: Array, weight: Array | None, bias: Array | None, axes: tuple[int, ...], eps: float,
        accumulate: str, *, centred: bool,
    ) -> tuple[Array, list[Array], Array] | None:  # fmt: skip
        laid = self._laid(accumulate, (x,), wide=self._apart(x))
        if laid is None:
            return None
        kernels, kind, (given,) = laid
        y = self.xp.empty(given.shape, given.dtype)
        kept = (*x.shape[: x.ndim - len(axes)], *(1 for _ in axes))
        means, scale = ([self.xp.empty(kept, FLOAT32)] if centred else []), self.xp.empty(kept, FLOAT32)
        kernels(
            f"norm_{kind}", x=given, weight=self._parameters(weight), bias=self._parameters(bias), y=y,
            means=means, scales=scale, eps=eps, **_sizes(x, x.shape[x.ndim - len(axes) :]),
        )  # fmt: skip
        return y, means, scale

    def _norm_gradient(
        self, grad: Array, x: Array, weight: Array | None, means: list[Array], scale: Array,
        axes: tuple[int, ...], needs: tuple[bool, bool, bool], accumulate: str,
    ) -> tuple[Array | None, Array | None, Array | None] | None:  # fmt: skip
        laid = self._laid(accumulate, (grad, x), wide=self._apart(x))
        if laid is None:
            return None
        kernels, kind, (g, given) = laid
        shape = x.shape[x.ndim - len(axes) :]
        kept = [self.xp.ascontiguousarray(each) for each in (scale, *means)]
        rows = {"grad": g, "x": given, "means": kept[1:], "scales": kept[0], **_sizes(x, shape)}
        dx = None
        if needs[0]:
            dx = self.xp.empty(given.shape, given.dtype)
            kernels(f"norm_gradient_{kind}", **rows, weight=self._parameters(weight), dx=dx)
        if not any(needs[1:]):
            return dx, None, None
        sums = self._over_parts(kernels, kind, rows, with_bias=needs[2])
        by_weight, by_bias = (sums[at].reshape(shape) if need else None for at, need in enumerate(needs[1:]))
        return dx, by_weight, by_bias

    def _over_parts(self, kernels: Kernels, kind: str, rows: dict[str, Any], *, with_bias: bool) -> Array:
        """Return the sums of g z and, with bias, of g over rows: in parts, then over the parts."""
        each, length = part_rows(rows["rows"]), rows["length"]
        parts = self.xp.empty((-(-rows["rows"] // each), 1 + with_bias, length), FLOAT32)
        kernels(f"norm_columns_{kind}", **rows, parts=parts, with_bias=int(with_bias), rows_each=each)
        if len(parts) == 1:
            return parts[0]
        totals = self.xp.empty(parts.shape[1:], FLOAT32)
        kernels("sum_parts", parts=parts, totals=totals, count=len(parts), width=totals.size)
        return totals

    def _laid(
        self, accumulate: str, arrays: Sequence[Array], *, wide: bool
    ) -> tuple[Kernels, str, list[Array]] | None:
        """Return what runs kernels, how they spell the format, and the arrays; None if they do not serve."""
        kernels, first = self.kernels_in_force(), arrays[0]
        kind = SPELLINGS.get(first.dtype.name)
        if (
            kernels is None
            or name_for_sums(accumulate) != "float32"
            or kind not in KINDS_SERVED
            or not first.size
        ):
            return None
        if any(each.shape != first.shape or each.dtype != first.dtype for each in arrays) or not first.ndim:
            return None
        given = [self.wide(each) for each in arrays] if wide else list(arrays)
        return kernels, SPELLINGS[given[0].dtype.name], [self.xp.ascontiguousarray(each) for each in given]

    def _apart(self, x: Array) -> bool:
        """Tell whether results are to stay wide, for the op to round them."""
        return self.rounds_apart(formats.get(x.dtype)) if x.dtype.name in SPELLINGS else False

    def _parameters(self, array: Array | None) -> list[Array]:
        return [] if array is None else [self.xp.ascontiguousarray(self.wide(array))]


def _kept_axes(array: Array, axis: int | tuple[int, ...] | None) -> int:
    """Return how many first axes are kept where a team of threads each sums the others well; else 0."""
    if axis is None or not array.ndim or array.dtype.kind in "iub" or not array.flags.c_contiguous:
        return 0
    axes = {each % array.ndim for each in ([axis] if isinstance(axis, int) else axis)}
    kept = array.ndim - len(axes)
    last = set(range(kept, array.ndim))
    return kept if axes and axes == last and 0 < math.prod(array.shape[kept:]) <= LONGEST_SUM else 0


def _sizes(x: Array, row: tuple[int, ...]) -> dict[str, int]:
    """How many rows, and how long each is."""
    length = math.prod(row)
    return {"rows": x.size // length, "length": length}
