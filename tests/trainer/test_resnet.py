"""The ResNet; oracles: closed forms, PyTorch's layers, a run without a break."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import models, nn, optim
from minimp.data import DataLoader, digits
from minimp.errors import SettingError
from minimp.evaluation import evaluate
from minimp.memory import ledger
from minimp.recipe import recipes
from minimp.step import TrainStep
from minimp.trainer import Trainer
from tests.arrays import host
from tests.tolerances import assert_close
from tests.trainer.runs import bits

DATA = digits("train", shape="image")


def make(seed: int = 0, shape: tuple[int, ...] = (1, 8, 8), **sizes: Any) -> Any:
    """Make a small ResNet."""
    mp.manual_seed(seed)
    return models.build("resnet", (shape, 10), **{"width": 4, **sizes})


def batch(seed: int = 0, shape: tuple[int, ...] = (1, 8, 8)) -> Any:
    """Draw six images and their labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((6, *shape)).astype(np.float32), rng.integers(0, 10, 6)


@pytest.mark.parametrize(("depth", "blocks"), [(8, 1), (14, 2), (20, 3)])
def test_parameters_are_counted(depth: int, blocks: int) -> None:
    """Oracle: the closed form of He et al. 2016, section 4.2, option B; 0.27 M at depth 20, as they say."""
    width, channels = 16, 3
    norm = 2 * width
    expected = 9 * channels * width + norm + blocks * (2 * 9 * width**2 + 2 * norm)
    for k in (2, 4):
        c = k * width
        expected += 9 * (c // 2) * c + 9 * c * c + 2 * 2 * c + (c // 2) * c + 2 * c
        expected += (blocks - 1) * (2 * 9 * c * c + 2 * 2 * c)
    model = make(shape=(3, 8, 8), depth=depth, width=width)
    assert nn.count_parameters(model) == expected + 4 * width * 10 + 10
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) + 1 == depth
    if depth == 20:
        assert round(nn.count_parameters(model) / 1e6, 2) == 0.27


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 28, 28), (1, 4, 5)])
def test_images_of_any_size(shape: tuple[int, ...]) -> None:
    """Oracle: one score a class."""
    assert make(shape=shape)(batch(shape=shape)[0]).shape == (6, 10)


@pytest.mark.parametrize("depth", [2, 7, 9, 0])
def test_depths_that_cannot_be(depth: int) -> None:
    """Oracle: 6 n + 2."""
    with pytest.raises(SettingError, match=f"depth must be 8, 14, 20, .* got {depth}"):
        make(depth=depth)
    with pytest.raises(SettingError, match="at least 1"):
        make(width=0)


# ---- beside PyTorch -------------------------------------------------------------------------------------


def torch_resnet(torch: Any, state: dict[str, Any], x: Any, training: bool) -> Any:
    """Compute the scores by PyTorch's functions; the running statistics in `state` move in training."""
    f = torch.nn.functional

    def norm(y: Any, path: str) -> Any:
        mean, var = state[f"{path}.running_mean"], state[f"{path}.running_var"]
        return f.batch_norm(y, mean, var, state[f"{path}.weight"], state[f"{path}.bias"], training, 0.1)

    y = f.relu(norm(f.conv2d(x, state["conv.weight"], padding=1), "norm"))
    for n, stride in enumerate((1, 1, 2, 1, 2, 1)):
        at = f"blocks.{n}"
        z = f.relu(norm(f.conv2d(y, state[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.norm1"))
        z = norm(f.conv2d(z, state[f"{at}.conv2.weight"], padding=1), f"{at}.norm2")
        if stride > 1:
            y = norm(f.conv2d(y, state[f"{at}.shortcut.0.weight"], stride=stride), f"{at}.shortcut.1")
        y = f.relu(z + y)
    return f.linear(y.mean((2, 3)), state["head.weight"], state["head.bias"])


@pytest.mark.torch
def test_scores_gradients_and_statistics_are_pytorchs() -> None:
    """Oracle: PyTorch 2.13 in float64, in training, then in evaluation with the statistics that it left."""
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
    model = make(1, depth=14).double()
    theirs = {name: torch.tensor(np.array(host(each))) for name, each in model.state_dict().items()}
    for name, _ in model.named_parameters():
        theirs[name].requires_grad_()
    x, labels = batch()
    wide = x.astype(np.float64)
    for _ in range(2):
        model.zero_grad()
        scores = torch_resnet(torch, theirs, torch.tensor(wide), training=True)
        ours = model(mp.tensor(wide))
        assert_close(host(ours), scores.detach().numpy(), "composite_gradient_fp64")
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(labels))
        gradients = torch.autograd.grad(loss, [theirs[name] for name, _ in model.named_parameters()])
        mp.functional.cross_entropy(ours, labels).backward()
        for (_, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
            assert_close(host(parameter.grad), gradient.numpy(), "composite_gradient_fp64")
    for name, buffer in model.named_buffers():
        if not name.endswith("num_batches_tracked"):
            assert_close(host(buffer), theirs[name].numpy(), "composite_gradient_fp64")
    model.eval()
    scores = torch_resnet(torch, theirs, torch.tensor(wide), training=False)
    assert_close(host(model(mp.tensor(wide))), scores.detach().numpy(), "composite_gradient_fp64")


# ---- training -------------------------------------------------------------------------------------------


def trainer(recipe: str, **options: Any) -> Trainer:
    """Return the trainer of a new run."""
    model = make(2)
    made = optim.Adam(model.parameters(), lr=1e-3)
    step = TrainStep(model, mp.functional.cross_entropy, made, recipe)
    return Trainer(
        step, DataLoader(DATA, 32, shuffle=True, seed=1), test=digits("test", shape="image"), **options
    )


def statistics(run: Trainer) -> Any:
    """Return the bits of the buffers."""
    return bits(dict(run.step.model.named_buffers()))


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16", "bf16-stochastic"])
def test_a_run_resumes_with_its_statistics(recipe: str, tmp_path: Path) -> None:
    """Oracle: a run of 12 steps without a break, every bit of it; the other is judged in between."""
    straight = trainer(recipe)
    straight.run(12)
    first = trainer(recipe, checkpoint=tmp_path / "run.safetensors")
    first.run(7)
    first.evaluate()
    second = trainer(recipe, checkpoint=tmp_path / "run.safetensors")
    second.resume()
    second.run(5)
    assert bits(second.state_dict()) == bits(straight.state_dict())
    assert statistics(second) == statistics(straight)
    assert int(host(second.step.model.norm.num_batches_tracked)) == 12


@pytest.mark.parametrize("recipe", recipes)
def test_looking_on_moves_no_statistics(recipe: str) -> None:
    """Oracle: the buffers before; evaluation, the count of bytes and the float64 gradients leave them."""
    run = trainer(recipe)
    run.run(2)
    before = statistics(run)
    run.evaluate()
    ledger(run.step, *DATA[:8])
    exact = mp.checks.shadow.float64_gradients(run.step.model, mp.functional.cross_entropy, *DATA[:8])
    assert {str(gradient.dtype) for gradient in exact.values()} == {"float64"}
    assert statistics(run) == before
    run.step(*DATA[:8])
    assert statistics(run) != before


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "mixed-fp16", "bf16-kahan"])
def test_recipes_learn(recipe: str) -> None:
    """Oracle: chance is a tenth; evaluation goes by the running statistics, so that a single row will do."""
    run = trainer(recipe)
    run.run(45)
    assert run.evaluate()["test_accuracy"] > 0.5
    test = digits("test", shape="image")[:1]
    one = mp.data.ArrayDataset(*test, num_classes=10)
    assert set(evaluate(run.step.model, one, recipe)) == {"test_accuracy", "test_loss"}
