"""The gradients of ops on windows of images, in float64 with their bounds: convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minimp.checks import reference
from minimp.checks.case import Case
from minimp.checks.running import Running

__all__ = [
    "add_windows", "avg_pool2d", "conv2d_bias", "conv2d_weight", "conv2d_x", "correlation", "each_tap",
    "max_pool2d", "spread", "transposed",
]  # fmt: skip

Array = np.ndarray[Any, Any]


def conv2d_x(c: Case) -> Running:
    """dx[n, c, s i + d u - p, ...] collects g[n, o, i, j] w[o, c, u, v]: (O/G) kH kW products.

    The fast kernels add O/G of them kH kW times, so that none passes more than O/G + kH kW roundings.

    With an infinite or NaN weight nothing is claimed: a kernel may pad the incoming gradient with zeros,
    and zero times infinity is NaN.
    """
    return transposed(c.grad, c.number(1), c.shape(0), _geometry(c)).rounded()


def transposed(
    x: Running, weight: Running, shape: tuple[int, ...], geometry: Mapping[str, Any]
) -> Running:  # fmt: skip
    """What conv2d_x says, for any x: a transposed convolution, not yet rounded."""
    out, _, *kernel = weight.exact.shape
    filters, taps = out // geometry["groups"], math.prod(kernel)
    terms = filters + taps if x.at.accumulate in ("float32", "float64") else filters * taps
    found = x.product(weight, lambda g, w: spread(g, w, shape=shape, **geometry), terms)
    if np.isfinite(weight.exact).all():
        return found
    return replace(found, error=np.full_like(found.error, np.inf))


def spread(
    grad: Array, weight: Array, *, shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any,
    groups: int,
) -> Array:  # fmt: skip
    """dx[n, c, s i + d u - p, s j + d v - p] += g[n, o, i, j] w[o, c, u, v], tap by tap."""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    rows, columns = grad.shape[2:]
    dx = np.zeros((*shape[:2], shape[2] + 2 * ph, shape[3] + 2 * pw))
    grads, filters = (np.split(a, groups, i) for i, a in ((1, grad), (0, weight)))
    images = np.split(dx, groups, 1)  # views of dx
    for g, w, image in zip(grads, filters, images, strict=True):
        for u, v in np.ndindex(*weight.shape[2:]):
            down = slice(u * dh, u * dh + (rows - 1) * sh + 1, sh)
            right = slice(v * dw, v * dw + (columns - 1) * sw + 1, sw)
            image[:, :, down, right] += np.einsum("noij,oc->ncij", g, w[:, :, u, v], optimize=True)
    return dx[:, :, ph : ph + shape[2], pw : pw + shape[3]]


def conv2d_weight(c: Case) -> Running:
    """dw[o, c, u, v] = sum over n, i, j of g[n, o, i, j] x[n, c, s i + d u - p, s j + d v - p]."""
    return correlation(c.grad, c.number(0), c.shape(1), _geometry(c)).rounded()


def correlation(
    grad: Running, x: Running, shape: tuple[int, ...], geometry: Mapping[str, Any]
) -> Running:  # fmt: skip
    """What conv2d_weight says, for any g and x: each weight's sum over images and positions, not rounded."""
    groups, terms = geometry["groups"], grad.exact.size // max(1, grad.exact.shape[1])

    def correlate(grad: Array, x: Array) -> Array:
        rows, columns = grad.shape[2:]
        padded = reference.pad(x, geometry["padding"])
        seen = reference.windows(padded, (shape[2], shape[3]), geometry["stride"], geometry["dilation"])
        seen = seen[:, :, :rows, :columns]
        parts = zip(np.split(grad, groups, 1), np.split(seen, groups, 1), strict=True)
        return np.concatenate([np.einsum("noij,ncijuv->ocuv", g, s, optimize=True) for g, s in parts], axis=0)

    return grad.product(x, correlate, terms)


def conv2d_bias(c: Case) -> Running:
    """db[o] = sum over n, i, j of g[n, o, i, j]."""
    return c.grad.sum((0, 2, 3)).rounded()


def _geometry(c: Case) -> dict[str, Any]:
    return {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, **c.options}


def max_pool2d(c: Case) -> Running:
    """Each gradient to the first maximum of its window (the last NaN, if there is one); overlaps add up."""
    x, options = c.number(0).exact, c.options
    seen = reference.pool_windows(x, options, -np.inf)
    real = reference.pool_windows(np.ones((1, 1, *x.shape[2:])), options, 0.0) == 1.0
    flat = np.where(real, seen, -np.inf).reshape(*seen.shape[:4], math.prod(seen.shape[4:]))
    order = np.where(real, 0, 1).reshape(*real.shape[:4], math.prod(real.shape[4:])) * np.ones_like(flat)
    best = flat.max(axis=-1, keepdims=True)
    taken = np.argmax(np.where(order == 1, -1, flat == best), axis=-1)
    nan = np.isnan(flat)
    taken = np.where(nan.any(axis=-1), flat.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1), taken)
    chosen = taken[..., None] == np.arange(flat.shape[-1])
    return add_windows(c.grad, x.shape, options, lambda a: np.where(chosen, a[..., None], 0.0)).rounded()


def avg_pool2d(c: Case) -> Running:
    """Each gradient over the window's count, to each of its elements; overlaps add up."""
    share = c.grad / c.at.number(reference.pool_counts(c.shape(0), c.options))
    return add_windows(share, c.shape(0), c.options, each_tap(c.options)).rounded()


def each_tap(options: Mapping[str, Any]) -> Callable[[Array], Array]:
    """Repeat what a window gets for each of its elements."""
    return lambda a: np.repeat(a[..., None], math.prod(options["kernel"]), axis=-1)


def add_windows(
    grad: Running, shape: tuple[int, ...], options: Mapping[str, Any], fill: Callable[[Array], Array]
) -> Running:
    """Add what `fill` gives each element of each window to an image of `shape`; not yet rounded."""
    places = np.arange(math.prod(shape[2:]), dtype=np.float64).reshape(1, 1, *shape[2:])
    seen = reference.pool_windows(places, options, -1.0)
    where = seen.reshape(*seen.shape[2:4], -1).astype(np.int64)  # -1: outside the image
    index: Any = (slice(None), slice(None), where)

    def add(a: Array) -> Array:
        out = np.zeros((*shape[:2], places.size + 1))
        np.add.at(out, index, fill(a))
        return out[..., :-1].reshape(shape)

    terms = int(add(np.ones(grad.exact.shape)).max(initial=0.0))
    if grad.at.accumulate not in ("float32", "float64"):  # there, each tap has its place among the terms
        terms = math.prod(options["kernel"])
    return grad.move(add) if terms <= 1 else grad.gather(add, terms)
