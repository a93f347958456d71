"""The command's way in; oracles: exit codes, the lines on stdout and stderr, the modules that are loaded."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import minimp
from minimp.cli import main
from minimp.cli.entry import COMMANDS
from minimp.cli.parsing import Parser
from minimp.errors import DataError, DeviceError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out what the caller's terminal says."""
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "MINIMP_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)


def command(*arguments: str) -> list[str]:
    """Return the words that run the command in a process of its own."""
    script = (
        "import sys; sys.path[:0] = sys.argv.pop(1).split(':'); from minimp.cli import main; sys.exit(main())"
    )
    return [sys.executable, "-c", script, ":".join(each for each in sys.path if each), *arguments]


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    options = {"capture_output": True, "text": True, "timeout": 60} | options
    return subprocess.run(command(*arguments), check=False, **options)


# ---- help --------------------------------------------------------------------------------------------------


def test_help_names_all_commands(capsys: Capture) -> None:
    """Oracle: the table of commands; nothing on stderr; at most 100 columns."""
    assert main(["--help"]) == 0
    said = capsys.readouterr()
    width = max(map(len, COMMANDS))
    for name, each in COMMANDS.items():
        assert f"{name:{width}}  {each.summary}" in said.out
    assert "minimp compare\n" in said.out
    assert (said.err, max(map(len, said.out.splitlines())) <= 100) == ("", True)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", ["100", "300"])
def test_every_command_has_help_with_an_example(
    name: str, width: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Oracle: exit code 0, an example that starts with the command, at most 100 columns on any terminal."""
    monkeypatch.setenv("COLUMNS", width)
    assert main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: minimp {name}")
    assert f"\n  minimp {name}" in said.partition("example")[2]
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    """Oracle: the `help` with which each module adds its parser."""
    commands = Parser(prog="minimp").add_subparsers()
    import_module(COMMANDS[name].module).add_parser(commands)
    assert [(each.dest, each.help) for each in commands._choices_actions] == [(name, COMMANDS[name].summary)]


def test_version(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: minimp.__version__; argv is the process's by default."""
    monkeypatch.setattr(sys, "argv", ["minimp", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"minimp {minimp.__version__}\n"


LOADED = """
import sys
from minimp.cli import main
main(sys.argv[1:])
print(*sorted(name for name in sys.modules if name.startswith("minimp.cli.")), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "1"]])
def test_only_the_chosen_command_is_loaded(arguments: list[str]) -> None:
    """Oracle: sys.modules of a fresh process."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    made = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    expected = {"minimp.cli.base", "minimp.cli.entry", "minimp.cli.parsing"}
    others = set(made.stderr.split()) - expected
    assert all(each.startswith("minimp.cli.inspect") for each in others)
    assert ("minimp.cli.inspect" in others) == (arguments[0] == "inspect")
    assert expected <= set(made.stderr.split())


def test_python_m() -> None:
    """Oracle: `python -m minimp`, and the exit code of an error."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for arguments, code in ((["--version"], 0), (["nothing"], 2)):
        words = [sys.executable, "-m", "minimp", *arguments]
        assert subprocess.run(words, capture_output=True, env=environment, check=False).returncode == code


# ---- what is misspelt --------------------------------------------------------------------------------------


INSPECT = "minimp inspect --help"


@pytest.mark.parametrize(
    ("arguments", "said", "advice"),
    [
        ([], "expected a command: compare, train, export, quantize, memory", "minimp --help"),
        (["comprae"], "unknown command 'comprae'; did you mean 'compare'?", "minimp --help"),
        (["--vresion"], "unknown option '--vresion'; did you mean '--version'?", "minimp --help"),
        (["--json", "x", "compare"], "unknown option '--json'", "minimp --help"),
        (["inspect", "1", "--fromat", "fp16"], "unknown option '--fromat'; did you mean '--format'", INSPECT),
        (["inspect", "1", "--fromat=fp16"], "unknown option '--fromat'; did you mean '--format'", INSPECT),
        (["inspect", "1", "--form", "fp16"], "unknown option '--form'; did you mean '--format'?", INSPECT),
        (["inspect", "1", "-q"], "unknown option '-q'", INSPECT),
        (["inspect", "1", "2"], "one argument too many: '2'", INSPECT),
        (["inspect", "--", "1", "--json"], "one argument too many: '--json'", INSPECT),
        (["inspect", "1", "--format"], "argument --format: expected one argument", INSPECT),
        (["inspect"], "expected a VALUE, or --bits CODE", INSPECT),
    ],
)  # fmt: skip
def test_what_is_misspelt(arguments: list[str], said: str, advice: str, capsys: Capture) -> None:
    """Oracle: exit code 2, nothing on stdout, one line with the nearest name and one with the help."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith(f"minimp: error: {said}")
    assert (second, out) == (f"  help: {advice}", "")


# ---- what goes wrong ---------------------------------------------------------------------------------------


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Give a way to run a command that raises."""

    def run_with(fault: BaseException) -> int:
        def run(_: Any) -> int:
            raise fault

        monkeypatch.setattr("minimp.cli.inspect.run", run)
        return main(["inspect", "1"])

    return run_with


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (DataError("no x", op="load", help="add it"), 2, "minimp: error: load: no x\n  help: add it\n"),
        (DeviceError("no GPU [red]here[/] :x:"), 2, "minimp: error: no GPU [red]here[/] :x:\n"),
        (DataError("long " * 60), 2, f"minimp: error: {'long ' * 60}\n"),
        (OSError(28, "No space"), 2, "minimp: error: the system refused: [Errno 28] No space\n"),
        (MemoryError(), 2, "minimp: error: not enough memory: ask for less\n"),
        (MemoryError("9 TB"), 2, "minimp: error: not enough memory: 9 TB\n"),
        (KeyboardInterrupt(), 130, "minimp: interrupted\n"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)  # fmt: skip
def test_what_goes_wrong(
    fault: BaseException, code: int, said: str, planted: Callable[[BaseException], int], capsys: Capture
) -> None:
    """Oracle: the exit code and the whole of stderr, word for word: no wrapping, no markup, no traceback."""
    assert planted(fault) == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(("value", "shown"), [("1", True), ("0", False), ("", False)])
def test_the_traceback_on_demand(
    value: str, shown: bool, planted: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: MINIMP_TRACEBACK adds Python's traceback above the same line; the exit code stays."""
    monkeypatch.setenv("MINIMP_TRACEBACK", value)
    assert planted(DataError("x is empty")) == 2
    err = capsys.readouterr().err
    assert err.endswith("minimp: error: x is empty\n")
    assert (err.startswith("Traceback") and "in run" in err) is shown


def test_a_fault_of_minimp_itself_is_not_hidden(planted: Any) -> None:
    """Oracle: an exception that nobody foresaw comes out as it is."""
    with pytest.raises(ZeroDivisionError):
        planted(ZeroDivisionError())


def test_the_exit_code_of_a_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a command that returns 1, and the arguments as it finds them."""
    seen: list[Any] = []

    def run(args: Any) -> int:
        seen.append(args)
        return 1

    monkeypatch.setattr("minimp.cli.inspect.run", run)
    assert main(("inspect", "-0.5", "--json")) == 1
    assert (seen[0].value, seen[0].json, seen[0].argv) == ("-0.5", True, ["inspect", "-0.5", "--json"])


# ---- real terminals and pipes ------------------------------------------------------------------------------


ways_out = pytest.mark.parametrize(
    ("arguments", "unbuffered"), [(["inspect", "1"], ""), (["--help"], ""), (["--help"], "1")]
)


@ways_out
def test_a_reader_that_went_away(arguments: list[str], unbuffered: str) -> None:
    """Oracle: a pipe whose other end is closed before a byte is written: 141, and silence."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    made = process(*arguments, capture_output=False, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert (made.returncode, made.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@ways_out
def test_output_to_a_full_disk(arguments: list[str], unbuffered: str) -> None:
    """Oracle: /dev/full: exit code 2 and one line, and nothing of Python's own at the end."""
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        made = process(*arguments, capture_output=False, stdout=full, stderr=subprocess.PIPE, env=environment)
    assert made.returncode == 2
    assert made.stderr == "minimp: error: the system refused: [Errno 28] No space left on device\n"


def test_a_closed_output() -> None:
    """Oracle: stdout closed by the caller, so that Python has none: as if it were /dev/null."""
    words = ["bash", "-c", 'exec "$@" >&-', "bash", *command("inspect", "1")]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stderr) == (0, "")


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Run the command on a pseudo-terminal; return what it wrote there."""
    ours, theirs = pty.openpty()
    made = subprocess.Popen(
        command(*arguments), stdout=theirs, stderr=theirs, stdin=theirs, env=os.environ | environment
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # EIO: the terminal's last user has left
            break
        if not part:
            break
        written += part
    made.wait()
    os.close(ours)
    return written.decode()


def test_colours_on_a_terminal_only() -> None:
    """Oracle: escape codes on a pseudo-terminal; none of colour with NO_COLOR; none at all in a pipe."""
    coloured = on_a_terminal("inspect", "1", TERM="xterm", COLUMNS="90")
    assert "\x1b[31m0" in coloured
    plain = on_a_terminal("inspect", "1", TERM="xterm", NO_COLOR="1", COLUMNS="90")
    assert "\x1b[31m" not in plain
    assert "0     01111111" in plain
    assert "\x1b" not in process("inspect", "1").stdout
    assert "\x1b[1;31m" in on_a_terminal("nothing", TERM="xterm", COLUMNS="90")
