"""Checks of lab 06; oracles: minimp's optimizers, which keep weights in each of the four ways, and exact sums."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise


def low(x: Any) -> Any:
    """Return numbers rounded to bfloat16, as float64."""
    return mp.formats.round(np.asarray(x, np.float64), mp.bfloat16)


def _optimized(weights: Any, updates: Any, **options: Any) -> tuple[Any, Any]:
    """Return a bfloat16 parameter and its optimizer after steps that add each of the updates."""
    param = mp.tensor(weights, dtype=mp.bfloat16, requires_grad=True)
    optimizer = mp.optim.SGD([param], lr=1.0, **options)
    optimizer.measure_updates = True
    for each in updates:
        param.grad = mp.tensor(-np.asarray(each, np.float64), dtype=mp.bfloat16)
        optimizer.step()
    return param, optimizer


@exercise(
    "1a",
    points=2,
    hints=("low(weights + updates) == weights", "leave updates out that are 0 before you count"),
)
def check_1a(lab: Any) -> None:
    """The counter of minimp's optimizer."""
    random = np.random.default_rng(9)
    many = low(random.normal(0, 1, 400))
    mixed = random.choice([-1, 0, 1], 400) * 10.0 ** random.uniform(-5, -1, 400)
    for name, weights, given, hint in (
        (
            "updates 0.1, 0.001 and 0.002 of weights 1",
            [1.0, 1.0, 1.0],
            [0.1, 0.001, 0.002],
            "0.001 and 0.002 are swallowed, 0.1 is not",
        ),
        ("updates 0 and 0.1", [1.0, 1.0], [0.0, 0.1], "an update of 0 is no update: it does not count"),
        ("updates of both signs", [1.0, 1.0], [-0.1, -0.001], "downwards as upwards"),
        ("no updates", [1.0, 2.0], [0.0, 0.0], "none: share 0"),
        (
            "a small weight",
            [0.001, 4.0],
            [0.001, 0.001],
            "a small weight has a small ulp, a large one a large",
        ),
        ("400 weights", many, mixed, "round the sum, and compare with the weight"),
    ):
        updates = low(given)  # gradients are bfloat16 numbers, and so are these updates
        _, optimizer = _optimized(weights, [updates])
        want = optimizer.last_update.swallowed_share
        got = float(lab.swallowed_share(np.array(weights), np.array(updates)))
        assert math.isclose(got, want, abs_tol=1e-9), (
            f"swallowed_share of {name}: expected {want}, got {got}; {hint}"
        )


@exercise(
    "2a", points=2, hints=("add to the master, never to the working copy", "low(master) makes the copy")
)
def check_2a(lab: Any) -> None:
    """minimp's optimizer with master_weights=True, step by step."""
    random = np.random.default_rng(10)
    start = low(random.normal(0, 1, 6))
    updates = [np.float32(low(random.normal(0, 1e-3, 6))) for _ in range(40)]
    master = np.float32(start)
    for number in range(1, len(updates) + 1):
        param, optimizer = _optimized(start, updates[:number], master_weights=True)
        made, working = lab.master_step(master, updates[number - 1])
        wanted = np.asarray(optimizer.state[param]["master"])
        assert getattr(made, "dtype", None) == np.float32, (
            f"master_step: expected a float32 master, got {getattr(made, 'dtype', type(made))}; it is a float32 array"
        )
        lost = bool(np.all(low(made) == made)) and not np.all(low(wanted) == wanted)
        hint = (
            "the master itself must not be rounded to bfloat16" if lost else "the master is master + update"
        )
        assert np.array_equal(made, wanted), (
            f"master_step {number}: expected master {wanted}, got {made}; {hint}"
        )
        copy = np.asarray(working, np.float64)
        expected = np.asarray(param.detach().numpy(), np.float64)
        assert np.array_equal(copy, expected), (
            f"master_step {number}: expected weights {expected}, got {copy}; "
            "they are the new master, rounded to bfloat16"
        )
        master = made
    fine = np.float32(random.normal(0, 1e-3, 6))
    made, wanted = lab.master_step(master.copy(), fine.copy())[0], master + fine
    assert np.array_equal(made, wanted), (
        f"master_step of a float32 update: expected master {wanted}, got {made}; the update is float32 as well: "
        "only the weights are rounded"
    )


@exercise("2b", hints=("bfloat16 takes 2 bytes, float32 4", "the working copy stays beside the master"))
def check_2b(lab: Any) -> None:
    """The arrays that minimp's optimizers keep."""
    hints = {"nearest": "one bfloat16 number", "master": "a float32 master, and the bfloat16 weights beside it",
             "kahan": "two bfloat16 numbers", "stochastic": "nothing is kept but the weight"}  # fmt: skip
    for name, options in (
        ("nearest", {}), ("master", {"master_weights": True}), ("kahan", {"update": "kahan"}),
        ("stochastic", {"update": "stochastic"}),
    ):  # fmt: skip
        param, optimizer = _optimized(np.ones(100), [np.full(100, 0.01)], **options)
        kept = sum(each.nbytes for each in optimizer.state[param].values() if isinstance(each, np.ndarray))
        want = (param.nbytes + kept) / 100
        got = lab.bytes_per_weight.get(name)
        assert got == want, f"bytes_per_weight[{name!r}]: expected {want:g}, got {got}; {hints[name]}"


@exercise("3a", points=3, hints=(
    "what is wanted is update - compensation; the new weight is low(weight + wanted)",
    "the new compensation is low((new - weight) - wanted): what came, less what was wanted",
))  # fmt: skip
def check_3a(lab: Any) -> None:
    """minimp's optimizer with update="kahan", bit for bit; and the exact sum."""
    random = np.random.default_rng(11)
    start = low(random.uniform(1, 2, 5))
    updates = [
        low(random.integers(-200, 256, 5) * 2.0**-20) for _ in range(60)
    ]  # exact in float32: one order
    weight, compensation = start, np.zeros(5)
    for number in range(1, len(updates) + 1):
        weight, compensation = lab.kahan_step(weight, compensation, updates[number - 1])
        for name, each in (("weight", weight), ("compensation", compensation)):
            assert np.array_equal(low(each), each), (
                f"kahan_step {number}: expected a {name} in bfloat16, got {each}; both are rounded, with low"
            )
        if number % 10 and number > 2:
            continue
        param, optimizer = _optimized(start, updates[:number], update="kahan")
        kept = np.asarray(optimizer.state[param]["compensation"], np.float64)
        wanted = np.asarray(param.detach().numpy(), np.float64)
        hint = _hint_3a(compensation, kept, _added(start, updates[:number]))
        for name, got, want in (("compensation", compensation, kept), ("weight", weight, wanted)):
            assert np.array_equal(got, want), (
                f"kahan_step {number}: expected {name} {want}, got {got}; {hint}"
            )


def _hint_3a(got: Any, want: Any, added: Any) -> str:
    if not np.any(got):
        return "nothing was kept: the new weight has not changed by what was wanted"
    if np.array_equal(got, -want):
        return "the sign: what the weight has too much, that is what came less what was wanted"
    if np.array_equal(got, added):
        return "what the weight has too much is taken off the next update, not added to it"
    return "what was wanted is the update, less the compensation: leave neither out"


def _added(weight: Any, updates: Any) -> Any:
    """Return the compensation of those who add it."""
    compensation = np.zeros(len(weight))
    for update in updates:
        wanted = update + compensation
        new = low(weight + wanted)
        weight, compensation = new, low((new - weight) - wanted)
    return compensation


@exercise("4a", points=3, hints=("bits = x.view(np.uint32) + noise", "bits & np.uint32(0xFFFF0000)"))
def check_4a(lab: Any) -> None:
    """All 65536 draws for a number: only its neighbours may come, and their mean is the number, exactly."""
    noise = np.arange(65536, dtype=np.uint32)
    for value in (1.004, -1.001, 0.1, 3.0, -2.0, 1.998, 1e-3, 1.0 + 2.0**-23):
        x = np.full(65536, value, np.float32)
        made = np.asarray(lab.stochastic_bfloat16(x.copy(), noise.copy()))
        assert made.dtype == np.float32, (
            f"stochastic_bfloat16: expected float32 numbers, got {made.dtype}; view them"
        )
        found = np.unique(made).tolist()
        exact = float(x[0])
        sides = (float(mp.formats.next_down(low(exact), mp.bfloat16)), float(low(exact)),
                 float(mp.formats.next_up(low(exact), mp.bfloat16)))  # fmt: skip
        neighbours = {exact} if low(exact) == exact else (
            {sides[0], sides[1]} if exact < sides[1] else {sides[1], sides[2]}
        )  # fmt: skip
        strange = [each for each in found if float(low(each)) != each]
        assert not strange, (
            f"stochastic_bfloat16({value}): {strange[0]!r} is no bfloat16 number; clear the lower 16 bits"
        )
        hint = "a bfloat16 number stays what it is" if len(neighbours) == 1 else (
            "it always went the same way: the noise must be added" if len(found) == 1 else "only the two neighbours"
        )  # fmt: skip
        assert set(found) == neighbours, (
            f"stochastic_bfloat16({value}): expected {sorted(neighbours)}, got {found[:4]}; {hint}"
        )
        mean = float(np.mean(made.astype(np.float64)))
        assert math.isclose(mean, exact, rel_tol=1e-12), (
            f"stochastic_bfloat16({value}): expected {exact!r} as the mean over all draws, got {mean!r}; "
            "up as often as the lower half is large: all 16 bits of noise count"
        )


@exercise("4b", points=2, hints=("each step moves it with probability |update| / distance",
                                 "the mean wait for an event of probability p is 1 / p"))  # fmt: skip
def check_4b(lab: Any) -> None:
    """The distance to the neighbour, found by NumPy's bfloat16 codes, over the update."""
    for weight, update in (
        (1.5, 1e-4),
        (1.5, -1e-4),
        (1.0, -1e-4),
        (-1.0, 1e-4),
        (0.25, 1e-5),
        (-3.0, -2e-3),
    ):
        code = int(mp.formats.encode(np.float64(weight), mp.bfloat16))
        away = 1 if weight * update > 0 else -1
        gap = abs(float(mp.formats.decode(np.array(code + away, np.uint16), mp.bfloat16)) - weight)
        want, got = gap / abs(update), float(lab.expected_wait(weight, update))
        hint = _hint_4b(got, want)
        assert math.isclose(got, want, rel_tol=1e-9), (
            f"expected_wait({weight}, {update}): expected {want:.6g}, got {got:.6g}; {hint}"
        )


def _hint_4b(got: float, want: float) -> str:
    if got < 0:
        return "a wait has no sign"
    if math.isclose(got * want, 1):
        return "that is the probability of one step; the wait is 1 over it"
    if math.isclose(got, want / 2):
        return "half the distance decides when rounding to nearest; at random it is the whole"
    if got == int(got) and abs(got - want) < 1:
        return "a mean need not be a whole number"
    return "below a power of two the neighbour is half as far: mind the direction"
