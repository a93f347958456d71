"""Running error analysis; oracle: operands anywhere in their intervals, computed on in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import numpy as np
import pytest

from minimp import formats
from minimp.checks.contracts import within
from minimp.checks.running import ULPS, Running, arithmetic_of

AT = arithmetic_of(formats.float32)
Maker = Callable[[Any, Any], Any]

OPERATIONS: dict[str, Maker] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "rsub": lambda a, b: 1.0 - a * b,
    "rdiv": lambda a, b: 3.0 / (a + b),
    "sqrt": lambda a, b: _call(a, "sqrt") * b,
    "exp": lambda a, b: _call(a, "exp") - b,
    "log": lambda a, b: _call(a, "log") * b,
    "tanh": lambda a, b: 1.0 - _call(a, "tanh") * _call(b, "tanh"),
    "power": lambda a, b: a.power(b) if isinstance(a, Running) else np.power(a, b),
    "sum": lambda a, b: (a * b).sum(axis=0),
    "chain": lambda a, b: (a * a - b * b) / (a - 0.9 * b),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Overflow and division by zero are studied here; callers of running numbers silence them too."""
    with np.errstate(all="ignore"):
        yield


def _call(x: Any, name: str) -> Any:
    return getattr(x, name)() if isinstance(x, Running) else getattr(np, name)(x)


@pytest.mark.parametrize("scale", [1.0, 2.0**60, 2.0**-60, 2.0**-130])
@pytest.mark.parametrize("name", list(OPERATIONS))
def test_the_computed_value_lies_in_the_interval(name: str, scale: float) -> None:
    """Oracle: NumPy float32 on operands moved to the ends and the inside of their intervals, 20 times."""
    random = np.random.default_rng(list(OPERATIONS).index(name))
    function = OPERATIONS[name]
    small = name in ("exp", "power", "tanh")
    exact = [random.uniform(0.1, 3, (40, 6)) * (1.0 if small else scale) for _ in range(2)]
    errors = [np.abs(x) * 2.0 ** random.integers(-24, -4, x.shape) + 1e-44 for x in exact]
    for _ in range(20):
        moved = [
            np.float32(x + e * random.choice([-1.0, -0.5, 0.0, 1.0], x.shape))
            for x, e in zip(exact, errors, strict=True)
        ]
        held = [
            Running(x, np.maximum(e, np.abs(m - x)), AT) for x, e, m in zip(exact, errors, moved, strict=True)
        ]
        bound = function(*held)
        computed = function(*moved)
        assert computed.dtype == np.float32
        assert within(computed, bound.exact, bound.error).all()


def test_an_interval_that_holds_zero_claims_nothing() -> None:
    """Oracle: what a division, logarithm or power of a number that may be 0 can give: anything."""
    near_zero = Running(np.array([1e-9]), np.array([1e-6]), AT)
    one = AT.number(np.ones(1))
    for made in (one / near_zero, near_zero.log(), near_zero.sqrt(), near_zero.power(0.5)):
        assert np.isposinf(made.error).all()
    assert np.isposinf((AT.number(np.array([np.inf])) * near_zero).error).all()
    assert (one / AT.number(np.zeros(1))).exact == np.inf


def test_an_overflow_on_the_way_claims_nothing_afterwards() -> None:
    """Oracle: 2^127 * 4 is infinite in float32, and infinite it stays when halved."""
    large = AT.number(np.array([2.0**127]))
    product = large * 4.0
    assert np.isfinite(product.error).all()
    assert np.isposinf((product * 0.25).error).all()
    assert np.isposinf(AT.number(np.array([3e38, 3e38, -3e38])).sum().error)


def test_a_representable_result_is_not_rounded() -> None:
    """Oracle: 2 - 1 and 0.5 * 3 are exact in float32, 1 / 3 is not."""
    two, third = AT.number(np.array([2.0])), AT.number(np.array([1.0])) / 3.0
    assert (two - 1.0).error == 0
    assert (two * 1.5).error == 0
    assert 0 < third.error[0] < 2.0**-24


def test_python_numbers_are_rounded_to_the_wide_format() -> None:
    """Oracle: |0.1 - float32(0.1)|; 0.5 and float64 arithmetic keep theirs."""
    assert AT.number(0.1).error == abs(0.1 - float(np.float32(0.1)))
    assert AT.number(0.5).error == 0
    assert arithmetic_of(formats.float64).number(0.1).error == 0


def test_rounding_to_storage_adds_half_an_ulp() -> None:
    """Oracle: the spacings 2^-10 and 2^-7 above 1, half of that below, 2^-24 and 2^-133 at 0."""
    x = AT.number(np.array([1.5, 0.75, 0.0]))
    np.testing.assert_array_equal(x.rounded(formats.float16).error, [2.0**-11, 2.0**-12, 2.0**-25])
    np.testing.assert_array_equal(x.rounded(formats.bfloat16).error, [2.0**-8, 2.0**-9, 2.0**-134])
    assert x.rounded(formats.float32) is x
    assert np.isposinf(AT.number(np.array([65520.0])).stored(formats.float16).error)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["exp", "log", "tanh"])
def test_numpy_keeps_the_ulps_of_the_table(name: str, dtype: type) -> None:
    """Oracle: mpmath with 120 bits, on 1,500 arguments a function."""
    random = np.random.default_rng(7)
    x = {
        "exp": random.uniform(-80, 80, 1500),
        "log": np.exp(random.uniform(-60, 60, 1500)),
        "tanh": random.uniform(-1, 1, 1500) * 2.0 ** random.integers(-20, 5, 1500),
    }[name].astype(dtype)
    with mpmath.workprec(120):
        truth = [getattr(mpmath, name)(mpmath.mpf(float(each))) for each in x]
        off = [float(abs(mpmath.mpf(float(y)) - t)) for y, t in zip(getattr(np, name)(x), truth, strict=True)]
    unit = np.spacing(np.abs(np.array([float(t) for t in truth])).astype(dtype)).astype(np.float64)
    assert (np.array(off) <= ULPS[name] * unit).all()


def test_numpy_power_keeps_the_ulps_of_the_table() -> None:
    """Oracle: mpmath with 120 bits; bases from 2^-20 to 2^20 and exponents of both signs."""
    random = np.random.default_rng(8)
    for dtype in (np.float32, np.float64):
        x = (2.0 ** random.uniform(-20, 20, 1000)).astype(dtype)
        p = random.uniform(-4, 4, 1000).astype(dtype)
        with mpmath.workprec(120):
            truth = [
                mpmath.power(mpmath.mpf(float(a)), mpmath.mpf(float(b))) for a, b in zip(x, p, strict=True)
            ]
            off = [float(abs(mpmath.mpf(float(y)) - t)) for y, t in zip(np.power(x, p), truth, strict=True)]
        unit = np.spacing(np.array([float(t) for t in truth]).astype(dtype)).astype(np.float64)
        assert (np.array(off) <= ULPS["power"] * unit).all()
