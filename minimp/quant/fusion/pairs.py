"""Layers between which scale can be moved, channel by channel, without a change of the function.

If the output channels of one layer reach another through nothing but functions with f(s x) = s f(x) for every
s > 0, each channel on its own, the first may give its channel times s and the second take it divided by s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from minimp.nn import Dropout, Dropout1d, Dropout2d, Dropout3d, Linear
from minimp.nn.module import Module
from minimp.quant.fusion.channels import LAYERS, channel_axis, inputs_of, outputs_of
from minimp.quant.fusion.checks import module_fault
from minimp.quant.fusion.flow import Call, Flow, Step, listed

__all__ = ["HOMOGENEOUS", "LayerPair", "Place", "layer_pairs"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where the channels are: on which axis, and how many neighbours on it belong to one channel."""

    axis: int
    block: int = 1


@dataclass(frozen=True)
class LayerPair:
    """Two layers and what lies between them.

    Attributes:
        first, second: their paths.
        through: the names of the ops between them.
        channels: how many channels the first gives out.
        block: how many inputs of the second belong to one of them: more than 1 behind a flattening.
    """

    first: str
    second: str
    through: tuple[str, ...]
    channels: int
    block: int


Rule = Callable[[Shape, Shape, Mapping[str, Any], Place], Place | None]
"""(shape before, shape after, the op's options, where the channels are) -> where they are now, or None."""


def _stays(before: Shape, after: Shape, options: Mapping[str, Any], place: Place) -> Place | None:
    """Element by element."""
    del options
    return place if before == after else None


def _windows(before: Shape, after: Shape, options: Mapping[str, Any], place: Place) -> Place | None:
    """Over windows of the last two axes."""
    del after, options
    return place if place.axis < len(before) - 2 else None


def _padded(before: Shape, after: Shape, options: Mapping[str, Any], place: Place) -> Place | None:
    """With zeros around, but not along the channels."""
    kept = before[place.axis] == after[place.axis]
    return place if kept and not options.get("value") else None


def _reduced(before: Shape, after: Shape, options: Mapping[str, Any], place: Place) -> Place | None:
    """Over axes that are not the channels'."""
    del after
    dim = options.get("dim")
    if dim is None:
        return None
    axes = {each % len(before) for each in (dim if isinstance(dim, tuple | list) else (dim,))}
    if place.axis in axes:
        return None
    gone = 0 if options.get("keepdim") else sum(each < place.axis for each in axes)
    return Place(place.axis - gone, place.block)


def _reshaped(before: Shape, after: Shape, options: Mapping[str, Any], place: Place) -> Place | None:
    """Into other axes, of which one still holds the channels, alone or with all that followed them."""
    del options
    outer, held = math.prod(before[: place.axis]), before[place.axis]
    for axis, length in enumerate(after):
        if math.prod(after[:axis]) == outer and length % held == 0 and (length > 1 or held == 1):
            return Place(axis, place.block * (length // held))
    return None


def _permuted(before: Shape, after: Shape, options: Mapping[str, Any], place: Place) -> Place | None:
    """In another order of axes."""
    del after
    order = [each % len(before) for each in options["dims"]]
    return Place(order.index(place.axis), place.block)


HOMOGENEOUS: Mapping[str, Rule] = MappingProxyType(
    {
        **dict.fromkeys(("relu", "leaky_relu", "prelu", "cast"), _stays),
        **dict.fromkeys(("max_pool2d", "avg_pool2d"), _windows),
        **dict.fromkeys(("adaptive_max_pool2d", "adaptive_avg_pool2d"), _windows),
        **dict.fromkeys(("upsample_nearest2d",), _windows),
        **dict.fromkeys(("mean", "sum"), _reduced),
        "constant_pad_nd": _padded,
        "reshape": _reshaped,
        "permute": _permuted,
    }
)
"""Ops with f(s x) = s f(x) for every s > 0, channel by channel -> where the channels are behind them."""

HANDING_ON: tuple[type[Module], ...] = (Dropout, Dropout1d, Dropout2d, Dropout3d)
"""Modules that give on the very array they take, in evaluation."""


class _NoPairError(Exception):
    """Why a layer is not the first of a pair."""


def layer_pairs(flow: Flow) -> tuple[list[LayerPair], dict[str, str]]:
    """Return the pairs, in the order of running, and path -> why for each layer that is not first of one."""
    found: list[LayerPair] = []
    refused: dict[str, str] = {}
    layers = [each for each in flow.model.modules() if type(each) in LAYERS]
    layers.sort(key=lambda each: flow.calls.index(flow.calls_of(each)[0]) if flow.calls_of(each) else -1)
    for layer in layers:
        try:
            found.append(_pair(flow, layer))
        except _NoPairError as why:
            refused[flow.paths[id(layer)][0]] = str(why)
    return found, refused


def _pair(flow: Flow, first: Any) -> LayerPair:
    """Return the pair that a layer is the first of."""
    calls = flow.calls_of(first)
    if not calls:
        raise _NoPairError("it does not run on the example")
    ways = [_way(flow, first, call) for call in calls]
    second, through, place = ways[0]
    if any(way != ways[0] for way in ways) or len(flow.calls_of(second)) != len(calls):
        raise _NoPairError("it, or the layer behind it, runs several times in different places")
    for layer in (first, second):
        why = module_fault(flow.model, layer) or flow.read_outside(layer)
        if why:
            raise _NoPairError(why if layer is first else f"{flow.name(second)}, behind it: {why}")
    paths = flow.paths[id(first)][0], flow.paths[id(second)][0]
    return LayerPair(*paths, through, outputs_of(first), place.block)


def _way(flow: Flow, first: Any, call: Call) -> tuple[Module, tuple[str, ...], Place]:
    """Follow one output of a layer to the layer that it reaches: that one, the ops between, where it is."""
    array = call.outputs[0].array
    place = Place(channel_axis(first, array.ndim))
    through: list[str] = []
    while True:
        arrived = [each for each in flow.takers(array) if type(each.module) in LAYERS]
        steps = [each for each in flow.readers(array) if not any(one in each.inside for one in arrived)]
        _only_these(flow, array, arrived, steps)
        if arrived:
            _fits(flow, arrived[0], array, place)
            return arrived[0].module, tuple(through), place
        place = _behind(flow, steps[0], array, place)
        through.append(steps[0].name)
        array = steps[0].event.outputs[0]


def _only_these(flow: Flow, array: Any, arrived: list[Call], steps: list[Step]) -> None:
    """Make sure that an array goes into one layer or one op, and nowhere else."""
    others = [
        each for each in flow.takers(array)
        if each not in arrived
        and not any(each in step.inside for step in steps)
        and (type(each.module) not in HANDING_ON or each.module.training)
    ]  # fmt: skip
    given_out = any(each.array is array for each in flow.outputs)
    if len(arrived) + len(steps) + len(others) + given_out != 1 or others or given_out:
        raise _NoPairError(f"its output goes to {listed(flow.uses(array)) or 'nothing'}")
    if flow.watched(array):
        raise _NoPairError(flow.watched(array))


def _behind(flow: Flow, step: Step, array: Any, place: Place) -> Place:
    """Return where the channels are behind an op."""
    rule = HOMOGENEOUS.get(step.name)
    words = flow.spelled(step)
    if rule is None:
        advice = "; fuse batch norms first" if step.name == "batch_norm" else ""
        raise _NoPairError(f"its output goes through {words}, where scale does not pass{advice}")
    if step.event.inputs[0] is not array:
        raise _NoPairError(f"its output is no input of {words}, but a parameter")
    (made,) = step.event.outputs
    assert made is not None  # forward events have results
    found = rule(array.shape, made.shape, step.event.node.options, place)
    if found is None:
        raise _NoPairError(f"its channels do not stay apart in {words}")
    return found


def _fits(flow: Flow, call: Call, array: Any, place: Place) -> None:
    """Make sure that the channels arrive where a layer takes its inputs from."""
    second: Any = call.module
    there = call.inputs[0].array is array and array.shape[place.axis] == inputs_of(second)
    in_place = place.axis == channel_axis(second, array.ndim) and (place.block == 1 or type(second) is Linear)
    if not (there and in_place):
        raise _NoPairError(f"its channels do not arrive as the channels of {flow.name(second)}")
