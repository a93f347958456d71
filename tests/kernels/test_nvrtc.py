"""Every kernel compiles for every chip without a warning, and what comes out holds it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from minimp.errors import DeviceError, SettingError
from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import KINDS, Parameter
from minimp_backends.kernels.nvrtc import Compiler
from minimp_backends.kernels.sources import Source
from tests.kernels.compiled import CHIPS, PLAIN_CHIP, entries, image, ptx
from tests.kernels.families import NAMES, SOURCES, kernels_of

EVERY_CHIP = [
    pytest.param(chip, marks=() if chip == PLAIN_CHIP else pytest.mark.slow, id=f"sm_{chip}")
    for chip in CHIPS
]
CUDA_IN_ELF = 190  # e_machine, EM_CUDA
SMALL = Source("small.cu", 'extern "C" __global__ void small(float* x) {\n    *x = 1.0f;\n}\n', {})


@pytest.mark.parametrize("chip", EVERY_CHIP)
@pytest.mark.parametrize("name", SOURCES)
def test_every_source_compiles_for_every_chip(compiler: Compiler, name: str, chip: int) -> None:
    """Oracle: NVRTC, warnings as errors; the PTX names the chip, the cubin is CUDA ELF with each kernel."""
    source = sources.read(name)
    text = ptx(source, chip)
    assert re.search(rf"^\.target sm_{chip}$", text, re.MULTILINE)
    assert set(entries(source, chip)) == {kernel.name for kernel in kernels_of(name)}
    cubin = image(source, chip, "cubin")
    assert cubin[:4] == b"\x7fELF"
    assert int.from_bytes(cubin[18:20], "little") == CUDA_IN_ELF
    assert [
        kernel.name for kernel in kernels_of(name) if f".text.{kernel.name}\0".encode() not in cubin
    ] == []


def bytes_of(parameter: Parameter) -> int:
    """Return how many bytes a parameter takes in a launch."""
    one = KINDS[parameter.kind].dtype.itemsize if parameter.role == "value" else 8
    return one * (parameter.many or 1)


@pytest.mark.parametrize("name", SOURCES)
def test_parameters_are_those_of_the_registry(compiler: Compiler, name: str) -> None:
    """Oracle: the parameters' bytes in the PTX; their types in C++ are checked when g++ builds the call."""
    texts = entries(sources.read(name), PLAIN_CHIP)
    for kernel in kernels_of(name):
        sizes = [each.size for each in texts[kernel.name].parameters]
        assert sizes == [bytes_of(each) for each in kernel.parameters], kernel.name


def test_a_source_that_is_wrong_says_where(compiler: Compiler) -> None:
    """Oracle: an undeclared name on line 2; the error has file, line and name."""
    wrong = replace(SMALL, text=SMALL.text.replace("1.0f", "one"))
    with pytest.raises(DeviceError, match=r'small\.cu does not compile for sm_90:\n.*small\.cu\(2\).*"one"'):
        compiler.compile(wrong, 90)


def test_a_warning_is_an_error_where_asked(compiler: Compiler) -> None:
    """Oracle: a variable that is never used, which compiles otherwise."""
    doubtful = replace(SMALL, text=SMALL.text.replace("*x", "int unused;\n    *x"))
    with pytest.raises(DeviceError, match=r'small\.cu\(2\).*"unused"'):
        compiler.compile(doubtful, 90, "ptx", warnings_are_errors=True)
    assert b".entry small" in compiler.compile(doubtful, 90, "ptx")


def test_an_unknown_chip_says_which_are_known(compiler: Compiler) -> None:
    """Oracle: the list that the library itself gives."""
    with pytest.raises(SettingError, match=r"expected one of .*sm_90.*, got sm_31"):
        compiler.compile(SMALL, 31)


def test_headers_are_found_by_name_and_missing_ones_named(compiler: Compiler) -> None:
    """Oracle: a header given as text, which includes another one; and one that is nowhere."""
    headers = {"one.cuh": '#include "two.cuh"\n', "two.cuh": "#define ONE 1.0f\n"}
    text = '#include "one.cuh"\n' + SMALL.text.replace("1.0f", "ONE")
    assert b"1065353216" in compiler.compile(replace(SMALL, text=text, headers=headers), 90, "ptx")
    with pytest.raises(DeviceError, match=r"two\.cuh"):
        compiler.compile(replace(SMALL, text=text, headers={"one.cuh": headers["one.cuh"]}), 90, "ptx")


def test_subnormals_are_kept(compiler: Compiler) -> None:
    """Oracle: the word .ftz, which NVRTC writes where -ftz=true is the last option, and never here."""
    multiply = replace(SMALL, text=SMALL.text.replace("1.0f", "__fmul_rn(*x, 0.5f)"))
    assert b"mul.rn.f32" in compiler.compile(multiply, 90, "ptx")
    assert "--ftz=false" in compiler.options(90, "ptx")


def test_there_are_kernels() -> None:
    """Oracle: the first family, by hand."""
    assert {"find_nonfinite_float", "find_nonfinite_half"} <= set(NAMES)
