"""Clipping; oracle: norms in NumPy float64, and values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import minimp as mp
from minimp import optim
from minimp.errors import GradientError, SettingError
from minimp.tensors import Tensor
from tests.optim.helpers import parameter, values
from tests.tolerances import assert_close

finite = st.floats(-(2.0**20), 2.0**20, width=32)


@given(
    st.lists(arrays.arrays(np.float32, st.integers(0, 9), elements=finite), max_size=4), st.floats(0.01, 1e4)
)
def test_the_norm_after_clipping_is_at_most_the_limit(parts: list[np.ndarray], limit: float) -> None:
    """Oracle: the norm in float64; law: never above the limit, and unchanged bits where it was below."""
    params = [parameter(np.zeros_like(part)) for part in parts]
    for param, part in zip(params, parts, strict=True):
        param.grad = mp.tensor(part)
    norm = optim.clip_grad_norm_(params, limit)
    exact = math.sqrt(sum(float((part.astype(np.float64) ** 2).sum()) for part in parts))
    assert_close(norm.item(), exact, "parity_first_loss")
    after = math.sqrt(sum(float((values(p.grad) ** 2).sum()) for p in params))
    assert after <= limit * (1 + 2.0**-22)
    if exact <= limit * (1 - 1e-5) - 1e-5:
        assert all(np.array_equal(values(p.grad), part) for p, part in zip(params, parts, strict=True))


def test_the_norm_of_float16_gradients_does_not_overflow() -> None:
    """Oracle: the norm of 4 times 60000 is 120000, beyond float16; what is clipped is rounded once."""
    param = parameter(np.zeros(4), "float16")
    before = param.grad = Tensor(np.full(4, 60000, np.float16), param.backend)
    norm = optim.clip_grad_norm_(param, 3.0)
    assert norm.item() == 120000.0
    assert norm.format is mp.float32
    coefficient = np.float32(3.0) / (np.float32(120000) + np.float32(1e-6))
    assert param.grad.format is mp.float16
    assert values(param.grad).tolist() == [float(np.float16(np.float32(60000) * coefficient))] * 4
    assert values(before).tolist() == [60000.0] * 4


def test_a_norm_that_is_not_finite_can_be_an_error() -> None:
    """Oracle: the error; no gradient has changed."""
    param = parameter([0.0, 0.0])
    grad = param.grad = mp.tensor([1.0, math.inf])
    with pytest.raises(GradientError, match="the norm of the gradients is inf"):
        optim.clip_grad_norm_([param], 1.0, error_if_nonfinite=True)
    assert param.grad is grad


def test_norms_of_nothing_and_of_wide_tensors() -> None:
    """Oracle: torch's 0 for no gradients; float64 where a tensor is."""
    assert optim.clip_grad_norm_([parameter([1.0])], 1.0).item() == 0.0
    wide = mp.tensor(np.array([3.0, 4.0]))
    assert optim.get_total_norm([wide]).item() == 5.0
    assert optim.get_total_norm(wide).format is mp.float64
    assert optim.get_total_norm(wide, math.inf).item() == 4.0
    assert optim.clip_coefficient(optim.get_total_norm(wide), 2.5) == 2.5 / (5.0 + 1e-6)


def test_values_are_clamped_in_their_own_format() -> None:
    """Oracle: NumPy's clip; 0.1 rounded to float16."""
    param = parameter([0.0, 0.0, 0.0], "float16")
    param.grad = Tensor(np.array([-1.0, 0.05, math.inf], np.float16), param.backend)
    optim.clip_grad_value_(param, 0.1)
    tenth = float(np.float16(0.1))
    assert values(param.grad).tolist() == [-tenth, float(np.float16(0.05)), tenth]


def test_mistakes_are_named() -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(SettingError, match="expected norm_type greater than 0, got 0"):
        optim.clip_grad_norm_([], 1.0, 0)
    with pytest.raises(SettingError, match="expected clip_value of at least 0, got -1"):
        optim.clip_grad_value_([], -1)
