"""A disabled scaler; oracle: PyTorch 2.13.0 as measured, where a test names it."""

from __future__ import annotations

import math
from typing import Any

import pytest

import minimp as mp
from minimp.errors import ScalerError
from minimp.scaler import GradScaler
from tests.scaler.plain import (
    with_grads,
)

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    "make", [lambda: GradScaler(enabled=False), lambda: GradScaler(2.0, 0.5, 7.0, -1, False)]
)
def test_a_disabled_scaler_does_nothing(make: Any) -> None:
    """Oracle: PyTorch 2.13.0; its settings are not even looked at."""
    scaler, optimizer, loss = make(), with_grads((INF,)), mp.tensor(3.0)
    assert isinstance(scaler, GradScaler)
    assert not scaler.is_enabled()
    assert scaler.scale(loss) is loss
    assert scaler.scale("anything") == "anything"
    scaler.unscale_(optimizer)
    reports = [scaler.step(optimizer, value) for value in (1, 2)]
    assert [(each.returned, each.skipped, each.scale) for each in reports] == [
        (1, False, 1.0),
        (2, False, 1.0),
    ]
    assert optimizer.calls == 2
    scaler.update()
    scaler.update(4.0)
    scaler.advance(True)
    scaler.load_state_dict({"scale": 2.0})
    scaler.set_growth_interval(5)
    assert (scaler.get_scale(), scaler.scale_value, scaler.state_dict()) == (1.0, 1.0, {})
    for getter in (scaler.get_growth_factor, scaler.get_backoff_factor, scaler.get_growth_interval):
        with pytest.raises(ScalerError, match="a disabled scaler neither grows nor backs off"):
            getter()


def test_a_class_of_ones_own_can_be_disabled_too() -> None:
    """Oracle: the contract of enabled=False."""

    class Mine(GradScaler):
        pass

    assert isinstance(Mine(), Mine)
    assert Mine.preset("jmp").get_scale() == 2.0**15
    assert Mine(enabled=False).scale("x") == "x"
