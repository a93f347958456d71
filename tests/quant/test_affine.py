"""Codes of affine numbers; oracle: their definition in rational arithmetic, and laws."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.errors import FormatError, MinimpError, SettingError, ShapeError
from minimp.quant import RULES, Affine, QTensor, choose, dequantize, fake_quantize, quantize
from minimp.quant.kernels import BLOCK, NARROW

RANGES = [(-128, 127), (-127, 127), (-64, 63), (0, 255), (0, 127), (-8, 7), (0, 15), (-2, 1), (-1, 1), (0, 3)]
NAMES = sorted(RULES)


@st.composite
def affines(draw: st.DrawFn, rules: tuple[str, ...] = tuple(NAMES)) -> Affine:
    """Any affine numbers whose values stay far from the ends of float32."""
    quant_min, quant_max = draw(st.sampled_from(RANGES))
    scale = draw(st.one_of(st.floats(2.0**-40, 2.0**40, width=32), st.sampled_from([0.5, 1.0, 0.1])))
    zero = draw(st.integers(quant_min, quant_max))
    return Affine(scale, zero, quant_min, quant_max, rule=draw(st.sampled_from(rules)))


STEPS = st.lists(st.one_of(st.floats(-400, 400), st.integers(-800, 800).map(lambda n: n / 2)), min_size=1)
"""Values in units of the scale; half of them on the grid and its ties."""


def values_of(steps: list[float], affine: Affine) -> npt.NDArray[np.float32]:
    """Return the float32 numbers that lie these many steps from 0."""
    return (np.array(steps) * float(affine.scale)).astype(np.float32)


def to_float32(exact: Fraction) -> Fraction:
    """Round once to float32, ties to even, from the neighbours of a first guess."""
    guess = np.float32(float(exact))
    near = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return Fraction(
        float(min(near, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.int32)) & 1)))
    )


def half_away(exact: Fraction) -> int:
    """Round to a whole number, halves away from zero."""
    return int(math.copysign(math.floor(abs(exact) + Fraction(1, 2)), exact))


def code_by_definition(x: np.float32, affine: Affine, *, fake: bool = False) -> int:
    """The code of a finite number: rational arithmetic, and the roundings that the rule names."""
    scale, zero = Fraction(float(affine.scale)), int(affine.zero_point)
    value, inverse = Fraction(float(x)), Fraction(float(np.float32(1) / affine.scale))
    if affine.rule == "tflite":
        code = half_away(to_float32(value / scale)) + zero
    elif affine.rule == "onnx":
        code = round(to_float32(value / scale)) + zero
    elif fake:
        code = round(to_float32(value * inverse)) + zero
    else:
        code = round(to_float32(value * inverse + zero))
    return min(max(code, affine.quant_min), affine.quant_max)


@given(affines(), STEPS)
def test_codes_are_those_of_the_rule(affine: Affine, steps: list[float]) -> None:
    """Oracle: each rule's formula in rational arithmetic, rounded where the rule rounds."""
    x = values_of(steps, affine)
    assert quantize(x, affine).tolist() == [code_by_definition(each, affine) for each in x]
    expected = [code_by_definition(each, affine, fake=True) for each in x]
    zero = int(affine.zero_point)
    assert fake_quantize(x, affine).tolist() == [float(affine.scale * np.float32(q - zero)) for q in expected]


def test_a_sum_is_rounded_once() -> None:
    """Oracle: rational arithmetic, on sums that lie by 2^-48 beside a tie of float32 beside a half."""
    rng = np.random.default_rng(3)
    scale = np.float32(1 / 3)
    affine = Affine(scale, 77, rule="torch")
    halves = (rng.integers(-200, 50, 4000) + 0.5) * float(scale)
    x = np.concatenate([halves.astype(np.float32)] + [
        np.nextafter(halves.astype(np.float32), np.float32(to)) for to in (-np.inf, np.inf)
    ])  # fmt: skip
    expected = [code_by_definition(each, affine) for each in x]
    assert quantize(x, affine).tolist() == expected
    naive = np.clip(np.rint(x * (np.float32(1) / scale)) + 77, -128, 127)
    assert (naive != expected).any()


@pytest.mark.parametrize(
    ("scale", "x"), [("0x1.07000e0p-1", "0x1.cc405a0p+0"), ("0x1.1cc8940p-1", "0x1.f25f4a0p+0")]
)
def test_a_sum_is_not_rounded_to_float64_on_the_way(scale: str, x: str) -> None:
    """Oracle: rational arithmetic: 201 + x (1/s) is 204.5 + 2^-17 + 2^-46: above the middle of two floats."""
    affine = Affine(float.fromhex(scale), 201, 0, 255)
    value = np.float32(float.fromhex(x))
    exact = Fraction(float(value)) * Fraction(float(np.float32(1) / affine.scale)) + 201
    assert exact == Fraction(409, 2) + Fraction(1, 2**17) + Fraction(1, 2**46)
    assert np.float32(float(exact)) == 204.5  # rounded twice: a tie, to 204
    assert quantize([value], affine).tolist() == [code_by_definition(value, affine)] == [205]


@given(affines(), STEPS)
def test_laws_of_one_tensor(affine: Affine, steps: list[float]) -> None:
    """Oracle: 0 is exact, codes rise with values, doing it twice changes nothing, half a step may be lost."""
    x = values_of(sorted(steps), affine)
    codes = quantize(x, affine)
    assert quantize(np.zeros(1, np.float32), affine)[0] == affine.zero_point
    assert dequantize(np.array([affine.zero_point]), affine)[0] == 0
    assert (np.diff(codes.astype(int)) >= 0).all()
    back = dequantize(codes, affine)
    assert (quantize(back, affine) == codes).all()
    assert np.array_equal(fake_quantize(back, affine), back)
    inside = (x >= affine.low) & (x <= affine.high)
    lost = np.abs(x.astype(np.float64) - back)[inside]
    slack = 2.0**-22 * (
        np.abs(x[inside]) + 256 * float(affine.scale)
    )  # x/s, its sum with z and s (q - z) round
    assert (lost <= float(affine.scale) / 2 + slack).all()


@given(
    st.lists(affines(("torch",)), min_size=1, max_size=3), st.integers(0, 2), st.integers(0, 3),
    st.sampled_from(NAMES), st.sampled_from([1, 3, NARROW]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_per_channel_is_per_tensor_on_each_slice(
    parts: list[Affine], axis: int, before: int, rule: str, inner: int, seed: int
) -> None:
    """Oracle: one channel at a time, with its own scale and zero point."""
    low, high = parts[0].quant_min, parts[0].quant_max
    scales = np.array([each.scale for each in parts])
    zeros = np.clip([int(each.zero_point) for each in parts], low, high)
    channels = Affine(scales, zeros, low, high, axis=axis - 3, rule=rule)
    shape = [2, before, inner]
    shape[axis] = len(parts)
    spread = scales.reshape([len(parts) if i == axis else 1 for i in range(3)])
    x = (np.random.default_rng(seed).integers(-300, 300, shape) / 2 * spread).astype(np.float32)
    for i in range(len(parts)):
        one = Affine(scales[i], zeros[i], low, high, rule=rule)
        taken = np.take(x, i, axis)
        codes = quantize(x, channels)
        assert np.array_equal(np.take(codes, i, axis), quantize(taken, one))
        assert np.array_equal(np.take(fake_quantize(x, channels), i, axis), fake_quantize(taken, one))
        assert np.array_equal(
            np.take(dequantize(codes, channels), i, axis), dequantize(quantize(taken, one), one)
        )


@pytest.mark.parametrize("rule", NAMES)
@pytest.mark.parametrize("shape", [(BLOCK + 5,), (3, BLOCK // 2), (BLOCK // 8, 9, 2), (2, 3, BLOCK // 4 + 1)])
def test_blocks_do_not_show(rule: str, shape: tuple[int, ...]) -> None:
    """Oracle: the same numbers, quantised a few at a time; the array lies in memory otherwise, too."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    axis = 1 if len(shape) > 1 else 0
    count = shape[axis]
    affine = Affine(
        np.linspace(0.01, 0.02, count, dtype=np.float32), np.arange(count) % 7, axis=axis, rule=rule
    )
    codes = quantize(x, affine)
    one = np.moveaxis(x, axis, -1).reshape(-1, count)
    each = Affine(affine.scale, affine.zero_point, axis=1, rule=rule)
    parts = [quantize(one[i : i + 1], each) for i in range(0, len(one), max(len(one) // 5, 1))]
    seen = np.moveaxis(codes, axis, -1).reshape(-1, count)[:: max(len(one) // 5, 1)]
    assert np.array_equal(seen, np.concatenate(parts))
    assert np.array_equal(quantize(np.asfortranarray(x), affine), codes)


@pytest.mark.parametrize(
    ("rule", "nan", "faked"),
    [("torch", 100, -5), ("torch-dynamic", 100, -5), ("onnx", -5, -5), ("tflite", -5, -5)],
)
def test_nan_and_infinities(rule: str, nan: int, faked: int) -> None:
    """Oracle: the rules, by hand: what is too large is clamped; NaN has a code of its own a rule."""
    affine = Affine(0.5, 3, -5, 100, rule=rule)
    x = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38, 2.0**31])
    assert quantize(x, affine).tolist() == [nan, 100, -5, 100, -5, 100]
    assert fake_quantize(x, affine).tolist() == [(q - 3) / 2 for q in (faked, 100, -5, 100, -5, 100)]


def test_what_may_be_quantised() -> None:
    """Oracle: float32 values of the same numbers; integers and numbers of other kinds are refused."""
    affine = Affine(0.1, 3)
    x = np.float32([0.25, -1.5, 100])
    for given_x in (x.astype(np.float16), x.astype(ml_dtypes.bfloat16), x.astype(np.float64), mp.tensor(x)):
        expected = quantize(np.asarray(given_x).astype(np.float32), affine)
        assert np.array_equal(quantize(given_x, affine), expected)
    assert quantize(np.float32(0.25), affine).shape == ()
    assert quantize(np.zeros((3, 0), np.float32), affine).shape == (3, 0)
    assert quantize(np.zeros((0, 3), np.float32), Affine([1, 1, 1], [0, 0, 0], axis=1)).shape == (0, 3)
    assert np.array_equal(quantize(mp.tensor(x, requires_grad=True), affine), quantize(x, affine))
    with pytest.raises(FormatError, match="expected floating-point numbers, got int64"):
        quantize(np.arange(3), affine)
    with pytest.raises(FormatError, match="expected integer codes, got float32"):
        dequantize(x, affine)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"scale": 0.0}, "at least 2\\^-126, and finite, got 0"),
        ({"scale": -1.0}, "got -1"),
        ({"scale": math.nan}, "got nan"),
        ({"scale": math.inf}, "got inf"),
        ({"scale": 1e-39}, "got 1e-39"),
        ({"scale": [1.0, math.nan], "zero_point": [0, 0], "axis": 0}, "got nan in channel 1"),
        ({"zero_point": 128}, "zero point 128 is not among the codes -128..127"),
        ({"zero_point": 2**40}, "is not among the codes"),
        ({"zero_point": 0.5}, "zero points are whole numbers"),
        ({"quant_min": 1}, "codes must contain 0"),
        ({"quant_min": -1, "quant_max": 128}, "lie within"),
        ({"quant_min": 0, "quant_max": 256}, "lie within"),
        ({"quant_min": 0, "quant_max": 0}, "codes must contain 0"),
        ({"quant_min": 0.5}, "quant_min must be a whole number"),
        ({"scale": [1.0, 1.0]}, "got shapes \\(2,\\) and \\(\\) with axis=None"),
        ({"axis": 0}, "with axis=0"),
        ({"rule": "tourch"}, "did you mean 'torch'"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, Any], says: str) -> None:
    """Oracle: one SettingError each, which says what came."""
    with pytest.raises(SettingError, match=says):
        Affine(**{"scale": 1.0, "zero_point": 0, **arguments})


@pytest.mark.parametrize(("axis", "shape"), [(0, (2, 3)), (1, (3,)), (-3, (3, 3)), (0, ())])
def test_other_channels_are_refused(axis: int, shape: tuple[int, ...]) -> None:
    """Oracle: ShapeError; nothing is broadcast."""
    affine = Affine([1, 1, 1], [0, 0, 0], axis=axis)
    for act in (quantize, fake_quantize, lambda x, a: dequantize(x.astype(np.int8), a)):
        with pytest.raises(ShapeError, match="expected 3 channels"):
            act(np.zeros(shape, np.float32), affine)


def test_what_affine_numbers_say() -> None:
    """Oracle: by hand."""
    wide = Affine(0.5, 128, 0, 255)
    assert (wide.storage, wide.bits, wide.symmetric, wide.per_channel) == (np.uint8, 8, True, False)
    assert (wide.low, wide.high) == (-64, 63.5)
    assert [Affine(1, 0, *each).bits for each in RANGES] == [8, 8, 7, 8, 7, 4, 4, 2, 2, 2]
    assert str(wide) == "uint8, scale 0.5, zero point 128, codes 0..255, rule torch"
    rows = Affine([0.5, 0.25], [0, 0], -8, 7, axis=0)
    assert str(rows) == "int4, 2 scales 0.25..0.5 along axis 0, zero points 0..0, codes -8..7, rule torch"
    assert rows.symmetric
    assert rows == Affine(np.float64([0.5, 0.25]), [0, 0], -8, 7, axis=0)
    assert rows != Affine([0.5, 0.25], [0, 1], -8, 7, axis=0)
    with pytest.raises(ValueError, match="read-only"):
        rows.scale[0] = 1


def test_a_quantised_tensor_shows_itself() -> None:
    """Oracle: by hand: codes, values, bytes; what does not fit is refused."""
    x = np.float32([[-0.5, 0.0, 0.26]])
    made = QTensor.of(x, Affine(0.02, 3))
    assert made.codes.tolist() == [[-22, 3, 16]]
    assert made.int_repr() is made.codes
    assert np.array_equal(made.dequantize(), fake_quantize(x, made.affine))
    assert (made.shape, made.nbytes) == ((1, 3), 11)
    assert repr(made) == "<QTensor (1, 3) int8, scale 0.02, zero point 3, codes -128..127, rule torch>"
    large = QTensor.of(np.zeros((64, 64), np.float32), choose(-1, 1, quant_min=-128, quant_max=127))
    assert max(map(len, str(large).splitlines())) <= 100
    refused: list[tuple[type[MinimpError], Any]] = [
        (FormatError, np.zeros(3, np.uint8)),
        (SettingError, np.int8([3, 9])),
    ]
    for error, codes in refused:
        with pytest.raises(error):
            QTensor(codes, Affine(1.0, 0, -8, 7))
    with pytest.raises(ShapeError):
        QTensor(np.zeros(3, np.int8), Affine([1, 1], [0, 0], axis=0))


def test_codes_are_not_taken_for_numbers() -> None:
    """Oracle: one error for each way of computing with codes as if they were numbers, with what to do."""
    codes = QTensor.of(np.float32([0.5, 1.0]), Affine(0.5, 3))
    ones = np.ones(2, np.float32)
    for wrong in (
        lambda: np.asarray(codes), lambda: codes + codes, lambda: 2.0 * codes, lambda: ones - codes,
        lambda: codes @ codes, lambda: -codes, lambda: QTensor.of(codes, codes.affine), lambda: np.exp(codes),
        lambda: mp.tensor(codes), lambda: mp.functional.relu(codes),
    ):  # fmt: skip
        with pytest.raises(
            FormatError, match=r"codes came where numbers.*scale 0.5, zero point 3(.|\n)*dequ"
        ):
            wrong()
