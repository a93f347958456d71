"""Training with rounded numbers: schedules, resumption, mixed precision."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp import functional, nn
from minimp.data import ArrayDataset, DataLoader
from minimp.errors import CheckpointError, SettingError
from minimp.optim import SGD, Adam
from minimp.policy import autocast
from minimp.quant.qat import FakeQuantize, QATSchedule, prepare_qat
from minimp.quant.qat.layers import Folded
from minimp.quant.static import convert
from minimp.rng import manual_seed
from minimp.scaler import GradScaler
from minimp.step import TrainStep
from minimp.tensors import tensor
from minimp.trainer import Trainer
from tests.quant.qat.samples import batch, differences

SHAPE = (16, 2, 8, 8)


def network(seed: int = 0) -> Any:
    """Return a small network with batch norms.  (N, 2, 8, 8) -> (N, 3)."""
    manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def labelled(step: int) -> tuple[Any, Any]:
    """Return images and their classes: which of three places is bright."""
    x, y = batch(SHAPE, step), np.arange(SHAPE[0]) % 3
    for image, (row, column) in zip(x, np.array([(0, 0), (0, 4), (4, 0)])[y], strict=True):
        image[1, row : row + 4, column : column + 4] += 2
    return x, y


def switches(model: Any) -> tuple[bool, ...]:
    """Return whether ranges move, numbers are rounded, and statistics stand still (of batch norms, if there
    are any); each alike everywhere."""
    places = [each for each in model.modules() if isinstance(each, FakeQuantize)]
    norms = [each.frozen for each in model.modules() if isinstance(each, Folded)]
    found = [{each.observing for each in places}, {each.rounding for each in places}, set(norms)]
    assert all(len(each) == 1 for each in found[:2])
    return tuple(each.pop() for each in found if each)


def steps(model: Any, optimizer: Any, schedule: Any, first: int, last: int) -> list[float]:
    """Train from a step to another; return the losses."""
    losses = []
    for step in range(first, last):
        x, y = labelled(step)
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(tensor(x)), tensor(y))
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def test_a_schedule_turns_the_switches() -> None:
    """Oracle: the table by hand; before the delay results are the float model's."""
    x, _ = labelled(0)
    model = network()
    prepared = prepare_qat(model, tensor(x))
    schedule = QATSchedule(prepared, delay=2, freeze_observers=3, freeze_batch_norm=5)
    seen = [switches(prepared)]
    plain = copy.deepcopy(model).train()(tensor(x)).detach().array
    assert np.abs(prepared(tensor(x)).detach().array - plain).max() < 1e-5
    for _ in range(6):
        schedule.step()
        seen.append(switches(prepared))
    assert seen == [
        (True, False, False), (True, False, False), (True, True, False), (False, True, False),
        (False, True, False), (False, True, True), (False, True, True),
    ]  # fmt: skip
    assert "delay=2, freeze_observers=3, freeze_batch_norm=5), step 6" in repr(schedule)


def test_a_resumed_training_is_the_same() -> None:
    """Oracle: a training that was not interrupted, bit for bit: parameters, buffers, integers."""
    x, _ = labelled(0)
    settings = {"delay": 2, "freeze_observers": 6, "freeze_batch_norm": 7}

    def fresh() -> tuple[Any, Any, Any]:
        prepared = prepare_qat(network(), tensor(x), weight_bits=4, activation_bits=4)
        return prepared, Adam(prepared.parameters(), lr=1e-2), QATSchedule(prepared, **settings)

    whole, resumed = fresh(), fresh()
    losses = steps(*whole, 0, 9)
    for stop in (1, 4, 7):
        part, again = fresh(), fresh()
        steps(*part, 0, stop)
        again[0].load_state_dict({path: each.numpy() for path, each in part[0].state_dict().items()})
        again[1].load_state_dict(part[1].state_dict())
        again[2].load_state_dict(part[2].state_dict())
        assert switches(again[0]) == switches(part[0])
        assert steps(*again, stop, 9) == losses[stop:]
        resumed = again
    for (path, a), (_, b) in zip(whole[0].state_dict().items(), resumed[0].state_dict().items(), strict=True):
        assert a.array.tobytes() == b.array.tobytes(), path
    ours, theirs = (convert(each[0])(tensor(x)).array for each in (whole, resumed))
    np.testing.assert_array_equal(ours, theirs)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"delay": 5, "freeze_observers": 4}, "delay=5 comes after freeze_observers=4"),
    ({"freeze_observers": 4, "freeze_batch_norm": 3}, "freeze_observers=4 comes after freeze_batch_norm=3"),
    ({"delay": 5, "freeze_batch_norm": 3}, "delay=5 comes after freeze_batch_norm=3"),
    ({"delay": -1}, "delay must be a number of steps, got -1"),
    ({"freeze_observers": 2.5}, "freeze_observers must be a number of steps, got 2.5"),
    ({"freeze_observers": 0}, "ranges cannot freeze at step 0"),
    ({}, "nothing would happen"),
]


@pytest.mark.parametrize(("settings", "says"), WRONG)
def test_schedules_that_cannot_act(settings: dict[str, Any], says: str) -> None:
    """Oracle: the message; the switches stay as they were."""
    prepared = prepare_qat(network(), tensor(labelled(0)[0]))
    with pytest.raises(SettingError, match=says):
        QATSchedule(prepared, **settings)
    assert switches(prepared) == (True, True, False)


def test_schedules_for_what_is_not_there() -> None:
    """Oracle: the message: no batch norm, no place that rounds, ranges that saw nothing, another's state."""
    x = tensor(batch((4, 3)))
    plain = prepare_qat(nn.Linear(3, 2), x)
    with pytest.raises(SettingError, match="no layer with a batch norm folded into it"):
        QATSchedule(plain, freeze_batch_norm=3)
    with pytest.raises(SettingError, match="has no FakeQuantize"):
        QATSchedule(nn.Linear(3, 2), delay=3)
    schedule = QATSchedule(plain, delay=1, freeze_observers=2)
    state = schedule.state_dict()
    for wrong in ({"steps": 3}, state | {"delay": 0}, state | {"steps": -1}):
        with pytest.raises(CheckpointError, match="expected a state of"):
            schedule.load_state_dict(wrong)
    with pytest.raises(SettingError, match="never observed"):
        schedule.load_state_dict(state | {"steps": 4})
    for wrong in (None, [], 3):
        with pytest.raises(CheckpointError, match="expected a state of"):
            schedule.load_state_dict(wrong)
    assert schedule.steps == 0
    schedule.step()
    for _ in range(2):  # it goes on refusing: the step does not count until ranges can freeze
        with pytest.raises(SettingError, match="input 0 was never observed"):
            schedule.step()
        assert (schedule.steps, switches(plain)) == (1, (True, True))
    plain(x)
    schedule.step()
    assert (schedule.steps, switches(plain)) == (2, (False, True))


@pytest.mark.parametrize(
    "recipe",
    ["mixed-fp16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fp32", "mixed-bf16"))],
)
def test_mixed_precision(recipe: str) -> None:
    """Oracle: the loss falls under TrainStep, loss scaling and all; scales stay float32; codes agree."""
    x, _ = labelled(0)
    prepared = prepare_qat(network(), tensor(x), weight_bits=4, activation_bits=6)
    schedule = QATSchedule(prepared, delay=4, freeze_observers=40, freeze_batch_norm=40)
    step = TrainStep(
        prepared, functional.cross_entropy, SGD(prepared.parameters(), lr=0.05, momentum=0.9), recipe
    )
    losses = []
    for i in range(60):
        images, classes = labelled(i % 12)
        losses.append(step(tensor(images), tensor(classes)).loss)
        schedule.step()
    assert np.mean(losses[-12:]) < 0.5 * np.mean(losses[:4])
    places = [each for each in prepared.modules() if isinstance(each, FakeQuantize)]
    assert all(each.scale.dtype == np.float32 for each in places)
    if recipe == "mixed-fp16":
        assert step.scaler.get_scale() > 1
    differ, of, far = differences(prepared, convert(prepared), x)
    assert (far <= 1, differ * 200 <= of) == (True, True)


def test_the_stages_of_a_step() -> None:
    """Oracle: each stage's own proof, in float64 among others; and the same step without being watched."""
    results = []
    for watched in (True, False):
        prepared = prepare_qat(network(), tensor(labelled(0)[0]))
        optimizer = SGD(prepared.parameters(), lr=0.05, momentum=0.9)
        step = TrainStep(prepared, functional.cross_entropy, optimizer, "mixed-fp16", max_norm=0.1)
        for i in range(2):
            given = tuple(map(tensor, labelled(i)))
            if watched:
                for stage in step.stages(*given):
                    assert stage.check(), stage.check()
            else:
                step(*given)
        results.append({path: each.numpy() for path, each in prepared.state_dict().items()})
    for path, array in results[0].items():
        assert array.tobytes() == results[1][path].tobytes(), path


def test_skipped_steps() -> None:
    """Oracle: by hand: weights stay, ranges and statistics move, a schedule that is told waits."""
    x, y = map(tensor, labelled(0))
    prepared = prepare_qat(network(), x)
    schedule = QATSchedule(prepared, delay=1, freeze_observers=2)
    optimizer = SGD(prepared.parameters(), lr=0.05)
    step = TrainStep(
        prepared, functional.cross_entropy, optimizer, "mixed-fp16", scaler=GradScaler(init_scale=2.0**60)
    )
    before = [each.array.tobytes() for each in prepared.parameters()]
    place = prepared.model[0].activation_post_process
    for i in range(3):
        report = step(x, y)
        assert (report.skipped, place.observed) == (True, i + 1)
        if not report.skipped:
            schedule.step()
    assert [each.array.tobytes() for each in prepared.parameters()] == before
    assert (schedule.steps, switches(prepared)) == (0, (True, False, False))
    assert np.abs(prepared.model[0].bn.running_mean.array).max() > 0


def test_a_trainer_that_is_resumed(tmp_path: Path) -> None:
    """Oracle: a run that was not interrupted, bit for bit, through a file, with clipping and loss scaling."""
    images, classes = (np.concatenate(each) for each in zip(*map(labelled, range(4)), strict=True))

    def fresh(name: str) -> tuple[Any, QATSchedule, Trainer]:
        prepared = prepare_qat(network(), tensor(labelled(0)[0]), weight_bits=4, activation_bits=4)
        optimizer = SGD(prepared.parameters(), lr=0.05, momentum=0.9)
        step = TrainStep(prepared, functional.cross_entropy, optimizer, "mixed-fp16", max_norm=1.0)
        schedule = QATSchedule(prepared, delay=2, freeze_observers=5, freeze_batch_norm=6)
        return prepared, schedule, Trainer(
            step, DataLoader(ArrayDataset(images, classes), 16, shuffle=True, seed=3),
            checkpoint=tmp_path / name, on_step=lambda made: None if made.skipped else schedule.step(),
        )  # fmt: skip

    whole, _, trainer = fresh("whole")
    trainer.run(8)
    _, _, first = fresh("part")
    first.run(4)
    resumed, schedule, then = fresh("part")
    then.resume()
    schedule.load_state_dict({**schedule.state_dict(), "steps": then.done - then.skipped})
    then.run(4)
    assert (then.done, schedule.steps, switches(resumed)) == (8, 8 - then.skipped, (False, True, True))
    for (path, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert a.array.tobytes() == b.array.tobytes(), path


@pytest.mark.parametrize("recipe", ["fp16", "fp16-scaled", "bf16"])
def test_weights_in_16_bits(recipe: str) -> None:
    """Oracle: the message: recipes that keep no float32 weights cannot train with rounding."""
    x, y = labelled(0)
    prepared = prepare_qat(network(), tensor(x))
    step = TrainStep(prepared, functional.cross_entropy, SGD(prepared.parameters(), lr=0.1), recipe)
    with pytest.raises(SettingError, match=r"(?s)weights are trained in float32 here.*mixed-fp16"):
        step(tensor(x), tensor(y))


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_numbers_stay_on_the_grid_under_autocast(low: str) -> None:
    """Oracle: what each place gives is a whole number of steps in float32; products behind it are in 16 bits.

    The model is then off the integers by what 16-bit products leave, a few codes at most.
    """
    x, _ = labelled(0)
    prepared = prepare_qat(network(), tensor(x))
    for i in range(3):
        prepared(tensor(labelled(i)[0]))
    seen: list[Any] = []
    layer = prepared.eval().model[4]
    layer.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    layer.weight_fake_quant.register_forward_hook(lambda module, args, output: seen.append(output))
    with autocast(low):
        got = prepared(tensor(x)).detach()
    weight, (before, output) = seen
    assert {weight.dtype, before.dtype, output.dtype, got.dtype} == {np.dtype(np.float32)}
    for values, numbers in (
        (output, layer.activation_post_process.affine()), (weight, layer.weight_fake_quant.affine()),
    ):  # fmt: skip
        shape = (-1, 1, 1, 1) if numbers.per_channel else ()
        codes = values.detach().array / numbers.scale.reshape(shape)
        assert np.abs(codes - np.rint(codes)).max() < 1e-4
    exact = prepared(tensor(x)).detach()
    step = float(prepared.model[8].activation_post_process.scale.array)
    far = np.abs(got.array - exact.array).max() / step
    assert 0 < far <= (2 if low == "float16" else 6) + 1e-3
