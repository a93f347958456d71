"""The elements of a tensor, one by one, with their bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp.errors import DataError, SettingError, unknown_name
from minimp.formats import inspect_code
from minimp.formats.inspection.anatomy import Inspection
from minimp.policy import format_of
from minimp.stepper.edits import parse_index
from minimp.stepper.views import table

__all__ = ["ORDERS", "Walk", "open_walk"]

ORDERS = {
    "largest": "by magnitude, the largest first, infinities and NaN before them",
    "smallest": "by magnitude, the smallest first that are not 0",
    "nonfinite": "infinities and NaN",
    "zeros": "those that are 0",
    "subnormal": "those below the smallest normal number, 0 aside",
}
"""Word -> which elements, in which order; without one, all of them in C order."""
PAGE = 16


@dataclass
class Walk:
    """A walk over elements of an array.

    Attributes:
        name: what the array is called.
        array: it, on the host.
        places: the elements to be shown, counted in C order.
        title: which those are.
        at: how many have been shown.
    """

    name: str
    array: Any
    places: Any
    title: str
    at: int = 0

    def page(self, count: int = PAGE) -> list[str]:
        """Return the next elements as lines of text, and move on."""
        shown = self.places[self.at : self.at + count]
        shape = "x".join(map(str, self.array.shape)) or "()"
        first, last = self.at + 1, self.at + len(shown)
        span = f"{first:,} to {last:,} of {len(self.places):,}" if len(shown) else "none left"
        self.at = last
        form = format_of(self.array.dtype)
        lines = [f"{self.name} {self.array.dtype}[{shape}], {self.title}: {span}"]
        if not len(shown):
            return lines
        if form is None:
            return [*lines, *table(("place", "value"), [(self._place(i), str(self._item(i))) for i in shown])]
        rows = []
        for i in shown:
            seen = self.inspect(int(i))
            rows.append((self._place(i), f"{seen.value:.9g}", *_fields(seen), seen.kind))
        head = ("place", "value", "sign", "exponent", "mantissa", "kind")
        return [*lines, *table(head, rows, right=(1,))]

    def _place(self, flat: int) -> str:
        return ",".join(str(int(i)) for i in np.unravel_index(int(flat), self.array.shape)) or "()"

    def _item(self, flat: int) -> Any:
        return self.array.reshape(-1)[int(flat)].item()

    def inspect(self, flat: int) -> Inspection:
        """Take one element apart.

        Raises:
            SettingError: the array holds integers.
        """
        form = format_of(self.array.dtype)
        if form is None:
            raise SettingError(f"{self.name} holds {self.array.dtype}: it is no number format", op="bits")
        one = np.ascontiguousarray(self.array.reshape(-1)[flat : flat + 1])
        code = int(one.view(f"u{one.dtype.itemsize}")[0]) >> form.padding
        return inspect_code(code, form)

    def bits(self, place: str) -> str:
        """Return all that is known of one element: bits, value, ulp, neighbours."""
        at = parse_index(place, self.array.shape)
        flat = int(np.ravel_multi_index(at, self.array.shape)) if at else 0
        seen = self.inspect(flat)
        first, *rest = str(seen).split("\n")
        del first
        kept = [line for line in rest if not line.startswith("  error")]  # it is the number itself
        return "\n".join([f"{self.name}[{','.join(map(str, at))}] in {seen.format.name}", *kept])


def _fields(seen: Inspection) -> tuple[str, str, str]:
    sign, exponent, mantissa = (part or "-" for part in seen.parts)
    return sign, exponent, mantissa


def open_walk(name: str, array: Any, backend: Any, which: str = "") -> Walk:
    """Begin a walk over an array.

    Args:
        name: what it is called.
        array: it, as the backend has it.
        backend: its backend.
        which: "", a key of :data:`ORDERS`, or the place of the element to begin at.

    Raises:
        SettingError, DataError: an unknown order, or no such element.
    """
    host = np.asarray(backend.to_host(array))
    if not which:
        return Walk(name, host, np.arange(host.size), "in C order")
    if which in ORDERS:
        return Walk(name, host, _chosen(host, which), which)
    if which[:1].isdigit() or which[:1] in "[(":
        at = parse_index(which, host.shape)
        start = int(np.ravel_multi_index(at, host.shape)) if at else 0
        return Walk(name, host, np.arange(start, host.size), f"from {which}")
    raise SettingError(unknown_name("order of elements", which, ORDERS), help="or a place, as 3,4")


def _chosen(host: Any, which: str) -> Any:
    flat = np.abs(host.reshape(-1).astype(np.float64))
    if which == "largest":
        return np.argsort(
            np.where(np.isnan(flat), math.inf, -flat) * np.where(np.isnan(flat), -1, 1), kind="stable"
        )
    if which == "smallest":
        order = np.argsort(flat, kind="stable")
        return order[(flat[order] > 0)]
    if which == "nonfinite":
        return np.flatnonzero(~np.isfinite(flat))
    if which == "zeros":
        return np.flatnonzero(flat == 0)
    form = format_of(host.dtype)
    if form is None:
        raise DataError(f"integers have no subnormal numbers ({host.dtype})", op="open")
    return np.flatnonzero((flat > 0) & (flat < form.smallest_normal))
