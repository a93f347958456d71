"""Calls of recurrences over a sequence."""

from __future__ import annotations

from typing import Any

import minimp as mp
from minimp.ops import OPS
from tests.ops.samples.base import Sample


def _run(name: str, **options: Any) -> Any:
    """Return a call with an eighth of the parameters: a gate that is 1 in 16 bits alone has no slope."""
    states = KINDS[name][1]

    def call(*inputs: mp.Tensor) -> mp.Tensor:
        parameters = (each * 0.125 for each in inputs[1 + states :])
        return OPS[name](*inputs[: 1 + states], *parameters, **options)

    return call


def _shapes(
    gates: int, states: int, steps: int = 3, rows: int = 2, inner: int = 4, size: int = 3
) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the inputs, biases last."""
    first = [(rows, size)] * states
    weights = [(gates * size, inner), (gates * size, size), (gates * size,), (gates * size,)]
    return ((steps, rows, inner), *first, *weights)


KINDS = {"lstm": (4, 2), "gru": (3, 1), "rnn_tanh": (1, 1), "rnn_relu": (1, 1)}
SAMPLES = [
    sample
    for name, kind in KINDS.items()
    for sample in (
        Sample(name, _run(name), _shapes(*kind)),
        Sample(name, _run(name, reverse=True), _shapes(*kind)[:-2], "reverse_without_biases"),
        Sample(name, _run(name), _shapes(*kind, steps=1, rows=0), "no_rows"),
    )
]
