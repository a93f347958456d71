"""Attention and embeddings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minimp import ops, rng
from minimp.errors import DataError, SettingError, ShapeError
from minimp.functional.common import labels_of
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["embedding", "scaled_dot_product_attention"]


def embedding(
    input: Any, weight: Any, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """weight[input]: integers (...) and a table (V, D) -> (..., D).

    Args:
        input: indices from 0 to V - 1; a tensor or NumPy integers.
        weight: the table.
        padding_idx: a row that takes no gradient; from -V to V - 1.
        max_norm: not offered: it would change the table in place, and with it what was recorded.
        norm_type: the norm of max_norm.
        scale_grad_by_freq: divide the gradient of each row by how often it was taken.
        sparse: not offered: gradients are dense.

    Raises:
        SettingError: `max_norm` or `sparse` is asked for, or padding_idx is no row.
        DataError: the indices are no integers, or one of them is no row.
    """
    del norm_type
    if max_norm is not None:
        raise SettingError(
            "embedding: max_norm is not offered: it changes the table in place",
            help="renormalise the weight after optimizer.step(), under mp.no_grad()",
        )
    if sparse:
        raise SettingError("embedding: gradients are dense", help="leave sparse=True out")
    table = _tensor(weight)
    index = labels_of("embedding", input, table)
    return ops.embedding(table, index, padding_idx=padding_idx, scale_grad_by_freq=scale_grad_by_freq)


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
    scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """(softmax(scale Q K^T + mask), thinned by dropout) V.

    (..., L, E), (..., S, E), (..., S, V) -> (..., L, V); a query with no key to attend to gives 0. Computed
    in float32 and rounded once (torch's math path; its flash kernels round in more places).

    Args:
        query, key, value: tensors of one format outside autocast; the axes in front broadcast.
        attn_mask: bool (True: attend) or a bias of the query's format, broadcast to (..., L, S).
        dropout_p: with which probability each probability is zeroed, in every call (as in torch, a module
            passes 0.0 when it is not training).
        is_causal: query i attends to keys 0..i; not together with attn_mask.
        scale: the factor of the scores; None is 1 / sqrt(E).
        enable_gqa: key and value have fewer heads (axis -3), of which each serves as many queries' heads.

    Raises:
        SettingError: mask and is_causal together, or a probability that is none.
        ShapeError, DataError: shapes or a mask that do not fit.
    """
    name = "scaled_dot_product_attention"
    q, k, v = (_tensor(x) for x in (query, key, value))
    if attn_mask is not None and is_causal:
        raise SettingError(f"{name}: attn_mask and is_causal cannot both act", help="put both into the mask")
    if not 0.0 <= dropout_p <= 1.0:
        raise SettingError(f"{name}: expected dropout_p from 0 to 1, got {dropout_p}")
    mask = _mask(attn_mask, q)
    if scale is None:
        scale = 1 / math.sqrt(q.shape[-1] or 1) if q.ndim else 1.0
    shape = q.shape
    if enable_gqa:
        q, k, v, mask = _grouped(q, k, v, mask)
    arrays = [q, k, v, mask, _keep(q, k, v, mask, dropout_p) if dropout_p else None]
    while arrays[-1] is None:
        arrays.pop()
    y = ops.scaled_dot_product_attention(
        *arrays, scale=float(scale), is_causal=is_causal, dropout_p=float(dropout_p)
    )
    return y.reshape(*shape[:-1], v.shape[-1]) if enable_gqa else y


def _tensor(x: Any) -> Tensor:
    made: Tensor = x if isinstance(x, Tensor) else Value.lift(x, None)
    return made


def _mask(given: Any, q: Tensor) -> Tensor | None:
    if given is None:
        return None
    mask = given if isinstance(given, Tensor) else Value.lift(given, q.backend)
    if mask.format is None and mask.array.dtype.kind != "b":
        raise DataError(
            f"expected a mask of bool or of {q.format}, got {mask.array.dtype}",
            op="scaled_dot_product_attention", help="cast it with .astype(bool), or to the query's format",
        )  # fmt: skip
    return mask


def _grouped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Any, ...]:
    """Group the queries by the head of the keys that serves them: (..., H, L, E) -> (..., h, H/h, L, E)."""
    if min(q.ndim, k.ndim, v.ndim) < 3 or k.shape[-3] != v.shape[-3] or q.shape[-3] % k.shape[-3]:
        raise ShapeError(
            f"expected heads of queries that are a multiple of those of keys and values, got {q.shape}, "
            f"{k.shape} and {v.shape}",
            op="scaled_dot_product_attention", shapes=[q.shape, k.shape, v.shape],
            help="heads are axis -3",
        )  # fmt: skip
    groups, heads = k.shape[-3], q.shape[-3]
    if mask is not None and mask.ndim > 2:
        split = (groups, heads // groups) if mask.shape[-3] == heads else (1, 1)
        mask = mask.reshape(*mask.shape[:-3], *split, *mask.shape[-2:])
    q = q.reshape(*q.shape[:-3], groups, heads // groups, *q.shape[-2:])
    return q, k.unsqueeze(-3), v.unsqueeze(-3), mask


def _keep(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """Draw which probabilities dropout leaves, from minimp's generator: (..., L, S)."""
    arrays = [x for x in (q, k, v, mask) if x is not None]
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in arrays))
    shape = (*lead, q.shape[-2], k.shape[-2])
    return Value.make(q.backend.keep_mask(shape, p, rng.generator()), q.backend)
