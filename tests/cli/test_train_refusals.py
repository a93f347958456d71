"""What `minimp train` refuses; oracles: exit code 2, one line that names what is wrong, no file touched."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import minimp as mp
from minimp.cli import main


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*arguments: str) -> int:
    """Run the command in this process; return its exit code."""
    return main(["train", "--quiet", *arguments])


def everything(folder: Path) -> dict[str, bytes | None]:
    """Return the content of all files below a folder, None for folders."""
    return {str(path): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def assert_refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], words: str) -> None:
    """Hold a refusal to its form: exit code 2, one clear line (and its help), and no file touched."""
    before = everything(Path())
    assert train(*arguments) == 2
    shown = capsys.readouterr()
    head, *rest = shown.err.splitlines()
    assert shown.out == ""
    assert head.startswith("minimp: error: ")
    assert words in head
    assert len(rest) <= 1
    assert all(line.startswith("  help: ") for line in rest)
    assert everything(Path()) == before


@pytest.fixture(scope="session")
def run_of_two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run."""
    folder = tmp_path_factory.mktemp("train") / "run"
    assert train("--steps", "2", "--out", str(folder)) == 0
    return folder


@pytest.fixture
def bad_input(run_of_two_steps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Make files that are wrong in one way each, in the current folder."""
    checkpoint = (run_of_two_steps / "checkpoint.safetensors").read_bytes()
    state = mp.load(run_of_two_steps / "checkpoint.safetensors")
    contents = {
        "done": checkpoint,
        "cut": checkpoint[:-100],
        "changed": checkpoint[:-100] + bytes(100),
        "weights": (run_of_two_steps / "weights.safetensors").read_bytes(),
    }
    for name, data in contents.items():
        Path(name).mkdir()
        Path(name, "checkpoint.safetensors").write_bytes(data)
    Path("empty").mkdir()
    Path("foreign").mkdir()
    mp.save("foreign/checkpoint.safetensors", {**state, "notes": {}})
    np.savez("whole.npz", x=np.zeros((20, 8, 8), np.uint8), y=np.arange(20) % 2)
    Path("truncated.npz").write_bytes(Path("whole.npz").read_bytes()[:300])
    Path("table.csv").write_text("a,b,label\n" + "".join(f"{i},{i * i},{i % 2}\n" for i in range(20)))
    Path("nan.csv").write_text("a,b,label\n1,2,0\nnan,3,1\n4,5,1\n")
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--recipe mixed-fp61", "did you mean 'mixed-fp16'?"),
        ("--model cmn", "did you mean 'cnn'?"),
        ("--optimizer adm", "did you mean 'adam'?"),
        ("--backend nunpy", "did you mean 'numpy'?"),
        ("--backend cupy", "backend 'cupy' cannot run here"),
        ("--recipy fp16", "did you mean '--recipe'?"),
        ("--steps 0", "--steps must be at least 1, got 0"),
        ("--steps many", "argument --steps: invalid int value: 'many'"),
        ("--batch 0", "--batch must be at least 1, got 0"),
        ("--batch 1401", "--batch 1401 is more than the 1400 rows of digits/train"),
        ("--checkpoint-every -1", "--checkpoint-every must be at least 0"),
        ("--seed -1", "seed must be an integer from 0"),
        ("--lr 0", "--lr must be a finite number greater than 0"),
        ("--lr nan", "--lr must be a finite number greater than 0"),
        ("--max-norm inf", "--max-norm must be a finite number greater than 0"),
        ("--weight-decay -1", "weight_decay"),
        ("--momentum 0.9", "--momentum cannot act on the optimizer 'adam'"),
        ("--optimizer sgd --momentum -1", "momentum"),
        ("--data nothing.npz", "there is no such file"),
        ("--data truncated.npz", "truncated.npz"),
        ("--data nan.csv", "nan.csv"),
        ("--data table.csv --label colour", "colour"),
        ("--data table.csv --model cnn", "needs images, and"),
        ("--label x", "label= cannot act on the built-in digits"),
        ("--out table.csv", "cannot make the folder table.csv"),
        ("--out table.csv/run", "cannot make the folder table.csv/run"),
        ("--out /dev/null/run", "cannot make the folder /dev/null/run"),
        ("--out done", "done already holds a run"),
        ("--json missing/x.json", "cannot write missing/x.json"),
        ("--json .", "cannot write ."),
        ("--resume", "there is no run in runs/ to resume"),
        ("--resume nowhere", "cannot read nowhere/checkpoint.safetensors"),
        ("--resume empty", "empty holds no run"),
        ("--resume done --out other", "--out cannot act beside --resume DIR"),
        ("--resume done --lr 0.5", "the run was saved with --lr 0.001, and is to be resumed with 0.5"),
        ("--resume done --recipe fp32", "saved with --recipe mixed-fp16, and is to be resumed with fp32"),
        ("--resume done --optimizer sgd", "saved with --optimizer adam"),
        ("--resume done --max-norm 1", "saved with --max-norm None"),
        ("--resume done --data table.csv", "table.csv does not hold the training data"),
        ("--resume done --steps 1", "the run has done 2 steps, more than --steps 1"),
        ("--resume cut", "cut/checkpoint.safetensors"),
        ("--resume changed", "changed/checkpoint.safetensors"),
        ("--resume weights", "does not hold the state of a run"),
        ("--resume foreign", "was not saved by `minimp train`"),
    ],
)
def test_bad_input_is_one_clear_line(
    options: str, words: str, bad_input: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: exit code 2, a line that names what is wrong, every file as it was."""
    assert_refused(capsys, shlex.split(options), words)
