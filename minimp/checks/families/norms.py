"""Batch and group normalisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.bounds import Program
from minimp.checks.case import Case
from minimp.checks.gradients import Rules
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]


# ---- the definition ---------------------------------------------------------------------------------------


def batch_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, running_mean: Array | None = None,
    running_var: Array | None = None, *, training: bool = False, eps: float = 1e-5, statistics: Any = None,
) -> Array:  # fmt: skip
    """(x - m) / sqrt(v + eps) w + b, channel by channel."""
    del statistics
    y = np.empty_like(x)
    for c in range(x.shape[1]) if x.size else ():
        seen = x[:, c]
        if training or running_mean is None or running_var is None:
            m, v = seen.mean(), seen.var()
        else:
            m, v = running_mean[c], running_var[c]
        y[:, c] = (seen - m) / np.sqrt(v + eps) * (1.0 if weight is None else weight[c])
        y[:, c] += 0.0 if bias is None else bias[c]
    return y


def group_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, *, num_groups: int, eps: float = 1e-5
) -> Array:
    """(x - m) / sqrt(v + eps) w + b, m and v of each group of channels of each image."""
    y, step = np.empty_like(x), x.shape[1] // num_groups
    for n in range(len(x)):
        for c in range(x.shape[1]):
            group = x[n, c // step * step : (c // step + 1) * step]
            z = (x[n, c] - group.mean()) / np.sqrt(group.var() + eps)
            y[n, c] = z * (1.0 if weight is None else weight[c]) + (0.0 if bias is None else bias[c])
    return y


# ---- bounds -----------------------------------------------------------------------------------------------


def _standard(x: Running, eps: float) -> tuple[Running, Running]:
    """x - m and 1 / sqrt(v + eps), of each row (N, C, K) over N and K."""
    count = x.exact.size / max(1, x.exact.shape[1])
    centred = x - x.sum((0, 2), keepdims=True) / count
    return centred, 1.0 / ((centred * centred).sum((0, 2), keepdims=True) / count + eps).sqrt()


def _rows(x: Running) -> Running:
    return x.move(lambda a: a.reshape(*a.shape[:2], int(np.prod(a.shape[2:]))))


def _column(x: Running) -> Running:
    """(C,) -> (C, 1)."""
    return x.move(lambda a: a[:, None])


def _parts(c: Case) -> tuple[Running, Running, Running | None, bool]:
    """x - m, 1 / sqrt(v + eps) and the weight of batch_norm, and whether m and v are x's own."""
    inputs = (*c.inputs, *(None,) * 5)[:5]
    training, eps = c.options.get("training", False), c.options.get("eps", 1e-5)
    weight = None if inputs[1] is None else _column(inputs[1])
    return *_centred(c.number(0), inputs[3], inputs[4], training, eps), weight, training


def _centred(x: Running, mean: Any, var: Any, training: bool, eps: float) -> tuple[Running, Running]:
    if training:
        return _standard(_rows(x), eps)
    return _rows(x) - _column(mean), 1.0 / (_column(var) + eps).sqrt()


def _batch_norm(
    x: Running, weight: Any = None, bias: Any = None, mean: Any = None, var: Any = None, *,
    training: bool = False, eps: float = 1e-5, statistics: Any = None,
) -> Running:  # fmt: skip
    del statistics
    if not x.exact.size:
        return x
    centred, scale = _centred(x, mean, var, training, eps)
    y = centred * (scale if weight is None else scale * _column(weight))
    y = y if bias is None else y + _column(bias)
    return y.move(lambda a: a.reshape(x.exact.shape))


def _group_norm(
    x: Running, weight: Any = None, bias: Any = None, *, num_groups: int, eps: float = 1e-5
) -> Running:  # fmt: skip
    if not x.exact.size:
        return x
    centred, scale = _standard(_grouped(x, num_groups), eps)
    y = (centred * scale).move(lambda a: a.reshape(*x.exact.shape[:2], -1))
    y = y if weight is None else y * _column(weight)
    y = y if bias is None else y + _column(bias)
    return y.move(lambda a: a.reshape(x.exact.shape))


def _grouped(x: Running, num_groups: int) -> Running:
    return x.move(lambda a: a.reshape(1, a.shape[0] * num_groups, -1))


# ---- gradients --------------------------------------------------------------------------------------------


def _spread_back(g: Running, centred: Running, scale: Running, factor: Running) -> Running:
    """The gradient by x where m and v are x's own, factor being s w."""
    count = g.exact.size / max(1, g.exact.shape[1])
    product = (g * centred).sum((0, 2), keepdims=True)
    slope = factor * (scale * scale) * (product / count)
    share = factor * (g.sum((0, 2), keepdims=True) / count)
    found: Running = g * factor + (centred * -slope - share)
    return found


def _batch_x(c: Case) -> Running:
    if not c.grad.exact.size:
        return c.grad
    centred, scale, weight, training = _parts(c)
    g, factor = _rows(c.grad), scale if weight is None else scale * weight
    found = _spread_back(g, centred, scale, factor) if training else g * factor
    return found.move(lambda a: a.reshape(c.shape(0))).rounded()


def _batch_weight(c: Case) -> Running:
    if not c.grad.exact.size:
        return _nothing(c, 1)
    centred, scale, _, _ = _parts(c)
    product = (_rows(c.grad) * centred).sum((0, 2), keepdims=True)
    return (product * scale).move(lambda a: a.reshape(-1)).rounded(c.format(1))


def _bias(c: Case) -> Running:
    return _rows(c.grad).sum((0, 2)).rounded(c.format(2))


def _nothing(c: Case, index: int) -> Running:
    return c.at.number(np.zeros(c.shape(index)))


def _group_x(c: Case) -> Running:
    if not c.grad.exact.size:
        return c.grad
    groups, g = c.options["num_groups"], _rows(c.grad)
    centred, scale = _standard(_grouped(c.number(0), groups), c.options.get("eps", 1e-5))
    h = g if len(c.inputs) < 2 or c.inputs[1] is None else g * _column(c.number(1))
    found = _spread_back(_grouped(h, groups), centred, scale, scale)
    return found.move(lambda a: a.reshape(c.shape(0))).rounded()


def _group_weight(c: Case) -> Running:
    if not c.grad.exact.size:
        return _nothing(c, 1)
    centred, scale = _standard(_grouped(c.number(0), c.options["num_groups"]), c.options.get("eps", 1e-5))
    z = (centred * scale).move(lambda a: a.reshape(*c.shape(0)[:2], -1))
    return (_rows(c.grad) * z).sum((0, 2)).rounded(c.format(1))


REFERENCE: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"batch_norm": batch_norm, "group_norm": group_norm}
)
BOUNDS: Mapping[str, Mapping[str, Program]] = MappingProxyType(
    {"norm": {"batch_norm": _batch_norm, "group_norm": _group_norm}}
)
GRADIENTS: Mapping[str, Rules] = MappingProxyType(
    {"batch_norm": (_batch_x, _batch_weight, _bias), "group_norm": (_group_x, _group_weight, _bias)}
)
