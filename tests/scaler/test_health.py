"""How a scale fares, and what it says aloud; oracle: the thresholds in minimp/scaler/health.py, by hand."""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.errors import ScalerError, ScaleWarning
from minimp.scaler import GradScaler, ScaleHealth
from tests.scaler.plain import PlainSGD, SelfScalingSGD, begun, parameter, set_grad, with_grads

INF, NAN = math.inf, math.nan


def told(scaler: GradScaler, verdicts: list[bool]) -> list[tuple[int, str]]:
    """Run verdicts; return (step from 1, the first words) of each warning."""
    found: list[tuple[int, str]] = []
    for step, bad in enumerate(verdicts, 1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scaler.advance(bad)
        assert all(each.category is ScaleWarning for each in caught)
        found += [(step, str(each.message).removeprefix("GradScaler: ").split(":")[0]) for each in caught]
    return found


BAD, GOOD = [True], [False]


def floored() -> GradScaler:
    """Return a scaler two backoffs above its floor."""
    return GradScaler(init_scale=4.0, min_scale=1.0)


@pytest.mark.parametrize(
    ("make", "verdicts", "expected"),
    [
        (GradScaler, BAD * 16 + GOOD, []),
        (GradScaler, BAD * 17, [(17, "collapsing")]),
        (GradScaler, BAD * 300, [(17, "collapsing"), (166, "dead")]),
        (GradScaler, (BAD * 17 + GOOD) * 3, [(17, "collapsing")]),
        (
            lambda: GradScaler(init_scale=4.0, growth_interval=1), (BAD * 3 + GOOD * 3) * 2,
            [(3, "collapsing"), (9, "collapsing")],
        ),
        (floored, BAD * 6, []),
        (floored, BAD * 40, [(7, "stuck at the floor")]),
        (floored, BAD * 6 + GOOD + BAD * 4 + GOOD + BAD * 5, [(17, "stuck at the floor")]),
        (lambda: GradScaler(init_scale=1.0, min_scale=0.25), BAD * 6, []),
        (lambda: GradScaler(init_scale=1.0, min_scale=2.0**-126), BAD * 6, [(1, "collapsing")]),
        (lambda: GradScaler.preset("static"), BAD * 24, []),
        (lambda: GradScaler.preset("static"), (BAD * 60 + GOOD) * 2, [(25, "stuck"), (86, "stuck")]),
        (lambda: GradScaler.preset("static", init_scale=0.5), BAD * 3, []),
        (lambda: GradScaler(init_scale=2.0**40, hysteresis=3), BAD * 30, [(25, "stuck")]),
        (lambda: GradScaler(init_scale=INF), BAD * 3 + GOOD, [(1, "dead")]),
        (lambda: GradScaler(init_scale=0.0), GOOD * 3, [(1, "dead")]),
        (lambda: GradScaler.preset("keras", init_scale=2.0**126, growth_interval=1), GOOD * 5, [(2, "dead")]),
        (lambda: GradScaler(init_scale=0.5), GOOD * 3 + BAD, [(4, "collapsing")]),
        (lambda: GradScaler(init_scale=2.0, backoff_factor=0.0), BAD * 2, [(1, "dead")]),
        (lambda: GradScaler(init_scale=-8.0), BAD * 4, [(4, "collapsing")]),
    ],
)  # fmt: skip
def test_trouble_is_told_once_an_episode(
    make: Callable[[], GradScaler], verdicts: list[bool], expected: list[tuple[int, str]]
) -> None:
    """Oracle: the step at which each threshold is passed, counted by hand."""
    assert told(make(), verdicts) == expected


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=8), st.sampled_from([None, 1.0, 0.5]))
def test_a_word_is_told_only_when_it_is_new(pieces: list[tuple[bool, int]], floor: float | None) -> None:
    """Oracle: the words themselves, step by step: a warning comes with the first step of a word's episode."""
    scaler = GradScaler(init_scale=8.0, growth_interval=4, min_scale=floor)
    seen: set[str] = set()
    for bad in [verdict for verdict, count in pieces for _ in range(count)]:
        said = [word for _, word in told(scaler, [bad])]
        word, alarming = scaler.health.word, scaler.health.alarming
        assert said == ([word] if alarming and word not in seen else [])
        seen = seen | {word} if alarming else set()
        assert alarming == (word in ("dead", "stuck", "stuck at the floor", "collapsing"))


def test_words_of_a_scale() -> None:
    """Oracle: by hand; the word is in the repr as well."""
    scaler = begun(min_scale=4.0)
    assert (scaler.health, str(scaler.health)) == (ScaleHealth("ok", 8.0), "ok: loss scale 8")
    scaler.advance(True)
    assert str(scaler.health) == "backing off: loss scale 4; the last step was bad"
    assert repr(scaler) == "GradScaler(scale=4, growth_tracker=0, skips=1, health='backing off')"
    assert told(scaler, [True] * 5) == [(5, "stuck at the floor")]
    assert scaler.health == ScaleHealth("stuck at the floor", 4.0, skips=6, floor_skips=5)
    scaler.advance(False)
    assert scaler.health == ScaleHealth("ok", 4.0)
    assert repr(GradScaler(enabled=False)) == "GradScaler(enabled=False)"
    assert GradScaler(enabled=False).health.word == "ok"


def test_a_warning_says_what_where_and_what_to_do() -> None:
    """Oracle: the planted names; it points at the line that called update()."""
    scaler = begun(init_scale=1.0, min_scale=1.0)
    weights = [parameter(0.0) for _ in range(7)]
    scaler.name_parameters((f"layer{i}.weight", w) for i, w in enumerate(weights))
    one, other = PlainSGD(weights[:6]), PlainSGD(weights[5:])
    for step in range(5):
        for w in weights:
            set_grad(w, NAN)
        scaler.step(one)
        scaler.step(other)
        if step < 4:
            scaler.update()
    with pytest.warns(ScaleWarning) as caught:
        scaler.update()
    (only,) = caught
    assert only.filename == __file__
    names = ", ".join(f"layer{i}.weight" for i in range(5))
    assert re.fullmatch(
        r"GradScaler: stuck at the floor: loss scale 1, as low as min_scale=1\.0 lets it go; the last 5 "
        rf"steps were bad: not finite in {names} and 2 more\n  help: a lower scale would not help: .*",
        str(only.message),
    )
    with pytest.warns(ScaleWarning, match="dead: loss scale inf") as caught:
        GradScaler(init_scale=INF).advance(True, ["w"])
    assert caught[0].filename == __file__
    assert "not finite in w\n  help: nothing recovers" in str(caught[0].message)


def test_state_is_in_order_where_warnings_are_errors() -> None:
    """Oracle: the scaler that only warned, over the same steps."""
    strict, quiet = begun(init_scale=1.0), begun(init_scale=1.0)
    for scaler in (strict, quiet):
        scaler.step(with_grads((INF,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ScaleWarning):
            strict.update()
    with pytest.warns(ScaleWarning):
        quiet.update()
    assert (strict.state, strict.health) == (quiet.state, quiet.health)
    strict.step(with_grads((1.0,)))
    strict.update()
    assert strict.get_scale() == 0.5


def test_a_loaded_state_begins_a_new_episode() -> None:
    """Oracle: the contract: what was told, and counted at the floor, belonged to the run before."""
    scaler = floored()
    state = {**scaler.state_dict(), "scale": 1.0}
    assert told(scaler, BAD * 9) == [(7, "stuck at the floor")]
    scaler.load_state_dict(state)
    assert scaler.health.word == "ok"
    assert told(scaler, BAD * 9) == [(5, "stuck at the floor")]


def test_a_training_step_warns_too() -> None:
    """Oracle: TrainStep on inputs of NaN: the planted layer is named; weights stay."""
    model = mp.nn.Linear(2, 1)
    step = mp.TrainStep(
        model, mp.functional.mse_loss, mp.optim.SGD(model.parameters(), lr=0.1), "mixed-fp16",
        scaler=GradScaler(init_scale=2.0), control="host",  # a device warns of nothing
    )  # fmt: skip
    before = model.weight.tolist()
    x, y = np.full((4, 2), np.nan, np.float32), np.zeros((4, 1), np.float32)
    step(x, y)
    with pytest.warns(
        ScaleWarning, match=r"collapsing: loss scale 0\.5.* last 2 .*not finite in weight, bias"
    ):
        step(x, y)
    assert model.weight.tolist() == before


# ---- stopping instead --------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_run_can_stop_instead_of_skipping_on(most: int) -> None:
    """Oracle: the contract: n bad steps are skipped, the next one raises; only its gradients are unscaled."""
    scaler = begun(init_scale=2.0**20, max_consecutive_skips=most)
    for bad in GOOD + BAD * most:
        scaler.step(with_grads((INF if bad else 1.0,)))
        scaler.update()
    before, report = scaler.state, scaler.last_step
    optimizer = with_grads((8.0,), (NAN,))
    with pytest.raises(ScalerError, match=(
        rf"GradScaler: {most} steps in a row have been skipped, and this one is bad too \(loss scale .*; not "
        r"finite in parameter 1 of group 0 \(1,\)\)\n  help: look for NaN"
    )):  # fmt: skip
        scaler.step(optimizer)
    assert (scaler.state, scaler.last_step, optimizer.calls) == (before, report, 0)
    assert scaler.report_of(optimizer) is None
    with pytest.raises(ScalerError, match=f"{most} steps in a row"):
        scaler.update()
    assert scaler.state == before
    scaler.update(4.0)
    scaler.step(with_grads((1.0,)))
    scaler.update()
    assert scaler.state.skips == 0


def test_a_self_scaling_optimizer_is_not_run_when_it_is_too_much() -> None:
    """Oracle: the same contract."""
    w = parameter(0.0)
    set_grad(w, INF)
    optimizer = SelfScalingSGD([w])
    with pytest.raises(ScalerError, match="0 steps in a row"):
        begun(max_consecutive_skips=0).step(optimizer)
    assert (optimizer.calls, optimizer.seen, hasattr(optimizer, "found_inf")) == (0, [], False)


def test_verdicts_from_elsewhere_stop_a_run_too() -> None:
    """Oracle: the same contract, by advance(), and by unscale_() and update() without step()."""
    scaler = begun(max_consecutive_skips=1)
    scaler.advance(True)
    before = scaler.state
    with pytest.raises(ScalerError, match=r"1 steps in a row .* \(loss scale 4; not finite in w\)"):
        scaler.advance(True, ["w"])
    scaler.unscale_(with_grads((NAN,)))
    with pytest.raises(ScalerError, match="1 steps in a row"):
        scaler.update()
    assert scaler.state == before


def test_the_limit_is_saved_and_counts_on() -> None:
    """Oracle: the saved scaler: two skips before saving, one after, of three."""
    saved = begun(max_consecutive_skips=3)
    for _ in range(2):
        saved.advance(True)
    for scaler in (copy.deepcopy(saved), GradScaler()):
        scaler.load_state_dict(saved.state_dict())
        scaler.advance(True)
        with pytest.raises(ScalerError, match="3 steps in a row"):
            scaler.advance(True)
