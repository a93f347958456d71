"""Quantised tensors: codes, and the numbers that they stand for."""

from __future__ import annotations

from typing import Any

from minimp.displays.elements import Html, badge, box, head, paragraph
from minimp.displays.grids import grid
from minimp.displays.kinds import kind_named

__all__ = ["qtensor_html"]


def qtensor_html(held: Any) -> Html:
    """Return a quantised tensor: its codes; the number of each stands in its title."""
    codes, affine = held.codes, held.affine
    values = held.dequantize()
    ends = (affine.quant_min, affine.quant_max)
    colour = kind_named("near the largest").colour

    def cell(place: tuple[int, ...]) -> tuple[str, str, str]:
        code, value = int(codes[place]), float(values[place])
        at_end = code in ends
        return (
            str(code),
            f"{value!r}{': at the end of the codes' if at_end else ''}",
            colour if at_end else "",
        )

    table, note = grid(codes.shape, cell)
    stuck = int(((codes == ends[0]) | (codes == ends[1])).sum())
    words = [
        f"{stuck:,} of {codes.size:,} codes at the ends, where what lies beyond is too",
        f"{held.nbytes:,} bytes, {4 * codes.size:,} in float32",
        note,
    ]
    first = head("QTensor", f"{affine}", [badge(f"shape {tuple(codes.shape)}")])
    return box("quantised tensor", first, table, *(paragraph(each) for each in words if each))
