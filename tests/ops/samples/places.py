"""Calls of what adds values at places."""

from __future__ import annotations

import numpy as np

from minimp import ops
from tests.ops.samples.base import Sample

SAMPLES = [
    Sample("unindex", lambda x: ops.unindex(x, shape=(4, 5), index=(slice(1, 3), slice(None))), ((2, 5),)),
    Sample(
        "unindex", lambda x: ops.unindex(x, shape=(3, 5), index=np.array([0, 2, 0, 0])), ((4, 5),), "repeated"
    ),
    Sample("unindex", lambda x: ops.unindex(x, shape=(3,), index=1), ((),), "one"),
]
