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

__all__ = ["avg_pool2d", "conv2d_bias", "conv2d_weight", "conv2d_x", "max_pool2d"]

Array = np.ndarray[Any, Any]


def conv2d_x(c: Case) -> Running:
    """dx[n, c, s i + d u - p, ...] collects g[n, o, i, j] w[o, c, u, v]: (O/G) kH kW products.

    The fast kernels add O/G of them kH kW times, so that none passes more than O/G + kH kW roundings.

    With an infinite or NaN weight nothing is claimed: a kernel may pad the incoming gradient with zeros,
    and zero times infinity is NaN.
    """
    weight, geometry, shape = c.number(1), _geometry(c), c.shape(0)
    out, _, *kernel = weight.exact.shape
    filters, taps = out // geometry["groups"], math.prod(kernel)
    terms = filters + taps if c.at.accumulate in ("float32", "float64") else filters * taps
    found = c.grad.product(weight, lambda g, w: _conv_adjoint(g, w, shape, geometry), terms).rounded()
    if np.isfinite(weight.exact).all():
        return found
    return replace(found, error=np.full_like(found.error, np.inf))


def _conv_adjoint(grad: Array, weight: Array, shape: tuple[int, ...], geometry: Mapping[str, Any]) -> Array:
    (sh, sw), (ph, pw), (dh, dw) = (geometry[name] for name in ("stride", "padding", "dilation"))
    rows, columns = grad.shape[2:]
    dx = np.zeros((*shape[:2], shape[2] + 2 * ph, shape[3] + 2 * pw))
    grads, filters = (np.split(a, geometry["groups"], i) for i, a in ((1, grad), (0, weight)))
    images = np.split(dx, geometry["groups"], 1)  # views of dx
    for g, w, image in zip(grads, filters, images, strict=True):
        for u, v in np.ndindex(*weight.shape[2:]):
            down = slice(u * dh, u * dh + (rows - 1) * sh + 1, sh)
            right = slice(v * dw, v * dw + (columns - 1) * sw + 1, sw)
            image[:, :, down, right] += np.einsum("noij,oc->ncij", g, w[:, :, u, v], optimize=True)
    return dx[:, :, ph : ph + shape[2], pw : pw + shape[3]]


def conv2d_weight(c: Case) -> Running:
    """dw[o, c, u, v] = sum over n, i, j of g[n, o, i, j] x[n, c, s i + d u - p, s j + d v - p]."""
    geometry = _geometry(c)
    (_, _, height, width), groups = c.shape(1), geometry["groups"]
    rows, columns = c.grad.exact.shape[2:]

    def correlate(grad: Array, x: Array) -> Array:
        padded = reference.pad(x, geometry["padding"])
        seen = reference.windows(padded, (height, width), geometry["stride"], geometry["dilation"])
        parts = zip(np.split(grad, groups, 1), np.split(seen, groups, 1), strict=True)
        return np.concatenate([np.einsum("noij,ncijuv->ocuv", g, s, optimize=True) for g, s in parts], axis=0)

    terms = c.shape(0)[0] * rows * columns
    return c.grad.product(c.number(0), correlate, terms).rounded()


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
    flat = np.where(real, seen, -np.inf).reshape(*seen.shape[:4], -1)
    order = np.where(real, 0, 1).reshape(*real.shape[:4], -1) * np.ones_like(flat)
    best = flat.max(axis=-1, keepdims=True)
    taken = np.argmax(np.where(order == 1, -1, flat == best), axis=-1)
    nan = np.isnan(flat)
    taken = np.where(nan.any(axis=-1), flat.shape[-1] - 1 - np.argmax(nan[..., ::-1], axis=-1), taken)
    chosen = taken[..., None] == np.arange(flat.shape[-1])
    return _add_windows(c, lambda a: np.where(chosen, a[..., None], 0.0))


def avg_pool2d(c: Case) -> Running:
    """Each gradient over the window's count, to each of its elements; overlaps add up."""
    share = c.grad / c.at.number(reference.pool_counts(c.shape(0), c.options))
    taps = math.prod(c.options["kernel"])
    spread = Case(c.at, c.inputs, share, c.options, c.output)
    return _add_windows(spread, lambda a: np.repeat(a[..., None], taps, axis=-1))


def _add_windows(c: Case, fill: Callable[[Array], Array]) -> Running:
    """Add what `fill` gives each element of each window to the image."""
    shape, options = c.shape(0), c.options
    places = np.arange(math.prod(shape[2:]), dtype=np.float64).reshape(1, 1, *shape[2:])
    seen = reference.pool_windows(places, options, -1.0)
    where = seen.reshape(*seen.shape[2:4], -1).astype(np.int64)  # -1: outside the image
    index: Any = (slice(None), slice(None), where)

    def add(a: Array) -> Array:
        out = np.zeros((*shape[:2], places.size + 1))
        np.add.at(out, index, fill(a))
        return out[..., :-1].reshape(shape)

    terms = int(add(np.ones(c.grad.exact.shape)).max(initial=0.0))
    if c.at.accumulate not in ("float32", "float64"):  # there, each tap has its place among the terms
        terms = math.prod(options["kernel"])
    return (c.grad.move(add) if terms <= 1 else c.grad.gather(add, terms)).rounded()
