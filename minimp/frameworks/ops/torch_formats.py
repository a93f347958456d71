"""The format of each op's result under autocast, here and in the installed PyTorch.

The CPU's rules run for real. CUDA's are those of the real dispatcher on fake CUDA tensors (FakeTensorMode in
any build of PyTorch: formats, no values).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from minimp.errors import MinimpError
from minimp.frameworks.cases import CASES, NO_COUNTERPART, Case, minimp_library, torch_library
from minimp.frameworks.judging import judged
from minimp.frameworks.ops.torch_rules import compare_rules, torch_autocast
from minimp.frameworks.results import Row, Section, Verdict
from minimp.policy import autocast
from minimp.tensors import tensor

__all__ = [
    "DEVICES", "KERNEL_MIXES", "LOW", "MIXES", "both_formats", "compare", "formats_of", "our_format",
    "row_case", "tensors_of", "their_format",
]  # fmt: skip

LOW = ("float16", "bfloat16")
DEVICES = {"cpu": "torch-cpu", "cuda": "torch-cuda"}
"""Device -> policy."""
MIXES: Mapping[str, tuple[str, ...]] = {
    "all float32": ("float32",),
    "all low": ("low",),
    "float32 then low": ("float32", "low"),
    "low then float32": ("low", "float32"),
    "all float64": ("float64",),
    "the other 16-bit format": ("other",),
}
"""Which formats the floating inputs have, in turn; low is the region's, other the other 16-bit one."""
KERNEL_MIXES: Mapping[str, tuple[str, ...]] = {"float32 then float64": ("float32", "float64")}
"""Mixes that kernels refuse, which fake tensors have not."""
ABOUT_FORMATS = re.compile("dtype|scalar type|ScalarType|should be the same|Type promoting")


def formats_of(mix: str, count: int, low: str) -> list[str]:
    """Return one format name for each floating input."""
    names = {"low": low, "other": "float16" if low == "bfloat16" else "bfloat16"}
    chosen = {**MIXES, **KERNEL_MIXES}[mix]
    return [names.get(name, name) for name in (chosen[i % len(chosen)] for i in range(count))]


def our_format(case: Case, given: list[str], low: str, policy: str) -> str:
    """Return the dtype of the result under minimp's autocast, or the kind of error."""
    inputs = [tensor(np.ones(shape), dtype=name) for shape, name in zip(case.shapes, given, strict=True)]
    try:
        with autocast(low, policy=policy):
            return str(case.call(minimp_library(), *inputs).dtype.name)
    except (MinimpError, TypeError) as fault:  # FormatError is one
        return "banned" if "unsafe inside autocast" in str(fault) else type(fault).__name__


def their_format(case: Case, given: list[str], low: str, device: str) -> str:
    """Return the dtype of the result under torch's autocast, "FormatError" where it refuses the formats.

    On fake CUDA tensors, call it inside :func:`tensors_of`.
    """
    import torch

    inputs = [
        torch.ones(shape, dtype=getattr(torch, name), device=device)
        for shape, name in zip(case.shapes, given, strict=True)
    ]
    try:
        with torch_autocast(device, low):
            result = case.call(torch_library(), *inputs)
    except RuntimeError as fault:
        if "unsafe to autocast" in str(fault):
            return "banned"
        text = str(fault).strip().splitlines()[0]
        return "FormatError" if ABOUT_FORMATS.search(str(fault)) else f"RuntimeError: {text[:60]}"
    return str(result.dtype).removeprefix("torch.")


def compare(seed: int = 0) -> Section:
    """Compare the result's format of every op, on both devices, for both low formats and all mixes.

    Args:
        seed: unused: formats do not depend on values.
    """
    del seed
    rows = [row for device in DEVICES for low in LOW for row in _rows(device, low)]
    rows += [Row(op, "", "", "", Verdict.NOT_COMPARED, why) for op, why in NO_COUNTERPART.items()]
    mixes = sum(row.figures.get("mixes", 0) for row in rows)
    rules = compare_rules()
    return Section(
        "formats",
        "The format of each op's result under autocast, and every registered op's rule",
        "For each mix of input formats, both give a result of one format, or both refuse; and each op that "
        "torch registers for autocast has the rule here that the dispatcher is seen to follow. The CPU runs "
        "for real, CUDA as fake tensors.",
        (*rows, *rules),
        {"cases": "calls", "mixes": "mixes of formats"},
        {"ops": f"{len({row.subject for row in rows}):,}", "results compared": f"{mixes:,}",
         "rules compared": f"{len(rules):,}"},
    )  # fmt: skip


def _rows(device: str, low: str) -> Iterator[Row]:
    """Compare all calls of each op on one device in one low format; what differs has a row of its own."""
    mixes = [*MIXES, *(KERNEL_MIXES if device == "cpu" else ())]
    by_op: dict[str, list[Case]] = {}
    for case in CASES:
        by_op.setdefault(case.op, []).append(case)
    with tensors_of(device):
        for op, cases in by_op.items():
            met = {(case, mix): both_formats(case, mix, low, device) for case in cases for mix in mixes}
            alike = [ours for ours, theirs in met.values() if ours == theirs]
            if alike:
                figures = {"cases": len(cases), "mixes": len(alike), "of_float32": met[cases[0], mixes[0]][0]}
                yield Row(op, f"{device}, {low}", *(_names(alike),) * 2, Verdict.AGREES, figures=figures)
            for (case, mix), (ours, theirs) in met.items():
                if ours != theirs:
                    yield judged("torch", "formats", op, row_case(case, mix, low, device), ours, theirs,
                                 figures={"cases": 1, "mixes": 1})  # fmt: skip


def row_case(case: Case, mix: str, low: str, device: str) -> str:
    """Return how a row names one call that differs: ``"cpu, float16, sum-dim, all low"``."""
    return ", ".join((device, low, *([str(case)] if case.what else []), mix))


def _names(met: list[str]) -> str:
    """Return the formats that were met, the most frequent first."""
    return ", ".join(name for name, _ in Counter(met).most_common())


def both_formats(case: Case, mix: str, low: str, device: str) -> tuple[str, str]:
    """Return our format and theirs for one call; on CUDA inside :func:`tensors_of`."""
    given = formats_of(mix, len(case.shapes), low)
    return our_format(case, given, low, DEVICES[device]), their_format(case, given, low, device)


@contextmanager
def tensors_of(device: str) -> Iterator[None]:
    """Be where tensors of a device can be made; PyTorch does not log the refusals of fake tensors there."""
    if device == "cpu":
        yield
        return
    from torch._subclasses import fake_tensor

    level = fake_tensor.log.level
    fake_tensor.log.setLevel(logging.CRITICAL)
    try:
        with fake_tensor.FakeTensorMode():
            yield
    finally:
        fake_tensor.log.setLevel(level)
