"""Steps that the device decides on; oracle: the same run decided by the host, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.errors import SettingError
from tests.arrays import host
from tests.tolerances import assert_close

STEPS = 40
OPTIMIZERS = {
    "SGD": lambda params: mp.optim.SGD(params, lr=0.05, momentum=0.9),
    "AdamW": lambda params: mp.optim.AdamW(params, lr=0.01),
    "Lion": lambda params: mp.optim.Lion(params, lr=0.01),
}
RECIPES = ("fp32", "fp16", "mixed-fp16", "mixed-bf16", "fp16-master", "bf16-kahan")


def make(control: str | None, recipe: str, optimizer: str = "AdamW", **options: Any) -> mp.TrainStep:
    """Return a step on a small network whose scale begins too high."""
    mp.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    if mp.recipes[recipe].loss_scale is not None:
        options.setdefault("scaler", mp.GradScaler(2.0**24, growth_interval=5))
    loss = mp.functional.cross_entropy
    return mp.TrainStep(
        model, loss, OPTIMIZERS[optimizer](model.parameters()), recipe, control=control, **options
    )


def run(step: mp.TrainStep, steps: int = STEPS) -> list[mp.StepReport]:
    """Train on the same numbers always."""
    mp.manual_seed(5)
    rng = np.random.default_rng(0)
    return [step(rng.standard_normal((12, 8), np.float32), rng.integers(0, 3, 12)) for _ in range(steps)]


def bits(step: mp.TrainStep) -> list[bytes]:
    """Return weights, buffers, optimizer state and scaler state."""
    saved = step.optimizer.state_dict()["state"]
    arrays = [*step.model.state_dict().values(), *(saved[name] for name in sorted(saved))]
    return [*(host(each).tobytes() for each in arrays), repr(step.scaler.state_dict()).encode()]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_both_ways_come_to_the_same_bits(recipe: str, optimizer: str) -> None:
    """Oracle: the run that the host decides: weights, state, scale, and what each report says."""
    ours, theirs = make("device", recipe, optimizer), make("host", recipe, optimizer)
    found, wanted = run(ours), run(theirs)
    for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
        at = f"step {number}"
        assert (a.loss_scale, a.skipped, a.nonfinite) == (b.loss_scale, b.skipped, b.nonfinite), at
        np.testing.assert_equal(a.loss, b.loss, err_msg=at)
        if not b.nonfinite:
            assert_close(a.grad_norm, b.grad_norm, "fp32_recurrence")
    assert bits(ours) == bits(theirs)
    if recipe == "mixed-fp16":
        assert any(report.skipped for report in wanted)
        assert len({report.loss_scale for report in wanted}) > 3


def test_clipping_on_the_device() -> None:
    """Oracle: the host's factor; the two norms are sums in float64 and float32."""
    ours, theirs = (make(way, "mixed-fp16", max_norm=0.05) for way in ("device", "host"))
    run(ours, 12), run(theirs, 12)
    for (name, a), b in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        np.testing.assert_allclose(host(a), host(b), rtol=0, atol=1e-4, err_msg=name)


def test_sides_may_be_changed_between_steps() -> None:
    """Oracle: the run that the host decides; stages, which the host decides, in between."""
    ours, theirs = make("device", "mixed-fp16"), make("host", "mixed-fp16")
    run(theirs)
    mp.manual_seed(5)
    rng = np.random.default_rng(0)
    for number in range(STEPS):
        batch = rng.standard_normal((12, 8), np.float32), rng.integers(0, 3, 12)
        if number % 3:
            ours(*batch)
        else:
            assert all(stage.check() for stage in ours.stages(*batch))
    assert bits(ours) == bits(theirs)


def test_a_report_is_read_once_and_keeps() -> None:
    """Oracle: what the next step does must not show in the report of the last."""
    step = make("device", "mixed-fp16")
    first, second = run(step, 2)
    assert "_read" in first.__dict__
    assert "loss" not in first.__dict__
    assert (first.loss_scale, second.loss_scale) == (2.0**24, 2.0**23)
    assert "_read" not in first.__dict__
    assert copy.deepcopy(second) == second
    with pytest.raises(AttributeError, match="no attribute 'lost'"):
        _ = first.lost  # type: ignore[attr-defined]  # that is the test


def test_gradients_that_are_left_carry_no_scale() -> None:
    """Oracle: the gradient of an unscaled float32 loss, within float16's rounding; zero where never used."""
    step = make("device", "mixed-fp16", scaler=mp.GradScaler(2.0**10))
    report = run(step, 1)[0]
    norm = float(np.sqrt(sum(np.square(p.grad.array).sum() for p in step.model.parameters())))
    assert_close(norm, report.grad_norm, "fp32_recurrence")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"recipe": "mixed-fp8"}, "FP8"),
        ({"scaler": mp.GradScaler(max_consecutive_skips=4)}, "max_consecutive_skips"),
        ({"scaler": mp.LayerwiseScaler()}, "LayerwiseScaler"),
        ({"measure": True}, "measure_updates"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_the_host_is_refused_by_name(options: dict[str, Any], why: str) -> None:
    """Oracle: the rule that a setting which cannot act raises."""
    options = dict(options)
    recipe, measure = options.pop("recipe", "mixed-fp16"), options.pop("measure", False)
    step = make("device", recipe, **options)
    step.optimizer.measure_updates = measure
    with pytest.raises(SettingError, match=why):
        run(step, 1)
    step.control = None
    assert isinstance(run(step, 1)[0].loss, float)


def test_an_unknown_control_is_refused() -> None:
    """Oracle: the names that there are."""
    with pytest.raises(SettingError, match="control"):
        make("devise", "fp32")
