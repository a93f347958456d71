"""Convolutions of signals of codes; oracles: the definitions in int64, images of height 1, and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.backend import get_backend
from minimp.errors import FormatError, MinimpError, SettingError, ShapeError
from minimp_backends.integer_layers import integer_conv_transpose2d
from minimp_backends.integer_signals import (
    integer_conv1d,
    integer_conv1d_reference,
    integer_conv_transpose1d,
    integer_conv_transpose_reference,
)
from minimp_backends.integers import integer_conv2d
from tests.backends.test_integers import DTYPES, codes

BACKEND: Any = get_backend("numpy")


@st.composite
def signals(draw: st.DrawFn, axes: int = 1) -> Any:
    """Draw codes, filters (A, B, K...), zero points, groups, and a size an axis for each setting."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.integers(1, 3))
    size, kernel, stride, dilation, padding = (
        tuple(draw(st.integers(least, most)) for _ in range(axes))
        for least, most in ((4, 9), (1, 4), (1, 3), (1, 3), (0, 3))
    )
    kinds = [draw(st.sampled_from(DTYPES)) for _ in range(2)]
    channels, filters = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    x = codes(rng, (2, groups * channels, *size), kinds[0])
    w = codes(rng, (groups * channels, filters, *kernel), kinds[1])
    zero = codes(rng, draw(st.sampled_from([(), (groups * filters,)])), kinds[1])
    return x, w, int(codes(rng, (), kinds[0])), zero, groups, stride, padding, dilation


@given(signals())
def test_convolutions(case: Any) -> None:
    """Oracle: the definition, and the convolution of images of height 1."""
    x, w, x_zero, w_zero, groups, (stride,), (padding,), (dilation,) = case
    share, filters = w.shape[0] // groups, w.shape[1]
    w = w.reshape(groups, share, filters, -1).swapaxes(1, 2).reshape(groups * filters, share, -1)
    how: Any = (stride, padding, dilation, groups, x_zero, w_zero)
    if x.shape[2] + 2 * padding < dilation * (w.shape[2] - 1) + 1:
        with pytest.raises(ShapeError):
            integer_conv1d(x, w, *how)
        return
    found = integer_conv1d(x, w, *how)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, integer_conv1d_reference(x, w, *how))
    flat: Any = ((1, stride), (0, padding), (1, dilation), groups, x_zero, w_zero)
    np.testing.assert_array_equal(found, integer_conv2d(x[:, :, None], w[:, :, None], *flat)[:, :, 0])
    np.testing.assert_array_equal(found, integer_conv1d(x, w, (stride,), (padding,), (dilation,), *how[3:]))


@given(signals(), st.integers(0, 2))
def test_transposed_convolutions(case: Any, extra: int) -> None:
    """Oracle: the definition, one code and one weight at a time."""
    x, w, x_zero, w_zero, groups, (stride,), (padding,), (dilation,) = case
    extra = min(extra, max(stride, dilation) - 1)
    length = (x.shape[2] - 1) * stride - 2 * padding + dilation * (w.shape[2] - 1) + extra + 1
    how: Any = (stride, padding, extra, groups, dilation, x_zero, w_zero)
    if length < 1:
        with pytest.raises(ShapeError, match="has no output"):
            integer_conv_transpose1d(x, w, *how)
        return
    found = integer_conv_transpose1d(x, w, *how)
    assert (found.dtype, found.shape) == (np.int32, (2, groups * w.shape[1], length))
    tupled: Any = ((stride,), (padding,), (extra,), groups, (dilation,), x_zero, w_zero)
    np.testing.assert_array_equal(found, integer_conv_transpose_reference(x, w, *tupled))


@given(signals(axes=2))
def test_transposed_convolutions_of_images(case: Any) -> None:
    """Oracle: the definition; the sums of images are held to it by another one in test_integer_layers."""
    x, w, x_zero, w_zero, groups, stride, _, dilation = case
    how: Any = (stride, (0, 0), (0, 0), groups, dilation, x_zero, w_zero)
    found = integer_conv_transpose2d(x, w, *how)
    np.testing.assert_array_equal(found, integer_conv_transpose_reference(x, w, *how))


def test_a_transposed_convolution_is_the_adjoint() -> None:
    """Law: <conv(x), y> = <x, transposed(y)> in whole numbers, with zero points of 0."""
    rng = np.random.default_rng(1)
    x, w = codes(rng, (1, 4, 11), np.int8), codes(rng, (6, 2, 3), np.int8)
    y = codes(rng, (1, 6, 5), np.int8)
    forward = integer_conv1d(x, w, 2, 1, 2, 2)
    assert forward.shape == y.shape
    back = integer_conv_transpose1d(y, w, 2, 1, 0, 2, 2)
    left, right = (
        (forward.astype(np.int64) * y).sum(),
        (back.astype(np.int64) * x[..., : back.shape[2]]).sum(),
    )
    assert (left, back.shape[2]) == (right, 11)


@pytest.mark.torch
def test_convolutions_of_torch() -> None:
    """Oracle: torch 2.13 in float64, which is exact on codes: conv1d and conv_transpose1d."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x, w = codes(rng, (2, 4, 20), np.uint8), codes(rng, (4, 2, 5), np.int8)
    real = [torch.from_numpy(each.astype(np.float64)) for each in (x.astype(float) - 9, w)]
    theirs = torch.nn.functional.conv1d(real[0], real[1], None, 2, 3, 2, 2).numpy()
    np.testing.assert_array_equal(integer_conv1d(x, w, 2, 3, 2, 2, 9), theirs)
    theirs = torch.nn.functional.conv_transpose1d(real[0], real[1], None, 3, 1, 2, 2, 2).numpy()
    np.testing.assert_array_equal(integer_conv_transpose1d(x, w, 3, 1, 2, 2, 2, 9), theirs)


X, W = np.zeros((1, 2, 8), np.int8), np.zeros((2, 2, 3), np.int8)


@pytest.mark.parametrize(
    ("call", "fault", "said"),
    [
        (lambda: integer_conv1d(X[0], W), ShapeError, r"expected signals \(N, C, L\)"),
        (lambda: integer_conv1d(X, W[:, :1]), ShapeError, "integer_conv2d"),
        (lambda: integer_conv1d(X, W, (1, 2)), SettingError, "stride must be a whole number"),
        (lambda: integer_conv1d(X, W, 1, 0.5), SettingError, "padding must be a whole number"),
        (lambda: integer_conv1d(X.astype("f4"), W), FormatError, "expected int8 or uint8 codes"),
        (lambda: integer_conv1d(X, W, x_zero=200), SettingError, "x_zero must be a code"),
        (lambda: integer_conv_transpose1d(X, W[:1]), ShapeError, "do not fit together"),
        (lambda: integer_conv_transpose1d(X, W, 2, 0, 2), ShapeError, "must be below stride"),
        (lambda: integer_conv_transpose1d(X, W[0]), ShapeError, "filters of three axes"),
    ],
)
def test_refusals(call: Any, fault: type[MinimpError], said: str) -> None:
    """Oracle: the class of the error and its words."""
    with pytest.raises(fault, match=said):
        call()


def test_a_backend_has_the_kernels() -> None:
    """Oracle: the functions, on the same arrays."""
    for name in ("integer_conv1d", "integer_conv_transpose1d"):
        made = getattr(BACKEND, name)(X + np.int8(3), W - np.int8(2), 2)
        np.testing.assert_array_equal(made, globals()[name](X + np.int8(3), W - np.int8(2), 2))
