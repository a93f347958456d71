"""What a scaler tells about a step; oracle: the faults that each test plants."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import SettingError
from minimp.scaler import GradScaler, ScalerStep
from minimp.scaler.naming import Names
from minimp.tensors import Tensor
from tests.scaler.plain import (
    PlainSGD,
    begun,
    parameter,
    set_grad,
    with_grads,
)

INF, NAN = math.inf, math.nan


class Model:
    """Something with named parameters."""

    def __init__(self, **params: Tensor) -> None:
        self.params = params

    def named_parameters(self) -> Any:
        """Yield (name, parameter)."""
        yield from self.params.items()


def test_the_last_step_says_what_happened_and_where() -> None:
    """Oracle: the faults that were planted, by name, by the optimizer's own names, and by place."""
    w, b, c, d = (parameter(0.0, 0.0) for _ in range(4))
    optimizer = PlainSGD([w, b], [c], [d])
    optimizer.param_groups[2]["param_names"] = ["head.bias"]
    scaler = begun().name_parameters(Model(w=w, b=b))
    assert scaler.last_step is None
    for faults, names in [
        ([b, c], ("b", "parameter 0 of group 1 (2,)")),
        ([d], ("head.bias",)),
        ([w], ("w",)),
    ]:
        for p in (w, b, c, d):
            set_grad(p, 1.0, NAN if any(p is each for each in faults) else 1.0)
        scaler.step(optimizer)
        scaler.update()
        assert scaler.last_step is not None
        assert (scaler.last_step.skipped, scaler.last_step.nonfinite) == (True, names)
    assert (scaler.last_step.consecutive_skips, scaler.last_step.scale) == (3, 2.0)
    assert str(scaler.last_step) == (
        "PlainSGD skipped (3 in a row) at loss scale 2: 1 of 4 gradients not finite: w"
    )
    set_grad(w, 1.0, 1.0)
    scaler.step(optimizer)
    assert (scaler.last_step.skipped, scaler.last_step.nonfinite, scaler.last_step.consecutive_skips) == (
        False,
        (),
        0,
    )
    assert str(scaler.last_step) == "PlainSGD stepped at loss scale 1: 4 gradients checked"


def test_reports_of_several_optimizers_are_kept_until_the_update() -> None:
    """Oracle: the faults planted in the second and third of three; what each returned."""
    optimizers = [with_grads((1.0,), (2.0,)), with_grads((INF,)), with_grads((1.0,), (NAN,), (NAN,))]
    scaler = begun()
    made = [scaler.step(each, i) for i, each in enumerate(optimizers[:2])]
    assert [scaler.report_of(each) for each in optimizers] == [*made, None]
    made.append(scaler.step(optimizers[2]))
    assert [(r.skipped, r.place, r.checked, r.returned) for r in made] == [
        (False, 0, 2, 0), (True, 1, 1, None), (True, 2, 3, None)
    ]  # fmt: skip
    assert made[2].nonfinite == ("parameter 1 of group 0 (1,)", "parameter 2 of group 0 (1,)")
    assert str(made[1]) == (
        "PlainSGD (number 2) skipped (1 in a row) at loss scale 8: 1 of 1 gradients not finite: "
        "parameter 0 of group 0 (1,)"
    )
    assert scaler.last_step is made[2]
    scaler.update()
    assert [scaler.report_of(each) for each in optimizers] == [None] * 3
    assert scaler.last_step is made[2]
    assert scaler.reports == tuple(replace(each, returned=None) for each in made)


def test_reports_go_back_a_hundred_steps_and_hold_nothing() -> None:
    """Oracle: the scales of 30 good and 20 bad steps by hand; only the last report holds what came back."""
    scaler, optimizer = begun(init_scale=2.0**120), with_grads((1.0,))
    for step in range(50):
        scaler.step(optimizer, object())
        scaler.advance(step >= 30)
    assert [r.scale for r in scaler.reports] == [2.0**120] * 31 + [2.0 ** (120 - k) for k in range(1, 20)]
    for _ in range(60):
        scaler.step(optimizer, object())
        scaler.update()
    assert [r.scale for r in scaler.reports][:30] == [2.0**120] * 21 + [
        2.0 ** (120 - k) for k in range(1, 10)
    ]
    assert (len(scaler.reports), {r.returned for r in scaler.reports}) == (100, {None})
    assert scaler.last_step is not None
    assert scaler.last_step.returned is not None
    assert copy.deepcopy(scaler).last_step == replace(scaler.last_step, returned=None)


def test_a_long_report_names_the_first_few() -> None:
    """Oracle: by hand."""
    report = begun().step(with_grads(*[(INF,)] * 8))
    assert str(report).endswith("8 of 8 gradients not finite: " + ", ".join(
        f"parameter {i} of group 0 (1,)" for i in range(5)) + " and 3 more")  # fmt: skip
    assert "\n" not in str(report)


def test_a_disabled_scaler_reports_too() -> None:
    """Oracle: the contract: never skipped, S = 1, nothing checked; kept as elsewhere."""
    scaler, optimizer = GradScaler(enabled=False), with_grads((INF,))
    report = scaler.step(optimizer, 3)
    assert report == ScalerStep(False, (), 0, 1.0, 0, "PlainSGD", 0, 3)
    assert (scaler.last_step, scaler.report_of(optimizer)) == (report, report)
    assert scaler.reports == (replace(report, returned=None),)
    assert copy.deepcopy(scaler).reports == ()
    scaler.update()
    assert scaler.report_of(optimizer) is None


@pytest.mark.parametrize("alone", [True, False])
def test_a_copied_scaler_names_the_parameters_it_is_used_with(alone: bool) -> None:
    """Oracle: the names; a scaler that is copied alone goes on with the same parameters, and copies none."""
    net = mp.nn.Linear(2, 1)
    scaler = begun().name_parameters(net)
    theirs, copied = (net, copy.deepcopy(scaler)) if alone else copy.deepcopy((net, scaler))
    assert [copied.name_of(p) for p in theirs.parameters()] == ["weight", "bias"]
    if theirs is not net:
        assert [copied.name_of(p) for p in net.parameters()] == [None, None]


def test_names_that_are_read_back_are_those_of_the_parameters_read_back() -> None:
    """Oracle: the names, by the parameters that stand in for those which a pickle would rebuild."""
    w, again = parameter(0.0), parameter(0.0)
    names, read = Names(), Names()
    names.learn([("w", w)])
    (pair,) = names.__getstate__()["named"]
    assert pair[0] == "w"
    assert pair[1] is w
    read.__setstate__({"named": [("w", again)]})
    assert (read.known(again), read.known(w)) == ("w", None)


def test_names_are_learned_all_or_none() -> None:
    """Oracle: the errors; the pair before the wrong one is not learned."""
    w, scaler = parameter(0.0), begun()
    for wrong in (None, [1], {"a": 1}, [w], [("w", w), ("b", 1)]):
        with pytest.raises(SettingError, match=r"expected a model, or \(name, parameter\) pairs, got "):
            scaler.name_parameters(wrong)
    assert scaler.name_of(w) is None


def test_names_need_parameters() -> None:
    """Oracle: the contract of name_parameters()."""
    with pytest.raises(
        SettingError, match=r"expected a model, or \(name, parameter\) pairs, got float for 'w'"
    ):
        GradScaler().name_parameters([("w", 1.0)])


@pytest.mark.parametrize(("rule", "lr"), [(mp.optim.SGD, 0.5), (mp.optim.AdamW, 0.05)])
def test_too_high_a_scale_comes_down_by_itself_and_training_goes_on(rule: Any, lr: float) -> None:
    """Oracle: float16's range: S = 2^40 overflows in backward, each skip halves it, the weights wait."""
    mp.manual_seed(0)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((64, 8), dtype=np.float32), rng.integers(0, 3, 64)
    model = mp.nn.Sequential(mp.nn.Linear(8, 16), mp.nn.ReLU(), mp.nn.Linear(16, 3))
    optimizer = rule(model.parameters(), lr=lr)
    scaler = GradScaler(init_scale=2.0**40).name_parameters(model)
    losses, reports = [], []
    for _ in range(60):
        optimizer.zero_grad()
        with mp.autocast("float16"):
            loss = mp.functional.cross_entropy(model(mp.tensor(x)), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        reports.append(scaler.last_step)
    skipped = [report.skipped for report in reports if report is not None]
    count = sum(skipped)
    assert skipped == [True] * count + [False] * (60 - count)
    assert 10 < count < 40
    assert [report.consecutive_skips for report in reports[:count]] == list(range(1, count + 1))
    assert set(reports[0].nonfinite) <= {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert "2.weight" in reports[0].nonfinite
    assert scaler.get_scale() == 2.0 ** (40 - count)
    assert losses[count] == losses[0]
    assert losses[-1] < 0.8 * losses[0]


def test_a_whole_iteration_on_a_model() -> None:
    """Oracle: the same model in float32 without scaling: powers of two round nothing, so bits are equal."""
    x, w0 = mp.tensor([[1.0, 2.0], [3.0, -1.0]]), np.float32([[0.3, -0.7], [1.1, 0.2]])
    ends = []
    for scaler in (GradScaler(init_scale=2.0**12), GradScaler(enabled=False)):
        w = mp.tensor(w0, requires_grad=True)
        optimizer = PlainSGD([w])
        for _ in range(5):
            w.grad = None
            loss = ((x @ w).tanh() * 0.01).sum()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        ends.append(w.detach().numpy())
    np.testing.assert_array_equal(ends[0], ends[1])
    assert not np.array_equal(ends[0], w0)
