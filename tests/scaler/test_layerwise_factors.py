"""How a layer's factor is chosen, and arithmetic on powers of two; oracles: float64, counting with ones."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import minimp as mp
from minimp import functional as F  # noqa: N812 - torch's habit
from minimp.backend import get_backend
from minimp.pieces import Pieces
from minimp.scaler.layerwise.carried import shifted, together
from minimp.scaler.layerwise.factors import (
    ONE,
    Moments,
    Product,
    exponent_for,
    moments_of,
    share_below,
    sigma_of,
)
from minimp.scaler.layerwise.points import LAYERS, products_of
from minimp.tape import Parts
from tests.arrays import host
from tests.tolerances import assert_close

BACKEND = get_backend("numpy")
CODES = st.integers(0, 0x7BFF) | st.integers(0x8000, 0xFBFF)
HALVES = arrays.arrays(np.uint16, 6, elements=CODES).map(lambda codes: codes.view(np.float16))
EXPONENTS = st.integers(-45, 45)


def halves(values: Any) -> np.ndarray[Any, Any]:
    """Round to float16; overflow is an answer."""
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(np.float16)


# ---- powers of two ----------------------------------------------------------------------------------------


@given(HALVES, EXPONENTS)
@np.errstate(all="ignore")
def test_a_gradient_is_shifted_with_one_rounding(grad: np.ndarray[Any, Any], exponent: int) -> None:
    """Oracle: the float64 product, which is exact, rounded once; in pieces and in parts, the same."""
    expected = halves(grad.astype(np.float64) * 2.0**exponent)
    np.testing.assert_array_equal(shifted(grad, exponent, BACKEND), expected)
    pieces = shifted(Pieces((12,), [(slice(0, 6), grad), (slice(6, 12), grad)]), exponent, BACKEND)
    np.testing.assert_array_equal(pieces.whole(BACKEND), np.concatenate([expected, expected]))
    parts = shifted(Parts({0: grad, 2: grad}), exponent, BACKEND).by_index
    assert list(parts) == [0, 2]
    np.testing.assert_array_equal(parts[2], expected)


def test_float32_goes_further_than_one_power_reaches() -> None:
    """Oracle: 2^-140 * 2^200 = 2^60, although 2^200 is no float32."""
    grad = np.array([2.0**-140, -(2.0**-130)], np.float32)
    np.testing.assert_array_equal(shifted(grad, 200, BACKEND), np.array([2.0**60, -(2.0**70)], np.float32))


@given(HALVES, EXPONENTS, HALVES, EXPONENTS)
@np.errstate(all="ignore")
def test_gradients_that_meet_are_added_at_one_scale(
    a: np.ndarray[Any, Any], i: int, b: np.ndarray[Any, Any], j: int
) -> None:
    """Oracle: a / 2^i + b / 2^j in rationals: the sum lies within half an ulp of it at the scale it tells."""
    total, common = together(a, i, b, j, BACKEND)
    if i == j:
        assert common == i
        np.testing.assert_array_equal(total, BACKEND.add(a, b))
        return
    assert common <= max(i, j)
    assert np.isfinite(total).all()
    for x, y, z in zip(a.tolist(), b.tolist(), total, strict=True):
        exact = (Fraction(x) / Fraction(2) ** i + Fraction(y) / Fraction(2) ** j) * Fraction(2) ** common
        ulp = Fraction(float(np.spacing(min(np.abs(z), np.float16(65472)))))  # there is none above 65504
        # the float32 sum may be a tie where the exact one is not: 2^-24 of it, at most
        assert abs(Fraction(float(z)) - exact) <= ulp / 2 + abs(exact) * Fraction(2) ** -24


def test_the_common_scale_is_the_larger_one_unless_that_overflows() -> None:
    """Oracle: by hand: 1 and 2^-20 at scales 1 and 2^30 fit at 2^10 * 2^... only as far as 65504 allows."""
    small, large = halves([2.0**-20]), halves([1.0])
    assert together(small, 0, small, 5, BACKEND)[1] == 5
    assert together(large, 0, small, 5, BACKEND)[1] == 5
    assert together(large, 0, small, 30, BACKEND)[1] == 15  # 2^15 fits, 2^16 does not
    assert together(small, 30, large, 0, BACKEND)[1] == 15


def test_parts_of_a_function_meet_at_one_scale() -> None:
    """Oracle: the same sums by hand: result 0 from both, 1 and 2 from one each."""
    held, part = Parts({0: halves([1.0]), 1: halves([2.0])}), Parts({0: halves([8.0]), 2: halves([16.0])})
    total, common = together(held, 0, part, 3, BACKEND)
    assert common == 3
    assert {index: grad.tolist() for index, grad in total.by_index.items()} == {
        0: [16.0],
        1: [16.0],
        2: [16.0],
    }


# ---- the model --------------------------------------------------------------------------------------------


def test_moments_are_those_of_float64() -> None:
    """Oracle: float64 sums; squares below float32's range, infinities and nothing at all as well."""
    values = np.random.default_rng(0).normal(0.1, 3.0, 1000)
    for scale, dtype in [(1.0, np.float16), (1.0, np.float32), (1e-30, np.float32)]:
        array = (values * scale).astype(dtype)
        wide = array.astype(np.float64)
        found = moments_of(array, BACKEND)
        assert found is not None
        assert_close(found.mean_square / np.mean(wide**2), 1.0, "parity_first_loss")
        assert found.largest == np.abs(wide).max()
    assert moments_of(np.array([1.0, np.inf], np.float16), BACKEND) is None
    assert moments_of(np.zeros((0, 3), np.float16), BACKEND) == Moments(0.0, 0.0)


@given(
    st.floats(1e-12, 1e3), st.floats(1e-6, 1e2), st.integers(1, 4096), st.floats(1e-6, 0.5),
    st.floats(1.0, 30.0),
)  # fmt: skip
def test_the_factor_is_the_smallest_power_that_keeps_the_threshold(
    g: float, w: float, terms: int, threshold: float, peak: float
) -> None:
    """Oracle: the two conditions themselves, with the error function; half the factor breaks the first."""
    gradient = Moments(g * g, g * peak)
    product = Product(0, Moments(w * w, w * peak), float(terms), float(terms))
    u_min, u_max = 2.0**-24, 65504.0
    factor = 2.0 ** exponent_for(gradient, [product], mp.float16, threshold)
    sigma = g * w * math.sqrt(terms)
    bound = max(terms * g * w * peak * peak, g * peak)
    assert factor * bound <= u_max * (1 + 2**-50)
    kept = math.erf(u_min / (math.sqrt(2) * sigma * factor)) <= threshold * (1 + 1e-9)
    if not kept:
        assert 2 * factor * bound > u_max  # no room for more
    elif factor > 1:
        assert math.erf(u_min / (math.sqrt(2) * sigma * factor / 2)) > threshold * (1 - 1e-9)


def test_the_layer_with_the_smallest_results_decides_and_the_largest_bounds() -> None:
    """Oracle: the factor for two products is the larger need, held by the smaller room."""
    gradient = Moments(1e-10, 1e-4)
    small, large = Product(0, Moments(1e-4, 0.05), 64.0, 64.0), Product(1, Moments(1e16, 1e9), 64.0, 64.0)
    alone = exponent_for(gradient, [small], mp.float16, 1e-3)
    assert alone > 0
    assert exponent_for(gradient, [small, Product(1, ONE, 64.0, 64.0)], mp.float16, 1e-3) == alone
    assert exponent_for(gradient, [small, large], mp.float16, 1e-3) < 0  # 64 * 1e-4 * 1e9 is beyond 65504
    assert exponent_for(Moments(0.0, 0.0), [small], mp.float16, 1e-3) == 0


@pytest.mark.parametrize("threshold", [0.3, 0.03])
def test_the_share_below_the_smallest_number_is_as_asked(threshold: float) -> None:
    """Oracle: float64 products of normal numbers, counted: from half the threshold to the threshold.

    Their standard deviation is wrong by a factor of 2 if any of the three in it is left out.
    """
    rng = np.random.default_rng(1)
    for scale in (1e-9, 3e-9, 7e-9):
        g, w = rng.normal(0, scale, (600, 48)), rng.normal(0, 0.3, (48, 400))
        gradient, other = (Moments(float(np.mean(a**2)), float(np.abs(a).max())) for a in (g, w))
        factor = 2.0 ** exponent_for(gradient, [Product(0, other, 48.0, 48.0)], mp.float16, threshold)
        share = float(np.mean(np.abs(g @ w) * factor < 2.0**-24))
        assert threshold / 2 < share < threshold
        assert_close(
            share / share_below(2.0**-24, factor * sigma_of(gradient, Product(0, other, 48.0, 48.0))), 1.0,
            "normal_model",
        )  # fmt: skip


def randoms(*shape: int) -> mp.Tensor:
    """Return ones that require a gradient."""
    return mp.tensor(np.ones(shape, np.float32), requires_grad=True)


CASES = {
    "linear": (F.linear, (5, 3, 4), (7, 4)),
    "matmul": (lambda x, w: x @ w, (5, 3, 4), (5, 4, 2)),
    "matmul of one by many": (lambda x, w: x @ w, (3, 4), (4, 2)),
    "conv1d, stride": (lambda x, w: F.conv1d(x, w, stride=2), (2, 4, 11), (6, 4, 3)),
    "conv2d": (F.conv2d, (2, 3, 6, 6), (5, 3, 3, 2)),
    "conv2d, groups": (lambda x, w: F.conv2d(x, w, groups=2), (2, 4, 6, 6), (6, 2, 3, 3)),
    "conv2d, stride, groups, dilation": (
        lambda x, w: F.conv2d(x, w, stride=2, groups=2, dilation=2), (2, 4, 9, 9), (6, 2, 3, 3),
    ),
    "conv_transpose1d, stride": (lambda x, w: F.conv_transpose1d(x, w, stride=2), (2, 3, 5), (3, 4, 4)),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, groups=2), (2, 4, 5, 5), (4, 3, 2, 2)),
}  # fmt: skip


def op_of(case: str) -> str:
    """Return the op that a case is about."""
    return case.replace(",", " ").split(maxsplit=1)[0]


@pytest.mark.parametrize("name", CASES)
def test_terms_are_counted_as_the_kernels_count_them(name: str) -> None:
    """Oracle: the gradients of ones by ones are counts: their mean is the average, none is above the most."""
    run, x_shape, w_shape = CASES[name]
    x, w = randoms(*x_shape), randoms(*w_shape)
    y = run(x, w)
    assert y.node is not None
    assert y.node.op.name == op_of(name)
    products = products_of(y.node, np.ones(y.shape, np.float32))
    y.sum().backward()
    assert [each.index for each in products] == [0, 1]
    for each, operand in zip(products, (x, w), strict=True):
        counts = host(operand.grad)
        assert each.other == ONE
        assert each.terms == counts.mean()
        assert each.most >= counts.max()
    if "stride" not in name:
        assert products[0].most == host(x.grad).max()


def test_a_layer_without_one_of_its_gradients_leaves_it_out() -> None:
    """Oracle: which inputs require one; a bias is a sum over rows."""
    weight, bias, x = randoms(7, 4), randoms(7), np.ones((5, 4), np.float32)
    for options, expected in [
        ({"x": mp.tensor(x), "w": weight, "b": bias}, [(1, 5.0), (2, 5.0)]),
        ({"x": randoms(5, 4), "w": mp.tensor(np.ones((7, 4), np.float32)), "b": None}, [(0, 7.0)]),
        ({"x": mp.tensor(x), "w": mp.tensor(np.ones((7, 4), np.float32)), "b": bias}, [(2, 5.0)]),
    ]:
        y = F.linear(options["x"], options["w"], options["b"])
        assert y.node is not None
        found = products_of(y.node, np.ones((5, 7), np.float32))
        assert [(each.index, each.terms) for each in found] == expected


def test_every_layer_op_is_tried() -> None:
    """Oracle: the table: an op without a case would be a formula that nobody has counted."""
    assert {op_of(name) for name in CASES} == set(LAYERS)
