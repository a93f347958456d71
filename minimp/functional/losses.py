"""Losses: what a model's output is judged by."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.errors import SettingError
from minimp.functional.common import as_the_policy_asks, labels_of
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["cross_entropy", "mse_loss", "nll_loss"]


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """mean (x - t)^2; shapes must be equal (torch broadcasts, with a warning)."""
    return ops.mse_loss(input, target, reduction=reduction)


def nll_loss(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-log_p[target]; (N, C), (N,) -> () or (N,)."""
    scores = input if isinstance(input, Value) else Value.lift(input, None)
    labels = labels_of("nll_loss", target, scores)
    return ops.nll_loss(scores, labels, weight, reduction=reduction, ignore_index=ignore_index)


def cross_entropy(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-ln softmax(x)[target]; (N, C) or (C,) scores, integer labels (N,) or ().

    Args:
        input: scores.
        target: class indices; tensors or NumPy integers (class probabilities are not offered).
        weight: one factor per class, (C,).
        ignore_index: a label whose rows count for nothing.
        reduction: "mean" (weighted), "sum" or "none".
        label_smoothing: from 0 to 1.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise SettingError(f"cross_entropy: expected label_smoothing from 0 to 1, got {label_smoothing}")
    scores = input if isinstance(input, Value) else Value.lift(input, None)
    scores = as_the_policy_asks("cross_entropy_loss", scores)
    labels = labels_of("cross_entropy", target, scores)
    single = scores.array.ndim == 1
    if single:
        scores, labels = scores.reshape(1, -1), labels.reshape(1)  # type: ignore[attr-defined]  # what is lifted is a Tensor
    losses = ops.nll_loss(
        ops.log_softmax(scores, dim=1), labels, weight,
        reduction=reduction, ignore_index=ignore_index, label_smoothing=label_smoothing,
    )  # fmt: skip
    return losses.reshape() if single and reduction == "none" else losses
