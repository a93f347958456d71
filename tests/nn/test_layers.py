"""Layers, activations and losses; oracle: their formulas in NumPy float64, and values by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import DataError, SettingError, ShapeError
from tests.arrays import host
from tests.tolerances import assert_close


def values(tensor: Any) -> np.ndarray[Any, Any]:
    """Return a tensor's values in float64."""
    return host(tensor).astype(np.float64)


def test_linear_with_and_without_bias(rng: np.random.Generator) -> None:
    """Oracle: x W^T + b in float64."""
    x = rng.standard_normal((2, 3, 5)).astype(np.float32)
    for bias in (True, False):
        layer = nn.Linear(5, 4, bias=bias)
        expected = x.astype(np.float64) @ values(layer.weight).T + (values(layer.bias) if bias else 0.0)
        assert_close(values(layer(mp.tensor(x))), expected, "parity_op_fp32")
        assert (layer.bias is None) is not bias
        assert list(layer.state_dict()) == (["weight", "bias"] if bias else ["weight"])


def test_parameters_are_made_in_a_format() -> None:
    """Oracle: the format asked for; a result in float16 is rounded to it."""
    layer = nn.Linear(3, 2, dtype="float16")
    assert {p.format for p in layer.parameters()} == {mp.float16}
    assert layer(mp.tensor(np.ones((1, 3), np.float16))).format is mp.float16
    assert nn.Conv2d(1, 1, 1, dtype=mp.bfloat16, backend="numpy").weight.format is mp.bfloat16


def test_conv2d_at_one_place(rng: np.random.Generator) -> None:
    """Oracle: the sum of products under the kernel, in float64, with stride, padding and groups."""
    x = rng.standard_normal((2, 4, 7, 8)).astype(np.float32)
    layer = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2)
    y = values(layer(mp.tensor(x)))
    assert y.shape == (2, 6, 4, 7)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (0, 0)))
    weight, bias = values(layer.weight), values(layer.bias)
    expected = np.empty_like(y)
    for o in range(6):
        source = padded[:, 2 * (o // 3) : 2 * (o // 3) + 2]
        for i in range(4):
            for j in range(7):
                window = source[:, :, 2 * i : 2 * i + 3, j : j + 2]
                expected[:, o, i, j] = (window * weight[o]).sum((1, 2, 3)) + bias[o]
    assert_close(y, expected, "parity_op_fp32")


def test_pools_of_a_known_image() -> None:
    """Oracle: by hand, windows of 2 x 2 over 0..15."""
    x = mp.tensor(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4))
    assert nn.MaxPool2d(2)(x).tolist() == [[[[5.0, 7.0], [13.0, 15.0]]]]
    assert nn.AvgPool2d(2)(x).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert nn.MaxPool2d(2, stride=1)(x).shape == (1, 1, 3, 3)
    assert nn.AvgPool2d((2, 4), stride=(2, 1))(x).tolist() == [[[[3.5], [11.5]]]]


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (nn.ReLU(), lambda x: np.maximum(x, 0)),
        (nn.Tanh(), np.tanh),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.GELU("tanh"), lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
        (nn.Softmax(dim=1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        (nn.LogSoftmax(dim=-1), lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
        (nn.Softmax(), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
        (nn.Identity(3, unused=True), lambda x: x),
        (nn.Flatten(0), np.ravel),
        (nn.Sequential(), lambda x: x),
        (nn.Sequential(nn.Tanh(), nn.ReLU()), lambda x: np.maximum(np.tanh(x), 0)),
    ],
    ids=lambda value: repr(value).splitlines()[0] if isinstance(value, nn.Module) else "",
)
def test_elementwise_modules(module: nn.Module, function: Any, rng: np.random.Generator) -> None:
    """Oracle: the formula in NumPy float64."""
    x = rng.standard_normal((4, 6)).astype(np.float32)
    assert_close(values(module(mp.tensor(x))), function(x.astype(np.float64)), "parity_op_fp32")


def test_softmax_does_not_guess_an_axis() -> None:
    """Oracle: torch would take axis 0 of three; the docstring promises an error."""
    with pytest.raises(SettingError, match="which of 3 axes to normalise over"):
        nn.Softmax()(mp.tensor(np.ones((2, 3, 4), np.float32)))


def test_losses_of_known_scores() -> None:
    """Oracle: by hand; ln softmax of equal scores over 4 classes is -ln 4."""
    scores, labels = mp.tensor(np.zeros((3, 4), np.float32)), np.array([0, 3, 1])
    assert_close(nn.CrossEntropyLoss()(scores, labels).item(), np.log(4), "parity_first_loss")
    assert_close(
        nn.CrossEntropyLoss(reduction="sum")(scores, labels).item(), 3 * np.log(4), "parity_first_loss"
    )
    weighted = nn.CrossEntropyLoss(weight=[1.0, 1.0, 1.0, 5.0], ignore_index=1)
    assert_close(weighted(scores, labels).item(), np.log(4), "parity_first_loss")
    assert list(weighted.state_dict()) == ["weight"]
    assert list(nn.CrossEntropyLoss().state_dict()) == []
    log_p = mp.tensor(np.log(np.array([[0.5, 0.25, 0.25]], np.float32)))
    assert_close(
        nn.NLLLoss(reduction="none")(log_p, np.array([1])).tolist(), [np.log(4)], "parity_first_loss"
    )
    assert nn.MSELoss()(mp.tensor([1.0, 2.0]), mp.tensor([1.0, 4.0])).item() == 2.0
    smooth = nn.CrossEntropyLoss(label_smoothing=0.5)
    assert_close(smooth(scores, labels).item(), np.log(4), "parity_first_loss")
    with pytest.raises(DataError, match="expected labels from 0 to 3, got 9"):
        nn.CrossEntropyLoss()(scores, np.array([0, 9, 1]))


def test_dropout_thins_in_training_only() -> None:
    """Oracle: values are 0 or x / (1 - p), p = 1/4 exact; the count within six deviations of a fair draw."""
    layer, x = nn.Dropout(0.25), mp.tensor(np.full(100_000, 3.0, np.float32))
    y = values(layer(x))
    assert set(np.unique(y)) == {0.0, 4.0}
    assert_close((np.mean(y == 0) - 0.25) / np.sqrt(0.25 * 0.75 / y.size), 0.0, "six_deviations")
    assert layer.eval()(x) is x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 3), "expected in_features to be a whole number of at least 1, got 0"),
        (lambda: nn.Linear(3, True), "expected out_features to be a whole number of at least 1, got True"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "expected in_channels to be a multiple of groups=2, got 3"),
        (lambda: nn.Conv2d(1, 1, (3, 3, 3)), "expected kernel_size to be one or two whole numbers"),
        (lambda: nn.Conv2d(1, 1, 3, padding=-1), "expected padding to be a whole number of at least 0"),
        (lambda: nn.Conv2d(1, 1, 3, padding="full"), "expected padding 'valid' or 'same', got 'full'"),
        (lambda: nn.Conv2d(1, 1, 3, 2, padding="same"), "padding 'same' cannot act with stride"),
        (lambda: nn.Conv2d(1, 1, 3, padding_mode="reflec"), "unknown padding_mode 'reflec'; did you mean"),
        (lambda: nn.ConvTranspose1d(1, 1, 3, padding_mode="reflect"), "expected padding_mode 'zeros'"),
        (lambda: nn.Conv1d(1, 1, (3, 3)), "expected kernel_size to be one whole number"),
        (lambda: nn.AdaptiveAvgPool2d((1, 2, 3)), "expected output_size to be one length or 2"),
        (lambda: nn.AdaptiveMaxPool1d(0), "expected output_size to be a whole number of at least 1"),
        (lambda: nn.ZeroPad2d((1, 2)), "expected padding to be one or 4 whole numbers, got (1, 2)"),
        (lambda: nn.Unflatten(1, (2.0,)), "expected unflattened_size to be whole numbers"),
        (lambda: nn.PixelShuffle(0), "expected upscale_factor to be a whole number"),
        (lambda: nn.MaxPool2d(0), "expected kernel_size to be a whole number of at least 1, got 0"),
        (lambda: nn.AvgPool2d(2, divisor_override=3), "divisor_override is not offered"),
        (lambda: nn.ReLU(inplace=True), "inplace=True cannot act"),
        (lambda: nn.Dropout(inplace=True), "inplace=True cannot act"),
        (lambda: nn.Dropout(1.5), "expected a probability from 0 to 1, got 1.5"),
        (lambda: nn.GELU("erf"), "expected approximate 'none' or 'tanh', got 'erf'"),
        (lambda: nn.MSELoss(reduction="avg"), "unknown reduction 'avg'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2.0), "expected label_smoothing from 0 to 1"),
    ],
)
def test_settings_that_cannot_act_are_refused(make: Any, message: str) -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(SettingError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_whole_channels_are_dropped(axes: int) -> None:
    """Oracle: a channel is 0 or x / (1 - p), p = 1/4 exact; the count within six deviations."""
    layer = getattr(nn, f"Dropout{axes}d")(0.25)
    x = mp.tensor(np.full((100, 100, *(2,) * axes), 3.0, np.float32))
    y = values(layer(x)).reshape(100 * 100, -1)
    assert set(np.unique(y)) == {0.0, 4.0}
    assert (y == y[:, :1]).all()
    assert_close((np.mean(y[:, 0] == 0) - 0.25) / np.sqrt(0.25 * 0.75 / len(y)), 0.0, "six_deviations")
    assert layer.eval()(x) is x
    single = layer.train()(mp.tensor(np.ones((50, *(2,) * axes), np.float32)))
    assert (values(single).reshape(50, -1) == values(single).reshape(50, -1)[:, :1]).all()
    with pytest.raises(ShapeError, match=r"or \(C, "):
        layer(mp.tensor(np.ones(3, np.float32)))


def test_alpha_dropout_keeps_mean_and_variance(rng: np.random.Generator) -> None:
    """Oracle: mean 0 and variance 1 of normal inputs (Klambauer et al. 2017), each within six deviations.

    The variance of y^2 is below 3, that of a normal y being 2.
    """
    layer, count = nn.AlphaDropout(0.3), 400_000
    x = mp.tensor(rng.standard_normal(count), dtype="float32")
    y = values(layer(x))
    assert_close(y.mean() * np.sqrt(count), 0.0, "six_deviations")
    assert_close((np.mean(y**2) - 1) / np.sqrt(3 / count), 0.0, "six_deviations")
    lowest = np.unique(y, return_counts=True)
    share = lowest[1].max() / count  # of the one value that stands for what was dropped
    assert_close((share - 0.3) / np.sqrt(0.3 * 0.7 / count), 0.0, "six_deviations")
    assert layer.eval()(x) is x
    assert not values(nn.AlphaDropout(1.0)(x)).any()
