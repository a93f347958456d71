"""Recorded values for the viewer: their codes as hexadecimal digits, and a few elements as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import FormatError
from minimp.formats import Format, get
from minimp.formats.inspection.anatomy import inspect_code
from minimp.trace.events import Side, TraceEvent
from minimp.trace.reporting.texts import printable

__all__ = ["Limits", "tensors_of"]

Array = npt.NDArray[Any]
Limits = tuple[int, int, int]
"""(arrays, elements of each, elements of each in the tables) at most."""


def tensors_of(trace: Any, events: Sequence[TraceEvent], limits: Limits) -> dict[str, Any]:
    """Return the arrays for the viewer: of events that lost something first, then evenly spread.

    Integers (labels, indices) are left out.
    """
    having = [event for event in events if event.values]
    most, length, shown = limits
    found: list[dict[str, Any]] = []
    for event in _chosen(having, 4 * most):
        if len(found) >= most:
            break
        kept = trace.values(event)
        for name in sorted(kept, key=lambda name: (not name.startswith("out"), name)):
            side, form = _side(event, name)
            if side is None or form is None or not kept[name].size or len(found) >= most:
                continue
            found.append(_tensor(event, name, side, form, kept[name], length, shown))
    found.sort(key=lambda each: each["number"])
    for i, each in enumerate(found):
        each["id"] = f"tensor-{i}"
    arrays = sum(len(event.values) for event in having)
    return {"arrays": found, "all": arrays, "left_out": arrays - len(found)}


def _chosen(events: list[TraceEvent], most: int) -> list[TraceEvent]:
    """Return events that lost something, then others evenly spread over the recording."""
    lossy = [event for event in events if event.nonfinite or event.overflowed or event.flushed][:most]
    seen = {event.number for event in lossy}
    rest = [event for event in events if event.number not in seen]
    left = min(most - len(lossy), len(rest))
    half = [rest[len(rest) * i // left] for i in range(left)] if left > 0 else []
    merged = []
    for i in range(max(len(lossy), len(half))):  # in turn: the faults, and what surrounds them
        merged += lossy[i : i + 1] + half[i : i + 1]
    return merged


def _side(event: TraceEvent, name: str) -> tuple[Side | None, Format | None]:
    sides, digits = (event.inputs, name[2:]) if name.startswith("in") else (event.outputs, name[3:])
    if not digits.isdigit() or int(digits) >= len(sides) or (side := sides[int(digits)]) is None:
        return None, None
    try:
        form = get(side.format)
    except FormatError:
        return None, None
    return (side, form) if not form.is_integer and form.exponent_bits and form.signed else (None, None)


def _tensor(
    event: TraceEvent, name: str, side: Side, form: Format, array: Array, length: int, shown: int
) -> dict[str, Any]:
    flat = np.ascontiguousarray(array).reshape(-1)
    taken = flat[:length]
    codes = [int(code) for code in taken.view(f"u{taken.dtype.itemsize}")]
    if taken.dtype.itemsize * 8 != form.bits:  # kept in a wider or narrower dtype than the format's own
        codes = [code & ((1 << form.bits) - 1) for code in codes]
    digits = -(-form.bits // 4)
    what = side.name or ("result" if name.startswith("out") else "input")
    many = len(event.outputs if name.startswith("out") else event.inputs) > 1
    part = f" {name.lstrip('inout')}" if not side.name and many else ""
    known = event.phase != "stage" and event.where not in (event.source, "")
    where = f" {'in' if event.module else 'of'} {event.where}" if known else ""
    step = f", step {event.step:,}" if event.step else ""
    title = f"#{event.number} {event.title}{where}{step}: {what}{part}"
    return {
        "number": event.number, "title": printable(title), "format": form.name, "shape": list(side.shape),
        "count": len(codes), "size": int(np.prod(side.shape, dtype=np.int64)), "kept": int(flat.size),
        "ebits": form.exponent_bits, "mbits": form.mantissa_bits, "bias": form.bias,
        "top": f"{form.max_code:x}",
        "inf": f"{form.inf_code:x}" if form.has_inf else "",
        "nan": f"{form.nan_code:x}" if form.has_nan else "",
        "codes": "".join(f"{code:0{digits}x}" for code in codes), "digits": digits,
        "rows": [_row(place, codes[place], form) for place in _telling(codes, form, shown)],
    }  # fmt: skip


def _telling(codes: list[int], form: Format, most: int) -> list[int]:
    """Return the places of elements that are not finite, and of the first ones, so many in all."""
    mask = (1 << (form.bits - 1)) - 1
    odd = [place for place, code in enumerate(codes) if code & mask > form.max_code][: most // 2]
    return sorted({*odd, *range(min(most - len(odd), len(codes)))})


def _row(place: int, code: int, form: Format) -> tuple[str, ...]:
    seen = inspect_code(code, form)
    sign, exponent, mantissa = seen.parts
    return (
        f"{place:,}",
        f"{seen.value:.6g}",
        f"{sign} | {exponent} | {mantissa}",
        seen.kind,
        f"{seen.ulp:.3g}",
    )
