"""Calls of statistics and log-sums."""

from __future__ import annotations

from minimp import functional
from tests.ops.samples.base import Sample

PLANE = ((3, 4, 5),)

ORDERS = (0, -float("inf"), -1, -2.5)

SAMPLES = [
    *(
        Sample("linalg_vector_norm", lambda x, p=p: functional.norm(x, p, 1), options=f"p{p}", tie_free=True)
        for p in ORDERS
    ),
    Sample("var", functional.var),
    Sample("var", lambda x: x.var(0, unbiased=False, keepdim=True), options="biased"),
    Sample("var", lambda x: x.var((0, -1), correction=2), PLANE, "axes"),
    Sample("var", lambda x: x.var(1, correction=0), ((0, 3),)),
    Sample("std", functional.std),
    Sample("std", lambda x: x.T.std(-1), options="rows"),
    Sample("std", lambda x: x.std((0, 2), keepdim=True, correction=0.5), PLANE, "axes"),
    Sample("logsumexp", lambda x: x.logsumexp(1)),
    Sample("logsumexp", lambda x: x.logsumexp((0, 2), keepdim=True), PLANE, "axes"),
    Sample("logsumexp", lambda x: x.logsumexp(0), ((),)),
    Sample("logsumexp", lambda x: x.logsumexp(1), ((0, 3),)),
]
