"""Borders of one value; negative lengths crop."""

from __future__ import annotations

from minimp.door import op
from minimp.errors import ShapeError
from minimp.tape import Array, Node

__all__ = ["constant_pad_nd"]

Pad = tuple[int, ...]
Where = tuple[slice, ...]


@op(bound="exact")
def constant_pad_nd(ctx: Node, x: Array, *, pad: Pad, value: float = 0.0) -> Array:
    """`value` around the last axes: pad = (before, after) of the last axis, then of the one before it, ...

    Negative lengths crop. A border is rounded to x's format. The gradient is g without the borders.
    """
    shape, inside, kept = _layout(x.shape, pad)
    y = ctx.backend.xp.full(shape, value, x.dtype)
    y[inside] = x[kept]
    return y


@constant_pad_nd.gradient
def _(ctx: Node, grad: Array, *, pad: Pad, value: float = 0.0) -> Array:
    shape = ctx.shape_of(0)
    _, inside, kept = _layout(shape, pad)
    if min(pad, default=0) >= 0:
        return grad[inside].copy()
    found = ctx.backend.scatter_add(shape, kept, ctx.wide(grad[inside]), accumulate=ctx.accumulate)
    return ctx.round(found)


def _layout(shape: tuple[int, ...], pad: Pad) -> tuple[tuple[int, ...], Where, Where]:
    """The shape of the result, where x lies in it, and what of x that is."""
    count = len(pad) // 2
    if len(pad) % 2 or count > len(shape):
        raise ShapeError(
            f"expected (before, after) for at most {len(shape)} axes, got {pad}",
            op="constant_pad_nd", shapes=[shape],
        )  # fmt: skip
    sides = [(0, 0)] * (len(shape) - count) + [(pad[2 * i], pad[2 * i + 1]) for i in reversed(range(count))]
    full = tuple(n + a + b for n, (a, b) in zip(shape, sides, strict=True))
    kept = tuple(slice(max(0, -a), n - max(0, -b)) for n, (a, b) in zip(shape, sides, strict=True))
    if any(n < 0 or k.stop < k.start for n, k in zip(full, kept, strict=True)):
        raise ShapeError(f"pad {pad} takes more away than {shape} has", op="constant_pad_nd", shapes=[shape])
    inside = tuple(
        slice(max(0, a), max(0, a) + k.stop - k.start) for (a, _), k in zip(sides, kept, strict=True)
    )
    return full, inside, kept
