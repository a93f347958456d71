"""Weight files to and from torch; oracle: torch's tensors, bit for bit, by safetensors.torch itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn
from minimp.checkpoint import export, load, save
from minimp.errors import CheckpointError
from tests.checkpoint.test_weight_files import Tied, net

torch = pytest.importorskip("torch")
files = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.torch

FORMATS = ("float32", "float16", "bfloat16")
OTHERS = ("float64", "int64", "int32", "int16", "int8", "uint8", "bool", "float8_e4m3fn", "float8_e5m2")


def bits(state: Any) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return name -> dtype, shape and bytes, of torch's tensors and of arrays and tensors here."""
    found = {}
    for name, each in state.items():
        if isinstance(each, torch.Tensor):
            raw = each.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found[name] = (str(each.dtype).removeprefix("torch."), tuple(each.shape), raw)
        else:
            array = np.asarray(each)
            found[name] = (array.dtype.name, array.shape, array.tobytes())
    return found


def torch_net(form: str = "float32") -> Any:
    """Return torch's counterpart of `net`, with other weights each time."""
    modules = (torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    made = torch.nn.Sequential(*modules)
    made.register_buffer("count", torch.tensor(7))
    return made.to(getattr(torch, form))


class TorchTied(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
    """torch's counterpart of `Tied`."""

    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        self.head, self.body = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3, bias=False)
        if tie:
            self.body.weight = self.head.weight


@pytest.mark.parametrize("form", FORMATS)
def test_torch_to_minimp_and_back(path: Path, form: str) -> None:
    """Oracle: torch's state dict: names, dtypes, shapes, bits; buffers of integers too."""
    theirs = torch_net(form)
    files.save_file(theirs.state_dict(), path)
    assert bits(load(path)) == bits(theirs.state_dict())
    ours = net().to(form)
    assert repr(ours.load_state_dict(path)) == "<All keys matched successfully>"
    assert bits(ours.state_dict()) == bits(theirs.state_dict())
    ours = net().to(form)
    ours.load_state_dict(mp.load(path))
    assert bits(ours.state_dict()) == bits(theirs.state_dict())

    back = path.with_name("back.safetensors")
    save(back, ours.state_dict())
    found = files.load_file(back)
    assert bits(found) == bits(theirs.state_dict())
    other = torch_net(form)
    assert str(other.load_state_dict(found, strict=True)) == "<All keys matched successfully>"
    assert bits(other.state_dict()) == bits(theirs.state_dict())
    assert files.load_model(torch_net(form), back) == (set(), [])


@pytest.mark.parametrize("name", [*FORMATS, *OTHERS])
def test_every_dtype_there_and_back(path: Path, name: str) -> None:
    """Oracle: random bytes, NaN with payloads among them, read and written by safetensors.torch."""
    raw = np.random.default_rng(1).integers(0, 2 if name == "bool" else 256, 4096, np.uint8)
    theirs = {"a.b": torch.from_numpy(raw).view(getattr(torch, name)).reshape(2, -1), "none": torch.zeros(0)}
    files.save_file(theirs, path)
    found = load(path)
    assert bits(found) == bits(theirs)
    save(path, found)
    assert bits(files.load_file(path)) == bits(theirs)


def test_a_model_of_half_precision_is_widened_exactly(path: Path) -> None:
    """Oracle: torch's float()."""
    for form in ("float16", "bfloat16"):
        theirs = torch_net(form)
        files.save_file(theirs.state_dict(), path)
        ours = net()
        ours.load_state_dict(path)
        assert bits(ours.state_dict()) == bits(theirs.float().state_dict())


@pytest.mark.parametrize("tie", [True, False])
def test_tied_weights_of_save_model(path: Path, tie: bool) -> None:
    """Oracle: torch's weights. save_model writes a tied weight once; tied and untied models take it."""
    theirs = TorchTied()
    files.save_model(theirs, str(path))
    assert len(load(path)) == 2
    ours = Tied(tie)
    assert ours.load_state_dict(path) == ([], [])
    assert bits(ours.state_dict()) == bits(theirs.state_dict())
    if tie:
        ours = Tied()
        ours.load_state_dict(load(path))
        assert bits(ours.state_dict()) == bits(theirs.state_dict())


def test_torch_loads_tied_weights(path: Path) -> None:
    """Oracle: our weights: by name from a saved state dict, by load_model from an export."""
    ours = Tied()
    save(path, ours.state_dict())
    theirs = TorchTied()
    theirs.load_state_dict(files.load_file(path), strict=True)
    assert bits(theirs.state_dict()) == bits(ours.state_dict())
    export(path, ours, "float32")
    theirs = TorchTied()
    assert files.load_model(theirs, path) == (set(), [])
    assert bits(theirs.state_dict()) == bits(ours.state_dict())


@pytest.mark.parametrize("form", ["float16", "bfloat16"])
def test_an_export_is_what_torch_makes_of_the_weights(path: Path, form: str) -> None:
    """Oracle: torch's module.to(dtype), from the same weights, normal, subnormal and too small ones."""
    ours, theirs = net(), torch_net()
    with torch.no_grad():
        for param in theirs.parameters():
            powers = torch.arange(-12.0, -12.0 + param.numel()).clamp(max=3)
            param.mul_(10.0 ** powers.reshape(param.shape))
    ours.load_state_dict({name: each.numpy() for name, each in theirs.state_dict().items()})
    report = export(path, ours, form)
    assert bits(files.load_file(path)) == bits(theirs.to(getattr(torch, form)).state_dict())
    assert report.subnormal + report.flushed > 0 or form == "bfloat16"


# ---- what torch.save writes --------------------------------------------------------------------------------


class Trap:
    """Something that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_pickles_are_refused_unopened(path: Path, tmp_path: Path, new: bool) -> None:
    """Oracle: the message, whose remedy works as it stands; a trap in the file is not sprung."""
    theirs = torch_net("bfloat16")
    pickled, trap = path.with_name("weights.pt"), tmp_path / "trap"
    torch.save({"a": Trap(trap)}, pickled, _use_new_zipfile_serialization=new)
    for attempt in (lambda: load(pickled), lambda: nn.Linear(2, 2).load_state_dict(pickled)):
        with pytest.raises(CheckpointError, match=r"it is a pickle, .* is not opened") as caught:
            attempt()
        assert str(pickled) in str(caught.value)
    assert not trap.exists()

    torch.save(theirs.state_dict(), pickled, _use_new_zipfile_serialization=new)
    remedy = (
        str(caught.value)
        .split("made: ")[1]
        .replace("OLD", str(pickled))
        .replace("NEW.safetensors", str(path))
    )
    exec(remedy, {"torch": torch, "safetensors": __import__("safetensors.torch")})
    ours = net().bfloat16()
    ours.load_state_dict(path)
    assert bits(ours.state_dict()) == bits(theirs.state_dict())
