"""`minimp train` on text and on pictures; oracles: a run without a break, the files, the sampler itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp import models
from minimp.checkpoint.saving import read_meta
from minimp.cli import main
from minimp.data import Vocabulary, read_text
from minimp.models.sampling import Drawing, sample
from minimp.runlog import read_log
from tests.cli.processes import on_a_terminal
from tests.cli.test_train import assert_same_run, stop, train

TEXT = "".join(f"{n}: {'ab' * (n % 5)}\n" for n in range(200))
SMALL = ("--model", "gpt", "--data", "text.txt", "--context", "12", "--sizes", "width=16,layers=1,heads=2")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)


def gpt(*arguments: str) -> int:
    """Train a small GPT on the text."""
    return train(*SMALL, "--batch", "8", *arguments)


def figures(path: str) -> dict[str, Any]:
    """Return the figures of a run."""
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


# ---- text -----------------------------------------------------------------------------------------------


def test_a_text_is_learnt_and_gone_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the sampler on the weights, loaded as the summary says; the vocabulary in their file."""
    options = ("--sample", "60", "--prompt", "1: a", "--temperature", "0.5", "--top-k", "3", "--seed", "4")
    assert gpt("--steps", "60", "--recipe", "fp32", "--out", "run", "--json", "x.json", *options) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    result = figures("x.json")["result"]
    assert re.search(r"nats a character = [\d.]+ bits; perplexity [\d.]+", shown)
    assert result["test_bits"] < 3.0
    code = [line[16:] for line in shown.splitlines() if re.search("from minimp|^ +model", line)]
    scope: dict[str, Any] = {}
    exec("\n".join(code), scope)
    vocabulary = Vocabulary(read_meta("run/weights.safetensors")["vocabulary"])
    assert vocabulary == read_text("text.txt", context=12).train.vocabulary
    drawing = Drawing(temperature=0.5, top_k=3, seed=4)
    wanted = sample(scope["model"], vocabulary, "fp32", length=60, context=12, prompt="1: a", drawing=drawing)
    assert result["sample"] == {
        "prompt": "1: a", "length": 60, "temperature": 0.5, "top_k": 3, "seed": 4, "text": wanted,
    }  # fmt: skip
    assert f"\n1: a{wanted}" in shown
    assert "60 characters, temperature 0.5, top-k 3, seed 4" in shown


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16", "bf16-stochastic"])
def test_more_steps_are_the_same_as_all_at_once(recipe: str) -> None:
    """Oracle: one run of 24 steps, to the bit; the other has 15, then 9 more; dropout and all."""
    options = ("--recipe", recipe, "--sample", "5")
    sizes = ("--sizes", "width=16,layers=1,heads=2,dropout=0.1")
    assert gpt(*options, *sizes, "--steps", "24", "--out", "whole", "--json", "a.json") == 0
    assert gpt(*options, *sizes, "--steps", "15", "--out", "parts", "--checkpoint-every", "6") == 0
    assert train("--resume", "parts", "--steps", "24", "--sample", "5", "--json", "b.json") == 0
    assert_same_run("whole", "parts")
    assert figures("a.json")["result"]["sample"] == figures("b.json")["result"]["sample"]


def test_the_settings_that_suit_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the model's own defaults; an optimizer of one's choice has its own learning rate."""
    assert train("--model", "gpt", "--steps", "1", "--sample", "0", "--out", "run", "--json", "x.json") == 0
    config = figures("x.json")["config"]
    assert {name: config[name] for name in models.MODELS["gpt"].defaults if name != "steps"} == {
        name: value for name, value in models.MODELS["gpt"].defaults.items() if name != "steps"
    }
    assert config["data"] == "stdlib"
    shown = capsys.readouterr().out
    assert "modules of the standard library of Python" in shown
    assert "what it writes" not in shown
    assert gpt("--optimizer", "sgd", "--steps", "1", "--json", "y.json") == 0
    assert figures("y.json")["config"]["lr"] == 0.1


def test_a_model_that_diverged_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: exit code 0, and one line that says why; the text in JSON is null."""
    options = ("--recipe", "fp32", "--optimizer", "sgd", "--lr", "1e30", "--steps", "4")
    assert gpt(*options, "--json", "x.json") == 0
    assert "what it writes: nothing. sample: the model's scores are no numbers" in capsys.readouterr().out
    assert figures("x.json")["result"]["sample"]["text"] is None


def test_the_text_does_not_reach_the_terminal_as_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: no escape, bell or bracket of the model's own acts; wide lines are cut at 98 columns."""
    Path("text.txt").write_text("\x1b[31m[bold]\x07é" * 60)
    assert (
        gpt("--steps", "30", "--recipe", "fp32", "--sample", "300", "--prompt", "[", "--json", "x.json") == 0
    )
    shown = capsys.readouterr().out
    assert not set("\x1b\x07") & set(shown)
    assert max(map(len, shown.splitlines())) <= 100
    assert "\x1b" in figures("x.json")["result"]["sample"]["text"]


def test_the_prompt_is_bold_on_a_terminal_and_plain_without_colour() -> None:
    """Oracle: the escape codes of bold around the prompt, and none on a dumb terminal."""
    words = (
        "train",
        "--quiet",
        *SMALL,
        "--batch",
        "8",
        "--steps",
        "2",
        "--sample",
        "20",
        "--prompt",
        "1: ab",
    )
    code, colourful = on_a_terminal(*words, TERM="xterm-256color", COLUMNS="100")
    assert code == 0
    assert "\x1b[1m1: ab\x1b[0m" in colourful
    code, plain = on_a_terminal(*words, TERM="dumb", COLUMNS="100")
    assert code == 0
    assert "\x1b" not in plain
    assert "\n1: ab" in plain


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--model gpt --data digits", "digits is the built-in digits, and text is wanted"),
        ("--model gpt --data rows.npz", "rows.npz is a zip archive (.npz), and text is wanted"),
        ("--model gpt --data .", " is a folder, and text is wanted"),
        ("--model gpt --data text.txt --context 2000", "too short for a context of 2,000"),
        ("--model gpt --data text.txt --context 0", "context must be a whole number of at least 1"),
        ("--model gpt --data latin.txt", "is not UTF-8 text: byte 0xe9 at offset 1, line 1"),
        ("--model gpt --data empty.txt", "is empty"),
        ("--model gpt --label x", "label= cannot act on text"),
        ("--model gpt --image-size 8", "image_size= cannot act on text"),
        ("--model gpt --prompt ''", "--prompt is empty"),
        ("--model gpt --prompt ä", "'ä' at position 0 is not among the 96 of the vocabulary"),
        ("--model gpt --sample -1", "--sample must be 0 or more"),
        ("--model gpt --temperature -1", "temperature must be a number of 0 or more"),
        ("--model gpt --top-k 0", "top_k must be a whole number of at least 1"),
        ("--model gpt --sizes heads=3", "heads must divide width"),
        ("--model gpt --sizes hedas=3", "did you mean 'heads'"),
        ("--model cnn --data stdlib", "'stdlib' is text, and inputs with labels are wanted"),
        ("--model cnn --data text.txt", "text.txt: line 1 has one column"),
        ("--model cnn --prompt x", "--prompt cannot act on 'cnn', which writes no text"),
        ("--model cnn --context 8", "context= cannot act on model 'cnn'"),
        ("--sizes hidden=0", "at least 1"),
        ("--image-size 8", "image_size= cannot act on the built-in digits"),
        ("--data pictures", "pictures differ in size"),
        ("--data pictures --image-size 0", "image_size must be a whole number of at least 1"),
        ("--data pictures --image-size 8 --colour blue", "unknown colour 'blue'"),
        ("--data broken", "cannot read the picture"),
    ],
)
def test_bad_input_is_one_clear_line(options: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: exit code 2, a line that names what is wrong and its help, no folder made."""
    image = pytest.importorskip("PIL.Image", reason="folders of pictures need Pillow")
    np.savez("rows.npz", x=np.zeros((9, 3)), y=np.arange(9) % 2)
    Path("latin.txt").write_bytes(b"h\xe9" * 300)
    Path("empty.txt").write_bytes(b"")
    for folder in ("pictures", "broken"):
        for name, size in (("a", 4), ("b", 5)):
            Path(folder, name).mkdir(parents=True)
            image.new("L", (size, size)).save(Path(folder, name, "1.png"))
    Path("broken", "b", "1.png").write_bytes(b"no picture")
    before = sorted(map(str, Path().rglob("*")))
    assert train(*shlex.split(options)) == 2
    head, *rest = capsys.readouterr().err.splitlines()
    assert head.startswith("minimp: error: ")
    assert words in head
    assert len(rest) == 1 or "--prompt ä" not in options
    assert all(line.startswith("  help: ") for line in rest)
    assert sorted(map(str, Path().rglob("*"))) == before


def test_ctrl_c_keeps_the_options_of_the_text_at_the_end() -> None:
    """Oracle: the command that it prints."""
    options = ("--sample", "7", "--prompt", "1: a", "--top-k", "2", "--batch", "8", "--quiet")
    code, said = stop(3, signal.SIGINT, *SMALL, *options, "--steps", "100000", "--out", "run")
    assert code == 130
    command = shlex.split(said.split("resume: ")[1])
    assert command == [
        "minimp", "train", "--resume", "run", "--sample", "7", "--prompt", "1: a", "--top-k", "2", "--quiet",
    ]  # fmt: skip
    done = len(read_log("run/log.jsonl"))
    assert main([*command[1:], "--steps", str(done + 3), "--json", "x.json"]) == 0
    assert len(figures("x.json")["result"]["sample"]["text"]) == 7


def test_a_run_keeps_its_text_and_its_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: exit code 2 where another context, other sizes or a changed text are asked for."""
    assert gpt("--steps", "2", "--out", "run", "--sample", "0") == 0
    for options, words in (
        (("--context", "13"), "saved with --context 12, and is to be resumed with 13"),
        (("--sizes", "width=8"), "saved with --sizes width=16,layers=1,heads=2"),
    ):
        assert train("--resume", "run", *options) == 2
        assert words in capsys.readouterr().err
    Path("text.txt").write_text(TEXT.replace("7", "8", 1))
    assert train("--resume", "run") == 2
    assert "does not hold the training data" in capsys.readouterr().err


# ---- pictures -------------------------------------------------------------------------------------------


def test_pictures_are_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: dark and light pictures are told apart; a resumed run reads them again, at the same size."""
    image = pytest.importorskip("PIL.Image", reason="folders of pictures need Pillow")
    for name, shade in (("dark", 10), ("light", 200)):
        Path("set", name).mkdir(parents=True)
        for number in range(20):
            image.new("RGB", (8 + number, 9), (shade, shade, number)).save(Path("set", name, f"{number}.png"))
    options = (
        "--data",
        "set",
        "--image-size",
        "8",
        "--colour",
        "gray",
        "--model",
        "cnn",
        "--lr",
        "0.01",
        "--batch",
        "8",
    )
    assert train(*options, "--steps", "40", "--out", "run", "--json", "x.json") == 0
    assert figures("x.json")["result"]["test_accuracy"] == 1.0
    assert "cnn on set/train (32 rows, 8 to test)" in capsys.readouterr().out
    assert train("--resume", "run", "--steps", "44") == 0
    assert train(*options, "--steps", "44", "--out", "whole") == 0
    assert_same_run("run", "whole")
    os.rename("set", "moved")
    assert train("--resume", "run", "--steps", "45", "--data", "moved") == 0


def test_help_names_the_models_and_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the table of models; 100 columns."""
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    joined = " ".join(text.split())
    for name, kind in models.MODELS.items():
        assert f"{name}: {' '.join(kind.note.split())}" in joined
    assert "--lr 0.003" in joined
    assert max(map(len, text.splitlines())) <= 100
