"""What `minimp compare` shows; oracles: widths of lines, made-up figures by hand, escape codes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from minimp.cli.compare import show, show_legend, table
from minimp.data import TrainTest, digits
from minimp.experiments import EXPERIMENTS
from minimp.recipe import recipes
from minimp.verdicts import verdict
from tests.cli.processes import on_a_terminal, process
from tests.experiments.outcomes import outcome


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out what the caller's terminal says of colours."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


def rows_of(*made: Any) -> list[tuple[Any, str]]:
    """Return outcomes with verdicts beside the first."""
    return [(each, verdict(each, made[0])) for each in made]


COUNTS = st.integers(0, 2**45)


@given(
    st.sampled_from(["test_accuracy", "test_loss", "test_bits"]),
    st.floats(0, 1e300),
    st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
    st.integers(0, 10**9),
    st.floats(1e-4, 1e3),
)
def test_the_table_keeps_within_100_columns(
    metric: str, score: float, sizes: tuple[int, ...], skipped: int, seconds: float
) -> None:
    """Oracle: the width of every line, and every figure whole, for any figures up to 32 TiB."""
    score = min(score, 1.0) if metric == "test_accuracy" else score
    held = dict(zip(("weights", "master", "optimizer", "activations"), sizes, strict=True))
    wild = outcome(
        "bf16-stochastic", score, metric, bytes=held, skipped_steps=skipped, seconds_per_step=seconds
    )
    lines = screen_of(rows_of(outcome("fp32", 0.9, metric), wild), metric, width=100)
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)
    assert any(re.match(rf"bf16-stochastic .* {skipped:,} ", line) for line in lines)


def screen_of(rows: Sequence[Any], metric: str, width: int, **options: Any) -> list[str]:
    """Return the lines that an experiment's result takes on a screen."""
    name = "master-weights" if metric == "test_accuracy" else "loss-scaling"
    chosen = replace(EXPERIMENTS[name], recipes=tuple(each.recipe for each, _ in rows))
    data = TrainTest(digits("train"), digits("test"))
    screen = Console(width=width, record=True, file=open(os.devnull, "w"), **options)  # noqa: SIM115 - rich's
    with screen.file:
        show(screen, chosen, rows, data)
        show_legend(screen)
        return screen.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 90, 94, 100])
def test_common_screens_show_every_figure(width: int) -> None:
    """Oracle: nothing is cut off on a terminal of 80 columns or more; no line is wrapped a second time."""
    sizes = {"weights": 104448, "master": 208896, "optimizer": 208896, "activations": 84992}
    made = [outcome(name, 0.804, bytes=sizes, swallowed_updates=1.0, underflow_share=1.0) for name in recipes]
    lines = screen_of(rows_of(*made), "test_accuracy", width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    row = next(line for line in lines if line.startswith("bf16-stochastic"))
    assert row.split() == [
        "bf16-stochastic", "80.4%", "102.0K", "204.0K", "204.0K", "83.0K", "0", "100.0%", "100.0%", "1.00x"
    ]  # fmt: skip
    said = lines[
        next(i for i, line in enumerate(lines) if line.startswith("fp32 ") and "reference" in line) :
    ]
    for line in said[: said.index("")]:
        assert line.split()[0] in recipes or line.startswith(" " * 18)


def test_the_columns_of_the_table() -> None:
    """Oracle: each figure of a made-up outcome under its head, by hand."""
    reference = outcome("fp32", 0.03276, "test_loss", seconds_per_step=0.002)
    sizes = {"weights": 1536, "master": 3072, "optimizer": 5 * 2**20, "activations": 3 * 2**30}
    other = outcome(
        "fp16-master", 0.0912, "test_loss", bytes=sizes, skipped_steps=1234, underflow_share=0.911,
        swallowed_updates=0.175, seconds_per_step=0.003,
    )  # fmt: skip
    screen = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115 - closed below
    with screen.file:
        screen.print(table(rows_of(reference, other), "fp32"))
        heads, first, second = screen.export_text().splitlines()
    assert re.split(r"\s{2,}", heads.strip()) == [
        "recipe", "test loss", "weights", "masters", "optim.", "saved", "skipped", "flushed", "swallowed",
        "time",
    ]  # fmt: skip
    assert first.split() == ["fp32", "0.03276", "1.0K", "-", "2.0K", "0.5K", "0", "0.0%", "0.0%", "1.00x"]
    assert second.split() == [
        "fp16-master", "0.0912", "1.5K", "3.0K", "5.0M", "3.0G", "1,234", "91.1%", "17.5%", "1.50x"
    ]  # fmt: skip


def test_a_terminal_has_bars_and_colours_and_a_pipe_has_none() -> None:
    """Oracle: escape codes; a bar for each recipe while it runs; with NO_COLOR no colour; quiet, no bars."""
    options = ("--experiment", "master-weights", "--recipes", "fp32,bf16", "--steps", "20", "--batch", "8")
    code, shown = on_a_terminal("compare", *options, TERM="xterm-256color", COLUMNS="100")
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    for name in ("fp32", "bf16"):
        assert re.search(rf"{name} +━+ 20/20 loss +\d\.\d{{4}} S 1 0:00:\d\d", plain)
    assert "\x1b[1mmaster-weights\x1b[0m" in shown
    code, shown = on_a_terminal(
        "compare", *options, "--quiet", TERM="xterm-256color", COLUMNS="100", NO_COLOR="1"
    )
    assert code == 0
    assert "20/20" not in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)
    piped = process("compare", *options)
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "\x1b" not in piped.stdout
    assert "master-weights: what an FP32 master copy" in piped.stdout
