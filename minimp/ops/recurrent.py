"""Recurrences over a whole sequence: one product for all inputs, one for each step, one for each weight.

The formulas are those of :mod:`minimp.ops.cells`. What is rounded to the working format: the states after
each step, and in backward the gradients of the gates, each once; all between is in the wide format. Kept for
backward: the inputs, the states, the gates after their functions (and of a GRU W_hn h + b_hn).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minimp.door import op
from minimp.errors import ShapeError
from minimp.ops.cells import Weights, along, gru_step, lstm_step, rnn_relu_step, rnn_tanh_step, side_by_side
from minimp.policy import Mixed
from minimp.tape import Array, Node

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["gru", "lstm", "rnn_relu", "rnn_tanh"]


@op(mixed=Mixed.SAME, bound="dot")
def lstm(
    ctx: Node, x: Array, h: Array, c: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None,
    b_hh: Array | None = None, *, reverse: bool = False,
) -> Array:  # fmt: skip
    """Long short-term memory along a sequence: every h, and every c, side by side.

    (T, N, in), (N, H), (N, H), (4 H, in), (4 H, H), (4 H,), (4 H,) -> (2, T, N, H); from the last step to the
    first with `reverse`. The formulas are in :mod:`minimp.ops.cells`.
    """
    return _forward(ctx, (h, c), x, w_ih, w_hh, b_ih, b_hh, reverse)


@lstm.gradient
def _(ctx: Node, grad: Array, *, reverse: bool = False) -> tuple[Array | None, ...]:
    return _gradient(ctx, grad, 2, reverse)


@lstm.composite
def _(
    x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None, *,
    reverse: bool = False,
) -> Tensor:  # fmt: skip
    states, _ = along(lstm_step, x, (h, c), Weights(w_ih, w_hh, b_ih, b_hh), reverse=reverse)
    return side_by_side(states)


@op(mixed=Mixed.SAME, bound="dot")
def gru(
    ctx: Node, x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None,
    b_hh: Array | None = None, *, reverse: bool = False,
) -> Array:  # fmt: skip
    """A gated recurrent unit along a sequence: every h.

    (T, N, in), (N, H), (3 H, in), (3 H, H), (3 H,), (3 H,) -> (T, N, H); as :func:`lstm`.
    """
    return _forward(ctx, (h,), x, w_ih, w_hh, b_ih, b_hh, reverse)


@op(mixed=Mixed.SAME, bound="dot")
def rnn_tanh(
    ctx: Node, x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None,
    b_hh: Array | None = None, *, reverse: bool = False,
) -> Array:  # fmt: skip
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh) along a sequence: every h.

    (T, N, in), (N, H), (H, in), (H, H), (H,), (H,) -> (T, N, H); as :func:`lstm`.
    """
    return _forward(ctx, (h,), x, w_ih, w_hh, b_ih, b_hh, reverse)


@op(mixed=Mixed.SAME, bound="dot")
def rnn_relu(
    ctx: Node, x: Array, h: Array, w_ih: Array, w_hh: Array, b_ih: Array | None = None,
    b_hh: Array | None = None, *, reverse: bool = False,
) -> Array:  # fmt: skip
    """h' = max(W_ih x + b_ih + W_hh h + b_hh, 0) along a sequence: every h; shapes as :func:`rnn_tanh`."""
    return _forward(ctx, (h,), x, w_ih, w_hh, b_ih, b_hh, reverse)


def _of_one_state(ctx: Node, grad: Array, *, reverse: bool = False) -> tuple[Array | None, ...]:
    return _gradient(ctx, grad.reshape(1, *grad.shape), 1, reverse)


def _composed(step: Callable[..., Any]) -> Callable[..., Tensor]:
    """The op again, step by step with other ops."""

    def define(
        x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None, *,
        reverse: bool = False,
    ) -> Tensor:  # fmt: skip
        return along(step, x, (h,), Weights(w_ih, w_hh, b_ih, b_hh), reverse=reverse)[0][0]

    return define


for _op, _step in ((gru, gru_step), (rnn_tanh, rnn_tanh_step), (rnn_relu, rnn_relu_step)):
    _op.gradient(_of_one_state)
    _op.composite(_composed(_step))


def _forward(
    ctx: Node, first: tuple[Array, ...], x: Array, w_ih: Array, w_hh: Array, b_ih: Array | None,
    b_hh: Array | None, reverse: bool,
) -> Array:  # fmt: skip
    assert ctx.format is not None  # weights float
    _check(ctx, first, x, (w_ih, w_hh), (b_ih, b_hh))
    backend = ctx.backend
    gates = backend.matmul(_rows(ctx, x), backend.view(w_ih, _swapped), accumulate=ctx.accumulate)
    gates = gates.astype(ctx.wide(w_ih).dtype, copy=False)
    if b_ih is not None:
        gates += ctx.wide(b_ih)
    gates = gates.reshape(*x.shape[:2], len(w_ih))
    states, kept = backend.recurrence(
        ctx.op.name, gates, first, w_hh, b_hh,
        format=ctx.format, reverse=reverse, accumulate=ctx.accumulate,
    )  # fmt: skip
    y = states if len(first) > 1 else states[0]
    if ctx.recording:
        ctx.save(x, *first, w_ih, w_hh, b_ih, b_hh, y, *map(ctx.round, kept))
    return y


def _gradient(ctx: Node, grad: Array, count: int, reverse: bool) -> tuple[Array | None, ...]:
    """Go back along the steps; then the gradients of weights and inputs, all steps in one product each."""
    assert ctx.format is not None
    backend = ctx.backend
    x, *first = ctx.saved[: 1 + count]
    w_ih, w_hh, _, _, y, *kept = ctx.saved[1 + count :]
    states = y if count > 1 else backend.view(y, lambda a: a[None])
    by_inputs, by_product, by_first = backend.recurrence_gradient(
        ctx.op.name, grad, states, first, kept, w_hh,
        format=ctx.format, reverse=reverse, accumulate=ctx.accumulate,
    )  # fmt: skip
    g, p = _rows(ctx, by_inputs), _rows(ctx, by_product)
    rules: list[Callable[[], Array]] = [
        lambda: backend.matmul(g, w_ih, accumulate=ctx.accumulate).reshape(x.shape),
        *(lambda each=each: each for each in by_first),
        lambda: backend.matmul(_turned(ctx, g), _rows(ctx, x), accumulate=ctx.accumulate),
        lambda: backend.matmul(
            _turned(ctx, p), _rows(ctx, _before(ctx, states[0], first[0], reverse)), accumulate=ctx.accumulate
        ),
        lambda: backend.sum(g, axis=0, accumulate=ctx.accumulate),
        lambda: backend.sum(p, axis=0, accumulate=ctx.accumulate),
    ]
    return tuple(
        ctx.round(rule()) if ctx.needs(i) else None for i, rule in enumerate(rules[: len(ctx.inputs)])
    )


def _before(ctx: Node, h: Array, first: Array, reverse: bool) -> Array:
    """(T, N, H) and (N, H) -> (T, N, H): the h that each step began with."""
    parts = (h[1:], first[None]) if reverse else (first[None], h[:-1])
    return ctx.backend.xp.concatenate(parts, axis=0)


def _rows(ctx: Node, x: Array) -> Array:
    """(T, N, K) -> (T N, K)."""
    return ctx.backend.view(x, lambda a: a.reshape(math.prod(a.shape[:2]), a.shape[2]))


def _swapped(a: Array) -> Array:
    return a.swapaxes(0, 1)


def _turned(ctx: Node, x: Array) -> Array:
    return ctx.backend.view(x, _swapped)


def _check(
    ctx: Node, first: tuple[Array, ...], x: Array, weights: tuple[Array, Array], biases: tuple[Any, Any]
) -> None:
    """Refuse shapes that do not belong together."""
    w_ih, w_hh = weights
    shapes = [x.shape, *(each.shape for each in first), w_ih.shape, w_hh.shape]
    gates = {"lstm": 4, "gru": 3}.get(ctx.op.name, 1)
    fits = x.ndim == 3 and x.shape[0] > 0 and w_hh.ndim == 2 and w_hh.shape[0] == gates * w_hh.shape[1]
    fits = fits and w_ih.shape == (len(w_hh), x.shape[2])
    fits = fits and all(each.shape == (x.shape[1], w_hh.shape[1]) for each in first)
    if not fits or any(b is not None and b.shape != w_hh.shape[:1] for b in biases):
        raise ShapeError(
            f"expected (T, N, in), states (N, H), weights ({gates} H, in) and ({gates} H, H), biases "
            f"({gates} H,), and T at least 1, got {', '.join(map(str, shapes))}",
            op=ctx.op.name, shapes=shapes,
        )  # fmt: skip
