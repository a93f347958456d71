"""Sums, pools and transposed convolutions of codes; oracles: the rules in Python's integers, and torch's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minimp.backend import get_backend
from minimp.errors import FormatError, MinimpError, SettingError, ShapeError
from minimp_backends import integer_layers
from minimp_backends.integer_layers import (
    code_table,
    integer_add,
    integer_avg_pool2d,
    integer_conv_transpose2d,
    integer_max_pool2d,
)
from minimp_backends.requantizing import MODES
from tests.backends.test_integers import DTYPES, codes
from tests.backends.test_requantising import clamped, float32, multiplied, quantized

Array = NDArray[Any]
BACKEND: Any = get_backend("numpy")
BOTH = pytest.mark.parametrize("mode", MODES)
INT8 = (-128, 127)
SCALES = st.floats(2.0**-12, 2.0**3)


# ---- sums --------------------------------------------------------------------------------------------------


def tflite_add(a: int, b: int, scales: Any, zeros: Any) -> int:
    """TFLite's sum of two codes in Python's integers (lite/kernels/add.cc, reference/add.h)."""
    twice = 2 * max(scales[:2])
    terms = (
        multiplied((code - zero) << 20, scale / twice)
        for code, zero, scale in zip((a, b), zeros[:2], scales[:2], strict=True)
    )
    return clamped(multiplied(sum(terms), twice / (2**20 * scales[2])) + zeros[2], INT8)


def float_add(a: int, b: int, scales: Any, zeros: Any) -> int:
    """The rule in float32, on exact fractions."""
    terms = (
        float32((code - zero) * float32(Fraction(scale / scales[2])))
        for code, zero, scale in zip((a, b), zeros[:2], scales[:2], strict=True)
    )
    return clamped(round(float32(sum(terms, Fraction(0)))) + zeros[2], INT8)


ADDS = {"float": float_add, "fixed-point": tflite_add}


@BOTH
@given(st.integers(0, 2**32 - 1), st.tuples(SCALES, SCALES, SCALES))
def test_sums_of_two_scales(mode: str, seed: int, scales: tuple[float, float, float]) -> None:
    """Oracle: the rule, code by code, in Python's integers and fractions; codes of either dtype."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(DTYPES, 2)
    a, b = (codes(rng, 8, kind) for kind in kinds)
    zeros: Any = (*(int(codes(rng, (), kind)) for kind in kinds), int(rng.integers(-128, 128)))
    found = integer_add(a, b, scales, zeros, *INT8, mode)
    assert found.dtype == np.int8
    assert found.tolist() == [
        ADDS[mode](x, y, scales, zeros) for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]


@BOTH
@pytest.mark.parametrize("scales", [(1.0, 1.0, 2.0), (0.3, 0.1, 0.2), (0.1, 0.7, 0.4), (0.061, 0.033, 0.032)])
def test_ties_of_sums(mode: str, scales: tuple[float, float, float]) -> None:
    """Oracle: as above, for scales of which many sums lie half-way between two codes, or next to it."""
    a, b = (each.reshape(-1) for each in np.mgrid[-128:128:5, -128:128:5].astype(np.int8))
    zeros = (3, -4, 1)
    expected = [ADDS[mode](x, y, scales, zeros) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert integer_add(a, b, scales, zeros, *INT8, mode).tolist() == expected


@BOTH
@given(st.integers(0, 2**32 - 1), st.tuples(SCALES, SCALES, SCALES))
def test_sums_are_near_the_exact_ones(mode: str, seed: int, scales: tuple[float, float, float]) -> None:
    """Oracle: float64: within half a code, and what float32 or 31 bits may move."""
    rng = np.random.default_rng(seed)
    a, b = (codes(rng, 50, np.int8).astype(np.int8) for _ in range(2))
    exact = ((a - 3.0) * scales[0] + (b + 5.0) * scales[1]) / scales[2] + 7
    found = integer_add(a, b, scales, (3, -5, 7), *INT8, mode)
    assert np.abs(found - np.clip(exact, *INT8)).max() <= 0.501


@BOTH
def test_sums_of_any_shape(mode: str) -> None:
    """Oracle: element by element, where shapes broadcast and codes lie in any order; a ReLU's clamp."""
    rng = np.random.default_rng(1)
    a, b = codes(rng, (4, 3, 5), np.uint8), codes(rng, (5, 3), np.int8).T
    how: Any = ((0.02, 0.01, 0.03), (100, -4, 128), 0, 255, mode)
    found = integer_add(a, b, *how)
    assert (found.dtype, found.shape) == (np.uint8, (4, 3, 5))
    wide = np.broadcast_to(b, a.shape)
    for place in np.ndindex(a.shape):
        assert found[place] == integer_add(a[place], wide[place], *how)
    np.testing.assert_array_equal(integer_add(a, b, *how, relu=True), np.maximum(found, 128))
    assert integer_add(a[:0], b, *how).shape == (0, 3, 5)
    signed = integer_add(a, b, how[0], (100, -4, -9), 0, 127, mode, dtype=np.int8)
    assert (signed.dtype, signed.min()) == (np.int8, 0)


@BOTH
def test_sums_in_blocks(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the whole at once."""
    rng = np.random.default_rng(6)
    a, b = codes(rng, (7, 9), np.int8), codes(rng, (7, 9), np.uint8)
    how: Any = ((0.02, 0.01, 0.03), (1, 130, 2), *INT8, mode)
    whole = integer_add(a, b, *how)
    monkeypatch.setattr(integer_layers, "BLOCK", 10)
    np.testing.assert_array_equal(integer_add(a, b, *how), whole)


def test_the_table_of_codes() -> None:
    """Oracle: each code's byte points at the code."""
    for dtype in map(np.dtype, DTYPES):
        every = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, dtype=dtype)
        np.testing.assert_array_equal(code_table(dtype)[every.view(np.uint8)], every)


# ---- pools -------------------------------------------------------------------------------------------------

POOLS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": (1, 2), "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 7},
]


def windows(x: Array, size: Any, stride: Any, padding: int, out: tuple[int, ...]) -> Iterator[Any]:
    """Yield (place, the codes inside the image, how many places of the padded one) of each window."""
    height, width = x.shape[2:]
    for n, c, i, j in itertools.product(*map(range, out)):
        top, left = i * stride[0] - padding, j * stride[1] - padding
        rows = range(top, min(top + size[0], height + padding))
        columns = range(left, min(left + size[1], width + padding))
        inside = [int(x[n, c, u, v]) for u in rows for v in columns if 0 <= u < height and 0 <= v < width]
        yield (n, c, i, j), inside, len(rows) * len(columns)


def both(size: Any) -> Any:
    """A pair."""
    return (size, size) if isinstance(size, int) else size


@pytest.mark.parametrize("how", POOLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pools(how: dict[str, Any], dtype: Any) -> None:
    """Oracle: Python's integers, window by window: the maximum, and means as exact fractions by each rule."""
    x = codes(np.random.default_rng(2), (2, 2, 7, 8), dtype)
    zero = 30
    size, padding = both(how["kernel_size"]), how.get("padding", 0)
    stride = both(how.get("stride", size))
    largest = integer_max_pool2d(x, **how)
    assert largest.dtype == dtype
    means = {
        (mode, counted): integer_avg_pool2d(x, **how, zero_point=zero, mode=mode, count_include_pad=counted)
        for mode in MODES for counted in (False, True)
    }  # fmt: skip
    for place, inside, count in windows(x, size, stride, padding, largest.shape):
        assert largest[place] == max(inside)
        for (mode, counted), found in means.items():
            number = count if counted else len(inside)
            mean = Fraction(sum(code - zero for code in inside), number)
            if mode == "float":
                expected = round(mean) + zero
            else:
                mean += zero
                expected = int(abs(mean) + Fraction(1, 2)) * (1 if mean >= 0 else -1)
            assert found[place] == expected, (mode, counted)


def test_dilated_maxima() -> None:
    """Oracle: by hand: every other code of a row."""
    x = np.array([[[[5, -7, -3, 100, 2, -128]]]], np.int8)
    found = integer_max_pool2d(x, (1, 3), 1, 0, (1, 2))
    assert found.tolist() == [[[[5, 100]]]]


def test_ties_of_means() -> None:
    """Oracle: by hand: -1/2, 1/2 and 3/2 codes from zero."""
    x = np.array([[[[-1, 0, 0, 1, 1, 2]]]], np.int8)
    assert integer_avg_pool2d(x, (1, 2)).tolist() == [[[[0, 0, 2]]]]
    assert integer_avg_pool2d(x, (1, 2), zero_point=1).tolist() == [[[[-1, 1, 1]]]]
    assert integer_avg_pool2d(x, (1, 2), mode="fixed-point").tolist() == [[[[-1, 1, 2]]]]


# ---- transposed convolutions -------------------------------------------------------------------------------


@st.composite
def transposed(draw: st.DrawFn) -> Any:
    """Draw codes of images and filters, sizes that fit, and zero points."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.integers(1, 2))
    stride, dilation, kernel, size = (
        tuple(draw(st.integers(least, most)) for _ in range(2))
        for least, most in ((1, 3), (1, 2), (1, 3), (3, 4))
    )
    padding = tuple(draw(st.integers(0, 2)) for _ in range(2))
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    kinds = [draw(st.sampled_from(DTYPES)) for _ in range(2)]
    x = codes(rng, (2, 2 * groups, *size), kinds[0])
    w = codes(rng, (2 * groups, draw(st.integers(1, 2)), *kernel), kinds[1])
    w_zero = codes(rng, draw(st.sampled_from([(), (groups * w.shape[1],)])), kinds[1])
    return x, w, (stride, padding, extra, groups, dilation), int(codes(rng, (), kinds[0])), w_zero


@given(transposed())
def test_transposed_convolutions(case: Any) -> None:
    """Oracle: the definition: each code added, times its weights, where they reach."""
    x, w, (stride, padding, extra, groups, dilation), x_zero, w_zero = case
    filters = groups * w.shape[1]
    lengths = [
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], stride, padding, dilation, w.shape[2:], extra, strict=True)
    ]
    if min(lengths) < 1:
        with pytest.raises(ShapeError, match="has no output"):
            integer_conv_transpose2d(x, w, stride, padding, extra, groups, dilation, x_zero, w_zero)
        return
    expected, zeros = np.zeros((len(x), filters, *lengths), np.int64), np.broadcast_to(w_zero, filters)
    for n, c, i, j in np.ndindex(x.shape):
        for o, u, v in np.ndindex(w.shape[1:]):
            filter_ = c // (x.shape[1] // groups) * w.shape[1] + o
            y = i * stride[0] + u * dilation[0] - padding[0]
            z = j * stride[1] + v * dilation[1] - padding[1]
            if 0 <= y < lengths[0] and 0 <= z < lengths[1]:
                term = (int(x[n, c, i, j]) - x_zero) * (int(w[c, o, u, v]) - int(zeros[filter_]))
                expected[n, filter_, y, z] += term
    found = integer_conv_transpose2d(x, w, stride, padding, extra, groups, dilation, x_zero, w_zero)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)


# ---- refusals, and the backend -----------------------------------------------------------------------------

CODES, IMAGE, FILTER = (
    np.zeros((2, 3), np.int8),
    np.zeros((1, 2, 4, 4), np.int8),
    np.zeros((2, 1, 3, 3), np.int8),
)
SUM = ((1.0, 1.0, 1.0), (0, 0, 0), -128, 127)


@pytest.mark.parametrize(
    ("call", "fault", "said"),
    [
        (lambda: integer_add(CODES, CODES.astype("i4"), *SUM), FormatError, "expected int8 or uint8 codes"),
        (lambda: integer_add(CODES, CODES[:, :2], *SUM), ShapeError, "do not broadcast"),
        (lambda: integer_add(CODES, CODES, *SUM, "floor"), SettingError, "did you mean 'float'"),
        (lambda: integer_add(CODES, CODES, (1, 0, 1), *SUM[1:]), SettingError, "positive and finite"),
        (
            lambda: integer_add(CODES, CODES, (1, 1e9, 0.1), *SUM[1:]),
            SettingError,
            "expected scales of a and b",
        ),
        (lambda: integer_add(CODES, CODES, SUM[0], (200, 0, 0), -128, 127), SettingError, "a code of int8"),
        (lambda: integer_add(CODES, CODES, SUM[0], (0, 0, 200), -128, 127), SettingError, "zero_point must"),
        (lambda: integer_max_pool2d(IMAGE.astype("f4"), 2), FormatError, "expected int8 or uint8 codes"),
        (lambda: integer_max_pool2d(IMAGE, 5), ShapeError, "have no place in images"),
        (lambda: integer_max_pool2d(IMAGE, (1, 2, 3)), SettingError, "kernel_size must be a whole number"),
        (lambda: integer_avg_pool2d(IMAGE, 2, 0.5), SettingError, "stride must be a whole number"),
        (lambda: integer_avg_pool2d(IMAGE, 2, mode="exact"), SettingError, "unknown mode 'exact'"),
        (lambda: integer_avg_pool2d(IMAGE, 2, zero_point=128), SettingError, "zero_point must be a code"),
        (lambda: integer_conv_transpose2d(IMAGE, FILTER[:1]), ShapeError, "do not fit together in 1 groups"),
        (lambda: integer_conv_transpose2d(IMAGE, FILTER, 2, 0, 2), ShapeError, "must be below stride"),
        (lambda: integer_conv_transpose2d(IMAGE, FILTER, 1, 3), ShapeError, "use less padding"),
        (lambda: integer_conv_transpose2d(IMAGE, FILTER, x_zero=128), SettingError, "x_zero must be a code"),
    ],
)
def test_refusals(call: Any, fault: type[MinimpError], said: str) -> None:
    """Oracle: the class of the error, its words, and that it offers a next step."""
    with pytest.raises(fault, match=said) as caught:
        call()
    assert caught.value.op is not None
    assert caught.value.help or "known:" in str(caught.value)


def test_a_backend_has_the_kernels() -> None:
    """Oracle: the functions, on the same arrays."""
    x = codes(np.random.default_rng(3), (1, 2, 5, 5), np.int8)
    w = codes(np.random.default_rng(4), (2, 3, 2, 2), np.int8)
    how = ((0.1, 0.2, 0.3), (1, 2, 3), *INT8)
    for name, arguments in (
        ("integer_add", (x, x, *how)), ("integer_max_pool2d", (x, 2, 1)), ("integer_avg_pool2d", (x, 3)),
        ("integer_conv_transpose2d", (x, w, 2, 1)),
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(BACKEND, name)(*arguments), globals()[name](*arguments))


# ---- torch -------------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_pools_and_transposed_convolutions_of_torch() -> None:
    """Oracle: torch 2.13: maxima of quantised tensors, and float64 transposed convolutions of the codes."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    x = codes(rng, (2, 4, 9, 9), np.uint8)
    seen = quantized(torch, x, 0.1, 7)
    theirs = torch.nn.functional.max_pool2d(seen, 3, 2, 1).int_repr().numpy()
    np.testing.assert_array_equal(integer_max_pool2d(x, 3, 2, 1), theirs)
    w = codes(rng, (4, 3, 3, 2), np.int8)
    real = [torch.from_numpy(each.astype(np.float64)) for each in (x.astype(float) - 7, w)]
    geometry: Any = ((2, 1), (1, 0), (1, 0), 2, (2, 1))
    expected = torch.nn.functional.conv_transpose2d(real[0], real[1], None, *geometry).numpy()
    np.testing.assert_array_equal(integer_conv_transpose2d(x, w, *geometry, 7), expected)
