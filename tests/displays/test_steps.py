"""Stages, checks, reports, quantised tensors and traces in notebooks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.checks.findings import Finding, Findings
from minimp.quant import Affine, QTensor
from minimp.step import STAGES, Stage, StepReport
from tests.displays.test_values import EVIL, read


def make_step(scale: float = 1024.0) -> mp.TrainStep:
    """A step of a small model."""
    model = mp.nn.Sequential(mp.nn.Linear(8, 16), mp.nn.ReLU(), mp.nn.Linear(16, 4))
    optimizer, scaler = mp.optim.SGD(model.parameters(), lr=0.1), mp.GradScaler(init_scale=scale)
    return mp.TrainStep(model, mp.functional.cross_entropy, optimizer, "mixed-fp16", scaler=scaler)


def stages(scale: float = 1024.0) -> Iterator[Stage]:
    """The stages of one step, as cells of a notebook take them."""
    rng = np.random.default_rng(0)
    return make_step(scale).stages(rng.normal(size=(32, 8)).astype(np.float32), rng.integers(0, 4, 32))


def test_a_step_can_be_walked_in_cells() -> None:
    """Oracle: the table of stages; each shows its equation, its tensors by name, and its check."""
    walk = stages()
    for name, equation in STAGES.items():
        stage = next(walk)
        made = read(stage)
        assert name in made.words
        assert equation in made.words
        assert all(each in made.words for each in stage.tensors)
        assert "ok" in read(stage.check()).words


def test_a_stage_counts_what_is_wrong() -> None:
    """Oracle: NumPy's counts in the gradients of a step whose scale overflows."""
    for stage in stages(2.0**24):
        if stage.name != "unscale":
            continue
        made = read(stage)
        assert "loss_scale = 16,777,216" in made.words
        bad = 0
        for name, tensor in stage.tensors.items():
            host = np.asarray(tensor.array)
            at = made.words.index(name)
            shown = made.words[at + 5 : at + 10]
            counts = (host == 0).sum(), 0, "-", np.isinf(host).sum(), np.isnan(host).sum()
            assert [shown[0], *shown[2:]] == [f"{counts[0]:,}", "-", *(f"{each:,}" for each in counts[3:])]
            bad += int(counts[3] + counts[4])
        assert bad > 0


def test_a_stage_tells_what_the_casts_flushed() -> None:
    """Oracle: parameters too small, and too large, for float16: each is counted."""
    step = make_step()
    weights = dict(step.model.named_parameters())
    for name, value in (("2.weight", 1e-9), ("0.weight", 1e9)):
        weights[name].array = np.full(weights[name].shape, value, np.float32)
    stage = next(step.stages(np.ones((2, 8), np.float32), np.array([0, 1])))
    made = read(stage)
    at = made.words.index("2.weight")
    # format, shape, smallest, largest, zeros, subnormal, flushed
    assert made.words[at + 1 : at + 8] == ["float16", "(4, 16)", "0", "0", "64", "0", "64"]
    at = made.words.index("0.weight")
    assert made.words[at + 1 : at + 10] == ["float16", "(16, 8)", "-", "-", "0", "0", "0", "128", "0"]


def test_a_report_names_what_was_not_finite() -> None:
    """Oracle: a report made by hand, with markup for a name."""
    made = read(StepReport(2.5, 65536.0, True, ("layer.weight", EVIL), float("nan")))
    assert {"skipped", "2.5", "65,536", "nan"} <= set(made.words)
    assert f"layer.weight, {EVIL}" in made.text
    assert "updated" in read(StepReport(2.5, 1.0, False, (), 1.0)).words


def test_names_are_text_everywhere() -> None:
    """Oracle: the parser finds no script element, and the name as it was written."""
    wrong = tuple(Finding(EVIL, EVIL, EVIL, EVIL) for _ in range(40))
    made = read(Findings(EVIL, wrong, (EVIL,), 3), 20_000)
    assert made.text.count(EVIL) == 2 + 4 * 10
    assert "and 30 more" in made.text
    tensor = mp.tensor([1.0])
    stage = Stage(EVIL, EVIL, {EVIL: tensor}, {EVIL: EVIL}, (), lambda _: Findings(""))
    assert read(stage).text.count(EVIL[:20]) >= 4


def test_a_stage_with_many_tensors_stays_small() -> None:
    """Oracle: 500 parameters with long names: some KB, and the rest counted."""
    tensors = {f"{'encoder.' * 20}{i}": mp.tensor(np.ones((4, 4), np.float32)) for i in range(500)}
    made = read(
        Stage("update", "w", tensors, {"many": {i: i for i in range(999)}}, (), lambda _: Findings("")),
        24_000,
    )
    assert "and 484 more tensors" in made.text


def test_a_quantised_tensor_shows_codes_and_numbers() -> None:
    """Oracle: codes and numbers by the tensor's own methods; those at the ends counted by NumPy."""
    held = QTensor.of(np.float32([[-9.0, 0.0, 0.25, 9.0]]), Affine(0.02, 3))
    made = read(held)
    assert [str(code) for code in held.codes[0]] == [
        word for word in made.words if word.lstrip("-").isdigit()
    ][:4]
    assert [title.split(":")[0] for title in made.titles] == [repr(float(x)) for x in held.dequantize()[0]]
    assert (
        sum("at the end" in title for title in made.titles)
        == int(np.isin(held.codes, (-128, 127)).sum())
        == 2
    )


@pytest.mark.parametrize("rows", [0, 5, 200])
def test_a_table_shows_its_first_rows(rows: int) -> None:
    """Oracle: the table itself."""
    table = trace.Table(EVIL, ("op", EVIL), tuple((f"op{i}", i / 7) for i in range(rows)), (EVIL,))
    made = read(table)
    assert made.text.count(EVIL) == (3 if rows else 2)
    assert sum(word.startswith("op") and word != "op" for word in made.words) == min(rows, 20)


def test_a_trace_sums_itself_up() -> None:
    """Oracle: its own questions: what was flushed and what overflowed; ops with their counts."""
    x = mp.tensor([1e-4, 300.0, 1.0], dtype="float16", requires_grad=True)
    with trace.record() as seen:
        (x * x).sum().backward()
    made = read(seen)
    assert "1 result flushed to 0, 1 overflowed" in made.text
    assert {"mul", "sum", "mul backward", "sum backward"} <= set(made.words)


def test_a_trace_that_looked_at_nothing_claims_nothing() -> None:
    """Oracle: recordings without statistics and without events: no word of what was not counted."""
    step = make_step(2.0**24)
    with trace.record(statistics=False) as blind:
        step(np.ones((2, 8), np.float32), np.array([0, 1]))
    with trace.record() as nothing:
        pass
    for seen, told in ((blind, "no statistics were taken"), (nothing, "no op ran while it was open")):
        made = read(seen)
        assert told in made.text
        assert "finite" not in made.text.replace("first_nonfinite", "")
        assert "flushed" not in made.text
    assert "cast" in read(blind).words
