"""Models by name, for `minimp train` and `minimp compare`, and for reading."""

from minimp.models.kinds import MODELS, Described, ModelKind, build
from minimp.models.plain import autoencoder, cnn, mlp

__all__ = ["MODELS", "Described", "ModelKind", "autoencoder", "build", "cnn", "mlp"]
