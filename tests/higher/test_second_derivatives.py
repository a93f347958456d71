"""Second derivatives: of every op, in every format, and of what people write with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, nn, ops
from minimp.checks import gradcheck
from minimp.errors import GradientError
from tests.arrays import host
from tests.ops.samples import DIFFERENTIABLE, FLOATS, STRAIGHT_THROUGH, Sample, leaves, numbers
from tests.ops.test_gradients import POSITIVE, points
from tests.tolerances import assert_close

CASTS = ("to_float16", "to_bfloat16", "to_float32")
TWICE = [s for s in DIFFERENTIABLE if s.op not in STRAIGHT_THROUGH]
SMOOTH = [s for s in TWICE if s.options not in CASTS]


@pytest.mark.parametrize("sample", SMOOTH, ids=str)
def test_the_gradient_of_the_gradient_is_its_derivative(sample: Sample) -> None:
    """Oracle: central differences of the first gradient, in float64, along a random direction."""
    signs = np.random.default_rng(3).choice([-1.0, 1.0], 64)
    inputs = points(sample, 3)
    if sample.op not in POSITIVE:
        inputs = [x * np.resize(signs, x.shape) for x in inputs]
    weights: list[np.ndarray] = []

    def slopes(*xs: mp.Tensor) -> mp.Tensor:
        """Return one number: the gradients, weighted at random so that no part can hide."""
        mp.manual_seed(11)
        y = sample.call(*xs)
        random = np.random.default_rng(4)
        seed = mp.tensor(random.uniform(0.5, 1.5, y.shape), dtype="float64")
        wanted = [x for x in xs if x.requires_grad]
        found = mp.grad(y, wanted, seed, create_graph=True, allow_unused=True)
        weights.append(np.zeros(0))
        total = (seed * 0.0).sum() + sum((x * 0.0).sum() for x in xs)
        for g in found:
            if g is not None:
                total = total + (g * mp.tensor(random.uniform(0.5, 1.5, g.shape), dtype="float64")).sum()
        return total

    found = gradcheck(slopes, inputs, seed=3)
    assert found, str(found)
    assert weights


@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("sample", TWICE, ids=str)
def test_recording_does_not_change_the_first_gradient(sample: Sample, fmt: str) -> None:
    """Oracle: the gradient without create_graph: the same bits; for a composite and kernels, within a row.

    A recorded gradient goes by array functions, whose exponentials and sums may differ from a kernel's.
    """
    random = np.random.default_rng(5)
    xs = leaves(sample, fmt, "positive", random)
    mp.manual_seed(2)
    y = sample.call(*xs)
    seed = mp.tensor(numbers(random, y.shape, y.format.name), dtype=y.format)
    plain = mp.grad(y, xs, seed, retain_graph=True, allow_unused=True)
    recorded = mp.grad(y, xs, seed, create_graph=True, allow_unused=True)
    for a, b in zip(plain, recorded, strict=True):
        assert (a is None) == (b is None)
        if a is None or b is None:
            continue
        assert a.format is b.format
        got, wanted = (host(t.detach()).astype(np.float64) for t in (b, a))
        if _composed(y) or hasattr(y.backend, "kernels_in_force"):
            assert_close(got, wanted, f"composite_gradient_{_row(fmt)}")
        else:
            np.testing.assert_array_equal(got, wanted)


def _composed(y: mp.Tensor) -> bool:
    """Tell whether an op with a composite is on the way."""
    stack, seen = [y.node], set()
    while stack:
        node = stack.pop()
        if node is None or id(node) in seen or not hasattr(node, "op"):
            continue
        seen.add(id(node))
        if node.op.composed is not None:
            return True
        stack += [edge for edge in node.inputs if edge is not None]
    return False


def _row(fmt: str) -> str:
    return {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}[fmt]


def test_third_derivatives() -> None:
    """Oracle: d3/dx3 of e^(2x) = 8 e^(2x), of x^5 = 60 x^2."""
    x = mp.tensor([0.25, 1.5], dtype="float64", requires_grad=True)
    for f, wanted in [((x * 2.0).exp(), 8 * np.exp([0.5, 3.0])), (x**5, 60 * np.array([0.0625, 2.25]))]:
        y = f
        for _ in range(3):
            (y,) = mp.grad(y.sum(), x, create_graph=True)
        assert_close(y.detach().numpy(), wanted, "fp64_same_maths")


def test_create_graph_leaves_grads_that_can_be_differentiated() -> None:
    """Oracle: y = x^3: x.grad = 3 x^2, and backward through it adds 6 x."""
    x = mp.tensor([2.0], dtype="float64", requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    slope, x.grad = x.grad, None
    assert slope.requires_grad
    slope.sum().backward()
    assert x.grad.tolist() == [12.0]


def test_gradients_that_meet_add_up_twice() -> None:
    """Oracle: f = x^2 sin-free mix used three times: second derivative by hand, 6 + 12 x^2."""
    x = mp.tensor([1.0, 2.0], dtype="float64", requires_grad=True)
    y = x * x
    total = (y + y + x * x + y * y).sum()
    (slope,) = mp.grad(total, x, create_graph=True)
    (curve,) = mp.grad(slope.sum(), x)
    np.testing.assert_array_equal(curve.numpy(), 6 + 12 * np.array([1.0, 4.0]))


def penalised(x: Any, w: Any, v: Any, lib: Any) -> tuple[Any, Any]:
    """Return a critic's loss with a gradient penalty, (|d score / dx| - 1)^2 (Gulrajani et al. 2017)."""
    score = lib.tanh(x @ w) @ v
    if lib is functional:
        (slope,) = mp.grad(score.sum(), x, create_graph=True)
    else:
        import torch

        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    norm = ((slope * slope).sum(1) + 1e-6) ** 0.5
    return score.mean() + 10.0 * ((norm - 1.0) * (norm - 1.0)).mean(), slope


@pytest.mark.torch
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_a_gradient_penalty_is_torchs(scale: float) -> None:
    """Oracle: torch 2.13.0 in float64: the loss and the gradients of both weights, scaled and not."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(s) for s in [(8, 5), (5, 7), (7, 1)]]
    ours = [mp.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    mine, _ = penalised(*ours, functional)
    other, _ = penalised(*theirs, torch)
    (mine * scale).backward()
    (other * scale).backward()
    assert_close(mine.detach().numpy(), other.detach().numpy(), "fp64_same_maths")
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a.grad.numpy(), b.grad.numpy(), "fp64_same_maths")


def test_a_gradient_penalty_under_autocast_and_loss_scaling() -> None:
    """Oracle: the recipe of torch's AMP examples: scaled grad, unscaled by hand, penalty in the region.

    The weights' gradients, unscaled, are near those of float64; the scale is exact, so twice the scale gives
    the same bits.
    """
    found = []
    for scale in (256.0, 512.0):
        mp.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        x = mp.tensor(np.random.default_rng(0).standard_normal((10, 6)), dtype="float32", requires_grad=True)
        optimizer = mp.optim.SGD(model.parameters(), lr=0.1)
        scaler = mp.GradScaler(init_scale=scale)
        with mp.autocast("float16"):
            loss = model(x).mean()
        (slope,) = mp.grad(scaler.scale(loss), x, create_graph=True)
        slope = slope * (1.0 / scaler.get_scale())
        with mp.autocast("float16"):
            loss = loss + (slope * slope).sum().sqrt()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        assert slope.format is mp.float32
        found.append([p.grad.numpy().copy() for p in model.parameters()])
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == scale
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    exact = _penalty_in_float64()
    for a, b in zip(found[0], exact, strict=True):
        assert_close(a, b, "autocast_penalty_fp16")


def _penalty_in_float64() -> list[np.ndarray]:
    mp.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    x = mp.tensor(
        np.random.default_rng(0).standard_normal((10, 6)).astype("f4").astype("f8"), requires_grad=True
    )
    loss = model(x).mean()
    (slope,) = mp.grad(loss, x, create_graph=True)
    (loss + (slope * slope).sum().sqrt()).backward()
    return [p.grad.numpy() for p in model.parameters()]


def test_a_replaced_leaf_is_refused() -> None:
    """Oracle: the derivative at a value that is gone cannot be recorded; the first order alone can."""
    w = mp.tensor([2.0], requires_grad=True)
    y = w * w
    w.array = w.array + 1
    with pytest.raises(GradientError, match="a leaf was given another array"):
        mp.grad(y, w, create_graph=True)
    assert mp.grad(y, w)[0].tolist() == [4.0]


def test_an_op_whose_rule_cannot_be_recorded_says_so() -> None:
    """Oracle: a rule with a function of unknown derivative, and one that saves a value made on the way."""

    @mp.op()
    def odd(ctx: Any, x: Any) -> Any:
        ctx.save(x)
        return np.cbrt(x)

    @odd.gradient
    def _(ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved
        return grad / (3 * ctx.backend.xp.cbrt(x) ** 2)

    @mp.op()
    def halfway(ctx: Any, x: Any) -> Any:
        ctx.save(np.exp(x))
        return np.exp(x)

    @halfway.gradient
    def _(ctx: Any, grad: Any) -> Any:
        return grad * ctx.saved[0]

    x = mp.tensor([8.0], requires_grad=True)
    try:
        assert mp.grad(odd(x), x)[0].tolist() == pytest.approx([1 / 12])
        with pytest.raises(
            GradientError, match=r"odd: its gradient uses (numpy|cupy).cbrt.*no second derivative"
        ):
            mp.grad(odd(x), x, create_graph=True)
        with pytest.raises(GradientError, match="an array that its forward computed on the way"):
            mp.grad(halfway(x), x, create_graph=True)
    finally:
        del ops.OPS["odd"], ops.OPS["halfway"]


def test_create_graph_keeps_what_was_saved() -> None:
    """Oracle: a second call works; retain_graph=False beside create_graph is refused."""
    x = mp.tensor([2.0], requires_grad=True)
    y = x * x
    assert mp.grad(y, x, create_graph=True)[0].tolist() == [4.0]
    assert mp.grad(y, x)[0].tolist() == [4.0]
    with pytest.raises(GradientError, match="retain_graph=False cannot act beside create_graph=True"):
        mp.grad(x * x, x, create_graph=True, retain_graph=False)
