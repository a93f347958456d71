"""Calls of running sums and products."""

from __future__ import annotations

from minimp import functional
from tests.ops.samples.base import S, Sample

SAMPLES = [
    Sample("cumsum", lambda x: functional.cumsum(x, 0)),
    Sample("cumsum", lambda x: x.T.cumsum(-1), options="rows"),
    Sample("cumsum", lambda x: x.cumsum(0), ((),)),
    Sample("cumsum", lambda x: x.cumsum(0, dtype="float64"), options="wider"),
    Sample("cumprod", lambda x: functional.cumprod(x, 0)),
    Sample("cumprod", lambda x: x.T.cumprod(-1), options="rows"),
    Sample("cumprod", lambda x: x.cumprod(-1), ((),)),
    Sample("cumprod", lambda x: x.cumprod(1), ((2, 0),)),
    Sample("prod", functional.prod, ((2, 3),)),
    Sample("prod", lambda x: x.prod(0)),
    Sample("prod", lambda x: x.prod(-1, keepdim=True), (S,), "kept"),
    Sample("prod", functional.prod, ((),)),
    Sample("prod", functional.prod, ((0, 3),)),
    Sample("prod", lambda x: x.prod(0, dtype="float64"), ((3, 2),), "wider"),
]
