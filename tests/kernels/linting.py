"""What must not be in a kernel's PTX: rules over its instructions, one row each.

A kernel may be let off a rule in the registry (``Kernel.allowed``), with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from minimp_backends.kernels.declaring import Kernel
from tests.kernels.ptx.parsing import Entry, Instruction

__all__ = ["RULES", "Rule", "findings"]

_ROUNDED = frozenset({"rn", "rz", "rm", "rp"})
_MOVED = frozenset({"ld", "st", "mov", "selp"})  # what carries a value and computes none
_HALF = frozenset({"f16", "f16x2", "bf16", "bf16x2"})
_ARITHMETIC = frozenset({"add", "sub", "mul", "fma", "mad", "div", "rcp", "sqrt", "rsqrt", "ex2", "tanh"})


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        breaks: whether an instruction breaks it.
        why: what would go wrong.
        exact_only: it holds for kernels that are bit exact alone.
    """

    breaks: Callable[[Instruction], bool]
    why: str
    exact_only: bool = False


def _is(instruction: Instruction, *names: str) -> bool:
    return instruction.words[0] in names


def _contractable(instruction: Instruction) -> bool:
    float_type = instruction.type in {"f32", "f64"}
    return float_type and _is(instruction, "add", "sub", "mul") and not _ROUNDED & set(instruction.words)


def _fused(instruction: Instruction) -> bool:
    return instruction.type in {"f32", "f64"} and _is(instruction, "fma", "mad")


def _half(instruction: Instruction) -> bool:
    return _is(instruction, *_ARITHMETIC) and bool(_HALF & set(instruction.words))


def _approximate(instruction: Instruction) -> bool:
    return "approx" in instruction.words or (_is(instruction, "div") and "full" in instruction.words)


def _double(instruction: Instruction) -> bool:
    return "f64" in instruction.words and not _is(instruction, *_MOVED)


def _float_atomic(instruction: Instruction) -> bool:
    return _is(instruction, "atom", "red") and bool(re.match(r"b?f\d", instruction.type))


RULES: Mapping[str, Rule] = {
    "contraction": Rule(
        _contractable,
        "mul and add without .rn may become one fma in the assembler: write __fmul_rn and __fadd_rn",
        exact_only=True,
    ),
    "fusion": Rule(
        _fused,
        "an fma rounds once where the reference rounds twice: write __fmul_rn, __fadd_rn",
        exact_only=True,
    ),
    "half": Rule(_half, "arithmetic in 16 bits rounds after every operation: convert to float first"),
    "approximate": Rule(_approximate, "an approximation differs from chip to chip: __fdiv_rn, __fsqrt_rn"),
    "flush": Rule(lambda each: "ftz" in each.words, "subnormals become zero"),
    "double": Rule(_double, "FP64 runs at 1/64 of the speed of FP32 on most chips"),
    "local": Rule(lambda each: "local" in each.words, "local memory is memory: an array with a moving index"),
    "atomic": Rule(_float_atomic, "a sum of floats in the order of arrival differs from run to run"),
}


def findings(kernel: Kernel, entry: Entry) -> Iterator[str]:
    """Yield each rule that a kernel breaks without leave, with the first such instruction."""
    for name, rule in RULES.items():
        if name in kernel.allowed or (rule.exact_only and not kernel.bit_exact):
            continue
        broken = [each for each in entry.instructions if rule.breaks(each)]
        if broken:
            yield f"{name}: {len(broken)} times, first `{broken[0].text}` (line {broken[0].line}): {rule.why}"
