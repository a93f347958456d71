"""The prompt: its commands, its words, and the command line around it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import minimp as mp
from minimp import stepper
from minimp.backend import get_backend
from minimp.cli import main
from minimp.errors import DataError, SettingError
from minimp.stepper import COMMANDS, Prompt, Session
from tests.cli.processes import environment, process
from tests.stepper.test_session import small
from tests.trace.cases import batch, grown, make_step


def prompt(width: int = 80, **options: object) -> Prompt:
    """A prompt on a small session."""
    return Prompt(small(**options), width=width)


ALL = (
    "where", "show", "list", "step", "op", "show", "op 3", "prev", "back", "step 2", "go 3", "finish", "list",
    "show", "restart", "run op == linear", "run stage", "run cast", "help", "help run", "help set",
    "help open", "help save", "set scale 2^24", "edits", "run nonfinite", "why", "show",
    "open out0 nonfinite", "more", "bits 0,0", "check", "undo", "set policy linear fp32",
    "set format bfloat16", "set accumulate kahan", "edits", "undo", "undo", "undo",
)  # fmt: skip


@pytest.mark.parametrize("width", [80, 100])
def test_every_answer_fits_the_screen(width: int) -> None:
    """Oracle: the width; and that every command was used, some of them refused elsewhere."""
    told = prompt(width)
    for line in ALL:
        answer = told.do(line)
        assert all(len(each) <= width for each in answer.split("\n")), (line, answer)
        assert "\t" not in answer
    used = {line.split()[0] for line in ALL}
    assert {*COMMANDS} - used == {"save", "quit"}


def test_the_table_has_each_name_and_key_once() -> None:
    """Oracle: a count; the prompt takes both."""
    words = [word for each in COMMANDS.values() for word in (each.name, each.key)]
    assert len(words) == len(set(words))
    told = prompt()
    assert told.do("n") == "step 1, stage 1/10 cast_weights, end, 6 ops\n  w16 = round16(w32)"
    assert told.do("where") == told.do(".")
    helped = told.do("help")
    assert all(each.usage in helped for each in COMMANDS.values())
    assert "step [N]" in (stepper.commands.__doc__ or "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stpe", "did you mean 'step'"),
        ("step two", "whole number above 0"),
        ("step 0", "whole number above 0"),
        ("step 1 2", r"expected 'step \[N\]'"),
        ("run", "expected 'run GOAL"),
        ("run amx > 3", "did you mean 'amax'"),
        ("run __import__('os')", "condition"),
        ("open out9", "unknown tensor here"),
        ("more", "no tensor is open"),
        ("set", "expected 'set WHAT"),
        ("set scal 3", "did you mean 'scale'"),
        ("set scale three", "expected a number"),
        ("set scale -1", "above 0"),
        ("set scale 1 2", "expected 'set scale S'"),
        ("set policy sofmax lower", "did you mean 'softmax'"),
        ("set policy softmax lowest", "class"),
        ("set format float32", "cannot compute in float32"),
        ("set accumulate kahn", "did you mean 'kahan'"),
        ("set value 9.weight[0] 1", "unknown tensor that can be changed"),
        ("set value 0.weight[99,0] 1", "no element"),
        ("set value 0.weight[a] 1", "place of an element"),
        ("go 3", "no moment 3: this step has had 0"),
        ("go x", "expected the number"),
        ("undo", "nothing to undo"),
        ("back", "this is the beginning"),
        ("check", "no stage has run"),
        ("save x.py", "does not know how it was made"),
        ("help stpe", "did you mean 'step'"),
        ("'", "cannot read"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(line: str, said: str) -> None:
    """Oracle: the words, and the hash and place before."""
    told = prompt()
    before = told.session.fingerprint(), told.do("where"), list(told.session.edits)
    with pytest.raises((SettingError, DataError), match=said):
        told.do(line)
    assert (told.session.fingerprint(), told.do("where"), told.session.edits) == before


def test_whole_numbers_stay_whole() -> None:
    """Oracle: the range of uint8; the ids that the model reads after the change."""
    mp.manual_seed(0)
    model = mp.nn.Sequential(mp.nn.Embedding(5, 4), mp.nn.Linear(4, 3))
    step = mp.TrainStep(
        model, mp.functional.cross_entropy, mp.optim.SGD(model.parameters(), lr=0.1), "mixed-fp16"
    )
    ids = np.array([0, 1, 2], np.uint8)
    with Session(step, [(ids, np.array([0, 1, 2]))]) as session:
        prompt = Prompt(session)
        for text in ("nan", "inf", "1.5", "256", "-1"):
            with pytest.raises(SettingError, match="whole number from 0 to 255"):
                prompt.do(f"set value input[1] {text}")
        prompt.do("set value input[1] 4")
        prompt.do("run op == embedding")
        assert [4 in array for array in session.moment.arrays.values() if array.dtype.kind in "iu"] == [True]
    assert ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("recipe", "line", "said"),
    [
        ("fp32", "set scale 2", "no one loss scale"),
        ("mixed-layerwise", "set scale 2", "no one loss scale"),
        ("fp32", "set policy softmax lower", "no autocast policy"),
        ("fp16", "set format bfloat16", "cannot compute in bfloat16"),
    ],
)
def test_what_a_recipe_has_no_place_for_is_refused(recipe: str, line: str, said: str) -> None:
    """Oracle: the words."""
    with stepper.digits(recipe, batch=4) as session, pytest.raises(SettingError, match=said):
        Prompt(session).do(line)


def test_a_value_can_be_changed_where_the_next_stage_reads_it() -> None:
    """Oracle: NumPy's infinity, which the recorder then meets where it was put; the rest by hand."""
    told = prompt()
    session = told.session
    told.do("step 5")
    clean = session.fingerprint()
    told.do("set value 2.weight[0,1] inf")
    assert np.isinf(session.run.state.parameters["2.weight"].grad.array[0, 1])
    told.do("step 2")
    assert session.stage.facts["nonfinite"] == ("2.weight",)
    told.do("back 2")
    told.do("undo")
    assert session.fingerprint() == clean
    told.do("restart")
    told.do("set value 0.weight[0,1] 0.1")
    assert session.step.model[0].weight.array[0, 1] != np.float32(0.1)  # changed when the step runs
    told.do("step")
    assert session.step.model[0].weight.array[0, 1] == np.float32(0.1)
    assert session.moment.arrays["0.weight"][0, 1] == np.float16(np.float32(0.1))


@pytest.mark.parametrize(
    ("stages", "name"),
    [(0, "input"), (1, "0.bias"), (2, "output"), (6, "4.bias"), (8, "0.bias"), (9, "4.bias")],
)
def test_a_change_reaches_what_comes_after_it(stages: int, name: str) -> None:
    """Oracle: the weights at the end of the step, or what it reports, which differ from those without it."""
    told = prompt()
    session = told.session
    session.finish()
    plain = session.fingerprint()
    told.do("restart")
    if stages:
        told.do(f"step {stages}")
    place = "0,0" if name in ("input", "output") else "0"
    told.do(f"set value {name}[{place}] 3.5")
    while session.done < 10:
        told.do("step")
    assert session.fingerprint() != plain
    assert session.check()


def test_policies_and_formats_act_from_the_beginning_of_the_step() -> None:
    """Oracle: the formats that the recorder met."""
    told = prompt()
    told.do("set policy linear fp32")
    told.do("run op == linear and phase == forward")
    assert told.session.moment.event.outputs[0].format == "float32"
    told.do("undo")
    told.do("restart")
    told.do("set format bfloat16")
    told.do("run op == linear and phase == forward")
    assert told.session.moment.event.outputs[0].format == "bfloat16"
    assert told.session.step.recipe.compute_dtype is mp.bfloat16
    told.do("restart")
    assert told.session.step.recipe is mp.recipes["mixed-fp16"]
    told.do("set accumulate float64")
    told.do("run op == linear")
    assert told.session.moment.event.accumulate == "float64"


def test_elements_show_their_bits() -> None:
    """Oracle: NumPy's view of the same numbers as integers."""
    told = prompt(change=grown(2, 1.5e5))
    told.do("run nonfinite")
    array = told.session.moment.arrays["out0"]
    rows = told.do("open out0").split("\n")[2:]
    for flat, row in enumerate(rows):
        place, _, sign, exponent, mantissa, _ = row.split()
        assert place == ",".join(map(str, np.unravel_index(flat, array.shape)))
        assert f"{array.reshape(-1).view(np.uint16)[flat]:016b}" == sign + exponent + mantissa
    shown = [row.split()[1] for row in told.do("open out0 largest").split("\n")[2:]]
    infinite = int(np.isinf(array).sum())
    assert [s.strip("-") for s in shown[:infinite]] == ["inf"] * min(infinite, 16)
    small_first = [abs(float(row.split()[1])) for row in told.do("open out0 smallest").split("\n")[2:]]
    assert small_first == sorted(small_first)
    assert small_first[0] == np.abs(array[array != 0]).min()
    assert f": 1 to {min(infinite, 16)} of {infinite}" in told.do("open out0 nonfinite")
    assert "in float16" in told.do("bits 0,1")
    assert told.do("open out0 3,4").split("\n")[2].startswith("3,4 ")
    with pytest.raises(SettingError, match="did you mean 'zeros'"):
        told.do("open out0 zeroes")
    for order, count in (("zeros", (array == 0).sum()), ("subnormal", 0)):
        answer = told.do(f"open out0 {order}")
        assert (f"of {count}" in answer) if count else ("none left" in answer)


def test_the_prompt_draws_no_boxes() -> None:
    """Oracle: Unicode: a screen reader would read each box-drawing letter, block and arrow aloud."""
    told = prompt()
    for line in ALL:
        assert not re.search("[\u2190-\u21ff\u2500-\u27bf]", told.do(line)), line


def test_a_number_with_its_mark_is_no_comment(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the line that the same number without it gives."""
    assert main(["step", "--plain", "--do", "step; go #3; where # here"]) == 0
    marked = capsys.readouterr().out
    assert main(["step", "--plain", "--do", "step; go 3; where"]) == 0
    assert marked.replace("go #3", "go 3") == capsys.readouterr().out


def test_a_table_of_tensors_is_never_cut() -> None:
    """Oracle: the counts by NumPy are on the lines, at each width, casts included."""
    told = prompt(change=grown(2, 1.5e5))
    told.do("run nonfinite")
    infinite = int(np.isinf(told.session.moment.arrays["out0"]).sum())
    for width in (60, 80, 100):
        told.width = width
        answer = told.do("show")
        assert "..." not in answer.replace("(...", "")
        assert re.search(rf"^out0.*\b{infinite}\b|\b{infinite} inf", answer, re.MULTILINE)


def test_a_change_that_shows_nowhere_is_said_to() -> None:
    """Oracle: by hand: a weight that is changed after the update changes no figure of this step."""
    told = prompt()
    told.do("finish")
    told.do("back")
    assert "nothing of this differs" in told.do("set value 0.weight[0,1] 5")
    assert "nothing of this differs" not in told.do("set scale 2^24")


def test_single_ops_and_gradients_are_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: every op of a step is right; a product that is made wrong is told by its own name alone."""
    told = prompt()
    told.do("finish")
    for cursor, moment in enumerate(told.session.run.moments):
        told.looked = cursor
        answer = told.do("check")
        assert "\nok: " in answer, answer
        assert moment.event.phase == "stage" or moment.event.op in answer.split("\n")[1]
    backend = get_backend("numpy")
    honest = type(backend).matmul
    monkeypatch.setattr(type(backend), "matmul", lambda *given, **more: honest(*given, **more) * 2)
    wrong = prompt()
    wrong.do("run op == linear")
    assert "WRONG" in wrong.do("check")
    assert wrong.failed


# ---- the command ----------------------------------------------------------------------------------------


def test_a_transcript_of_the_command(tmp_path: Path) -> None:
    """Oracle: the lines by hand; commands from a pipe are shown with what they say, in 80 columns too."""
    commands = "# how an overflow shows\nset scale 2^24\nrun nonfinite\nwhy\n\nwhere # here\nquit\nstep\n"
    done = process("step", "--plain", input=commands, env=environment() | {"COLUMNS": "80"})
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.split("\n")
    asked = [line for line in lines if line.startswith("> ")]
    assert asked == ["> set scale 2^24", "> run nonfinite", "> why", "> where", "> quit"]
    assert "*  update                made                    skipped" in lines
    assert "*  loss scale            2^16                    2^24" in lines
    assert "nonfinite: found" in lines
    assert "step 1, stage 5/10 backward, op 4/15, 1 changed" in lines
    assert any("at a loss scale of 1 it would be finite" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in done.stdout


def test_the_exit_code_says_how_it_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the table of exit codes of the command line."""
    assert main(["step", "--plain", "--do", "step 2; check"]) == 0
    assert "ok: every op obeys" in capsys.readouterr().out
    assert main(["step", "--plain", "--do", "step; stpe; step"]) == 2
    bad = capsys.readouterr()
    assert "did you mean 'step'" in bad.err
    assert bad.out.count("> ") == 2
    script = tmp_path / "none.py"
    script.write_text("x = 1\n")
    assert main(["step", "--plain", str(script)]) == 2
    assert "there is no training step in it" in capsys.readouterr().err
    assert main(["step", "--plain", str(tmp_path / "absent.py")]) == 2
    assert "no such script" in capsys.readouterr().err
    for wrong in (
        ["--recipe", "mixed-fp61"],
        ["--model", "gpt"],
        ["--batch", "0"],
        [str(script), "--seed", "1"],
        ["--light"],
    ):
        assert main(["step", "--plain", *wrong, "--do", "where"]) == 2, wrong
        assert capsys.readouterr().out == ""


def test_at_a_terminal_mistakes_are_told_and_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the words by hand: a slip, Ctrl-C in a long run and at the prompt; then the end of input."""
    said = iter(["stpe", "run op == softmax", "step", KeyboardInterrupt, "where", EOFError])

    def answer(_: str) -> str:
        each = next(said)
        if isinstance(each, str):
            return each
        raise each

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(Session, "search", interrupted)
    assert main(["step", "--plain"]) == 0
    told = capsys.readouterr().out
    assert "`help` lists the commands" in told
    assert "error: unknown command 'stpe'; did you mean 'step'" in told
    assert "stopped: step 1, before the first stage" in told
    assert "`quit` ends the session" in told.partition("w16 = round16(w32)")[2]
    assert told.rstrip().endswith("step 1, stage 1/10 cast_weights, end, 6 ops")


def test_what_a_script_raises_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: exit code 2, and the words."""
    script = tmp_path / "mine.py"
    for text, words in [
        ("x = 1 / 0", "raised ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "ended before any training step"),
    ]:
        script.write_text(text)
        assert main(["step", "--plain", str(script)]) == 2
        assert words in capsys.readouterr().err
    script.write_text(
        "import numpy as np, minimp as mp\nmodel = mp.nn.Linear(2, 2)\n"
        "def loss(y, t): raise KeyError('label')\n"
        "step = mp.TrainStep(model, loss, mp.optim.SGD(model.parameters(), lr=1.0), 'fp32')\n"
        "inputs, targets = np.zeros((2, 2), np.float32), [0, 1]\n"
    )
    assert main(["step", "--plain", str(script), "--do", "step 2; step"]) == 2
    assert "the stage raised KeyError: 'label'" in capsys.readouterr().err


def test_a_failed_check_is_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: exit code 1; a rule of the engine that was broken on purpose."""
    backend = get_backend("numpy")
    honest = type(backend).times
    monkeypatch.setattr(
        type(backend), "times", lambda self, x, factor: honest(self, x, factor) * np.float32(1.001)
    )
    assert main(["step", "--plain", "--do", "step 6; check"]) == 1
    assert re.search("WRONG", capsys.readouterr().out)


def test_every_model_and_recipe_of_the_digits_opens() -> None:
    """Oracle: a whole step of each without an error."""
    for model in ("mlp", "cnn", "autoencoder"):
        with stepper.digits(model=model, batch=4) as session:
            session.finish()
            assert session.done == 10
    with Session(make_step("fp32"), [batch()]) as session:
        assert "fp32" in Prompt(session).do("show")
