"""Models by name; oracles: shapes counted by hand, the law of He initialisation, equal seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import models, nn
from minimp.data import ArrayDataset, TextDataset, digits
from minimp.errors import DataError, SettingError
from minimp.models.plain import he_
from tests.tolerances import assert_close

SHAPES = {"mlp": (64,), "cnn": (1, 8, 8), "autoencoder": (64,), "gpt": (16,), "resnet": (1, 8, 8)}
HE = [name for name, kind in models.MODELS.items() if kind.draw is he_]
IMAGES = [name for name, kind in models.MODELS.items() if kind.shape != "text"]


def images(*shape: int, classes: int = 4) -> ArrayDataset:
    """Make a few images of a shape."""
    count = 12
    values = np.linspace(0.0, 1.0, count * math.prod(shape), dtype=np.float32)
    return ArrayDataset(values.reshape(count, *shape), np.arange(count) % classes, name="shapes")


def text() -> TextDataset:
    """Make a short text."""
    return TextDataset("to be or not to be", context=4, name="play")


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (28, 28), (3, 9, 13)])
def test_scores_have_the_shape_of_the_task(name: str, shape: tuple[int, ...]) -> None:
    """Oracle: one score a class, or one value a feature; prepared data is what the model takes."""
    kind = models.MODELS[name]
    data = kind.prepare(images(*shape))
    output = models.build(name, data)(mp.tensor(data.inputs))
    assert len(data.input_shape) == {"flat": 1, "image": 3}[kind.shape]
    assert output.shape == (12, 4 if kind.metric == "test_accuracy" else math.prod(shape))
    loss = kind.loss_fn(output, data.targets)
    assert loss.size == 1
    assert math.isfinite(loss.item())


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("mlp", (64,), 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10),
        ("cnn", (1, 8, 8), 16 * 9 + 16 + 32 * 16 * 9 + 32 + 32 * 2 * 2 * 10 + 10),
        ("cnn", (1, 28, 28), 16 * 9 + 16 + 32 * 16 * 9 + 32 + 32 * 7 * 7 * 10 + 10),
        ("autoencoder", (64,), 64 * 128 + 128 + 128 * 16 + 16 + 16 * 128 + 128 + 128 * 64 + 64),
    ],
)
def test_sizes_are_those_that_are_stated(name: str, shape: tuple[int, ...], expected: int) -> None:
    """Oracle: the parameters of the layers, counted by hand."""
    assert nn.count_parameters(models.build(name, (shape, 10))) == expected


@pytest.mark.parametrize("name", HE)
def test_weights_follow_he_and_biases_are_zero(name: str) -> None:
    """Oracle: n draws of N(0, v) have mean 0 +- sqrt(v/n) and variance v +- v sqrt(2/n); v = 2 / fan_in."""
    mp.manual_seed(3)
    for path, parameter in models.build(name, (SHAPES[name], 10)).named_parameters():
        values = parameter.detach().numpy().astype(np.float64)
        if values.ndim == 1:  # biases are 0, the gains of norms 1
            assert np.all(values == (0.0 if path.endswith("bias") else 1.0))
            continue
        wanted = 2.0 / math.prod(values.shape[1:])
        score_of_mean = values.mean() / math.sqrt(wanted / values.size)
        score_of_variance = (np.mean(values**2) / wanted - 1.0) / math.sqrt(2.0 / values.size)
        assert_close([score_of_mean, score_of_variance], [0.0, 0.0], "six_deviations")


def weights(name: str, seed: int) -> list[bytes]:
    """Return the bits of a model made from a seed."""
    mp.manual_seed(seed)
    return [p.detach().numpy().tobytes() for p in models.build(name, (SHAPES[name], 10)).parameters()]


@pytest.mark.parametrize("name", models.MODELS)
def test_weights_are_a_function_of_the_seed(name: str) -> None:
    """Oracle: equal seeds give equal bits, another seed other ones."""
    assert weights(name, 5) == weights(name, 5) != weights(name, 6)


def test_sizes_can_be_changed() -> None:
    """Oracle: the layers, read from the module."""
    made: Any = models.build("mlp", ((6,), 3), hidden=(5,), dropout=0.25)
    assert [type(layer).__name__ for layer in made] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert made[0].weight.shape == (5, 6)
    assert made[3].weight.shape == (3, 5)
    small: Any = models.build("cnn", ((2, 4, 4), 3), channels=(4,), hidden=(7,))
    assert [layer.weight.shape for layer in small if hasattr(layer, "weight")] == [
        (4, 2, 3, 3), (7, 16), (3, 7),
    ]  # fmt: skip
    assert models.build("autoencoder", ((6,), 0), hidden=5, code=2)(
        mp.tensor(np.ones((1, 6), np.float32))
    ).shape == (1, 6)


def test_an_autoencoder_has_its_input_for_target() -> None:
    """Oracle: the inputs themselves, flat."""
    data = models.MODELS["autoencoder"].prepare(digits("test", shape="image"))
    assert data.num_classes == 0
    assert np.array_equal(data.targets, data.inputs)
    assert np.array_equal(data.inputs, digits("test").inputs)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: models.build("ccn", ((64,), 10)), SettingError, "did you mean 'cnn'"),
        (lambda: models.MODELS["autoencodr"], SettingError, "did you mean 'autoencoder'"),
        (lambda: models.build("mlp", ((64,), 10), hiden=3), SettingError, "did you mean 'hidden'"),
        (lambda: models.build("mlp", ((64,), 0)), DataError, "needs classes"),
        (lambda: models.build("cnn", ((64,), 10)), DataError, "needs images"),
        (lambda: models.build("cnn", ((1, 3, 9), 10)), DataError, "at least 4 x 4"),
        (lambda: models.build("mlp", ((64,), 10), hidden=(0,)), SettingError, "at least 1"),
        (lambda: models.MODELS["cnn"].prepare(digits("test")), DataError, "rows of 64 features"),
        (lambda: models.MODELS["mlp"].prepare(digits("test").reconstruction()), DataError, "has none"),
        (lambda: models.MODELS["cnn"].prepare(text()), DataError, "wants images, .* is text.*gpt"),
        (lambda: models.MODELS["mlp"].prepare(text()), DataError, "wants rows of features, .* is text.*gpt"),
        (lambda: models.MODELS["gpt"].prepare(digits("test")), DataError, "reads text, .*397 rows.*mlp"),
        (lambda: models.MODELS["gpt"].prepare(images(3, 4, 4)), DataError, "reads text, .*resnet or cnn"),
        (lambda: models.MODELS["gpt"].read("digits"), DataError, "text is wanted"),
        (lambda: models.MODELS["cnn"].read("stdlib"), DataError, "is text"),
        (lambda: models.MODELS["gpt"].read("stdlib", label="x"), SettingError, "label= cannot act on text"),
        (lambda: models.MODELS["cnn"].read("digits", context=8), SettingError, "context= cannot act on"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, error: type[Exception], words: str) -> None:
    """Oracle: the kind of error, and what its message must name."""
    with pytest.raises(error, match=f"(?s){words}"):
        make()
