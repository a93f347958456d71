"""Runs that are quantised; the model of each made by hand, and what the command wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minimp import models
from minimp.cli import main
from minimp.nn import Module
from minimp.quant import saving

SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("hidden=24", {"hidden": (24,)}),
    "cnn": ("channels=4x6", {"channels": (4, 6)}),
    "resnet": ("width=4", {"width": 4}),
    "autoencoder": ("hidden=16,code=4", {"hidden": 16, "code": 4}),
    "gpt": ("width=16,layers=1,heads=2", {"width": 16, "layers": 1, "heads": 2}),
}
TEXT = "the quick brown fox jumps over the lazy dog\n" * 200


def make_runs(folder: Path) -> Path:
    """Put a run of each model, of a few steps, into a folder."""
    (folder / "text.txt").write_text(TEXT)
    (folder / "two.csv").write_text("a,b,label\n" + "1,2,x\n2,1,y\n" * 20)
    for name, (sizes, _) in SIZES.items():
        text = ("--data", str(folder / "text.txt"), "--context", "16", "--sample", "0")
        steps = "80" if name == "mlp" else "12"
        words = ("train", "--quiet", "--steps", steps, "--model", name, "--out", str(folder / name))
        assert main([*words, "--sizes", sizes, *(text if name == "gpt" else ())]) == 0
    return folder


def trained(runs: Path, name: str) -> tuple[Module, Any]:
    """Return the model of a run, made by hand, and its data."""
    options = {"context": 16} if name == "gpt" else {}
    data = models.MODELS[name].read(str(runs / "text.txt") if name == "gpt" else "digits", **options)
    model = models.build(name, data.train, **SIZES[name][1])
    model.load_state_dict(runs / name / "weights.safetensors")
    return model.eval(), data


def told(folder: Path, *words: str) -> tuple[dict[str, Any], Module]:
    """Run the command quietly; return what it wrote as JSON, and the model of its file."""
    out, figures = folder / "q.safetensors", folder / "q.json"
    assert main(["quantize", *words, "--quiet", "--out", str(out), "--json", str(figures)]) == 0
    found: dict[str, Any] = json.loads(figures.read_text())
    return found, saving.load(out)


def bits(model: Module) -> dict[str, bytes]:
    """Return the bytes of every leaf."""
    return {path: each.array.tobytes() for path, each in model.state_dict().items()}
