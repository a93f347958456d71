"""The end of a step on the GPU: SGD, Adam and unscaling by our kernels, each one pass over the numbers.

What they do not take (float64 weights, other rules, ``use_route("arrays")``) is done with array functions, as
on every device, to the same bits.
"""

from __future__ import annotations

from typing import Any

from minimp_backends.array_backend import FLOAT32, Array
from minimp_backends.cupy_casts import CupyCasts
from minimp_backends.kernels import calls
from minimp_backends.kernels.calls import Update, serves
from minimp_backends.updates_blocks import Room

__all__ = ["CupyUpdates"]

OBEDIENT = frozenset({"sgd", "adam", "adamw"})
"""Rules that kernels of ours compute."""


class CupyUpdates(CupyCasts):
    """The kernels of a step's end."""

    def obeys_verdict(self, rule: str, weight: Array) -> bool:
        """Tell whether a kernel of ours does it: they look at the verdict by themselves."""
        return self.kernels_in_force() is not None and rule in OBEDIENT and weight.dtype == FLOAT32

    def sgd(self, room: Room, weight: Array, grad: Array, buffer: Array | None, **settings: Any) -> None:
        """Fill `room`, see :meth:`minimp_backends.updates.Updates.sgd`."""
        update, kernels = Update(room, weight, grad, (buffer,)), self.kernels_in_force()
        if kernels is None or not serves(update):
            super().sgd(room, weight, grad, buffer, **settings)
        elif weight.size:
            calls.sgd(kernels, self.xp, [update], **settings)

    def adam(
        self, room: Room, weight: Array, grad: Array, mean: Array, square: Array, peak: Array | None,
        **settings: Any,
    ) -> None:  # fmt: skip
        """Fill `room`, see :meth:`minimp_backends.updates.Updates.adam`."""
        update, kernels = Update(room, weight, grad, (mean, square, peak)), self.kernels_in_force()
        if kernels is None or not serves(update):
            super().adam(room, weight, grad, mean, square, peak, **settings)
        elif weight.size:
            calls.adam(kernels, self.xp, [update], **settings)

    def moved_scale(self, rule: Any, state: tuple[Array, ...], found_inf: Array) -> tuple[Array, ...] | None:
        """Return the next state of a loss scale, in one launch."""
        kernels = self.kernels_in_force()
        return None if kernels is None else calls.update_scale(kernels, self.xp, rule, state, found_inf)

    def unscale_all(self, grads: list[Array], factor: Array) -> tuple[list[Array], Array]:
        """Multiply all gradients, and look for what is not finite, in a launch for some 32 of a format."""
        kernels = self.kernels_in_force()
        if kernels is None or not grads:
            return super().unscale_all(grads, factor)
        return calls.unscale_all(kernels, self.xp, grads, factor)
