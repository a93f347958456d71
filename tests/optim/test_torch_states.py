"""States to and from torch 2.13.0's optimizers; oracle: the run that stayed where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minimp import optim
from minimp.errors import FormatError, SettingError, ShapeError
from tests.arrays import host
from tests.optim.helpers import gradients, parameter, values
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch

SHAPES = ((6, 5), (4,))
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "betas": (0.8, 0.9)}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True, "eps": 1e-2}),
    ("RMSprop", {"lr": 0.01}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
)
IDS = [f"{kind}-{i}" for i, (kind, _) in enumerate(CASES)]


def ours(kind: str, options: dict[str, Any], dtype: str = "float32") -> tuple[list[Any], optim.Optimizer]:
    """Return minimp's parameters and optimizer, in two groups."""
    params = [parameter(np.ones(shape), dtype) for shape in SHAPES]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.05}]
    return params, getattr(optim, kind)(groups, **options)


def theirs(kind: str, options: dict[str, Any], dtype: Any = torch.float32) -> tuple[list[Any], Any]:
    """Return torch's."""
    params = [torch.nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in SHAPES]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 0.05}]
    return params, getattr(torch.optim, kind)(groups, **options)


def advance(params: list[Any], optimizer: Any, first: int, count: int) -> None:
    """Take steps of one sequence of gradients, with either library."""
    drawn = [gradients(first + count, shape)[first:] for shape in SHAPES]
    for parts in zip(*drawn, strict=True):
        if isinstance(optimizer, optim.Optimizer):
            optimizer.step(gradients=dict(zip(params, parts, strict=True)))
        else:
            for param, grad in zip(params, parts, strict=True):
                param.grad = torch.tensor(grad, dtype=param.dtype)
            optimizer.step()


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
def test_a_run_of_torchs_goes_on_here(kind: str, options: dict[str, Any]) -> None:
    """Oracle: torch, which goes on; minimp's optimizer was made with other options, and takes torch's."""
    source, optimizer = theirs(kind, options)
    advance(source, optimizer, 0, 5)
    params, resumed = ours(kind, {"lr": 0.7})
    for param, other in zip(params, source, strict=True):
        param.array = param.backend.from_host(other.detach().numpy())
    resumed.load_state_dict(optimizer.state_dict())
    for group, other in zip(resumed.param_groups, optimizer.param_groups, strict=True):
        assert {name: group[name] for name in resumed.defaults} == {
            name: other[name] for name in resumed.defaults
        }
    advance(source, optimizer, 5, 10)
    advance(params, resumed, 5, 10)
    for param, other in zip(params, source, strict=True):
        assert_close(values(param), other.detach().numpy(), "parity_optimizer")


@pytest.mark.parametrize(("kind", "options"), CASES, ids=IDS)
def test_a_run_from_here_goes_on_in_torch(kind: str, options: dict[str, Any]) -> None:
    """Oracle: minimp, which goes on; and torch's own state dict afterwards, loaded back, entry by entry."""
    source, optimizer = ours(kind, options)
    advance(source, optimizer, 0, 5)
    params, resumed = theirs(kind, {"lr": 0.7})
    with torch.no_grad():
        for param, other in zip(params, source, strict=True):
            param.copy_(torch.tensor(host(other)))
    resumed.load_state_dict(optimizer.torch_state_dict(torch.as_tensor))
    advance(source, optimizer, 5, 10)
    advance(params, resumed, 5, 10)
    for param, other in zip(params, source, strict=True):
        assert_close(values(other), param.detach().numpy(), "parity_optimizer")
    _, back = ours(kind, {"lr": 0.3})
    back.load_state_dict(resumed.state_dict())
    again, here = back.state_dict(), optimizer.state_dict()
    assert list(again["state"]) == list(here["state"])
    assert again["param_groups"] == here["param_groups"]
    for name, value in here["state"].items():
        assert_close(np.asarray(again["state"][name]), np.asarray(value), "parity_optimizer")


def test_masters_go_on_in_float32_parameters_of_torch() -> None:
    """Oracle: minimp's masters, which go on."""
    options = {"lr": 0.1, "momentum": 0.9}
    source, optimizer = ours("SGD", {**options, "master_weights": True}, "float16")
    advance(source, optimizer, 0, 3)
    params, resumed = theirs("SGD", options)
    with torch.no_grad():
        for param, other in zip(params, source, strict=True):
            param.copy_(torch.tensor(host(optimizer.master_of(other))))
    state = optimizer.torch_state_dict(torch.as_tensor)
    assert {name for each in state["state"].values() for name in each} == {"momentum_buffer"}
    resumed.load_state_dict(state)
    advance(source, optimizer, 3, 5)
    advance(params, resumed, 3, 5)
    for param, other in zip(params, source, strict=True):
        assert_close(optimizer.master_of(other), param.detach().numpy(), "parity_optimizer")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_states_of_torch_are_widened(dtype: str) -> None:
    """Oracle: torch's 16-bit state, exactly, in float32; masters begin at the parameters."""
    source, optimizer = theirs("Adam", {"lr": 0.01}, getattr(torch, dtype))
    advance(source, optimizer, 0, 2)
    params, resumed = ours("Adam", {"master_weights": True}, dtype)
    resumed.load_state_dict(optimizer.state_dict())
    kept = resumed.state[params[0]]
    assert kept["exp_avg"].dtype == np.float32
    assert np.array_equal(host(kept["exp_avg"]), optimizer.state[source[0]]["exp_avg"].float().numpy())
    assert kept["step"] == 2
    assert resumed.master_of(params[0]) is None
    advance(params, resumed, 2, 1)
    assert resumed.master_of(params[0]) is not None


def test_a_state_that_schedulers_have_touched_can_be_loaded() -> None:
    """Oracle: torch's group entries of OneCycleLR."""
    _, optimizer = theirs("SGD", {"lr": 0.1})
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, 10)
    _, resumed = ours("SGD", {"lr": 0.1})
    resumed.load_state_dict(optimizer.state_dict())
    for name in ("lr", "momentum", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"):
        assert resumed.param_groups[1][name] == optimizer.param_groups[1][name]


Change = Callable[[dict[str, Any]], Any]
FAULTS: tuple[tuple[str, Change, type[Exception], str], ...] = (
    ("decay", lambda s: s["param_groups"][0].update(decoupled_weight_decay=True), SettingError,
     "decoupled_weight_decay=True does not belong to 'adam'"),
    ("option", lambda s: s["param_groups"][0].update(rho=1.0), SettingError, "unknown: rho"),
    ("missing", lambda s: s["param_groups"][0].pop("eps"), SettingError, "missing or unknown: eps"),
    ("groups", lambda s: s["param_groups"].pop(), SettingError, "expected groups of"),
    ("entry", lambda s: s["state"][0].update(other=torch.ones(6, 5)), SettingError, "entry '0.other'"),
    ("stranger", lambda s: s["state"].update({7: {"exp_avg": torch.ones(1)}}), SettingError, "'7.exp_avg'"),
    ("shape", lambda s: s["state"][0].update(exp_avg=torch.ones(5)), ShapeError, "expected shape"),
    ("dtype", lambda s: s["state"][0].update(exp_avg=torch.ones(6, 5).double()), FormatError, "float64"),
    ("lack", lambda s: s["state"][0].pop("exp_avg_sq"), SettingError, "no exp_avg_sq"),
)  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_wrong_state_of_torchs_changes_nothing(change: Change, kind: type[Exception], message: str) -> None:
    """Oracle: the errors, and the state before."""
    source, optimizer = theirs("Adam", {"lr": 0.01})
    advance(source, optimizer, 0, 1)
    state = optimizer.state_dict()
    change(state)
    _, target = ours("Adam", {"lr": 0.3})
    with pytest.raises(kind, match=message):
        target.load_state_dict(state)
    assert target.state == {}
    assert target.param_groups[0]["lr"] == 0.3


def test_a_compensation_cannot_go_to_torch() -> None:
    """Oracle: the error in the docstring."""
    params, optimizer = ours("SGD", {"lr": 0.1, "update": "kahan"}, "bfloat16")
    advance(params, optimizer, 0, 1)
    with pytest.raises(SettingError, match="torch's optimizers keep no compensation"):
        optimizer.torch_state_dict(torch.as_tensor)
