"""The fast rounding inside running sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.formats.accumulation.quickround import nearest_even
from tests.formats.oracle import assert_same


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("float16", np.float64),
        ("bfloat16", np.float64),
        ("float8_e4m3fn", np.float64),
        ("float32", np.float64),
        ("float16", np.float32),
        ("float8_e5m2", np.float32),
    ],
)
@given(data=st.data())
def test_quick_rounding_is_round(name: str, dtype: type, data: st.DataObject) -> None:
    """Oracle: minimp.formats.round, bit for bit: midpoints, subnormals, zeros, beyond the end, inf, NaN."""
    fmt = formats.get(name)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = random.standard_normal(200) * 2.0 ** random.integers(
        fmt.emin - fmt.mantissa_bits - 3, fmt.emax + 1, 200
    )
    x = x.astype(dtype)
    near = (formats.round(x, fmt).astype(np.float64) + formats.ulp(x, fmt) / 2).astype(dtype)
    beside = np.nextafter(near, dtype(0)), np.nextafter(near, dtype(np.inf))
    x = np.concatenate([x, near, *beside, np.array([0.0, -0.0, fmt.max, -fmt.max], dtype)])
    x = np.clip(x, -fmt.max, fmt.max).astype(dtype)
    for numbers in (x, np.concatenate([x, np.array([np.inf, 2.0, -np.inf, np.nan], dtype)])):
        got = nearest_even(numbers, fmt)
        assert got.dtype == dtype
        assert_same(got, formats.round(numbers, fmt), numbers)
