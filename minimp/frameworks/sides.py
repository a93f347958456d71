"""minimp and PyTorch under one face, so that a program written once runs in both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from minimp import formats, functional, modes, nn, optim, tensors
from minimp.errors import MinimpError
from minimp.policy import autocast
from minimp.scaler import GradScaler
from minimp.tape import Event

__all__ = ["Minimp", "Side", "Torch", "both_sides", "show"]

Values = Any
"""Numbers in lists, however nested, or an array."""


class Side(ABC):
    """One of the two libraries.

    Attributes:
        name: what messages call it.
        nn, functional, optim, formats: its modules, and where its number formats are found by name.
    """

    name: str
    nn: Any
    functional: Any
    optim: Any
    formats: Any
    refusals: tuple[type[Exception], ...]
    """What it raises when it refuses a call; another exception is a fault of the comparison."""

    @abstractmethod
    def tensor(self, values: Values, dtype: str = "float32", requires_grad: bool = False) -> Any:
        """Return a tensor in the format of that name."""

    @abstractmethod
    def assign(self, tensor: Any, values: Values) -> None:
        """Give a leaf other values, as an optimizer would."""

    @abstractmethod
    def labels(self, values: np.ndarray[Any, Any]) -> Any:
        """Return whole numbers as losses and embeddings take them."""

    @abstractmethod
    def wide(self, tensor: Any) -> np.ndarray[Any, Any]:
        """Return a tensor's values in float64, which changes none."""

    @abstractmethod
    def format_of(self, tensor: Any) -> str:
        """Return the name of a tensor's format."""

    @abstractmethod
    def region(self, dtype: str, **options: Any) -> AbstractContextManager[Any]:
        """Open an autocast region by the rules for the CPU."""

    @abstractmethod
    def no_grad(self) -> AbstractContextManager[Any]:
        """Record nothing."""

    @abstractmethod
    def scaler(self, **settings: Any) -> Any:
        """Return a GradScaler."""

    @abstractmethod
    def casts(self, program: Callable[[], object], dtype: str) -> int:
        """Run a program, and return how many casts to `dtype` it makes on its way forward."""


class Minimp(Side):
    """minimp."""

    name = "minimp"
    nn, functional, optim, formats = nn, functional, optim, formats
    refusals = (MinimpError, TypeError)

    def tensor(self, values: Values, dtype: str = "float32", requires_grad: bool = False) -> Any:
        """Return a tensor."""
        return tensors.tensor(values, dtype=dtype, requires_grad=requires_grad)

    def assign(self, tensor: Any, values: Values) -> None:
        """Give it another array."""
        tensor.array = tensors.tensor(values, dtype=tensor.format).array

    def labels(self, values: np.ndarray[Any, Any]) -> Any:
        """Return the array."""
        return values

    def wide(self, tensor: Any) -> np.ndarray[Any, Any]:
        """Return float64 values."""
        return np.asarray(tensor.detach().numpy(), np.float64)

    def format_of(self, tensor: Any) -> str:
        """Return the name of the format."""
        return str(tensor.dtype.name)

    def region(self, dtype: str, **options: Any) -> AbstractContextManager[Any]:
        """Open a region under the policy "torch-cpu"."""
        return autocast(dtype, policy="torch-cpu", **options)

    def no_grad(self) -> AbstractContextManager[Any]:
        """Record nothing."""
        return modes.no_grad()

    def scaler(self, **settings: Any) -> Any:
        """Return a GradScaler."""
        return GradScaler(**settings)

    def casts(self, program: Callable[[], object], dtype: str) -> int:
        """Count the cast nodes of the tape."""
        events: list[Event] = []
        with modes.listen(events.append):
            program()
        made = [e.outputs[0] for e in events if e.phase == "forward" and e.node.op.name == "cast"]
        return sum(each is not None and self.format_of(each) == dtype for each in made)


class Torch(Side):
    """PyTorch on the CPU; it is imported when one of these is made."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self.torch = self.formats = torch
        self.nn, self.functional, self.optim = torch.nn, torch.nn.functional, torch.optim
        self.refusals = (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)

    def tensor(self, values: Values, dtype: str = "float32", requires_grad: bool = False) -> Any:
        """Return a tensor; the values are rounded once, from float64."""
        made = self.torch.tensor(np.asarray(values)).to(getattr(self.torch, dtype))
        return made.requires_grad_() if requires_grad else made

    def assign(self, tensor: Any, values: Values) -> None:
        """Write into it."""
        with self.torch.no_grad():
            tensor.copy_(self.torch.tensor(np.asarray(values)))

    def labels(self, values: np.ndarray[Any, Any]) -> Any:
        """Return a tensor of int64."""
        return self.torch.tensor(values)

    def wide(self, tensor: Any) -> np.ndarray[Any, Any]:
        """Return float64 values."""
        return np.array(tensor.detach().double().numpy())

    def format_of(self, tensor: Any) -> str:
        """Return the name of the format."""
        return str(tensor.dtype).removeprefix("torch.")

    def region(self, dtype: str, **options: Any) -> AbstractContextManager[Any]:
        """Open a region on the CPU."""
        made: AbstractContextManager[Any] = self.torch.autocast("cpu", getattr(self.torch, dtype), **options)
        return made

    def no_grad(self) -> AbstractContextManager[Any]:
        """Record nothing."""
        made: AbstractContextManager[Any] = self.torch.no_grad()
        return made

    def scaler(self, **settings: Any) -> Any:
        """Return a GradScaler of the CPU."""
        return self.torch.amp.GradScaler(**{"device": "cpu", **settings})

    def casts(self, program: Callable[[], object], dtype: str) -> int:
        """Count the copies to that format which the dispatcher sees."""
        from torch.utils._python_dispatch import TorchDispatchMode

        copy, wanted = self.torch.ops.aten._to_copy.default, getattr(self.torch, dtype)
        made = []

        class Count(TorchDispatchMode):  # type: ignore[misc]  # torch is not checked
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                del types
                if func is copy and (kwargs or {}).get("dtype") is wanted:
                    made.append(func)
                return func(*args, **(kwargs or {}))

        with Count():
            program()
        return len(made)


def both_sides() -> tuple[Side, Side]:
    """Return minimp and PyTorch."""
    return Minimp(), Torch()


def show(values: Any) -> str:
    """Write numbers so that each float32 has words of its own: ``"[1, -0, inf, nan]"``; all NaN are one."""
    array = np.asarray(values, np.float64)
    if array.ndim == 0:
        return "nan" if np.isnan(array) else f"{float(array):.9g}"
    return "[" + ", ".join(show(each) for each in array) + "]"
