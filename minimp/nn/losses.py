"""Losses as modules; the maths is in :mod:`minimp.ops.losses`."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.errors import SettingError, unknown_name
from minimp.nn.module import Module
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["CrossEntropyLoss", "MSELoss", "NLLLoss"]

REDUCTIONS = ("mean", "sum", "none")


class _Loss(Module):
    """What every loss has: how the terms of a batch become one number."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise SettingError(unknown_name("reduction", reduction, REDUCTIONS), op=self._name())
        self.reduction = reduction


class _ClassLoss(_Loss):
    """What losses over classes share: a weight per class, and a label that counts for nothing."""

    weight: Tensor | None

    def __init__(self, weight: Any, ignore_index: int, reduction: str) -> None:
        super().__init__(reduction)
        lifted: Any = None if weight is None else Value.lift(weight, None)
        self.register_buffer("weight", lifted)
        self.ignore_index = ignore_index


class MSELoss(_Loss):
    """mean (x - t)^2 over all elements.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of two tensors of one shape."""
        return functional.mse_loss(input, target, reduction=self.reduction)


class NLLLoss(_ClassLoss):
    """-log_p[target] of log-probabilities (N, C) and labels (N,).

    Args:
        weight: one factor per class, (C,); kept as a buffer.
        ignore_index: a label whose rows count for nothing.
        reduction: ``"mean"`` (divided by the sum of the weights of the labels), ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight, ignore_index, reduction)

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of log-probabilities and labels."""
        return functional.nll_loss(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction
        )


class CrossEntropyLoss(_ClassLoss):
    """-ln softmax(x)[target] of scores (N, C) or (C,) and integer labels (N,) or ().

    Args:
        weight: one factor per class, (C,); kept as a buffer.
        ignore_index: a label whose rows count for nothing.
        reduction: ``"mean"`` (divided by the sum of the weights of the labels), ``"sum"`` or ``"none"``.
        label_smoothing: from 0 to 1; the target becomes (1 - e) onehot + e / C.

    Raises:
        SettingError: another reduction, or smoothing out of range.
    """

    def __init__(
        self,
        weight: Any = None,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        if not 0.0 <= label_smoothing <= 1.0:
            raise SettingError(
                f"expected label_smoothing from 0 to 1, got {label_smoothing}", op=self._name()
            )
        self.label_smoothing = label_smoothing

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of scores and labels."""
        return functional.cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
