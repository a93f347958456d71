"""Integers and booleans beside torch 2.13.0: the values, and the dtype that a result has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch
Call = Callable[[Any, Any], Any]

BOTH: dict[str, Call] = {  # of integers and of booleans
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b, "not": lambda a, _: ~a,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "ge": lambda a, b: a >= b,
    "add": lambda a, b: a + b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "add a number": lambda a, _: 2 + a, "mul by a half": lambda a, _: a * 0.5,
    "sum": lambda a, _: a.sum(0), "prod": lambda a, _: a.prod(1), "amax": lambda a, _: a.amax(1),
    "cumsum": lambda a, _: a.cumsum(0), "cumprod": lambda a, _: a.cumprod(0), "max": lambda a, _: a.max(),
    "maximum": lambda a, b: a.maximum(b), "sort": lambda a, _: a.sort(1).values,
    "any": lambda a, _: a.any(1), "all": lambda a, _: a.all(1), "count": lambda a, _: a.count_nonzero(1),
    "logical_not": lambda a, _: a.logical_not(), "logical_and": lambda a, b: a.logical_and(b),
    "logical_or": lambda a, b: a.logical_or(b), "logical_xor": lambda a, b: a.logical_xor(b),
    "exp": lambda a, _: a.exp(), "tanh": lambda a, _: a.tanh(), "tril": lambda a, _: a.tril(),
    "isnan": lambda a, _: a.isnan(), "isinf": lambda a, _: a.isinf(), "isfinite": lambda a, _: a.isfinite(),
    "where": lambda a, b: a.where(a > b, b), "flip": lambda a, _: a.flip(0),
    "roll": lambda a, _: a.roll(1, 0), "diag": lambda a, _: a.diag(),
    "reciprocal": lambda a, _: (a + 7).reciprocal(),
}  # fmt: skip
NUMBERS: dict[str, Call] = {  # of integers only
    "sub": lambda a, b: a - b, "mod": lambda a, b: a % b, "pow": lambda a, b: a ** abs(b),
    "neg": lambda a, _: -a, "abs": lambda a, _: abs(a), "argmin": lambda a, _: a.argmin(1),
    "clamp": lambda a, _: a.clamp(0, 1),
    "sqrt": lambda a, _: abs(a).sqrt(), "sign": lambda a, _: a.sign(), "floor": lambda a, _: a.floor(),
    "square": lambda a, _: a.square(), "relu": lambda a, _: a.relu(),
    "masked_fill": lambda a, b: a.masked_fill(a > b, 3),
}  # fmt: skip
CASES = [
    *((dtype, name) for dtype in ("int64", "int32", "uint8") for name in (*BOTH, *NUMBERS)),
    *(("bool", name) for name in BOTH),
]
BYTES = {"any", "all"}
"""Of uint8, torch gives uint8 for the sake of old programs; here a truth value is a boolean."""


@pytest.mark.parametrize(("dtype", "name"), CASES)
def test_integers_compute_as_torchs(dtype: str, name: str) -> None:
    """Oracle: torch on the same elements: values to a float32's last places, and the dtype."""
    random = np.random.default_rng(len(name))
    least = 0 if dtype in ("uint8", "bool") else -4
    a, b = random.integers(least, 5, (3, 4)).astype(dtype), random.integers(1, 4, (3, 4)).astype(dtype)
    call = (BOTH | NUMBERS)[name]
    got, wanted = call(mp.tensor(a), mp.tensor(b)), call(torch.tensor(a), torch.tensor(b))
    np.testing.assert_array_max_ulp(
        got.numpy().astype(np.float32), wanted.float().numpy(), 4 if got.format is not None else 0
    )
    if not (dtype == "uint8" and name in BYTES):
        assert got.dtype.name == str(wanted.dtype).removeprefix("torch.")
