"""The context and the backend that a gradient rule meets when its arrays record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minimp import ops, rng
from minimp.errors import GradientError
from minimp.formats import Format
from minimp.higher.arrays import FUNCTIONS, Recorded, join, unknown, wide_format
from minimp.policy import format_of
from minimp.quiet import hush, speak
from minimp.tape import Array, Edge, Node, Value

__all__ = ["RecordedContext", "reconnect"]


class Namespace:
    """NumPy's functions: recorded where an argument is, plain elsewhere."""

    def __init__(self, op: str, xp: Any) -> None:
        self._op = op
        self._xp = xp

    def __getattr__(self, name: str) -> Any:
        plain = getattr(self._xp, name)
        if not callable(plain) or isinstance(plain, type):
            return plain

        def call(*args: Any, **options: Any) -> Any:
            if not any(isinstance(x, Recorded) for x in args):
                return plain(*args, **options)
            if name not in FUNCTIONS:
                raise unknown(self._op, f"{self._xp.__name__}.{name}")
            return FUNCTIONS[name](self._xp, *args, **options)

        return call


class RecordedBackend:
    """A backend's kernels as ops on the tape; on plain arrays, the kernels themselves.

    What is not written out here goes through the op that has the kernel's name, if there is one.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._plain = node.backend
        self.xp = Namespace(node.op.name, node.backend.xp)

    def __getattr__(self, name: str) -> Any:
        plain = getattr(self._plain, name)

        def call(*args: Any, **options: Any) -> Any:
            if not any(isinstance(x, Recorded) for x in args):
                return plain(*args, **options)
            odd = [key for key in options if key != "accumulate"]  # that is in force already
            if name not in ops.OPS or odd:
                raise unknown(self._node.op.name, f"the kernel {' with '.join([name, *odd])}")
            return self._by_its_op(name, args)

        return call if callable(plain) else plain

    def _by_its_op(self, name: str, args: tuple[Any, ...]) -> Recorded:
        """Run a kernel through its op: arrays are inputs, a tuple is the shape, a dict has options."""
        inputs, options = [], {}
        for each in args:
            if hasattr(each, "dtype"):
                inputs.append(self._tensor(each))
            elif isinstance(each, tuple):
                options["shape"] = each
            elif isinstance(each, dict):
                options |= each
            elif each is not None:
                raise unknown(self._node.op.name, f"the kernel {name} with {each!r}")
        return Recorded(ops.OPS[name](*inputs, **options))

    def wide(self, x: Any) -> Any:
        """Widen, by an op."""
        return x.cast(wide_format(x.tensor.format)) if isinstance(x, Recorded) else self._plain.wide(x)

    def narrow(self, x: Any, format: Format | None) -> Any:
        """Round, by an op."""
        if not isinstance(x, Recorded):
            return self._plain.narrow(x, format)
        return x if format is None else x.cast(format)

    def cast(self, x: Any, format: Format) -> Any:
        """Cast, by an op."""
        return x.cast(format) if isinstance(x, Recorded) else self._plain.cast(x, format)

    def view(self, x: Any, change: Callable[[Any], Any]) -> Any:
        """Move elements."""
        return change(x) if isinstance(x, Recorded) else self._plain.view(x, change)

    def add(self, a: Any, b: Any) -> Any:
        """Add, by an op."""
        return a + b if isinstance(a, Recorded) or isinstance(b, Recorded) else self._plain.add(a, b)

    def keep_where(self, x: Any, mask: Any) -> Any:
        """Zero what the mask leaves out."""
        if not isinstance(x, Recorded):
            return self._plain.keep_where(x, mask)
        return join(self._plain.xp, mask, x, 0)

    def elementwise(self, formula: Callable[..., Any], *arrays: Any) -> Any:
        """Work the formula through with recorded arrays."""
        return formula(self, *arrays)

    by_rows = elementwise

    def pointwise(
        self, name: str, formula: Callable[..., Any], format: Format | None, *arrays: Any, **more: Any
    ) -> Any:
        """Work the formula through with recorded arrays, and round."""
        if not any(isinstance(x, Recorded) for x in arrays):
            return self._plain.pointwise(name, formula, format, *arrays, **more)
        return self.narrow(formula(self, *map(self.wide, arrays)), format)

    def along_axis(
        self, name: str, formula: Callable[..., Any], format: Format | None, *arrays: Any, axis: int,
        accumulate: str,
    ) -> Any:  # fmt: skip
        """Work the formula through with recorded arrays, and round."""
        if not any(isinstance(x, Recorded) for x in arrays):
            return self._plain.along_axis(name, formula, format, *arrays, axis=axis, accumulate=accumulate)
        return self.narrow(formula(self, *arrays, axis, accumulate), format)

    def positive_part_gradient(self, grad: Any, y: Any) -> Any:
        """Zero the gradient where y is."""
        return self.keep_where(grad, ~(self.wide(y) <= 0))

    def select(self, mask: Any, a: Any, b: Any) -> Any:
        """Choose between two arrays."""
        return self.xp.where(mask, a, b)

    def logistic(self, x: Any) -> Any:
        """The logistic function."""
        return Recorded(ops.OPS["sigmoid"](x.tensor)) if isinstance(x, Recorded) else self._plain.logistic(x)

    def erf(self, x: Any) -> Any:
        """The error function."""
        return Recorded(ops.OPS["erf"](x.tensor)) if isinstance(x, Recorded) else self._plain.erf(x)

    def sum(self, x: Any, axis: Any = None, keepdims: bool = False, *, accumulate: str) -> Any:
        """Sum, unrounded: the result is in the wide format."""
        if not isinstance(x, Recorded):
            return self._plain.sum(x, axis=axis, keepdims=keepdims, accumulate=accumulate)
        return Recorded(ops.sum_(x.tensor, dim=axis, keepdim=keepdims, dtype=wide_format(x.tensor.format)))

    def cumsum(self, x: Any, axis: int, *, accumulate: str) -> Any:
        """Running sums, unrounded: the result is in the wide format."""
        if not isinstance(x, Recorded):
            return self._plain.cumsum(x, axis=axis, accumulate=accumulate)
        return Recorded(ops.cumsum(x.tensor, dim=axis, dtype=wide_format(x.tensor.format)))

    def matmul(self, a: Any, b: Any, *, accumulate: str) -> Any:
        """Multiply; what is in 16 bits is rounded at once."""
        if not isinstance(a, Recorded) and not isinstance(b, Recorded):
            return self._plain.matmul(a, b, accumulate=accumulate)
        return Recorded(ops.matmul(self._tensor(a), self._tensor(b)))

    def scatter_add(self, shape: Any, index: Any, values: Any, *, accumulate: str) -> Any:
        """Add values at their places in zeros."""
        if not isinstance(values, Recorded):
            return self._plain.scatter_add(shape, index, values, accumulate=accumulate)
        return Recorded(ops.unindex(values.tensor, shape=tuple(shape), index=index))

    def sum_rows(
        self, shape: Any, index: Any, rows: Any, format: Format | None, *, left_out: int | None = None,
        accumulate: str,
    ) -> Any:  # fmt: skip
        """Add rows at their places in zeros, and round."""
        if not isinstance(rows, Recorded):
            return self._plain.sum_rows(shape, index, rows, format, left_out=left_out, accumulate=accumulate)
        if left_out is not None:
            rows = self.keep_where(rows, (index != left_out)[..., None])
        return self.narrow(self.scatter_add(shape, index, self.wide(rows), accumulate=accumulate), format)

    def _tensor(self, x: Any) -> Any:
        return x.tensor if isinstance(x, Recorded) else Value.make(x, self._plain)


class RecordedContext:
    """What :class:`minimp.tape.Node` is to a rule on arrays, for a rule on recorded arrays."""

    def __init__(self, node: Node) -> None:
        self.op, self.inputs, self.options = node.op, node.inputs, node.options
        self.format, self.accumulate, self.shape = node.format, node.accumulate, node.shape
        self.recording = True
        self.memo = getattr(node, "memo", None)
        self.saved = tuple(reconnect(node, index) for index in range(len(node.saved)))
        self.backend = RecordedBackend(node)
        self._node = node

    def needs(self, index: int) -> bool:
        """Tell whether the gradient of positional argument `index` is asked for."""
        return self._node.needs(index)

    def shape_of(self, index: int) -> tuple[int, ...]:
        """Return the shape of positional argument `index`."""
        return self._node.shape_of(index)

    def wide(self, x: Any) -> Any:
        """Widen."""
        return self.backend.wide(x)

    def round(self, x: Any) -> Any:
        """Round to the working format."""
        return self.backend.narrow(x, self.format)


def reconnect(node: Node, index: int) -> Any:
    """Return a saved array as a recorded one, if it is an input or the result; a constant as it is.

    Raises:
        GradientError: it depends on the inputs in a way that nobody recorded, or a leaf was replaced.
    """
    saved = node.saved[index]
    if saved is None or format_of(getattr(saved, "dtype", None)) is None:
        return saved
    places = [i for i, known in enumerate(node.ids) if known == id(saved)]
    if not places:
        raise unknown(node.op.name, "an array that its forward computed on the way")
    if places[0] == len(node.inputs):
        return Recorded(tensor_at(node, node, saved))
    edges: set[Edge | None] = {node.inputs[i] for i in places if i < len(node.inputs)}
    edge = edges.pop() if len(edges) == 1 else node.inputs[_told_apart(node, index)]
    return saved if edge is None else Recorded(tensor_at(node, edge, saved))


def _told_apart(node: Node, index: int) -> int:
    """Tell which input a saved array is, where several tensors share it (x and x.detach()).

    The forward runs again, on views that differ, and shows by what it saves.
    """
    known = {id(None): None, **{id(each): each for each in node.saved}}
    if set(node.ids[:-1]) <= known.keys():
        inputs = [known[i] for i in node.ids[:-1]]
        views = [x.view() if hasattr(x, "view") else x for x in inputs]
        probe = type(node)(
            node.op, node.inputs, node.options, node.backend, node.format, node.accumulate, True
        )
        state, token = rng.get_rng_state(), hush()
        try:
            node.op.forward(probe, *views, **node.options)
        finally:
            speak(token)
            rng.set_rng_state(state)
        for place, each in enumerate(views):
            if probe.saved[index] is each:
                return place
    raise GradientError(
        "two inputs share their memory, and it cannot be told which of them the gradient reads",
        op=node.op.name, help="write .detach().clone() in the place of .detach()",
    )  # fmt: skip


def tensor_at(node: Node, edge: Edge, array: Array) -> Any:
    """Return the tensor whose array this is, at its place on the tape."""
    if isinstance(edge, Node):
        return Value.make(array, node.backend, edge)
    if edge.array is not array:
        raise GradientError(
            "a leaf was given another array after this op had used it: its derivative there is lost",
            op=node.op.name, help="differentiate before the optimizer's step",
        )  # fmt: skip
    return edge
