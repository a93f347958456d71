"""`minimp compare`; oracles: bars for its defaults, the keys of its JSON, equal runs."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp.cli import main
from minimp.experiments import EXPERIMENTS
from tests.cli.processes import process

QUICK = ("--steps", "3", "--batch", "16", "--quiet")
FIGURES = {
    "final_loss", "losses", "loss_scales", "skipped_steps", "underflow_share", "swallowed_updates", "bytes",
    "seconds_per_step", "verdict",
}  # fmt: skip
CAUSES = {"weights", "master", "gradients", "optimizer", "activations"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compare(*arguments: str) -> dict[str, Any]:
    """Run the command in this process and return its JSON."""
    assert main(["compare", *arguments, "--json", "made.json"]) == 0
    return read("made.json")


def read(path: str) -> dict[str, Any]:
    """Return the content of a JSON file; NaN and Infinity, which JSON has not, fail."""
    return json.loads(Path(path).read_text("utf-8"), parse_constant=pytest.fail)


def figures(made: dict[str, Any]) -> Any:
    """Return (experiment, recipe) -> figures, without the times."""
    return {
        (name, recipe): {key: value for key, value in row.items() if key != "seconds_per_step"}
        for name, each in made["experiments"].items()
        for recipe, row in each["recipes"].items()
    }


# ---- the defaults ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_defaults_show_what_each_technique_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: as good as fp32 with masters and scaling, far from it without, and the cause is counted."""
    made = compare("--quiet")
    masters = made["experiments"]["master-weights"]["recipes"]
    assert list(masters) == list(EXPERIMENTS["master-weights"].recipes)
    best = masters["fp32"]["test_accuracy"]
    for name in ("mixed-fp16", "mixed-bf16"):
        assert abs(masters[name]["test_accuracy"] - best) <= 0.005
    for name in ("fp16-scaled", "bf16"):
        assert masters[name]["test_accuracy"] <= best - 0.15
        assert masters[name]["swallowed_updates"] > 0.5
    scaling = made["experiments"]["loss-scaling"]["recipes"]
    assert list(scaling) == list(EXPERIMENTS["loss-scaling"].recipes)
    least = scaling["fp32"]["test_loss"]
    for name in ("mixed-fp16", "mixed-bf16"):
        assert abs(scaling[name]["test_loss"] / least - 1) <= 0.05
    for name in ("fp16", "fp16-master"):
        assert scaling[name]["test_loss"] >= 1.5 * least
        assert scaling[name]["underflow_share"] > 0.5
    eight = made["experiments"]["fp8-scaling"]["recipes"]
    assert list(eight) == list(EXPERIMENTS["fp8-scaling"].recipes)
    best = eight["fp32"]["test_accuracy"]
    for name in ("mixed-bf16", "mixed-fp8", "mixed-fp8-current", "mixed-mxfp8"):
        assert abs(eight[name]["test_accuracy"] - best) <= 0.005
    assert eight["fp8-unscaled"]["test_accuracy"] <= best - 0.5
    assert eight["fp8-unscaled"]["fp8"]["grad"]["flushed_share"] > 0.5
    assert eight["mixed-fp8"]["fp8"]["grad"]["flushed_share"] < 0.01
    check_json(made, steps={"master-weights": 2000, "loss-scaling": 300, "fp8-scaling": 400})
    shown = capsys.readouterr()
    assert max(map(len, shown.out.splitlines())) <= 100
    assert shown.err == ""
    assert "one computed micro-batch stands for 4,096 equal ones" in " ".join(shown.out.split())


def check_json(made: dict[str, Any], steps: dict[str, int]) -> None:
    """Hold a file to its form: these keys and no others, shares as fractions of 1, a figure for each step."""
    assert set(made) == {"config", "experiments"}
    assert set(made["experiments"]) == set(steps)
    for name, each in made["experiments"].items():
        assert set(each) == {"metric", "recipes"}
        assert each["metric"] == EXPERIMENTS[name].metric
        for row in each["recipes"].values():
            eight_bits = {"fp8"} if row.get("fp8") else set()
            assert set(row) == FIGURES | {each["metric"]} | eight_bits
            for lost in row.get("fp8", {}).values():
                assert set(lost) == {"flushed_share", "saturated_share", "sqnr_db"}
                assert 0.0 <= lost["flushed_share"] <= 1.0
            assert set(row["bytes"]) == CAUSES
            assert all(type(count) is int and count >= 0 for count in row["bytes"].values())
            assert len(row["losses"]) == len(row["loss_scales"]) == steps[name]
            assert row["final_loss"] == row["losses"][-1]
            assert 0 <= row["skipped_steps"] <= steps[name]
            shares = [row["underflow_share"], row["swallowed_updates"]]
            shares += [row["test_accuracy"]] if each["metric"] == "test_accuracy" else []
            assert all(0.0 <= share <= 1.0 for share in shares)
            assert row["seconds_per_step"] > 0.0
            assert row["verdict"].endswith(".")


# ---- quick runs --------------------------------------------------------------------------------------------


def test_a_quick_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the form of the JSON, a row and a sentence for each recipe, stderr empty, 100 columns."""
    made = compare(*QUICK)
    check_json(made, steps={"master-weights": 3, "loss-scaling": 3, "fp8-scaling": 3})
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    for (name, recipe), row in figures(made).items():
        assert sum(line.startswith(f"{recipe} ") for line in lines) >= 2, (name, recipe)
        assert " ".join(row["verdict"].split()) in " ".join(shown.out.split())
    assert (max(map(len, lines)) <= 100, shown.err) == (True, "")
    assert list(Path().iterdir()) == [Path("made.json")]
    text = " ".join(shown.out.split()).split("fp8-scaling: what the scales of FP8 are worth")[0]
    masters, scaling = text.split("loss-scaling: what loss scaling is worth")
    assert "Accumulation" not in masters
    assert "Accumulation over 4,096 steps: one computed micro-batch stands for 4,096 equal ones." in scaling


def test_an_old_file_is_replaced_and_not_written_into() -> None:
    """Oracle: a second name of the old file, which still holds what it held."""
    Path("made.json").write_text("before")
    os.link("made.json", "kept.json")
    compare("--experiment", "loss-scaling", "--recipes", "fp32", *QUICK)
    assert Path("kept.json").read_text() == "before"


def test_one_seed_gives_one_file_and_another_seed_another() -> None:
    """Oracle: every figure but the times, bit for bit, in another process; another seed, other losses."""
    options = ("--experiment", "master-weights", "--recipes", "fp32,mixed-fp16,bf16-stochastic", *QUICK)
    first = compare(*options)
    assert process("compare", *options, "--json", "again.json").returncode == 0
    again = read("again.json")
    assert (figures(again), again["config"]) == (figures(first), first["config"])
    other = compare(*options, "--seed", "1")
    assert (first["config"]["seed"], other["config"]["seed"]) == (0, 1)
    for key, row in figures(other).items():
        assert row["losses"] != figures(first)[key]["losses"]


def test_a_recipe_does_not_feel_the_others() -> None:
    """Oracle: its figures alone, and among others in another order; the verdict knows its reference."""
    options = ("--experiment", "loss-scaling", *QUICK)
    together = figures(compare(*options, "--recipes", "mixed-bf16, fp16,fp32"))
    alone = figures(compare(*options, "--recipes", "fp16"))
    (mine,), key = alone.values(), ("loss-scaling", "fp16")
    assert {**together[key], "verdict": ""} == {**mine, "verdict": ""}
    assert mine["verdict"].startswith("The reference")
    assert together[key]["verdict"].startswith(("Worse than fp32", "As good as fp32", "No worse than fp32"))
    assert together["loss-scaling", "fp32"]["verdict"].startswith("The reference")


@pytest.mark.parametrize(
    ("option", "value", "key", "expected"),
    [
        ("--steps", "5", "steps", 5),
        ("--batch", "24", "batch", 24),
        ("--lr", "0.02", "lr", 0.02),
        ("--accumulate-steps", "512", "accumulate_steps", 512),
        ("--recipes", "mixed-bf16,fp32", "recipes", ["mixed-bf16", "fp32"]),
    ],
)
def test_every_option_acts(option: str, value: str, key: str, expected: Any) -> None:
    """Oracle: the setting in the JSON, and losses that are others than without it."""
    base = ["--experiment", "loss-scaling", "--recipes", "fp16-master", *QUICK]
    before, after = compare(*base), compare(*base, option, value)
    was, now = (made["config"]["experiments"]["loss-scaling"] for made in (before, after))
    assert now == {**was, key: expected}
    old, new = (next(iter(figures(made).values())) for made in (before, after))
    assert old["losses"] != new["losses"]


def test_the_model_and_the_experiment() -> None:
    """Oracle: a model without an experiment goes to the one with its metric; both together are obeyed."""
    made = compare("--model", "cnn", "--recipes", "fp32", *QUICK)
    assert {name: each["model"] for name, each in made["config"]["experiments"].items()} == {
        "master-weights": "cnn"
    }
    made = compare("--model", "autoencoder", "--recipes", "fp32", *QUICK)
    assert list(made["experiments"]) == ["loss-scaling"]
    made = compare("--model", "mlp", "--experiment", "loss-scaling", "--recipes", "fp32", *QUICK)
    assert made["experiments"]["loss-scaling"]["metric"] == "test_accuracy"
    assert made["config"]["experiments"]["loss-scaling"]["model"] == "mlp"


def test_the_data_and_the_backend(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: rows of the file, its name in the JSON and on the screen, brackets as they are."""
    rng = np.random.default_rng(0)
    folder = Path("odd[red]")
    folder.mkdir()
    path = str(folder / "set[bold].npz")
    np.savez(path, x=rng.random((50, 4)), y=np.arange(50) % 3)
    made = compare("--data", path, "--backend", "numpy", "--recipes", "fp32", *QUICK)
    config = made["config"]
    assert (config["data"], config["train_rows"], config["test_rows"]) == (path, 40, 10)
    assert (config["backend"], config["seed"]) == ("numpy", 0)
    assert "mlp on set[bold]/train (40 rows, 10 to test)" in capsys.readouterr().out


# ---- runs that diverge -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lr", ["1000", pytest.param("1e300", marks=pytest.mark.slow)])
def test_a_divergence_is_a_result(lr: str) -> None:
    """Oracle: exit code 0, a quiet stderr with warnings as errors, JSON without bare NaN."""
    made = process("compare", "--lr", lr, "--steps", "60", "--batch", "8", "--quiet", "--json", "made.json")
    assert (made.returncode, made.stderr) == (0, "")
    diverged = [row for row in figures(read("made.json")).values() if row["verdict"].startswith("Diverged")]
    assert diverged
    for row in diverged:
        values = [*row["losses"], *(row[key] for key in ("test_loss", "test_accuracy") if key in row)]
        assert {each for each in values if isinstance(each, str)} <= {"nan", "inf", "-inf"}
        assert isinstance(row["final_loss"], str) or isinstance(row.get("test_loss"), str)


def test_data_without_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: an auto-encoder of zeros has a loss of exactly 0; nothing is divided by it."""
    np.savez("zeros.npz", x=np.zeros((40, 5)), y=np.arange(40) % 2)
    made = compare("--data", "zeros.npz", "--model", "autoencoder", *QUICK)
    assert {row["test_loss"] for row in figures(made).values()} == {0.0}
    assert "As good as fp32 (test loss 0 beside 0)" in capsys.readouterr().out


# ---- it is stopped -----------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, sys
from minimp import experiments
from minimp.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it
real, calls = experiments.TrainStep.__call__, []
def step(*arguments):
    calls.append(1)
    if len(calls) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGINT)
    return real(*arguments)
experiments.TrainStep.__call__ = step
sys.exit(main(["compare", *sys.argv[2:]]))
"""


@pytest.mark.parametrize("at", ["2", "25"])
def test_ctrl_c_leaves_no_half_file(at: str) -> None:
    """Oracle: a real SIGINT in the first and in a later recipe: 130, one word, the old file as it was."""
    Path("made.json").write_text("before")
    options = ("--steps", "10", "--batch", "8", "--json", "made.json")
    made = process(at, *options, script=INTERRUPTED)
    assert (made.returncode, made.stderr) == (130, "minimp: interrupted\n")
    assert {path.name: path.read_text() for path in Path().iterdir()} == {"made.json": "before"}


# ---- models of text ----------------------------------------------------------------------------------------


def test_a_small_gpt_in_each_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the experiment of the model; bits a character; the text's own sizes on the screen."""
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 30)
    options = ("--data", "text.txt", "--context", "16", "--sizes", "width=16,heads=2", *QUICK)
    made = compare("--model", "gpt", *options)
    check_json(made, steps={"language-model": 3})
    config = made["config"]["experiments"]["language-model"]
    assert config["sizes"] == {"layers": 1, "width": 16, "heads": 2}
    assert (config["max_norm"], made["config"]["data"]) == (1.0, "text.txt")
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "gpt (layers 1, width 16, heads 2) on text/train (1,188 characters of text.txt, 132 to test)" in shown
    )
    assert "bits/char" in shown
    assert re.search(r"The reference: [\d.]+ bits a character;", shown)
    again = compare("--experiment", "language-model", *options)
    assert figures(again) == figures(made)


@pytest.mark.slow
def test_a_gpt_learns_as_well_in_every_recipe() -> None:
    """Oracle: the bar of the verdict, 0.05 bits; half the bytes of activations and of what products read."""
    rows = compare("--model", "gpt", "--quiet")["experiments"]["language-model"]["recipes"]
    best = rows["fp32"]["test_bits"]
    assert best < 2.7
    for name, row in rows.items():
        assert row["test_bits"] <= best + 0.05, name
        assert row["verdict"].startswith(("The reference", "As good as", "No worse"))
    assert rows["fp16"]["bytes"]["activations"] <= 0.55 * rows["fp32"]["bytes"]["activations"]
    assert rows["mixed-fp16"]["bytes"]["weights"] * 2 == rows["fp32"]["bytes"]["weights"]
