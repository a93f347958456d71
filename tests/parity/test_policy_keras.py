"""policies["keras"] against the installed Keras: the formats of layers and losses under its mixed policies.

Run it with KERAS_BACKEND=jax or torch: what is compared is Keras's own, whatever computes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.functional import cross_entropy, mse_loss

keras = pytest.importorskip("keras", reason="needs keras 3")
LOW = ("float16", "bfloat16")
ROW, IMAGE, STEPS = (2, 6), (2, 3, 4, 4), (2, 3, 4)
NHWC = (0, 2, 3, 1)
Call = Callable[[Any], Any]

# Keras's layer and its arguments -> (shape of the input, minimp's call). Keras has channels last.
LAYERS: dict[tuple[str, tuple[Any, ...]], tuple[tuple[int, ...], Call]] = {
    ("Dense", (3,)): (ROW, nn.Linear(6, 3)),
    ("Conv2D", (2, 2)): (IMAGE, nn.Conv2d(3, 2, 2)),
    ("ReLU", ()): (ROW, nn.ReLU()),
    ("Activation", ("gelu",)): (ROW, nn.GELU()),
    ("Softmax", ()): (ROW, nn.Softmax(-1)),
    ("MaxPooling2D", ()): (IMAGE, nn.MaxPool2d(2)),
    ("RMSNormalization", ()): (ROW, nn.RMSNorm(6)),
    ("LSTM", (3,)): (STEPS, lambda x: nn.LSTM(4, 3, batch_first=True)(x)[0][:, -1]),
    ("GRU", (3,)): (STEPS, lambda x: nn.GRU(4, 3, batch_first=True)(x)[0][:, -1]),
}
NORMS: dict[tuple[str, tuple[Any, ...]], tuple[tuple[int, ...], Call]] = {
    ("BatchNormalization", ()): (IMAGE, nn.BatchNorm2d(3)),
    ("LayerNormalization", ()): (ROW, nn.LayerNorm(6)),
    ("GroupNormalization", (3,)): (IMAGE, nn.GroupNorm(3, 3)),
}


@pytest.fixture(params=LOW)
def low(request: pytest.FixtureRequest) -> Iterator[str]:
    """Put one of Keras's mixed policies in force, and return its low format."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{request.param}")
    yield request.param
    keras.config.set_dtype_policy(before)


def name_of(dtype: Any) -> str:
    """Return the name of Keras's dtype, whatever the backend."""
    return str(keras.backend.standardize_dtype(dtype))


def both(
    low: str, given: str, named: tuple[str, tuple[Any, ...]], shape: tuple[int, ...], ours: Call
) -> tuple[str, str]:
    """Return the format of Keras's result and of minimp's, for an input in a format."""
    layer = getattr(keras.layers, named[0])(*named[1])
    x = np.ones(shape, np.float32)
    result = layer(keras.ops.cast(x.transpose(NHWC) if x.ndim == 4 else x, given))
    assert {name_of(each.dtype) for each in layer.weights} <= {"float32"}
    with mp.autocast(low, policy="keras"):
        mine = ours(mp.tensor(x, dtype=given))
    assert math.prod(result.shape) == math.prod(mine.shape)
    return name_of(result.dtype), mine.dtype.name


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer[0])
def test_a_layers_result_has_kerass_format(layer: tuple[str, tuple[Any, ...]], low: str) -> None:
    """Oracle: Keras's layer under mixed_float16 and mixed_bfloat16, on float32 and on low inputs."""
    for given in ("float32", low):
        assert both(low, given, layer, *LAYERS[layer]) == (low, low)


@pytest.mark.parametrize("layer", NORMS, ids=lambda layer: layer[0])
def test_a_normalisation_of_low_inputs_has_kerass_format(
    layer: tuple[str, tuple[Any, ...]], low: str
) -> None:
    """Oracle: Keras's layer; of a float32 input minimp's op stays in float32, as the remark says."""
    assert both(low, low, layer, *NORMS[layer]) == (low, low)
    assert both(low, "float32", layer, *NORMS[layer]) == (low, "float32")
    assert "float32 input" in mp.policies["keras"].remarks["layer_norm"]


def test_an_embeddings_rows_are_low_as_in_keras(low: str) -> None:
    """Oracle: Keras's layer."""
    theirs, table = keras.layers.Embedding(5, 3)(np.array([[1, 2]])), nn.Embedding(5, 3)
    with mp.autocast(low, policy="keras"):
        ours = table(mp.tensor([[1, 2]]))
    assert (name_of(theirs.dtype), ours.dtype.name) == (low, low)


def test_losses_are_float32_as_in_keras(low: str) -> None:
    """Oracle: Keras's losses on predictions in the low format."""
    scores, labels = np.ones((2, 3), np.float32), np.array([0, 1])
    theirs = [
        keras.losses.MeanSquaredError()(scores, keras.ops.cast(scores, low)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, keras.ops.cast(scores, low)),
    ]
    mine = mp.tensor(scores, dtype=low)
    with mp.autocast(low, policy="keras"):
        ours = [mse_loss(mine, mp.tensor(scores)), cross_entropy(mine, labels)]
    assert [name_of(each.dtype) for each in theirs] == [each.dtype.name for each in ours] == ["float32"] * 2


def test_what_goes_with_the_policy_is_kerass(low: str) -> None:
    """Oracle: Keras's policy object, and the optimizer that compile() wraps for float16 alone."""
    policy, settings = keras.config.dtype_policy(), mp.policies["keras"].settings
    assert policy.variable_dtype == settings["param_dtype"] == "float32"
    assert policy.compute_dtype == low
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse", optimizer="sgd")
    wrapped = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert wrapped is (low == "float16")
    if wrapped:
        assert f"from {model.optimizer.initial_scale:.0f}" in settings["loss_scale"]
    assert keras.version() in mp.policies["keras"].source
