"""The gradient of every op in float64, written out from its forward's inputs, with its error bound.

The formulas follow the calculus, not the code: each is a running error analysis
(:mod:`minimp.checks.running`) in the arithmetic that the op works in. What the op saves rounded (the result
of exp, tanh, softmax, ...) is rounded here too, so a bound says how far the gradient may be from the
derivative at the forward's inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks import normalization, windows
from minimp.checks.bounds import nll_parts, phi, sigmoid, softmax_parts
from minimp.checks.case import Case, Rule
from minimp.checks.running import Running, arithmetic_of

__all__ = ["GRADIENTS", "Rules"]

Array = np.ndarray[Any, Any]


# ---- elementwise --------------------------------------------------------------------------------------


def _moved(index: int, sign: int = 1) -> Rule:
    """The gradient itself, or its negative; over copies, the sum of theirs."""

    def rule(c: Case) -> Running:
        grad, shape = c.grad if sign > 0 else -c.grad, c.shape(index)
        return grad if grad.exact.shape == shape else c.unbroadcast(grad, shape).rounded()

    return rule


def _cast_back(c: Case) -> Running:
    """The gradient in the working format again: rounded, if it came in a wider one."""
    return replace(c.grad, at=arithmetic_of(c.output)).rounded(c.at.fmt)


def _div_b(c: Case) -> Running:
    a, b = c.number(0), c.number(1)
    return c.to(1, -c.grad * (a / b / b))


def _pow_x(c: Case) -> Running:
    """p x^(p - 1), and 0 for p = 0."""
    x, p = c.number(0), c.number(1)
    return c.to(0, (c.grad * p * x.power(p - 1.0)).where(p.exact != 0))


def _pow_p(c: Case) -> Running:
    """y ln x, and 0 at x = 0 for p >= 0."""
    x, p = c.number(0), c.number(1)
    slope = c.grad * x.power(p).stored() * x.log()
    return c.to(1, slope.where(~((x.exact == 0) & (p.exact >= 0))))


def _sqrt(c: Case) -> Running:
    return (c.grad / (2.0 * c.number(0).sqrt().stored())).rounded()


def _reciprocal(c: Case) -> Running:
    y = (1.0 / c.number(0)).stored()
    return (-c.grad * y * y).rounded()


def _tanh(c: Case) -> Running:
    y = c.number(0).tanh().stored()
    return (c.grad * (1.0 - y * y)).rounded()


def _sigmoid(c: Case) -> Running:
    y = sigmoid(c.number(0)).stored()
    return (c.grad * y * (1.0 - y)).rounded()


def _gelu(c: Case) -> Running:
    x = c.number(0)
    value, slope = phi(x, c.options.get("approximate", "none"))
    return (c.grad * (value + x * slope)).rounded()


def _dropout(c: Case) -> Running:
    p = c.options.get("p", 0.5)
    return (c.grad * (1.0 / c.at.number(1 - p) if p < 1 else 0.0)).where(c.options["keep"]).rounded()


def _selected(mask: Callable[[Array], Array]) -> Rule:
    """The gradient where `mask` of the input holds, else 0; nothing is rounded."""
    return lambda c: c.grad.where(mask(c.number(0).exact))


def _abs(c: Case) -> Running:
    sign = np.sign(c.number(0).exact)
    return Running(c.grad.exact * sign, c.grad.error, c.at)


# ---- dot ----------------------------------------------------------------------------------------------


def _matmul_a(c: Case) -> Running:
    """dA[m, k] = sum over n of g[m, n] b[k, n]."""
    a, b = c.number(0), c.number(1)
    g, column = _as_matrices(c, a, b)
    by_a = g.product(column, lambda g, b: np.matmul(g, np.swapaxes(b, -1, -2)), g.exact.shape[-1])
    return c.to(0, by_a.move(lambda d: d[..., 0, :]) if a.exact.ndim == 1 else by_a)


def _matmul_b(c: Case) -> Running:
    """dB[k, n] = sum over m of a[m, k] g[m, n]."""
    a, b = c.number(0), c.number(1)
    g, _ = _as_matrices(c, a, b)
    row = a.move(lambda a: a[None, :]) if a.exact.ndim == 1 else a
    by_b = row.product(g, lambda a, g: np.matmul(np.swapaxes(a, -1, -2), g), g.exact.shape[-2])
    return c.to(1, by_b.move(lambda d: d[..., 0]) if b.exact.ndim == 1 else by_b)


def _as_matrices(c: Case, a: Running, b: Running) -> tuple[Running, Running]:
    """The gradient with the axes that a vector operand lost, and b as a matrix."""
    g = c.grad
    g = g.move(lambda g: g[..., None]) if b.exact.ndim == 1 else g
    g = g.move(lambda g: g[..., None, :]) if a.exact.ndim == 1 else g
    return g, b.move(lambda b: b[:, None]) if b.exact.ndim == 1 else b


def _linear_x(c: Case) -> Running:
    weight = c.number(1)
    return c.grad.product(weight, np.matmul, weight.exact.shape[0]).rounded()


def _linear_weight(c: Case) -> Running:
    def outer(g: Array, x: Array) -> Array:
        return g.reshape(rows, g.shape[-1]).T @ x.reshape(rows, x.shape[-1])

    x = c.number(0)
    rows = math.prod(x.exact.shape[:-1])
    return c.grad.product(x, outer, rows).rounded()


def _linear_bias(c: Case) -> Running:
    return c.grad.sum(tuple(range(c.grad.exact.ndim - 1))).rounded()


# ---- sums ---------------------------------------------------------------------------------------------


def _spread(c: Case, share: Running) -> Running:
    """Repeat over the axes that were summed."""
    shape, dim = c.shape(0), c.options.get("dim")
    axes = range(len(shape)) if dim is None else (dim if isinstance(dim, tuple) else (dim,))
    gone = {d % len(shape) for d in axes} if shape else set()
    kept = tuple(1 if i in gone else n for i, n in enumerate(shape))
    return share.move(lambda a: np.broadcast_to(a.reshape(kept), shape))


def _sum(c: Case) -> Running:
    return _spread(c, _cast_back(c))


def _mean(c: Case) -> Running:
    return _spread(c, (c.grad / (math.prod(c.shape(0)) / max(c.grad.exact.size, 1))).rounded())


def _amax(c: Case) -> Running:
    """Equal maxima share alike."""
    x = c.number(0).exact
    dim = c.options.get("dim")
    hit = x == np.max(x, axis=dim, keepdims=True)
    share = _spread(c, c.grad) / c.at.number(np.sum(hit, axis=dim, keepdims=True).astype(np.float64))
    return (share * c.at.number(hit.astype(np.float64))).rounded()


def _mse(sign: float) -> Rule:
    """2 (x - t) g, over the number of elements for the mean."""

    def rule(c: Case) -> Running:
        gap = c.number(0) - c.number(1)
        mean = c.options.get("reduction", "mean") == "mean"
        slope = gap * (c.grad * (2.0 / gap.exact.size if mean and gap.exact.size else 2.0))
        return (slope if sign > 0 else -slope).rounded()

    return rule


def _nll(c: Case) -> Running:
    """-share g, over the sum of the weights for the mean."""
    target, weight = c.inputs[1], c.inputs[2] if len(c.inputs) > 2 else None
    ignored, smoothing = c.options.get("ignore_index", -100), c.options.get("label_smoothing", 0.0)
    share, count = nll_parts(c.shape(0), target, weight, ignored, smoothing, c.at)
    reduction = c.options.get("reduction", "mean")
    g = c.grad / count if reduction == "mean" else c.grad
    g = g.move(lambda a: a[:, None]) if reduction == "none" else g
    return (-share * g).where(share.exact != 0).rounded()


def _softmax(c: Case) -> Running:
    """y (g - sum g y)."""
    dim = c.options.get("dim", -1)
    _, e, total = softmax_parts(c.number(0), dim)
    y = (e / total).stored(c.output)
    return (y * (c.grad - (c.grad * y).sum(dim, keepdims=True))).rounded()


def _log_softmax(c: Case) -> Running:
    """g - e^y sum g."""
    dim = c.options.get("dim", -1)
    shifted, _, total = softmax_parts(c.number(0), dim)
    y = (shifted - total.log()).stored(c.output)
    return (c.grad - y.exp() * c.grad.sum(dim, keepdims=True)).rounded()


# ---- shapes -------------------------------------------------------------------------------------------


def _permute(c: Case) -> Running:
    return c.grad.move(lambda a: np.transpose(a, np.argsort([d % max(a.ndim, 1) for d in c.options["dims"]])))


def _getitem(c: Case) -> Running:
    """Back to where they were taken from; equal places add up."""
    shape, index = c.shape(0), c.options["index"]

    def put(a: Array) -> Array:
        out = np.zeros(shape)
        np.add.at(out, index, a)
        return out

    most = int(put(np.ones(c.grad.exact.shape)).max(initial=0.0))
    if most <= 1:
        return c.grad.move(put)
    return c.grad.gather(put, most).rounded()


def _cat(index: int) -> Rule:
    def rule(c: Case) -> Running:
        dim = c.options.get("dim", 0)
        start = sum(c.shape(i)[dim] for i in range(index))
        part = range(start, start + c.shape(index)[dim])
        return c.grad.move(lambda a: np.take(a, part, axis=dim))

    return rule


Rules = tuple[Rule, ...] | Callable[[int], Rule]
"""One rule for each input; of an op that takes any number of inputs, a rule by its position."""

GRADIENTS: Mapping[str, Rules] = MappingProxyType(
    {
        "abs": (_abs,),
        "add": (_moved(0), _moved(1)),
        "amax": (_amax,),
        "avg_pool2d": (windows.avg_pool2d,),
        "cast": (_cast_back,),
        "cat": _cat,
        "clone": (lambda c: c.grad,),
        "conv2d": (windows.conv2d_x, windows.conv2d_weight, windows.conv2d_bias),
        "div": (lambda c: c.to(0, c.grad / c.number(1)), _div_b),
        "dropout": (_dropout,),
        "exp": (lambda c: (c.grad * c.number(0).exp().stored()).rounded(),),
        "expand": (_moved(0),),
        "gelu": (_gelu,),
        "getitem": (_getitem,),
        "layer_norm": (
            normalization.layer_norm_x,
            normalization.layer_norm_weight,
            normalization.layer_norm_bias,
        ),
        "linalg_vector_norm": (normalization.vector_norm_x,),
        "linear": (_linear_x, _linear_weight, _linear_bias),
        "log": (lambda c: (c.grad / c.number(0)).rounded(),),
        "log_softmax": (_log_softmax,),
        "matmul": (_matmul_a, _matmul_b),
        "max_pool2d": (windows.max_pool2d,),
        "mean": (_mean,),
        "mse_loss": (_mse(1.0), _mse(-1.0)),
        "mul": (lambda c: c.to(0, c.grad * c.number(1)), lambda c: c.to(1, c.grad * c.number(0))),
        "neg": (lambda c: -c.grad,),
        "nll_loss": (_nll,),
        "permute": (_permute,),
        "pow": (_pow_x, _pow_p),
        "reciprocal": (_reciprocal,),
        "relu": (_selected(lambda x: ~(x <= 0)),),
        "reshape": (lambda c: c.grad.move(lambda a: a.reshape(c.shape(0))),),
        "rms_norm": (normalization.rms_norm_x, normalization.rms_norm_weight),
        "sigmoid": (_sigmoid,),
        "softmax": (_softmax,),
        "sqrt": (_sqrt,),
        "sub": (_moved(0), _moved(1, -1)),
        "sum": (_sum,),
        "tanh": (_tanh,),
    }
)
"""Op name -> for each input, its gradient."""
