"""`.ci/gpu`, for a machine with a GPU; oracles: stand-ins that write down what they are called with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "gpu"
SMI = """#!/bin/sh
case "$*" in
*query-gpu*) echo "NVIDIA H100 80GB HBM3" ;;
*) echo "| NVIDIA-SMI 575.1   Driver Version: 575.1   CUDA Version: 12.9 |" ;;
esac
"""
PYTHON = """#!/bin/sh
echo "$PWD: $*" >>"{log}"
echo "a line of $*"
case "$*" in {fails}) exit 3 ;; esac
exit 0
"""


def run(
    folder: Path, *words: str, fails: str = "nothing", smi: bool = True
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run the script among stand-ins; return how it ended, and what Python was called with."""
    programs, log = folder / "programs", folder / "python.log"
    programs.mkdir()
    log.touch()
    made = {"python": PYTHON.format(log=log, fails=fails)} | ({"nvidia-smi": SMI} if smi else {})
    for name, text in made.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHON": str(programs / "python"),
        "HOME": str(folder),
    }
    command = ["bash", str(SCRIPT), *words]
    ended = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return ended, log.read_text().splitlines()


def test_everything_is_run_and_left_in_the_folder(tmp_path: Path) -> None:
    """Oracle: the calls of Python, from the repository, in order; the table, and a log of each step."""
    ended, calls = run(tmp_path, "out")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith(f"done: {tmp_path}/out\n")
    asked = [call.removeprefix(f"{SCRIPT.parents[1]}: ") for call in calls]
    asked = [call for call in asked if call.startswith("-m ") and "pip" not in call]
    recorded = f"--record {tmp_path}/out/recorded/nvidia-h100-80gb-hbm3 tests/gpu"
    assert asked[0] == "-m pytest -q -x -n auto tests/kernels tests/backends"
    assert asked[1] == f"-m pytest -q --backend cupy {recorded}"
    assert asked[2] == "-m pytest -q -n 4 --backend cupy --maxfail 500 --ignore tests/gpu tests"
    assert asked[-1] == f"-m minimp bench --backend cupy --quiet --json {tmp_path}/out/gpu.json"
    assert (tmp_path / "out/gpu.txt").read_text() == f"a line of {asked[-1]}\n"
    logs = {each.stem for each in (tmp_path / "out").glob("*.log")}
    assert logs == {"describe", "ladder", "suite", "engine", "bench"}


@pytest.mark.parametrize(("part", "steps"), [("check", {"ladder", "suite", "engine"}), ("bench", {"bench"})])
def test_a_part_alone(tmp_path: Path, part: str, steps: set[str]) -> None:
    """Oracle: the logs."""
    ended, _ = run(tmp_path, "out", part)
    assert ended.returncode == 0
    assert {each.stem for each in (tmp_path / "out").glob("*.log")} == {"describe", *steps}


def test_a_step_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """Oracle: the exit code, the step's name and the end of its log; the bench is run all the same."""
    ended, calls = run(tmp_path, "out", fails="*--record*")
    assert ended.returncode == 1
    assert ended.stderr == "FAILED: suite\n"
    assert "suite FAILED (exit 3), the end of" in ended.stdout
    assert "a line of -m pytest -q --backend cupy --record" in ended.stdout
    assert "minimp bench" in calls[-1]


@pytest.mark.parametrize(
    ("words", "said"), [((), "usage"), (("out", "al"), "usage"), (("a", "b", "c"), "usage")]
)
def test_wrong_words(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """Oracle: exit code 2, and nothing run."""
    ended, calls = run(tmp_path, *words)
    assert (ended.returncode, calls) == (2, [])
    assert said in ended.stderr


VENV = """#!/bin/sh
case "$1 $2" in
"-m venv")
    mkdir -p "$3/bin"
    echo '#!/bin/sh' >"$3/bin/python"
    echo 'test -e "$(dirname "$0")/pip" || {{ echo "No module named pip"; exit 1; }}' >>"$3/bin/python"
    chmod +x "$3/bin/python"
    test -e "{ensurepip}" || {{ echo "ensurepip is not available: apt install python3-venv"; exit 1; }}
    touch "$3/bin/pip" ;;
esac
"""


def test_an_environment_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    """Oracle: Debian's python3 without python3-venv, which leaves a Python without pip; and one with it."""
    programs, ensurepip = tmp_path / "programs", tmp_path / "ensurepip"
    programs.mkdir()
    for name, text in {"nvidia-smi": SMI, "python3": VENV.format(ensurepip=ensurepip)}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)}
    for there, code, said in ((False, 1, "apt install python3-venv"), (True, 0, "done: ")):
        if there:
            ensurepip.touch()
        ended = subprocess.run(
            ["bash", str(SCRIPT), "out", "bench"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (ended.returncode, said in ended.stdout) == (code, True), ended


def test_a_machine_without_a_gpu(tmp_path: Path) -> None:
    """Oracle: exit code 2, and one line that says what is missing."""
    ended, calls = run(tmp_path, "out", smi=False)
    assert (ended.returncode, calls) == (2, [])
    assert "there is no nvidia-smi" in ended.stderr
    assert os.access(SCRIPT, os.X_OK)
