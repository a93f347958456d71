"""Initial values; oracle: closed forms, the same draws in float64, and moments within six deviations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import FormatError, GradientError, SettingError, ShapeError
from minimp.nn import init
from tests.arrays import host
from tests.tolerances import assert_close

SHAPE = (64, 16, 5, 5)  # fan_in 400, fan_out 1600
COUNT = math.prod(SHAPE)


def empty(shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> nn.Parameter:
    """Return a parameter to be filled."""
    return nn.Parameter(mp.tensor(np.zeros(shape), dtype=dtype))


Draw = Callable[[Any], Any]
# name, how to draw, and the rule's half width (None: a normal distribution) and standard deviation
RULES: list[tuple[str, Draw, float | None, float]] = [
    ("uniform_", lambda t: init.uniform_(t, -2.0, 2.0), 2.0, 2.0 / math.sqrt(3)),
    ("normal_", lambda t: init.normal_(t, 0.0, 0.5), None, 0.5),
    ("relu", lambda t: init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(6 / 400), math.sqrt(2 / 400)),
    ("layers", lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), 1 / 20, 1 / (20 * math.sqrt(3))),
    ("kaiming_normal_", lambda t: init.kaiming_normal_(t, mode="fan_out"), None, math.sqrt(2 / 1600)),
    ("gain", lambda t: init.xavier_uniform_(t, gain=2.0), 2 * math.sqrt(6 / 2000), 2 * math.sqrt(2 / 2000)),
    ("xavier_normal_", init.xavier_normal_, None, math.sqrt(2 / 2000)),
]


@pytest.mark.parametrize(("name", "draw", "width", "deviation"), RULES, ids=[rule[0] for rule in RULES])
def test_moments_are_those_of_the_rule(name: str, draw: Draw, width: float | None, deviation: float) -> None:
    """Oracle: mean 0 and the closed-form variance; each mean within six of its own standard deviations.

    The variance of x^2 is 2 s^4 for a normal and 4/5 s^4 for a uniform distribution. False alarm: 1 in 2.5e8.
    """
    tensor = empty()
    assert draw(tensor) is tensor
    x = tensor.detach().numpy().astype(np.float64)
    assert_close(x.mean() / (deviation / math.sqrt(COUNT)), 0.0, "six_deviations")
    spread = math.sqrt((2.0 if width is None else 0.8) / COUNT) * deviation**2
    assert_close((np.mean(x**2) - deviation**2) / spread, 0.0, "six_deviations")
    if width is not None:
        assert np.abs(x).max() <= np.float32(width)
        assert np.abs(x).max() >= width * (1 - 20 / COUNT)  # missed once in e^20 tries


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_values_are_the_float64_draws_rounded_once(dtype: str) -> None:
    """Oracle: NumPy's own draws from a generator of the same state, and minimp.formats.round."""
    tensor = init.uniform_(empty((50, 20), dtype), -1.0, 3.0, generator=np.random.default_rng(5))
    drawn = np.random.default_rng(5).uniform(-1.0, 3.0, (50, 20))
    assert np.array_equal(host(tensor).astype(np.float64), mp.formats.round(drawn, dtype))
    assert tensor.format is mp.formats.get(dtype)


def test_layers_draw_from_the_engines_generator() -> None:
    """Oracle: the same seed gives the same weights, and a uniform bias in +-1/sqrt(fan_in)."""
    mp.manual_seed(3)
    a = nn.Conv2d(4, 6, 3, groups=2)
    mp.manual_seed(3)
    b = nn.Conv2d(4, 6, 3, groups=2)
    c = nn.Conv2d(4, 6, 3, groups=2)
    assert np.array_equal(host(a.weight), host(b.weight))
    assert not np.array_equal(host(a.weight), host(c.weight))
    bound = np.float32(1 / math.sqrt(2 * 9))
    for leaf in a.parameters():
        assert 0.5 * bound < np.abs(host(leaf)).max() <= bound


def test_constants_and_gains() -> None:
    """Oracle: hand-computed values; 0.1 rounded to float16 by NumPy."""
    assert init.zeros_(empty((2,))).tolist() == [0.0, 0.0]
    assert init.ones_(empty((2,))).tolist() == [1.0, 1.0]
    assert init.constant_(empty((1,), "float16"), 0.1).item() == float(np.float16(0.1))
    assert init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("leaky_relu", 1.0) == 1.0
    assert init.kaiming_uniform_(empty((3, 0))).shape == (3, 0)


def test_mistakes_are_named() -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(ShapeError, match="at least two axes"):
        init.kaiming_uniform_(empty((3,)))
    with pytest.raises(SettingError, match="unknown mode 'fan-in'; did you mean 'fan_in'"):
        init.kaiming_normal_(empty(), mode="fan-in")
    with pytest.raises(SettingError, match="unknown nonlinearity 'rely'; did you mean 'relu'"):
        init.calculate_gain("rely")
    with pytest.raises(SettingError, match="slope that is a number"):
        init.calculate_gain("leaky_relu", True)
    with pytest.raises(SettingError, match="expected a <= b"):
        init.uniform_(empty(), 1.0, 0.0)
    with pytest.raises(SettingError, match="std of at least 0"):
        init.normal_(empty(), std=-1.0)
    with pytest.raises(GradientError, match="only a leaf"):
        init.zeros_(empty((2,)) * 2.0)
    with pytest.raises(FormatError, match="a tensor of floats"):
        init.zeros_(mp.tensor([1, 2]))
