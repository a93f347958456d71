"""Scale moved between layers: cross-layer equalisation, and its opposite for experiments.

Nagel, van Baalen, Blankevoort and Welling 2019, "Data-Free Quantization Through Weight Equalization and Bias
Correction", arXiv 1906.04721, section 4.1.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp.errors import SettingError, unknown_name
from minimp.nn.making import whole
from minimp.nn.module import Module
from minimp.quant.fusion.channels import (
    Wide,
    input_factors,
    input_ranges,
    output_factors,
    output_ranges,
)
from minimp.quant.fusion.flow import follow
from minimp.quant.fusion.folding import overflow, parameter, values
from minimp.quant.fusion.fusing import check_tolerance, held_to
from minimp.quant.fusion.intrinsic import WithReLU
from minimp.quant.fusion.pairs import LayerPair, layer_pairs
from minimp.quant.fusion.reports import ScalingReport, ScalingRow

__all__ = ["SETTLED", "equalize", "rescale_channels"]

SETTLED = 1e-6
"""Equalisation ends when no factor of a sweep is further than this from 1, in octaves."""


def equalize(
    model: Module, *example: Any, powers_of_two: bool = False, sweeps: int = 200, inplace: bool = False,
    tolerance: float | None = None,
) -> tuple[Module, ScalingReport]:  # fmt: skip
    """Give the channels between two layers equal ranges on both sides, without a change of the function.

    For each channel i between layers 1 and 2, with r1_i the largest |weight| that reaches it and r2_i the
    largest that it meets (equations 8 to 11 of the paper)::

        s_i = sqrt(r1_i r2_i) / r2_i,    W1_i / s_i,    b1_i / s_i,    W2_i s_i

    so that both ranges are sqrt(r1_i r2_i) then. The pairs are gone through one after the other, again and
    again until no s_i moves: a layer may be in two of them. A channel whose weights are all zero on one side
    is left alone. Pairs are found by a forward on the example, through ReLU, LeakyReLU and PReLU, pooling,
    flattening and means over places; not through ReLU6 and other functions that bend elsewhere than at zero,
    and not where a layer's output is used twice. Batch norms stand in the way: :func:`fuse` first.

    Args:
        model: the model.
        example: what the model is called with; a few rows are enough.
        powers_of_two: round each s_i to a power of two: weights and results keep their bits, short of
            overflow and of subnormal numbers, and ranges are equal within a factor of 2. Else everything is
            computed in float64 and rounded once.
        sweeps: how often to go through the pairs at most.
        inplace: change `model` itself, not a copy. Its parameters stay the same objects, with other arrays,
            and lose their gradients.
        tolerance: how far the results on the example may move; see :func:`fuse`.

    Returns:
        (the model that was changed, the report)

    Raises:
        SettingError: no example, no sweep, a weight that its format cannot hold, or results that moved
            further than `tolerance`. `model` is as it was then.
        MinimpError: as the model's forward.
    """
    most = whole("sweeps", sweeps, "equalize")

    def level(weights: _Weights, pairs: list[LayerPair]) -> int:
        for sweep in range(most):
            moves = [weights.move(pair, 1 / _factors(weights, pair, powers_of_two)) for pair in pairs]
            if max(moves, default=0.0) <= SETTLED:
                return sweep
        return most

    return _scaled(model, example, level, inplace, tolerance, "equalize")


def rescale_channels(
    model: Module, *example: Any, factors: int | Mapping[str, Any], seed: int = 0, inplace: bool = False,
    tolerance: float | None = None,
) -> tuple[Module, ScalingReport]:  # fmt: skip
    """Give the channels between two layers unequal ranges, without a change of the function.

    Output channel c of the first layer is multiplied by a_c, and the second divides it by a_c. It is a
    deterministic stand-in for networks whose channels differ a lot, in which one scale for a whole weight
    leaves most channels with few codes; :func:`equalize` undoes it. Pairs and the other arguments as there.

    Args:
        model: the model.
        example: what the model is called with.
        factors: a whole number p: powers of two from 2^-p to 2^p, drawn evenly; they keep every bit. Or path
            of a first layer -> positive factors, one for each of its channels. What :func:`fuse` made of the
            layer and its ReLU may be named in its place: "0" for "0.0".
        seed: what the draw begins from.
        inplace, tolerance: as in :func:`equalize`.

    Returns:
        (the model that was changed, the report)

    Raises:
        SettingError: a path that is no first layer of a pair, factors that are not positive or not one for
            each channel; and as :func:`equalize`.
    """
    rng = np.random.default_rng(whole("seed", seed, "rescale_channels", least=0))
    given = _by_layer(model, factors) if isinstance(factors, Mapping) else None
    top = 0 if given is not None else whole("factors", factors, "rescale_channels")

    def chosen(pair: LayerPair) -> Any:
        if given is None:
            return 2.0 ** rng.integers(-top, top, size=pair.channels, endpoint=True)
        return given.get(pair.first, 1.0)

    def apply(weights: _Weights, pairs: list[LayerPair]) -> int:
        firsts = [pair.first for pair in pairs]
        for path in given or ():
            if path not in firsts:
                raise SettingError(unknown_name("first layer", path, firsts), op="rescale_channels")
        for pair in pairs:
            weights.move(pair, _checked(pair, chosen(pair)))
        return 1

    return _scaled(model, example, apply, inplace, tolerance, "rescale_channels")


def _by_layer(model: Module, factors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the factors by the path of the layer itself where one names a fused pair."""
    named = dict(model.named_modules(remove_duplicate=False))
    made: dict[str, Any] = {}
    for path, each in factors.items():
        layer = f"{path}.0" if isinstance(named.get(path), WithReLU) else path
        if layer in made:
            raise SettingError(f"factors name the layer {layer!r} twice", op="rescale_channels")
        made[layer] = each
    return made


def _checked(pair: LayerPair, given: Any) -> Wide:
    try:
        wide = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        wide = np.zeros(0)
    if wide.shape not in ((), (pair.channels,)) or not (np.isfinite(wide) & (wide > 0)).all():
        raise SettingError(
            f"expected {pair.channels} positive factors for {pair.first!r}, got {given!r}",
            op="rescale_channels", help="a negative factor would not pass a ReLU",
        )  # fmt: skip
    return np.broadcast_to(wide, (pair.channels,))


class _Weights:
    """The weights of a model's paired layers in float64, while scale moves between them."""

    def __init__(self, model: Module, pairs: list[LayerPair]) -> None:
        self.layers: dict[str, Any] = {
            path: model.get_submodule(path) for pair in pairs for path in (pair.first, pair.second)
        }
        self.weight = {path: values(layer.weight) for path, layer in self.layers.items()}
        self.bias = {
            path: values(layer.bias) for path, layer in self.layers.items() if layer.bias is not None
        }

    def ranges(self, pair: LayerPair) -> tuple[Wide, Wide]:
        """Return r1 and r2 of each channel between two layers."""
        r1 = output_ranges(self.layers[pair.first], self.weight[pair.first])
        r2 = input_ranges(self.layers[pair.second], self.weight[pair.second])
        return r1, r2.reshape(pair.channels, pair.block).max(axis=1)

    def move(self, pair: LayerPair, factors: Wide) -> float:
        """Multiply the first layer's channels, divide the second's inputs; return how far, in octaves."""
        first, second = self.layers[pair.first], self.layers[pair.second]
        self.weight[pair.first] = self.weight[pair.first] * output_factors(first, factors)
        if pair.first in self.bias:
            self.bias[pair.first] = self.bias[pair.first] * factors
        spread = np.repeat(factors, pair.block)
        self.weight[pair.second] = self.weight[pair.second] / input_factors(second, spread)
        return float(np.abs(np.log2(factors)).max())

    def write(self, model: Module, op: str) -> None:
        """Round the weights into a model, all of them or none."""
        found: list[tuple[Any, Any]] = []
        for path in self.layers:
            layer: Any = model.get_submodule(path)
            leaves = [(layer.weight, self.weight[path])]
            leaves += [(layer.bias, self.bias[path])] if path in self.bias else []
            for leaf, wide in leaves:
                made = parameter(wide, leaf)
                why = overflow(made, wide)
                if why:
                    raise SettingError(f"a parameter of {path!r} {why}", op=op)
                found.append((leaf, made))
        for leaf, made in found:
            leaf.array, leaf.grad = made.array, None


def _factors(weights: _Weights, pair: LayerPair, powers_of_two: bool) -> Wide:
    """Return s of each channel; 1 where one of its ranges is zero."""
    r1, r2 = weights.ranges(pair)
    alive = (r1 > 0) & (r2 > 0) & np.isfinite(r1) & np.isfinite(r2)
    octaves = 0.5 * (
        np.log2(r1, where=alive, out=np.zeros_like(r1)) - np.log2(r2, where=alive, out=np.zeros_like(r2))
    )
    octaves = np.where(alive, np.rint(octaves) if powers_of_two else octaves, 0.0)
    found: Wide = np.exp2(octaves)
    return found


def _scaled(
    model: Module, example: tuple[Any, ...], change: Any, inplace: bool, tolerance: float | None, op: str
) -> tuple[Module, ScalingReport]:
    """Find the pairs, move scale between them, and hold the results to what they were."""
    check_tolerance(tolerance, op)
    before = follow(model, example, op)
    pairs, refused = layer_pairs(before)
    weights = _Weights(model, pairs)
    old = {pair: weights.ranges(pair) for pair in pairs}
    sweeps = change(weights, pairs)
    trial = copy.deepcopy(model)
    weights.write(trial, op)
    changed = held_to(before, follow(trial, example, op), tolerance, op)
    rows = [ScalingRow.of(pair, old[pair], weights.ranges(pair)) for pair in pairs]
    rows += [ScalingRow(path, why=why) for path, why in refused.items()]
    changing = model if inplace else copy.deepcopy(model)
    weights.write(changing, op)
    return changing, ScalingReport(tuple(rows), changed, sweeps)
