"""Averages of weights; oracle: torch 2.13.0's AveragedModel, and float64 sums of the weights shown."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn, optim
from minimp.errors import SettingError, ShapeError
from minimp.optim import swa_utils
from tests.arrays import host
from tests.optim.helpers import SEED, parameter, values
from tests.tolerances import assert_close, assert_ulp

LOW = ("float16", "bfloat16")


class Small(nn.Module):
    """Two parameters, a floating buffer and, where it is wanted, one of integers."""

    def __init__(self, seed: int = 0, *, counts: bool = True) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weight = nn.Parameter(rng.standard_normal((4, 3)).astype(np.float32))
        self.bias = nn.Parameter(rng.standard_normal(4).astype(np.float32))
        self.register_buffer("mean", mp.tensor(rng.standard_normal(4).astype(np.float32)))
        self.register_buffer("count", mp.tensor(0) if counts else None)

    def forward(self, x: Any) -> Any:
        """Return W x + b."""
        return mp.functional.linear(x, self.weight, self.bias)


def move(model: Any, number: int) -> None:
    """Give every floating leaf of a model, minimp's or torch's, the values of a moment."""
    rng = np.random.default_rng(SEED + number)
    for name in ("weight", "bias", "mean"):
        leaf = getattr(model, name)
        drawn = (rng.standard_normal(tuple(leaf.shape)) + 1.0).astype(np.float32)
        if isinstance(leaf, mp.Tensor):
            leaf.array = leaf.backend.cast(leaf.backend.from_host(drawn), leaf.format)
        else:
            leaf.data.copy_(leaf.data.new_tensor(drawn))
    if isinstance(model.count, mp.Tensor):
        model.count.array = model.count.backend.from_host(np.asarray(number))
    elif model.count is not None:
        model.count.fill_(number)


# ---- beside torch

WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("equal", {}),
    ("swa avg", {"avg_fn": ("get_swa_avg_fn", ())}),
    ("swa multi", {"multi_avg_fn": ("get_swa_multi_avg_fn", ())}),
    ("ema avg", {"avg_fn": ("get_ema_avg_fn", (0.9,))}),
    ("ema multi", {"multi_avg_fn": ("get_ema_multi_avg_fn", (0.9,))}),
    ("ema default", {"multi_avg_fn": ("get_ema_multi_avg_fn", ())}),
    ("ema near 0", {"multi_avg_fn": ("get_ema_multi_avg_fn", (0.25,))}),
)


@pytest.mark.torch
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("way", [each[1] for each in WAYS], ids=[each[0] for each in WAYS])
def test_averages_are_torchs(way: dict[str, Any], use_buffers: bool) -> None:
    """Oracle: torch's averaged parameters and buffers after each of 12 updates, and its state's names."""
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch is not checked
        def __init__(self) -> None:
            super().__init__()
            own = Small()
            self.weight = torch.nn.Parameter(torch.tensor(host(own.weight)))
            self.bias = torch.nn.Parameter(torch.tensor(host(own.bias)))
            self.register_buffer("mean", torch.tensor(host(own.mean)))
            self.register_buffer("count", None if use_buffers else torch.tensor(0))  # it cannot average them

    models = (Small(counts=not use_buffers), Theirs())
    made = []
    for model, space in zip(models, (swa_utils, torch.optim.swa_utils), strict=True):
        functions = {key: getattr(space, name)(*args) for key, (name, args) in way.items()}
        made.append(space.AveragedModel(model, use_buffers=use_buffers, **functions))
    for number in range(12):
        for model, averaged in zip(models, made, strict=True):
            move(model, number)
            averaged.update_parameters(model)
        for name in ("weight", "bias", "mean"):
            ours, theirs = (getattr(each.module, name) for each in made)
            assert_close(values(ours), theirs.detach().numpy(), "parity_optimizer")
    assert int(made[0].n_averaged) == int(made[1].n_averaged) == 12
    assert set(made[0].state_dict()) == set(made[1].state_dict())
    if not use_buffers:
        assert int(made[0].module.count) == int(made[1].module.count) == 11
    back = swa_utils.AveragedModel(Small(3, counts=not use_buffers))
    back.load_state_dict({key: value.numpy() for key, value in made[1].state_dict().items()})
    assert np.array_equal(host(back.module.weight), made[1].module.weight.detach().numpy())
    assert int(back.n_averaged) == 12


@pytest.mark.torch
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("epochs", [0, 1, 7])
def test_the_rate_of_swa_is_torchs(strategy: str, epochs: int) -> None:
    """Oracle: torch's rates over 15 epochs, with StepLR before it."""
    torch = pytest.importorskip("torch")
    curves = []
    for space in (mp, torch):
        params = [space.nn.Parameter(space.tensor([1.0])) for _ in range(2)]
        groups = [{"params": [params[0]]}, {"params": [params[1]], "lr": 2.0}]
        optimizer = space.optim.SGD(groups, lr=0.1)
        optimizer.step()
        schedule = space.optim.swa_utils.SWALR(optimizer, [0.05, 3.0], epochs, strategy)
        curve = []
        for _ in range(15):
            curve.append([group["lr"] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        curves.append(curve)
    assert_close(np.array(curves[0]), np.array(curves[1]), "parity_schedule")


def test_whole_numbers_are_copied_and_not_averaged() -> None:
    """Oracle: the model's own count, beside an average of the floating buffer by hand."""
    model = Small()
    ema = swa_utils.EMA(model, 0.5, use_buffers=True)
    for number in (1, 4):
        model.count.array, model.mean.array = np.asarray(number), np.full(4, number, np.float32)
        ema.update_parameters(model)
    assert int(ema.module.count) == 4
    assert values(ema.module.mean).tolist() == [2.5] * 4


def test_without_memory_the_average_is_the_last_weight() -> None:
    """Oracle: decay 0 gives w and decay 1 the first w, to the bit: the nearer end is where the sum begins."""
    for decay, kept in ((0.0, 5), (1.0, 0)):
        model = Small()
        ema = swa_utils.EMA(model, decay)
        for number in range(6):
            move(model, number)
            ema.update_parameters(model)
        move(model, kept)
        assert ema.module.weight.array.tobytes() == model.weight.array.tobytes()


# ---- in 16 bits


@pytest.mark.parametrize("dtype", LOW)
def test_averages_of_16_bit_weights_are_kept_in_fp32(dtype: str) -> None:
    """Oracle: the EMA of the same 16-bit weights in float64; the copy holds its rounding, in its own format.

    In 16 bits the average would stand still: the difference times 0.001 is less than half an ulp.
    """
    model = Small().to(dtype)
    ema = swa_utils.EMA(model, 0.999)
    wanted = None
    for number in range(30):
        move(model, number)
        ema.update_parameters(model)
        now = values(model.weight)
        wanted = now if wanted is None else wanted + (now - wanted) * (1 - 0.999)
    average = ema.state_dict()["average.weight"]
    assert average.dtype == np.float32
    assert_close(values(average), wanted, "parity_optimizer")
    assert ema.module.weight.format is mp.formats.get(dtype)
    assert_ulp(ema.module.weight, mp.formats.round(host(average), dtype), "exact")
    assert ema(mp.tensor(np.ones((2, 3)), dtype)).format is mp.formats.get(dtype)


def test_masters_can_be_averaged_in_the_place_of_low_copies() -> None:
    """Oracle: the mean of the masters in float64, which their float16 copies are too coarse for."""
    param = parameter([1.0], "float16")
    model = nn.Module()
    model.register_parameter("p", param)
    optimizer = optim.SGD([param], lr=1.0, master_weights=True)
    coarse, fine = (swa_utils.AveragedModel(model) for _ in range(2))
    for _ in range(4):
        optimizer.step(gradients={param: np.full(1, 2.0**-13, np.float32)})
        coarse.update_parameters(model)
        fine.update_parameters(model, optimizer=optimizer)
    exact = np.mean([1.0 - 2.0**-13 * k for k in (1, 2, 3, 4)])
    assert fine.state_dict()["average.p"].item() == exact
    assert coarse.state_dict()["average.p"].item() != exact


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_average_goes_on_where_it_stopped(dtype: str) -> None:
    """Oracle: the average that was not interrupted, bit for bit; and a copy of it."""
    model = Small().to(dtype)
    first = swa_utils.EMA(model, 0.99, use_buffers=True)
    second = swa_utils.EMA(Small(7).to(dtype), 0.99, use_buffers=True)
    for number in range(6):
        move(model, number)
        first.update_parameters(model)
        if number == 3:
            second.load_state_dict(first.state_dict())
            third = copy.deepcopy(first)
        if number > 3:
            second.update_parameters(model)
            third.update_parameters(model)
    wanted = {name: each.array.tobytes() for name, each in first.state_dict().items()}
    for other in (second, third):
        assert {name: each.array.tobytes() for name, each in other.state_dict().items()} == wanted


def test_a_state_without_averages_begins_them_at_the_weights() -> None:
    """Oracle: the 16-bit weights that were loaded, though the averages were others."""
    model = Small().half()
    ema = swa_utils.EMA(model)
    ema.update_parameters(model)
    state = {name: each for name, each in ema.state_dict().items() if not name.startswith("average.")}
    state["module.bias"] = np.full(4, 3.0, np.float16)
    with pytest.raises(SettingError, match="missing keys"):
        ema.load_state_dict(state)
    ema.load_state_dict(state, strict=False)
    assert values(ema.state_dict()["average.bias"]).tolist() == [3.0] * 4


# ---- what is left alone


def test_the_model_and_what_was_handed_out_are_left_alone() -> None:
    """Oracle: the bytes of the model, and of the average's arrays from before an update."""
    model = Small()
    averaged = swa_utils.AveragedModel(model)
    move(model, 1)
    before = {name: each.array.tobytes() for name, each in model.state_dict().items()}
    averaged.update_parameters(model)
    held = averaged.module.weight.array
    bits = held.tobytes()
    move(model, 2)
    averaged.update_parameters(model)
    assert held.tobytes() == bits
    move(model, 1)
    assert {name: each.array.tobytes() for name, each in model.state_dict().items()} == before
    assert averaged.module.weight.grad is None


def test_mistakes_are_named_and_change_nothing() -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(SettingError, match="cannot both act"):
        swa_utils.AveragedModel(
            Small(), avg_fn=swa_utils.get_swa_avg_fn(), multi_avg_fn=swa_utils.get_swa_multi_avg_fn()
        )
    for make in (swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn):
        with pytest.raises(SettingError, match=r"expected a decay from 0 to 1, got 1\.1"):
            make(1.1)
    averaged = swa_utils.AveragedModel(Small())
    with pytest.raises(SettingError, match="other parameters or buffers"):
        averaged.update_parameters(nn.Linear(3, 4))
    odd = Small()
    odd.bias = nn.Parameter(np.zeros(5, np.float32))
    with pytest.raises(ShapeError, match=r"bias: expected shape \(4,\), got \(5,\)"):
        averaged.update_parameters(odd)
    assert int(averaged.n_averaged) == 0
    with pytest.raises(SettingError, match="anneal_epochs to be a whole number"):
        swa_utils.SWALR(optim.SGD([parameter([1.0])]), 0.1, -1)
    with pytest.raises(SettingError, match="did you mean 'linear'"):
        swa_utils.SWALR(optim.SGD([parameter([1.0])]), 0.1, 1, "linea")


def test_the_rate_of_swa_goes_on_through_json() -> None:
    """Oracle: the schedule that was not interrupted."""
    optimizers = [optim.SGD([parameter([1.0])], lr=1.0) for _ in range(2)]
    first, second = (swa_utils.SWALR(each, 0.1, 6) for each in optimizers)
    for _ in range(3):
        first.step()
    optimizers[1].load_state_dict(optimizers[0].state_dict())
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(5):
        assert first.step() is second.step() is True
        assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"]


# ---- statistics of averaged weights


class Norm(nn.Module):
    """What `update_bn` looks for: statistics that are means over batches where there is no momentum."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", mp.tensor([9.0]))
        self.momentum: float | None = 0.1
        self.batches = 0

    def reset_running_stats(self) -> None:
        """Begin anew."""
        self.running_mean.array = self.running_mean.backend.from_host(np.zeros(1, np.float32))
        self.batches = 0

    def forward(self, x: Any) -> Any:
        """Take a batch's mean into the statistics, in training."""
        if self.training:
            self.batches += 1
            share = 1 / self.batches if self.momentum is None else self.momentum
            mean, seen = host(self.running_mean), host(x).mean(keepdims=True)
            made = mean + np.float32(share) * (seen - mean)
            self.running_mean.array = self.running_mean.backend.from_host(made)
        return x


def test_statistics_are_taken_anew_with_equal_weights() -> None:
    """Oracle: the mean of the batches' means; mode and momentum are given back, after an error too."""
    model = nn.Sequential(Norm(), nn.Tanh()).eval()
    loader = [(mp.tensor([1.0, 3.0]), None), mp.tensor([4.0, 4.0]), [mp.tensor([9.0])]]
    swa_utils.update_bn(loader, model)
    norm = model[0]
    assert norm.running_mean.item() == 5.0
    assert (norm.momentum, norm.training, model.training) == (0.1, False, False)
    with pytest.raises(TypeError):
        swa_utils.update_bn([mp.tensor([1.0]), "no batch"], nn.Sequential(norm, nn.Tanh()))
    assert norm.momentum == 0.1


@pytest.mark.torch
def test_statistics_of_batch_norm_are_torchs() -> None:
    """Oracle: torch's running statistics after its own update_bn on the same batches."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(SEED)
    batches = [rng.standard_normal((6, 3)).astype(np.float32) for _ in range(4)]
    ours, theirs = nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    swa_utils.update_bn([mp.tensor(each) for each in batches], ours)
    torch.optim.swa_utils.update_bn([torch.tensor(each) for each in batches], theirs)
    for name in ("running_mean", "running_var"):
        assert_close(values(getattr(ours, name)), getattr(theirs, name).numpy(), "parity_gradient_fp32")
