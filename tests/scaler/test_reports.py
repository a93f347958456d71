"""What a scaler tells about a step; oracle: the faults that each test plants."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import SettingError
from minimp.scaler import GradScaler
from minimp.tensors import Tensor
from tests.scaler.plain import (
    PlainSGD,
    begun,
    parameter,
    set_grad,
)

INF, NAN = math.inf, math.nan


class Model:
    """Something with named parameters."""

    def __init__(self, **params: Tensor) -> None:
        self.params = params

    def named_parameters(self) -> Any:
        """Yield (name, parameter)."""
        yield from self.params.items()


def test_the_last_step_says_what_happened_and_where() -> None:
    """Oracle: the faults that were planted, by name, by the optimizer's own names, and by place."""
    w, b, c, d = (parameter(0.0, 0.0) for _ in range(4))
    optimizer = PlainSGD([w, b], [c], [d])
    optimizer.param_groups[2]["param_names"] = ["head.bias"]
    scaler = begun().name_parameters(Model(w=w, b=b))
    assert scaler.last_step is None
    for faults, names in [
        ([b, c], ("b", "parameter 0 of group 1 (2,)")),
        ([d], ("head.bias",)),
        ([w], ("w",)),
    ]:
        for p in (w, b, c, d):
            set_grad(p, 1.0, NAN if any(p is each for each in faults) else 1.0)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.last_step is not None
        assert (scaler.last_step.skipped, scaler.last_step.nonfinite) == (True, names)
    assert (scaler.last_step.consecutive_skips, scaler.last_step.scale) == (3, 2.0)
    assert str(scaler.last_step) == "skipped (3 in a row) at loss scale 2: not finite in w"
    set_grad(w, 1.0, 1.0)
    scaler.step(optimizer)
    assert (scaler.last_step.skipped, scaler.last_step.nonfinite, scaler.last_step.consecutive_skips) == (
        False,
        (),
        0,
    )
    assert str(scaler.last_step) == "stepped at loss scale 1"


def test_names_need_parameters() -> None:
    """Oracle: the contract of name_parameters()."""
    with pytest.raises(SettingError, match=r"expected \(name, parameter\) pairs, got float for 'w'"):
        GradScaler().name_parameters([("w", 1.0)])


def test_a_whole_iteration_on_a_model() -> None:
    """Oracle: the same model in float32 without scaling: powers of two round nothing, so bits are equal."""
    x, w0 = mp.tensor([[1.0, 2.0], [3.0, -1.0]]), np.float32([[0.3, -0.7], [1.1, 0.2]])
    ends = []
    for scaler in (GradScaler(init_scale=2.0**12), GradScaler(enabled=False)):
        w = mp.tensor(w0, requires_grad=True)
        optimizer = PlainSGD([w])
        for _ in range(5):
            w.grad = None
            loss = ((x @ w).tanh() * 0.01).sum()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append(w.detach().numpy())
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], w0)
