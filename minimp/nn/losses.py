"""Losses of classes and of probabilities; the maths is in :mod:`minimp.functional.losses`."""

from __future__ import annotations

from typing import Any, ClassVar

from minimp import functional
from minimp.errors import SettingError, unknown_name
from minimp.nn.module import Module
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "KLDivLoss", "Loss", "NLLLoss"]

REDUCTIONS = ("mean", "sum", "none")


class Loss(Module):
    """What every loss has: how the terms of a batch become one number."""

    known: ClassVar[tuple[str, ...]] = REDUCTIONS

    def __init__(self, reduction: str) -> None:
        super().__init__()
        if reduction not in self.known:
            raise SettingError(unknown_name("reduction", reduction, self.known), op=self._name())
        self.reduction = reduction


class _ClassLoss(Loss):
    """What losses over classes share: a weight per class, and a label that counts for nothing."""

    weight: Tensor | None

    def __init__(self, weight: Any, ignore_index: int, reduction: str) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", _lifted(weight))
        self.ignore_index = ignore_index


class NLLLoss(_ClassLoss):
    """-log_p[target] of log-probabilities (N, C, ...) or (C,) and labels (N, ...) or ().

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
    """-ln softmax(x)[target] of scores (N, C), (C,) or (N, C, d1, ...) and labels (N,), () or (N, d1, ...).

    Or, with class probabilities of the shape of the scores, -sum over classes of t ln softmax(x).

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
        """Return the loss of scores and labels, or class probabilities."""
        return functional.cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class BCELoss(Loss):
    """-(t ln p + (1 - t) ln(1 - p)) of probabilities; see :func:`minimp.functional.binary_cross_entropy`.

    Args:
        weight: a factor that broadcasts to the probabilities; kept as a buffer.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        SettingError: another reduction.
    """

    weight: Tensor | None

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", _lifted(weight))

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of probabilities and targets of one shape."""
        return functional.binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(Loss):
    """BCELoss of sigmoid(x); see :func:`minimp.functional.binary_cross_entropy_with_logits`.

    Args:
        weight: a factor that broadcasts to the logits; kept as a buffer.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: a factor of the positive part, that broadcasts to the logits; kept as a buffer.

    Raises:
        SettingError: another reduction.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", _lifted(weight))
        self.register_buffer("pos_weight", _lifted(pos_weight))

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of logits and targets of one shape."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, self.reduction, self.pos_weight
        )


class KLDivLoss(Loss):
    """t (ln t - x) for log-probabilities x; see :func:`minimp.functional.kl_div`.

    Args:
        reduction: ``"batchmean"`` for the mean divergence, ``"mean"`` (over all terms, torch's default),
            ``"sum"`` or ``"none"``.
        log_target: whether targets are logarithms.

    Raises:
        SettingError: another reduction.
    """

    known = (*REDUCTIONS, "batchmean")

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Any, target: Any) -> Tensor:
        """Return the loss of log-probabilities and targets."""
        return functional.kl_div(input, target, self.reduction, self.log_target)


def _lifted(weight: Any) -> Any:
    return None if weight is None else Value.lift(weight, None)
