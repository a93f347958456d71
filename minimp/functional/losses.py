"""Losses of classes and of probabilities."""

from __future__ import annotations

from typing import Any

from minimp import ops
from minimp.errors import SettingError, ShapeError
from minimp.functional.common import as_the_policy_asks, labels_of
from minimp.functional.lifting import lifted_beside
from minimp.ops.fused_losses import cross_entropy_of_labels
from minimp.ops.reducing import check_reduction
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "kl_div", "nll_loss"]


def nll_loss(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-log_p[target]; (N, C), (N,); (C,), (); or (N, C, d1, ...), (N, d1, ...) -> () or the target's shape.

    Args:
        input: log-probabilities, classes along the second axis (the only one of a single sample).
        target: class indices; tensors or NumPy integers.
        weight: one factor per class, (C,).
        ignore_index: a label that counts for nothing.
        reduction: "mean" (over the sum of the weights of the labels), "sum" or "none".
    """
    scores = input if isinstance(input, Value) else Value.lift(input, None)
    labels = labels_of("nll_loss", target, scores)
    rows, flat = _rows("nll_loss", scores, labels)
    losses = ops.nll_loss(rows, flat, weight, reduction=reduction, ignore_index=ignore_index)
    return _shaped(losses, labels, reduction)


def cross_entropy(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-ln softmax(x)[target], or -sum over classes of t ln softmax(x).

    Args:
        input: scores, (N, C), (C,) or (N, C, d1, ...).
        target: class indices, (N,), () or (N, d1, ...), tensors or NumPy integers; or probabilities of the
            classes, floating and of input's shape.
        weight: one factor per class, (C,).
        ignore_index: a label that counts for nothing; cannot act on probabilities.
        reduction: "mean" (over the sum of the weights of the labels; with probabilities over the number of
            samples), "sum" or "none".
        label_smoothing: from 0 to 1: e takes (1 - e) target + e / C.

    Raises:
        SettingError: a setting out of range, or ignore_index beside probabilities.
        ShapeError: target and input do not fit. DataError: a label is no class.
    """
    if not 0.0 <= label_smoothing <= 1.0:
        raise SettingError(f"cross_entropy: expected label_smoothing from 0 to 1, got {label_smoothing}")
    check_reduction("cross_entropy", reduction)
    scores = input if isinstance(input, Value) else Value.lift(input, None)
    scores = as_the_policy_asks("cross_entropy_loss", scores)
    given = lifted_beside(scores, target)
    if given.format is not None and given.shape == scores.shape:
        if ignore_index >= 0:
            raise SettingError(
                f"cross_entropy: ignore_index={ignore_index} cannot act on class probabilities",
                help="leave it out, and set the probabilities of what is to be ignored to 0",
            )
        return _soft_cross_entropy(scores, given, weight, reduction, label_smoothing)
    labels = labels_of("cross_entropy", given, scores)
    rows, flat = _rows("cross_entropy", scores, labels)
    losses = cross_entropy_of_labels(
        rows, flat, weight,
        reduction=reduction, ignore_index=ignore_index, label_smoothing=label_smoothing,
    )  # fmt: skip
    return _shaped(losses, labels, reduction)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, reduction: str = "mean") -> Tensor:
    """-(t ln p + (1 - t) ln(1 - p)), logarithms held above -100; input and target of one shape, from 0 to 1.

    Refused under the autocast policy torch-cuda: float16's gradient at p near 0 overflows. Differences from
    torch: NaN is let through, so that a loss scaler can find it; the gradient by the target is that of what
    is computed, 100 at p = 0, where torch's is infinite.

    Args:
        input: probabilities.
        target: probabilities.
        weight: a factor that broadcasts to input; it gets no gradient.
        reduction: "mean" (over the number of terms), "sum" or "none".

    Raises:
        DataError: a number outside 0 to 1. ShapeError: shapes that differ. FormatError: inside autocast.
    """
    return ops.binary_cross_entropy(*_up_to_the_last(input, target, weight), reduction=reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """binary_cross_entropy of sigmoid(input), without overflow or loss of digits; float32 under autocast.

    Args:
        input: logits, of target's shape.
        target: probabilities.
        weight: a factor that broadcasts to input; it gets no gradient.
        reduction: "mean" (over the number of terms), "sum" or "none".
        pos_weight: v, a factor of the positive part, which broadcasts to input: above 1 for more recall.

    Raises:
        ShapeError: shapes that differ, or a weight that does not broadcast.
    """
    arrays = _up_to_the_last(input, target, weight, pos_weight)
    return ops.binary_cross_entropy_with_logits(*arrays, reduction=reduction)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """t (ln t - x) for log-probabilities x (Kullback and Leibler 1951); broadcasting, as torch's.

    Args:
        input: log-probabilities.
        target: probabilities, or their logarithms.
        reduction: "batchmean" divides the sum by input's first length, which gives the mean divergence;
            "mean" (the default, as in PyTorch 2.13, which warns of it) divides by the number of terms, which
            gives no divergence; "sum"; "none".
        log_target: whether target holds logarithms.

    Where t = 0 the term is 0 and the gradient by t is -inf (torch: NaN).
    """
    return ops.kl_div(input, target, log_target=log_target, reduction=reduction)


def _up_to_the_last(*arrays: Any) -> tuple[Any, ...]:
    """Return the arrays up to the last that is given."""
    last = max(i for i, array in enumerate(arrays) if array is not None)
    return arrays[: last + 1]


def _rows(name: str, scores: Value, labels: Value) -> tuple[Value, Value]:
    """Return scores (samples, C) and labels (samples,), in the order of the labels."""
    shape = scores.shape
    if len(shape) == 2:
        return scores, labels
    if not shape or labels.shape != (shape[:1] + shape[2:] if len(shape) > 1 else ()):
        raise ShapeError(
            f"expected scores (N, C, ...) and labels (N, ...), or (C,) and (), got {shape}, {labels.shape}",
            op=name, shapes=[shape, labels.shape],
        )  # fmt: skip
    flat = ops.reshape(labels, shape=(labels.array.size,))
    if len(shape) == 1:
        return ops.reshape(scores, shape=(1, *shape)), flat
    last = ops.permute(scores, dims=(0, *range(2, len(shape)), 1))
    return ops.reshape(last, shape=(labels.array.size, shape[1])), flat


def _shaped(losses: Tensor, labels: Value, reduction: str) -> Tensor:
    """Give a loss for each sample the shape of the labels."""
    if reduction != "none" or losses.shape == labels.shape:
        return losses
    return ops.reshape(losses, shape=labels.shape)


def _soft_cross_entropy(
    scores: Value, target: Value, weight: Any, reduction: str, label_smoothing: float
) -> Tensor:
    """-sum over classes of w t ln softmax(x): a composition, as torch's."""
    axis = 0 if len(scores.shape) == 1 else 1
    classes = scores.shape[axis]
    if label_smoothing:
        target = ops.add(ops.mul(target, 1 - label_smoothing), label_smoothing / classes)
    terms = ops.mul(ops.log_softmax(scores, dim=axis), target)
    if weight is not None:
        factors = lifted_beside(scores, weight)
        terms = ops.mul(terms, ops.reshape(factors, shape=(-1, *(1,) * (len(scores.shape) - axis - 1))))
    if reduction == "none":
        return ops.neg(ops.sum_(terms, dim=axis))
    total = ops.neg(ops.sum_(terms))
    samples = scores.array.size // classes if classes else 0
    return total if reduction == "sum" else ops.div(total, float(samples))
