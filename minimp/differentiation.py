"""Asking for gradients: backward, grad and hooks, and where each starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from minimp import ops
from minimp.errors import GradientError, ShapeError
from minimp.handles import RemovableHandle
from minimp.higher import recorded_gradients
from minimp.modes import setting
from minimp.tape import Array, Value, backward, gradients

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["grad", "register_hook", "retain_grad", "run_backward"]


def run_backward(output: Value, given: Any, *, retain_graph: bool | None, create_graph: bool) -> None:
    """Add the gradients of `output` to the `.grad` of its leaves; see :meth:`minimp.Tensor.backward`."""
    if not create_graph:
        backward(output, _seed(output, given).array, keep=bool(retain_graph))
        return
    _refuse_freeing(retain_graph)
    for leaf, found in recorded_gradients(output, _seed(output, given)).items():
        if isinstance(leaf, Value):
            leaf.grad = found if leaf.grad is None else ops.add(leaf.grad, found)


def grad(
    outputs: Tensor, inputs: Sequence[Tensor] | Tensor, grad_outputs: Any = None, *,
    retain_graph: bool | None = None, create_graph: bool = False, allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Return d(outputs)/d(inputs), one tensor per input, without touching any `.grad` (torch.autograd.grad).

    >>> x = mp.tensor(3.0, requires_grad=True)
    >>> (slope,) = mp.grad(x**3, x, create_graph=True)
    >>> mp.grad(slope, x)
    (tensor(18.),)

    Args:
        outputs: the tensor to differentiate.
        inputs: one tensor or several.
        grad_outputs: its gradient; 1 for a tensor of one element.
        retain_graph: keep what was saved, so that backward can run again; None does so with `create_graph`.
        create_graph: record the gradients, so that they can be differentiated again: for a gradient penalty.
        allow_unused: give None, instead of an error, for an input that `outputs` does not depend on.

    Raises:
        GradientError: an input needs no gradient, or is not used; or an op has no second derivative.
        SettingError: `create_graph` without what was saved.
    """
    wanted = [inputs] if isinstance(inputs, Value) else list(inputs)
    for i, x in enumerate(wanted):
        if not x.requires_grad:
            raise GradientError(
                f"input {i} does not require a gradient", help="make it with requires_grad=True"
            )
    seed = _seed(outputs, grad_outputs)
    found: Sequence[Tensor | None]
    if create_graph:
        _refuse_freeing(retain_graph)
        edges = [x.edge for x in wanted]
        by_edge = recorded_gradients(outputs, seed, frozenset(edge for edge in edges if edge is not None))
        found = [None if edge is None else by_edge.get(edge) for edge in edges]
    else:
        arrays = gradients(outputs, seed.array, wanted, keep=bool(retain_graph))
        found = [None if a is None else Value.make(a, x.backend) for a, x in zip(arrays, wanted, strict=True)]
    for i, each in enumerate(found):
        if each is None and not allow_unused:
            raise GradientError(f"the output does not depend on input {i}", help="pass allow_unused=True")
    return tuple(found)


def _refuse_freeing(retain_graph: bool | None) -> None:
    if retain_graph is False:
        raise GradientError(
            "retain_graph=False cannot act beside create_graph=True: what was saved is differentiated again",
            help="leave retain_graph out",
        )


def _seed(output: Value, given: Any) -> Tensor:
    """Return the gradient that backward starts from, in the output's shape and format."""
    backend = output.backend
    if given is None:
        if output.array.size != 1:
            raise GradientError(
                f"backward needs a gradient for an output of shape {output.shape}",
                help="reduce it to one element with .sum() or .mean(), or pass grad=",
            )
        return Value.make(backend.xp.ones(output.shape, output.array.dtype), backend)
    start: Any = given if isinstance(given, Value) else Value.lift(given, backend)
    if start.array.shape != output.shape:
        raise ShapeError(
            f"expected a gradient of shape {output.shape}, got {start.array.shape}", op="backward"
        )
    if output.format is None or start.format is output.format:
        return start  # type: ignore[no-any-return]  # what is lifted is a Tensor
    return ops.cast(start, format=output.format)


# ---- hooks ----------------------------------------------------------------------------------------------


def register_hook(x: Value, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook` with the gradient of `x`; see :meth:`minimp.Tensor.register_hook`."""
    edge = x.edge
    if edge is None:
        raise GradientError("a tensor that requires no gradient will never have one to show to a hook")
    backend = x.backend

    def show(grad: Any, _: Any) -> Any:
        """Bring an array into a tensor and back; a recorded gradient is one already."""
        if isinstance(grad, Value):
            found: Any = hook(grad)  # type: ignore[arg-type]  # every Value is a Tensor
            return grad if found is None else _checked(grad.array, found)
        with setting(grad_enabled=False, autocast=None):
            found = hook(Value.make(grad, backend))
        return grad if found is None else _checked(grad, found).array

    if getattr(edge, "hooks", None) is None:
        edge.hooks = {}
    assert edge.hooks is not None
    return RemovableHandle(edge.hooks, show)


def _checked(before: Array, found: Any) -> Value:
    """Hold what a hook returned to the gradient that it was given."""
    if not isinstance(found, Value) or found.array.shape != before.shape or found.array.dtype != before.dtype:
        what = f"{found.array.dtype}{found.shape}" if isinstance(found, Value) else type(found).__name__
        raise GradientError(
            f"a hook must return None or a gradient like its own, {before.dtype}{before.shape}, got {what}",
            op="register_hook",
        )
    return found


def retain_grad(x: Value) -> None:
    """Keep the gradient of a tensor that is no leaf; see :meth:`minimp.Tensor.retain_grad`."""
    if x.node is None and x.requires_grad:
        return  # a leaf keeps its gradient anyway
    held = ref(x)

    def keep(gradient: Tensor) -> None:
        target = held()
        if target is not None:
            target.grad = gradient if target.grad is None else ops.add(target.grad, gradient)

    register_hook(x, keep)
