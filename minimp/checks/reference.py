"""What each op means: its forward in plain NumPy float64, from the definition, sharing no code with the ops.

A function takes float64 arrays (integers and Python numbers as they are) and the op's options, and returns
the result with no rounding but float64's. Warnings are the caller's to silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["REFERENCE", "windows"]

Array = np.ndarray[Any, Any]
Pair = tuple[int, int]


def erf(x: Any) -> Array:
    """The C library's erf, one element at a time."""
    return np.asarray([math.erf(each) for each in np.ravel(x)], np.float64).reshape(np.shape(x))


def gelu(x: Array, *, approximate: str = "none") -> Array:
    """x Phi(x), with the exact Phi or its approximation by tanh."""
    if approximate == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + erf(x / math.sqrt(2))))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), and e^x / (1 + e^x) below 0, where e^-x may overflow."""
    return np.where(x < 0, np.exp(x) / (1 + np.exp(x)), 1 / (1 + np.exp(-x)))


def dropout(x: Array, *, keep: Array, p: float = 0.5) -> Array:
    """x / (1 - p) where `keep` is true, else 0; the mask is an input here."""
    return np.where(keep, x / (1 - p), 0.0) if p < 1 else np.zeros_like(x)


def log_softmax(x: Array, *, dim: int = -1, dtype: Any = None) -> Array:
    """x - ln sum e^x, the largest x taken out of the sum."""
    del dtype
    if not x.size:
        return x
    top = np.max(x, axis=dim, keepdims=True)
    return np.asarray(x - top - np.log(np.sum(np.exp(x - top), axis=dim, keepdims=True)))


def softmax(x: Array, *, dim: int = -1, dtype: Any = None) -> Array:
    """e^x / sum e^x."""
    return np.exp(log_softmax(x, dim=dim, dtype=dtype))


def total(x: Array, *, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
    """The sum over `dim`."""
    del dtype
    return np.asarray(np.sum(x, axis=dim, keepdims=keepdim))


def mean(x: Array, *, dim: Any = None, keepdim: bool = False) -> Array:
    """The sum over `dim`, over how many there are."""
    added = total(x, dim=dim, keepdim=keepdim)
    return added / (x.size / added.size) if added.size else added


def layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *,
    normalized_shape: Sequence[int], eps: float = 1e-5,
) -> Array:  # fmt: skip
    """(x - mean) / sqrt(var + eps) w + b over the last axes, var being the mean square distance."""
    last = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    y = (x - np.mean(x, last, keepdims=True)) / np.sqrt(np.var(x, last, keepdims=True) + eps)
    y = y if weight is None else y * weight
    return np.asarray(y if bias is None else y + bias)


def rms_norm(x: Array, weight: Array | None = None, *, normalized_shape: Sequence[int], eps: float) -> Array:
    """x / sqrt(mean x^2 + eps) w over the last axes."""
    last = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    y = x / np.sqrt(np.mean(np.square(x), last, keepdims=True) + eps)
    return np.asarray(y if weight is None else y * weight)


def vector_norm(
    x: Array, *, p: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Array:
    """The p-th root of sum |x|^p, the largest or the smallest |x|, or how many are not 0."""
    del dtype
    if abs(p) == math.inf:
        return np.asarray((np.max if p > 0 else np.min)(np.abs(x), axis=dim, keepdims=keepdim))
    if p == 0:
        return np.asarray(np.count_nonzero(x, axis=dim, keepdims=keepdim), np.float64)
    return np.asarray(np.power(np.sum(np.abs(x) ** p, axis=dim, keepdims=keepdim), 1 / p))


def matmul(a: Array, b: Array) -> Array:
    """Sum over k of a[..., m, k] b[..., k, n]."""
    left, right = "k" if a.ndim == 1 else "...mk", "k" if b.ndim == 1 else "...kn"
    free = ("m" if a.ndim > 1 else "") + ("n" if b.ndim > 1 else "")
    lead = "..." if max(a.ndim, b.ndim) > 1 else ""
    return np.asarray(np.einsum(f"{left},{right}->{lead}{free}", a, b, optimize=True))


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Sum over i of x[..., i] w[o, i], plus b[o]."""
    y = np.einsum("...i,oi->...o", x, weight, optimize=True)
    return np.asarray(y if bias is None else y + bias)


def windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Array:
    """(N, C, H, W) -> (N, C, H', W', kH, kW): every window, at each stride, its elements `dilation` apart."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    every = sliding_window_view(x, reach, axis=(2, 3))
    return every[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def pad(x: Array, padding: Pair, value: float = 0.0, beyond: Pair = (0, 0)) -> Array:
    """Frame the images with `value`, `beyond` more at the end."""
    sides = [(p, p + more) for p, more in zip(padding, beyond, strict=True)]
    return np.pad(x, [(0, 0), (0, 0), *sides], constant_values=value)


def conv2d(
    x: Array, weight: Array, bias: Array | None = None, *, stride: Pair = (1, 1), padding: Pair = (0, 0),
    dilation: Pair = (1, 1), groups: int = 1,
) -> Array:  # fmt: skip
    """y[n, o, i, j] = sum over c, u, v of w[o, c, u, v] x[n, c, s i + d u - p, s j + d v - p], plus b[o]."""
    seen = windows(pad(x, padding), weight.shape[2:], stride, dilation)
    parts = [
        np.einsum("ncijuv,ocuv->noij", images, filters, optimize=True)
        for images, filters in zip(np.split(seen, groups, 1), np.split(weight, groups, 0), strict=True)
    ]
    y = np.concatenate(parts, axis=1)
    return y if bias is None else y + bias[:, None, None]


def pooled_shape(shape: Sequence[int], options: Mapping[str, Any]) -> Pair:
    """H' and W': floor, or ceil with ceil_mode, of (L + 2 p - d (k - 1) - 1) / s + 1.

    A window of ceil_mode that would begin in the padding at the end is left out (torch.nn.MaxPool2d).
    """
    lengths = []
    for axis in (0, 1):
        k, s, p = (options[name][axis] for name in ("kernel", "stride", "padding"))
        d = options.get("dilation", (1, 1))[axis]
        steps = (shape[axis] + 2 * p - d * (k - 1) - 1) / s
        count = (math.ceil(steps) if options.get("ceil_mode") else math.floor(steps)) + 1
        if options.get("ceil_mode") and (count - 1) * s >= shape[axis] + p:
            count -= 1
        lengths.append(count)
    return lengths[0], lengths[1]


def pool_windows(x: Array, options: Mapping[str, Any], value: float) -> Array:
    """The windows of a pooling, elements outside the image being `value`."""
    kernel, stride, padding = options["kernel"], options["stride"], options["padding"]
    dilation = options.get("dilation", (1, 1))
    rows, columns = pooled_shape(x.shape[2:], options)
    beyond = tuple(
        max(0, (n - 1) * s + d * (k - 1) + 1 - length - 2 * p)
        for n, s, d, k, length, p in zip(
            (rows, columns), stride, dilation, kernel, x.shape[2:], padding, strict=True
        )
    )
    seen = windows(pad(x, padding, value, beyond), kernel, stride, dilation)
    return seen[:, :, :rows, :columns]


def max_pool2d(x: Array, **options: Any) -> Array:
    """The largest element of each window; NaN wins."""
    return np.asarray(pool_windows(x, options, -np.inf).max(axis=(-2, -1)))


def pool_counts(shape: Sequence[int], options: Mapping[str, Any]) -> Array:
    """(1, 1, H', W'): how many elements of each window count: padding that was asked for may, no more."""
    if not options.get("count_include_pad", True):
        return np.asarray(pool_windows(np.ones((1, 1, *shape[2:])), options, 0.0).sum(axis=(-2, -1)))
    rows, columns = pooled_shape(shape[2:], options)
    padded = np.ones((1, 1, *(n + 2 * p for n, p in zip(shape[2:], options["padding"], strict=True))))
    counted = pool_windows(padded, {**options, "padding": (0, 0), "ceil_mode": True}, 0.0)
    return np.asarray(counted.sum(axis=(-2, -1))[:, :, :rows, :columns])


def pool_sums(x: Array, options: Mapping[str, Any]) -> Array:
    """The sum of each window."""
    return np.asarray(pool_windows(x, options, 0.0).sum(axis=(-2, -1)))


def avg_pool2d(x: Array, **options: Any) -> Array:
    """The mean of each window."""
    return np.asarray(pool_sums(x, options) / pool_counts(x.shape, options))


def reduce_loss(terms: Array, reduction: str, count: Any) -> Array:
    """The terms, their sum, or their sum over `count`."""
    return terms if reduction == "none" else np.asarray(terms.sum() / (count if reduction == "mean" else 1))


def mse_loss(x: Array, target: Array, *, reduction: str = "mean") -> Array:
    """(x - t)^2, summed or averaged."""
    return reduce_loss((x - target) ** 2, reduction, x.size)


def nll_loss(
    log_p: Array, target: Array, weight: Array | None = None, *,
    reduction: str = "mean", ignore_index: int = -100, label_smoothing: float = 0.0,
) -> Array:  # fmt: skip
    """-sum over c of q[c] w[c] log_p[n, c], with q = (1 - e) onehot(target) + e / C.

    The mean divides by the sum of w[target].
    """
    share, count = nll_shares(log_p.shape, target, weight, ignore_index, label_smoothing)
    terms = -np.where(share == 0, 0.0, share * log_p).sum(axis=1)
    return reduce_loss(terms, reduction, count)


def nll_shares(
    shape: Sequence[int], target: Array, weight: Array | None, ignore_index: int, smoothing: float
) -> tuple[Array, Any]:
    """Return (q[n, c] w[c], sum of w[target]) over the labels that count."""
    kept = target != ignore_index
    labels = np.where(kept, target, 0).astype(np.int64)
    factors = np.ones(shape[1]) if weight is None else weight
    onehot = np.equal(labels[:, None], np.arange(shape[1]))
    share = ((1 - smoothing) * onehot + smoothing / shape[1]) * factors * kept[:, None]
    return share, (factors[labels] * kept).sum()


def cast(x: Array, **_: Any) -> Array:
    """The values; the rounding is what is under test."""
    return x


def expand(x: Array, *, shape: tuple[int, ...]) -> Array:
    """Repeated along axes of length 1, and along new ones in front."""
    lead = len(shape) - x.ndim
    return np.broadcast_to(x, [x.shape[i - lead] if n == -1 else n for i, n in enumerate(shape)])


def cat(*arrays: Array, dim: int = 0) -> Array:
    """One after the other along `dim`."""
    return np.concatenate(arrays, axis=dim)


REFERENCE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "abs": np.abs,
        "add": np.add,
        "amax": lambda x, *, dim=None, keepdim=False: np.amax(x, axis=dim, keepdims=keepdim),
        "argmax": lambda x, *, dim=None, keepdim=False: np.argmax(x, axis=dim, keepdims=keepdim),
        "avg_pool2d": avg_pool2d,
        "cast": cast,
        "cat": cat,
        "clone": np.copy,
        "conv2d": conv2d,
        "div": np.divide,
        "dropout": dropout,
        "eq": np.equal,
        "exp": np.exp,
        "expand": expand,
        "ge": np.greater_equal,
        "gelu": gelu,
        "getitem": lambda x, *, index: x[index],
        "gt": np.greater,
        "isfinite": np.isfinite,
        "layer_norm": layer_norm,
        "le": np.less_equal,
        "linalg_vector_norm": vector_norm,
        "linear": linear,
        "log": np.log,
        "log_softmax": log_softmax,
        "lt": np.less,
        "matmul": matmul,
        "max_pool2d": max_pool2d,
        "mean": mean,
        "mse_loss": mse_loss,
        "mul": np.multiply,
        "ne": np.not_equal,
        "neg": np.negative,
        "nll_loss": nll_loss,
        "permute": lambda x, *, dims: np.transpose(x, dims),
        "pow": np.power,
        "reciprocal": lambda x: 1.0 / x,
        "relu": lambda x: np.maximum(x, 0.0),
        "reshape": lambda x, *, shape: np.reshape(x, shape),
        "rms_norm": rms_norm,
        "sigmoid": sigmoid,
        "softmax": softmax,
        "sqrt": np.sqrt,
        "sub": np.subtract,
        "sum": total,
        "tanh": np.tanh,
    }
)
"""Op name -> its forward in float64."""
