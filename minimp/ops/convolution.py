"""Convolutions beside conv2d: over one axis, transposed, and the two gradients of conv2d as ops.

conv2d is linear in the image and in the weights, and so are its gradients: each of the three kernels has the
other two for gradients. All of them run on two axes; a signal (N, C, L) is an image of height 1.
"""

from __future__ import annotations

from typing import Any

from minimp.door import op
from minimp.errors import SettingError, ShapeError
from minimp.policy import CastClass, Mixed
from minimp.tape import Array, Node

__all__ = ["conv1d", "conv2d_input", "conv2d_weight", "conv_transpose1d", "conv_transpose2d"]

Pair = tuple[int, int]
One = tuple[int]


# ---- the gradients of conv2d ------------------------------------------------------------------------------


@op(mixed=Mixed.SAME, bound="dot")
def conv2d_input(ctx: Node, grad: Array, weight: Array, *, shape: tuple[int, ...], **geometry: Any) -> Array:
    """The gradient of conv2d by its image.  (N, O, H', W'), (O, C/groups, kH, kW) -> `shape` (N, C, H, W).

    dx[n, c, s i + d u - p, ...] adds up g[n, o, i, j] w[o, c, u, v]; stride, padding, dilation and groups are
    conv2d's. Its own gradients are conv2d by g, and conv2d_weight by w.
    """
    ctx.save(grad if ctx.needs(1) else None, weight if ctx.needs(0) else None)
    return ctx.round(ctx.backend.conv2d_input(grad, weight, shape, geometry, accumulate=ctx.accumulate))


@conv2d_input.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> tuple[Array | None, ...]:
    x, weight = ctx.saved
    by_x, by_weight = _transposed_gradients(ctx, (x, weight), grad, geometry, (0, 0))
    return _rounded(ctx, by_x), _rounded(ctx, by_weight)


@op(mixed=Mixed.SAME, bound="dot")
def conv2d_weight(ctx: Node, x: Array, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> Array:
    """The gradient of conv2d by its weight.  (N, C, H, W), (N, O, H', W') -> `shape` (O, C/groups, kH, kW).

    dw[o, c, u, v] = sum over n, i, j of g[n, o, i, j] x[n, c, s i + d u - p, ...]. Its own gradients are
    conv2d_input by x, and conv2d by g.
    """
    ctx.save(x if ctx.needs(1) else None, grad if ctx.needs(0) else None)
    return ctx.round(ctx.backend.conv2d_weight(x, grad, shape, geometry, accumulate=ctx.accumulate))


@conv2d_weight.gradient
def _(ctx: Node, grad: Array, *, shape: tuple[int, ...], **geometry: Any) -> tuple[Array | None, ...]:
    x, given = ctx.saved
    backend, how = ctx.backend, ctx.accumulate
    by_x = by_grad = None
    if ctx.needs(0):
        by_x = ctx.round(backend.conv2d_input(given, grad, ctx.shape_of(0), geometry, accumulate=how))
    if ctx.needs(1):
        by_grad = ctx.round(backend.conv2d(x, grad, None, geometry, accumulate=how))
    return by_x, by_grad


def _transposed_gradients(
    ctx: Node, saved: tuple[Any, Any], grad: Array, geometry: dict[str, Any], extra: Pair
) -> tuple[Array | None, Array | None]:
    """The gradients, wide, of a transposed convolution of images: by what it spreads, and by the weight."""
    x, weight = saved
    backend, how = ctx.backend, ctx.accumulate
    by_x = by_weight = None
    if weight is not None:
        by_x = backend.conv2d(grad, weight, None, geometry, accumulate=how)
    if x is not None:
        shape = (*ctx.shape_of(1)[:2], *(1, *ctx.shape_of(1)[2:])[-2:])
        x = _lengthened(ctx, x, geometry["stride"], extra)
        by_weight = backend.conv2d_weight(grad, x, shape, geometry, accumulate=how)
    return by_x, by_weight


# ---- one axis ---------------------------------------------------------------------------------------------


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="dot")
def conv1d(
    ctx: Node, x: Array, weight: Array, bias: Array | None = None, *, stride: One = (1,),
    padding: One = (0,), dilation: One = (1,), groups: int = 1,
) -> Array:  # fmt: skip
    """Cross-correlation.  (N, C, L), (O, C/groups, K), (O,) -> (N, O, L'); one rounding.

    L' = floor((L + 2 padding - dilation (K - 1) - 1) / stride) + 1 (torch.nn.functional.conv1d).
    """
    geometry = _planar(stride, padding, dilation, groups)
    _check_conv1d(x, weight, bias, geometry)
    ctx.save(x if ctx.needs(1) else None, weight if ctx.needs(0) else None)
    y = ctx.backend.conv2d_with_bias(
        _image(ctx, x), _image(ctx, weight), bias, geometry, ctx.format, accumulate=ctx.accumulate
    )
    return _signal(ctx, y)


@conv1d.gradient
def _(ctx: Node, grad: Array, *, stride: One = (1,), padding: One = (0,), dilation: One = (1,),
      groups: int = 1) -> tuple[Array | None, ...]:  # fmt: skip
    x, weight = ctx.saved
    backend, how, g = ctx.backend, ctx.accumulate, _image(ctx, grad)
    geometry = _planar(stride, padding, dilation, groups)
    by_x = by_weight = None
    if ctx.needs(0):
        shape = ctx.shape_of(0)
        found = backend.conv2d_input(g, _image(ctx, weight), _image_shape(shape), geometry, accumulate=how)
        by_x = ctx.round(found.reshape(shape))
    if ctx.needs(1):
        shape = ctx.shape_of(1)
        found = backend.conv2d_weight(_image(ctx, x), g, _image_shape(shape), geometry, accumulate=how)
        by_weight = ctx.round(found.reshape(shape))
    return by_x, by_weight, _by_bias(ctx, grad)


def _planar(stride: One, padding: One, dilation: One, groups: int) -> dict[str, Any]:
    """The geometry of a convolution along one axis, on images of height 1."""
    return {"stride": (1, *stride), "padding": (0, *padding), "dilation": (1, *dilation), "groups": groups}


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], 1, *shape[2:])


def _image(ctx: Node, x: Array) -> Array:
    """(N, C, L) -> (N, C, 1, L)."""
    return ctx.backend.view(x, lambda a: a.reshape(_image_shape(a.shape)))


def _signal(ctx: Node, y: Array) -> Array:
    """(N, C, 1, L) -> (N, C, L)."""
    return ctx.backend.view(y, lambda a: a.reshape(*a.shape[:2], a.shape[3]))


def _by_bias(ctx: Node, grad: Array) -> Array | None:
    """The gradient of a bias: the sum over images and positions; None if there is none to give."""
    if len(ctx.inputs) < 3 or not ctx.needs(2):
        return None
    axes = (0, *range(2, grad.ndim))
    return ctx.round(ctx.backend.sum(grad, axis=axes, accumulate=ctx.accumulate))


# ---- transposed -------------------------------------------------------------------------------------------


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="dot")
def conv_transpose2d(
    ctx: Node, x: Array, weight: Array, bias: Array | None = None, *, stride: Pair = (1, 1),
    padding: Pair = (0, 0), output_padding: Pair = (0, 0), groups: int = 1, dilation: Pair = (1, 1),
) -> Array:  # fmt: skip
    """What conv2d's gradient does to g.  (N, C, H, W), (C, O/groups, kH, kW), (O,) -> (N, O, H', W').

    y[n, o, s i + d u - p, s j + d v - p] adds up x[n, c, i, j] w[c, o, u, v], and b[o]; one rounding.
    H' = (H - 1) stride - 2 padding + dilation (kH - 1) + output_padding + 1: output_padding adds rows at the
    end, as stride > 1 leaves open which height they came from (torch.nn.functional.conv_transpose2d).
    """
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    _check_transposed("conv_transpose2d", x, weight, bias, geometry, output_padding)
    ctx.save(x if ctx.needs(1) else None, weight if ctx.needs(0) else None)
    return _spread(ctx, x, weight, bias, geometry, output_padding)


@conv_transpose2d.gradient
def _(ctx: Node, grad: Array, *, output_padding: Pair = (0, 0), **sizes: Any) -> tuple[Array | None, ...]:
    geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **sizes}
    x, weight = ctx.saved
    by_x, by_weight = _transposed_gradients(ctx, (x, weight), grad, geometry, output_padding)
    if by_x is not None:
        _, _, rows, columns = ctx.shape_of(0)
        by_x = by_x[:, :, :rows, :columns]
    return _rounded(ctx, by_x), _rounded(ctx, by_weight), _by_bias(ctx, grad)


@op(cast=CastClass.LOWER, mixed=Mixed.SAME, bound="dot")
def conv_transpose1d(
    ctx: Node, x: Array, weight: Array, bias: Array | None = None, *, stride: One = (1,),
    padding: One = (0,), output_padding: One = (0,), groups: int = 1, dilation: One = (1,),
) -> Array:  # fmt: skip
    """conv_transpose2d along one axis.  (N, C, L), (C, O/groups, K), (O,) -> (N, O, L'); one rounding.

    L' = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1.
    """
    geometry = _planar(stride, padding, dilation, groups)
    _check_transposed("conv_transpose1d", x, weight, bias, geometry, (0, *output_padding))
    ctx.save(x if ctx.needs(1) else None, weight if ctx.needs(0) else None)
    y = _spread(ctx, _image(ctx, x), _image(ctx, weight), bias, geometry, (0, *output_padding))
    return _signal(ctx, y)


@conv_transpose1d.gradient
def _(ctx: Node, grad: Array, *, stride: One = (1,), padding: One = (0,), output_padding: One = (0,),
      groups: int = 1, dilation: One = (1,)) -> tuple[Array | None, ...]:  # fmt: skip
    x, weight = (None if a is None else _image(ctx, a) for a in ctx.saved)
    geometry, g = _planar(stride, padding, dilation, groups), _image(ctx, grad)
    by_x, by_weight = _transposed_gradients(ctx, (x, weight), g, geometry, (0, *output_padding))
    if by_x is not None:
        by_x = by_x[:, :, 0, : ctx.shape_of(0)[2]]
    if by_weight is not None:
        by_weight = by_weight[:, :, 0]
    return _rounded(ctx, by_x), _rounded(ctx, by_weight), _by_bias(ctx, grad)


def _rounded(ctx: Node, wide: Array | None) -> Array | None:
    return None if wide is None else ctx.round(wide)


def _spread(
    ctx: Node, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], extra: Pair
) -> Array:
    """The transposed convolution of images, rounded."""
    size = _transposed_size(x.shape, weight.shape, geometry, extra)
    shape = (x.shape[0], weight.shape[1] * geometry["groups"], *size)
    x = _lengthened(ctx, x, geometry["stride"], extra)
    return ctx.backend.conv2d_input_with_bias(
        x, weight, shape, bias, geometry, ctx.format, accumulate=ctx.accumulate
    )


def _lengthened(ctx: Node, x: Array, stride: Pair, extra: Pair) -> Array:
    """Put zeros behind the rows and columns where output_padding makes room for one more of them."""
    down, right = extra[0] // stride[0], extra[1] // stride[1]
    if not (down or right):
        return x
    shape = (*x.shape[:2], x.shape[2] + down, x.shape[3] + right)
    inside = (..., slice(x.shape[2]), slice(x.shape[3]))
    return ctx.round(ctx.backend.scatter_add(shape, inside, ctx.wide(x), accumulate=ctx.accumulate))


def _transposed_size(
    x: tuple[int, ...], weight: tuple[int, ...], geometry: dict[str, Any], extra: Pair
) -> list[int]:
    """H' and W'."""
    parts = zip(
        x[2:], weight[2:], geometry["stride"], geometry["padding"], geometry["dilation"], extra, strict=True
    )
    return [(n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, d, e in parts]


# ---- what cannot be ---------------------------------------------------------------------------------------


def _check_conv1d(x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any]) -> None:
    """Refuse shapes that no convolution of signals has."""
    shapes, groups = [x.shape, weight.shape], geometry["groups"]
    if x.ndim != 3 or weight.ndim != 3:
        raise ShapeError(
            f"expected x (N, C, L) and weight (O, C/groups, K), got {x.shape} and {weight.shape}",
            op="conv1d", shapes=shapes, help="add a batch axis with x[None], a channel axis with x[:, None]",
        )  # fmt: skip
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ShapeError(
            f"expected {weight.shape[1] * groups} input channels (weight {weight.shape}, groups {groups}), "
            f"got {x.shape[1]}",
            op="conv1d", shapes=shapes,
        )  # fmt: skip
    _check_bias("conv1d", bias, weight.shape[0])
    room = x.shape[2] + 2 * geometry["padding"][1]
    reach = geometry["dilation"][1] * (weight.shape[2] - 1) + 1
    if reach > room:
        raise ShapeError(
            f"the kernel reaches over {reach} elements, the padded input has {room}",
            op="conv1d", shapes=shapes, help="pad more, or use a smaller kernel",
        )  # fmt: skip


def _check_transposed(
    name: str, x: Array, weight: Array, bias: Array | None, geometry: dict[str, Any], extra: Pair
) -> None:
    """Refuse shapes that no transposed convolution has."""
    shapes, groups, ndim = [x.shape, weight.shape], geometry["groups"], 3 if name.endswith("1d") else 4
    if x.ndim != ndim or weight.ndim != ndim or x.shape[1] != weight.shape[0] or x.shape[1] % groups:
        places, kernel = ("L", "K") if ndim == 3 else ("H, W", "kH, kW")
        raise ShapeError(
            f"expected x (N, C, {places}) and weight (C, O/groups, {kernel}), groups {groups} dividing C, "
            f"got {x.shape} and {weight.shape}",
            op=name, shapes=shapes, help="the weight's first axis is the input's channels here",
        )  # fmt: skip
    _check_bias(name, bias, weight.shape[1] * groups)
    if any(e >= max(s, d) for e, s, d in zip(extra, geometry["stride"], geometry["dilation"], strict=True)):
        raise SettingError(
            f"{name}: output_padding {extra} must be smaller than the stride {geometry['stride']} or the "
            f"dilation {geometry['dilation']}",
            help="it says which of the sizes is meant that the stride leaves open",
        )
    as_image = [shape if ndim == 4 else _image_shape(shape) for shape in shapes]
    size = _transposed_size(as_image[0], as_image[1], geometry, extra)
    if min(size) < 1:
        raise ShapeError(
            f"nothing is left of a result of {tuple(size)} (padding {geometry['padding']} crops it)",
            op=name, shapes=shapes, help="use a larger input or kernel, or less padding",
        )  # fmt: skip


def _check_bias(name: str, bias: Array | None, channels: int) -> None:
    if bias is not None and bias.shape != (channels,):
        raise ShapeError(f"expected a bias of shape ({channels},), got {bias.shape}", op=name)
