"""The memory ledger; oracle: bytes counted by hand, and every bit of the step before and after."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn, optim
from minimp.errors import DataError
from minimp.memory import Bytes, Ledger, ledger, measure, saved_arrays
from minimp.modes import listen
from minimp.recipe import Recipe, recipes
from minimp.step import TrainStep
from tests.trainer.runs import bits

ROWS, INPUTS, HIDDEN, CLASSES = 5, 4, 3, 2
WEIGHTS = (INPUTS * HIDDEN + HIDDEN) + (HIDDEN * CLASSES + CLASSES)
LABELS = ROWS * 8  # int64, saved by the loss
# Saved for backward, in elements: x by the first layer, the ReLU's result by it and by the second layer (one
# array), the log-probabilities by log_softmax. Weights do not count as activations.
LOW_PART, LOSS_PART = ROWS * (INPUTS + HIDDEN), ROWS * CLASSES
ADAM_STATE = 2 * 4 * WEIGHTS  # two moments in float32
MASTERED = Recipe("mastered", mp.float16, mp.float16, master_weights=True)


def batch() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return rows and labels."""
    rng = np.random.default_rng(2)
    return rng.standard_normal((ROWS, INPUTS)).astype(np.float32), np.arange(ROWS) % CLASSES


def make_step(
    recipe: Recipe | str = "mixed-fp16", *, dropout: float = 0.0, loss_fn: Any = mp.functional.cross_entropy,
    optimizer: Callable[..., optim.Optimizer] = optim.Adam, **options: Any,
) -> TrainStep:  # fmt: skip
    """Return a step of two linear layers with a ReLU between them."""
    layers: list[nn.Module] = [nn.Linear(INPUTS, HIDDEN), nn.ReLU()]
    layers += [nn.Dropout(dropout)] if dropout else []
    model = nn.Sequential(*layers, nn.Linear(HIDDEN, CLASSES))
    return TrainStep(model, loss_fn, optimizer(model.parameters(), lr=0.01), recipe, **options)


def five(weights: int, master: int, gradients: int, optimizer: int, activations: int) -> dict[str, int]:
    """Return the five figures of a ledger."""
    return {
        "weights": weights, "master": master, "gradients": gradients, "optimizer": optimizer,
        "activations": activations,
    }  # fmt: skip


# ---- bytes by hand -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("fp32", five(4 * WEIGHTS, 0, 4 * WEIGHTS, ADAM_STATE, 4 * LOW_PART + 4 * LOSS_PART + LABELS)),
        (
            "mixed-fp16",
            five(2 * WEIGHTS, 4 * WEIGHTS, 4 * WEIGHTS, ADAM_STATE, 2 * LOW_PART + 4 * LOSS_PART + LABELS),
        ),
        ("fp16", five(2 * WEIGHTS, 0, 2 * WEIGHTS, ADAM_STATE, 2 * LOW_PART + 2 * LOSS_PART + LABELS)),
        (
            "bf16-kahan",
            five(
                2 * WEIGHTS, 0, 2 * WEIGHTS, ADAM_STATE + 2 * WEIGHTS, 2 * LOW_PART + 4 * LOSS_PART + LABELS
            ),
        ),
        (
            MASTERED,
            five(2 * WEIGHTS, 4 * WEIGHTS, 2 * WEIGHTS, ADAM_STATE, 2 * LOW_PART + 2 * LOSS_PART + LABELS),
        ),
        (
            Recipe("double", mp.float64, mp.float64),
            five(8 * WEIGHTS, 0, 8 * WEIGHTS, 2 * ADAM_STATE, 8 * LOW_PART + 8 * LOSS_PART + LABELS),
        ),
    ],
    ids=["fp32", "mixed-fp16", "fp16", "bf16-kahan", "optimizer's masters", "float64"],
)
def test_an_mlp_by_hand(recipe: Any, expected: dict[str, int]) -> None:
    """Oracle: elements times bytes, counted from the layers; before the first update there is no state."""
    step = make_step(recipe)
    before = ledger(step, *batch())
    held_elsewhere = not (step.recipe.master_weights and step.recipe.param_dtype is mp.float32)
    assert before.optimizer == 0
    assert before.master == (0 if held_elsewhere else expected["master"])
    while step(*batch()).skipped:
        pass
    assert ledger(step, *batch()).as_dict() == expected


def test_momentum_is_one_array_and_plain_sgd_has_none() -> None:
    """Oracle: four bytes for each weight; nothing."""
    for momentum, expected in ((0.9, 4 * WEIGHTS), (0.0, 0)):
        step = make_step("fp32", optimizer=lambda params, lr, m=momentum: optim.SGD(params, lr, momentum=m))
        step(*batch())
        assert ledger(step, *batch()).optimizer == expected


def test_a_cnn_by_hand() -> None:
    """Oracle: elements counted layer by layer.

    The convolution keeps x, the ReLU its result, the pool one byte a window, the linear layer the pooled
    image, log_softmax its result, the loss the labels.
    """
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, CLASSES))
    step = TrainStep(model, mp.functional.cross_entropy, optim.SGD(model.parameters(), lr=0.1), "mixed-fp16")
    x = np.random.default_rng(0).standard_normal((3, 1, 6, 6)).astype(np.float32)
    weights = (2 * 9 + 2) + (8 * CLASSES + CLASSES)
    images, maps, windows = 3 * 36, 3 * 2 * 16, 3 * 2 * 4
    saved = 2 * images + 2 * maps + windows + 2 * windows + 4 * 3 * CLASSES + 3 * 8
    found = ledger(step, x, np.arange(3) % CLASSES)
    assert found.as_dict() == five(2 * weights, 4 * weights, 4 * weights, 0, saved)


def test_dropout_keeps_a_byte_for_each_element() -> None:
    """Oracle: the mask, one byte an element, and the dropped array that the second layer reads instead."""
    plain, dropped = (ledger(make_step(dropout=p), *batch()) for p in (0.0, 0.5))
    assert dropped.activations - plain.activations == ROWS * HIDDEN * (1 + 2)


def test_activations_grow_with_the_batch_and_weights_do_not() -> None:
    """Oracle: twice the rows, twice the saved bytes."""
    x, labels = batch()
    step = make_step()
    one, two = ledger(step, x, labels), ledger(step, np.tile(x, (2, 1)), np.tile(labels, 2))
    assert two.activations == 2 * one.activations
    assert (two.weights, two.gradients) == (one.weights, one.gradients)


def test_totals_heights_and_a_table() -> None:
    """Oracle: sums and maxima by hand, and one line for each cause."""
    moments = {"forward": Bytes(activations=9, gradients=1), "backward": Bytes(gradients=4, low_copies=2)}
    found = Ledger(Bytes(1, 20, 300, 4000, 50000, 600000, 7000000), moments, elements=5)
    assert found.total == 7654321
    assert found.physical == Bytes(activations=9, gradients=4, low_copies=2)
    assert found.peak == 10
    assert found.as_dict() == five(300, 20, 4000, 50000, 600000)
    lines = str(found).splitlines()
    assert len(lines) == 9
    assert lines[4].split() == ["gradients", "4,000", "4"]
    assert lines[-1].split() == ["total,", "peak", "7,654,321", "10"]
    plain = found.details()
    assert plain["logical"]["total"] == 7654321
    assert plain["moments"]["backward"]["total"] == 6
    assert Ledger(Bytes(parameters=8)).peak == 0


def test_causes_by_hand() -> None:
    """Oracle: FP32 weights under low copies are masters, buffers are parameters' company, in bytes."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    sizes = {"weights": 4 * 3 + 3 + 2 * 3, "buffers": 4 * 2 * 3 + 8}
    step = TrainStep(model, mp.functional.cross_entropy, optim.SGD(model.parameters()), "mixed-fp16")
    found = ledger(step, *batch())
    assert found.logical.parameters == sizes["buffers"]
    assert found.logical.masters == 4 * sizes["weights"]
    assert found.logical.low_copies == 2 * sizes["weights"]
    assert found.elements == sizes["weights"]


def test_memory_is_counted_once() -> None:
    """Oracle: 24 bytes that two ops keep, one of them as two views of it, and 12 bytes of another array."""
    nodes = []
    x = mp.tensor(np.ones((2, 3), np.float32), requires_grad=True)
    with listen(lambda event: nodes.append(event.node)):
        y = mp.functional.relu(x)
        y.T * y.T
        x @ np.ones((3, 1), np.float32)
    owners = saved_arrays(nodes)
    assert sorted(each.nbytes for each in owners.values()) == [12, 24]
    assert all(each.base is None for each in owners.values())
    assert saved_arrays([]) == {}


# ---- nothing changes ---------------------------------------------------------------------------------------


def everything(step: TrainStep) -> Any:
    """Return all that a step depends on, as bits."""
    return bits(
        {
            "weights": dict(step.model.named_parameters()),
            "gradients": {name: p.grad for name, p in step.model.named_parameters()},
            "optimizer": step.optimizer.state_dict(),
            "scaler": step.scaler.state_dict(),
            "random": mp.get_rng_state(),
            "buffers": dict(step.model.named_buffers()),
            "modes": [module.training for module in step.model.modules()],
        }
    )


@pytest.mark.parametrize("recipe", [*recipes.values(), MASTERED], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("steps", [0, 2])
def test_the_ledger_changes_nothing(recipe: Recipe, steps: int) -> None:
    """Oracle: every bit of weights, gradients, optimizer, scaler and random state; dropout draws from it."""
    step = make_step(recipe, dropout=0.5)
    for _ in range(steps):
        step(*batch())
    before = everything(step)
    ledger(step, *batch())
    assert everything(step) == before


def test_the_next_step_is_the_one_without_a_ledger() -> None:
    """Oracle: the losses of two runs, bit for bit; one of them is measured between its steps."""
    losses = []
    for measured in (False, True):
        mp.manual_seed(4)
        step = make_step("bf16-stochastic", dropout=0.5)
        for _ in range(4):
            losses.append(step(*batch()).loss)
            if measured:
                ledger(step, *batch())
    assert losses[:4] == losses[4:]


def test_nor_does_one_that_fails() -> None:
    """Oracle: the same, where the loss raises and where the batch does not fit."""
    fails = False

    def loss_fn(output: Any, targets: Any) -> Any:
        if fails:
            raise ZeroDivisionError
        return mp.functional.cross_entropy(output, targets)

    step = make_step(dropout=0.5, loss_fn=loss_fn)
    step(*batch())
    before, fails = everything(step), True
    with pytest.raises(ZeroDivisionError):
        ledger(step, *batch())
    with pytest.raises(DataError, match="as many targets as inputs"):
        ledger(step, batch()[0], [0])
    assert everything(step) == before


def test_a_measured_step_is_the_step_itself() -> None:
    """Oracle: everything after three steps, bit for bit, of which one run measures all."""
    states = []
    for measured in (False, True):
        mp.manual_seed(4)
        step = make_step("mixed-fp16", dropout=0.5)
        for _ in range(3):
            found = measure(step, *batch()) if measured else step(*batch())
        states.append(everything(step))
    assert isinstance(found, Ledger)
    assert list(found.moments) == ["forward", "backward", "update"]
    assert states[0] == states[1]


def test_a_step_leaves_no_cycles() -> None:
    """Oracle: Python's collector, which finds nothing: all that a step held went when it ended."""
    step = make_step("mixed-fp16", dropout=0.5)
    step(*batch())
    gc.collect()
    gc.disable()
    try:
        step(*batch())
        measure(step, *batch())
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_running_statistics_are_put_back() -> None:
    """Oracle: every buffer's bits and the count of batches, before and after; a measured step moves them."""
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Linear(HIDDEN, CLASSES))
    step = TrainStep(model, mp.functional.cross_entropy, optim.SGD(model.parameters()), "mixed-bf16")
    step(*batch())
    before = everything(step)
    ledger(step, *batch())
    assert everything(step) == before
    measure(step, *batch())
    assert everything(step)["buffers"] != before["buffers"]
