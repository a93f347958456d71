"""Recording: it changes no bit, keeps what it was told to, and leaves nothing behind."""

from __future__ import annotations

import contextvars
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.backend import get_backend
from minimp.errors import MinimpError, SettingError
from minimp.modes import MODES
from minimp.nn.hooks import ALL
from tests.trace.cases import batch, make_model, make_step


def state_of(step: Any) -> list[np.ndarray]:
    """Weights, optimizer state and the generator after training."""
    arrays = [np.array(p.array) for p in step.model.parameters()]
    arrays += [np.array(v) for s in step.optimizer.state.values() for v in s.values() if hasattr(v, "shape")]
    return arrays


def timeless(events: list[trace.TraceEvent]) -> list[trace.TraceEvent]:
    """Events without their times."""
    return [replace(event, start=0, end=0) for event in events]


def assert_clean() -> None:
    """Nothing of a recording is left in the engine."""
    assert MODES.get().listeners == ()
    assert MODES.get().watchers == ()
    assert not ALL.forward_pre
    assert not ALL.forward
    assert "narrow" not in vars(get_backend("numpy"))


@pytest.mark.parametrize("recipe", list(mp.recipes))
@pytest.mark.parametrize("shadow", [False, True])
def test_recording_changes_no_bit(recipe: str, shadow: bool) -> None:
    """Oracle: the same three steps unrecorded: losses, weights, optimizer state, the next random number."""
    results = []
    for recorded in (False, True):
        mp.manual_seed(5)
        step = make_step(recipe, scale=1024.0)
        reports = []
        for number in range(3):
            if recorded:
                with trace.record(shadow=shadow, values="all"):
                    reports.append(step(*batch(number)))
            else:
                reports.append(step(*batch(number)))
        results.append((reports, state_of(step), mp.rand(1).item()))
    (plain, weights, drawn), (seen, weights_seen, drawn_seen) = results
    assert [repr(r) for r in plain] == [repr(r) for r in seen]
    assert drawn == drawn_seen
    for a, b in zip(weights, weights_seen, strict=True):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()
    assert_clean()


def test_dropout_and_recompute_are_recorded_without_drawing_again() -> None:
    """Oracle: the gradient of the same program unrecorded, and the next random number."""

    def run(shadow: bool | None) -> tuple[Any, Any]:
        mp.manual_seed(7)
        w = mp.tensor(batch()[0], requires_grad=True)

        def part(x: Any) -> Any:
            return mp.functional.dropout(x * w, 0.5).tanh()

        made = trace.record(shadow=bool(shadow))
        if shadow is None:
            mp.recompute(part, mp.tensor(batch(1)[0])).sum().backward()
            return (w.grad.array.tobytes(), mp.rand(1).item()), None
        with made as found:
            mp.recompute(part, mp.tensor(batch(1)[0])).sum().backward()
        return (w.grad.array.tobytes(), mp.rand(1).item()), found

    plain, _ = run(None)
    for shadow in (False, True):
        grad, found = run(shadow)
        assert grad == plain
        again = [event.op for event in found.events if event.phase == "recompute"]
        assert again == ["mul", "dropout", "tanh"]
    assert found.info["notes"] == {}


def test_events_say_where_they_are() -> None:
    """Oracle: the program, by eye: modules, lines, stages, formats, and what came from where."""

    class Block(mp.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mp.nn.Linear(12, 4)

        def forward(self, x: Any) -> Any:
            return self.inner(x) * 2.0

    model = Block()
    x = mp.tensor(batch()[0])
    with trace.record() as made, mp.autocast("float16"):
        model(x).float().sum().backward()
    linear = next(e for e in made.events if e.op == "linear" and e.phase == "forward")
    times = next(e for e in made.events if e.op == "mul" and e.phase == "forward")
    assert (linear.module, times.module) == ("inner", "(Block)")
    assert times.source.endswith(f"test_recording.py:{Block.forward.__code__.co_firstlineno + 1}")
    assert [side.format for side in linear.inputs] == ["float16"] * 3
    casts = [made.events[side.links[0]] for side in linear.inputs]
    assert [cast.op for cast in casts] == ["cast"] * 3
    assert [cast.inputs[0].links for cast in casts[1:]] == [("inner.weight",), ("inner.bias",)]
    assert linear.inputs[0].given == "float32"
    back = next(e for e in made.events if e.op == "linear" and e.phase == "backward")
    assert (back.forward, back.module, back.source) == (linear.number, "inner", linear.source)
    grad = made.events[back.inputs[0].links[0]]
    assert (grad.op, grad.phase) == ("mul", "backward")
    assert all(len(str(event)) <= 100 for event in made.events)


def test_stages_and_steps_are_numbered() -> None:
    """Oracle: the table of stages, twice."""
    step = make_step()
    with trace.record() as made:
        step(*batch())
        for _ in step.stages(*batch(1)):
            pass
    stages = [(event.step, event.op) for event in made.events if event.phase == "stage"]
    assert stages == [(n, name) for n in (1, 2) for name in mp.step.STAGES]
    assert {e.stage for e in made.select(op="linear", phase="forward")} == {"forward"}
    assert {e.stage for e in made.select(phase="backward")} == {"backward"}
    scaled = made.select(phase="stage", op="scale_loss")[0]
    assert scaled.facts == {"loss_scale": 1024.0}
    assert made.info["steps"] == 2


def test_statistics_can_be_limited() -> None:
    """Oracle: the events that fit the patterns, and no others, have statistics."""
    step = make_step()
    with trace.record(ops=["linear", "backward"], modules=["2", ""], steps=2) as made:
        step(*batch())
        step(*batch(1))
    for event in made.events:
        fits = event.op in ("linear", "backward") and event.module in ("2", "") and event.step == 2
        assert any(s and s.stats for s in event.outputs) is fits, event


def test_values_are_kept_as_asked() -> None:
    """Oracle: the arrays themselves, seen by a listener of the engine."""
    x = mp.tensor(np.linspace(-3, 3, 101, dtype=np.float32), dtype=mp.float16)
    exp_only = trace.when(lambda event: event.op == "exp")
    with (
        trace.record(values="all") as every,
        trace.record(values=trace.sampled(5)) as some,
        trace.record(values=exp_only) as chosen,
    ):
        y = x.exp() + 1.0
    exp, add = every.events
    assert every.values(exp)["in0"].tobytes() == x.array.tobytes()
    assert set(every.values(add)) == {"out0"}
    assert every.values(add)["out0"].tobytes() == y.array.tobytes()
    assert some.values(add)["out0"].tolist() == y.array[[0, 25, 50, 75, 100]].tolist()
    assert set(chosen.values(0)) == {"in0", "out0"}
    assert chosen.values(1) == {}


def test_a_ring_keeps_the_newest() -> None:
    """Oracle: the last events of a recording without limit."""
    step = make_step()
    with trace.record() as every, trace.record(keep=10) as few, trace.record(keep_bytes=20_000) as small:
        step(*batch())
    everything = timeless(every.events)
    assert timeless(few.events) == everything[-10:]
    assert few.dropped == len(everything) - 10
    assert 1 <= len(small.events) < 12
    assert timeless(small.events) == everything[-len(small.events) :]
    assert small.first_nonfinite() is None
    assert str(small.underflow())


def test_an_exception_leaves_the_trace_readable_and_the_engine_as_it_was(tmp_path: Path) -> None:
    """Oracle: the events before the fault, and the engine's settings."""
    x = mp.tensor(batch()[0])
    model = make_model()
    made = trace.record(spill=tmp_path / "t")

    def run() -> None:
        with made:
            model(x)
            model(mp.tensor(np.ones((2, 3), np.float32)))

    with pytest.raises(MinimpError):
        run()
    made = trace.load(tmp_path / "t")
    assert [event.op for event in made.events] == ["linear", "relu", "linear", "relu", "linear"]
    assert_clean()
    step = make_step(loss=lambda y, t: 1 / 0)
    with pytest.raises(ZeroDivisionError), trace.record() as made:
        step(*batch())
    assert made.events[-1].op == "loss"
    assert step.optimizer.measure_updates is False
    assert_clean()


def test_recordings_nest_and_threads_are_apart() -> None:
    """Oracle: each recording has the ops of its own block and thread, and a copied context those of both."""
    x = mp.tensor([1.0, 2.0], dtype=mp.float16)
    other: list[Any] = []

    def elsewhere() -> None:
        with trace.record() as mine:
            make_model()(mp.tensor(batch()[0]))
        other.append(mine)

    with trace.record() as outer:
        x + x
        with trace.record() as inner:
            x * x
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        x - x
    assert [e.op for e in outer.events] == ["add", "mul", "sub"]
    assert [e.op for e in inner.events] == ["mul"]
    assert [e.module for e in other[0].events] == ["0", "1", "2", "3", "4"]
    with trace.record() as both:
        context, together = contextvars.copy_context(), threading.Barrier(3)

        def work() -> None:
            together.wait()
            for _ in range(50):
                x * x
            together.wait()

        threads = [threading.Thread(target=context.copy().run, args=(work,)) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert [e.number for e in both.events] == list(range(150))
    assert {e.thread for e in both.events} == {0, 1, 2}
    assert_clean()


def test_contradicting_settings_are_refused() -> None:
    """Oracle: the docstring of `record`."""
    for wrong in (
        {"keep": 3, "spill": "x"}, {"keep": 0}, {"statistics": False, "shadow": True}, {"values": "some"},
        {"steps": 0}, {"ops": []}, {"statistics": False, "ops": "add"},
    ):  # fmt: skip
        with pytest.raises(SettingError):
            trace.record(**wrong)
    with pytest.raises(SettingError):
        trace.sampled(1)
    made = trace.record()
    with made:
        pass
    with pytest.raises(SettingError, match="has been used"), made:
        pass
    with trace.record() as empty, pytest.raises(SettingError, match="no gradients"):
        empty.gradients_at_scales()
    with pytest.raises(SettingError, match="no shadow"):
        empty.errors()
    with pytest.raises(SettingError, match="grouping"):
        empty.underflow("layer")


def test_chrome_json_is_well_nested(tmp_path: Path) -> None:
    """Oracle: the trace event format: of two slices of a thread, one holds the other or they are apart."""
    step = make_step()
    with trace.record() as made:
        step(*batch())
        step(*batch(1))
    slices = json.loads(made.chrome(tmp_path / "t.json").read_text())["traceEvents"]
    slices = [each for each in slices if each["ph"] == "X"]
    assert {each["cat"] for each in slices} == {"stage", "module", "forward", "backward"}
    open_until: list[float] = []
    for each in slices:
        start, end = round(1000 * each["ts"]), round(1000 * (each["ts"] + each["dur"]))
        while open_until and open_until[-1] <= start:
            open_until.pop()
        assert end >= start
        assert not open_until or end <= open_until[-1], each
        open_until.append(end)
    names = [each["name"] for each in slices if each["cat"] == "stage"]
    assert names == [*mp.step.STAGES] * 2


def test_the_recorders_own_work_is_not_in_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a clock that a condition turns on by a second, and each look at it by a nanosecond."""
    now = 0

    def look(turned: int = 1) -> int:
        nonlocal now
        now += turned
        return now

    monkeypatch.setattr("minimp.trace.recorder.perf_counter_ns", look)
    x = mp.tensor([1.0, 2.0])
    with trace.record(values=trace.when(lambda _: look(10**9) < 0)) as made:
        x + x
        x + x
    assert now > 2 * 10**9
    assert 0 < made.events[-1].end < 10**6


def test_layers_on_codes_are_recorded_and_said_to_have_no_shadow(tmp_path: Path) -> None:
    """Oracle: the same layers unrecorded, and NumPy on the codes of the weights."""
    model, _ = mp.quant.quantize_dynamic(make_model())
    x, _ = batch()
    alone = model(mp.tensor(x)).array.tobytes()
    with trace.record(shadow=True, values="all") as made:
        assert model(mp.tensor(x)).array.tobytes() == alone
    event = made.events[0]
    codes = made.values(event)["in1"]
    assert codes.dtype == np.int8
    assert event.inputs[1].stats.max == codes.max()
    assert event.inputs[1].stats.zeros == np.count_nonzero(codes == 0)
    assert event.op in made.info["notes"]
    assert trace.load(made.save(tmp_path / "t")) == made


def test_casts_of_parameters_are_called_by_their_names() -> None:
    """Oracle: the parameters of the model, each of which is cast once, and its gradient back."""
    step = make_step()
    names = [name for name, _ in step.model.named_parameters()]
    with trace.record() as made:
        step(*batch())
    casts = made.select(op="cast", stage="cast_weights")
    assert [event.where for event in casts] == names
    assert str(casts[0]).startswith(f"#0 cast of {names[0]} at {casts[0].source}: ")
    back = [event for event in made.select(op="cast", phase="backward") if event.outputs[0].links]
    assert sorted(event.where for event in back) == sorted(names)
    placed = [row["where"] for row in made.underflow("place") if row["op"] == "cast"]
    assert set(placed) <= {*names, "0", casts[0].source}
    assert len(placed) == len(set(placed))


def test_what_no_line_called_is_placed_by_its_stage() -> None:
    """Oracle: by hand: an event of minimp's own, as `minimp train --trace` records them."""
    side = trace.Side("float32", (2,))
    own = trace.TraceEvent(3, "forward", "mul", "", "", "scale_loss", 1, (side,), (side,))
    assert (own.where, str(own)) == ("(scale_loss)", "#3 mul: float32[2] -> float32[2]")
    assert replace(own, stage="").where == "(minimp)"
    assert replace(own, module="0", source="a.py:1").where == "0"


def test_what_was_not_looked_at_is_not_called_finite() -> None:
    """Oracle: the words: an infinity, recorded without statistics, of another op alone, or not at all."""
    x = mp.tensor([1.0, np.inf])
    said = {}
    for name, settings in {"none": {"statistics": False}, "part": {"ops": "exp"}, "all": {}}.items():
        with trace.record(**settings) as made:
            (x * 2.0).sum()
            mp.tensor([1.0]).exp()
        said[name] = str(made).splitlines()
    with trace.record() as made:
        pass
    assert said["none"][1:] == ["  no statistics were taken: whether anything went wrong is not known"]
    assert said["part"][-1] == "  all values that were looked at are finite"
    assert said["all"][-1].startswith("  first non-finite: #0 mul")
    assert str(made).splitlines()[1].startswith("  no operation ran in the block")
    assert all(len(line) <= 100 for line in str(made).splitlines())


def test_a_trace_is_gone_through_event_by_event() -> None:
    """Oracle: its list of events."""
    with trace.record() as seen:
        (mp.tensor([1.0, 2.0]) * 3).sum()
    assert [event.op for event in seen] == [event.op for event in seen.events] == ["mul", "sum"]
    assert len(seen) == 2
