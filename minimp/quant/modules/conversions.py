"""Which float module becomes which module on codes: a table, one function a row."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import nn
from minimp.errors import SettingError
from minimp.models.resnet import Mean, Sum
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.quant.affine import floats_of
from minimp.quant.fusion import ConvReLU1d, ConvReLU2d, LinearReLU
from minimp.quant.modules.base import buffer_of
from minimp.quant.modules.layers import (
    QuantizedConv1d,
    QuantizedConv2d,
    QuantizedConvTranspose1d,
    QuantizedConvTranspose2d,
    QuantizedLinear,
    turned,
    weight_of,
)
from minimp.quant.modules.moving import (
    QuantizedConstantPad,
    QuantizedFlatten,
    QuantizedMove,
    QuantizedZeroPad,
)
from minimp.quant.modules.pointwise import (
    QuantizedAdd,
    QuantizedCat,
    QuantizedMul,
    QuantizedReLU,
    QuantizedSub,
)
from minimp.quant.modules.pools import (
    QuantizedAdaptiveAvgPool1d,
    QuantizedAdaptiveAvgPool2d,
    QuantizedAdaptiveMaxPool1d,
    QuantizedAdaptiveMaxPool2d,
    QuantizedAvgPool1d,
    QuantizedAvgPool2d,
    QuantizedMaxPool1d,
    QuantizedMaxPool2d,
)
from minimp.quant.modules.stubs import Add, Cat, DeQuantize, DeQuantStub, Mul, Quantize, QuantStub, Sub
from minimp.quant.modules.tables import QuantizedSoftmax, QuantizedTable
from minimp.quant.observers import Observer

__all__ = ["CONVERSIONS", "Conversion", "Place", "function_of", "known"]

Array = npt.NDArray[Any]
BEFORE_AND_BEHIND = "put a DeQuantStub before it and a QuantStub behind it"


@dataclass(frozen=True)
class Place:
    """What is known of a module that is converted.

    Attributes:
        inputs: the numbers of the codes that come in, in order.
        output: those of what goes out: what was observed or the rule fixes, or of a module that keeps its
            input's, these. Both may be None where what stays in floats gives and takes floats.
        weight: makes an observer for a weight.
        mode: how sums become codes.
    """

    inputs: tuple[Any, ...]
    output: Any
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


# ---- layers with weights -----------------------------------------------------------------------------------


def _linear(layer: Any, place: Place, *, relu: bool = False) -> Module:
    (x,) = place.inputs
    weight = weight_of(layer.weight, layer.bias, x.scale, place.weight())
    return QuantizedLinear(weight, layer.bias, x, place.output, relu=relu, mode=place.mode)


def _convolution(layer: Any, place: Place, *, relu: bool = False) -> Module:
    (x,) = place.inputs
    sides = layer._sides()[::-1]
    behind, before = tuple(sides[::2]), tuple(sides[1::2])
    if layer.padding_mode != "zeros" or before != behind:
        mode = f"padding_mode={layer.padding_mode!r}" if layer.padding_mode != "zeros" else "uneven padding"
        raise SettingError(
            f"a {type(layer).__name__} with {mode} has no integer form", op="convert",
            help="pad with zeros, alike on both sides, or name it in keep_float",
        )  # fmt: skip
    weight = weight_of(layer.weight, layer.bias, x.scale, place.weight())
    geometry = (layer.stride, before, layer.dilation, layer.groups)
    kind = QuantizedConv1d if layer.axes == 1 else QuantizedConv2d
    return kind(weight, layer.bias, x, place.output, *geometry, relu=relu, mode=place.mode)


def _transposed(layer: Any, place: Place) -> Module:
    (x,) = place.inputs
    by_output = turned(floats_of(layer.weight, "convert"), layer.groups)
    weight = weight_of(by_output, layer.bias, x.scale, place.weight())
    geometry = (layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation)
    kind = QuantizedConvTranspose1d if layer.axes == 1 else QuantizedConvTranspose2d
    return kind(weight, layer.bias, x, place.output, *geometry, mode=place.mode)


# ---- functions of one number, and of two -------------------------------------------------------------------


def function_of(module: Module) -> Callable[[Array], Array]:
    """Return what an elementwise module computes, float64 -> float64."""
    wide = copy.deepcopy(module).double().eval()

    def function(x: Array) -> Array:
        with no_grad():
            made = wide(buffer_of(x))
        return np.asarray(made.backend.to_host(made.array))

    return function


def _table(module: Any, place: Place) -> Module:
    (x,) = place.inputs
    return QuantizedTable.of(function_of(module), x, place.output, repr(module))


def _prelu(module: Any, place: Place) -> Module:
    if module.num_parameters != 1:
        raise SettingError(
            f"a PReLU with {module.num_parameters} slopes is no function of one number", op="convert",
            help="give it one slope, or name it in keep_float",
        )  # fmt: skip
    return _table(module, place)


def _softmax(module: Any, place: Place) -> Module:
    (x,) = place.inputs
    return QuantizedSoftmax(x, place.output, -3 if type(module) is nn.Softmax2d else module.dim)


def _of_two(kind: Callable[..., Module]) -> Callable[[Any, Place], Module]:
    def build(mark: Any, place: Place) -> Module:
        return kind(*place.inputs, place.output, relu=mark.relu, mode=place.mode)

    return build


def _cat(cat: Any, place: Place) -> Module:
    return QuantizedCat(place.inputs, place.output, cat.dim, mode=place.mode)


# ---- codes of one scale, which they keep -------------------------------------------------------------------


def _no_indices(pool: Any) -> None:
    if pool.return_indices:
        raise SettingError(
            f"a {type(pool).__name__} with return_indices has no integer form", op="convert",
            help="leave return_indices out",
        )  # fmt: skip


def _max_pool(pool: Any, place: Place) -> Module:
    del place
    _no_indices(pool)
    kind = QuantizedMaxPool1d if pool.axes == 1 else QuantizedMaxPool2d
    return kind(pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)


def _avg_pool(pool: Any, place: Place) -> Module:
    settings = (pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode, pool.count_include_pad)
    kind = QuantizedAvgPool1d if pool.axes == 1 else QuantizedAvgPool2d
    return kind(*settings, mode=place.mode)


def _adaptive_max(pool: Any, place: Place) -> Module:
    del place
    _no_indices(pool)
    kind = QuantizedAdaptiveMaxPool1d if pool.axes == 1 else QuantizedAdaptiveMaxPool2d
    return kind(pool.output_size)


def _adaptive_mean(pool: Any, place: Place) -> Module:
    kind = QuantizedAdaptiveAvgPool1d if pool.axes == 1 else QuantizedAdaptiveAvgPool2d
    return kind(pool.output_size, mode=place.mode)


def _upsample(module: Any, place: Place) -> Module:
    if not module.mode.startswith("nearest"):
        raise SettingError(
            f"an Upsample with mode={module.mode!r} has no integer form", op="convert",
            help=f"mode='nearest' has one; or {BEFORE_AND_BEHIND}",
        )  # fmt: skip
    return _move(module, place)


def _move(module: Any, place: Place) -> Module:
    del place
    return QuantizedMove(copy.deepcopy(module))


def _constant_pad(module: Any, place: Place) -> Module:
    (x,) = place.inputs
    return QuantizedConstantPad(x, place.output, module.padding, module.value)


def _mean_of_places(module: Any, place: Place) -> Module:
    del module
    return nn.Sequential(QuantizedAdaptiveAvgPool2d(1, mode=place.mode), QuantizedFlatten())


def _nothing(module: Any, place: Place) -> Module:
    del module, place
    return nn.Identity()


# ---- the table ---------------------------------------------------------------------------------------------

ELEMENTWISE = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU,
    nn.LogSigmoid, nn.Mish, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign,
    nn.Tanh, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip
MOVES = (
    nn.ChannelShuffle, nn.CircularPad1d, nn.CircularPad2d, nn.PixelShuffle, nn.PixelUnshuffle,
    nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d, nn.Unflatten,
    nn.UpsamplingNearest2d,
)  # fmt: skip
NOTHING = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity)

CONVERSIONS: Mapping[type[Module], Conversion] = MappingProxyType(
    {
        QuantStub: Conversion(lambda _, place: Quantize(place.output), inputs=0),
        DeQuantStub: Conversion(lambda _, __: DeQuantize(), keeps=True),
        nn.Linear: Conversion(_linear),
        LinearReLU: Conversion(lambda pair, place: _linear(pair[0], place, relu=True)),
        **dict.fromkeys((nn.Conv1d, nn.Conv2d), Conversion(_convolution)),
        **dict.fromkeys(
            (ConvReLU1d, ConvReLU2d), Conversion(lambda pair, place: _convolution(pair[0], place, relu=True))
        ),
        **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d), Conversion(_transposed)),
        **dict.fromkeys(ELEMENTWISE, Conversion(_table)),
        nn.PReLU: Conversion(_prelu),
        **dict.fromkeys((nn.Softmax, nn.Softmax2d), Conversion(_softmax)),
        **dict.fromkeys((Add, Sum), Conversion(_of_two(QuantizedAdd), inputs=2)),
        Sub: Conversion(_of_two(QuantizedSub), inputs=2),
        Mul: Conversion(_of_two(QuantizedMul), inputs=2),
        Cat: Conversion(_cat, inputs=None),
        nn.ReLU: Conversion(lambda _, __: QuantizedReLU(), keeps=True),
        **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d), Conversion(_max_pool, keeps=True)),
        **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d), Conversion(_avg_pool, keeps=True)),
        **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d), Conversion(_adaptive_max, keeps=True)),
        **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d), Conversion(_adaptive_mean, keeps=True)),
        nn.Flatten: Conversion(lambda flat, _: QuantizedFlatten(flat.start_dim, flat.end_dim), keeps=True),
        Mean: Conversion(_mean_of_places, keeps=True),
        nn.Upsample: Conversion(_upsample, keeps=True),
        **dict.fromkeys(MOVES, Conversion(_move, keeps=True)),
        **dict.fromkeys(
            (nn.ZeroPad1d, nn.ZeroPad2d),
            Conversion(lambda border, _: QuantizedZeroPad(border.padding), keeps=True),
        ),
        **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d), Conversion(_constant_pad)),
        **dict.fromkeys(NOTHING, Conversion(_nothing, keeps=True)),
    }
)
"""Class of a float module -> how it becomes one on codes; subclasses are not taken for their parents."""


def known() -> str:
    """Name what has an integer form, in a line: Conv stands for Conv1d and Conv2d."""
    left_out = (QuantStub, DeQuantStub, *ELEMENTWISE, *MOVES, *NOTHING)
    families = {
        each.__name__.removesuffix("1d").removesuffix("2d") for each in CONVERSIONS if each not in left_out
    }
    return (
        f"{', '.join(sorted(families))}, activations of one number, and what only moves elements "
        "(mp.quant.modules.conversions.CONVERSIONS has all)"
    )
