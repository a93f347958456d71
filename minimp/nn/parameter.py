"""A parameter: a tensor that a module owns and an optimizer changes."""

from __future__ import annotations

from typing import Any

from minimp.errors import GradientError
from minimp.formats import Format
from minimp.tape.scales import mark, mark_of
from minimp.tensors import Tensor, tensor

__all__ = ["Parameter", "copy_leaf", "move", "recast"]


class Parameter(Tensor):
    """A leaf tensor that a module registers when it is assigned as an attribute (torch.nn.Parameter).

    What ops return from it are plain tensors. The optimizer replaces its `.array`; the object stays, so
    that optimizers and tied layers keep pointing at the same parameter.

    Args:
        data: a tensor, whose array is shared, or anything that :func:`minimp.tensor` takes.
        requires_grad: whether backward gives it a `.grad`.

    Raises:
        DataError, FormatError: as :func:`minimp.tensor`.
        GradientError: `data` was made by recorded ops, or is not of a floating format.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        if isinstance(data, Tensor) and data.node is not None:
            raise GradientError(
                "a parameter must be a leaf, and this tensor was made by a recorded op",
                op="Parameter",
                help="pass data.detach()",
            )
        source = data if isinstance(data, Tensor) else tensor(data)
        super().__init__(source.array, source.backend)
        self.requires_grad_(requires_grad)

    def __repr__(self) -> str:
        """Show the values under torch's heading."""
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """Copy the values, the gradient and whether one is wanted; the backend stays the same."""
        made: Parameter = copy_leaf(self)
        memo[id(self)] = made
        return made


def copy_leaf(source: Any) -> Any:
    """Return a leaf of `source`'s class with memory of its own, its gradient copied too."""
    made = source.__class__.__new__(source.__class__)
    Tensor.__init__(made, source.array.copy(), source.backend)
    made.requires_grad = source.requires_grad
    if source.grad is not None:
        made.grad = _marked(Tensor(source.grad.array.copy(), source.backend), source.grad)
    return made


def recast(leaf: Tensor, format: Format) -> None:
    """Turn a leaf and its gradient into another format, each element rounded once, the object kept.

    To nearest, ties to even; what is too large for the format becomes infinite. Integers stay as they are.
    """
    if leaf.format is None or leaf.format is format:
        return
    grad, leaf.grad = leaf.grad, None
    leaf.array = leaf.backend.cast(leaf.array, format)
    leaf.format = format
    if grad is not None:
        leaf.grad = _marked(Tensor(leaf.backend.cast(grad.array, format), leaf.backend), grad)


def move(leaf: Tensor, backend: Any) -> None:
    """Move a leaf and its gradient to another backend, the object kept."""
    if leaf.backend is backend:
        return
    grad, leaf.grad = leaf.grad, None
    leaf.array, leaf.backend = backend.from_host(leaf.backend.to_host(leaf.array)), backend
    if grad is not None:
        leaf.grad = _marked(Tensor(backend.from_host(grad.backend.to_host(grad.array)), backend), grad)


def _marked(made: Tensor, grad: Tensor) -> Tensor:
    """Return the copy of a gradient, which carries the loss scale that the gradient carries."""
    mark(made, mark_of(grad))
    return made
