"""Autocast's cast cache beside PyTorch's: how often a weight is cast, and how its gradient is added up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from minimp.frameworks.cache.programs import DEFECTS, PROGRAMS, Rig
from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row, Section
from minimp.frameworks.sides import Side, both_sides, show

__all__ = ["compare"]

SECTION = "cache"
CLAIM = (
    "The same output, the same number of casts on the way forward and the same gradient of the weight, which "
    "tells where it was added up: 256 + 1 is 256 in bfloat16, where one cast is kept, and 257 in float32."
)
CHOICES: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
    ("cache='torch'", {"cache": "torch"}, {"cache_enabled": True}),
    ("cache='none'", {"cache": "none"}, {"cache_enabled": False}),
    ("cache='per-dtype'", {"cache": "per-dtype"}, {"cache_enabled": True}),
    ("cache='torch-before-2.13'", {"cache": "torch-before-2.13"}, {"cache_enabled": True}),
)
"""A case, and what the regions of each library are opened with."""
FAITHFUL = ("faithful=True", {"cache": "torch", "faithful": True}, {"cache_enabled": True})


def compare(seed: int) -> Section:
    """Compare minimp's cast cache with that of PyTorch's CPU autocast.

    Args:
        seed: not used: nothing here is random.
    """
    del seed
    rows = tuple(_rows(*both_sides()))
    return Section(
        SECTION, "autocast's cast cache: casts and gradients", CLAIM, rows,
        {"casts": "casts"}, {"programs": f"{len(PROGRAMS) + len(DEFECTS)}"},
    )  # fmt: skip


def _rows(ours: Side, theirs: Side) -> Iterator[Row]:
    for program in PROGRAMS:
        for low in ("bfloat16", "float16"):
            for choice in (*CHOICES, FAITHFUL):
                yield _row(program, low, choice, ours, theirs)
    for program in DEFECTS:
        for low in ("bfloat16", "float16"):
            for choice in (CHOICES[0], FAITHFUL):
                yield _row(program, low, choice, ours, theirs)


def _row(
    program: Callable[[Rig, Any], Any],
    low: str,
    choice: tuple[str, Mapping[str, Any], Mapping[str, Any]],
    ours: Side,
    theirs: Side,
) -> Row:
    case, own, other = choice
    mine, casts = _outcome(program, Rig(ours, low, own))
    yours, _ = _outcome(program, Rig(theirs, low, other))
    name = (program.__doc__ or "").strip().rstrip(".")
    return judged("torch", SECTION, name, f"{low}, {case}", mine, yours, figures={"casts": casts})


def _outcome(program: Callable[[Rig, Any], Any], rig: Rig) -> tuple[str, int]:
    """Return what is seen of a program, in words, and the casts that it makes."""
    side = rig.side
    weight = side.tensor([[1.0]], requires_grad=True)
    outputs: list[Any] = []
    try:
        casts = side.casts(lambda: outputs.append(program(rig, weight)), rig.low)
    except side.refusals as fault:
        return f"refused, {_formats_differ(fault)}", 0
    (output,) = outputs
    if output.requires_grad:
        output.sum().backward()
    grad = weight.grad
    told = "none" if grad is None else f"{show(side.wide(grad)[0, 0])} {side.format_of(grad)}"
    value = f"{show(side.wide(output)[0, 0])} {side.format_of(output)}"
    return f"output {value}, gradient {told}, {casts} casts", casts


def _formats_differ(fault: Exception) -> str:
    """Name a refusal of a product of two formats alike for both libraries; another one speaks for itself."""
    words = str(fault)
    alike = any(each in words for each in ("same dtype", "inputs of one format"))
    return "two formats in a product" if alike else f"{type(fault).__name__}: {words.splitlines()[0]}"
