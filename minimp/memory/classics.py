"""What is often said of memory in mixed precision, held against a count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from minimp.memory.applying import inference
from minimp.memory.forecasting import forecast
from minimp.memory.records import Ledger
from minimp.nn import Module
from minimp.optim import SGD, Adam, Optimizer
from minimp.recipe import Recipe, recipes
from minimp.tensors import Tensor

__all__ = ["Claim", "claims"]

PAPER = "Micikevicius et al. 2018, arXiv 1710.03740, "
HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold"
TOLERANCE = 0.1
"""How far from a half a ratio may be, relatively, and still count as one."""


@dataclass(frozen=True)
class Claim:
    """One saying about memory, and what is counted on a model.

    Attributes:
        name: what it is about.
        said: the saying.
        source: who says it.
        arithmetic: the bytes, and what is made of them.
        value: the figure: a ratio, or bytes a parameter.
        verdict: ``"holds"``, ``"holds in part"`` or ``"does not hold"``, for this model and batch.
    """

    name: str
    said: str
    source: str
    arithmetic: str
    value: float
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def claims(
    model: Module | Callable[[], Module], inputs: Any, targets: Any,
    loss_fn: Callable[[Any, Any], Tensor], *, mixed: Recipe | str = "mixed-fp16", backend: str | None = None,
) -> list[Claim]:  # fmt: skip
    """Count what mixed precision does to the memory of training a model; nothing is allocated.

    Args:
        model, inputs, targets, loss_fn: as for :func:`minimp.memory.forecast`.
        mixed: a recipe with FP32 masters under autocast, or its name; compared with "fp32".
        backend: whose memory, as for :func:`minimp.memory.forecast`.
    """
    recipe = recipes[mixed] if isinstance(mixed, str) else mixed

    def run(recipe: Recipe, optimizer: Callable[[Any], Optimizer] = Adam) -> Ledger:
        return forecast(model, recipe, optimizer, inputs, targets, loss_fn, backend=backend)

    single = recipes["fp32"]
    low = recipe.compute_dtype
    stored = replace(recipe, name=f"{recipe.name}, weights stored low", param_dtype=low)
    plain, both = run(single), run(recipe)
    weights = [inference(model, inputs, each).weights for each in (single.compute_dtype, low)]
    return [
        *_about_activations(plain, both),
        *_about_weights(run(single, _momentum), run(recipe, _momentum), plain, both, run(stored)),
        Claim(
            "inference", f"weights in {low.name} halve what a model takes to be applied",
            PAPER + "section 2; model.half()",
            f"{weights[1]:,} / {weights[0]:,} bytes of parameters and buffers",
            *_half(weights[1], weights[0]),
        ),
        Claim(
            "total", "the memory of training is roughly halved", PAPER + "section 3.1",
            f"{both.total:,} / {plain.total:,} bytes in all, Adam's state among them",
            *_half(both.total, plain.total),
        ),
    ]  # fmt: skip


def _momentum(params: Any) -> SGD:
    return SGD(params, momentum=0.9)


def _about_activations(plain: Ledger, both: Ledger) -> Iterator[Claim]:
    before, after, copies = plain.activations, both.activations, both.logical.low_copies
    yield Claim(
        "activations", "16 bits halve what is saved for backward", PAPER + "section 3.1",
        f"{after:,} / {before:,} bytes saved", *_half(after, before),
    )  # fmt: skip
    yield Claim(
        "activations and copies",
        "and the low copies of the weights, kept for backward beside them, change little",
        "autocast's weight cache (PyTorch 2.13)",
        f"({after:,} + {copies:,}) / {before:,} bytes", *_half(after + copies, before),
    )  # fmt: skip


def _about_weights(
    plain_sgd: Ledger, both_sgd: Ledger, plain: Ledger, both: Ledger, stored: Ledger
) -> Iterator[Claim]:
    each, low = stored.logical.masters / stored.elements, stored.logical.parameters / stored.elements
    yield Claim(
        "masters", "FP32 masters add 4 bytes a parameter: weights take half as much again as in FP32",
        PAPER + "section 3.1",
        f"{stored.logical.masters:,} bytes / {stored.elements:,} parameters; "
        f"({low:.1f} + {each:.1f}) / 4 = {(low + each) / 4:.2f}",
        each, HOLDS if abs(each - 4) < TOLERANCE else FAILS,
    )  # fmt: skip
    for name, before, after in (("SGD with momentum", plain_sgd, both_sgd), ("Adam", plain, both)):
        old, new = _state(before), _state(after)
        yield Claim(
            f"state, {name}", "what is kept for each parameter does not shrink", "arithmetic",
            f"{_terms(before)} = {old:.0f} bytes a parameter in FP32, {_terms(after)} = {new:.0f} mixed",
            new / old, HOLDS if new >= old else FAILS,
        )  # fmt: skip


def _state(held: Ledger) -> float:
    """Return bytes a parameter: weights, copies, gradients and optimizer state."""
    return sum(_parts(held)) / held.elements


def _parts(held: Ledger) -> list[int]:
    logical = held.logical
    return [logical.masters or logical.parameters, logical.low_copies, logical.gradients, logical.optimizer]


def _terms(held: Ledger) -> str:
    return " + ".join(f"{part / held.elements:.0f}" for part in _parts(held) if part)


def _half(after: int, before: int) -> tuple[float, str]:
    """Return the ratio, and how far it is a half."""
    ratio = after / before if before else 1.0
    near = abs(ratio - 0.5) <= 0.5 * TOLERANCE
    return ratio, HOLDS if near or ratio < 0.5 else PARTLY if ratio < 0.95 else FAILS
