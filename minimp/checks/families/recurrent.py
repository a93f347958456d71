"""Recurrences over a sequence: their meaning, and how far states and gradients may be from it.

Errors run along the sequence: each step begins with the states that were rounded, and with their errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp.checks.bounds import Program, sigmoid
from minimp.checks.case import Case, Rule
from minimp.checks.running import Running

__all__ = ["BOUNDS", "GRADIENTS", "REFERENCE"]

Array = np.ndarray[Any, Any]
States = list[Running]


# ---- what they mean -------------------------------------------------------------------------------------


def _logistic(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1 + small))


def _next(kind: str, inputs: Array, product: Array, h: Array, c: Any) -> tuple[Array, Any]:
    """The state after one step, from W_ih x + b_ih and W_hh h + b_hh."""
    if kind == "lstm":
        i, f, g, o = np.split(inputs + product, 4, axis=1)
        c = _logistic(f) * c + _logistic(i) * np.tanh(g)
        return _logistic(o) * np.tanh(c), c
    if kind == "gru":
        (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(inputs, 3, axis=1), np.split(product, 3, axis=1)
        z, n = _logistic(x_z + h_z), np.tanh(x_n + _logistic(x_r + h_r) * h_n)
        return (1 - z) * n + z * h, None
    return (np.tanh if kind == "rnn_tanh" else lambda a: np.maximum(a, 0))(inputs + product), None


def _meaning(kind: str) -> Callable[..., Array]:
    def run(x: Array, h: Array, *rest: Any, reverse: bool = False) -> Array:
        c = rest[0] if kind == "lstm" else None
        w_ih, w_hh, b_ih, b_hh = (*rest[kind == "lstm" :], None, None)[:4]
        states = []
        for each in x[::-1] if reverse else x:
            inputs = each @ w_ih.T + (0 if b_ih is None else b_ih)
            h, c = _next(kind, inputs, h @ w_hh.T + (0 if b_hh is None else b_hh), h, c)
            states.append(np.stack([h, c]) if kind == "lstm" else h)
        return np.stack(states[::-1] if reverse else states, axis=1 if kind == "lstm" else 0)

    return run


# ---- how far states may be off --------------------------------------------------------------------------


def _claim(x: Running) -> Running:
    """No claim where an error that may be infinite met a factor of 0."""
    return Running(x.exact, np.where(np.isnan(x.error), np.inf, x.error), x.at)


def _stack(parts: Sequence[Running], axis: int = 0) -> Running:
    exact, error = (np.stack([getattr(p, name) for p in parts], axis) for name in ("exact", "error"))
    return Running(exact, error, parts[0].at)


def _parts(x: Running, count: int) -> list[Running]:
    size = x.exact.shape[-1] // count
    return [_at(x, (..., slice(k * size, (k + 1) * size))) for k in range(count)]


def _at(x: Running, index: Any) -> Running:
    return x.move(lambda a: a[index])


def _joined(parts: Sequence[Running]) -> Running:
    return _stack(parts, -2).move(lambda a: a.reshape(*a.shape[:-2], a.shape[-2] * a.shape[-1]))


def _linear(x: Running, weight: Running, bias: Any) -> Running:
    y = _claim(x.product(weight, lambda a, b: a @ b.T, weight.exact.shape[1]))
    return y if bias is None else y + bias


class _Run:
    """One call: its inputs by name, the unrounded states after each step, and what the steps kept.

    Attributes:
        made: step -> the states, unrounded.
        old, kept: step -> the states before it, and the gates, both as backward finds them.
    """

    def __init__(self, kind: str, inputs: Sequence[Any], reverse: bool) -> None:
        self.kind, self.count = kind, 2 if kind == "lstm" else 1
        self.x, first = inputs[0], list(inputs[1 : 1 + self.count])
        rest = (*inputs[1 + self.count :], None, None)
        self.w_ih, self.w_hh, b_ih, b_hh = rest[:4]
        gates, steps = _linear(self.x, self.w_ih, b_ih), len(self.x.exact)
        self.order = list(range(steps))[:: -1 if reverse else 1]
        self.made: dict[int, States] = {}
        self.old: dict[int, States] = {}
        self.kept: dict[int, States] = {}
        for t in self.order:
            self.old[t] = first
            self.made[t], kept = STEPS[kind](_at(gates, t), _linear(first[0], self.w_hh, b_hh), first)
            self.kept[t] = [each.stored() for each in kept]
            first = [each.stored() for each in self.made[t]]


def _lstm(inputs: Running, product: Running, old: States) -> tuple[States, States]:
    i, f, g, o = _parts(inputs + product, 4)
    i, f, g, o = sigmoid(i), sigmoid(f), g.tanh(), sigmoid(o)
    c = f * old[1] + i * g
    return [o * c.tanh(), c], [i, f, g, o]


def _gru(inputs: Running, product: Running, old: States) -> tuple[States, States]:
    (x_r, x_z, x_n), (h_r, h_z, h_n) = _parts(inputs, 3), _parts(product, 3)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = (x_n + h_n * r).tanh()
    return [(old[0] - n) * z + n], [r, z, n, h_n]


def _rnn_tanh(inputs: Running, product: Running, old: States) -> tuple[States, States]:
    del old
    y = (inputs + product).tanh()
    return [y], [y]


def _rnn_relu(inputs: Running, product: Running, old: States) -> tuple[States, States]:
    """An error of the sum is one of the maximum, at most."""
    del old
    y = inputs + product
    return [Running(np.where(y.exact < 0, 0.0, y.exact), _of_maximum(y), y.at)], [y]


def _of_maximum(y: Running) -> Array:
    return np.where(y.exact + y.error < 0, 0.0, y.error)


STEPS: Mapping[str, Callable[..., tuple[States, States]]] = {
    "lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn_tanh, "rnn_relu": _rnn_relu,
}  # fmt: skip


def _program(kind: str) -> Program:
    def run(*inputs: Any, reverse: bool = False) -> Running:
        made = _Run(kind, inputs, reverse).made
        whole = [_stack([made[t][k] for t in sorted(made)]) for k in range(len(made[0]))]
        return _claim(_stack(whole) if kind == "lstm" else whole[0])

    return run


# ---- how far gradients may be off -----------------------------------------------------------------------


def _lstm_back(run: _Run, t: int, grads: States) -> tuple[Running, Running, States]:
    (by_h, by_c), (i, f, g, o) = grads, run.kept[t]
    bent = run.made[t][1].stored().tanh()
    by_c = by_c + by_h * o * (1.0 - bent * bent)
    slopes = [(1.0 - i) * i, (1.0 - f) * f, 1.0 - g * g, (1.0 - o) * o]
    found = [by_c * g, by_c * run.old[t][1], by_c * i, by_h * bent]
    both = _joined([a * b for a, b in zip(found, slopes, strict=True)])
    return both, both, [by_c * f]


def _gru_back(run: _Run, t: int, grads: States) -> tuple[Running, Running, States]:
    (by_h,), (r, z, n, h_n) = grads, run.kept[t]
    by_n = (by_h * (1.0 - z)) * (1.0 - n * n)
    by_r = (by_n * h_n) * (r * (1.0 - r))
    by_z = (by_h * (run.old[t][0] - n)) * (z * (1.0 - z))
    return _joined([by_r, by_z, by_n]), _joined([by_r, by_z, by_n * r]), [by_h * z]


def _rnn_tanh_back(run: _Run, t: int, grads: States) -> tuple[Running, Running, States]:
    y = run.made[t][0].stored()
    both = grads[0] * (1.0 - y * y)
    return both, both, []


def _rnn_relu_back(run: _Run, t: int, grads: States) -> tuple[Running, Running, States]:
    """0, or all of it; nothing is claimed where the sum may have been on either side of 0, or vanished."""
    (y,), g = run.kept[t], grads[0]
    above = y.exact - y.error > y.at.fmt.smallest_subnormal
    found = g.where(above | np.isnan(y.exact))
    unsure = ~above & (y.exact + y.error > 0)
    both = Running(found.exact, np.where(unsure, np.inf, found.error), g.at)
    return both, both, []


BACK: Mapping[str, Callable[..., tuple[Running, Running, States]]] = {
    "lstm": _lstm_back, "gru": _gru_back, "rnn_tanh": _rnn_tanh_back, "rnn_relu": _rnn_relu_back,
}  # fmt: skip


def _backward(c: Case, kind: str) -> tuple[_Run, Running, Running, States]:
    """The gradients of both halves of the gates, (T, N, G H) as stored, and those of the first states."""
    run = _Run(kind, c.inputs, c.options.get("reverse", False))
    carried: States = [c.at.number(np.zeros(first.exact.shape)) for first in run.old[run.order[0]]]
    halves: dict[int, tuple[Running, Running]] = {}
    for t in reversed(run.order):
        grads = [_at(c.grad, (k, t) if kind == "lstm" else t) + carried[k] for k in range(run.count)]
        inputs, product, direct = BACK[kind](run, t, grads)
        halves[t] = (_claim(inputs).stored(), _claim(product).stored())
        through = _claim(halves[t][1].product(run.w_hh, np.matmul, run.w_hh.exact.shape[0]))
        carried = [direct[0] + through] if kind == "gru" else [through, *direct]
    by_inputs, by_product = (_stack([halves[t][k] for t in sorted(halves)]) for k in range(2))
    return run, by_inputs, by_product, carried


def _over_steps(a: Running, b: Running) -> Running:
    """A^T B: sums over steps and rows."""

    def multiply(a: Array, b: Array) -> Array:
        return np.asarray(a.reshape(-1, a.shape[-1]).T @ b.reshape(-1, b.shape[-1]))

    return a.product(b, multiply, a.exact.shape[0] * a.exact.shape[1])


def _gradient_of(c: Case, kind: str, index: int) -> Running:
    """The gradient of one input: x, the first states, W_ih, W_hh, b_ih, b_hh."""
    run, by_inputs, by_product, first = _backward(c, kind)
    if 0 < index <= run.count:
        return first[index - 1]
    if index == 0:
        return by_inputs.product(run.w_ih, np.matmul, run.w_ih.exact.shape[0])
    if index == run.count + 1:
        return _over_steps(by_inputs, run.x)
    if index == run.count + 2:
        return _over_steps(by_product, _stack([run.old[t][0] for t in sorted(run.old)]))
    return (by_inputs if index == run.count + 3 else by_product).sum((0, 1))


def _rule(kind: str, index: int) -> Rule:
    return lambda c: _claim(_gradient_of(c, kind, index).rounded())


REFERENCE: Mapping[str, Callable[..., Any]] = MappingProxyType({kind: _meaning(kind) for kind in STEPS})
BOUNDS: Mapping[str, Mapping[str, Program]] = MappingProxyType(
    {"dot": {kind: _program(kind) for kind in STEPS}}
)
GRADIENTS: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    {kind: tuple(_rule(kind, i) for i in range(7 if kind == "lstm" else 6)) for kind in STEPS}
)
