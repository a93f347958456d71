"""The casts in force: one record of functions, chosen on first use.

Three routes return the same bits (a NaN's payload aside): ``reference``, the readable casts; ``blocks``,
pure NumPy, block by block; ``numkong``, the accelerator. Unless one is asked for, it is the accelerator
where it is installed and passes its self-test, and ``blocks`` where not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from minimp.errors import SettingError, unknown_name
from minimp_backends import accelerator, block_rounding, plain_casts
from minimp_backends.plain_casts import Array

__all__ = ["ROUTES", "Casts", "casts", "use_casts"]


class Narrow(Protocol):
    """Round ``wide`` to 16 bits into ``low``; the rounded float32 values into ``grid``, maybe ``wide``."""

    def __call__(self, wide: Array, low: Array, grid: Array | None = None, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Casts:
    """The casts of one route; each writes into the arrays it is given.

    Attributes:
        name: the route.
        narrow_float16: ``(wide, half, grid=None)``, float32 to float16, rounded to nearest, ties to even.
        widen_float16: ``(half, wide)``, exact.
        round_to_float16_grid: ``(wide, out)``, float32 to float32.
        narrow_bfloat16: ``(wide, low, grid=None)``, float32 to bfloat16.
        widen_bfloat16: ``(low, wide)``, exact.
        narrow_from_float64: ``(wide64, low, format_name)``, rounded once.
    """

    name: str
    narrow_float16: Narrow
    widen_float16: Callable[[Array, Array], None]
    round_to_float16_grid: Callable[[Array, Array], None]
    narrow_bfloat16: Narrow = plain_casts.narrow_bfloat16
    widen_bfloat16: Callable[[Array, Array], None] = plain_casts.widen_bfloat16
    narrow_from_float64: Callable[[Array, Array, str], None] = plain_casts.narrow_from_float64


def _route(name: str, kernels: Any) -> Casts:
    return Casts(
        name,
        kernels.narrow_float16,
        kernels.widen_float16,
        kernels.round_to_float16_grid,
    )


def _numkong() -> Casts:
    return _route("numkong", accelerator.search("numkong").accelerator)


ROUTES: dict[str, Callable[[], Casts]] = {
    "reference": lambda: _route("reference", plain_casts),
    "blocks": lambda: _route("blocks", block_rounding),
    "numkong": functools.cache(_numkong),
}

_forced: ContextVar[Casts | None] = ContextVar("minimp_casts", default=None)


def casts() -> Casts:
    """Return the casts in force.

    Raises:
        SettingError, DeviceError: ``MINIMP_ACCELERATOR`` cannot be followed; see
        :mod:`minimp_backends.accelerator`.
    """
    return _forced.get() or _by_default()


@functools.cache
def _by_default() -> Casts:
    found = accelerator.find_accelerator()
    return ROUTES["blocks"]() if found is None else _route(found.name, found)


class _Use:
    """A choice of route, in force until the ``with`` block ends, or for good where there is none."""

    def __init__(self, chosen: Casts) -> None:
        self.chosen = chosen
        self._before = _forced.set(chosen)

    def __enter__(self) -> Casts:
        return self.chosen

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _forced.reset(self._before)


def use_casts(name: str) -> _Use:
    """Choose the route of the casts in this context: a plain call, or ``with use_casts("blocks"):``.

    Args:
        name: ``"reference"``, ``"blocks"`` or ``"numkong"``, whatever ``MINIMP_ACCELERATOR`` says.

    Raises:
        SettingError: no such route.
        DeviceError: numkong is missing or failed its self-test.
    """
    if name not in ROUTES:
        raise SettingError(
            unknown_name("route of the casts", name, ROUTES), help=f"choose one of {', '.join(ROUTES)}"
        )
    return _Use(ROUTES[name]())
