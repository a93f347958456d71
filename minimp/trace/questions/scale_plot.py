"""What each loss scale does to gradients, drawn by matplotlib (an extra, ``pip install "minimp[plot]"``)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import TYPE_CHECKING, Any

from minimp.formats.pictures.figures import new_axes

if TYPE_CHECKING:
    from minimp.trace.questions.gradient_scales import Fate

__all__ = ["plot_fates"]

# Okabe and Ito's colours, which people with any colour vision tell apart; hatches say it again.
BANDS = (
    ("flushed to 0", "#0072B2", "///"),
    ("subnormal", "#56B4E9", "..."),
    ("kept whole", "#DDDDDD", ""),
    ("overflow", "#D55E00", "xxx"),
)


def plot_fates(
    fates: Sequence[tuple[int, Fate]], whole: int, title: str, *, used: Sequence[float],
    good: tuple[int, int] | None, ax: Any,
) -> Any:  # fmt: skip
    """Draw a bar for each power of two, split by what it does, and lines where the recorded steps were.

    Args:
        fates: (power, what a loss scale of 2^power does).
        whole: the number of gradients; at least 1.
        title: what they are.
        used: the loss scales that were used.
        good: from which power to which nothing is lost; None where there is none.
        ax: the Axes to draw on; None makes a figure of pyplot's.
    """
    ax = new_axes(9.6, 4.2) if ax is None else ax
    powers, floor = [power for power, _ in fates], [0.0] * len(fates)
    rows = [(f.flushed, f.subnormal, whole - f.flushed - f.subnormal - f.overflowed, f.overflowed)
            for _, f in fates]  # fmt: skip
    for i, (name, colour, hatch) in enumerate(BANDS):
        parts = [100 * row[i] / whole for row in rows]
        ax.bar(powers, parts, 1.0, floor, label=name, color=colour, hatch=hatch, edgecolor="white", lw=0)
        floor = [a + b for a, b in zip(floor, parts, strict=True)]
    for i, scale in enumerate(sorted(set(used))):
        ax.axvline(log2(scale), color="black", ls="--", lw=1.2, label=None if i else "used by the steps")
    said = "every scale loses some" if good is None else f"2^{good[0]} to 2^{good[1]} lose nothing"
    ax.set(xlabel=f"loss scale 2^k; {said}", ylabel="share of the gradients, %", ylim=(0, 100), title=title)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=5, frameon=False)
    return ax
