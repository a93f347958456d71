"""Loading and launching, as far as they go without a GPU: with CuPy itself, and no driver under it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minimp.errors import DeviceError, FormatError, OutOfMemoryError, SettingError
from minimp_backends import gpu
from minimp_backends.kernels import cache, loading, nvrtc, sources, toolkits
from minimp_backends.kernels.nvrtc import VARIANTS, Compiler
from minimp_backends.kernels.packing import pack
from minimp_backends.kernels.registry import KERNELS
from minimp_backends.kernels.sources import Source
from tests.kernels.samples import SAMPLES

KERNEL = "find_nonfinite_half"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache of this test's own."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    yield tmp_path
    loading.load.cache_clear()
    loading._UNKEPT.clear()


@pytest.fixture
def cupy() -> Any:
    """CuPy, where it is installed."""
    return pytest.importorskip("cupy")


def on_host_memory(cupy: Any, array: np.ndarray) -> Any:
    """Return a real cupy.ndarray over the memory of a NumPy array: it has all but a device."""
    memory = cupy.cuda.UnownedMemory(array.ctypes.data, array.nbytes, array, device_id=0)
    return cupy.ndarray(array.shape, array.dtype, memptr=cupy.cuda.MemoryPointer(memory, 0))


def test_a_source_is_compiled_once_and_lies_in_the_cache(compiler: Compiler, own_cache: Path) -> None:
    """Oracle: the compiler's own bytes; the second call finds the file."""
    path = Path(loading.image_path("checking.cu", 90, compiler))
    assert path.parent == own_cache / "kernels"
    assert path.read_bytes()[:4] == b"\x7fELF"
    changed = path.stat().st_mtime_ns
    assert loading.image_path("checking.cu", 90, compiler) == str(path)
    assert path.stat().st_mtime_ns == changed


def test_without_a_cache_the_file_is_in_memory(
    monkeypatch: pytest.MonkeyPatch, compiler: Compiler, tmp_path: Path
) -> None:
    """Oracle: a cache that is a file: the path still opens, and holds the machine code."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be kept"):
        path = Path(loading.image_path("checking.cu", 90, compiler))
    assert path.parts[:2] == ("/", "proc")
    assert path.read_bytes()[:4] == b"\x7fELF"
    assert loading.image_path("checking.cu", 90, compiler) == str(path)  # not compiled, nor warned of, again
    with pytest.warns(UserWarning, match="could not be kept"):
        assert loading.image_path("checking.cu", 80, compiler) != str(path)


@pytest.mark.parametrize(
    ("chip", "wanted"), [(75, (75, "cubin")), (90, (90, "cubin")), (88, (80, "ptx")), (999, (90, "ptx"))]
)
def test_a_chip_that_the_compiler_does_not_know_gets_ptx(chip: int, wanted: tuple[int, str]) -> None:
    """Oracle: a compiler of 75, 80 and 90, by hand."""
    known: Any = SimpleNamespace(chips=(75, 80, 90))
    assert loading.target(chip, known) == wanted
    with pytest.raises(DeviceError, match="compute capability 75 or later, got 61"):
        loading.target(61, known)


def test_an_unknown_kernel_offers_the_nearest(cupy: Any) -> None:
    """Oracle: a name with a letter missing."""
    with pytest.raises(SettingError, match=f"did you mean '{KERNEL}'"):
        loading.launch(KERNEL[:-1], {})


def test_a_launch_without_a_driver_is_one_clear_error(compiler: Compiler, cupy: Any) -> None:
    """Oracle: this machine, or one that is told it has no device; arguments are judged before that."""
    if cupy.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    flag = on_host_memory(cupy, np.zeros(1, np.int32))
    values = on_host_memory(cupy, np.zeros(4, np.float32))
    with pytest.raises(FormatError, match="values: expected float16, got float32"):
        loading.launch(KERNEL, {"values": values, "found": flag, "count": 4})
    values = on_host_memory(cupy, np.zeros(4, np.float16))
    with pytest.raises(DeviceError, match=f"{KERNEL}: the device refused the kernel: cuda"):
        loading.launch(KERNEL, {"values": values, "found": flag, "count": 4})


def test_a_launch_without_room_is_out_of_memory(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's code and stack lie beside the pool; oracle: CuPy's own exception of that status."""

    def refuse(*_: Any, **__: Any) -> None:
        raise cupy.cuda.runtime.CUDARuntimeError(2)

    monkeypatch.setattr(cupy.cuda, "Device", lambda: SimpleNamespace(compute_capability="90"))
    monkeypatch.setattr(loading, "load", functools.cache(lambda *_: refuse))
    flag = on_host_memory(cupy, np.zeros(1, np.int32))
    values = on_host_memory(cupy, np.zeros(4, np.float16))
    with pytest.raises(OutOfMemoryError, match=f"{KERNEL}: the GPU has no room .*MemoryAllocation") as caught:
        loading.launch(KERNEL, {"values": values, "found": flag, "count": 4})
    assert "backend.memory.release()" in (caught.value.help or "")


class Recorder:
    """Stands for CuPy's RawModule: keeps what it is loaded from and launched with."""

    calls: list[tuple[Any, ...]]

    def __init__(self, path: str) -> None:
        self.path, self.calls = path, []

    def get_function(self, name: str) -> Recorder:
        """Return what will be launched."""
        self.name = name
        return self

    def __call__(self, *launch: Any, **options: Any) -> None:
        """Be launched."""
        self.calls.append((*launch, options))


def test_a_launch_reaches_cupy_whole(monkeypatch: pytest.MonkeyPatch, compiler: Compiler, cupy: Any) -> None:
    """Oracle: the declaration of the kernel: grid, block, arguments in order, machine code for the chip."""
    made: list[Recorder] = []
    monkeypatch.setattr(cupy, "RawModule", lambda path: made.append(Recorder(path)) or made[-1])
    monkeypatch.setattr(cupy.cuda, "Device", lambda: SimpleNamespace(compute_capability="90"))
    values, flag = (
        on_host_memory(cupy, np.zeros(600, np.float16)),
        on_host_memory(cupy, np.zeros(1, np.int32)),
    )
    for _ in range(2):
        loading.launch(KERNEL, {"values": values, "found": flag, "count": 600})
    (module,) = made
    assert module.name == KERNEL
    assert Path(module.path).read_bytes() == compiler_bytes(compiler)
    assert len(module.calls) == 2
    grid, block, packed, options = module.calls[0]
    assert (grid, block, options) == ((3,), (256,), {"shared_mem": 0})
    assert packed[0] is values
    assert packed[1] is flag
    assert packed[2] == 600


def test_a_variant_is_loaded_beside_the_kernel(
    monkeypatch: pytest.MonkeyPatch, compiler: Compiler, cupy: Any
) -> None:
    """Oracle: the compiler's bytes with the options of each; neither takes the other's place."""
    made: list[Recorder] = []
    monkeypatch.setattr(cupy, "RawModule", lambda path: made.append(Recorder(path)) or made[-1])
    monkeypatch.setattr(cupy.cuda, "Device", lambda: SimpleNamespace(compute_capability="90"))
    arguments = next(iter(SAMPLES["sum_segments_float"]()))
    on_device = {
        name: on_host_memory(cupy, each) if isinstance(each, np.ndarray) else each
        for name, each in arguments.items()
    }
    flushing = gpu._launching(VARIANTS["ftz"])
    for run in (gpu._launch, flushing, gpu._launch, flushing):
        run("sum_segments_float", **on_device)
    assert [len(each.calls) for each in made] == [2, 2]
    source = sources.read("embedding.cu")
    wanted = [compiler.compile(source, 90, more=more) for more in ((), VARIANTS["ftz"])]
    assert [Path(each.path).read_bytes() for each in made] == wanted
    assert wanted[0] != wanted[1]


def compiler_bytes(compiler: Compiler) -> bytes:
    """Return what the cache must hold for the kernel above."""
    return compiler.compile(sources.read("checking.cu"), 90, "cubin")


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_cupy_takes_every_kind_of_argument(cupy: Any, name: str) -> None:
    """Oracle: CuPy's own launch, which looks at the arguments before it asks for a driver, and has none."""
    if cupy.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    arguments = next(iter(SAMPLES[name]()))
    on_device = {
        key: [on_host_memory(cupy, each) for each in value]
        if isinstance(value, list) and value and isinstance(value[0], np.ndarray)
        else on_host_memory(cupy, value)
        if isinstance(value, np.ndarray)
        else value
        for key, value in arguments.items()
    }
    _, packed = pack(KERNELS[name], on_device, cupy.ndarray)
    function = cupy.cuda.function.Function.__new__(cupy.cuda.function.Function)
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match=r"cudaError(InsufficientDriver|NoDevice)"):
        function((1,), (1,), packed, stream=SimpleNamespace(ptr=0))


def test_a_missing_compiler_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: no toolkit anywhere, then one of another CUDA version."""
    monkeypatch.setattr(toolkits, "_places", lambda: iter(()))
    with pytest.raises(DeviceError, match=r"found none\n.*nvidia-cuda-nvrtc-cu12 nvidia-cuda-runtime-cu12"):
        toolkits.find()
    with pytest.raises(DeviceError, match=r"for CUDA 13 .*\n.*cupy-cuda13x nvidia-cuda-nvrtc nvidia"):
        toolkits.find(13)


def test_a_library_that_does_not_load_is_named(tmp_path: Path) -> None:
    """Oracle: a file that is no library."""
    broken = tmp_path / "libnvrtc.so.12"
    broken.write_bytes(b"not a library")
    with pytest.raises(DeviceError, match=rf"{broken} cannot be loaded: .*\n.*--force-reinstall"):
        nvrtc.Compiler(toolkits.Toolkit(broken, 12, (tmp_path,)))


def test_libraries_are_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Oracle: folders laid out as the wheels and a toolkit lay them out, the alternative build among them."""
    layouts = {12: ("cuda_nvrtc/lib", "cuda_runtime/include"), 13: ("cu13/lib", "cu13/include")}
    for cuda, (library, include) in layouts.items():
        (tmp_path / library).mkdir(parents=True)
        (tmp_path / include / "nv").mkdir(parents=True)
        for name in (f"libnvrtc.so.{cuda}", f"libnvrtc.alt.so.{cuda}", f"libnvrtc-builtins.so.{cuda}.0"):
            (tmp_path / library / name).touch()
        for name in ("cuda_fp16.h", "nv/target"):
            (tmp_path / include / name).touch()
    monkeypatch.setattr(toolkits, "_package", lambda name: [tmp_path] if name == "nvidia" else [])
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "nowhere"))
    found = toolkits.search()
    assert [(each.cuda, each.library.name) for each in found[:2]] == [
        (12, "libnvrtc.so.12"),
        (13, "libnvrtc.so.13"),
    ]
    assert toolkits.find(13).includes == (tmp_path / "cu13/include",)


def test_a_source_without_headers_compiles(compiler: Compiler) -> None:
    """Oracle: PTX with the kernel's name."""
    assert b".entry none(" in compiler.compile(
        Source("none.cu", 'extern "C" __global__ void none() {}', {}), 90, "ptx"
    )
