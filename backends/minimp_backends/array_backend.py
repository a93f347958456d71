"""What a backend gives the engine, written once over an array namespace `xp`.

Two kinds of arrays travel here. *Storage* arrays hold a tensor in its own format (float16, bfloat16,
float32, float64, integers). *Wide* arrays hold values to compute with: float32 for the 16-bit formats,
float64 for float64. Kernels take storage arrays, compute wide, and round once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import numpy as np

from minimp import formats
from minimp.errors import FormatError
from minimp.formats import Format
from minimp.formats.dice import Source
from minimp_backends.attention import AttentionKernels
from minimp_backends.choosing import Choosing
from minimp_backends.eight_bits import EightBits
from minimp_backends.integer_signals import IntegerSignals
from minimp_backends.layers import LayerKernels
from minimp_backends.lookups import Lookups
from minimp_backends.pointwise import Pointwise
from minimp_backends.recurrent import RecurrentKernels
from minimp_backends.row_losses import LossKernels
from minimp_backends.rows import RowKernels
from minimp_backends.special import erf, logistic
from minimp_backends.tallies import Tallies
from minimp_backends.updates import Updates

__all__ = ["ArrayBackend"]

Array = Any
LOW = frozenset({formats.float16.dtype, formats.bfloat16.dtype})
FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class ArrayBackend(
    AttentionKernels,
    Choosing,
    EightBits,
    IntegerSignals,
    LayerKernels,
    Lookups,
    LossKernels,
    Pointwise,
    RecurrentKernels,
    RowKernels,
    Tallies,
    Updates,
    ABC,
):
    """A device: its arrays, its casts, and the kernels that need more than one line of `xp`."""

    name: str
    xp: Any

    has_values = True
    """Whether arrays hold numbers; a forecast's have shapes alone."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: there is one instance of a backend."""
        return self

    # ---- storage, and the way in and out ----------------------------------------------------------------

    @abstractmethod
    def from_host(self, array: np.ndarray[Any, Any]) -> Array:
        """Copy a NumPy array to the device."""

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray[Any, Any]:
        """Return a NumPy array with the values of a device array; not to be written to."""

    @abstractmethod
    def release(self, array: Array) -> Array:
        """Return an array that the user may write to: `array` itself if the engine holds no copy of it."""

    def freeze(self, arrays: tuple[Array | None, ...]) -> None:
        """Make arrays read-only where the array library can."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

    # ---- formats ----------------------------------------------------------------------------------------

    @abstractmethod
    def wide(self, array: Array) -> Array:
        """Return the values of a storage array to compute with; read-only.

        float16 and bfloat16 become float32, exactly; anything else, and a Python number, stays as it is.
        """

    @abstractmethod
    def narrow(self, array: Array, format: Format | None) -> Array:
        """Round a fresh wide array once to storage of `format`: to nearest even, overflow to infinity.

        The array's memory may be taken over, so nobody else may hold it. Arrays that are in the format
        already, and any array when `format` is None, are returned as they are.
        """

    @abstractmethod
    def cast(
        self,
        array: Array,
        format: Format,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        rng: Source = None,
    ) -> Array:
        """Return a storage array of `format` with the values of `array`, each rounded once.

        Args:
            array: a storage or wide array; left as it is.
            format: where to.
            rounding: a name in `minimp.formats.ROUNDINGS`.
            overflow: ``"ieee"`` (the default) or ``"saturate"``.
            rng: what ``rounding="stochastic"`` draws from, as in :func:`minimp.formats.round`.
        """

    def view(self, array: Array, change: Callable[[Array], Array]) -> Array:
        """Return `change(array)`, for a change that only moves or selects elements."""
        return change(array)

    def places(self, index: Any) -> Any:
        """Return an index with its host arrays as arrays of the device."""
        return index

    def add(self, a: Array, b: Array) -> Array:
        """Return a + b of two storage arrays of one format, rounded to it (how gradients add up)."""
        return self.narrow(self.wide(a) + self.wide(b), self._format(a))

    def keep_where(self, array: Array, mask: Array) -> Array:
        """Return the storage array with +0 wherever `mask` is False; nothing is rounded."""
        return self.choose(mask, array, self.xp.zeros((), array.dtype))

    def scatter_add(self, shape: tuple[int, ...], index: Any, values: Array, *, accumulate: str) -> Array:
        """Return zeros of `shape` with `values` (wide) added at `index`; the sums are wide.

        Values that meet in one place are added in the C order of `values` (under "float32", in any).
        """
        out = self.xp.zeros(shape, values.dtype)
        parts = index if isinstance(index, tuple) else (index,)
        if all(isinstance(part, slice | int | type(None) | type(...)) for part in parts):
            out[index] = values  # no two elements of a slice are one
        elif accumulate == "float32":
            self._add_at(out, index, values)
        else:
            out = self._add_meeting(out, index, values, accumulate)
        return out

    def _add_at(self, out: Array, index: Any, values: Array) -> None:
        """Add in place, in any order."""
        self.xp.add.at(out, index, values)

    def _add_meeting(self, out: Array, index: Any, values: Array, accumulate: str) -> Array:
        """Sum what meets, by name: the places at which equally many values meet are summed together."""
        xp = self.xp
        places = xp.broadcast_to(xp.arange(out.size).reshape(out.shape)[index], values.shape).reshape(-1)
        order = xp.argsort(places, kind="stable")
        found, starts, counts = xp.unique(places[order], return_index=True, return_counts=True)
        terms, wide = values.reshape(-1)[order], out.reshape(-1)
        for count in xp.unique(counts).tolist():
            chosen = counts == count
            met = terms[starts[chosen][:, None] + xp.arange(count)]
            sums = met[:, 0] if count == 1 else self.sum(met, axis=1, accumulate=accumulate)
            wide = wide.astype(xp.result_type(wide, sums), copy=False)
            wide[found[chosen]] = sums
        return wide.reshape(out.shape)

    def erf(self, x: Array) -> Array:
        """Return the error function of a wide array, elementwise."""
        return erf(self.xp, x)

    def logistic(self, x: Array) -> Array:
        """Return 1 / (1 + e^-x) of a wide array, elementwise."""
        return logistic(self.xp, x)

    def keep_mask(self, shape: tuple[int, ...], p: float, rng: np.random.Generator) -> Array:
        """Draw what dropout keeps: booleans, true with probability 1 - p."""
        return self.from_host(rng.random(shape) >= p)

    def _format(self, array: Array) -> Format:
        return formats.get(array.dtype)

    # ---- kernels that sum -------------------------------------------------------------------------------

    @abstractmethod
    def matmul(self, a: Array, b: Array, *, accumulate: str) -> Array:
        """(..., M, K) @ (..., K, N) -> (..., M, N): the sums, wide and not yet rounded to the format.

        Args:
            a, b: storage arrays of one format.
            accumulate: how the K products of each output are added, a name of :func:`minimp.formats.matmul`.
        """

    @abstractmethod
    def sum(
        self,
        array: Array,
        axis: int | tuple[int, ...] | None = None,
        keepdims: bool = False,
        *,
        accumulate: str,
    ) -> Array:
        """Sum a storage array over `axis`; the sums are wide and not yet rounded to the format."""

    def largest_along(self, array: Array, axis: int | tuple[int, ...] | None) -> Array:
        """Return the largest elements of a wide array over `axis`, which stays, of length 1; -inf of none."""
        if array.size:
            return self.xp.max(array, axis=axis if array.ndim else None, keepdims=True)
        axes = range(array.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        gone = {each % max(1, array.ndim) for each in axes}
        shape = [1 if i in gone else n for i, n in enumerate(array.shape)]
        return self.xp.full(shape, -float("inf"), array.dtype)

    def cumsum(self, array: Array, axis: int, *, accumulate: str) -> Array:
        """Return the sums of the first 1, 2, 3, ... elements along `axis`, wide and not yet rounded.

        float32's and float64's are running sums; by another name, each is a sum of its own.
        """
        wide = self.wide(array)
        if wide.dtype.kind in "iub":
            return self.xp.cumsum(wide, axis=axis, dtype="int64").reshape(array.shape)
        if not array.ndim or not array.size:
            return wide.copy()
        if accumulate in ("float32", "float64"):
            dtype = wide.dtype if accumulate == "float32" else FLOAT64
            return self.xp.cumsum(wide, axis=axis, dtype=dtype)
        lead = (slice(None),) * (axis % array.ndim)
        starts = (array[(*lead, slice(0, i + 1))] for i in range(array.shape[axis]))
        return self.xp.stack([self.sum(part, axis=axis, accumulate=accumulate) for part in starts], axis=axis)

    @abstractmethod
    def conv2d(
        self, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """(N, C, H, W), (O, C/g, kH, kW), (O,) -> (N, O, H', W'): the sums with the bias added, wide.

        `geometry` has stride, padding, dilation (pairs, in elements) and groups.
        """

    @abstractmethod
    def conv2d_input(
        self, grad: Array, weight: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return the gradient of a convolution's input, of `shape`, wide."""

    @abstractmethod
    def conv2d_weight(
        self, x: Array, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Return the gradient of a convolution's weight, of `shape`, wide."""

    # ---- pooling ----------------------------------------------------------------------------------------

    @abstractmethod
    def max_pool2d(self, x: Array, geometry: dict[str, Any], need_index: bool) -> tuple[Array, Array | None]:
        """Return (storage maxima, index of each inside its window); NaN wins, then the first maximum."""

    @abstractmethod
    def max_pool2d_input(
        self, grad: Array, index: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Send each gradient to the element that was the maximum; where windows overlap, sum; wide."""

    @abstractmethod
    def avg_pool2d(self, x: Array, geometry: dict[str, Any], *, accumulate: str) -> Array:
        """Return the window means, wide."""

    @abstractmethod
    def avg_pool2d_input(
        self, grad: Array, shape: tuple[int, ...], geometry: dict[str, Any], *, accumulate: str
    ) -> Array:
        """Spread each gradient evenly over its window; where windows overlap, sum; wide."""

    # ---- the end of a step ------------------------------------------------------------------------------

    def times(self, array: Array, factor: float) -> Array:
        """Return the elements times `factor` (rounded to float32) in float32; float64 stays float64."""
        wide = self.wide(array)
        return wide * wide.dtype.type(factor)

    decides_on_device = False
    """Whether a training step had better not make the host wait, see :mod:`minimp.control`."""

    def moved_scale(self, rule: Any, state: tuple[Array, ...], found_inf: Array) -> tuple[Array, ...] | None:  # noqa: ARG002 - those of kernels
        """Return the next state of a loss scale, from a kernel for it; None where there is none.

        Args:
            rule: a ``minimp.scaler.ScaleRule``.
            state: (scale, growth tracker, skips, whether there was a bad step), arrays without axes.
            found_inf: the verdict, an array without axes.
        """
        return None

    def times_on_device(self, array: Array, factor: Array) -> Array:
        """Return the elements times a float64 array without axes, rounded as in :meth:`times`."""
        wide = self.wide(array)
        single = factor.astype(np.float32)
        return wide * (single.astype(FLOAT64) if wide.dtype == FLOAT64 else single)

    def unscale_all(self, grads: list[Array], factor: Array) -> tuple[list[Array], Array]:
        """Return (each gradient as :meth:`times_on_device`; for each, whether the product is not finite).

        Args:
            grads: storage arrays.
            factor: n / S, a float64 array without axes.
        """
        products = [self.times_on_device(grad, factor) for grad in grads]
        bad = [~self.xp.isfinite(each).all() for each in products]
        return products, self.xp.stack(bad) if bad else self.xp.zeros(0, bool)

    def square_total(self, array: Array) -> Array:
        """Return the sum of the squares of an array, a float64 array without axes.

        It is finite if and only if every element is, but for float64 elements above 1e154.
        """
        return self.xp.sum(self.xp.square(self.wide(array), dtype=FLOAT64))

    def is_finite(self, array: Array) -> bool:
        """Tell whether every element is finite."""
        return self.square_sum(array) is not None

    def unscale_and_check(self, grads: list[Array], scale: float) -> tuple[list[Array], list[bool]]:
        """Return (each g * float32(1 / S), as :meth:`times`; whether each g has a non-finite element)."""
        inverse = float(np.float32(np.float64(1.0) / scale))
        finite = self.are_finite(grads)
        return [self.times(grad, inverse) for grad in grads], [not each for each in finite]

    def are_finite(self, arrays: list[Array]) -> list[bool]:
        """Tell of each array whether every element is finite."""
        return [self.is_finite(each) for each in arrays]

    def square_sums(self, arrays: list[Array]) -> list[float | None]:
        """Return :meth:`square_sum` of each array."""
        return [self.square_sum(each) for each in arrays]

    def square_sum(self, array: Array) -> float | None:
        """Return the sum of the squares of all elements, or None if one of them is not finite.

        One dot product answers both questions: an infinity or a NaN makes it non-finite. Only where the
        squares themselves leave float32's range is a second, float64 pass needed.
        """
        flat = self.wide(array).reshape(-1)
        total = float(self.xp.dot(flat, flat))
        if total < float("inf"):
            return total
        total = float(self.xp.sum(self.xp.square(flat, dtype=FLOAT64)))
        return total if bool(self.xp.isfinite(flat).all()) else None

    # ---- figures ----------------------------------------------------------------------------------------

    def scratch_bytes(self) -> int:
        """Return the bytes of work space that kernels of this backend keep for their next call."""
        return 0

    def describe(self) -> dict[str, str]:
        """Return what this backend runs on: name of the fact -> the fact, for benchmark headers."""
        return {"array library": f"{self.xp.__name__} {self.xp.__version__}"}

    def routes(self) -> list[str]:
        """Return the names of the kernel sets that can run here; their results are the same bits."""
        return ["default"]

    def use_route(self, name: str) -> AbstractContextManager[Any]:  # noqa: ARG002 - there is only one
        """Run on the kernel set called `name` inside a `with` block."""
        return nullcontext()

    def require(self, format: Format) -> None:
        """Refuse a format that this backend has no storage for.

        Raises:
            FormatError: naming those it has.
        """
        if format.dtype not in (FLOAT32, FLOAT64, *LOW):
            raise FormatError(
                f"the {self.name} backend has no tensors of {format.name}",
                formats=[format.name], help="use float64, float32, float16 or bfloat16",
            )  # fmt: skip
