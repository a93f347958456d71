"""Samples of losses.cu: rows of every kind of team, labels at their ends and none, weights, odd numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.losses import KERNELS, KINDS_SERVED
from tests.kernels.samples.base import Arguments, Bug
from tests.kernels.samples.rows import numbers, odd, sizes

SHAPES = ((6, 5), (2, 40), (1, 1), (1, 257), (2, 1020), (1, 4090), (1, 8190))
"""Short rows by warps, some in groups; then teams of 128, 512 and 1024 threads, all of which have work."""
LONG = (1, 9000)
"""More than a team can hold."""
SMOOTHING = 0.1


def labels_of(rows: int, length: int, seed: int) -> np.ndarray:
    """Return labels: the first class, the last, none, then any."""
    made = np.random.default_rng(seed).integers(0, length, rows)
    made[:3] = np.array([length - 1, 0, -1])[:rows]
    return made.astype(np.int64)


def shares(length: int, seed: int) -> Arguments:
    """Return what classes have in the loss: all or the label alone, weighted or not."""
    smooth = SMOOTHING if seed % 2 else 0.0
    spread = np.float32(smooth / length)
    weight = abs(numbers((length,), "float", seed + 90))
    weight[length // 2] = 0
    return {
        "weight": [weight][seed // 2 % 2 :],
        "peak": float(spread + np.float32(1 - smooth)), "spread": float(spread),
    }  # fmt: skip


def forward(x: np.ndarray, labels: np.ndarray, seed: int) -> Arguments:
    """Return the arguments of the loss."""
    made = {name: np.full(len(x), 7, np.float32) for name in ("losses", "tops", "log_sums")}
    return {"x": x, "labels": labels, **shares(x.shape[1], seed), **made, **sizes(*x.shape)}


def backward(x: np.ndarray, labels: np.ndarray, seed: int, grads: np.ndarray | None = None) -> Arguments:
    """Return the arguments of the gradient: one for all rows, or one for each."""
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        tops = np.fmax.reduce(wide, axis=1)
        log_sums = np.log(np.exp(wide - tops[:, None]).sum(1))
    if grads is None:
        grads = numbers((1 if seed % 3 else len(x),), "float", seed + 30)
    return {
        "x": x, "labels": labels, **shares(x.shape[1], seed), "tops": tops.astype(np.float32),
        "log_sums": log_sums.astype(np.float32), "grads": grads, "dx": np.full_like(x, 7),
        "each": int(len(grads) > 1), **sizes(*x.shape),
    }  # fmt: skip


def both(kind: str, make: Callable[..., Arguments]) -> Iterator[Arguments]:
    """Yield rows of every length, smoothed and not, and odd ones."""
    for seed, shape in enumerate((*SHAPES, LONG) if kind == "half" else SHAPES):
        yield make(numbers(shape, kind, seed, 2.0), labels_of(*shape, seed), seed)
    for seed in range(4):
        yield make(odd((8, 6), kind, seed), labels_of(8, 6, seed), seed)
    far = numbers((3, 9), kind, 9) - KINDS[kind].dtype.type(900)
    yield make(far, np.array([8, 3, 0]), 1)


def losses(kind: str) -> Iterator[Arguments]:
    """Yield those of :func:`both`; rows whose largest are zeros of both signs, and a row of NaN alone."""
    yield from both(kind, forward)
    zeros = (
        np.array([[0.0, -0.0], [-0.0, 0.0], [-0.0, -0.0], [np.nan] * 2])
        .repeat(20, 1)
        .astype(KINDS[kind].dtype)
    )
    yield forward(zeros, np.array([0, 39, 20, 1]), 0)


def gradients(kind: str) -> Iterator[Arguments]:
    """Yield those of :func:`both`, gradients that are not finite, and ones that are small in 16 bits."""
    yield from both(kind, backward)
    x, labels = numbers((5, 7), kind, 10, 2.0), labels_of(5, 7, 10)
    for seed in (0, 1):
        yield backward(x, labels, seed, np.array([np.nan, 1, np.inf, -np.inf, 1e-6], np.float32))
        yield backward(x, labels, seed, np.float32([3e-7]))


SAMPLES = {
    f"{name}_{kind}": make
    for kind in KINDS_SERVED
    for name, make in (
        ("cross_entropy", partial(losses, kind)),
        ("cross_entropy_gradient", partial(gradients, kind)),
    )
}
assert set(SAMPLES) == {kernel.name for kernel in KERNELS}

SMALL = {
    f"{name}_{kind}": most
    for name, most in (("cross_entropy", 530), ("cross_entropy_gradient", 790))
    for kind in KINDS_SERVED
}
"""Enough for a row of four warps, which meet at barriers."""

BUGS = (
    Bug("a largest number of its own for each thread", "cross_entropy_float",
        "    top = over_team<Largest>(team, top);\n", ""),
    Bug("a row without a label counts", "cross_entropy_half", "given < 0 ? 0.0f : 1.0f", "1.0f"),
    Bug("what is left out is looked up before the row", "cross_entropy_bfloat16",
        "label(given < 0 ? 0 : given)", "label(given)"),
    Bug("a share of 0 times infinity", "cross_entropy_float",
        "return share == 0.0f ? 0.0f : __fmul_rn(share, x);", "return __fmul_rn(share, x);"),
    Bug("weights behind the end", "cross_entropy_float",
        "place + i < length ? shares.times(place + i, mine) : 0.0f", "shares.times(place + i, mine)"),
    Bug("a logarithm that is not rounded", "cross_entropy_half",
        "loss = -shares.times(shares.label, stored<Element>(mine));",
        "loss = -shares.times(shares.label, mine);"),
    Bug("a fused sum of shares", "cross_entropy_float",
        "loss = __fadd_rn(loss, place + i < length ? shares.times(place + i, mine) : 0.0f);",
        "loss = place + i < length ? __fmaf_rn(shares.at(place + i), mine, loss) : loss;"),
    Bug("the first row of a block alone", "cross_entropy_bfloat16", "team.thread == 0", "threadIdx.x == 0"),
    Bug("the gradient of the first row for all", "cross_entropy_gradient_float",
        "grads[team.row * each]", "grads[0]"),
    Bug("a slope for every class", "cross_entropy_gradient_bfloat16",
        "(spread != 0.0f || place + i == shares.label)", "true"),
    Bug("the sum of slopes is taken for the label's", "cross_entropy_gradient_half",
        "        sum = over_team<Sum>(team, sum);\n    }\n    float held",
        "        sum = -shares.times(shares.label, grad);\n    }\n    float held"),
    Bug("the slope is rounded with the result alone", "cross_entropy_gradient_half",
        "counts ? stored<Element>(-shares.times(place + i, grad)) : 0.0f",
        "counts ? -shares.times(place + i, grad) : 0.0f"),
    Bug("groups wherever the gradient begins", "cross_entropy_gradient_half",
        "in_groups(length, x, dx)", "in_groups(length, x, x)"),
    Bug("rows counted in 32 bits", "cross_entropy_gradient_bfloat16",
        "dx += team.row * length;", "dx += static_cast<int>(team.row * length);"),
    Bug("a zero of either sign", "cross_entropy_float", "__fadd_rn(top, 0.0f)", "top"),
    Bug("the largest is taken off last", "cross_entropy_gradient_float",
        "const float y = stored<Element>(__fsub_rn(__fsub_rn(held[i], top), log_sum));",
        "const float y = stored<Element>(__fsub_rn(__fsub_rn(held[i], log_sum), top));"),
)  # fmt: skip
