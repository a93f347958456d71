"""Models by name, for `minimp train` and `minimp compare`, and for reading."""

from minimp.models.gpt import GPT, gpt
from minimp.models.kinds import MODELS, Described, ModelKind, build
from minimp.models.minilm import SentenceEncoder, minilm
from minimp.models.plain import autoencoder, cnn, mlp
from minimp.models.resnet import ResNet, resnet
from minimp.models.sampling import Drawing, sample
from minimp.models.wordpiece import WordPiece

__all__ = [
    "GPT", "MODELS", "Described", "Drawing", "ModelKind", "ResNet", "SentenceEncoder", "WordPiece",
    "autoencoder", "build", "cnn", "gpt", "minilm", "mlp", "resnet", "sample",
]  # fmt: skip
