"""Calls of the linear layer in FP8, by each recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import minimp as mp
from minimp import ops
from minimp.fp8 import (
    DelayedScaling,
    FixedScaling,
    Float8BlockScaling,
    Float8CurrentScaling,
    MXFP8BlockScaling,
)
from tests.ops.samples.base import Sample

SHAPES = ((7, 40), (36, 40), (36,))


def call(**options: Any) -> Callable[..., mp.Tensor]:
    """Return the op with options."""
    return lambda *inputs: ops.linear_fp8(*inputs, **options)


SAMPLES = [
    Sample("linear_fp8", call(recipe=DelayedScaling(), scales=(64.0, 100.5, 2.0**12)), SHAPES, "delayed"),
    Sample("linear_fp8", call(recipe=Float8CurrentScaling()), SHAPES, "current"),
    Sample("linear_fp8", call(recipe=Float8CurrentScaling(use_power_2_scales=True)), SHAPES[:2], "power"),
    Sample("linear_fp8", call(recipe=Float8BlockScaling()), ((3, 2, 130), (129, 130), (129,)), "block"),
    Sample("linear_fp8", call(recipe=MXFP8BlockScaling()), SHAPES, "mxfp8"),
    Sample("linear_fp8", call(recipe=MXFP8BlockScaling(fp8_format="HYBRID")), ((64, 32), (32, 32)), "hybrid"),
    Sample("linear_fp8", call(recipe=FixedScaling()), SHAPES, "unscaled"),
    Sample("linear_fp8", call(recipe=MXFP8BlockScaling()), ((0, 40), (36, 40), (36,)), "empty"),
    Sample("linear_fp8", call(recipe=Float8CurrentScaling()), ((40,), (36, 40)), "vector"),
]
