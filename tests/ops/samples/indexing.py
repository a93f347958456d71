"""Calls that take elements by index, and put them."""

from __future__ import annotations

import numpy as np

from minimp import functional as f
from tests.ops.samples.base import S, Sample

ALONG = np.array([[0, 6, 0, 3, 1], [0, 2, 0, 3, 3], [5, 2, 0, 0, 1]])
"""For dim 0 of (7, 5): places repeat within the first and the fourth column."""
ROWS = np.array([[4, 4, 0], [1, 2, 3]])
SLICES = np.array([1, 6, 1, 0])
EMPTY = np.zeros((0, 5), np.int64)
MASK = np.arange(7) % 3 == 0

SAMPLES = [
    Sample("gather", lambda x: f.gather(x, 0, ALONG), options="dim0"),
    Sample("gather", lambda x: f.gather(x, -1, ROWS), options="dim1"),
    Sample("gather", lambda x: f.gather(x.T, 0, ROWS.T), options="strided"),
    Sample("gather", lambda x: f.gather(x, 0, np.array([0, 0])), ((),)),
    Sample("gather", lambda x: f.gather(x, 0, EMPTY), options="nothing"),
    Sample("gather", lambda x: f.take_along_dim(x, ALONG[:, :1], 0), options="broadcast"),
    Sample("index_select", lambda x: f.index_select(x, 0, SLICES), options="dim0"),
    Sample("index_select", lambda x: f.index_select(x, 1, np.array(3)), options="one"),
    Sample("index_select", lambda x: f.index_select(x, 0, np.array([0])), ((),)),
    Sample("index_select", lambda x: f.index_select(x, 0, np.zeros(0, np.int64)), options="nothing"),
    Sample("scatter", lambda x, s: f.scatter(x, 0, ALONG, s), (S, (3, 5)), "dim0"),
    Sample("scatter", lambda x, s: f.scatter(x, 1, ROWS, s), (S, (4, 5)), "dim1_longer_source"),
    Sample("scatter", lambda x: f.scatter(x, 0, ALONG, 0.5), options="number"),
    Sample("scatter", lambda x, s: f.scatter(x, 0, EMPTY, s), (S, (3, 5)), "nothing"),
    Sample("scatter_add", lambda x, s: f.scatter_add(x, 0, ALONG, s), (S, (3, 5)), "dim0"),
    Sample("scatter_add", lambda x, s: f.scatter_add(x, -1, ROWS, s), (S, (4, 5)), "dim1_longer_source"),
    Sample("scatter_add", lambda x, s: f.scatter_add(x, 0, np.array([0, 0]), s), ((), (2,))),
    Sample("scatter_add", lambda x, s: f.scatter_add(x, 0, EMPTY, s), (S, (0, 5)), "nothing"),
    Sample("index_copy", lambda x, s: f.index_copy(x, 0, SLICES, s), (S, (4, 5)), "dim0"),
    Sample("index_copy", lambda x, s: f.index_copy(x, -1, np.array([2, 0]), s), (S, (7, 2)), "dim1"),
    Sample("index_add", lambda x, s: f.index_add(x, 0, SLICES, s), (S, (4, 5)), "dim0"),
    Sample(
        "index_add", lambda x, s: f.index_add(x, 1, np.array([2, 2]), s, alpha=-0.3), (S, (7, 2)), "alpha"
    ),
    Sample("index_put", lambda x, s: f.index_put(x, (SLICES,), s), (S, (5,)), "rows"),
    Sample("index_put", lambda x, s: f.index_put(x, (SLICES, SLICES % 5), s), (S, (4,)), "repeated"),
    Sample("index_put", lambda x, s: f.index_put(x, (MASK,), s), (S, (3, 5)), "mask"),
    Sample(
        "index_put",
        lambda x, s: f.index_put(x, (SLICES, np.array([[2], [-1]])), s, True),
        (S, (2, 1)),
        "added",
    ),
]
