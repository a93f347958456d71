"""Single roundings: what 16-bit arithmetic gives when it computes in float32 and rounds once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import formats, ops
from tests.ops.samples import numbers

LOW = ("float16", "bfloat16")


def every_value(fmt: str) -> np.ndarray[Any, Any]:
    """Return all 65,536 codes of a 16-bit format."""
    return np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(formats.get(fmt).dtype)


@pytest.mark.parametrize("fmt", LOW)
@pytest.mark.parametrize("number", [0.1, -3.0, 1e-3, 1.0, 0.0])
def test_a_number_keeps_the_tensors_format(fmt: str, number: float) -> None:
    """Oracle: NumPy: float32(x) float32(number), rounded once; every value of the format, both sides."""
    x = every_value(fmt)
    with np.errstate(all="ignore"):
        wanted = (x.astype(np.float32) * np.float32(number)).astype(x.dtype)
        added = (np.float32(number) - x.astype(np.float32)).astype(x.dtype)
    tensor = mp.tensor(x)
    for made in (tensor * number, number * tensor):
        assert made.format.name == fmt
        np.testing.assert_array_equal(made.numpy().astype(np.float64), wanted.astype(np.float64))
    np.testing.assert_array_equal((number - tensor).numpy().astype(np.float64), added.astype(np.float64))


@pytest.mark.parametrize("kind", ["normal", "wide", "subnormal", "large", "ties"])
@pytest.mark.parametrize("fmt", LOW)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "sqrt"])
def test_arithmetic_is_correctly_rounded(name: str, fmt: str, kind: str) -> None:
    """Oracle: minimp.formats.arithmetic, the exact result rounded once.

    A float32 result rounded again to p bits is as good as once where 24 >= 2 p + 2 (Figueroa 1995): p = 11
    and 8. Below bfloat16's normal numbers float32 itself loses bits, and the rule ends.
    """
    random = np.random.default_rng(6)
    count = 1 if name == "sqrt" else 2
    arrays = [numbers(random, (3000,), fmt, kind) for _ in range(count)]
    with np.errstate(all="ignore"):
        wanted = formats.arithmetic(name, *arrays, fmt=fmt)
    made = ops.OPS[name](*(mp.tensor(a, dtype=fmt) for a in arrays)).numpy().astype(np.float64)
    normal = np.abs(wanted) >= formats.get(fmt).smallest_normal
    judged = normal | (wanted == 0) if fmt == "bfloat16" and name in ("mul", "div") else np.ones(3000, bool)
    assert judged.any()
    np.testing.assert_array_equal(made[judged], wanted[judged])


@pytest.mark.parametrize("target", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("source", ["float64", "float32", "float16", "bfloat16"])
def test_casts_round_once_and_their_gradients_cast_back(source: str, target: str) -> None:
    """Oracle: minimp.formats.round, to nearest even, in both directions; float64 skips float32 on its way."""
    x = numbers(np.random.default_rng(7), (4000,), source, "wide")
    near_ties = np.array([1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-11 - 2.0**-40, 1 + 2.0**-8 + 2.0**-40])
    x = np.concatenate([x, formats.round(near_ties, source)])
    leaf = mp.tensor(x, dtype=source, requires_grad=True)
    y = leaf.to(target)
    if source == target:
        assert y is leaf
        return
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y.detach().numpy().astype(np.float64), formats.round(x, target))
        incoming = numbers(np.random.default_rng(8), y.shape, target, "wide")
        y.backward(mp.tensor(incoming, dtype=target))
        back = formats.round(incoming, source)
    assert leaf.grad.format.name == source
    np.testing.assert_array_equal(leaf.grad.numpy().astype(np.float64), back)


def test_integers_stay_exact_and_become_float32_where_they_must() -> None:
    """Oracle: torch: sums of integers are int64, their quotients and means float32, and so is int * 0.5."""
    x = mp.tensor(np.array([2**40, 3, -4]))
    assert (x + x).numpy().tolist() == [2**41, 6, -8]
    assert x.sum().dtype == np.int64
    assert x.sum().item() == 2**40 - 1
    assert mp.tensor(np.array([1, 2], np.int32)).sum().dtype == np.int64
    for made in (x / 2, x.mean(), x * 0.5, x.exp(), x.softmax(0)):
        assert made.dtype == np.float32
    assert (x > 0).numpy().tolist() == [True, True, False]
