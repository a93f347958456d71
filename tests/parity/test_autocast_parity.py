"""Autocast against PyTorch 2.13.0: the op tables, the format of each op's result, and the weight cache.

CUDA's rules are those of the real dispatcher on fake CUDA tensors (FakeTensorMode in the CPU build: formats,
no values); the CPU's run for real.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.door import OPS
from minimp.frameworks.cases import CASES, NO_COUNTERPART, Case
from minimp.frameworks.documented import known_difference
from minimp.frameworks.ops.torch_formats import (
    DEVICES,
    KERNEL_MIXES,
    LOW,
    MIXES,
    both_formats,
    row_case,
    tensors_of,
)
from minimp.modes import listen
from minimp.policy import CastClass
from minimp.tape import Event
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch
# What is registered for CUDA outside the lists of the header (aten/src/ATen/autocast_mode.cpp, READ).
CUDA_ONLY = {
    "cudnn_convolution": CastClass.LOWER,
    "cudnn_convolution_transpose": CastClass.LOWER,
    "binary_cross_entropy": CastClass.BANNED,
}


def registered(key: str) -> set[str]:
    """Return the ops, without their overloads, that the dispatcher has under an autocast key."""
    names = torch._C._dispatch_get_registrations_for_dispatch_key(key)
    return {name.removeprefix("aten::").split(".")[0] for name in names if name.startswith("aten::")}


def header_lists() -> dict[str, CastClass]:
    """Return op -> class as the lists of the installed header have it."""
    text = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text("utf-8")
    found = {}
    for name, kind in [
        ("LOWER_PRECISION_FP", CastClass.LOWER), ("FP32", CastClass.FP32),
        ("FP32_SET_OPT_DTYPE", CastClass.SET_FP32), ("PROMOTE", CastClass.PROMOTE),
    ]:  # fmt: skip
        (body,) = re.findall(rf"#define AT_FORALL_{name}\(_\)((?:.*\\\n)*.*\n)", text)
        found |= dict.fromkeys(re.findall(r"_\((\w+)", body), kind)
    (body,) = re.findall(r"#define AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE\(_\)((?:.*\\\n)*.*\n)", text)
    assert "fp32_append_dtype" in body
    return found | dict.fromkeys(re.findall(r"ADD_NS\((\w+)\)", body), CastClass.SET_FP32)


def test_the_cuda_table_is_the_headers() -> None:
    """Oracle: the lists in the header of the installed PyTorch, and the three registrations beside them."""
    listed = {op: kind for op, kind in mp.policies["torch-cuda"].rules.items() if kind is not CastClass.KEEP}
    assert listed == header_lists() | CUDA_ONLY


@pytest.mark.parametrize(("policy", "key"), [("torch-cuda", "AutocastCUDA"), ("torch-cpu", "AutocastCPU")])
def test_the_tables_have_the_dispatchers_ops(policy: str, key: str) -> None:
    """Oracle: the dispatcher's registrations under the autocast key, name for name."""
    rules = mp.policies[policy].rules
    assert {op for op, kind in rules.items() if kind is not CastClass.KEEP} == registered(key)


def test_every_op_has_a_case() -> None:
    """Oracle: minimp's own list of ops; `cast` is what the others are compared by."""
    built_in = {name for name, op in OPS.items() if op.forward.__module__.startswith("minimp.")}
    assert {case.op for case in CASES} | set(NO_COUNTERPART) == built_in


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_result_formats_are_torchs(case: Case, low: str, device: str) -> None:
    """Oracle: PyTorch's autocast for every mix: on the CPU run for real, for CUDA on fake tensors."""
    mixes = {**MIXES, **KERNEL_MIXES} if device == "cpu" else MIXES
    with tensors_of(device):
        met = {mix: both_formats(case, mix, low, device) for mix in mixes}
    differing = {mix: pair for mix, pair in met.items() if pair[0] != pair[1]}
    known = {
        mix
        for mix in mixes
        if known_difference("torch", "formats", case.op, row_case(case, mix, low, device))
    }
    assert set(differing) <= known, differing


# --- the weight-cast cache: a program in both libraries, and the gradient that it gives --------------------


class Ours:
    """minimp, as the programs below speak to it."""

    region = staticmethod(lambda **options: mp.autocast("bfloat16", policy="torch-cpu", **options))
    no_grad = mp.no_grad

    @staticmethod
    def leaf(value: float) -> Any:
        """Return a 1 x 1 float32 weight."""
        return mp.tensor([[value]], requires_grad=True)

    @staticmethod
    def const(value: float) -> Any:
        """Return a 1 x 1 float32 constant."""
        return mp.tensor([[value]])

    @staticmethod
    def casts(program: Callable[[], object]) -> int:
        """Return how many casts to bfloat16 a program makes on its way forward."""
        events: list[Event] = []
        with listen(events.append):
            program()
        kinds = [e for e in events if e.phase == "forward" and e.node.op.name == "cast"]
        return sum(e.outputs[0].dtype.name == "bfloat16" for e in kinds)


class Theirs:
    """PyTorch, as the programs below speak to it."""

    region = staticmethod(lambda **options: torch.autocast("cpu", torch.bfloat16, **options))
    no_grad = torch.no_grad

    @staticmethod
    def leaf(value: float) -> Any:
        """Return a 1 x 1 float32 weight."""
        return torch.tensor([[value]], requires_grad=True)

    @staticmethod
    def const(value: float) -> Any:
        """Return a 1 x 1 float32 constant."""
        return torch.tensor([[value]])

    @staticmethod
    def casts(program: Callable[[], object]) -> int:
        """Return how many casts to bfloat16 a program makes on its way forward."""
        from torch.utils._python_dispatch import TorchDispatchMode

        class Count(TorchDispatchMode):
            made = 0

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                kwargs = kwargs or {}
                if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
                    Count.made += 1
                return func(*args, **kwargs)

        with Count():
            program()
        return Count.made


Lib = type[Ours] | type[Theirs]


def in_one_region(lib: Lib, w: Any) -> Any:
    """Use the weight twice in one region."""
    with lib.region():
        return lib.const(256.0) @ w + lib.const(1.0) @ w


def without_cache(lib: Lib, w: Any) -> Any:
    """Use it twice in a region that has no cache."""
    with lib.region(cache_enabled=False):
        return lib.const(256.0) @ w + lib.const(1.0) @ w


def in_two_regions(lib: Lib, w: Any) -> Any:
    """Use it once in each of two regions."""
    with lib.region():
        a = lib.const(256.0) @ w
    with lib.region():
        return a + lib.const(1.0) @ w


def in_two_regions_inside_one(lib: Lib, w: Any) -> Any:
    """The cache lives as long as the outermost region."""
    with lib.region():
        return in_two_regions(lib, w)


def in_two_regions_inside_a_disabled_one(lib: Lib, w: Any) -> Any:
    """The outermost region counts even if it is disabled."""
    with lib.region(enabled=False):
        return in_two_regions(lib, w)


def through_views(lib: Lib, w: Any) -> Any:
    """A transposed weight is no leaf, and is not cached."""
    with lib.region():
        return lib.const(256.0) @ w.T + lib.const(1.0) @ w.T


def first_under_no_grad(lib: Lib, w: Any) -> Any:
    """The cast made under no_grad keeps its gradient for the later use."""
    with lib.region():
        with lib.no_grad():
            lib.const(3.0) @ w
        return lib.const(256.0) @ w + lib.const(1.0) @ w


def half_outside(lib: Lib, w: Any) -> Any:
    """One use inside the region, one in float32 outside."""
    with lib.region():
        a = lib.const(256.0) @ w
        with lib.region(enabled=False):
            return a + lib.const(1.0) @ w


PROGRAMS = {
    in_one_region: 256.0, without_cache: 257.0, in_two_regions: 257.0, in_two_regions_inside_one: 256.0,
    in_two_regions_inside_a_disabled_one: 256.0, through_views: 257.0, first_under_no_grad: 256.0,
    half_outside: 257.0,
}  # fmt: skip


@pytest.mark.parametrize(("program", "expected"), PROGRAMS.items(), ids=lambda x: getattr(x, "__name__", ""))
def test_the_cache_adds_up_gradients_as_torchs(program: Callable[..., Any], expected: float) -> None:
    """Oracle: PyTorch's CPU autocast; 256 + 1 is 256 in bfloat16 (one cached cast), 257 in float32."""
    found, formats = [], []
    for lib in (Ours, Theirs):
        w = lib.leaf(1.0)
        program(lib, w).sum().backward()
        found.append(w.grad.item())
        formats.append(str(w.grad.dtype).removeprefix("torch."))
    assert found == [expected, expected]
    assert formats == ["float32", "float32"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda x: x.__name__)
def test_as_many_casts_are_made_as_torch_makes(program: Callable[..., Any]) -> None:
    """Oracle: the copies to bfloat16 that PyTorch's dispatcher sees, constants included."""
    ours, theirs = (lib.casts(lambda lib=lib: program(lib, lib.leaf(1.0))) for lib in (Ours, Theirs))
    assert ours == theirs


@pytest.mark.parametrize("low", LOW)
def test_cross_entropy_of_low_scores_is_computed_in_float32(low: str) -> None:
    """Oracle: PyTorch's CPU autocast, where cross_entropy_loss is one op; low log_softmax is off by 1e-5."""
    scores = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32) * 3
    labels = np.arange(64) % 10
    with mp.autocast(low, policy="torch-cpu"):
        ours = mp.functional.cross_entropy(mp.tensor(scores, dtype=low), labels)
    with torch.autocast("cpu", getattr(torch, low)):
        rounded = torch.tensor(scores).to(getattr(torch, low))
        theirs = torch.nn.functional.cross_entropy(rounded, torch.tensor(labels))
    assert_close(ours.numpy(), theirs.numpy(), "parity_first_loss")


@pytest.mark.parametrize("low", LOW)
def test_a_small_networks_gradients_have_torchs_formats(low: str) -> None:
    """Oracle: PyTorch's CPU autocast run for real: every gradient of a float32 leaf is float32."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((4, 3), (5, 3), (5,)))
    labels = np.array([0, 1, 4, 2])
    ours = [mp.tensor(a, requires_grad=True) for a in (x, w, b)]
    theirs = [torch.tensor(a, requires_grad=True) for a in (x, w, b)]
    with mp.autocast(low, policy="torch-cpu"):
        hidden = mp.functional.relu(mp.functional.linear(*ours))
        loss = mp.functional.cross_entropy(hidden, labels)
    loss.backward()
    with torch.autocast("cpu", getattr(torch, low)):
        their_hidden = torch.relu(torch.nn.functional.linear(*theirs))
        their_loss = torch.nn.functional.cross_entropy(their_hidden, torch.tensor(labels))
    their_loss.backward()
    for mine, other in zip([hidden, loss, *(t.grad for t in ours)],
                           [their_hidden, their_loss, *(t.grad for t in theirs)], strict=True):  # fmt: skip
        assert mine.dtype.name == str(other.dtype).removeprefix("torch.")
