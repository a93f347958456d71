"""Tensors: values coloured by what the format did to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.displays.elements import FAINT, Html, badge, box, counted, head, number, paragraph, tag
from minimp.displays.grids import Place, grid
from minimp.displays.kinds import KINDS, Kind, classify

__all__ = ["Seen", "look", "tensor_html"]

Array = npt.NDArray[Any]
MOST_COUNTED = 1 << 24
"""Beyond so many elements none are counted: a display should not take seconds."""


@dataclass(frozen=True)
class Seen:
    """The numbers of a tensor, looked at.

    Attributes:
        host: as they are stored.
        values: in float64 (integers: as they are).
        before: what they were cast from, where that is known.
        kinds: of each its place in KINDS; None where there are too many.
    """

    host: Array
    values: Array
    before: Array | None
    kinds: Array | None

    def counts(self) -> list[tuple[Kind, int]]:
        """Return how many there are of each kind, those that there are."""
        if self.kinds is None:
            return []
        found = np.bincount(self.kinds.reshape(-1), minlength=len(KINDS)).tolist()
        return [(kind, count) for kind, count in zip(KINDS, found, strict=True) if count]

    def count(self, *words: str) -> int:
        """Return how many there are of some kinds."""
        return sum(count for kind, count in self.counts() if kind.word in words)

    def extremes(self) -> tuple[float, float] | None:
        """Return the smallest and the largest finite value, None if there is none."""
        finite = self.values[np.isfinite(self.values)] if self.kinds is not None else self.values[:0]
        return (float(finite.min()), float(finite.max())) if finite.size else None


def look(tensor: Any) -> Seen:
    """Look at a tensor."""
    host = np.asarray(tensor.backend.to_host(tensor.array))
    few = host.size <= MOST_COUNTED
    wide = host.astype(np.float64) if tensor.format is not None and few else host
    before = _before(tensor, host) if few else None
    return Seen(host, wide, before, classify(wide, tensor.format, before) if few else None)


def _before(tensor: Any, host: Array) -> Array | None:
    """Return what a tensor was cast from, if it is a cast of a leaf that is still as it was then."""
    node = tensor.node
    leaf = node.inputs[0] if node is not None and node.op.name == "cast" else None
    if leaf is None or not hasattr(leaf, "array") or leaf.array.shape != host.shape:
        return None
    again = leaf.backend.to_host(leaf.backend.cast(leaf.array, tensor.format))
    if again.tobytes() != host.tobytes():
        return None
    return np.asarray(leaf.backend.to_host(leaf.array)).astype(np.float64)


def tensor_html(tensor: Any, marks: Sequence[str] = ()) -> Html:
    """Return a tensor: its values, and how many there are of each kind.

    Args:
        tensor: the tensor.
        marks: further words, such as the loss scale that a gradient carries.
    """
    form, host = tensor.format, np.asarray(tensor.backend.to_host(tensor.array))
    name = form.name if form is not None else str(host.dtype)
    words = list(marks)
    if tensor.node is not None:
        words.append(f"made by {tensor.node.op.name}")
    elif tensor.requires_grad:
        words.append("requires_grad")
    if tensor.backend.name != "numpy":
        words.append(f"on {tensor.backend.name}")
    shape = (
        f"{name}, shape {tuple(host.shape)}, {counted(host.size, 'element')}, {counted(host.nbytes, 'byte')}"
    )
    with np.errstate(all="ignore"):
        seen = look(tensor)
        table, note = grid(host.shape, lambda place: _cell(seen, place, form))
        told = [_legend(seen), _range(seen, form), paragraph(note) if note else Html()]
    return box(f"tensor, {shape}", head("tensor", shape, map(badge, words)), table, *told)


def _cell(seen: Seen, place: Place, form: Any) -> tuple[str, str, str]:
    value = seen.values[place]
    if form is None:
        return str(value), str(value), ""
    exact = float(value)
    alone = None if seen.before is None else np.asarray(seen.before[place])
    kind = KINDS[int(classify(np.asarray(exact), form, alone))]
    title = f"{exact!r}: {kind.word}" + ("" if alone is None else f", cast from {float(alone)!r}")
    return f"{exact:.4g}", f"{title}; bits {bits_of(seen.host[place], form)}", kind.colour


def bits_of(stored: Any, form: Any) -> str:
    """Return the bits of one stored value, its fields apart."""
    code = int(np.asarray(stored).view(f"u{form.dtype.itemsize}")) >> form.padding
    text = f"{code & ((1 << form.bits) - 1):0{form.bits}b}"
    ends = (0, int(form.signed), int(form.signed) + form.exponent_bits, form.bits)
    return " ".join(text[a:b] for a, b in pairwise(ends) if b > a)


def _legend(seen: Seen) -> Html:
    """Return how many values there are of each kind."""
    if seen.kinds is None:
        return tag("div", FAINT, f"more than {MOST_COUNTED:,} elements: not counted")
    parts = [_swatch(kind, count) for kind, count in seen.counts()]
    return tag("div", "display:flex;flex-wrap:wrap;gap:2px 14px;margin-top:6px;font-size:12px", *parts)


def _swatch(kind: Kind, count: int) -> Html:
    colour = f"rgba({kind.colour},.3)" if kind.colour else "none"
    style = f"background:{colour};border:1px solid rgba(127,127,127,.4);border-radius:3px;padding:0 5px"
    return tag("span", "", tag("span", style, f"{count:,}"), f" {kind.word}", title=kind.meaning)


def _range(seen: Seen, form: Any) -> Html:
    ends = seen.extremes()
    if ends is None:
        return Html()
    text = f"from {number(ends[0])} to {number(ends[1])}"
    if form is not None and not form.is_integer:
        text += (
            f"; {form.name}: largest {number(form.max)}, smallest normal {number(form.smallest_normal)}, "
            f"smallest {number(form.smallest_subnormal)}"
        )
    return paragraph(text)
