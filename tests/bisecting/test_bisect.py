"""Precision blame; oracle: planted faults, and runs under the edited policy without any of the searcher."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import nn
from minimp.bisecting import Blame, Progress, bisect
from minimp.door import OPS as DOOR
from minimp.errors import FormatError, SettingError
from minimp.modes import MODES
from minimp.nn.hooks import Hooked
from minimp.step import TrainStep
from tests.bisecting.cases import CUDA, FAULTS, Fault

BOUND = 2.0**-6  # 32 roundings of float16, the default


def values(result: Any) -> np.ndarray:
    """Everything that a run returned, one after the other."""
    parts = result.values() if isinstance(result, dict) else [result]
    return np.concatenate(
        [np.ravel(np.float64(x.detach() if isinstance(x, mp.Tensor) else x)) for x in parts]
    )


def agrees(run: Callable[[], Any], policy: Any) -> bool:
    """Whether a run under a policy agrees with FP32: written again, with autocast alone."""
    exact = values(run())
    with mp.autocast("float16", policy=policy):
        found = values(run())
    return bool(np.all(np.isfinite(found)) and np.max(np.abs(found - exact)) <= BOUND * np.max(np.abs(exact)))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_planted_faults_are_found_by_name_and_by_call(fault: Fault) -> None:
    """Oracle: what was planted; it is minimal: without any one of them, plain autocast disagrees again."""
    run = fault.make()
    blame = bisect(run, policy=fault.policy)
    assert {*blame.ops} == fault.ops
    assert "cast" not in blame.candidates
    assert {(x.op, x.call, x.module) for x in blame.instances} == fault.calls
    assert all(x.source.startswith("tests/bisecting/cases.py:") for x in blame.instances)
    assert (blame.minimal, blame.smallest, bool(blame)) == (True, True, False)
    assert (blame.before.agreed, blame.after.agreed) == (False, True)
    assert not agrees(run, fault.policy)
    assert agrees(run, blame.policy)
    for op in blame.ops:
        rest = {other: "fp32" for other in blame.ops if other != op}
        assert not agrees(run, fault.policy.with_(rest))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_what_is_printed_fits_the_screen_and_its_code_runs(fault: Fault) -> None:
    """Oracle: 100 columns; the code, run as it stands, makes the policy that was found."""
    blame = bisect(fault.make(), policy=fault.policy)
    printed = str(blame)
    assert max(map(len, printed.splitlines())) <= 100
    assert f"    {blame.code}" in printed
    names = {"mp": mp, "policy": fault.policy}
    exec(blame.code, names)
    assert names["policy"].rules == blame.policy.rules
    assert all(str(each) in printed for each in blame.instances)


def test_runs_that_agree_are_said_to() -> None:
    """Oracle: three runs: FP32 twice, mixed once."""
    x = mp.tensor(np.float32([[1.0, 2.0], [3.0, 4.0]]))
    blame = bisect(lambda: x @ x)
    assert blame
    assert (blame.ops, blame.runs, blame.code) == ((), 3, "")
    assert "none of the 1 ops" in str(blame)
    nothing = bisect(lambda: x + x)
    assert nothing.candidates == {}
    assert "no op computed in 16 bits" in str(nothing)


OPS = {
    "exp": ("exp", lambda x: x.exp()),
    "square": ("mul", lambda x: x * x),
    "log": ("log", lambda x: x.log()),
    "sqrt": ("sqrt", lambda x: x.sqrt()),
    "softplus": ("softplus", mp.functional.softplus),
    "cumsum": ("cumsum", lambda x: x.cumsum(0)),
}
"""A step of a chain -> the op that it runs, and how."""
RULED = sorted(op for op, _ in OPS.values())


@settings(max_examples=30)
@given(
    chain=st.lists(st.sampled_from(sorted(OPS)), min_size=2, max_size=6),
    lower=st.sets(st.sampled_from(RULED)),
    start=st.floats(1.0, 9.0),
)
def test_the_set_found_is_the_smallest_of_all(chain: list[str], lower: set[str], start: float) -> None:
    """Oracle: every set of the ops in the chain, smaller ones first, each run under plain autocast."""
    x = mp.tensor(np.float32([start, start / 2, 0.5]))

    def run() -> Any:
        y = x
        for name in chain:
            y = OPS[name][1](y)
        return y

    if not np.all(np.isfinite(values(run()))) or not np.any(values(run())):
        return
    policy = CUDA.with_(dict.fromkeys(sorted(lower), "lower"))
    ops = sorted({OPS[name][0] for name in chain})
    least = next(
        (len(part) for size in range(len(ops) + 1) for part in combinations(ops, size)
         if agrees(run, policy.with_(dict.fromkeys(part, "fp32")))),
        None,
    )  # fmt: skip
    assert least is not None
    blame = bisect(run, policy=policy)
    assert len(blame.ops) == least
    assert agrees(run, blame.policy)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([1.0, 5.0, 11.0, 12.0, 13.0]), min_size=1, max_size=6))
def test_the_calls_found_are_those_that_overflow(scores: list[float]) -> None:
    """Oracle: e^x is beyond 65504 for x = 12 and 13, and for no other: each such call, and no more."""
    xs = [mp.tensor(np.float32([x])) for x in scores]

    def run() -> list[Any]:
        return [x.exp() for x in xs]

    blame = bisect(run, policy=CUDA.with_(exp="lower"), budget=None)
    assert [x.call for x in blame.instances] == [i for i, x in enumerate(scores, 1) if x > 11.5]


# ---- whose regions, whose rules ---------------------------------------------------------------------------


class Net(nn.Module):
    """Batch norm, dropout, and a layer norm that is given too much."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2)
        self.loud, self.last = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        """(N, 6) -> (N, 3)."""
        return self.last(self.loud(self.drop(self.norm(self.first(x))).float() * 1e5))


def make_step(policy: Any = "torch-cuda") -> tuple[Net, Any, Any]:
    """A model, its step by Adam, and a batch."""
    mp.manual_seed(1)
    model, rng = Net(), np.random.default_rng(2)
    recipe = mp.recipes["mixed-fp16"].with_(policy=policy)
    step = TrainStep(model, mp.functional.cross_entropy, mp.optim.Adam(model.parameters(), lr=1e-3), recipe)
    return model, step, (rng.standard_normal((16, 6)).astype(np.float32), rng.integers(0, 3, 16))


def test_a_training_step_is_searched_by_the_rules_of_its_recipe() -> None:
    """Oracle: the fault in the recipe's policy; the module's path; the reference is no mixed run."""
    policy = CUDA.with_(layer_norm="lower")
    _, step, batch = make_step(policy)
    blame = bisect(lambda: step(*batch).loss)
    assert blame.ops == ("layer_norm",)
    assert [x.module for x in blame.instances] == ["loud"]
    assert blame.original == policy
    assert blame.dtype == "float16"
    assert bisect(lambda: step(*batch).loss, policy="torch-cuda")


def test_code_that_only_switches_autocast_off_gets_a_region_around_it() -> None:
    """Oracle: by hand: the product in the block is safe, the one outside of it overflows."""
    x = mp.tensor(np.float32([[300.0]]))

    def run() -> Any:
        with mp.autocast(enabled=False):
            safe = x @ x
        return {"safe": safe, "other": x @ x}

    blame = bisect(run)
    assert [(each.op, each.call, each.calls) for each in blame.instances] == [("matmul", 1, 1)]
    assert {*blame.candidates} == {"matmul"}


def test_the_region_around_the_search_is_none_of_the_code_s() -> None:
    """Oracle: the same answer inside a region as outside of it, and the region is in force after it."""
    x = mp.tensor(np.float32([[300.0]]))
    with mp.autocast("float16"):
        assert bisect(lambda: x @ x).ops == ("matmul",)
        assert (x @ x).format.name == "float16"


def test_the_regions_that_code_opens_are_searched_and_no_others() -> None:
    """Oracle: by hand: outside of its region the code computes in FP32, by whatever rules."""
    x = mp.tensor(np.float32([12.0]))

    def run() -> Any:
        with mp.autocast("float16", policy=CUDA.with_(exp="lower")):
            inside = x.exp()
        with mp.autocast(enabled=False):
            safe = x.exp()
        return {"inside": inside, "outside": x.exp(), "safe": safe}

    blame = bisect(run)
    assert [(x.op, x.call, x.calls) for x in blame.instances] == [("exp", 1, 1)]
    assert bisect(run, policy="torch-cuda")
    assert bisect(run, dtype="bfloat16")


@pytest.mark.parametrize("opened", ["around", "inside"])
def test_what_is_recomputed_is_forced_as_it_was(opened: str) -> None:
    """Oracle: the planted call; a gradient that is finite in FP32 alone."""
    policy = CUDA.with_(exp="lower")
    x = mp.tensor(np.float32([2.0, 3.0]), requires_grad=True)

    def block(y: Any) -> Any:
        if opened == "around":
            return (y.exp() * 1e-3 + (y * 5.0).exp() * 1e-6).float()
        with mp.autocast("float16", policy=policy):
            return (y.exp() * 1e-3 + (y * 5.0).exp() * 1e-6).float()

    def run() -> dict[str, Any]:
        first = x.exp() * 1e-3
        y = mp.recompute(block, x)
        z = (first + y + y.exp() * 0.01).sum()
        x.grad = None
        z.backward()
        return {"z": z, "gradient": x.grad}

    blame = bisect(run, policy=policy if opened == "around" else None)
    assert blame.ops == ("exp",)
    if opened == "around":
        assert [x.call for x in blame.instances] == [3]
    else:
        assert blame.instances == ()
        assert "cannot be told apart" in str(blame)
    assert blame.minimal


def test_an_op_that_is_banned_is_named() -> None:
    """Oracle: torch-cuda refuses binary_cross_entropy in a region."""
    p = mp.tensor(np.float32([0.25, 0.5]))
    t = mp.tensor(np.float32([0.0, 1.0]))
    blame = bisect(lambda: mp.functional.binary_cross_entropy(p, t))
    assert blame.ops == ("binary_cross_entropy",)
    assert "raises FormatError" in blame.before.words


def test_what_is_one_op_in_pytorch_and_several_here_is_named_as_one() -> None:
    """Oracle: torch-cuda lists linalg_vecdot, which is a product and a sum here; 300 x 300 overflows."""
    a = mp.tensor(np.float32([300.0, 1.0]))

    def run() -> Any:
        return mp.functional.vecdot(a, a)

    assert not agrees(run, CUDA)
    blame = bisect(run)
    assert blame.ops == ("linalg_vecdot",)
    assert [(x.op, x.call, x.calls) for x in blame.instances] == [("linalg_vecdot", 1, 1)]
    assert agrees(run, blame.policy)


def test_an_op_of_ones_own_is_named_with_the_op() -> None:
    """Oracle: a policy takes ops that it does not know as objects."""
    double = mp.op(cast=mp.policy.CastClass.LOWER)(_doubled)
    x = mp.tensor(np.float32([40000.0]))
    try:
        blame = bisect(lambda: double(x))
    finally:
        del mp.OPS["_doubled"]
    assert blame.ops == ("_doubled",)
    assert 'with_({_doubled: "fp32"})' in blame.code
    assert blame.policy.rules["_doubled"] is mp.policy.CastClass.FP32


def _doubled(ctx: Any, x: Any) -> Any:
    """y = 2 x."""
    return ctx.round(ctx.wide(x) * 2)


def test_an_op_that_is_given_rounded_numbers_is_not_to_blame() -> None:
    """Oracle: 1 + 2^-9 is 1 in bfloat16: the product loses it, and the difference shows it."""
    x, one = mp.tensor(np.float32([[1.0 + 2.0**-9]])), mp.tensor(np.float32([[1.0]]))
    assert bisect(lambda: x @ one - 1.0, dtype="bfloat16").ops == ("matmul",)


# ---- when runs agree --------------------------------------------------------------------------------------


def test_agreement_is_what_it_was_said_to_be() -> None:
    """Oracle: by hand: 1 + 2^-9 against 1 in a product of bfloat16; finiteness; a predicate of one's own."""
    x, one = mp.tensor(np.float32([[1.0 + 2.0**-9]])), mp.tensor(np.float32([[1.0]]))
    run = lambda: {"y": x @ one}  # noqa: E731 - one expression
    assert bisect(run, dtype="bfloat16")
    assert bisect(run, dtype="bfloat16", agree=0.002)
    assert bisect(run, dtype="bfloat16", agree=0.001).ops == ("matmul",)
    assert bisect(run, dtype="bfloat16", agree="finite")
    seen = []

    def same(reference: Any, candidate: Any) -> bool:
        seen.append((reference, candidate))
        return bool(reference["y"][0, 0] == candidate["y"][0, 0])

    assert bisect(run, dtype="bfloat16", agree=same).ops == ("matmul",)
    assert all(isinstance(each["y"], np.ndarray) for pair in seen for each in pair)


# ---- what is put back -------------------------------------------------------------------------------------

COUNTER = 0


def test_state_is_put_back_bit_for_bit() -> None:
    """Oracle: bytes and identities from before: of a step in the middle of a training run."""
    model, step, batch = make_step(CUDA.with_(layer_norm="lower"))
    step(*batch)
    own, noise, log, counts = np.random.default_rng(3), np.arange(4.0), [], {"runs": 0}

    def run() -> dict[str, Any]:
        global COUNTER  # noqa: PLW0603 - what is put back, too
        COUNTER += 1
        log.append(COUNTER)
        counts["runs"] += 1
        noise[:] = own.standard_normal(4) + random.random()
        report = step(*batch)
        return {"loss": report.loss, "noise": noise, "weights": dict(model.named_parameters())}

    def state() -> Any:
        optimizer = step.optimizer
        return (
            [(id(p), id(p.array), id(p.grad), p.array.tobytes()) for p in model.parameters()],
            [(id(p.array), p.array.tobytes()) for p in model.buffers()],
            [
                (id(p), {k: np.array(v).tobytes() for k, v in kept.items()})
                for p, kept in optimizer.state.items()
            ],
            (optimizer.steps_taken, step.scaler.state_dict(), mp.get_rng_state(), model.training),
            (own.bit_generator.state, random.getstate(), noise.tobytes(), [*log], {**counts}, COUNTER),
            (MODES.get(), Hooked._hooks),
        )

    before = state()
    blame = bisect(run)
    assert blame.ops == ("layer_norm",)
    assert state() == before
    assert Hooked._hooks is None
    run()
    assert state() != before


def test_what_is_returned_is_taken_before_it_is_put_back() -> None:
    """Oracle: a weight of 300 that the code squares is 90,000 in FP32 and infinite in float16."""
    w = mp.tensor(np.float32([[300.0]]))

    def run() -> Any:
        w.array = (w @ w).float().array
        return w

    assert bisect(run).ops == ("matmul",)
    assert w.item() == 300.0


def test_state_is_put_back_when_the_code_raises() -> None:
    """Oracle: a list from before."""
    log: list[int] = []

    def run() -> None:
        log.append(1)
        raise KeyError("nothing")

    with pytest.raises(SettingError, match=r"run\(\) raises without autocast: KeyError: 'nothing'"):
        bisect(run)
    assert log == []


def test_what_code_does_not_lead_to_is_named_by_state() -> None:
    """Oracle: two runs in FP32 that differ, as the counter is reached through an attribute of a class."""

    class Holder:
        box = [0.0]  # noqa: RUF012 - an attribute of the class is what is tested

    def run() -> float:
        Holder.box[0] += 1.0
        return Holder.box[0]

    with pytest.raises(SettingError, match="two runs in FP32 do not agree"):
        bisect(run)
    assert bisect(run, state=[Holder.box])


# ---- budgets, errors --------------------------------------------------------------------------------------


def hard() -> tuple[Callable[[], Any], Any]:
    """Twelve calls of which five overflow."""
    xs = [mp.tensor(np.float32([12.0 if i % 5 < 2 else 1.0])) for i in range(12)]
    return lambda: [x.exp() for x in xs], CUDA.with_(exp="lower")


def test_calls_from_one_line_go_together_first() -> None:
    """Oracle: by hand: of three lines of 20 calls, one is at fault always, one at one call, one never."""
    xs = [mp.tensor(np.float32([x])) for x in (12.0, 1.0, 13.0)]

    def run() -> list[Any]:
        made = []
        for i in range(20):
            made += [xs[0].exp() / 1e5]
            made += [xs[1].exp()]
            made += [xs[2 if i == 7 else 1].exp()]
        return made

    blame = bisect(run, policy=CUDA.with_(exp="lower"), budget=300)
    assert [x.call for x in blame.instances] == sorted([*range(1, 61, 3), 24])
    assert blame.minimal
    lines = [line for line in str(blame).splitlines() if line.startswith("  exp")]
    assert len(lines) == 2
    assert lines[0].startswith("  exp, calls 1, 4, 7, 10, 13, 16, ... of 60: tests/bisecting/test_bisect.py:")
    many = bisect(lambda: [xs[0].exp() for _ in range(100)], policy=CUDA.with_(exp="lower"))
    assert len(many.instances) == 100
    assert many.minimal
    assert many.runs < 10
    assert "taken together" in str(many)


UNARY = ("abs", "neg", "ceil", "floor", "sign", "relu")
"""Ops that compute in the format that they are given."""


def widened(part: set[str]) -> tuple[Callable[[], Any], Callable[[Any, Any], bool]]:
    """Six ops on float16, and an agreement that asks for the first three in FP32, or for `part`."""
    x = mp.tensor(np.float32([1.5]), dtype="float16")

    def run() -> dict[str, float]:
        wide = {name: float(DOOR[name](x).format.name == "float32") for name in UNARY}
        return {"mixed": float(mp.is_autocast_enabled()), **wide}

    def agree(_: Any, now: dict[str, float]) -> bool:
        wide = {name for name in UNARY if now[name]}
        return not now["mixed"] or part <= wide or {*UNARY[:3]} <= wide

    return run, agree


def test_a_smaller_set_than_a_minimal_one_is_found() -> None:
    """Oracle: of two minimal sets, one has two ops; where the budget ends early it is the other."""
    run, agree = widened({"sign", "relu"})
    blame = bisect(run, agree=agree)
    assert {*blame.ops} == {"sign", "relu"}
    assert blame.smallest
    short = bisect(run, agree=agree, budget=12)
    assert len(short.ops) == 3
    assert (short.minimal, short.smallest) == (False, False)


@pytest.mark.parametrize("budget", [4, 5, 9, 16])
def test_the_budget_is_kept_and_what_was_found_so_far_is_returned(budget: int) -> None:
    """Oracle: the number of times that the code was called; what was found agrees, if it is not minimal."""
    xs, policy = hard()
    heard: list[Progress] = []
    blame = bisect(xs, policy=policy, budget=budget, progress=heard.append)
    assert blame.runs == heard[-1].runs <= budget
    assert not blame.minimal
    assert blame.after.agreed
    assert "ended early" in str(blame)
    assert {1, 2, 6, 7, 11, 12} <= {x.call for x in blame.instances} or blame.instances == ()
    assert len(blame.instances) == {4: 0, 5: 12, 9: 12, 16: 9}[budget]
    full = bisect(xs, policy=policy)
    assert full.minimal
    assert [x.call for x in full.instances] == [1, 2, 6, 7, 11, 12]


def test_every_run_is_counted() -> None:
    """Oracle: a counter that nothing puts back, of runs and of comparisons."""
    run, policy = hard()
    ticks, seen = itertools.count(), itertools.count()

    def counted() -> Any:
        next(ticks)
        return run()

    def judge(reference: Any, candidate: Any) -> bool:
        next(seen)
        return bool(np.allclose(reference, candidate, rtol=0.01))

    blame = bisect(counted, policy=policy, agree=judge)
    assert next(ticks) == blame.runs
    assert blame.runs < 60
    assert next(seen) == blame.runs - 1  # the first is the reference


def test_seconds_end_a_search_as_runs_do() -> None:
    """Oracle: 0 seconds are over before the first run."""
    with pytest.raises(SettingError, match=r"the budget ended after 0 runs.*\n  help: give it more"):
        bisect(lambda: 1.0, seconds=0.0)


@pytest.mark.parametrize(
    ("run", "options", "words"),
    [
        (lambda: None, {}, "expected numbers from run(), got nothing"),
        (lambda: "loss", {}, "expected numbers from run(), got str"),
        (lambda: {"x": [object()]}, {}, "got object in x.0"),
        (lambda: 1.0, {"budget": 3}, "at least 4 runs"),
        (lambda: 1.0, {"agree": "close"}, "expected a relative error"),
        (lambda: float("nan"), {"agree": "finite"}, "does not agree with itself"),
        (lambda: 1.0, {"policy": "torch-gpu"}, "torch-gpu"),
    ],
)
def test_each_mistake_is_one_clear_error(run: Any, options: Any, words: str) -> None:
    """Oracle: by hand."""
    with pytest.raises(SettingError) as fault:
        bisect(run, **options)
    assert words in str(fault.value)


def test_a_difference_that_no_policy_rules_is_refused() -> None:
    """Oracle: a cast by hand that hangs on the region: FP32 of every op does not help."""
    x = mp.tensor(np.float32([[1.0 + 2.0**-9]]))

    def run() -> Any:
        low = mp.is_autocast_enabled()
        return (x @ x) * (3.0 if low else 1.0)

    with pytest.raises(SettingError, match=r"disagree with all of 2 ops in FP32 too"):
        bisect(run)
    with pytest.raises(SettingError, match="no op computed in 16 bits"):
        bisect(lambda: 2.0 if mp.is_autocast_enabled() else 1.0)
    with pytest.raises(FormatError, match="float16 or bfloat16"):
        bisect(run, dtype="float8_e4m3fn")


def test_plain_data_has_every_figure() -> None:
    """Oracle: the attributes."""
    blame: Blame = bisect(FAULTS["a sum that overflows"].make(), policy=CUDA.with_(sum="lower"))
    plain = blame.as_dict()
    assert plain["ops"] == ["sum"]
    assert plain["instances"][0]["call"] == 2
    assert plain["after"]["agreed"] is True
    assert plain["code"] == blame.code
