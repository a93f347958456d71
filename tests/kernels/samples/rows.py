"""Samples of rows: every kind of team, sums whose order shows, odd numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import numpy as np

from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.rows import KERNELS, KINDS_SERVED
from tests.kernels.samples.base import Arguments, Bug

SHAPES = ((3, 5), (2, 40), (1, 1), (10, 7), (2, 256), (1, 257), (2, 1020), (1, 4090), (1, 8190))
"""Short rows by warps, some in groups; then teams of 128, 512 and 1024 threads, all of which have work."""
LONG = (1, 9000)
"""More than a team can hold."""
ODD = (np.nan, np.inf, -np.inf, -0.0, 1e-41, -3e4, 6e4)


def numbers(shape: tuple[int, ...], kind: str, seed: int, spread: float = 4.0) -> np.ndarray:
    """Return numbers whose magnitudes differ, so that another order of their sum differs."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal(shape) * 2.0 ** rng.uniform(-spread, spread, shape)
    return made.astype(KINDS[kind].dtype)


def odd(shape: tuple[int, ...], kind: str, seed: int) -> np.ndarray:
    """Return rows each of which has a number of its own kind; the last is -inf alone."""
    made = numbers(shape, kind, seed)
    with np.errstate(over="ignore"):
        made[: len(ODD), 1] = np.array(ODD).astype(made.dtype)
    made[-1] = -np.inf
    return made


def sizes(rows: int, length: int) -> Arguments:
    """Return the sizes of rows, as kernels take them."""
    return {"rows": rows, "length": length}


def shapes(kind: str, longest: str) -> tuple[tuple[int, int], ...]:
    """Return the shapes; one kind has the long row."""
    return (*SHAPES, LONG) if kind == longest else SHAPES


def softmaxes(kind: str) -> Iterator[Arguments]:
    """Yield rows of every length, and odd ones, for softmax and log_softmax."""
    for seed, shape in enumerate(shapes(kind, "half")):
        x = numbers(shape, kind, seed)
        yield {"x": x, "y": np.full_like(x, 7), "logs": seed % 2, **sizes(*shape)}
    far = numbers((3, 9), kind, 9) - KINDS[kind].dtype.type(900)
    yield {"x": far, "y": np.full_like(far, 7), "logs": 0, **sizes(3, 9)}
    for logs, seed in product((0, 1), (1, 2)):
        x = odd((8, 6), kind, seed)
        yield {"x": x, "y": np.full_like(x, 7), "logs": logs, **sizes(8, 6)}
    deep = np.linspace(-104, 0, 96, dtype=np.float32).astype(KINDS[kind].dtype).reshape(1, 96)
    yield {"x": deep, "y": np.full_like(deep, 7), "logs": 0, **sizes(1, 96)}  # down to subnormal results


def softmax_gradients(kind: str) -> Iterator[Arguments]:
    """Yield gradients beside results of rows of every length; infinite and NaN ones."""
    for seed, shape in enumerate(shapes(kind, "half")):
        grad, logs = numbers(shape, kind, seed), (seed + 1) % 2
        y = np.minimum(numbers(shape, kind, seed + 50, 2.0).astype(np.float32), 0.5).astype(grad.dtype)
        y = -abs(y) if logs else abs(y)
        yield {"grad": grad, "y": y, "dx": np.full_like(y, 7), "logs": logs, **sizes(*shape)}
    for logs in (0, 1):
        grad, y = odd((8, 6), kind, 3), -abs(numbers((8, 6), kind, 4))
        yield {"grad": grad, "y": y, "dx": np.full_like(y, 7), "logs": logs, **sizes(8, 6)}


def norms(kind: str) -> Iterator[Arguments]:
    """Yield rows of every length, with and without weight, bias and mean; constant rows; odd ones."""
    for seed, shape in enumerate(shapes(kind, "bfloat16")):
        weight, bias = (numbers(shape[1:], "float", seed + k) for k in (60, 70))
        x = numbers(shape, kind, seed)
        yield _norm(x, [weight][seed % 3 == 2 :], [bias][seed % 3 > 0 :], centred=seed % 4 != 3)
    yield _norm(odd((8, 6), kind, 5), [], [], centred=True)
    yield _norm(odd((8, 6), kind, 5), [numbers((6,), "float", 6)], [], centred=False)
    yield _norm(numbers((2, 16), kind, 14), *([numbers((16,), "float", k)] for k in (15, 16)), centred=True)
    flat = np.full((2, 9), 3, KINDS[kind].dtype)
    yield _norm(flat, [], [], centred=True, eps=0.0)
    yield _norm(np.zeros_like(flat), [], [numbers((9,), "float", 7)], centred=False)


def _norm(
    x: np.ndarray, weight: list[np.ndarray], bias: list[np.ndarray], *, centred: bool, eps: float = 1e-5
) -> Arguments:
    means = [np.full(len(x), 7, np.float32)] if centred else []
    return {
        "x": x, "weight": weight, "bias": bias, "y": np.full_like(x, 7), "means": means,
        "scales": np.full(len(x), 7, np.float32), "eps": eps, **sizes(*x.shape),
    }  # fmt: skip


def norm_gradients(kind: str) -> Iterator[Arguments]:
    """Yield gradients beside rows of every length, with and without weight and mean; odd ones."""
    for seed, shape in enumerate(shapes(kind, "bfloat16")):
        grad, x, weight = (numbers(shape, kind, seed + k) for k in (0, 20, 40))
        yield _norm_gradient(grad, x, [weight[0].astype(np.float32)][seed % 3 == 1 :], centred=seed % 3 != 2)
    grad, x = (numbers((2, 16), kind, k) for k in (17, 18))
    yield _norm_gradient(grad, x, [numbers((16,), "float", 19)], centred=True)
    plain = numbers((8, 6), kind, 9)
    yield _norm_gradient(odd((8, 6), kind, 8), plain, [], centred=True)
    yield _norm_gradient(plain, odd((8, 6), kind, 11), [], centred=True)
    yield _norm_gradient(plain, odd((8, 6), kind, 11), [], centred=False)


def _norm_gradient(grad: np.ndarray, x: np.ndarray, weight: list[np.ndarray], *, centred: bool) -> Arguments:
    kept = _kept(x, centred=centred)
    return {"grad": grad, "x": x, "weight": weight, **kept, "dx": np.full_like(x, 7), **sizes(*x.shape)}


def _kept(x: np.ndarray, *, centred: bool) -> Arguments:
    """What the forward has kept of rows."""
    wide = x.astype(np.float32)
    with np.errstate(all="ignore"):
        means = wide.mean(1) if centred else np.zeros(len(x), np.float32)
        scales = 1 / np.sqrt(((wide - means[:, None]) ** 2).mean(1) + np.float32(1e-5))
    return {"means": [means] if centred else [], "scales": scales}


def norm_columns(kind: str) -> Iterator[Arguments]:
    """Yield few rows and many, of one part and several, fewer columns than a warp and more."""
    for seed, (rows, length) in enumerate(((3, 5), (20, 5), (1, 40), (70, 33), (300, 100))):
        grad, x = (numbers((rows, length), kind, seed + k) for k in (0, 20))
        yield _columns(grad, x, with_bias=seed % 2 == 0, rows_each=12 if rows == 20 else 64)
    yield _columns(odd((8, 6), kind, 12), odd((8, 6), kind, 13), with_bias=True, rows_each=64)


def _columns(grad: np.ndarray, x: np.ndarray, *, with_bias: bool, rows_each: int) -> Arguments:
    parts = np.full((-(-len(x) // rows_each), 1 + with_bias, x.shape[1]), 7, np.float32)
    return {
        "grad": grad, "x": x, **_kept(x, centred=with_bias), "parts": parts, "with_bias": int(with_bias),
        **sizes(*x.shape), "rows_each": rows_each,
    }  # fmt: skip


def sums_of_parts() -> Iterator[Arguments]:
    """Yield some parts, one, and none."""
    for count, width in ((3, 7), (1, 5), (0, 4), (40, 300)):
        parts = numbers((count, width), "float", count)
        yield {"parts": parts, "totals": np.full(width, 7, np.float32), "count": count, "width": width}


MAKERS: dict[str, Callable[[str], Iterator[Arguments]]] = {
    "softmax": softmaxes, "softmax_gradient": softmax_gradients, "norm": norms,
    "norm_gradient": norm_gradients, "norm_columns": norm_columns,
}  # fmt: skip
SAMPLES = {
    kernel.name: partial(MAKERS[kernel.name.rpartition("_")[0]], kernel.parameters[0].kind)
    for kernel in KERNELS
    if kernel.name != "sum_parts"
} | {"sum_parts": sums_of_parts}

SMALL = {
    f"{name}_{kind}": most
    for name, most in {"softmax": 520, "softmax_gradient": 780, "norm": 1040, "norm_gradient": 1040}.items()
    for kind in KINDS_SERVED
}
"""Enough for a row of four warps, which meet at barriers."""

BUGS = (
    Bug("a largest number of its own for each thread", "softmax_float",
        "    top = over_team<Largest>(team, top);\n", ""),
    Bug("the largest begins at 0", "softmax_bfloat16",
        "float top = Largest::nothing();", "float top = 0.0f;"),
    Bug("the last stretch stays held", "softmax_half",
        "if (stretches > 1) {\n            read", "if (stretches > 9) {\n            read"),
    Bug("an exponential of the fast kind", "softmax_float",
        "power = exp_fixed(shifted)", "power = __expf(shifted)"),
    Bug("the sum of the gradient alone", "softmax_gradient_half",
        "logs ? g[i] : __fmul_rn(g[i], p[i])", "g[i]"),
    Bug("a fused product", "softmax_gradient_float",
        "__fsub_rn(g[i], __fmul_rn(exp_fixed(p[i]), sum))", "__fmaf_rn(-exp_fixed(p[i]), sum, g[i])"),
    Bug("a stage of the warp is missing", "norm_float", "other > 0; other /= 2", "other > 1; other /= 2"),
    Bug("the last warp's part is lost", "softmax_float",
        "lane < team.size / WARP ?", "lane < team.size / WARP - 1 ?"),
    Bug("half of the threads have work", "norm_float",
        "static_cast<int>(blockDim.x);\n", "static_cast<int>(blockDim.x) / 2;\n"),
    Bug("nobody waits for what was shared before", "norm_half",
        "    __syncthreads();  // what was here before has been read\n", ""),
    Bug("nobody waits for what is shared", "norm_gradient_half",
        "    __syncthreads();\n    const int lane", "    const int lane"),
    Bug("what lies behind the end counts", "norm_float",
        "there ? __fmul_rn(held[i], held[i]) : 0.0f", "__fmul_rn(held[i], held[i])"),
    Bug("eps outside of the root", "norm_bfloat16",
        "__fsqrt_rn(__fadd_rn(square, eps))", "__fadd_rn(__fsqrt_rn(square), eps)"),
    Bug("groups where rows do not begin with one", "norm_half",
        "length % HELD == 0 && ", "length > 0 && "),
    Bug("a sum in the place of a mean", "norm_gradient_float",
        "inner = __fdiv_rn(over_team<Sum>(team, inner), count);", "inner = over_team<Sum>(team, inner);"),
    Bug("the weight is left out", "norm_gradient_bfloat16", "h[i] = __fmul_rn(h[i], z[i]);", ""),
    Bug("one row more than a part has", "norm_columns_float", "row < end &&", "row <= end &&"),
    Bug("the last warp's rows are lost", "norm_columns_half", "other < WARPS;", "other < WARPS - 1;"),
    Bug("the bias in the place of the weight", "norm_columns_bfloat16",
        "(chunk * kinds + warp)", "(chunk * kinds)"),
    Bug("groups wherever the result begins", "softmax_half",
        "in_groups(length, x, y);", "in_groups(length, x, x);"),
    Bug("groups wherever a row begins", "softmax_gradient_bfloat16",
        "length % HELD == 0 && aligned(a, b, c, d)", "length % HELD == 0"),
    Bug("groups wherever the bias begins", "norm_bfloat16",
        "in_groups(length, x, y, weight, bias)", "in_groups(length, x, y, weight)"),
    Bug("groups wherever the weight begins", "norm_gradient_half",
        "in_groups(length, grad, x, dx, weight)", "in_groups(length, grad, x, dx)"),
    Bug("rows counted in 32 bits", "softmax_half",
        "x += team.row * length;", "x += static_cast<int>(team.row * length);"),
    Bug("places of columns in 32 bits", "norm_columns_float",
        "grad[row * length + column]", "grad[static_cast<int>(row * length) + column]"),
    Bug("parts counted in 32 bits", "sum_parts", "part * width + i", "static_cast<int>(part * width) + i"),
    Bug("the first part twice", "sum_parts",
        "float sum = 0.0f;\n        for (long long part",
        "float sum = parts[i];\n        for (long long part"),
)  # fmt: skip
