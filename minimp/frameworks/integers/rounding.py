"""How numbers become codes, codes numbers, and fake codes gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import functional
from minimp.frameworks.integers.beside import ROUNDINGS, Excuse, all_same, beside, nearest
from minimp.frameworks.integers.samples import CODES, ODD, affine, codes_of, floats, numbers, single, ties
from minimp.frameworks.results import Row
from minimp.quant import Affine, dequantize, fake_quantize, quantize
from minimp.tensors import tensor

__all__ = ["compare_rounding"]

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
AGAIN = 5
"""Scales and zero points for each row of whole tensors."""
SHAPE = (6, 31, 5)
"""Of tensors with channels, which are on each axis in turn."""
WIDTHS = {"8 bits": CODES["qint8"], "4 bits": (-8, 7), "8 bits from 0": CODES["quint8"], "2 bits": (0, 3)}
"""Codes of fake-quantised numbers."""
BEYOND = single([1e30, -1e30, np.inf, -np.inf, 9.3e18, -9.3e18])
"""Numbers whose steps of 1 or less do not fit in 64 bits."""
PARTS = "array, op and gradient"
"""What is compared of fake quantisation: the function of arrays, the op, and the gradient of the op."""


def compare_rounding(rng: np.random.Generator) -> Iterator[Row]:
    """Compare quantising, reading back and fake-quantising, per tensor and per channel."""
    for kind in CODES:
        for name, make in _makers(rng).items():
            hows = [affine(rng, kind) for _ in range(AGAIN)]
            pairs = [_both(make(float(each.scale)), each, kind) for each in hows]
            ours, theirs = (np.concatenate(side) for side in zip(*pairs, strict=True))
            yield beside("quantize_per_tensor", f"{kind}, {name}", (ours,), (theirs,))
        for axis, centred in product(range(3), (True, False)):
            yield _channels(rng, kind, axis, centred)
        yield _read_back(rng, kind)
    for width in WIDTHS:
        for name, make in _makers(rng).items():
            yield _fake(rng, width, name, make)
        for axis in range(3):
            yield from _fake_channels(rng, width, axis)
    yield _fake_row(rng, np.tile(BEYOND, (2, 1)), single([1, 0.5]), ("8 bits", 0, "beyond 2^63"))


def _makers(rng: np.random.Generator) -> dict[str, Callable[[float], Floats]]:
    """Return what makes numbers to quantise, from the scale."""
    return {
        "any": lambda s: floats(rng, 40, 53) * np.float32(100 * s),
        "ties": lambda s: ties(rng, (40, 53), np.float32(s)),
        "NaN, infinities, largest and least": lambda _: np.tile(ODD, (40, 1)),
    }


def _both(x: Floats, how: Affine, kind: str) -> tuple[Array, Array]:
    import torch

    scale, zero = float(how.scale), int(how.zero_point)
    its = torch.quantize_per_tensor(torch.from_numpy(x), scale, zero, getattr(torch, kind))
    return quantize(x, how), codes_of(its)


def _along(axis: int) -> tuple[int, ...]:
    """Return the shape in which one number a channel stands beside a tensor."""
    return tuple(-1 if i == axis else 1 for i in range(len(SHAPE)))


def _channels(rng: np.random.Generator, kind: str, axis: int, centred: bool) -> Row:
    """Quantise channels: torch adds z to a rounded quotient, which shows at ties."""
    import torch

    (low, high), place = CODES[kind], _along(axis)
    scales = single(rng.uniform(0.01, 0.5, SHAPE[axis]))
    zeros = np.zeros(SHAPE[axis], np.int64) if centred else rng.integers(low, high + 1, SHAPE[axis])
    x = ties(rng, SHAPE, scales.reshape(place))
    held = torch.tensor(np.float64(scales)), torch.from_numpy(zeros)
    its = codes_of(torch.quantize_per_channel(torch.from_numpy(x), *held, axis, getattr(torch, kind)))
    ours = quantize(x, numbers(scales, zeros, (low, high), axis))
    sums = x * (1 / scales).reshape(place) + single(zeros).reshape(place)
    twice = np.clip(np.rint(sums), low, high).astype(ours.dtype)
    case = f"{kind}, ties, {'z = 0' if centred else 'any z'}, axis {axis}"
    exact = np.float64(x) / np.float64(scales).reshape(place) + zeros.reshape(place)
    right = partial(nearest, ours, exact, ROUNDINGS)
    excuse = Excuse(right, {"rounded twice": partial(all_same, twice, its)})
    return beside("quantize_per_channel", case, (ours,), (its,), excuse)


def _read_back(rng: np.random.Generator, kind: str) -> Row:
    """Read all codes back, with scales from 2^-20 to 2^20."""
    import torch

    low, high = CODES[kind]
    hows = [affine(rng, kind, 2.0 ** rng.uniform(-20, 20)) for _ in range(30)]
    codes = np.arange(low, high + 1).astype(hows[0].storage)
    make = partial(torch._make_per_tensor_quantized_tensor, torch.from_numpy(codes))
    its = [make(float(each.scale), int(each.zero_point)).dequantize().numpy() for each in hows]
    ours = np.stack([dequantize(codes, each) for each in hows])
    return beside("dequantize", f"{kind}, all codes", (ours,), (np.stack(its),))


# ---- fake codes -------------------------------------------------------------------------------------------


def _fake(rng: np.random.Generator, width: str, name: str, make: Callable[[float], Floats]) -> Row:
    """Fake-quantise by one scale."""
    import torch

    low, high = WIDTHS[width]
    found: list[tuple[Array, ...]] = []
    for _ in range(AGAIN):
        scale, zero = float(single(rng.uniform(0.01, 0.5))), int(rng.integers(low, high + 1))
        x, how = make(scale), (scale, zero, low, high)
        ours = _ours(rng, x, partial(functional.fake_quantize_per_tensor_affine, **_named(how)))
        theirs = _theirs(ours[0], x, partial(torch.fake_quantize_per_tensor_affine, **_named(how)))
        plain = fake_quantize(x, numbers(scale, zero, (low, high)))
        found.append((plain, *ours[1:], theirs[0], *theirs))
    parts = [np.concatenate(each) for each in zip(*found, strict=True)]
    case = f"{width}, {name}: {PARTS}"
    return beside("fake_quantize_per_tensor_affine", case, tuple(parts[:3]), tuple(parts[3:]))


def _named(how: tuple[float, int, int, int]) -> dict[str, Any]:
    return dict(zip(("scale", "zero_point", "quant_min", "quant_max"), how, strict=True))


def _ours(rng: np.random.Generator, x: Floats, call: Callable[[Any], Any]) -> tuple[Array, Array, Array]:
    """Return what goes back, and minimp's values and gradients."""
    leaf: Any = tensor(x, requires_grad=True)
    grad, y = floats(rng, *x.shape), call(leaf)
    y.backward(tensor(grad))
    return grad, y.detach().numpy(), leaf.grad.numpy()


def _theirs(grad: Array, x: Floats, call: Callable[[Any], Any]) -> tuple[Array, Array]:
    """Return torch's values and gradients."""
    import torch

    leaf: Any = torch.from_numpy(x).requires_grad_()
    y = call(leaf)
    y.backward(torch.from_numpy(grad))
    return y.detach().numpy(), leaf.grad.numpy()


def _fake_channels(rng: np.random.Generator, width: str, axis: int) -> Iterator[Row]:
    """Fake-quantise each channel."""
    scales = single(rng.uniform(0.01, 0.5, SHAPE[axis]))
    yield _fake_row(rng, floats(rng, *SHAPE), scales, (width, axis, "any"))
    yield _fake_row(rng, ties(rng, SHAPE, scales.reshape(_along(axis))), scales, (width, axis, "ties"))


def _fake_row(rng: np.random.Generator, x: Floats, scales: Floats, told: tuple[str, int, str]) -> Row:
    """Compare one tensor; numbers far beyond the codes are cast to 64-bit integers in torch."""
    import torch

    width, axis, name = told
    low, high = WIDTHS[width]
    zeros = rng.integers(low, high + 1, len(scales)).astype(np.int32)
    ours = _ours(
        rng, x, lambda leaf: functional.fake_quantize_per_channel_affine(leaf, scales, zeros, axis, low, high)
    )
    held = torch.from_numpy(scales), torch.from_numpy(zeros), axis, low, high
    theirs = _theirs(ours[0], x, lambda leaf: torch.fake_quantize_per_channel_affine(leaf, *held))
    plain = fake_quantize(x, numbers(scales, zeros, (low, high), axis))
    place = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    least, most = (
        np.broadcast_to(single((end - zeros).reshape(place) * scales.reshape(place)), x.shape)
        for end in (low, high)
    )
    case = f"{width}, axis {axis}, {name}: {PARTS}"
    right = partial(all_same, np.where(x < 0, least, most), plain)  # asked for numbers beyond all codes
    excuse = Excuse(right, {"the least code": partial(all_same, least, theirs[0])})
    subject = "fake_quantize_per_channel_affine"
    return beside(subject, case, (plain, *ours[1:]), (theirs[0], *theirs), excuse)
