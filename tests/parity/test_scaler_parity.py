"""GradScaler against PyTorch 2.13.0's: random sequences of calls, compared call by call, bit for bit."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import minimp as mp
from minimp.frameworks.scalers.refusals import REFUSALS
from minimp.scaler import GradScaler, ScalerStep, ScaleRule
from tests.parity.scaler_twins import OPTIMIZERS, PARAMETERS, Twins, same
from tests.scaler.plain import SelfScalingSGD

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::minimp.errors.ScaleWarning")]

INF, NAN = float("inf"), float("nan")
SCALES = [2.0**16, 8.0, 1.0, 3.7, 0.1, 2.0**127, 2.0**-149, 0.0, -2.0, INF]
SETTINGS = {
    "init_scale": SCALES,
    "growth_factor": [2.0, 4.0, 1.7],
    "backoff_factor": [0.5, 0.25, 0.3, -0.5],
    "growth_interval": [1, 2, 3, 0],
}
GRADS = [None, [1.0], [8.0, -0.0], [INF], [1.0, NAN], [-INF, 2.0], [3e-40, 6e4], [0.0]]
STATES = [
    {},
    {"scale": 4.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2, "_growth_tracker": 1},
    {"scale": 3.3, "growth_factor": 1.5, "backoff_factor": 0.7, "growth_interval": 5, "_growth_tracker": 0},
    {"scale": INF, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2, "_growth_tracker": 7},
]
NOT_CALLED = {
    "growth not above 1", "backoff not below 1", "an entry is missing", "a disabled scaler has none",
}  # fmt: skip
"""Kinds of refusal that no call of the walk can meet: of the constructor, and of what is not made here."""
DTYPES = ["float16", "bfloat16", "float32", "float64", "int64"]
SHAPES: list[tuple[int, ...]] = [(), (2,)]


def iterate(twins: Twins, one_of: Callable[[Any], Any]) -> None:
    """Make a whole iteration of both float32 optimizers, with a fault in one of two."""
    twins.scale(1.0, "float32", ())
    for index in range(4):
        twins.set_grads(index, one_of([[1.0], [8.0, -0.5], [3e-40, 6e4]]))
    if one_of([True, False]):
        twins.set_grads(one_of(range(4)), one_of([[INF], [1.0, NAN], [-INF, 2.0]]))
    for index in (0, 1):
        if one_of([True, False]):
            twins.unscale(index)
        twins.step(index)
    twins.update()


def walk(twins: Twins, rng: np.random.Generator, length: int) -> None:
    """Take `length` random actions: calls in any order, and whole iterations among them."""

    def one_of(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    calls = {
        "iteration": (5, lambda: iterate(twins, one_of)),
        "scale": (6, lambda: twins.scale(one_of([1.0, 0.5, -3.0, 0.0]), one_of(DTYPES), one_of(SHAPES))),
        "nothing": (1, lambda: twins.scale_anything(one_of([3.0, None, [], (), [2.0]]))),
        "grads": (10, lambda: twins.set_grads(int(rng.integers(len(PARAMETERS) - 1)), one_of(GRADS))),
        "half_grads": (1, lambda: twins.set_grads(len(PARAMETERS) - 1, one_of(GRADS))),
        "unscale": (5, lambda: twins.unscale(int(rng.integers(len(OPTIMIZERS))))),
        "step": (8, lambda: twins.step(int(rng.integers(len(OPTIMIZERS))))),
        "closure": (1, lambda: twins.step_with_closure(0)),
        "update": (8, twins.update),
        "set": (1, lambda: twins.update(one_of(SCALES))),
        "odd": (1, lambda: twins.update(one_of([1e39, 4]))),
        "tensor": (1, lambda: twins.update_with_tensor(one_of(SCALES), one_of([(), (1,), (2,)]))),
        "load": (1, lambda: twins.load(one_of(STATES))),
        "swap": (1, twins.swap_states),
        "copy": (1, twins.copy),
        "growth": (1, lambda: twins.setting("growth_factor", one_of(SETTINGS["growth_factor"]))),
        "backoff": (1, lambda: twins.setting("backoff_factor", one_of(SETTINGS["backoff_factor"]))),
        "interval": (1, lambda: twins.setting("growth_interval", one_of(SETTINGS["growth_interval"]))),
    }
    weights = np.array([weight for weight, _ in calls.values()], float)
    for name in rng.choice(list(calls), size=length, p=weights / weights.sum()):
        calls[name][1]()


def walks(seed: int, count: int) -> tuple[int, Counter[str]]:
    """Take `count` walks of 40 actions, each from new scalers; return (compared calls, how they ended)."""
    rng = np.random.default_rng(seed)
    calls, ended = 0, Counter[str]()
    for _ in range(count):
        twins = Twins({name: values[int(rng.integers(len(values)))] for name, values in SETTINGS.items()})
        walk(twins, rng, 40)
        calls += twins.calls
        ended += twins.ended
    return calls, ended


def test_random_calls_end_alike() -> None:
    """Oracle: PyTorch 2.13.0's GradScaler: values, states and kind of error, after each of 2,500 calls."""
    calls, ended = walks(seed=0, count=60)
    assert calls >= 2500
    assert min(ended["stepped"], ended["skipped"]) >= 100


@pytest.mark.slow
def test_twenty_thousand_random_calls_end_alike() -> None:
    """Oracle: PyTorch 2.13.0's GradScaler: values, states and kind of error, after each of 20,000 calls."""
    calls, ended = walks(seed=1, count=450)
    assert calls >= 20_000
    assert min(ended["stepped"], ended["skipped"]) >= 1000
    met = [row.theirs[1] for row in REFUSALS if row.kind not in NOT_CALLED]
    rare = {words: ended[words] for words in met if ended[words] < 10}
    assert rare == {}, "a kind of error that is hardly met is hardly compared"


class Together(RuleBasedStateMachine):
    """The same calls, chosen by hypothesis, which shrinks a sequence that tells the two apart."""

    twins: Twins

    @initialize(chosen=st.fixed_dictionaries({k: st.sampled_from(v) for k, v in SETTINGS.items()}))
    def begin(self, chosen: dict[str, Any]) -> None:
        """Make both scalers."""
        self.twins = Twins(chosen)

    @rule(value=st.floats(-4, 4, width=16), dtype=st.sampled_from(DTYPES[:4]), shape=st.sampled_from(SHAPES))
    def scale(self, value: float, dtype: str, shape: tuple[int, ...]) -> None:
        """Scale."""
        self.twins.scale(value, dtype, shape)

    @rule(
        index=st.integers(0, len(PARAMETERS) - 1),
        values=st.none() | st.lists(st.floats(width=32), min_size=1),
    )
    def grads(self, index: int, values: list[float] | None) -> None:
        """Give a gradient."""
        self.twins.set_grads(index, values)

    @rule(index=st.integers(0, len(OPTIMIZERS) - 1))
    def unscale(self, index: int) -> None:
        """Unscale."""
        self.twins.unscale(index)

    @rule(index=st.integers(0, len(OPTIMIZERS) - 1))
    def step(self, index: int) -> None:
        """Step."""
        self.twins.step(index)

    @rule()
    def update(self) -> None:
        """Update."""
        self.twins.update()

    @rule(value=st.floats(allow_nan=False))
    def set_scale(self, value: float) -> None:
        """Set the scale to any float64."""
        self.twins.update(value)

    @rule()
    def swap(self) -> None:
        """Let each load the other's state."""
        self.twins.swap_states()

    @rule()
    def copy(self) -> None:
        """Go on with copies."""
        self.twins.copy()

    @invariant()
    def same_scale(self) -> None:
        """Compare the scales also where nothing was called."""
        if hasattr(self, "twins"):
            assert repr(self.twins.our_scaler.get_scale()) == repr(self.twins.their_scaler.get_scale())

    def teardown(self) -> None:
        """Count."""
        if hasattr(self, "twins"):
            compared.update(calls=self.twins.calls)


compared: Counter[str] = Counter()


def test_calls_that_hypothesis_chooses_end_alike() -> None:
    """Oracle: PyTorch 2.13.0's GradScaler, after each call; at least ten compared calls an example."""
    compared.clear()
    run_state_machine_as_test(Together, settings=settings(stateful_step_count=40))
    assert compared["calls"] >= 10 * settings.default.max_examples


@pytest.mark.parametrize("seed", range(3))
def test_long_runs_of_verdicts_move_the_scale_alike(seed: int) -> None:
    """Oracle: torch._amp_update_scale_ of PyTorch 2.13.0, 2,000 verdicts a seed, factors of every kind."""
    rng = np.random.default_rng(seed)
    init, growth, backoff = [(2.0**16, 2.0, 0.5), (1.0, 1.1, 0.9), (7.3e-30, 3.7, 0.31)][seed]
    ours = GradScaler.from_rule(ScaleRule(init, growth, backoff, 3))
    scale = torch.full((), init, dtype=torch.float32)
    tracker = torch.zeros((), dtype=torch.int32)
    rates = np.repeat(rng.uniform(0.0, 0.6, 40), 50)
    for bad in rng.random(2000) < rates:
        ours.advance(bool(bad))
        torch._amp_update_scale_(scale, tracker, torch.tensor(float(bad)), growth, backoff, 3)
        assert (ours.get_scale(), ours.state.growth_tracker) == (scale.item(), tracker.item())


def test_endless_overflow_ends_at_zero_in_both() -> None:
    """Oracle: PyTorch 2.13.0: from 1 to 2^-149, then 0; gradients become NaN, and nothing recovers."""
    twins = Twins({"init_scale": 1.0, "growth_interval": 1})
    twins.scale(1.0, "float32", ())
    for _ in range(152):
        twins.set_grads(0, [INF])
        twins.step(0)
        twins.update()
    assert twins.our_scaler.get_scale() == 0.0
    twins.set_grads(0, [1.0, 0.0])
    twins.step(0)
    twins.update()
    assert np.isnan(twins.ours[0].detach().numpy()).any()


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("grad", [8.0, INF])
def test_self_scaling_optimizers_are_called_alike(grad: float, unscaled: bool) -> None:
    """Oracle: PyTorch 2.13.0 with an optimizer that has _step_supports_amp_scaling: what it is given."""

    class TheirOptimizer(torch.optim.SGD):  # type: ignore[misc]  # torch is not checked
        _step_supports_amp_scaling = True
        seen: list[tuple[Any, float]] = []  # noqa: RUF012 - one instance a class here

        def step(self) -> str:
            given = self.grad_scale
            self.seen.append((None if given is None else float(given), float(self.found_inf)))
            return "stepped"

    dtype = "float32" if unscaled else "float16"
    ours, theirs = (
        mp.tensor([0.0], dtype=dtype, requires_grad=True),
        torch.zeros(1, dtype=getattr(torch, dtype)),
    )
    ours.grad, theirs.grad = mp.tensor([grad], dtype=dtype), torch.tensor([grad]).to(theirs.dtype)
    mine, other = SelfScalingSGD([ours]), TheirOptimizer([theirs], lr=1.0)
    scalers = GradScaler(init_scale=4.0), torch.amp.GradScaler("cpu", init_scale=4.0)
    results = []
    for scaler, optimizer, one in zip(
        scalers, (mine, other), (mp.tensor(1.0), torch.tensor(1.0)), strict=True
    ):
        scaler.scale(one)
        if unscaled:
            scaler.unscale_(optimizer)
        end = scaler.step(optimizer)
        results.append(end.returned if isinstance(end, ScalerStep) else end)
        scaler.update()
    assert results == ["stepped", "stepped"]
    assert mine.seen == TheirOptimizer.seen
    assert scalers[0].state_dict() == scalers[1].state_dict()


def test_a_whole_training_goes_alike() -> None:
    """Oracle: PyTorch 2.13.0: 60 steps of a float32 model with an overflow planted every 7th, all bits equal.

    The products are sums of two terms, so that no order of summation can differ.
    """
    rng = np.random.default_rng(3)
    start = rng.standard_normal((2, 2), dtype=np.float32)
    ours, theirs = mp.tensor(start, requires_grad=True), torch.tensor(start, requires_grad=True)
    twins = Twins({"init_scale": 2.0**10, "growth_interval": 4})
    twins.our_optimizers[0].param_groups = [{"params": [ours]}]
    twins.their_optimizers[0] = torch.optim.SGD([theirs], lr=1.0)
    for step in range(60):
        x = rng.standard_normal((1, 2), dtype=np.float32) * np.float32(0.25)
        ours.grad = theirs.grad = None
        our_loss, their_loss = (mp.tensor(x) @ ours).sum(), (torch.tensor(x) @ theirs).sum()
        factor = INF if step % 7 == 6 else 0.125
        twins.our_scaler.scale(our_loss * factor).backward()
        twins.their_scaler.scale(their_loss * factor).backward()
        twins.step(0)
        twins.update()
        same(ours.detach().numpy(), theirs.detach())
    assert twins.our_optimizers[0].calls == 60 - 8


def test_a_disabled_scaler_is_torchs() -> None:
    """Oracle: PyTorch 2.13.0's disabled scaler, call by call."""
    ours, theirs = GradScaler(enabled=False), torch.amp.GradScaler("cpu", enabled=False)
    for scaler, loss in ((ours, mp.tensor(2.0)), (theirs, torch.tensor(2.0))):
        assert scaler.scale(loss) is loss
        scaler.update()
        scaler.load_state_dict({"scale": 1.0})
        assert (scaler.get_scale(), scaler.state_dict(), scaler.is_enabled()) == (1.0, {}, False)
        assert copy.deepcopy(scaler).get_scale() == 1.0


def test_state_dicts_pass_through_both() -> None:
    """Oracle: PyTorch 2.13.0: the same keys in the same order, also for a rule that PyTorch lacks."""
    ours = GradScaler(hysteresis=2, growth_interval=3)
    for bad in (False, True, False):
        ours.advance(bad)
    theirs = torch.amp.GradScaler("cpu")
    theirs.load_state_dict(ours.state_dict())
    assert list(theirs.state_dict()) == list(ours.state_dict())[:5] == list(GradScaler().state_dict())
    assert theirs.state_dict() == {name: ours.state_dict()[name] for name in theirs.state_dict()}
    back = GradScaler(hysteresis=2)
    back.load_state_dict(theirs.state_dict())
    assert (back.rule.hysteresis, back.get_growth_interval(), back.get_scale()) == (2, 3, ours.get_scale())
