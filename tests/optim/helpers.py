"""What several tests of optimizers share."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp import nn, optim
from tests.arrays import host

SEED = 20180215


def parameter(values: Any, dtype: str = "float32") -> nn.Parameter:
    """Return a parameter in a format, its values rounded to it."""
    made = nn.Parameter(np.asarray(values, np.float32))
    holder = nn.Module()
    holder.register_parameter("p", made)
    holder.to(dtype)
    return made


def values(leaf: Any) -> np.ndarray[Any, Any]:
    """Return a leaf's, or an array's, values in float64."""
    return host(leaf).astype(np.float64)


def gradients(count: int, shape: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    """Return float32 gradients that keep a common trend, as those of a loss do."""
    rng = np.random.default_rng(SEED)
    trend = rng.standard_normal(shape)
    return [(trend + rng.standard_normal(shape)).astype(np.float32) for _ in range(count)]


def run(
    kind: str, start: Any, steps: list[Any], *, dtype: str = "float32", **options: Any
) -> tuple[nn.Parameter, optim.Optimizer]:
    """Run one optimizer over one parameter, and return both."""
    param = parameter(start, dtype)
    optimizer: optim.Optimizer = getattr(optim, kind)([param], **options)
    for grad in steps:
        optimizer.step(gradients={param: grad})
    return param, optimizer
