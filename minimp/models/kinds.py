"""Models by name, each with its data, its loss, the figure it is judged by, and settings to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, cast

from minimp import functional, nn
from minimp.data import AnyDataset, AnyParts, ArrayDataset, TextDataset, TextParts, TrainTest, load, load_text
from minimp.errors import DataError, SettingError, unknown_name
from minimp.evaluation import next_character_loss
from minimp.models.gpt import gpt, gpt2_
from minimp.models.plain import autoencoder, cnn, he_, mlp
from minimp.models.resnet import resnet
from minimp.named import Named
from minimp.tensors import Tensor

__all__ = ["MODELS", "Described", "ModelKind", "build"]

Shape = tuple[int, ...]


class Described(Protocol):
    """What a model must know of its data; an `ArrayDataset` or a `TextDataset` says it."""

    @property
    def input_shape(self) -> Shape:
        """The shape of one input, without N."""

    @property
    def num_classes(self) -> int:
        """The number of classes, or of characters; 0 where targets are values."""


@dataclass(frozen=True)
class ModelKind:
    """One kind of model.

    Attributes:
        name: how it is called.
        make: `make(input_shape, num_classes, **sizes)` returns the module.
        shape: the inputs it wants: ``"flat"`` (features,), ``"image"`` (C, H, W) or ``"text"`` (context,).
        loss: the loss it is trained by, a name in `minimp.functional`.
        metric: what it is judged by: ``"test_accuracy"``, ``"test_loss"`` or ``"test_bits"``.
        note: the layers in a few words.
        draw: gives a module its first weights, from `minimp.rng`.
        data: the data that it is trained on if none is named.
        defaults: settings of `minimp train` that suit it better than the general ones.
        sizes: the keyword arguments of `make` and their defaults.
    """

    name: str
    make: Callable[..., nn.Module]
    shape: str
    loss: str
    metric: str
    note: str
    draw: Callable[[nn.Module], None] = he_
    data: str = "digits"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", MappingProxyType(dict(self.make.__kwdefaults__ or {})))

    @property
    def classifies(self) -> bool:
        """Whether the targets are class labels."""
        return self.metric == "test_accuracy"

    @property
    def loss_fn(self) -> Callable[[Any, Any], Tensor]:
        """The loss as a function of outputs and targets, a mean over all of them."""
        return next_character_loss if self.shape == "text" else getattr(functional, self.loss)

    def read(self, source: str, **options: Any) -> AnyParts:
        """Read data and put it in the shape that the model wants; see :meth:`load` and :meth:`prepare`."""
        return self.prepare_parts(self.load(source, **options))

    def load(self, source: str, *, context: int | None = None, **options: Any) -> AnyParts:
        """Read data of the kind that the model wants: text, or inputs with labels.

        Args:
            source: a path or the name of a built-in set, as for `minimp.data.load`, or `load_text`.
            context: characters of a window; for text only, None takes the default.
            options: of `load`; None leaves one out.

        Raises:
            DataError: the data cannot be read, or is of the other kind.
            SettingError: an option that cannot act.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if self.shape == "text":
            for name in given:
                raise SettingError(f"{name}= cannot act on text, which model {self.name!r} reads")
            return load_text(source) if context is None else load_text(source, context=context)
        if context is not None:
            raise SettingError(f"context= cannot act on model {self.name!r}, which reads no text")
        return load(source, **given)

    def prepare_parts(self, parts: AnyParts) -> AnyParts:
        """Return both parts as :meth:`prepare` makes them."""
        train, test = map(self.prepare, parts)
        if isinstance(train, TextDataset):
            return TextParts(train, cast("TextDataset", test))
        return TrainTest(train, cast("ArrayDataset", test))

    def prepare(self, dataset: AnyDataset) -> AnyDataset:
        """Return a data set with inputs of the shape, and targets of the kind, that the model wants.

        Raises:
            DataError: text met a model of images or rows, or the other way round; a model of images met rows
                of features, or a classifier met data without classes.
        """
        if isinstance(dataset, TextDataset):
            if self.shape == "text":
                return dataset
            raise DataError(
                f"model {self.name!r} wants {WANTS[self.shape]}, and {dataset.name!r} is text",
                op="models", help="use the model 'gpt' (--model gpt)",
            )  # fmt: skip
        if self.shape == "text":
            images = len(dataset.input_shape) > 1
            raise DataError(
                f"model {self.name!r} reads text, and {dataset.name!r} holds {dataset.size_text} of "
                f"{dataset.input_shape}",
                op="models", shapes=[dataset.input_shape],
                help=f"use the model {'resnet or cnn' if images else 'mlp'}, or give a text file",
            )  # fmt: skip
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


WANTS = {"flat": "rows of features", "image": "images", "text": "text"}
"""What a model of a shape wants, in words."""

MODELS = Named(
    "model",
    ModelKind("mlp", mlp, "flat", "cross_entropy", "test_accuracy", "in-128-128-classes, ReLU"),
    ModelKind("cnn", cnn, "image", "cross_entropy", "test_accuracy",
              "conv 3x3 to 16 and to 32 channels, ReLU and max pool after each, fully connected"),
    ModelKind("autoencoder", autoencoder, "flat", "mse_loss", "test_loss",
              "in-128-16-128-in, ReLU; the input is the target"),
    ModelKind("resnet", resnet, "image", "cross_entropy", "test_accuracy",
              "residual blocks of two 3x3 convolutions with batch norm in three stages, mean over all places",
              defaults={"steps": 300}),
    ModelKind("gpt", gpt, "text", "cross_entropy", "test_bits",
              "a transformer over characters: pre-LN, learned positions, causal attention, GELU", gpt2_,
              "stdlib",
              {"steps": 2000, "batch": 16, "optimizer": "adamw", "lr": 3e-3, "max_norm": 1.0}),
)  # fmt: skip
"""The models by name; a name that is not there raises SettingError."""


def build(name: str, data: Described | tuple[Shape, int], **sizes: Any) -> nn.Module:
    """Make a model for data of a shape, and draw its weights from `minimp.rng`.

    Weights are normal with variance 2 / fan_in, biases zero (`he_`); those of the gpt are drawn as GPT-2's
    (`gpt2_`). Equal seeds (`mp.manual_seed`) give equal bits.

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
    made = kind.make(tuple(shape), classes, **sizes)
    kind.draw(made)
    return made
