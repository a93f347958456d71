r"""The end of a training step: new weights from gradients, and the rounding that keeps small updates alive.

Each rule stands here twice. ``plain_sgd`` and ``plain_adam`` say it over whole arrays, to be read; the
methods of :class:`Updates` do the same operations in the same order, block by block through scratch that
stays in the cache, and are tested bit-equal to them. The order is that of PyTorch 2.13's single-tensor
optimizers, so that float32 results agree to a few units in the last place (PyTorch fuses some multiplications
with the addition that follows).

All arrays of one call have one floating dtype, float32 or float64, in which everything is computed. Numbers
that do not depend on the element (1 - beta, the bias corrections) are computed in float64 first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minimp import formats
from minimp.formats import Format

__all__ = ["Updates", "plain_adam", "plain_sgd", "plain_stochastic_bfloat16"]

Array = Any
BLOCK = 64 * 1024
"""Elements of a block: six arrays of it fill a level-2 cache of 1 to 2 MiB."""


def plain_sgd(
    weight: Array, grad: Array, buffer: Array | None, *, lr: float, momentum: float, dampening: float,
    weight_decay: float, nesterov: bool, maximize: bool, first: bool,
) -> tuple[Array, Array, Array | None]:  # fmt: skip
    r"""Return (new weight, change, new buffer) of one step of gradient descent.

    g <- g + weight_decay w;  b <- momentum b + (1 - dampening) g, or g at the first step;
    d = g + momentum b (Nesterov), or b, or g without momentum;  w <- w - lr d.

    Source: torch.optim.SGD 2.13 (Sutskever et al. 2013, but for where lr stands).
    """
    grad = -grad if maximize else grad
    if weight_decay:
        grad = grad + weight * weight_decay
    if momentum:
        buffer = grad.copy() if first or buffer is None else buffer * momentum + grad * (1 - dampening)
        grad = grad + buffer * momentum if nesterov else buffer
    change = grad * -lr
    return weight + change, change, buffer


def plain_adam(
    xp: Any, weight: Array, grad: Array, mean: Array, square: Array, peak: Array | None, *, lr: float,
    beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool, maximize: bool, step: int,
) -> tuple[Array, Array, Array, Array, Array | None]:  # fmt: skip
    r"""Return (new weight, change, new mean, new square, new peak) of one step of Adam.

    m <- m + (1 - beta1) (g - m);  v <- beta2 v + (1 - beta2) g^2;  p <- max(p, v), used for v by AMSGrad;
    w <- w (1 - lr weight_decay) - lr / (1 - beta1^t) m / (sqrt v / sqrt(1 - beta2^t) + eps).

    If the decay is not decoupled, weight_decay w is added to g, and w is not shrunk.

    Source: Kingma and Ba 2015; Loshchilov and Hutter 2019 (decoupled); Reddi et al. 2018 (AMSGrad); order of
    operations of torch.optim.Adam 2.13. For beta1 <= 1/2 the mean is g - beta1 (g - m), as torch.lerp does.
    """
    grad = -grad if maximize else grad
    if weight_decay and not decoupled:
        grad = grad + weight * weight_decay
    gap = grad - mean
    mean = mean + gap * (1 - beta1) if beta1 > 0.5 else grad - gap * beta1
    square = square * beta2 + grad * (1 - beta2) * grad
    peak = None if peak is None else xp.maximum(peak, square)
    root = xp.sqrt(square if peak is None else peak)
    change = mean * (-lr / (1 - beta1**step)) / (root / (1 - beta2**step) ** 0.5 + eps)
    if not (weight_decay and decoupled):
        return weight + change, change, mean, square, peak
    shrink = lr * weight_decay
    return weight * (1 - shrink) + change, change - weight * shrink, mean, square, peak


def plain_stochastic_bfloat16(xp: Any, wide: Array, dice: Array) -> Array:
    """Round float32 to bfloat16, up in magnitude with probability (what is cut off) / ulp.

    A bfloat16 is the upper half of a float32. Adding a uniform 16-bit number to the bits carries into that
    half with probability (lower half) / 2^16, exactly; then the lower half is cut. So the rounding is
    unbiased, and what is representable stays. What rounds past the largest value becomes infinite.

    Args:
        xp: the array namespace.
        wide: float32, any shape.
        dice: uint16 of that shape, uniform.

    Source: Zamirai et al. 2020, "Revisiting BFloat16 Training", section 3 (arXiv 2010.06192).
    """
    bits = wide.view(xp.uint32)
    moved = ((bits + dice) >> 16).astype(xp.uint16)
    quiet = ((bits >> 16) | 0x40).astype(xp.uint16)  # a NaN stays one; a carry could turn it into -0
    return xp.where(xp.isnan(wide), quiet, moved).view(formats.bfloat16.dtype)


class Updates:
    """The part of a backend that ends a step; over the array namespace `xp`."""

    xp: Any
    from_host: Callable[[np.ndarray[Any, Any]], Array]
    cast: Callable[..., Array]

    def sgd(
        self, weight: Array, grad: Array, buffer: Array | None, change: Array | None = None, *, lr: float,
        momentum: float, dampening: float, weight_decay: float, nesterov: bool, maximize: bool, first: bool,
    ) -> Array:  # fmt: skip
        """Return the new weight; :func:`plain_sgd` says how it is computed.

        Args:
            weight, grad: arrays of one shape and dtype; left as they are.
            buffer: the running sum of gradients, contiguous, changed in place; None without momentum.
            change: where to write what was added to the weight, contiguous; None if nobody asks.
            lr, momentum, dampening, weight_decay, nesterov, maximize: as torch.optim.SGD.
            first: whether the buffer has not been filled yet.
        """
        out = self.xp.empty(weight.shape, weight.dtype)
        for w, given, b, o, delta, t, s in self._blocks(weight, grad, buffer, out, change, scratch=2):
            g = self.xp.negative(given, out=t) if maximize else given
            if weight_decay:
                self.xp.multiply(w, weight_decay, out=s)
                g = self.xp.add(g, s, out=t)
            if momentum:
                self._accumulate(b, g, s, momentum, dampening, first)
                g = self._look_ahead(b, g, s, t, momentum) if nesterov else b
            self.xp.multiply(g, -lr, out=s)
            self.xp.add(w, s, out=o)
            if delta is not None:
                delta[...] = s
        return out

    def _accumulate(
        self, b: Array, g: Array, s: Array, momentum: float, dampening: float, first: bool
    ) -> None:
        """b <- momentum b + (1 - dampening) g, or g at first."""
        if first:
            b[...] = g
            return
        self.xp.multiply(b, momentum, out=b)
        self.xp.multiply(g, 1 - dampening, out=s)
        self.xp.add(b, s, out=b)

    def _look_ahead(self, b: Array, g: Array, s: Array, t: Array, momentum: float) -> Array:
        """Return g + momentum b."""
        self.xp.multiply(b, momentum, out=s)
        return self.xp.add(g, s, out=t)

    def adam(
        self, weight: Array, grad: Array, mean: Array, square: Array, peak: Array | None,
        change: Array | None = None, *, lr: float, beta1: float, beta2: float, eps: float,
        weight_decay: float, decoupled: bool, maximize: bool, step: int,
    ) -> Array:  # fmt: skip
        """Return the new weight; :func:`plain_adam` says how it is computed.

        Args:
            weight, grad: arrays of one shape and dtype; left as they are.
            mean, square: the running means of g and g^2, contiguous, changed in place.
            peak: the largest `square` so far, changed in place; None without AMSGrad.
            change: where to write what was added to the weight, contiguous; None if nobody asks.
            lr, beta1, beta2, eps, weight_decay, maximize: as torch.optim.Adam.
            decoupled: whether the decay shrinks the weight (AdamW) or joins the gradient.
            step: the number of this step, from 1.
        """
        xp, shrink, shrinks = self.xp, lr * weight_decay, bool(weight_decay and decoupled)
        out = xp.empty(weight.shape, weight.dtype)
        size, correction = -lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
        blocks = self._blocks(weight, grad, mean, square, peak, out, change, scratch=2)
        for w, given, m, v, p, o, delta, t, s in blocks:
            g = xp.negative(given, out=t) if maximize else given
            if weight_decay and not decoupled:
                xp.multiply(w, weight_decay, out=s)
                g = xp.add(g, s, out=t)
            self._moments(m, v, g, s, beta1, beta2)
            root = v if p is None else xp.maximum(p, v, out=p)
            xp.sqrt(root, out=t)
            xp.divide(t, correction, out=t)
            xp.add(t, eps, out=t)
            xp.multiply(m, size, out=s)
            xp.divide(s, t, out=s)
            xp.add(xp.multiply(w, 1 - shrink, out=o) if shrinks else w, s, out=o)
            if delta is not None:
                delta[...] = xp.subtract(s, xp.multiply(w, shrink, out=t), out=s) if shrinks else s
        return out

    def _moments(self, m: Array, v: Array, g: Array, s: Array, beta1: float, beta2: float) -> None:
        """Carry both running means one step on."""
        xp = self.xp
        xp.subtract(g, m, out=s)
        if beta1 > 0.5:
            xp.multiply(s, 1 - beta1, out=s)
            xp.add(m, s, out=m)
        else:
            xp.multiply(s, beta1, out=s)
            xp.subtract(g, s, out=m)
        xp.multiply(v, beta2, out=v)
        xp.multiply(g, 1 - beta2, out=s)
        xp.multiply(s, g, out=s)
        xp.add(v, s, out=v)

    def _blocks(self, first: Array, *others: Array | None, scratch: int) -> Iterator[tuple[Any, ...]]:
        """Yield the arrays block by block, flat, then `scratch` blocks of work space; None stays None."""
        flat = [None if each is None else each.reshape(-1) for each in (first, *others)]
        size = first.size
        work = [self.xp.empty(min(size, BLOCK), first.dtype) for _ in range(scratch)]
        for start in range(0, size, BLOCK):
            stop = min(start + BLOCK, size)
            parts = [None if each is None else each[start:stop] for each in flat]
            yield (*parts, *(each[: stop - start] for each in work))

    def round_stochastic(self, wide: Array, format: Format, rng: np.random.Generator) -> Array:
        """Round a wide array once to storage of `format`, up or down at random, right on average.

        bfloat16 from float32 goes by :func:`plain_stochastic_bfloat16`, drawing 16 bits an element; anything
        else by :func:`minimp.formats.round`, drawing the seed of a counter. Overflow is to infinity.
        """
        if format.dtype != formats.bfloat16.dtype or wide.dtype != np.float32:
            seed = int(rng.integers(0, 1 << 64, dtype=np.uint64))
            return self.cast(wide, format, "stochastic", rng=formats.Counter(seed))
        dice = self.from_host(rng.integers(0, 1 << 16, wide.shape, np.uint16))
        return plain_stochastic_bfloat16(self.xp, wide, dice)
