r"""The end of a training step: new weights from gradients, and the low copies of them, in one pass.

Each rule stands twice. :mod:`minimp_backends.updates_plain` says it over whole arrays, to be read; the
methods of :class:`Updates` do the same operations in the same order, block by block through scratch that
stays in the cache (:mod:`minimp_backends.updates_blocks`), and are tested bit-equal to them.

A kernel leaves weight and gradient as they are, changes what the rule keeps in place, and writes its results
into a :class:`~minimp_backends.updates_blocks.Room`: the new weight, and where asked its 16-bit rounding,
made while the block is in the cache. All wide arrays of one call have one dtype, float32 or float64; they
may hold several tensors end to end, but for `lamb`, whose norms are those of one tensor.
"""

from __future__ import annotations

from typing import Any

from minimp_backends.updates_blocks import Blocks, Room
from minimp_backends.updates_plain import (
    plain_adagrad,
    plain_adam,
    plain_kahan,
    plain_lamb,
    plain_lion,
    plain_rmsprop,
    plain_sgd,
    plain_stochastic_bfloat16,
    trust_ratio,
)

__all__ = [
    "Room", "Updates", "plain_adagrad", "plain_adam", "plain_kahan", "plain_lamb", "plain_lion",
    "plain_rmsprop", "plain_sgd", "plain_stochastic_bfloat16",
]  # fmt: skip

Array = Any


class Updates(Blocks):
    """The part of a backend that ends a step."""

    def sgd(
        self, room: Room, weight: Array, grad: Array, buffer: Array | None, *, lr: float, momentum: float,
        dampening: float, weight_decay: float, nesterov: bool, maximize: bool, first: Any,
    ) -> None:  # fmt: skip
        """Fill `room`; :func:`plain_sgd` says how it is computed.

        Args:
            room: for the results.
            weight, grad: arrays of one shape and dtype; left as they are.
            buffer: the running sum of gradients, contiguous, changed in place; None without momentum.
            lr, momentum, dampening, weight_decay, nesterov, maximize: as torch.optim.SGD.
            first: whether the buffer has not been filled yet: a bool, or an array without axes.
        """
        xp = self.xp
        for part, w, given, b, t, s in self.blocks(room, weight, grad, buffer):
            g = self._gradient(w, given, t, s, weight_decay, maximize)
            if momentum and first is True:
                b[...] = g
            elif momentum:
                self._mix(b, g, s, momentum, 1 - dampening)
                if first is not False:
                    b[...] = xp.where(first, g, b)
            if momentum and nesterov:
                xp.multiply(b, momentum, out=s)
                xp.add(g, s, out=t)
            d = g if not momentum else t if nesterov else b
            xp.multiply(d, -lr, out=s)
            self._add(part, w, s, t)

    def adam(
        self, room: Room, weight: Array, grad: Array, mean: Array, square: Array, peak: Array | None, *,
        lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool,
        maximize: bool, step: Any,
    ) -> None:  # fmt: skip
        """Fill `room`; :func:`plain_adam` says how it is computed.

        Args:
            room: for the results.
            weight, grad: arrays of one shape and dtype; left as they are.
            mean, square: the running means of g and g^2, contiguous, changed in place.
            peak: the largest `square` so far, changed in place; None without AMSGrad.
            lr, beta1, beta2, eps, weight_decay, maximize: as torch.optim.Adam.
            decoupled: whether the decay shrinks the weight (AdamW) or joins the gradient.
            step: the number of this step, from 1: an int, or an array without axes.
        """
        xp, shrink = self.xp, lr * weight_decay if decoupled else 0.0
        size = self._factor(-lr / (1 - beta1**step), weight)
        correction = self._factor((1 - beta2**step) ** 0.5, weight)
        for part, w, given, m, v, p, t, s in self.blocks(room, weight, grad, mean, square, peak):
            g = self._gradient(w, given, t, s, 0.0 if decoupled else weight_decay, maximize)
            self._moments(m, v, g, s, beta1, beta2)
            root = v if p is None else xp.maximum(p, v, out=p)
            self._divisor(root, correction, eps, t)
            xp.multiply(m, size, out=s)
            xp.divide(s, t, out=s)
            self._add(part, w, s, t, shrink)

    def rmsprop(
        self, room: Room, weight: Array, grad: Array, square: Array, buffer: Array | None,
        mean: Array | None, *, lr: float, alpha: float, eps: float, weight_decay: float, momentum: float,
        maximize: bool,
    ) -> None:  # fmt: skip
        """Fill `room`; :func:`plain_rmsprop` says how it is computed.

        Args:
            room: for the results.
            weight, grad: arrays of one shape and dtype; left as they are.
            square: the running mean of g^2, contiguous, changed in place.
            buffer: the running sum of g / sqrt(square), changed in place; None without momentum.
            mean: the running mean of g, changed in place; None unless centered.
            lr, alpha, eps, weight_decay, momentum, maximize: as torch.optim.RMSprop.
        """
        xp = self.xp
        for part, w, given, v, b, m, t, s in self.blocks(room, weight, grad, square, buffer, mean):
            g = self._gradient(w, given, t, s, weight_decay, maximize)
            self._running_square(v, g, s, alpha)
            if m is None:
                xp.sqrt(v, out=s)
            else:
                self._running_mean(m, g, s, alpha)
                xp.multiply(m, m, out=s)
                xp.subtract(v, s, out=s)
                xp.sqrt(s, out=s)
            xp.add(s, eps, out=s)
            if b is None:
                xp.multiply(g, -lr, out=t)
                xp.divide(t, s, out=s)
            else:
                xp.divide(g, s, out=s)
                xp.multiply(b, momentum, out=b)
                xp.add(b, s, out=b)
                xp.multiply(b, -lr, out=s)
            self._add(part, w, s, t)

    def adagrad(
        self, room: Room, weight: Array, grad: Array, total: Array, *, lr: float, lr_decay: float,
        eps: float, weight_decay: float, maximize: bool, step: Any,
    ) -> None:  # fmt: skip
        """Fill `room`; :func:`plain_adagrad` says how it is computed.

        Args:
            room: for the results.
            weight, grad: arrays of one shape and dtype; left as they are.
            total: the sum of all g^2, contiguous, changed in place.
            lr, lr_decay, eps, weight_decay, maximize: as torch.optim.Adagrad.
            step: the number of this step, from 1: an int, or an array without axes.
        """
        xp, size = self.xp, self._factor(-lr / (1 + (step - 1) * lr_decay), weight)
        for part, w, given, total_part, t, s in self.blocks(room, weight, grad, total):
            g = self._gradient(w, given, t, s, weight_decay, maximize)
            xp.multiply(g, g, out=s)
            xp.add(total_part, s, out=total_part)
            xp.sqrt(total_part, out=s)
            xp.add(s, eps, out=s)
            xp.multiply(g, size, out=t)
            xp.divide(t, s, out=s)
            self._add(part, w, s, t)

    def lion(
        self, room: Room, weight: Array, grad: Array, mean: Array, *, lr: float, beta1: float,
        beta2: float, weight_decay: float, maximize: bool,
    ) -> None:  # fmt: skip
        """Fill `room`; :func:`plain_lion` says how it is computed.

        Args:
            room: for the results.
            weight, grad: arrays of one shape and dtype; left as they are.
            mean: the running mean of g, contiguous, changed in place.
            lr, beta1, beta2, weight_decay, maximize: see the rule.
        """
        xp, shrink = self.xp, lr * weight_decay
        for part, w, given, m, t, s in self.blocks(room, weight, grad, mean):
            g = xp.negative(given, out=t) if maximize else given
            xp.multiply(m, beta1, out=s)
            xp.multiply(g, 1 - beta1, out=part.new)
            xp.add(s, part.new, out=s)
            xp.sign(s, out=s)
            xp.multiply(s, -lr, out=s)
            self._mix(m, g, part.new, beta2, 1 - beta2)
            self._add(part, w, s, t, shrink)

    def lamb(
        self, room: Room, weight: Array, grad: Array, mean: Array, square: Array, *, lr: float,
        beta1: float, beta2: float, eps: float, weight_decay: float, maximize: bool, step: Any,
    ) -> None:  # fmt: skip
        """Fill `room`; :func:`plain_lamb` says how it is computed.

        Two passes: the trust ratio needs the norm of the whole direction, which waits in `room.new`.

        Args:
            room: for the results.
            weight, grad: arrays of one tensor; left as they are.
            mean, square: the running means of g and g^2, contiguous, changed in place.
            lr, beta1, beta2, eps, weight_decay, maximize: see the rule.
            step: the number of this step, from 1: an int, or an array without axes.
        """
        xp, size = self.xp, self._factor(1 / (1 - beta1**step), weight)
        correction = self._factor((1 - beta2**step) ** 0.5, weight)
        for part, w, given, m, v, t, s in self.blocks(room, weight, grad, mean, square):
            g = xp.negative(given, out=t) if maximize else given
            self._moments(m, v, g, s, beta1, beta2)
            self._divisor(v, correction, eps, t)
            xp.multiply(m, size, out=s)
            xp.divide(s, t, out=part.new)
            if weight_decay:
                xp.multiply(w, weight_decay, out=s)
                xp.add(part.new, s, out=part.new)
        factor = self._factor(-lr * trust_ratio(xp, weight, room.new), weight)
        for part, w, t, s in self.blocks(room, weight):
            xp.multiply(part.new, factor, out=s)
            self._add(part, w, s, t)

    # ---- what several rules do --------------------------------------------------------------------------

    def _factor(self, number: Any, like: Array) -> Any:
        """Return a number that elements are multiplied by: one on the device is rounded to their dtype."""
        return number.astype(like.dtype) if hasattr(number, "astype") else number

    def _gradient(
        self, w: Array, given: Array, t: Array, s: Array, weight_decay: float, maximize: bool
    ) -> Array:
        """Return g, negated to climb, with the decay added to it: the given array, or `t`."""
        g = self.xp.negative(given, out=t) if maximize else given
        if weight_decay:
            self.xp.multiply(w, weight_decay, out=s)
            g = self.xp.add(g, s, out=t)
        return g

    def _mix(self, held: Array, g: Array, s: Array, keep: float, take: float) -> None:
        """held <- keep held + take g."""
        self.xp.multiply(held, keep, out=held)
        self.xp.multiply(g, take, out=s)
        self.xp.add(held, s, out=held)

    def _running_mean(self, m: Array, g: Array, s: Array, beta: float) -> None:
        """m <- beta m + (1 - beta) g, in the order of torch.lerp."""
        xp = self.xp
        xp.subtract(g, m, out=s)
        if beta > 0.5:
            xp.multiply(s, 1 - beta, out=s)
            xp.add(m, s, out=m)
        else:
            xp.multiply(s, beta, out=s)
            xp.subtract(g, s, out=m)

    def _running_square(self, v: Array, g: Array, s: Array, beta: float) -> None:
        """v <- beta v + (1 - beta) g^2."""
        xp = self.xp
        xp.multiply(v, beta, out=v)
        xp.multiply(g, 1 - beta, out=s)
        xp.multiply(s, g, out=s)
        xp.add(v, s, out=v)

    def _moments(self, m: Array, v: Array, g: Array, s: Array, beta1: float, beta2: float) -> None:
        """Carry both running means one step on."""
        self._running_mean(m, g, s, beta1)
        self._running_square(v, g, s, beta2)

    def _divisor(self, v: Array, correction: float, eps: float, t: Array) -> None:
        """t <- sqrt(v) / correction + eps."""
        self.xp.sqrt(v, out=t)
        self.xp.divide(t, correction, out=t)
        self.xp.add(t, eps, out=t)

    def _add(self, part: Room, w: Array, s: Array, t: Array, shrink: float = 0.0) -> None:
        """new <- (1 - shrink) w + s, and all that follows from it; s and t are overwritten."""
        xp = self.xp
        if not shrink:
            xp.add(w, s, out=part.new)
        else:
            xp.multiply(w, 1 - shrink, out=part.new)
            xp.add(part.new, s, out=part.new)
            if part.asks_for_change:
                xp.multiply(w, shrink, out=t)
                xp.subtract(s, t, out=s)
        self.store(part, w, s, t)
