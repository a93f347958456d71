"""Calls of convolutions beside conv2d, and of the gradients of convolutions and pools as ops."""

from __future__ import annotations

from collections.abc import Callable
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


def _layers() -> list[Sample]:
    def call(name: str, **options: Any) -> Callable[..., mp.Tensor]:
        return lambda *inputs: ops.OPS[name](*inputs, **options)

    strided = {"stride": (2, 3), "padding": (1, 2), "output_padding": (1, 2), "groups": 2}
    spread = {"dilation": (2, 3), "output_padding": (1, 2), "padding": (1, 0)}  # rows beyond every window
    return [
        Sample("conv1d", call("conv1d"), ((2, 3, 7), (4, 3, 2), (4,))),
        Sample(
            "conv1d", call("conv1d", stride=(2,), padding=(3,), dilation=(2,), groups=2),
            ((2, 4, 9), (6, 2, 3)), "strided",
        ),
        Sample("conv1d", call("conv1d", padding=(1,)), ((0, 2, 5), (3, 2, 3), (3,)), "empty"),
        Sample("conv_transpose1d", call("conv_transpose1d"), ((2, 3, 5), (3, 4, 3), (4,))),
        Sample(
            "conv_transpose1d",
            call("conv_transpose1d", stride=(3,), padding=(1,), output_padding=(2,), groups=2),
            ((2, 4, 5), (4, 3, 2), (6,)), "strided",
        ),
        Sample("conv_transpose2d", call("conv_transpose2d"), ((2, 3, 4, 3), (3, 2, 2, 3), (2,))),
        Sample(
            "conv_transpose2d", call("conv_transpose2d", **strided), ((2, 4, 3, 4), (4, 3, 3, 4), (6,)),
            "strided",
        ),
        Sample(
            "conv_transpose2d", call("conv_transpose2d", **spread), ((1, 2, 4, 3), (2, 2, 3, 2)), "spread"
        ),
    ]  # fmt: skip


SAMPLES = [*_adjoints(), *_layers()]
