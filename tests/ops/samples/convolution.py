"""Calls of convolutions beside conv2d, and of the gradients of convolutions and pools as ops."""

from __future__ import annotations

from typing import Any

import numpy as np

import minimp as mp
from minimp import ops
from tests.ops.samples.base import Sample

GEOMETRY = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
WINDOWS = {"kernel": (2, 3), "stride": (2, 2), "padding": (0, 1)}
TAKEN = (
    np.random.default_rng(3).choice([1, 2, 4, 5], (2, 3, 3, 3)).astype(np.uint8)
)  # inside the image everywhere


def _adjoints() -> list[Sample]:
    # (2, 4, 6, 7) * (6, 2, 3, 2) -> (2, 6, 3, 9)
    return [
        Sample(
            "conv2d_input", lambda g, w: ops.conv2d_input(g, w, shape=(2, 4, 6, 7), **GEOMETRY),
            ((2, 6, 3, 9), (6, 2, 3, 2)),
        ),
        Sample(
            "conv2d_weight", lambda x, g: ops.conv2d_weight(x, g, shape=(6, 2, 3, 2), **GEOMETRY),
            ((2, 4, 6, 7), (2, 6, 3, 9)),
        ),
        Sample("max_pool2d_input", _max_pool2d_input, ((2, 3, 3, 3),)),
        Sample("max_pool2d_input", _overlapping, ((1, 2, 4, 5),), "overlapping"),
        Sample(
            "avg_pool2d_input", lambda g: ops.avg_pool2d_input(g, shape=(2, 3, 7, 6), **WINDOWS),
            ((2, 3, 3, 3),),
        ),
    ]  # fmt: skip


def _max_pool2d_input(grad: mp.Tensor) -> mp.Tensor:
    return ops.max_pool2d_input(grad, TAKEN, shape=(2, 3, 7, 6), **WINDOWS)


def _overlapping(grad: mp.Tensor) -> mp.Tensor:
    options: dict[str, Any] = {"kernel": (3, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    index = np.random.default_rng(4).integers(0, 6, (1, 2, 4, 5)).astype(np.uint8)
    return ops.max_pool2d_input(grad, index, shape=(1, 2, 6, 6), **options)


SAMPLES = [*_adjoints()]
