"""Layers that move elements, change sizes, or compare: no weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minimp import functional
from minimp.errors import SettingError, ShapeError
from minimp.nn.making import lifted, whole
from minimp.nn.module import Module
from minimp.tensors import Tensor

__all__ = [
    "ChannelShuffle", "Flatten", "PixelShuffle", "PixelUnshuffle", "Unflatten", "Upsample",
    "UpsamplingBilinear2d", "UpsamplingNearest2d",
]  # fmt: skip


class Flatten(Module):
    """Join the axes from `start_dim` to `end_dim`: (N, C, H, W) -> (N, C H W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Any) -> Tensor:
        """Return the elements with these axes joined."""
        return lifted(input).flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Show the axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split axis `dim` into axes of the lengths given; one of them may be -1.

    Raises:
        SettingError: lengths that are no whole numbers.
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(unflattened_size, tuple | list) or any(
            type(n) is not int for n in unflattened_size
        ):
            raise SettingError(
                f"expected unflattened_size to be whole numbers, got {unflattened_size!r}", op="Unflatten"
            )
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Any) -> Tensor:
        """Return the elements with that axis split."""
        x = lifted(input)
        at, known = self.dim % max(x.ndim, 1), math.prod(n for n in self.unflattened_size if n != -1)
        open_ended = list(self.unflattened_size).count(-1)
        length = x.shape[at] if x.ndim else 0
        if open_ended > 1 or (length != known if not open_ended else not known or length % known):
            raise ShapeError(
                f"cannot split an axis of length {length} into {tuple(self.unflattened_size)}",
                op="Unflatten", shapes=[x.shape],
            )  # fmt: skip
        sizes = (length // known if n == -1 else n for n in self.unflattened_size)
        return x.reshape(*x.shape[:at], *sizes, *x.shape[at + 1 :])

    def extra_repr(self) -> str:
        """Show the axis and the lengths."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class PixelShuffle(Module):
    """Spread channels over pixels.  (..., C r^2, H, W) -> (..., C, H r, W r) (Shi et al. 2016).

    Args:
        upscale_factor: r.

    Raises:
        SettingError: r is no whole number of at least 1.
        ShapeError: on call, channels that are no multiple of r^2.
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = whole("upscale_factor", upscale_factor, "PixelShuffle")

    def forward(self, input: Any) -> Tensor:
        """Return the larger image."""
        x, r = lifted(input), self.upscale_factor
        if x.ndim < 3 or x.shape[-3] % r**2:
            raise ShapeError(
                f"expected (..., C, H, W) with C a multiple of {r**2}, got {x.shape}",
                op="PixelShuffle", shapes=[x.shape],
            )  # fmt: skip
        lead, (c, h, w) = x.shape[:-3], x.shape[-3:]
        n = math.prod(lead)
        y = x.reshape(n, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3)  # (n, C, H, r, W, r)
        return y.reshape(*lead, c // r**2, h * r, w * r)

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Gather pixels into channels.  (..., C, H r, W r) -> (..., C r^2, H, W).

    Args:
        downscale_factor: r.

    Raises:
        SettingError: r is no whole number of at least 1.
        ShapeError: on call, sides that are no multiples of r.
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = whole("downscale_factor", downscale_factor, "PixelUnshuffle")

    def forward(self, input: Any) -> Tensor:
        """Return the smaller image."""
        x, r = lifted(input), self.downscale_factor
        if x.ndim < 3 or x.shape[-1] % r or x.shape[-2] % r:
            raise ShapeError(
                f"expected (..., C, H, W) with H and W multiples of {r}, got {x.shape}",
                op="PixelUnshuffle", shapes=[x.shape],
            )  # fmt: skip
        lead, (c, h, w) = x.shape[:-3], x.shape[-3:]
        n = math.prod(lead)
        y = x.reshape(n, c, h // r, r, w // r, r).permute(0, 1, 3, 5, 2, 4)  # (n, C, r, r, H, W)
        return y.reshape(*lead, c * r**2, h // r, w // r)

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Mix channels of g groups: channel i of group j becomes channel j of group i (Zhang et al. 2017).

    Args:
        groups: g.

    Raises:
        SettingError: g is no whole number of at least 1.
        ShapeError: on call, channels that are no multiple of g.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = whole("groups", groups, "ChannelShuffle")

    def forward(self, input: Any) -> Tensor:
        """Return the input with its channels, axis 1, in another order."""
        x, g = lifted(input), self.groups
        if x.ndim < 3 or x.shape[1] % g:
            raise ShapeError(
                f"expected (N, C, ...) with C a multiple of {g}, got {x.shape}",
                op="ChannelShuffle", shapes=[x.shape],
            )  # fmt: skip
        n, c, *behind = x.shape
        return x.reshape(n, g, c // g, *behind).transpose(1, 2).reshape(*x.shape)

    def extra_repr(self) -> str:
        """Show the number of groups."""
        return f"groups={self.groups}"


class Upsample(Module):
    """Resize (N, C, L), (N, C, H, W) or (N, C, D, H, W); see :func:`minimp.functional.interpolate`.

    Args:
        size: the lengths of the output, or one for all; or
        scale_factor: what to multiply the lengths by.
        mode: ``"nearest"``, ``"linear"``, ``"bilinear"``, ...
        align_corners: whether the corner pixels of input and output are the same points.
        recompute_scale_factor: compute the factor anew from the lengths.
    """

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
        align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.mode, self.align_corners = size, mode, align_corners
        many = isinstance(scale_factor, tuple)
        self.scale_factor = (
            tuple(map(float, scale_factor)) if many else float(scale_factor) if scale_factor else None
        )
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Any) -> Tensor:
        """Return the resized input."""
        return functional.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        """Show the size and the mode."""
        size = f"size={self.size!r}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return f"{size}, mode={self.mode!r}"


class UpsamplingNearest2d(Upsample):
    """Resize images, each pixel repeated. Arguments as :class:`Upsample`."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """Resize images by bilinear interpolation, corners aligned. Arguments as :class:`Upsample`."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)
