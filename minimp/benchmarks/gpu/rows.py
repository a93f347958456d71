"""What is computed row by row, forward and backward: float16 in and out, float32 inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from minimp import functional
from minimp.backend import use_backend
from minimp.benchmarks.gpu.jobs import OURS, ROOF, TORCH, Aim, Bench, Job
from minimp.benchmarks.gpu.products import random_array
from minimp.tensors import Tensor, tensor

__all__ = ["BYTES", "both_ways", "rows"]

BYTES = {"softmax": 10, "layer_norm": 10, "cross_entropy": 6}
"""Bytes that a number must move: what is read and written in 2 bytes, forward and backward together."""


def rows(bench: Bench) -> Iterator[Job]:
    """Softmax, layer norm and cross-entropy over the last axis, forward and backward."""
    count, width = bench.sizes.rows
    for name, moved in BYTES.items():
        contenders: dict[str, Callable[[], object]] = {OURS: both_ways(bench, name)}
        if bench.torch is not None:
            contenders[TORCH] = bench.torch.row_op(name, count, width)
        yield Job(
            f"{name} of {count} x {width} fp16", contenders, float(moved) * count * width,
            aims=(Aim(ROOF, 0.75), Aim(TORCH, 0.8)),
        )  # fmt: skip


def both_ways(bench: Bench, name: str) -> Callable[[], object]:
    """Return a call of the op and its backward on the same input."""
    (count, width), backend = bench.sizes.rows, bench.backend
    x, given = (
        random_array(bench, (count, width), "float16"),
        random_array(bench, (count, width), "float16", 1),
    )
    with use_backend(backend.name):
        labels = tensor(np.random.default_rng(0).integers(0, width, count))
        shape, grad = (width,), Tensor(given, backend)

    def call() -> None:
        source = Tensor(x, backend)
        source.requires_grad = True
        if name == "cross_entropy":
            functional.cross_entropy(source, labels).backward()
        elif name == "softmax":
            functional.softmax(source, -1).backward(grad)
        else:
            functional.layer_norm(source, shape).backward(grad)

    return call
