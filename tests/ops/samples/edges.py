"""Calls at the edges of shapes: nothing, no axes, axes repeated inside; for ops whose own file has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minimp as mp
from minimp import functional, ops
from tests.ops.samples.base import Sample, by_name

Shapes = tuple[tuple[int, ...], ...]
NONE, ROWS, COLUMNS = (), (0, 3), (3, 0)
IMAGES = (0, 2, 5, 4)


def _f(name: str, *rest: Any, **options: Any) -> Callable[..., mp.Tensor]:
    return lambda *inputs: getattr(functional, name)(*inputs, *rest, **options)


def _each(names: str, *shapes: Shapes) -> list[Sample]:
    return [Sample(name, by_name(name), each) for name in names.split() for each in shapes]


def _reductions() -> list[Sample]:
    made = [
        Sample(name, lambda x, name=name: by_name(name)(x, dim=1), (ROWS,), "no_rows", tie_free=True)
        for name in ("amax", "amin", "mean", "softmax", "log_softmax", "cumsum", "std")
    ]
    made += [
        Sample(name, lambda x, name=name: by_name(name)(x, dim=1), (COLUMNS,), "no_columns")
        for name in ("softmax", "cumsum", "sum")
    ]
    made += [
        Sample(name, lambda x, name=name: by_name(name)(x, dim=0), (NONE,), "dim0")
        for name in ("softmax", "amax")
    ]
    return [
        *made,
        Sample("linalg_vector_norm", _f("vector_norm", 2, 1), (ROWS,), "no_rows"),
        Sample(
            "layer_norm", lambda x, w, b: functional.layer_norm(x, 3, w, b), (ROWS, (3,), (3,)), "no_rows"
        ),
        Sample("rms_norm", lambda x, w: functional.rms_norm(x, 3, w), (ROWS, (3,)), "no_rows"),
    ]


def _moves() -> list[Sample]:
    return [
        Sample("expand", lambda x: x.expand(2, -1, 4, 3), ((2, 1, 3),), "inner"),
        Sample("expand", lambda x: x.expand(2, 3), (NONE,)),
        Sample("expand", lambda x: x.expand(-1, 4), ((0, 1),)),
        Sample("reshape", lambda x: x.reshape(3, 0), (ROWS,)),
        Sample("reshape", lambda x: x.reshape(1, 1), (NONE,)),
        Sample("permute", lambda x: x.permute(1, 0), (ROWS,)),
        Sample("permute", lambda x: x.permute(), (NONE,)),
        Sample("getitem", lambda x: x[..., None], (NONE,), "new_axis"),
        Sample("getitem", lambda x: x[:, 1:], (ROWS,), "slices"),
        Sample("getitem", lambda x: x[np.zeros(0, np.int64)], ((3, 2),), "no_indices"),
        Sample("cat", lambda *inputs: functional.cat(inputs, 0), (ROWS, (2, 3), ROWS)),
        *_each("clone", (NONE,), (ROWS,)),
        Sample("tril", ops.tril, (ROWS,)),
        Sample("masked_fill", lambda x: x.masked_fill(np.zeros(3, bool), 0.5), (ROWS,)),
        Sample("embedding", lambda w: functional.embedding(np.zeros((2, 0), np.int64), w), ((4, 3),), "none"),
    ]


def _pairs() -> list[Sample]:
    made = _each("add sub mul div pow", (NONE, NONE), ((2, 3), NONE))
    made += _each("pow atan2 maximum", (ROWS, (3,))) + _each("atan2 minimum", (NONE, NONE))
    made += _each("lerp addcmul", (ROWS, (3,), NONE), (NONE, NONE, NONE))
    made += [
        Sample("cast", lambda x: ops.cast(x, format=mp.formats.float64), (each,)) for each in (NONE, ROWS)
    ]
    for name in ("mse_loss", "soft_margin_loss", "kl_div", "binary_cross_entropy_with_logits"):
        made += [Sample(name, _f(name, reduction=how), (ROWS, ROWS), how) for how in ("sum", "none")]
    return [
        *made,
        Sample("mse_loss", functional.mse_loss, (NONE, NONE)),
        Sample(
            "nll_loss",
            lambda x: functional.nll_loss(x, np.zeros(0, np.int64), reduction="sum"),
            (ROWS,),
            "no_rows",
        ),
    ]


def _images() -> list[Sample]:
    return [
        Sample("conv2d", _f("conv2d", padding=1), (IMAGES, (3, 2, 3, 3), (3,)), "no_images"),
        Sample("conv_transpose2d", _f("conv_transpose2d"), (IMAGES, (2, 3, 2, 2), (3,)), "no_images"),
        Sample("max_pool2d", _f("max_pool2d", 2), (IMAGES,), "no_images"),
        Sample("adaptive_max_pool2d", _f("adaptive_max_pool2d", 2), (IMAGES,), "no_images"),
        Sample("avg_pool2d", _f("avg_pool2d", 2), (IMAGES,), "no_images"),
        Sample("upsample_nearest2d", _f("interpolate", scale_factor=2), (IMAGES,), "no_images"),
    ]


SAMPLES = [*_reductions(), *_moves(), *_pairs(), *_images()]
