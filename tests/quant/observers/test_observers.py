"""Ranges, merging, errors and pictures of observers; oracle: the values themselves, and laws."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minimp as mp
from minimp.errors import CheckpointError, DataError, FormatError, SettingError, ShapeError
from minimp.quant import Affine, fake_quantize
from minimp.quant.observers import (
    EntropyObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    Observer,
    PercentileObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.observers.counts import Counts
from tests.tolerances import assert_close, assert_ulp

Floats = npt.NDArray[np.float32]
KINDS: list[Callable[..., Observer]] = [
    MinMaxObserver, MovingAverageMinMaxObserver, PerChannelMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver, HistogramObserver, PercentileObserver, EntropyObserver,
]  # fmt: skip
EXACT = [MinMaxObserver, PerChannelMinMaxObserver, PercentileObserver, partial(EntropyObserver, bins=512)]
"""Those whose merging is exact."""
ARRAYS = hnp.arrays(
    np.float32, st.tuples(st.just(2), st.integers(1, 30)),
    elements=st.one_of(st.floats(-(2.0**40), 2.0**40, width=32), st.sampled_from([0.0, 1.0, -1.0])),
)  # fmt: skip


def batches(seed: int = 0, count: int = 4) -> list[Floats]:
    """Normal numbers, each batch wider than the one before, in three channels."""
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((3, 4000)) * (1 + 0.3 * i)).astype(np.float32) for i in range(count)]


def seen_by(kind: Callable[..., Observer], parts: list[Floats], **settings: Any) -> Observer:
    """Return an observer that has seen some batches."""
    made = kind(**settings)
    for x in parts:
        made.observe(x)
    return made


def same(a: Observer, b: Observer) -> bool:
    """Tell whether two observers hold the same numbers."""
    mine, its = a.state_dict(), b.state_dict()
    return mine.keys() == its.keys() and all(np.array_equal(mine[k], its[k]) for k in mine)


@pytest.mark.parametrize("kind", EXACT)
@given(parts=st.lists(ARRAYS, min_size=2, max_size=4), cut=st.integers(1, 3))
def test_merged_observers_are_one(kind: Callable[..., Observer], parts: list[Floats], cut: int) -> None:
    """Oracle: one observer of all batches; everything equal but the order in which squares were added."""
    cut = min(cut, len(parts) - 1)
    one, left, right = (seen_by(kind, some) for some in (parts, parts[:cut], parts[cut:]))
    before = right.state_dict()
    left.merge(right)
    mine, its = left.state_dict(), one.state_dict()
    assert_close(mine.pop("counts.signal"), its.pop("counts.signal"), "fp64_same_maths")
    assert mine.keys() == its.keys()
    assert all(np.array_equal(mine[name], its[name]) for name in mine)
    assert left.affine() == one.affine()
    assert all(np.array_equal(before[name], right.state_dict()[name]) for name in before)


def test_merged_histograms_cut_alike() -> None:
    """Oracle: one observer of all batches; the stated 2 % of its scale."""
    for seed in range(6):
        parts = batches(seed)
        one, left = seen_by(HistogramObserver, parts), seen_by(HistogramObserver, parts[:2])
        left.merge(seen_by(HistogramObserver, parts[2:]))
        assert_close(left.affine().scale, one.affine().scale, "merged_histograms")
        assert left.state_dict()["histogram"].sum() == one.state_dict()["histogram"].sum() == 48000


@pytest.mark.parametrize("kind", [MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver])
def test_merged_averages_append(kind: Callable[..., Observer]) -> None:
    """Oracle: one observer of the batches of both, one after the other; a rounding a batch."""
    parts = batches(count=9)
    one = seen_by(kind, parts, averaging_constant=0.25)
    merged = seen_by(kind, parts[:2], averaging_constant=0.25)
    for some in (parts[2:3], parts[3:]):
        merged.merge(seen_by(kind, some, averaging_constant=0.25))
    for mine, its in zip(merged.range(), one.range(), strict=True):
        assert_ulp(mine, its, "fp32_composed")
    assert merged.batches == 9


def test_moving_averages_by_hand() -> None:
    """Oracle: m + 0.01 (new - m) in float32; the first batch as it is."""
    made = MovingAverageMinMaxObserver()
    made.observe(np.float32([-1, 2]))
    assert [float(each) for each in made.range()] == [-1, 2]
    made.observe(np.float32([-3, 7]))
    c = np.float32(0.01)
    assert [float(each) for each in made.range()] == [-1 + c * np.float32(-2), 2 + c * np.float32(5)]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels_are_observed_apart(axis: int) -> None:
    """Oracle: an observer of each channel alone."""
    x = np.random.default_rng(0).standard_normal((3, 40, 50)).astype(np.float32)
    made = seen_by(
        PerChannelMinMaxObserver, [x, 2 * x], ch_axis=axis, symmetric=True, quant_min=-128, quant_max=127
    )
    affine = made.affine()
    assert affine.axis == axis
    for i in range(x.shape[axis]):
        part = np.take(x, i, axis)
        alone = seen_by(
            MinMaxObserver, [part, 2 * part], symmetric=True, quant_min=-128, quant_max=127
        ).affine()
        assert affine.scale[i] == alone.scale
    both = np.concatenate([x, 2 * x], axis=axis - 1)
    assert_close(made.error(), _sqnr(both, affine), "sqnr_of_histogram")


def _sqnr(x: Floats, affine: Affine) -> float:
    """The ratio in dB, of the values themselves."""
    wide = x.astype(np.float64)
    return float(10 * np.log10(np.sum(wide**2) / np.sum((wide - fake_quantize(x, affine)) ** 2)))


@pytest.mark.parametrize("kind", [MinMaxObserver, HistogramObserver, PercentileObserver, EntropyObserver])
@pytest.mark.parametrize("codes", [(0, 255), (-8, 7), (0, 3)])
@pytest.mark.parametrize("shape", ["normal", "relu", "cubed"])
def test_the_error_is_that_of_the_values(
    kind: Callable[..., Observer], codes: tuple[int, int], shape: str
) -> None:
    """Oracle: 10 log10 of the sums of squares, the values quantised for real; the stated 0.2 dB."""
    x = np.random.default_rng(1).standard_normal(60_000).astype(np.float32)
    x = {"normal": x, "relu": np.maximum(x, 0), "cubed": x**3}[shape]
    made = kind(quant_min=codes[0], quant_max=codes[1])
    made.observe(x)
    affine = made.affine()
    assert_close(made.error(), _sqnr(x, affine), "sqnr_of_histogram")
    other = Affine(affine.scale * np.float32(4), affine.zero_point, *codes)
    assert_close(made.error(other), _sqnr(x, other), "sqnr_of_histogram")


def test_what_is_clipped_is_counted() -> None:
    """Oracle: counting the values beyond the codes by more than half a step, to a bin of 2^-10."""
    x = np.random.default_rng(1).standard_normal(100_000).astype(np.float32)
    made = PercentileObserver(99.0)
    made.observe(x)
    affine = made.affine()
    below = (x < affine.low - affine.scale / 2).sum()
    above = (x > affine.high + affine.scale / 2).sum()
    found = made.clipped()
    assert 0 <= below - found[0] <= 0.01 * below
    assert 0 <= above - found[1] <= 0.01 * above
    assert 300 < found[0] < 500 > found[1] > 300
    assert seen_by(MinMaxObserver, [x]).clipped() == (0, 0)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("symmetric", [False, True])
def test_percentiles_are_of_the_values(percentile: float, symmetric: bool) -> None:
    """Oracle: the sorted values: no more than the share lies beyond, and a bin further in more would."""
    x = np.random.default_rng(2).gamma(2.0, size=50_000).astype(np.float32) - np.float32(1.5)
    made = PercentileObserver(percentile, symmetric=symmetric, quant_min=-128, quant_max=127)
    made.observe(x)
    low, high = (float(each) for each in made.range())
    width = 2.0**-9  # the largest magnitude lies below 16, of 4096 bins to a side: 2^-8, to be halved below
    out = (100 - percentile) / 100 * x.size
    if symmetric:
        assert -low == min(high, -float(x.min()))  # no further than there are values
        assert (np.abs(x) > high).sum() <= out
        assert percentile == 100 or (np.abs(x) >= high - 2 * width).sum() > out
    else:
        assert (x < low).sum() <= out / 2 >= (x > high).sum()
        assert percentile == 100 or (x < low + 2 * width).sum() > out / 2 < (x >= high - 2 * width).sum()
    if percentile == 100:
        assert (low, high) == (float(x.min()), float(x.max())) or symmetric


@given(st.lists(ARRAYS, min_size=1, max_size=4), st.permutations(range(4)))
def test_counts_do_not_depend_on_the_order(parts: list[Floats], order: list[int]) -> None:
    """Oracle: bins of the final width, counted at once; rows apart, zeros apart."""
    counts, turned = Counts(2, 16), Counts(2, 16)
    for x in parts:
        counts.add(x)
    for i in order:
        if i < len(parts):
            turned.add(parts[i])
    x = np.concatenate(parts, axis=1)
    for row in range(2):
        values = x[row][x[row] != 0].astype(np.float64)
        expected = np.histogram(values, counts.edges()[row])[0] if values.size else np.zeros(16)
        assert np.array_equal(counts.counts[row], expected)
        assert counts.zeros[row] == (x[row] == 0).sum()
        if values.size:
            half = np.abs(counts.edges()[row]).max() / 2
            assert np.abs(values).max() >= half
    assert np.array_equal(counts.counts, turned.counts)
    assert np.array_equal(counts.exponents, turned.exponents)


@pytest.mark.parametrize("kind", KINDS)
def test_states_come_back(kind: Callable[..., Observer]) -> None:
    """Oracle: the observer that was saved: equal before, and a batch later; a foreign state is refused."""
    parts = batches()
    made = seen_by(kind, parts[:2])
    again = kind()
    again.load_state_dict(made.state_dict())
    assert same(made, again)
    for each in (made, again):
        each.observe(parts[2])
    assert same(made, again)
    assert made.affine() == again.affine()
    kept = again.state_dict()
    other = kind(quant_min=-8, quant_max=7)
    with pytest.raises(CheckpointError, match="expected the state of"):
        again.load_state_dict(other.state_dict())
    for name in kept:
        with pytest.raises(CheckpointError):
            again.load_state_dict({key: value for key, value in kept.items() if key != name})
    assert same(made, again)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_calibration_is_refused(kind: Callable[..., Observer]) -> None:
    """Oracle: one DataError that says where; what was seen before stays."""
    made = kind()
    for act in (made.affine, made.range, made.error, made.clipped, made.picture):
        with pytest.raises(DataError, match="nothing was observed"):
            act()
    with pytest.raises(DataError, match="an empty array"):
        made.observe(np.zeros((0, 3), np.float32))
    made.observe(batches()[0])
    kept = made.state_dict()
    x = np.zeros((3, 5), np.float32)
    x[1, 4] = x[2, 2] = np.nan
    with pytest.raises(DataError, match=r"2 of 15 values are NaN, the first at \(1, 4\)"):
        made.observe(x)
    with pytest.raises(FormatError):
        made.observe(np.zeros((3, 5), int))
    assert all(np.array_equal(kept[name], made.state_dict()[name]) for name in kept)
    with pytest.raises(SettingError, match="only like observers"):
        made.merge(kind(symmetric=True))
    with pytest.raises(SettingError, match="60 columns"):
        made.picture(20)


@pytest.mark.parametrize("kind", KINDS)
def test_infinities(kind: Callable[..., Observer]) -> None:
    """Oracle: min-max ranges refuse them, histograms leave them out and count them (torch drops them)."""
    made = kind()
    x = np.array([[1, np.inf, -1], [0.5, -np.inf, 0.25]], np.float32).T
    if made.keeps_infinities:
        with pytest.raises(DataError, match=r"2 of 6 values are infinity, the first at \(1, 0\)"):
            made.observe(x)
        return
    made.observe(x)
    assert made.infinities == 2
    assert made.counts is not None
    assert made.counts.total == 4
    assert "infinities left out: 2" in made.picture()
    only = kind()
    only.observe(np.float32([np.inf]))
    with pytest.raises(DataError, match="nothing was observed, but 1 infinities"):
        only.affine()
    only.merge(made)
    assert only.infinities == 3
    assert only.affine() == made.affine()


def test_channels_must_stay() -> None:
    """Oracle: ShapeError for other channels, on observing and on merging; NaN is found in its place."""
    made = PerChannelMinMaxObserver(ch_axis=1)
    made.observe(np.ones((2, 3), np.float32))
    with pytest.raises(ShapeError, match="expected 3 channels, as before, got 4"):
        made.observe(np.ones((2, 4), np.float32))
    with pytest.raises(ShapeError, match="no axis 1"):
        made.observe(np.ones(3, np.float32))
    x = np.ones((2, 3), np.float32)
    x[1, 0] = np.nan
    with pytest.raises(DataError, match=r"the first at \(1, 0\)"):
        made.observe(x)
    other = PerChannelMinMaxObserver(ch_axis=1)
    other.observe(np.ones((2, 4), np.float32))
    with pytest.raises(ShapeError, match="3 channels and 4"):
        made.merge(other)


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        (MinMaxObserver, {"quant_max": 300}, "codes must contain 0"),
        (MinMaxObserver, {"rule": "torch-dynamic", "symmetric": True}, "no symmetric form"),
        (MovingAverageMinMaxObserver, {"averaging_constant": 0.0}, "above 0"),
        (HistogramObserver, {"bins": 1}, "at least 2"),
        (PercentileObserver, {"percentile": 0.0}, "above 0"),
        (EntropyObserver, {"bins": 100}, "power of two"),
        (EntropyObserver, {"quantized_bins": 4096}, "not more"),
    ],
)  # fmt: skip
def test_settings_that_cannot_act(kind: Callable[..., Observer], settings: dict[str, Any], says: str) -> None:
    """Oracle: a SettingError when the observer is made."""
    with pytest.raises(SettingError, match=says):
        kind(**settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x", [[0.0], [3.0], [-1e-40], [3e38, 1.0], [1e-30, -2e-30, 0.0]])
def test_ranges_of_few_numbers(kind: Callable[..., Observer], x: list[float]) -> None:
    """Oracle: 0 is a code, the picture fits, and what is not clipped comes back to within a step."""
    made = kind()
    made.observe(np.float32([x]).T if made.ch_axis is None else np.float32([x]))
    affine = made.affine()
    assert fake_quantize(np.zeros((1, 1), np.float32), affine).tolist() == [[0.0]]
    assert max(map(len, made.picture().splitlines())) <= 100
    assert_close(min(made.error(), 0.0), 0.0, "sqnr_of_histogram")  # 0 where all is flushed to 0


def test_tensors_are_observed() -> None:
    """Oracle: the array of the same numbers, in 16 bits too."""
    x = batches()[0].astype(np.float16)
    one, other = seen_by(MinMaxObserver, [x.astype(np.float32)]), MinMaxObserver()
    other.observe(mp.tensor(x, requires_grad=True))
    assert same(one, other)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_picture_says_what_is_there(width: int) -> None:
    """Oracle: the counts of the rows add up; marks where the codes end; no line too long."""
    rng = np.random.default_rng(0)
    made = PercentileObserver(90.0)
    made.observe(np.float32(rng.standard_normal(50_000)))
    lines = made.picture(width).splitlines()
    assert max(map(len, lines)) <= width
    rows = [line.split() for line in lines[2:-1]]
    assert sum(int(row[-1].replace(",", "")) for row in rows) == 50_000
    marks = "".join(row[1] for row in rows)
    assert marks == marks[0] * marks.index("+") + "+" + "|" * marks.count("|") + "+" + "x" * (
        len(marks) - 1 - marks.rindex("+")
    )
    assert marks[0] == "x"
    below, above = made.clipped()
    share = (below + above) / 50_000
    assert lines[-1].startswith(f"clipped: {below:,} below, {above:,} above ({share:.3%}); error")


def test_a_picture_of_channels() -> None:
    """Oracle: the widest first, 20 at most, 0 marked in one column."""
    x = (np.random.default_rng(0).standard_normal((50, 99)) * np.arange(1, 51)[:, None]).astype(np.float32)
    made = PerChannelMinMaxObserver(quant_min=-128, quant_max=127, symmetric=True)
    made.observe(x)
    lines = made.picture().splitlines()
    assert lines[2] == "20 of 50 channels"
    rows = lines[3:-1]
    assert len(rows) == 20
    assert len({row.index("0", 30) for row in rows}) == 1
    lengths = [row[30:].count("=") for row in rows]
    assert lengths == sorted(lengths, reverse=True)


def test_without_a_histogram() -> None:
    """Oracle: the same observer with one: the same range; errors, pictures and merging need it."""
    x = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    for kind in (MinMaxObserver, MovingAverageMinMaxObserver, PerChannelMinMaxObserver):
        with_one, without = kind(), kind(counting=False)
        for each in (x, 2 * x):
            with_one.observe(each)
            without.observe(each)
        assert without.affine() == with_one.affine()
        with pytest.raises(DataError, match="no histogram is kept"):
            without.error()
        with pytest.raises(SettingError, match="without histograms are not merged"):
            without.merge(without)
    with pytest.raises(DataError, match="nothing was observed"):
        MinMaxObserver(counting=False).range()
