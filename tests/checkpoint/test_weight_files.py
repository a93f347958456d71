"""Modules and weight files; oracle: the arrays that were saved; a failed load changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import minimp as mp
from minimp import nn
from minimp.checkpoint import load, save
from minimp.errors import CheckpointError, DataError, SettingError
from tests.trainer.runs import bits


def net() -> nn.Module:
    """Return a model with parameters and a buffer of integers."""
    made = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    made.register_buffer("count", mp.tensor(np.array(7)))
    return made


class Tied(nn.Module):
    """Two layers, which share a weight if `tie`."""

    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.head, self.body = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
        if tie:
            self.body.weight = self.head.weight


@pytest.mark.parametrize("form", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", [str, Path])
def test_a_model_takes_a_file(path: Path, form: str, kind: type) -> None:
    """Oracle: the model that was saved, bit for bit; the file has torch's names."""
    source, target = net().to(form), net().to(form)
    save(path, source.state_dict())
    result = target.load_state_dict(kind(path))
    assert repr(result) == "<All keys matched successfully>"
    assert bits(target.state_dict()) == bits(source.state_dict()) == bits(load(path))
    assert set(safetensors.numpy.load_file(path)) == {"0.weight", "0.bias", "3.weight", "3.bias", "count"}


def test_values_of_another_format_are_rounded_once(path: Path) -> None:
    """Oracle: minimp.formats.round of the file's float64 values."""
    values = np.array([1.0 + 2.0**-11 + 2.0**-40, 1.0 / 3])
    save(path, {"weight": values.reshape(1, 2), "bias": values[:1]})
    made = nn.Linear(2, 1).half()
    made.load_state_dict(path)
    assert np.asarray(made.weight)[0].tolist() == mp.formats.round(values, "float16").tolist()


def test_a_tied_weight_may_stand_under_one_name(path: Path) -> None:
    """Oracle: the weight; either name will do, in a file or a dict, and the model is still tied."""
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    for name in ("head.weight", "body.weight"):
        for as_file in (True, False):
            made = Tied()
            state = {name: values, "head.bias": np.zeros(3, np.float32)}
            save(path, state)
            assert made.load_state_dict(path if as_file else state).missing_keys == []
            assert np.asarray(made.body.weight).tolist() == values.tolist()
            assert made.head.weight is made.body.weight
    with pytest.raises(SettingError, match=r"missing keys: body\.weight"):
        Tied(tie=False).load_state_dict({"head.weight": values, "head.bias": np.zeros(3, np.float32)})


def test_the_part_of_a_larger_state_is_named(path: Path) -> None:
    """Oracle: the help, which works as it stands."""
    made = net()
    save(path, {"model": made.state_dict(), "step": 3, "optimizer": {"state": {"0.exp_avg": np.ones(2)}}})
    with pytest.raises(SettingError, match="lies in it under 'model'") as caught:
        net().load_state_dict(path)
    assert "load_state_dict(mp.load(path)['model'])" in str(caught.value)
    other = net()
    other.load_state_dict(mp.load(path)["model"])
    assert bits(other.state_dict()) == bits(made.state_dict())


def test_a_failed_load_changes_nothing(path: Path) -> None:
    """Oracle: the model's bits before: the file is missing, damaged, of another model, or no safetensors."""
    made = net()
    before = bits(made.state_dict())
    save(path, net().state_dict())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    faults = {
        "missing": (None, CheckpointError, "there is no such file"),
        "damaged": (bytes(data), CheckpointError, "SHA-256 differs"),
        "short": (bytes(data[:-3]), CheckpointError, "cut short"),
        "pickle": (b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.", CheckpointError, "it is a pickle"),
    }
    for name, (content, error, said) in faults.items():
        file = path.with_name(name)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(error, match=said) as caught:
            made.load_state_dict(file)
        assert str(file) in str(caught.value)
    save(path, {**nn.Linear(2, 2).state_dict(), "count": np.array(8)})
    with pytest.raises(SettingError, match=r"missing keys: .*unexpected keys: "):
        made.load_state_dict(path)
    assert bits(made.state_dict()) == before


def test_integers_that_do_not_fit() -> None:
    """Oracle: 2^40 in a buffer of int32; a smaller number of int64 is taken."""
    made = nn.Module()
    made.register_buffer("count", mp.tensor(np.array([1], np.int32)))
    made.load_state_dict({"count": np.array([2**31 - 1])})
    with pytest.raises(DataError, match="count: the integers, of int64, do not fit int32"):
        made.load_state_dict({"count": np.array([2**40])})
    assert np.asarray(made.state_dict()["count"]).tolist() == [2**31 - 1]


def test_hooks_see_the_arrays_of_the_file(path: Path) -> None:
    """Oracle: a hook before loading that renames what an older version of the model called otherwise."""
    made = nn.Linear(2, 1)
    save(path, {"w": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)})

    def rename(module: nn.Module, state: dict[str, object], prefix: str, *rest: object) -> None:
        state[f"{prefix}weight"] = state.pop(f"{prefix}w")

    made.register_load_state_dict_pre_hook(rename)
    made.load_state_dict(path)
    assert np.asarray(made.weight).tolist() == [[1.0, 1.0]]
