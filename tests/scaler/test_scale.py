"""Scaling outputs; oracle: PyTorch 2.13.0 as measured, where a test names it."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import ScalerError, SettingError
from minimp.scaler import GradScaler

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("dtype", "shape", "result"),
    [
        ("float16", (2,), "float16"), ("float16", (), "float32"), ("bfloat16", (2,), "bfloat16"),
        ("bfloat16", (), "float32"), ("float32", (), "float32"), ("float64", (2,), "float64"),
        ("float64", (), "float64"), ("int64", (2,), "float32"), ("int64", (), "float32"),
        ("bool", (1,), "float32"),
    ],
)  # fmt: skip
def test_scale_promotes_as_a_float32_without_axes(dtype: str, shape: tuple[int, ...], result: str) -> None:
    """Oracle: PyTorch 2.13.0: t * S with S a float32 tensor without axes."""
    scaled = GradScaler(init_scale=4.0).scale(mp.tensor(np.ones(shape), dtype=dtype))
    assert (scaled.dtype.name, scaled.tolist()) == (result, (4 * np.ones(shape)).tolist())


def test_a_float16_vector_may_overflow_and_says_so_by_infinity() -> None:
    """Oracle: PyTorch 2.13.0; the product is taken in float32: S as a float16 would be infinite for all."""
    scaled = GradScaler().scale(mp.tensor([1.0, 0.5, 1.5e-5], dtype="float16"))
    assert scaled.format is mp.float16
    assert scaled.tolist() == [INF, 32768.0, float(np.float16(1.5e-5)) * 65536]


def test_scaling_is_recorded_and_carries_s_into_the_gradient() -> None:
    """Oracle: d(S x)/dx = S, in the formats of the forward."""
    for dtype, seed in [("float32", 0.25), ("float16", 0.25), ("bfloat16", 0.25)]:
        x = mp.tensor([0.5, 2.0], dtype=dtype, requires_grad=True)
        GradScaler(init_scale=1024.0).scale(x).backward(mp.tensor([seed, seed]))
        assert x.grad is not None
        assert x.grad.tolist() == [256.0, 256.0]
    loss = mp.tensor(0.5, dtype="float16", requires_grad=True)
    GradScaler(init_scale=2.0**10).scale(loss).backward()
    assert loss.grad is not None
    assert loss.grad.item() == 1024.0


def test_scale_takes_nested_lists_and_tuples() -> None:
    """Oracle: PyTorch 2.13.0 rebuilds lists and tuples as the same type (it fails on named tuples)."""
    Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - an untyped one is the case
    one = mp.tensor(1.0)
    scaler = GradScaler(init_scale=2.0)
    scaled = scaler.scale([one, (one, [one]), Pair(one, (one,))])
    assert isinstance(scaled, list)
    assert isinstance(scaled[1], tuple)
    assert isinstance(scaled[2], Pair)
    flat = [scaled[0], scaled[1][0], scaled[1][1][0], scaled[2].a, scaled[2].b[0]]
    assert [each.item() for each in flat] == [2.0] * 5


def test_scale_takes_other_iterables_lazily() -> None:
    """Oracle: PyTorch 2.13.0: nothing happens before the result is read."""
    read: list[float] = []

    def outputs() -> Any:
        for value in (1.0, 2.0):
            read.append(value)
            yield mp.tensor(value)

    scaled = GradScaler(init_scale=2.0).scale(outputs())
    assert read == []
    assert [each.item() for each in scaled] == [2.0, 4.0]


@pytest.mark.parametrize("outputs", [3.0, None, "loss", b"loss", {"loss": 1.0}, np.ones(2), [1.0], (None,)])
def test_scale_refuses_what_is_no_tensor(outputs: Any) -> None:
    """Oracle: the contract; PyTorch 2.13.0 refuses numbers at once, and the others when they are used."""
    with pytest.raises(
        SettingError, match=r"GradScaler.scale: expected a tensor, or an iterable of tensors, got"
    ):
        GradScaler().scale(outputs)


def test_an_empty_list_does_not_begin_the_scaler() -> None:
    """Oracle: PyTorch 2.13.0 leaves its lazy state unmade."""
    scaler = GradScaler()
    assert scaler.scale([]) == []
    with pytest.raises(ScalerError, match=r"update\(\) was called before scale\(\)"):
        scaler.update()
