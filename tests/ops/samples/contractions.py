"""Calls of products to which something is added before the one rounding."""

from __future__ import annotations

from minimp import functional as f
from tests.ops.samples.base import Sample

SAMPLES = [
    Sample("addmm", f.addmm, ((6, 4), (6, 9), (9, 4))),
    Sample("addmm", lambda c, a, b: f.addmm(c, a, b, beta=0.3, alpha=-1.7), ((4,), (6, 9), (9, 4)), "scaled"),
    Sample("addmm", lambda c, a, b: f.addmm(c, a, b, beta=2), ((), (6, 9), (9, 4)), "scalar"),
    Sample("addmm", lambda c, a, b: f.addmm(c, a.T, b.T), ((6, 1), (9, 6), (4, 9)), "strided"),
    Sample("addmm", f.addmm, ((6, 4), (6, 0), (0, 4))),
    Sample("addmm", f.addmm, ((1, 4), (0, 9), (9, 4))),
    Sample("baddbmm", f.baddbmm, ((3, 6, 4), (3, 6, 9), (3, 9, 4))),
    Sample(
        "baddbmm",
        lambda c, a, b: f.baddbmm(c, a, b, beta=0.5, alpha=3),
        ((6, 1), (3, 6, 9), (3, 9, 4)),
        "scaled",
    ),
]
