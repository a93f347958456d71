"""Calls of the ops that every network has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minimp as mp
from minimp import functional, ops
from tests.ops.samples.base import FLOATS, LABELS, WEIGHTS, S, Sample, by_name


def _unary() -> list[Sample]:
    names = ["neg", "abs", "exp", "log", "sqrt", "reciprocal", "relu", "tanh", "sigmoid", "gelu"]
    made = [Sample(name, by_name(name), shapes) for name in names for shapes in [(S,), ((),), ((0, 3),)]]
    made.append(Sample("gelu", lambda x: ops.gelu(x, approximate="tanh"), options="tanh"))
    made += [Sample("cast", _to(name), options=f"to_{name}") for name in FLOATS]
    return made


def _binary() -> list[Sample]:
    made = []
    for name in ("add", "sub", "mul", "div"):
        made += [
            Sample(name, by_name(name), (S, S)),
            Sample(name, by_name(name), ((7, 1), (5,)), "broadcast"),
            Sample(name, by_name(name), ((2, 0), (1, 1))),
            Sample(name, lambda x, name=name: by_name(name)(x, 0.1), options="by_number"),
            Sample(name, lambda x, name=name: by_name(name)(3, x), options="of_number"),
        ]
    made += [Sample("pow", ops.pow_, (S, S)), Sample("pow", lambda p: ops.pow_(2.5, p), options="of_number")]
    made += [
        Sample("pow", lambda x, p=p: ops.pow_(x, p), options=f"to_{p}") for p in (2, 3.0, -1, 0.5, 0, -2.5)
    ]
    return made


def _products() -> list[Sample]:
    def conv(**options: Any) -> Callable[..., mp.Tensor]:
        return lambda *inputs: functional.conv2d(*inputs, **options)

    return [
        Sample("matmul", ops.matmul, ((6, 9), (9, 4))),
        Sample("matmul", ops.matmul, ((6, 9), (9,))),
        Sample("matmul", ops.matmul, ((9,), (9, 4))),
        Sample("matmul", ops.matmul, ((9,), (9,))),
        Sample("matmul", ops.matmul, ((2, 1, 6, 9), (3, 9, 4))),
        Sample("matmul", ops.matmul, ((6, 0), (0, 4))),
        Sample("linear", ops.linear, ((6, 9), (4, 9), (4,))),
        Sample("linear", ops.linear, ((2, 6, 9), (4, 9))),
        Sample("linear", ops.linear, ((9,), (4, 9), (4,))),
        Sample("linear", ops.linear, ((2, 3, 0), (4, 0), (4,))),
        Sample("linear", ops.linear, ((0, 3, 9), (4, 9), (4,))),
        Sample("conv2d", conv(stride=(2, 1), padding=(1, 2), groups=2), ((2, 4, 6, 5), (6, 2, 3, 3), (6,))),
        Sample("conv2d", conv(dilation=(2, 1)), ((2, 3, 7, 7), (2, 3, 3, 2))),
    ]


def _reductions() -> list[Sample]:
    made = []
    for options in ({}, {"dim": 0}, {"dim": (0, 1), "keepdim": True}):
        text = "_".join(f"{key}{value}" for key, value in options.items()).replace(" ", "")
        for name in ("sum", "mean", "amax"):
            tie_free = name == "amax"
            made.append(
                Sample(
                    name,
                    lambda x, name=name, o=options: by_name(name)(x, **o),
                    options=text,
                    tie_free=tie_free,
                )
            )
    made += [
        Sample("sum", lambda x: x.sum(1, dtype="float16"), options="to_float16"),
        Sample("sum", ops.sum_, ((),)),
        Sample("mean", ops.mean, ((),)),
        Sample("sum", ops.sum_, ((0, 3),)),
        Sample("softmax", lambda x: functional.softmax(x, 0), options="dim0"),
        Sample("softmax", functional.softmax),
        Sample("log_softmax", lambda x: functional.log_softmax(x, 0), options="dim0"),
        Sample("log_softmax", functional.log_softmax),
    ]
    return made


def _norms() -> list[Sample]:
    plane = (3, 4, 5)
    made = [
        Sample("layer_norm", lambda x, w, b: functional.layer_norm(x, 5, w, b), (S, (5,), (5,))),
        Sample("layer_norm", lambda x, w: functional.layer_norm(x, (4, 5), w), (plane, (4, 5))),
        Sample("layer_norm", lambda x: functional.layer_norm(x, [5], eps=0.5), (plane,), "bare"),
        Sample("layer_norm", lambda x, b: functional.layer_norm(x, (5,), None, b), ((5,), (5,)), "bias"),
        Sample("rms_norm", lambda x, w: functional.rms_norm(x, 5, w), (S, (5,))),
        Sample("rms_norm", lambda x: functional.rms_norm(x, (4, 5), eps=0.25), (plane,), "bare"),
    ]
    for p, dim in [(2, None), (1, 0), (float("inf"), 1), (2, (0, 1)), (3, 1), (0.5, 0), (2.5, -1)]:
        made.append(
            Sample(
                "linalg_vector_norm", lambda x, p=p, d=dim: functional.vector_norm(x, p, d, True),
                options=f"p{p}_dim{dim}".replace(" ", ""), tie_free=p == float("inf"),
            )
        )  # fmt: skip
    return [
        *made,
        Sample("linalg_vector_norm", lambda x: x.norm(), options="flat"),
        Sample("linalg_vector_norm", lambda x: functional.vector_norm(x, 1, 1), options="squeezed"),
        Sample("linalg_vector_norm", lambda x: functional.vector_norm(x, dtype="float64"), options="wider"),
        Sample("linalg_vector_norm", functional.vector_norm, ((),)),
    ]


def _losses() -> list[Sample]:
    made = []
    for how in ("mean", "sum", "none"):
        made += [
            Sample("mse_loss", lambda x, t, how=how: functional.mse_loss(x, t, reduction=how), (S, S), how),
            Sample("nll_loss", lambda x, how=how: functional.nll_loss(x, LABELS, reduction=how), options=how),
            Sample("nll_loss", lambda x, how=how: _smoothed(x, how), options=f"weighted_smoothed_{how}"),
        ]
    return made


def _smoothed(x: mp.Tensor, how: str) -> mp.Tensor:
    weight = mp.tensor(WEIGHTS, dtype=x.format)
    return functional.cross_entropy(x, LABELS, weight, reduction=how, label_smoothing=0.1)


def _shaping() -> list[Sample]:
    return [
        Sample("clone", lambda x: x.clone()),
        Sample("reshape", lambda x: x.reshape(5, -1)),
        Sample("permute", lambda x: x.permute(2, 0, -2), ((2, 3, 4),)),
        Sample("expand", lambda x: x.expand(3, -1, 5), ((7, 1),)),
        Sample("getitem", lambda x: x[1:, ::2], options="slices"),
        Sample("getitem", lambda x: x[np.array([0, 0, 3, 0])], options="repeated"),
        Sample("getitem", lambda x: x[x.numpy() > 0] if not x.requires_grad else x[2], options="row"),
        Sample("cat", lambda *inputs: functional.cat(inputs, 0), (S, (3, 5))),
        Sample("cat", lambda *inputs: functional.cat(inputs, -1), (S, (7, 2), (7, 1))),
        Sample("dropout", lambda x: functional.dropout(x, 0.3)),
        Sample("dropout", lambda x: functional.dropout(x, 1.0), options="all"),
    ]


def _pooling() -> list[Sample]:
    images = ((2, 3, 7, 6),)
    made = [
        Sample("max_pool2d", lambda x, o=o: functional.max_pool2d(x, *o), images, f"number{i}", tie_free=True)
        for i, o in enumerate([(3, 2, 1), ((2, 3), 2, 0, 1, True), (2, 1, 1, 2)])
    ]
    options: list[dict[str, Any]] = [{}, {"count_include_pad": False}, {"ceil_mode": True}]
    return made + [
        Sample("avg_pool2d", lambda x, o=o: functional.avg_pool2d(x, 3, 2, 1, **o), images, f"number{i}")
        for i, o in enumerate(options)
    ]


def _comparisons() -> list[Sample]:
    two = [
        Sample(name, lambda a, b, name=name: by_name(name)(a.detach(), b.detach()), (S, S))
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
    ]
    return [
        *two,
        Sample("isfinite", lambda x: ops.isfinite(x.detach())),
        Sample("argmax", lambda x: ops.argmax(x.detach(), dim=1)),
        Sample("argmax", lambda x: ops.argmax(x.detach()), options="flat"),
    ]


def _to(name: str) -> Callable[..., mp.Tensor]:
    return lambda x: ops.cast(x, format=mp.formats.get(name))


SAMPLES = [
    *_unary(), *_binary(), *_products(), *_reductions(), *_norms(), *_losses(), *_shaping(), *_pooling(),
    *_comparisons(),
]  # fmt: skip
