"""`minimp bisect`; oracle: planted faults in scripts, the exit codes of minimp.cli, and 100 columns."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import minimp as mp
from minimp.cli import main
from minimp.cli.entry import COMMANDS
from minimp.modes import MODES
from tests.cli.processes import on_a_terminal, process

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
    assert "The search was ended early" in printed
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
    assert " of at most 200 runs, " in written
    assert "1 are" not in written
    code, written = on_a_terminal("bisect", "--quiet", TERM="xterm", COLUMNS="100")
    assert code == 0
    assert "runs, " not in written


# ---- scripts that define no run() --------------------------------------------------------------------------

LAYERS = """
from minimp import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(64, 8), nn.LayerNorm(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 10)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.first(x).float() * FACTOR)))

FACTOR = 1e5
"""
BEGIN = """
import argparse
import minimp as mp
from minimp import functional as F
from layers import Net

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--scale", type=float, default=1024.0)
parser.add_argument("--policy", default="own")

def rules():
    named = parser.parse_args().policy
    return mp.policies["torch-cuda"].with_(layer_norm="lower") if named == "own" else mp.policies[named]

def main():
    args = parser.parse_args()
    digits, model = mp.data.digits("train"), Net()
    optimizer = mp.optim.Adam(model.parameters())
    scaler = mp.GradScaler(init_scale=args.scale)
    batches = mp.data.DataLoader(digits, 16, shuffle=True)
"""
FORMS = {
    "TrainStep": """
    step = mp.TrainStep(model, F.cross_entropy, optimizer,
                        mp.recipes["mixed-fp16"].with_(policy=rules()), scaler=scaler)
    for _, (x, y) in zip(range(args.steps), batches):
        print(step(x, y))
""",
    "a loop": """
    for _, (x, y) in zip(range(args.steps), batches):
        optimizer.zero_grad()
        with mp.autocast("float16", policy=rules()):
            loss = F.cross_entropy(model(mp.tensor(x)), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        print(loss.item())
""",
}
MAIN = 'if __name__ == "__main__":\n    main()\n'


@pytest.fixture(params=FORMS)
def training(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A script that trains, in another folder than the working one, without a seed."""
    tmp_path.joinpath("layers.py").write_text(LAYERS)
    path = tmp_path / "train.py"
    path.write_text(BEGIN + FORMS[request.param] + MAIN)
    return path


def test_the_first_step_of_a_script_is_searched(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the layer whose sums overflow; and the edit, pasted into the script, ends the disagreement."""
    before = (sys.argv, [*sys.path], MODES.get(), {*sys.modules} - {"layers"})
    assert main(["bisect", str(training), "--", "--steps", "2"]) == 0
    printed = capsys.readouterr()
    assert "layer_norm, call 1 of 1: module norm, " in printed.out
    assert "layers.py:11" in printed.out
    assert (sys.argv, [*sys.path], MODES.get(), {*sys.modules}) == before
    edit = next(line.strip() for line in printed.out.splitlines() if line.startswith("    policy = "))
    own = edit.replace("policy = policy.", "policy = rules_before().")
    pasted = training.read_text().replace("def rules():", "def rules_before():")
    pasted = pasted.replace("def main", f"def rules():\n    {own}\n    return policy\n\ndef main", 1)
    training.write_text(pasted)
    assert main(["bisect", str(training)]) == 0
    assert "They agree: none of the" in capsys.readouterr().out


def test_a_loss_scale_that_is_too_large_is_no_fault_of_an_op(
    training: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: a scale of 2^30, which some steps halve: a TrainStep takes the batch again, a loop cannot."""
    code = main(
        ["bisect", str(training), "--", "--scale", "1073741824", "--steps", "40", "--policy", "torch-cuda"]
    )
    printed = capsys.readouterr()
    if "scaler.step" in training.read_text():
        assert code == 2
        (scale,) = re.findall(r"GradScaler\(init_scale=([\d.]+)\)", printed.err)
        assert "skips its first" in printed.err
        again = ["bisect", str(training), "--", "--scale", scale, "--policy", "torch-cuda"]
        assert main(again) == 0
        assert "They agree" in capsys.readouterr().out
    else:
        assert code == 0
        assert "They agree" in printed.out


def test_ops_that_a_script_defines_may_be_defined_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: a loop that defines an op is run several times; it is the op that overflows."""
    path = tmp_path / "own.py"
    path.write_text("""
import minimp as mp
w = mp.nn.Parameter(mp.tensor([300.0]))

@mp.op(cast=mp.policy.CastClass.LOWER)
def triple_of_test(ctx, x):
    ctx.save(x)
    return ctx.round(ctx.wide(x) * 300)

@triple_of_test.gradient
def _(ctx, grad):
    return (ctx.round(ctx.wide(grad) * 300),)

optimizer = mp.optim.SGD([w], lr=0.1)
with mp.autocast("float16"):
    y = triple_of_test(w)
((y.float() / 1e5).square()).sum().backward()
optimizer.step()
""")
    try:
        code = main(["bisect", str(path)])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        assert 'with_({triple_of_test: "fp32"})' in printed.out
    finally:
        mp.OPS.pop("triple_of_test", None)


def test_lines_fit_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: 50 columns, but for code, which is one edit to a line and can be run."""
    monkeypatch.setenv("COLUMNS", "50")
    assert main(["bisect"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if "policies[" not in line) <= 50
    start = next(i for i, line in enumerate(lines) if line.startswith("    policy = "))
    names: dict[str, object] = {"mp": mp}
    exec("\n".join(line[4:] for line in lines[start : start + 3]), names)
    assert names["policy"] == mp.policies["torch-cpu"].with_(exp="fp32")


@pytest.mark.slow
def test_ctrl_c_shows_what_was_found_so_far(tmp_path: Path) -> None:
    """Oracle: the exit code 130; the ops found before it, and the words that less may be enough."""
    path = tmp_path / "slow.py"
    path.write_text("""
import os, signal
import minimp as mp
xs = [mp.tensor([[300.0 if i % 5 < 2 else 1.0]]) for i in range(12)]
signal.signal(signal.SIGINT, signal.default_int_handler)
class Ticks:
    count = 0
def run():
    Ticks.count += 1
    if Ticks.count == 9:
        os.kill(os.getpid(), signal.SIGINT)
    return [x @ x for x in xs]
""")
    made = process("bisect", str(path))
    assert made.returncode == 130
    assert 'with_(matmul="fp32")' in made.stdout
    assert "ended early: less may be enough" in made.stdout
    assert made.stderr == "minimp: interrupted\n"


@pytest.mark.parametrize(
    ("recipe", "words"), [("fp32", "no rules of autocast"), ("bf16", "parameters in bfloat16")]
)
def test_a_recipe_that_no_rules_make_mixed_is_refused(
    tmp_path: Path, recipe: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the table of recipes: without rules there are none to edit."""
    path = tmp_path / "train.py"
    path.write_text(BEGIN.replace("from layers import Net", "Net = lambda: mp.nn.Linear(64, 10)") + f"""
    step = mp.TrainStep(model, F.cross_entropy, optimizer, "{recipe}")
    for _, (x, y) in zip(range(args.steps), batches):
        step(x, y)
""" + MAIN)  # fmt: skip
    assert main(["bisect", str(path)]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert "help: search it with a recipe of parameters in float32" in printed.err


def test_the_line_that_raises_is_named_not_the_one_that_calls_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: by hand: line 2 raises, line 3 calls."""
    path = tmp_path / "boom.py"
    path.write_text("def main():\n    return {}['a']\nmain()\n")
    assert main(["bisect", str(path)]) == 2
    assert "boom.py, line 2, raises before it can be run: KeyError: 'a'" in capsys.readouterr().err
    path.write_text("print('nothing')\n")
    assert main(["bisect", str(path)]) == 2
    assert "defines no function run(), and takes no training step" in capsys.readouterr().err
