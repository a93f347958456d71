"""The casts of the CuPy backend: our own kernels, which neither flush to zero nor round twice.

Where there are none (``gpu.kernels`` is None), or inside ``use_route("arrays")``, the readable casts over
arrays run (:mod:`minimp_backends.device_backend`); both give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

import numpy as np

from minimp import formats
from minimp.errors import SettingError, unknown_name
from minimp.formats import Format
from minimp.formats.dice import Counter, Source
from minimp.formats.overflows import overflow_named
from minimp.formats.roundings import mode_named
from minimp_backends.array_backend import FLOAT32, FLOAT64, LOW, Array
from minimp_backends.device_backend import DeviceBackend
from minimp_backends.gpu import Gpu, Kernels
from minimp_backends.kernels.references.formats import MODES, needs_64_bits, pack, rule_of

__all__ = ["CupyCasts"]

SPELLINGS = MappingProxyType({"float32": "float", "float16": "half", "bfloat16": "bfloat16"})
"""Formats of `cast_<from>_<to>` -> how the kernels' names spell them."""
PAIRS = frozenset({pair for low in ("float16", "bfloat16") for pair in ((low, "float32"), ("float32", low))})
_route: ContextVar[str | None] = ContextVar("minimp_cupy_casts", default=None)


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

    def kernels_in_force(self) -> Kernels | None:
        """Return what runs our kernels; None where CuPy's functions are to do it all."""
        return None if _route.get() == "arrays" else self.gpu.kernels

    def wide(self, array: Array) -> Array:
        """Widen float16 and bfloat16 to float32."""
        if getattr(array, "dtype", None) not in LOW:
            return array
        made = self._cast_pair(array, formats.float32)
        return super().wide(array) if made is None else made

    def cast_nearest(self, array: Array, format: Format) -> Array:
        """Round to nearest even, overflow to infinity."""
        made = self._cast_pair(array, format)
        if made is None:
            made = self._cast_codes(array, format, "nearest_even", None, None)
        return super().cast_nearest(array, format) if made is None else made

    def cast_kernel(
        self, array: Array, format: Format, rounding: str, overflow: str | None, rng: Source
    ) -> Array:
        """Round in any way; random numbers of a Counter are made on the GPU, others on the host."""
        mode_named(rounding), overflow_named(overflow, format)  # unknown names are refused here
        made = self._cast_codes(array, format, rounding, overflow, rng)
        return super().cast_kernel(array, format, rounding, overflow, rng) if made is None else made

    def _cast_pair(self, array: Array, format: Format) -> Array | None:
        """Cast by the kernel of two formats; None if there is none."""
        kernels, names = self.kernels_in_force(), (array.dtype.name, format.name)
        if (
            kernels is None
            or not (array.dtype in LOW) ^ (format.dtype in LOW)
            or not set(names) <= set(SPELLINGS)
        ):
            return None
        source = self.xp.ascontiguousarray(array)
        target = self.xp.empty(array.shape, format.dtype)
        if array.size:
            source_name, target_name = (SPELLINGS[name] for name in names)
            kernels(f"cast_{source_name}_{target_name}", source=source, target=target, count=array.size)
        return target

    def _cast_codes(
        self, array: Array, format: Format, rounding: str, overflow: str | None, rng: Source
    ) -> Array | None:
        """Cast by the kernel of all formats; None if it cannot."""
        kernels, floating = self.kernels_in_force(), array.dtype in (FLOAT32, FLOAT64, *LOW)
        counter = rng if isinstance(rng, Counter) else Counter(0)
        if kernels is None or not floating or (rng is not None and not isinstance(rng, Counter)):
            return None
        if rounding.startswith("stochastic") and rng is None:
            return None
        given = formats.get(array.dtype)
        source = self.xp.ascontiguousarray(array)
        target = self.xp.empty(array.shape, format.dtype)
        if array.size:
            kernels(
                f"cast_codes_{64 if needs_64_bits(given, format) else 32}",
                source=source.reshape(-1).view("uint8"), target=target.reshape(-1).view("uint8"),
                source_format=pack(given), target_format=pack(format), rounding=MODES.index(rounding),
                rule=rule_of(overflow, format), seed=counter.seed, start=counter.start,
                met_nan=self.xp.zeros(1, np.int32), count=array.size,
            )  # fmt: skip
        return target
