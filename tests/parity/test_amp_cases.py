"""PyTorch's own tests of gradient scaling, by their description: one program, run in both libraries.

What they try is named in PyTorch's test/test_cuda.py (the tests test_grad_scaling_*) and in the page
"Automatic Mixed Precision examples". Scale and growth tracker are compared bit for bit; weights too, where
the numbers are whole and small (model "exact"), else within a tolerance. PyTorch's own oracle, a run without
scaling, is asked as well.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import optim
from minimp.errors import ScalerError
from minimp.scaler import GradScaler
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

STEPS, BAD = 4, 2
"""As many steps, and the one whose gradients overflow."""
INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Library:
    """What the programs speak to: the same names in both."""

    name: str
    nn: Any
    optim: Any
    tensor: Callable[..., Any]
    grad: Callable[..., Any]
    scaler: Callable[..., Any]
    autocast: Callable[..., Any]
    clip_grad_norm_: Callable[..., Any]
    scaled_clip: dict[str, Any]
    """What says that a limit is scaled: PyTorch is not to be told."""

    def state_of(self, scaler: Any) -> list[float]:
        """Return scale and growth tracker."""
        state = scaler.state_dict()
        return [scaler.get_scale(), state.get("_growth_tracker", 0)]


OURS = Library(
    "minimp", mp.nn, optim, mp.tensor, mp.grad, GradScaler, partial(mp.autocast, policy="torch-cpu"),
    optim.clip_grad_norm_, {"allow_scaled": True},
)  # fmt: skip
THEIRS = Library(
    "torch", torch.nn, torch.optim, torch.tensor, torch.autograd.grad, partial(torch.amp.GradScaler, "cpu"),
    lambda dtype, **o: torch.autocast("cpu", getattr(torch, dtype), **o), torch.nn.utils.clip_grad_norm_, {},
)  # fmt: skip


@dataclass
class Run:
    """One program in one library: the models, what was seen on the way, and the batches."""

    lib: Library
    kind: str
    scaling: bool = True
    rule: str = "SGD"
    settings: dict[str, Any] = field(default_factory=dict)
    seen: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(11)
        exact = self.kind == "exact"
        width = (4, 2) if exact else (8, 8)

        def numbers(*shape: int) -> Any:
            made = rng.integers(-2, 3, shape) if exact else rng.standard_normal(shape)
            return np.asarray(made, np.float32)

        self.batches = [(numbers(4, width[0]), numbers(4, width[1])) for _ in range(STEPS)]
        self.models = [self._model(numbers, width) for _ in range(2)]
        self.lr = 0.5 if exact else 1.0 if self.rule == "SGD" else 0.01
        rule = getattr(self.lib.optim, self.rule)
        self.optimizers = [rule(model.parameters(), lr=self.lr) for model in self.models]
        chosen = {"init_scale": 128.0, "growth_factor": 2.0, "growth_interval": 1, **self.settings}
        self.scaler = self.lib.scaler(enabled=self.scaling, **chosen)
        self.loss_fn = self.lib.nn.MSELoss()

    def _model(self, numbers: Callable[..., Any], width: tuple[int, int]) -> Any:
        """Return one or two linear layers."""
        linear = self.lib.nn.Linear
        layers = [linear(*width)] if self.kind == "exact" else [linear(*width), linear(*width)]
        for layer in layers:
            for param in (layer.weight, layer.bias):
                values = numbers(*param.shape) * np.float32(1.0 if self.kind == "exact" else 0.3)
                if self.lib is OURS:
                    param.array = values
                else:
                    param.data = self.lib.tensor(values)
        return self.lib.nn.Sequential(*layers)

    @property
    def model(self) -> Any:
        """The first model."""
        return self.models[0]

    @property
    def optimizer(self) -> Any:
        """Its optimizer."""
        return self.optimizers[0]

    def steps(self) -> Iterator[tuple[int, Any, Any]]:
        """Yield (number, inputs, targets); take note of the scale after each step."""
        for i, (x, y) in enumerate(self.batches):
            for each in self.optimizers:
                each.zero_grad()
            yield i, self.lib.tensor(x), self.lib.tensor(y)
            self.seen.append(self.lib.state_of(self.scaler))

    def spoil(self, i: int, model: Any = None, value: float = INF) -> None:
        """Overflow one gradient in the bad step, if scaling is on."""
        if self.scaling and i == BAD:
            plant((self.model if model is None else model)[-1].weight, value, self.lib)

    def weights(self) -> list[Any]:
        """Return all parameters as arrays."""
        return [np.array(p.detach().numpy()) for model in self.models for p in model.parameters()]


def plant(param: Any, value: float, lib: Library) -> None:
    """Put a number into one element of a gradient."""
    grad = np.array(param.grad.detach().numpy())
    grad.flat[1] = value
    param.grad = lib.tensor(grad)


Program = Callable[[Run], None]


def plain(run: Run) -> None:
    """Scale, step, update."""
    for i, x, y in run.steps():
        loss = run.loss_fn(run.model(x), y)
        run.scaler.scale(loss).backward()
        run.spoil(i)
        run.scaler.step(run.optimizer)
        run.scaler.update()


def copied(run: Run) -> None:
    """The same, with the scaler taken apart and put together again after each step, as pickling does."""
    for i, x, y in run.steps():
        run.scaler.scale(run.loss_fn(run.model(x), y)).backward()
        run.spoil(i)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        fresh = copy.deepcopy(run.scaler)
        assert run.lib.state_of(fresh) == run.lib.state_of(run.scaler)
        run.scaler = fresh


def saved(run: Run) -> None:
    """The same, with a new scaler of other settings that loads the state after each step."""
    for i, x, y in run.steps():
        run.scaler.scale(run.loss_fn(run.model(x), y)).backward()
        run.spoil(i)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        fresh = run.lib.scaler(init_scale=6.0, growth_factor=7.0, growth_interval=9, enabled=run.scaling)
        fresh.load_state_dict(run.scaler.state_dict())
        run.scaler = fresh


def clipped_scaled(run: Run) -> None:
    """Clip scaled gradients to a scaled limit."""
    for i, x, y in run.steps():
        run.scaler.scale(run.loss_fn(run.model(x), y)).backward()
        limit = 0.25 * run.scaler.get_scale()
        norm = run.lib.clip_grad_norm_(run.model.parameters(), limit, **run.lib.scaled_clip)
        assert float(norm) > limit
        run.spoil(i)
        run.scaler.step(run.optimizer)
        run.scaler.update()


def clipped_unscaled(run: Run) -> None:
    """Unscale, then clip to the limit itself; the overflow comes first."""
    for i, x, y in run.steps():
        run.scaler.scale(run.loss_fn(run.model(x), y)).backward()
        run.spoil(i)
        run.scaler.unscale_(run.optimizer)
        run.lib.clip_grad_norm_(run.model.parameters(), 0.25)
        run.scaler.step(run.optimizer)
        run.scaler.update()


def penalized(run: Run) -> None:
    """Add the norm of all gradients, taken of the scaled loss and divided by the scale, to the loss."""
    for i, x, y in run.steps():
        loss = run.loss_fn(run.model(x), y)
        params = list(run.model.parameters())
        scaled = run.lib.grad(run.scaler.scale(loss), params, create_graph=True)
        inv_scale = 1.0 / run.scaler.get_scale()
        total: Any = 0.0
        for grad in [each * inv_scale for each in scaled]:
            total = total + (grad**2).sum()
        run.scaler.scale(loss + 0.125 * total**0.5).backward()
        run.spoil(i)
        run.scaler.step(run.optimizer)
        run.scaler.update()


def accumulated(run: Run) -> None:
    """Step after every second batch; the scale stays while gradients add up."""
    waiting = False
    for i, (x, y) in enumerate(run.batches):
        loss = run.loss_fn(run.model(run.lib.tensor(x)), run.lib.tensor(y)) / 2
        run.scaler.scale(loss).backward()
        if waiting:
            run.spoil(i - 1)
            run.scaler.step(run.optimizer)
            run.scaler.update()
            run.optimizer.zero_grad(set_to_none=i > 1)
            run.seen.append(run.lib.state_of(run.scaler))
        waiting = not waiting


def several(run: Run) -> None:
    """Two models, two losses that mix both, two optimizers; one of them is unscaled early, one overflows."""
    for i, x, y in run.steps():
        first, second = run.models[0](x), run.models[1](x)
        one = run.loss_fn(2.0 * first + 4.0 * second, y) / 16.0
        two = run.loss_fn(1.0 * first - 2.0 * second, y) / 16.0
        run.scaler.scale(one).backward(retain_graph=True)
        run.scaler.scale(two).backward()
        run.spoil(i, run.models[1])
        run.scaler.unscale_(run.optimizers[0])
        for optimizer in run.optimizers:
            run.scaler.step(optimizer)
        run.scaler.update()


PROGRAMS: tuple[Program, ...] = (
    plain, copied, saved, clipped_scaled, clipped_unscaled, penalized, accumulated, several,
)  # fmt: skip
EXACT: tuple[Program, ...] = (plain, copied, saved, accumulated, several)
"""Those of sums and products alone: no norm, and few enough digits."""


def both(program: Program, **options: Any) -> tuple[Run, Run]:
    """Run a program in both; compare what was seen and the weights."""
    ours, theirs = Run(OURS, **options), Run(THEIRS, **options)
    for run in (ours, theirs):
        program(run)
    assert ours.seen == theirs.seen
    for a, b in zip(ours.weights(), theirs.weights(), strict=True):
        if ours.kind == "exact":
            np.testing.assert_array_equal(a, b)
        else:
            assert_close(a, b, "parity_trajectory_weights")
    return ours, theirs


@pytest.mark.parametrize(
    ("program", "kind"), [*((p, "random") for p in PROGRAMS), *((p, "exact") for p in EXACT)],
    ids=lambda each: getattr(each, "__name__", each),
)  # fmt: skip
def test_the_program_goes_as_in_torch(program: Program, kind: str) -> None:
    """Oracle: PyTorch 2.13.0's CPU GradScaler; and PyTorch's own: 128 doubled in good steps, halved once."""
    ours, _ = both(program, kind=kind)
    good = 1 if program is accumulated else 3
    assert ours.seen[-1] == [128.0 * 2.0**good / 2.0, 0]


@pytest.mark.parametrize("rule", ["Adam", "AdamW", "Adagrad", "RMSprop"])
def test_other_optimizers_skip_and_step_as_in_torch(rule: str) -> None:
    """Oracle: PyTorch 2.13.0: the skipped step moves no moment and no step count."""
    ours, theirs = both(plain, kind="random", rule=rule)
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert ours.optimizer.state[a]["step"] == theirs.optimizer.state[b]["step"].item() == STEPS - 1


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_scaling_makes_no_difference(program: Program) -> None:
    """Oracle: the same program without scaling and without the bad step's update: the same weights.

    In float32 with powers of two nothing is rounded otherwise, so every bit is the same, norms excepted.
    """
    scaled, control = Run(OURS, "random"), Run(OURS, "random", scaling=False)

    def drop(i: int, model: Any = None, value: float = INF) -> None:
        del value
        if i == BAD:
            for param in (control.model if model is None else model).parameters():
                param.grad = None

    control.spoil = drop  # type: ignore[method-assign]
    for run in (scaled, control):
        program(run)
    for a, b in zip(scaled.weights(), control.weights(), strict=True):
        if program in (clipped_scaled, clipped_unscaled, penalized):
            assert_close(a, b, "parity_trajectory_weights")
        else:
            np.testing.assert_array_equal(a, b)


def test_a_plain_run_under_autocast() -> None:
    """Oracle: PyTorch's CPU autocast in bfloat16 with its GradScaler."""
    runs = Run(OURS, "random"), Run(THEIRS, "random")
    for run in runs:
        for i, x, y in run.steps():
            with run.lib.autocast("bfloat16"):
                loss = run.loss_fn(run.model(x), y)
            run.scaler.scale(loss).backward()
            run.spoil(i)
            run.scaler.step(run.optimizer)
            run.scaler.update()
    assert runs[0].seen == runs[1].seen
    for a, b in zip(runs[0].weights(), runs[1].weights(), strict=True):
        assert_close(a, b, "parity_mixed_weights")


# ---- state, extremes, and what is changed by hand


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("used", [True, False])
def test_a_state_is_taken_over_whole(enabled: bool, used: bool) -> None:
    """Oracle: PyTorch 2.13.0: five numbers, whether or not the receiver has scaled anything yet."""
    ends = []
    for lib in (OURS, THEIRS):
        giver = lib.scaler(
            init_scale=3.0, growth_factor=4.0, backoff_factor=0.5, growth_interval=2, enabled=enabled
        )
        taker = lib.scaler(
            init_scale=6.0, growth_factor=7.0, backoff_factor=0.8, growth_interval=1, enabled=enabled
        )
        if used:
            taker.scale(lib.tensor(4.0))
        taker.load_state_dict(giver.state_dict())
        settings = [taker.get_growth_factor(), taker.get_backoff_factor(), taker.get_growth_interval()] if (
            enabled
        ) else []  # fmt: skip
        ends.append((taker.state_dict(), settings, taker.get_scale()))
    assert ends[0] == ends[1]
    assert ends[0][2] == (3.0 if enabled else 1.0)


def test_a_scale_near_the_largest_number_does_not_overflow() -> None:
    """Oracle: PyTorch 2.13.0 from 1e38 with a growth of 16: the scale stays finite, the weights are equal."""
    ends = []
    for lib in (OURS, THEIRS):
        weight = lib.tensor([[0.5, -0.25, 1.0, 2.0, -1.0]], requires_grad=True)
        optimizer = lib.optim.Adam([weight], lr=0.1)
        scaler = lib.scaler(init_scale=1e38, growth_factor=2.0**4, growth_interval=1)
        loss = ((weight.sum() * 1e-3 - 1.0) ** 2).mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert math.isfinite(scaler.get_scale())
        ends.append((scaler.get_scale(), np.array(weight.detach().numpy())))
    assert ends[0][0] == ends[1][0] == float(np.float32(1e38))
    assert_close(ends[0][1], ends[1][1], "parity_optimizer")


@pytest.mark.filterwarnings("ignore::minimp.errors.ScaleWarning")
def test_endless_overflow_in_a_model() -> None:
    """Oracle: PyTorch 2.13.0: 2^-149 then 0, weights untouched until a finite gradient meets S = 0: NaN."""
    ends = []
    for lib in (OURS, THEIRS):
        weight = lib.tensor([1.0], requires_grad=True)
        optimizer, scaler = lib.optim.SGD([weight], lr=1.0), lib.scaler(init_scale=2.0)
        seen = []
        with np.errstate(all="ignore"):
            for factor in [INF] * 152 + [1.0]:
                optimizer.zero_grad()
                scaler.scale((weight * factor).sum()).backward()
                scaler.step(optimizer)
                scaler.update()
                seen.append((scaler.get_scale(), weight.item()))
        ends.append(seen)
    np.testing.assert_equal(ends[0], ends[1])
    assert ends[0][149][0] == 2.0**-149
    assert ends[0][150][0] == 0.0
    assert math.isnan(ends[0][-1][1])


@pytest.mark.parametrize("value", [INF, -INF, NAN, 7.0])
@pytest.mark.parametrize("rule", ["SGD", "Adam", "AdamW"])
def test_what_is_planted_after_unscaling_goes_into_the_weights(value: float, rule: str) -> None:
    """Oracle: PyTorch 2.13.0: the check is over, so the step is taken, and the scale grows."""
    ends = []
    for lib in (OURS, THEIRS):
        run = Run(lib, "exact", rule=rule)
        for i, x, y in run.steps():
            run.scaler.scale(run.loss_fn(run.model(x), y)).backward()
            run.scaler.unscale_(run.optimizer)
            run.spoil(i, value=value)
            with np.errstate(all="ignore"):
                run.scaler.step(run.optimizer)
            run.scaler.update()
            if i == BAD:
                break
        ends.append((run.lib.state_of(run.scaler), run.weights()))
    assert ends[0][0] == ends[1][0] == [1024.0, 0]
    for a, b in zip(ends[0][1], ends[1][1], strict=True):
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
        keep = np.isfinite(a)
        assert_close(a[keep], b[keep], "parity_trajectory_weights")
    assert np.isfinite(np.concatenate([np.ravel(a) for a in ends[0][1]])).all() == math.isfinite(value)


SPOTS = tuple((param, spot, value) for param in (0, 1) for spot in (0, -1) for value in (INF, -INF, NAN))


@pytest.mark.parametrize("scale", [4.0, 2.0**24, 3.0])
@pytest.mark.parametrize("shape", [(1,), (10,), (7, 3), (130, 33)])
def test_one_bad_element_anywhere_is_found(shape: tuple[int, ...], scale: float) -> None:
    """Oracle: PyTorch 2.13.0: the verdict, and every other element divided as PyTorch divides it."""
    rng = np.random.default_rng(5)
    for param, spot, value in (*SPOTS, (0, 0, 1.0)):
        grads = [rng.standard_normal(s).astype(np.float32) for s in (shape, shape[::-1])]
        grads[param].flat[spot] = value
        ends: list[Any] = []
        for lib in (OURS, THEIRS):
            params = [lib.tensor(np.zeros_like(g), requires_grad=True) for g in grads]
            for p, g in zip(params, grads, strict=True):
                p.grad = lib.tensor(g)
            scaler, optimizer = lib.scaler(init_scale=scale), lib.optim.SGD(params, lr=1.0)
            scaler.scale(lib.tensor(1.0))
            scaler.unscale_(optimizer)
            unscaled = [np.array(p.grad.numpy()) for p in params]
            scaler.step(optimizer)
            scaler.update()
            ends.append((scaler.get_scale(), unscaled, [p.detach().numpy() for p in params]))
        np.testing.assert_equal(ends[0], ends[1])
        assert ends[0][0] == scale * (1.0 if value == 1.0 else 0.5)


def test_outputs_of_every_kind_are_scaled() -> None:
    """Oracle: PyTorch 2.13.0: a tensor, and lists and tuples in each other, of the same types."""
    ends = []
    for lib in (OURS, THEIRS):
        scaler, t = lib.scaler(init_scale=2.0), lib.tensor([4.0])
        outputs: Any = (t, [t, (t, t)], [])
        found = scaler.scale(outputs)
        assert [type(each) for each in (found, found[1], found[1][1])] == [tuple, list, tuple]
        ends.append([found[0].item(), found[1][0].item(), found[1][1][1].item(), len(found[2])])
    assert ends[0] == ends[1] == [8.0, 8.0, 8.0, 0]


def test_a_parameter_in_two_optimizers_has_torchs_value_and_is_refused() -> None:
    """Oracle: PyTorch 2.13.0 divides twice and steps; ours has the same number, and says why not to step."""
    grads = []
    for lib in (OURS, THEIRS):
        weight = lib.tensor([1.0], requires_grad=True)
        optimizers = [lib.optim.SGD([weight], lr=1.0) for _ in range(2)]
        scaler = lib.scaler(init_scale=8.0)
        scaler.scale(weight.sum()).backward()
        for each in optimizers:
            scaler.unscale_(each)
        grads.append(weight.grad.item())
        if lib is OURS:
            with pytest.raises(ScalerError, match="unscaled 2 times"):
                scaler.step(optimizers[0])
    assert grads == [0.125, 0.125]
