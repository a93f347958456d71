"""Which numbers stay floats between modules that stay in floats: what nothing on codes gives or takes.

A value may stay in floats where all that give and take it can: an island (a module in `keep_float`), a mark
(QuantStub, DeQuantStub), the model's inputs and results, and a module that keeps its input's scale (a ReLU, a
pool, a Flatten), which then stays the float module that it is. One of the two ends, at last, is an island.
A module that runs several times takes and gives the same at each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from minimp.quant.fusion.flow import Call
from minimp.quant.modules.conversions import Conversion
from minimp.quant.modules.stubs import DeQuantStub, QuantStub

__all__ = ["Visit", "floating"]

Group = frozenset[int]


@dataclass(frozen=True, eq=False)
class Visit:
    """One call of a module that codes reach.

    Attributes:
        path: where the module stands first.
        call: the call.
        row: how its class is converted; None of one that has no integer form.
    """

    path: str
    call: Call
    row: Conversion | None

    @property
    def inputs(self) -> list[int]:
        """The ids of the arrays that it takes."""
        return [id(each.array) for each in self.call.inputs]

    @property
    def outputs(self) -> list[int]:
        """The ids of the arrays that it gives."""
        return [id(each.array) for each in self.call.outputs]

    @property
    def begins(self) -> bool:
        """Whether codes begin here."""
        return type(self.call.module) is QuantStub

    @property
    def ends(self) -> bool:
        """Whether codes end here."""
        return type(self.call.module) is DeQuantStub

    @property
    def passes(self) -> bool:
        """Whether it gives on the numbers of what it takes."""
        return self.row is not None and self.row.keeps and not self.ends


def floating(visits: Sequence[Visit], begun: Iterable[int], kept: Container[str]) -> frozenset[int]:
    """Return the ids of the arrays that stay floats.

    Ops outside of modules are not asked: converting refuses those that read what codes reach.

    Args:
        visits: what codes reach, in the order of running.
        begun: the ids of the inputs that codes begin with.
        kept: paths of the islands.
    """
    islands = [each for each in visits if each.path in kept]
    if not islands:
        return frozenset()
    found = set(begun)
    for each in visits:
        if each.begins or each in islands or each.passes:
            found.update(each.outputs)
    for each in visits:
        if not (each in islands or each.passes or each.ends or each.begins):
            found.difference_update(each.inputs, each.outputs)
    groups = list(_tied(visits, kept))
    _settle(found, groups)
    return frozenset(_beside(found, islands, groups))


def _tied(visits: Sequence[Visit], kept: Container[str]) -> Iterator[Group]:
    """Yield arrays that are all floats or all codes."""
    slots: dict[tuple[int, str, int], set[int]] = defaultdict(set)
    for each in visits:
        if each.passes and each.path not in kept:
            yield frozenset([*each.inputs, *each.outputs])
        for side, arrays in (("in", each.inputs), ("out", each.outputs)):
            for i, array in enumerate(arrays):
                slots[id(each.call.module), side, i].add(array)
    yield from (frozenset(each) for each in slots.values() if len(each) > 1)


def _settle(found: set[int], groups: list[Group]) -> None:
    """Take out whatever is tied to what is out."""
    before = -1
    while before != len(found):
        before = len(found)
        for group in groups:
            if not group <= found:
                found -= group


def _beside(found: set[int], islands: list[Visit], groups: list[Group]) -> set[int]:
    """Return those that an island gives or takes, and those tied to them."""
    near = {array for each in islands for array in (*each.inputs, *each.outputs)} & found
    before = -1
    while before != len(near):
        before = len(near)
        for group in groups:
            if group & near:
                near |= group
    return near
