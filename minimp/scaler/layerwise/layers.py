"""The layers of one scaler: what is set for all, what each has learnt, and what it is scaled by next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

from minimp.errors import SettingError
from minimp.scaler.layerwise.factors import Moments, Product, exponent_for, moments_of, share_below, sigma_of
from minimp.scaler.layerwise.points import is_narrow, products_of
from minimp.scaler.layerwise.report import LayerRow
from minimp.scaler.machine import ScaleRule, ScaleState, next_state
from minimp.tape import Array, Node

__all__ = ["Layer", "Layers", "LayerwiseSettings"]

FURTHEST = 126
"""A gradient is never further than 2^126 or 2^-126 from its true size: powers that float32 has."""


@dataclass(frozen=True)
class LayerwiseSettings:
    """What is chosen for all layers; see :class:`minimp.scaler.layerwise.LayerwiseScaler`."""

    threshold: float = 1e-3
    update_every: int = 1
    init_scale: float = 1.0
    min_scale: float = 2.0**-24
    max_scale: float = 2.0**24
    growth_interval: int = 2000
    fixed: Mapping[str, float] = field(default_factory=dict)
    measure: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixed", dict(self.fixed))
        _require(
            _is_number(self.threshold) and 0 < self.threshold < 1,
            "threshold",
            "above 0 and below 1",
            self.threshold,
        )
        for name in ("update_every", "growth_interval"):
            value = getattr(self, name)
            _require(_is_count(value) and value >= 1, name, "a whole number of at least 1", value)
        scales = {name: getattr(self, name) for name in ("init_scale", "min_scale", "max_scale")}
        for name, value in {
            **scales,
            **{f"fixed[{key!r}]": value for key, value in self.fixed.items()},
        }.items():
            _require(_is_power(value), name, f"a power of two from 2^-{FURTHEST} to 2^{FURTHEST}", value)
        _require(
            self.min_scale <= self.max_scale,
            "min_scale",
            f"at most max_scale={self.max_scale!r}",
            self.min_scale,
        )
        _require(isinstance(self.measure, bool), "measure", "True or False", self.measure)

    @property
    def ceilings(self) -> ScaleRule:
        """How the ceiling of a layer's factor moves: halved by an overflow, doubled after good steps."""
        return ScaleRule(
            init_scale=self.max_scale, growth_interval=self.growth_interval,
            min_scale=self.min_scale, max_scale=self.max_scale,
        )  # fmt: skip


@dataclass(slots=True)
class Layer:
    """One use of one layer.

    Attributes:
        ceiling: the largest factor that it may take, and how that moves.
        exponent: log2 of its factor; None until it was first chosen.
        row: what the report says of it, from its last backward.
        fixed: whether its factor was given, so that nothing moves it.
    """

    ceiling: ScaleState
    exponent: int | None = None
    row: LayerRow | None = None
    fixed: bool = False


class Layers:
    """The layers that were met, by name, and the choice of their factors.

    Attributes:
        settings: what is set for all.
        table: name of a use -> what is known of it.
        steps: how many steps were finished.
        overflowed: names of the uses after which a gradient of this step was infinite or NaN.
        seen: names of the uses that were met in this step.
        latest: those of them that were met in the last backward, in its order.
        missing: layers with a fixed factor that were not met yet.
    """

    def __init__(self, settings: LayerwiseSettings) -> None:
        self.settings = settings
        self.table: dict[str, Layer] = {}
        self.steps = 0
        self.overflowed: set[str] = set()
        self.seen: dict[str, None] = {}
        self.latest: dict[str, None] = {}
        self.missing = set(settings.fixed)

    def rows(self) -> tuple[LayerRow, ...]:
        """Return what the report says of the last backward."""
        found = (self.table[name].row for name in self.latest)
        return tuple(row for row in found if row is not None)

    def choose(self, use: tuple[str, str], node: Node, grad: Array, arrived: int) -> int | None:
        """Return log2 of the factor of a layer for this gradient; None if it is infinite or NaN already.

        Args:
            use: name of this use, name of the layer.
            node: the layer.
            grad: what flows into it.
            arrived: log2 of the scale it has by now.
        """
        name, layer_name = use
        layer = self.table.setdefault(name, Layer(ScaleState(self.settings.ceilings.init_scale)))
        self.seen[name] = self.latest[name] = None
        self.missing.discard(layer_name)
        gradient = moments_of(grad, node.backend)
        if gradient is None:
            layer.row = None
            return None
        fixed = self.settings.fixed.get(layer_name)
        due = layer.exponent is None or self.steps % self.settings.update_every == 0
        products = products_of(node, grad) if due or layer.row is None else []
        layer.fixed = fixed is not None
        if fixed is not None:
            layer.exponent = _log2(fixed)
        elif due:
            layer.exponent = self._adapted(gradient, products, node, layer)
        assert layer.exponent is not None
        exponent = max(-FURTHEST - arrived, min(FURTHEST - arrived, layer.exponent))
        self._describe(name, layer, node, gradient, products, (exponent, arrived), fixed is not None)
        return exponent

    def _adapted(self, gradient: Moments, products: list[Product], node: Node, layer: Layer) -> int:
        assert node.format is not None  # integers have no gradient
        wanted = exponent_for(gradient, products, node.format, self.settings.threshold)
        return max(_log2(self.settings.min_scale), min(wanted, _log2(layer.ceiling.scale)))

    def _describe(
        self, name: str, layer: Layer, node: Node, gradient: Moments, products: list[Product],
        exponents: tuple[int, int], fixed: bool,
    ) -> None:  # fmt: skip
        """Write down what the report says of a use."""
        exponent, arrived = exponents
        if products and node.format is not None and is_narrow(node.format):
            sigma, smallest = sigma_of(gradient, products[0]), node.format.smallest_subnormal
            before = share_below(smallest, math.ldexp(sigma, -arrived))
            after = share_below(smallest, math.ldexp(sigma, exponent))
        elif layer.row is not None and not products:
            before, after = layer.row.expected_before, layer.row.expected_after
        else:
            before = after = 0.0
        layer.row = LayerRow(
            name, node.op.name, 2.0**exponent, 2.0 ** (arrived + exponent), before, after,
            ceiling=layer.ceiling.scale, fixed=fixed,
        )  # fmt: skip

    def measured(self, name: str, before: float, after: float) -> None:
        """Take down what share of a use's result was, or would have been, flushed to zero."""
        layer = self.table[name]
        assert layer.row is not None  # it was described just before
        layer.row = replace(layer.row, measured_before=before, measured_after=after)

    def finish(self, bad: bool) -> tuple[str, ...]:
        """End a step: lower the ceilings of the layers that overflowed, or count a good step; name them.

        The ceiling of a layer that overflowed becomes half of the factor that it had; factors that were given
        stay.
        """
        names = tuple(name for name in self.seen if name in self.overflowed) if bad else ()
        rule = self.settings.ceilings
        for name in names if bad else self.seen:
            layer = self.table[name]
            if layer.fixed:
                continue
            state = layer.ceiling
            if bad and layer.exponent is not None:
                state = replace(
                    state, scale=max(min(state.scale, 2.0**layer.exponent), self.settings.min_scale)
                )
            layer.ceiling = next_state(rule, state, bad)
            if layer.exponent is not None:
                layer.exponent = min(layer.exponent, _log2(layer.ceiling.scale))
        self.steps += 1
        self.overflowed, self.seen = set(), {}
        return names


def _log2(scale: float) -> int:
    return math.frexp(scale)[1] - 1


def _is_number(value: Any) -> bool:
    return value.__class__ is not bool and isinstance(value, Real) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_power(value: Any) -> bool:
    return _is_number(value) and math.frexp(value)[0] == 0.5 and abs(_log2(value)) <= FURTHEST


def _require(fits: bool, name: str, expected: str, got: Any) -> None:
    if not fits:
        raise SettingError(f"{name}: expected {expected}, got {got!r}", op="LayerwiseScaler")
