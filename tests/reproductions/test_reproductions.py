"""Reproductions; oracles: planted measures, the digits, faults planted in a setting, and the JSON itself."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.cli import main
from minimp.cli import reproduce as command
from minimp.data import TrainTest, digits
from minimp.errors import SettingError
from minimp.named import Named
from minimp.reproductions import (
    REPRODUCTIONS,
    Bar,
    Bench,
    Reproduction,
    bfloat16,
    chunked_sums,
    flush_to_zero,
    loss_scaling,
    master_weights,
    reproduce,
)
from minimp.reproductions.record import figures_of

NAN = float("nan")
TINY = 0.01
CHEAP = ("chunked-sums", "mx-formats", "fp8-promotion")
KEPT: dict[str, dict[str, float]] = {
    "master-weights": {
        "fp32": 80.0, "FP32 masters": 80.2, "FP16 weights": 25.0, "updates swallowed": 92.0,
    },
    "loss-scaling": {
        "fp32": 0.03, "fp16, S = 1": 0.09, "fp16, S = 1024": 0.0301, "fp16, dynamic S": 0.0299,
        "gradients flushed at S = 1": 90.0,
    },
    "flush-to-zero": {
        "fp32": 0.03, "with subnormals, S = 1": 0.03, "flushed, S = 1": 0.7, "flushed, dynamic S": 0.03,
    },
    "chunked-sums": {"plain": 25.0, "chunks of 64": 99.5, "stochastic": 101.0},
    "bf16-training": {
        "classifier, fp32": 96.0, "classifier, bf16": 96.1, "auto-encoder, fp32": 0.03,
        "auto-encoder, bf16": 0.0301,
    },
    "bf16-updates": {
        "fp32": 96.0, "nearest": 60.0, "Kahan": 96.0, "stochastic": 95.9, "swallowed, nearest": 93.0,
    },
    "fp8-scaling": {
        "fp32": 0.03, "unscaled": 0.08, "loss scale 65536": 0.0301, "a scale a tensor": 0.031,
        "gradients flushed, unscaled": 85.0,
    },
    "mx-formats": {
        "mxint8": 41.6, "mxfp8_e4m3": 30.7, "mxfp6_e2m3": 31.0, "mxfp8_e5m2": 25.3, "mxfp4": 18.8,
        "int8, one scale": 38.9, "mxint8, an outlier channel": 35.0,
        "int8, one scale, an outlier channel": 19.0,
    },
    "fp8-promotion": {"K = 512": 0.06, "K = 4096": 0.3, "K = 4096, promoted": 0.015},
    "int8-ranges": {
        "fp32": 96.0, "int8, as trained": 95.9, "int8, unequal channels": 30.0,
        "the same, a scale a channel": 85.0, "the same, equalized": 95.9,
    },
}  # fmt: skip
"""Measures that keep every bar."""
SPOILT: dict[str, dict[str, float]] = {
    "master-weights": {"FP16 weights": 80.0},
    "loss-scaling": {"fp16, S = 1": 0.03},
    "flush-to-zero": {"flushed, S = 1": 0.03},
    "chunked-sums": {"plain": 99.0},
    "bf16-training": {"classifier, bf16": 90.0},
    "bf16-updates": {"stochastic": 60.0},
    "fp8-scaling": {"a scale a tensor": 0.08},
    "mx-formats": {"mxint8, an outlier channel": 20.0},
    "fp8-promotion": {"K = 4096, promoted": 0.3},
    "int8-ranges": {"the same, equalized": 30.0},
}
"""What makes a claim fail."""
WEAKER: dict[str, dict[str, float]] = {
    "master-weights": {"FP16 weights": 70.0},
    "loss-scaling": {"fp16, S = 1": 0.045},
    "flush-to-zero": {"flushed, S = 1": 0.045},
    "chunked-sums": {"plain": 60.0},
    "bf16-training": {"auto-encoder, bf16": 0.0315},
    "bf16-updates": {"Kahan": 95.2},
    "fp8-scaling": {"a scale a tensor": 0.0335},
    "mx-formats": {"mxfp4": 17.5},
    "fp8-promotion": {"K = 4096, promoted": 0.06},
    "int8-ranges": {"int8, unequal channels": 80.0},
}
"""What leaves the effect, and makes it less."""


@pytest.fixture(scope="module")
def data() -> TrainTest:
    """Return the digits."""
    return TrainTest(digits("train", shape="image"), digits("test", shape="image"))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what puts a reproduction with planted measures in the place of all."""

    def plant(*changes: dict[str, float] | BaseException) -> None:
        rows = []
        for number, change in enumerate(changes):
            one = replace(REPRODUCTIONS["chunked-sums"], name=f"planted-{number}", run=_giving(change))
            rows.append(one)
        monkeypatch.setattr(command, "REPRODUCTIONS", Named("reproduction", *rows))

    return plant


def _giving(change: dict[str, float] | BaseException) -> Any:
    def run(_seed: int, _bench: Bench) -> dict[str, float]:
        if isinstance(change, BaseException):
            raise change
        return KEPT["chunked-sums"] | change

    return run


# ---- the judge ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_the_judge_on_planted_measures(name: str) -> None:
    """Oracle: measures written by hand, kept, weaker, spoilt, and NaN; each reproduction has all of them."""
    one = REPRODUCTIONS[name]
    assert set(KEPT[name]) == set(one.units)
    for change, verdict in (({}, "reproduced"), (WEAKER[name], "weaker"), (SPOILT[name], "not reproduced")):
        assert one.judge([KEPT[name] | change])[0] == verdict
    for measure in SPOILT[name]:
        assert one.judge([KEPT[name] | {measure: NAN}])[0] == "not reproduced"


def test_misses_to_either_side_do_not_cancel() -> None:
    """Oracle: seeds that miss by +5 and by -5 points miss by 5, though their means agree."""
    seeds = [KEPT["bf16-updates"] | {"Kahan": 96.0 + miss} for miss in (5.0, -5.0)]
    verdict, found = REPRODUCTIONS["bf16-updates"].judge(seeds)
    assert verdict == "not reproduced"
    assert found[1].value == 5.0


@pytest.mark.parametrize(("at_least", "verdicts"), [(True, "nwr"), (False, "rwn")])
def test_the_sides_of_a_bar(at_least: bool, verdicts: str) -> None:
    """Oracle: limits of 2 and 1 (or 1 and 2), the figures 0.5, 1.5, 2.5, and the limits themselves."""
    limit, weak = (2.0, 1.0) if at_least else (1.0, 2.0)
    bar = Bar("a figure", lambda m: m["x"], limit, weak, at_least=at_least)
    assert "".join(bar.judge([{"x": x}]).verdict[0] for x in (0.5, 1.5, 2.5)) == verdicts
    assert [bar.judge([{"x": x}]).verdict for x in (limit, weak)] == ["reproduced", "weaker"]
    with pytest.raises(SettingError, match="stricter than the limit"):
        Bar("a figure", lambda m: m["x"], weak, limit, at_least=at_least)


def test_mean_and_spread() -> None:
    """Oracle: 1, 2, 6 have the mean 3 and the sample variance (4 + 1 + 9) / 2; one value has no spread."""
    figure = figures_of([{"x": 1.0}, {"x": 2.0}, {"x": 6.0}])["x"]
    assert (figure.mean, figure.spread, figure.values) == (3.0, math.sqrt(7.0), (1.0, 2.0, 6.0))
    assert math.isnan(figures_of([{"x": 1.0}])["x"].spread)
    with pytest.raises(SettingError, match="at least one seed"):
        figures_of([])


# ---- the reproductions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_each_runs_and_says_all_it_should(name: str, data: TrainTest) -> None:
    """Oracle: the record: a finite figure for each unit, an arXiv number, progress from 0 to 1."""
    one, told = REPRODUCTIONS[name], []
    result = reproduce(one, Bench(data, TINY), seeds=1, tell=lambda what, done: told.append((what, done)))
    assert list(result.figures) == list(one.units)
    assert all(math.isfinite(figure.mean) for figure in result.figures.values())
    assert re.fullmatch(r"\d{4}\.\d{5}", one.paper.arxiv)
    assert len(one.claim.split()) > 15
    assert len(one.setting.split()) > 15
    assert told
    assert all(what.startswith("seed 1 of 1: ") and 0 <= done <= 1 for what, done in told)


def test_the_seed_decides(data: TrainTest) -> None:
    """Oracle: the same seed gives the same bits, another one others."""
    one, bench = REPRODUCTIONS["bf16-updates"], Bench(data, TINY)
    first, again, other = (one.run(seed, bench) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("seeds", [0, -1, 1001, True, 2.0])
def test_seeds_that_cannot_be(seeds: Any, data: TrainTest) -> None:
    """Oracle: the message."""
    with pytest.raises(SettingError, match="seeds must be a whole number from 1 to 1,000"):
        reproduce(REPRODUCTIONS["mx-formats"], Bench(data, TINY), seeds=seeds)


def test_the_running_sum_of_ones_stalls_at_1024() -> None:
    """Oracle: with 9 mantissa bits 1024 + 1 lies half way to 1026, and the tie goes to the even 1024."""
    assert chunked_sums.running_sum(np.ones(1500)) == 1024.0


def test_layers_flush_both_ways_and_only_inside() -> None:
    """Oracle: 2^-14 stays and half of it goes, forward and backward, in FP16 alone, in the region alone."""
    edge, layer = 2.0**-14, nn.ReLU()

    def both(dtype: str) -> tuple[list[float], list[float]]:
        x = mp.tensor([edge, edge / 2], dtype=dtype, requires_grad=True)
        y = layer(x)
        y.backward(mp.tensor([edge / 2, edge], dtype=dtype))
        assert x.grad is not None
        return y.tolist(), x.grad.tolist()

    whole = ([edge, edge / 2], [edge / 2, edge])
    with flush_to_zero.flushing():
        assert both("float16") == ([edge, 0.0], [0.0, edge])
        assert both("float32") == whole
    assert both("float16") == whole


# ---- real runs, and faults planted in them -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHEAP, "loss-scaling", "bf16-updates", "flush-to-zero"])
def test_claims_that_are_reproduced(name: str, data: TrainTest) -> None:
    """Oracle: the bars, on one seed of the real setting."""
    assert reproduce(REPRODUCTIONS[name], Bench(data), seeds=1).verdict == "reproduced"


FAULTS = {
    "master-weights": (master_weights, "NONE", master_weights.MASTERS),
    "loss-scaling": (loss_scaling, "SETTING", loss_scaling.SETTING.with_(accumulate_steps=1)),
    "bf16-updates": (bfloat16, "WEIGHTS", {**bfloat16.WEIGHTS, "stochastic": "bf16"}),
    "chunked-sums": (chunked_sums, "FP16_169", mp.formats.make(8, 23)),
}
"""Masters where there should be none, gradients that FP16 holds, rounding to nearest, sums that are long."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_setting_is_not_a_success(
    name: str, data: TrainTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the fault: what the claim needs is switched off."""
    module, what, wrong = FAULTS[name]
    monkeypatch.setattr(module, what, wrong)
    assert reproduce(REPRODUCTIONS[name], Bench(data), seeds=1).verdict == "not reproduced"


# ---- the command -------------------------------------------------------------------------------------------


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the catalogue; nothing runs, with --list and without."""
    for arguments in ([], ["--list"]):
        assert main(["reproduce", *arguments]) == 0
        shown = capsys.readouterr().out
        assert all(name in shown and one.paper.arxiv in shown for name, one in REPRODUCTIONS.items())


def test_the_screen_and_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the record, the file, and the width."""
    file = tmp_path / "figures.json"
    assert main(["reproduce", "mx-formats", "--seeds", "2", "--json", str(file)]) == 0
    shown, one = capsys.readouterr().out, REPRODUCTIONS["mx-formats"]
    assert max(map(len, shown.splitlines())) <= 100
    flat = " ".join(shown.split())
    assert all(text in flat for text in (str(one.paper), one.claim, one.setting, *map(str, one.criterion)))
    assert "Verdict: reproduced" in flat
    assert "standard deviation over 2 seeds" in flat
    (result,) = json.loads(file.read_text("utf-8"))["results"]
    assert result["paper"]["arxiv"] == "2310.10537"
    assert result["seeds"] == [0, 1]
    for name, measure in result["measures"].items():
        assert measure["mean"] == pytest.approx(sum(measure["values"]) / 2)
        assert f"{measure['mean']:.4g}" in shown
        assert measure["unit"] == one.units[name]
    assert [each["what"] for each in result["criterion"]] == [bar.what for bar in one.criterion]


def test_the_exit_code_is_that_of_the_worst(planted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: planted measures: all kept 0, one weaker or not reproduced 1."""
    planted({}, {})
    assert main(["reproduce", "all", "--seeds", "1"]) == 0
    for change, verdict in ((WEAKER["chunked-sums"], "weaker"), (SPOILT["chunked-sums"], "not reproduced")):
        planted({}, change)
        assert main(["reproduce", "all", "--seeds", "1"]) == 1
        assert f"Verdict: {verdict}" in capsys.readouterr().out


def test_ctrl_c_leaves_a_clear_end(planted: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the first is shown, what has no verdict is named, no file is left, and the code is 130."""
    planted({}, KeyboardInterrupt(), {})
    assert main(["reproduce", "all", "--seeds", "1", "--json", str(tmp_path / "a.json")]) == 130
    said = capsys.readouterr()
    assert "Interrupted. Of 3, 1 ended; without a verdict: planted-1, planted-2." in said.out
    assert "Verdict: reproduced" in said.out
    assert "interrupted" in said.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mx-format"], "did you mean 'mx-formats'"),
        (["all", "mx-formats"], "'all' goes without other names"),
        (["mx-formats", "mx-formats"], "given twice"),
        (["--list", "mx-formats"], "the list runs nothing"),
        (["--json", "a.json"], "the list runs nothing"),
        (["mx-formats", "--seeds", "0"], "seeds must be"),
        (["mx-formats", "--data", "elsewhere"], "cannot act"),
        (["loss-scaling", "--data", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_what_cannot_act_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the message, and the exit code 2."""
    assert main(["reproduce", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_records_are_frozen() -> None:
    """Oracle: an assignment to a criterion raises."""
    one: Reproduction = REPRODUCTIONS["mx-formats"]
    with pytest.raises(AttributeError):
        one.criterion = ()  # type: ignore[misc]  # what is tested
