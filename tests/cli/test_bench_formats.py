"""`minimp bench formats`; oracles: made-up times worked out by hand, exit codes, a real run."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minimp.benchmarks.formats import FormatTimes, products, running
from minimp.benchmarks.formats.kernels import FAMILIES
from minimp.benchmarks.formats.rows import Row, Weight
from minimp.benchmarks.machine import THREAD_VARIABLES
from minimp.cli import bench, main
from minimp.errors import MinimpError

Capture = pytest.CaptureFixture[str]


def _row(family: str, fmt: str, maker: str, ms: float, elements: int = 1 << 14, threads: int = 1) -> Row:
    return Row(family, fmt, maker, ms / 1e3, elements, threads)


FORMAT_TIMES = FormatTimes(
    1 << 14,
    5,
    (
        _row("copy", "float32", "numpy", 0.5),
        _row("grid", "fp16", "minimp", 2.0),
        _row("grid", "fp16", "numpy astype", 10.0),
        _row("grid", "fp16", "minimp, reference", 4.0, 1 << 8),
        _row("storage", "e5m2", "minimp", 1.0),
        _row("stochastic", "fp16", "minimp", 0.8),
        _row("matmul", "float16", "sgemm with rounding", 1.0, 1 << 24),
        _row("matmul", "float16", "numpy float16 @", 50.0, 1 << 24),
        _row("matmul", "float16", "float16", 20.0, 1 << 24),
    ),
    (Weight("grid", "fp16", {1 << 22: 1 << 20, 1 << 24: 3 << 19}),),
    (
        _row("grid", "fp16", "minimp", 2.0),
        _row("grid", "fp16", "minimp", 1.0, threads=2),
        _row("storage", "e5m2", "minimp", 1.0),
        _row("storage", "e5m2", "minimp", 0.8, threads=2),
    ),
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to an empty folder, as on a machine whose threads are pinned."""
    monkeypatch.chdir(tmp_path)
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "1")


class Asked:
    """What stands in for the measurement: the made-up times, and what was asked for."""

    def __init__(self) -> None:
        self.times = FORMAT_TIMES
        self.calls: list[Any] = []

    def measure(self, size: int, rounds: int, *, threads: Any, with_torch: bool, watch: Any) -> FormatTimes:
        """Take note, tell the rounds, return the made-up times."""
        self.calls.append((size, rounds, threads, with_torch))
        for number in range(1, rounds + 1):
            watch("formats: rounds", rounds)(number)
        return replace(self.times, size=size, rounds=rounds)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Put the made-up times in the place of the measurement."""
    made = Asked()
    monkeypatch.setattr(bench, "measure", made.measure)
    return made


def test_the_tables_of_formats(asked: Asked, capsys: Capture) -> None:
    """Oracle: rates and quotients of the made-up times by hand; 100 columns."""
    assert main(["bench", "formats", "--size", "2^14", "--rounds", "5"]) == 0
    shown = capsys.readouterr()
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "formats: 2^14 float32 values, medians of 5 interleaved rounds" in lines
    expected = [
        ["format kernel ms Melem/s x memcpy x cast", "float32 numpy 0.5 32.8 1 -"],
        [
            "format kernel ms Melem/s x memcpy x cast", "fp16 minimp 2 8.19 0.25 5",
            "fp16 numpy astype 10 1.64 0.05 1", "fp16 minimp, reference 4 0.064 0.00195 0.0391",
        ],
        ["format kernel ms Melem/s x memcpy x cast", "e5m2 minimp 1 16.4 0.5 -"],
        [
            "accumulation inputs ms ns/product x sgemm with rounding x numpy float16 @",
            "sgemm with rounding float16 1 0.0596 1 0.02", "float16 float16 20 1.19 20 0.4",
            "numpy float16 @ float16 50 2.98 50 1",
        ],
        ["kernel format 2^22 values 2^24 values growth", "grid fp16 1 1.5 1.5"],
        [
            "kernel format 1 thread, Melem/s 2 threads, Melem/s speed-up on 2", "grid fp16 8.19 16.4 2.00",
            "storage e5m2 16.4 20.5 1.25",
        ],
        [
            "figure measured aim", "fp16 grid: minimp's speed / numpy astype there and back 5 >= 4 reached",
            "fp16: speed of stochastic rounding / nearest even 2.5 >= 0.333 reached",
            "fp16 nearest even: speed / memcpy (aim: CPFloat in C, Zen 3) 0.25 >= 0.12 reached",
            "fp16 stochastic: speed / memcpy (aim: CPFloat in C, Zen 3) 0.625 >= 0.0306 reached",
            "float16: time / sgemm with rounding 20 <= 60 reached",
            "the slowest (float16): time / numpy float16 @ 0.4 <= 1 reached",
            "extra memory for 4 times the values, at worst (grid fp16) 1.5 <= 1.05 missed",
        ],
    ]  # fmt: skip
    for table in expected:
        assert table in [lines[at : at + len(table)] for at in range(len(lines))]
    assert max(map(len, shown.out.splitlines())) <= 100
    assert shown.err == ""


def test_what_formats_leaves_out(asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Oracle: no table of threads where one was asked for; a word where memory was not weighed."""
    asked.times = replace(FORMAT_TIMES, weights=(), threaded=())
    assert main(["bench", "formats"]) == 0
    shown = capsys.readouterr().out
    assert "left out below --size 2^22" in shown
    assert "speed-up" not in shown
    assert "extra memory for" not in shown


def test_formats_in_json(asked: Asked) -> None:
    """Oracle: the made-up times, and each figure of the table."""
    assert main(["bench", "formats", "--quiet", "--rounds", "2", "--json", "made.json"]) == 0
    made = json.loads(Path("made.json").read_text("utf-8"))
    assert (made["rounds"], made["seconds"]) == (2, {})
    assert made["formats"] == json.loads(json.dumps(replace(FORMAT_TIMES, size=1 << 24, rounds=2).as_dict()))
    assert len(made["formats"]["rows"]) == len(FORMAT_TIMES.rows)
    assert made["figures"][0] == {
        "name": "fp16 grid: minimp's speed / numpy astype there and back", "value": 5.0, "bound": "at least",
        "target": 4.0, "reached": True,
    }  # fmt: skip


def test_threads_up_to_the_cores(asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Oracle: a process that may use four cores; where the system cannot tell, the machine's are counted."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5}, raising=False)
    assert main(["bench", "formats", "--threads", "1, 4,2", "--quiet"]) == 0
    assert [call[:3] for call in asked.calls] == [(2**24, 15, (1, 4, 2))]
    assert main(["bench", "formats", "--threads", "5"]) == 2
    assert "--threads 5 cannot act: this process may use 4 cores" in capsys.readouterr().err
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert main(["bench", "formats", "--threads", "3", "--quiet"]) == 0
    assert main(["bench", "formats", "--threads", "4"]) == 2


def test_a_wrong_kernel_ends_the_command(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Oracle: exit code 2, the error's own words, and no file."""

    def wrong(*args: Any, **kwargs: Any) -> FormatTimes:
        raise MinimpError("grid fp16, minimp: 1 of the 1024 elements", op="bench formats")

    monkeypatch.setattr(bench, "measure", wrong)
    assert main(["bench", "formats", "--json", "made.json"]) == 2
    assert (
        capsys.readouterr().err == "minimp: error: bench formats: grid fp16, minimp: 1 of the 1024 elements\n"
    )
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_a_real_run_of_formats(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Oracle: every contender is checked and has a time; as many figures as have an aim, none without one.

    Products of 64 x 64 x 64 have every chunk, part and block, and are checked on fractions in a quarter of
    the time. What a run loads is frozen beforehand: no collection before a sample walks through it.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("torch")
    gc.freeze()
    for module in (products, running):
        monkeypatch.setattr(module, "WIDTH", 64)
    words = ["bench", "formats", "--size", "5000", "--rounds", "1", "--threads", "1", "--json", "made.json"]
    assert main(words) == 0
    made = json.loads(Path("made.json").read_text("utf-8"))
    assert all(row["seconds"] > 0 for row in made["formats"]["rows"])
    assert {row["family"] for row in made["formats"]["rows"]} == {*FAMILIES, "matmul"}
    assert {row["elements"] for row in made["formats"]["rows"] if row["family"] == "matmul"} == {64**3}
    assert len(made["figures"]) == 9 + 4 + 2 + 13 + 1
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
