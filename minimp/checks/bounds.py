"""How far each op's result may be from the exact one: the error bound of every op, family by family.

An op names its family (``bound=`` in :func:`minimp.door.op`). A family is a running error analysis: the op's
formula, written a second time over :class:`~minimp.checks.running.Running` numbers, which add up what each
rounding on the way can do. A result is then rounded once more, to its format. For a dot product of K terms
this gives the classic

    |y' - y| <= u_out |y| + gamma_K sum |a||b| (1 + u_out) + half the smallest subnormal

with gamma_K = K u / (1 - K u), u the unit roundoff of the accumulation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks import normalization, reference
from minimp.checks.running import Arithmetic, Running

__all__ = ["FAMILIES", "Family", "Program", "is_plain", "nll_parts", "phi", "sigmoid", "softmax_parts"]

Program = Callable[..., Running]


@dataclass(frozen=True)
class Family:
    """A kind of error bound.

    Attributes:
        note: the bound in words.
        programs: op name -> its formula over running numbers; None where the result is exact.
    """

    note: str
    programs: Mapping[str, Program] | None

    def knows(self, op: str) -> bool:
        """Tell whether the family has a bound for the op called `op`."""
        return self.programs is None or op in self.programs


def is_plain(x: Any) -> bool:
    """Tell whether an input is no number to compute with: missing, or an array of integers (labels)."""
    return x is None or (hasattr(x, "dtype") and x.dtype.kind in "iub")


# ---- function: one library function, or a few ---------------------------------------------------------


def sigmoid(x: Running) -> Running:
    """e^-|x| / (1 + e^-|x|), or 1 over that sum: three roundings and the exponential's."""
    small = (-abs(x)).exp()
    return (1.0 / (1.0 + small)).where(x.exact >= 0, small / (1.0 + small))


def _gelu(x: Running, *, approximate: str = "none") -> Running:
    """x Phi(x). For x well below 0, 1 + erf cancels, so the error is absolute: some u |x|."""
    return x * phi(x, approximate)[0]


def phi(x: Running, approximate: str) -> tuple[Running, Running]:
    """Phi(x) and its derivative, as the op computes them."""
    if approximate == "tanh":
        c = math.sqrt(2 / math.pi)
        t = (c * (x + 0.044715 * x * x * x)).tanh()
        return 0.5 * (1.0 + t), 0.5 * (1.0 - t * t) * c * (1.0 + 3 * 0.044715 * x * x)
    inner = x * math.sqrt(0.5)
    density = (-0.5 * x * x).exp() * (1 / math.sqrt(2 * math.pi))
    return 0.5 * (1.0 + inner.function("erf", reference.erf(inner.exact), 2 / math.sqrt(math.pi))), density


def _dropout(x: Running, *, keep: Any, p: float = 0.5) -> Running:
    """x times 1 / (1 - p), itself rounded."""
    return (x * (1.0 / x.at.number(1 - p) if p < 1 else 0.0)).where(keep)


# ---- dot: sums of products ----------------------------------------------------------------------------


def _matmul(a: Running, b: Running) -> Running:
    return a.product(b, reference.matmul, a.exact.shape[-1])


def _linear(x: Running, weight: Running, bias: Running | None = None) -> Running:
    y = x.product(weight, reference.linear, weight.exact.shape[1])
    return y if bias is None else y + bias


def _conv2d(x: Running, weight: Running, bias: Running | None = None, **geometry: Any) -> Running:
    terms = math.prod(weight.exact.shape[1:])
    y = x.product(weight, lambda a, b: reference.conv2d(a, b, **geometry), terms)
    return y if bias is None else y + bias.move(lambda b: b[:, None, None])


# ---- sum: sums, and what is made of them --------------------------------------------------------------


def _sum(x: Running, *, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Running:
    del dtype
    return x.sum(dim, keepdims=keepdim)


def _mean(x: Running, *, dim: Any = None, keepdim: bool = False) -> Running:
    """A sum of K terms, then a division."""
    added = x.sum(dim, keepdims=keepdim)
    return added / (x.exact.size / added.exact.size) if added.exact.size else added


def _avg_pool2d(x: Running, **options: Any) -> Running:
    added = x.gather(lambda a: reference.pool_sums(a, options), math.prod(options["kernel"]))
    return added / x.at.number(reference.pool_counts(x.exact.shape, options))


def _mse_loss(x: Running, target: Running, *, reduction: str = "mean") -> Running:
    """(x - t)^2 to two roundings, then a sum, then a division."""
    gap = x - target
    return _reduced(gap * gap, reduction, float(gap.exact.size))


def _nll_loss(
    log_p: Running, target: Any, weight: Running | None = None, *,
    reduction: str = "mean", ignore_index: int = -100, label_smoothing: float = 0.0,
) -> Running:  # fmt: skip
    """Each row a sum over classes of share times -log p; then a sum over rows, and a division."""
    share, count = nll_parts(log_p.exact.shape, target, weight, ignore_index, label_smoothing, log_p.at)
    terms = (share * log_p).where(share.exact != 0)
    return _reduced(-terms.sum(1), reduction, count)


def nll_parts(
    shape: Any, target: Any, weight: Running | None, ignore_index: int, smoothing: float, at: Arithmetic
) -> tuple[Running, Running]:
    """The share of each class in each row's loss, and the sum of the weights of the rows that count."""
    bare, _ = reference.nll_shares(shape, target, None, ignore_index, smoothing)
    share = Running(bare, 2 * at.unit * bare if smoothing else np.zeros_like(bare), at)
    kept = target != ignore_index
    if weight is None:
        return share, at.number(np.asarray(kept.sum(), np.float64))
    labels = np.where(kept, target, 0)
    return share * weight, weight.move(lambda w: w[labels] * kept).sum()


def _reduced(terms: Running, reduction: str, count: Any) -> Running:
    if reduction == "none":
        return terms
    added = terms.sum()
    return added / count if reduction == "mean" else added


# ---- softmax ------------------------------------------------------------------------------------------


def softmax_parts(x: Running, dim: int) -> tuple[Running, Running, Running]:
    """x - max, its exponential, and the sum of that over `dim`.

    x - max is rounded once, so e^(x - max) is off by u |x - max| relatively, and by the exponential's own
    error; all terms of the sum are positive, so the sum is off by that at most, and gamma_K.
    """
    if not x.exact.size:
        return x, x, x.sum(dim, keepdims=True)
    shifted = x - x.at.number(np.max(x.exact, axis=dim, keepdims=True))
    e = shifted.exp()
    return shifted, e, e.sum(dim, keepdims=True)


def _softmax(x: Running, *, dim: int = -1, dtype: Any = None) -> Running:
    del dtype
    _, e, total = softmax_parts(x, dim)
    return e / total


def _log_softmax(x: Running, *, dim: int = -1, dtype: Any = None) -> Running:
    """x - max - ln total: absolute errors add, u |x - max| and gamma_K + the logarithm's."""
    del dtype
    shifted, _, total = softmax_parts(x, dim)
    return shifted - total.log()


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "exact": Family("moves, selects or compares: nothing is rounded", None),
        "cast": Family("rounded once, to the new format", {"cast": lambda x, **_: x}),
        "rounded": Family(
            "one correctly rounded operation in the wide format: u |y|",
            {
                "add": lambda a, b: a + b,
                "sub": lambda a, b: a - b,
                "mul": lambda a, b: a * b,
                "div": lambda a, b: a / b,
                "dropout": _dropout,
            },
        ),
        "function": Family(
            "library functions within their ulps, chained by running error analysis",
            {
                "exp": lambda x: x.exp(),
                "log": lambda x: x.log(),
                "sqrt": lambda x: x.sqrt(),
                "reciprocal": lambda x: 1.0 / x,
                "pow": lambda x, p: x.power(p),
                "tanh": lambda x: x.tanh(),
                "sigmoid": sigmoid,
                "gelu": _gelu,
            },
        ),
        "dot": Family(
            "gamma_K sum |a||b|, and a rounding for the bias",
            {"matmul": _matmul, "linear": _linear, "conv2d": _conv2d},
        ),
        "sum": Family(
            "gamma_K sum |x|, and a rounding for the division",
            {
                "sum": _sum,
                "mean": _mean,
                "avg_pool2d": _avg_pool2d,
                "mse_loss": _mse_loss,
                "nll_loss": _nll_loss,
            },
        ),
        "norm": Family(
            "gamma_K of each statistic, and a few roundings",
            {
                "layer_norm": normalization.layer_norm,
                "linalg_vector_norm": normalization.vector_norm,
                "rms_norm": normalization.rms_norm,
            },
        ),
        "softmax": Family("u (|x - max| + K + a few), relatively", {"softmax": _softmax}),
        "log_softmax": Family("u (|x - max| + |y| + K + a few), absolutely", {"log_softmax": _log_softmax}),
    }
)
"""The families by name; :mod:`minimp.checks.tables` adds the ops of the files in `families/`."""
