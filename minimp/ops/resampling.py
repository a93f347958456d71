"""Interpolation and borders: linear maps along the last axes, each output a few weighted inputs.

A plan has one entry an axis, ``(index, weight)`` of shape (taps, length of the result)::

    y[..., i] = sum over taps t of weight[t, i] x[..., index[t, i]]

A weight of None is 1, and with one tap elements are only moved. What the ops below are called decides what
autocast does with them; what they compute is in their plan. Nothing is saved for backward.
"""

from __future__ import annotations

from typing import Any

from minimp.door import Op, op
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["MOVING", "WEIGHING", "Plan", "resample", "resample_input"]


class Plan(tuple[tuple[Any, Any], ...]):
    """The entries of each axis, first to last; shown by its lengths."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{index.shape[1]} from {len(index)} each' for index, _ in self)})"

    @property
    def moves(self) -> bool:
        """Whether elements are only moved."""
        return all(weight is None and len(index) == 1 for index, weight in self)


def _apply(ctx: Node, x: Array, *, plan: Plan) -> Array:
    return ctx.round(ctx.backend.resample(x, {"plan": plan}, accumulate=ctx.accumulate))


def _apply_back(ctx: Node, grad: Array, *, plan: Plan) -> Array:
    how = ctx.accumulate
    return ctx.round(ctx.backend.resample_input(grad, ctx.shape_of(0), {"plan": plan}, accumulate=how))


@op(bound="sum")
def resample(ctx: Node, x: Array, *, plan: Plan) -> Array:
    """A plan applied to the last axes of x: what the gradient of :func:`resample_input` is."""
    return _apply(ctx, x, plan=plan)


@resample.gradient
def _(ctx: Node, grad: Array, *, plan: Plan) -> Array:
    return _apply_back(ctx, grad, plan=plan)


@op(bound="sum")
def resample_input(ctx: Node, grad: Array, *, shape: tuple[int, ...], plan: Plan) -> Array:
    """The adjoint of a plan: each g, weighted, added to the elements that it was made from.  -> `shape`.

    By name, the terms of an element come in the order of (i, t) of the first axis, then of the next.
    """
    return ctx.round(ctx.backend.resample_input(grad, shape, {"plan": plan}, accumulate=ctx.accumulate))


@resample_input.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], plan: Plan) -> Array:
    return _apply(ctx, grad, plan=plan)


def _declare(name: str, cast: CastClass, bound: str, text: str) -> Op:
    """Make an op that applies its plan."""

    def forward(ctx: Node, x: Array, *, plan: Plan) -> Array:
        return _apply(ctx, x, plan=plan)

    forward.__name__, forward.__doc__ = name, text
    made = op(cast=cast, mixed=Mixed.PROMOTE, bound=bound)(forward)
    made.gradient(_apply_back)
    return made


_FP32, _KEEP = CastClass.FP32, CastClass.KEEP
_ROWS = (
    ("_pad_circular", _KEEP, "Borders continued from the other side; -> longer last axes."),
    ("_upsample_nearest_exact1d", _FP32, "The nearest element, by centres.  (N, C, L) -> (N, C, L')."),
    ("_upsample_nearest_exact2d", _FP32, "The nearest element, by centres.  (N, C, H, W) -> (N, C, H', W')."),
    ("_upsample_nearest_exact3d", _FP32, "The nearest element, by centres, along three axes."),
    ("reflection_pad1d", _KEEP, "The last axis continued by its mirror image, the border element once."),
    ("reflection_pad2d", _KEEP, "The last two axes continued by their mirror images."),
    ("reflection_pad3d", _KEEP, "The last three axes continued by their mirror images."),
    ("replication_pad1d", _KEEP, "The last axis continued by its border elements."),
    ("replication_pad2d", _KEEP, "The last two axes continued by their border elements."),
    ("replication_pad3d", _KEEP, "The last three axes continued by their border elements."),
    ("upsample_nearest1d", _FP32, "Element floor(i L / L').  (N, C, L) -> (N, C, L')."),
    (
        "upsample_nearest2d",
        _FP32,
        "Element floor(i H / H'), floor(j W / W').  (N, C, H, W) -> (N, C, H', W').",
    ),
    ("upsample_nearest3d", _FP32, "The same along three axes.  (N, C, D, H, W) -> (N, C, D', H', W')."),
)
MOVING = {name: _declare(name, cast, "exact", text) for name, cast, text in _ROWS}
"""Ops that repeat elements: name -> op; their gradients add up where an element was repeated."""

_WEIGHED = (
    ("upsample_bicubic2d", "Keys's cubics through 4 x 4 neighbours (a = -0.75).  -> (N, C, H', W')."),
    ("upsample_bilinear2d", "Two neighbours along each axis, by distance.  (N, C, H, W) -> (N, C, H', W')."),
    ("upsample_linear1d", "Two neighbours, by distance.  (N, C, L) -> (N, C, L')."),
    ("upsample_trilinear3d", "Two neighbours along each of three axes, by distance."),
)
WEIGHING = {name: _declare(name, _FP32, "sum", text) for name, text in _WEIGHED}
"""Ops that weigh neighbours: name -> op; the last axis is worked on first, one rounding at the end."""
