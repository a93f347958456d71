"""CUDA C++ to PTX or cubin, by NVIDIA's compiler library NVRTC. No GPU is needed.

It is called directly because CuPy appends ``-ftz=true`` to every source that it compiles (CuPy 14.2.0,
``cupy/cuda/compiler.py``), and NVRTC lets the last option win: FP32 subnormals would become 0, in Adam's
second moment among other places. Here they are kept, divisions and square roots are correctly rounded, and
what may be contracted to an fma is for the source to say: kernels write ``__fmul_rn``, ``__fadd_rn``.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal

from minimp.errors import DeviceError, SettingError
from minimp_backends.kernels import toolkits
from minimp_backends.kernels.sources import Source
from minimp_backends.kernels.toolkits import Toolkit

__all__ = ["OPTIONS", "VARIANTS", "Compiler", "Image", "compile_source", "compiler"]

Image = Literal["cubin", "ptx"]

OPTIONS = (
    "--std=c++17",
    "--ftz=false",
    "--prec-div=true",
    "--prec-sqrt=true",
    "--fmad=true",  # harmless to explicit arithmetic; index arithmetic and bounded kernels gain
)
"""What every kernel is compiled with. Beside these stand only the chip and the folders of headers."""
VARIANTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ftz": ("--ftz=true",),
        "no fmad": ("--fmad=false",),
        "ftz, no fmad": ("--ftz=true", "--fmad=false"),
    }
)
"""Name -> options that a benchmark puts behind those, to see what they cost and change."""


class Compiler:
    """NVRTC of one toolkit.

    Attributes:
        toolkit: where it is.
        version: of the library, for example ``(12, 9)``.
        chips: the compute capabilities it knows, ascending, for example ``(75, 80, 90)``.
    """

    def __init__(self, toolkit: Toolkit) -> None:
        self.toolkit = toolkit
        self._library = _load(toolkit)
        self.version = self._version()
        self.chips = self._chips()

    def _version(self) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("Version", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def _chips(self) -> tuple[int, ...]:
        count = ctypes.c_int()
        self._call("GetNumSupportedArchs", ctypes.byref(count))
        chips = (ctypes.c_int * count.value)()
        self._call("GetSupportedArchs", chips)
        return tuple(sorted(chips))

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, f"nvrtc{name}")(*arguments)
        if code:
            text = self._library.nvrtcGetErrorString(code).decode()
            raise DeviceError(f"nvrtc{name} failed: {text} ({code})", op="compile")

    def _bytes(self, what: str, program: ctypes.c_void_p) -> bytes:
        """What the program holds under a name: ``PTX``, ``CUBIN`` or ``ProgramLog``."""
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", program, buffer)
        return buffer.raw

    @contextmanager
    def _program(self, source: Source) -> Iterator[ctypes.c_void_p]:
        program = ctypes.c_void_p()
        count = len(source.headers)
        names = (ctypes.c_char_p * count)(*(name.encode() for name in source.headers))
        texts = (ctypes.c_char_p * count)(*(text.encode() for text in source.headers.values()))
        self._call(
            "CreateProgram",
            ctypes.byref(program), source.text.encode(), source.name.encode(), count, texts, names,
        )  # fmt: skip
        try:
            yield program
        finally:
            self._call("DestroyProgram", ctypes.byref(program))

    def options(self, chip: int, kind: Image, more: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return the options for a chip, without the folders of headers; of `more`, which come last, NVRTC
        takes each over the one of that name before it.

        Raises:
            SettingError: this NVRTC does not know the chip.
        """
        if chip not in self.chips:
            known = ", ".join(f"sm_{each}" for each in self.chips)
            raise SettingError(
                f"expected one of {known}, got sm_{chip}",
                op="compile",
                help=f"NVRTC {'.'.join(map(str, self.version))} knows these; another one may know sm_{chip}",
            )
        # PTX asked of a real chip would run the assembler too, for nothing.
        return (*OPTIONS, f"--gpu-architecture={'sm' if kind == 'cubin' else 'compute'}_{chip}", *more)

    def key(self, source: Source, chip: int, kind: Image, more: tuple[str, ...] = ()) -> str:
        """Return the hexadecimal SHA-256 of all that the compiled bytes depend on."""
        build = self.toolkit.library.stat().st_size  # releases of one version, which it does not tell apart
        parts = [
            repr((self.version, build, self.toolkit.fingerprint, self.options(chip, kind, more))),
            f"{source.name}\0{source.text}",
            *(f"{name}\0{text}" for name, text in sorted(source.headers.items())),
        ]
        return hashlib.sha256("\0\0".join(parts).encode()).hexdigest()

    def compile(
        self, source: Source, chip: int, kind: Image = "cubin", *, warnings_are_errors: bool = False,
        more: tuple[str, ...] = (),
    ) -> bytes:  # fmt: skip
        """Return the cubin (ELF) or the PTX text of a source.

        Args:
            source: what to compile.
            chip: the compute capability without its dot, for example 90.
            kind: ``cubin``, which runs on that chip, or ``ptx``, which a driver compiles for that chip and
                later ones.
            warnings_are_errors: fail on whatever the compiler has to say.
            more: options behind :data:`OPTIONS`, of :data:`VARIANTS`.

        Raises:
            SettingError: this NVRTC does not know the chip.
            DeviceError: the source does not compile; the message has the compiler's log.
        """
        folders = (f"--include-path={path}" for path in self.toolkit.includes)
        options = [*self.options(chip, kind, more), *folders]
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        with self._program(source) as program:
            code = self._library.nvrtcCompileProgram(program, len(options), encoded)
            log = self._bytes("ProgramLog", program).rstrip(b"\0").decode(errors="replace").strip()
            if code or (log and warnings_are_errors):
                raise DeviceError(
                    f"{source.name} does not compile for sm_{chip}:\n{log}",
                    op="compile",
                    help="the log above is NVRTC's "
                    f"{'.'.join(map(str, self.version))}, from {self.toolkit.library}",
                )
            image = self._bytes("CUBIN" if kind == "cubin" else "PTX", program)
        return image if kind == "cubin" else image.rstrip(b"\0")


def _load(toolkit: Toolkit) -> ctypes.CDLL:
    # The library of CUDA 13's wheel does not find its builtins beside it: they are loaded first.
    for path in sorted(toolkit.library.parent.glob(f"libnvrtc-builtins.so.{toolkit.cuda}*")):
        _open(path, ctypes.RTLD_GLOBAL)
    library = _open(toolkit.library, ctypes.RTLD_LOCAL)
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _open(path: Any, mode: int) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path), mode=mode)
    except OSError as fault:
        raise DeviceError(
            f"{path} cannot be loaded: {fault}",
            op="compile",
            help="install the wheels again: pip install --force-reinstall "
            + " ".join(toolkits.PACKAGES.values()),
        ) from fault


@functools.cache
def compiler(cuda: int | None = None) -> Compiler:
    """Return the compiler for one major version of CUDA, or the first there is; loaded once.

    Raises:
        DeviceError: NVRTC or the headers are missing, with the wheels to install.
    """
    return Compiler(toolkits.find(cuda))


def compile_source(
    source: Source,
    chip: int,
    kind: Image = "cubin",
    *,
    cuda: int | None = None,
    warnings_are_errors: bool = False,
) -> bytes:
    """Compile with :func:`compiler`; arguments and errors as :meth:`Compiler.compile` has them."""
    return compiler(cuda).compile(source, chip, kind, warnings_are_errors=warnings_are_errors)
