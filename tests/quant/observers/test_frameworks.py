"""Observers beside those of PyTorch and onnxruntime; oracle: these."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minimp.quant.observers import (
    EntropyObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PercentileObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.observers.thresholds import divergences
from tests.tolerances import assert_close

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|inf detected)")
Floats = npt.NDArray[np.float32]


def batches(seed: int, kind: str) -> list[Floats]:
    """Four batches of a kind, each wider than the one before."""
    rng = np.random.default_rng(seed)
    parts = [(rng.standard_normal((64, 300)) * (1 + 0.3 * i)).astype(np.float32) for i in range(4)]
    if kind == "flat first":
        return [np.full((64, 300), 3, np.float32), *parts[1:]]
    shaped = {"normal": lambda x: x, "relu": lambda x: np.maximum(x, 0), "cubed": lambda x: x**3}
    return [shaped[kind](x) for x in parts]


@pytest.mark.torch
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", ["normal", "relu", "cubed", "flat first"])
def test_ranges_of_histograms_are_torchs(kind: str, symmetric: bool) -> None:
    """Oracle: torch's HistogramObserver: scale within 2 %, zero point within 1, counts to a bin beside."""
    torch = pytest.importorskip("torch")
    observer = pytest.importorskip("torch.ao.quantization.observer")
    for seed in range(3):
        ours = HistogramObserver(symmetric=symmetric)
        theirs = observer.HistogramObserver(
            qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
        )
        for x in batches(seed, kind):
            ours.observe(x)
            theirs(torch.from_numpy(x))
        scale, zero = theirs.calculate_qparams()
        affine = ours.affine()
        assert_close(affine.scale, scale.numpy()[0], "merged_histograms")
        assert abs(int(affine.zero_point) - int(zero)) <= 1
        assert (ours.min_val, ours.max_val) == (theirs.min_val.numpy(), theirs.max_val.numpy())
        beside = np.cumsum(ours.histogram) - np.cumsum(theirs.histogram.numpy().astype(np.float64))
        assert np.abs(beside).max() <= max(ours.histogram.max(), 1) / 8


@pytest.mark.torch
def test_infinities_are_dropped_as_in_torch() -> None:
    """Oracle: torch's HistogramObserver of the same batch."""
    torch = pytest.importorskip("torch")
    observer = pytest.importorskip("torch.ao.quantization.observer")
    x = np.append(batches(0, "normal")[0].ravel(), np.float32([np.inf, -np.inf]))
    ours, theirs = HistogramObserver(), observer.HistogramObserver()
    ours.observe(x)
    theirs(torch.from_numpy(x))
    assert np.array_equal(ours.histogram, theirs.histogram.numpy())
    assert ours.affine().scale == theirs.calculate_qparams()[0].numpy()[0]


PAIRS: list[tuple[Any, str, dict[str, Any]]] = [
    (MinMaxObserver, "MinMaxObserver", {}),
    (MovingAverageMinMaxObserver, "MovingAverageMinMaxObserver", {}),
    (MovingAverageMinMaxObserver, "MovingAverageMinMaxObserver", {"averaging_constant": 0.3}),
    (PerChannelMinMaxObserver, "PerChannelMinMaxObserver", {}),
    (PerChannelMinMaxObserver, "PerChannelMinMaxObserver", {"ch_axis": 1}),
    (MovingAveragePerChannelMinMaxObserver, "MovingAveragePerChannelMinMaxObserver", {"ch_axis": 1}),
]


@pytest.mark.torch
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("ours", "theirs", "settings"), PAIRS)
def test_ranges_are_torchs(ours: Any, theirs: str, settings: dict[str, Any], symmetric: bool) -> None:
    """Oracle: torch's observer of that name: ends, scales and zero points, bit for bit."""
    torch = pytest.importorskip("torch")
    observer = pytest.importorskip("torch.ao.quantization.observer")
    span = "channel" if "Channel" in theirs else "tensor"
    scheme = getattr(torch, f"per_{span}_{'symmetric' if symmetric else 'affine'}")
    mine = ours(symmetric=symmetric, **settings)
    its = getattr(observer, theirs)(qscheme=scheme, **settings)
    for x in batches(1, "normal"):
        mine.observe(x)
        its(torch.from_numpy(x))
    scale, zero = its.calculate_qparams()
    affine = mine.affine()
    assert np.array_equal(mine.min_val, its.min_val.numpy())
    assert np.array_equal(mine.max_val, its.max_val.numpy())
    assert np.array_equal(np.atleast_1d(affine.scale), scale.numpy())
    assert np.array_equal(np.atleast_1d(affine.zero_point), zero.numpy())


@pytest.mark.parametrize(
    ("width", "size", "quantized", "first", "last"),
    [(40, 100000, 64, 30, 483), (15, 30000, 32, 174, 339), (90, 2000, 128, 0, 512), (8, 5000, 16, 214, 299)],
)  # fmt: skip
def test_entropy_cuts_where_onnxruntime_does(
    width: int, size: int, quantized: int, first: int, last: int
) -> None:
    """Oracle: edges kept from onnxruntime 1.32's HistogramCollector.get_entropy_threshold on these counts."""
    k = np.arange(-256, 256)
    bins = (size * np.exp(-(np.abs(k / width) ** 1.3))).astype(np.int64)
    bins += ((k * 7919) % 5 == 0) & (k % 3 == 1)
    reach = int(np.argmin(divergences(bins, quantized))) + quantized // 2
    assert (256 - reach, min(256 + reach + 1, 512)) == (first, last)


@pytest.mark.parametrize(
    ("symmetric", "percentile", "low", "high"),
    [
        (True, 99.0, -2.5861423, 2.5861423),
        (True, 99.9, -3.2802453, 3.2802453),
        (False, 99.0, -2.6059330, 2.5662689),
        (False, 99.9, -3.2960887, 3.2564249),
    ],
)
def test_percentiles_lie_where_onnxruntimes_do(
    symmetric: bool, percentile: float, low: float, high: float
) -> None:
    """Oracle: ends kept from onnxruntime 1.32's HistogramCollector; it takes the inner edge of its bin."""
    made = PercentileObserver(percentile, symmetric=symmetric)
    for x in np.random.default_rng(7).standard_normal((5, 20_000)).astype(np.float32):
        made.observe(x)
    bins = 2.0**-9 + 2 * 4.3 / 2048  # one of ours (8 / 4096), one of theirs
    for found, theirs in zip(made.range(), (low, high), strict=True):
        assert abs(float(found) - theirs) <= bins


def test_entropy_of_a_bell_cuts_its_tails() -> None:
    """Oracle: by reason: a few outliers far away are cut off, an even density is kept whole."""
    rng = np.random.default_rng(0)
    made = EntropyObserver(quant_min=-128, quant_max=127)
    made.observe(np.append(rng.standard_normal(100_000), [40.0, -40.0]).astype(np.float32))
    low, high = (float(each) for each in made.range())
    assert -10 < low < -2.5 < 2.5 < high < 10
    even = EntropyObserver(quant_min=-128, quant_max=127)
    even.observe(rng.uniform(-1, 1, 100_000).astype(np.float32))
    assert float(even.range()[1]) > 0.95
