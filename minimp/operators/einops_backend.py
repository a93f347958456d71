"""What einops (Rogozhnikov 2022) needs to rearrange, reduce, repeat and contract tensors: a backend of its.

einops looks for a backend among the subclasses of its `AbstractBackend`. One is made by :func:`register`:
`import minimp` calls it where einops has been imported before, and `mp.tensor` where it has been since.
Nothing is imported that the user did not import.

>>> import einops
>>> x = mp.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
>>> einops.reduce(x, "rows columns -> columns", "mean")
tensor([2., 3.], op=mean)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.errors import SettingError, unknown_name
from minimp.policy import FLOATING
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["register"]

AT_ONCE = {"min": "amin", "max": "amax", "sum": "sum", "mean": "mean", "any": "any", "all": "all"}
"""einops' reductions, and the methods that take several axes."""


def register() -> None:
    """Make einops know tensors; a second call changes nothing.

    Raises:
        ImportError: einops is not installed.
    """
    _backend()


@cache  # and so kept: a class remembers its subclasses weakly
def _backend() -> type:
    from einops._backends import AbstractBackend

    return type("MinimpBackend", (Words, AbstractBackend), {})


class Words:
    """einops' words in tensor methods; every step is recorded, so gradients flow."""

    framework_name = "minimp"

    def is_appropriate_type(self, tensor: Any) -> bool:
        """Tell whether this is a tensor of minimp's."""
        return isinstance(tensor, Value)

    def from_numpy(self, x: Any) -> Tensor:
        """Make a tensor; one of floats asks for a gradient, as einops' own backends do."""
        made = Value.lift(x, None)
        return made.requires_grad_() if self.is_float_type(made) else made

    def to_numpy(self, x: Tensor) -> Any:
        """Return the values."""
        return x.detach().numpy()

    def arange(self, start: int, stop: int) -> Tensor:
        """Return whole numbers from `start` to before `stop`."""
        return Value.lift(list(range(start, stop)), None)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Change the shape."""
        return x.reshape(tuple(shape))

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Reorder the axes."""
        return x.permute(tuple(axes))

    def reduce(self, x: Tensor, operation: str, axes: Sequence[int]) -> Tensor:
        """Reduce over several axes."""
        if operation in AT_ONCE:
            return getattr(x, AT_ONCE[operation])(dim=tuple(axes))  # type: ignore[no-any-return]  # a method
        if operation != "prod":
            raise SettingError(unknown_name("reduction", operation, [*AT_ONCE, "prod"]))
        for axis in sorted(axes, reverse=True):
            x = x.prod(axis)
        return x

    def stack_on_zeroth_dimension(self, tensors: Sequence[Tensor]) -> Tensor:
        """Stack a list."""
        return ops.stack(*tensors)

    def add_axes(self, x: Tensor, n_axes: int, pos2len: Mapping[int, int]) -> Tensor:
        """Insert axes, and repeat along them."""
        lengths = [-1] * n_axes
        for position, length in pos2len.items():
            x, lengths[position] = self.add_axis(x, position), length
        return x.expand(lengths)

    def add_axis(self, x: Tensor, new_position: int) -> Tensor:
        """Insert an axis of length 1."""
        return x.unsqueeze(new_position)

    def tile(self, x: Tensor, repeats: Sequence[int]) -> Tensor:
        """Repeat the whole tensor along each axis."""
        return x.repeat(tuple(repeats))

    def concat(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        """Join along an axis."""
        return ops.cat(*tensors, dim=axis)

    def is_float_type(self, x: Tensor) -> bool:
        """Tell whether it holds floats, of which a mean can be taken."""
        return x.format in FLOATING

    def einsum(self, pattern: str, *x: Tensor) -> Tensor:
        """Contract."""
        functional = import_module("minimp.functional")  # a layer above
        return functional.einsum(pattern, *x)  # type: ignore[no-any-return]  # a tensor
