"""What can be seen of codes at a site, without an opinion: how they are spread, and what they cannot hold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.modes import no_grad
from minimp.quant.affine import Affine, quantize
from minimp.quant.fusion.channels import (
    LAYERS,
    channel_axis,
    input_ranges,
    inputs_of,
    output_factors,
    output_ranges,
)
from minimp.quant.fusion.folding import values
from minimp.quant.fusion.intrinsic import WithReLU
from minimp.quant.modules.layers import MOST_BIAS
from minimp.quant.sensitivity.measuring import Batch, array_of, output_of
from minimp.quant.sensitivity.spots import Bench, Site

__all__ = ["ActivationFacts", "WeightFacts", "activation_facts", "channels_on", "weight_facts"]

Array = npt.NDArray[Any]
FEW = 8
"""Of fewer weights the largest says little about their spread."""


@dataclass(frozen=True)
class WeightFacts:
    """Of the codes of a weight.

    Attributes:
        codes: how many there are, of 8 bits 256.
        per_channel: whether each output channel has a scale of its own.
        channel_ratio: the widest output channel's largest |w| over the narrowest's; channels of zeros aside.
        unevenness: the widest over the lower quartile: one narrow channel alone loses little.
        input_ratio, input_unevenness: the same of input channels, in steps of the output channels' scales:
            no scale can follow these. NaN where fewer than 8 weights are on an input channel.
        middle: how many codes the middle half of the weights that are not 0 spans.
        bias_channel: the channel whose bias is so large that the scale had to be widened for it; -1 if none.
    """

    codes: int
    per_channel: bool
    channel_ratio: float
    unevenness: float
    input_ratio: float
    input_unevenness: float
    middle: float
    bias_channel: int = -1


@dataclass(frozen=True)
class ActivationFacts:
    """Of the codes of a result, on the data of the sweep.

    Attributes:
        codes: how many there are.
        middle: how many codes the middle half of the values that are not 0 spans.
        clipped: the share of values beyond the first or last code by more than half a step.
        reach: how far these values go at most, as a multiple of the range that codes cover.
        peak: the largest |value|.
        channel: the channel in which the peak is.
        channel_ratio: the peak over the median channel's largest |value|; NaN of fewer than three channels.
        unevenness: the peak over the lower quartile of channels' largest |value|; NaN likewise.
        filled: the share of the codes from the least to the largest that occurs.
        borrowed: whether the codes have the scale of what comes in, as those of averages have.
    """

    codes: int
    middle: float
    clipped: float
    reach: float
    peak: float
    channel: int
    channel_ratio: float
    unevenness: float
    filled: float
    borrowed: bool


def weight_facts(site: Site) -> WeightFacts | None:
    """Look at the weight of a site; None where it has none in codes."""
    if not site.weighted:
        return None
    layer, built = _inner(site), _any(site.built)
    affine, codes = built.kept("weight_"), np.asarray(built.weight.backend.to_host(built.weight.array))
    wide = values(layer.weight)
    by_hand = np.abs(wide).reshape(len(wide), -1).max(axis=1)
    outputs = output_ranges(layer, wide) if type(layer) in LAYERS else by_hand
    steps = (codes.astype(np.int64) - _beside(affine.zero_point, codes.ndim, affine)).ravel()
    inputs = _ratios(_input_steps(layer, wide, affine))
    return WeightFacts(
        affine.quant_max - affine.quant_min + 1, affine.per_channel, *_ratios(outputs), *inputs,
        _middle(steps[steps != 0]), _bias_channel(layer, affine, built.kept("input_")),
    )  # fmt: skip


def activation_facts(bench: Bench, batches: list[Batch], op: str) -> dict[str, ActivationFacts]:
    """Look at the result of each site that gives codes, as the float model gives it."""
    floats = bench.floating({})
    seen = {path: _Seen(site) for path, site in bench.sites.items() if floats.isdisjoint(site.gives)}
    bench.set_forms({})
    with no_grad():
        for batch in batches:
            output_of(bench, batch, op)
            for path, each in seen.items():
                each.add(array_of(bench.sites[path].spot.seen))
    return {path: each.facts() for path, each in seen.items()}


class _Seen:
    """Counts of codes and ranges of channels, while batches go by."""

    def __init__(self, site: Site) -> None:
        assert site.output is not None  # it gives codes
        self.site, self.affine = site, site.output
        self.counts = np.zeros(site.output.quant_max - site.output.quant_min + 1, np.int64)
        self.peaks: Array = np.zeros(0)
        self.clipped, self.size, self.reach = 0, 0, 0.0

    def add(self, y: Array) -> None:
        affine = self.affine
        codes = quantize(y, affine).astype(np.int64) - affine.quant_min
        self.counts += np.bincount(codes.ravel(), minlength=self.counts.size)
        low, high, half = float(affine.low), float(affine.high), float(affine.scale) / 2
        self.clipped += int(np.count_nonzero((y < low - half) | (y > high + half)))
        self.size += y.size
        beyond = max(float(y.max(initial=0)) - high, low - float(y.min(initial=0)), 0.0)
        self.reach = max(self.reach, 1 + beyond / max(high - low, float(affine.scale)))
        axis = channels_on(self.site, y.ndim)
        peaks = np.abs(y).max(axis=tuple(i for i in range(y.ndim) if i != axis), initial=0)
        self.peaks = peaks if not self.peaks.size else np.maximum(self.peaks, peaks)

    def _filled(self) -> float:
        """Return the share of codes from the least to the largest that occurs."""
        (found,) = np.nonzero(self.counts)
        return float(found[-1] - found[0] + 1) / self.counts.size if found.size else 0.0

    def facts(self) -> ActivationFacts:
        zero = int(self.affine.zero_point) - self.affine.quant_min
        counts = self.counts.copy()
        counts[zero] = 0
        channel = int(np.argmax(self.peaks))
        ratio, unevenness = math.nan, math.nan
        if self.peaks.size >= 3 and self.peaks.any():
            usual, low = np.quantile(self.peaks[self.peaks > 0], (0.5, 0.25))
            ratio, unevenness = float(self.peaks.max() / usual), float(self.peaks.max() / low)
        return ActivationFacts(
            counts.size, _middle_of(counts), self.clipped / max(self.size, 1), self.reach,
            float(self.peaks.max(initial=0)), channel, ratio, unevenness, self._filled(),
            self.affine in self.site.inputs,
        )  # fmt: skip


def channels_on(site: Site, ndim: int) -> int:
    """Return which axis of a result of `ndim` axes holds the channels."""
    layer = _inner(site) if site.layer is not None else None
    if type(layer) in LAYERS:
        return channel_axis(layer, ndim)
    return 1 if ndim == 4 else ndim - 1


def _inner(site: Site) -> Any:
    return site.layer[0] if isinstance(site.layer, WithReLU) else site.layer


def _any(x: Any) -> Any:
    return x


def _beside(zero: Array, ndim: int, affine: Affine) -> Array:
    if affine.axis is None:
        return zero
    shape = [1] * ndim
    shape[affine.axis] = -1
    return zero.reshape(shape)


def _input_steps(layer: Any, weight: Array, affine: Affine) -> Array | None:
    """Return the largest |w| on each input channel, in steps; None of few weights or unknown layers."""
    if type(layer) not in LAYERS or weight.size < FEW * inputs_of(layer):
        return None
    scale = affine.scale.astype(np.float64)
    return input_ranges(layer, weight / (output_factors(layer, scale) if affine.per_channel else scale))


def _ratios(ranges: Array | None) -> tuple[float, float]:
    """Return the widest range over the narrowest, and over the lower quartile; those of zeros aside."""
    if ranges is None:
        return math.nan, math.nan
    alive = ranges[ranges > 0]
    if not alive.size:
        return 1.0, 1.0
    return float(alive.max() / alive.min()), float(alive.max() / np.quantile(alive, 0.25))


def _middle(steps: Array) -> float:
    if not steps.size:
        return 0.0
    low, high = np.quantile(steps, (0.25, 0.75))
    return float(high - low)


def _middle_of(counts: Array) -> float:
    """Return how many codes lie between the first and the third quartile."""
    total = counts.sum()
    if not total:
        return 0.0
    low, high = np.searchsorted(np.cumsum(counts), (total / 4, 3 * total / 4))
    return float(high - low)


def _bias_channel(layer: Any, weight: Affine, x: Affine) -> int:
    """Return the channel whose bias set the weight's scale (:func:`minimp.quant.modules.weight_of`)."""
    if layer.bias is None:
        return -1
    least = np.abs(values(layer.bias)) / (MOST_BIAS * np.float64(x.scale))
    channel = int(np.argmax(least))
    at_floor = weight.scale <= np.nextafter(np.float32(least), np.float32(np.inf))
    return (int(np.argmax(at_floor)) if weight.per_channel else channel) if at_floor.any() else -1
