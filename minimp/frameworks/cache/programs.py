"""What autocast's cast cache does to gradients: small programs around one weight, for both libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any

from minimp.frameworks.sides import Side

__all__ = ["DEFECTS", "PROGRAMS", "Rig"]

LARGE: Mapping[str, float] = {"bfloat16": 2.0**8, "float16": 2.0**11}
"""LARGE + 1 is LARGE in that format, and LARGE + 1 in float32: so a gradient tells how it was added up."""
OTHER: Mapping[str, str] = {"bfloat16": "float16", "float16": "bfloat16"}


@dataclass(frozen=True)
class Rig:
    """One library, one low format, and what its regions are opened with.

    Attributes:
        side: the library.
        low: the low format.
        options: of every region, where the program says nothing else.
    """

    side: Side
    low: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def region(self, dtype: str | None = None, **own: Any) -> AbstractContextManager[Any]:
        """Open a region."""
        rest = {name: value for name, value in self.options.items() if "cache" not in name or not own}
        return self.side.region(dtype or self.low, **(rest | own))

    def use(self, value: float, weight: Any) -> Any:
        """Multiply a constant by the weight, both 1 x 1."""
        return self.side.tensor([[value]]) @ weight

    def twice(self, weight: Any) -> Any:
        """Use the weight twice: its gradient is LARGE + 1, as it is added up."""
        return self.use(LARGE[self.low], weight) + self.use(1.0, weight)


def in_one_region(rig: Rig, w: Any) -> Any:
    """Two uses in one region."""
    with rig.region():
        return rig.twice(w)


def without_cache(rig: Rig, w: Any) -> Any:
    """Two uses, cache_enabled=False."""
    with rig.region(cache_enabled=False):
        return rig.twice(w)


def in_two_regions(rig: Rig, w: Any) -> Any:
    """One use in each of two regions."""
    with rig.region():
        a = rig.use(LARGE[rig.low], w)
    with rig.region():
        return a + rig.use(1.0, w)


def in_two_regions_in_one(rig: Rig, w: Any) -> Any:
    """Two regions inside one."""
    with rig.region():
        return in_two_regions(rig, w)


def in_two_regions_in_a_disabled_one(rig: Rig, w: Any) -> Any:
    """Two regions inside a disabled one."""
    with rig.region(enabled=False):
        return in_two_regions(rig, w)


def inner_region_without_cache(rig: Rig, w: Any) -> Any:
    """An inner region without cache."""
    with rig.region():
        a = rig.use(LARGE[rig.low], w)
        with rig.region(cache_enabled=False):
            return a + rig.use(1.0, w)


def half_outside(rig: Rig, w: Any) -> Any:
    """One use in a disabled inner region."""
    with rig.region():
        a = rig.use(LARGE[rig.low], w)
        with rig.region(enabled=False):
            return a + rig.use(1.0, w)


def through_views(rig: Rig, w: Any) -> Any:
    """Two uses of views of it."""
    with rig.region():
        return rig.twice(w.T)


def through_a_non_leaf(rig: Rig, w: Any) -> Any:
    """Two uses of what was computed from it."""
    v = w * 1.0
    with rig.region():
        return rig.twice(v)


def first_under_no_grad(rig: Rig, w: Any) -> Any:
    """First used under no_grad."""
    with rig.region():
        with rig.side.no_grad():
            rig.use(3.0, w)
        return rig.twice(w)


def after_an_exception(rig: Rig, w: Any) -> Any:
    """A region left by an exception."""
    outputs: dict[str, Any] = {}
    with suppress(KeyError), rig.region():
        outputs["first"] = rig.use(LARGE[rig.low], w)
        outputs.pop("another")
    with rig.region():
        return outputs["first"] + rig.use(1.0, w)


def with_a_constant(rig: Rig, w: Any) -> Any:
    """Three uses of a matrix that needs no gradient."""
    frozen = rig.side.tensor([[2.0]])
    with rig.region():
        return rig.twice(w) + rig.use(1.0, frozen) + rig.use(2.0, frozen) + rig.use(3.0, frozen)


def through_a_layer(rig: Rig, w: Any) -> Any:
    """A layer with bias, applied twice."""
    layer = rig.side.functional.linear
    bias = rig.side.tensor([0.5], requires_grad=True)
    with rig.region():
        inputs = [rig.side.tensor([[value]]) for value in (LARGE[rig.low], 1.0)]
        return layer(inputs[0], w, bias) + layer(inputs[1], w, bias)


def of_two_weights(rig: Rig, w: Any) -> Any:
    """Two weights in one region."""
    other = rig.side.tensor([[4.0]], requires_grad=True)
    with rig.region():
        return rig.twice(w) + rig.use(3.0, other) + rig.use(1.0, other)


PROGRAMS: tuple[Callable[[Rig, Any], Any], ...] = (
    in_one_region, without_cache, in_two_regions, in_two_regions_in_one, in_two_regions_in_a_disabled_one,
    inner_region_without_cache, half_outside, through_views, through_a_non_leaf, first_under_no_grad,
    after_an_exception, with_a_constant, through_a_layer, of_two_weights,
)  # fmt: skip
"""Programs whose gradients and casts are to be the same. Their docstrings are what reports call them."""

# ---- where torch's cache is known to be wrong -------------------------------------------------------------


def nested_in_the_other_format(rig: Rig, w: Any) -> Any:
    """An inner region in the other low format."""
    with rig.region():
        a = rig.use(LARGE[rig.low], w)
        with rig.region(OTHER[rig.low]):
            return a + rig.use(1.0, w).float()


def a_square_in_the_other_format(rig: Rig, w: Any) -> Any:
    """The weight's square in such an inner region."""
    with rig.region():
        rig.use(1.0, w)
        with rig.region(OTHER[rig.low]):
            return w @ w


def changed_inside(rig: Rig, w: Any) -> Any:
    """The weight changed inside the region."""
    with rig.region():
        a = rig.use(LARGE[rig.low], w)
        rig.side.assign(w, [[3.0]])
        return a + rig.use(1.0, w)


DEFECTS: tuple[Callable[[Rig, Any], Any], ...] = (
    nested_in_the_other_format, a_square_in_the_other_format, changed_inside,
)  # fmt: skip
"""Programs that differ, unless torch's defects are asked for (`faithful=True`)."""
