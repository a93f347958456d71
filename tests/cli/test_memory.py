"""`minimp memory`; oracle: minimp.memory on the same model, a real step, and 100 columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from minimp import memory, models, optim
from minimp.cli import main
from minimp.cli.memory_view import bar

SHAPES = {"mlp": "1x8x8", "cnn": "12x12", "resnet": "3x16x16", "autoencoder": "64", "gpt": "16"}


def told(path: Path, *words: str) -> dict[str, Any]:
    """Run the command and return what it wrote as JSON."""
    assert main(["memory", *words, "--json", str(path)]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.parametrize("model", models.MODELS)
def test_every_model(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: `memory.forecast` for each recipe; no line is wider than the screen."""
    words = ("--model", model, "--input", SHAPES[model], "--batch", "8", "--recipes", "fp32,bf16-kahan")
    found = told(tmp_path / "m.json", *words)
    kind, text = models.MODELS[model], model == "gpt"
    shape = {"mlp": (64,), "cnn": (1, 12, 12), "resnet": (3, 16, 16), "autoencoder": (64,), "gpt": (16,)}[
        model
    ]
    classes = 96 if text else 10
    inputs = ((8, *shape), "int64") if text else (8, *shape)
    targets: Any = inputs if text else (8,)
    targets = ((8, 64), "float32") if model == "autoencoder" else targets
    for recipe in ("fp32", "bf16-kahan"):
        expected = memory.forecast(
            lambda: models.build(model, (shape, classes)), recipe, optim.Adam, inputs, targets, kind.loss_fn
        )
        assert found["forecast"][recipe] == json.loads(json.dumps(expected.details()))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 100
    assert "bf16-kahan beside fp32" in printed


def test_a_measured_step_beside_the_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the forecast, which the real step equals, and tracemalloc within 5 %."""
    found = told(tmp_path / "m.json", "--model", "mlp", "--batch", "200", "--recipes", "fp32,mixed-fp16",
                 "--measure", "--optimizer", "sgd", "--momentum", "0.9")  # fmt: skip
    for recipe, measured in found["measured"].items():
        forecast = found["forecast"][recipe]
        assert measured["logical"] == forecast["logical"]
        assert measured["moments"] == forecast["moments"]
        assert measured["logical"]["optimizer"] == 4 * forecast["parameters"]
        for moment, traced in measured["traced"].items():
            assert measured["moments"][moment]["total"] == pytest.approx(traced, rel=0.05)
            assert measured["traced_peak"] > 0.9 * traced
    assert "to the byte: fp32, mixed-fp16." in capsys.readouterr().out
    assert found["claims"][0]["name"] == "activations"


def test_inference_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: two bytes for four, of weights and of the largest op."""
    found = told(tmp_path / "m.json", "--model", "cnn", "--inference")["inference"]
    assert found["float16"]["weights"] * 2 == found["float32"]["weights"]
    assert found["float16"]["working"] * 2 == found["float32"]["working"]
    printed = capsys.readouterr().out
    assert "(0.50x)" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_a_model_that_would_never_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: parameters by hand: 3 x 65536^2 weights and what belongs to them."""
    words = ("--sizes", "hidden=65536x65536x65536", "--input", "65536", "--recipes", "mixed-fp16")
    assert main(["memory", *words]) == 0
    count = 3 * (65536**2 + 65536) + 65536 * 10 + 10
    assert f"{count:,} parameters" in capsys.readouterr().out


def test_a_bar_is_as_long_as_its_bytes() -> None:
    """Oracle: letters counted by hand; rounding never adds up to more than the whole."""
    assert bar({"masters": 2, "low_copies": 1, "gradients": 1}, 8, 16) == "mmmmllgg"
    assert bar(dict.fromkeys(memory.CAUSES, 1), 7, 10) == "pmmlggoaaw"
    assert bar({"masters": 0}, 8, 16) == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model cnn --input 784", "does not fit the model 'cnn', which wants CxHxW"),
        ("--model cnn --input 1x2x2", "at least 4 x 4"),
        ("--model gpt --input 4x4", "which wants one length"),
        ("--model gpt --data digits", "text is wanted"),
        ("--input axb", "whole numbers like 3x32x32"),
        ("--recipes fp32,fp33", "did you mean 'fp32'"),
        ("--recipes fp32,fp32", "up to 4 different recipes"),
        ("--optimizer admm", "did you mean 'adam'"),
        ("--momentum 0.9", "--momentum cannot act on the optimizer 'adam'"),
        ("--classes 5", "--classes cannot act without --input"),
        ("--batch 0", "--batch must be at least 1"),
        ("--batch 100000", "give the shape alone: --input"),
        ("--input 8 --data digits", "--data cannot act beside --input"),
        ("--input 8 --context 4", "--context cannot act beside --input"),
        ("--measure --inference", "--measure cannot act beside --inference"),
        ("--backend cupy --inference", "--backend cannot act beside --inference"),
        ("--backend cuda", "unknown backend to forecast 'cuda'; did you mean"),
        ("--model mpl", "did you mean 'mlp'"),
    ],
)
def test_what_cannot_be_is_one_clear_error(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the exit code, and the words of the error."""
    assert main(["memory", *words.split()]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["train", "compare", "bench"])
def test_shapes_train_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: an error that names this command, before anything is written."""
    monkeypatch.chdir(tmp_path)
    assert main([command, "--backend", "shapes"]) == 2
    assert "minimp memory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
