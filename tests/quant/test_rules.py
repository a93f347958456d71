"""Scales and zero points; oracle: rational arithmetic, and the rules worked out by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp.errors import SettingError
from minimp.quant import RULES, Affine, choose, quantize

RANGES = [(-128, 127), (-127, 127), (0, 255), (-8, 7), (0, 15), (-1, 1), (0, 3)]
BYTE = {"quant_min": 0, "quant_max": 255}
EVEN = {"low": -1.0, "high": 1.0}
ENDS = st.floats(-(2.0**60), 2.0**60, width=32)


def allowed(rule: str, symmetric: bool, codes: tuple[int, int]) -> bool:
    """Tell whether a rule has the form that is asked for."""
    return not symmetric or rule in ("torch", "onnx") or (rule == "tflite" and codes[0] == -codes[1])


@given(st.sampled_from(sorted(RULES)), ENDS, ENDS, st.sampled_from(RANGES), st.booleans())
def test_the_range_is_covered(rule: str, a: float, b: float, codes: tuple[int, int], symmetric: bool) -> None:
    """Oracle: s steps (to a rounding) is the width of the range with 0 in it, or the floor of the rule."""
    if not allowed(rule, symmetric, codes):
        return
    low, high = min(a, b), max(a, b)
    affine = choose(low, high, rule=rule, quant_min=codes[0], quant_max=codes[1], symmetric=symmetric)
    lower, upper = Fraction(min(low, 0.0)), Fraction(max(high, 0.0))
    width = 2 * max(-lower, upper) if symmetric else upper - lower
    floor = {"torch": 2.0**-23, "torch-dynamic": float(np.float32(6.1e-5))}.get(rule, 0.0)
    exact = width / (codes[1] - codes[0])
    scale = float(affine.scale)
    if exact > max(floor, 2.0**-126):
        assert abs(Fraction(scale) - exact) <= exact * Fraction(2) ** -22
        step = Fraction(1) if symmetric else Fraction(1, 2) + Fraction(1, 2**12)
        assert Fraction(float(affine.low)) <= lower + step * Fraction(scale)
        assert Fraction(float(affine.high)) >= upper - step * Fraction(scale)
    else:
        assert scale == floor or scale in (np.float32(0.1), 1.0)
    assert quantize(np.zeros(1, np.float32), affine)[0] == affine.zero_point


@pytest.mark.parametrize(
    ("rule", "arguments", "scale", "zero"),
    [
        ("torch", {**EVEN, "symmetric": True}, 1 / 127.5, 0),
        ("torch", {**EVEN, "symmetric": True, "quant_min": -127}, 1 / 127, 0),
        ("torch", {**EVEN, "symmetric": True, **BYTE}, 1 / 127.5, 128),
        ("torch", {**EVEN, "symmetric": True, "quant_min": 0, "quant_max": 15}, 1 / 7.5, 7),
        ("torch", {"low": 1.0, "high": 3.0}, 3 / 255, -128),
        ("torch", {"low": -3.0, "high": -1.0}, 3 / 255, 127),
        ("torch", {"low": 0.0, "high": 0.0}, 2.0**-23, -128),
        ("torch", {**EVEN, "reduce_range": True}, 2 / 127, 0),
        ("torch", {"low": 0.0, "high": 1.0, "reduce_range": True, **BYTE}, 1 / 127, 0),
        ("torch-dynamic", {"low": 0.0, "high": 0.0, **BYTE}, 0.1, 0),
        ("torch-dynamic", {"low": 0.0, "high": 1e-4, **BYTE}, 6.1e-5, 0),
        ("torch-dynamic", {"low": -1e-4, "high": 0.0, **BYTE}, 6.1e-5, 255),
        ("torch-dynamic", {"low": -1e-4, "high": 1e-4, **BYTE}, 6.1e-5, 128),
        ("onnx", {**EVEN, "symmetric": True, "quant_min": -127}, 1 / 127, 0),
        ("onnx", {**EVEN, "symmetric": True, **BYTE}, 1 / 127.5, 128),
        ("onnx", {"low": 0.0, "high": 0.0, **BYTE}, 1.0, 0),
        ("onnx", {"low": -1.0, "high": 3.0}, 4 / 255, -64),
        ("tflite", {**EVEN, "symmetric": True, "quant_min": -127}, 1 / 127, 0),
        ("tflite", EVEN, 2 / 255, -1),
        ("tflite", {"low": 0.0, "high": 0.0}, 1.0, -128),
    ],
)  # fmt: skip
def test_rules_by_hand(rule: str, arguments: dict[str, Any], scale: float, zero: int) -> None:
    """Oracle: the formulas, worked out; -0.5 goes to 0 in torch (even), away from 0 in TFLite."""
    affine = choose(**{"quant_min": -128, "quant_max": 127, "rule": rule, **arguments})
    assert (float(affine.scale), int(affine.zero_point)) == (float(np.float32(scale)), zero)


def test_halves_of_zero_points() -> None:
    """Oracle: by hand: -l/s is 1.5 and 0.5, an exact half, beside the first code, 0."""
    found = {
        rule: [
            int(choose(low, high, rule=rule, quant_min=0, quant_max=15).zero_point)
            for low, high in ((-1.5, 13.5), (-0.5, 14.5))
        ]
        for rule in RULES
    }
    assert found == {"torch": [2, 0], "torch-dynamic": [2, 0], "onnx": [2, 0], "tflite": [2, 1]}


TIES = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 126.5, 127.5, -130.5])


@pytest.mark.parametrize(
    ("rule", "zero", "codes"),
    [
        ("torch", 0, [-2, -2, 0, 0, 2, 2, 4, 126, 127, -128]),
        ("torch", 1, [-2, 0, 0, 2, 2, 4, 4, 127, 127, -128]),
        ("onnx", 0, [-2, -2, 0, 0, 2, 2, 4, 126, 127, -128]),
        ("onnx", 1, [-1, -1, 1, 1, 3, 3, 5, 127, 127, -128]),
        ("tflite", 0, [-3, -2, -1, 1, 2, 3, 4, 127, 127, -128]),
        ("tflite", 1, [-2, -1, 0, 2, 3, 4, 5, 127, 127, -128]),
    ],
)
def test_ties_by_hand(rule: str, zero: int, codes: list[int]) -> None:
    """Oracle: to the even code, to the even number of steps, away from zero."""
    assert quantize(TIES, Affine(1.0, zero, rule=rule)).tolist() == codes


def test_channels_are_chosen_one_by_one() -> None:
    """Oracle: the same rule on each channel alone."""
    low, high = np.float32([-1, 0, -3, 0]), np.float32([2, 0, -1, 1e-6])
    for rule in RULES:
        made = choose(low, high, rule=rule, quant_min=0, quant_max=255, axis=1)
        alone = [choose(a, b, rule=rule, quant_min=0, quant_max=255) for a, b in zip(low, high, strict=True)]
        assert made.scale.tolist() == [each.scale for each in alone]
        assert made.zero_point.tolist() == [each.zero_point for each in alone]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"low": 1.0, "high": -1.0}, "expected finite low <= high, got 1 and -1"),
        ({"low": math.nan}, "got nan and 1"),
        ({"high": math.inf}, "got -1 and inf"),
        ({"low": [0.0, 0.0], "high": [0.0, math.inf], "axis": 0}, "in channel 1"),
        ({"low": [0.0, 0.0]}, "differ in shape"),
        ({"low": -3e38, "high": 3e38}, "finite, got inf"),
        ({"rule": "onx"}, "did you mean 'onnx'"),
        ({"quant_max": 300}, "codes must contain 0"),
        ({"rule": "torch-dynamic", "symmetric": True}, "no symmetric form"),
        ({"rule": "tflite", "symmetric": True}, "symmetric codes \\[-m, m\\], got -128..127"),
        ({"quant_min": 0, "symmetric": True, "reduce_range": True}, "do not go together"),
    ],
)
def test_ranges_that_cannot_be_used(arguments: dict[str, Any], says: str) -> None:
    """Oracle: one SettingError each."""
    with pytest.raises(SettingError, match=says):
        choose(**{"low": -1.0, "high": 1.0, "quant_min": -128, "quant_max": 127, **arguments})
