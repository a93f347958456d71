"""Recordings on a device that counts: the oracle is the same on a device whose arrays are copied whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import backend as backends
from minimp import functional, trace
from minimp.trace.events import Side, TraceEvent
from tests.tolerances import assert_close

WIDTH, ROWS = 64, 256
LARGE = 4096
"""Elements, which take more than a table of counts."""


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], Any]:
    """Return what puts CuPy's backend, on the strict device, in place: with kernels or without."""
    pytest.importorskip("cupy")
    from minimp_backends.cupy_backend import CupyBackend
    from tests.backends.cupy_on_strict import gpu_on_strict

    def put(counts: bool) -> Any:
        made = CupyBackend(gpu_on_strict())
        monkeypatch.setitem(backends.MADE, "cupy", made)
        if not counts:
            monkeypatch.setattr(made, "tallies", lambda: False)
        return made

    return put


def step_of(recipe: str, scale: float) -> mp.TrainStep:
    """Return a step of a small classifier on the backend in force."""
    mp.manual_seed(3)
    model = mp.nn.Sequential(
        mp.nn.Linear(WIDTH, WIDTH), mp.nn.ReLU(), mp.nn.LayerNorm(WIDTH), mp.nn.Linear(WIDTH, 10)
    )
    scaler = None if mp.recipes[recipe].loss_scale is None else mp.GradScaler(init_scale=scale)
    optimizer = mp.optim.AdamW(model.parameters())
    return mp.TrainStep(model, functional.cross_entropy, optimizer, recipe, scaler=scaler)


def recorded(device: Any, recipe: str, scale: float, **settings: Any) -> tuple[list[TraceEvent], Any]:
    """Return the events of a recorded step, and what was copied for it."""
    with mp.use_backend("cupy"):
        step = step_of(recipe, scale)
        rng = np.random.default_rng(0)
        x = mp.tensor(rng.standard_normal((ROWS, WIDTH)).astype(np.float32))
        labels = mp.tensor(rng.integers(0, 10, ROWS))
        with device.counting() as counts, trace.record(**settings) as made:
            step(x, labels)
            step(x, labels)
    return made.events, counts


def held(one: Side | None, other: Side | None) -> int:
    """Hold what is said of an array to what is said of it elsewhere; return how many arrays were measured."""
    if one is None or other is None or one.stats is None or other.stats is None:
        assert one == other
        return 0
    mine, theirs = one.stats, other.stats
    assert replace(one, stats=None) == replace(other, stats=None)
    assert replace(mine, mean=None) == replace(theirs, mean=None)
    assert (mine.mean is None) == (theirs.mean is None)
    if mine.mean is not None:
        assert_close([mine.mean, mine.amax], [theirs.mean, theirs.amax], "fp64_sums")
    return 1


@pytest.mark.parametrize(
    ("recipe", "scale"), [("fp32", 1.0), ("mixed-fp16", 1024.0), ("mixed-fp16", 2.0**30), ("mixed-bf16", 1.0)]
)
def test_a_recording_is_the_same_and_copies_little(
    on_device: Callable[[bool], Any], recipe: str, scale: float
) -> None:
    """Oracle: the events of the same steps with every array copied; a tenth of the bytes, fewer waits.

    Numbers that overflow are among them: with a scale of 2^30 the first step is skipped.
    """
    counted, few = recorded(on_device(True), recipe, scale)
    whole, many = recorded(on_device(False), recipe, scale)
    assert [event.op for event in counted] == [event.op for event in whole]
    measured = 0
    for one, other in zip(counted, whole, strict=True):
        for mine, theirs in ((one.inputs, other.inputs), (one.outputs, other.outputs)):
            measured += sum(held(*pair) for pair in zip(mine, theirs, strict=True))
        assert one.facts == other.facts
        assert (one.flushed, one.nonfinite) == (other.flushed, other.nonfinite)
    assert measured > len(counted)
    assert 10 * few.to_host_bytes < many.to_host_bytes
    assert 5 * few.syncs < 3 * many.syncs
    if scale == 2.0**30:
        assert any(event.nonfinite for event in counted)


def test_values_that_are_kept_are_copied_as_before(on_device: Callable[[bool], Any]) -> None:
    """Oracle: the values of the same steps: a store of values asks for whole arrays."""
    stores = []
    for counts in (True, False):
        device = on_device(counts)
        with mp.use_backend("cupy"):
            x = mp.tensor(np.linspace(-3, 3, LARGE, dtype=np.float32))
            with trace.record(values="all") as made:
                functional.relu(x * 2)
        stores.append([made.values(event) for event in made.events])
        assert device.tallies() is counts
    for one, other in zip(*stores, strict=True):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name], strict=True)


@pytest.mark.parametrize("op", ["mul", "div", "exp", "sigmoid"])
def test_flushes_of_wide_numbers_are_counted_on_the_device(on_device: Callable[[bool], Any], op: str) -> None:
    """Oracle: the same ops on NumPy; the bytes of an array are more than all that is copied."""
    numbers = np.tile(np.float32([1e-30, 0.0, -200.0, 2.0]), LARGE)
    device = on_device(True)
    made, copied = {}, 0
    for name in ("numpy", "cupy"):
        with mp.use_backend(name):
            x = mp.tensor(numbers)
            y = mp.tensor(np.full(numbers.shape, 1e-30, np.float32))
            inputs = {"mul": (x, y), "div": (y, x * 1e20)}.get(op, (x,))
            with device.counting() as counts, trace.record() as found:
                mp.OPS[op](*inputs)
                if op == "mul":
                    x * 1e-20
        copied = counts.to_host_bytes
        made[name] = [event.flushed for event in found.events]
    assert made["cupy"] == made["numpy"]
    assert 0 < copied < numbers.nbytes


@pytest.mark.parametrize("odd", [0.0, np.inf, np.nan])
def test_what_rounding_lost_is_counted_on_the_device(on_device: Callable[[bool], Any], odd: float) -> None:
    """Oracle: the same product on NumPy, with zeros and infinities that were there before."""
    numbers = np.tile(np.float16([1e-4, 0.0, 300.0, 2.0, odd]), LARGE)
    made = []
    for name in ("numpy", "cupy"):
        device = on_device(True)
        with mp.use_backend(name), trace.record() as found:
            x = mp.tensor(numbers)
            with device.counting() as counts, np.errstate(all="ignore"):
                x * x
        (event,) = found.events
        side = event.outputs[0]
        assert side is not None
        made.append(repr((side.flushed, side.overflowed, side.reach, side.stats)))
    assert made[0] == made[1]
    assert (event.flushed, event.overflowed) == (LARGE, LARGE)
    assert counts.to_host_bytes < numbers.nbytes


def test_an_event_waits_once(on_device: Callable[[bool], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the backend's counts, of two factors and their sum; and the arrays that a stage asks for."""
    device, asked = on_device(True), []
    plain = device.tally

    def tally(arrays: Any, **options: Any) -> Any:
        asked.append(len(arrays))
        return plain(arrays, **options)

    monkeypatch.setattr(device, "tally", tally)
    with mp.use_backend("cupy"):
        x, y = (mp.tensor(np.full(LARGE, each, np.float32)) for each in (1.0, 2.0))
        with trace.record(), device.counting() as counts:
            x + y
        assert (counts.syncs, asked) == (1, [3])
        step = step_of("fp32", 1.0)
        with trace.record():
            step(mp.tensor(np.ones((ROWS, WIDTH), np.float32)), mp.tensor(np.zeros(ROWS, np.int64)))
    assert max(asked) >= len(list(step.model.parameters()))


ROUNDING: dict[str, Callable[[Any, Any], Any]] = {
    **{name: lambda x, _, name=name: getattr(functional, name)(x) for name in
       ("sigmoid", "tanh", "gelu", "silu", "leaky_relu", "relu", "softplus")},
    "exp": lambda x, _: x.exp(),
    "softmax": lambda x, _: functional.softmax(x, -1),
    "log_softmax": lambda x, _: functional.log_softmax(x, -1),
    "layer_norm": lambda x, small: functional.layer_norm(x, (WIDTH,), small, small),
    "rms_norm": lambda x, small: functional.rms_norm(x, (WIDTH,), small),
    "linear": lambda x, small: functional.linear(x, x.detach() * small, small[:40]),
    "cross_entropy": lambda x, _: functional.cross_entropy(x, mp.tensor(np.arange(40)), reduction="none"),
    "embedding": lambda x, _: functional.embedding(mp.tensor(np.arange(80) % 30), x),
}  # fmt: skip
"""Op -> it, on numbers of many sizes, beside a row of small ones."""


def some(given: np.ndarray, result: Any) -> Any:
    """Return a gradient for a result: as many of the given numbers."""
    return mp.tensor(given.reshape(-1)[: math.prod(result.shape)].reshape(result.shape)).to(result.dtype)


def stored(tensor: Any) -> bytes:
    """Return the bits of a tensor."""
    return tensor.detach().numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ROUNDING)
def test_kernels_that_round_by_themselves_hide_nothing(
    on_device: Callable[[bool], Any], name: str, dtype: str
) -> None:
    """Oracle: the op and its gradient on NumPy, what they flush; and their own bits when nobody records."""
    rng = np.random.default_rng(4)
    numbers, given = (
        (rng.standard_normal((rows, WIDTH)) * 10.0 ** rng.integers(-9, 2, (rows, WIDTH))).astype(np.float32)
        for rows in (40, 80)
    )
    lost, bits = [], []
    for backend in ("numpy", "cupy"):
        on_device(True)
        with mp.use_backend(backend), np.errstate(all="ignore"):
            x = mp.tensor(numbers).to(getattr(mp, dtype))
            x.requires_grad = True
            small = mp.tensor(np.full(WIDTH, 1e-6, np.float32)).to(x.dtype)
            with trace.record() as found:
                made = ROUNDING[name](x, small)
                made.backward(some(given, made))
            recorded = [*map(stored, (made, x.grad))]
            x.grad = None
            made = ROUNDING[name](x, small)
            made.backward(some(given, made))
            bits.append((recorded, [*map(stored, (made, x.grad))]))
        lost.append([(event.flushed, event.overflowed) for event in found.events])
    for one, other in zip(*lost, strict=True):
        assert np.abs(np.subtract(one, other)).max() <= max(one) // 10  # a last place may turn a tie
    assert bits[1][0] == bits[1][1]


def test_the_shadow_follows_onto_a_device(on_device: Callable[[bool], Any]) -> None:
    """Oracle: the same ops on NumPy: every error that the shadow finds, and what it has no shadow of."""
    numbers = np.random.default_rng(7).standard_normal((20, 30)).astype(np.float32) * np.float32(1e-3)
    seen = []
    for backend in ("numpy", "cupy"):
        device = on_device(True)
        with mp.use_backend(backend):
            x = mp.tensor(numbers).to(mp.float16)
            x.requires_grad = True
            with device.counting() as counts, trace.record(shadow=True) as made:
                (functional.relu(x * x) + x).sum().backward()
        errors = [error for event in made.events for error in event.errors if error is not None]
        seen.append((repr(errors), [event.flushed for event in made.events]))
        assert max(error.made.max_ulp for error in errors) > 0
    assert seen[0] == seen[1]
    assert counts.to_host_bytes > numbers.nbytes
