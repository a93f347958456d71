"""PyTorch's own tests of the lists of autocast, by their description.

torch/testing/_internal/autocast_test_lists.py names the ops of each list, and test/test_autocast.py and
test/test_cuda.py try them: in a region, a listed op gives bit for bit what it gives outside on arguments that
were cast by hand. The oracle is minimp itself outside of any region; formats are held to PyTorch's elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.door import OPS, Op
from minimp.errors import FormatError
from minimp.formats import Format
from minimp.frameworks.cases import CASES, Case, minimp_library
from minimp.modes import MODES
from minimp.policy import CastClass, Region
from minimp.tensors import Tensor

LOW = ("float16", "bfloat16")
POLICIES = ("torch-cuda", "torch-cpu")
GIVEN = {"all float32": ("float32",), "all low": ("low",), "mixed": ("float32", "low")}
"""Which formats the arguments have, in turn."""
SIXTEEN_AND_32 = (mp.float32, mp.float16, mp.bfloat16)
LISTED = {CastClass.LOWER, CastClass.FP32, CastClass.SET_FP32, CastClass.PROMOTE}


@dataclass(frozen=True)
class OpCall:
    """One op as it was called inside a region, and what it gave."""

    op: Op
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    region: Region | None
    random: Any
    result: Tensor


@contextmanager
def op_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[OpCall]]:
    """Collect the calls of ops made in the block, casts apart."""
    calls: list[OpCall] = []
    honest = Op.__call__

    def spy(self: Op, *inputs: Any, **options: Any) -> Tensor:
        random = mp.get_rng_state() if self.name == "dropout" else None
        result = honest(self, *inputs, **options)
        if self.name != "cast":
            calls.append(OpCall(self, inputs, options, MODES.get().autocast, random, result))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Op, "__call__", spy)
        yield calls


def arguments(case: Case, given: str, low: str) -> list[Tensor]:
    """Return random arguments between 0 and 1, where every op is defined; 16 bits round them."""
    rng = np.random.default_rng(len(case.op))
    kinds = [low if kind == "low" else kind for kind in GIVEN[given]]
    drawn = [rng.uniform(0.05, 0.95, shape).astype(np.float32) for shape in case.shapes]
    if "embedding_loss" in str(case):  # its targets are signs
        drawn[-1] = np.ones_like(drawn[-1])
    return [mp.tensor(a, dtype=kinds[i % len(kinds)]) for i, a in enumerate(drawn)]


def cast_by_hand(call: OpCall) -> list[Any]:
    """Return a call's inputs, cast as the list says that its op is on."""
    region = call.region
    if region is None or not region.enabled:
        return list(call.inputs)
    rule = region.policy.rule(call.op)
    if rule is CastClass.SET_FP32 and call.options.get("dtype") is not None:
        return list(call.inputs)
    values = [mp.tensor(x) if isinstance(x, np.ndarray) else x for x in call.inputs]
    floating = [x for x in values if isinstance(x, Tensor) and x.format in SIXTEEN_AND_32]
    targets: dict[CastClass, Format | None] = {
        CastClass.LOWER: region.format, CastClass.FP32: mp.float32, CastClass.SET_FP32: mp.float32,
        CastClass.PROMOTE: mp.float32 if any(x.format is mp.float32 for x in floating) else None,
    }  # fmt: skip
    target = targets.get(rule)
    return [x.to(target) if target is not None and any(x is f for f in floating) else x for x in values]


def run(case: Case, inputs: list[Tensor], region: Any, monkeypatch: pytest.MonkeyPatch) -> list[OpCall]:
    """Make a call and return the ops it ran, until it was refused; what is refused is tried elsewhere."""
    with op_calls(monkeypatch) as calls, region, suppress(FormatError):
        case.call(minimp_library(), *inputs)
    return calls


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_listed_op_is_the_op_on_arguments_cast_by_hand(
    case: Case, low: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: each op of the call, made again outside of any region on arguments cast by hand: equal bits."""
    for given in GIVEN:
        region = mp.autocast(low, policy=policy)
        for call in run(case, arguments(case, given, low), region, monkeypatch):
            if call.random is not None:
                mp.set_rng_state(call.random)
            again = call.op(*cast_by_hand(call), **call.options)
            assert again.format is call.result.format, (call.op.name, given)
            assert again.array.tobytes() == call.result.array.tobytes(), (call.op.name, given)


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_op_of_every_list_is_tried(policy: str, low: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the policy's own lists; a banned op is refused; what has no case has tests of its own."""
    table = mp.policies[policy].in_format(low)
    listed = {name for name, op in OPS.items() if table.rule(op) in LISTED}
    built_in = {name for name in listed if OPS[name].forward.__module__.startswith("minimp.")}
    tried = set()
    for case in CASES:
        region = mp.autocast(low, policy=policy)
        tried |= {
            each.op.name for each in run(case, arguments(case, "all float32", low), region, monkeypatch)
        }
    assert built_in - tried <= {"lstm", "gru", "rnn_tanh", "rnn_relu", "fake_quantize_per_tensor_affine"}
    assert len(built_in) > 30


@pytest.mark.parametrize("low", LOW)
def test_a_banned_op_says_what_to_use(low: str) -> None:
    """Oracle: PyTorch's advice, and that the advised op runs; outside of a region, the banned one does."""
    p, y = mp.tensor([0.25, 0.5]), mp.tensor([0.0, 1.0])
    with mp.autocast(low, policy="torch-cuda"):
        with pytest.raises(FormatError, match="use binary_cross_entropy_with_logits"):
            mp.functional.binary_cross_entropy(p, y)
        assert mp.functional.binary_cross_entropy_with_logits(p, y).format is mp.float32
        with mp.autocast(low, policy="torch-cuda", enabled=False):
            mp.functional.binary_cross_entropy(p, y)
    with mp.autocast(low, policy="torch-cpu"):
        assert mp.functional.binary_cross_entropy(p, y).format is mp.float32
