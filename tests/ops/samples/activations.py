"""Calls of activation functions with parameters."""

from __future__ import annotations

from minimp import functional
from tests.ops.samples.base import S, Sample

PLAIN = {"silu": functional.silu, "softplus": functional.softplus, "leaky_relu": functional.leaky_relu}
HARD = {
    "hardtanh": functional.hardtanh, "hardsigmoid": functional.hardsigmoid, "hardswish": functional.hardswish,
    "mish": functional.mish, "log_sigmoid": functional.logsigmoid,
}  # fmt: skip

SAMPLES = [
    *(Sample(name, call, shape) for name, call in PLAIN.items() for shape in [(S,), ((),), ((0, 3),)]),
    Sample("softplus", lambda x: functional.softplus(x, beta=2.5, threshold=1.5), options="beta"),
    Sample("leaky_relu", lambda x: functional.leaky_relu(x.T, -0.3), options="steep"),
    Sample("elu", functional.elu),
    Sample("elu", lambda x: functional.elu(x, 0.3), ((0, 3),), "alpha"),
    Sample("elu", lambda x: functional.celu(x, 0.7), options="celu"),
    Sample("elu", functional.selu, ((),), "selu"),
    *(Sample(name, call, shape) for name, call in HARD.items() for shape in [(S,), ((),), ((0, 3),)]),
    Sample("hardtanh", lambda x: functional.hardtanh(x.T, -0.7, 0.3), options="limits"),
    Sample("hardtanh", functional.relu6, options="relu6"),
    Sample("prelu", functional.prelu, (S, (1,))),
    Sample("prelu", functional.prelu, ((2, 3, 4), (3,)), "channels"),
    Sample("prelu", functional.prelu, ((5,), (1,))),
    Sample("prelu", functional.prelu, ((0, 3), (3,))),
    Sample("glu", functional.glu, ((7, 6),)),
    Sample("glu", lambda x: functional.glu(x.T, 0), ((3, 4),), "rows"),
    Sample("glu", functional.glu, ((3, 0),)),
]
