"""Calls of convolutions, pools, pads, resampling, norms and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minimp.frameworks.cases.base import IMAGE, ONE, Case, Shapes

__all__ = ["CASES"]

LINE: Shapes = ((1, 2, 4),)
SOLID: Shapes = ((1, 2, 3, 3, 3),)
ATTENDED: Shapes = ((1, 2, 4, 8),) * 3


def _padded(mode: str, sides: int) -> Callable[..., Any]:
    return lambda lib, a: lib.pad(a, (1,) * (2 * sides), mode=mode)


def _enlarged(mode: str) -> Callable[..., Any]:
    return lambda lib, a: lib.interpolate(a, scale_factor=2, mode=mode)


def _unpooled(lib: Any, a: Any) -> Any:
    values, places = lib.max_pool2d(a, 2, return_indices=True)
    return lib.max_unpool2d(values, places, 2)


PADS = (
    *(Case(f"reflection_pad{n}d", _padded("reflect", n), s) for n, s in enumerate((LINE, IMAGE, SOLID), 1)),
    *(
        Case(f"replication_pad{n}d", _padded("replicate", n), s)
        for n, s in enumerate((LINE, IMAGE, SOLID), 1)
    ),
    Case("constant_pad_nd", _padded("constant", 2), IMAGE),
    Case("_pad_circular", _padded("circular", 2), IMAGE),
)
RESAMPLING = (
    *(Case(f"upsample_nearest{n}d", _enlarged("nearest"), s) for n, s in enumerate((LINE, IMAGE, SOLID), 1)),
    *(
        Case(f"_upsample_nearest_exact{n}d", _enlarged("nearest-exact"), s)
        for n, s in enumerate((LINE, IMAGE, SOLID), 1)
    ),
    Case("upsample_linear1d", _enlarged("linear"), LINE),
    Case("upsample_bilinear2d", _enlarged("bilinear"), IMAGE),
    Case("upsample_trilinear3d", _enlarged("trilinear"), SOLID),
    Case("upsample_bicubic2d", _enlarged("bicubic"), IMAGE),
)
POOLS = (
    Case("adaptive_avg_pool2d", lambda lib, a: lib.adaptive_avg_pool2d(a, 2), IMAGE),
    Case("adaptive_max_pool2d", lambda lib, a: lib.adaptive_max_pool2d(a, 2), IMAGE),
    Case("max_unpool2d", _unpooled, IMAGE),
)
LAYERS = (
    Case(
        "conv1d",
        lambda lib, *a: lib.conv1d(*a),
        ((1, 2, 4), (3, 2, 2), (3,)),
        larger=((2, 4, 9), (5, 4, 3), (5,)),
    ),
    Case(
        "conv_transpose1d",
        lambda lib, *a: lib.conv_transpose1d(*a),
        ((1, 2, 4), (2, 3, 2), (3,)),
        larger=((2, 4, 9), (4, 5, 3), (5,)),
    ),
    Case(
        "conv_transpose2d",
        lambda lib, *a: lib.conv_transpose2d(*a),
        ((1, 2, 4, 4), (2, 3, 2, 2), (3,)),
        larger=((2, 4, 5, 5), (4, 5, 3, 3), (5,)),
    ),
    Case("batch_norm", lambda lib, a: lib.batch_norm(a, None, None, training=True), IMAGE),
    Case("group_norm", lambda lib, a: lib.group_norm(a, 2), IMAGE),
    Case("embedding", lambda lib, a: lib.embedding(lib.labels(a), a), ONE),
    Case("scaled_dot_product_attention", lambda lib, *a: lib.scaled_dot_product_attention(*a), ATTENDED),
)

CASES = (*PADS, *RESAMPLING, *POOLS, *LAYERS)
