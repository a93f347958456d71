"""Which float module becomes which module on codes: a table, one function a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from minimp.errors import SettingError
from minimp.nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    Conv2d,
    Dropout,
    Dropout1d,
    Dropout2d,
    Flatten,
    Identity,
    Linear,
    MaxPool2d,
    ReLU,
)
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.fusion import ConvReLU2d, LinearReLU
from minimp.quant.modules.layers import QuantizedConv2d, QuantizedLinear, weight_of
from minimp.quant.modules.pointwise import (
    QuantizedAdaptiveAvgPool2d,
    QuantizedAdd,
    QuantizedAvgPool2d,
    QuantizedCat,
    QuantizedFlatten,
    QuantizedMaxPool2d,
    QuantizedReLU,
)
from minimp.quant.modules.stubs import Add, Cat, DeQuantize, DeQuantStub, Quantize, QuantStub
from minimp.quant.observers import Observer

__all__ = ["CONVERSIONS", "Conversion", "Place", "known"]


@dataclass(frozen=True)
class Place:
    """What is known of a module that is converted.

    Attributes:
        inputs: the numbers of the codes that come in, in order.
        output: those of what goes out; what was observed, or of a module that keeps its input's, these.
        weight: makes an observer for a weight.
        mode: how sums become codes.
    """

    inputs: tuple[Affine, ...]
    output: Affine
    weight: Callable[[], Observer]
    mode: str


@dataclass(frozen=True)
class Conversion:
    """One row.

    Attributes:
        build: (the float module, its place) -> the module on codes.
        keeps: whether the output has the scale and zero point of the input, so that nothing is observed.
        inputs: how many tensors of codes it takes; None for any number of them.
    """

    build: Callable[[Any, Place], Module]
    keeps: bool = False
    inputs: int | None = 1


def _linear(layer: Any, place: Place, *, relu: bool = False) -> Module:
    (x,) = place.inputs
    weight = weight_of(layer.weight, layer.bias, x.scale, place.weight())
    return QuantizedLinear(weight, layer.bias, x, place.output, relu=relu, mode=place.mode)


def _conv2d(layer: Any, place: Place, *, relu: bool = False) -> Module:
    (x,) = place.inputs
    bottom, top, right, left = layer._sides()[::-1]
    if layer.padding_mode != "zeros" or (top, left) != (bottom, right):
        mode = f"padding_mode={layer.padding_mode!r}" if layer.padding_mode != "zeros" else "uneven padding"
        raise SettingError(
            f"a Conv2d with {mode} has no integer form", op="convert",
            help="pad with zeros, alike on both sides, or name it in keep_float",
        )  # fmt: skip
    weight = weight_of(layer.weight, layer.bias, x.scale, place.weight())
    geometry = (layer.stride, (top, left), layer.dilation, layer.groups)
    return QuantizedConv2d(weight, layer.bias, x, place.output, *geometry, relu=relu, mode=place.mode)


def _add(add: Any, place: Place) -> Module:
    a, b = place.inputs
    return QuantizedAdd(a, b, place.output, relu=add.relu, mode=place.mode)


def _cat(cat: Any, place: Place) -> Module:
    return QuantizedCat(place.inputs, place.output, cat.dim, mode=place.mode)


def _max_pool(pool: Any, place: Place) -> Module:
    del place
    if pool.return_indices:
        raise SettingError(
            "a MaxPool2d with return_indices has no integer form", op="convert",
            help="leave return_indices out",
        )  # fmt: skip
    return QuantizedMaxPool2d(pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)


def _avg_pool(pool: Any, place: Place) -> Module:
    settings = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad)
    return QuantizedAvgPool2d(*settings, mode=place.mode)


def _nothing(module: Any, place: Place) -> Module:
    del module, place
    return Identity()


CONVERSIONS: Mapping[type[Module], Conversion] = MappingProxyType(
    {
        QuantStub: Conversion(lambda _, place: Quantize(place.output), inputs=0),
        DeQuantStub: Conversion(lambda _, __: DeQuantize(), keeps=True),
        Linear: Conversion(_linear),
        LinearReLU: Conversion(lambda pair, place: _linear(pair[0], place, relu=True)),
        Conv2d: Conversion(_conv2d),
        ConvReLU2d: Conversion(lambda pair, place: _conv2d(pair[0], place, relu=True)),
        Add: Conversion(_add, inputs=2),
        Cat: Conversion(_cat, inputs=None),
        ReLU: Conversion(lambda _, __: QuantizedReLU(), keeps=True),
        MaxPool2d: Conversion(_max_pool, keeps=True),
        AvgPool2d: Conversion(_avg_pool, keeps=True),
        AdaptiveAvgPool2d: Conversion(
            lambda pool, place: QuantizedAdaptiveAvgPool2d(pool.output_size, mode=place.mode), keeps=True
        ),
        Flatten: Conversion(lambda flat, _: QuantizedFlatten(flat.start_dim, flat.end_dim), keeps=True),
        **dict.fromkeys((Identity, Dropout, Dropout1d, Dropout2d), Conversion(_nothing, keeps=True)),
    }
)
"""Class of a float module -> how it becomes one on codes; subclasses are not taken for their parents."""


def known() -> str:
    """Name the classes that have an integer form."""
    return ", ".join(sorted(each.__name__ for each in CONVERSIONS if each not in (QuantStub, DeQuantStub)))
