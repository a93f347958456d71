"""Calls of pooling to a given size, and of its way back."""

from __future__ import annotations

import numpy as np

from minimp import ops
from tests.ops.samples.base import Sample

IMAGES = ((2, 3, 5, 7),)
PLACES = np.random.default_rng(5).permutation(30)[:24].reshape(2, 3, 2, 2) % 30

SAMPLES = [
    *(
        Sample("adaptive_avg_pool2d", lambda x, s=size: ops.adaptive_avg_pool2d(x, size=s), IMAGES, text)
        for size, text in (((3, 4), "overlapping"), ((1, 1), "whole"), ((7, 9), "longer"), ((5, 7), "same"))
    ),
    *(
        Sample(
            "adaptive_max_pool2d", lambda x, s=size: ops.adaptive_max_pool2d(x, size=s), IMAGES, text,
            tie_free=True,
        )
        for size, text in (((3, 4), "overlapping"), ((1, 1), "whole"), ((7, 9), "longer"))
    ),
    Sample(
        "adaptive_avg_pool2d", lambda x: ops.adaptive_avg_pool2d(x, size=(2, 2)), ((0, 2, 4, 4),), "empty"
    ),
    Sample(
        "adaptive_avg_pool2d_input",
        lambda g: ops.adaptive_avg_pool2d_input(g, shape=(2, 3, 5, 7), size=(3, 4)), ((2, 3, 3, 4),),
    ),
    Sample("max_unpool2d", lambda x: ops.max_unpool2d(x, PLACES, size=(5, 6)), ((2, 3, 2, 2),)),
]  # fmt: skip
