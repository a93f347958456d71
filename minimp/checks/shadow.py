"""The same gradients in float64: what a step's gradients would be if nothing were rounded on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp import formats, rng
from minimp.checks.host import on_host
from minimp.modes import accumulate
from minimp.policy import in_region
from minimp.tape import Array
from minimp.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minimp.nn import Module

__all__ = ["Fate", "fate_of", "float64_gradients"]


@dataclass(frozen=True)
class Fate:
    """What became of the gradients that are not zero in float64, as counts.

    Attributes:
        nonzero: float64 gradients that are not zero.
        flushed: of those, how many are zero in the low format.
        overflowed: of those, how many are infinite or NaN in the low format.
    """

    nonzero: int
    flushed: int
    overflowed: int

    @property
    def flushed_share(self) -> float:
        """The share that became zero; 0 if there was nothing to lose."""
        return self.flushed / self.nonzero if self.nonzero else 0.0

    @property
    def overflowed_share(self) -> float:
        """The share that became infinite or NaN."""
        return self.overflowed / self.nonzero if self.nonzero else 0.0

    def __add__(self, other: Fate) -> Fate:
        return Fate(
            self.nonzero + other.nonzero, self.flushed + other.flushed, self.overflowed + other.overflowed
        )


def fate_of(low: Mapping[str, Array], exact: Mapping[str, Array]) -> Fate:
    """Compare the gradients of a step with the float64 ones of the same step, element by element.

    Args:
        low: parameter name -> gradient as backward left it (still scaled), any floating dtype.
        exact: parameter name -> float64 gradient, of the same shape.
    """
    total = Fate(0, 0, 0)
    for name, truth in exact.items():
        alive = (truth != 0) & np.isfinite(truth)
        got = on_host(low[name], np.float64)
        lost, burst = alive & (got == 0), alive & ~np.isfinite(got)
        total += Fate(int(alive.sum()), int(lost.sum()), int(burst.sum()))
    return total


def float64_gradients(
    model: Module, loss_fn: Callable[[Any, Any], Tensor], inputs: Any, targets: Any, *,
    weights_in: formats.Format | None = None,
) -> dict[str, np.ndarray[Any, Any]]:  # fmt: skip
    """Return the gradients of loss_fn(model(inputs), targets) by each parameter, all in float64.

    Runs without autocast, from the present weights; the model, its `.grad`s and buffers (the running
    statistics of batch norm) and the random generator are left as they were (dropout draws the masks that
    the next forward will draw).

    Args:
        model, loss_fn, inputs, targets: as for a training step.
        weights_in: round the weights to this format first, as the low-precision forward does.
    """
    state = rng.get_rng_state()
    x = inputs if isinstance(inputs, Tensor) else Tensor.lift(inputs, None)
    try:
        with _in_float64(model, weights_in), in_region(None), accumulate("float64"):
            output = model(x.detach().to(formats.float64) if x.format is not None else x)
            loss = loss_fn(output, _float64_targets(targets))
            loss.backward()
            return {
                name: np.array(on_host(p.grad), np.float64)
                for name, p in model.named_parameters()
                if p.grad is not None
            }
    finally:
        rng.set_rng_state(state)


def _float64_targets(targets: Any) -> Any:
    host = on_host(targets)
    return host.astype(np.float64) if host.dtype.kind in "fV" else targets


@contextmanager
def _in_float64(model: Module, weights_in: formats.Format | None) -> Iterator[None]:
    """Give every parameter and buffer a float64 array for a while; put arrays, formats and gradients back."""
    parameters, buffers = list(model.parameters()), list(model.buffers())
    leaves = [*parameters, *buffers]
    before = [(leaf.array, leaf.format, leaf.grad) for leaf in leaves]
    try:
        for p in parameters:
            seen = p.array if weights_in is None else p.backend.cast(p.array, weights_in)
            p.grad = None
            p.array, p.format = p.backend.cast(seen, formats.float64), formats.float64
        for b in buffers:
            if b.format is not None:
                b.array, b.format = b.backend.cast(b.array, formats.float64), formats.float64
        yield
    finally:
        for leaf, (array, form, grad) in zip(leaves, before, strict=True):
            leaf.grad = None
            leaf.array, leaf.format = array, form
            leaf.grad = grad
