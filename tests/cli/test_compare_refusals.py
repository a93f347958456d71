"""What `minimp compare` refuses; oracles: exit code 2, one line that names what is wrong, no file touched."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from minimp.cli import main
from tests.cli.processes import process

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files that are wrong in one way each, in a folder of their own, and go there."""
    monkeypatch.chdir(tmp_path)
    rows, labels = np.random.default_rng(0).random((40, 6)), np.arange(40) % 3
    sets = {
        "whole": (rows, labels),
        "negative": (rows, labels - 1),
        "fractions": (rows, labels + 0.5),
        "shorter": (rows[:39], labels),
        "nan": (np.where(rows < 0.01, np.nan, rows), labels),
        "empty": (rows[:0], labels[:0]),
        "words": (np.full((40, 6), "x"), labels),
        "one": (rows[:1], labels[:1]),
        "tiny": (rows[:, :4].reshape(40, 2, 2), labels),
        "huge": (rows, labels * 10**8),
    }
    for name, (x, y) in sets.items():
        np.savez(f"{name}.npz", x=x, y=y)
    np.savez("misfit.npz", x_train=rows, y_train=labels, x_test=rows[:, :5], y_test=labels)
    Path("truncated.npz").write_bytes(Path("whole.npz").read_bytes()[:300])
    Path("ragged.csv").write_text("a,b,label\n1,2,0\n1,1\n")
    Path("headless.csv").write_text("")
    Path("folder").mkdir()
    Path("old.json").write_text("before")


def everything() -> dict[str, bytes | None]:
    """Return the content of all files below this folder, None for folders."""
    return {str(path): None if path.is_dir() else path.read_bytes() for path in Path().rglob("*")}


def check(out: str, err: str, words: str) -> None:
    """Hold a refusal to its form: nothing on stdout, one clear line, and its help."""
    head, *rest = err.splitlines()
    assert out == ""
    assert head.startswith("minimp: error: ")
    assert words in head
    assert len(rest) <= 1
    assert all(line.startswith("  help: ") for line in rest)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--experiment master-weight", "unknown experiment 'master-weight'; did you mean 'master-weights'?"),
        ("--model cmn", "unknown model 'cmn'; did you mean 'cnn'?"),
        ("--recipes fp32,mixed-fp61", "unknown recipe 'mixed-fp61'; did you mean 'mixed-fp16'?"),
        ("--recipes fp32,", "unknown recipe ''"),
        ("--recipes fp32,bf16,fp32", "a recipe is named twice in fp32, bf16, fp32"),
        ("--backend nunpy", "unknown backend 'nunpy'; did you mean 'numpy'?"),
        ("--backend cupy", "backend 'cupy' cannot run here"),
        ("--recipe fp16", "unknown option '--recipe'; did you mean '--recipes'?"),
        ("digits", "one argument too many: 'digits'"),
        ("--steps 0", "steps must be a whole number from 1 to 1,000,000,000, got 0"),
        ("--steps many", "argument --steps: invalid int value: 'many'"),
        ("--steps 2.5", "argument --steps: invalid int value: '2.5'"),
        ("--batch -4", "batch must be a whole number from 1"),
        ("--batch 1401", "--batch 1401 is more than the 1400 rows of digits/train"),
        ("--accumulate-steps 0", "accumulate_steps must be a whole number from 1"),
        (f"--accumulate-steps 1{'0' * 400}", "accumulate_steps must be a whole number from 1"),
        ("--lr 0", "lr must be a number greater than 0, got 0.0"),
        ("--lr -0.1", "lr must be a number greater than 0, got -0.1"),
        ("--lr nan", "lr must be a number greater than 0, got nan"),
        ("--lr inf", "lr must be a number greater than 0, got inf"),
        ("--lr slow", "argument --lr: invalid float value: 'slow'"),
        ("--seed -1", "a seed that is a non-negative integer, got -1"),
        (f"--seed {2**64}", "seed must be an integer from 0 to 2^64 - 1"),
        ("--data nothing.npz", "nothing.npz: there is no such file"),
        ("--data digitz", "digitz"),
        ("--data folder", "folder holds no data that can be read"),
        ("--data truncated.npz", "truncated.npz"),
        ("--data ragged.csv", "ragged.csv"),
        ("--data headless.csv", "headless.csv"),
        ("--data old.json", "old.json"),
        ("--data negative.npz", "labels"),
        ("--data fractions.npz", "labels must be whole numbers"),
        ("--data shorter.npz", "39 inputs and 40 targets"),
        ("--data misfit.npz", "training and test inputs differ in shape: (6,) and (5,)"),
        ("--data nan.npz", "nan"),
        ("--data empty.npz", "empty"),
        ("--data words.npz", "inputs must hold real numbers, got text"),
        ("--data one.npz", "one row cannot be split"),
        ("--data huge.npz", "would make 100000001 classes"),
        ("--data whole.npz --model cnn", "needs images, and 'whole/train' has rows of 6 features"),
        ("--data tiny.npz --model cnn", "images must be at least 4 x 4"),
        ("--data whole.npz --batch 33", "--batch 33 is more than the 32 rows of whole/train"),
        ("--model gpt --data whole.npz", "whole.npz is a zip archive (.npz), and text is wanted"),
        ("--model gpt --data digits", "digits is the built-in digits, and text is wanted"),
        ("--data stdlib", "'stdlib' is text, and inputs with labels are wanted"),
        ("--experiment language-model --data whole.npz", "text is wanted"),
        ("--experiment language-model --model mlp --data stdlib", "'stdlib' is text"),
        ("--sizes hiden=3", "unknown size of model 'mlp', 'hiden'; did you mean 'hidden'"),
        ("--context 8", "context= cannot act on model 'mlp'"),
        ("--image-size 8", "image_size= cannot act on the built-in digits"),
        ("--json missing/made.json", "cannot write missing/made.json: its folder does not exist"),
        ("--json folder", "cannot write folder: it is a folder"),
        ("--json old.json/made.json", "cannot write old.json/made.json"),
        ("--json /dev/null", "cannot write /dev/null"),
    ],
)
def test_bad_input_is_one_clear_line(options: str, words: str, capsys: Capture) -> None:
    """Oracle: exit code 2, a line that names what is wrong, every file as it was, no new one."""
    arguments = shlex.split(options)
    if "--json" not in arguments:
        arguments += ["--json", "old.json"]
    before = everything()
    assert main(["compare", *arguments]) == 2
    check(*capsys.readouterr(), words)
    assert everything() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--model cmn", "did you mean 'cnn'?"),
        ("--data truncated.npz", "truncated.npz"),
        ("--backend cupy", "backend 'cupy' cannot run here"),
    ],
)
def test_so_it_is_in_a_process_of_its_own(options: str, words: str) -> None:
    """Oracle: the same, with warnings as errors."""
    before = everything()
    made = process("compare", *shlex.split(options), "--json", "old.json")
    assert made.returncode == 2
    check(made.stdout, made.stderr, words)
    assert everything() == before


@pytest.mark.parametrize("fault", [MemoryError("9 TB"), OSError(28, "No space left on device")])
def test_a_fault_half_way_leaves_the_old_file(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Oracle: the second recipe's third step fails: exit code 2, one line, the old file as it was."""
    calls = []
    real = sys.modules["minimp.step"].TrainStep.__call__

    def step(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 8:
            raise fault
        return real(*arguments)

    monkeypatch.setattr("minimp.step.TrainStep.__call__", step)
    before = everything()
    options = ["--experiment", "loss-scaling", "--steps", "5", "--batch", "8", "--json", "old.json"]
    assert main(["compare", *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert everything() == before
