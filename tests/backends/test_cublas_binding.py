"""What we take for cuBLAS's numbers and argument orders, beside CuPy's own binding and NVIDIA's header.

CuPy's binding loads only beside a libcublas. Where there is none, one is compiled here that has its names and
does nothing: numbers and signatures are the binding's own.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minimp_backends import cublas

pytest.importorskip("cupy_backends")
import cupy_backends

from tests.backends.cublas_stand_in import StandIn

TELL = """
import json
from cupy.cuda import cublas
functions = ("gemmEx", "gemmStridedBatchedEx", "getMathMode", "setMathMode")
numbers = {name: getattr(cublas, name) for name in dir(cublas) if name.startswith("CUBLAS_")}
print(json.dumps({"numbers": numbers, "signatures": {f: getattr(cublas, f).__doc__ for f in functions}}))
"""
ALIKE = {
    "atype": "a_type", "btype": "b_type", "ctype": "c_type", "stridea": "stride_a", "strideb": "stride_b",
    "stridec": "stride_c", "batchcount": "batch", "computetype": "compute", "algo": "algorithm",
}  # fmt: skip
"""The binding's names of arguments, in small letters -> the stand-in's."""


def build_empty_libraries(folder: Path) -> None:
    """Compile a libcublas and a libcublasLt with the names that CuPy's binding looks for."""
    binding = next((Path(cupy_backends.__file__).parent / "cuda" / "libs").glob("cublas.*.so"))
    lines = subprocess.run(
        ["nm", "-D", "--undefined-only", binding], capture_output=True, text=True, check=True
    ).stdout.split()
    names = sorted({word.partition("@")[0] for word in lines if word.startswith("cublas")})
    soname = next(word.partition("@")[2] for word in lines if word.startswith("cublasCreate"))
    assert len(names) > 20
    source, map_file = folder / "empty.c", folder / "names.map"
    source.write_text("".join(f"int {name}(void) {{ return 15; }}\n" for name in names))
    map_file.write_text(f"{soname} {{ global: *; }};")
    for library in (soname, soname.replace("libcublas", "libcublasLt")):
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{library}", f"-Wl,--version-script={map_file}"]
        subprocess.run(["gcc", *flags, "-w", "-o", folder / library, source], check=True)


@pytest.fixture(scope="module")
def binding(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the numbers and signatures of CuPy's binding, read in a process of its own."""
    if shutil.which("gcc") is None or shutil.which("nm") is None:
        pytest.skip("needs gcc and nm")
    folder = tmp_path_factory.mktemp("cublas")
    build_empty_libraries(folder)
    places = [os.environ.get("LD_LIBRARY_PATH", ""), str(folder)]  # a real one goes first
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, places))}
    told = subprocess.run(
        [sys.executable, "-c", TELL], capture_output=True, text=True, env=environment, check=False
    )
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def test_numbers_are_the_bindings(binding: dict[str, Any]) -> None:
    """Operations, algorithm and compute types; oracle: cupy.cuda.cublas."""
    numbers = binding["numbers"]
    assert {name: numbers[name] for name in cublas.COMPUTE_TYPES} == dict(cublas.COMPUTE_TYPES)
    assert cublas.OPERATIONS[False] == numbers["CUBLAS_OP_N"]
    assert cublas.OPERATIONS[True] == numbers["CUBLAS_OP_T"]
    assert numbers["CUBLAS_GEMM_DEFAULT"] == cublas.DEFAULT_ALGORITHM
    assert numbers["CUBLAS_DEFAULT_MATH"] == cublas.EXACT_REDUCTIONS - 16, "nothing but the one flag is set"


@pytest.mark.parametrize("function", ["gemmEx", "gemmStridedBatchedEx", "getMathMode", "setMathMode"])
def test_the_stand_in_takes_what_the_binding_takes(binding: dict[str, Any], function: str) -> None:
    """Arguments and their order; oracle: the signature in the binding's docstring."""
    text = binding["signatures"][function]
    words = [argument.split()[-1].lower() for argument in re.findall(r"\((.*)\)", text)[0].split(",")]
    theirs = [ALIKE.get(word, word) for word in words]
    ours = list(inspect.signature(getattr(StandIn, function)).parameters)[1:]
    assert ours == theirs


def test_data_types_are_the_headers() -> None:
    """cudaDataType; oracle: NVIDIA's library_types.h."""
    runtime = pytest.importorskip("nvidia.cuda_runtime")
    header = Path(next(iter(runtime.__path__))) / "include" / "library_types.h"
    found = dict(re.findall(r"(CUDA_R_\w+)\s*=\s*(\d+)", header.read_text()))
    spelled = {
        "float32": "32F",
        "float64": "64F",
        "float16": "16F",
        "int8": "8I",
        "int32": "32I",
        "bfloat16": "16BF",
    }
    assert {name: int(found[f"CUDA_R_{spelled[name]}"]) for name in cublas.DATA_TYPES} == dict(
        cublas.DATA_TYPES
    )
