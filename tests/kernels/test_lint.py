"""No kernel's PTX has what would change its bits behind the source's back."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import Kernel, Launch, Parameter
from minimp_backends.kernels.nvrtc import Compiler
from minimp_backends.kernels.registry import KERNELS
from minimp_backends.kernels.sources import Source
from tests.kernels.compiled import CHIPS, PLAIN_CHIP, entries
from tests.kernels.families import NAMES
from tests.kernels.linting import RULES, findings

EVERY_CHIP = [
    pytest.param(chip, marks=() if chip == PLAIN_CHIP else pytest.mark.slow, id=f"sm_{chip}")
    for chip in CHIPS
]


@pytest.mark.parametrize("chip", EVERY_CHIP)
@pytest.mark.parametrize("name", NAMES)
def test_no_kernel_breaks_a_rule_without_leave(compiler: Compiler, name: str, chip: int) -> None:
    """Oracle: the rules of linting.py, over the text that NVRTC made for this chip."""
    kernel = KERNELS[name]
    entry = entries(sources.read(kernel.source), chip)[name]
    assert list(findings(kernel, entry)) == []


@pytest.mark.parametrize("name", [name for name in NAMES if KERNELS[name].allowed])
def test_every_leave_is_used_and_has_a_reason(compiler: Compiler, name: str) -> None:
    """Oracle: the same kernel without its leave: what it may break it does break, and no more."""
    kernel = KERNELS[name]
    assert set(kernel.allowed) <= set(RULES)
    assert all(len(reason) > 15 for reason in kernel.allowed.values())
    strict = replace(kernel, allowed=MappingProxyType({}))
    broken = findings(strict, entries(sources.read(kernel.source), PLAIN_CHIP)[name])
    assert {finding.partition(":")[0] for finding in broken} == set(kernel.allowed)


HEAD = """#include <cuda_fp16.h>
extern "C" __global__ void k(float* x, float* y, __half* h, double* d, int n) {
"""
TRIED = Kernel("k", "k.cu", (Parameter("x", "float", "inout"),), lambda _: Launch(1, 1), print)
BREAKS = {
    "x[0] = x[1] * x[2];": "contraction",
    "x[0] = x[1] - x[2];": "contraction",
    "d[0] = d[1] + d[2];": "contraction double",
    "x[0] = x[1] * x[2] + x[3];": "fusion",
    "x[0] = __fmaf_rn(x[1], x[2], x[3]);": "fusion",
    "h[0] = __hadd(h[1], h[2]);": "half",
    "h[0] = h[1] * h[2];": "half",
    "x[0] = __fdividef(x[1], x[2]);": "approximate",
    "x[0] = __expf(x[1]);": "approximate contraction",
    "x[0] = rsqrtf(x[1]);": "approximate",
    'asm("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(x[0]) : "f"(x[1]), "f"(x[2]));': "flush",
    "d[0] = __dmul_rn(d[1], d[2]);": "double",
    "d[0] = x[1];": "double",
    "float kept[9]; for (int k = 0; k < 9; ++k) kept[k] = x[k]; kept[n] = 1; y[0] = kept[y[0] > 2];": "local",
    "atomicAdd(x, 1.0f);": "atomic",
    "x[0] = __fadd_rn(__fmul_rn(x[1], x[2]), x[3]);": "",
    "x[0] = __fdiv_rn(x[1], __fsqrt_rn(x[2]));": "",
    "h[0] = __float2half_rn(__half2float(h[1]));": "",
    "d[0] = d[1];": "",
    "x[0] = __int_as_float(atomicAdd(reinterpret_cast<int*>(y), n * n + 1));": "",
}


@pytest.mark.parametrize("body", BREAKS)
def test_the_lint_finds(compiler: Compiler, body: str) -> None:
    """Oracle: one line of CUDA C++ for each rule, and lines that break none."""
    entry = entries(Source("k.cu", HEAD + body + "}\n", {}), PLAIN_CHIP)["k"]
    assert {finding.partition(":")[0] for finding in findings(TRIED, entry)} == set(BREAKS[body].split())


def test_every_rule_is_tried() -> None:
    """Oracle: the table above."""
    assert {rule for rules in BREAKS.values() for rule in rules.split()} == set(RULES)


def test_rules_of_exact_kernels_leave_others_alone(compiler: Compiler) -> None:
    """Oracle: a sum that may be contracted, in a kernel with a bound."""
    entry = entries(Source("k.cu", HEAD + "x[0] = x[1] * x[2] + x[3];}\n", {}), PLAIN_CHIP)["k"]
    bounded = replace(TRIED, bit_exact=False, bound="2 ULP")
    assert list(findings(bounded, entry)) == []
    assert list(findings(replace(TRIED, allowed={"fusion": "tried"}), entry)) == []
