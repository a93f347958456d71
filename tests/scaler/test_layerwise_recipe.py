"""Layer-wise scaling as a recipe's choice: every stage of a step still proves itself."""

from __future__ import annotations

import copy

import minimp as mp
from minimp.scaler import LayerwiseScaler


def deep_step(depth: int = 6) -> mp.TrainStep:
    """Return a step of a deep network of sigmoids, always from the same weights."""
    mp.manual_seed(3)
    inner = [each for _ in range(depth) for each in (mp.nn.Linear(32, 32), mp.nn.Sigmoid())]
    model = mp.nn.Sequential(mp.nn.Linear(64, 32), mp.nn.Sigmoid(), *inner, mp.nn.Linear(32, 10))
    optimizer = mp.optim.Adam(model.parameters(), lr=1e-3)
    return mp.TrainStep(model, mp.functional.cross_entropy, optimizer, "mixed-layerwise")


def test_each_stage_checks_and_layers_have_names() -> None:
    """Oracle: the stages' own proofs; the names of the model's weights."""
    step = deep_step()
    digits = mp.data.digits("train")
    for _ in range(2):
        for stage in step.stages(digits.inputs[:64], digits.targets[:64]):
            proof = stage.check()
            assert proof, proof
    assert isinstance(step.scaler, LayerwiseScaler)
    layers = {name for name, module in step.model.named_modules() if isinstance(module, mp.nn.Linear)}
    assert {name for name in step.scaler.factors if not name.startswith("cast-")} == layers
    assert max(step.scaler.factors.values()) > 1.0


def test_a_copied_step_names_its_layers_as_the_first_one_does() -> None:
    """Oracle: the report of the original, whose scaler was told the names of its model."""
    step = deep_step()
    digits = mp.data.digits("train")
    twin = copy.deepcopy(step)
    for each in (step, twin):
        each(digits.inputs[:64], digits.targets[:64])
    assert str(twin.scaler.report()) == str(step.scaler.report())
