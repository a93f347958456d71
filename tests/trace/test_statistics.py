"""Statistics of an array; oracle: each element looked at by itself, with Python's own floats and `math`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import trace
from minimp.trace import statistics
from minimp.trace.questions.gradient_scales import ScaledGradients
from minimp.trace.statistics import Stats, cuts_of, measure, moved, targets_of
from tests.tolerances import assert_close
from tests.trace.cases import batch, make_step

FORMATS = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}


def wide(array: np.ndarray) -> np.ndarray:
    """What a backend's `wide` gives."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def by_hand(array: np.ndarray, name: str) -> dict[str, Any]:
    """The statistics, element by element."""
    values = [float(x) for x in array.reshape(-1)]
    finite = [x for x in values if math.isfinite(x)]
    normal = mp.formats.get(name).smallest_normal
    return {
        "size": len(values),
        "bytes": array.nbytes,
        "zeros": sum(x == 0 for x in values),
        "subnormals": sum(0 < abs(x) < normal for x in values),
        "nan": sum(math.isnan(x) for x in values),
        "inf": sum(math.isinf(x) for x in values),
        "min": min(finite, default=None),
        "max": max(finite, default=None),
        "amax": max(map(abs, finite), default=None),
        "binades": dict(Counter(math.frexp(x)[1] - 1 for x in finite if x)),
    }


@st.composite
def arrays(draw: st.DrawFn, name: str) -> np.ndarray:
    """Numbers of a format by their bit patterns, and the edges of its range."""
    dtype = np.dtype(FORMATS[name])
    bits = 8 * dtype.itemsize
    fmt = mp.formats.get(name)
    edges = [
        0.0,
        -0.0,
        fmt.smallest_subnormal,
        fmt.smallest_normal,
        fmt.max,
        -fmt.max,
        math.inf,
        math.nan,
        1.0,
    ]
    codes = draw(st.lists(st.integers(0, 2**bits - 1), max_size=20))
    more = draw(st.lists(st.sampled_from(edges), max_size=10))
    patterns = np.array(codes, dtype=np.dtype(f"u{dtype.itemsize}")).view(dtype)
    return np.concatenate([patterns, np.array(more, np.float64).astype(dtype)])


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_statistics_equal_those_of_the_elements(name: str, data: st.DataObject) -> None:
    """Oracle: the counts by hand, all exact; the mean by math.fsum."""
    array = data.draw(arrays(name))
    with np.errstate(all="ignore"):
        found = measure(array, mp.formats.get(name), wide(array))
    wanted = by_hand(array, name)
    assert {key: getattr(found, key) for key in wanted} == wanted
    finite = [float(x) for x in array if math.isfinite(float(x))]
    peak = max(map(abs, finite), default=0.0)
    if not finite:
        assert found.mean is None
    elif peak < 2.0**1000:
        assert_close([found.mean, peak], [math.fsum(finite) / len(finite), peak], "fp64_sums")


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_short_arrays_are_counted_the_same_way(name: str, data: st.DataObject) -> None:
    """Oracle: the route that long arrays take, by NumPy on all elements; only means are summed otherwise."""
    array = data.draw(arrays(name))
    fmt, targets = mp.formats.get(name), (mp.float16, mp.bfloat16)
    with np.errstate(all="ignore"), pytest.MonkeyPatch.context() as patch:
        short = measure(array, fmt, wide(array), targets)
        patch.setattr(statistics, "SHORT", -1)
        few = measure(array, fmt, wide(array), targets)
        patch.setattr(statistics, "FEW", -1)
        long = measure(array, fmt, wide(array), targets)
    assert few == long
    assert replace(short, mean=None) == replace(long, mean=None)
    assert list(short.binades) == list(long.binades)
    assert short.cuts.keys() == long.cuts.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_long_arrays_are_counted_the_same_way(name: str, rng: np.random.Generator) -> None:
    """Oracle: np.frexp on all elements; long arrays are counted by another route."""
    values = rng.standard_normal(50_000) * 2.0 ** rng.integers(-40, 14, 50_000)
    values[::7], values[3], values[5] = 0.0, np.inf, np.nan
    with np.errstate(all="ignore"):
        array = values.astype(FORMATS[name])
        found = measure(array, mp.formats.get(name), wide(array))
    known = np.abs(array.astype(np.float64))
    known = known[np.isfinite(known) & (known > 0)]
    assert found.binades == dict(sorted(Counter((np.frexp(known)[1] - 1).tolist()).items()))
    assert (found.size, found.zeros) == (50_000, int((array == 0).sum()))
    assert (found.nan, found.inf) == (1, int(np.isinf(array.astype(np.float64)).sum()))


@pytest.mark.parametrize("target", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_what_a_scale_does_is_what_rounding_does(name: str, target: str, data: st.DataObject) -> None:
    """Oracle: the values times 2^k, exact in float64, rounded by mp.formats.round, at each k."""
    array = data.draw(arrays(name))
    own, fmt = mp.formats.get(name), mp.formats.get(target)
    values = array.astype(np.float64)
    values = values[
        np.isfinite(values) & (np.abs(values) < 2.0**400) & ((values == 0) | (np.abs(values) > 2.0**-400))
    ]
    array = values.astype(array.dtype)
    with np.errstate(all="ignore"):
        found = measure(array, own, wide(array), (fmt,))
    row = ScaledGradients("g", fmt, found.size, found.nonzero, 0, dict(found.binades), found.cuts)
    low, high = row.span
    for power in {low, low + 1, low + 2, -1, 0, 1, 16, high - 1, high, *range(low, high, 7)}:
        exact = values * 2.0**power
        rounded = mp.formats.round(exact, fmt)
        fate = row.at(power)
        assert fate.flushed == np.count_nonzero((rounded == 0) & (exact != 0)), power
        assert fate.overflowed == np.count_nonzero(np.isinf(rounded)), power
        small = (rounded != 0) & (np.abs(rounded) < fmt.smallest_normal)
        assert fate.subnormal == np.count_nonzero(small), power


def test_the_ties_of_a_scale_go_where_rounding_puts_them() -> None:
    """Oracle: IEEE 754-2019, 4.3.1: 2^-25 ties to 0, 2^-14 - 2^-25 to normal, 65520 to infinity."""
    values = np.array([2.0**-25, 2.0**-14 - 2.0**-25, 65520.0], np.float32)
    for k, value in enumerate(values):
        one = values[k : k + 1]
        found = measure(one, mp.float32, one, (mp.float16,))
        row = ScaledGradients("g", mp.float16, 1, 1, 0, dict(found.binades), found.cuts)
        fate = row.at(0)
        assert (fate.flushed, fate.subnormal, fate.overflowed) == [(1, 0, 0), (0, 0, 0), (0, 0, 1)][k], value
        below = np.nextafter(one, np.float32(0))
        found = measure(below, mp.float32, below, (mp.float16,))
        row = ScaledGradients("g", mp.float16, 1, 1, 0, dict(found.binades), found.cuts)
        fate = row.at(0)
        assert (fate.flushed, fate.subnormal, fate.overflowed) == [(1, 0, 0), (0, 1, 0), (0, 0, 0)][k], value


@given(data=st.data(), power=st.integers(-20, 20))
def test_moved_statistics_equal_measured_ones(data: st.DataObject, power: int) -> None:
    """Oracle: the statistics of the values times 2^power, where float32 holds them."""
    array = data.draw(arrays("float16"))
    with np.errstate(all="ignore"):
        before = measure(array, mp.float16, wide(array))
        after = array.astype(np.float32) * np.float32(2.0**power)
        found = moved(before, power, mp.float32, after.nbytes)
        assert found is not None
        wanted = measure(after, mp.float32, after)
    assert found == wanted


def test_integers_and_empty_arrays_have_statistics_too() -> None:
    """Oracle: by hand."""
    assert measure(np.array([3, 0, -5]), None, np.array([3, 0, -5])) == Stats(
        3, 24, 1, min=-5.0, max=3.0, amax=5.0, mean=-2 / 3
    )
    empty = np.zeros((0, 4), np.float32)
    assert measure(empty, mp.float32, empty, targets_of(mp.float32)) == Stats(0, 0, 0)
    assert str(Stats(0, 0, 0)) == "no elements"
    assert cuts_of(mp.float16) == (0, 10, 11)


@pytest.mark.parametrize("parts", [1, 4])
def test_every_side_of_a_recorded_step_has_the_statistics_of_its_values(parts: int) -> None:
    """Oracle: the statistics by hand of the arrays that were kept, of a whole training step."""
    step = make_step()
    step.micro_batches = parts
    with trace.record(values="all") as made:
        step(*batch())
    looked = 0
    for event in made.events:
        kept = made.values(event)
        for i, side in enumerate(event.outputs):
            if side is None or side.format == "int64":
                continue
            wanted = by_hand(kept[f"out{i}"], side.format)
            assert {key: getattr(side.stats, key) for key in wanted} == wanted, event
            looked += 1
    assert looked > 60


@pytest.mark.parametrize("zeros", [0, 3])
@pytest.mark.parametrize("name", FORMATS)
def test_cuts_of_long_arrays_are_those_of_their_parts(
    name: str, zeros: int, rng: np.random.Generator
) -> None:
    """Oracle: the sums over pieces of 500, each counted by the way of short arrays, which is held by hand."""
    values = rng.standard_normal(40_000) * 2.0 ** rng.integers(-20, 10, 40_000)
    values[::7] = 2.0 ** rng.integers(-20, 10, values[::7].size)
    values[1::7] = (2 - 2.0**-8) * 2.0 ** rng.integers(-20, 10, values[1::7].size)
    values[2::7] = values[:-2:7] * (1 + 2.0**-40)  # just beside a power of two, where there are digits for it
    values[:: zeros or 40_001] = 0.0
    array, fmt = values.astype(FORMATS[name]), mp.formats.get(name)
    targets = targets_of(fmt)
    found = measure(array, fmt, wide(array), targets)
    total: dict[int, Counter[int]] = {n: Counter() for n in found.cuts}
    for part in np.split(array, 80):
        for n, counts in measure(part, fmt, wide(part), targets).cuts.items():
            total[n].update(counts)
    assert found.cuts == {n: dict(counts) for n, counts in total.items()}
    parts = np.frexp(np.abs(array.astype(np.float64)))[0]
    assert sum(found.cuts[0].values()) == np.count_nonzero(parts == 0.5) > 3000
