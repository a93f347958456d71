"""FP8 copies of a matrix: codes of one byte, and the scales that they are read by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp.fp8.recipes import Block, FixedScaling, Float8CurrentScaling, Fp8Recipe, MXFP8BlockScaling
from minimp.fp8.scales import current_scale, inverse_of

if TYPE_CHECKING:
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = ["Copy", "Operand", "copy_of", "operand_of", "scale_for"]

Array = Any
FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True, slots=True)
class Copy:
    """A matrix in FP8.

    Attributes:
        codes: (M, N) FP8 numbers, a byte each.
        scales: what blocks are multiplied by, one each, in the place of the block; None: `factor` rules all.
        block: the extent of a block, or None.
        factor: r, what all codes are multiplied by: 1 / s rounded to float32. 1 where there are blocks.
    """

    codes: Array
    scales: Array | None
    block: Block | None
    factor: float


@dataclass(frozen=True, slots=True)
class Operand:
    """What a product reads: (M, N) float32 or float64 numbers, and a factor for the finished sums."""

    values: Array
    factor: float


def scale_for(recipe: Fp8Recipe, role: str, given: float | None, amax: float) -> float:
    """Return the scale s of a whole tensor: from its state, from its amax, or the one that is fixed.

    Args:
        recipe: how to scale; one without blocks.
        role: ``"input"``, ``"weight"`` or ``"grad"``.
        given: the scale of earlier steps, if there is one.
        amax: the tensor's largest magnitude.
    """
    if given is not None:
        return given
    if isinstance(recipe, FixedScaling):
        return float(getattr(recipe, role))
    power = isinstance(recipe, Float8CurrentScaling) and recipe.use_power_2_scales
    if isinstance(recipe, Float8CurrentScaling):
        return current_scale(amax, recipe.format_of(role).max, power_of_2=power)
    return 1.0  # delayed scaling before its first step


def copy_of(
    backend: Backend, x: Array, recipe: Fp8Recipe, role: str, axis: int, scale: float | None = None
) -> Copy:
    """Return the FP8 copy of a matrix that is summed over `axis`.

    Args:
        backend: where it lives.
        x: (M, N) float32 numbers.
        recipe: how to scale.
        role: ``"input"``, ``"weight"`` or ``"grad"``.
        axis: 0 or 1.
        scale: the scale of the whole tensor, where there are no blocks.
    """
    fmt, block = recipe.format_of(role), recipe.block(role, axis)
    if block is None:
        assert scale is not None
        scaled = x if scale == 1 else x * scale
        return Copy(backend.to_eight_bits(scaled, fmt), None, None, inverse_of(scale))
    view = _in_blocks(backend, x, block)
    scales = backend.power_scales(backend.xp.abs(view).max(axis=(1, 3)), fmt)
    scaled = _cropped(backend, view * (1 / scales)[:, None, :, None], x.shape)
    kept = backend.to_scale_codes(scales) if isinstance(recipe, MXFP8BlockScaling) else scales
    return Copy(backend.to_eight_bits(scaled, fmt), kept, block, 1.0)


def operand_of(backend: Backend, copy: Copy, dtype: Any = FLOAT32) -> Operand:
    """Return the numbers that a product reads; blocks are multiplied by their scales, which is exact."""
    values = backend.from_eight_bits(copy.codes, dtype)
    if copy.scales is None or copy.block is None:
        return Operand(values, copy.factor)
    view = _in_blocks(backend, values, copy.block)
    coded = copy.scales.dtype.itemsize == 1
    scales = backend.from_eight_bits(copy.scales, dtype) if coded else copy.scales.astype(dtype)
    spread = scales[:, None, :, None]
    return Operand(_cropped(backend, view * spread, values.shape), 1.0)


def _in_blocks(backend: Backend, x: Array, block: Block) -> Array:
    """(M, N) -> (blocks, rows of one, blocks, columns of one); the last blocks are filled up with zeros."""
    rows, columns = (-(-n // size) for n, size in zip(x.shape, block, strict=True))
    whole = (rows * block[0], columns * block[1])
    if whole != x.shape:
        filled = backend.xp.zeros(whole, x.dtype)
        filled[: x.shape[0], : x.shape[1]] = x
        x = filled
    return x.reshape(rows, block[0], columns, block[1])


def _cropped(backend: Backend, view: Array, shape: tuple[int, ...]) -> Array:
    """The way back."""
    whole = view.reshape(view.shape[0] * view.shape[1], view.shape[2] * view.shape[3])
    if whole.shape == shape:
        return whole
    return backend.xp.ascontiguousarray(whole[: shape[0], : shape[1]])
