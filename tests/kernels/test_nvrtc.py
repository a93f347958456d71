"""Every kernel compiles for every chip without a warning, and what comes out holds it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from minimp.errors import DeviceError, SettingError
from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import KINDS, Parameter
from minimp_backends.kernels.nvrtc import VARIANTS, Compiler
from minimp_backends.kernels.sources import Source
from tests.kernels.compiled import CHIPS, PLAIN_CHIP, entries, image, ptx
from tests.kernels.cubin import needs
from tests.kernels.families import NAMES, SOURCES, kernels_of
from tests.kernels.samples import SAMPLES

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


REGISTERS = 65_536  # of a multiprocessor, on every chip there is; a warp takes them by 256


@pytest.mark.parametrize("chip", EVERY_CHIP)
@pytest.mark.parametrize("name", SOURCES)
def test_the_largest_block_finds_its_registers(compiler: Compiler, name: str, chip: int) -> None:
    """Oracle: CUDA C++ Programming Guide, compute capabilities: with more, a launch is refused."""
    taken = needs(image(sources.read(name), chip, "cubin"))
    for kernel in kernels_of(name):
        block = max(kernel.launch(arguments).block for arguments in SAMPLES[kernel.name]())
        mine = taken[kernel.name]
        assert 0 < -(-mine.registers // 8) * 8 * block <= REGISTERS, (kernel.name, mine.registers, block)
        assert mine.frame == 0, kernel.name


def test_registers_are_read_out_of_a_cubin(compiler: Compiler) -> None:
    """Oracle: a kernel that holds 200 numbers at once, and the same one told that its blocks are large."""
    body = "".join(f"float a{k} = x[{k} * n];\n" for k in range(200))
    body += "".join(f"x[{k} + n] = a{199 - k} * a{k};\n" for k in range(200))
    text = 'extern "C" __global__ void {} large(float* x, int n) {{\n' + body + "}}\n"
    plain, bounded = (
        needs(compiler.compile(Source("large.cu", text.format(word), {}), 90))["large"]
        for word in ("", "__launch_bounds__(1024)")
    )
    assert plain.registers > 64
    assert plain.frame == 0
    assert bounded.registers <= 64
    assert bounded.frame > 0


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


def test_options_of_a_variant_win(compiler: Compiler) -> None:
    """Oracle: the word .ftz, an fma where a product meets a sum, and the hash that the cache is asked by."""
    text = SMALL.text.replace("= 1.0f", "= *x * 0.3f + 0.7f")
    contracts = replace(SMALL, text=text)
    words = {
        name: tuple(
            word in compiler.compile(contracts, 90, "ptx", more=more) for word in (b".ftz", b"fma.rn")
        )
        for name, more in {"": (), **VARIANTS}.items()
    }
    assert words == {
        "": (False, True), "ftz": (True, True), "no fmad": (False, False), "ftz, no fmad": (True, False),
    }  # fmt: skip
    keys = {compiler.key(contracts, 90, "ptx", more) for more in ((), *VARIANTS.values())}
    assert len(keys) == 4
    assert compiler.key(contracts, 90, "ptx") in keys


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_no_kernel_leaves_contraction_to_the_compiler(compiler: Compiler, name: str) -> None:
    """Oracle: the text that NVRTC makes with contraction forbidden: the same to the letter."""
    source = sources.read(name)
    if all(kernel.bit_exact for kernel in kernels_of(name)):
        made = compiler.compile(source, PLAIN_CHIP, "ptx", more=VARIANTS["no fmad"])
        assert made.decode() == ptx(source, PLAIN_CHIP)


def test_there_are_kernels() -> None:
    """Oracle: the first family, by hand."""
    assert {"find_nonfinite_float", "find_nonfinite_half"} <= set(NAMES)
