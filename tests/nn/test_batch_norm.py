"""Layers that normalise over batches, groups and images; oracle: the formulas in NumPy, and torch's rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import SettingError, ShapeError
from tests.arrays import host
from tests.tolerances import assert_close


def images(rng: np.random.Generator, n: int = 4) -> np.ndarray[Any, Any]:
    """Return images whose channels differ in mean and spread."""
    made: np.ndarray[Any, Any] = rng.standard_normal((n, 3, 5, 4)) * [[[[1]], [[2]], [[3]]]] + 5
    return made


def test_running_statistics_move_in_training_and_serve_in_evaluation(rng: np.random.Generator) -> None:
    """Oracle: r <- 0.9 r + 0.1 s, s the batch's mean and its variance with N - 1, in NumPy float64."""
    layer = nn.BatchNorm2d(3).double()
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = images(rng)
        layer(mp.tensor(x))
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3))
        var = 0.9 * var + 0.1 * x.var((0, 2, 3), ddof=1)
    assert layer.num_batches_tracked.item() == 3
    assert layer.num_batches_tracked.dtype == np.int64
    assert_close(host(layer.running_mean), mean, "fp64_same_maths")
    assert_close(host(layer.running_var), var, "fp64_same_maths")
    x = images(rng)
    y = layer.eval()(mp.tensor(x))
    at = (None, slice(None), None, None)
    assert_close(host(y), (x - mean[at]) / np.sqrt(var + 1e-5)[at], "fp64_sums")
    assert layer.num_batches_tracked.item() == 3


def test_no_momentum_is_the_plain_mean_of_all_batches(rng: np.random.Generator) -> None:
    """Oracle: the mean of the batches' means, in NumPy."""
    layer = nn.BatchNorm2d(3, momentum=None).double()
    batches = [images(rng) for _ in range(4)]
    for x in batches:
        layer(mp.tensor(x))
    assert_close(
        host(layer.running_mean),
        np.mean([x.mean((0, 2, 3)) for x in batches], axis=0),
        "fp64_same_maths",
    )
    layer.reset_running_stats()
    assert layer.running_mean.tolist() == [0.0] * 3
    assert layer.running_var.tolist() == [1.0] * 3
    assert layer.num_batches_tracked.item() == 0


def test_statistics_follow_conversions_and_stay_float32_under_autocast(rng: np.random.Generator) -> None:
    """Oracle: torch: half() rounds buffers too, but not the count; a region leaves modules alone."""
    layer = nn.BatchNorm2d(3)
    x = mp.tensor(images(rng), dtype="float32")
    for policy in ("torch-cuda", "torch-cpu"):
        with mp.autocast("float16", policy=policy):
            y = layer(x.half())
        assert y.format is mp.float16
        assert (layer.running_mean.format, layer.weight.format) == (mp.float32, mp.float32)
    before = host(layer.running_mean)
    layer.half()
    assert layer.running_mean.format is mp.float16
    assert layer.num_batches_tracked.dtype == np.int64
    np.testing.assert_array_equal(host(layer.running_mean), before.astype(np.float16))
    assert layer(x.half()).format is mp.float16
    assert layer.running_var.format is mp.float16


def test_a_failed_call_changes_nothing() -> None:
    """Oracle: the state before."""
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ShapeError, match="more than one value a channel"):
        layer(mp.tensor(np.ones((1, 3), np.float32)))
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_mean.tolist() == [0.0] * 3
    with pytest.raises(ShapeError, match="expected an input of 2 or 3 axes"):
        layer(mp.tensor(np.ones((1, 3, 2, 2), np.float32)))


def test_saved_arrays_are_snapshots_of_statistics(rng: np.random.Generator) -> None:
    """Oracle: the bytes of a state dict before a training step."""
    layer = nn.BatchNorm2d(3)
    state = layer.state_dict()
    before = {name: host(leaf).tobytes() for name, leaf in state.items()}
    layer(mp.tensor(images(rng), dtype="float32"))
    assert {name: host(leaf).tobytes() for name, leaf in state.items()} == before
    assert any(host(leaf).tobytes() != before[name] for name, leaf in layer.state_dict().items())


def test_group_norm_is_instance_norm_and_layer_norm_at_its_ends(rng: np.random.Generator) -> None:
    """Oracle: Wu and He 2018, figure 2: as many groups as channels, and one group."""
    x = mp.tensor(images(rng))
    assert_close(host(nn.GroupNorm(3, 3, affine=False)(x)), host(nn.InstanceNorm2d(3)(x)), "fp64_sums")
    wanted = nn.LayerNorm((3, 5, 4), elementwise_affine=False)(x)
    assert_close(host(nn.GroupNorm(1, 3, affine=False)(x)), host(wanted), "fp64_sums")


def test_settings_and_inputs_that_do_not_fit_are_named() -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(SettingError, match="expected num_channels to be a multiple of 2, got 3"):
        nn.GroupNorm(2, 3)
    with pytest.raises(SettingError, match="expected num_features to be a whole number of at least 1"):
        nn.BatchNorm2d(0)
    with pytest.raises(ShapeError, match="expected 3 channels, got 2"):
        nn.InstanceNorm2d(3)(mp.tensor(np.ones((1, 2, 4, 4), np.float32)))
