"""`minimp bisect`; oracle: planted faults in scripts, the exit codes of minimp.cli, and 100 columns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import minimp as mp
from minimp.cli import main
from minimp.cli.entry import COMMANDS
from minimp.modes import MODES
from tests.cli.processes import on_a_terminal

SCRIPT = """
import sys
import minimp as mp

one = mp.tensor([[1.0]])
sizes = [float(each) for each in sys.argv[1:]] or [1.0, 12.0]
print("read as", __name__)

def run():
    print("running")
    return [(mp.tensor([[size]]) @ one).exp() for size in sizes]

def twice():
    return mp.tensor([[300.0]]) @ mp.tensor([[400.0]])

def needs(x):
    return x

number = 3
"""


ASKS = "import minimp as mp\nx = mp.tensor([[2.0]])\non = mp.is_autocast_enabled"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in a folder of its own, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "planted.py"
    path.write_text(SCRIPT)
    return path


def test_the_example_is_searched_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: what is planted in it: exp is not listed by torch-cpu, and the second layer's scores are 15."""
    assert main(["bisect"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert 'policy = mp.policies["torch-cpu"].with_(exp="fp32")' in printed.out
    assert "exp, call 2 of 2: module second, bisect_example.py:" in printed.out
    assert max(map(len, printed.out.splitlines())) <= 100


def test_the_example_s_rules_can_be_others(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: torch-cuda lists exp for FP32; bfloat16 has the range of FP32."""
    assert main(["bisect", "--policy", "torch-cuda"]) == 0
    assert "They agree" in capsys.readouterr().out
    assert main(["bisect", "--dtype", "bfloat16", "--finite"]) == 0
    assert "They agree" in capsys.readouterr().out


def test_the_example_s_source_is_a_script_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the same answer from the file as from the example."""
    assert main(["bisect", "--example"]) == 0
    mine = tmp_path / "mine.py"
    mine.write_text(capsys.readouterr().out)
    assert main(["bisect", str(mine), "--policy", "torch-cpu", "--dtype", "float16"]) == 0
    printed = capsys.readouterr().out
    assert "exp, call 2 of 2: module second, " in printed
    assert "mine.py:" in printed


def test_a_script_is_read_once_with_its_arguments_and_left_as_it_was(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: what the script prints; sys.argv, sys.path, the modes and the random state from before."""
    lower = ["--policy", "torch-cpu"]
    before = (sys.argv, [*sys.path], MODES.get(), mp.get_rng_state(), sys.modules.get("__bisect__"))
    assert main(["bisect", "planted.py", *lower, "--dtype", "fp16", "--", "1", "2", "13", "-1"]) == 0
    printed = capsys.readouterr()
    assert "exp, call 3 of 4: planted.py:11" in printed.out
    assert printed.err == "read as __bisect__\nrunning\n"
    now = (sys.argv, [*sys.path], MODES.get(), mp.get_rng_state(), sys.modules.get("__bisect__"))
    assert now == before


@pytest.mark.parametrize(
    ("named", "found"),
    [("planted.py:twice", "matmul"), ("planted:twice", "matmul"), ("{path}:twice", "matmul")],
)
def test_a_function_is_named_by_file_or_module(
    script: Path, named: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the op in which 300 x 400 overflows."""
    try:
        assert main(["bisect", named.format(path=script)]) == 0
    finally:
        sys.modules.pop("planted", None)
    assert f'policies["torch-cuda"].with_({found}="fp32")' in capsys.readouterr().out


def test_every_figure_is_written(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the planted call; only-classes leaves calls out."""
    rules = ["--policy", "torch-cpu", "--dtype", "float16"]
    assert main(["bisect", "planted.py", *rules, "--json", "out.json"]) == 0
    made = json.loads(Path("out.json").read_text())
    assert made["script"] == "planted.py"
    assert made["ops"] == ["exp"]
    assert [(each["call"], each["source"]) for each in made["instances"]] == [(2, "planted.py:11")]
    assert made["before"]["error"] == "inf"
    assert main(["bisect", "planted.py", *rules, "--json", "out.json", "--only-classes"]) == 0
    made = json.loads(Path("out.json").read_text())
    assert (made["ops"], made["instances"]) == (["exp"], [])


def test_a_search_that_the_budget_ends_says_so(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the exit code 1; the answer so far is printed."""
    rules = ["--policy", "torch-cpu", "--dtype", "float16", "--budget", "5"]
    assert main(["bisect", "planted.py", *rules, "--", "12", "13", "1", "14"]) == 1
    printed = capsys.readouterr().out
    assert "The budget ended before the search did" in printed
    assert 'with_(exp="fp32")' in printed


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def run(:\n", "bad.py, line 1: "),
        ("x = 1\n1 / 0\n", "bad.py, line 2, raises before it can be run: ZeroDivisionError"),
        ("x = 1\n", "bad.py defines no function run()"),
        ("run = 3\n", "bad.py defines no function run()"),
        ("def run(x): return x\n", "run() of bad.py cannot be called without arguments"),
        ("import sys\nsys.exit(3)\n", "bad.py leaves the interpreter"),
        ("import sys\ndef run(): sys.exit(3)\n", "bad.py leaves the interpreter"),
        ("def run(): pass\n", "expected numbers from run(), got nothing"),
        ("def run(): return 'loss'\n", "expected numbers from run(), got str"),
        ("def run(): raise KeyError('k')\n", "run() raises without autocast: KeyError"),
        ("from itertools import count\nn = count()\ndef run(): return next(n)\n",
         "two runs in FP32 do not agree"),
        (f"{ASKS}\ndef run(): return 1.0 + on()\n", "no op computed in 16 bits"),
        (f"{ASKS}\ndef run(): return (x @ x) * (1.0 + on())\n", "disagree with all of 2 ops in FP32"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--no'])\n", "leaves the interpreter"),
        ("import nothing_of_this_name\n", "raises before it can be run: ModuleNotFoundError"),
        (b"\xff\xfe", "no text in UTF-8"),
    ],
)  # fmt: skip
def test_each_bad_script_is_one_clear_error(
    script: Path, source: str | bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the exit code 2, and the words, without a traceback."""
    bad = script.with_name("bad.py")
    bad.write_bytes(source if isinstance(source, bytes) else source.encode())
    assert main(["bisect", "bad.py"]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch.py"], "nosuch.py"),
        (["nosuch"], "no file nosuch"),
        (["nosuch:run"], "no module 'nosuch'"),
        (["planted.py:nosuch"], "defines no function nosuch()"),
        (["planted.py:number"], "defines no function number()"),
        (["planted.py:needs"], "cannot be called without arguments"),
        (["--policy", "torch-gpu"], "torch-cuda"),
        (["--dtype", "float8_e4m3fn"], "float16 or bfloat16"),
        (["--tolerance", "-1"], "relative error of at least 0"),
        (["--tolerance", "0.1", "--finite"], "give one of them"),
        (["--budget", "2"], "at least 4 runs"),
        (["--seconds", "0"], "the budget ended after 0 runs"),
        (["--json", "nosuch/out.json"], "nosuch"),
        (["--polic", "torch-cuda"], "--policy"),
    ],
)
def test_each_bad_option_is_one_clear_error(
    script: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the exit code 2, and the words."""
    assert main(["bisect", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_the_command_is_in_the_table_and_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the table of commands; 100 columns."""
    assert "bisect" in COMMANDS
    assert main(["bisect", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "minimp bisect --example > mine.py" in printed
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal() -> None:
    """Oracle: a pseudo-terminal: the phases by name; and nothing of them with --quiet."""
    code, written = on_a_terminal("bisect", TERM="xterm", COLUMNS="100")
    assert code == 0
    assert "runs, " in written
    code, written = on_a_terminal("bisect", "--quiet", TERM="xterm", COLUMNS="100")
    assert code == 0
    assert "runs, " not in written
