"""Calls of batch and group normalisation, and of layers that normalise with float32 parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minimp as mp
from minimp import ops
from tests.ops.samples.base import Sample

MEAN, VAR = np.array([0.5, -1.0, 2.0]), np.array([0.25, 1.5, 3.0])


def beside(x: mp.Tensor, *parameters: mp.Tensor) -> list[mp.Tensor]:
    """Parameters in float32 beside 16 bits; in the input's format else."""
    return [p.float() if x.format.bits == 16 else p for p in parameters]


def _batch() -> list[Sample]:
    def call(mixed: bool = False, **options: Any) -> Callable[..., mp.Tensor]:
        def run(x: mp.Tensor, *parameters: mp.Tensor) -> mp.Tensor:
            held = beside(x, *parameters) if mixed else parameters
            return ops.batch_norm(x, *held, training=True, **options)

        return run

    def fixed(x: mp.Tensor, *parameters: mp.Tensor) -> mp.Tensor:
        held = beside(x, *parameters)
        statistics = (mp.tensor(a, dtype=x.format if x.format.bits > 16 else "float32") for a in (MEAN, VAR))
        return ops.batch_norm(x, *held, *(None,) * (2 - len(held)), *statistics)

    return [
        Sample("batch_norm", call(), ((5, 3), (3,), (3,))),
        Sample("batch_norm", call(eps=0.25), ((2, 3, 4),), "bare"),
        Sample("batch_norm", call(mixed=True), ((2, 3, 4, 3), (3,), (3,)), "mixed"),
        Sample("batch_norm", call(), ((2, 2, 9, 9), (2,)), "long"),
        Sample("batch_norm", call(), ((0, 3, 4), (3,), (3,)), "empty"),
        Sample("batch_norm", fixed, ((2, 3, 2, 2, 3), (3,), (3,)), "fixed"),
        Sample("batch_norm", fixed, ((4, 3),), "fixed_bare"),
    ]


def _group() -> list[Sample]:
    def call(mixed: bool = False, **options: Any) -> Callable[..., mp.Tensor]:
        def run(x: mp.Tensor, *parameters: mp.Tensor) -> mp.Tensor:
            return ops.group_norm(x, *(beside(x, *parameters) if mixed else parameters), **options)

        return run

    return [
        Sample("group_norm", call(num_groups=2), ((2, 4, 3), (4,), (4,))),
        Sample("group_norm", call(num_groups=1, mixed=True), ((2, 3, 2, 3), (3,), (3,)), "mixed"),
        Sample("group_norm", call(num_groups=3, eps=0.5), ((2, 6, 5),), "bare"),
        Sample("group_norm", call(num_groups=2), ((0, 4, 3), (4,), (4,)), "empty"),
    ]


def _rows() -> list[Sample]:
    return [
        Sample(
            "layer_norm", lambda x, *p: ops.layer_norm(x, *beside(x, *p), normalized_shape=(5,)),
            ((3, 4, 5), (5,), (5,)), "mixed",
        ),
        Sample(
            "rms_norm", lambda x, *p: ops.rms_norm(x, *beside(x, *p), normalized_shape=(5,), eps=0.1),
            ((3, 4, 5), (5,)), "mixed",
        ),
    ]  # fmt: skip


SAMPLES = [*_batch(), *_group(), *_rows()]
