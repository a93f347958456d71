"""Attention by kernels of ours: their bounds, and the array functions that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional
from minimp_backends.kernels.references import attention
from minimp_backends.strict.counts import DEVICE
from tests.backends.test_cupy_rows import UNIT, numbers
from tests.tolerances import assert_bound, assert_close

Array = np.ndarray[Any, Any]
SCALE = 0.25
TAKEN = ["attention_weights", "attention_slopes"]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 5, 256, 300, 9001])
def test_bounds(length: int, causal: bool) -> None:
    """Oracle: float64, from the same ln sum e^s for the gradient; 40 roundings, and those of the exponent."""
    products, r = numbers((4, length), seed=length), numbers((4, length), seed=length + 1)
    p, slopes, log_sum = np.empty_like(products), np.empty_like(products), np.empty((4, 1), np.float32)
    how = {"scale": SCALE, "causal": int(causal), "queries": 4, "rows": 4, "length": length}
    attention.attention_weights(products, p, log_sum, **how)
    seen = np.tri(4, length, dtype=bool) if causal else np.ones((4, length), bool)
    s = np.where(seen, products.astype(np.float64) * SCALE, -np.inf)
    top = s.max(1, keepdims=True)
    exact = top + np.log(np.exp(s - top).sum(1, keepdims=True))
    wide = np.exp(s - exact)
    size = np.where(seen, np.abs(s), 0) + np.abs(s.max(1, keepdims=True))
    far = (3 * (size + size.max(1, keepdims=True)) + 40) * UNIT
    assert_bound(p, wide, wide * far, "row_kernels")
    assert_bound(log_sum, exact, far.max(1, keepdims=True), "row_kernels")
    attention.attention_slopes(products, log_sum, r, p, slopes, **how)
    assert_bound(p, wide, wide * 2 * far, "row_kernels")
    inner, sizes = ((wide * each).sum(1, keepdims=True) for each in (r, np.abs(r)))
    assert_bound(slopes, wide * (r - inner), 4 * far.max() * wide * (np.abs(r) + sizes), "row_kernels")


MASKS: dict[str, Any] = {
    "bare": lambda rng: {},
    "causal": lambda rng: {"is_causal": True},
    "bool": lambda rng: {"attn_mask": rng.random((6, 9)) < 0.4},
    "bias": lambda rng: {"attn_mask": rng.standard_normal((2, 3, 6, 9)).astype(np.float32)},
    "nothing": lambda rng: {"attn_mask": np.zeros((6, 9), bool)},
}


def run(q: Array, k: Array, v: Array, stored: str, settings: dict[str, Any]) -> list[Array]:
    """Return the result and the gradients on the device."""
    q, k, v = (mp.tensor(each, dtype=stored, requires_grad=True, backend="cupy") for each in (q, k, v))
    given = {
        name: mp.tensor(each, backend="cupy") if isinstance(each, np.ndarray) else each
        for name, each in settings.items()
    }
    if given.get("attn_mask") is not None and given["attn_mask"].format is not None:
        given["attn_mask"] = given["attn_mask"].to(q.dtype)
    y = functional.scaled_dot_product_attention(q, k, v, **given)
    y.backward(mp.tensor(numbers(y.shape, stored, 9), backend="cupy"))
    return [each.numpy().astype(np.float32) for each in (y.detach(), q.grad, k.grad, v.grad)]


@pytest.mark.parametrize("stored", ["float32", "float16"])
@pytest.mark.parametrize("masks", MASKS)
def test_attention_is_that_of_the_arrays(device: Any, masks: str, stored: str) -> None:
    """Oracle: the array functions; bits where no query sees a key, which gives 0 and takes no gradient."""
    settings = MASKS[masks](np.random.default_rng(1))
    q, k, v = (numbers(shape, seed=k) for k, shape in enumerate(((2, 3, 6, 8), (2, 3, 9, 8), (2, 3, 9, 5))))
    made = run(q, k, v, stored, settings)
    assert device.ran == TAKEN
    with device.use_route("arrays"):
        wanted = run(q, k, v, stored, settings)
    for one, other in zip(made, wanted, strict=True):
        unit = 0.0 if stored == "float32" else 2.0**-10
        assert_bound(one, other, (unit + 256 * UNIT) * np.abs(other).max(), "row_kernels")
    assert masks != "nothing" or not any(each.any() for each in made)


def test_axes_in_front_broadcast(device: Any) -> None:
    """Oracle: the array functions: values or queries of more heads than the scores have."""
    for shapes in (
        ((6, 8), (9, 8), (3, 9, 5)),
        ((3, 6, 8), (9, 8), (9, 5)),
        ((2, 1, 6, 8), (3, 9, 8), (9, 5)),
    ):
        q, k, v = (numbers(shape, seed=place) for place, shape in enumerate(shapes))
        made = run(q, k, v, "float32", {})
        with device.use_route("arrays"):
            wanted = run(q, k, v, "float32", {})
        for one, other in zip(made, wanted, strict=True):
            assert one.shape == other.shape
            assert_close(one, other, "parity_gradient_fp32")


def test_what_kernels_do_not_take_goes_to_the_arrays(device: Any) -> None:
    """Oracle: the NumPy backend: float64, sums by name, no keys."""
    q = numbers((2, 4, 8), "float64")
    made = functional.scaled_dot_product_attention(*(mp.tensor(q, backend="cupy"),) * 3)
    assert_close(
        made.numpy(), functional.scaled_dot_product_attention(*(mp.tensor(q),) * 3).numpy(), "fp64_sums"
    )
    single = mp.tensor(q.astype(np.float32), backend="cupy", requires_grad=True)
    for accumulate in ("float64", "pairwise"):
        with mp.accumulate(accumulate):
            functional.scaled_dot_product_attention(single, single, single).sum().backward()
    none = mp.tensor(np.zeros((2, 0, 8), np.float32), backend="cupy")
    y = functional.scaled_dot_product_attention(mp.tensor(q.astype(np.float32), backend="cupy"), none, none)
    assert not y.numpy().any()
    assert device.ran == []


def test_the_scores_are_gone_through_once(device: Any) -> None:
    """Oracle: the device's own count: products, probabilities, ln sum e^s, result, and the factors wide."""
    q = mp.tensor(numbers((3, 16, 8)), backend="cupy")
    with DEVICE.counting() as kernels, mp.no_grad():
        functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    with device.use_route("arrays"), DEVICE.counting() as arrays, mp.no_grad():
        functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    assert kernels.allocations <= 6 < 2 * kernels.allocations < arrays.allocations
    assert kernels.syncs == arrays.syncs == 0
