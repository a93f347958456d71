"""Statistics of arrays of any backend: measured on the host, or read from what a device has counted."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp.formats import Format, bfloat16, float16
from minimp.policy import format_of
from minimp.trace.identity import ByIdentity
from minimp.trace.places import Origin
from minimp.trace.statistics import Stats, cuts_wanted, lowest_exponent, measure, targets_of

if TYPE_CHECKING:
    from minimp_backends.tallies import Tally

__all__ = ["stats_of", "tally_ahead"]

Array = Any


def stats_of(backend: Any, array: Array, form: Format | None, targets: tuple[Format, ...] = ()) -> Stats:
    """Return the statistics of an array.

    Args:
        backend: whose array it is.
        array: in storage.
        form: its format; None for integers and booleans.
        targets: as of :func:`minimp.trace.statistics.measure`.
    """
    if backend.tallies():
        (told,) = backend.tally([array], with_cuts=bool(targets))
        return _read(told, array, form, targets)
    host = backend.to_host(array)
    return measure(host, form, host if form is None else backend.to_host(backend.wide(array)), targets)


def tally_ahead(origins: ByIdentity[Origin], arrays: Sequence[Any], backend: Any, backward: bool) -> None:
    """Write down the statistics of arrays that have none yet, of all by one wait for the device.

    Where no device counts it is left to :func:`stats_of`, array by array.
    """
    if not backend.tallies():
        return
    due: dict[int, tuple[Array, Format | None, tuple[Format, ...]]] = {}
    for array in arrays:
        if hasattr(array, "dtype"):
            form, origin = format_of(array.dtype), origins.get(array)
            targets = targets_of(form) if backward else ()
            if origin is None or origin.stats is None or (targets and not origin.stats.cuts):
                due[id(array)] = array, form, targets
    if not due:
        return
    told = backend.tally([array for array, _, _ in due.values()], with_cuts=backward)
    for each, (array, form, targets) in zip(told, due.values(), strict=True):
        origin = origins.get(array)
        stats = _read(each, array, form, targets)
        origins.put(array, Origin(None if origin is None else origin.number, stats))


def _read(
    told: Tally | np.ndarray[Any, Any], array: Array, form: Format | None, targets: tuple[Format, ...]
) -> Stats:
    """Return the statistics by what a device has told of an array."""
    if isinstance(told, np.ndarray):
        wide = told.astype(np.float32) if form in (float16, bfloat16) else told
        return measure(told, form, wide, targets)
    assert form is not None
    least, most = (None, None) if told.ends is None else told.ends
    finite, lowest = told.finite, lowest_exponent(form)
    mean = told.total / finite if finite else None
    return Stats(
        array.size, array.nbytes, told.zeros,
        subnormals=sum(count for exponent, count in told.binades.items() if exponent < lowest),
        nan=told.nan, inf=told.inf, min=least, max=most,
        amax=None if least is None or most is None else max(-least, most),
        mean=mean if mean is not None and isfinite(mean) else None,
        binades=told.binades, cuts={n: told.cuts[n] for n in cuts_wanted(targets)} if targets else {},
    )  # fmt: skip
