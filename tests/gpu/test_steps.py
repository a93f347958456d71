"""Whole steps on a device: nothing waits, the ledger is right, a full memory says so, torch shares arrays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, models, optim
from minimp.benchmarks.gpu import TINY, Bench, clock_of
from minimp.benchmarks.gpu.steps import memory_figures
from minimp.errors import OutOfMemoryError
from tests.gpu import launch_all

LONG = 0.3
"""Seconds that the GPU is kept busy with, while the host runs a step."""


def step_of(name: str) -> Callable[[], mp.StepReport]:
    """Return a step that the device decides on, whose batch is there already; it has run twice."""
    model = models.mlp((64,), 10)
    step = mp.TrainStep(
        model, functional.cross_entropy, optim.AdamW(model.parameters()), name, control="device", max_norm=1.0
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = mp.tensor(rng.standard_normal((32, 64)).astype(np.float32))
    labels = mp.tensor(rng.integers(0, 10, 32))

    def run() -> mp.StepReport:
        return step(x, labels)

    run(), run()
    return run


@pytest.mark.parametrize("recipe", ["mixed-fp16", "mixed-bf16", "fp32"])
def test_no_step_waits_through_the_backend(device: Any, recipe: str) -> None:
    """Oracle: the backend's own counts: no wait, nothing read, nothing sent but numbers."""
    run = step_of(recipe)
    with device.counting() as counts:
        for _ in range(3):
            run()
    assert (counts.syncs, counts.to_host, counts.to_host_bytes) == (0, 0, 0)
    assert counts.to_device_bytes <= 3 * 64


def test_a_report_is_read_when_somebody_looks(device: Any) -> None:
    """Oracle: the backend's counts; a report is kept from many steps ago."""
    run = step_of("mixed-fp16")
    first = run()
    run()
    with device.counting() as counts:
        assert np.isfinite(first.loss)
        assert not first.skipped
    assert counts.to_host >= 1


@pytest.mark.gpu
def test_the_host_is_ahead_of_a_busy_gpu(gpu: Any) -> None:
    """Oracle: the GPU itself: it has work of 0.3 s, is given a step, and is busy still when the step returns.

    Counts see what goes through the backend alone; here every wait shows, whoever asks for it.
    """
    run, xp = step_of("mixed-fp16"), gpu.xp
    a = xp.ones((4096, 4096), np.float32)
    gpu.synchronize()
    start = time.perf_counter()
    gpu.gpu.cublas.matmul(a, a, output="float32", compute="float32")
    gpu.synchronize()
    often = max(1, int(LONG / (time.perf_counter() - start)))
    for _ in range(often):
        gpu.gpu.cublas.matmul(a, a, output="float32", compute="float32")
    done = xp.cuda.Event()
    done.record()
    run()
    assert not done.done, "something in the step waited for the GPU"
    gpu.synchronize()


def test_the_ledger_agrees_with_the_memory(device: Any) -> None:
    """Oracle: the GPU's memory pool; of the strict device, whose arrays are NumPy's, tracemalloc. 2 %."""
    pooled = getattr(device, "memory", None) is not None  # whose pieces are of 512 bytes
    sizes = replace(TINY, width=1024, batch=512) if pooled else TINY
    found = memory_figures(Bench(device, clock_of(device), sizes))
    assert len(found) == 3
    assert [each for each in found if not each.reached] == []


@pytest.mark.gpu
def test_a_full_gpu_says_who_holds_what(gpu: Any) -> None:
    """Oracle: a limit on the pool, and the bytes that were asked for; afterwards all is as before."""
    pool = gpu.memory.pool
    gpu.memory.release()
    before = pool.get_limit()
    pool.set_limit(size=pool.total_bytes() + (64 << 20))
    try:
        with pytest.raises(OutOfMemoryError, match=r"the GPU has no room for 256\.0 MiB more") as caught:
            gpu.xp.empty(64 << 20, np.float32)
        assert caught.value.asked == 256 << 20
        assert "mp.memory.ledger" in str(caught.value)
        kept = gpu.xp.ones(1 << 20, np.float32)
        assert float(kept.sum()) == 1 << 20
    finally:
        pool.set_limit(size=before)


@pytest.mark.gpu
@pytest.mark.torch
def test_torch_and_cupy_share_memory(gpu: Any) -> None:
    """Oracle: the addresses of both, and a number that one writes and the other reads."""
    torch = pytest.importorskip("torch")
    ours = mp.tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    theirs = torch.from_dlpack(ours)
    assert (theirs.device.type, theirs.data_ptr()) == ("cuda", ours.array.data.ptr)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        source = torch.arange(4, device="cuda").to(dtype)
        back = mp.from_dlpack(source)
        assert (back.backend.name, back.array.data.ptr) == ("cupy", source.data_ptr())
        source += 1
        torch.cuda.synchronize()
        np.testing.assert_array_equal(back.float().numpy(), [1, 2, 3, 4])


def test_every_kernel_is_launched_for_the_sanitizer(kernel_device: Any) -> None:
    """Oracle: the registry; every kernel by name, and as many samples as were asked for at most."""
    said: list[str] = []
    assert launch_all.run(kernel_device, said.append, most=1) == 0
    assert [line.split(":")[0] for line in said] == sorted(launch_all.KERNELS)


def test_a_kernel_that_fails_is_named(kernel_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a launch that raises: the exit code, and its name; the others run."""
    real = launch_all.launch_on

    def launch(backend: Any, kernel: Any, arguments: Any) -> Any:
        if kernel.name == "update_scale":
            raise RuntimeError("an illegal memory access was encountered")
        return real(backend, kernel, arguments)

    monkeypatch.setattr(launch_all, "launch_on", launch)
    said: list[str] = []
    assert launch_all.run(kernel_device, said.append, most=1) == 1
    assert [line for line in said if "FAILED" in line] == [
        "update_scale: FAILED: an illegal memory access was encountered"
    ]
