"""The policies against PyTorch 2.13.0, overload by overload: its library, its dispatcher and its header.

PyTorch's library has each autocast kernel under a name that spells the class, the device and the op (a symbol
of at::autocast::WrapFunction_), from which `policy.history()` was read for every release.
"""

from __future__ import annotations

import mmap
import re
from functools import cache
from pathlib import Path

import pytest

import minimp as mp
from minimp.frameworks.ops.torch_rules import registered
from minimp.policy import CastClass

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch
DEVICES = ("cpu", "cuda")
CLASSES = (CastClass.LOWER, CastClass.FP32, CastClass.SET_FP32, None, CastClass.PROMOTE)
"""The classes by their number in at::autocast::CastPolicy (ATen/autocast_mode.h); 3 is fp32_append_dtype."""
APART = {"cpu": set[str](), "cuda": {"binary_cross_entropy", "norm"}}
"""Ops without such a kernel: a refusal, and one that is handed on to another overload (fp32_append_dtype)."""
KERNEL = re.compile(
    rb"ZN2at8autocast13WrapFunction_ILNS0_10CastPolicyE(\d)ELN3c1010DeviceTypeE([01])E"
    rb"\w*?XadL_ZNS\d*_4_ops(\d+)(\w+?)4callE"
)  # the device: 0 is the CPU, 1 CUDA


@cache
def kernels() -> dict[str, dict[str, set[CastClass | None]]]:
    """Return device -> overload, as the library spells it ("softmax_int") -> the classes of its kernels."""
    found: dict[str, dict[str, set[CastClass | None]]] = {device: {} for device in DEVICES}
    library = Path(torch.__file__).parent / "lib/libtorch_cpu.so"
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for kind, device, length, name in KERNEL.findall(data):
            spelled = name.decode()
            assert len(spelled) == int(length)
            found[DEVICES[int(device)]].setdefault(spelled, set()).add(CLASSES[int(kind)])
    return found


def overloads(device: str) -> dict[str, str]:
    """Return overload as the library spells it -> op, of all that the dispatcher has for a device."""
    return {
        op if overload == "default" else f"{op}_{overload}": op
        for op, each in registered(device).items()
        for overload in each
    }


@pytest.mark.parametrize("device", DEVICES)
def test_every_overload_has_the_class_of_its_op(device: str) -> None:
    """Oracle: the kernels in PyTorch's library, one class an overload."""
    rules = mp.policies[f"torch-{device}"].rules
    found = kernels()[device]
    assert all(len(kinds) == 1 for kinds in found.values())
    ours = {spelled: rules[op] for spelled, op in overloads(device).items() if op not in APART[device]}
    assert ours == {spelled: next(iter(kinds)) for spelled, kinds in found.items()}


def test_the_classs_own_name_is_told() -> None:
    """Oracle: PyTorch's library: fp32_append_dtype has kernels for norm alone."""
    library = Path(torch.__file__).parent / "lib/libtorch_cpu.so"
    handed_on = rb"WrapFunction_ILNS0_10CastPolicyE3ELN3c1010DeviceTypeE1E\w*?XadL_ZNS_(\d+[a-z]+)E"
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert set(re.findall(handed_on, data)) == {b"4norm"}
    cuda = mp.policies["torch-cuda"]
    assert "fp32_append_dtype" in cuda.remarks["norm"]
    assert any(line.startswith("* norm: ") and "fp32_append_dtype" in line for line in str(cuda).splitlines())
    assert cuda.search("append_dtype") == {"norm": CastClass.SET_FP32}


@pytest.mark.parametrize("device", DEVICES)
def test_no_overload_is_registered_unseen(device: str) -> None:
    """Oracle: the counts of the dispatcher's registrations, and of the overloads in the header's lists."""
    found = overloads(device)
    assert len(found) == {"cpu": 127, "cuda": 119}[device]
    assert set(found.values()) == {
        op for op, kind in mp.policies[f"torch-{device}"].rules.items() if kind is not CastClass.KEEP
    }
    if device == "cuda":
        text = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text("utf-8")
        lists = re.findall(r"#define AT_FORALL_(?:LOWER|FP32|PROMOTE)\w*\(_\)((?:.*\\\n)*.*\n)", text)
        pairs = [pair for body in lists for pair in re.findall(r"_\((\w+)(?:, (\w+))?\)", body)]
        listed = {"_".join(filter(None, pair)) for pair in pairs}
        apart = {"binary_cross_entropy", "cudnn_convolution", "cudnn_convolution_transpose", "norm_Scalar",
                 "norm_ScalarOpt_dim"}  # fmt: skip
        assert set(found) == listed | apart


def test_the_present_release_is_the_installed_one() -> None:
    """Oracle: the installed PyTorch; the history ends in its tables."""
    version = torch.__version__.split("+")[0]
    assert mp.policies["torch-cuda"].at(version) is mp.policies["torch-cuda"]
    assert version in mp.policies["torch-cpu"].source


def test_a_banned_op_raises_with_what_torch_advises() -> None:
    """Oracle: PyTorch's own message, in the library: both name the loss to use in its place."""
    ours = mp.policies["torch-cuda"].explain("binary_cross_entropy", ["float32", "float32"]).refused
    library = Path(torch.__file__).parent / "lib/libtorch_cpu.so"
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = data.find(b"binary_cross_entropy and torch.nn.BCELoss are unsafe to autocast")
        theirs = data[start : start + 400].decode("ascii", "replace")
    for word in ("unsafe", "sigmoid", "binary_cross_entropy_with_logits", "BCEWithLogitsLoss", "safe to"):
        assert word in theirs
        assert word in ours
