"""Fully connected layers, a small CNN, an auto-encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from minimp import nn
from minimp.errors import DataError

__all__ = ["autoencoder", "cnn", "he_", "mlp"]

Shape = tuple[int, ...]
POOL = 2
"""Each convolution of the CNN is followed by a max pool that halves height and width."""


def mlp(
    input_shape: Shape, num_classes: int, *, hidden: Sequence[int] = (128, 128), dropout: float = 0.0
) -> nn.Module:
    """Fully connected layers with ReLU between them.  (N, in) -> (N, num_classes) scores.

    Args:
        input_shape: of one input; its elements are the `in` features.
        num_classes: the number of scores.
        hidden: the widths of the hidden layers.
        dropout: the probability with which a hidden value is zeroed in training; 0 leaves the layer out.
    """
    widths = [math.prod(input_shape), *hidden]
    return nn.Sequential(*_hidden_layers(widths, dropout), nn.Linear(widths[-1], num_classes))


def cnn(
    input_shape: Shape,
    num_classes: int,
    *,
    channels: Sequence[int] = (16, 32),
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
) -> nn.Module:
    """Convolutions 3 x 3 with ReLU and max pool 2 x 2, then linear.  (N, C, H, W) -> (N, num_classes).

    Args:
        input_shape: (C, H, W) of one image.
        num_classes: the number of scores.
        channels: the output channels of the convolutions (padding 1, so only the pools shrink the image).
        hidden: the widths of fully connected layers before the last.
        dropout: the probability with which a hidden value of those is zeroed in training.

    Raises:
        DataError: the image is too small to be halved once for each convolution.
    """
    depth, *sides = input_shape
    layers: list[nn.Module] = []
    for wide in channels:
        layers += [nn.Conv2d(depth, wide, 3, padding=1), nn.ReLU(), nn.MaxPool2d(POOL)]
        depth, sides = wide, [side // POOL for side in sides]
    if min(sides) < 1:
        least = POOL ** len(channels)
        raise DataError(
            f"images must be at least {least} x {least} for {len(channels)} poolings, got {input_shape}",
            op="cnn", shapes=[input_shape], help="use the model 'mlp', or fewer channels=(...)",
        )  # fmt: skip
    widths = [depth * math.prod(sides), *hidden]
    return nn.Sequential(
        *layers, nn.Flatten(), *_hidden_layers(widths, dropout), nn.Linear(widths[-1], num_classes)
    )


def autoencoder(
    input_shape: Shape,
    num_classes: int = 0,  # noqa: ARG001 - one signature for all; here the input is the target
    *,
    hidden: int = 128,
    code: int = 16,
) -> nn.Module:
    """in - hidden - code - hidden - in with ReLU between the layers.  (N, in) -> (N, in).

    Args:
        input_shape: of one input; its elements are the `in` features.
        num_classes: not used.
        hidden: the width of the layers on both sides of the code.
        code: the width of the narrow layer.
    """
    features = math.prod(input_shape)
    widths = [features, hidden, code, hidden]
    return nn.Sequential(*_hidden_layers(widths, 0.0), nn.Linear(hidden, features))


def _hidden_layers(widths: Sequence[int], dropout: float) -> list[nn.Module]:
    """Return Linear, ReLU (and Dropout) from each width to the next."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return layers


def he_(model: nn.Module) -> None:
    """Draw weights normal with variance 2 / fan_in, and set biases to zero.

    He, Zhang, Ren and Sun 2015, "Delving deep into rectifiers", arXiv 1502.01852, section 2.2.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
