"""The walk back in which each layer scales the gradient that flows into it, and every leaf divides it out."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, cast
from weakref import ref

from minimp.formats import float32
from minimp.modes import MODES
from minimp.pieces import Pieces, as_array
from minimp.quiet import hush, speak
from minimp.scaler.layerwise.carried import shifted, together
from minimp.scaler.layerwise.layers import Layers
from minimp.scaler.layerwise.points import LayerNames, is_narrow
from minimp.tape import Array, Edge, Node, Value, edge_gradients, require_saved, tell_backward

__all__ = ["LayerwiseWalk"]


@dataclass(frozen=True, slots=True)
class _Meeting:
    """A gradient on its way to where there is one already, and the scale it has."""

    source: Edge
    grad: Any
    exponent: int


class LayerwiseWalk:
    """One backward pass. Gradients travel as arrays; how much each is scaled by is written down beside them.

    Args:
        layers: what chooses the factors.
        names: what the layers are called.
        keep: keep what was saved (torch's `retain_graph`).

    Attributes:
        exponents: where a gradient has arrived -> log2 of the scale that it has there.
        origins: the same -> the layers through which it came since it was last known to be finite.
    """

    def __init__(self, layers: Layers, names: LayerNames, *, keep: bool) -> None:
        self.layers, self.names, self.keep = layers, names, keep
        self.exponents: dict[Edge, int] = {}
        self.origins: dict[Edge, frozenset[str]] = {}

    def run(self, output: Value, seed: Array, exponent: int) -> dict[Value, Array]:
        """Return the gradients of the leaves, unscaled; `seed` is 2^exponent times that of `output`."""
        start = cast("Edge", output.edge)
        self.exponents[start], self.origins[start] = exponent, frozenset()
        token = hush()
        try:
            found = edge_gradients([(output, seed)], differentiate=self._differentiate, add=self._add)
            return {
                leaf: self._unscaled(leaf, grad) for leaf, grad in found.items() if isinstance(leaf, Value)
            }
        finally:
            speak(token)

    def scales(self) -> dict[int, tuple[ref[Edge], int]]:
        """Return id -> (reference, log2 of the scale) of all that a gradient has arrived at."""
        return {id(edge): (ref(edge), exponent) for edge, exponent in self.exponents.items()}

    def _differentiate(self, node: Node, grad: Any) -> list[Any]:
        """Scale the gradient that arrives at a node, and differentiate; say what scale each result has."""
        if not node.recording:
            require_saved(node)
        if isinstance(grad, Pieces):
            grad = as_array(grad, node.backend)
        exponent, origin = self.exponents[node], self.origins[node]
        use = self.names.at(node, grad)
        factor = None if use is None else self.layers.choose(use, node, grad, exponent)
        scaled = grad
        if use is not None and factor is not None:
            scaled = shifted(grad, factor, node.backend)
            exponent, origin = exponent + factor, frozenset([use[0]])
        parts = self._parts(node, scaled)
        if use is not None and factor is not None and self.layers.settings.measure and is_narrow(node.format):
            self.layers.measured(use[0], *flushed_shares(node, grad, self.exponents[node], parts))
        if not self.keep and node.saved:
            node.saved, node.recording = (), False
        return [
            self._arriving(source, part, exponent, origin)
            for source, part in zip(node.inputs, parts, strict=False)
        ]

    def _parts(self, node: Node, grad: Any) -> tuple[Any, ...]:
        modes = MODES.get()
        if node.op.piecewise is not None and not modes.listeners:
            return node.op.piecewise(node, grad)
        parts = node.op.differentiate(node, grad)
        if modes.listeners:
            tell_backward(node, grad, parts, modes)
        return parts

    def _arriving(self, source: Edge | None, part: Any, exponent: int, origin: frozenset[str]) -> Any:
        """Write down the scale of what goes to `source`; what meets another gradient there says so itself."""
        if source is None or part is None:
            return part
        if source in self.exponents:
            self.origins[source] |= origin
            return _Meeting(source, part, exponent)
        self.exponents[source], self.origins[source] = exponent, origin
        return part

    def _add(self, edge: Edge, held: Any, part: _Meeting) -> Any:
        source = part.source
        total, self.exponents[source] = together(
            held, self.exponents[source], part.grad, part.exponent, edge.backend
        )
        return total

    def _unscaled(self, leaf: Value, grad: Any) -> Array:
        """Divide the scale out of a leaf's gradient, in its own format, and look whether it is finite."""
        array = as_array(grad, leaf.backend)
        if not leaf.backend.is_finite(array):
            self.layers.overflowed |= self.origins[leaf]
        array = shifted(array, -self.exponents[leaf], leaf.backend)
        leaf.backend.freeze((array,))
        return array


def flushed_shares(node: Node, grad: Array, exponent: int, parts: tuple[Any, ...]) -> tuple[float, float]:
    """Return the shares of a layer's first result that its rounding made zero: with S = 1, and as it is.

    The result is computed again in float32: what is not zero there is what can be lost.

    Args:
        node: the layer.
        grad: what arrived at it: 2^exponent times the true gradient.
        exponent: log2 of the scale before the layer's own factor.
        parts: its results, with that factor, in its own format.
    """
    form, backend = node.format, node.backend
    index = next((i for i, part in enumerate(parts) if part is not None), None)
    if index is None or form is None:
        return 0.0, 0.0
    twin = copy(node)
    twin.format = float32
    exact = as_array(node.op.differentiate(twin, grad)[index], backend)
    alive = exact != 0
    count = max(int(alive.sum()), 1)
    bare = backend.cast(shifted(exact, -exponent, backend), form)
    before, after = (
        int((alive & (backend.wide(as_array(low, backend)) == 0)).sum()) for low in (bare, parts[index])
    )
    return before / count, after / count
