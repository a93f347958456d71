"""`minimp export`; oracle: runs that were really trained, the files, and `evaluate` on the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import checkpoint, models
from minimp.cli import main
from minimp.data import digits, load_text
from minimp.evaluation import evaluate
from minimp.recipe import Recipe

CASES = {
    "mlp": ("--steps", "150"),
    "resnet": ("--steps", "12", "--recipe", "mixed-bf16"),
    "gpt": ("--steps", "20", "--sizes", "width=16,layers=1,heads=2", "--context", "16", "--sample", "0"),
}
TEXT = "the quick brown fox jumps over the lazy dog\n" * 200


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of each case."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT)
    for name, options in CASES.items():
        data = ("--data", str(folder / "text.txt")) if name == "gpt" else ()
        words = ("train", "--quiet", "--model", name, "--out", str(folder / name), *options, *data)
        assert main([*words]) == 0
    return folder


def told(path: Path, *words: str) -> dict[str, Any]:
    """Run the command and return what it wrote as JSON."""
    assert main(["export", *words, "--json", str(path)]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_trained_run_is_halved_and_judged(
    name: str, dtype: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the files' arrays rounded by ml_dtypes and NumPy, and `evaluate` in three ways."""
    out = tmp_path / "small.safetensors"
    found = told(tmp_path / "f.json", str(runs / name), "--dtype", dtype, "--out", str(out))
    before, after = mp.load(runs / name / "weights.safetensors"), mp.load(out)
    assert set(after) <= set(before)
    assert len(before) - len(after) == (1 if name == "gpt" else 0)  # the head is the table of tokens
    low = mp.formats.get(dtype)
    for key, array in after.items():
        kept = before[key] if before[key].dtype.kind in "iub" else before[key].astype(low.dtype)
        assert kept.dtype == array.dtype
        assert kept.tobytes() == array.tobytes()
    assert found["bytes_after"] == sum(array.nbytes for array in after.values())
    assert 0.5 <= found["bytes_after"] / found["bytes_before"] < 0.51
    assert found["file_bytes"] == out.stat().st_size

    test = load_text(runs / "text.txt", context=16).test if name == "gpt" else digits("test", shape="image")
    test = models.MODELS[name].prepare(test)
    sizes = {"width": 16, "layers": 1, "heads": 2} if name == "gpt" else {}
    model = models.build(name, test, **sizes)
    for weights, recipe, scores in zip(
        (runs / name / "weights.safetensors", out, out),
        ("fp32", "fp32", Recipe("low", low, low)),
        found["scores"].values(), strict=True,
    ):  # fmt: skip
        model.load_state_dict(weights)
        if isinstance(recipe, Recipe):
            model.to(low)
        assert scores == evaluate(model, test, recipe)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if not line.startswith("written")) <= 100
    assert f"{dtype} throughout" in printed


def test_a_file_of_weights_is_enough(runs: Path, tmp_path: Path) -> None:
    """Oracle: the export of the run's checkpoint: the same bytes of tensors, the same scores."""
    one = told(tmp_path / "1.json", str(runs / "mlp"), "--out", str(tmp_path / "1.safetensors"))
    weights = str(runs / "mlp" / "weights.safetensors")
    two = told(tmp_path / "2.json", weights, "--out", str(tmp_path / "2.safetensors"))
    assert one["scores"] == two["scores"]
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()
    text = ("--data", str(runs / "text.txt"))
    gpt = told(tmp_path / "3.json", str(runs / "gpt" / "weights.safetensors"), *text)
    assert Path(gpt["written"]) == runs / "gpt" / "weights-float16.safetensors"
    again = told(tmp_path / "4.json", gpt["written"], *text, "--dtype", "float32")
    assert again["bytes_after"] == 2 * gpt["bytes_after"]
    assert again["max_relative_error"] == 0.0


def test_the_size_alone(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: no scores; the file is there."""
    out = tmp_path / "small.safetensors"
    found = told(tmp_path / "f.json", str(runs / "mlp"), "--size-only", "--out", str(out))
    assert found["scores"] == {}
    assert out.exists()
    assert "test part" not in capsys.readouterr().out


def test_what_is_lost_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: numbers planted by hand: one too large, one too small, one subnormal."""
    model = models.build("mlp", ((64,), 10), hidden=(8,))
    planted = np.asarray(model.state_dict()["0.weight"]).copy()
    planted[0, :3] = 1e-9, 3e-6, 7e4
    model.load_state_dict({**model.state_dict(), "0.weight": planted})
    file, out = tmp_path / "w.safetensors", tmp_path / "o.safetensors"
    meta = {"model": "mlp", "input_shape": "(64,)", "num_classes": "10", "sizes": "hidden=8"}
    checkpoint.save(file, model.state_dict(), meta=meta)
    assert main(["export", str(file), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "0.weight (1 of 512)" in said
    assert "--allow-overflow" in said
    assert not out.exists()
    found = told(tmp_path / "f.json", str(file), "--out", str(out), "--allow-overflow")
    assert (found["overflowed"], found["flushed"]) == (1, 1)
    assert found["subnormal"] >= 1
    assert np.isinf(mp.load(out)["0.weight"][0, 2])
    assert found["scores"]["full precision"]["test_loss"] > 0
    assert "lose more, up to all of it" in capsys.readouterr().out


def test_what_cannot_be_is_one_clear_error(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the exit code, and the words of the error; nothing is written."""
    other = tmp_path / "other.txt"
    other.write_text("ABC" * 500)
    anonymous = tmp_path / "a.safetensors"
    checkpoint.save(anonymous, {"w": np.ones(3, np.float32)})
    mlp, gpt = str(runs / "mlp"), str(runs / "gpt")
    before = sorted(runs.rglob("*"))
    for words, said in (
        ((str(tmp_path),), "holds no run"),
        ((str(anonymous),), "does not say of which model"),
        ((str(other),), "no safetensors file"),
        ((mlp, "--dtype", "int8"), "expected one of float16"),
        ((mlp, "--out", mlp + "/checkpoint.safetensors"), "is the file that is exported"),
        ((mlp, "--size-only", "--data", "digits"), "--data cannot act beside --size-only"),
        ((mlp, "--data", "stdlib"), "is text"),
        ((gpt, "--data", str(other)), "does not hold the training data"),
        ((gpt + "/weights.safetensors", "--data", str(other)), "other characters than the model"),
    ):
        assert main(["export", *words]) == 2, words
        assert said in " ".join(capsys.readouterr().err.split())
    assert sorted(runs.rglob("*")) == before
