"""Where layers are: the nodes whose incoming gradient gets a factor, their names and their products."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from minimp.formats import Format
from minimp.scaler.layerwise.factors import ONE, Product, moments_of
from minimp.tape import Array, Edge, Node, Value

__all__ = ["LAYERS", "LayerNames", "edges_of", "is_narrow", "layer_name", "products_of"]

NARROW = 2.0**-100
"""A format whose smallest number is above this can lose gradients: float16, and not bfloat16 (2^-133)."""

Shape = tuple[int, ...]


def _linear(g: Shape, x: Shape, w: Shape, options: dict[str, Any]) -> tuple[int, float]:
    del x, options
    return math.prod(g) * w[1], w[0]


def _matmul(g: Shape, x: Shape, w: Shape, options: dict[str, Any]) -> tuple[int, float]:
    del w, options
    count = math.prod(g) * x[-1]
    return count, count / math.prod(x)


def _conv(g: Shape, x: Shape, w: Shape, options: dict[str, Any]) -> tuple[int, float]:
    del x
    return math.prod(g) * math.prod(w[1:]), math.prod(w) / (w[1] * options.get("groups", 1))


def _transposed(g: Shape, x: Shape, w: Shape, options: dict[str, Any]) -> tuple[int, float]:
    del g, options
    return math.prod(x) * math.prod(w[1:]), math.prod(w[1:])


LAYERS: Mapping[str, Callable[[Shape, Shape, Shape, dict[str, Any]], tuple[int, float]]] = {
    "linear": _linear,
    "matmul": _matmul,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv_transpose1d": _transposed,
    "conv_transpose2d": _transposed,
}
"""The ops with products that are adapted: name -> (multiplications in all, the most that one element of dx
adds up), from the shapes of the gradient, of both operands, and the options.

Beside them, each cast that stores a float32 gradient in a narrow format is a layer. Any other op passes the
scale of its gradient on."""


def is_narrow(form: Format | None) -> bool:
    """Tell whether gradients can fall below the smallest number of a format."""
    return form is not None and form.smallest_subnormal > NARROW


def layer_name(node: Node, parameters: Mapping[int, str]) -> str | None:
    """Return the name of the layer whose weight this node takes: "fc1" for a parameter "fc1.weight"."""
    for edge in reversed(node.inputs[:2]):
        source = edge
        while isinstance(source, Node) and source.op.name == "cast":
            source = source.inputs[0]
        if isinstance(source, Value) and id(source) in parameters:
            return parameters[id(source)].removesuffix(".weight")
    return None


class LayerNames:
    """Names the layers of one walk back: each use of a layer by itself.

    A layer is called after its weight; one whose weight has no name, after its op and its place, counted
    from the loss: "linear-1". Where a layer is used again, its further uses are "fc1/2", "fc1/3".

    Args:
        parameters: id of a parameter -> its name.
        fixed: layers whose factor is given: each of their uses has it, in every format.
    """

    def __init__(self, parameters: Mapping[int, str], fixed: Mapping[str, float]) -> None:
        self._parameters = parameters
        self._fixed = fixed
        self._uses: Counter[str] = Counter()

    def at(self, node: Node, grad: Array) -> tuple[str, str] | None:
        """Return (name of this use, name of the layer) of the node that `grad` arrives at, if it is one."""
        op = node.op.name
        if op == "cast":
            if not is_narrow(node.format) or node.format is None or grad.dtype == node.format.dtype:
                return None
            name = None
        elif op in LAYERS:
            name = layer_name(node, self._parameters)
        else:
            return None
        if name is None:
            self._uses[op] += 1
            name = f"{op}-{self._uses[op]}"
            return (name, name) if is_narrow(node.format) or name in self._fixed else None
        if not is_narrow(node.format) and name not in self._fixed:
            return None
        self._uses[name] += 1
        count = self._uses[name]
        return (f"{name}/{count}" if count > 1 else name), name


def products_of(node: Node, grad: Array) -> list[Product]:
    """Return what a layer computes from its incoming gradient, the first of them first.

    The gradient of a bias is a sum, which is a product with 1; so is the result of a cast.
    """
    if node.op.name == "cast":
        return [Product(0, ONE, 1.0, 1.0)]
    found: list[Product] = []
    x, w = node.saved[:2] if node.saved else (None, None)
    if x is not None or w is not None:
        x_shape = x.shape if x is not None else node.shape_of(0)
        w_shape = w.shape if w is not None else node.shape_of(1)
        if not (grad.size and math.prod(x_shape) and math.prod(w_shape)):
            return []
        count, most = LAYERS[node.op.name](grad.shape, x_shape, w_shape, node.options)
        for index, other, shape in ((0, w, x_shape), (1, x, w_shape)):
            moments = None if other is None else moments_of(other, node.backend)
            if moments is not None:  # one with infinities is no guide
                terms = count / math.prod(shape)
                found.append(Product(index, moments, terms, terms if index else most))
    if len(node.inputs) > 2 and node.needs(2):
        summed = grad.size / max(node.shape_of(2)[0], 1)
        found.append(Product(2, ONE, summed, summed))
    return found


def edges_of(start: Edge) -> Iterator[Edge]:
    """Yield all that a gradient at `start` will reach."""
    seen: set[Edge] = {start}
    stack = [start]
    while stack:
        edge = stack.pop()
        yield edge
        if isinstance(edge, Node):
            for source in edge.inputs:
                if source is not None and source not in seen:
                    seen.add(source)
                    stack.append(source)
