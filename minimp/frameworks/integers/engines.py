"""The same products in torch's engines for x86: exact where nothing can be cut off, and what is cut off.

An engine without the instructions VNNI adds neighbouring products in int16, where 255 * 127 + 255 * 127 does
not fit (:mod:`minimp_backends.integer_products`). Codes 0..127 cannot overflow, so that all engines must be
exact there. With 0..255 an engine is exact, or it cuts off, layer by layer and processor by processor: then
``accumulate="int16-saturating"`` has to give every code that it gave. FBGEMM is also run in a process that
is kept from VNNI, so that the cut is seen on any x86 processor.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.backend import default_backend
from minimp.frameworks.integers.beside import ROUNDINGS, Excuse, all_same, beside, nearest
from minimp.frameworks.integers.dynamic import compare_fused_dynamic
from minimp.frameworks.integers.layers import Geometry, convolution_of, linear_of
from minimp.frameworks.integers.samples import CODES, affine, floats, numbers, single, some
from minimp.frameworks.integers.torch_engines import SCALES, ZEROS, Limited, engine, has_engine, product_of
from minimp.frameworks.results import Row, Verdict
from minimp.quant import Affine, QTensor, modules

__all__ = ["ENGINES", "LAYERS", "compare_engines", "compare_limited", "limited", "made_up"]

Array = npt.NDArray[Any]
ENGINES = ("fbgemm", "x86", "onednn")
LAYERS = {
    "linear, 64 in": ((50, 64), (40, 64)),
    "linear, 201 in": ((50, 201), (40, 201)),
    "conv2d": ((2, 8, 9, 9), (20, 8, 3, 3)),
    "conv2d, 1 x 1": ((2, 16, 9, 9), (24, 16, 1, 1)),
    "conv2d, 2 groups": ((2, 16, 9, 9), (24, 8, 3, 3)),
    "conv2d, depthwise": ((2, 8, 9, 9), (8, 1, 3, 3)),
}
"""Shapes of inputs and weights. Channels are even: oneDNN rounds them up, and pairs others than FBGEMM."""
EXACT, SATURATING = "int32", "int16-saturating"


def made_up(rng: np.random.Generator, most: int) -> dict[str, tuple[Array, Array, Array]]:
    """Return codes up to `most`, weights, and biases that are whole numbers of steps, for each layer."""
    step = SCALES["x"] * SCALES["w"]
    return {
        name: (
            rng.integers(0, most + 1, x).astype(np.uint8), rng.integers(-128, 128, w).astype(np.int8),
            (rng.integers(-9999, 10_000, w[0]) * step).astype(np.float32),
        )
        for name, (x, w) in LAYERS.items()
    }  # fmt: skip


def ours(x: Array, w: Array, bias: Array, accumulate: str) -> Array:
    """Return minimp's codes."""
    backend, steps = default_backend(), np.int32(bias / (SCALES["x"] * SCALES["w"]))
    if x.ndim == 2:
        sums = backend.integer_matmul(x, w.T, ZEROS["x"], accumulate=accumulate) + steps
    else:
        groups = x.shape[1] // w.shape[1]
        sums = backend.integer_conv2d(x, w, 1, 1, 1, groups, ZEROS["x"], accumulate=accumulate)
        sums = sums + steps.reshape(-1, 1, 1)
    factor = SCALES["x"] * SCALES["w"] / SCALES["y"]
    return np.asarray(backend.requantize(sums, factor, ZEROS["y"], 0, 255))


def compare_engines(rng: np.random.Generator) -> Iterator[Row]:
    """Compare each engine that torch was built with."""
    for name in ENGINES:
        if not has_engine(name):
            yield _absent(name, "all layers")
            continue
        with engine(name):
            for most in (127, 255):
                for layer, given in made_up(rng, most).items():
                    case, its = f"{name}, codes 0..{most}, {layer}", product_of(*given)
                    yield beside("sums", case, (ours(*given, EXACT),), (its,), _cut_off(given, its))
            for layer, channels in product(LAYERS, (False, True)):
                yield _any_scales(rng, name, layer, channels)
            if name == "fbgemm":
                yield from compare_fused_dynamic(rng)


def limited(rng: np.random.Generator) -> tuple[dict[str, tuple[Array, Array, Array]], Limited | None]:
    """Start the process without VNNI, if torch has FBGEMM; return what it was given, too."""
    given = made_up(rng, 255)
    return given, Limited(given) if has_engine("fbgemm") else None


def compare_limited(given: dict[str, tuple[Array, Array, Array]], process: Limited | None) -> Iterator[Row]:
    """Compare what it gave with sums that are cut off, which must be equal, and with exact ones."""
    if process is None:
        yield _absent("fbgemm", "kept from VNNI, all layers")
        return
    its = process.codes()
    for layer, arrays in given.items():
        case = f"fbgemm kept from VNNI, codes 0..255, {layer}"
        for accumulate in (SATURATING, EXACT):
            excuse = _cut_off(arrays, its[layer]) if accumulate == EXACT else None
            mine = (ours(*arrays, accumulate),)
            yield beside("sums", f"{case}, accumulate={accumulate!r}", mine, (its[layer],), excuse)


def _cut_off(given: tuple[Array, Array, Array], its: Array) -> Excuse:
    """Excuse an engine whose codes are those of pairs cut off at int16; ours must be those of whole sums."""
    x, w, bias = given
    sums = whole_sums(x, w) + (bias / (SCALES["x"] * SCALES["w"])).reshape(_place(x))
    exact = sums * (SCALES["x"] * SCALES["w"] / SCALES["y"]) + ZEROS["y"]
    right = partial(nearest, ours(*given, EXACT), exact)
    return Excuse(right, {"cut off at int16": partial(all_same, ours(*given, SATURATING), its)})


def whole_sums(x: Array, w: Array, zero: int = ZEROS["x"]) -> Array:
    """Return sums of products in float64, which has all of these; by torch, in no arithmetic of ours."""
    import torch

    real, filters = (torch.from_numpy(each.astype(np.float64)) for each in (x.astype(int) - zero, w))
    if x.ndim == 2:
        return np.asarray(real @ filters.T)
    geometry = Geometry(padding=(1, 1), groups=x.shape[1] // w.shape[1])
    return np.asarray(torch.nn.functional.conv2d(real, filters, None, *geometry))


def _place(x: Array) -> tuple[int, ...]:
    """Return the shape in which one number a channel stands beside the outputs for x."""
    return (-1,) + (1,) * (x.ndim - 2)


def _any_scales(rng: np.random.Generator, name: str, layer: str, channels: bool) -> Row:
    """Compare a layer of any scales and biases, which no engine rounds as QNNPACK does.

    Codes 0..127, that of the padding too: no sum is cut off.
    """
    images, filters = LAYERS[layer]
    into = numbers(rng.uniform(0.01, 0.03), rng.integers(0, 128))
    out = affine(rng, scale=rng.uniform(0.05, 0.2))
    scales = single(rng.uniform(0.005, 0.02, filters[0] if channels else ()))
    how = numbers(scales, np.zeros(scales.shape), CODES["qint8"], 0 if channels else None)
    weight, bias = some(rng, filters, how), 3 * floats(rng, filters[0])
    q = QTensor(rng.integers(0, 128, (8 * images[0], *images[1:])).astype(np.uint8), into)
    if len(images) == 2:
        mine: Any = modules.QuantizedLinear(weight, bias, into, out)
        its = linear_of(q, weight, bias, out, relu=False)
    else:
        geometry = Geometry(padding=(1, 1), groups=images[1] // filters[1])
        mine = modules.QuantizedConv2d(weight, bias, into, out, *geometry)
        its = convolution_of(q, weight, bias, out, geometry, relu=False)
    sums, place = whole_sums(q.codes, weight.codes, int(into.zero_point)), _place(q.codes)
    step, b = into.scale * scales.reshape(place if channels else ()), bias.reshape(place)
    case = f"{name}, any scales, {layer}, {'per channel' if channels else 'per tensor'}"
    codes = mine(q).codes
    return beside("requantising", case, (codes,), (its,), _roundings(codes, its, sums, step, b, out))


def _roundings(codes: Array, its: Array, sums: Array, step: Array, bias: Array, out: Affine) -> Excuse:
    """Return what else than QNNPACK's rounding may have given an engine's codes; ours may miss by the bias.

    FBGEMM's are rint((sum + b / (s_x s_w)) s_x s_w / s) + z, each step in float32. Others are a nearest code
    of that number, to a few roundings.
    """
    scaled = (sums.astype(np.float32) + bias / step) * (step / out.scale)
    unrounded = np.clip(np.rint(scaled) + int(out.zero_point), 0, 255).astype(np.uint8)
    exact = (sums * np.float64(step) + bias) / np.float64(out.scale) + int(out.zero_point)
    of_bias = float(np.max(step)) / 2 / float(out.scale)  # half a step of the sums, in codes
    return Excuse(
        partial(nearest, codes, exact, ROUNDINGS, of_bias),
        {
            "bias in floats": partial(all_same, unrounded, its),
            "nearest codes": partial(nearest, its, exact, ROUNDINGS),
        },
    )


def _absent(name: str, layers: str) -> Row:
    note = f"torch was built without the engine {name}, which is for x86 processors"
    return Row("sums", f"{name}, {layers}", "-", "-", Verdict.NOT_COMPARED, note)
