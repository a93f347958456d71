"""Samples of bias.cu, activations.cu and gelu.cu: where formulas bend, whole runs, and what is left over."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from minimp_backends.kernels.declaring import KINDS, Kernel
from minimp_backends.kernels.families.activations import KERNELS
from tests.kernels.samples.base import Arguments, Bug

Array = np.ndarray
BENDS = (0.25, 0.5, 0.625, 1, 2, 3.5, 5, 9, 13, 20, 90, 110, 300, 6e4)
TINY = (2.0**-149, 2.0**-140, 2.0**-126, 2.0**-24, 2.0**-14, 1e-3)
BYTES = 48  # of a whole number of runs


def odd() -> Array:
    """Return numbers of both signs at which a formula changes, infinities, NaN and zeros."""
    sizes = np.array([0, *TINY, *BENDS, 3e38, np.inf, np.nan])
    return np.concatenate([sizes, -sizes])


def stored(numbers: Array, kind: str) -> Array:
    """Return numbers as a kernel gets them."""
    with np.errstate(all="ignore"):
        return numbers.astype(KINDS[kind].dtype)


def inputs(kind: str, count: int) -> Iterator[tuple[Array, ...]]:
    """Yield `count` arrays of one size: few and many, one number, none, a run and one more."""
    rng = np.random.default_rng(count)
    some = odd()
    yield tuple(stored(np.roll(some, 7 * place), kind) for place in range(count))
    for size in (1, BYTES // KINDS[kind].dtype.itemsize + 1, 0):
        yield tuple(stored(rng.standard_normal(size), kind) for _ in range(count))
    spread = 2.0 ** rng.uniform(-12, 4, (count, 999))
    yield tuple(stored(each, kind) for each in rng.standard_normal((count, 999)) * spread)


def activation_samples(kernel: Kernel) -> Iterator[Arguments]:
    """Yield the arguments of values or gradients; flags where a kernel is told signs alone."""
    names = [each.name for each in kernel.parameters if each.role == "in"]
    flags = any(each.kind == "uint8" for each in kernel.parameters)
    for found in inputs(kernel.parameters[0].kind, len(names)):
        given = dict(zip(names, found, strict=True))
        if flags:
            given["kept"] = (np.arange(given["kept"].size) % 3 == 0).astype(np.uint8)
        sloped = any(each.name == "slope" for each in kernel.parameters)
        for slope in (0.01, -3.0) if sloped else (0.0,):
            rest = {"slope": slope} if sloped else {}
            yield {**given, "target": np.full_like(found[0], 7), **rest, "count": found[0].size}


def add_bias_samples(kind: str) -> Iterator[Arguments]:
    """Yield rows and images of several sizes, so that a run of 16 bytes has several channels, and one."""
    rng = np.random.default_rng(3)
    for outer, channels, inner in ((5, 3, 1), (1, 17, 1), (2, 5, 3), (3, 2, 19), (7, 1, 1), (0, 4, 2)):
        yield bias(kind, rng.standard_normal((outer, channels, inner)), rng.standard_normal(channels))
    whole = bias(kind, rng.standard_normal((9, 64, 5)), rng.standard_normal(64))
    yield whole
    some = odd()
    yield bias(kind, some[:, None, None], stored(np.float32([1.0]), kind))
    yield bias(kind, np.repeat(some[:6, None, None], some.size, 1), some)


def bias(kind: str, sums: Array, numbers: Array) -> Arguments:
    """Return the arguments of an addition of one number to each channel of (outer, channels, inner)."""
    return {
        "sums": stored(sums, "float"), "bias": stored(numbers, kind),
        "target": np.full(sums.shape, 7, KINDS[kind].dtype), "inner": sums.shape[2],
        "channels": sums.shape[1], "count": sums.size,
    }  # fmt: skip


def _samples(kernel: Kernel) -> Iterator[Arguments]:
    if kernel.name.startswith("add_bias"):
        return add_bias_samples(kernel.parameters[1].kind)
    return activation_samples(kernel)


SAMPLES = {kernel.name: partial(_samples, kernel) for kernel in KERNELS}

BUGS = (
    Bug("a channel too far", "add_bias_half",
        "channel + 1 == channels ? 0 : channel + 1", "channel + 1"),
    Bug("the channel of the run's first element throughout", "add_bias_bfloat16",
        "if (--left == 0)", "if (left == 0)"),
    Bug("channels counted without their width", "add_bias_float", "row % channels", "lane * N % channels"),
    Bug("the sum rounded before the bias", "add_bias_half",
        "__fadd_rn(from.at[k], widen(bias[channel]))",
        "__fadd_rn(widen(narrow(from.at[k], Element())), widen(bias[channel]))"),
    Bug("NaN becomes 0", "relu_half", "return x <= 0.0f ? 0.0f : x;", "return x > 0.0f ? x : 0.0f;"),
    Bug("the gradient passes at 0", "relu_gradient_float",
        "return y <= 0.0f ? 0.0f : g;", "return y < 0.0f ? 0.0f : g;"),
    Bug("the slope above 0 too", "leaky_relu_gradient_bfloat16",
        "return positive ? g : __fmul_rn(g, slope);", "return __fmul_rn(g, slope);"),
    Bug("below 0 as above", "sigmoid_float",
        "x >= 0.0f ? 1.0f : e,", "1.0f,"),
    Bug("the slope turned round", "sigmoid_gradient_half",
        "__fmul_rn(__fmul_rn(g, y), __fsub_rn(1.0f, y))", "__fmul_rn(__fmul_rn(g, y), __fsub_rn(y, 1.0f))"),
    Bug("the sign of tanh is lost", "tanh_bfloat16", "return tanh_fixed(x);", "return fabsf(tanh_fixed(x));"),
    Bug("1 - y", "tanh_gradient_float",
        "__fmul_rn(g, __fsub_rn(1.0f, __fmul_rn(y, y)))", "__fmul_rn(g, __fsub_rn(1.0f, y))"),
    Bug("the gate alone", "silu_half", "__fmul_rn(x, logistic(x))", "logistic(x)"),
    Bug("a fused multiply and add", "silu_gradient_float",
        "__fadd_rn(1.0f, __fmul_rn(x, __fsub_rn(1.0f, s)))", "__fmaf_rn(x, __fsub_rn(1.0f, s), 1.0f)"),
    Bug("half of 1 + erf, less a quarter", "gelu_float",
        "__fadd_rn(1.0f, erf_fixed(", "__fadd_rn(0.5f, erf_fixed("),
    Bug("no density", "gelu_gradient_bfloat16",
        "__fadd_rn(below(x), __fmul_rn(x, density))", "__fadd_rn(below(x), density)"),
    Bug("the cube's coefficient", "gelu_tanh_float", "0x1.6e4e26p-5f", "0x1.6e4e28p-5f"),
    Bug("the slope of the cube without its 3", "gelu_tanh_gradient_half", "0x1.12ba9ep-3f", "0x1.6e4e26p-5f"),
    Bug("runs wherever the flags begin", "leaky_relu_gradient_half",
        "aligned(grad, kept, target)", "aligned(grad, target)"),
    Bug("runs wherever the result begins", "add_bias_bfloat16", "aligned(sums, target)", "aligned(sums)"),
    Bug("elements counted in 31 bits", "add_bias_half", "const unsigned int row = lane * N / inner;",
        "const unsigned int row = static_cast<int>(lane * N) / static_cast<int>(inner);"),
    Bug("what is left over, counted in 32 bits", "tanh_half", "NEIGHBOURS * lanes + first_element(); i",
        "static_cast<int>(NEIGHBOURS * lanes) + first_element(); i"),
    Bug("what is left over is left out", "leaky_relu_half",
        "values(LeakyRelu{slope}, source, target, count);",
        "values(LeakyRelu{slope}, source, target, count / 8 * 8);"),
)  # fmt: skip
