"""Calls of attention and embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

import minimp as mp
from minimp import functional, ops
from tests.ops.samples.base import Sample

Q, K, V = (2, 3, 6, 4), (2, 3, 5, 4), (2, 3, 5, 7)
NAME = "scaled_dot_product_attention"
SOME = np.random.default_rng(0).random((6, 5)) < 0.6
SOME[3] = False  # a query that attends to nothing
INDEX = np.array([[1, 4, 1], [6, 0, 1]])


def _attend(**options: Any) -> Any:
    return lambda q, k, v, *mask: functional.scaled_dot_product_attention(q, k, v, *mask, **options)


def _dropped(q: mp.Tensor, k: mp.Tensor, v: mp.Tensor) -> mp.Tensor:
    keep = np.random.default_rng(1).random((*Q[:2], 6, 5)) < 0.7
    return ops.scaled_dot_product_attention(q, k, v, None, keep, scale=0.5, dropout_p=0.3)


SAMPLES = [
    Sample(NAME, _attend(), (Q, K, V)),
    Sample(NAME, _attend(is_causal=True), (Q, K, V), "causal"),
    Sample(NAME, _attend(is_causal=True, scale=2.0), ((3, 4), (5, 4), (5, 4)), "causal_wide"),
    Sample(NAME, _attend(attn_mask=SOME), (Q, K, V), "masked"),
    Sample(NAME, _attend(), (Q, K, V, (3, 1, 5)), "biased"),
    Sample(NAME, _attend(), ((2, 3, 6, 4), (1, 5, 4), (5, 7)), "broadcast"),
    Sample(NAME, _attend(enable_gqa=True, is_causal=True), ((2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)), "gqa"),
    Sample(NAME, _dropped, (Q, K, V), "dropped"),
    Sample(NAME, _attend(), ((2, 3, 4), (2, 0, 4), (2, 0, 5)), "no_keys"),
    Sample(NAME, _attend(), ((0, 3, 4), (0, 5, 4), (0, 5, 5))),
    Sample(NAME, _attend(), ((3, 0), (5, 0), (5, 2))),
    Sample("embedding", lambda x: functional.embedding(INDEX, x), ((7, 3),)),
]
