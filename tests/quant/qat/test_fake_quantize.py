"""One place that rounds: its range, its switches, its state, its formats, its gradient."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimp import nn
from minimp.errors import SettingError, ShapeError
from minimp.policy import autocast
from minimp.quant import Affine, fake_quantize
from minimp.quant.observers import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.qat import (
    FakeQuantize,
    FixedQParamsFakeQuantize,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    freeze_bn_stats,
    update_bn_stats,
)
from minimp.rerun import recompute
from minimp.tensors import tensor
from tests.quant.qat.samples import Array, batch

KINDS: list[Any] = [
    MinMaxObserver, MovingAverageMinMaxObserver, PerChannelMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
]  # fmt: skip


def made(kind: Any, **rest: Any) -> FakeQuantize:
    """Return one for three channels where the observer has them."""
    return FakeQuantize(kind, channels=3 if "Channel" in kind.__name__ else None, **rest)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(bits=st.integers(2, 8), seed=st.integers(0, 99))
def test_numbers_are_those_of_the_observer(kind: Any, bits: int, seed: int) -> None:
    """Oracle: an observer of its own fed with the same batches, and minimp.quant.fake_quantize."""
    place, watch = made(kind, quant_max=2**bits - 1), kind(quant_min=0, quant_max=2**bits - 1)
    for step in range(3):
        x = batch((3, 7), seed + step) * np.float32(step + 1)
        y = place(tensor(x)).array
        watch.observe(x)
        assert place.affine() == watch.affine()
        np.testing.assert_array_equal(y, fake_quantize(x, watch.affine()))
    assert place.observed == 3


def test_ranges_of_weights_are_those_of_now() -> None:
    """Oracle: an observer that saw the last array alone."""
    place = made(PerChannelMinMaxObserver, quant_min=-4, quant_max=3, current=True, symmetric=True)
    for size in (3, 1):
        x = batch((3, 7), size) * np.float32(size)
        place(tensor(x))
    last = PerChannelMinMaxObserver(quant_min=-4, quant_max=3, symmetric=True)
    last.observe(x)
    assert place.affine() == last.affine()


def test_switches() -> None:
    """Oracle: by hand: each of four settings, in training and in evaluation."""
    x, place = batch((3, 7)), FakeQuantize()
    place(tensor(x))
    before = place.affine()
    for observing in (False, True):
        for rounding in (False, True):
            place.switch(observer=observing, fake_quant=rounding)
            state = place.affine()
            y = place(tensor(2 * x)).array
            assert (y == 2 * x).all() == (not rounding)
            assert (place.affine() == state) == (not observing)
    moved = place.affine()
    assert moved != before
    place.eval()(tensor(9 * x))
    assert place.affine() == moved  # evaluation moves nothing
    assert "observer_enabled=True, fake_quant_enabled=True, uint8, scale" in repr(place)
    assert "never observed" in repr(FakeQuantize())


def test_state_goes_through_a_state_dict() -> None:
    """Oracle: one that goes on and one that is resumed: the same numbers bit for bit, switches too."""
    for kind in KINDS:
        one, two = made(kind), made(kind)
        for step in range(3):
            one(tensor(batch((3, 7), step)))
        one.switch(fake_quant=False)
        two.load_state_dict({name: each.numpy() for name, each in one.state_dict().items()})
        for place in (one, two):
            for step in range(3, 6):
                place(tensor(batch((3, 7), step)))
        assert two.affine() == one.affine()
        assert (two.observing, two.rounding, two.observed) == (True, False, 6)


def test_the_gradient_passes_where_nothing_is_clamped() -> None:
    """Oracle: by hand: 1 up to half a step beyond the last code, 0 further out."""
    place = FakeQuantize(MinMaxObserver, -4, 3, symmetric=True)
    place(tensor(np.float32([-3.5, 3.5])))
    assert place.affine() == Affine(np.float32(1), np.int32(0), -4, 3)
    place.switch(observer=False)
    x = tensor(np.float32([-4.6, -4.4, 0.3, 3.4, 3.6]), requires_grad=True)
    y = place(x)
    y.sum().backward()
    np.testing.assert_array_equal(y.detach().array, [-4, -4, 0, 3, 3])
    np.testing.assert_array_equal(x.grad.array, [0, 1, 1, 1, 0])


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_formats(low: str) -> None:
    """Oracle: fake_quantize of the same numbers in float32: under autocast as it is, else rounded once."""
    x = tensor(batch((5, 40))).to(low)
    for kind in (MinMaxObserver, PerChannelMinMaxObserver):
        place = FakeQuantize(kind, channels=5 if kind is PerChannelMinMaxObserver else None)
        with autocast(low):
            inside = place(x)
        want = fake_quantize(x, place.affine())
        assert inside.dtype == np.float32
        np.testing.assert_array_equal(inside.array, want)
        outside = place(x)
        assert outside.format is x.format
        np.testing.assert_array_equal(outside.array, want.astype(x.dtype))
        assert place.scale.dtype == np.float32


def test_bfloat16_holds_multiples_of_a_scale_to_a_step_only() -> None:
    """Oracle: all 256 codes by hand: why the result is float32 under autocast."""
    scale = np.float32(0.0123)
    values = np.arange(256, dtype=np.float32) * scale
    far = {
        low: np.abs(tensor(values).to(low).float().array / scale - np.arange(256)).max()
        for low in ("bfloat16", "float16")
    }
    assert 0.5 < far["bfloat16"] < 1
    assert far["float16"] < 1 / 8


def test_a_forward_that_runs_again_observes_once() -> None:
    """Oracle: the same without recomputing."""
    layer = nn.Linear(7, 4)
    x = batch((3, 7))
    places = [FakeQuantize(), FakeQuantize()]
    places[0](layer(tensor(x)))
    recompute(lambda x: places[1](layer(x)), tensor(x)).sum().backward()
    assert [each.observed for each in places] == [1, 1]


def test_fixed_numbers() -> None:
    """Oracle: what was given, whatever passes."""
    fixed = Affine(np.float32(1 / 256), np.int32(0), 0, 255)
    place = FixedQParamsFakeQuantize(fixed)
    y = place(tensor(np.float32([0.1, 0.99, 7.0])))
    assert place.affine() == fixed
    np.testing.assert_array_equal(y.array, fake_quantize(np.float32([0.1, 0.99, 7.0]), fixed))
    disable_observer(place)


def test_what_cannot_be() -> None:
    """Oracle: one clear error each."""
    x = tensor(batch((3, 7)))
    for build, says in (
        (lambda: FakeQuantize(HistogramObserver), "expected MinMaxObserver or a class made from it"),
        (lambda: FakeQuantize(rule="onnx"), "rounds by the rule 'torch', and the observer has 'onnx'"),
        (lambda: FakeQuantize(PerChannelMinMaxObserver), "do not go together"),
        (lambda: FakeQuantize(channels=4), "do not go together"),
        (lambda: FakeQuantize(quant_max=256), "codes must contain 0 and lie within"),
        *(
            (
                partial(FakeQuantize, PerChannelMinMaxObserver, channels=each),
                "expected channels to be a whole",
            )
            for each in (0, -1, 2.5)
        ),
        (lambda: FakeQuantize().eval()(x), "this place was never observed"),
        (lambda: disable_observer(FakeQuantize()), "never observed"),
        (lambda: freeze_bn_stats(nn.Linear(2, 2)), "no layer with a batch norm folded into it"),
        (lambda: update_bn_stats(nn.Linear(2, 2)), "no layer with a batch norm folded into it"),
    ):
        with pytest.raises(SettingError, match=says):
            build()
    for switch in (disable_observer, enable_observer, disable_fake_quant, enable_fake_quant):
        with pytest.raises(SettingError, match="the model has no FakeQuantize"):
            switch(nn.Linear(2, 2))
    place = FakeQuantize(PerChannelMinMaxObserver, channels=3)
    with pytest.raises(ShapeError, match="expected 3 channels on axis 0, got"):
        place(tensor(batch((4, 7))))
    place(x)
    with pytest.raises(SettingError, match="its scale was rounded to float16"):
        place.half()(x)


def test_statistics_stay_in_float32() -> None:
    """Oracle: the formats, of a conversion that keeps statistics."""
    place = FakeQuantize()
    place(tensor(batch((3, 7))))
    scale = place.scale.array
    place.to("bfloat16", keep_statistics=True)
    np.testing.assert_array_equal(place.scale.array, scale)
    assert place.min_val.dtype == np.float32


def test_in_float64() -> None:
    """Oracle: the same place in float32: its scale to the last bit, and fake_quantize in float64."""
    x = batch((3, 7))
    place, wide = FakeQuantize(), FakeQuantize()
    place(tensor(x))
    wide(tensor(x))
    wide.double()
    got = wide(tensor(x.astype(np.float64))).array  # the range moves on: by the same numbers, nowhere
    place(tensor(x))
    assert wide.affine() == place.affine()
    np.testing.assert_array_equal(got, fake_quantize(x.astype(np.float64), place.affine()))


def test_all_of_it() -> None:
    """Oracle: the switches of each place of a row."""
    model: Any = nn.Sequential(FakeQuantize(), nn.Sequential(FakeQuantize(MinMaxObserver)))
    x: Array = batch((3, 7))
    model(tensor(x))
    disable_observer(model)
    disable_fake_quant(model)
    assert not any(each.observing or each.rounding for each in (model[0], model[1][0]))
    np.testing.assert_array_equal(model(tensor(x)).array, x)
    enable_observer(model)
    enable_fake_quant(model)
    assert all(each.observing and each.rounding for each in (model[0], model[1][0]))
