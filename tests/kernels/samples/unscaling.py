"""Samples of unscaling.cu and scales.cu: tensors with one odd value somewhere; every way in which S moves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.unscaling import CHUNK, TENSORS
from tests.kernels.samples.base import Arguments, Bug

SIZES = (1, 7, 8, 9, 0, 300, CHUNK, CHUNK + 13)


def tensors(
    grad: str, wide: str, sizes: tuple[int, ...], factor: float, seed: int = 0, *, of_products: int = 0
) -> Arguments:
    """Return gradients of some sizes, all finite."""
    rng = np.random.default_rng(seed)
    dtype = KINDS[grad].dtype
    grads = [(rng.standard_normal(size) * 10.0 ** rng.integers(-6, 4, size)).astype(dtype) for size in sizes]
    return {
        "grads": grads, "outs": [np.zeros(size, KINDS[wide].dtype) for size in sizes], "counts": list(sizes),
        "factor": np.array([factor]), "of_products": of_products, "found": np.zeros(len(sizes), np.int32),
        "found_any": np.zeros(1, np.int32),
    }  # fmt: skip


def unscale_samples(grad: str, wide: str) -> Iterator[Arguments]:
    """Yield finite tensors; an infinity or NaN in one of them, at its ends; products that leave the range."""
    yield tensors(grad, wide, (3, 17, 8), 2.0**-16)
    for odd, (at, place) in product((np.inf, -np.inf, np.nan), ((0, 2), (1, 16), (2, 7), (1, 3))):
        some = tensors(grad, wide, (3, 17, 8), 0.25)
        some["grads"][at][place] = odd
        yield some
    yield tensors(grad, wide, SIZES, 1 / 3, seed=1)
    for at in (0, 5, 6, 7):
        some = tensors(grad, wide, SIZES, 2.0**-10, seed=at)
        some["grads"][at][SIZES[at] - 1] = -np.inf
        some["found"][2] = 1  # of an earlier launch
        yield some
    full = tensors(grad, wide, tuple(range(TENSORS)), 2.0)
    full["grads"][TENSORS - 1][4] = np.nan
    yield full
    for factor in (np.inf, np.nan, 1e38, 1e-45, 1e-60, 0.0):  # a finite gradient may have another product
        for of_products in (0, 1):
            yield tensors(grad, wide, (40, 40), factor, of_products=of_products)
    part = tensors(grad, wide, (64, 64), 0.5)
    part["grads"][0][40:] = np.nan
    yield {**part, "counts": [40, 64]}
    patterns = np.arange(0, 1 << 16, 31, dtype=np.uint16)
    if KINDS[grad].dtype.itemsize == 2:
        some = tensors(grad, wide, (patterns.size,), 2.0**-3)
        yield {**some, "grads": [patterns.view(KINDS[grad].dtype)]}


RULE = {
    "growth": 2.0, "backoff": 0.5, "early": 4.0, "lowest": -np.inf, "highest": np.inf, "interval": 3,
    "hysteresis": 1, "options": 2 | 16,
}  # fmt: skip
RULES = (
    {},
    {"interval": 1},
    {"lowest": 2.0**10, "highest": 2.0**15},
    {"hysteresis": 2},
    {"hysteresis": 2, "options": 1 | 2 | 16},
    {"growth": 2.0 ** (1 / 7), "options": 2 | 4 | 16},
    {"options": 2 | 8 | 16},
    {"options": 2, "growth": 1.1, "interval": 1, "backoff": 0.3},
    {"options": 16, "growth": 2.0**127, "interval": 1},
    {"options": 2 | 16, "growth": 2.0**127, "interval": 1},
    {"growth": 1.1, "interval": 1, "backoff": 0.7},
    {"interval": 0},
)


def update_samples() -> Iterator[Arguments]:
    """Yield each rule with each verdict, from several states."""
    states = (
        (2.0**16, 2, 0, 0),
        (2.0**16, 1, 0, 1),
        (12.0, 0, 1, 1),
        (3.0, 0, 2, 1),
        (np.inf, 2, 0, 1),
        (np.nan, 2, 0, 1),
    )
    for rule, (scale, tracker, skips, met_bad), found in product(RULES, states, (0, 1)):
        yield {
            "scale": np.array([scale]), "growth_tracker": np.array([tracker]), "skips": np.array([skips]),
            "met_bad": np.array([met_bad], np.uint8), "new_scale": np.zeros(1),
            "new_growth_tracker": np.full(1, 7), "new_skips": np.full(1, 7),
            "new_met_bad": np.full(1, 7, np.uint8), "found": np.array([found], np.uint8), **RULE, **rule,
        }  # fmt: skip


KINDS_OF_GRADIENTS = (("float", "float"), ("half", "float"), ("bfloat16", "float"), ("double", "double"))
SAMPLES = {
    **{f"unscale_{grad}": partial(unscale_samples, grad, wide) for grad, wide in KINDS_OF_GRADIENTS},
    "update_scale": update_samples,
}

FINITE = "!is_finite(given.at[k]);"
BUGS = (
    Bug("the flag of the tensor is lost", "unscale_half", "atomicOr(found + chunk.tensor, 1);", ""),
    Bug("the flag of all is lost", "unscale_float", "atomicOr(found_any, 1);", ""),
    Bug("a flag is cleared", "unscale_half", "atomicOr(found_any, 1);", "*found_any = 0;"),
    Bug(
        "the flag is the next tensor's",
        "unscale_bfloat16",
        "found + chunk.tensor",
        "found + chunk.tensor + 1",
    ),
    Bug("-inf is missed", "unscale_half", FINITE, "widen(given.at[k]) > -7e4f && !is_finite(given.at[k]);"),
    Bug(
        "NaN is missed", "unscale_float", FINITE, "widen(given.at[k]) > 3e38f || widen(given.at[k]) < -3e38f;"
    ),
    Bug("the product is judged", "unscale_float", FINITE, "!is_finite(unscaled.at[k]);"),
    Bug("the gradient is judged", "unscale_float", "!is_finite(unscaled.at[k])", "!is_finite(given.at[k])"),
    Bug("a thread asks alone", "unscale_half", "__syncthreads_or(bad)", "bad"),
    Bug(
        "the tail is left out",
        "unscale_bfloat16",
        "bad |= unscale_lanes<1>(grad, out, times, of_products, i);",
        "",
    ),
    Bug("runs wherever the result begins", "unscale_half", "aligned(grad, out)", "aligned(grad)"),
    Bug(
        "lanes in 32 bits",
        "unscale_float",
        "unscale_lanes<8>(grad, out, times, of_products, lane)",
        "unscale_lanes<8>(grad, out, times, of_products, static_cast<int>(lane))",
    ),
    Bug("a chunk too few", "unscale_float", "(count + CHUNK - 1) / CHUNK", "count / CHUNK"),
    Bug(
        "the table begins at the second tensor",
        "unscale_half",
        "for (int tensor = 0;",
        "for (int tensor = 1;",
    ),
    Bug(
        "the table ends too early",
        "unscale_float",
        "tensor < TENSORS; ++tensor",
        "tensor < TENSORS - 1; ++tensor",
    ),
    Bug(
        "a quotient in float32",
        "unscale_half",
        "__double2float_rn(*factor)",
        "__fdiv_rn(1.0f, __double2float_rn(1.0 / *factor))",
    ),
    Bug("found_inf is ignored", "update_scale", "if (*found) {", "if (false) {"),
    Bug("S grows one step late", "update_scale", "tracker == interval", "tracker == interval + 1"),
    Bug("hysteresis counts one less", "update_scale", "bad_steps >= hysteresis", "bad_steps > hysteresis"),
    Bug("S leaves float32", "update_scale", "options & IN_FLOAT32 ?", "false ?"),
    Bug("a bad step is forgotten", "update_scale", "*found || *met_bad", "*found != 0"),
    Bug("S may become infinite", "update_scale", "(options & STAYS_FINITE) && !finite", "false"),
)
