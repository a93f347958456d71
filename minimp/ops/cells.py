r"""Recurrent cells on tensors, one step each, and over a sequence; gates in torch's order.

With x the input, h the state before, W the rows of a weight and s the logistic function::

    RNN   h' = tanh(W_ih x + b_ih + W_hh h + b_hh)                      or relu of it
    LSTM  i, f, g, o = W_ih x + b_ih + W_hh h + b_hh                    (Hochreiter and Schmidhuber 1997,
          c' = s(f) c + s(i) tanh(g)                                     with a forget gate: Gers et al. 2000)
          h' = s(o) tanh(c')
    GRU   r, z = s(...), n = tanh(W_in x + b_in + r (W_hn h + b_hn))    (Cho et al. 2014)
          h' = (h - n) z + n

Each is written with other ops, so each rounds where they round, and has every derivative. The ops of
:mod:`minimp.ops.recurrent` do the same for a whole sequence, and round the states alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from minimp.ops.activations import relu, sigmoid, tanh
from minimp.ops.products import linear
from minimp.ops.shaping import cat, reshape

if TYPE_CHECKING:
    from minimp.tensors import Tensor

    State = tuple[Tensor, ...]

__all__ = [
    "Weights", "along", "gru_gates", "gru_step", "lstm_gates", "lstm_step", "rnn_relu_gates",
    "rnn_relu_step", "rnn_tanh_gates", "rnn_tanh_step", "side_by_side", "steps_of",
]  # fmt: skip


class Weights(NamedTuple):
    """The parameters of one direction of one layer."""

    ih: Any
    hh: Any
    b_ih: Any = None
    b_hh: Any = None
    hr: Any = None


def rnn_tanh_step(inputs: Tensor, state: State, w: Weights) -> State:
    """Return the next state from W_ih x + b_ih."""
    return rnn_tanh_gates(inputs, linear(state[0], w.hh, w.b_hh), state)


def rnn_relu_step(inputs: Tensor, state: State, w: Weights) -> State:
    """Return the next state from W_ih x + b_ih."""
    return rnn_relu_gates(inputs, linear(state[0], w.hh, w.b_hh), state)


def lstm_step(inputs: Tensor, state: State, w: Weights) -> State:
    """Return the next (h, c) from W_ih x + b_ih; h is projected by W_hr if there is one."""
    h, c = lstm_gates(inputs, linear(state[0], w.hh, w.b_hh), state)
    return (h if w.hr is None else linear(h, w.hr)), c


def gru_step(inputs: Tensor, state: State, w: Weights) -> State:
    """Return the next state from W_ih x + b_ih."""
    return gru_gates(inputs, linear(state[0], w.hh, w.b_hh), state)


def rnn_tanh_gates(inputs: Tensor, product: Tensor, state: State) -> State:
    """Return the next state from W_ih x + b_ih and W_hh h + b_hh."""
    del state
    return (tanh(product + inputs),)


def rnn_relu_gates(inputs: Tensor, product: Tensor, state: State) -> State:
    """Return the next state from W_ih x + b_ih and W_hh h + b_hh."""
    del state
    return (relu(product + inputs),)


def lstm_gates(inputs: Tensor, product: Tensor, state: State) -> State:
    """Return the next (h, c) from W_ih x + b_ih and W_hh h + b_hh; h is not projected."""
    i, f, g, o = _parts(product + inputs, 4)
    c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gru_gates(inputs: Tensor, product: Tensor, state: State) -> State:
    """Return the next state from W_ih x + b_ih and W_hh h + b_hh."""
    (h,) = state
    i_r, i_z, i_n = _parts(inputs, 3)
    h_r, h_z, h_n = _parts(product, 3)
    r, z = sigmoid(h_r + i_r), sigmoid(h_z + i_z)
    n = tanh(i_n + h_n * r)
    return ((h - n) * z + n,)


def along(
    step: Callable[[Tensor, State, Weights], State], x: Tensor, state: State, w: Weights, *, reverse: bool
) -> tuple[list[Tensor], State]:
    """Take a step for each of (T, N, in); return the states after each, S of (T, N, H), and the last."""
    inputs = steps_of(linear(x, w.ih, w.b_ih))  # T of (N, gates H)
    states = []
    for each in reversed(inputs) if reverse else inputs:
        state = step(each, state, w)
        states.append(state)
    ordered = states[::-1] if reverse else states
    return [side_by_side([each[k] for each in ordered]) for k in range(len(state))], state


def _parts(gates: Tensor, count: int) -> list[Tensor]:
    """Split the last axis into equal parts."""
    size = gates.shape[-1] // count
    return [gates[..., k * size : (k + 1) * size] for k in range(count)]


def steps_of(x: Tensor) -> list[Tensor]:
    """Return x[0], x[1], ...: halves of halves, so that gradients add up in T log T and not in T^2 steps."""
    length = x.shape[0]
    if length == 1:
        return [reshape(x, shape=x.shape[1:])]
    return [*steps_of(x[: length // 2]), *steps_of(x[length // 2 :])]


def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """Lay tensors of one shape side by side along a new first axis."""
    return cat(*(reshape(each, shape=(1, *each.shape)) for each in tensors), dim=0)
