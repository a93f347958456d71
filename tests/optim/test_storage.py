"""How weights are kept; oracle: minimp.formats.round, the float32 run, exact sums, and fair draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp import nn, optim
from minimp.backend import default_backend
from minimp.errors import SettingError
from tests.arrays import host
from tests.optim.helpers import SEED, gradients, parameter, run, values
from tests.tolerances import assert_bound, assert_close, assert_ulp

LOW = ("float16", "bfloat16")
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 1e-4}),
    ("AdamW", {"lr": 1e-4, "weight_decay": 0.5, "amsgrad": True}),
    ("RMSprop", {"lr": 1e-4, "momentum": 0.9, "centered": True, "eps": 1e-3}),
    ("Adagrad", {"lr": 1e-3, "initial_accumulator_value": 0.1}),
    ("Lion", {"lr": 1e-5, "weight_decay": 0.5}),
    ("LAMB", {"lr": 1e-4}),
)
SHAPE = (40, 70)  # more than the 2048 elements from which the backend keeps float32 twins


def start(dtype: str) -> np.ndarray[Any, Any]:
    """Return float32 weights that the format holds exactly."""
    drawn = np.random.default_rng(SEED).standard_normal(SHAPE).astype(np.float32)
    return mp.formats.round(drawn, dtype)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind for kind, _ in KINDS])
def test_masters_are_the_float32_run_and_parameters_their_rounding(
    kind: str, options: dict[str, Any], dtype: str
) -> None:
    """Oracle: the same run with float32 parameters, bit for bit, and minimp.formats.round of it."""
    steps = gradients(30, SHAPE)
    wide, _ = run(kind, start(dtype), steps, **options)
    low, optimizer = run(kind, start(dtype), steps, dtype=dtype, master_weights=True, **options)
    master = optimizer.master_of(low)
    assert master is not None
    assert master.dtype == np.float32
    assert master.tobytes() == wide.array.tobytes()
    assert np.array_equal(values(low), mp.formats.round(host(wide), dtype))
    assert low.format is mp.formats.get(dtype)
    for array in optimizer.state[low].values():
        assert not hasattr(array, "dtype") or array.dtype == np.float32


@pytest.mark.parametrize("dtype", LOW)
def test_float32_parameters_are_their_own_masters(dtype: str) -> None:
    """Oracle: the run that was not told of masters; no array is kept for them."""
    del dtype
    plain, _ = run("Adam", np.ones(5), gradients(3, (5,)), lr=0.1)
    told, optimizer = run("Adam", np.ones(5), gradients(3, (5,)), lr=0.1, master_weights=True)
    assert told.array.tobytes() == plain.array.tobytes()
    assert optimizer.master_of(told) is None
    assert optimizer.nbytes() == {"master": 0, "state": 2 * 5 * 4}


def test_arrays_are_replaced_and_never_changed() -> None:
    """Oracle: the bytes of every array that was handed out before a step."""
    for options in ({"master_weights": True}, {"update": "kahan"}, {"update": "stochastic"}, {}):
        param = parameter(start("bfloat16"), "bfloat16")
        optimizer = optim.AdamW([param], lr=0.01, **options)
        for grad in gradients(3, SHAPE):
            master = optimizer.master_of(param)
            held = [array for array in (param.array, master) if array is not None]
            before = [array.tobytes() for array in held]
            optimizer.step(gradients={param: grad})
            assert [array.tobytes() for array in held] == before
            assert param.array is not held[0]


def test_bytes_are_counted_by_cause() -> None:
    """Oracle: 4 bytes a master and moment, 2 a compensation, by hand."""
    _, with_master = run("Adam", np.ones(10), gradients(1, (10,)), dtype="float16", master_weights=True)
    assert with_master.nbytes() == {"master": 40, "state": 80}
    _, with_kahan = run(
        "SGD", np.ones(10), gradients(1, (10,)), dtype="bfloat16", momentum=0.9, update="kahan"
    )
    assert with_kahan.nbytes() == {"master": 0, "state": 40 + 20}
    fresh = optim.Adam([parameter(np.ones(3))])
    assert fresh.nbytes() == {"master": 0, "state": 0}


# ---- a parameter that somebody else changed


def test_a_stale_master_is_refused_and_can_be_made_anew() -> None:
    """Oracle: the promise of the error; after reset_masters the run goes on from the new weights."""
    param, optimizer = run(
        "SGD", np.ones(4), gradients(2, (4,)), dtype="float16", lr=0.1, master_weights=True
    )
    param.detach().numpy()  # hands out the memory; nothing changes
    optimizer.step(gradients={param: np.zeros(4, np.float32)})
    param.array = param.backend.from_host(np.full(4, 5.0, np.float16))
    before = param.array
    with pytest.raises(SettingError, match="no longer its master, rounded to float16"):
        optimizer.step(gradients={param: np.ones(4, np.float32)})
    assert param.array is before
    optimizer.reset_masters()
    optimizer.step(gradients={param: np.ones(4, np.float32)})
    assert values(param).tolist() == [float(np.float16(np.float32(5) - np.float32(0.1)))] * 4


def test_a_copy_of_equal_values_is_no_stale_master() -> None:
    """Oracle: the run without the copy."""
    steps = gradients(4, (6,))
    plain, _ = run("Adam", np.ones(6), steps, dtype="bfloat16", master_weights=True)
    param, optimizer = run("Adam", np.ones(6), steps[:2], dtype="bfloat16", master_weights=True)
    param.array = param.array.copy()
    for grad in steps[2:]:
        optimizer.step(gradients={param: grad})
    assert param.array.tobytes() == plain.array.tobytes()


def test_state_of_another_way_is_dropped_when_the_format_changes() -> None:
    """Oracle: a float32 parameter keeps no master."""
    param, optimizer = run(
        "SGD", np.ones(3), gradients(1, (3,)), dtype="float16", lr=0.1, master_weights=True
    )
    holder = nn.Module()
    holder.register_parameter("p", param)
    holder.float()
    optimizer.step(gradients={param: np.ones(3, np.float32)})
    assert optimizer.master_of(param) is None
    assert optimizer.nbytes()["master"] == 0


# ---- without a master


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind for kind, _ in KINDS])
def test_one_step_to_nearest(kind: str, options: dict[str, Any], dtype: str) -> None:
    """Oracle: minimp.formats.round of the float32 run's first step."""
    grad = gradients(1, SHAPE)
    wide, _ = run(kind, start(dtype), grad, **options)
    low, optimizer = run(kind, start(dtype), grad, dtype=dtype, **options)
    assert np.array_equal(values(low), mp.formats.round(host(wide), dtype))
    assert optimizer.nbytes()["master"] == 0


@pytest.mark.parametrize(("dtype", "digits"), [("float16", 11), ("bfloat16", 8)])
def test_updates_below_half_an_ulp_are_swallowed_to_nearest(dtype: str, digits: int) -> None:
    """Oracle: 1 + 2^-p and 1 - 2^-p-1 are ties to even of p-digit significands: IEEE 754, 4.3.1."""
    for delta, survives in (
        (2.0**-digits, False),
        (-(2.0 ** -(digits + 1)), False),
        (1.01 * 2.0**-digits, True),
    ):
        param, _ = run("SGD", [1.0], [np.array([-delta], np.float32)] * 100, dtype=dtype, lr=1.0)
        assert (param.item() != 1.0) is survives


def drift(update: str, dtype: str, delta: float, count: int) -> nn.Parameter:
    """Add `delta` to 1 `count` times, by plain gradient descent."""
    options: dict[str, Any] = {"update": update} if update != "master" else {"master_weights": True}
    param, _ = run("SGD", [1.0], [np.array([-delta], np.float32)] * count, dtype=dtype, lr=1.0, **options)
    return param


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("delta", [2.0**-13, -(2.0**-14), 3 * 2.0**-15])
def test_kahan_tracks_the_sum_where_nearest_stands_still(dtype: str, delta: float) -> None:
    """Oracle: the exact sum 1 + n delta; a master gives its rounding."""
    exact = 1.0 + 2000 * delta
    assert drift("fp32", dtype, delta, 2000).item() == 1.0
    assert_ulp(drift("kahan", dtype, delta, 2000).array, [exact], "kahan_sum")
    assert_ulp(drift("master", dtype, delta, 2000).array, [exact], "one_rounding")


@given(st.lists(st.floats(-(2.0**-7), 2.0**-7, width=32), min_size=1, max_size=60), st.sampled_from(LOW))
def test_kahan_loses_next_to_nothing(deltas: list[float], dtype: str) -> None:
    """Oracle: the exact sum of the updates in float64; law: the weight less its compensation keeps up.

    Each step rounds the compensation, at most half an ulp of the weight, by half an ulp of its own: eps^2/4.
    In float16 that may be a subnormal's, 2^-25; the float32 arithmetic adds less than 2^-30.
    """
    param, optimizer = run(
        "SGD", [1.0], [np.array([-d], np.float32) for d in deltas], dtype=dtype, lr=1.0, update="kahan"
    )
    kept = values(param) - values(optimizer.state[param]["compensation"])
    unit = float(mp.formats.get(dtype).eps)
    bound = len(deltas) * (unit * unit / 4 + 2.0**-25 + 2.0**-30)
    assert_bound(kept, [1.0 + sum(deltas)], bound, "kahan_compensation")


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("residue", [0.125, 0.5, 0.75])
def test_stochastic_rounding_is_right_on_average(dtype: str, residue: float) -> None:
    """Oracle: the share of weights that move one ulp is the residue, within six deviations (1 in 5e8)."""
    count, unit = 40_000, float(mp.formats.get(dtype).eps)
    grad = np.full(count, -residue * unit, np.float32)
    param, _ = run("SGD", np.ones(count), [grad], dtype=dtype, lr=1.0, update="stochastic")
    moved = (values(param) - 1.0) / unit
    assert set(np.unique(moved)) == {0.0, 1.0}
    assert_close((moved.mean() - residue) / np.sqrt(residue * (1 - residue) / count), 0.0, "six_deviations")


def test_stochastic_rounding_repeats_with_the_seed_and_moves_on() -> None:
    """Oracle: equal bits from one seed, other bits from the state after."""
    runs = []
    for seed in (1, 1, 2):
        mp.manual_seed(seed)
        param, _ = run("Adam", start("bfloat16"), gradients(2, SHAPE), dtype="bfloat16", update="stochastic")
        runs.append(param.array.tobytes())
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind for kind, _ in KINDS])
@pytest.mark.parametrize("update", ["stochastic", "kahan"])
def test_one_step_lands_on_a_neighbour(kind: str, options: dict[str, Any], dtype: str, update: str) -> None:
    """Oracle: the float32 run's first step, between the two neighbours in the format; nothing else can be.

    Kahan begins without compensation, so its first step is to nearest; but a sum within float32's rounding
    of a tie may go either way.
    """
    grad = gradients(1, SHAPE)
    wide, _ = run(kind, start(dtype), grad, **options)
    low, _ = run(kind, start(dtype), grad, dtype=dtype, update=update, **options)
    exact = values(wide)
    down, up = (mp.formats.round(exact, dtype, rounding=mode) for mode in ("down", "up"))
    slack = np.spacing(np.abs(host(wide))).astype(np.float64) * (update == "kahan")
    low64 = values(low)
    near_tie = np.abs(exact - (down + up) / 2) <= 2 * slack
    assert np.all((low64 == down) | (low64 == up) | (np.abs(low64 - exact) <= 2 * slack))
    if update == "kahan":
        assert np.all((low64 == mp.formats.round(exact, dtype)) | near_tie)


def test_scalar_parameters_take_every_update() -> None:
    """Oracle: 1 - 0.25, exact in every format, for a parameter of no axes."""
    for options in (
        {"master_weights": True},
        {"update": "fp32"},
        {"update": "kahan"},
        {"update": "stochastic"},
    ):
        param, _ = run("SGD", 1.0, [np.array(0.25, np.float32)], dtype="bfloat16", lr=1.0, **options)
        assert param.shape == ()
        assert isinstance(param.array, default_backend().xp.ndarray)
        assert param.item() == 0.75


@pytest.mark.parametrize("update", ["fp32", "stochastic", "kahan", "master"])
def test_what_overflows_becomes_infinite_without_a_warning(update: str) -> None:
    """Oracle: 65504 + 1e5 is beyond float16's largest value; a diverging run is a result."""
    options: dict[str, Any] = {"update": update} if update != "master" else {"master_weights": True}
    param, _ = run("SGD", [6e4], [np.array([-1e5], np.float32)] * 3, dtype="float16", lr=1.0, **options)
    assert not np.isfinite(param.item())
