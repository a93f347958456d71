"""The PTX interpreter against hand-made kernels: what it computes, and every fault it is there to find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minimp_backends.kernels.declaring import KINDS, Kernel, Launch, Parameter
from minimp_backends.kernels.nvrtc import Compiler
from minimp_backends.kernels.sources import Source
from tests.kernels.compiled import PLAIN_CHIP, entries
from tests.kernels.ptx.parsing import Entry, PtxError, parse
from tests.kernels.ptx.running import run
from tests.kernels.small_kernels import ANSWERS, BODIES, DYNAMIC, FAULTS, SOURCE, TRIED, UNGUARDED

X = (Parameter("x", "int32", "inout"),)


@pytest.fixture(scope="module")
def tried(compiler: Compiler) -> dict[str, Entry]:
    """Each small kernel's text by its body."""
    texts = entries(SOURCE, PLAIN_CHIP)
    return {body: texts[kernel.name] for body, kernel in zip(BODIES, TRIED, strict=True)}


def result(entry: Entry) -> list[int]:
    """Run a small kernel on 0, 1, 2..., 63."""
    x = np.arange(64, dtype=np.int32)
    run(entry, TRIED[0], {"x": x})
    return x.tolist()


@pytest.mark.parametrize("body", [body for body in ANSWERS if body != DYNAMIC])
def test_warp_and_block_functions(tried: dict[str, Entry], body: str) -> None:
    """Oracle: what the CUDA C++ Programming Guide says of each, written down thread by thread."""
    assert result(tried[body]) == [ANSWERS[body](t) for t in range(64)]


@pytest.mark.parametrize("body", FAULTS)
def test_what_would_hang_is_a_fault_in_words(tried: dict[str, Entry], body: str) -> None:
    """Oracle: CUDA C++ Programming Guide, synchronization and warp shuffle functions: undefined behaviour."""
    with pytest.raises(PtxError, match=FAULTS[body]):
        result(tried[body])


def test_a_missing_barrier_is_a_race(tried: dict[str, Entry]) -> None:
    """Oracle: each thread reads what its neighbour wrote with nothing between the two."""
    with pytest.raises(PtxError, match=r"shared memory: thread .* reads what another wrote with no barrier"):
        result(tried[UNGUARDED])


def test_shared_memory_that_nobody_wrote_is_a_fault(tried: dict[str, Entry]) -> None:
    """Oracle: dynamic shared memory, read before it is written."""
    with pytest.raises(
        PtxError, match="shared memory: thread 0 reads what was never written in or near memory"
    ):
        result(tried[DYNAMIC])


def text(body: str, registers: str = "", parameters: str = ".param .u64 x") -> Entry:
    """Return an entry of hand-written PTX."""
    return parse(f".visible .entry k({parameters})\n{{\n{registers}\n{body}\n}}")["k"]


HEAD = "ld.param.u64 %rd1, [x]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;"
REGISTERS = ".reg .b64 %rd<9>; .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .pred %p<5>; .reg .b16 %rs<9>;"


def ran(
    body: str, *, threads: int = 4, x: Any = None, kind: str = "int32", role: Any = "inout"
) -> np.ndarray:
    """Run hand-written PTX on an array x; %rd3 is the address of the thread's element."""
    array = np.arange(threads, dtype=KINDS[kind].dtype) if x is None else np.array(x, KINDS[kind].dtype)
    kernel = Kernel("k", "k.cu", (Parameter("x", kind, role),), lambda _: Launch(1, threads), print)
    run(text(HEAD + body, REGISTERS), kernel, {"x": array})
    return array


FAULTY = {
    "ld.global.u32 %r2, [%rd3+4];": "thread 3 reads 4 bytes out of bounds in or near x",
    "st.global.u32 [%rd3+-4], 1;": "thread 0 writes 4 bytes out of bounds in or near x",
    "ld.global.u16 %rs1, [%rd3+1];": "an access to 2 bytes at an address that is no multiple of it",
    "ld.global.v2.u32 {%r2, %r3}, [%rd3];": "8 bytes at an address that is no multiple of it",
    "st.global.u32 [%rd1], %r1;": "writes where another writes something else at the same time",
    "st.global.u32 [%rd3], 7; ld.global.u32 %r2, [%rd1];": "thread 1 reads what another wrote",
    "ld.global.u32 %r2, [%rd1]; st.global.u32 [%rd3], 7;": "thread 0 overwrites what another read with no",
    "add.s32 %r2, %r3, 1;": "%r3 is read before anything is written to it",
    "div.u32 %r2, %r1, %r1;": "an integer division by zero",
    "frob.u32 %r2, %r1;": "line 4: frob.u32 %r2, %r1: this instruction is not known here",
    "add.frob.s32 %r2, %r1, 1;": "add.frob.s32 .*unknown modifier .frob",
    "ld.frob.u32 %r2, [%rd3];": "ld.frob.u32 .*unknown modifier .frob",
    "cvt.frob.f32.u32 %f1, %r1;": "unknown modifier of cvt: .frob",
    "add.f16 %rs1, %rs2, %rs3;": "no arithmetic of type .f16 here",
    "atom.global.add.f32 %f1, [%rd3], 0f3F800000;": "no atomic of type .f32 here",
    "atom.global.add.u32 %r2, [%rd3+2], 1;": "reads 4 bytes at an address that is no multiple of it",
    "$L_1: bra $L_1;": "a loop that does not end",
    "bar.arrive 0, 4;": "this barrier is not known here",
}


@pytest.mark.parametrize("body", FAULTY)
def test_every_fault_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Oracle: one fault each in otherwise sound PTX."""
    monkeypatch.setattr("tests.kernels.ptx.machine.MOST_INSTRUCTIONS", 1000)
    with pytest.raises(PtxError, match=FAULTY[body]):
        ran(body)


def test_an_access_that_begins_inside_must_end_there() -> None:
    """Oracle: eight bytes at the last four of an array of three ints."""
    with pytest.raises(PtxError, match="thread 0 reads 8 bytes out of bounds in or near x"):
        ran("ld.global.u64 %rd4, [%rd1+8];", threads=3)
    assert ran("ld.global.u64 %rd4, [%rd1];", threads=3).tolist() == [0, 1, 2]


def test_an_out_that_is_read_first_is_a_fault() -> None:
    """Oracle: cupy.empty gives memory with anything in it."""
    with pytest.raises(PtxError, match="thread 0 reads what was never written in or near x"):
        ran("ld.global.u32 %r2, [%rd3];", role="out")
    assert ran("st.global.u32 [%rd3], 9; ld.global.u32 %r2, [%rd3];", role="out").tolist() == [9] * 4


SOUND = {
    "a loop to different lengths": (
        (
            "mov.u32 %r2, 0; mov.u32 %r3, 0; $L_1: add.s32 %r2, %r2, %r3; add.s32 %r3, %r3, 1;"
            "setp.le.u32 %p1, %r3, %r1; @%p1 bra $L_1; st.global.u32 [%rd3], %r2;"
        ),
        [0, 1, 3, 6],
    ),
    "a guard, and its opposite": (
        "setp.lt.u32 %p1, %r1, 2; @%p1 st.global.u32 [%rd3], 8; @!%p1 st.global.u32 [%rd3], 9;",
        [8, 8, 9, 9],
    ),
    "inner registers are others": (
        "mov.u32 %r2, 5; { .reg .b32 %r<4>; mov.u32 %r2, 6; } st.global.u32 [%rd3], %r2;",
        [5, 5, 5, 5],
    ),
    "halves put together and taken apart": (
        (
            "mov.u16 %rs1, 3; mov.u16 %rs2, 1; mov.b32 %r2, {%rs1, %rs2}; mov.b32 {%rs3, %rs4}, %r2;"
            "cvt.u32.u16 %r3, %rs4; add.s32 %r2, %r2, %r3; st.global.u32 [%rd3], %r2;"
        ),
        [0x10004] * 4,
    ),
    "an early return": ("setp.lt.u32 %p1, %r1, 2; @%p1 ret; st.global.u32 [%rd3], 9;", [0, 1, 9, 9]),
    "a signed load": (
        "st.global.u32 [%rd3], -2; ld.global.s8 %r2, [%rd3]; neg.s32 %r2, %r2; st.global.u32 [%rd3], %r2;",
        [2] * 4,
    ),
    "all write the same": ("st.global.u32 [%rd1], 7;", [7, 1, 2, 3]),
    "atomics need no barrier": ("atom.global.add.u32 %r2, [%rd1], %r1;", [6, 1, 2, 3]),
    "a warp barrier orders": (
        (
            "st.global.u32 [%rd3], 7; bar.warp.sync 15; xor.b32 %r2, %r1, 1; mul.wide.u32 %rd4, %r2, 4;"
            "add.s64 %rd5, %rd1, %rd4; ld.global.u32 %r3, [%rd5]; bar.warp.sync 15;"
            "st.global.u32 [%rd3], %r3;"
        ),
        [7] * 4,
    ),
}


@pytest.mark.parametrize("case", SOUND)
def test_control_and_memory(case: str) -> None:
    """Oracle: the results by hand."""
    body, wanted = SOUND[case]
    assert ran(body).tolist() == wanted


def test_a_fused_multiply_add_shows() -> None:
    """Oracle: (1 + e)^2 - 1 with e = 2^-12: the product's last term e^2 is lost where it is rounded."""
    load = "ld.global.f32 %f1, [%rd1]; mov.f32 %f3, 0fBF800000;"
    apart = load + "mul.rn.f32 %f4, %f1, %f1; add.rn.f32 %f5, %f4, %f3; st.global.f32 [%rd1], %f5;"
    fused = load + "fma.rn.f32 %f5, %f1, %f1, %f3; st.global.f32 [%rd1], %f5;"
    values = [1 + 2.0**-12]
    assert ran(apart, threads=1, x=values, kind="float")[0] == 2.0**-11
    assert ran(fused, threads=1, x=values, kind="float")[0] == 2.0**-11 + 2.0**-24


@pytest.mark.parametrize(("word", "wanted"), [("", 2.0**-130), (".ftz", 0.0)])
def test_flushing_to_zero_shows(word: str, wanted: float) -> None:
    """Oracle: 2^-65 squared, which is subnormal in FP32."""
    body = f"ld.global.f32 %f1, [%rd3]; mul.rn{word}.f32 %f2, %f1, %f1; st.global.f32 [%rd3], %f2;"
    assert ran(body, threads=1, x=[2.0**-65], kind="float")[0] == np.float32(wanted)


def test_a_source_that_is_contracted_differs(compiler: Compiler) -> None:
    """Oracle: x * x - 1 as CUDA C++, plain and in rounding functions: NVRTC fuses the first alone."""
    head = 'extern "C" __global__ void k(float* x) {{ x[0] = {}; }}'
    kernel = Kernel("k", "k.cu", (Parameter("x", "float", "inout"),), lambda _: Launch(1, 1), print)
    results = []
    for formula in ("x[0] * x[0] - 1.0f", "__fsub_rn(__fmul_rn(x[0], x[0]), 1.0f)"):
        array = np.array([1 + 2.0**-12], np.float32)
        run(entries(Source("k.cu", head.format(formula), {}), PLAIN_CHIP)["k"], kernel, {"x": array})
        results.append(float(array[0]))
    assert results == [2.0**-11 + 2.0**-24, 2.0**-11]
