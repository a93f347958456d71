"""Small models by name, each with its loss, the figure it is judged by and the shape of data it wants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Protocol

from minimp import nn
from minimp.data import ArrayDataset
from minimp.errors import DataError, SettingError, unknown_name
from minimp.named import Named

__all__ = ["MODELS", "Described", "ModelKind", "autoencoder", "build", "cnn", "mlp"]

Shape = tuple[int, ...]
POOL = 2
"""Each convolution of the CNN is followed by a max pool that halves height and width."""


class Described(Protocol):
    """What a model must know of its data; an `ArrayDataset` says it."""

    @property
    def input_shape(self) -> Shape:
        """The shape of one input, without N."""

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 where targets are values."""


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


@dataclass(frozen=True)
class ModelKind:
    """One kind of model.

    Attributes:
        name: how it is called.
        make: `make(input_shape, num_classes, **sizes)` returns the module.
        shape: the inputs it wants: ``"flat"`` (features,) or ``"image"`` (C, H, W).
        loss: the loss it is trained by, a name in `minimp.functional`.
        metric: what it is judged by, ``"test_accuracy"`` or ``"test_loss"``.
        sizes: the keyword arguments of `make` and their defaults.
        note: the layers in a few words.
    """

    name: str
    make: Callable[..., nn.Module]
    shape: str
    loss: str
    metric: str
    note: str
    sizes: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", MappingProxyType(dict(self.make.__kwdefaults__ or {})))

    @property
    def classifies(self) -> bool:
        """Whether the targets are class labels."""
        return self.metric == "test_accuracy"

    def prepare(self, dataset: ArrayDataset) -> ArrayDataset:
        """Return a data set with inputs of the shape, and targets of the kind, that the model wants.

        Raises:
            DataError: a model of images met rows of features, or a classifier met data without classes.
        """
        if self.classifies and not dataset.num_classes:
            raise DataError(
                f"model {self.name!r} tells classes apart, and {dataset.name!r} has none",
                op="models", help="use the model 'autoencoder', or data with class labels",
            )  # fmt: skip
        if self.shape == "flat":
            flat = dataset.flat()
            return flat if self.classifies else flat.reconstruction()
        if len(dataset.input_shape) == 1:
            raise DataError(
                f"model {self.name!r} needs images, and {dataset.name!r} has rows of "
                f"{dataset.input_shape[0]} features",
                op="models", shapes=[dataset.input_shape],
                help="use the model 'mlp', or give inputs as (H, W) or (C, H, W)",
            )  # fmt: skip
        return dataset.images()


MODELS = Named(
    "model",
    ModelKind("mlp", mlp, "flat", "cross_entropy", "test_accuracy", "in-128-128-classes, ReLU"),
    ModelKind("cnn", cnn, "image", "cross_entropy", "test_accuracy",
              "conv 3x3 to 16 and to 32 channels, ReLU and max pool after each, fully connected"),
    ModelKind("autoencoder", autoencoder, "flat", "mse_loss", "test_loss",
              "in-128-16-128-in, ReLU; the input is the target"),
)  # fmt: skip
"""The models by name; a name that is not there raises SettingError."""


def build(name: str, data: Described | tuple[Shape, int], **sizes: Any) -> nn.Module:
    """Make a model for data of a shape, and draw its weights from `minimp.rng`.

    Weights are normal with variance 2 / fan_in, biases zero (He, Zhang, Ren and Sun 2015, arXiv 1502.01852,
    section 2.2). Equal seeds (`mp.manual_seed`) give equal bits.

    Args:
        name: a key of :data:`MODELS`.
        data: a data set, or (input_shape, num_classes).
        sizes: what to change of the model's sizes, see its function.

    Raises:
        SettingError: the name or a size is unknown, or a size cannot be.
        DataError: the data does not fit this kind of model.
    """
    kind = MODELS[name]
    for size in sizes:
        if size not in kind.sizes:
            raise SettingError(unknown_name(f"size of model {name!r},", size, kind.sizes))
    shape, classes = data if isinstance(data, tuple) else (data.input_shape, data.num_classes)
    if kind.shape == "image" and len(shape) != 3:
        raise DataError(
            f"model {name!r} needs images (C, H, W), got inputs of {tuple(shape)}",
            op="models", shapes=[tuple(shape)], help=f"pass the data through MODELS[{name!r}].prepare first",
        )  # fmt: skip
    if kind.classifies and classes < 1:
        raise DataError(f"model {name!r} needs classes, and the data has none", op="models")
    return kind.make(tuple(shape), classes, **sizes).apply(_he)


def _he(module: nn.Module) -> None:
    """Draw the weights of a layer, if it has any."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
