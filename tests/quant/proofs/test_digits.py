"""What int8 costs networks that read digits; oracle: the same networks in float.

The network is that of Nagel et al.'s collapse in small (arXiv 1906.04721, section 3): a convolution, a
depthwise one and a convolution, each with batch norm and ReLU, and a linear layer. It learns 900 digits, and
is judged by the 897 others: one is 0.111 points of accuracy, and half a point is four of them (of the 397 of
`digits("test")` it is one). Integer models are real ones: codes from the first layer to the last, int32 sums.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from minimp import functional, models, nn
from minimp.data import DataLoader, digits
from minimp.modes import no_grad
from minimp.nn.module import Module
from minimp.optim import Adam
from minimp.quant import QTensor
from minimp.quant.dynamic import quantize_dynamic
from minimp.quant.fusion import equalize, fuse, rescale_channels
from minimp.quant.observers import MinMaxObserver, Observer, PerChannelMinMaxObserver
from minimp.quant.static import calibrate, convert
from minimp.rng import manual_seed
from minimp.tensors import tensor

pytestmark = pytest.mark.slow

SEEDS = range(5)
DRAWS = range(4)
LEARNT = 900
EPOCHS = 12
HALF_A_POINT = 0.5
LOST = {3: 15.0, 4: 40.0}
"""By p, the points that one scale a weight loses at least where channels have factors of 2^-p to 2^p."""
KEPT = {3: 1.5, 4: 15.0}
"""By p, the points that one scale a channel loses at most then."""
WEIGHTS_KEPT = {3: HALF_A_POINT, 4: 4.0}
"""The same, where the weights alone are in integers."""
CODES: dict[str, Any] = {"quant_min": -128, "quant_max": 127, "symmetric": True}
WEIGHTS: dict[str, Callable[[], Observer]] = {
    "per-tensor": partial(MinMaxObserver, **CODES), "per-channel": partial(PerChannelMinMaxObserver, **CODES),
}  # fmt: skip


def depthwise() -> Any:
    """Return the network.  (N, 1, 8, 8) -> (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


@cache
def parts(shape: str) -> Any:
    """Return the digits to learn and those to be judged by."""
    return digits(shape=shape).split(LEARNT, seed=0)


def taught(model: Any, seed: int, shape: str) -> Any:
    """Train a model on the 900 digits; return it in evaluation mode."""
    optimizer = Adam(model.parameters(), lr=2e-3)
    loader = DataLoader(parts(shape)[0], 64, shuffle=True, seed=seed)
    for _ in range(EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(tensor(x)), tensor(y)).backward()
            optimizer.step()
    return model.eval()


@cache
def network(seed: int) -> Module:
    """Return a network that has learnt, its batch norms folded."""
    manual_seed(seed)
    return fuse(taught(depthwise(), seed, "image"), example())[0]


def example() -> Any:
    """Return four images, to find out what goes into what."""
    return tensor(parts("image")[0][:4][0])


def points(model: Module, shape: str = "image") -> float:
    """Return the accuracy on the 897 digits, in points (per cent)."""
    x, y = parts(shape)[1][:]
    with no_grad():
        return 100 * float(np.mean(np.asarray(model(tensor(x)).array).argmax(1) == y))


def integers(model: Module, weight: str) -> Module:
    """Return a model on codes, calibrated on the training digits."""
    calibration = calibrate(model, DataLoader(parts("image")[0], 128))
    return convert(model, calibration, weight=WEIGHTS[weight])


def lost(model: Module, weight: str, before: float) -> float:
    """Return the points that a model loses on its way to integers."""
    return before - points(integers(model, weight))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_integers_read_digits_as_well(weight: str) -> None:
    """Oracle: the float network: 95 points at least, and half a point lost at most, whatever the seed."""
    rows = [(before := points(network(seed)), lost(network(seed), weight, before)) for seed in SEEDS]
    print(f"static {weight}: " + ", ".join(f"{one:.2f} -> {one - less:.2f}" for one, less in rows))
    assert min(before for before, _ in rows) > 95
    assert max(less for _, less in rows) <= HALF_A_POINT


@pytest.mark.parametrize("granularity", ["per-tensor", "per-channel"])
@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_dynamic_integers_read_digits_as_well(kind: str, granularity: str) -> None:
    """Oracle: the float network, half a point; of the CNN the linear layer is converted, of the MLP all."""
    rows, shape = [], "image" if kind == "cnn" else "flat"
    for seed in SEEDS:
        manual_seed(seed)
        model = network(seed) if kind == "cnn" else taught(models.mlp((64,), 10), seed, shape)
        made, report = quantize_dynamic(model, granularity=granularity)
        assert len(report.converted) == (1 if kind == "cnn" else 3)
        rows.append((before := points(model, shape), before - points(made, shape)))
    print(
        f"dynamic {kind} {granularity}: " + ", ".join(f"{one:.2f} -> {one - less:.2f}" for one, less in rows)
    )
    assert min(before for before, _ in rows) > 94
    assert max(less for _, less in rows) <= HALF_A_POINT


def rescaled(octaves: int) -> list[tuple[Module, float]]:
    """Return every network under every draw of factors, each with the accuracy that it keeps in float."""
    found = []
    for seed in SEEDS:
        before = points(network(seed))
        for draw in DRAWS:
            made, report = rescale_channels(
                network(seed), example(), factors=octaves, seed=len(DRAWS) * seed + draw
            )
            assert len(report.paired) == 3
            assert points(made) == before
            found.append((made, before))
    return found


def told(what: str, points_lost: list[float]) -> float:
    """Print points lost; return their mean."""
    mean = statistics.fmean(points_lost)
    print(f"{what}: {mean:.2f} points lost, {min(points_lost):.2f} to {max(points_lost):.2f}")
    return mean


@pytest.mark.parametrize("octaves", LOST)
def test_one_scale_a_weight_is_ruined_by_unequal_channels(octaves: int) -> None:
    """Oracle: the float networks, which read as before. In the mean over five networks, each with four draws,
    one scale a weight loses 15 points and 40, and one a channel few: at 2^+-4 the activations of channels
    differ too much for the one scale that they have in either case.
    """
    models_there = rescaled(octaves)
    one, many = (
        told(f"2^+-{octaves} {weight}", [lost(made, weight, before) for made, before in models_there])
        for weight in WEIGHTS
    )
    assert one >= LOST[octaves]
    assert many <= KEPT[octaves]


@pytest.mark.parametrize("octaves", LOST)
def test_equalisation_restores_them(octaves: int) -> None:
    """Oracle: the float networks: half a point lost at most by each one, under either granularity."""
    models_there = [(equalize(made, example())[0], before) for made, before in rescaled(octaves)]
    for weight in WEIGHTS:
        gone = [lost(made, weight, before) for made, before in models_there]
        told(f"2^+-{octaves}, equalised, {weight}", gone)
        assert max(gone) <= HALF_A_POINT


@pytest.mark.parametrize("octaves", LOST)
def test_weights_alone_are_what_one_scale_ruins(octaves: int) -> None:
    """Oracle: the float networks; codes of weights are read back, and all else is float: one scale a weight
    loses as much as the integers do. One for each output loses little at 2^+-4 either: the inputs of an
    output, whose factors differ, share it.
    """
    models_there = rescaled(octaves)
    gone = {
        weight: told(
            f"2^+-{octaves}, weights alone, {weight}",
            [before - points(read_back(made, weight)) for made, before in models_there],
        )
        for weight in WEIGHTS
    }
    assert gone["per-tensor"] >= LOST[octaves]
    assert gone["per-channel"] <= WEIGHTS_KEPT[octaves]


def read_back(model: Module, weight: str) -> Module:
    """Return a copy of a model with weights that were codes."""
    made, _ = rescale_channels(model, example(), factors={})
    for leaf in made.parameters():
        if leaf.ndim > 1:
            observer = WEIGHTS[weight]()
            observer.observe(leaf.array)
            leaf.array = QTensor.of(leaf.array, observer.affine()).dequantize()
    return made
