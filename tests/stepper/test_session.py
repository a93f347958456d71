"""Going through a step changes nothing about it, and going back restores every bit."""

from __future__ import annotations

import gc
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import stepper
from minimp.errors import DataError, SettingError
from minimp.step import STAGES, TrainStep
from minimp.stepper.edits import Edit, parse_edit
from minimp.stepper.session import Session
from tests.trace.cases import batch, grown, make_step

HARD = ("mixed-fp16", "mixed-layerwise", "bf16-stochastic", "bf16-kahan", "mixed-fp8", "fp16-scaled")
"""Recipes with state of their own: scalers, random roundings, compensations, FP8 histories, masters."""


def small(recipe: str = "mixed-fp16", **options: Any) -> Session:
    """A small classifier with dropout, over three batches."""
    step = make_step(recipe, scale=options.pop("scale", 1024.0), **options)
    return Session(step, [batch(seed) for seed in range(3)])


def layered(recipe: str) -> TrainStep:
    """A step whose model has state besides weights: batch statistics, dropout."""
    mp.manual_seed(5)
    model = mp.nn.Sequential(
        mp.nn.Linear(12, 16), mp.nn.BatchNorm1d(16), mp.nn.ReLU(), mp.nn.Dropout(0.25), mp.nn.Linear(16, 4)
    )
    return TrainStep(model, mp.functional.cross_entropy, mp.optim.Adam(model.parameters(), lr=0.01), recipe)


@pytest.mark.parametrize("recipe", list(mp.recipes))
def test_stepping_through_equals_running_the_step(recipe: str) -> None:
    """Oracle: the same two steps called plainly; bit for bit, in every recipe, and so are the reports."""
    batches = [batch(0), batch(1)]
    plain, walked = layered(recipe), None
    mp.manual_seed(7)
    reports = [plain(*each) for each in batches]
    step = layered(recipe)
    mp.manual_seed(7)
    with Session(step, batches) as session:
        losses = []
        for _ in batches:
            while session.done < len(STAGES) or not session.at_end:
                session.next_op()
            losses.append(session.run.state.loss.item())
            if session.number == 1:
                session.next_op()
        walked = session.fingerprint()
        mp.manual_seed(7)
    fresh = layered(recipe)
    mp.manual_seed(7)
    for each in batches:
        fresh(*each)
    assert walked == stepper.fingerprint(fresh)
    assert losses == [report.loss for report in reports]


@pytest.mark.parametrize("recipe", HARD)
def test_stepping_back_restores_every_bit(recipe: str) -> None:
    """Oracle: the hashes of the state that were taken on the way forward, over two steps and all stages."""
    mp.manual_seed(7)
    with Session(layered(recipe), [batch(0), batch(1)]) as session:
        hashes = [session.fingerprint()]
        for _ in range(2 * len(STAGES)):
            session.next_stage()
            hashes.append(session.fingerprint())
        assert len(set(hashes)) > 6  # states differ: the comparison can fail
        for known in reversed(hashes[:-1]):
            session.back()
            assert session.fingerprint() == known
        with pytest.raises(SettingError, match="this is the beginning"):
            session.back()
        assert session.fingerprint() == hashes[0]


def test_the_fingerprint_sees_each_part_of_the_state() -> None:
    """Oracle: one bit, one count, one draw changed by hand."""
    step = make_step("mixed-fp8")
    step(*batch())
    seen = [stepper.fingerprint(step)]
    assert stepper.fingerprint(step) == seen[0]
    weight = step.model[0].weight

    def flip() -> None:
        bits = weight.array.copy()
        bits.view(np.uint32)[0, 0] ^= 1
        weight.array = bits

    def grow_history() -> None:
        state = step.model[0].fp8_state.tensors["input"]
        state.amax_history = state.amax_history + np.float32(1)

    def shift_moment() -> None:
        step.optimizer.state[weight]["exp_avg"] = step.optimizer.state[weight]["exp_avg"] + np.float32(1)

    def slower() -> None:
        step.optimizer.param_groups[0]["lr"] = 0.5

    def skip() -> None:
        step.optimizer.skip_step()

    for change in (flip, grow_history, shift_moment, slower, skip, lambda: mp.rand(1), step.model.zero_grad):
        change()
        seen.append(stepper.fingerprint(step))
    assert len(set(seen)) == len(seen)
    scaled = make_step()
    before = stepper.fingerprint(scaled)
    scaled.scaler.advance(True)
    assert stepper.fingerprint(scaled) != before


OPTIMIZERS = {
    "momentum": lambda weights: mp.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda weights: mp.optim.AdamW(weights, lr=0.01, amsgrad=True),
}


def everything(step: TrainStep, draws: np.random.Generator) -> dict[str, str]:
    """All that a step may change, to the byte, found without the session's own fingerprint."""
    held: dict[str, Any] = {}
    for name, leaf in (*step.model.named_parameters(), *step.model.named_buffers()):
        held[name], held[f"{name}.grad"] = leaf.array, None if leaf.grad is None else leaf.grad.array
    held |= {"optimizer": step.optimizer.state_dict(), "scaler": step.scaler.state_dict()}
    held |= {"rng": mp.get_rng_state(), "numpy": draws.bit_generator.state, "python": random.getstate()}
    return {name: spelt(value) for name, value in held.items()}


def spelt(value: Any) -> str:
    """Return a nested value as text that has every byte of its arrays."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{spelt(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(spelt, value)) + "]"
    return (
        f"{value.dtype}{value.shape}{value.tobytes().hex()}" if isinstance(value, np.ndarray) else repr(value)
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_back_gives_every_byte_back(optimizer: str) -> None:
    """Oracle: all state on the way forward: momenta, statistics, masks, loss scale, three generators."""
    draws, before = np.random.default_rng(0), random.getstate()

    def loss(y: Any, targets: Any) -> Any:
        noise = random.random() + float(draws.random())
        return mp.functional.cross_entropy(y, targets) * (1.0 + 0.001 * noise)

    mp.manual_seed(5)
    model = mp.nn.Sequential(
        mp.nn.Linear(12, 16), mp.nn.BatchNorm1d(16), mp.nn.ReLU(), mp.nn.Dropout(0.25), mp.nn.Linear(16, 4)
    )
    scaler = mp.GradScaler(init_scale=2.0**20, growth_interval=1)  # steps that are skipped are among them
    step = TrainStep(model, loss, OPTIMIZERS[optimizer](model.parameters()), "mixed-fp16", scaler=scaler)
    try:
        with Session(step, [batch(0), batch(1)]) as session:
            known = [everything(step, draws)]
            for _ in range(4 * len(STAGES)):
                session.next_stage()
                known.append(everything(step, draws))
            for name in ("1.running_mean", "0.weight", "optimizer", "scaler", "rng", "numpy", "python"):
                assert len({each[name] for each in known}) > 1, name
            for wanted in reversed(known[:-1]):
                session.back()
                now = everything(step, draws)
                assert {name for name in wanted if wanted[name] != now[name]} == set()
    finally:
        random.setstate(before)


MOVES = st.lists(
    st.sampled_from(["step", "op", "op 5", "back", "prev", "finish", "run cast", "run nonfinite within 2",
                     "set scale 2^24", "set policy softmax lower", "set value 0.weight[0,1] 1e-3", "undo",
                     "check"]),
    max_size=8,
)  # fmt: skip


@given(moves=MOVES)
@settings(max_examples=25, deadline=None)
def test_any_commands_that_end_in_restart_leave_the_beginning(moves: list[str]) -> None:
    """Law: whatever was done and refused, `restart` is the fresh state, and what follows is the same too."""
    mp.manual_seed(7)
    with small() as session:
        prompt, fresh = stepper.Prompt(session), session.fingerprint()
        for move in moves:
            try:
                prompt.do(move)
            except SettingError:
                continue
        prompt.do("restart")
        assert session.fingerprint() == fresh
        assert (session.number, session.done, session.edits) == (1, 0, [])
        session.finish()
        again = session.fingerprint()
    mp.manual_seed(7)
    plain = make_step()
    plain(*batch(0))
    assert stepper.fingerprint(plain) == again


def test_ops_go_by_one_by_one_forward_and_back() -> None:
    """Oracle: the recorder's own numbers, without a gap; and the same moments on the way back."""
    with small() as session:
        forward = [session.next_op().event for _ in range(60)]
        first = [event.number for event in forward if event.step == 1]
        assert first == list(range(len(first)))
        assert {event.step for event in forward} == {1, 2}
        seen = []
        for _ in range(60):  # one more: the beginning of step 2 lies between
            session.previous_op()
            if session.moment is not None:
                seen.append((session.moment.event.step, session.moment.event.number, session.moment.event.op))
        assert seen == [(e.step, e.number, e.op) for e in reversed(forward[:-1])]
        session.previous_op()
        assert session.moment is None


def test_a_what_if_shows_the_overflow_and_the_skip_and_is_undone() -> None:
    """Oracle: the same step called plainly at 2^24 and at 2^10, its reports and its bits."""
    with small() as session:
        for _ in range(5):
            session.next_stage()
        untouched = session.fingerprint()
        before, after = session.change(parse_edit(["scale", "2^24"], 1, 5))
        assert (before.skipped, after.skipped) == (False, True)
        assert after.loss_scale == 2.0**24
        assert after.next_scale == 2.0**23
        assert after.overflowed > 0 == before.overflowed
        assert "backward" in after.first
        plain = make_step(scale=2.0**24)(*batch(0))
        assert (plain.skipped, plain.nonfinite, plain.loss) == (True, after.nonfinite, after.loss)
        assert (session.number, session.done) == (1, 5)
        assert session.fingerprint() != untouched
        assert session.why() is not None
        assert session.why().by_scaling
        edit, _, now = session.undo()
        assert edit.text == "set scale 2^24"
        assert now == before
        assert session.fingerprint() == untouched
        assert session.why() is None
        with pytest.raises(SettingError, match="nothing to undo"):
            session.undo()


def test_a_change_of_an_earlier_step_is_undone_there() -> None:
    """Oracle: the hashes of the three steps without the change, and those of plain steps with it."""
    with small() as session:
        hashes = []
        for _ in range(3):
            session.finish()
            hashes.append(session.fingerprint())
        session.restart()
        session.next_stage()
        session.change(parse_edit(["policy", "linear", "fp32"], 1, 1))
        assert (session.number, session.done) == (1, 1)
        for _ in range(3):
            session.finish()
        assert session.fingerprint() != hashes[2]
        assert session.step.recipe.policy.name == "torch-cuda (linear: fp32)"
        session.undo()
        assert (session.number, session.done, session.fingerprint()) == (1, len(STAGES), hashes[0])
        session.finish()
        session.finish()
        assert session.fingerprint() == hashes[2]
        assert not any(session.run.said)


def test_changes_of_several_steps_are_undone_in_turn() -> None:
    """Oracle: the hashes without changes; a step that is ahead again is not gone to as it once was."""
    with small() as session:
        hashes = []
        for _ in range(3):
            session.finish()
            hashes.append(session.fingerprint())
        session.change(parse_edit(["scale", "2^24"], 3, 10))
        while session.number > 1:
            session.back()
        session.change(parse_edit(["format", "bfloat16"], 1, session.done))
        assert session.undo()[0].kind == "format"
        edit, before, after = session.undo()
        assert (edit.kind, before, session.number, session.edits) == ("scale", after, 1, [])
        for _ in range(3):
            session.finish()
        assert (session.number, session.fingerprint()) == (3, hashes[2])


def test_a_search_stops_where_the_condition_holds_first() -> None:
    """Oracle: a layer whose weights were multiplied until it overflows float16."""
    step = make_step(change=grown(2, 1.5e5))
    with Session(step, [batch()]) as session:
        found = session.search("nonfinite")
        assert (found.event.op, found.event.module, found.event.stage) == ("linear", "2", "forward")
        assert session.done == 2
        assert session.moment.event == found.event
        assert session.search("op == linear and module == 4").event.module == "4"
        assert session.search("cast").event.op == "cast"
        assert session.search("stage").event.phase == "stage"
        assert session.search("stage == update or op == tanh").event.op == "update"
        assert session.search("op == softmax", steps=3) is None
        assert (session.number, session.done, session.at_end) == (3, len(STAGES), True)
        with pytest.raises(SettingError, match="did you mean"):
            session.search("underflw > 1%")
        with pytest.raises(SettingError, match="--shadow"):
            session.search("ulps > 4")
    with Session(make_step(), [batch()], shadow=True) as session:
        assert session.search("ulps > 0").event.errors


def test_a_model_that_draws_from_elsewhere_is_told_of() -> None:
    """Oracle: a loss that depends on how often it was called, which nothing can restore."""
    calls = iter(range(1, 100))

    def loss(y: Any, targets: Any) -> Any:
        return mp.functional.cross_entropy(y, targets) * float(next(calls))

    with Session(make_step(loss=loss), [batch()]) as session:
        session.finish()
        assert not any(session.run.said)
        session.back()
        assert any("other bits" in text for said in session.run.said for text in said)


def test_what_raises_in_a_stage_leaves_everything_as_it_was() -> None:
    """Oracle: the hash before; and the next try, which goes through."""
    faults = iter([True])  # a list would be put back, so that it would raise again

    def loss(y: Any, targets: Any) -> Any:
        if next(faults, False):
            raise DataError("no such label")
        return mp.functional.cross_entropy(y, targets)

    with Session(make_step(loss=loss), [batch()]) as session:
        session.next_stage()
        session.next_stage()
        before = session.fingerprint()
        with pytest.raises(DataError, match="no such label"):
            session.next_stage()
        assert (session.number, session.done, session.fingerprint()) == (1, 2, before)
        assert session.next_stage().name == "loss"


def test_a_change_to_a_step_that_raises_later_leaves_the_session_where_it_was() -> None:
    """Oracle: the place and the hash before; and that the same stage still raises the same."""

    def loss(y: Any, targets: Any) -> Any:
        raise DataError("no such label")

    with Session(make_step(loss=loss), [batch()]) as session:
        session.next_stage()
        session.next_stage()
        here = session.number, session.done, session.cursor, session.fingerprint()
        for act in (lambda: session.change(Edit("scale", ("8",))), session.next_stage, session.finish):
            with pytest.raises(DataError, match="no such label"):
                act()
            assert (session.number, session.done, session.cursor, session.fingerprint()) == here
        assert not session.edits


def test_going_back_that_is_broken_off_ends_at_the_beginning_of_the_step() -> None:
    """Oracle: the hash of the beginning; from there the stages go on to the hash of the first time."""
    calls = iter(range(1, 100))

    def loss(y: Any, targets: Any) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return mp.functional.cross_entropy(y, targets)

    with Session(make_step(loss=loss), [batch()]) as session:
        begun = session.fingerprint()
        for _ in range(5):
            session.next_stage()
        there = session.fingerprint()
        with pytest.raises(KeyboardInterrupt):
            session.back()
        assert (session.done, session.cursor, session.moment) == (0, -1, None)
        assert session.fingerprint() == begun
        for _ in range(5):
            session.next_stage()
        assert session.fingerprint() == there


def test_beginnings_of_steps_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the bound; the first is always kept."""
    monkeypatch.setattr("minimp.stepper.session.MOST_STEPS", 4)
    step = make_step()
    with Session(step, [batch()]) as session:
        begun = session.fingerprint()
        for _ in range(7):
            session.finish()
        session.back()
        for _ in range(30):
            session.back()
        assert (session.number, session.done) == (4, 9)
        for _ in range(9):
            session.back()
        with pytest.raises(SettingError, match="step 3 is no longer kept: 4 steps are"):
            session.back()
        assert (session.number, session.done) == (4, 0)
        session.restart()
        assert session.fingerprint() == begun


def test_a_check_proves_the_stage_and_changes_nothing() -> None:
    """Oracle: the hash before; and a gradient that was changed by hand, which the contract refuses."""
    mp.manual_seed(7)
    with Session(layered("mixed-fp16"), [batch()]) as session:
        with pytest.raises(SettingError, match="no stage has run"):
            session.check()
        for _ in STAGES:
            session.next_stage()
            before = session.fingerprint()
            assert session.check()
            assert session.fingerprint() == before


def test_a_step_that_was_closed_cannot_be_gone_on_with_but_begun_again() -> None:
    """Oracle: the error's words; the state, which stands where it stood; a session that was never closed."""
    with small() as session:
        session.next_stage()
    stood = session.fingerprint()
    with pytest.raises(SettingError, match="closed"):
        session.next_stage()
    session.finish()
    with small() as other:
        other.next_stage()
        assert other.fingerprint() == stood
        other.finish()
        assert other.fingerprint() == session.fingerprint()


def test_a_session_that_nobody_closes_leaves_no_hooks() -> None:
    """Oracle: the modes in force before, and a plain step after; collecting it raises nothing."""
    modes = mp.modes.MODES.get()
    session = small()
    session.next_op()
    assert mp.modes.MODES.get() is modes
    del session
    gc.collect()
    assert make_step()(*batch()).skipped is False


def test_what_are_no_batches_is_refused() -> None:
    """Oracle: the errors."""
    with pytest.raises(DataError, match="at least one batch"):
        Session(make_step(), [])
    with pytest.raises(DataError, match="got int as batch 1"):
        Session(make_step(), [batch(), 3])  # type: ignore[list-item]
    with pytest.raises(DataError, match="got tuple of 1 as batch 0"):
        Session(make_step(), [batch()[:1]])
