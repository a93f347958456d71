"""Layers on codes, beside torch's on QNNPACK, whose sums are exact on every processor: all codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from minimp.frameworks.integers.beside import ROUNDINGS, Excuse, all_same, beside, nearest
from minimp.frameworks.integers.samples import CODES, affine, codes_of, floats, in_torch, single, some
from minimp.frameworks.results import Row
from minimp.quant import Affine, QTensor, choose, modules, observers

__all__ = ["Geometry", "compare_layers", "convolution_of", "linear_of", "near"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
LINEAR = ((5, 7, 8), (40, 64, 33), (3, 300, 17))
"""Rows, in_features, out_features."""


class Geometry(NamedTuple):
    """What a convolution is called with."""

    stride: Any = (1, 1)
    padding: Any = (0, 0)
    dilation: Any = (1, 1)
    groups: int = 1


class Filters(NamedTuple):
    """A convolution by name: shapes of images and filters, and how they are laid over each other."""

    name: str
    images: tuple[int, ...]
    filters: tuple[int, ...]
    how: Geometry


CONVOLUTIONS = (
    Filters("padding 1", (4, 3, 9, 7), (8, 3, 3, 3), Geometry(padding=(1, 1))),
    Filters("1 x 1", (4, 5, 6, 6), (4, 5, 1, 1), Geometry()),
    Filters("stride 2 x 1, dilation 1 x 2, 2 groups", (4, 4, 8, 8), (6, 2, 3, 2),
            Geometry((2, 1), (1, 0), (1, 2), 2)),
    Filters("dilation 2, depthwise", (4, 6, 7, 9), (6, 1, 3, 3), Geometry((1, 2), (2, 1), (2, 2), 6)),
    Filters("stride 3, padding 2, 4 groups", (4, 16, 5, 5), (12, 4, 5, 5),
            Geometry((3, 3), (2, 2), groups=4)),
)  # fmt: skip


def compare_layers(rng: np.random.Generator) -> Iterator[Row]:
    """Compare all layers; torch's engine is QNNPACK."""
    for channels, biased, relu in product((False, True), repeat=3):
        yield _linear(rng, channels, biased, relu)
    for case, channels, relu in product(CONVOLUTIONS, (False, True), (False, True)):
        yield _convolution(rng, case, channels, relu)
    for kind, relu in product(CODES, (False, True)):
        yield _add(rng, kind, relu)
    for kind in CODES:
        yield _cat(rng, kind)
        yield from _pools(rng, kind)


def told(channels: bool, biased: bool, relu: bool) -> str:
    """Say what a layer has."""
    return f"{'per channel' if channels else 'per tensor'}{', bias' * biased}{', ReLU' * relu}"


def weight_of(w: Floats, bias: Floats | None, into: Affine, channels: bool) -> QTensor:
    """Return a weight's codes, symmetric, by the observer that torch has for weights too."""
    kind = observers.PerChannelMinMaxObserver if channels else observers.MinMaxObserver
    seen = kind(quant_min=-128, quant_max=127, symmetric=True)
    return modules.weight_of(w, bias, into.scale, seen)


def covering(x: Floats) -> Affine:
    """Return numbers of 256 codes that cover an array."""
    return choose(x.min(), x.max(), quant_min=0, quant_max=255)


def linear_of(q: QTensor, weight: QTensor, bias: Floats | None, out: Affine, *, relu: bool) -> Any:
    """Return the codes of torch's linear layer."""
    import torch

    ops: Any = torch.ops.quantized
    packed = ops.linear_prepack(in_torch(weight), None if bias is None else torch.from_numpy(bias))
    call = ops.linear_relu if relu else ops.linear
    return codes_of(call(in_torch(q), packed, float(out.scale), int(out.zero_point)))


def convolution_of(
    q: QTensor, weight: QTensor, bias: Floats | None, out: Affine, how: Geometry, *, relu: bool
) -> Any:
    """Return the codes of torch's convolution."""
    import torch

    ops: Any = torch.ops.quantized
    packed = ops.conv2d_prepack(in_torch(weight), None if bias is None else torch.from_numpy(bias), *how)
    call = ops.conv2d_relu if relu else ops.conv2d
    return codes_of(call(in_torch(q), packed, float(out.scale), int(out.zero_point)))


def _linear(rng: np.random.Generator, channels: bool, biased: bool, relu: bool) -> Row:
    ours, theirs = [], []
    for n, k, o in LINEAR:
        x, w = floats(rng, n, k), floats(rng, o, k)
        bias = 3 * floats(rng, o) if biased else None
        into, out = covering(x), covering(np.float32(0.7) * (x @ w.T))  # some codes are clamped
        q, weight = QTensor.of(x, into), weight_of(w, bias, into, channels)
        mine = modules.QuantizedLinear(weight, bias, into, out, relu=relu)(q)
        ours.append(mine.codes.ravel())
        theirs.append(linear_of(q, weight, bias, out, relu=relu).ravel())
    joined = (np.concatenate(ours),), (np.concatenate(theirs),)
    return beside("linear", f"qnnpack, {told(channels, biased, relu)}", *joined)


def _convolution(rng: np.random.Generator, case: Filters, channels: bool, relu: bool) -> Row:
    x = floats(rng, *case.images) + np.float32(0.4)
    w, bias = floats(rng, *case.filters), 3 * floats(rng, case.filters[0])
    into = covering(x)  # its zero point is not 0, or padding with 0 would be right by chance
    spread = np.float32(0.7 * x.std() * w.std() * np.sqrt(w[0].size) * 4)
    q, weight, out = (
        QTensor.of(x, into),
        weight_of(w, bias, into, channels),
        covering(spread * single([-1, 1])),
    )
    mine = modules.QuantizedConv2d(weight, bias, into, out, *case.how, relu=relu)(q)
    its = convolution_of(q, weight, bias, out, case.how, relu=relu)
    return beside("conv2d", f"qnnpack, {case.name}, {told(channels, True, relu)}", (mine.codes,), (its,))


def _add(rng: np.random.Generator, kind: str, relu: bool) -> Row:
    import torch

    found: list[tuple[Array, ...]] = []
    for _ in range(6):
        a, b = (affine(rng, kind) for _ in range(2))
        out = affine(rng, kind, float(a.scale + b.scale) * rng.uniform(0.3, 2.0))
        left, right = (some(rng, (3, 4, 9, 11), each) for each in (a, b))
        call = torch.ops.quantized.add_relu if relu else torch.ops.quantized.add
        its = call(in_torch(left), in_torch(right), float(out.scale), int(out.zero_point))
        sums = _real(left) + _real(right)
        exact = (np.maximum(sums, 0) if relu else sums) / np.float64(out.scale) + int(out.zero_point)
        found.append((modules.QuantizedAdd(a, b, out, relu=relu)(left, right).codes, codes_of(its), exact))
    ours, theirs, exact = (np.stack(each) for each in zip(*found, strict=True))
    return beside("add", f"qnnpack, {kind}{', ReLU' * relu}", (ours,), (theirs,), near(ours, theirs, exact))


def _cat(rng: np.random.Generator, kind: str) -> Row:
    import torch

    parts = [some(rng, (3, n, 9, 11), affine(rng, kind)) for n in (2, 5)]
    hows, out = [each.affine for each in parts], affine(rng, kind)
    mine = modules.QuantizedCat(hows, out, 1)(*parts).codes
    made = torch.ops.quantized.cat([*map(in_torch, parts)], 1, float(out.scale), int(out.zero_point))
    its = codes_of(made)
    exact = np.concatenate([*map(_real, parts)], 1) / np.float64(out.scale) + int(out.zero_point)
    return beside("cat", f"qnnpack, {kind}", (mine,), (its,), near(mine, its, exact))


def near(ours: Array, theirs: Array, exact: Array) -> Excuse:
    """Excuse codes that are nearest ones on both sides, to some roundings of float32."""
    return Excuse(
        partial(nearest, ours, exact, ROUNDINGS),
        {"nearest codes": partial(nearest, theirs, exact, ROUNDINGS)},
    )


def _real(q: QTensor) -> npt.NDArray[np.float64]:
    """Return what codes stand for, rounded no more than float64 does."""
    return (q.codes - np.float64(q.affine.zero_point)) * np.float64(q.affine.scale)


# ---- pools ------------------------------------------------------------------------------------------------

Pool = tuple[str, str, Callable[[], Any], tuple[Any, ...], Callable[[], Any] | None]


def _pool_table() -> tuple[Pool, ...]:
    """Return (torch's function, words, our module, arguments, our module with the padding counted)."""
    average, largest, adaptive = (
        getattr(modules, f"Quantized{name}2d") for name in ("AvgPool", "MaxPool", "AdaptiveAvgPool")
    )
    return (
        ("max_pool2d", "3, stride 2, padding 1", partial(largest, 3, 2, 1), (3, 2, 1), None),
        ("max_pool2d", "dilation 2, ceil_mode", partial(largest, 3, 2, 1, 2, True), (3, 2, 1, 2, True), None),
        ("avg_pool2d", "3, stride 2, padding 1", partial(average, 3, 2, 1), (3, 2, 1), None),
        ("avg_pool2d", "2", partial(average, 2), (2,), None),
        ("avg_pool2d", "3, padding not counted", partial(average, 3, 2, 1, False, False),
         (3, 2, 1, False, False), partial(average, 3, 2, 1)),
        ("adaptive_avg_pool2d", "to 1 x 1", partial(adaptive, 1), (1,), None),
        ("adaptive_avg_pool2d", "to 3 x 2", partial(adaptive, (3, 2)), ((3, 2),), None),
        ("adaptive_avg_pool2d", "to 5 x 5", partial(adaptive, 5), (5,), None),
    )  # fmt: skip


def _pools(rng: np.random.Generator, kind: str) -> Iterator[Row]:
    import torch

    functions: Any = torch.nn.functional
    for name, words, module, arguments, counted in _pool_table():
        q = some(rng, (3, 4, 11, 13), affine(rng, kind))
        its = codes_of(getattr(functions, name)(in_torch(q), *arguments))
        real = torch.from_numpy(q.codes.astype(np.float64) - int(q.affine.zero_point))
        exact = getattr(functions, name)(real, *arguments).numpy() + int(q.affine.zero_point)
        ours, reasons = module()(q).codes, {"ties": partial(nearest, its, exact)}
        if counted is not None:
            reasons["padding counted"] = partial(all_same, counted()(q).codes, its)
        excuse = Excuse(partial(nearest, ours, exact), reasons)
        yield beside(name, f"qnnpack, {kind}, {words}", (ours,), (its,), excuse)
    q = some(rng, (300,), affine(rng, kind))
    its = codes_of(torch.relu(in_torch(q)))
    yield beside("relu", f"qnnpack, {kind}", (modules.QuantizedReLU()(q).codes,), (its,))
