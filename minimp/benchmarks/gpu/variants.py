"""Our kernels compiled with other options: what these would gain, and what they change.

They are compiled without flush to zero, and with contraction allowed, which explicit arithmetic never uses.
Both are choices: here are the times and the bits of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minimp import formats, nn, optim
from minimp.backend import use_backend
from minimp.benchmarks.figure import Figure
from minimp.benchmarks.gpu.jobs import OURS, Aim, Bench, Job
from minimp.benchmarks.gpu.passes import SCALE, updating
from minimp.benchmarks.gpu.products import random_array
from minimp.benchmarks.gpu.rows import BYTES, both_ways
from minimp.tensors import Tensor

__all__ = ["variant_figures", "variants"]

FLUSHED, CONTRACTED = "ftz", "no fmad"
"""Names of the backend's variants of its kernels."""
NO_SLOWER = 0.98
"""Our speed over that of kernels that flush: they wait for memory, and not for subnormal numbers."""
TRIED = 4096
"""Numbers whose results are compared."""
LEARNING_RATE = 1e-3


def variants(bench: Bench) -> Iterator[Job]:
    """Yield passes by the kernels as they are, and as each variant has them."""
    n, (count, width) = bench.sizes.elements, bench.sizes.rows
    yield _job(bench, "unscale fp32", 8.0 * n, _unscaling(bench, "float32", n))
    yield _job(bench, "AdamW, master and fp16 copy", 28.0 * n, _updating(bench, n))
    softmax = both_ways(bench, "softmax")
    yield _job(bench, f"softmax of {count} x {width} fp16", float(BYTES["softmax"]) * count * width, softmax)


def _unscaling(bench: Bench, name: str, n: int) -> Callable[[], object]:
    gradient = random_array(bench, (n,), name)
    factor = bench.backend.from_host(np.asarray(1 / SCALE))
    return lambda: bench.backend.unscale_all([gradient], factor)


def _updating(bench: Bench, n: int) -> Callable[[], object]:
    return updating(bench, [random_array(bench, (n,), "float16")])


def _job(bench: Bench, what: str, amount: float, call: Callable[[], object]) -> Job:
    contenders = {OURS: call}
    for name in _names(bench):
        contenders[name] = partial(_under, bench, name, call)
    return Job(what, contenders, amount, aims=(Aim(FLUSHED, NO_SLOWER),) if FLUSHED in contenders else ())


def variant_figures(bench: Bench) -> list[Figure]:
    """Return how many results differ in bits: without contraction none may, flushed to zero some do."""
    found = []
    for what, run in {"unscale": _unscaled, "AdamW": _updated}.items():
        plain = run(bench)
        for name in _names(bench):
            other = _under(bench, name, partial(run, bench))
            differ = float(np.count_nonzero(plain.view(np.uint32) != other.view(np.uint32)))
            exact = name == CONTRACTED
            text = f"options: {what}, results of {plain.size:,} that {name} changes"
            found.append(Figure(text, differ, 0.0 if exact else 1.0, at_most=exact))
    return found


def _unscaled(bench: Bench) -> np.ndarray[Any, Any]:
    """Return gradients that unscaling makes subnormal, or so small that nothing is left."""
    backend = bench.backend
    numbers = np.geomspace(2.0**-126, 2.0**-100, TRIED).astype(np.float32)
    factor = backend.from_host(np.asarray(1 / SCALE))
    (made,), _ = backend.unscale_all([backend.from_host(numbers)], factor)
    return backend.to_host(made)


def _updated(bench: Bench) -> np.ndarray[Any, Any]:
    """Return the second moments after a step of AdamW: of gradients near 1e-18 the squares are subnormal."""
    backend, bfloat16 = bench.backend, formats.get("bfloat16").dtype
    numbers = np.geomspace(1e-22, 1e-15, TRIED).astype(bfloat16)
    with use_backend(backend.name):
        parameter = nn.Parameter(Tensor(backend.from_host(np.ones(TRIED, bfloat16)), backend))
        parameter.grad = Tensor(backend.from_host(numbers), backend)
        optimizer = optim.AdamW([parameter], lr=LEARNING_RATE, master_weights=True)
        optimizer.step()
    return backend.to_host(optimizer.state[parameter]["exp_avg_sq"])


def _names(bench: Bench) -> list[str]:
    """Return the variants that the backend can compile; none where it has no kernels."""
    backend: Any = bench.backend
    return list(backend.variants()) if hasattr(backend, "variants") else []


def _under(bench: Bench, name: str, call: Callable[[], Any]) -> Any:
    backend: Any = bench.backend
    with backend.use_variant(name):
        return call()
