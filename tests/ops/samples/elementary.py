"""Calls of elementary functions, steps, blends and truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minimp as mp
from minimp import functional, ops
from tests.ops.samples.base import S, Sample, by_name

NAMES = ("atan", "cos", "erf", "expm1", "log1p", "log2", "log10", "rsqrt", "sin", "sinh", "cosh", "tan")
STEPS = ("sign", "floor", "ceil", "round", "trunc")
WHOLE = np.arange(35).reshape(S) % 7


def _within_one(name: str) -> Callable[..., mp.Tensor]:
    """Call a function that is defined from -1 to 1."""
    return lambda x: by_name(name)(x.tanh() * 0.9375)


def _truth(name: str) -> Callable[..., mp.Tensor]:
    return lambda *inputs: by_name(name)(*(x.detach() for x in inputs))


def _whole(name: str) -> Callable[..., mp.Tensor]:
    return lambda x: by_name(name)(mp.tensor(WHOLE), (x.detach() > 0))


def _reduced(name: str, **options: Any) -> Callable[..., mp.Tensor]:
    return lambda x: by_name(name)(x.detach(), **options)


SAMPLES = [
    *(Sample(name, by_name(name)) for name in NAMES),
    *(Sample(name, lambda x, name=name: by_name(name)(x.T), ((),)) for name in NAMES[::2]),
    *(Sample(name, by_name(name), ((0, 3),)) for name in NAMES[1::2]),
    *(Sample(name, _within_one(name), shape) for name in ("asin", "acos") for shape in [(S,), ((),)]),
    *(Sample(name, by_name(name), shape) for name in STEPS for shape in [(S,), ((),), ((0, 3),)]),
    Sample("atan2", ops.atan2, (S, S)),
    Sample("atan2", ops.atan2, ((7, 1), (5,))),
    Sample("remainder", lambda a, b: a % b, (S, S)),
    Sample("remainder", lambda a: a % 0.75, ((3, 0),)),
    Sample("remainder", lambda b: 2 % b, ((),), "of_number"),
    Sample("lerp", functional.lerp, (S, S, S)),
    Sample("lerp", functional.lerp, ((7, 1), (5,), ()), "broadcast"),
    Sample("lerp", lambda a, b: a.lerp(b, 0.3), (S, S), "number"),
    Sample("addcmul", lambda *inputs: functional.addcmul(*inputs, value=0.3), (S, S, S)),
    Sample("addcmul", functional.addcmul, ((5,), (7, 1), (1, 5)), "broadcast"),
    Sample("addcdiv", lambda *inputs: functional.addcdiv(*inputs, value=-0.3), (S, S, S)),
    Sample("addcdiv", functional.addcdiv, ((0, 2), (2,), ())),
    *(Sample(name, _truth(name)) for name in ("isnan", "isinf", "logical_not")),
    *(Sample(name, _truth(name), (S, S)) for name in ("logical_and", "logical_or", "logical_xor")),
    *(Sample(name, _whole(name)) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")),
    Sample("bitwise_not", lambda x: ~(x.detach() > 0)),
    *(Sample(name, _reduced(name)) for name in ("all", "any", "count_nonzero")),
    *(Sample(name, _reduced(name, dim=(0, -1)), ((2, 3, 4),)) for name in ("all", "any", "count_nonzero")),
]
