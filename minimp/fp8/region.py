"""The region in which `nn.Linear` computes in FP8."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from minimp.errors import SettingError
from minimp.fp8.recipes import DelayedScaling, Fp8Recipe, recipe_named
from minimp.fp8.states import LinearState, may_compute_in_fp8
from minimp.modes import MODES, Modes, Scope

if TYPE_CHECKING:
    from minimp.formats import Format
    from minimp.nn import Linear

__all__ = ["Fp8Region", "fp8_autocast", "is_fp8_enabled", "region_of"]

_numbers = itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class Fp8Region:
    """An FP8 region in force.

    Attributes:
        recipe: how tensors are scaled.
        layers: identities of the layers that it rules; None: all; none of them where FP8 is switched off.
        number: of the outermost region, in order: a layer's scales move on when a new one uses it.
        given: identity of a layer -> the scales it read by here, for a second run (`mp.recompute`).
    """

    recipe: Fp8Recipe
    layers: frozenset[int] | None
    number: int
    given: dict[int, tuple[float, float, float]] = field(default_factory=dict)

    def takes(self, layer: Linear) -> bool:
        """Tell whether it rules a layer."""
        return self.layers is None or id(layer) in self.layers

    def options(self, layer: Linear) -> dict[str, Any]:
        """Return the options of `linear_fp8` for a layer, whose scales move on if this is its first use."""
        modes = MODES.get()
        made: dict[str, Any] = {"recipe": self.recipe, "format": _result_format(modes)}
        if not isinstance(self.recipe, DelayedScaling):
            return made
        state = layer.fp8_state or LinearState.of(self.recipe)
        if modes.recomputing:  # the first run noted the amaxes; since then, the scales may have moved
            return {**made, "scales": self.given.get(id(layer), state.scales)}
        if not modes.grad_enabled:
            return {**made, "scales": state.scales}
        if layer.fp8_state is not None and state.region != self.number:
            state.advance(self.recipe)
            state.fit(self.recipe)
        layer.fp8_state, state.region = state, self.number
        self.given[id(layer)] = state.scales
        return {**made, "scales": state.scales, "stage": state.stage}


def region_of(recipe: Fp8Recipe, layers: Iterable[Linear] | None) -> Fp8Region:
    """Return a new region over some layers, or over all."""
    chosen = None if layers is None else frozenset(map(id, layers))
    return Fp8Region(recipe, chosen, next(_numbers))


class fp8_autocast(Scope):  # noqa: N801 - Transformer Engine's name
    """Run `nn.Linear` layers with FP8 products; context manager and decorator (te.autocast, te.fp8_autocast).

    Everything else computes as it would without; inside `mp.autocast` too. Results have the format of the
    autocast region, or of the input where there is none. Weights stay as they are: copies are quantised from
    them at each use. `functional.linear`, and layers that call it (`Bilinear`, `MultiheadAttention`'s
    projections), are no `nn.Linear` and not touched.

    Delayed scaling keeps its histories and scales with the layer (`layer.fp8_state`). They move on when the
    layer is used in the next outermost region that records: amaxes of forward and backward count for the
    scales of the next step, and evaluation (under `mp.no_grad`) changes nothing.
    :func:`minimp.fp8.state_dict` is what a resumed run needs.

    >>> from minimp import nn, tensor
    >>> from minimp.fp8 import DelayedScaling, fp8_autocast
    >>> layer = nn.Linear(32, 16)
    >>> with fp8_autocast(recipe=DelayedScaling(amax_history_len=16)):
    ...     y = layer(tensor([[0.5] * 32]))

    Args:
        enabled: False leaves every layer as it is, also inside another region.
        recipe: a recipe or the name of one in `minimp.fp8.fp8_recipes`; None is `DelayedScaling()`.
        layers: the layers to run in FP8, as :func:`minimp.fp8.linears` finds them (a mapping's values); None:
            every `nn.Linear` that runs.

    Raises:
        SettingError: an unknown recipe; no layers, or what is no `nn.Linear`; `enabled` is not True or False.
    """

    def __init__(
        self, enabled: bool = True, recipe: Fp8Recipe | str | None = None, *,
        layers: Iterable[Linear] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not isinstance(enabled, bool):
            raise SettingError(
                f"enabled is True or False, not {enabled!r}", op="fp8_autocast",
                help="a recipe goes by its name: fp8_autocast(recipe=...)",
            )  # fmt: skip
        self.enabled = enabled
        self.recipe = DelayedScaling() if recipe is None else recipe_named(recipe)
        self.layers = None if layers is None else tuple(layers)
        if self.layers is not None and not self.layers:
            raise SettingError(
                "there are no layers to run in FP8", op="fp8_autocast", help="layers=None: all"
            )
        for each in self.layers or ():
            if not may_compute_in_fp8(each):
                raise SettingError(
                    f"layers has {each!r}, which is no nn.Linear", op="fp8_autocast",
                    help="of a mapping give the values: layers=fp8.linears(model).values()",
                )  # fmt: skip

    def changes(self, now: Modes) -> dict[str, Any]:
        """Open a region; nested ones are part of the outermost one's step."""
        outer = now.fp8
        if not self.enabled:  # what is opened inside is part of the step all the same
            return {"fp8": None if outer is None else replace(outer, layers=frozenset())}
        made = region_of(self.recipe, self.layers)
        return {"fp8": made if outer is None else replace(made, number=outer.number, given=outer.given)}


def is_fp8_enabled() -> bool:
    """Tell whether an FP8 region is in force."""
    region = MODES.get().fp8
    return region is not None and region.layers != frozenset()


def _result_format(modes: Modes) -> Format | None:
    region = modes.autocast
    return region.format if region is not None and region.enabled else None
