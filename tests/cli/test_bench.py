"""`minimp bench`; oracles: figures that the test makes up, its JSON, exit codes, a process without torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minimp.benchmarks import Figure, StepTimes
from minimp.benchmarks.formats import FormatTimes
from minimp.benchmarks.machine import THREAD_VARIABLES
from minimp.cli import bench, main

Capture = pytest.CaptureFixture[str]
OWN = {"minimp fp32": 0.002, "minimp mixed-fp16": 0.003, "minimp mixed-bf16": 0.0025}
TORCH = {"torch fp32": 0.0016, "torch autocast fp16": 0.018}
PEAKS = {"minimp fp32": 1 << 20, "minimp mixed-fp16": 3 << 19}
STEPS = [each for part in ("mlp", "cnn", "gpt") for each in [(part, 15, True, True), ("gap", part)]]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to an empty folder, as on a machine whose threads are pinned."""
    monkeypatch.chdir(tmp_path)
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put made-up times in the place of the measurements, and return what was asked for."""
    asked: list[Any] = []

    def step_times(
        name: str, rounds: int, *, with_torch: bool, with_mygrad: bool, on_round: Callable[[int], None]
    ) -> StepTimes:
        asked.append((name, rounds, with_torch, with_mygrad))
        for number in range(1, rounds + 3):
            on_round(number)
        return StepTimes(name, OWN | (TORCH if with_torch else {}), rounds, PEAKS)

    def trajectory_gap(name: str) -> list[Figure]:
        asked.append(("gap", name))
        return [Figure(f"{name}: gap", 2e-4, 1e-4)]

    def tape_figures() -> list[Figure]:
        asked.append("tape")
        return [Figure("recorded add of 4 elements / np.add", 4.5, 6.0)]

    def measure(size: int, rounds: int, *, threads: Any, with_torch: bool, watch: Any) -> FormatTimes:
        asked.append(("formats", size, rounds, threads, with_torch))
        for number in range(1, rounds + 1):
            watch("formats: rounds", rounds)(number)
        return FormatTimes(size, rounds, ())

    def integer_figures(rounds: int) -> list[Figure]:
        asked.append(("quant", rounds))
        return [Figure("quant: made up", 0.5, 0.3, at_most=False)]

    def trace_figures(rounds: int) -> list[Figure]:
        asked.append(("trace", rounds))
        return [Figure("trace: made up", 2.5, 3.0)]

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "trace_figures", trace_figures)
    monkeypatch.setattr(bench, "integer_figures", integer_figures)
    monkeypatch.setattr(bench, "step_times", step_times)
    monkeypatch.setattr(bench, "trajectory_gap", trajectory_gap)
    monkeypatch.setattr(bench, "tape_figures", tape_figures)
    monkeypatch.setattr(bench, "torch_is_there", lambda: True)
    monkeypatch.setattr(bench, "mygrad_is_there", lambda: True)
    return asked


# ---- parts and options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [*STEPS, "tape", ("formats", 2**24, 15, (1,), True), ("quant", 15), ("trace", 15)]),
        (["formats"], [("formats", 2**24, 15, (1,), True)]),
        (["formats", "--rounds", "3", "--size", "2^13", "--no-torch"], [("formats", 2**13, 3, (1,), False)]),
        (["tape", "formats", "--size", "5000"], ["tape", ("formats", 5000, 15, (1,), True)]),
        (["tape"], ["tape"]),
        (["quant", "tape", "--rounds", "3"], [("quant", 3), "tape"]),
        (["trace", "--rounds", "3"], [("trace", 3)]),
        (["cnn", "--rounds", "4"], [("cnn", 4, True, True), ("gap", "cnn")]),
        (["tape", "mlp", "--no-torch"], ["tape", ("mlp", 15, False, True)]),
        (["gpt", "--no-torch", "--no-mygrad"], [("gpt", 15, False, False)]),
    ],
)
def test_parts_and_options(arguments: list[str], expected: list[Any], calls: list[Any]) -> None:
    """Oracle: what was asked for, in the order given; by default everything."""
    assert main(["bench", "--quiet", *arguments]) == 0
    assert calls == expected


def test_torch_that_is_not_installed(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Oracle: our own side alone, and a line that says so and how to change it."""
    monkeypatch.setattr(bench, "torch_is_there", lambda: False)
    monkeypatch.setattr(bench, "mygrad_is_there", lambda: False)
    assert main(["bench", "mlp"]) == 0
    assert calls == [("mlp", 15, False, False)]
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for name in ("torch", "mygrad"):
        assert f"{name} not installed: nothing beside from it (pip install {name})" in lines


def test_the_tables(calls: list[Any], capsys: Capture) -> None:
    """Oracle: milliseconds and quotients of the made-up times by hand, the fastest first; 100 columns."""
    assert main(["bench", "mlp", "tape", "--rounds", "4"]) == 0
    shown = capsys.readouterr()
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "mlp: one training step (0.41 GFLOP in products), medians of 4 rounds" in lines
    at = lines.index("engine and recipe ms x minimp fp32 x torch fp32 MiB at peak")
    assert lines[at + 1 : at + 6] == [
        "torch fp32 1.60 0.80 1.00 -",
        "minimp fp32 2.00 1.00 1.25 1.0",
        "minimp mixed-bf16 2.50 1.25 1.56 -",
        "minimp mixed-fp16 3.00 1.50 1.88 1.5",
        "torch autocast fp16 18.00 9.00 11.25 -",
    ]
    at = lines.index("figure measured aim")
    assert lines[at + 1 :] == [
        "mlp: minimp fp32 / torch fp32 1.25 <= 1.4 reached",
        "mlp: minimp mixed-fp16 / minimp fp32 1.5 <= 2.2 reached",
        "mlp: torch autocast fp16 / minimp mixed-fp16 6 >= 5 reached",
        "mlp: gap 0.0002 <= 0.0001 missed",
        "recorded add of 4 elements / np.add 4.5 <= 6 reached",
    ]
    assert max(map(len, shown.out.splitlines())) <= 100
    assert shown.err == ""


def test_without_torch_there_is_nothing_beside(calls: list[Any], capsys: Capture) -> None:
    """Oracle: a dash in the column of quotients, and the line that says torch was left out."""
    assert main(["bench", "mlp", "--no-torch", "--no-mygrad"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "minimp fp32 2.00 1.00 - 1.0" in lines
    assert {"torch left out", "mygrad left out"} <= set(lines)
    assert any(line.startswith("processor ") for line in lines)


def test_the_json(calls: list[Any]) -> None:
    """Oracle: every figure that was made up, and the machine; an old file is replaced, not written into."""
    Path("made.json").write_text("before")
    os.link("made.json", "kept.json")
    assert main(["bench", "mlp", "cnn", "tape", "--quiet", "--rounds", "4", "--json", "made.json"]) == 0
    made = json.loads(Path("made.json").read_text("utf-8"))
    assert set(made) == {"machine", "rounds", "seconds", "peak_bytes", "figures"}
    assert Path("kept.json").read_text() == "before"
    assert (made["rounds"], made["seconds"]) == (4, {"mlp": OWN | TORCH, "cnn": OWN | TORCH})
    assert made["peak_bytes"] == {"mlp": PEAKS, "cnn": PEAKS}
    assert {"processor", "BLAS threads"} <= set(made["machine"])
    assert len(made["figures"]) == 2 * (3 + 1) + 1
    assert made["figures"][-1] == {
        "name": "recorded add of 4 elements / np.add", "value": 4.5, "bound": "at most", "target": 6.0,
        "reached": True,
    }  # fmt: skip


def test_help_says_what_each_part_takes(capsys: Capture) -> None:
    """Oracle: every part beside its time; 100 columns."""
    assert main(["bench", "--help"]) == 0
    shown = capsys.readouterr().out
    for part in bench.PARTS:
        assert re.search(rf"^  {part} +.*(\n {{11}}.*)* [0-9]+ s$", shown, re.MULTILINE), part
    assert max(map(len, shown.splitlines())) <= 100


# ---- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mlq"], "unknown part 'mlq'; did you mean 'mlp'? (known: mlp, cnn, gpt, tape, formats, quant, "),
        (["mlp", "tape", "mlp"], "part 'mlp' is named twice"),
        (["--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["--rounds", "-3"], "--rounds must be at least 1, got -3"),
        (["formats", "--size", "100"], "--size must be a whole number from 4096 (2^12) to 1073741824 (2^30)"),
        (
            ["formats", "--size", "2^40"],
            "--size must be a whole number from 4096 (2^12) to 1073741824 (2^30)",
        ),
        (
            ["formats", "--threads", "0"],
            "--threads must be whole numbers from 1 with commas between, got '0'",
        ),
        (["formats", "--threads", "1,"], "--threads must be whole numbers from 1 with commas between"),
        (["formats", "--threads", "1,two"], "--threads must be whole numbers from 1 with commas between"),
        (["formats", "--threads", "1,1"], "--threads names a number twice: '1,1'"),
        (["formats", "--threads", "1,65536"], "--threads 65536 cannot act: this process may use"),
        (["mlp", "--size", "2^20"], "--size acts on the part formats alone, which is not among mlp"),
        (
            ["tape", "cnn", "--threads", "1"],
            "--threads acts on the part formats alone, which is not among tape, cnn",
        ),
        (
            ["formats", "--backend", "cupy"],
            "the part formats measures NumPy's kernels; --backend cupy cannot act",
        ),
        (
            ["gemm", "quant", "--backend", "cupy"],
            "the part quant measures NumPy's kernels; --backend cupy cannot act",
        ),
        (["--rounds", "few"], "argument --rounds: invalid int value: 'few'"),
        (["--backend", "cupy"], "backend 'cupy' cannot run here"),
        (["--json", "missing/made.json"], "cannot write missing/made.json: its folder does not exist"),
        (["--torch"], "unknown option '--torch'; did you mean '--no-torch'?"),
        (
            ["tape", "--backend", "strict"],
            "the part tape measures NumPy's kernels; --backend strict cannot act",
        ),
        (["gemm"], "the part gemm is a GPU's"),
        (["gem", "--backend", "strict"], "unknown part 'gem'; did you mean 'gemm'? (known: gemm, batched, "),
        (["--tiny"], "--tiny cannot act on the numpy backend"),
        (["gemm", "--backend", "strict", "--no-mygrad"], "--no-mygrad cannot act on a device"),
        (["gemm", "--backend", "strict", "--size", "2^20"], "--size acts on the part formats alone"),
    ],
)
def test_refusals(arguments: list[str], said: str, calls: list[Any], capsys: Capture) -> None:
    """Oracle: exit code 2, one line, nothing measured and nothing written."""
    assert main(["bench", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"minimp: error: {said}")
    assert len(shown.err.splitlines()) <= 2
    assert (shown.out, calls, list(Path().iterdir())) == ("", [], [])


# ---- devices -----------------------------------------------------------------------------------------------


def test_a_device_has_its_own_parts(capsys: Capture) -> None:
    """Oracle: the strict device: a header, times of each part, what they mean, what is counted."""
    words = ["bench", "latency", "unscale", "--backend", "strict", "--rounds", "3", "--json", "made.json"]
    assert main(words) == 0
    shown = capsys.readouterr()
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert any(re.fullmatch(r"date [0-9-]{10} [0-9:]{5} UTC", line) for line in lines)
    assert {"roof", "latency", "unscale", "clock the host's clock"} <= set(lines)
    assert lines.index("latency") < lines.index("unscale")
    assert "The sizes are tiny: the parts run, and their times say nothing." in " ".join(lines)
    assert "step: waits of the host 0 <= 0 reached" in lines
    assert max(map(len, shown.out.splitlines())) <= 100
    made = json.loads(Path("made.json").read_text("utf-8"))
    assert (made["tiny"], made["faults"], made["rounds"]) == (True, [], 3)
    assert {job["part"] for job in made["jobs"]} == {"roof", "latency", "unscale"}
    assert all(job["seconds"]["minimp"] > 0 for job in made["jobs"])
    assert shown.err == ""


def test_what_cannot_be_measured_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Oracle: a kernel that raises: named in the table, the rest measured, exit code 1."""

    def broken(*given: Any) -> Any:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr("minimp_backends.strict_backend.StrictBackend.unscale_all", broken)
    assert (
        main(["bench", "unscale", "int8", "--backend", "strict", "--rounds", "3", "--json", "made.json"]) == 1
    )
    shown = capsys.readouterr().out
    assert "NOT MEASURED unscale: 1e3 fp16 to fp32" in " ".join(shown.split())
    assert "no kernel image" in shown
    assert len(json.loads(Path("made.json").read_text("utf-8"))["faults"]) == 2


def test_a_fault_leaves_the_old_file(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Oracle: Ctrl-C in the last part: exit code 130, and the file as it was."""

    def stopped() -> list[Figure]:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "tape_figures", stopped)
    Path("made.json").write_text("before")
    assert main(["bench", "mlp", "tape", "--quiet", "--json", "made.json"]) == 130
    assert capsys.readouterr().err == "minimp: interrupted\n"
    assert {path.name: path.read_text() for path in Path().iterdir()} == {"made.json": "before"}


# ---- threads -----------------------------------------------------------------------------------------------


def test_it_starts_again_with_its_threads_pinned(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the process that is started, its environment and arguments; its exit code is passed on."""
    started: list[Any] = []

    def run(words: list[str], *, env: dict[str, str], check: bool) -> Any:
        started.append((words, {name: env[name] for name in THREAD_VARIABLES}, check))
        return subprocess.CompletedProcess(words, 7)

    monkeypatch.delenv(THREAD_VARIABLES[0])
    monkeypatch.setattr(subprocess, "run", run)
    assert main(["bench", "tape", "--quiet"]) == 7
    words = [sys.executable, "-m", "minimp", "bench", "tape", "--quiet"]
    assert started == [(words, dict.fromkeys(THREAD_VARIABLES, "1"), False)]
    assert calls == []


def test_a_real_run_without_torch() -> None:
    """Oracle: a process whose threads are not pinned and that cannot import torch: our own figures."""
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    environment["PYTHONPATH"] = os.pathsep.join(["no-torch", *filter(None, sys.path)])
    Path("no-torch").mkdir()
    Path("no-torch/torch.py").write_text("raise ImportError('this machine has no torch')\n")
    words = [sys.executable, "-W", "error", "-m", "minimp", "bench", "mlp", "--rounds", "1", "--no-torch"]
    made = subprocess.run(
        [*words, "--json", "made.json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, "")
    content = json.loads(Path("made.json").read_text("utf-8"))
    assert content["machine"]["BLAS threads"] == "1"
    assert set(content["seconds"]["mlp"]) >= {"minimp fp32", "minimp mixed-bf16", "minimp mixed-fp16"}
    assert not any("torch" in name for name in content["seconds"]["mlp"])
    assert all(seconds > 0 for seconds in content["seconds"]["mlp"].values())
    assert content["figures"][0]["name"] == "mlp: minimp mixed-fp16 / minimp fp32"
