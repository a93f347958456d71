"""The door: how an op runs.

``Op.__call__`` is the only way into a computation. It asks the policy for the compute formats, casts
(a cast is an op like any other), runs the op's forward on raw arrays, records one
:class:`~minimp.tape.Node`, and tells the listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from minimp import formats
from minimp.errors import DeviceError, GradientError, MinimpError, SettingError, ShapeError
from minimp.formats import Format
from minimp.modes import MODES, Modes, enable_grad
from minimp.policy import CastClass, Mixed, Region, common_format, compute_formats
from minimp.quiet import hush, speak
from minimp.tape import Array, Edge, Event, Node, Value, WideNode

if TYPE_CHECKING:
    from minimp.tensors import Tensor
    from minimp_backends.array_backend import ArrayBackend as Backend

__all__ = ["OPS", "Op", "cast", "cast_in_region", "op"]

FLOAT32 = formats.float32
_Gathered = tuple[list[Array], list[Edge | None], "Backend", Format | None, bool]

FAULTS = (ValueError, IndexError, TypeError, AttributeError, OverflowError, ZeroDivisionError)
"""What array libraries and Python complain with about inputs that an op cannot take."""
OPS: dict[str, Op] = {}
"""Every op by name, in the order of definition."""


class Op:
    """A differentiable operation: forward, gradient, cast class and docstring in one place.

    Made by the :func:`op` decorator; called, it is the door. The call is one frame on purpose: every op
    passes here, and a Python call costs a tenth of a small addition.

    Positional arguments are data (tensors, arrays or Python numbers), keyword arguments are metadata and
    reach the gradient rule under the same names.
    """

    silent = False
    """Whether its gradient goes without telling the listeners."""
    piecewise: Callable[[Node, Array], tuple[Any, ...]] | None = None
    """The gradient again, in pieces (:mod:`minimp.pieces`), for where nobody listens."""
    on_tensors: Callable[[Node, Any], list[Any]] | None = None
    """The gradient on tensors, of an op whose rule is no rule on arrays (:mod:`minimp.custom`)."""

    def __init__(self, forward: Callable[..., Array], cast: CastClass, mixed: Mixed, bound: str) -> None:
        self.name = forward.__name__.rstrip("_")
        self.forward = forward
        self.backward_rule: Callable[..., Any] | None = None
        self.composed: Callable[..., Tensor] | None = None
        self.cast = cast
        self.mixed = mixed
        self.bound = bound
        self.__doc__ = forward.__doc__
        self.__name__ = forward.__name__

    def __repr__(self) -> str:
        """Show the op with its cast class."""
        return f"<op {self.name}: {self.cast.value}>"

    def gradient(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Declare the gradient: ``rule(ctx, grad, **options)`` returns one gradient per input."""
        self.backward_rule = rule
        return rule

    def composite(self, define: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Declare the forward again, on tensors and with other ops: ``define(*inputs, **options)``.

        It is the readable reference of an op with kernels of its own, and what second derivatives of an op
        go through whose gradient reads more than its inputs and its result.
        """
        self.composed = define
        return define

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:  # noqa: C901 - one frame, see the class
        """Run the op: rule, cast, kernel, record, tell."""
        modes = MODES.get()
        arrays: list[Array] = []
        edges: list[Edge | None] = []
        backend, format, recording = None, None, False
        if modes.autocast is None or not modes.autocast.enabled:
            for x in inputs:  # tensors of one floating format on one backend, and numbers, run as they are
                if isinstance(x, Value):
                    if x.format is not format or x.backend is not backend:
                        if backend is not None or x.format is None:
                            backend = None
                            break
                        backend, format = x.backend, x.format
                    arrays.append(x.array)
                    if x.requires_grad:
                        edges.append(x.node or x)
                        recording = True
                        continue
                elif x.__class__ is float or x.__class__ is int or x is None:
                    arrays.append(x)
                else:
                    backend = None
                    break
                edges.append(None)
        if backend is None:  # else they are lifted and cast first
            arrays, edges, backend, format, recording = self._gather_prepared(inputs, options, modes)
        recording = recording and modes.grad_enabled and self.backward_rule is not None
        make = WideNode if format is FLOAT32 else Node
        node = make(self, edges, options, backend, format, modes.accumulate, recording)
        token = hush()
        try:
            result = self.forward(node, *arrays, **options) if options else self.forward(node, *arrays)
        except FAULTS as fault:
            raise self._explain(fault, arrays, options) from fault
        finally:
            speak(token)
        node.shape = result.shape
        node.ids = [*map(id, arrays), id(result)] if node.saved else ()
        if modes.listeners:
            _tell(modes, node, arrays, result, inputs)
        return Value.make(result, backend, node if recording else None)

    def _gather_prepared(self, inputs: tuple[Any, ...], options: dict[str, Any], modes: Modes) -> _Gathered:
        """Prepare the inputs, then collect them; integers may stand beside a floating format."""
        values = self._prepare(inputs, options, modes)
        tensors = [x for x in values if isinstance(x, Value)]
        format = next((x.format for x in tensors if x.format is not None), None)
        arrays = [x.array if isinstance(x, Value) else x for x in values]
        edges = [x.edge if isinstance(x, Value) else None for x in values]
        recording = any(edge is not None for edge in edges)
        return arrays, edges, tensors[0].backend, format, recording

    def _explain(self, fault: Exception, arrays: list[Array], options: dict[str, Any]) -> MinimpError:
        """Turn a complaint of the array library into an error that names the op and the shapes."""
        if isinstance(fault, MinimpError):  # one of ours already
            raise fault
        shapes = [a.shape for a in arrays if hasattr(a, "shape")]
        text = f"cannot compute on shapes {', '.join(map(str, shapes))}"
        if options:
            text += " with " + ", ".join(f"{name}={value!r}" for name, value in options.items())
        summary = (self.__doc__ or "").strip().split("\n")[0]
        return ShapeError(f"{text}: {fault}", op=self.name, shapes=shapes, help=summary or None)

    def _prepare(self, inputs: tuple[Any, ...], options: dict[str, Any], modes: Modes) -> list[Any]:
        """Lift plain arrays to tensors, apply the autocast rule, settle mixed formats; cast."""
        values = _lift(self, inputs)
        formats = [x.format if isinstance(x, Value) else None for x in values]
        region = modes.autocast
        if region is not None and region.enabled:
            rule = region.policy.rule(self)
            targets = compute_formats(
                rule, formats, region.format, options, op=self.name, in_order=region.faithful
            )
            values = [
                x if target is None or target is formats[i] else cast_in_region(x, target, region)
                for i, (x, target) in enumerate(zip(values, targets, strict=True))
            ]
        mixed = self.mixed
        if mixed is Mixed.PROMOTE and any(x.__class__ is float for x in values):
            mixed = Mixed.FLOAT
        target = common_format(self.name, mixed, [_kind(x) for x in values])
        if target is None:
            return values
        return [
            cast(x, format=target) if isinstance(x, Value) and x.format is not target else x for x in values
        ]

    def differentiate(self, node: Node, grad: Array) -> tuple[Array | None, ...]:
        """Return the gradient of each input, given that of the result (raw arrays)."""
        rule, options = self.backward_rule, node.options
        if rule is None:
            raise GradientError(
                "this op has no gradient", op=self.name, help="declare one with @the_op.gradient"
            )
        found = rule(node, grad, **options) if options else rule(node, grad)
        parts = found if isinstance(found, tuple) else (found,)
        if len(parts) < len(node.inputs) and any(edge is not None for edge in node.inputs[len(parts) :]):
            raise GradientError(
                f"its gradient rule returned {len(parts)} gradients for {len(node.inputs)} inputs",
                op=self.name, help="return one for each input, None where there is none",
            )  # fmt: skip
        return parts


def op(
    *, cast: CastClass = CastClass.KEEP, mixed: Mixed = Mixed.PROMOTE, bound: str = "rounded"
) -> Callable[[Callable[..., Array]], Op]:
    """Declare an op around its forward function ``f(ctx, *arrays, **options) -> array``.

    Args:
        cast: what autocast does with its inputs.
        mixed: what happens to inputs of different formats outside autocast.
        bound: the name of its error bound, see :mod:`minimp.checks.bounds`.

    Raises:
        SettingError: an op of that name is declared in another module. In its own module a new declaration
            takes the place of the old one, as when a cell of a notebook is run again.
    """

    def declare(forward: Callable[..., Array]) -> Op:
        made = Op(forward, cast, mixed, bound)
        known = OPS.get(made.name)
        if known is not None and known.forward.__module__ != forward.__module__:
            raise SettingError(
                f"there is an op {made.name!r} already, of {known.forward.__module__}", op="op",
                help="give the function another name: policies, traces and checks know ops by theirs",
            )  # fmt: skip
        OPS[made.name] = made
        return made

    return declare


@op(cast=CastClass.KEEP, mixed=Mixed.KEEP, bound="cast")
def cast(ctx: Node, x: Array, *, format: Format) -> Array:
    """y = round_format(x), to nearest, ties to even, overflow to infinity; (...) -> (...).

    Its gradient is the cast back: an FP32 parameter used in FP16 receives an FP32 gradient.
    """
    return ctx.backend.cast(x, format)


@cast.gradient
def _(ctx: Node, grad: Array, *, format: Format) -> Array:  # noqa: ARG001 - the format is the forward's
    assert ctx.format is not None  # an integer has no gradient
    return ctx.backend.cast(grad, ctx.format)


def _tell(modes: Modes, node: Node, arrays: list[Array], result: Array, inputs: tuple[Any, ...]) -> None:
    """Tell the listeners what ran, and what formats it was given before casting."""
    given = tuple(getattr(x, "format", None) for x in inputs)
    event = Event("forward", node, tuple(arrays), (result,), given, modes)
    for listener in modes.listeners:
        listener(event)


def _lift(op: Op, inputs: Iterable[Any]) -> list[Any]:
    """Turn arrays and sequences into tensors, NumPy scalars into Python numbers; check the backends."""
    inputs = list(inputs)
    backend = None
    for x in inputs:
        if isinstance(x, Value):
            if backend is not None and x.backend is not backend:
                raise DeviceError(
                    f"tensors of two backends: {backend.name} and {x.backend.name}",
                    op=op.name, help="move one of them with .to(backend)",
                )  # fmt: skip
            backend = x.backend
    lifted = [x if _is_plain(x) else Value.lift(x, backend) for x in inputs]
    if not any(isinstance(x, Value) for x in lifted):
        lifted[0] = Value.lift(lifted[0], None)
    return lifted


def _is_plain(x: Any) -> bool:
    return x is None or isinstance(x, Value) or x.__class__ in (float, int, bool)


def _kind(x: Any) -> tuple[Format | None, bool] | None:
    """Return (format, has dimensions) of a tensor; None for a number or a missing input."""
    return (x.format, x.array.ndim > 0) if isinstance(x, Value) else None


def cast_in_region(x: Value, target: Format, region: Region) -> Tensor:
    """Cast under autocast; what becomes of the cast of an FP32 leaf to the region's format, `casts` says."""
    rule = region.casts
    if not (rule.held and target is region.format and _cacheable(x)):
        return cast(x, format=target)
    key = (rule.name, id(x), target.name) if rule.per_format else (rule.name, id(x))
    held = region.cache.get(key)
    if held is None or (rule.checked and (held[1] is not x.array or held[2].format is not target)):
        with enable_grad() if rule.recorded and not MODES.get().grad_enabled else nullcontext():
            held = region.cache[key] = (x, x.array, cast(x, format=target))
    return held[2]


def _cacheable(x: Value) -> bool:
    return x.requires_grad and x.node is None and x.format is formats.float32
