"""Samples of attention.cu: heads of few queries and many keys, causal and not, rows that see nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minimp_backends.kernels.references.attention import attention_weights
from tests.kernels.samples.base import Arguments, Bug
from tests.kernels.samples.rows import numbers

SHAPES = ((6, 3, 5), (4, 4, 4), (4, 2, 40), (3, 3, 1), (1, 1, 257), (5, 5, 300), (2, 2, 4090), (2, 1, 8200))
"""Rows, queries, keys: teams of every size, whose last threads have work, and a row longer than one holds."""


def _given(rows: int, queries: int, keys: int, seed: int, *, causal: bool) -> Arguments:
    return {
        "products": numbers((rows, keys), "float", seed, 2.0), "p": np.full((rows, keys), 7, np.float32),
        "log_sums": np.full(rows, 7, np.float32), "scale": 0.35, "causal": int(causal), "queries": queries,
        "rows": rows, "length": keys,
    }  # fmt: skip


def weights() -> Iterator[Arguments]:
    """Yield every shape, causal or not; then rows of -inf, NaN and infinite scores, and far from 0."""
    for seed, shape in enumerate(SHAPES):
        yield _given(*shape, seed, causal=seed % 2 == 1)
    yield _given(5, 5, 300, 20, causal=False)
    odd = _given(7, 7, 9, 21, causal=False)
    odd["products"][:4, 2] = (np.nan, np.inf, -np.inf, 3e38)
    odd["products"][4] = -np.inf
    odd["products"][5] -= 9000
    odd["products"][6] = np.nan
    yield odd
    least = _given(2, 2, 9, 23, causal=False)  # masked by the least number there is: no row that sees nothing
    least["products"][:], least["scale"] = np.finfo(np.float32).min, 1.0
    least["products"][1, 4] = 2.0
    yield least
    hidden = _given(3, 3, 3, 22, causal=True)  # what is not seen may be anything
    hidden["products"][0, 1:] = (np.nan, np.inf)
    yield hidden


def slopes() -> Iterator[Arguments]:
    """Yield the same, with what the forward keeps of it."""
    for seed, kept in enumerate(weights()):
        attention_weights(**kept)
        r = numbers(kept["products"].shape, "float", seed + 40)
        if kept["rows"] == 6:
            r[0, 1] = np.inf
        yield {
            **kept, "r": r, "p": np.full_like(r, 7), "slopes": np.full_like(r, 7),
        }  # fmt: skip


SAMPLES = {"attention_weights": weights, "attention_slopes": slopes}
SMALL = {"attention_weights": 520, "attention_slopes": 1040}
"""Enough for a row of four warps, which meet at barriers."""

BUGS = (
    Bug("a query sees one key too many", "attention_weights",
        "return query < length ? query :", "return query + 1 < length ? query + 1 :"),
    Bug("queries of all heads are counted on", "attention_weights", "team.row % queries", "team.row"),
    Bug("a row that sees nothing is divided by 0", "attention_weights", "sum == 0.0f ? 1.0f : sum", "sum"),
    Bug("a row of the least numbers sees nothing", "attention_weights",
        "top == -infinity() ? 0.0f : top", "top < -3e38f ? 0.0f : top"),
    Bug("a row that sees nothing is shifted by -inf", "attention_weights",
        "top = top == -infinity() ? 0.0f : top;", ""),
    Bug("what is shifted is not added again", "attention_weights",
        "__fadd_rn(top, log_fixed(sum))", "log_fixed(sum)"),
    Bug("the scale is forgotten", "attention_slopes", "__fmul_rn(held[i], scale)", "held[i]"),
    Bug("the sum of r alone", "attention_slopes",
        "__fadd_rn(sum, __fmul_rn(held[i], given[i]))", "__fadd_rn(sum, given[i])"),
    Bug("groups wherever r begins", "attention_slopes",
        "in_groups(length, products, r, p, slopes)", "in_groups(length, products, p, slopes)"),
    Bug("the last rows' slopes in 32 bits", "attention_slopes",
        "slopes += team.row * length;", "slopes += static_cast<int>(team.row * length);"),
    Bug("the last stretch of r stays held", "attention_slopes",
        "            read_stretch(given, r, team, stretch, length, whole, 0.0f);\n        }\n",
        "        }\n"),
)  # fmt: skip
