"""The casts of the CuPy backend: our own kernels, which neither flush to zero nor round twice.

Where there are none (``gpu.kernels`` is None), or inside ``use_route("arrays")``, the readable casts over
arrays run (:mod:`minimp_backends.device_backend`); both give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from minimp import formats
from minimp.errors import SettingError, unknown_name
from minimp.formats import Format
from minimp.formats.dice import Counter, Source
from minimp.formats.overflows import overflow_named
from minimp.formats.roundings import mode_named
from minimp_backends.array_backend import FLOAT32, FLOAT64, LOW, Array
from minimp_backends.device_backend import DeviceBackend
from minimp_backends.device_codes import Codes
from minimp_backends.gpu import Gpu, Kernels
from minimp_backends.kernels import calls

__all__ = ["CupyCasts"]

FLOATING = frozenset({FLOAT32, FLOAT64, *LOW})
_route: ContextVar[str | None] = ContextVar("minimp_cupy_casts", default=None)
_variant: ContextVar[str | None] = ContextVar("minimp_cupy_variant", default=None)


class CupyCasts(DeviceBackend):
    """The casts, over our kernels."""

    gpu: Gpu

    def routes(self) -> list[str]:
        """Return "kernels" (ours), if they run here, and "arrays" (CuPy's functions)."""
        return ["arrays"] if self.gpu.kernels is None else ["kernels", "arrays"]

    @contextmanager
    def use_route(self, name: str) -> Iterator[None]:
        """Cast by the route called `name` inside a `with` block.

        Raises:
            SettingError: there is none of that name here.
        """
        if name not in self.routes():
            raise SettingError(unknown_name("route of the casts", name, self.routes()))
        token = _route.set(name)
        try:
            yield
        finally:
            _route.reset(token)

    def variants(self) -> list[str]:
        """Return the names of the other ways in which our kernels can be compiled here."""
        return list(self.gpu.variants)

    @contextmanager
    def use_variant(self, name: str) -> Iterator[None]:
        """Run our kernels as compiled with the options called `name`, inside a `with` block.

        This is for benchmarks: bits that hold for the kernels as they are need not hold for these.

        Raises:
            SettingError: there is none of that name here.
        """
        if name not in self.gpu.variants:
            raise SettingError(unknown_name("variant of the kernels", name, self.variants()))
        token = _variant.set(name)
        try:
            yield
        finally:
            _variant.reset(token)

    def kernels_in_force(self) -> Kernels | None:
        """Return what runs our kernels; None where CuPy's functions are to do it all."""
        if _route.get() == "arrays":
            return None
        variant = _variant.get()
        return self.gpu.kernels if variant is None else self.gpu.variants[variant]

    def rounds_apart(self, format: Format | None) -> bool:
        """Tell whether a kernel is to give float32, for `narrow` to round: a recording counts what is lost.

        Kernels compute in float32 and round once, so that the bits are the same.
        """
        return self.rounds_in_sight and format is not None and format.bits <= 16

    def wide(self, array: Array) -> Array:
        """Widen float16 and bfloat16 to float32."""
        if getattr(array, "dtype", None) not in LOW:
            return array
        made = self._by_kernel(array, formats.float32)
        return super().wide(array) if made is None else made

    def cast_nearest(self, array: Array, format: Format) -> Array:
        """Round to nearest even, overflow to infinity."""
        made = self._by_kernel(array, format)
        return super().cast_nearest(array, format) if made is None else made

    def cast_kernel(
        self, array: Array, format: Format, rounding: str, overflow: str | None, rng: Source
    ) -> Array:
        """Round in any way; random numbers of a Counter are made on the GPU, others on the host."""
        mode_named(rounding), overflow_named(overflow, format)  # unknown names are refused here
        made = self._by_kernel(array, format, rounding, overflow, rng)
        return super().cast_kernel(array, format, rounding, overflow, rng) if made is None else made

    def to_eight_bits(self, wide: Array, format: Format) -> Codes:
        """Round float32 numbers once to an FP8 format: to nearest even, saturating; NaN stays NaN."""
        made = self._by_kernel(wide, format, overflow="saturate")
        return super().to_eight_bits(wide, format) if made is None else Codes(made, format.dtype)

    def from_eight_bits(self, codes: Codes, dtype: Any) -> Array:
        """Return the values of FP8 numbers as float32 or float64, exactly."""
        kernels = self.kernels_in_force()
        if kernels is None or not codes.size:
            return super().from_eight_bits(codes, dtype)
        made, _ = calls.cast(kernels, self.xp, codes.codes, formats.get(codes.dtype), formats.get(dtype))
        return made

    def _by_kernel(
        self, array: Array, format: Format, rounding: str = "nearest_even", overflow: str | None = None,
        rng: Source = None,
    ) -> Array | None:  # fmt: skip
        """Cast by a kernel of ours; None if none can: integers, and random numbers of the host."""
        kernels, counter = self.kernels_in_force(), rng if isinstance(rng, Counter) else None
        if kernels is None or not array.size or array.dtype not in FLOATING:
            return None
        if counter is None and (rng is not None or rounding == "stochastic"):
            return None
        given = formats.get(array.dtype)
        made, _ = calls.cast(kernels, self.xp, array, given, format, rounding, overflow, counter)
        return made
