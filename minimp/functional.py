"""torch.nn.functional's names and arguments over minimp's ops.

Index and label arguments may be NumPy integer arrays. Differences from PyTorch 2.13 are stated in the
docstring of the function they concern; where none is, there is none that we know of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minimp import formats, ops
from minimp.door import cast_in_region
from minimp.errors import DataError, SettingError
from minimp.formats import Format
from minimp.modes import MODES
from minimp.policy import CastClass, compute_formats
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = [
    "avg_pool2d", "cat", "conv2d", "cross_entropy", "dropout", "exp", "gelu", "layer_norm", "linear", "log",
    "log_softmax", "max_pool2d", "mse_loss", "nll_loss", "relu", "rms_norm", "sigmoid", "softmax", "sqrt",
    "tanh", "vector_norm",
]  # fmt: skip

Pair = int | Sequence[int]


def linear(input: Any, weight: Any, bias: Any = None) -> Tensor:
    """y = x W^T + b.  (..., in), (out, in), (out,) -> (..., out); one rounding, after the bias."""
    return ops.linear(input, weight) if bias is None else ops.linear(input, weight, bias)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Pair = 1, padding: Pair | str = 0,
    dilation: Pair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation.  (N, C, H, W), (O, C/groups, kH, kW), (O,) -> (N, O, H', W').

    Args:
        input, weight, bias: tensors of one format (outside autocast).
        stride, dilation: one number or a pair, at least 1.
        padding: zeros on each side, one number or a pair; "valid" is none, "same" keeps H and W
            (stride 1 and an odd reach of the kernel only).
        groups: channels are split in this many independent groups.
    """
    strides, dilations = _pair("stride", stride), _pair("dilation", dilation)
    if isinstance(padding, str):
        padding = _named_padding(padding, weight.shape[2:], strides, dilations)
    arrays = (input, weight) if bias is None else (input, weight, bias)
    return ops.conv2d(
        *arrays, stride=strides, padding=_pair("padding", padding, least=0), dilation=dilations, groups=groups
    )


def _named_padding(name: str, kernel: Sequence[int], stride: Pair, dilation: Sequence[int]) -> Pair:
    if name == "valid":
        return 0
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if name != "same" or stride != (1, 1) or any(r % 2 for r in reach):
        raise SettingError(
            f"conv2d: padding {name!r} cannot act with stride {stride} and a kernel of {tuple(kernel)}",
            help="'same' needs stride 1 and an odd reach; else give the padding as numbers",
        )
    return [r // 2 for r in reach]


def max_pool2d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
    dilation: Pair = 1, ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """The largest element of each window; (N, C, H, W) -> (N, C, H', W')."""
    return ops.max_pool2d(
        input, kernel=_pair("kernel_size", kernel_size),
        stride=_pair("stride", kernel_size if stride is None else stride),
        padding=_pair("padding", padding, least=0), dilation=_pair("dilation", dilation), ceil_mode=ceil_mode,
    )  # fmt: skip


def avg_pool2d(
    input: Any, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0,
    ceil_mode: bool = False, count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """The mean of each window; (N, C, H, W) -> (N, C, H', W')."""
    return ops.avg_pool2d(
        input, kernel=_pair("kernel_size", kernel_size),
        stride=_pair("stride", kernel_size if stride is None else stride),
        padding=_pair("padding", padding, least=0), ceil_mode=ceil_mode, count_include_pad=count_include_pad,
    )  # fmt: skip


def relu(input: Any) -> Tensor:
    """max(x, 0)."""
    return ops.relu(input)


def tanh(input: Any) -> Tensor:
    """tanh x."""
    return ops.tanh(input)


def sigmoid(input: Any) -> Tensor:
    """1 / (1 + e^-x)."""
    return ops.sigmoid(input)


def gelu(input: Any, approximate: str = "none") -> Tensor:
    """x Phi(x); approximate "none" (by erf) or "tanh"."""
    return ops.gelu(input, approximate=approximate)


def exp(input: Any) -> Tensor:
    """e^x."""
    return ops.exp(input)


def log(input: Any) -> Tensor:
    """ln x."""
    return ops.log(input)


def sqrt(input: Any) -> Tensor:
    """The square root."""
    return ops.sqrt(input)


def cat(tensors: Sequence[Any], dim: int = 0) -> Tensor:
    """Join tensors along an existing axis."""
    if not len(tensors):
        raise SettingError("cat: expected at least one tensor, got none")
    return ops.cat(*tensors, dim=dim)


def softmax(input: Any, dim: int = -1, dtype: Any = None) -> Tensor:
    """e^x / sum e^x over `dim` (torch's `dim=None` guesses; here the default is the last axis)."""
    return ops.softmax(input, dim=dim, dtype=_format(dtype))


def log_softmax(input: Any, dim: int = -1, dtype: Any = None) -> Tensor:
    """ln softmax over `dim` (torch's `dim=None` guesses; here the default is the last axis)."""
    return ops.log_softmax(input, dim=dim, dtype=_format(dtype))


def layer_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(var + eps) w + b over the last axes, those of `normalized_shape`.

    Statistics are float32's, one rounding at the end. All tensors have one format outside autocast (torch's
    CPU kernels also take float32 weights beside a 16-bit input).
    """
    arrays = [input, weight, bias]
    while arrays[-1] is None:
        arrays.pop()
    return ops.layer_norm(*arrays, normalized_shape=_shape(normalized_shape), eps=eps)


def rms_norm(
    input: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean x^2 + eps) w over the last axes; eps None is float32's 2^-23 (2^-52 for float64).

    Formats as :func:`layer_norm` (torch also takes a weight of another format).
    """
    arrays = (input,) if weight is None else (input, weight)
    if eps is None:
        eps = (formats.float64 if _format_of(input) is formats.float64 else formats.float32).eps
    return ops.rms_norm(*arrays, normalized_shape=_shape(normalized_shape), eps=eps)


def vector_norm(
    x: Any,
    ord: float = 2,  # noqa: A002 - torch's name
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """(sum |x|^ord)^(1/ord) over `dim`, all axes if None (torch.linalg.vector_norm); ord > 0 or inf.

    Args:
        x: a floating tensor.
        ord: p of the norm; torch's 0, -inf and negative ones, which are no norms, are not offered.
        dim, keepdim: the axes, and whether they stay, of length 1.
        dtype: the format computed in and of the result; at least as wide as x's.
    """
    dims = dim if dim is None or isinstance(dim, int) else tuple(dim)
    return ops.linalg_vector_norm(x, p=ord, dim=dims, keepdim=keepdim, dtype=_format(dtype))


def dropout(input: Any, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element with probability p and divide the rest by 1 - p; the input itself if not training."""
    if not 0.0 <= p <= 1.0:
        raise SettingError(f"dropout: expected a probability from 0 to 1, got {p}")
    if not training or p == 0.0:
        return input if isinstance(input, Value) else Value.lift(input, None)  # type: ignore[return-value]  # what is lifted is a Tensor
    return ops.dropout(input, p=p)


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Tensor:
    """mean (x - t)^2; shapes must be equal (torch broadcasts, with a warning)."""
    return ops.mse_loss(input, target, reduction=reduction)


def nll_loss(
    input: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-log_p[target]; (N, C), (N,) -> () or (N,)."""
    scores = input if isinstance(input, Value) else Value.lift(input, None)
    labels = _labels("nll_loss", target, scores)
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
    scores = _as_the_policy_asks("cross_entropy_loss", scores)
    labels = _labels("cross_entropy", target, scores)
    single = scores.array.ndim == 1
    if single:
        scores, labels = scores.reshape(1, -1), labels.reshape(1)  # type: ignore[attr-defined]  # what is lifted is a Tensor
    losses = ops.nll_loss(
        ops.log_softmax(scores, dim=1), labels, weight,
        reduction=reduction, ignore_index=ignore_index, label_smoothing=label_smoothing,
    )  # fmt: skip
    return losses.reshape() if single and reduction == "none" else losses


def _labels(op: str, target: Any, scores: Value) -> Value:
    """Return the labels as a tensor of integers beside the scores."""
    labels = target if isinstance(target, Value) else Value.lift(target, scores.backend)
    if labels.array.dtype.kind not in "iu":
        raise DataError(
            f"expected integer labels, got {labels.array.dtype}", op=op, help="use .astype('int64')"
        )
    return labels


def _as_the_policy_asks(op: str, x: Value) -> Value:
    """Cast the input of what is one op in PyTorch and several here, by the policy's rule for that op."""
    region = MODES.get().autocast
    if region is None or not region.enabled:
        return x
    rule = region.policy.rules.get(op, CastClass.KEEP)
    (target,) = compute_formats(rule, [x.format], region.format, op=op)
    return x if target is None or target is x.format else cast_in_region(x, target, region)


def _format(dtype: Any) -> Format | None:
    return None if dtype is None else formats.get(dtype)


def _format_of(input: Any) -> Format | None:
    return (input if isinstance(input, Value) else Value.lift(input, None)).format


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _pair(name: str, value: Pair, least: int = 1) -> tuple[int, int]:
    """Return two whole numbers of at least `least`."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    whole = all(type(v) is int and v >= least for v in pair)  # a bool is no number here
    if len(pair) != 2 or not whole:
        raise SettingError(f"{name}: expected one or two whole numbers of at least {least}, got {value!r}")
    return pair
