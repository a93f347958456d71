"""Which cast class the installed PyTorch gives each op that it registers for autocast, as it is seen to act.

Autocast stands above all other layers of PyTorch's dispatcher, so what it does to an op's arguments can be
watched from below: the op is called with arguments made from its signature alone, and stopped at the first
thing that is no cast. No kernel runs, so the arguments need not make sense.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row
from minimp.policy import CastClass, policies

__all__ = ["KEYS", "compare_rules", "registered", "seen_class", "torch_autocast"]

KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}
"""Device -> the dispatcher's key."""
PLAIN = {"int": 1, "number": 1.0, "float": 1.0, "bool": False, "str": "fro"}
"""Type of an argument that is no tensor -> what is given."""
WARNING = ("_lu_with_info", "chain_matmul", "cross", "lu_solve", "qr", "stft")
"""Ops that print a warning when they are called by their overload."""


@contextmanager
def torch_autocast(device: str, low: str) -> Iterator[None]:
    """Switch torch's autocast on: by torch.autocast on the CPU, by hand for fake CUDA tensors.

    torch.autocast("cuda") would warn, and do nothing, where there is no GPU.
    """
    import torch

    dtype = getattr(torch, low)
    if device == "cpu":
        with torch.autocast("cpu", dtype):
            yield
        return
    before = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    torch.set_autocast_enabled(device, True)
    torch.set_autocast_dtype(device, dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled(device, before[0])
        torch.set_autocast_dtype(device, before[1])
        torch.clear_autocast_cache()


def registered(device: str) -> dict[str, list[str]]:
    """Return the ops that the dispatcher has under a device's autocast key, each with its overloads."""
    import torch

    found: dict[str, list[str]] = {}
    for name in sorted(torch._C._dispatch_get_registrations_for_dispatch_key(KEYS[device])):
        if name.startswith("aten::"):
            op, _, overload = name.removeprefix("aten::").partition(".")
            found.setdefault(op, []).append(overload or "default")
    return found


def compare_rules() -> tuple[Row, ...]:
    """Compare the class of every op that torch registers, or our tables name, on both devices."""
    return tuple(row for device in KEYS for row in _rows(device))


def _rows(device: str) -> Iterator[Row]:
    ours = {op: kind for op, kind in policies[f"torch-{device}"].rules.items() if kind is not CastClass.KEEP}
    theirs = registered(device)
    for op in sorted({*ours, *theirs}):
        mine = ours[op].value if op in ours else "not listed"
        seen = seen_class(op, theirs[op], device) if op in theirs else "not registered"
        yield judged("torch", "formats", op, f"rule, {device}", mine, seen)


def seen_class(op: str, overloads: list[str], device: str) -> str:
    """Return the name of the cast class that a device's autocast is seen to follow for an op.

    float32 arguments that become low ones tell LOWER, low ones that become float32 FP32, both only together
    PROMOTE. SET_FP32 sets a `dtype` of float32, and leaves the op alone where one is given; BANNED refuses.

    Args:
        op: the op's name, without "aten::".
        overloads: those to call; if they differ, all their classes are named.
        device: "cpu" or "cuda".
    """
    return " and ".join(sorted({_seen(op, overload, device) for overload in overloads}))


def _seen(op: str, overload: str, device: str) -> str:
    import torch

    call = getattr(getattr(torch.ops.aten, op), overload)
    low, single = torch.bfloat16, torch.float32
    try:
        lowered = _watch(call, (single,), device)
        raised = _watch(call, (low,), device)
        mixed = _watch(call, (single, low), device) | _watch(call, (low, single), device)
    except _Refused:
        return CastClass.BANNED.value
    if low in lowered:
        return CastClass.LOWER.value
    if {single, "dtype"} & raised:
        by_dtype = any(argument.name == "dtype" for argument in call._schema.arguments)
        free = single not in (_watch(call, (low,), device, dtype=low) if by_dtype else raised)
        return CastClass.SET_FP32.value if free else CastClass.FP32.value
    return CastClass.PROMOTE.value if single in mixed else CastClass.KEEP.value


class _Refused(Exception):  # noqa: N818 - it ends a trial, and is no error
    """Autocast refused the op."""


class _Seen(Exception):  # noqa: N818 - as above
    """The first thing that is no cast was called."""


def _watch(call: Any, kinds: tuple[Any, ...], device: str, **options: Any) -> set[Any]:
    """Call an op and return the formats to which its arguments are cast, before anything else happens.

    "dtype" is among them too if what is called next was given a dtype of float32.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: set[Any] = set()

    class Watch(TorchDispatchMode):  # type: ignore[misc]  # torch has no types here
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            if func.namespace == "prim":  # where is it?
                return func(*args, **(kwargs or {}))
            if func is torch.ops.aten._to_copy.default:
                seen.add((kwargs or {}).get("dtype"))
                return func(*args, **(kwargs or {}))
            if any(given is torch.float32 for given in (*args, *(kwargs or {}).values())):
                seen.add("dtype")
            raise _Seen

    with FakeTensorMode():
        arguments = _arguments(call, kinds, device)
        try:
            with Watch(), torch_autocast(device, "bfloat16"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _entry(call)(*arguments, **options)
        except _Seen:
            pass
        except (RuntimeError, IndexError) as fault:  # the arguments make no sense; the casts are done
            if "unsafe to autocast" in str(fault):
                raise _Refused from fault
    return seen


def _entry(call: Any) -> Any:
    """Return an overload; of a deprecated op its Python function, whose warnings Python can silence."""
    import torch

    name = call._schema.name.removeprefix("aten::")
    return getattr(torch._C._VariableFunctions, name) if name in WARNING else call


def _arguments(call: Any, kinds: tuple[Any, ...], device: str) -> list[Any]:
    """Return the arguments without defaults, by their types; the tensors have the given formats in turn."""
    import torch

    formats = itertools.cycle(kinds)

    def made(kind: str) -> Any:
        if kind.startswith("List["):
            return [made(kind.removeprefix("List[").removesuffix("]")) for _ in range(2)]
        if kind in ("Tensor", "Optional[Tensor]"):
            return torch.ones((2, 2), dtype=next(formats), device=device)
        return PLAIN.get(kind)

    return [made(str(a.type)) for a in call._schema.arguments if not a.has_default_value()]
