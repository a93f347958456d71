"""Numbers and codes to compare by, and torch's tensors of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.quant import Affine, QTensor

__all__ = [
    "CODES", "ODD", "UINT8", "affine", "batches", "codes_of", "floats", "in_torch", "numbers", "single",
    "some", "ties",
]  # fmt: skip

Floats = npt.NDArray[np.float32]
UINT8, INT8 = (0, 255), (-128, 127)
CODES = {"quint8": UINT8, "qint8": INT8}
"""torch's names of the stored integers, and their codes."""
ODD = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, -1e-45, 0.0, -0.0], np.float32)
"""Numbers that are none, that no code reaches, and that are next to 0."""


def floats(rng: np.random.Generator, *shape: int) -> Floats:
    """Return normal numbers; those of each index of axis 0 have a size of their own."""
    sizes = np.exp(0.5 * rng.normal(size=(shape[0], *(1,) * (len(shape) - 1))))
    return (rng.normal(size=shape) * sizes).astype(np.float32)


def batches(rng: np.random.Generator) -> dict[str, list[Floats]]:
    """Return batches to observe, by what is special about their numbers; (6, 50) each."""
    normal = [(rng.normal(size=(6, 50)) * (1 + 0.3 * i)).astype(np.float32) for i in range(3)]
    return {
        "any": normal,
        "positive": [np.abs(x) + 1 for x in normal],
        "negative": [-np.abs(x) - 1 for x in normal],
        "tiny": [x * np.float32(1e-9) for x in normal],
        "huge": [x * np.float32(1e30) for x in normal],
        "constant": [np.full((6, 50), 3, np.float32)] * 2,
        "zero": [np.zeros((6, 50), np.float32)] * 2,
    }


def single(values: Any) -> Floats:
    """Return numbers in float32."""
    return np.asarray(values, np.float32)


def numbers(scale: Any, zero: Any, codes: tuple[int, int] = UINT8, axis: int | None = None) -> Affine:
    """Return affine numbers of plain ones."""
    return Affine(single(scale), np.asarray(zero, np.int32), *codes, axis=axis)


def affine(rng: np.random.Generator, kind: str = "quint8", scale: float | None = None) -> Affine:
    """Return a scale, from 0.01 to 0.5 if none is given, and any zero point."""
    low, high = CODES[kind]
    return numbers(
        rng.uniform(0.01, 0.5) if scale is None else scale, rng.integers(low, high + 1), (low, high)
    )


def some(rng: np.random.Generator, shape: tuple[int, ...], affine: Affine) -> QTensor:
    """Return all codes of a range alike."""
    codes = rng.integers(affine.quant_min, affine.quant_max + 1, shape)
    return QTensor(codes.astype(affine.storage), affine)


def ties(rng: np.random.Generator, shape: tuple[int, ...], scale: Any) -> Floats:
    """Return multiples of half a step: each second one lies between two codes."""
    return single(rng.integers(-600, 600, shape) * np.float32(0.5) * scale)


def in_torch(q: QTensor) -> Any:
    """Return torch's quantised tensor of the same codes, scales and zero points."""
    import torch

    codes, how = torch.from_numpy(q.codes.copy()), q.affine
    if how.axis is None:
        return torch._make_per_tensor_quantized_tensor(codes, float(how.scale), int(how.zero_point))
    scales, zeros = (torch.tensor(np.float64(each)) for each in (how.scale, how.zero_point))
    return torch._make_per_channel_quantized_tensor(codes, scales, zeros.long(), how.axis)


def codes_of(tensor: Any) -> npt.NDArray[Any]:
    """Return the codes of torch's quantised tensor."""
    return np.asarray(tensor.int_repr().numpy())
