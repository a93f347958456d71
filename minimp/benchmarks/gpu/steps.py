"""Whole training steps: throughput beside torch's AMP, the latency of a small net, waits, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from minimp import functional, nn, optim
from minimp.backend import use_backend
from minimp.benchmarks.figure import Figure
from minimp.benchmarks.gpu.jobs import OURS, TORCH, Aim, Bench, Job, in_words
from minimp.benchmarks.gpu.models import (
    Batch,
    Make,
    block,
    cnn,
    lenet,
    mlp,
    pixels_of,
    product_flops,
    tokens_of,
    vectors_of,
)
from minimp.errors import DeviceError
from minimp.memory import measure
from minimp.memory.witnesses import witness
from minimp.scaler import GradScaler
from minimp.step import TrainStep
from minimp.tensors import Tensor, tensor

__all__ = ["block_step", "cnn_step", "lenet_step", "memory_figures", "mlp_step", "own_step", "sync_figures"]

FP32, TF32, BF16, PURE = "minimp fp32", "minimp tf32", "minimp bf16", "mixed-fp16"
CUDNN = "minimp cudnn"
SETTLING = 24
"""Steps in which a dynamic loss scale is to find a scale that overflows nowhere."""


def own_step(bench: Bench, make: Make, batch: Batch, recipe: str) -> tuple[TrainStep, Tensor, Tensor]:
    """Return a step of ours that the device decides on, and its batch, on the device already."""
    with use_backend(bench.backend.name):
        model = make(nn, functional)
        scaler = GradScaler(init_scale=1024.0) if recipe == PURE else None
        optimizer = optim.SGD(model.parameters(), lr=1e-4)
        step = TrainStep(model, _loss, optimizer, recipe, scaler=scaler, control="device")
        x, labels = (tensor(each) for each in batch)
    return step, x, labels


def _loss(scores: Any, labels: Any) -> Any:
    return functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1))


def _call(
    bench: Bench, make: Make, batch: Batch, recipe: str, scope: Callable[[], AbstractContextManager[object]]
) -> Callable[[], object]:
    step, x, labels = own_step(bench, make, batch, recipe)
    name = bench.backend.name

    def run() -> None:
        with use_backend(name), scope():
            step(x, labels)

    return run


def _steps(
    bench: Bench, make: Make, batch: Batch, recipes: dict[str, str]
) -> dict[str, Callable[[], object]]:
    """Return contender -> step; "tf32" is fp32 whose products may round their factors."""
    backend: Any = bench.backend
    found: dict[str, Callable[[], object]] = {}
    for name, recipe in recipes.items():
        if recipe != "tf32":
            found[name] = _call(bench, make, batch, recipe, nullcontext)
        elif hasattr(backend, "allowing"):
            found[name] = _call(bench, make, batch, "fp32", lambda: backend.allowing(tf32=True))
    if bench.torch is not None:
        found[TORCH] = bench.torch.step(make, batch, PURE)
    return found


def mlp_step(bench: Bench) -> Iterator[Job]:
    """The MLP by each recipe, beside torch's AMP in fp16."""
    sizes = bench.sizes
    recipes = {OURS: PURE, BF16: "mixed-bf16", TF32: "tf32", FP32: "fp32"}
    calls = _steps(bench, mlp(sizes), vectors_of(sizes), recipes)
    what = f"{sizes.depth} x {sizes.width}, batch {sizes.batch}, mixed-fp16"
    aims = (Aim(TORCH, 0.85), Aim(FP32, 5.0), Aim(TF32, 1.5))
    yield Job(what, calls, product_flops(sizes)["mlp"], "FLOP", aims)


def block_step(bench: Bench) -> Iterator[Job]:
    """One transformer block, beside torch's AMP with attention as plain products."""
    sizes = bench.sizes
    batch, length, width, _ = sizes.tokens
    calls = _steps(bench, block(sizes), tokens_of(sizes), {OURS: PURE})
    yield Job(
        f"B{batch} T{length} d{width}, mixed-fp16", calls, product_flops(sizes)["block"], "FLOP",
        (Aim(TORCH, 0.6),),
    )  # fmt: skip


def cnn_step(bench: Bench) -> Iterator[Job]:
    """A small CNN, whose convolutions are columns and a product, beside cuDNN, ours and torch's."""
    count = bench.sizes.images
    calls = _steps(bench, cnn, pixels_of(count), {OURS: PURE})
    what, left_out = f"two 3x3 on 28x28, batch {count}, mixed-fp16", _without_cudnn(bench.backend)
    if not left_out:
        calls[CUDNN] = _by_cudnn(bench, pixels_of(count))
    yield Job(what, calls, product_flops(bench.sizes)["cnn"], "FLOP", (Aim(TORCH, 0.4),), left_out)


def _by_cudnn(bench: Bench, batch: Batch) -> Callable[[], object]:
    backend: Any = bench.backend
    return _call(bench, cnn, batch, PURE, lambda: backend.convolving("cudnn"))


def _without_cudnn(backend: Any) -> dict[str, str]:
    """Return why there is no cuDNN beside; nothing where there is."""
    if not hasattr(backend, "convolving"):
        return {CUDNN: f"the backend {backend.name!r} convolves by columns alone"}
    try:
        with backend.convolving("cudnn"):
            return {}
    except DeviceError as fault:
        return {CUDNN: in_words(fault)}


def lenet_step(bench: Bench) -> Iterator[Job]:
    """LeNet on a small batch: what launching costs."""
    count = bench.sizes.few_images
    calls = _steps(bench, lenet, pixels_of(count), {OURS: PURE})
    yield Job(f"LeNet, batch {count}, mixed-fp16", calls, aims=(Aim(TORCH, 0.5),))


def sync_figures(bench: Bench) -> list[Figure]:
    """Return how often a step makes the host wait, and the bytes it reads back: none of either."""
    step, x, labels = own_step(bench, lenet, pixels_of(bench.sizes.few_images), PURE)
    backend: Any = bench.backend
    with use_backend(backend.name):
        step(x, labels)  # the optimizer makes its state
        with backend.counting() as counts:
            step(x, labels)
    return [
        Figure("step: waits of the host", float(counts.syncs), 0.0),
        Figure("step: bytes read back", float(counts.to_host_bytes), 0.0),
    ]


def memory_figures(bench: Bench) -> list[Figure]:
    """Return the ledger's bytes at each moment of a step over what the memory pool says, above 1 or below."""
    sizes, backend = bench.sizes, bench.backend
    # so much that scraps are not 2 % of it
    sizes = replace(sizes, width=max(128, sizes.width), batch=max(64, sizes.batch))
    found: dict[str, int] = {}
    with use_backend(backend.name), witness() as asked:
        before = asked.used() - asked.kept()
        step, x, labels = own_step(bench, mlp(sizes), vectors_of(sizes), PURE)
        for _ in range(SETTLING):
            if not step(x, labels).skipped:
                break
        held = measure(
            step, x, labels, on_moment=lambda moment: found.__setitem__(moment, asked.used() - before)
        )
    return [
        Figure(
            f"memory: the ledger beside the {asked.name}, {moment}, off by",
            abs(held.moments[moment].total / used - 1), 0.02,
        )
        for moment, used in found.items()
    ]  # fmt: skip
