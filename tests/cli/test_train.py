"""`minimp train`; oracles: a run without a break, bit for bit; the files on the disk; exit codes."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import models
from minimp.cli import main
from minimp.data import digits
from minimp.runlog import read_log
from tests.trainer.runs import bits, timeless

ENDLESS = "1000000"
COMMAND = (sys.executable, "-W", "error", "-c", "import sys; from minimp.cli import main; sys.exit(main())")
PATIENCE = 60.0  # seconds a process may take for what should take one


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*arguments: str) -> int:
    """Run the command in this process; return its exit code."""
    return main(["train", "--quiet", *arguments])


def state_of(folder: str) -> Any:
    """Return the state of a run as bits, without what two runs need not share."""
    state = mp.load(Path(folder) / "checkpoint.safetensors")
    return bits({name: part for name, part in state.items() if name != "notes"})


def assert_same_run(one: str, other: str) -> None:
    """Compare every bit of two runs: states, weights, logs but for the times."""
    assert state_of(one) == state_of(other)
    files = [Path(folder) / "weights.safetensors" for folder in (one, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    logs = [timeless(read_log(Path(folder) / "log.jsonl")) for folder in (one, other)]
    assert logs[0] == logs[1]


# ---- a run ----------------------------------------------------------------------------------------------


def test_a_run_leaves_log_checkpoint_weights_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the files; the weights, loaded as the summary says, score what the summary says."""
    assert train("--steps", "40", "--out", "mine", "--json", "figures.json", "--lr", "1e-3") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert max(map(len, shown.out.splitlines())) <= 100
    assert len(shown.out.splitlines()) <= 24
    assert {path.name for path in Path("mine").iterdir()} == {
        "log.jsonl", "checkpoint.safetensors", "weights.safetensors",
    }  # fmt: skip
    found = json.loads(Path("figures.json").read_text())
    assert found["config"]["recipe"] == "mixed-fp16"
    assert found["config"]["lr"] == 1e-3
    result = found["result"]
    assert len(result["losses"]) == len(result["loss_scales"]) == result["steps"] == 40
    assert set(result["bytes"]) == {"weights", "master", "gradients", "optimizer", "activations"}

    code = [line[16:] for line in shown.out.splitlines() if re.search("from minimp|^ +model", line)]
    scope: dict[str, Any] = {}
    exec("\n".join(code), scope)
    test = digits("test")
    scores = np.asarray(scope["model"](mp.tensor(test.inputs))).argmax(axis=1)
    assert abs(np.mean(scores == test.targets) - result["test_accuracy"]) <= 1 / len(test)  # FP32, not FP16
    assert f"{result['test_accuracy']:.1%}" in shown.out


@pytest.mark.parametrize(
    "option",
    [
        "--recipe mixed-bf16", "--optimizer adamw", "--lr 2e-3", "--weight-decay 0.1", "--max-norm 0.1",
        "--batch 32", "--seed 1", "--optimizer sgd", "--model autoencoder",
    ],
)  # fmt: skip
def test_every_setting_acts(option: str) -> None:
    """Oracle: the weights after 5 steps; a setting that is asked for gives other ones, and the same twice."""
    options = ("--steps", "5", "--checkpoint-every", "0", "--out")
    assert train(*options, "plain") == 0
    for folder in ("one", "two"):
        assert train(*options, folder, *option.split()) == 0
    plain, one, two = (bits(mp.load(f"{folder}/weights.safetensors")) for folder in ("plain", "one", "two"))
    assert plain != one == two


def test_the_seed_orders_the_batches_too() -> None:
    """Oracle: the loader's own seed, in the checkpoint."""
    assert train("--steps", "1", "--seed", "9", "--out", "run") == 0
    assert mp.load("run/checkpoint.safetensors")["loader"]["seed"] == 9


def test_momentum_acts() -> None:
    """Oracle: the weights; momentum belongs to sgd alone."""
    for folder, momentum in (("plain", "0"), ("heavy", "0.9")):
        assert train("--steps", "5", "--optimizer", "sgd", "--momentum", momentum, "--out", folder) == 0
    plain, heavy = (bits(mp.load(f"{folder}/weights.safetensors")) for folder in ("plain", "heavy"))
    assert plain != heavy


@pytest.mark.parametrize(("recipe", "told"), [("mixed-layerwise", True), ("mixed-fp16", False)])
def test_scales_of_layers_are_told(recipe: str, told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the checkpoint, which has what each layer's scaler has learnt."""
    assert train("--steps", "2", "--recipe", recipe, "--out", "run") == 0
    found = re.findall(r"^layer scales +1 to (\S+), (\d+) layers", capsys.readouterr().out, re.MULTILINE)
    assert bool(found) == told
    if told:
        layers = mp.load("run/checkpoint.safetensors")["scaler"]["layers"]
        assert found == [(f"{max(each['factor'] for each in layers.values()):g}", str(len(layers)))]


def test_figures_may_lie_in_the_new_folder() -> None:
    """Oracle: the file."""
    assert train("--steps", "1", "--out", "new", "--json", "new/figures.json") == 0
    assert json.loads(Path("new/figures.json").read_text())["result"]["steps"] == 1


def test_runs_get_folders_of_their_own() -> None:
    """Oracle: the names; nothing is overwritten, and the newest is resumed."""
    for _ in range(3):
        assert train("--steps", "2", "--recipe", "bf16") == 0
    assert {path.name for path in Path("runs").iterdir()} == {"mlp-bf16", "mlp-bf16-2", "mlp-bf16-3"}
    assert train("--resume", "--steps", "3") == 0
    assert [len(read_log(f"runs/mlp-bf16{end}/log.jsonl")) for end in ("", "-2", "-3")] == [2, 2, 3]


@pytest.mark.parametrize(
    "options",
    [
        ["--recipe", "fp32", "--optimizer", "sgd", "--momentum", "0.9", "--weight-decay", "1e-4"],
        ["--recipe", "bf16-kahan", "--optimizer", "rmsprop", "--momentum", "0.5"],
        ["--recipe", "mixed-bf16", "--optimizer", "lion", "--weight-decay", "0.1"],
        ["--recipe", "mixed-fp16", "--model", "cnn", "--batch", "32", "--max-norm", "1"],
        ["--recipe", "bf16-stochastic", "--model", "autoencoder", "--seed", "7", "--optimizer", "adamw"],
    ],
)
def test_more_steps_are_the_same_as_all_at_once(options: list[str]) -> None:
    """Oracle: one run of 40 steps; the other has 25 (in its second epoch), then 15 more."""
    assert train(*options, "--steps", "40", "--out", "whole") == 0
    assert train(*options, "--steps", "25", "--out", "parts", "--checkpoint-every", "10") == 0
    assert train("--resume", "parts", "--steps", "40") == 0
    assert_same_run("whole", "parts")


def test_a_finished_run_can_be_resumed_for_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the same bits and figures; as after a kill between the last checkpoint and the weights."""
    assert train("--steps", "5", "--out", "run", "--json", "a.json") == 0
    weights, before = Path("run/weights.safetensors"), state_of("run")
    data = weights.read_bytes()
    weights.unlink()
    assert train("--resume", "run", "--json", "b.json") == 0
    assert weights.read_bytes() == data
    assert state_of("run") == before
    a, b = (json.loads(Path(name).read_text()) for name in ("a.json", "b.json"))
    assert a == b


def test_a_divergence_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: exit code 0, the step in the summary and in JSON; no loss is finite from there on."""
    options = ("--recipe", "fp16", "--optimizer", "sgd", "--lr", "100", "--steps", "8")
    assert train(*options, "--json", "x.json") == 0
    result = json.loads(Path("x.json").read_text())["result"]
    step = result["diverged_at"]
    assert step is not None
    assert f"from step {step} on no loss is finite" in capsys.readouterr().out
    assert [isinstance(loss, float) for loss in result["losses"]].count(True) == step - 1
    assert train(*options, "--stop-on-divergence", "--out", "short") == 0
    assert len(read_log("short/log.jsonl")) == step


def test_progress_is_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the lines; none is longer than 100 columns, the last is the last step."""
    assert main(["train", "--steps", "30", "--out", "run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    last = read_log("run/log.jsonl")[-1]
    assert len(lines) == 10
    assert re.fullmatch(r"step 30/30  loss \S+  scale 65536  skipped \d+  [\d.,]+ steps/s", lines[-1])
    assert f"loss {last.loss:.4g}" in lines[-1]


def test_progress_is_a_bar_on_a_terminal() -> None:
    """Oracle: what a pseudo-terminal receives: figures, and the cursor moving back over them."""
    ours, theirs = pty.openpty()
    with start("--steps", "300", stderr=theirs) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            text += piece
        assert process.wait(PATIENCE) == 0
    os.close(ours)
    assert b"300/300" in text
    assert re.search(rb"loss [\d.]+ S 65536 skipped \d+ [\d,.]+ steps/s", text)
    assert b"\x1b[" in text


# ---- Ctrl-C, kill ---------------------------------------------------------------------------------------


@contextmanager
def start(*arguments: str, stderr: Any = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a process of its own, which does not outlive the block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}
    words = [*COMMAND, "train", *arguments]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # does nothing to one that has ended


def wait_for_steps(process: subprocess.Popen[str], log: Path, steps: int) -> None:
    """Wait until a run has logged some steps."""
    until = time.monotonic() + PATIENCE
    while not log.exists() or log.read_bytes().count(b"\n") < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "the run does not begin"
        time.sleep(0.003)


def stop(steps: int, by: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Start a run, send it a signal when it has logged some steps; return its exit code and what it said."""
    with start(*arguments) as process:
        wait_for_steps(process, Path("run/log.jsonl"), steps)
        process.send_signal(by)
        _, said = process.communicate(timeout=PATIENCE)
        return process.returncode, said


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM], ids=lambda by: by.name)
def test_ctrl_c_saves_and_says_how_to_resume(by: signal.Signals) -> None:
    """Oracle: exit code 130; the command it prints, run as it stands, ends as a run without a break does."""
    options = ("--recipe", "bf16-stochastic", "--steps", ENDLESS, "--out", "run", "--json", "my figures.json")
    code, said = stop(20, by, *options, "--quiet")
    assert code == 130
    done = len(read_log("run/log.jsonl"))
    assert f"stopped after step {done} of {ENDLESS}; saved run/checkpoint.safetensors" in said
    assert not Path("my figures.json").exists()
    command = shlex.split(said.split("resume: ")[1])
    assert command == ["minimp", "train", "--resume", "run", "--json", "my figures.json", "--quiet"]
    assert main([*command[1:], "--steps", str(done + 30)]) == 0
    assert len(json.loads(Path("my figures.json").read_text())["result"]["losses"]) == done + 30
    assert train("--recipe", "bf16-stochastic", "--steps", str(done + 30), "--out", "straight") == 0
    assert_same_run("run", "straight")


def test_a_second_ctrl_c_ends_at_once() -> None:
    """Oracle: exit code 130 in the middle of a step that takes seconds; the checkpoint before it stays."""
    slow = np.random.default_rng(0).random((80, 256, 256), np.float32)
    np.savez("large.npz", x=slow, y=np.arange(80) % 4)
    options = ("--data", "large.npz", "--model", "cnn", "--batch", "64", "--out", "run", "--quiet")
    with start(*options) as process:
        wait_for_steps(process, Path("run/log.jsonl"), 0)
        while not Path("run/checkpoint.safetensors").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted" in said
    assert mp.load("run/checkpoint.safetensors")["step"] == 0


def test_a_killed_run_goes_on_from_its_last_checkpoint() -> None:
    """Oracle: a run without a break; three kill -9, at moments that nothing was prepared for."""
    options = ("--recipe", "mixed-fp16", "--checkpoint-every", "3", "--steps", ENDLESS, "--quiet")
    for number, steps in enumerate((5, 40, 90)):
        way = ("--resume", "run") if number else ("--out", "run", *options)
        code, _ = stop(steps, signal.SIGKILL, *way)
        assert code == -signal.SIGKILL
    done = mp.load("run/checkpoint.safetensors")["step"]
    assert done >= 87
    assert train("--resume", "run", "--steps", str(done + 10)) == 0
    assert train("--recipe", "mixed-fp16", "--steps", str(done + 10), "--out", "straight") == 0
    assert_same_run("run", "straight")


def test_a_run_that_is_going_on_cannot_be_resumed_beside_itself() -> None:
    """Oracle: exit code 2 and one line; the first run is not disturbed."""
    with start("--steps", ENDLESS, "--out", "run", "--quiet") as process:
        wait_for_steps(process, Path("run/log.jsonl"), 3)
        with start("--resume", "run") as second:
            _, said = second.communicate(timeout=PATIENCE)
        assert second.returncode == 2
        assert "being written by another run" in said
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    steps = [each.step for each in read_log("run/log.jsonl")]
    assert steps == list(range(1, len(steps) + 1))


def test_data_may_move_and_still_be_the_same() -> None:
    """Oracle: the run with the file in its old place; what counts is what the file holds."""
    np.savez("a.npz", x=digits("train").inputs, y=digits("train").targets)
    assert train("--data", "a.npz", "--steps", "4", "--out", "one") == 0
    assert train("--data", "a.npz", "--steps", "2", "--out", "two") == 0
    Path("a.npz").rename("b.npz")
    assert train("--resume", "two", "--steps", "4") == 2
    assert train("--resume", "two/checkpoint.safetensors", "--steps", "4", "--data", "b.npz") == 0
    assert_same_run("one", "two")


def test_every_model_and_recipe_can_be_trained() -> None:
    """Oracle: finite losses, and a score."""
    for model, recipe in [
        ("cnn", "fp32"),
        ("autoencoder", "fp16"),
        ("mlp", "bf16-kahan"),
        ("cnn", "mixed-bf16"),
    ]:
        name = f"{model}-{recipe}.json"
        assert train("--model", model, "--recipe", recipe, "--steps", "3", "--json", name) == 0
        result = json.loads(Path(name).read_text())["result"]
        assert all(math.isfinite(loss) for loss in result["losses"])
        assert models.MODELS[model].metric in result


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the text, within 100 columns."""
    assert main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "minimp train --resume runs/mine --steps 600" in text
    assert max(map(len, text.splitlines())) <= 100
