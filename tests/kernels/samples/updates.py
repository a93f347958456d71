"""Samples of updates.cu and advancing.cu: each setting of each rule, all that may be asked for beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.unscaling import CHUNK
from minimp_backends.kernels.families.updates import PAIRS
from minimp_backends.kernels.references.updates import FIRST, MAXIMIZES, NESTEROV, ON_GRID
from tests.kernels.samples.base import Arguments, Bug

FEW, SOME, MANY = (9, 4), (99, 64), (1, 3, 0, 4, 70, CHUNK, CHUNK + 6)
SGD = {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "options": 0}
BETA1, BETA2, STEP, LR = 0.9, 0.999, 3, 1e-3
ADAM = {
    "size": -LR / (1 - BETA1**STEP), "correction": (1 - BETA2**STEP) ** 0.5, "beta1": BETA1, "beta2": BETA2,
    "eps": 1e-8, "weight_decay": 0.0, "shrink": 0.0, "options": 0,
}  # fmt: skip
SGD_SETTINGS: tuple[Mapping[str, Any], ...] = (
    {},
    {"weight_decay": 0.01, "options": MAXIMIZES},
    {"momentum": 0.9, "options": FIRST},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "options": NESTEROV, "weight_decay": 1e-4},
    {"momentum": 0.7, "options": NESTEROV | MAXIMIZES | FIRST},
    {"weight_decay": 1e-60},  # 0 in float32, and there all the same: -0 + 0 is 0
)
ADAM_SETTINGS: tuple[Mapping[str, Any], ...] = (
    {},
    {"weight_decay": 0.01, "options": MAXIMIZES},
    {"shrink": LR * 0.01},
    {"beta1": 0.5, "beta2": 0.7, "eps": 1e-3},
    {"beta1": 0.3, "shrink": 0.1, "options": MAXIMIZES},
    {"size": -0.01, "correction": 1.0, "eps": 0.0},
)


def weights(rng: np.random.Generator, sizes: tuple[int, ...], low: str | None) -> list[np.ndarray]:
    """Return weights, on the grid of the low format where one is named."""
    drawn = [(rng.standard_normal(size) * 4).astype(np.float32) for size in sizes]
    for each in drawn:
        each[: each.size // 8] *= np.float32(1e-30)
    return drawn if low is None else [each.astype(KINDS[low].dtype).astype(np.float32) for each in drawn]


def gradients(rng: np.random.Generator, sizes: tuple[int, ...], grad: str) -> list[np.ndarray]:
    """Return gradients over many binades, zeros of both signs among them."""
    drawn = [rng.standard_normal(size) * 10.0 ** rng.integers(-7, 3, size) for size in sizes]
    for each in drawn:
        each[1:3] = [0.0, -0.0][: max(0, each.size - 1)]
    with np.errstate(over="ignore"):
        return [each.astype(KINDS[grad].dtype) for each in drawn]


def common(grad: str, low: str, sizes: tuple[int, ...], seed: int, asked: str) -> Arguments:
    """Return the tables that both rules have; `asked` names what is wanted beside the new weight."""
    rng = np.random.default_rng(seed)
    dtype = KINDS[low].dtype
    kahan, masters = "compensation" in asked, "low" in asked
    compensations = [(rng.standard_normal(size) * 1e-3).astype(dtype) for size in sizes]
    return {
        "weights": weights(rng, sizes, low if kahan or "grid" in asked else None),
        "grads": gradients(rng, sizes, grad),
        "news": [np.zeros(size, np.float32) for size in sizes],
        "changes": [np.ones(size, np.float32) for size in sizes] if "change" in asked else [],
        "lows": [np.zeros(size, dtype) for size in sizes] if masters or kahan or "grid" in asked else [],
        "compensations": compensations if kahan else [],
        "counts": list(sizes),
        "factor": [np.array([2.0**-8 / 3])] if "scaled" in asked else [],
        "found": [np.array(["found" in asked], np.uint8)] if "verdict" in asked else [],
    }


ASKED = (
    "low", "", "low scaled verdict", "low verdict found", "change low", "change verdict found",
    "grid low", "compensation grid", "compensation change", "compensation verdict found grid",
)  # fmt: skip


def options_of(setting: Mapping[str, Any], asked: str) -> int:
    """Return a setting's options, with what was asked for."""
    return setting.get("options", 0) | (ON_GRID if "grid" in asked else 0)


def sgd_samples(grad: str, low: str) -> Iterator[Arguments]:
    """Yield each setting on few elements and on many; each thing asked for with each setting."""
    for place, setting in enumerate(SGD_SETTINGS):
        for at, asked in enumerate(ASKED):  # few for the interpreter, which takes its time
            yield sgd(grad, low, FEW if at % 3 == place % 3 else SOME, place, asked, setting)
        yield sgd(grad, low, MANY, place, ASKED[place], setting)
    yield sgd(grad, low, (40,), 1, "low", {"momentum": 0.9, "dampening": 0.5}, first=1)
    yield sgd(grad, low, (40,), 1, "low verdict", {"momentum": 0.9, "dampening": 0.5}, first=0)
    odd = sgd(grad, low, (40,), 2, "low", {"momentum": 0.9})
    odd["grads"][0][:4], odd["weights"][0][4:6] = [np.inf, -np.inf, np.nan, 6e4], [np.inf, np.nan]
    yield odd
    part = sgd(grad, low, (40, 24), 3, "low change", {"momentum": 0.9})
    yield {**part, "counts": [33, 24]}


def sgd(
    grad: str, low: str, sizes: tuple[int, ...], seed: int, asked: str, setting: Mapping[str, Any],
    first: int | None = None,
) -> Arguments:  # fmt: skip
    """Return one step of SGD."""
    rng = np.random.default_rng(seed + 100)
    buffers = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    return {
        **common(grad, low, sizes, seed, asked), **SGD, **setting, "options": options_of(setting, asked),
        "buffers": buffers if setting.get("momentum") else [],
        "first": [] if first is None else [np.array([first], np.uint8)],
    }  # fmt: skip


def adam_samples(grad: str, low: str) -> Iterator[Arguments]:
    """Yield each setting on few elements and on many, with and without AMSGrad."""
    for place, setting in enumerate(ADAM_SETTINGS):
        for at, asked in enumerate(ASKED):
            sizes = FEW if at % 3 == place % 3 else SOME
            yield adam(grad, low, sizes, place, asked, setting, peaks=place % 2 == 1)
            yield adam(grad, low, SOME, place, asked, setting, peaks=place % 2 == 0)
        yield adam(grad, low, MANY, place, ASKED[place], setting, peaks=place % 2 == 0)
    given = [np.array([-2e-3, 0.125], np.float32)]
    yield adam(grad, low, (21,), 1, "low verdict", {}, peaks=False, numbers=given)
    odd = adam(grad, low, (21,), 2, "low", {"shrink": 0.01}, peaks=True)
    odd["grads"][0][:4], odd["weights"][0][4:6] = [np.inf, -np.inf, np.nan, 6e4], [np.inf, np.nan]
    odd["peaks"][0][6:8], odd["squares"][0][8:10] = np.nan, [np.nan, 1e-45]
    yield odd
    part = adam(grad, low, (40, 24), 3, "low change", {}, peaks=True)
    yield {**part, "counts": [33, 24]}


def adam(
    grad: str, low: str, sizes: tuple[int, ...], seed: int, asked: str, setting: Mapping[str, Any], *,
    peaks: bool, numbers: list[np.ndarray] | None = None,
) -> Arguments:  # fmt: skip
    """Return one step of Adam."""
    rng = np.random.default_rng(seed + 200)
    drawn = [rng.standard_normal(size).astype(np.float32) for size in sizes]
    squares = [(each * each * np.float32(1e-3)) for each in drawn]
    return {
        **common(grad, low, sizes, seed, asked), **ADAM, **setting, "options": options_of(setting, asked),
        "means": drawn, "squares": squares,
        "peaks": [each[::-1].copy() for each in squares] if peaks else [],
        "numbers": numbers or [],
    }  # fmt: skip


def advance_samples() -> Iterator[Arguments]:
    """Yield the first steps, late ones, a count that is kept elsewhere, a skipped step."""
    betas = ((0.9, 0.999), (0.0, 0.5), (0.95, 0.99999), (0.3, 1 - 1e-10))
    verdicts: tuple[tuple[list[np.ndarray], int], ...] = (
        ([], 0), ([np.zeros(1, np.uint8)], 1), ([np.ones(1, np.uint8)], 1),
    )  # fmt: skip
    for step in (1, 2, 3, 6, 9, 99, 1000, 12345, 2**20, 2**33 + 1):
        for (beta1, beta2), (found, by) in product(betas, verdicts):
            yield {
                "step": np.array([step]), "numbers": np.full(2, 7, np.float32), "found": found, "by": by,
                "lr": 3e-4, "beta1": beta1, "beta2": beta2,
            }  # fmt: skip


SAMPLES = {
    **{f"sgd_{grad}_{low}": partial(sgd_samples, grad, low) for grad, low in PAIRS},
    **{f"adam_{grad}_{low}": partial(adam_samples, grad, low) for grad, low in PAIRS},
    "adam_advance": advance_samples,
}

BUGS = (
    Bug("found_inf is ignored", "adam_float_half", "skips(found && *found)", "skips(false)"),
    Bug(
        "a skipped step leaves nothing in the new weight",
        "sgd_float_half",
        "store(to.fresh, lane, weight);",
        "",
    ),
    Bug(
        "a skipped step leaves nothing in the low copy",
        "adam_float_bfloat16",
        "low.at[k] = narrow(weight.at[k], Low());",
        "low.at[k] = narrow(0.0f, Low());",
    ),
    Bug(
        "beta2 for beta1",
        "adam_float_half",
        "single(beta1), single(__dsub_rn(1.0, beta1))",
        "single(beta2), single(__dsub_rn(1.0, beta1))",
    ),
    Bug(
        "1 - beta in float32",
        "adam_float_half",
        "single(__dsub_rn(1.0, beta2))",
        "__fsub_rn(1.0f, single(beta2))",
    ),
    Bug(
        "a fused multiply and add",
        "adam_float_half",
        "__fadd_rn(__fmul_rn(v, beta2), __fmul_rn(__fmul_rn(g, rest2), g))",
        "__fmaf_rn(v, beta2, __fmul_rn(__fmul_rn(g, rest2), g))",
    ),
    Bug(
        "left to contract",
        "sgd_half_half",
        "__fadd_rn(__fmul_rn(b.at[k], momentum), __fmul_rn(g, take))",
        "b.at[k] * momentum + g * take",
    ),
    Bug(
        "eps under the root",
        "adam_bfloat16_bfloat16",
        "__fadd_rn(__fdiv_rn(__fsqrt_rn(root), correction), eps)",
        "__fdiv_rn(__fsqrt_rn(__fadd_rn(root, eps)), correction)",
    ),
    Bug(
        "g^2 in another order",
        "adam_half_half",
        "__fmul_rn(__fmul_rn(g, rest2), g)",
        "__fmul_rn(__fmul_rn(g, g), rest2)",
    ),
    Bug("a NaN of the peak is lost", "adam_float_half", "|| is_nan(p.at[k])", ""),
    Bug("the mean always from the old one", "adam_float_bfloat16", "beta1 > 0.5", "true"),
    Bug(
        "the weight does not shrink", "adam_float_half", "kept(single(__dsub_rn(1.0, shrink)))", "kept(1.0f)"
    ),
    Bug(
        "lanes in 32 bits",
        "adam_float_bfloat16",
        "work.template run<4>(lane)",
        "work.template run<4>(static_cast<int>(lane))",
    ),
    Bug("the tail is left out", "adam_float_half", "work.template run<1>(i);", ""),
    Bug(
        "runs wherever the peak begins",
        "adam_half_half",
        "aligned(peak, to.fresh, to.change, to.low)",
        "aligned(to.fresh, to.change, to.low)",
    ),
    Bug(
        "runs wherever the compensation begins",
        "sgd_float_bfloat16",
        "aligned(to.fresh, to.change, to.low, to.compensation)",
        "aligned(to.fresh, to.change, to.low)",
    ),
    Bug(
        "one lane too many",
        "sgd_float_half",
        "work.is_aligned() ? chunk.end / 4 : 0",
        "work.is_aligned() ? (chunk.end + 3) / 4 : 0",
    ),
    Bug(
        "the second tensor takes the gradient of the first",
        "sgd_float_bfloat16",
        "grad = grads.at[t];",
        "grad = grads.at[t == 1 ? 0 : t];",
    ),
    Bug("the first step is not asked for", "sgd_float_bfloat16", "|| (first.at[0] && *first.at[0])", ""),
    Bug(
        "Nesterov from the gradient",
        "sgd_half_half",
        "__fadd_rn(g, __fmul_rn(b.at[k], momentum))",
        "__fadd_rn(g, __fmul_rn(g, momentum))",
    ),
    Bug("1/S is forgotten", "adam_half_half", "factor(factor ? single(*factor) : 1.0f)", "factor(1.0f)"),
    Bug(
        "the low copy of the old weight",
        "sgd_bfloat16_bfloat16",
        "low.at[k] = narrow(fresh.at[k], Low());",
        "low.at[k] = narrow(w, Low());",
    ),
    Bug(
        "the compensation is added",
        "adam_float_bfloat16",
        "__fsub_rn(change.at[k], widen(compensation.at[k]))",
        "__fadd_rn(change.at[k], widen(compensation.at[k]))",
    ),
    Bug(
        "Kahan keeps what was due",
        "sgd_float_half",
        "__fsub_rn(__fsub_rn(grid, w), due)",
        "__fsub_rn(due, __fsub_rn(grid, w))",
    ),
    Bug("a skipped step counts", "adam_advance", "|| (found.at[0] && *found.at[0])", ""),
    Bug("each step counts twice", "adam_advance", "*step = t;", "*step = t + by;"),
    Bug("the power of the step before", "adam_advance", "power(beta1, t)", "power(beta1, t - 1)"),
    Bug(
        "a power of float64",
        "adam_advance",
        "return {sum, __dsub_rn(error, __dsub_rn(sum, product))};",
        "return {sum, 0.0};",
    ),
)
