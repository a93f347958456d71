"""The CuPy backend's own Python, on the strict device: what it makes, what it calls, what it waits for.

The oracle is the NumPy backend, with numbers so small and whole that no order of sums can be seen, or the
bound of a row of tolerances.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

import minimp as mp
from minimp import backend as backends
from minimp import formats
from minimp.backend import get_backend
from minimp.errors import (
    DeviceError,
    FormatError,
    GradientError,
    MinimpError,
    OutOfMemoryError,
    SettingError,
    plain,
)
from minimp_backends import gpu
from minimp_backends.cupy_backend import CupyBackend
from minimp_backends.device_codes import Codes
from minimp_backends.gpu_diagnosis import Facts
from tests.backends.cupy_on_strict import CupyOnStrict, gpu_on_strict
from tests.tolerances import assert_close

Array = npt.NDArray[Any]
HOST = get_backend("numpy")
STORED = ("float16", "bfloat16", "float32", "float64")


@pytest.fixture
def device() -> CupyBackend:
    """Return the backend on the strict device."""
    return CupyOnStrict()


@pytest.fixture
def as_cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the engine find it under the name "cupy"."""
    monkeypatch.setitem(backends.MADE, "cupy", CupyOnStrict())
    return get_backend("cupy")


def numbers(shape: tuple[int, ...], name: str, seed: int) -> Array:
    """Return small whole numbers."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(formats.get(name).dtype)


def same(device: CupyBackend, made: Any, expected: Any) -> None:
    """Compare an array of the device with one of the host: dtype and bits."""
    assert isinstance(made, device.xp.ndarray)
    host = device.to_host(made)
    assert host.dtype == expected.dtype
    if expected.dtype.kind in "fV":  # bfloat16 is no float to NumPy's own comparison
        host, expected = host.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(host, expected)


# ---- storage ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*STORED, "int64", "int8", "uint8", "bool"])
def test_there_and_back(device: CupyBackend, dtype: str) -> None:
    """Every dtype, any memory order, no axes, and none at all."""
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    for shape in ((), (0, 3), (4,), (2, 3, 4)):
        host = np.arange(int(np.prod(shape))).reshape(shape).astype(kind)
        made = device.from_host(host.T)
        assert made.shape == host.T.shape
        same(device, made, host.T)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"])
def test_fp8_is_stored_as_codes_with_a_tag(device: CupyBackend, name: str) -> None:
    """CuPy has no such dtype; all 256 codes come back, bit for bit."""
    host = np.arange(256, dtype=np.uint8).view(formats.get(name).dtype).reshape(16, 16)
    made = device.from_host(host)
    assert isinstance(made, Codes)
    assert made.codes.dtype == np.uint8
    back = device.to_host(made)
    assert back.dtype == host.dtype
    np.testing.assert_array_equal(back.view(np.uint8), host.view(np.uint8))


def test_what_cannot_be_stored_is_refused(device: CupyBackend) -> None:
    """Complex numbers, texts, and formats without storage."""
    for odd in (np.zeros(2, complex), np.array(["a"])):
        with pytest.raises(FormatError, match="CuPy has no arrays of"):
            device.from_host(odd)
    with pytest.raises(FormatError, match="the cupy backend has no tensors of float8_e4m3fn"):
        device.require(formats.get("float8_e4m3fn"))


def test_copies_and_waits_are_counted(device: CupyBackend) -> None:
    """Bytes both ways, and each wait; blocks may be nested."""
    with device.counting() as outer:
        made = device.from_host(np.zeros((2, 3), np.float16))
        with device.counting() as inner:
            device.to_host(made)
            device.synchronize()
    assert (outer.to_device, outer.to_device_bytes, outer.to_host, outer.to_host_bytes) == (1, 12, 1, 12)
    assert (inner.syncs, inner.to_device, inner.to_host) == (2, 0, 1)


# ---- casts -----------------------------------------------------------------------------------------------


def every_kind(dtype: str) -> Array:
    """Return numbers of a format: from small to large, ties, infinities and NaN."""
    rng = np.random.default_rng(3)
    wide = np.concatenate([
        rng.standard_normal(200) * 10.0 ** rng.integers(-9, 9, 200), np.arange(-40, 40) / 8 + 2048,
        [0.0, -0.0, np.inf, -np.inf, np.nan, 65504, 65520, 1e-8, -6e-8, 3.4e38, 1e-40],
    ])  # fmt: skip
    with np.errstate(all="ignore"):
        return wide.astype(formats.get(dtype).dtype).reshape(3, -1)


@pytest.mark.parametrize("route", ["kernels", "arrays"])
@pytest.mark.parametrize("target", STORED)
@pytest.mark.parametrize("source", [*STORED, "int64"])
def test_casts_are_the_hosts(device: CupyBackend, route: str, source: str, target: str) -> None:
    """To nearest, from any memory order, both routes; NumPy's bits."""
    host = np.arange(-(1 << 12), 1 << 12).reshape(2, -1) * 10**11 if source == "int64" else every_kind(source)
    fmt = formats.get(target)
    with device.use_route(route):
        for change in (lambda a: a, lambda a: a.T, lambda a: a[:, ::2], lambda a: a[:0], lambda a: a[0, 0]):
            made = device.cast(change(device.from_host(host)), fmt)
            same(device, made, HOST.cast(np.asarray(change(host)), fmt))
        if source in ("float16", "bfloat16"):
            same(device, device.wide(device.from_host(host)), HOST.wide(host))


@pytest.mark.parametrize("rounding", formats.ROUNDINGS)
@pytest.mark.parametrize("overflow", [None, "saturate"])
def test_every_rounding_is_the_hosts(device: CupyBackend, rounding: str, overflow: str | None) -> None:
    """Other modes, saturating, and at random by a counter: the same bits on both."""
    host = every_kind("float32")
    counter = formats.Counter(7, 5) if rounding.startswith("stochastic") else None
    for target in ("float16", "bfloat16"):
        how = (formats.get(target), rounding, overflow, counter)
        same(device, device.cast(device.from_host(host), *how), HOST.cast(host, *how))


def test_a_generator_throws_on_the_host(device: CupyBackend) -> None:
    """NumPy's generators are the host's; the bits are what it would make of them."""
    host, fmt = every_kind("float32"), formats.get("float16")
    ours = device.cast(device.from_host(host), fmt, "stochastic", rng=np.random.default_rng(1))
    same(device, ours, HOST.cast(host, fmt, "stochastic", rng=np.random.default_rng(1)))


def test_random_rounding_without_a_source_is_as_on_the_host(device: CupyBackend) -> None:
    """The host refuses it; so does the GPU."""
    host = every_kind("float32")
    said = []
    for backend in (HOST, device):
        with pytest.raises(MinimpError) as fault:
            backend.cast(backend.from_host(host), formats.float16, "stochastic")
        said.append(plain(fault.value))
    assert said[0] == said[1]


def test_unknown_casts_and_routes_are_refused(device: CupyBackend) -> None:
    """The nearest name is offered, on whatever route."""
    x = device.from_host(np.zeros(3, np.float32))
    with pytest.raises(SettingError, match="nearest_even"):
        device.cast(x, formats.float16, "nearest_evn")
    with pytest.raises(SettingError, match="route of the casts"), device.use_route("kernel"):
        pass
    plain = CupyBackend(gpu_on_strict(kernels=False))
    assert plain.routes() == ["arrays"]
    with pytest.raises(SettingError, match="known: arrays"), plain.use_route("kernels"):
        pass
    same(plain, plain.cast(x, formats.float16), np.zeros(3, np.float16))


# ---- products --------------------------------------------------------------------------------------------


class Called:
    """What cuBLAS was asked for: (type of the factors, of the result, compute type) of each call."""

    def __init__(self, device: CupyBackend) -> None:
        self.calls: list[tuple[int, int, int]] = []
        library = device.gpu.cublas.library
        answer = library.gemmStridedBatchedEx  # which the other comes down to

        def noted(*args: Any) -> None:
            self.calls.append((args[8], args[17], args[21]))
            answer(*args)

        library.gemmStridedBatchedEx = noted


HALF, BRAIN, SINGLE, DOUBLE, INT8, INT32 = 2, 14, 0, 1, 3, 10
TYPES = {"float16": HALF, "bfloat16": BRAIN, "float32": SINGLE, "float64": DOUBLE}


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize(
    ("left", "right"),
    [((5, 4), (4, 3)), ((2, 5, 4), (4, 3)), ((2, 3, 5, 4), (2, 1, 4, 6)), ((0, 4), (4, 3)), ((5, 0), (0, 3))],
)
def test_products_keep_their_factors_and_are_wide(
    device: CupyBackend, name: str, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    """16-bit factors go in as they are, and float32 sums come out; one call, no copy through the host."""
    a, b = numbers(left, name, 1), numbers(right, name, 2)
    called = Called(device)
    ours = [device.from_host(each) for each in (a, b)]
    with device.counting() as counts:
        made = device.matmul(*ours, accumulate="float32")
        turned = device.matmul(ours[1].swapaxes(-1, -2), ours[0].swapaxes(-1, -2), accumulate="float32")
    assert (counts.syncs, counts.to_device) == (0, 0)
    expected = HOST.matmul(a, b, accumulate="float32")
    same(device, made, expected)
    same(device, turned, expected.swapaxes(-1, -2))
    wide, compute = (DOUBLE, 70) if name == "float64" else (SINGLE, 68)
    assert set(called.calls) <= {(TYPES[name], wide, compute)}
    assert len(called.calls) == (2 if a.size and b.size else 0)


@pytest.mark.parametrize("accumulate", ["float64", "float16", "bfloat16", "pairwise", "chunked:4", "exact"])
def test_named_accumulations_are_what_they_are_on_the_host(device: CupyBackend, accumulate: str) -> None:
    """float64 on the GPU, the others emulated: cuBLAS's own float16 sums are no "float16" of ours."""
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(shape).astype(np.float16) for shape in ((5, 40), (40, 3)))
    called = Called(device)
    made = device.matmul(device.from_host(a), device.from_host(b), accumulate=accumulate)
    expected = HOST.matmul(a, b, accumulate=accumulate)
    if accumulate == "float64":
        assert called.calls == [(DOUBLE, DOUBLE, 70)]
        assert_close(device.to_host(made), expected, "fp64_sums")
    else:
        assert called.calls == []
        same(device, made, expected)


def test_less_than_float32_is_asked_for_by_name(device: CupyBackend) -> None:
    """TF32 and float16 sums, in a block, of the formats that they are for, and not after it."""
    called = Called(device)
    half, single = (device.from_host(numbers((4, 4), name, 1)) for name in ("float16", "float32"))
    with device.allowing(tf32=True, fp16_accumulation=True):
        summed = device.matmul(half, half, accumulate="float32")
        device.matmul(single, single, accumulate="float32")
        device.matmul(single, single, accumulate="float64")
    with device.allowing(tf32=True):
        device.matmul(half, half, accumulate="float32")
    device.matmul(single, single, accumulate="float32")
    with device.allowing(fp16_accumulation=True):
        device.matmul(single, single, accumulate="float32")
    assert called.calls == [
        (HALF, HALF, 64), (SINGLE, SINGLE, 77), (DOUBLE, DOUBLE, 70), (HALF, SINGLE, 68),
        (SINGLE, SINGLE, 68), (SINGLE, SINGLE, 68),
    ]  # fmt: skip
    assert summed.dtype == np.float32


def test_codes_are_multiplied_as_int8(device: CupyBackend) -> None:
    """uint8 by int8 with zero points: one call in int32, the host's numbers."""
    rng = np.random.default_rng(6)
    a, b = rng.integers(0, 256, (5, 7)).astype(np.uint8), rng.integers(-128, 128, (7, 3)).astype(np.int8)
    called = Called(device)
    made = device.integer_matmul(device.from_host(a), device.from_host(b), 130, -4)
    assert called.calls == [(INT8, INT32, 72)]
    same(device, made, HOST.integer_matmul(a, b, 130, -4))


@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_are_columns_and_products(device: CupyBackend, name: str, groups: int) -> None:
    """Forward and both gradients, 16-bit columns, strides and padding."""
    x, w, bias = (
        numbers(shape, name, seed) for seed, shape in enumerate([(2, 4, 7, 6), (6, 4 // groups, 3, 2), (6,)])
    )
    geometry = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": groups}
    y = HOST.conv2d(x, w, bias, geometry, accumulate="float32")
    grad = numbers(y.shape, name, 9)
    called = Called(device)
    on_x, on_w, on_bias, on_grad = (device.from_host(each) for each in (x, w, bias, grad))
    same(device, device.conv2d(on_x, on_w, on_bias, geometry, accumulate="float32"), y)
    for kernel, ours, theirs, shape in (
        ("conv2d_input", (on_grad, on_w), (grad, w), x.shape),
        ("conv2d_weight", (on_x, on_grad), (x, grad), w.shape),
    ):
        made = getattr(device, kernel)(*ours, shape, geometry, accumulate="float32")
        same(device, made, getattr(HOST, kernel)(*theirs, shape, geometry, accumulate="float32"))
    assert {factors for factors, _, _ in called.calls} == {TYPES[name]}


def test_half_sums_are_float32s(device: CupyBackend) -> None:
    """4096 ones and more: a float16 sum would stay at 2048; the strict device adds as CUB does if let."""
    ones = device.from_host(np.ones((2, 4096), np.float16))
    same(device, device.sum(ones, axis=1, accumulate="float32"), np.full(2, 4096, np.float32))


# ---- chips and figures -----------------------------------------------------------------------------------


def test_an_old_chip_says_what_it_lacks() -> None:
    """bfloat16 before Ampere: refused where tensors are made, and where they are multiplied."""
    turing = CupyBackend(gpu_on_strict(75))
    with pytest.raises(DeviceError, match=r"capability 7\.5\) does not multiply bfloat16.*needs 8\.0"):
        turing.require(formats.bfloat16)
    turing.require(formats.float16)
    single = turing.from_host(np.ones((2, 2), np.float32))
    with turing.allowing(tf32=True), pytest.raises(DeviceError, match="FAST_TF32, which needs"):
        turing.matmul(single, single, accumulate="float32")


def test_host_arrays_do_not_mix(device: CupyBackend) -> None:
    """A product of one of each says which is not of the GPU."""
    ones = np.ones((2, 2), np.float32)
    with pytest.raises(DeviceError, match="expected arrays of the GPU, got ndarray"):
        device.matmul(device.from_host(ones), ones, accumulate="float32")


def test_facts_for_headers(device: CupyBackend) -> None:
    """What it runs on."""
    told = device.describe()
    assert told["GPU"] == "none: the strict device"
    assert told["casts"] == "kernels"
    assert told["array library"].startswith("cupy ")
    assert device.scratch_bytes() == 0


def test_a_gpu_is_opened_over_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Handle, chip, pool and facts from where CuPy has them; a compiler that is missing is told at once."""
    waits: list[str] = []
    pool = SimpleNamespace(used_bytes=lambda: 512, total_bytes=lambda: 2048, get_limit=lambda: 0)
    runtime = SimpleNamespace(
        runtimeGetVersion=lambda: 12090, memGetInfo=lambda: (1, 2),
        getDeviceProperties=lambda number: {"name": b"NVIDIA H100", "totalGlobalMem": 80 << 30},
    )  # fmt: skip
    cuda = SimpleNamespace(
        runtime=runtime, Device=lambda: SimpleNamespace(id=0, synchronize=lambda: waits.append("device")),
        device=SimpleNamespace(get_cublas_handle=lambda: 77),
        cublas=SimpleNamespace(getVersion=lambda _: 120905),
        MemoryHook=type("Hook", (), {"__enter__": lambda self: self}), get_allocator=lambda: None,
        set_allocator=lambda allocator: None, memory=SimpleNamespace(OutOfMemoryError=MemoryError),
    )  # fmt: skip
    cupy = SimpleNamespace(
        cuda=cuda, get_default_memory_pool=lambda: pool, asnumpy=np.asarray, ndarray=np.ndarray,
        array=np.array, __version__="14.2.0", __name__="cupy",
    )  # fmt: skip
    asked: list[int] = []
    monkeypatch.setattr(gpu.toolkits, "find", asked.append)
    opened = CupyBackend(gpu.gpu_of(cupy, Facts(driver=12080, capability=90)))
    assert asked == [12]
    assert (opened.gpu.cublas.handle, opened.gpu.cublas.capability) == (77, 90)
    told = opened.describe()
    assert told["GPU"] == "NVIDIA H100, compute capability 9.0, 80.0 GiB"
    assert (told["driver"], told["CUDA runtime"], told["cuBLAS"]) == ("CUDA 12.8", "12.9", "12.9.5")
    assert opened.scratch_bytes() == 1536
    opened.synchronize()
    assert waits == ["device"]

    def missing(version: int) -> None:
        raise DeviceError("expected the CUDA compiler library NVRTC")

    monkeypatch.setattr(gpu.toolkits, "find", missing)
    with pytest.raises(DeviceError, match="NVRTC"):
        gpu.gpu_of(cupy, Facts())
    launched: list[Any] = []
    monkeypatch.setattr(gpu, "launch", lambda name, arguments: launched.append((name, arguments)))
    assert opened.gpu.kernels is not None
    opened.gpu.kernels("cast_float_half", count=3)
    assert launched == [("cast_float_half", {"count": 3})]


# ---- the engine on it ------------------------------------------------------------------------------------


def test_what_cupy_refuses_to_take_over_is_told_by_us(as_cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the real cupy.from_dlpack, which refuses the host's memory by one error, lists by another."""
    monkeypatch.setattr(as_cupy, "xp", SimpleNamespace(from_dlpack=pytest.importorskip("cupy").from_dlpack))
    with mp.use_backend("cupy"):
        for given in (np.ones(2, np.float32), [1.0]):
            with pytest.raises(FormatError, match="the cupy backend cannot take it over") as caught:
                mp.from_dlpack(given)
            assert "mp.tensor copies arrays" in (caught.value.help or "")


def test_dlpack_hands_out_the_memory_itself(as_cupy: Any) -> None:
    """The array's own export with the stream it was asked for; a recorded tensor is refused."""
    asked: list[Any] = []

    class Shared:
        """A device array as far as DLPack is concerned."""

        dtype = np.dtype(np.float16)

        def __dlpack__(self, **options: Any) -> str:
            asked.append(options)
            return "capsule"

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    x = mp.tensor([1.0, 2.0], backend="cupy")
    held = x.array = Shared()
    assert x.__dlpack__(stream=7, max_version=(1, 0)) == "capsule"
    assert x.__dlpack_device__() == (2, 0)
    assert asked == [{"stream": 7, "max_version": (1, 0)}]
    assert x.array is held, "not a copy"
    with pytest.raises(GradientError, match="leave the tape"):
        mp.tensor([1.0], backend="cupy", requires_grad=True).__dlpack__()


def loss_of(backend: str, recipe: str) -> tuple[list[float], Array]:
    """Train a small network for some steps; return the losses and a weight."""
    mp.manual_seed(0)
    rng = np.random.default_rng(0)
    with mp.use_backend(backend):
        model = mp.nn.Sequential(mp.nn.Linear(12, 32), mp.nn.GELU(), mp.nn.LayerNorm(32), mp.nn.Linear(32, 4))
        optimizer = mp.optim.AdamW(model.parameters(), lr=1e-2)
        step = mp.TrainStep(model, mp.functional.cross_entropy, optimizer, recipe)
        losses = []
        for _ in range(4):
            x, y = rng.standard_normal((16, 12)).astype(np.float32), rng.integers(0, 4, 16)
            losses.append(float(step(mp.tensor(x), mp.tensor(y)).loss))
        return losses, model[0].weight.detach().float().numpy()


UPDATES = (
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.01}),
    ("AdamW", {"lr": 0.01, "maximize": True}),
    ("Lion", {"lr": 0.01}),
)


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16", "bf16-kahan", "fp16-master"])
@pytest.mark.parametrize(("kind", "options"), UPDATES)
def test_a_step_by_kernels_is_the_step_by_arrays(
    as_cupy: Any, kind: str, options: dict[str, Any], recipe: str
) -> None:
    """Both routes, bit for bit, by a loss whose gradient is the same on both; and the kernels do run."""
    ran: list[str] = []
    kernels = as_cupy.gpu.kernels

    def noted(name: str, /, **arguments: Any) -> None:
        ran.append(name)
        kernels(name, **arguments)

    found = []
    object.__setattr__(as_cupy.gpu, "kernels", noted)
    for route in ("kernels", "arrays"):
        mp.manual_seed(0)
        rng = np.random.default_rng(0)
        with mp.use_backend("cupy"), as_cupy.use_route(route):
            model = mp.nn.Sequential(mp.nn.Linear(6, 9), mp.nn.ReLU(), mp.nn.Linear(9, 3))
            optimizer = getattr(mp.optim, kind)(model.parameters(), **options)
            step = mp.TrainStep(model, mp.functional.mse_loss, optimizer, recipe)
            for _ in range(3):
                step(
                    mp.tensor(rng.standard_normal((8, 6)).astype(np.float32)),
                    mp.tensor(rng.standard_normal((8, 3)).astype(np.float32)),
                )
            found.append([p.detach().float().numpy() for p in model.parameters()])
        names = {name.split("_")[0] for name in ran}
        assert (("adam" in names or "sgd" in names) == (kind != "Lion")) if route == "kernels" else not ran
        ran.clear()
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16", "mixed-bf16"])
def test_training_goes_as_on_numpy(as_cupy: Any, recipe: str) -> None:
    """Losses and weights of a few steps beside the NumPy backend's."""
    ours, weights = loss_of("cupy", recipe)
    theirs, expected = loss_of("numpy", recipe)
    mixed = recipe != "fp32"
    assert_close(np.array(ours), np.array(theirs), "parity_mixed_losses" if mixed else "parity_trajectory")
    assert_close(weights, expected, "parity_mixed_weights" if mixed else "parity_trajectory_weights")


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [(700, DeviceError, "given before: cudaErrorIllegalAddress"), (2, OutOfMemoryError, "has no room")],
)
def test_what_a_gpu_failed_at_is_told_where_one_waits(status: int, kind: Any, said: str) -> None:
    """Kernels fail when nobody looks; oracle: CuPy's own exception of a status."""
    cupy = pytest.importorskip("cupy")

    def wait(array: Any) -> Any:
        raise cupy.cuda.runtime.CUDARuntimeError(status)

    with pytest.raises(kind, match=said) as caught:
        gpu._told(cupy, wait)(None)
    assert caught.value.help
    assert gpu._told(cupy, lambda array: array + 1)(1) == 2


def test_a_gpu_that_does_not_open_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS takes memory to begin with; oracle: its status, out of `open_gpu`."""
    pytest.importorskip("cupy")

    def refuse(cupy: Any, facts: Facts) -> Any:
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")

    for name in ("basic_facts", "library_facts"):
        monkeypatch.setattr(gpu, name, lambda *_: Facts(built_for=12090, version="14.2.0"))
    monkeypatch.setattr(gpu, "gpu_of", refuse)
    with pytest.raises(DeviceError, match="is there and does not open: CUBLAS_STATUS_ALLOC") as caught:
        gpu.open_gpu()
    assert "nvidia-smi" in (caught.value.help or "")
