"""A CUDA source as a shared library for this processor: g++, NVIDIA's own headers, and the shim."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from minimp_backends.kernels import toolkits
from minimp_backends.kernels.declaring import Kernel
from minimp_backends.kernels.sources import Source
from tests.kernels.store import kept

__all__ = ["HERE", "Build", "build", "host_source"]

HERE = Path(__file__).parent
FLAGS = (
    "-std=c++17", "-O2", "-ffp-contract=off", "-fno-fast-math", "-fno-strict-aliasing", "-shared", "-fPIC",
    "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-Wno-unknown-pragmas",
)  # fmt: skip
SANITIZE = ("-fsanitize=undefined,float-cast-overflow", "-fno-sanitize=vptr")
HEADERS = ("host_shim.h", "host_intrinsics.h", "crt/host_defines.h")
_DYNAMIC = re.compile(r"extern __shared__ (?:__align__\(\d+\) )?([\w ]+?)\s+(\w+)\[\];")
_STATIC = re.compile(r"__shared__ ([\w:<>, ]+? )(\w+)((?:\[[^\]]+\])*);")


@dataclass(frozen=True)
class Build:
    """A library that holds ``host_NAME(grid, block, shared_bytes, reversed, arguments)`` for each kernel."""

    library: ctypes.CDLL

    def launch(
        self, kernel: Kernel, shape: tuple[int, int, int], arguments: Iterable[int], *, backwards: bool,
        blocks: range | None = None,
    ) -> str:  # fmt: skip
        """Run a kernel; ``arguments`` are addresses of each argument, as cuLaunchKernel has them.

        Args:
            kernel, shape, arguments, backwards: what, how many threads, on what, and in which order.
            blocks: those of the grid that run; None: all.

        Returns:
            what went wrong, "" if nothing did.
        """
        some = range(shape[0]) if blocks is None else blocks
        self.library.host_blocks(ctypes.c_uint(some.start), ctypes.c_uint(some.stop))
        function = getattr(self.library, f"host_{kernel.name}")
        function.restype = ctypes.c_char_p
        addresses = list(arguments)
        packed = (ctypes.c_void_p * len(addresses))(*addresses)
        fault: bytes = function(*map(ctypes.c_uint, shape), ctypes.c_int(backwards), packed)
        return fault.decode()


def _shared(text: str) -> str:
    """A source with its variables in shared memory as the shim has them."""
    text = _DYNAMIC.sub(r"\1* \2 = shim::dynamic_shared<\1>();", text)
    text, found = _STATIC.subn(
        r"__shared__ \1\2\3; static const shim::Shared \2_watched(&\2, sizeof(\2));", text
    )
    if text.count("__shared__") != found:
        raise ValueError(
            "expected each variable in shared memory in a declaration of its own, `__shared__ T x[N];`"
        )
    return text


def host_source(source: Source, kernels: Iterable[Kernel]) -> str:
    """Return the C++ text of a source: the shim before it, one entry for each kernel behind it."""
    entries = []
    for kernel in kernels:
        values = [
            f"*static_cast<{each.c_type}*>(arguments[{place}])"
            for place, each in enumerate(kernel.parameters)
        ]
        entries.append(
            f'extern "C" const char* host_{kernel.name}(unsigned grid, unsigned block, unsigned shared, '
            f"int backwards, void** arguments) {{\n"
            f"    return shim::run(grid, block, shared, backwards, [=]() {{\n"
            f"        {kernel.name}({', '.join(values)});\n    }});\n}}\n"
        )
    text = _shared(source.text)
    return f'#include "host_intrinsics.h"\n#line 1 "{source.name}"\n{text}\n' + "\n".join(entries)


def build(
    source: Source, kernels: Iterable[Kernel], *, sanitize: bool = False, optimize: str = "-O2"
) -> Build:
    """Compile a source and load it; one that was compiled before, to the letter, is taken from the store.

    Raises:
        subprocess.CalledProcessError: g++ refuses the source; ``stderr`` says why.
    """
    compiler = shutil.which("g++")
    assert compiler, "the caller asks for g++ first"
    text = host_source(source, kernels)
    flags = [*FLAGS, optimize, *(SANITIZE if sanitize else ())]
    shim = "".join((HERE / name).read_text("utf-8") for name in HEADERS)
    headers = "\0".join(f"{name}\0{each}" for name, each in source.headers.items())
    fingerprint = toolkits.find().fingerprint
    key = hashlib.sha256("\0".join([text, headers, shim, *flags, fingerprint]).encode()).hexdigest()
    return Build(ctypes.CDLL(str(kept(f"{key}.so", lambda target: _compile(target, text, source, flags)))))


def _compile(target: Path, text: str, source: Source, flags: list[str]) -> None:
    folder = target.with_suffix(".build")
    folder.mkdir()
    try:
        for name, header in source.headers.items():
            (folder / name).write_text(_shared(header), "utf-8")
        (folder / "host.cpp").write_text(text, "utf-8")
        system = [option for path in toolkits.find().includes for option in ("-isystem", str(path))]
        command = [
            "g++",
            *flags,
            f"-I{folder}",
            f"-I{HERE}",
            *system,
            str(folder / "host.cpp"),
            "-o",
            str(target),
        ]
        subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        shutil.rmtree(folder)
