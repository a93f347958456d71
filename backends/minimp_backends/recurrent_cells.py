r"""One step of each recurrent cell and its gradient, on wide arrays; the formulas are in minimp.ops.cells.

Forward finds W_ih x + b_ih in `gates`, (N, G H), and leaves there what the gradient reads: the gates after
their functions. The slopes are s' = s (1 - s) of the logistic function and 1 - y^2 of y = tanh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["CELLS", "Cell"]

Array = Any


class Cell(NamedTuple):
    """One kind of recurrence.

    Attributes:
        states: how many arrays (N, H) a state is; the first is what the weight multiplies.
        kept: what the gradient needs beside the states: 0 nothing; 1 the gates after their functions; 2 also
            what forward puts `aside`, (N, H).
        split: whether the two halves of the gates have gradients of their own.
        forward: ``(backend, gates, product, aside, old) -> new``: from the two halves of the gates, W_ih x
            + b_ih and W_hh h + b_hh, and the old states to the new ones; `gates` and `aside` are written.
        backward: ``(backend, grads, kept, old, new, rooms) -> grads``: from the gradients of the new
            states to those of the old, less what goes through the product; the gradients of the two halves
            are written into `rooms`.
    """

    states: int
    kept: int
    split: bool
    forward: Callable[..., Sequence[Array]]
    backward: Callable[..., list[Array]]


def _lstm(backend: Any, gates: Array, product: Array, aside: Array, old: Sequence[Array]) -> Sequence[Array]:
    del aside
    gates += product
    i, f, g, o = _parts(gates, 4)
    both = gates[:, : 2 * i.shape[1]]
    both[...] = backend.logistic(both)
    backend.tanh(g, out=g)
    o[...] = backend.logistic(o)
    c = f * old[1]
    c += i * g
    return o * backend.tanh(c), c


def _lstm_gradient(
    backend: Any, grads: Sequence[Array], kept: Sequence[Array], old: Sequence[Array], new: Sequence[Array],
    rooms: tuple[Array, Array],
) -> list[Array]:  # fmt: skip
    (by_h, by_c), (gates,), room = grads, kept, rooms[0]
    i, f, g, o = _parts(gates, 4)
    bent = backend.tanh(new[1])
    by_c = by_c + by_h * o * (1 - bent * bent)
    for part, (one, other) in zip(
        _parts(room, 4), ((by_c, g), (by_c, old[1]), (by_c, i), (by_h, bent)), strict=True
    ):
        backend.xp.multiply(one, other, out=part)
    slopes = 1 - gates
    slopes *= gates
    _parts(slopes, 4)[2][...] = 1 - g * g
    room *= slopes
    return [backend.xp.zeros_like(by_h), by_c * f]


def _gru(backend: Any, gates: Array, product: Array, aside: Array, old: Sequence[Array]) -> Sequence[Array]:
    r, z, n = _parts(gates, 3)
    both = slice(0, 2 * r.shape[1])
    gates[:, both] += product[:, both]
    gates[:, both] = backend.logistic(gates[:, both])
    aside[...] = _parts(product, 3)[2]
    n += aside * r
    backend.tanh(n, out=n)
    return [(old[0] - n) * z + n]


def _gru_gradient(
    backend: Any, grads: Sequence[Array], kept: Sequence[Array], old: Sequence[Array], new: Sequence[Array],
    rooms: tuple[Array, Array],
) -> list[Array]:  # fmt: skip
    del new
    (by_h,), (gates, aside), (by_inputs, by_product) = grads, kept, rooms
    r, z, n = _parts(gates, 3)
    by_r, by_z, by_n = _parts(by_inputs, 3)
    backend.xp.multiply(by_h * (1 - z), 1 - n * n, out=by_n)
    backend.xp.multiply(by_n * aside, r * (1 - r), out=by_r)
    backend.xp.multiply(by_h * (old[0] - n), z * (1 - z), out=by_z)
    by_product[...] = by_inputs
    _parts(by_product, 3)[2][...] *= r
    return [by_h * z]


def _rnn_tanh(
    backend: Any, gates: Array, product: Array, aside: Array, old: Sequence[Array]
) -> Sequence[Array]:
    del aside, old
    gates += product
    return [backend.tanh(gates, out=gates)]


def _rnn_relu(
    backend: Any, gates: Array, product: Array, aside: Array, old: Sequence[Array]
) -> Sequence[Array]:
    del aside, old
    gates += product
    return [backend.xp.maximum(gates, backend.xp.zeros(gates.shape[-1:], gates.dtype), out=gates)]


def _rnn_tanh_gradient(
    backend: Any, grads: Sequence[Array], kept: Sequence[Array], old: Sequence[Array], new: Sequence[Array],
    rooms: tuple[Array, Array],
) -> list[Array]:  # fmt: skip
    del kept, old
    backend.xp.multiply(grads[0], 1 - new[0] * new[0], out=rooms[0])
    return [backend.xp.zeros_like(grads[0])]


def _rnn_relu_gradient(
    backend: Any, grads: Sequence[Array], kept: Sequence[Array], old: Sequence[Array], new: Sequence[Array],
    rooms: tuple[Array, Array],
) -> list[Array]:  # fmt: skip
    del kept, old
    rooms[0][...] = backend.xp.where(new[0] <= 0, backend.xp.zeros_like(grads[0]), grads[0])
    return [backend.xp.zeros_like(grads[0])]


def _parts(gates: Array, count: int) -> list[Array]:
    """Views of the last axis in equal parts."""
    size = gates.shape[-1] // count
    return [gates[..., k * size : (k + 1) * size] for k in range(count)]


CELLS: Mapping[str, Cell] = MappingProxyType(
    {
        "lstm": Cell(2, 1, False, _lstm, _lstm_gradient),
        "gru": Cell(1, 2, True, _gru, _gru_gradient),
        "rnn_tanh": Cell(1, 0, False, _rnn_tanh, _rnn_tanh_gradient),
        "rnn_relu": Cell(1, 0, False, _rnn_relu, _rnn_relu_gradient),
    }
)
"""By the name of the op."""
