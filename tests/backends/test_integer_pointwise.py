"""Tables, products and softmax of codes; oracles: Python's integers and fractions, float64, and torch."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minimp.backend import get_backend
from minimp.errors import FormatError, MinimpError, SettingError, ShapeError
from minimp_backends.integer_pointwise import (
    ONE,
    code_table,
    exp_table,
    integer_lookup,
    integer_mul,
    integer_softmax,
)
from minimp_backends.requantizing import MODES, requantize_reference
from tests.backends.test_integers import DTYPES, codes

Array = NDArray[Any]
BACKEND: Any = get_backend("numpy")
INT8, UINT8 = (-128, 127), (0, 255)
SCALES = st.floats(2.0**-20, 2.0**6)


# ---- tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", DTYPES)
@pytest.mark.parametrize("given_out", DTYPES)
def test_lookup(taken: Any, given_out: Any) -> None:
    """Oracle: a dict of all codes; arrays in any memory order, and of no elements."""
    rng = np.random.default_rng(0)
    table, x = codes(rng, 256, given_out), codes(rng, (5, 300), taken)
    by_code = dict(zip(code_table(np.dtype(taken)).tolist(), table.tolist(), strict=True))
    for each in (x, x.T, x[:, ::-3], x[:0]):
        found = integer_lookup(each, table)
        assert found.dtype == given_out
        assert found.tolist() == [[by_code[code] for code in row] for row in each.tolist()]


# ---- products ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@given(st.integers(0, 2**32 - 1), st.floats(2.0**-20, 2.0))
def test_products(mode: str, seed: int, multiplier: float) -> None:
    """Oracle: int64 products and the reference of requantising; either dtype, shapes that broadcast."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(DTYPES, 2)
    a, b = codes(rng, (3, 1, 7), kinds[0]), codes(rng, (5, 1), kinds[1])
    zeros: Any = (*(int(codes(rng, (), kind)) for kind in kinds), int(rng.integers(-128, 128)))
    found = integer_mul(a, b, multiplier, zeros, *INT8, mode)
    products = (a.astype(np.int64) - zeros[0]) * (b.astype(np.int64) - zeros[1])
    expected = requantize_reference(products.astype(np.int32), multiplier, zeros[2], *INT8, mode)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected)
    with_relu = integer_mul(a, b, multiplier, zeros, *INT8, mode, relu=True)
    np.testing.assert_array_equal(with_relu, np.maximum(expected, zeros[2]))


@pytest.mark.parametrize("mode", MODES)
def test_all_products_of_two_codes(mode: str) -> None:
    """Oracle: float64, for all 65,536 pairs: half a code away, and a hair more in fixed point."""
    a, b = np.arange(-128, 128, dtype=np.int8)[:, None], np.arange(256, dtype=np.uint8)
    multiplier = 0.0037
    found = integer_mul(a, b, multiplier, (3, 120, 10), *UINT8, mode, dtype=np.uint8)
    real = (a.astype(np.int64) - 3) * (b.astype(np.int64) - 120) * multiplier + 10
    slack = 2.0**-20 if mode == "float" else 2.0**-8
    assert np.abs(found - np.clip(real, *UINT8)).max() <= 0.5 + slack


# ---- softmax -----------------------------------------------------------------------------------------------


def by_fractions(x: list[int], table: list[int], steps: int, low: int, high: int) -> list[int]:
    """Softmax of codes by its definition, in Python's integers."""
    terms = [table[max(x) - code] for code in x]
    return [min(int(Fraction(steps * each, sum(terms)) + Fraction(1, 2)) + low, high) for each in terms]


def float_softmax(x: Array, scale: float, axis: int) -> Array:
    """Softmax of the numbers that codes stand for, in float64."""
    real = x.astype(np.float64) * scale
    terms = np.exp(real - real.max(axis=axis, keepdims=True))
    return np.asarray(terms / terms.sum(axis=axis, keepdims=True))


def bound(count: int, steps: int = 256) -> float:
    """What a code may be from steps p, where it is not clamped."""
    return 0.5 + steps * (count + 1) * 2.0**-31


@given(
    st.lists(st.integers(-128, 127), min_size=1, max_size=40), SCALES, st.sampled_from([256, 255, 16, 1000])
)
@example([5] * 3, 0.1, 256)
@example([0, 0], 1.0, 255)
def test_softmax_by_its_definition(x: list[int], scale: float, steps: int) -> None:
    """Oracle: Python's integers and fractions, halves up; int8 and uint8 give the same."""
    low, high = (-128, 127) if steps <= 256 else (0, 255)
    table = exp_table(scale)
    row = np.array(x, np.int8)
    found = integer_softmax(row, table, steps=steps, qmin=low, qmax=high)
    assert found.tolist() == by_fractions(x, table.tolist(), steps, low, high)
    moved = (row.astype(np.int16) + 128).astype(np.uint8)
    np.testing.assert_array_equal(integer_softmax(moved, table, steps=steps, qmin=low, qmax=high), found)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), SCALES, st.integers(0, 255))
@example(0, 3000, 2.0**-20, 255)
@example(1, 2, 0.02, 255)
def test_softmax_lies_within_its_bound(seed: int, count: int, scale: float, spread: int) -> None:
    """Oracle: float64, and the bound of the module's head: half a code and 1.2e-7 (N + 1).

    Codes add up to 256 but for the half code that each rounding may move, and half a code more where one is
    clamped at 255.
    """
    x = np.random.default_rng(seed).integers(-128, spread - 127, (2, count)).astype(np.int8)
    found = integer_softmax(x, exp_table(scale)).astype(np.int64) + 128
    wanted = 256 * float_softmax(x, scale, -1)
    clamped = found == 255
    assert np.abs(found - wanted)[~clamped].max(initial=0) <= bound(count)
    assert (wanted[clamped] >= 255 - bound(count)).all()
    assert (np.abs(found.sum(axis=-1) - 256) <= (count + clamped.any(axis=-1)) / 2).all()


def test_softmax_of_all_pairs() -> None:
    """Oracle: float64, for all 65,536 pairs of codes at five scales."""
    x = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1).astype(np.uint8)
    for scale in (1e-3, 0.01, 0.0271, 0.1, 2.0):
        found = integer_softmax(x, exp_table(scale), qmin=0, qmax=255, dtype=np.uint8)
        wanted = np.minimum(256 * float_softmax(x, scale, -1), 255)
        assert np.abs(found - wanted).max() <= bound(2)


@given(st.integers(0, 2**32 - 1), SCALES)
def test_laws_of_softmax(seed: int, scale: float) -> None:
    """Law: permuted with its input; the same for codes moved by one number; in the order of its input."""
    rng = np.random.default_rng(seed)
    x, table = rng.integers(-100, 100, (4, 9)).astype(np.int8), exp_table(scale)
    found, order = integer_softmax(x, table), rng.permutation(9)
    np.testing.assert_array_equal(integer_softmax(x[:, order], table), found[:, order])
    np.testing.assert_array_equal(integer_softmax(x + np.int8(27), table), found)
    by_size = np.take_along_axis(found, np.argsort(x, axis=-1), -1)
    assert (np.diff(by_size.astype(int), axis=-1) >= 0).all()


def test_softmax_along_any_axis() -> None:
    """Oracle: the last axis, of the array turned round; one element is all there is."""
    x, table = codes(np.random.default_rng(3), (3, 4, 5), np.uint8), exp_table(0.03)
    for axis in range(-3, 3):
        expected = np.moveaxis(integer_softmax(np.moveaxis(x, axis, -1), table), -1, axis)
        np.testing.assert_array_equal(integer_softmax(x, table, axis), expected)
    assert integer_softmax(x[:, :1], table, 1).tolist() == np.full((3, 1, 5), 127).tolist()
    assert integer_softmax(x[:0], table).shape == (0, 4, 5)


def test_the_table_of_exponentials() -> None:
    """Oracle: float64; 1 first, never rising, 0 where e^-x is below half a step."""
    for scale in (2.0**-20, 0.01, 0.5, 300.0):
        table = exp_table(scale)
        assert (table.dtype, table[0]) == (np.int32, ONE)
        assert (np.diff(table) <= 0).all()
        assert np.abs(table - ONE * np.exp(-scale * np.arange(256))).max() <= 0.5 + 1e-6
    assert table[1] == 0


# ---- refusals, and the backend -----------------------------------------------------------------------------

CODES, TABLE = np.zeros((2, 3), np.int8), np.zeros(256, np.int8)
EXP = exp_table(0.1)


@pytest.mark.parametrize(
    ("call", "fault", "said"),
    [
        (lambda: integer_lookup(CODES.astype("f4"), TABLE), FormatError, "expected int8 or uint8 codes"),
        (lambda: integer_lookup(CODES, TABLE.astype("i4")), FormatError, "expected int8 or uint8 codes"),
        (lambda: integer_lookup(CODES, TABLE[:9]), ShapeError, r"each of 256 codes, got \(9,\)"),
        (lambda: integer_mul(CODES, CODES[:, :2], 0.1, (0, 0, 0), *INT8), ShapeError, "do not broadcast"),
        (lambda: integer_mul(CODES, CODES, -0.1, (0, 0, 0), *INT8), SettingError, "a multiplier must be"),
        (lambda: integer_mul(CODES, CODES, 0.1, (0, 200, 0), *INT8), SettingError, "zero_points must be a"),
        (lambda: integer_mul(CODES, CODES, 0.1, (0, 0, 200), *INT8), SettingError, "zero_point must be a"),
        (lambda: integer_mul(CODES, CODES, 0.1, (0, 0, 0), *INT8, "exact"), SettingError, "unknown mode"),
        (lambda: integer_softmax(CODES.astype("i4"), EXP), FormatError, "expected int8 or uint8 codes"),
        (lambda: integer_softmax(CODES, EXP.astype("f4")), FormatError, "a table of int32, got float32"),
        (lambda: integer_softmax(CODES, EXP[:3]), ShapeError, "each of 256 codes"),
        (lambda: integer_softmax(CODES, EXP, 2), ShapeError, "nothing along axis 2"),
        (lambda: integer_softmax(CODES[:, :0], EXP), ShapeError, "nothing along axis -1"),
        (lambda: integer_softmax(CODES, EXP, steps=0), SettingError, "steps must be at least 1"),
        (lambda: integer_softmax(CODES, EXP, qmin=3, qmax=-3), SettingError, "no range"),
        (lambda: exp_table(0.0), SettingError, "positive and finite, got 0"),
        (lambda: exp_table(float("nan")), SettingError, "positive and finite, got nan"),
    ],
)  # fmt: skip
def test_refusals(call: Any, fault: type[MinimpError], said: str) -> None:
    """Oracle: the class of the error and its words."""
    with pytest.raises(fault, match=said) as caught:
        call()
    assert caught.value.op is not None


def test_a_backend_has_the_kernels() -> None:
    """Oracle: the functions, on the same arrays."""
    x = codes(np.random.default_rng(3), (2, 5), np.int8)
    for name, arguments in (
        ("integer_lookup", (x, TABLE)), ("integer_mul", (x, x, 0.1, (1, 2, 3), *INT8)),
        ("integer_softmax", (x, EXP, 0)), ("exp_table", (0.25,)),
    ):  # fmt: skip
        np.testing.assert_array_equal(getattr(BACKEND, name)(*arguments), globals()[name](*arguments))


# ---- torch -------------------------------------------------------------------------------------------------

PRODUCTS = (
    ((0.1, 0.2, 0.7), (3, 120, 10)),
    ((0.01, 0.013, 0.0151), (128, 128, 128)),
    ((0.5, 0.25, 0.5), (100, 130, 128)),
    ((0.031, 0.0077, 0.02), (0, 255, 77)),
)
"""Scales and zero points of a, b and the product; in the third, half of all products are ties."""


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("relu", [False, True])
def test_products_of_torch(relu: bool) -> None:
    """Oracle: torch 2.13's quantized::mul and mul_relu, for all 65,536 pairs of codes, 4 sets of scales."""
    torch = pytest.importorskip("torch")
    a, b = (
        np.ascontiguousarray(each.astype(np.uint8)) for each in np.meshgrid(np.arange(256), np.arange(256))
    )
    op = torch.ops.quantized.mul_relu if relu else torch.ops.quantized.mul
    for given_scales, zeros in PRODUCTS:
        scales = tuple(float(np.float32(each)) for each in given_scales)
        left, right = (
            torch._make_per_tensor_quantized_tensor(torch.from_numpy(each), scale, zero)
            for each, scale, zero in zip((a, b), scales[:2], zeros[:2], strict=True)
        )
        theirs = op(left, right, scales[2], zeros[2]).int_repr().numpy()
        mine = integer_mul(a, b, scales[0] * scales[1] / scales[2], zeros, *UINT8, relu=relu)
        np.testing.assert_array_equal(mine, theirs)
