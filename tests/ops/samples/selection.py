"""Calls of ops that choose, order and lay side by side."""

from __future__ import annotations

import numpy as np

from minimp import functional, ops
from tests.ops.samples.base import S, Sample

MASK = np.arange(35).reshape(S) % 3 == 0

SAMPLES = [
    Sample("where", lambda a, b: functional.where(MASK, a, b), (S, S)),
    Sample("where", lambda a, b: functional.where(MASK[:, :1], a, b), ((7, 1), (5,)), "broadcast"),
    Sample("where", lambda a: functional.where(MASK, a, 0.1), options="number"),
    Sample("where", lambda a: functional.where(MASK[0, 0], a, -a), ((),)),
    Sample("where", lambda a, b: functional.where(MASK[:0], a, b), ((0, 5), (5,))),
    Sample("masked_fill", lambda a: a.masked_fill(MASK, -2.5)),
    Sample("masked_fill", lambda a: a.T.masked_fill(MASK.T, 2), options="transposed"),
    Sample("masked_fill", lambda a: a.masked_fill(MASK[None], 0.25), options="broadcast"),
    Sample("masked_fill", lambda a: a.masked_fill(np.array(False), 1), ((),)),
    Sample("clamp", lambda a: a.clamp(-0.7, 0.9), tie_free=True),
    Sample("clamp", lambda a: functional.clamp(a, min=0.1), options="below", tie_free=True),
    Sample("clamp", lambda a: functional.clip(a, max=0.1), ((),), "above", tie_free=True),
    Sample("clamp", lambda a, low, high: a.clamp(low, high), (S, (5,), (7, 1)), tie_free=True),
    Sample("clamp", lambda a, high: a.clamp(max=high), ((0, 3), (3,)), tie_free=True),
    Sample("maximum", functional.maximum, (S, S), tie_free=True),
    Sample("maximum", functional.maximum, ((7, 1), (5,)), tie_free=True),
    Sample("maximum", lambda a: functional.maximum(a, 0.3), ((),), "number"),
    Sample("minimum", functional.minimum, (S, S), tie_free=True),
    Sample("minimum", functional.minimum, ((0, 2), (2,)), tie_free=True),
    Sample("stack", lambda *inputs: functional.stack(inputs), (S, S, S)),
    Sample("stack", lambda *inputs: functional.stack(inputs, -1), ((), ())),
    Sample("stack", lambda *inputs: functional.stack(inputs, 1), ((0, 2), (0, 2))),
    Sample("argsort", lambda x: ops.argsort(x.detach())),
    Sample("argsort", lambda x: ops.argsort(x.detach(), dim=0, descending=True), options="descending"),
    Sample("argsort", lambda x: ops.argsort(x.detach(), count=1), ((),)),
    Sample("getitem", lambda x: x.sort(0).values, options="sorted"),
    Sample("getitem", lambda x: x.topk(2, largest=False).values, options="topk"),
    Sample("argmin", lambda x: ops.argmin(x.detach(), dim=1, keepdim=True)),
    Sample("argmin", lambda x: ops.argmin(x.detach()), ((2, 3),), "flat"),
    Sample("amin", functional.amin, tie_free=True),
    Sample("amin", lambda x: x.amin((0, -1), keepdim=True), ((2, 3, 4),), "axes", tie_free=True),
    Sample("amin", functional.amin, ((),)),
    Sample("tril", functional.tril),
    Sample("tril", lambda x: x.T.tril(-2), ((3, 4, 4),), "below"),
    Sample("triu", functional.triu),
    Sample("triu", lambda x: x.triu(2), ((2, 3, 5),), "above"),
    Sample("triu", functional.triu, ((0, 3),)),
    Sample("getitem", lambda x: x.diagonal(1), options="diagonal"),
    Sample("getitem", lambda x: x.flip(0, -1), options="flip"),
    Sample("unindex", lambda x: x.diag(-1), ((4,),), "diag"),
]
