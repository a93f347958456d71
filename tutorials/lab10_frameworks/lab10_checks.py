"""Checks of lab 10; oracles: the recorded rules of minimp.policy and minimp.scaler; no framework is needed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import minimp as mp
from minimp import scaler
from minimp.labs import exercise


@exercise(
    "1a", hints=("[row.release for row in cuda.history() if row.op == op]", "the last of them, or None")
)
def check_1a(lab: Any) -> None:
    """Releases read from PyTorch's own libraries."""
    for op, expected in (("rms_norm", "2.12"), ("vdot", "2.4"), ("einsum", "1.12"), ("softmax", None)):
        got = lab.since(op)
        hint = "a release is text: 2.10 is not 2.1" if isinstance(got, float) else (
            "nothing changed there: None" if expected is None else
            "a list: return its last" if isinstance(got, list) else "where row.op is the op itself"
        )  # fmt: skip
        assert got == expected, f"since({op!r}): expected {expected!r}, got {got!r}; {hint}"


@exercise(
    "1b",
    points=2,
    hints=("cuda[op] != mp.policies['torch-cpu'][op]", "sorted(...) of those with cuda[op] != cpu[op]"),
)
def check_1b(lab: Any) -> None:
    """The two tables."""
    cuda, cpu = mp.policies["torch-cuda"], mp.policies["torch-cpu"]
    for ops in (["sum", "prod", "matmul", "exp"], ["einsum", "cholesky", "prod", "mse_loss"], ["matmul"]):
        expected = sorted(op for op in ops if cuda[op] != cpu[op])
        got = lab.disagree(list(ops))
        hint = "compare the classes of the two tables"
        if isinstance(got, list) and sorted(got) == expected:
            hint = "sorted"
        elif isinstance(got, list) and sorted(got) == sorted(set(ops) - set(expected)):
            hint = "those that differ, not those that agree"
        elif isinstance(got, list) and set(got) < set(expected):
            hint = "unlisted is a class as well"
        assert got == expected, f"disagree({ops}): expected {expected}, got {got}; {hint}"


@exercise("2a", points=3, hints=(
    "keep a count of good steps since the last change", "a bad step: half, count = 0; count == interval: double, count = 0",
))  # fmt: skip
def check_2a(lab: Any) -> None:
    """The preset, on histories with every kind of turn."""
    for text in ("..x..", "......", "xxx...", "..x.x..x...", "x.x.x.", "....x...."):
        verdicts = [letter == "x" for letter in text]
        for interval in (2, 3):
            settings = {"init_scale": 1024.0, "growth_interval": interval}
            expected = list(scaler.replay(verdicts, ["torch"], **settings)["torch"])
            got = [float(each) for each in lab.torch_scales(list(verdicts), 1024.0, interval)]
            hint = _hint_2a(verdicts, interval, expected, got)
            said = f"torch_scales of {text} ('x' is bad), interval {interval}"
            assert got == expected, f"{said}: expected {expected}, got {got}; {hint}"


def _hint_2a(verdicts: list[bool], interval: int, expected: list[float], got: list[float]) -> str:
    if len(got) != len(expected):
        return "one scale for each step"
    at = next((i for i, pair in enumerate(zip(got, expected, strict=True)) if pair[0] != pair[1]), 0)
    if verdicts[at]:
        return "a bad step halves the scale"
    if any(verdicts[: at + 1]):
        return "a bad step begins the count anew"
    return (
        "growth begins the count anew"
        if at >= interval
        else "so many good steps in a row, and the last one doubles"
    )


@exercise("2b", hints=("replay 300 good steps and look where the scale changes",))
def check_2b(lab: Any) -> None:
    """Read from a replay."""
    for name, preset in (("torch_steps", "torch"), ("flax_steps", "flax")):
        row = scaler.replay([False] * 300, [preset], init_scale=1.0, growth_interval=100)[preset]
        first, second = row.index(2.0) + 1, row.index(4.0) + 1
        expected, got = (first, second - first), tuple(getattr(lab, name))
        hint = "the second number counts from the first doubling" if got == (first, second) else (
            "so many good steps must have come before the one that doubles" if got[0] < first else
            "an index counts from 0, steps from 1; the 100th good step doubles PyTorch's scale"
        )  # fmt: skip
        hint = (
            "after a doubling the count begins anew in the same way"
            if got[0] == first and got != (first, second)
            else hint
        )
        assert got == expected, f"{name}: expected {expected}, got {got}; {hint}"


@exercise(
    "2c", points=2, hints=("floors: jmp's and chainer's is 1", "let the scale fall below 1 first, then grow")
)
def check_2c(lab: Any) -> None:
    """Any history that does it."""
    presets = ["torch", "jmp", "flax", "chainer"]
    telling = list(lab.telling)
    assert 1 <= len(telling) <= 8, f"telling: expected 1 to 8 verdicts, got {len(telling)}; shorter will do"
    rows = scaler.replay(telling, presets, init_scale=2.0, growth_interval=2)
    ends = {name: row[-1] for name, row in rows.items()}
    hint = "two of them have a floor of 1: go below it" if ends["torch"] == ends["jmp"] else (
        "let good steps follow: they grow each in its own way"
    )  # fmt: skip
    if ends["torch"] == ends["flax"] != ends["jmp"]:
        hint = "Flax grows one step later: end where PyTorch has grown and Flax has not"
    if len(set(ends.values())) == 4:
        hint = "two are nearly the same: each is to be a tenth larger than the next"
    apart = all(high > 1.1 * low for low, high in pairwise(sorted(ends.values())))
    assert apart, f"telling: expected four different scales, got {ends}; {hint}"


@exercise(
    "3a",
    points=2,
    hints=("open the region with faithful=faithful", "try: cat(...).dtype.name; except: 'refused'"),
)
def check_3a(lab: Any) -> None:
    """The recorded defect promotion-goes-by-order, and the law that it breaks."""
    for first, second, faithful, expected, hint in (
        (
            "float32",
            "bfloat16",
            False,
            "float32",
            "float32 is among the inputs: bfloat16 is what the region has",
        ),
        ("bfloat16", "bfloat16", False, "bfloat16", "the region's own format stays"),
        (
            "float16",
            "float32",
            True,
            "refused",
            "the policy is torch-cpu, and float16 is neither float32 nor the region's; say 'refused'",
        ),
        ("float32", "float16", False, "refused", "without faithful, the order does not matter"),
        ("float32", "float16", True, "float32", "faithful: PyTorch stops looking at the first float32"),
    ):
        try:
            got = lab.outcome(first, second, faithful)
        except mp.errors.FormatError as fault:
            got = f"an error: {mp.errors.plain(fault)}"
        said = f"outcome({first!r}, {second!r}, {faithful})"
        assert got == expected, f"{said}: expected {expected!r}, got {got!r}; {hint}"
