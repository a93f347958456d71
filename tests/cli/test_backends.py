"""`--backend` of the commands; oracles: NumPy's figures, the strict device's counts, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import backend as backends
from minimp.backend import get_backend
from minimp.cli import main
from minimp.cli.device_view import DeviceWork, watching_device
from minimp.memory.witnesses import PoolWitness
from minimp_backends.cupy_backend import CupyBackend
from minimp_backends.memory_pool import PoolFigures
from minimp_backends.strict.counts import Counts
from tests.backends.cupy_on_strict import gpu_on_strict
from tests.tolerances import assert_close

Capture = pytest.CaptureFixture[str]
QUICK = ("--steps", "6", "--quiet")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def line_of_work(shown: str) -> str:
    """Return the sentence on what a step made the device do, in one line; "" if there is none."""
    found = re.search(r"^strict \(.*?\.$", shown, re.MULTILINE | re.DOTALL)
    return " ".join(found.group().split()) if found else ""


# ---- strict ----------------------------------------------------------------------------------------------


def test_compare_on_the_strict_device_ends_as_on_numpy(capsys: Capture) -> None:
    """Oracle: the losses on NumPy; the sentence at the end is there on the device alone."""
    losses = {}
    for name in ("numpy", "strict"):
        words = ["compare", "--recipes", "fp32,mixed-fp16", "--experiment", "loss-scaling", "--backend", name]
        assert main([*words, "--json", f"{name}.json", *QUICK]) == 0
        shown = capsys.readouterr().out
        assert bool(line_of_work(shown)) is (name == "strict")
        assert max(map(len, shown.splitlines())) <= 100
        made = json.loads(Path(f"{name}.json").read_text())
        assert ("device" in made) is (name == "strict")
        recipes = made["experiments"]["loss-scaling"]["recipes"]
        losses[name] = np.array([recipes[recipe]["losses"] for recipe in ("fp32", "mixed-fp16")])
    assert_close(losses["strict"], losses["numpy"], "layout_fp32")


def test_train_counts_what_a_step_does(capsys: Capture) -> None:
    """Oracle: each report is read, which waits; a batch of 64 x 64 float32 and labels is sent each step."""
    assert main(["train", "--backend", "strict", "--out", "run", "--json", "made.json", *QUICK]) == 0
    said = line_of_work(capsys.readouterr().out)
    device = json.loads(Path("made.json").read_text())["result"]["device"]
    assert device["syncs"] >= 6
    assert device["to_device_bytes"] >= 6 * (64 * 64 * 4)
    assert f"per step: {device['syncs'] / 6:.1f} waits of the host, " in said
    assert f"{device['allocations'] / 6:,.0f} arrays made" in said


@pytest.mark.parametrize(("first", "second"), [("strict", "numpy"), ("numpy", "strict")])
def test_a_run_goes_on_on_another_backend(first: str, second: str, capsys: Capture) -> None:
    """Oracle: a run on NumPy that was never interrupted."""
    assert main(["train", "--backend", first, "--out", "moved", "--steps", "3", "--quiet"]) == 0
    assert main(["train", "--resume", "moved", "--backend", second, "--steps", "6", "--quiet"]) == 0
    assert f"saved on {first}, going on on {second}" in capsys.readouterr().err
    assert main(["train", "--out", "straight", *QUICK]) == 0
    made, expected = (mp.load(f"{run}/weights.safetensors") for run in ("moved", "straight"))
    assert made.keys() == expected.keys()
    for name in expected:
        assert_close(made[name], expected[name], "layout_fp32")
    assert "saved on" not in capsys.readouterr().err


def test_a_run_stays_on_its_backend_unless_told(capsys: Capture) -> None:
    """Oracle: the counting, which only the strict device does."""
    assert main(["train", "--backend", "strict", "--out", "run", "--steps", "2", "--quiet"]) == 0
    assert main(["train", "--resume", "run", "--steps", "4", "--quiet", "--json", "made.json"]) == 0
    assert "device" in json.loads(Path("made.json").read_text())["result"]
    assert capsys.readouterr().err == ""


def test_memory_measures_a_step_on_the_strict_device(capsys: Capture) -> None:
    """Oracle: tracemalloc within 2 %, as its arrays are NumPy's; the forecast, to the byte."""
    words = ["memory", "--measure", "--recipes", "mixed-fp16", "--backend", "strict", "--json", "made.json"]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "physical: what the strict device holds" in shown
    assert "twins" not in shown
    made = json.loads(Path("made.json").read_text())
    measured = made["measured"]["mixed-fp16"]
    assert made["forecast"]["mixed-fp16"] == {name: measured[name] for name in made["forecast"]["mixed-fp16"]}
    assert measured["witness"] == "tracemalloc"
    for moment, traced in measured["traced"].items():
        assert measured["moments"][moment]["total"] == pytest.approx(traced, rel=0.02)


def test_memory_says_that_there_is_no_gpu_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Oracle: exit code 2 and no line of a table; the forecast alone needs none."""
    monkeypatch.delitem(backends.MADE, "cupy", raising=False)
    monkeypatch.setitem(backends.BACKENDS, "cupy", "minimp_backends.not_there:CupyBackend")
    assert main(["memory", "--backend", "cupy", "--measure"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "backend 'cupy' cannot run here" in shown.err
    assert main(["memory", "--backend", "cupy", "--recipes", "mixed-fp16"]) == 0
    assert "physical: what a GPU holds" in capsys.readouterr().out


# ---- what is said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["compare", "train", "bench", "memory"])
def test_help_names_the_backends(command: str, capsys: Capture) -> None:
    """Oracle: the three that compute; 100 columns."""
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"--backend NAME\s+where to compute: numpy, cupy .*strict", shown, re.DOTALL)
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("memory --backend strickt", "unknown backend to forecast 'strickt'; did you mean 'strict'?"),
        ("memory --measure --backend shapes", "unknown backend to forecast 'shapes'"),
        ("train --backend cupy-shapes", "--backend cupy-shapes computes no values"),
        ("train --backend shapes", "--backend shapes computes no values"),
    ],
)
def test_refusals(words: str, said: str, capsys: Capture) -> None:
    """Oracle: exit code 2, and one line with what can be done."""
    assert main(words.split()) == 2
    assert said in capsys.readouterr().err


# ---- a memory pool ---------------------------------------------------------------------------------------


class Pool:
    """A pool that holds what it is told."""

    def __init__(self) -> None:
        self.used = self.peak = 1000

    def reset_peak(self) -> None:
        """Forget the peak."""
        self.peak = self.used

    def hold(self, count: int) -> None:
        """Hold so many bytes."""
        self.used, self.peak = count, max(self.peak, count)

    def figures(self) -> PoolFigures:
        """Return what it holds."""
        return PoolFigures(self.used, self.peak, 9000, None)


def test_a_pool_is_asked_for_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: bytes that the pool was told; what was before the block is not the block's peak."""
    pool, strict = Pool(), get_backend("strict")
    pool.hold(8000)
    pool.hold(1000)
    monkeypatch.setattr(type(strict), "memory", pool, raising=False)
    with mp.use_backend("strict"), watching_device() as work:
        pool.hold(3 * 1024)
        pool.hold(10)
    assert work.as_dict()["pool_peak_bytes"] == 3 * 1024
    assert work.text("cupy", 1).endswith("memory pool: 3.0 K at its peak, 8.8 K taken from the GPU")


def test_how_far_a_pool_rises() -> None:
    """Oracle: bytes that the pool was told during the call, above those at its start."""
    pool = Pool()

    def call() -> None:
        pool.hold(5000)
        pool.hold(2000)

    pool.hold(9000)  # before
    pool.hold(1000)
    witness = PoolWitness(pool)
    assert (witness.rise(call), witness.used()) == (4000, 2000)


def test_what_is_said_of_a_step() -> None:
    """Oracle: made-up counts over four steps, by hand; what nobody counts is not said."""
    counts = Counts(
        syncs=2, to_device=4, to_device_bytes=8192, to_host=6, to_host_bytes=1024, allocations=40,
        allocated_bytes=4 << 20,
    )  # fmt: skip
    assert DeviceWork(counts).text("strict", 4) == (
        "strict (a device for tests, whose times say nothing), per step: 0.5 waits of the host, 1.0 copies "
        "to the device (2.0 K), 1.5 back (0.2 K), 10 arrays made (1.0 M)"
    )
    counts.allocations = 0
    assert DeviceWork(counts).text("cupy", 4).startswith("cupy, per step: 0.5 waits")
    assert "arrays made" not in DeviceWork(counts).text("cupy", 4)


def test_on_the_host_there_is_nothing_to_count() -> None:
    """Oracle: no sentence and no figures; nor without a step."""
    with watching_device() as work:
        pass
    assert (work.text("numpy", 4), work.as_dict()) == ("", {})
    counts: Any = SimpleNamespace(syncs=1)
    assert DeviceWork(counts).text("strict", 0) == ""


@pytest.mark.parametrize(
    ("words", "help_"),
    [
        ("train --recipe mixed-bf16 --out run", "use float16 or float32 on this GPU"),
        ("compare --json made.json", "for example --recipes fp32,fp16,mixed-fp16"),
    ],
)
def test_a_recipe_that_the_chip_cannot_multiply_leaves_no_file(
    words: str, help_: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Oracle: a chip of 7.5, Turing: exit code 2, nothing printed, nothing written, nothing trained."""
    monkeypatch.setitem(backends.MADE, "cupy", CupyBackend(gpu_on_strict(75)))
    assert main([*words.split(), "--backend", "cupy", *QUICK]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "(compute capability 7.5) does not multiply bfloat16" in shown.err
    assert help_ in shown.err
    assert list(Path().iterdir()) == []
