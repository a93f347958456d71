"""Judging a model on data: in the formats of its recipe, summed in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import functional
from minimp.data import AnyDataset, TextDataset
from minimp.errors import SettingError
from minimp.fp8 import fp8_autocast
from minimp.modes import accumulate, no_grad
from minimp.nn import Linear, Module
from minimp.policy import autocast, in_region
from minimp.recipe import Recipe, recipes
from minimp.tensors import Tensor

__all__ = ["evaluate", "formats_of", "judging", "next_character_loss", "output_of"]

BATCH, TEXT_BATCH = 256, 32
"""Rows, and windows of text, that are computed at a time."""


def next_character_loss(scores: Any, targets: Any) -> Tensor:
    """Return the mean cross-entropy over all positions, in nats.  (B, T, V) scores, (B, T) codes -> ()."""
    return functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), targets.reshape(-1))


def evaluate(
    model: Module,
    dataset: AnyDataset,
    recipe: Recipe | str,
    *,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    batch_size: int | None = None,
    fp8_layers: Iterable[Linear] | None = None,
    watch: Callable[[npt.NDArray[np.float64], Any], None] | None = None,
) -> dict[str, float]:
    """Return how a model does on data that it is not trained on.

    Outputs are computed as the recipe says, in evaluation mode and without recording; from there on
    everything is float64. Neither the weights nor the random generator change.

    Args:
        model: in the recipe's `param_dtype`, as `TrainStep` leaves it.
        dataset: inputs (N, ...) and targets; or a text in windows.
        recipe: a Recipe, or the name of one.
        loss_fn: a mean over the batch; None takes cross-entropy for classes and for the characters of a text,
            mean squared error for values.
        batch_size: rows computed at a time; None takes 256, of a text 32 windows.
        fp8_layers: the layers that compute in FP8, where the recipe has it; None: every `nn.Linear`. Under
            delayed scaling they read by the scales that training left with them.
        watch: is given the outputs and the targets of each batch, in order.

    Returns:
        ``"test_loss"``, the mean over all rows, and for data with classes ``"test_accuracy"``: the share of
        rows whose largest score is the label's (of equal scores the first counts). A row with a NaN among its
        scores counts as wrong. For a text ``"test_loss"`` is in nats a character; ``"test_bits"`` is the
        same in bits (over ln 2), and ``"test_perplexity"`` its exponential.

    Raises:
        SettingError: an unknown recipe; `fp8_layers` where the recipe has no FP8.
    """
    chosen = recipes[recipe] if isinstance(recipe, str) else recipe
    text = isinstance(dataset, TextDataset)
    classifies = bool(dataset.num_classes) and not text
    loss_of = loss_fn or _loss_of(dataset)
    size = batch_size or (TEXT_BATCH if text else BATCH)
    total, right = 0.0, 0
    with judging(model), formats_of(chosen, fp8_layers):
        for start in range(0, len(dataset), size):
            inputs, targets = dataset[start : start + size]
            output = output_of(model, inputs, chosen)
            with in_region(None), accumulate("float64"):
                total += loss_of(output, targets).item() * len(inputs)
            right += _count_right(output, targets) if classifies else 0
            if watch is not None:
                watch(output.numpy(), targets)
    found = {"test_loss": total / len(dataset)}
    if text:
        return {"test_bits": found["test_loss"] / math.log(2.0), **found, **_perplexity(found["test_loss"])}
    return {"test_accuracy": right / len(dataset), **found} if classifies else found


def _loss_of(dataset: AnyDataset) -> Callable[[Any, Any], Tensor]:
    """Return the loss that a kind of targets asks for."""
    if isinstance(dataset, TextDataset):
        return next_character_loss
    return functional.cross_entropy if dataset.num_classes else functional.mse_loss


def _perplexity(nats: float) -> dict[str, float]:
    """Return e^nats: the number of equally likely characters that would be as hard to guess."""
    with np.errstate(over="ignore"):
        return {"test_perplexity": float(np.exp(nats))}


@contextmanager
def judging(model: Module) -> Iterator[None]:
    """Put a model in evaluation mode, unrecorded, and every module back in the mode it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            yield
    finally:
        for module, training in before:
            object.__setattr__(module, "training", training)  # of this module alone


@contextmanager
def formats_of(recipe: Recipe, fp8_layers: Iterable[Linear] | None = None) -> Iterator[None]:
    """Put the autocast region, the FP8 region and the accumulation of a recipe in force."""
    policy = recipe.policy
    region = in_region(None) if policy is None else autocast(recipe.compute_dtype, policy=policy)
    if recipe.fp8 is None and fp8_layers is not None:
        raise SettingError(f"recipe {recipe.name!r} has no FP8: fp8_layers cannot act")
    fp8 = fp8_autocast(recipe.fp8 is not None, recipe.fp8, layers=fp8_layers)
    with region, fp8, accumulate(recipe.accumulate):
        yield


def output_of(model: Module, inputs: Any, recipe: Recipe) -> Tensor:
    """Return the model's output on a batch, in float64."""
    leaf = next(chain(model.parameters(), model.buffers()))  # a model on codes has no parameters
    x: Any = Tensor.lift(inputs, leaf.backend)
    if recipe.policy is None and x.format is not None:
        x = x.to(recipe.compute_dtype)
    output: Tensor = model(x)
    return output.double()


def _count_right(output: Tensor, targets: Any) -> int:
    """Count the rows whose largest score, NaN being none, is that of their label."""
    scores = output.numpy()
    known = ~np.isnan(scores).any(axis=1)
    return int(np.count_nonzero(known & (scores.argmax(axis=1) == targets)))
