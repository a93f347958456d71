"""The float64 shadow; oracle: :mod:`minimp.checks`, whose references and bounds are written independently."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.checks.bounds import is_plain
from minimp.checks.case import Case
from minimp.checks.running import arithmetic_of
from minimp.checks.tables import FAMILIES, GRADIENTS, REFERENCE, forward_bound, gradient_bound
from minimp.modes import listen
from minimp.tape import Event
from minimp.trace.codec import event_from, plain
from minimp.trace.distances import distances, jumps, relative, ulp_of
from tests.tolerances import assert_close
from tests.trace.cases import batch, make_step


def program(fmt: mp.formats.Format) -> None:
    """Ops of many families, forward and backward."""
    mp.manual_seed(1)
    w = mp.tensor(batch(3)[0][:, :6], requires_grad=True)
    v = mp.tensor(batch(4)[0][:6, :5], requires_grad=True)
    with mp.autocast(fmt):
        y = (w @ v).tanh() * 3.0 - 0.5
        z = mp.functional.softmax(y, dim=-1).log() + y.exp()
        z = mp.functional.layer_norm(z, (5,)).half() / 7.0
        (z.sum(dim=0) * z.mean()).sum().backward()


@pytest.mark.parametrize("fmt", [mp.float16, mp.bfloat16])
def test_what_an_op_makes_obeys_its_bound(fmt: mp.formats.Format) -> None:
    """Oracle: the references of minimp.checks: made, in ulps, is their distance, and within their bound."""
    events: list[Event] = []
    with trace.record(shadow=True) as made, listen(events.append):
        program(fmt)
    seen = {(e.node.number, e.phase): e for e in events}
    looked = 0
    for found in made.events:
        event = seen[found.node, found.phase]
        forward = seen[found.node, "forward"]
        for i, error in enumerate(found.errors):
            if error is None:
                continue
            exact, allowed = claimed(event, forward, i)
            got = np.asarray(event.outputs[i], np.float64)
            form = mp.formats.get(found.outputs[i].format)
            unit = ulp_of(exact, form)
            assert error.made.max_ulp <= (allowed / unit).max() * (1 + 2.0**-40), found
            measured = (np.abs(got - exact) / unit).max()
            if measured > 2.0**20:  # terms cancelled to almost nothing: float64's own errors are all there is
                continue
            assert_close(1 + error.made.max_ulp * form.eps, 1 + measured * form.eps, "fp64_same_maths")
            looked += 1
    assert looked >= 30
    assert made.info["notes"] == {}


def claimed(event: Event, forward: Event, i: int) -> tuple[Any, Any]:
    """The float64 result of minimp.checks, and how far the engine may be from it."""
    node = event.node
    at = arithmetic_of(node.format, node.accumulate)
    wide = [
        x.astype(np.float64) if hasattr(x, "dtype") and x.dtype.kind in "fV" else x for x in forward.inputs
    ]
    if event.phase == "forward":
        exact = np.asarray(REFERENCE[node.op.name](*wide, **node.options), np.float64)
        form = mp.formats.get(event.outputs[0].dtype)
        bound = forward_bound(node.op.bound, node.op.name, at, tuple(forward.inputs), node.options)
        error = np.zeros_like(exact) if bound is None else bound.rounded(form).error
        return exact, np.asarray(error) + 2.0**-50 * np.abs(exact)
    assert node.op.bound in FAMILIES
    assert node.op.name in GRADIENTS
    inputs = tuple(x if is_plain(x) else at.number(x) for x in forward.inputs)
    own = tuple(mp.formats.get(x.dtype) if hasattr(x, "dtype") else None for x in forward.inputs)
    form = mp.formats.get(forward.outputs[0].dtype)
    case = Case(
        at, inputs, at.number(event.inputs[0]), node.options, form, own if node.op.name == "cast" else ()
    )
    wanted = gradient_bound(node.op.name, i, case)
    return wanted.exact, wanted.error


def test_errors_are_the_distances_from_a_whole_run_in_float64() -> None:
    """Oracle: the same program with float64 tensors: what came out of the shadow is that, to rounding."""
    x = mp.tensor(batch()[0], requires_grad=True)
    w = mp.tensor(batch(1)[0], requires_grad=True)

    def run(a: Any, b: Any) -> Any:
        return ((a @ b.T).tanh() @ a).sum(dim=0)

    with trace.record(shadow=True, values="all") as made, mp.autocast("float16"):
        y = run(x, w)
    truth = run(mp.tensor(np.float64(x.array)), mp.tensor(np.float64(w.array)))
    last = made.events[-1]
    (error,) = last.errors
    gap = np.abs(np.float64(y.array) - truth.array)
    assert_close(error.total.relative, np.linalg.norm(gap) / np.linalg.norm(truth.array), "fp64_same_maths")
    y.sum().backward()
    assert error.total.relative <= error.made.relative + 2 * error.inherited.relative


def test_gradients_inherit_through_the_graph() -> None:
    """Oracle: the float64 gradients of minimp.checks.float64_gradients, which run the model in float64."""
    from minimp.checks.shadow import float64_gradients

    step = make_step(scale=1.0)
    truth = float64_gradients(step.model, step.loss_fn, *batch())
    with trace.record(shadow=True, values="all") as made:
        step(*batch())
    (event,) = made.select(phase="stage", op="backward")
    for side, error, got in zip(event.outputs, event.errors, made.values(event).values(), strict=True):
        exact = truth[side.name]
        wanted = np.linalg.norm(got - exact) / np.linalg.norm(exact)
        assert_close(error.total.relative, wanted, "fp64_same_maths")
        assert error.unrounded.nonzero == np.count_nonzero(exact)


def test_gradients_that_meet_are_added_in_the_shadow_too() -> None:
    """Oracle: the float64 gradient of the same model, whose input goes two ways."""
    from minimp.checks.shadow import float64_gradients

    class Residual(mp.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = mp.nn.Linear(12, 12), mp.nn.Linear(12, 12)

        def forward(self, x: Any) -> Any:
            y = self.first(x)
            return y + self.second(y).tanh()

    mp.manual_seed(2)
    model = Residual()
    step = mp.TrainStep(
        model, mp.functional.cross_entropy, mp.optim.SGD(model.parameters(), lr=0.1), "mixed-bf16"
    )
    truth = float64_gradients(model, step.loss_fn, *batch())
    with trace.record(shadow=True, values="all") as made:
        step(*batch())
    (event,) = made.select(phase="stage", op="backward")
    for side, error, got in zip(event.outputs, event.errors, made.values(event).values(), strict=True):
        exact = truth[side.name]
        wanted = np.linalg.norm(got - exact) / np.linalg.norm(exact)
        assert_close(error.total.relative, wanted, "fp64_same_maths")


def test_a_sum_of_terms_that_cancel_is_the_amplifier() -> None:
    """Oracle: by hand: x - x (1 + 2^-7) loses the leading digits of a rounded x."""
    x = mp.tensor(1.0 + np.random.default_rng(0).random(64), dtype=mp.float32)
    with trace.record(shadow=True) as made:
        low = x.half()
        near = low * (1 + 2.0**-7)
        (near - low * 1.0).exp()
    worst = next(iter(made.amplifiers()))
    assert worst["op"] == "sub"
    assert worst["times"] > 30
    assert all(len(line) <= 100 for line in str(made.amplifiers()).splitlines())
    assert all(len(line) <= 100 for line in str(made.errors("place")).splitlines())


def test_what_is_inherited_near_zero_is_told_at_the_size_of_the_array() -> None:
    """Oracle: by hand: a rounded 1.0011 is below 1.001, so that relu gives 0 in place of 1e-4."""
    x = mp.tensor(np.float32([1.0, 2.0, 1.0011]), dtype=mp.float32)
    with trace.record(shadow=True) as made:
        (x.half().float() - mp.tensor(np.float32([0.0, 0.0, 1.001]))).relu()
    (row,) = (row for row in made.errors() if row["op"] == "relu")
    (event,) = made.select(op="relu")
    missing = float(np.float32(1.0011)) - float(np.float32(1.001))
    assert event.errors[0].inherited.max_ulp > 1e38  # of the least float32 number
    assert_close(row["inh. ulp"], missing / np.sqrt(5 + missing**2) * 2.0**23, "fp64_same_maths")


def test_what_a_gradient_saved_counts_as_its_input() -> None:
    """Oracle: by hand: the gradient of x x is 2 x: it has the relative error of x, and times is 1."""
    x = mp.tensor(1.0 + np.random.default_rng(0).random(64), dtype=mp.float32, requires_grad=True)
    with trace.record(shadow=True) as made:
        low = x.half()
        (low * low).float().sum().backward()
    rows = [row for row in made.amplifiers() if row["op"] == "mul backward"]
    assert len(rows) == 2  # one for each factor
    for row in rows:
        assert row["entering"] > 0
        assert_close(row["times"], 1.0, "fp64_same_maths")


def test_distances_equal_numpys() -> None:
    """Oracle: NumPy in one go, of 40,000 numbers in three blocks, some not finite."""
    rng = np.random.default_rng(0)
    exact = rng.standard_normal(40_000)
    pure = exact * (1 + 1e-4 * rng.standard_normal(40_000))
    got = exact.astype(np.float16).astype(np.float32)
    got[::9] = 0.0
    exact[20_000], got[20_000], pure[20_000] = 1e6, np.inf, 1e6
    found = distances(got, exact, pure, mp.float16)
    gap = np.delete(np.abs(got - exact), 20_000)
    ulps = gap / ulp_of(np.delete(exact, 20_000), mp.float16)
    assert found.made.max_ulp == ulps.max()
    assert_close(found.made.mean_ulp, ulps.mean(), "fp64_same_maths")
    kept = np.delete(exact, 20_000)
    assert_close(found.made.relative, np.linalg.norm(gap) / np.linalg.norm(kept), "fp64_same_maths")
    assert_close(found.inherited.relative, relative(exact, pure), "fp64_same_maths")
    assert (found.flushed, found.overflowed) == (np.count_nonzero(got == 0), 1)
    rest = np.delete(got, 20_000), np.delete(pure, 20_000)
    assert_close(found.total.relative, relative(*rest), "fp64_same_maths")
    exact[::9] = 0.0  # those were 0 before
    assert distances(got, exact, pure, mp.float16).flushed == 0
    same = distances(got, exact, exact, mp.float16)
    assert same.total == same.made
    assert same.inherited == trace.Error()


def test_a_kink_that_a_rounding_crossed_is_told_from_an_amplifier() -> None:
    """Oracle: by hand: of relu's inputs, 2^-30 is rounded to 0 in float16, where the gradient is 0, not 1."""
    x = mp.tensor([2.0**-30, 1.0, -1.0, 3.0], requires_grad=True)
    with trace.record(shadow=True) as made:
        (mp.functional.relu(x.half()) * 3.0).float().sum().backward()
    (relu,) = made.select(op="relu", phase="backward")
    (error,) = relu.errors
    assert error is not None
    assert (error.jumped, error.smooth, error.amplification) == (1, 0.0, 0.0)
    assert_close(error.inherited.relative, 1 / np.sqrt(3.0), "fp64_sums")  # one of three gradients of 3
    row = next(row for row in made.amplifiers() if row["event"] == relu.number)
    assert (row["times"], row["jumped"]) == (0.0, 1)
    assert [row["event"] for row in made.amplifiers() if row["jumped"]] == [relu.number]
    assert event_from(json.loads(json.dumps(plain(relu)))) == relu


@pytest.mark.parametrize("op", ["round", "max_pool2d"])
def test_other_jumps_are_told_too(op: str) -> None:
    """Oracle: by hand: 0.5 + 2^-20 is rounded to 0.5 before it is rounded to even; 1 + 2^-20 to a tie."""
    if op == "round":
        x = mp.tensor([0.5 + 2.0**-20, 4.25], requires_grad=True)
        with trace.record(shadow=True) as made:
            x.half().round()
        (event,) = made.select(op="round")
    else:
        x = mp.tensor([[[[1.0, 1.0 + 2.0**-20]]]], requires_grad=True)
        with trace.record(shadow=True) as made:
            mp.functional.max_pool2d(x.half(), (1, 2)).float().sum().backward()
        (event,) = made.select(op="max_pool2d", phase="backward")
    (error,) = event.errors
    assert error is not None
    assert (error.jumped, error.smooth) == ({"round": 1, "max_pool2d": 2}[op], 0.0)


def test_jumps_are_counted_as_by_numpy(rng: np.random.Generator) -> None:
    """Oracle: NumPy on all 40,000 elements in one go: further apart than half of the larger one."""
    exact = rng.standard_normal((400, 100))
    pure = exact * np.where(rng.random(exact.shape) < 0.01, rng.uniform(-2, 3, exact.shape), 1.0001)
    far = np.abs(exact - pure) > np.maximum(np.abs(exact), np.abs(pure)) / 2
    count, smooth = jumps(exact, pure)
    assert count == np.count_nonzero(far) > 100
    assert_close(smooth, np.linalg.norm((exact - pure)[~far]) / np.linalg.norm(pure), "fp64_same_maths")
    assert jumps(exact, exact.copy()) == (0, 0.0)


def test_a_sum_that_is_0_but_for_rounding_is_no_riddle() -> None:
    """Oracle: by hand: a bias before a batch norm has no gradient; what is left is rounding alone."""
    model = mp.nn.Sequential(mp.nn.Linear(6, 4), mp.nn.BatchNorm1d(4))
    x = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    with trace.record(shadow=True) as made:
        (model(mp.tensor(x)) ** 3).sum().backward()
    assert max(row["leaving"] for row in made.amplifiers()) > 1
    assert any("no digit is right" in note for note in made.amplifiers().notes)
    with trace.record(shadow=True) as plain:
        (mp.tensor(x).half() * 2.0).sum()
    assert not any("no digit is right" in note for note in plain.amplifiers().notes)


def test_ops_without_a_shadow_are_named_beside_the_errors() -> None:
    """Oracle: the op that rounds to codes by design."""
    x = mp.tensor([0.1, 0.2])
    with trace.record(shadow=True) as made:
        quantize = mp.quant.FakeQuantize()
        mp.functional.relu(quantize(x))
    for answer in (made.errors(), made.amplifiers()):
        assert answer.notes[-1] == "taken as exact, having no shadow: fake_quantize_per_tensor_affine"
