"""Delta debugging: the least part of a set that still has a property."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from math import comb
from typing import TypeVar

__all__ = ["ddmin", "smaller", "thin"]

T = TypeVar("T")


def ddmin(items: Sequence[T], test: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """Return a part of `items` that passes `test`, and fails it without any one of its elements.

    The algorithm ddmin of Zeller and Hildebrandt 2002, "Simplifying and Isolating Failure-Inducing Input",
    IEEE Transactions on Software Engineering 28(2), figure 5. The set is cut into n parts. The search goes on
    with a part that passes; or with all but one part, if they pass; else the parts are cut finer. For k
    elements it takes about 2 log2(k) tests if one of them is enough, and at most k^2 + 3 k.

    Such a set is 1-minimal. It need not be the smallest there is: where more elements never spoil a pass, no
    part of it passes, but another set with fewer elements may.

    Args:
        items: the elements; all of them together must pass.
        test: whether a part passes; asked of the same part twice it must say the same.
    """
    kept, parts = tuple(items), 2
    while len(kept) > 1:
        pieces = _cut(kept, parts)
        rests = [tuple(x for piece in pieces if piece is not one for x in piece) for one in pieces]
        for found, finer in ((pieces, 2), (rests if parts > 2 else [], max(parts - 1, 2))):
            passing = next((each for each in found if test(each)), None)
            if passing is not None:
                kept, parts = passing, finer
                break
        else:
            if parts >= len(kept):
                break
            parts = min(2 * parts, len(kept))
    return kept


def thin(items: Sequence[T], test: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """Return a part of `items` that passes `test`, and fails it without any one of its elements.

    As ddmin, with complements alone: the set is cut in two, four, and so on, and each part is left out that
    is not needed, until single elements have been gone through without leaving one out. Where many elements
    are needed, ddmin's restarts take up to k^2 + 3 k tests of k elements; this takes about 2 k, and about
    2 log2(k) if one of them is enough.

    Args:
        items: the elements; all of them together must pass.
        test: whether a part passes; asked of the same part twice it must say the same.
    """
    kept, size, fewer = tuple(items), (len(items) + 1) // 2, True
    while len(kept) > 1 and (size > 1 or fewer):
        before, start = len(kept), 0
        while start < len(kept):
            rest = kept[:start] + kept[start + size :]
            if rest and test(rest):
                kept = rest
            else:
                start += size
        fewer = len(kept) < before or size > 1
        size = max(size // 2, 1)
    return kept


def smaller(
    items: Sequence[T], found: tuple[T, ...], test: Callable[[tuple[T, ...]], bool], most: int
) -> tuple[tuple[T, ...], bool]:
    """Look for a part with fewer elements that passes too, trying all of one size before the next.

    Args:
        items: the elements.
        found: a part that passes.
        test: whether a part passes.
        most: how many parts may be tried; a size of which there are more than are left is not begun.

    Returns:
        The least part that is known to pass, and whether every part with fewer elements was seen to fail.
    """
    for size in range(1, len(found)):
        most -= comb(len(items), size)
        if most < 0:
            return found, False
        passing = next((each for each in combinations(items, size) if test(each)), None)
        if passing is not None:
            return passing, True
    return found, True


def _cut(items: tuple[T, ...], parts: int) -> list[tuple[T, ...]]:
    """Cut into so many parts of nearly one length, none empty."""
    parts = min(parts, len(items))
    ends = [len(items) * i // parts for i in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(ends)]
