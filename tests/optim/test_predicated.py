"""Steps that the device takes back; oracle: the same steps left out by the host, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import optim
from minimp.backend import default_backend
from minimp.errors import SettingError
from tests.arrays import host
from tests.optim.helpers import SEED, parameter
from tests.optim.test_onepass import KINDS, WAYS, everything

SHAPES = [(3,), (), (4, 5), (60, 50), (0, 2), (130, 130)]
FOUND = (True, False, False, True, True, False)
DETERMINISTIC = tuple(way for way in WAYS if way[1].get("update") != "stochastic")
MORE_SGD = (
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
)


def train(
    kind: str, dtype: str, options: dict[str, Any], *, device: bool
) -> tuple[list[Any], optim.Optimizer]:
    """Take steps of which some are bad; let the device leave those out, or the host."""
    mp.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    params = [parameter(rng.standard_normal(shape), dtype) for shape in SHAPES]
    optimizer: optim.Optimizer = getattr(optim, kind)(params, **options)
    for found in FOUND:
        wide = "float64" if dtype == "float64" else "float32"
        grads = {p: rng.standard_normal(p.shape).astype(wide) for p in params}
        if found:
            grads[params[2]] = np.full(params[2].shape, np.nan, wide)
        if device:
            optimizer.step(gradients=grads, found_inf=default_backend().xp.asarray(found))
        elif not found:
            optimizer.step(gradients=grads)
    return params, optimizer


@pytest.mark.parametrize(("dtype", "way"), DETERMINISTIC, ids=str)
@pytest.mark.parametrize(("kind", "options"), [*KINDS, *MORE_SGD], ids=str)
def test_a_step_taken_back_never_was(
    kind: str, options: dict[str, Any], dtype: str, way: dict[str, Any]
) -> None:
    """Oracle: the host leaves the same steps out; every bit of weights and state, the first step bad."""
    ours, by_device = train(kind, dtype, {**options, **way}, device=True)
    theirs, by_host = train(kind, dtype, {**options, **way}, device=False)
    saved, wanted = by_device.state_dict(), by_host.state_dict()
    assert sorted(saved["state"]) == sorted(wanted["state"])
    for name, value in wanted["state"].items():
        np.testing.assert_array_equal(saved["state"][name], value, err_msg=name)
        assert type(saved["state"][name]) is type(value)
    assert everything(ours, by_device) == everything(theirs, by_host)


def test_a_run_may_change_sides() -> None:
    """Oracle: a run that the host decides throughout; steps by turns end in the same bits."""
    params = [parameter(np.ones(5), "float32"), parameter(np.ones(5), "float32")]
    one, other = (optim.AdamW([p], lr=0.1) for p in params)
    for number in range(8):
        grad, bad = np.linspace(-1, 1, 5, dtype=np.float32) * (number + 1), number % 3 == 1
        if number % 2:
            one.step(gradients={params[0]: grad}, found_inf=default_backend().xp.asarray(bad))
        elif not bad:
            one.step(gradients={params[0]: grad})
        if not bad:
            other.step(gradients={params[1]: grad})
    np.testing.assert_array_equal(host(params[0]), host(params[1]))
    assert one.state_dict()["state"]["0.step"] == other.state_dict()["state"]["0.step"]


def test_counting_on_the_host_is_refused() -> None:
    """Oracle: the rule that a setting which cannot act raises; the weight is as it was."""
    param = parameter(np.ones(3), "float32")
    optimizer = optim.SGD([param], lr=1.0)
    optimizer.measure_updates = True
    with pytest.raises(SettingError, match="measure_updates"):
        optimizer.step(gradients={param: np.ones(3, np.float32)}, found_inf=np.asarray(False))
    np.testing.assert_array_equal(host(param.array), np.ones(3))
