"""Convolutions and sums by name, in blocks: the same bits and bounded memory, whatever the block."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import formats
from minimp.errors import SettingError, ShapeError
from minimp_backends import accumulating, pooling
from minimp_backends.accumulating import (
    conv2d_forward,
    conv2d_input_gradient,
    conv2d_weight_gradient,
    name_for_sums,
    product,
    sum_terms,
)
from minimp_backends.numpy_backend import NumpyBackend
from tests.backends.test_convolution import PLAIN, Definition, cases
from tests.ops.sums import WAYS
from tests.tolerances import assert_bound, dot_bound

Array = np.ndarray[Any, Any]
HALF = formats.float16
NAMES = ("float16", "chunked:4", "pairwise", "kahan", "splitk:3", "exact", "tensorcore:ampere")


def halves(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Float16 values, as the wide arrays that kernels are given."""
    return rng.standard_normal(shape).astype(np.float16).astype(np.float32)


def three(x: Array, w: Array, g: Array, name: str, geometry: dict[str, Any]) -> list[Array]:
    """The three kernels of a convolution."""
    return [
        conv2d_forward(x, w, HALF, name, **geometry),
        conv2d_input_gradient(g, w, x.shape, HALF, name, **geometry),
        conv2d_weight_gradient(x, g, w.shape, HALF, name, **geometry),
    ]


@pytest.mark.parametrize("block", [1, 300, 5000])
@given(case=cases(), name=st.sampled_from(NAMES))
def test_blocks_change_no_bit(block: int, case: tuple[Any, ...], name: str) -> None:
    """Oracle: the same kernels in one block; single rows, single channels and single filters too."""
    (_, *sizes), filters, geometry = case
    rng = np.random.default_rng(3)
    x, w = halves(rng, (3, *sizes)), halves(rng, filters)
    g = halves(rng, conv2d_forward(x, w, HALF, name, **geometry).shape)
    whole = three(x, w, g, name, geometry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accumulating, "BLOCK_BYTES", block)
        patch.setattr(accumulating, "WHOLE_BYTES", block)
        parts = three(x, w, g, name, geometry)
    for a, b in zip(parts, whole, strict=True):
        assert a.dtype == b.dtype == (np.float64 if name == "exact" else np.float32)
        np.testing.assert_array_equal(a, b)


@given(case=cases())
def test_every_geometry_is_the_definition(case: tuple[Any, ...]) -> None:
    """Oracle: the definition in float64, within the bound of a dot product in float32."""
    shape, filters, geometry = case
    rng = np.random.default_rng(4)
    x, w = halves(rng, shape), halves(rng, filters)
    y = conv2d_forward(x, w, HALF, "float32:sequential", **geometry)
    g = halves(rng, y.shape)
    y, dx, dw = three(x, w, g, "float32:sequential", geometry)
    oracle = Definition(x, w, y.shape, geometry)
    oracle.check("forward", y, x, w)
    oracle.check("input", dx, g, w)
    oracle.check("weight", dw, g, x)


def peak(call: Callable[[], Array]) -> int:
    """The most memory that a call holds at once, its result included, in bytes."""
    tracemalloc.start()
    call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("name", ["float16", "chunked:16", "tensorcore:ampere"])
def test_memory_is_bounded_by_the_block(name: str, rng: np.random.Generator, monkeypatch: Any) -> None:
    """Oracle: 20 blocks beside the result, whatever the batch; all columns at once would be 9 times x."""
    monkeypatch.setattr(accumulating, "BLOCK_BYTES", 1 << 16)
    room = 20 << 16
    x, w, g = halves(rng, (96, 8, 16, 16)), halves(rng, (2, 8, 3, 3)), halves(rng, (96, 2, 14, 14))
    assert 9 * x.nbytes > 5 * room
    assert peak(lambda: conv2d_forward(x, w, HALF, name, **PLAIN)) < g.nbytes + room
    assert peak(lambda: conv2d_input_gradient(g, w, x.shape, HALF, name, **PLAIN)) < x.nbytes + room
    if name.startswith("chunked"):  # the others go the same way, step by step
        assert peak(lambda: conv2d_weight_gradient(x, g, w.shape, HALF, name, **PLAIN)) < w.nbytes + room


def test_sums_formed_whole_go_by_channels(rng: np.random.Generator, monkeypatch: Any) -> None:
    """Oracle: one channel's columns, and 12 times as much to work on them; all channels are 16 of these."""
    monkeypatch.setattr(accumulating, "WHOLE_BYTES", 1)
    x, g = halves(rng, (8, 16, 14, 14)), halves(rng, (8, 2, 12, 12))
    channel = 9 * 8 * 12 * 12 * 4
    call = peak(lambda: conv2d_weight_gradient(x, g, (2, 16, 3, 3), HALF, "splitk:4", **PLAIN))
    assert call < 13 * channel


@pytest.mark.parametrize("name", ["float16", "kahan"])
def test_pools_go_by_a_few_images(name: str, rng: np.random.Generator, monkeypatch: Any) -> None:
    """Oracle: the same bits from one block and from a block an image."""
    backend = NumpyBackend()
    x = rng.standard_normal((5, 2, 6, 7)).astype(np.float16)
    options = {"kernel": (3, 3), "stride": (2, 1), "padding": (1, 1)}
    found = []
    for budget in (1, 1 << 30):
        monkeypatch.setattr(pooling, "IMAGE_BYTES", budget)
        y = backend.avg_pool2d(x, options, accumulate=name)
        _, index = backend.max_pool2d(x, options, True)
        g = np.linspace(-1, 1, y.size, dtype=np.float32).reshape(y.shape)
        means = backend.avg_pool2d_input(g, x.shape, options, accumulate=name)
        found.append([y, means, backend.max_pool2d_input(g, index, x.shape, options, accumulate=name)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_empty_batch(rng: np.random.Generator) -> None:
    """Oracle: empty results, and a weight gradient of zeros."""
    x, w = halves(rng, (0, 2, 5, 5)), halves(rng, (3, 2, 3, 3))
    g = np.zeros((0, 3, 3, 3), np.float32)
    y, dx, dw = three(x, w, g, "float16", PLAIN)
    assert (y.shape, dx.shape, dw.shape) == (g.shape, x.shape, w.shape)
    assert not dw.any()
    backend = NumpyBackend()
    pool = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0)}
    assert backend.avg_pool2d(x, pool, accumulate="kahan").shape == (0, 2, 4, 4)
    assert (
        backend.avg_pool2d_input(np.zeros((0, 2, 4, 4)), x.shape, pool, accumulate="float64").shape == x.shape
    )


def test_gradients_of_another_shape_are_refused(rng: np.random.Generator) -> None:
    """Oracle: the gradient must have the output's shape."""
    x, w, g = halves(rng, (2, 4, 5, 5)), halves(rng, (6, 4, 3, 3)), np.zeros((2, 6, 2, 3), np.float32)
    with pytest.raises(ShapeError, match=r"\(2, 6, 3, 3\), got \(2, 6, 2, 3\)"):
        conv2d_weight_gradient(x, g, w.shape, HALF, "float16", **PLAIN)
    with pytest.raises(ShapeError, match=r"\(2, 6, 3, 3\), got \(2, 6, 2, 3\)"):
        conv2d_input_gradient(g, w, x.shape, HALF, "float16", **PLAIN)


def test_the_plain_names_are_blas_and_numpy(rng: np.random.Generator) -> None:
    """Oracle: NumPy's own products and sums in float32 and float64, bit for bit."""
    backend = NumpyBackend()
    for dtype in (np.float16, np.float32, np.float64):
        a, b = rng.standard_normal((5, 40)).astype(dtype), rng.standard_normal((40, 3)).astype(dtype)
        wide = np.float64 if dtype is np.float64 else np.float32
        for name, work in (("float32", wide), ("float64", np.float64)):
            left, right = a.astype(work), b.astype(work)
            np.testing.assert_array_equal(backend.matmul(a, b, accumulate=name), left @ right)
            np.testing.assert_array_equal(backend.sum(a, 0, accumulate=name), left.sum(0))
            assert backend.sum(a, 0, accumulate=name).dtype == work
    assert backend.sum(np.arange(5), accumulate="kahan").dtype == np.int64


@pytest.mark.parametrize("name", WAYS)
def test_batched_products_are_products_one_by_one(name: str, rng: np.random.Generator) -> None:
    """Oracle: the same matrices one at a time; broadcast leading axes; sums of no terms are +0."""
    a, b = halves(rng, (2, 1, 3, 20)), halves(rng, (4, 20, 5))
    whole = product(a, b, HALF, name)
    assert whole.shape == (2, 4, 3, 5)
    for i, j in np.ndindex(2, 4):
        np.testing.assert_array_equal(whole[i, j], product(a[i, 0], b[j], HALF, name))
    nothing = product(a[..., :0], b[:, :0], HALF, name)
    assert not nothing.any()
    assert not np.signbit(nothing).any()


@pytest.mark.parametrize("name", ["float64", *(n for n in WAYS if not n.startswith("tensorcore"))])
def test_sums_take_any_axes(name: str, rng: np.random.Generator) -> None:
    """Oracle: NumPy's shapes, and its float64 sums within the bound of 60 roundings in bfloat16."""
    x = halves(rng, (3, 4, 5))
    for axis in (None, 0, -1, (0, 2), (2, 0), (-1, 0, 1), ()):
        for keep in (False, True):
            found = NumpyBackend().sum(x, axis, keep, accumulate=name)
            wanted = x.astype(np.float64).sum(axis=axis, keepdims=keep)
            mass = np.abs(x).astype(np.float64).sum(axis=axis, keepdims=keep)
            bound = dot_bound(wanted, mass, 61, formats.bfloat16.dtype, np.float32)
            assert_bound(found, wanted, bound, "dot_product")


def test_names_for_sums() -> None:
    """Oracle: a matrix unit adds products only; every other name adds sums too."""
    for name in (*WAYS, "float32", "float64", "chunked:7"):
        assert name_for_sums(name) == ("float32" if name.startswith("tensorcore:") else name)


def test_float64_terms_are_refused_by_narrower_names(rng: np.random.Generator) -> None:
    """Oracle: the message says what the name sums in and what to use."""
    x = rng.standard_normal((3, 4))
    with pytest.raises(SettingError, match=r"'chunked:4' sums in float16, which cannot hold float64 terms"):
        sum_terms(x, 0, mp.float64, "chunked:4")
    exact = sum_terms(np.array([[1.0, 1e-300, -1.0]]), 1, mp.float64, "exact")
    assert exact.tolist() == [1e-300]
