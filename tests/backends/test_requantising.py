"""From int32 sums to codes; oracles: exact fractions, TFLite's rule in Python's integers, torch's QNNPACK."""

from __future__ import annotations

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
from minimp_backends import requantizing
from minimp_backends.integers import integer_conv2d, integer_matmul
from minimp_backends.requantizing import MODES, fixed_point, requantize, requantize_reference
from tests.tolerances import assert_close

Array = NDArray[Any]
BACKEND: Any = get_backend("numpy")
BOTH = pytest.mark.parametrize("mode", MODES)
INT8 = (-128, 127)
SUMS = st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(-70_000, 70_000))
MULTIPLIERS = st.floats(2.0**-40, 2.0**12, allow_subnormal=False)


def clamped(value: int, codes: tuple[int, int]) -> int:
    """Clamp to the codes."""
    return max(codes[0], min(codes[1], value))


# ---- multipliers as whole numbers --------------------------------------------------------------------------


@given(st.floats(2.0**-32, 2.0**31, exclude_max=True))
def test_fixed_point_is_the_nearest(multiplier: float) -> None:
    """Oracle: exact fractions: M0 of 31 bits, within half of its last place; no other pair is nearer."""
    whole, shift = (int(each) for each in fixed_point(multiplier))
    assert 2**30 <= whole < 2**31
    unit = Fraction(2) ** (-31 - shift)
    assert abs(Fraction(multiplier) - whole * unit) <= unit / 2


@pytest.mark.parametrize(
    ("multiplier", "expected"),
    [
        (1.0, (2**30, -1)),
        (0.5, (2**30, 0)),
        (0.375, (3 * 2**29, 1)),
        (0.25, (2**30, 1)),
        (3.0, (3 * 2**29, -2)),
        (1 - 2.0**-31, (2**31 - 1, 0)),
        (1 - 2.0**-32, (2**30, -1)),  # a tie, which goes up and carries
        (0.5 + 2.0**-32, (2**30 + 1, 0)),  # a tie too
        (1 - 2.0**-33, (2**30, -1)),
        (1 - 2.0**-32 - 2.0**-50, (2**31 - 1, 0)),
        (2.0**-32, (2**30, 31)),
        (2.0**-33, (0, 0)),
        (0.0, (0, 0)),
        (5e-324, (0, 0)),
        (2.0**30, (2**30, -31)),
    ],
)
def test_fixed_point_by_hand(multiplier: float, expected: tuple[int, int]) -> None:
    """Oracle: 2^-n M0 / 2^31 worked out by hand, where M0 carries over and where nothing is left."""
    assert tuple(map(int, fixed_point(multiplier))) == expected


def test_fixed_point_of_many() -> None:
    """Oracle: one multiplier at a time; shapes and dtypes stay."""
    given_ = np.array([[0.1, 0.9], [3e-4, 12.5]], np.float32)
    whole, shift = fixed_point(given_)
    assert (whole.dtype, shift.dtype, whole.shape) == (np.int32, np.int32, (2, 2))
    for place in np.ndindex(2, 2):
        assert (whole[place], shift[place]) == tuple(map(int, fixed_point(given_[place])))


# ---- one sum -----------------------------------------------------------------------------------------------


def multiplied(acc: int, multiplier: float) -> int:
    """MultiplyByQuantizedMultiplier of TFLite and gemmlowp in Python's integers, C's divisions spelled out.

    tensorflow/lite/kernels/internal/common.cc and gemmlowp/fixedpoint/fixedpoint.h: the doubling high
    multiply nudges by 2^30 or 1 - 2^30 and divides towards zero; the shift adds one where the remainder is
    above half.
    """
    whole, n = (int(each) for each in fixed_point(multiplier))
    acc = clamped(acc << max(-n, 0), (-(2**31), 2**31 - 1))
    product = acc * whole
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    high = abs(nudged) // 2**31 * (1 if nudged >= 0 else -1)
    mask = (1 << max(n, 0)) - 1
    threshold = (mask >> 1) + (high < 0)
    return (high >> max(n, 0)) + ((high & mask) > threshold)


def tflite(acc: int, multiplier: float, zero: int, codes: tuple[int, int]) -> int:
    """TFLite's requantised code."""
    return clamped(multiplied(acc, multiplier) + zero, codes)


def float32(value: Fraction) -> Fraction:
    """Round a fraction to float32's 24 bits, ties to even."""
    if not value:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    unit = Fraction(2) ** (exponent - 23)
    return round(value / unit) * unit


def qnnpack(acc: int, multiplier: float, zero: int, codes: tuple[int, int]) -> int:
    """QNNPACK's rule on exact fractions: three roundings to float32, one to a whole number, to even."""
    factor = float32(Fraction(multiplier))
    return clamped(round(float32(float32(Fraction(acc)) * factor)) + zero, codes)


ORACLES = {"float": qnnpack, "fixed-point": tflite}


@BOTH
@given(SUMS, MULTIPLIERS, st.integers(-128, 127))
def test_one_sum(mode: str, acc: int, multiplier: float, zero: int) -> None:
    """Oracle: the rule in Python's integers and fractions, over all sums and multipliers."""
    sums = np.array([acc], np.int32)
    expected = ORACLES[mode](acc, multiplier, zero, INT8)
    assert requantize(sums, multiplier, zero, *INT8, mode).tolist() == [expected]
    assert requantize_reference(sums, multiplier, zero, *INT8, mode).tolist() == [expected]


@pytest.mark.parametrize(
    ("mode", "multiplier", "expected"),
    [
        # sums       -7  -6  -5  -3  -2  -1  0  1  2  3  5  6  7
        ("float", 0.5, [-4, -3, -2, -2, -1, 0, 0, 0, 1, 2, 2, 3, 4]),  # ties to even
        ("fixed-point", 0.5, [-3, -3, -2, -1, -1, 0, 0, 1, 1, 2, 3, 3, 4]),  # the first rounding: ties up
        ("float", 0.25, [-2, -2, -1, -1, 0, 0, 0, 0, 0, 1, 1, 2, 2]),
        ("fixed-point", 0.25, [-2, -2, -1, -1, -1, 0, 0, 1, 1, 1, 2, 2, 2]),  # -1/2 goes up first, 1/2 too
        ("float", 1.0, [-7, -6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7]),
        ("fixed-point", 1.0, [-7, -6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7]),
    ],
)
def test_ties(mode: str, multiplier: float, expected: list[int]) -> None:
    """Oracle: by hand; a tie of the zero point's parity shows that it is added last."""
    sums = np.array([-7, -6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7], np.int32)
    for zero in (0, 1):
        found = requantize(sums, multiplier, zero, *INT8, mode)
        assert (found - zero).tolist() == expected


def test_the_multiplier_is_a_float32() -> None:
    """Oracle: by hand: 253 times what float32 rounds to 1/2 is a tie; times the float64 it is above one."""
    above = 0.5 + 0.95 * 2.0**-25
    assert np.float32(above) == 0.5
    assert np.float32(253 * above) > 126.5
    assert requantize(np.array([253], np.int32), above, 0, *INT8).tolist() == [126]


@BOTH
def test_the_ends_of_int32(mode: str) -> None:
    """Oracle: the rule in Python's integers, at sums next to the ends of int32, for shifts of either sign."""
    ends = [-(2**31), -(2**31) + 1, -(2**31) + 2, -1, 0, 1, 2**31 - 2, 2**31 - 1]
    for multiplier in (2.0**-32, 3e-8, 0.25, 0.49, 0.5, 0.51, 1 - 2.0**-32, 1.5, 2.0**30):
        found = requantize(np.array(ends, np.int32), multiplier, -3, *INT8, mode).tolist()
        assert found == [ORACLES[mode](acc, multiplier, -3, INT8) for acc in ends]


# ---- laws --------------------------------------------------------------------------------------------------


@BOTH
@given(st.integers(0, 2**32 - 1), MULTIPLIERS)
def test_it_is_monotone(mode: str, seed: int, multiplier: float) -> None:
    """Oracle: order: a larger sum never has a smaller code."""
    rng = np.random.default_rng(seed)
    limit = int(rng.choice([100, 2**16, 2**24, 2**31 - 1]))
    sums = np.sort(rng.integers(-limit, limit, 500, np.int32, endpoint=True))
    steps = np.diff(requantize(sums, multiplier, 5, *INT8, mode).astype(int))
    assert (steps >= 0).all()


@given(st.integers(0, 2**32 - 1), st.floats(-20, 3))
def test_the_modes_differ_by_one_code_at_most(seed: int, power: float) -> None:
    """Oracle: each other; both lie within a code of the exact quotient."""
    rng = np.random.default_rng(seed)
    multiplier = 2.0**power
    sums = rng.integers(-(2**30), 2**30, 300, np.int32) >> rng.integers(0, 30, 300, np.int32)
    codes = [requantize(sums, multiplier, 0, *INT8, mode).astype(int) for mode in MODES]
    assert np.abs(codes[0] - codes[1]).max() <= 1
    exact = np.clip(sums * multiplier, *INT8)
    assert max(np.abs(each - exact).max() for each in codes) <= 1


@pytest.mark.parametrize("shift", [1, 3, 6, 10])
def test_how_often_the_modes_differ(shift: int) -> None:
    """Oracle: the first rounding makes a tie in one sum of 2^n, and half of those go the wrong way."""
    rng = np.random.default_rng(1)
    multipliers = 2.0 ** rng.uniform(-shift - 1, -shift, 1000)
    assert set(fixed_point(multipliers)[1].tolist()) == {shift}
    sums = (rng.uniform(-120, 120, (400, 1000)) / multipliers).astype(np.int32)
    one, other = (requantize(sums, multipliers, 0, *INT8, mode) for mode in MODES)
    share = 2.0 ** -(shift + 1)
    off = np.mean(one != other) - share
    assert_close(off / np.sqrt(share / sums.size), 0.0, "six_deviations")


# ---- arrays ------------------------------------------------------------------------------------------------

LAYOUTS = [
    ((5, 7), 1),
    ((5, 7), 0),
    ((2, 3, 4, 5), 1),
    ((2, 3, 4, 5), -3),
    ((7,), 0),
    ((0, 3), 1),
    ((3, 0), 0),
]


@BOTH
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
@pytest.mark.parametrize("largest", [-2, 2])
def test_a_multiplier_for_each_channel(mode: str, shape: Any, axis: int, largest: int) -> None:
    """Oracle: one channel at a time with its own multiplier; shifts of one sign, or of both."""
    rng = np.random.default_rng(2)
    sums = rng.integers(-5000, 5000, shape, np.int32)
    factors = 2.0 ** rng.uniform(-12, largest, shape[axis])
    found = requantize(sums, factors, 11, *INT8, mode, axis=axis)
    assert (found.dtype, found.shape) == (np.int8, shape)
    for channel, factor in enumerate(factors):
        alone = requantize(np.take(sums, channel, axis), factor, 11, *INT8, mode)
        np.testing.assert_array_equal(np.take(found, channel, axis), alone)
    np.testing.assert_array_equal(found, requantize_reference(sums, factors, 11, *INT8, mode, axis=axis))


@BOTH
def test_blocks_are_put_together(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the reference, with blocks so small that there are many; sums in any memory order."""
    monkeypatch.setattr(requantizing, "BLOCK", 10)
    rng = np.random.default_rng(3)
    sums = rng.integers(-5000, 5000, (6, 7, 11), np.int32)
    factors = rng.uniform(0.001, 0.02, 11)
    for each in (sums, sums[::-1, :, ::-1], sums.transpose(1, 0, 2), sums[:, ::2]):
        for axis, chosen in ((0, 0.01), (2, factors), (1, rng.uniform(0.001, 0.02, each.shape[1]))):
            found = requantize(each, chosen, 0, *INT8, mode, axis=axis)
            np.testing.assert_array_equal(
                found, requantize_reference(each, chosen, 0, *INT8, mode, axis=axis)
            )


@BOTH
def test_clamps(mode: str) -> None:
    """Oracle: by hand: the ends of the codes, a ReLU's at the zero point, and the dtype they ask for."""
    sums = np.array([-(2**31), -20, 0, 20, 2**31 - 1], np.int32)
    how: Any = {"mode": mode}
    assert requantize(sums, 0.5, 3, -128, 127, **how).tolist() == [-128, -7, 3, 13, 127]
    assert requantize(sums, 0.5, 3, -128, 127, relu=True, **how).tolist() == [3, 3, 3, 13, 127]
    assert requantize(sums, 0.5, 3, -128, 10, relu=True, **how).tolist() == [3, 3, 3, 10, 10]
    unsigned = requantize(sums, 0.5, 128, 0, 255, **how)
    assert (unsigned.dtype, unsigned.tolist()) == (np.uint8, [0, 118, 128, 138, 255])
    assert requantize(sums, 0.5, 3, 0, 127, **how).dtype == np.uint8
    assert requantize(sums, 0.5, 3, 0, 127, dtype=np.int8, **how).dtype == np.int8
    assert requantize(sums, 0.0, 3, 0, 127, **how).tolist() == [3] * 5
    assert requantize(np.array(7, np.int32), 0.5, 0, 0, 127, **how).shape == ()


# ---- refusals ----------------------------------------------------------------------------------------------

SUM = np.zeros((2, 3), np.int32)


@pytest.mark.parametrize(
    ("call", "fault", "said"),
    [
        (lambda: requantize(SUM.astype("i8"), 1.0, 0, 0, 9), FormatError, "expected int32 sums, got int64"),
        (lambda: requantize(SUM, 1.0, 0, 0, 9, "fixed"), SettingError, "did you mean 'fixed-point'"),
        (lambda: requantize(SUM, -1.0, 0, 0, 9), SettingError, "from 0 up to 2\\^31, got -1.0"),
        (lambda: requantize(SUM, np.nan, 0, 0, 9), SettingError, "got nan"),
        (lambda: requantize(SUM, [0.1, np.inf, 1], 0, 0, 9), SettingError, "both are positive and finite"),
        (lambda: requantize(SUM, 1j, 0, 0, 9), SettingError, "must be a number"),
        (lambda: requantize(SUM, [0.1, 0.2], 0, 0, 9), ShapeError, r"each index of axis -1 of \(2, 3\)"),
        (lambda: requantize(SUM, [0.1, 0.2], 0, 0, 9, axis=2), ShapeError, "say with axis="),
        (lambda: requantize(SUM, [[0.1] * 3], 0, 0, 9), ShapeError, r"got \(1, 3\)"),
        (lambda: requantize(SUM, 1.0, 0, -1, 128), SettingError, "codes from -1 to 128 are no range of int8"),
        (lambda: requantize(SUM, 1.0, 0, 5, 4), SettingError, "codes from 5 to 4"),
        (lambda: requantize(SUM, 1.0, -1, 0, 255), SettingError, "zero_point must be a code of uint8"),
        (lambda: requantize(SUM, 1.0, 0, 0, 9, dtype=np.int16), FormatError, "int8 or uint8, not int16"),
        (lambda: fixed_point(2.0**31), SettingError, "up to 2\\^31"),
    ],
)
def test_refusals(call: Any, fault: type[MinimpError], said: str) -> None:
    """Oracle: the class of the error, its words, and that it offers a next step."""
    with pytest.raises(fault, match=said) as caught:
        call()
    assert caught.value.op in ("requantize", "fixed_point")
    assert caught.value.help or "known:" in str(caught.value)


def test_a_backend_has_the_kernels() -> None:
    """Oracle: the functions, on the same arrays."""
    sums = np.arange(-300, 300, dtype=np.int32).reshape(20, 30)
    factors = np.linspace(0.1, 0.4, 20)
    found = BACKEND.requantize(sums, factors, 3, 0, 200, "fixed-point", axis=0, relu=True, dtype=np.uint8)
    expected = requantize(sums, factors, 3, 0, 200, "fixed-point", axis=0, relu=True)
    np.testing.assert_array_equal(found, expected)
    assert BACKEND.fixed_point(0.3) == fixed_point(0.3)


# ---- torch -------------------------------------------------------------------------------------------------


@pytest.fixture
def torch() -> Iterator[Any]:
    """PyTorch with the engine that is exact on any CPU."""
    torch = pytest.importorskip("torch")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "qnnpack"
    yield torch
    torch.backends.quantized.engine = before


def quantized(torch: Any, codes: Array, scale: float, zero: int) -> Any:
    """A quantised tensor of torch with these codes."""
    return torch._make_per_tensor_quantized_tensor(torch.from_numpy(codes), scale, zero)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_linear_layers_of_torch(torch: Any, relu: bool, per_channel: bool) -> None:
    """Oracle: torch 2.13 with QNNPACK: every code of quantised linear layers, 40,000 of them."""
    rng = np.random.default_rng(4)
    for depth, x_zero, y_zero in ((64, 100, 120), (300, 0, 0), (1500, 255, 3)):
        x, w = (rng.integers(*ends, shape, dtype, endpoint=True) for ends, shape, dtype in (
            ((0, 255), (100, depth), np.uint8), ((-127, 127), (40, depth), np.int8)))  # fmt: skip
        scales = rng.uniform(0.001, 0.02, 40) if per_channel else np.full(40, 0.007)
        x_scale, y_scale = np.float32(0.031), np.float32(0.9 * depth**0.5 * 0.031)
        bias = rng.integers(-5000, 5000, 40, np.int32)
        how = (torch.from_numpy(w), torch.from_numpy(scales), torch.zeros(40, dtype=torch.long), 0)
        weight = (torch._make_per_channel_quantized_tensor(*how) if per_channel
                  else quantized(torch, w, scales[0], 0))  # fmt: skip
        products = (x_scale * scales.astype(np.float32)).astype(np.float32)
        packed = torch.ops.quantized.linear_prepack(
            weight, torch.from_numpy((bias * products).astype(np.float32))
        )
        layer = torch.ops.quantized.linear_relu if relu else torch.ops.quantized.linear
        expected = layer(quantized(torch, x, float(x_scale), x_zero), packed, float(y_scale), y_zero)
        sums = integer_matmul(x, w.T, x_zero) + bias
        found = requantize(sums, products / y_scale, y_zero, 0, 255, axis=1, relu=relu)
        np.testing.assert_array_equal(found, expected.int_repr().numpy())


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"), [(1, 1, 1, 1), (2, 2, 1, 1), (8, 1, 2, 1), (1, 1, 2, 2)]
)
def test_convolutions_of_torch(torch: Any, groups: int, stride: int, padding: int, dilation: int) -> None:
    """Oracle: torch 2.13 with QNNPACK: every code of quantised convolutions, depthwise ones too."""
    rng = np.random.default_rng(5)
    x = rng.integers(0, 255, (2, 8, 14, 14), np.uint8, endpoint=True)
    w = rng.integers(-127, 127, (16 if groups < 8 else 8, 8 // groups, 3, 3), np.int8, endpoint=True)
    geometry: Any = ([stride] * 2, [padding] * 2, [dilation] * 2, groups)
    x_scale, w_scale, y_scale = (np.float32(each) for each in (0.02, 0.013, 0.9))
    packed = torch.ops.quantized.conv2d_prepack(quantized(torch, w, float(w_scale), 0), None, *geometry)
    seen = quantized(torch, x, float(x_scale), 131)
    expected = torch.ops.quantized.conv2d(seen, packed, float(y_scale), 77).int_repr().numpy()
    sums = integer_conv2d(x, w, stride, padding, dilation, groups, x_zero=131)
    found = requantize(sums, x_scale * w_scale / y_scale, 77, 0, 255)
    np.testing.assert_array_equal(found, expected)
