"""Calls of borders and of interpolation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minimp as mp
from minimp import ops
from minimp.functional.borders import pad
from minimp.functional.interpolation import interpolate
from minimp.ops.resampling import Plan
from tests.ops.samples.base import Sample

SHAPES = {1: (2, 3, 5), 2: (2, 3, 4, 5), 3: (1, 2, 3, 4, 2)}


def _borders() -> list[Sample]:
    def call(*options: Any) -> Callable[..., mp.Tensor]:
        return lambda x: pad(x, *options)

    made = [
        Sample("constant_pad_nd", call((1, 2)), ((3, 4),)),
        Sample("constant_pad_nd", call((1, 0, -1, 2, 0, 3), "constant", 0.5), ((3, 4, 5),), "cropped"),
        Sample("constant_pad_nd", call((-1, -1)), ((2, 0, 3),), "empty"),
        Sample("_pad_circular", call((2, 1, 1, 3), "circular"), (SHAPES[2],)),
        Sample("_pad_circular", call((5, -1), "circular"), ((2, 6),), "cropped"),
    ]
    for mode, name in (("reflect", "reflection_pad"), ("replicate", "replication_pad")):
        made += [
            Sample(f"{name}1d", call((3, 4), mode), (SHAPES[1],)),
            Sample(f"{name}1d", call((-2, 3), mode), ((2, 6),), "cropped"),
            Sample(f"{name}2d", call((1, 2, 3, 0), mode), (SHAPES[2],)),
            Sample(f"{name}2d", call((1, 2, 3, 0), mode), ((0, 2, 4, 3),), "empty"),
            Sample(f"{name}3d", call((1, 0, 2, 3, 2, 1), mode), (SHAPES[3],)),
        ]
    return made


def _sizes() -> list[Sample]:
    def call(**options: Any) -> Callable[..., mp.Tensor]:
        return lambda x: interpolate(x, **options)

    made = []
    for mode, name in (("nearest", "upsample_nearest"), ("nearest-exact", "_upsample_nearest_exact")):
        made += [
            Sample(f"{name}1d", call(scale_factor=2, mode=mode), (SHAPES[1],), "twice"),
            Sample(f"{name}2d", call(size=(7, 3), mode=mode), (SHAPES[2],)),
            Sample(f"{name}2d", call(scale_factor=3, mode=mode), (SHAPES[2],), "thrice"),
            Sample(f"{name}3d", call(size=(2, 9, 4), mode=mode), (SHAPES[3],)),
        ]
    for mode, axes in (("linear", 1), ("bilinear", 2), ("trilinear", 3), ("bicubic", 2)):
        name, size = f"upsample_{mode}{axes}d", (2, 9, 6)[:axes]
        made += [
            Sample(name, call(size=size, mode=mode), (SHAPES[axes],)),
            Sample(name, call(scale_factor=2, mode=mode), (SHAPES[axes],), "twice"),
            Sample(name, call(size=size, mode=mode, align_corners=True), (SHAPES[axes],), "aligned"),
        ]
    made.append(Sample("upsample_bilinear2d", call(size=4, mode="bilinear"), ((2, 0, 3, 5),), "empty"))
    return made


def _plans() -> list[Sample]:
    random = np.random.default_rng(0)
    rows = random.integers(0, 4, (2, 6)), random.standard_normal((2, 6)).astype(np.float32)
    plan = Plan([rows, (random.integers(0, 5, (3, 4)), None)])
    return [
        Sample("resample", lambda x: ops.resample(x, plan=plan), ((2, 4, 5),)),
        Sample("resample_input", lambda g: ops.resample_input(g, shape=(2, 4, 5), plan=plan), ((2, 6, 4),)),
    ]


SAMPLES = [*_borders(), *_sizes(), *_plans()]
