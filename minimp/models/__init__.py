"""Models by name, for `minimp train` and `minimp compare`, and for reading."""

from minimp.models.gpt import GPT, gpt
from minimp.models.kinds import MODELS, Described, ModelKind, build
from minimp.models.plain import autoencoder, cnn, mlp
from minimp.models.resnet import ResNet, resnet
from minimp.models.sampling import Drawing, sample

__all__ = [
    "GPT", "MODELS", "Described", "Drawing", "ModelKind", "ResNet", "autoencoder", "build", "cnn", "gpt",
    "mlp", "resnet", "sample",
]  # fmt: skip
