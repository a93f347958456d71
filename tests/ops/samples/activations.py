"""Calls of activation functions with parameters."""

from __future__ import annotations

from minimp import functional
from tests.ops.samples.base import S, Sample

PLAIN = {"silu": functional.silu, "softplus": functional.softplus, "leaky_relu": functional.leaky_relu}

SAMPLES = [
    *(Sample(name, call, shape) for name, call in PLAIN.items() for shape in [(S,), ((),), ((0, 3),)]),
    Sample("softplus", lambda x: functional.softplus(x, beta=2.5, threshold=1.5), options="beta"),
    Sample("leaky_relu", lambda x: functional.leaky_relu(x.T, -0.3), options="steep"),
    Sample("elu", functional.elu),
    Sample("elu", lambda x: functional.elu(x, 0.3), ((0, 3),), "alpha"),
    Sample("elu", lambda x: functional.celu(x, 0.7), options="celu"),
    Sample("elu", functional.selu, ((),), "selu"),
]
