"""The stages of a step: each check holds on an honest step, and catches a fault planted in its stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import minimp as mp
from minimp import ops
from minimp.backend import default_backend
from minimp.step import STAGES, Stage, TrainStep
from minimp.tape import Edge
from minimp.tape.walk import newest_first
from tests.arrays import host

Backend: Any = type(default_backend())
"""The class in whose kernels faults are planted."""
RECIPES = list(mp.recipes)
FP16 = ["fp16", "fp16-scaled", "mixed-fp16"]


def make_step(recipe: str = "mixed-fp16", *, scale: float = 1024.0, **options: Any) -> TrainStep:
    """A small classifier and its step; the scale is low enough that nothing overflows."""
    mp.manual_seed(3)
    model = mp.nn.Sequential(mp.nn.Linear(12, 16), mp.nn.ReLU(), mp.nn.Linear(16, 4))
    optimizer = options.pop("optimizer", mp.optim.AdamW)(model.parameters(), lr=0.01)
    scaled = mp.recipes[recipe].loss_scale is not None
    scaler = mp.GradScaler(init_scale=scale, growth_interval=2) if scaled else None
    return TrainStep(model, mp.functional.cross_entropy, optimizer, recipe, scaler=scaler, **options)


def batch(seed: int = 0, rows: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, 12)).astype(np.float32), rng.integers(0, 4, rows)


def run_to(step: TrainStep, name: str, x: Any = None, y: Any = None) -> Stage:
    """Run the stages up to `name` and return that one."""
    inputs, labels = batch()
    for stage in step.stages(inputs if x is None else x, labels if y is None else y):
        if stage.name == name:
            return stage
    raise AssertionError(name)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("optimizer", [mp.optim.SGD, mp.optim.Adam, mp.optim.AdamW])
def test_an_honest_step_passes_every_check(recipe: str, optimizer: Any) -> None:
    """Oracle: the contracts themselves, where nothing was planted; three steps, so state exists."""
    step = make_step(recipe, optimizer=optimizer, max_norm=0.5)
    for number in range(3):
        for stage in step.stages(*batch(number)):
            found = stage.check()
            assert found, f"step {number}, {stage.name}:\n{found}"
            assert all(len(line) <= 100 for line in str(found).splitlines())


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("gain", [0.1, 100.0])
@pytest.mark.parametrize("micro_batches", [1, 3, 4096])
def test_an_honest_regression_passes_every_check(recipe: str, gain: float, micro_batches: int) -> None:
    """Oracle: the contracts, where targets are float32 values, outputs small or large, losses tiny."""
    mp.manual_seed(5)
    model = mp.nn.Sequential(mp.nn.Linear(12, 32), mp.nn.ReLU(), mp.nn.Linear(32, 6))
    for p in model.parameters():
        p.array = p.array * np.float32(gain**0.5)
    adam = mp.optim.Adam(model.parameters(), lr=1e-3)
    step = TrainStep(model, mp.functional.mse_loss, adam, recipe, micro_batches=micro_batches)
    rng = np.random.default_rng(7)
    x, y = (rng.standard_normal((16, n)).astype(np.float32) for n in (12, 6))
    for number in range(2):
        for stage in step.stages(x, y):
            assert stage.check(), f"step {number}, {stage.name}:\n{stage.check()}"


@pytest.mark.parametrize("recipe", ["fp32", "fp16"])
def test_without_a_policy_everything_is_in_one_format(recipe: str) -> None:
    """Oracle: the recipe: float64 targets widen nothing, float32 targets do not lift an FP16 loss."""
    model = mp.nn.Linear(3, 2)
    step = TrainStep(model, mp.functional.mse_loss, mp.optim.SGD(model.parameters(), lr=0.1), recipe)
    for stage in step.stages(np.ones((4, 3)), np.ones((4, 2))):
        for event in stage.events:
            if event.phase == "forward" and event.node.op.name != "cast":
                assert event.node.format is step.recipe.compute_dtype


def test_stages_come_in_order_with_their_equations() -> None:
    """Oracle: the table STAGES."""
    seen = [(stage.name, stage.equation) for stage in make_step().stages(*batch())]
    assert seen == list(STAGES.items())


@pytest.mark.parametrize("recipe", RECIPES)
def test_running_a_step_is_running_its_stages(recipe: str) -> None:
    """Oracle: the other way of running: weights, state and report are equal to the bit."""
    whole, staged = make_step(recipe), make_step(recipe)
    for number in range(3):
        mp.manual_seed(number)
        report = whole(*batch(number))
        mp.manual_seed(number)
        for _ in staged.stages(*batch(number)):
            pass
        assert report.loss_scale > 0
    for a, b in zip(whole.model.parameters(), staged.model.parameters(), strict=True):
        assert a.array.tobytes() == b.array.tobytes()


# ---- one planted fault a stage -----------------------------------------------------------------------------


def _truncating_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Backend.cast
    monkeypatch.setattr(
        Backend, "cast", lambda self, a, f, *_, **__: honest(self, a, f, rounding="toward_zero")
    )


def test_cast_weights_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: weights are cut off instead of rounded to nearest even."""
    _truncating_cast(monkeypatch)
    assert not run_to(make_step(), "cast_weights").check()


def test_cast_weights_sees_an_optimizers_master(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a low copy that no longer is the rounded master (masters kept by the optimizer)."""
    recipe = mp.Recipe("o2", "fp16", "fp16", master_weights=True, loss_scale=1024.0, policy="torch-cuda")
    mp.manual_seed(3)
    model = mp.nn.Linear(12, 4)
    step = TrainStep(model, mp.functional.cross_entropy, mp.optim.SGD(model.parameters(), lr=0.1), recipe)
    step(*batch())
    assert run_to(step, "cast_weights").check()
    model.weight.array = (model.weight.array.astype(np.float32) * np.float32(1.01)).astype(np.float16)
    assert not run_to(step, "cast_weights").check()


@pytest.mark.parametrize("recipe", ["fp32", *FP16, "mixed-bf16"])
def test_forward_is_checked(monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """Fault: one product in every sum is forgotten."""
    honest = Backend.matmul

    def forgetful(self: Any, a: Any, b: Any, *, accumulate: str) -> Any:
        fewer = (self.xp.ascontiguousarray(each) for each in (a[..., 1:], b[..., 1:, :]))
        return honest(self, *fewer, accumulate=accumulate)

    monkeypatch.setattr(Backend, "matmul", forgetful)
    assert not run_to(make_step(recipe), "forward").check()


def test_forward_sees_a_broken_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: linear is not cast although the policy says so."""
    monkeypatch.setattr("minimp.door.compute_formats", lambda rule, given, *_, **__: [None] * len(given))
    assert not run_to(make_step(), "forward").check()


def test_loss_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the mean divides by one row too many."""
    honest = ops.nll_loss.forward
    monkeypatch.setattr(
        ops.nll_loss, "forward", lambda ctx, *a, **k: honest(ctx, *a, **k) * np.float32(8 / 9)
    )
    assert not run_to(make_step(), "loss").check()


def test_scale_loss_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the loss is multiplied by a little more than S."""
    honest = mp.GradScaler.scale
    monkeypatch.setattr(mp.GradScaler, "scale", lambda self, x: honest(self, x) * 1.0001)
    assert not run_to(make_step(), "scale_loss").check()


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16", "fp16"])
def test_backward_is_checked(monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """Fault: the gradient of relu also passes where the input was negative."""
    monkeypatch.setattr(ops.relu, "backward_rule", lambda ctx, grad: grad)
    assert not run_to(make_step(recipe), "backward").check()


def test_backward_accounts_for_every_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: where two gradients meet, one is dropped (each rule is right, the walk is not)."""

    class Twice(mp.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = mp.nn.Linear(12, 12)
            self.head = mp.nn.Linear(12, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.layer(self.layer(x)))

    mp.manual_seed(0)
    model = Twice()
    sgd = mp.optim.SGD(model.parameters(), lr=0.1)
    step = TrainStep(model, mp.functional.cross_entropy, sgd, "mixed-fp16")
    assert run_to(step, "backward").check()
    monkeypatch.setattr(Backend, "add", lambda self, a, b: b)
    stage = run_to(step, "backward")
    monkeypatch.undo()
    assert not stage.check()


def test_backward_notices_a_gradient_that_never_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a leaf's gradient is dropped whole, after every rule was right."""
    step = make_step()
    honest = mp.Tensor.backward

    def forgetful(self: Any, *given: Any, **options: Any) -> None:
        honest(self, *given, **options)
        step.model[0].bias.grad = None

    monkeypatch.setattr(mp.Tensor, "backward", forgetful)
    assert not run_to(step, "backward").check()


def test_backward_notices_an_op_that_was_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the walk leaves an op out, with all that lies behind it."""

    def short(start: Edge, last: frozenset[Edge]) -> list[Edge]:
        return newest_first(start, last)[:-3]

    monkeypatch.setattr("minimp.tape.walk.newest_first", short)
    assert not run_to(make_step("fp32"), "backward").check()


def test_unscale_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: gradients are divided by a scale that is no longer in force."""
    honest = Backend.times
    monkeypatch.setattr(Backend, "times", lambda self, a, factor: honest(self, a, factor * 2))
    assert not run_to(make_step(), "unscale").check()


def test_check_finite_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the search for non-finite gradients finds nothing."""
    monkeypatch.setattr(Backend, "square_sums", lambda self, arrays: [1.0] * len(arrays))
    x, y = batch()
    x[0, 0] = np.inf
    assert not run_to(make_step(), "check_finite", x, y).check()


def test_clip_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: the norm is taken for smaller than it is, so the limit is passed."""
    step = make_step(max_norm=1e-3)
    honest = Backend.square_sums
    monkeypatch.setattr(
        Backend, "square_sums", lambda self, arrays: [each / 100 for each in honest(self, arrays)]
    )
    assert not run_to(step, "clip").check()


@pytest.mark.parametrize("recipe", RECIPES)
def test_update_is_checked(monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """Fault: the learning rate is ten times what the optimizer was told."""
    step = make_step(recipe, optimizer=mp.optim.SGD)
    honest = type(step.optimizer).step

    def hasty(self: Any, closure: Any = None, *, gradients: Any = None) -> Any:
        louder = {p: np.float32(10) * host(g) for p, g in gradients.items()}
        return honest(self, closure, gradients=louder)

    monkeypatch.setattr(type(step.optimizer), "step", hasty)
    assert not run_to(step, "update").check()


def test_a_skipped_update_must_leave_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: a step with an infinite gradient is not skipped."""
    x, y = batch()
    x[0, 0] = np.inf
    stage = run_to(make_step(), "update", x, y)
    assert stage.facts["skipped"]
    assert stage.check()
    honest = TrainStep._update

    def heedless(self: TrainStep, state: Any) -> Any:
        found, state.nonfinite = state.nonfinite, ()
        result = honest(self, state)
        state.nonfinite = found
        return result

    monkeypatch.setattr(TrainStep, "_update", heedless)
    assert not run_to(make_step(), "update", x, y).check()


@pytest.mark.parametrize("fault", [lambda self, found, names: None, None])
def test_update_scale_is_checked(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., None] | None) -> None:
    """Faults: the scale never moves; a good step counts as a bad one."""
    honest = mp.GradScaler.advance
    planted = fault or (lambda self, found, names: honest(self, not found, names))
    monkeypatch.setattr(mp.GradScaler, "advance", planted)
    assert not run_to(make_step(), "update_scale").check()


# ---- what a step does --------------------------------------------------------------------------------------


def test_a_bad_step_is_skipped_and_named() -> None:
    """Oracle: bits of weights and state before; torch's rule halves the scale."""
    step = make_step("mixed-fp16")
    step(*batch())
    before = [p.array.tobytes() for p in step.model.parameters()]
    x, y = batch()
    x[0, 0] = np.inf
    report = step(x, y)
    assert report.skipped
    assert report.nonfinite
    assert set(report.nonfinite) <= {name for name, _ in step.model.named_parameters()}
    assert [p.array.tobytes() for p in step.model.parameters()] == before
    assert step.scaler.get_scale() == report.loss_scale / 2


def test_without_a_scaler_nothing_is_skipped() -> None:
    """Oracle: plain training, in which an infinite gradient ruins the weights."""
    step = make_step("fp16-master")
    x, y = batch()
    x[0, 0] = np.inf
    report = step(x, y)
    assert report.nonfinite
    assert not report.skipped
    assert not all(np.isfinite(p.array).all() for p in step.model.parameters())


def test_micro_batches_stand_for_each_other() -> None:
    """Oracle: the same step without division; n and S are powers of two, so every bit agrees in float32."""
    plain, spread = make_step("fp32"), make_step("fp32", micro_batches=64)
    for number in range(3):
        a, b = plain(*batch(number)), spread(*batch(number))
        assert a.loss == b.loss
    for p, q in zip(plain.model.parameters(), spread.model.parameters(), strict=True):
        assert p.array.tobytes() == q.array.tobytes()


@pytest.mark.parametrize("recipe", RECIPES)
def test_formats_of_parameters_and_gradients(recipe: str) -> None:
    """Oracle: the recipe."""
    step = make_step(recipe)
    step(*batch())
    wanted = step.recipe.param_dtype
    for p in step.model.parameters():
        assert p.format is wanted
        assert p.grad is not None
        assert p.grad.format is wanted


def test_weights_are_cast_once_a_step() -> None:
    """Oracle: design of the cast cache: one node per parameter, none in the later stages."""
    casts: dict[str, int] = dict.fromkeys(STAGES, 0)
    step = make_step()
    shapes = {p.shape for p in step.model.parameters()}
    for stage in step.stages(*batch()):
        for event in stage.events:
            if event.phase == "forward" and event.node.op.name == "cast" and event.node.shape in shapes:
                casts[stage.name] += 1
    assert casts["cast_weights"] == 4
    assert casts["forward"] == 0


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"max_norm": 0.0}, mp.errors.SettingError),
        ({"micro_batches": 0}, mp.errors.SettingError),
        ({"recipe": "mixed-fp61"}, mp.errors.SettingError),
    ],
)
def test_settings_that_cannot_act(change: dict[str, Any], error: type[Exception]) -> None:
    """Oracle: the docstring of TrainStep."""
    with pytest.raises(error):
        make_step(**change)


def test_a_scaler_needs_a_recipe_that_scales() -> None:
    """Oracle: no setting that cannot act."""
    model = mp.nn.Linear(2, 2)
    with pytest.raises(mp.errors.SettingError, match="does not scale"):
        TrainStep(
            model,
            mp.functional.mse_loss,
            mp.optim.SGD(model.parameters(), 0.1),
            "fp32",
            scaler=mp.GradScaler(),
        )


@pytest.mark.parametrize("shape", [(0, 12), (8, 11), (8, 3, 3)])
def test_inputs_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    """Oracle: the error tree: an error of ours, and the weights as they were."""
    step = make_step()
    before = [p.array.tobytes() for p in step.model.parameters()]
    with pytest.raises(mp.errors.MinimpError):
        step(np.zeros(shape, np.float32), np.zeros(shape[0], np.int64))
    assert [p.array.tobytes() for p in step.model.parameters()] == before


def test_targets_of_another_length() -> None:
    """Oracle: the docstring."""
    with pytest.raises(mp.errors.DataError, match="as many targets"):
        make_step()(batch()[0], np.zeros(3, np.int64))


def test_low_copies_are_the_rounded_masters() -> None:
    """Oracle: ml_dtypes and NumPy round float32 to nearest even."""
    for recipe, dtype in (("mixed-fp16", np.float16), ("mixed-bf16", ml_dtypes.bfloat16)):
        stage = run_to(make_step(recipe), "cast_weights")
        step = make_step(recipe)
        for name, p in step.model.named_parameters():
            assert stage.tensors[name].array.tobytes() == p.array.astype(dtype).tobytes()


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    state = mp.get_rng_state()
    yield
    mp.set_rng_state(state)
