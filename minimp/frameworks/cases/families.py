"""Calls of losses, of indexing and of contractions."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.frameworks.cases.base import ONE, THREE, TWO, Case, Shapes, named

__all__ = ["CASES"]

MATRICES: Shapes = ((2, 3), (3, 4))
BATCHES: Shapes = ((2, 3, 4), (2, 4, 5))
VECTORS: Shapes = ((3,), (3,))


def _column(lib: Any, a: Any) -> Any:
    """Return one index for each row, as a column."""
    return lib.labels(a).reshape(-1, 1)


def _signed(*arrays: Any) -> tuple[Any, ...]:
    """The last input is a target of 1 and -1."""
    return (*arrays[:-1], np.where(arrays[-1] > 0, 1, -1))


def _shares(*arrays: Any) -> tuple[Any, ...]:
    """All inputs are from 0 to 1."""
    return tuple(np.clip(np.where(np.isnan(a), 0, abs(a) / 4), 0, 1) for a in arrays)


def _counted(*arrays: Any) -> tuple[Any, ...]:
    """The last input is at least 0: where it is less, it has no logarithm, and a sum of all is NaN."""
    return (*arrays[:-1], abs(arrays[-1]))


LOSSES = (
    Case("huber_loss", named("huber_loss"), TWO),
    *(Case(name, named(name), TWO) for name in ("l1_loss", "smooth_l1_loss", "poisson_nll_loss")),
    *(
        Case(name, named(name), TWO, domain=_signed, targets=(1,))
        for name in ("soft_margin_loss", "hinge_embedding_loss")
    ),
    Case("kl_div", named("kl_div", reduction="batchmean"), TWO, domain=_counted),
    Case("kl_div", named("kl_div", reduction="sum", log_target=True), TWO, "logs"),
    Case("l1_loss", lambda lib, a, b, w: lib.l1_loss(a, b, weight=w), THREE, "weight"),
    Case("binary_cross_entropy_with_logits", named("binary_cross_entropy_with_logits"), TWO),
    Case("binary_cross_entropy", named("binary_cross_entropy"), TWO, domain=_shares),
    Case("margin_ranking_loss", named("margin_ranking_loss"), THREE, domain=_signed, targets=(2,)),
    Case("linalg_vector_norm", named("triplet_margin_loss"), THREE, "triplet_margin_loss"),
    Case(
        "mul",
        named("cosine_embedding_loss"),
        ((2, 3), (2, 3), (2,)),
        "cosine_embedding_loss",
        domain=_signed,
        targets=(2,),
    ),
    Case("mul", named("cross_entropy"), TWO, "cross_entropy"),
)

INDEXING = (
    Case("gather", lambda lib, a: lib.gather(a, 1, _column(lib, a)), ONE),
    Case("gather", lambda lib, a: lib.take_along_dim(a, _column(lib, a), 1), ONE, "take_along_dim"),
    Case("index_select", lambda lib, a: lib.index_select(a, 1, lib.labels(a)), ONE),
    Case("scatter", lambda lib, a, b: lib.scatter(a, 1, _column(lib, a), b), TWO, larger=((6, 48), (6, 1))),
    Case(
        "scatter_add",
        lambda lib, a, b: lib.scatter_add(a, 1, _column(lib, a), b),
        TWO,
        larger=((6, 48), (6, 1)),
    ),
    Case("index_add", lambda lib, a, b: lib.index_add(a, 0, lib.labels(a), b), TWO),
    Case("index_copy", lambda lib, a, b: lib.index_copy(a, 0, lib.labels(a), b), TWO),
    Case("index_put", lambda lib, a, b: lib.index_put(a, (lib.labels(a),), b), TWO),
)

CONTRACTIONS = (
    Case("addmm", named("addmm"), ((2, 4), *MATRICES)),
    Case("baddbmm", named("baddbmm"), ((2, 3, 5), *BATCHES)),
    Case("matmul", named("mm"), MATRICES, "mm"),
    Case("matmul", named("bmm"), BATCHES, "bmm"),
    Case("matmul", named("mv"), ((2, 3), (3,)), "mv"),
    Case("matmul", named("dot"), VECTORS, "dot"),
    Case("mul", named("outer"), VECTORS, "outer"),
    Case("matmul", named("inner"), TWO, "inner"),
    Case("matmul", named("inner"), VECTORS, "inner-vectors"),
    Case("matmul", named("vecdot"), TWO, "vecdot"),
    Case("matmul", lambda lib, a, b: lib.tensordot(a, b, 1), MATRICES, "tensordot"),
    Case("matmul", lambda lib, a, b: lib.einsum("ij,jk->ik", a, b), MATRICES, "einsum"),
    Case("mul", lambda lib, a, b: lib.einsum("ij,ij->ij", a, b), TWO, "einsum"),
    Case("sum", lambda lib, a: lib.einsum("ij->i", a), ONE, "einsum"),
    Case("matmul", named("bilinear"), ((2, 3), (2, 4), (5, 3, 4), (5,)), "bilinear"),
)

CASES = (*LOSSES, *INDEXING, *CONTRACTIONS)
