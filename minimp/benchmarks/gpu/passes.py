"""What reads and writes everything once: copies, the end of a step, casts. Such work waits for memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minimp import formats, nn, optim
from minimp.backend import use_backend
from minimp.benchmarks.gpu.jobs import OURS, ROOF, TORCH, Aim, Bench, Job
from minimp.benchmarks.gpu.products import NAMES, random_array
from minimp.formats.dice import Counter
from minimp.tensors import Tensor

__all__ = ["SCALE", "adamw", "casts", "roof_copy", "small", "tallies", "unscale", "updating"]

SCALE = 2.0**16
ENOUGH = 0.85
"""Share of the copy's bandwidth that one pass should reach."""
STOCHASTIC = (("float32", "bfloat16"),)
WHOLE = "copy to the host"
CASTS = (
    ("float32", "float16"), ("float16", "float32"), ("float32", "bfloat16"), ("bfloat16", "float32"),
)  # fmt: skip
EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2")


def roof_copy(bench: Bench) -> Job:
    """Return a copy of float32 numbers, whose best rate is the roof of all passes."""
    x = random_array(bench, (bench.sizes.elements,), "float32")
    y = bench.backend.xp.empty_like(x)

    def copy() -> None:
        y[...] = x

    contenders: dict[str, Callable[[], object]] = {OURS: copy}
    if bench.torch is not None:
        contenders[TORCH] = bench.torch.copy(bench.sizes.elements)
    return Job(f"{_count(bench)} fp32: the roof of passes", contenders, 8.0 * bench.sizes.elements)


def _count(bench: Bench) -> str:
    return f"{bench.sizes.elements:.0e}".replace("e+0", "e")


def unscale(bench: Bench) -> Iterator[Job]:
    """g32 = g16 / S and whether all are finite, in one pass; torch's takes float32 ones in place."""
    n, backend = bench.sizes.elements, bench.backend
    factor = backend.from_host(np.asarray(1 / SCALE))
    for name in ("float16", "float32"):
        gradient = random_array(bench, (n,), name)
        contenders: dict[str, Callable[[], object]] = {OURS: _unscaled(backend, gradient, factor)}
        if bench.torch is not None:
            contenders[TORCH] = bench.torch.unscale(n)
        wide = 4.0 * n
        amount = wide + n * gradient.dtype.itemsize
        what = f"{_count(bench)} {NAMES[name]} to fp32, finite or not"
        yield Job(what, contenders, amount, aims=(Aim(ROOF, ENOUGH), Aim(TORCH, 1.0)))


def _unscaled(backend: Any, gradient: Any, factor: Any) -> Callable[[], Any]:
    return lambda: backend.unscale_all([gradient], factor)


def adamw(bench: Bench) -> Iterator[Job]:
    """AdamW on an FP32 master with its float16 copy; torch's beside it unscales, updates and casts.

    A number takes 28 bytes: master, both moments read and written, the gradient read, the copy written.
    """
    n = bench.sizes.elements
    step = updating(bench, [random_array(bench, (n,), "float16")])
    contenders: dict[str, Callable[[], object]] = {OURS: step}
    if bench.torch is not None:
        contenders[TORCH] = bench.torch.adamw_with_copy(n)
    what = f"{_count(bench)}: master, moments, fp16 copy"
    yield Job(what, contenders, 28.0 * n, aims=(Aim(ROOF, ENOUGH), Aim(TORCH, 1.25)))


def small(bench: Bench) -> Iterator[Job]:
    """AdamW on many small float32 parameters, beside torch's fused step over all of them."""
    least, most, count = bench.sizes.small
    sizes = [int(each) // 4 for each in np.geomspace(least, most, count)]
    step = updating(bench, [random_array(bench, (size,), "float32") for size in sizes])
    contenders: dict[str, Callable[[], object]] = {OURS: step}
    if bench.torch is not None:
        contenders[TORCH] = bench.torch.adamw(sizes)
    what = f"{count:,} tensors of {least} to {most} bytes"
    yield Job(what, contenders, 28.0 * sum(sizes), aims=(Aim(TORCH, 1 / 1.2),))


def updating(bench: Bench, gradients: list[Any]) -> Callable[[], object]:
    """Return a step of AdamW over parameters of the gradients' formats, with masters where they are low."""
    backend = bench.backend
    with use_backend(backend.name):
        parameters = [nn.Parameter(Tensor(each * 0 + 1, backend)) for each in gradients]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = Tensor(gradient, backend)
        low = gradients[0].dtype.itemsize == 2
        optimizer = optim.AdamW(parameters, lr=1e-3, master_weights=low or None)
    return optimizer.step


def tallies(bench: Bench) -> Iterator[Job]:
    """What a trace asks of an array: its counts and ends, brought to the host, beside all of it."""
    n, backend = bench.sizes.elements, bench.backend
    for name in ("float16", "float32"):
        x = random_array(bench, (n,), name)
        contenders: dict[str, Callable[[], object]] = {
            OURS: _tallied(backend, x), WHOLE: partial(backend.to_host, x),
        }  # fmt: skip
        if bench.torch is not None:
            contenders[TORCH] = bench.torch.tally(n, name)
        aims = (Aim(WHOLE, 5.0), Aim(TORCH, 1.0))
        yield Job(f"{_count(bench)} {NAMES[name]}: statistics", contenders, float(x.nbytes), aims=aims)


def _tallied(backend: Any, x: Any) -> Callable[[], object]:
    return lambda: backend.tally([x], with_cuts=True)


def casts(bench: Bench) -> Iterator[Job]:
    """Casts between formats to nearest even, to FP8 codes, and stochastic ones."""
    n, backend = bench.sizes.elements, bench.backend
    aims = (Aim(ROOF, ENOUGH),)
    for source, target in CASTS:
        form = formats.get(target)
        x = random_array(bench, (n,), source)
        contenders: dict[str, Callable[[], object]] = {OURS: _cast(backend, x, form)}
        if bench.torch is not None:
            contenders[TORCH] = bench.torch.cast(n, source, target)
        amount = float(n) * (x.dtype.itemsize + form.dtype.itemsize)
        yield Job(f"{NAMES[source]} to {NAMES[target]}", contenders, amount, aims=(*aims, Aim(TORCH, 0.95)))
    x = random_array(bench, (n,), "float32")
    for name in EIGHT_BITS:
        codes: dict[str, Callable[[], object]] = {OURS: _to_codes(backend, x, formats.get(name))}
        if bench.torch is not None:
            codes[TORCH] = bench.torch.cast(n, "float32", name)
        yield Job(f"fp32 to {name.removeprefix('float8_')}", codes, 5.0 * n, aims=aims)
    for _, target in STOCHASTIC:
        form = formats.get(target)
        calls: dict[str, Callable[[], object]] = {OURS: _cast(backend, x, form, "stochastic", Counter(1))}
        yield Job(f"fp32 to {NAMES[target]}, stochastic", calls, 6.0 * n, aims=aims)


def _cast(
    backend: Any, x: Any, form: Any, rounding: str = "nearest_even", rng: Counter | None = None
) -> Callable[[], Any]:
    return lambda: backend.cast(x, form, rounding, None, rng)


def _to_codes(backend: Any, x: Any, form: Any) -> Callable[[], Any]:
    return lambda: backend.to_eight_bits(x, form)
