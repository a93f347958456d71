"""What a session saves runs by itself: scripts show the finding, tests fail until it is mended."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minimp import stepper
from minimp.cli import main
from minimp.errors import DataError, SettingError
from minimp.stepper import Prompt
from tests.cli.processes import environment

SCRIPT = """
import sys
import numpy as np
import minimp as mp

scale = {scale}
mp.manual_seed(3)
model = mp.nn.Sequential(mp.nn.Linear(12, 16), mp.nn.ReLU(), mp.nn.Linear(16, 4))
rng = np.random.default_rng(0)
inputs, targets = rng.standard_normal((8, 12)).astype(np.float32), rng.integers(0, 4, 8)
step = mp.TrainStep(model, mp.functional.cross_entropy, mp.optim.SGD(model.parameters(), lr=0.1),
                    "mixed-fp16", scaler=mp.GradScaler(init_scale=scale))
{rest}
"""
TRAINS = "for _ in range(3):\n    step(inputs, targets)\nsys.exit('never reached: the step is caught')"

OWN_SESSION = """
def session():
    from minimp.stepper import Session
    return Session(step, [(inputs, targets)] * 3)
"""
TRAINER = """
data = mp.data.ArrayDataset(inputs, targets)
mp.Trainer(step, mp.data.DataLoader(data, batch_size=4)).run(2)
"""


def pytest_on(path: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest on one file, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(path.parent),
               "-c", "/dev/null", str(path)]  # fmt: skip
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_a_saved_test_fails_until_the_fault_is_mended(tmp_path: Path) -> None:
    """Oracle: pytest itself, on the script with its fault and without."""
    script, saved, kept = (tmp_path / name for name in ("train.py", "test_finite.py", "test_as_it_is.py"))
    script.write_text(SCRIPT.format(scale="2.0**40", rest=TRAINS))
    with stepper.open_script(script) as session:
        prompt = Prompt(session)
        prompt.do("run nonfinite")
        prompt.do(f"save {saved}")
        prompt.do(f"save {kept} as-seen")
    broken = pytest_on(saved)
    assert broken.returncode == 1, broken.stdout
    assert "nonfinite: step 1, stage backward" in broken.stdout
    assert pytest_on(kept).returncode == 0
    script.write_text(SCRIPT.format(scale="2.0**10", rest=TRAINS))
    mended = pytest_on(saved)
    assert mended.returncode == 0, mended.stdout
    assert pytest_on(kept).returncode == 1


@pytest.mark.slow
def test_a_saved_what_if_and_a_saved_script_make_the_change_again(tmp_path: Path) -> None:
    """Oracle: what the session said, and pytest."""
    saved, script = tmp_path / "test_scale.py", tmp_path / "again.py"
    with stepper.digits(batch=8) as session:
        prompt = Prompt(session)
        prompt.do("step 2")
        prompt.do("set scale 2^24")
        prompt.do("run nonfinite")
        told = [prompt.do("where"), prompt.do("why")]
        prompt.do(f"save {saved}")
        prompt.do(f"save {script}")
    assert pytest_on(saved).returncode == 1
    done = subprocess.run([sys.executable, str(script)], env=environment(), capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert told[0] in done.stdout
    assert "at a loss scale of 1 it would be finite" in done.stdout
    assert "1 changed" in told[0]


SHAPES = {
    "loop": """
step = make(float(sys.argv[1]) if sys.argv[1:] else SCALE)
for _ in range(3):
    step(x, y)
""",
    "main": """
def main():
    step = make(SCALE)
    for i in range(3):
        print(step(x, y).loss)

if __name__ == "__main__":
    main()
""",
    "class": """
class Runner:
    def __init__(self):
        self.step = make(SCALE)

    def train(self):
        self.step(x, y)

Runner().train()
""",
    "parser": """
import argparse
p = argparse.ArgumentParser()
p.add_argument("--scale", type=float, required=True)
make(p.parse_args().scale)(x, y)
""",
}
BEGINNING = """
import sys
import numpy as np
import minimp as mp
from beside import SCALE

x, y = np.loadtxt("data.csv", delimiter=",").astype("float32"), np.arange(8) % 3

def make(scale):
    mp.manual_seed(1)
    model = mp.nn.Sequential(mp.nn.Linear(4, 6), mp.nn.ReLU(), mp.nn.Linear(6, 3))
    return mp.TrainStep(model, mp.functional.cross_entropy, mp.optim.AdamW(model.parameters(), lr=0.01),
                        "mixed-fp16", scaler=mp.GradScaler(init_scale=scale))

"""


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_saved_runs_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str
) -> None:
    """Oracle: pytest and Python, in another folder than the script's, whose data and neighbour it reads."""
    np.savetxt(tmp_path / "data.csv", np.random.default_rng(0).standard_normal((8, 4)), delimiter=",")
    (tmp_path / "beside.py").write_text("SCALE = 2.0**40\n")
    (tmp_path / "mine.py").write_text(BEGINNING + SHAPES[shape])
    (tmp_path / "saved").mkdir()
    monkeypatch.chdir(tmp_path)
    with stepper.open_script("mine.py", ["--scale", "1e12"] if shape == "parser" else []) as session:
        prompt = Prompt(session)
        for line in (
            "run nonfinite",
            "save saved/test_it.py",
            "save saved/test_kept.py as-seen",
            "save it.py",
        ):
            prompt.do(line)
        place = prompt.do("where")
    monkeypatch.chdir("/")
    assert "nonfinite: step 1, stage backward" in pytest_on(tmp_path / "saved" / "test_it.py").stdout
    assert pytest_on(tmp_path / "saved" / "test_kept.py").returncode == 0
    again = subprocess.run([sys.executable, str(tmp_path / "it.py")], env=environment(), capture_output=True,
                           text=True, timeout=60, check=False)  # fmt: skip
    assert (again.returncode, again.stderr) == (0, "")
    assert place in again.stdout
    assert str(tmp_path) not in (tmp_path / "saved" / "test_it.py").read_text()


def test_a_loop_of_ones_own_is_told_of_the_breakpoint(tmp_path: Path) -> None:
    """Oracle: the words; of a parser that ends the script, where its arguments go."""
    script = tmp_path / "mine.py"
    script.write_text("import minimp as mp\nmp.tensor([1.0]).sum()\n")
    with pytest.raises(SettingError, match="break_when"):
        stepper.open_script(script)
    script.write_text(f"{SHAPES['parser'].rpartition('make')[0]}p.parse_args()\n")
    with pytest.raises(SettingError, match="stand after --"):
        stepper.open_script(script)


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    """Oracle: the words, and that no file is there."""
    with stepper.digits(batch=8) as session:
        prompt = Prompt(session)
        with pytest.raises(SettingError, match="nothing to save"):
            prompt.do(f"save {tmp_path / 'x.py'}")
        prompt.do("step")
        for name, said in [
            ("x.txt", "ends in .py"),
            ("test_x.py", "found none"),
            ("x.py as-seen", "begin with"),
        ]:
            with pytest.raises(SettingError, match=said):
                prompt.do(f"save {tmp_path}/{name}")
        with pytest.raises(SettingError, match="'as-seen'"):
            prompt.do(f"save {tmp_path}/test_x.py as")
        assert not list(tmp_path.iterdir())
        prompt.do(f"save {tmp_path}/x.py")
        with pytest.raises(DataError, match="exists"):
            prompt.do(f"save {tmp_path}/x.py")


HOSTILE = ['a"""b', "a'b\"", "line\nbreak", "\\N{b", "back\\", "{x}", "²"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_are_no_words_of_python_stay_text(tmp_path: Path, name: str) -> None:
    """Oracle: Python's own parser on what was saved; and the path and the condition that it reads there."""
    script = tmp_path / f"{name}.py"
    script.write_text(SCRIPT.format(scale="2.0**40", rest=TRAINS))
    condition = 'op == relu or module == \'a"""b\''
    with stepper.open_script(script) as session:
        assert session.search(condition)
        for file, as_seen in (("out.py", False), (f"test_{name}.py", False), ("test_seen.py", True)):
            saved = stepper.save_finding(session, tmp_path / file, as_seen=as_seen)
            held = [node.value for node in ast.walk(ast.parse(saved.read_text()))
                    if isinstance(node, ast.Constant)]  # fmt: skip
            assert str(script) in held
            assert any(isinstance(text, str) and text.startswith(script.name) for text in held)
            assert file != f"test_{name}.py" or condition in held


def test_a_condition_that_is_a_function_is_not_saved_as_one(tmp_path: Path) -> None:
    """Oracle: the words, and that no file is there."""
    with stepper.digits(batch=8) as session:
        assert session.search(lambda event: event.op == "relu")
        with pytest.raises(SettingError, match="is a function"):
            stepper.save_finding(session, tmp_path / "test_x.py")
        assert not list(tmp_path.iterdir())


# ---- where sessions come from ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "batches"),
    [
        (TRAINS, 1),
        ("", 1),
        ("batches = [(inputs, targets), (inputs * 2, targets)]", 2),
        ("from itertools import repeat\nbatches = repeat((inputs, targets))", 1000),
        ("def session():\n    return step, inputs, targets", 1),
        (OWN_SESSION, 3),
        (TRAINER, 1),
    ],
)  # fmt: skip
def test_a_script_is_opened_by_what_it_runs_or_defines(tmp_path: Path, rest: str, batches: int) -> None:
    """Oracle: the scale that the script set, the number of batches, and a step that runs."""
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(scale="512.0", rest=rest))
    argv, path = list(sys.argv), list(sys.path)
    with stepper.open_script(script) as session:
        assert session.step.scaler.get_scale() == 512.0
        assert len(session.batches) == batches
        assert ("every step here has that batch again" in session.note) is (rest in (TRAINS, TRAINER))
        session.finish()
        assert session.check()
    assert (sys.argv, sys.path) == (argv, path)


def test_the_prompt_says_once_that_a_caught_script_does_not_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the words, before any answer; not of a script that gives its batches, nor of the digits."""
    script = tmp_path / "mine.py"
    for rest, said in ((TRAINS, 1), ("batches = [(inputs, targets)] * 2", 0)):
        script.write_text(SCRIPT.format(scale="512.0", rest=rest))
        assert main(["step", str(script), "--plain", "--do", "step; finish; step"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert printed.count("mine.py was left at its first training step: every step here has") == said
        assert printed.startswith("mine.py was left") is bool(said)
    assert main(["step", "--plain", "--do", "where"]) == 0
    assert "was left" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("del step", "no training step"),
        ("del inputs", "no training step"),
        ("def session():\n    return 3", r"session\(\) returned int"),
    ],
)
def test_a_script_without_a_step_says_what_is_missing(tmp_path: Path, rest: str, said: str) -> None:
    """Oracle: the words."""
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(scale="512.0", rest=rest))
    with pytest.raises(SettingError, match=said):
        stepper.open_script(script)


def test_arguments_reach_the_script(tmp_path: Path) -> None:
    """Oracle: the scale that was passed."""
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(scale="float(sys.argv[1])", rest=TRAINS))
    with stepper.open_script(script, ["64"]) as session:
        assert session.step.scaler.get_scale() == 64.0
        assert "['64']" in session.source


def test_a_session_function_is_part_of_the_script(tmp_path: Path) -> None:
    """Oracle: the arguments and the neighbour file that it reads; what it raises is an error of ours."""
    (tmp_path / "beside_the_script.py").write_text("SCALE = 2.0")
    script = tmp_path / "mine.py"
    reads = (
        "def session():\n    from beside_the_script import SCALE\n"
        "    step.scaler.load_state_dict({**step.scaler.state_dict(), 'scale': SCALE * float(sys.argv[1])})\n"
        "    return step, inputs, targets"
    )
    script.write_text(SCRIPT.format(scale="512.0", rest=reads))
    argv, path = list(sys.argv), list(sys.path)
    with stepper.open_script(script, ["64"]) as session:
        assert session.step.scaler.get_scale() == 128.0
    script.write_text("def session():\n    raise ValueError('no data')")
    with pytest.raises(DataError, match="raised ValueError: no data"):
        stepper.open_script(script)
    assert (sys.argv, sys.path) == (argv, path)
