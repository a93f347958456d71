"""Casts and the end of a step by kernels, on a device of host memory, against the engine over NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from minimp import formats
from minimp.formats import FORMATS
from minimp.scaler import ScaleRule
from minimp.scaler.machine import ScaleState, next_state
from minimp_backends.kernels import calls
from minimp_backends.kernels.references.updates import power
from minimp_backends.numpy_backend import NumpyBackend
from minimp_backends.updates import Room

SHAPES = ((3, 5), (7,), (2, 2, 2), (), (0,))
SGD = {
    "lr": 0.1,
    "momentum": 0.0,
    "dampening": 0.0,
    "weight_decay": 0.0,
    "nesterov": False,
    "maximize": False,
}
ADAM = {
    "lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0, "decoupled": True,
    "maximize": False,
}  # fmt: skip
HOST = NumpyBackend()


@pytest.fixture(scope="module")
def device() -> Any:
    """Return CuPy's backend on the strict device, where a kernel is its NumPy reference."""
    pytest.importorskip("cupy")
    from tests.backends.cupy_on_strict import CupyOnStrict

    return CupyOnStrict()


def update(
    shape: tuple[int, ...], seed: int, rule: str, low: str | None, asked: str, peak: bool
) -> calls.Update:
    """Return a tensor to update, on the host; weights of 16-bit storage lie on its grid."""
    rng = np.random.default_rng(seed)
    weight, grad, *kept = (np.asarray(rng.standard_normal(shape), np.float32) for _ in range(5))
    dtype = None if low is None else FORMATS[low].dtype
    if asked == "kahan":
        weight = weight.astype(dtype).astype(np.float32)
    room = Room(np.zeros_like(weight))
    if low is not None:
        room.low = np.zeros(shape, dtype)
    if asked == "change":
        room.change = np.zeros_like(weight)
    if asked == "kahan":
        room.compensation, room.grid = np.asarray(weight * np.float32(2.0**-12), dtype), room.new
    if asked == "grid":
        room.grid = np.zeros_like(weight)
    moments = (kept[0], np.asarray(kept[1] ** 2), np.asarray(kept[2] ** 2) if peak else None)
    return calls.Update(room, weight, grad, moments if rule == "adam" else (kept[0],))


def each_array(one: calls.Update, change: Any) -> calls.Update:
    """Return an update with every array changed."""
    names = ("new", "change", "low", "grid", "compensation", "unless")
    given = [getattr(one.room, name) for name in names]
    made = {id(each): change(each) for each in given if each is not None}
    room = Room(*(made.get(id(each)) for each in given))
    kept = tuple(None if each is None else change(each) for each in one.kept)
    return calls.Update(room, change(one.weight), change(one.grad), kept)


def run(
    rule: str,
    device: Any,
    tensors: Sequence[calls.Update],
    options: dict[str, Any],
    *,
    on_device: dict[str, Any],
) -> None:
    """Update tensors on host and device, and compare every array; `on_device` overrides options."""
    moved = [each_array(each, lambda array: device.from_host(array.copy())) for each in tensors]
    assert all(calls.serves(each) for each in moved)
    for each in tensors:
        getattr(HOST, rule)(each.room, each.weight, each.grad, *each.kept, **options)
    getattr(calls, rule)(device.gpu.kernels, device.xp, moved, **options | on_device)
    for one, other in zip(tensors, moved, strict=True):
        back = each_array(other, device.to_host)
        for name in ("new", "change", "low", "grid", "compensation"):
            same(getattr(one.room, name), getattr(back.room, name), name)
        for given, got in zip(
            (one.weight, one.grad, *one.kept), (back.weight, back.grad, *back.kept), strict=True
        ):
            same(given, got, "kept")


def same(one: Any, other: Any, name: str) -> None:
    """Hold two arrays to the same bits."""
    if one is None or other is None:
        assert one is other, name
    else:
        np.testing.assert_array_equal(one, other, err_msg=name, strict=True)


ASKED = (
    (None, ""),
    ("float16", ""),
    ("bfloat16", ""),
    ("float16", "change"),
    ("bfloat16", "kahan"),
    ("float16", "grid"),
)


@pytest.mark.parametrize(("low", "asked"), ASKED)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"momentum": 0.9}, {"momentum": 0.9, "first": True}, {"momentum": 0.8, "dampening": 0.3},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "maximize": True},
    ],
)  # fmt: skip
def test_sgd_gives_the_bits_of_the_engine(
    device: Any, low: str | None, asked: str, options: dict[str, Any]
) -> None:
    """Oracle: `NumpyBackend.sgd`, tensor by tensor; the device takes all at once, `first` as a flag too."""
    options = {**SGD, "first": False, **options}
    for flag in (False, True):
        tensors = [update(shape, seed, "sgd", low, asked, peak=False) for seed, shape in enumerate(SHAPES)]
        if not options["momentum"]:
            tensors = [replace(each, kept=(None,)) for each in tensors]
        first = device.from_host(np.asarray(options["first"])) if flag else options["first"]
        run("sgd", device, tensors, options, on_device={"first": first})


@pytest.mark.parametrize(("low", "asked"), ASKED)
@pytest.mark.parametrize("peak", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled": False, "maximize": True}, {"beta1": 0.3}],
)
def test_adam_gives_the_bits_of_the_engine(
    device: Any, low: str | None, asked: str, peak: bool, options: dict[str, Any]
) -> None:
    """Oracle: `NumpyBackend.adam`, tensor by tensor; the count of steps on the host, and on the device."""
    options = {**ADAM, **options}
    for step in (1, 2, 7, 1000):
        tensors = [update(shape, step + at, "adam", low, asked, peak) for at, shape in enumerate(SHAPES)]
        count: Any = step if step % 2 else device.from_host(np.asarray(step))
        run("adam", device, tensors, {**options, "step": step}, on_device={"step": count})


@pytest.mark.parametrize("rule", ["sgd", "adam"])
@pytest.mark.parametrize("asked", ["", "kahan"])
def test_a_verdict_leaves_every_bit(device: Any, rule: str, asked: str) -> None:
    """Oracle: weight, its rounding and what is kept, as they were; and a step where it is false."""
    for verdict in (True, False):
        tensor = update((3, 5), 1, rule, "bfloat16", asked, peak=True)
        tensor.grad[1, 2] = np.inf if verdict else 1
        before = each_array(tensor, np.copy)
        moved = each_array(tensor, lambda array: device.from_host(array.copy()))
        moved.room.unless = device.from_host(np.asarray(verdict))
        options = {**SGD, "momentum": 0.9, "first": False} if rule == "sgd" else {**ADAM, "step": 3}
        getattr(calls, rule)(device.gpu.kernels, device.xp, [moved], **options)
        after = each_array(moved, device.to_host)
        changed = [(after.weight, before.weight), *zip(after.kept, before.kept, strict=True)]
        if verdict:
            same(after.room.new, before.weight, "new")
            same(after.room.low, before.weight.astype(after.room.low.dtype), "low")
            same(after.room.compensation, before.room.compensation, "compensation")
            assert all(np.array_equal(one, other) for one, other in changed)
        else:
            assert not np.array_equal(after.room.new, before.weight)
            assert not all(np.array_equal(one, other) for one, other in changed)


def test_scaled_gradients_are_unscaled_on_the_way(device: Any) -> None:
    """Oracle: `NumpyBackend.times` first, then the update."""
    tensor = update((4, 9), 3, "adam", None, "", peak=False)
    scaled = replace(tensor, grad=tensor.grad * np.float32(48))
    moved = each_array(scaled, lambda array: device.from_host(array.copy()))
    plain = replace(tensor, grad=HOST.times(scaled.grad, 1 / 48))
    HOST.adam(plain.room, plain.weight, plain.grad, *plain.kept, **ADAM, step=2)
    factor = device.from_host(np.asarray(1 / 48))
    calls.adam(device.gpu.kernels, device.xp, [moved], **ADAM, step=2, factor=factor)
    same(plain.room.new, device.to_host(moved.room.new), "new")


def test_more_tensors_than_a_launch_takes(device: Any) -> None:
    """Oracle: `NumpyBackend.adam` and `unscale_all` on 70 tensors; a launch takes 32."""
    tensors = [update((at % 5,), at, "adam", "float16", "", peak=False) for at in range(70)]
    run("adam", device, tensors, {**ADAM, "step": 4}, on_device={})
    grads = [np.full(3, at, np.float16 if at % 40 < 37 else np.float32) for at in range(70)]
    grads[33][1], grads[69][2] = np.nan, np.inf
    outs, found = calls.unscale_all(
        device.gpu.kernels,
        device.xp,
        [device.from_host(each) for each in grads],
        device.from_host(np.asarray(0.5)),
    )
    assert np.flatnonzero(device.to_host(found)).tolist() == [33, 69]
    assert [float(device.to_host(each)[0]) for each in outs] == [at / 2 for at in range(70)]


@pytest.mark.parametrize("factor", [2.0**-16, 1 / 3, 1e39, float("inf"), 1e-60])
def test_unscale_all_gives_the_bits_of_the_engine(device: Any, factor: float) -> None:
    """Oracle: `NumpyBackend.unscale_all` and, of the gradients, `unscale`, on all formats and shapes."""
    rng = np.random.default_rng(0)
    dtypes = (np.float32, np.float16, FORMATS["bfloat16"].dtype, np.float64)
    grads = [np.asarray(rng.standard_normal(shape)).astype(dtype) for shape, dtype in product(SHAPES, dtypes)]
    for place, odd in ((1, np.inf), (6, np.nan), (10, -np.inf)):
        grads[place].reshape(-1)[-1] = odd
    moved, times = [device.from_host(each) for each in grads], np.asarray(factor)
    with np.errstate(all="ignore"):
        wanted, bad = HOST.unscale_all(grads, times)
        judged = [not HOST.is_finite(each) for each in grads]
    for of_products, verdicts in ((True, bad.tolist()), (False, judged)):
        outs, found = calls.unscale_all(
            device.gpu.kernels, device.xp, moved, device.from_host(times), of_products=of_products
        )
        assert device.to_host(found).tolist() == verdicts
        for one, other in zip(wanted, outs, strict=True):
            same(one, device.to_host(other), "unscaled")


@pytest.mark.parametrize(
    "target", ["float32", "float16", "bfloat16", "float8_e4m3fn", "float4_e2m1fn", "float64"]
)
@pytest.mark.parametrize("source", ["float32", "float16", "float8_e4m3fn", "float8_e5m2", "float64"])
def test_casts_give_the_codes_of_formats(device: Any, source: str, target: str) -> None:
    """Oracle: `formats.encode`, in every mode; a NaN that finds no place is told."""
    given, wanted = FORMATS[source], FORMATS[target]
    numbers = np.array([0.0, -0.0, 1.1, -2.7, 448, 470, 1e5, -1e39, 3e-8, 1e-41, np.inf, -np.inf, np.nan])
    with np.errstate(all="ignore"):
        codes = formats.encode(numbers, given)
        exact = formats.decode(codes, given)
    stored = codes if given.dtype.itemsize == 1 else codes.view(given.dtype)
    finite = np.where(np.isnan(exact), np.copysign(0, -exact), exact)
    for rounding, overflow in product(formats.ROUNDINGS, (None, "saturate")):
        counter = formats.Counter(7, 3) if rounding == "stochastic" else None
        array, met_nan = calls.cast(
            device.gpu.kernels,
            device.xp,
            device.from_host(stored),
            given,
            wanted,
            rounding,
            overflow,
            counter,
        )
        assert (met_nan is None) == wanted.has_nan
        assert wanted.has_nan or device.to_host(met_nan).tolist() == [1]
        expected = formats.encode(exact if wanted.has_nan else finite, wanted, rounding, overflow, counter)
        np.testing.assert_array_equal(device.to_host(array).view(wanted.code_dtype), expected)


RULES = (
    ScaleRule(growth_interval=3),
    ScaleRule(growth_interval=1, min_scale=2.0**10, max_scale=2.0**17, hysteresis=2),
    ScaleRule(hysteresis=3, refill_on_backoff=True, growth_interval=0),
    ScaleRule(growth_interval=7, smooth=True),
    ScaleRule(growth_interval=2, grows_late=True, precision="float64", growth_factor=1.1, backoff_factor=0.3),
    ScaleRule(until_first_bad=8.0, growth_interval=2, max_scale=2.0**100),
    ScaleRule(growth_interval=1, growth_factor=2.0**90, stays_finite=False),
    ScaleRule(growth_interval=1, growth_factor=2.0**90),
)


@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
def test_the_scale_moves_as_the_scaler_moves_it(device: Any, rule: ScaleRule) -> None:
    """Oracle: `next_state` over 90 steps, more than half of them bad."""
    state = ScaleState(rule.init_scale)
    held = tuple(
        device.from_host(np.asarray(value))
        for value in (state.scale, state.growth_tracker, state.skips, state.met_bad)
    )
    for bad in (np.random.default_rng(4).random(90) < 0.6).tolist():
        state = next_state(rule, state, bad)
        held = calls.update_scale(
            device.gpu.kernels, device.xp, rule, held, device.from_host(np.asarray(bad))
        )
        assert ScaleState(*(device.to_host(each).item() for each in held)) == state


def test_powers_are_those_of_python_to_one_ulp() -> None:
    """Oracle: Python's pow; both are within an ULP of the true power, and mostly the same number."""
    rng = np.random.default_rng(2)
    bases = [0.0, 0.5, 0.9, 0.999, 1 - 2.0**-30, *rng.random(300).tolist()]
    steps = [1, 2, 3, 10, 1000, 54321, 2**20, *rng.integers(1, 5000, 20).tolist()]
    pairs = [(power(base, step), base**step) for base, step in product(bases, steps)]
    apart = [abs(one - other) for one, other in pairs]
    assert max(each / np.spacing(other) for each, (_, other) in zip(apart, pairs, strict=True)) <= 1
    assert sum(each > 0 for each in apart) < len(pairs) / 100
