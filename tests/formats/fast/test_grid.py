"""Fast deterministic rounding gives the bits of the readable one."""

from __future__ import annotations

import numpy as np
import pytest

from minimp.formats.casting import round as fast_round
from minimp.formats.fast.plans import plan_for
from minimp.formats.rounding import round_to
from minimp.formats.table import FORMATS, Format
from tests.formats.fast.samples import EVERY, assert_bits, doubles, inside, numbers
from tests.formats.oracle import MODES, assert_same

SERVED = tuple(fmt for fmt in EVERY if plan_for(fmt, "nearest_even", None, "keep", np.dtype(np.float32)))


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
@pytest.mark.parametrize("overflow", ["ieee", "saturate"])
def test_nearest_even_from_float32(fmt: Format, overflow: str) -> None:
    """Oracle: the readable rounding, bit for bit: all midpoints and their neighbours, every special value."""
    for x in (numbers(fmt), inside(numbers(fmt), fmt)):
        got, expected = fast_round(x, fmt, overflow=overflow), round_to(x, fmt, overflow=overflow)
        if fmt in SERVED:
            assert_bits(got, expected, x)
        assert got.dtype == expected.dtype
        assert_same(got, expected, x)
        assert (np.signbit(got) == np.signbit(expected)).all()


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_float64_is_rounded_once(fmt: Format) -> None:
    """Oracle: the readable rounding, bit for bit, where a detour through float32 would round twice."""
    x = doubles(fmt)
    for overflow, given in (("ieee", x), ("saturate", x), (None, inside(x, fmt))):
        assert_bits(fast_round(given, fmt, overflow=overflow), round_to(given, fmt, overflow=overflow), given)


@pytest.mark.parametrize("mode", [each for each in MODES if each != "nearest_even"])
@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_the_other_modes(fmt: Format, mode: str) -> None:
    """Oracle: the readable rounding."""
    x = numbers(fmt)[::5]
    for given, overflow in ((x, "ieee"), (x, "saturate"), (inside(x, fmt), None), (doubles(fmt)[::7], None)):
        got, expected = fast_round(given, fmt, mode, overflow), round_to(given, fmt, mode, overflow)
        assert_same(got, expected, given)
        assert (np.signbit(got) == np.signbit(expected)).all()


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_flushed_subnormals(fmt: Format) -> None:
    """Oracle: the readable rounding with subnormals="flush", bit for bit short of NaN."""
    x = numbers(fmt)[::3]
    for mode in ("nearest_even", "up", "toward_zero"):
        got = fast_round(x, fmt, mode, subnormals="flush")
        assert_same(got, round_to(x, fmt, mode, subnormals="flush"), x)


@pytest.mark.parametrize("overflow", ["torch", "ml_dtypes"])
@pytest.mark.parametrize("name", FORMATS)
def test_named_conventions(name: str, overflow: str) -> None:
    """Oracle: the readable rounding under the libraries' rules, NaN to float6 and float4 included."""
    fmt = FORMATS[name]
    x = numbers(fmt)[::2]
    if overflow == "ml_dtypes" and not fmt.is_integer:
        x = np.append(x, np.float32([np.nan, -np.nan]))
    try:
        expected = round_to(x, fmt, overflow=overflow)
    except Exception as refused:  # noqa: BLE001 - whatever it is, the other must do the same
        with pytest.raises(type(refused)):
            fast_round(x, fmt, overflow=overflow)
        return
    assert_same(fast_round(x, fmt, overflow=overflow), expected, x)


def test_the_usual_formats_are_served() -> None:
    """Oracle: the list of formats that the tricks are derived for, from float32 and from float64."""
    slow = {"float8_e8m0fnu"}
    for dtype in (np.float32, np.float64):
        for mode in MODES:
            served = {n for n, fmt in FORMATS.items() if plan_for(fmt, mode, None, "keep", np.dtype(dtype))}
            assert served == set(FORMATS) - slow


def test_ties_go_to_even_beside_every_power_of_two() -> None:
    """Oracle: NumPy's own float16, whose software cast is independent of the trick."""
    powers = np.float32(2.0) ** np.arange(-27, 17, dtype=np.float32)
    steps = np.arange(-40, 41, dtype=np.float32) * np.float32(2.0**-12)
    x = (powers[:, None] * (1 + steps)).astype(np.float32).ravel()
    x = np.concatenate([x, -x])
    with np.errstate(over="ignore"):
        assert_bits(fast_round(x, "fp16"), x.astype(np.float16).astype(np.float32), x)
