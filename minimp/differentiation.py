"""Asking for gradients: backward, grad and hooks, and where each starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

from minimp import ops
from minimp.errors import GradientError, SettingError, ShapeError
from minimp.handles import RemovableHandle
from minimp.higher import recorded_gradients
from minimp.modes import setting
from minimp.tape import Array, Value, backward, gradients
from minimp.tape.scales import PLAIN, mark, mark_of, mark_shown, mark_sum, marks_behind, showing

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["grad", "register_hook", "retain_grad", "run_backward"]


def run_backward(output: Value, given: Any, *, retain_graph: bool | None, create_graph: bool) -> None:
    """Add the gradients of `output` to the `.grad` of its leaves; see :meth:`minimp.Tensor.backward`."""
    if not create_graph:
        seed = _seed(output, given)
        backward(output, seed.array, keep=bool(retain_graph), carried=mark_of(seed))
        return
    _refuse_freeing(retain_graph)
    seed = _seed(output, given)
    marks = marks_behind([output], [mark_of(seed)])
    with showing(marks):
        recorded = recorded_gradients([(output, seed)])
    for leaf, found in recorded.items():
        if isinstance(leaf, Value):
            held = leaf.grad
            made = found if held is None else ops.add(held, found)
            mark_sum(made, held, PLAIN if marks is None else marks(leaf))
            leaf.grad = made


def grad(
    outputs: Sequence[Tensor] | Tensor, inputs: Sequence[Tensor] | Tensor, grad_outputs: Any = None, *,
    retain_graph: bool | None = None, create_graph: bool = False, allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Return d(outputs)/d(inputs), one tensor per input, without touching any `.grad` (torch.autograd.grad).

    >>> x = mp.tensor(3.0, requires_grad=True)
    >>> (slope,) = mp.grad(x**3, x, create_graph=True)
    >>> mp.grad(slope, x)
    (tensor(18.),)

    Only what lies between the inputs and the outputs is differentiated: nothing else is freed, and no other
    hooks are called. The gradients of a loss that a scaler has multiplied carry its scale, and are marked so.

    Args:
        outputs: the tensor to differentiate; of several, the sum is differentiated.
        inputs: one tensor or several.
        grad_outputs: the gradient of the output; 1 for a tensor of one element. For several outputs, one for
            each, or None.
        retain_graph: keep what was saved, so that backward can run again; None does so with `create_graph`.
        create_graph: record the gradients, so that they can be differentiated again: for a gradient penalty.
        allow_unused: give None, instead of an error, for an input that `outputs` does not depend on.

    Raises:
        GradientError: an input needs no gradient, or is not used; or an op has no second derivative; or
            `retain_graph=False` stands beside `create_graph`.
        SettingError: an output or an input is no tensor, or there are not as many grad_outputs as outputs.
        ShapeError: a gradient is not of its output's shape.
    """
    wanted = _several("inputs", inputs)
    for i, x in enumerate(wanted):
        if not x.requires_grad:
            raise GradientError(
                f"input {i} does not require a gradient", op="grad", help="make it with requires_grad=True"
            )
    starts = _starts(outputs, grad_outputs)
    edges = [x.edge for x in wanted]
    only = frozenset(edge for edge in edges if edge is not None)
    found: Sequence[Tensor | None]
    marks = marks_behind([y for y, _ in starts], [mark_of(seed) for _, seed in starts])
    with showing(marks):
        if create_graph:
            _refuse_freeing(retain_graph)
            recorded = recorded_gradients(starts, only)
            found = [None if edge is None else recorded.get(edge) for edge in edges]
        else:
            arrays = gradients([(y, seed.array) for y, seed in starts], only, keep=bool(retain_graph))
            found = [
                None if edge is None or edge not in arrays else Value.make(arrays[edge], x.backend)
                for edge, x in zip(edges, wanted, strict=True)
            ]
    for i, (edge, each) in enumerate(zip(edges, found, strict=True)):
        if each is None and not allow_unused:
            raise GradientError(
                f"the output does not depend on input {i}", op="grad", help="pass allow_unused=True"
            )
        if marks is not None and edge is not None and each is not None:
            mark(each, marks(edge))
    return tuple(found)


def _several(what: str, given: Any) -> list[Tensor]:
    """Return a tensor, or a sequence of them, as a list."""
    found = [given] if isinstance(given, Value) else list(given) if isinstance(given, list | tuple) else []
    if not found or not all(isinstance(each, Value) for each in found):
        names = ", ".join(type(each).__name__ for each in found) or type(given).__name__
        raise SettingError(
            f"{what}: expected a tensor or a sequence of tensors, got {names}", op="grad",
            help="pass what ops returned, or leaves with requires_grad=True",
        )  # fmt: skip
    return found  # type: ignore[return-value]  # every Value is a Tensor


def _starts(outputs: Any, given: Any) -> list[tuple[Tensor, Tensor]]:
    """Return each output with the gradient that it starts from."""
    found = _several("outputs", outputs)
    if isinstance(outputs, Value):
        return [(found[0], _seed(outputs, given))]
    seeds = [None] * len(found) if given is None else given
    if not isinstance(seeds, list | tuple) or len(seeds) != len(found):
        count = len(seeds) if isinstance(seeds, list | tuple) else type(seeds).__name__
        raise SettingError(
            f"grad_outputs: expected one for each of {len(found)} outputs, got {count}", op="grad",
            help="pass a list of tensors; None in it stands for 1",
        )  # fmt: skip
    return [(y, _seed(y, seed)) for y, seed in zip(found, seeds, strict=True)]


def _refuse_freeing(retain_graph: bool | None) -> None:
    if retain_graph is False:
        raise GradientError(
            "retain_graph=False cannot act beside create_graph=True: what was saved is differentiated again",
            op="backward",
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
            f"expected a gradient of shape {output.shape}, got {start.array.shape}", op="backward",
            shapes=[output.shape, start.array.shape], help="a gradient has its tensor's shape",
        )  # fmt: skip
    if output.format is None or start.format is output.format:
        return start  # type: ignore[no-any-return]  # what is lifted is a Tensor
    made = ops.cast(start, format=output.format)
    mark(made, mark_of(start))
    return made


# ---- hooks ----------------------------------------------------------------------------------------------


def register_hook(x: Value, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook` with the gradient of `x`; see :meth:`minimp.Tensor.register_hook`."""
    if not callable(hook):
        raise SettingError(
            f"expected a function of a gradient, got {type(hook).__name__}", op="register_hook",
            help="pass a function that returns None or a gradient",
        )  # fmt: skip
    backend = x.backend

    def show(grad: Any, edge: Any) -> Any:
        """Bring an array into a tensor and back; a recorded gradient is one already."""
        if isinstance(grad, Value):
            mark(grad, mark_shown(edge))
            found: Any = hook(grad)  # type: ignore[arg-type]  # every Value is a Tensor
            return grad if found is None else _checked(grad.array, found)
        shown = Value.make(grad, backend)
        mark(shown, mark_shown(edge))
        with setting(grad_enabled=False, autocast=None):
            found = hook(shown)
        return grad if found is None else _checked(grad, found).array

    hooks = _hooks_of(x)
    handle = RemovableHandle(hooks, show)
    for number, each in list(hooks.items()):
        if isinstance(each, _Keeper):  # what is retained is what the last hook leaves
            hooks[number] = hooks.pop(number)
    return handle


def _hooks_of(x: Value) -> dict[int, Any]:
    """Return the table of the hooks on a tensor's gradient; there is one from now on."""
    edge = x.edge
    if edge is None:
        raise GradientError(
            "a tensor that requires no gradient will never have one to show to a hook",
            op="register_hook", help="make it with requires_grad=True",
        )  # fmt: skip
    if getattr(edge, "hooks", None) is None:
        edge.hooks = {}
    assert edge.hooks is not None
    return edge.hooks


def _checked(before: Array, found: Any) -> Value:
    """Hold what a hook returned to the gradient that it was given."""
    if not isinstance(found, Value) or found.array.shape != before.shape or found.array.dtype != before.dtype:
        what = f"{found.array.dtype}{found.shape}" if isinstance(found, Value) else type(found).__name__
        raise GradientError(
            f"a hook must return None or a gradient like its own, {before.dtype}{before.shape}, got {what}",
            op="register_hook", help="return a tensor of that shape, cast with .to(gradient.dtype)",
        )  # fmt: skip
    return found


class _Keeper:
    """The hook behind :func:`retain_grad`: adds each gradient to the `.grad` of a tensor, if that lives."""

    def __init__(self, x: Value) -> None:
        self.held = ref(x)

    def __call__(self, grad: Any, edge: Any) -> Any:
        target = self.held()
        if target is not None:
            with setting(grad_enabled=isinstance(grad, Value), autocast=None):
                found: Any = grad if isinstance(grad, Value) else Value.make(grad, target.backend)
                held = target.grad
                made = found if held is None else ops.add(held, found)
                mark_sum(made, held, mark_shown(edge))
                target.grad = made
        return grad


def retain_grad(x: Value) -> None:
    """Keep the gradient of a tensor that is no leaf; see :meth:`minimp.Tensor.retain_grad`."""
    if x.node is None and x.requires_grad:
        return  # a leaf keeps its gradient anyway
    hooks = _hooks_of(x)
    if not any(isinstance(each, _Keeper) and each.held() is x for each in hooks.values()):
        RemovableHandle(hooks, _Keeper(x))
